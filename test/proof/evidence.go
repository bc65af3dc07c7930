package proof

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/fhir"
)

// Witnesses are the parts that Judge asks, beside the senders.
type Witnesses struct {
	Operator  Operator
	Sandbox   string      // URL of the sandbox EHR
	EHR       *ecw.Client // reaches it as eCW is reached
	Temporal  client.Client
	Processes []string // the log files of our own processes
	// Settled is called before the EHR is asked for every reading. It removes what would stop that, such as a
	// limit on requests. It may be nil.
	Settled func(context.Context) error
}

// Judge waits until every accepted reading is delivered or has failed, and compares what the witnesses say of
// each. No device may still be sending.
func (w Witnesses) Judge(ctx context.Context, d *Devices) (Verdict, error) {
	e, err := w.gather(ctx, d)
	return judge(e), err
}

func (w Witnesses) gather(ctx context.Context, d *Devices) (evidence, error) {
	e := evidence{accepted: slices.Collect(maps.Keys(d.accepted)), problems: d.problems}
	var err error
	if e.latest, err = w.Operator.settle(ctx, e.accepted); err != nil {
		e.problems = append(e.problems, err.Error())
	}

	stats, err := w.stats(ctx)
	if err != nil {
		return e, err
	}

	e.limit, e.load = stats.Limit, stats.Load
	if w.Settled != nil {
		if err := w.Settled(ctx); err != nil {
			return e, err
		}
	}

	if e.ehr, err = w.inEHR(ctx, d.accepted); err != nil {
		return e, err
	}

	if e.running, err = w.runningWorkflows(ctx); err != nil {
		return e, err
	}

	for _, logFile := range w.Processes {
		found, err := alarms(logFile)
		if err != nil {
			return e, err
		}
		e.problems = append(e.problems, found...)
	}

	return e, nil
}

func (w Witnesses) stats(ctx context.Context) (stats sandbox.Stats, err error) {
	err = Call(ctx, http.MethodGet, w.Sandbox+"/admin/stats", "", nil, &stats)
	return stats, err
}

// inEHR lists what the EHR stored under our identifiers, and searches it for every accepted observation.
func (w Witnesses) inEHR(ctx context.Context, accepted map[string]patient) (map[string]holdings, error) {
	stats, err := w.stats(ctx)
	if err != nil {
		return nil, err
	}

	held := map[string]holdings{}
	for identifier, count := range stats.Creates.Stored {
		held[strings.TrimPrefix(identifier, fhir.IdentifierSystem+"|")] = holdings{count: count}
	}

	for id, p := range accepted {
		found, ok, err := w.EHR.FindObservation(ctx, ecw.Identifier{System: fhir.IdentifierSystem, Value: id}, p.fhirID)
		if err != nil {
			return nil, fmt.Errorf("search the EHR for %s: %w", id, err)
		}
		if h := held[id]; ok {
			h.found = found.ID
			held[id] = h
		}
	}

	return held, nil
}

// runningWorkflows counts the transmissions that have not ended, and waits up to a minute for them to end.
func (w Witnesses) runningWorkflows(ctx context.Context) (int, error) {
	for end := time.Now().Add(time.Minute); ; pause(ctx, time.Second) {
		answer, err := w.Temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
			Query: `WorkflowType = "Transmission" AND ExecutionStatus = "Running"`,
		})
		if err != nil {
			return 0, err
		}
		if answer.Count == 0 || time.Now().After(end) {
			return int(answer.Count), nil
		}
	}
}

// alarms returns the lines of a log that show a bug, even if every reading was delivered.
func alarms(logFile string) ([]string, error) {
	file, err := os.Open(logFile)
	if err != nil {
		return nil, err
	}
	defer file.Close()

	var found []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.ToLower(lines.Text())
		if strings.Contains(line, "panic") || strings.Contains(line, "nondeterminis") || strings.Contains(line, "tmprl1100") {
			found = append(found, lines.Text())
		}
	}

	return found, lines.Err()
}

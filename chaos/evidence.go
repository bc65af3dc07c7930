package main

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

// gather waits until all is settled and asks the witnesses.
func gather(ctx context.Context, s *system, g *gateway, o operator) (evidence, error) {
	e := evidence{accepted: slices.Collect(maps.Keys(g.accepted)), problems: g.problems}
	var err error
	if e.first, err = o.settle(ctx, e.accepted); err != nil {
		e.problems = append(e.problems, err.Error())
	}
	if e.last, err = o.transmitFailed(ctx, e.first); err != nil {
		e.problems = append(e.problems, err.Error())
	}
	if e.ehr, err = s.inEHR(ctx, g.accepted); err != nil {
		return e, err
	}
	if e.running, err = s.runningWorkflows(ctx); err != nil {
		return e, err
	}
	for _, role := range []string{apiPart, workerPart, sandboxPart} {
		found, err := alarms(s.logFile(role))
		if err != nil {
			return e, err
		}
		e.problems = append(e.problems, found...)
	}
	return e, nil
}

func (s *system) addFault(ctx context.Context, f fault) error {
	return callJSON(ctx, http.MethodPost, s.url(sandboxPart)+"/admin/faults", "", f, nil)
}

func (s *system) clearFaults(ctx context.Context) error {
	return callJSON(ctx, http.MethodDelete, s.url(sandboxPart)+"/admin/faults", "", nil, nil)
}

// inEHR lists what the EHR stored under our identifiers, and searches it for every accepted observation.
func (s *system) inEHR(ctx context.Context, accepted map[string]patient) (map[string]holdings, error) {
	var stats sandbox.Stats
	if err := callJSON(ctx, http.MethodGet, s.url(sandboxPart)+"/admin/stats", "", nil, &stats); err != nil {
		return nil, err
	}
	held := map[string]holdings{}
	for identifier, count := range stats.Creates.Stored {
		held[strings.TrimPrefix(identifier, fhir.IdentifierSystem+"|")] = holdings{count: count}
	}
	ehr, err := s.ehr()
	if err != nil {
		return nil, err
	}
	for id, p := range accepted {
		found, ok, err := ehr.FindObservation(ctx, ecw.Identifier{System: fhir.IdentifierSystem, Value: id}, p.fhirID)
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

// runningWorkflows counts the transmissions that have not ended; those that just did get a moment.
func (s *system) runningWorkflows(ctx context.Context) (int, error) {
	c, err := client.DialContext(ctx, client.Options{HostPort: s.address(temporalPart), Logger: s.log})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for end := time.Now().Add(time.Minute); ; pause(ctx, time.Second) {
		answer, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
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

// alarms returns the lines of a log that tell of a bug whatever became of the readings.
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

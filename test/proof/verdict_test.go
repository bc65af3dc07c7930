package proof

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	row := func(status, ecwID, class string) map[string]transmission {
		return map[string]transmission{"a": {
			ID:               "TXN-2026-00001",
			ObservationID:    "a",
			Status:           status,
			ECWObservationID: &ecwID,
			ErrorClass:       &class,
		}}
	}

	retried := row("failed", "", "retryable")
	at := time.Now()
	retried["a"] = transmission{Status: "failed", NextRetryAt: &at}
	again := row("transmitted", "obs-1", "")
	again["a"] = transmission{Status: "transmitted", ECWObservationID: again["a"].ECWObservationID, nth: 2}
	delivered := evidence{accepted: []string{"a"}, latest: row("transmitted", "obs-1", ""), ehr: map[string]holdings{"a": {count: 1, found: "obs-1"}}}
	for name, c := range map[string]struct {
		change func(*evidence)
		want   Verdict
		says   string
	}{
		"delivered": {func(*evidence) {}, Verdict{Delivered: 1}, ""},
		"failed, and in no chart": {func(e *evidence) {
			e.latest, e.ehr = row("failed", "", "permanent_data"), nil
		}, Verdict{Failed: map[string]int{"permanent_data": 1}}, ""},
		"lost, and to be retried":        {func(e *evidence) { e.latest, e.ehr = retried, nil }, Verdict{Lost: 1}, "is not in the EHR"},
		"lost, and pending":              {func(e *evidence) { e.latest, e.ehr = row("pending", "", ""), nil }, Verdict{Lost: 1}, "is not in the EHR"},
		"lost without a row":             {func(e *evidence) { e.latest, e.ehr = nil, nil }, Verdict{Lost: 1}, "is not in the EHR"},
		"said to be delivered, but lost": {func(e *evidence) { e.ehr = nil }, Verdict{Lost: 1, WrongStatus: 1}, "is not in the EHR"},
		"said to have failed, but delivered": {func(e *evidence) {
			e.latest = row("failed", "", "unknown")
		}, Verdict{WrongStatus: 1}, "is in the EHR as obs-1"},
		"said to be processing, but delivered": {func(e *evidence) {
			e.latest = row("processing", "", "")
		}, Verdict{WrongStatus: 1}, "is in the EHR as obs-1"},
		"another id": {func(e *evidence) {
			e.latest = row("transmitted", "obs-2", "")
		}, Verdict{WrongStatus: 1}, "is in the EHR as obs-1"},
		"not to be found": {func(e *evidence) { e.ehr = map[string]holdings{"a": {count: 1}} }, Verdict{WrongStatus: 1}, "is in the EHR"},
		"twice":           {func(e *evidence) { e.ehr = map[string]holdings{"a": {count: 2, found: "obs-1"}} }, Verdict{Duplicates: 1}, "stands 2 times"},
		"never accepted": {func(e *evidence) {
			e.ehr = map[string]holdings{"a": {count: 1, found: "obs-1"}, "b": {count: 1}}
		}, Verdict{Delivered: 1}, "which no sender had accepted"},
		"transmitted anew by itself": {func(e *evidence) { e.latest = again }, Verdict{Delivered: 1}, "had 2 transmissions"},
		"a workflow goes on":         {func(e *evidence) { e.running = 1 }, Verdict{Delivered: 1, StuckWorkflows: 1}, ""},
		"too many requests":          {func(e *evidence) { e.limit.Exceeded = 1 }, Verdict{Delivered: 1, OverLimit: 1}, ""},
		"many at once":               {func(e *evidence) { e.load.MostInFlight = 900 }, Verdict{Delivered: 1, MostInFlight: 900}, ""},
		"a panic":                    {func(e *evidence) { e.problems = []string{"panic: nil"} }, Verdict{Delivered: 1}, "panic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := delivered
			c.change(&e)
			got := judge(e)
			problems := strings.Join(got.Problems, "\n")
			good := name == "delivered" || name == "many at once"
			if got.OK() != good || !strings.Contains(problems, c.says) || good && problems != "" {
				t.Errorf("ok is %v, problems %q, want %q", got.OK(), problems, c.says)
			}

			c.want.Accepted, got.Problems = 1, nil
			if c.want.Failed == nil {
				c.want.Failed = map[string]int{}
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestAFailureThatIsKnownIsInOrderBesideDeliveries(t *testing.T) {
	t.Parallel()
	v := Verdict{
		Accepted:     3,
		Delivered:    1,
		Failed:       map[string]int{"permanent_data": 2},
		MostInFlight: 17,
		Openings:     map[string]int{"unavailable": 2, "credentials": 1},
	}
	if !v.OK() {
		t.Error("truthful failures are taken for a broken promise")
	}

	var table bytes.Buffer
	if err := v.Write(&table); err != nil {
		t.Fatal(err)
	}

	for _, says := range []string{"permanent_data 2", "most requests under way at once  17", "credentials 1, unavailable 2"} {
		if !strings.Contains(table.String(), says) {
			t.Errorf("the table lacks %q:\n%s", says, &table)
		}
	}
}

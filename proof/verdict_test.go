package proof

import (
	"reflect"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	row := func(status, ecwID string) transmission {
		return transmission{ID: "TXN-2026-00001", ObservationID: "a", Status: status, ECWObservationID: &ecwID}
	}
	delivered := evidence{
		accepted: []string{"a"}, first: map[string]transmission{"a": row("transmitted", "obs-1")}, last: map[string]transmission{"a": row("transmitted", "obs-1")},
		ehr: map[string]holdings{"a": {count: 1, found: "obs-1"}},
	}
	for name, c := range map[string]struct {
		change func(*evidence)
		want   Verdict
		says   string
	}{
		"delivered": {func(*evidence) {}, Verdict{Delivered: 1}, ""},
		"delivered after a transmit": {func(e *evidence) {
			e.first = map[string]transmission{"a": row("failed", "")}
		}, Verdict{DeliveredByTransmit: 1}, ""},
		"lost": {func(e *evidence) {
			e.last, e.ehr = map[string]transmission{"a": row("failed", "")}, nil
		}, Verdict{Lost: 1}, "is not in the EHR"},
		"lost without a row":             {func(e *evidence) { e.last, e.ehr = nil, nil }, Verdict{Lost: 1}, "is not in the EHR"},
		"said to be delivered, but lost": {func(e *evidence) { e.ehr = nil }, Verdict{Lost: 1, WrongStatus: 1}, "is not in the EHR"},
		"said to be failed, but delivered": {func(e *evidence) {
			e.last = map[string]transmission{"a": row("failed", "")}
		}, Verdict{WrongStatus: 1}, "is in the EHR as obs-1"},
		"another id": {func(e *evidence) {
			e.last = map[string]transmission{"a": row("transmitted", "obs-2")}
		}, Verdict{WrongStatus: 1}, "is in the EHR as obs-1"},
		"not to be found": {func(e *evidence) { e.ehr = map[string]holdings{"a": {count: 1}} }, Verdict{WrongStatus: 1}, "is in the EHR"},
		"twice":           {func(e *evidence) { e.ehr = map[string]holdings{"a": {count: 2, found: "obs-1"}} }, Verdict{Duplicates: 1}, "stands 2 times"},
		"never accepted": {func(e *evidence) {
			e.ehr = map[string]holdings{"a": {count: 1, found: "obs-1"}, "b": {count: 1}}
		}, Verdict{Delivered: 1}, "which no sender was told of"},
		"transmitted anew by itself": {func(e *evidence) {
			again := row("transmitted", "obs-1")
			again.nth = 2
			e.first = map[string]transmission{"a": again}
		}, Verdict{Delivered: 1}, "had 2 transmissions"},
		"a workflow goes on": {func(e *evidence) { e.running = 1 }, Verdict{Delivered: 1, StuckWorkflows: 1}, ""},
		"a panic":            {func(e *evidence) { e.problems = []string{"panic: nil"} }, Verdict{Delivered: 1}, "panic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := delivered
			c.change(&e)
			got := judge(e)
			problems := strings.Join(got.Problems, "\n")
			good := name == "delivered" || name == "delivered after a transmit"
			if got.OK() != good || !strings.Contains(problems, c.says) || good && problems != "" {
				t.Errorf("ok is %v, problems %q, want %q", got.OK(), problems, c.says)
			}
			c.want.Accepted, got.Problems = 1, nil
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	if (Verdict{}).OK() {
		t.Error("a run without a reading proves nothing")
	}
}

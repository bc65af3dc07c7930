package activities

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// findEarlier looks for what an earlier delivery has left in eCW: in the chart that it was sent to, which is not the
// patient's any more when that was linked to another one since. chart is where it is; nil is nowhere.
func (a *Transmission) findEarlier(
	ctx context.Context, o db.Observation, charts []db.Chart, id ecw.Identifier,
) (found ecw.Delivered, chart *db.Chart, err error) {
	for _, chart := range charts {
		resource, err := outgoing(o, chart.ECWPatientID)
		if err != nil {
			return found, nil, err
		}
		found, exists, err := a.EHR.FindDelivered(ctx, resource, id)
		if err != nil {
			return found, nil, err
		}
		if exists {
			return found, &chart, nil
		}
	}
	return found, nil, nil
}

// charts are those to look in, the present one first.
func charts(present db.Chart, sentTo []db.Chart) []db.Chart {
	list := []db.Chart{present}
	for _, chart := range sentTo {
		if !slices.Contains(list, chart) {
			list = append(list, chart)
		}
	}
	return list
}

// sentTo lists the charts to which the reading may have been sent. The attempts say so: as long as eCW has not acknowledged
// the reading, none of them is pruned. Of a reading that was pruned itself they are gone, and any chart that the patient ever
// had is one.
func (a *Transmission) sentTo(ctx context.Context, p db.Patient, earlier []db.ChartAttempt, pruned bool) (list []db.Chart, err error) {
	if pruned {
		return a.Store.ListCharts(ctx, p.ID)
	}
	for _, sent := range earlier {
		if chart, known := sent.Chart(); known {
			list = append(list, chart)
		}
	}
	return list, nil
}

// mayBePruned reports whether the reading may be one that was delivered, pruned, and has come again. It looks new then, and
// eCW has to be asked first.
func mayBePruned(o db.Observation, p db.Patient) bool {
	return p.ReadingsPrunedTo != nil && !o.EffectiveAt.After(*p.ReadingsPrunedTo)
}

// resendAt is when a reading may be sent again that eCW does not show: the schedule's first wait after the last send whose
// outcome is unknown, for eCW's searches may show it only then. It is zero when there is no such send. unknownSince is what
// the workflow knows of one. This is the one place for that rule: whatever brings a reading here again has to pass it.
func (a *Transmission) resendAt(earlier []db.ChartAttempt, unknownSince time.Time) time.Time {
	last := unknownSince
	for _, sent := range earlier {
		ended := sent.SentAt.Add(a.Gate.Lease()) // nobody recorded how it ended: as late as it can have
		if sent.FinishedAt != nil {
			ended = *sent.FinishedAt
		}
		unknown := sent.FinishedAt == nil || sent.ErrorClass == string(ecw.ClassUnknown)
		if unknown && ended.After(last) {
			last = ended
		}
	}
	if last.IsZero() {
		return last
	}
	return last.Add(a.Gate.FirstWait()).Truncate(time.Millisecond) // the database rounds to microseconds
}

func notVisibleYet(at time.Time) error {
	return failure(Failure{
		Class:      ecw.ClassUnknown,
		Code:       CodeNotVisibleYet,
		Finding:    gate.Answers,
		HTTPStatus: http.StatusOK,
		RetryAt:    at,
		LookingUp:  true,
		Message:    "An earlier delivery may have arrived, and eCW may not show it yet: it is looked up again before anything is sent",
	})
}

// lookUpFailed turns an error of the look-up into an activity error. However a search is refused, that says nothing about
// the reading: what was unknown before still is.
func (a *Transmission) lookUpFailed(ctx context.Context, b begun, took time.Duration, err error) error {
	f := failureOf(err)
	f.LookingUp = true
	switch {
	case f.Code == ecw.CodeRateLimited:
		return a.failed(ctx, b, err)
	case f.Class == ecw.ClassPermanentData, f.Finding == gate.Forbids:
		f.Message = "eCW could not be asked whether an earlier delivery arrived"
		f.Class, f.Finding = ecw.ClassUnknown, gate.Answers
	case f.Finding == gate.Unavailable:
		f.Alone = a.othersWereAnswered(ctx, took)
	}
	return failure(f)
}

// othersWereAnswered reports whether eCW answered anybody in the time just past.
func (a *Transmission) othersWereAnswered(ctx context.Context, within time.Duration) bool {
	ago, err := a.Gate.SinceAnswered(ctx)
	return err == nil && ago < within
}

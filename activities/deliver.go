package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// FirstDelivery is what Deliver has done.
type FirstDelivery struct {
	// Opened is zero when nothing was done: the workflow then goes step by step.
	Opened Opened `json:",omitzero"`
	// MayBeSent means that nothing was done, and that a worker which was lost may have sent the reading: the database cannot
	// be asked, or does not know of it and may have been restored since.
	MayBeSent bool `json:",omitempty"`
	// TransformedAt is when the FHIR resource was made.
	TransformedAt time.Time `json:",omitzero"`
	// StartedAt is when the delivery began; zero when it did not.
	StartedAt time.Time `json:",omitzero"`
	// Admission says how it waits, if it does.
	Admission Admission `json:",omitzero"`
	// Authenticated means that eCW gave us an access token.
	Authenticated bool `json:",omitempty"`
	// NotSent means that the delivery broke off before anything left for eCW.
	NotSent bool `json:",omitempty"`
	// Posted is set when eCW acknowledged, otherwise Failure is.
	Posted  *Posted  `json:",omitempty"`
	Failure *Failure `json:",omitempty"`
	// Recorded means that the outcome stands in the database.
	Recorded bool `json:",omitempty"`
}

// Begun reports whether the delivery has begun, or waits. Otherwise the transmission is open at most.
func (d FirstDelivery) Begun() bool { return !d.StartedAt.IsZero() || d.Admission.Waits() }

// DeliverInput names what to deliver.
type DeliverInput struct {
	ObservationRef
	// At is the workflow's time.
	At time.Time
	// Again means that a worker was given the workflow's first task before, and may have been lost in the middle of it.
	Again bool `json:",omitempty"`
}

// Deliver makes the first delivery of an observation, at once or when it was called from the queue: Open, Transform, Admit, Authenticate, Post and Record in one, for the
// first delivery, with one transaction before the send and one after it. Whatever stands in the way it leaves to the
// workflow, and whatever but success comes of it. While eCW answers slowly, or has to give a token first, Deliver only
// opens the transmission: a workflow task should not last as long as that.
//
// It is a local activity of the workflow's first task, which Temporal knows nothing of until it is over. When the worker
// is lost before that, it runs a second time. At most once is what the attempt's row is for: it is marked as sent before
// anything leaves, and a run that finds it unfinished sends nothing; the outcome is then unknown, and the next delivery
// looks first.
func (a *Transmission) Deliver(ctx context.Context, in DeliverInput) (FirstDelivery, error) {
	called, ref := time.Now(), in.ObservationRef
	if ref.LookUp {
		return FirstDelivery{}, nil
	}
	row, err := a.Store.GetUndelivered(ctx, db.GetUndeliveredParams{PracticeCode: ref.PracticeCode, ID: ref.ObservationID})
	if in.Again && (err != nil || !row.Known) {
		return FirstDelivery{MayBeSent: true}, nil
	}
	if err != nil {
		return FirstDelivery{}, fmt.Errorf("load observation: %w", err)
	}
	chart, linked := row.Patient.Chart()
	if !linked || row.Patient.ArchivedAt != nil || mayBePruned(row.Observation, row.Patient) {
		return FirstDelivery{}, nil
	}
	d := first{
		Transmission: a,
		ref:          ref,
		row:          row,
		chart:        chart,
		now:          called.UTC(),
		sentAt:       func() time.Time { return in.At.Add(time.Since(called)) },
		atOnce:       a.EHR.HoldsToken() && !a.Gate.AnswersSlowly(),
	}
	switch {
	case row.Known:
		return d.takeUp(ctx)
	case row.Patient.MismatchSince != nil, d.transform() != nil:
		return FirstDelivery{}, nil
	}
	return d.deliver(ctx)
}

// takeUp is for an observation that something was done for already: by Deliver, which held it in the queue, or was lost in
// the middle of the delivery; else by the workflow step by step.
func (d *first) takeUp(ctx context.Context) (FirstDelivery, error) {
	t, err := d.latest(ctx, d.ref)
	if err != nil {
		return FirstDelivery{}, fmt.Errorf("load transmission: %w", err)
	}
	made, err := d.Store.ListAttempts(ctx, t.ID)
	if err != nil {
		return FirstDelivery{}, fmt.Errorf("load attempts: %w", err)
	}
	if d.row.Observation.TransformedAt == nil {
		return FirstDelivery{}, nil
	}

	d.now = *d.row.Observation.TransformedAt
	out := d.begun(t.ID, t.Number)
	out.Opened.MaxAttempts = int(t.MaxAttempts) // what RETRY_DELAYS allowed when it was opened
	switch {
	case t.HeldAt != nil && len(made) == 0 && d.atOnce && !d.row.Shut && d.row.Patient.MismatchSince == nil:
		return d.resume(ctx, out)
	case t.Status == db.StatusProcessing && len(made) == 1 && made[0].SentAt != nil && made[0].FinishedAt == nil:
		lost := workerLost()
		out.StartedAt, out.Authenticated, out.Failure = made[0].StartedAt, true, &lost
		return out, nil
	}
	return FirstDelivery{}, nil
}

// resume makes the first delivery of a transmission that was called from the queue.
func (d *first) resume(ctx context.Context, out FirstDelivery) (FirstDelivery, error) {
	sent, err := outgoing(d.row.Observation, d.chart.ECWPatientID)
	if err != nil {
		return FirstDelivery{}, nil
	}
	d.sent = sent
	err = d.Store.InTx(ctx, func(q *db.Queries) (err error) {
		out.StartedAt, err = q.ResumeDelivery(ctx, db.ResumeDeliveryParams{
			ID:            out.Opened.TransmissionID,
			ObservationID: d.ref.ObservationID,
			Lease:         d.Gate.Lease().Seconds(),
			SentAt:        d.sentAt(),
			PatientID:     d.row.Patient.ID,
			ChartID:       d.chart.ID,
		})
		if err != nil {
			return err
		}
		return auditSend(ctx, q, d.ref, d.row.Patient.ID)
	})
	if db.IsNotFound(err) {
		return FirstDelivery{}, nil
	}
	if err != nil {
		return FirstDelivery{}, fmt.Errorf("begin the delivery: %w", err)
	}
	return d.send(gate.Delivering(ctx, out.Opened.TransmissionID), out), nil
}

// first is one Deliver.
type first struct {
	*Transmission
	ref   ObservationRef
	row   db.GetUndeliveredRow
	chart db.Chart // the patient's
	now   time.Time
	// sentAt is the time of the workflow, as everywhere where it is decided when a reading may be sent again.
	// PostgreSQL's clock and the worker's may be minutes apart from it.
	sentAt func() time.Time
	atOnce bool // else the transmission is only opened

	stored json.RawMessage // the resource as it is kept
	sent   json.RawMessage // and as it is sent
}

func (d *first) transform() error {
	resource, stored, err := transform(d.row.Observation, d.row.Patient, d.transformedAt())
	if err != nil {
		return err
	}
	d.stored = stored
	d.sent, err = forDelivery(resource, d.chart.ECWPatientID)
	return err
}

func (d *first) transformedAt() time.Time { return d.now.Truncate(time.Second) }

// deliver begins the delivery, if it may, and sends.
func (d *first) deliver(ctx context.Context) (FirstDelivery, error) {
	if d.atOnce && !d.row.Shut {
		delivering, out, passed, err := d.beginWithPass(ctx)
		switch {
		case err != nil:
			return FirstDelivery{}, err
		case !out.StartedAt.IsZero():
			return d.send(delivering, out), nil
		case passed: // something has changed meanwhile: step by step, all of it is looked at again
			return FirstDelivery{}, nil
		}
	}

	out, err := d.begin(ctx)
	if err != nil || out.StartedAt.IsZero() {
		return out, err
	}
	return d.send(gate.Delivering(ctx, out.Opened.TransmissionID), out), nil
}

// beginWithPass opens the transmission and its first delivery at once, if there is a pass. The context is the
// delivery's. passed without a delivery means that the pass was of no use.
func (d *first) beginWithPass(ctx context.Context) (delivering context.Context, out FirstDelivery, passed bool, err error) {
	pass, ok, err := d.Gate.Pass(ctx)
	if err != nil || !ok {
		return ctx, FirstDelivery{}, false, err
	}
	at := d.transformedAt()
	var begun db.BeginDeliveryRow
	err = d.Store.InTx(ctx, func(q *db.Queries) (err error) {
		begun, err = q.BeginDelivery(ctx, db.BeginDeliveryParams{
			ID:              pass.ID,
			PracticeCode:    d.ref.PracticeCode,
			ObservationID:   d.ref.ObservationID,
			MaxAttempts:     d.maxAttempts(),
			Lease:           d.Gate.Lease().Seconds(),
			Resource:        d.stored,
			ResourceVersion: d.row.Observation.ResourceVersion + 1,
			TransformedAt:   &at,
			SentAt:          d.sentAt(),
			PatientID:       d.row.Patient.ID,
			ChartID:         d.chart.ID,
		})
		if err != nil {
			return err
		}
		return auditSend(ctx, q, d.ref, d.row.Patient.ID)
	})
	if db.IsNotFound(err) {
		_, err := d.Store.LeavePlace(ctx, pass.ID)
		return ctx, FirstDelivery{}, true, err
	}
	if err != nil {
		return ctx, FirstDelivery{}, true, fmt.Errorf("begin the delivery: %w", err)
	}
	out = d.begun(pass.ID, begun.Number)
	out.StartedAt = begun.BeganAt
	return gate.DeliveringWith(ctx, pass, begun.BeganAt), out, true, nil
}

// begin opens the transmission, and its first delivery if the gate lets it begin.
func (d *first) begin(ctx context.Context) (out FirstDelivery, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return FirstDelivery{}, fmt.Errorf("make the transmission's id: %w", err)
	}
	err = d.Store.InTx(ctx, func(q *db.Queries) error {
		out, err = d.open(ctx, q, id)
		if err != nil {
			return err
		}
		out.Admission, err = d.Gate.AdmitIn(ctx, q, gate.Request{TransmissionID: id, ObservationID: d.ref.ObservationID})
		if err != nil || out.Admission.Waits() || !d.atOnce {
			return err
		}
		out.StartedAt = d.now
		return d.start(ctx, q, id)
	})
	if err != nil {
		return FirstDelivery{}, fmt.Errorf("begin the delivery: %w", err)
	}
	if out.Admission.Waits() {
		d.Gate.CallNext(ctx)
	}
	return out, nil
}

func (d *first) open(ctx context.Context, q *db.Queries, id uuid.UUID) (FirstDelivery, error) {
	err := q.OpenTransmission(ctx, db.OpenTransmissionParams{
		ID:            id,
		PracticeCode:  d.ref.PracticeCode,
		ObservationID: d.ref.ObservationID,
		MaxAttempts:   d.maxAttempts(),
	})
	if err != nil {
		return FirstDelivery{}, err
	}
	at := d.transformedAt()
	err = q.SaveResource(ctx, db.SaveResourceParams{
		PracticeCode:    d.ref.PracticeCode,
		ID:              d.ref.ObservationID,
		Resource:        d.stored,
		ResourceVersion: d.row.Observation.ResourceVersion + 1,
		TransformedAt:   &at,
	})
	if err != nil {
		return FirstDelivery{}, err
	}
	opened, err := q.LatestTransmission(ctx, db.LatestTransmissionParams{
		PracticeCode:  d.ref.PracticeCode,
		ObservationID: d.ref.ObservationID,
	})
	if d.now.Before(opened.CreatedAt) { // PostgreSQL's clock is ahead
		d.now = opened.CreatedAt
	}
	return d.begun(id, opened.Number), err
}

// start marks the delivery as sent, and says so in the audit trail.
func (d *first) start(ctx context.Context, q *db.Queries, id uuid.UUID) error {
	err := db.Written(q.StartAttempt(ctx, db.StartAttemptParams{
		TransmissionID: id,
		ObservationID:  d.ref.ObservationID,
		Delivery:       1,
		Number:         1,
		StartedAt:      d.now,
	}))
	if err != nil {
		return err
	}
	err = db.Written(q.MarkSent(ctx, db.MarkSentParams{
		TransmissionID: id,
		ObservationID:  d.ref.ObservationID,
		Delivery:       1,
		SentAt:         d.sentAt(),
		ChartID:        d.chart.ID,
	}))
	if err != nil {
		return err
	}
	return auditSend(ctx, q, d.ref, d.row.Patient.ID)
}

// begun is what was done when the transmission is open.
func (d *first) begun(id uuid.UUID, number string) FirstDelivery {
	t := db.Transmission{ID: id, Number: number, MaxAttempts: d.maxAttempts()}
	return FirstDelivery{Opened: d.opened(t, d.row.Observation), TransformedAt: d.transformedAt()}
}

// send creates the observation in eCW, and records a success.
func (d *first) send(ctx context.Context, out FirstDelivery) FirstDelivery {
	b := begun{
		Request:  gate.Request{TransmissionID: out.Opened.TransmissionID, ObservationID: d.ref.ObservationID},
		ref:      d.ref,
		delivery: 1,
		marked:   d.row.Patient.ID,
	}
	if err := d.EHR.Authenticate(ctx); err != nil {
		return out.failed(d.failed(ctx, b, err))
	}
	out.Authenticated = true

	began := time.Now()
	created, err := d.EHR.CreateObservation(ctx, d.sent, identifierOf(d.ref.ObservationID))
	if err != nil {
		return out.failed(d.failed(ctx, b, err))
	}
	out.Posted = &Posted{ECWObservationID: created.ID, HTTPStatus: created.HTTPStatus}
	out.Recorded = d.record(ctx, out)
	logPushed(ctx, d.log(d.ref, out.Opened.TransmissionID), d.row.Observation, d.row.Patient, created, time.Since(began))
	return out
}

// failed adds the error of a step to what was done.
func (d FirstDelivery) failed(err error) FirstDelivery {
	f := Describe(err)
	d.Failure, d.NotSent = &f, isOfType(err, TypeNotSent)
	if f.HeldBack != nil {
		d.Admission = *f.HeldBack
	}
	return d
}

// record writes a success. What it cannot write the workflow records.
func (d *first) record(ctx context.Context, out FirstDelivery) bool {
	var queued bool
	finished := time.Now() // no later than the time that the transaction gives the other columns
	err := d.Store.InTx(ctx, func(q *db.Queries) (err error) {
		queued, err = q.RecordDelivered(ctx, db.RecordDeliveredParams{
			PracticeCode:     d.ref.PracticeCode,
			ID:               out.Opened.TransmissionID,
			ObservationID:    d.ref.ObservationID,
			HTTPStatus:       status(out.Posted.HTTPStatus),
			ECWObservationID: &out.Posted.ECWObservationID,
			ChartID:          &d.chart.ID,
			FinishedAt:       finished,
		})
		if err != nil {
			return err
		}
		return auditDelivered(ctx, q, d.ref, d.row.Patient.ID)
	})
	if err != nil {
		return false
	}
	d.Gate.Passed()
	if queued {
		d.Gate.CallNext(ctx)
	}
	return true
}

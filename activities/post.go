package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fastenhealth/gofhir-models/fhir401"
	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
)

// PostInput names what to deliver.
type PostInput struct {
	ObservationRef
	TransmissionID uuid.UUID
	Delivery       int
	// At is the workflow's time.
	At time.Time
	// Asked means that a person wants this delivery now.
	Asked bool `json:",omitempty"`
}

// Posted is eCW's acknowledgement.
type Posted struct {
	ECWObservationID string
	HTTPStatus       int
}

// Post creates the Observation in eCW. When anything may have been sent for this observation before, it first asks eCW
// whether it arrived, and sends nothing before the schedule's first wait has passed since a send whose outcome is unknown,
// so that no reading stands twice in a chart. It must run at most once for each delivery: a failure that came before
// anything left is a not_sent error, every other one has a class of package ecw.
func (a *Transmission) Post(ctx context.Context, in PostInput) (Posted, error) {
	defer heartbeat(ctx)()
	ctx = gate.Delivering(ctx, in.TransmissionID)
	p, err := a.prepare(ctx, in)
	if err != nil {
		return Posted{}, err
	}

	if in.LookUp || len(p.earlier) > 0 || p.pruned {
		found, exists, err := p.lookUp(ctx)
		if err != nil || exists {
			return found, err
		}
	}
	return p.create(ctx)
}

// posting is one Post.
type posting struct {
	*Transmission
	in       PostInput
	row      db.GetObservationWithPatientRow
	earlier  []db.ChartAttempt // that may have reached eCW
	pruned   bool              // it may have been delivered, and pruned since
	sentTo   []db.Chart        // the charts to look under, besides the patient's
	chart    db.Chart          // the patient's
	resource json.RawMessage
	begun    begun
	log      *slog.Logger
}

// prepare loads what is to be posted, and refuses what a person has to see to first.
func (a *Transmission) prepare(ctx context.Context, in PostInput) (*posting, error) {
	row, err := a.Store.GetObservationWithPatient(ctx, db.GetObservationWithPatientParams{PracticeCode: in.PracticeCode, ID: in.ObservationID})
	if err != nil {
		return nil, notSent("load observation", err)
	}
	earlier, err := a.Store.EarlierSends(ctx, in.ObservationID)
	if err != nil {
		return nil, notSent("load earlier deliveries", err)
	}
	pruned := mayBePruned(row.Observation, row.Patient)
	sentTo, err := a.sentTo(ctx, row.Patient, earlier, pruned)
	if err != nil {
		return nil, notSent("load the patient's charts", err)
	}
	chart, linked := row.Patient.Chart()
	if !linked {
		return nil, failure(Failure{
			Class:   ecw.ClassPermanentData,
			Code:    "patient_not_linked",
			Message: "Patient is not linked to eClinicalWorks: set the patient's external_id, then transmit again",
		})
	}
	resource, err := outgoing(row.Observation, chart.ECWPatientID)
	if err != nil {
		return nil, err
	}
	return &posting{
		Transmission: a,
		in:           in,
		row:          row,
		earlier:      earlier,
		pruned:       pruned,
		sentTo:       sentTo,
		chart:        chart,
		resource:     resource,
		begun: begun{
			Request:    gate.Request{TransmissionID: in.TransmissionID, ObservationID: in.ObservationID, Asked: in.Asked},
			ref:        in.ObservationRef,
			delivery:   in.Delivery,
			sentBefore: slices.ContainsFunc(earlier, in.isOf),
		},
		log: a.log(in.ObservationRef, in.TransmissionID),
	}, nil
}

// identifierOf is by what eCW knows an observation.
func identifierOf(observationID uuid.UUID) ecw.Identifier {
	return ecw.Identifier{System: fhir.IdentifierSystem, Value: observationID.String()}
}

// lookUp asks eCW for what an earlier delivery may have left there. Without an error, and with nothing found, the observation
// may be sent now.
func (p *posting) lookUp(ctx context.Context) (posted Posted, exists bool, err error) {
	began := time.Now()
	found, chart, err := p.findEarlier(ctx, p.row.Observation, charts(p.chart, p.sentTo), identifierOf(p.in.ObservationID))
	if err != nil {
		return Posted{}, false, p.lookUpFailed(ctx, p.begun, time.Since(began), err)
	}
	if chart == nil {
		if at := p.resendAt(p.earlier, p.in.UnknownSince); at.After(p.in.At) {
			return Posted{}, false, notVisibleYet(at)
		}
		return Posted{}, false, nil
	}

	p.log.InfoContext(ctx, "Observation found in eCW, an earlier delivery had arrived", "ecw_observation_id", found.ID)
	err = db.Written(p.Store.MarkFound(ctx, db.MarkFoundParams{
		TransmissionID: p.in.TransmissionID,
		ObservationID:  p.in.ObservationID,
		Delivery:       int32(p.in.Delivery),
		ChartID:        chart.ID,
	}))
	if err != nil {
		return Posted{}, false, notSent("mark the delivery as found", err)
	}
	return Posted{ECWObservationID: found.ID, HTTPStatus: found.HTTPStatus}, true, nil
}

// create sends the observation, once it is marked as sent, and the audit trail says so. It asks again whether the patient is archived or somebody else by
// now, for it may be long since the gate let the delivery begin.
func (p *posting) create(ctx context.Context) (Posted, error) {
	reason, err := p.Store.WhyHeld(ctx, p.in.ObservationID)
	if err != nil {
		return Posted{}, notSent("look at the patient", err)
	}
	if reason != "" {
		return Posted{}, p.holdBack(ctx, p.begun, heldByPatient(reason), reason)
	}

	err = p.Store.InTx(ctx, func(q *db.Queries) error {
		err := db.Written(q.MarkSent(ctx, db.MarkSentParams{
			TransmissionID: p.in.TransmissionID,
			ObservationID:  p.in.ObservationID,
			Delivery:       int32(p.in.Delivery),
			SentAt:         p.in.At,
			ChartID:        p.chart.ID,
		}))
		if err != nil {
			return err
		}
		return auditSend(ctx, q, p.in.ObservationRef, p.row.Patient.ID)
	})
	if err != nil {
		return Posted{}, notSent("mark the delivery as sent", err)
	}
	p.begun.marked = p.row.Patient.ID

	began := time.Now()
	created, err := p.EHR.CreateObservation(ctx, p.resource, identifierOf(p.in.ObservationID))
	if err != nil {
		return Posted{}, p.failed(ctx, p.begun, err)
	}
	logPushed(ctx, p.log, p.row.Observation, p.row.Patient, created, time.Since(began))
	return Posted{ECWObservationID: created.ID, HTTPStatus: created.HTTPStatus}, nil
}

// heldByPatient is the failure of a delivery that was stopped because of its patient.
func heldByPatient(reason string) Failure {
	if reason == gate.ReasonArchived {
		return Failure{Code: "patient_archived", Message: "The patient is archived"}
	}
	return Failure{Code: codeMismatch, Message: "eCW shows another person under the patient's id: compare the two"}
}

// log names the practice and the ids in every line about a delivery.
func (a *Transmission) log(ref ObservationRef, transmissionID uuid.UUID) *slog.Logger {
	return a.Logger.With("practice", ref.PracticeCode, "observation_id", ref.ObservationID, "transmission_id", transmissionID)
}

// logPushed writes the two lines that the tutorial of the integration shows, with our ids where it prints an MRN and values;
// these are for the debug log.
func logPushed(
	ctx context.Context, log *slog.Logger, o db.Observation, p db.Patient, created ecw.Delivered, took time.Duration,
) {
	status := strconv.Itoa(created.HTTPStatus) + " " + http.StatusText(created.HTTPStatus)
	log.InfoContext(ctx, fmt.Sprintf("Pushed Observation to eCW for patient %s (observation %s)", p.ID, o.ID))
	log.DebugContext(ctx, fmt.Sprintf("Pushed Observation to eCW for patient %s (%s)", p.MRN, measurement(o.Measured)))
	log.InfoContext(ctx, fmt.Sprintf("eCW response: %s, FHIR Observation ID: %s", status, created.ID),
		"http_status", created.HTTPStatus, "ecw_observation_id", created.ID, "existing", created.Existing, "duration_ms", took.Milliseconds())
}

// isOf reports whether an earlier send was of this very delivery.
func (in PostInput) isOf(sent db.ChartAttempt) bool {
	return sent.TransmissionID == in.TransmissionID && sent.Delivery == int32(in.Delivery)
}

// outgoing is the resource as eCW gets it, in the chart of the patient with the given id there. What stands in the way of
// making it is for a person to fix.
func outgoing(o db.Observation, chart string) (json.RawMessage, error) {
	var stored fhir401.Observation
	if json.Unmarshal(o.Resource, &stored) != nil {
		return nil, invalidResource("it cannot be read as an Observation")
	}
	return forDelivery(&stored, chart)
}

func forDelivery(stored *fhir401.Observation, chart string) (json.RawMessage, error) {
	delivery, err := fhir.ForDelivery(stored, chart)
	if err != nil {
		return nil, invalidResource(err.Error())
	}
	resource, err := fhir.Marshal(delivery)
	if err != nil {
		return nil, invalidResource("it cannot be written as JSON")
	}
	return resource, nil
}

// invalidResource stands in the history: the reason repeats nothing of the resource, as errors of package fhir do not, but
// those of encoding/json do.
func invalidResource(reason string) error {
	message := "Invalid FHIR resource: " + reason + "; transform the observation again"
	return failure(Failure{Class: ecw.ClassPermanentData, Code: "invalid_resource", Message: message})
}

// measurement writes a reading's values for the debug log: "systolic: 128, diastolic: 82".
func measurement(values json.RawMessage) string {
	compact := &bytes.Buffer{}
	if json.Compact(compact, values) != nil {
		return "values that are no JSON"
	}
	return strings.NewReplacer(`{`, "", `}`, "", `"`, "", `:`, ": ", `,`, ", ").Replace(compact.String())
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vantrexia/vantrexia/fhir"
)

// roleConfig is what a contender in Go is told.
type roleConfig struct {
	Address     string // where its intake listens
	DatabaseURL string
	EHR         string // the sandbox's base URL
	KeyFile     string // of the key that signs assertions
	Temporal    string // address
	Namespace   string
}

// delivery is a reading on its way: what the intake of a contender in Go makes of a POST.
type delivery struct {
	Patient string // FHIR id in the EHR
	Reading fhir.Reading
}

// intakePath is where everybody takes readings, as our API does.
const intakePath = "/api/v1/observations/"

// serveIntake serves the intake of a contender in Go: it decodes and validates a reading as our API does, gives it an id and
// has it accepted.
func serveIntake(ctx context.Context, address string, accept func(context.Context, delivery) error) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	mux.HandleFunc("POST "+intakePath, func(w http.ResponseWriter, r *http.Request) {
		d, err := decode(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := accept(r.Context(), d); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"id": %q}`, d.Reading.ID)
	})
	return serve(ctx, address, mux)
}

func decode(r *http.Request) (delivery, error) {
	var sent reading
	if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
		return delivery{}, err
	}
	values, err := json.Marshal(sent.Values)
	if err != nil {
		return delivery{}, err
	}
	kind, err := fhir.ParseType(sent.Type)
	if err != nil {
		return delivery{}, err
	}

	d := delivery{
		Patient: sent.PatientID,
		Reading: fhir.Reading{
			ID:          uuid.NewString(),
			Type:        kind,
			EffectiveAt: sent.EffectiveAt,
			Device:      sent.Device,
			Values:      values,
		},
	}
	return d, d.Reading.Validate(time.Now())
}

// transform makes the resource that goes to the EHR.
func transform(d delivery) (json.RawMessage, error) {
	subject := fhir.Subject{PatientID: uuid.NewSHA1(uuid.NameSpaceURL, []byte(d.Patient)).String()}
	shown, err := fhir.Observation(d.Reading, subject, 1, time.Now())
	if err != nil {
		return nil, err
	}
	sent, err := fhir.ForDelivery(shown, d.Patient)
	if err != nil {
		return nil, err
	}
	return fhir.Marshal(sent)
}

// readings is the one table of the contenders in Go, and of Celery. Ours has its own.
const readingsTable = `
CREATE TABLE IF NOT EXISTS readings (
	id           uuid PRIMARY KEY,
	patient      text NOT NULL,
	type         text NOT NULL,
	effective_at timestamptz NOT NULL,
	device       text NOT NULL,
	"values"     jsonb NOT NULL,
	status       text NOT NULL,
	ecw_id       text,
	created_at   timestamptz NOT NULL DEFAULT now()
)`

// insertReading stores a reading; status and ecwID are those of the moment.
const insertReading = `
INSERT INTO readings (id, patient, type, effective_at, device, "values", status, ecw_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`

func (d delivery) row(status string, ecwID *string) []any {
	r := d.Reading
	return []any{r.ID, d.Patient, string(r.Type), r.EffectiveAt, r.Device, r.Values, status, ecwID}
}

const selectReading = `SELECT patient, type, effective_at, device, "values" FROM readings WHERE id = $1`

const updateReading = `UPDATE readings SET status = 'transmitted', ecw_id = $2 WHERE id = $1`

// loadReading reads back what insertReading stored.
func loadReading(ctx context.Context, pool *pgxpool.Pool, id string) (delivery, error) {
	d := delivery{Reading: fhir.Reading{ID: id}}
	r := &d.Reading
	err := pool.QueryRow(ctx, selectReading, id).Scan(&d.Patient, &r.Type, &r.EffectiveAt, &r.Device, &r.Values)
	return d, err
}

// openPool connects and makes the table.
func openPool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	pool, err := pgxpool.New(ctx, url+"&pool_max_conns=10") // as many as one of our processes opens
	if err != nil {
		return nil, err
	}
	_, err = pool.Exec(ctx, readingsTable)
	return pool, err
}

package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// riverSystem is River, jobs in PostgreSQL: the reading and its job are stored in one transaction.
type riverSystem struct{ *stack }

func newRiver(s *stack) system { return &riverSystem{s} }

func (r *riverSystem) Start(ctx context.Context) error {
	if err := r.startBase(ctx); err != nil {
		return err
	}
	return r.startRole(ctx, "river")
}

// riverJob is one reading to deliver.
type riverJob struct {
	ReadingID string `json:"reading_id"`
}

func (riverJob) Kind() string { return "deliver" }

type riverWorker struct {
	river.WorkerDefaults[riverJob]
	pool *pgxpool.Pool
	ehr  *poster
}

func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverJob]) error {
	id := job.Args.ReadingID
	d, err := loadReading(ctx, w.pool, id)
	if err != nil {
		return err
	}
	resource, err := transform(d)
	if err != nil {
		return err
	}
	ecwID, err := w.ehr.post(ctx, resource)
	if err != nil {
		return err
	}
	_, err = w.pool.Exec(ctx, updateReading, id, ecwID)
	return err
}

// River asks for jobs when it is notified of one, no more often than its cooldown: 100 ms by default, which would be most of
// the time to the chart. Its documentation's example has 100 workers.
const (
	riverWorkers  = 100
	riverCooldown = 10 * time.Millisecond
)

// runRiver is the process's main function.
func runRiver(ctx context.Context, cfg roleConfig) error {
	pool, err := openPool(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	ehr, err := newPoster(cfg.EHR, cfg.KeyFile)
	if err != nil {
		return err
	}

	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}

	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{pool: pool, ehr: ehr})
	jobs, err := river.NewClient(driver, &river.Config{
		FetchCooldown: riverCooldown,
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}},
		Workers:       workers,
	})
	if err != nil {
		return err
	}
	if err := jobs.Start(ctx); err != nil {
		return err
	}

	err = serveIntake(ctx, cfg.Address, func(ctx context.Context, d delivery) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, insertReading, d.row("pending", nil)...); err != nil {
				return err
			}
			_, err := jobs.InsertTx(ctx, tx, riverJob{ReadingID: d.Reading.ID}, nil)
			return err
		})
	})
	<-jobs.Stopped()
	return err
}

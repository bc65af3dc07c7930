package main

import (
	"context"
	"log"
	"sync"
)

// The floor is what a delivery costs at least: a loop that transforms a reading, posts it and writes a row. It remembers
// nothing: a reading that it has accepted is lost when it ends, and so is one that the EHR refuses.
type floor struct{ *stack }

func newFloor(s *stack) system { return &floor{s} }

func (f *floor) Start(ctx context.Context) error {
	if err := f.startBase(ctx); err != nil {
		return err
	}
	return f.startRole(ctx, "floor")
}

// places is how many requests to the EHR are under way at once: our own default, ECW_PARALLEL.
const places = 8

// runFloor is the process's main function.
func runFloor(ctx context.Context, cfg roleConfig) error {
	pool, err := openPool(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	ehr, err := newPoster(cfg.EHR, cfg.KeyFile)
	if err != nil {
		return err
	}

	deliver := func(d delivery) error {
		resource, err := transform(d)
		if err != nil {
			return err
		}
		id, err := ehr.post(ctx, resource)
		if err != nil {
			return err
		}
		_, err = pool.Exec(ctx, insertReading, d.row("transmitted", &id)...)
		return err
	}

	queue := make(chan delivery, 100_000)
	var loops sync.WaitGroup
	defer loops.Wait()
	for range places {
		loops.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case d := <-queue:
					if err := deliver(d); err != nil && ctx.Err() == nil {
						log.Print("lost a reading: ", err)
					}
				}
			}
		})
	}
	return serveIntake(ctx, cfg.Address, func(_ context.Context, d delivery) error {
		queue <- d
		return nil
	})
}

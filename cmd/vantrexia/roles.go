package main

import (
	"context"
	"fmt"
)

// role is a part of the process that runs until its context ends.
type role struct {
	name string
	run  func(context.Context) error
}

// runRoles starts the roles in order and runs them until ctx ends or one of them does. Then it stops them in the reverse
// order, each only after the one above it: what takes work in ends first, what the others stand on last.
func runRoles(ctx context.Context, roles []role) error {
	type running struct {
		stop context.CancelFunc
		done chan error
	}
	ended := make(chan struct{}, len(roles))
	all := make([]running, len(roles))
	for i, r := range roles {
		roleCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		all[i] = running{stop: stop, done: make(chan error, 1)}
		go func() {
			all[i].done <- r.run(roleCtx)
			ended <- struct{}{}
		}()
	}
	select {
	case <-ctx.Done():
	case <-ended:
	}
	var first error
	for i := len(roles) - 1; i >= 0; i-- {
		all[i].stop()
		if err := <-all[i].done; err != nil && first == nil {
			first = fmt.Errorf("%s: %w", roles[i].name, err)
		}
	}
	return first
}

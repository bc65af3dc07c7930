package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/test/proof"
	"github.com/vantrexia/vantrexia/workflows"
)

// tryOften signals an open circuit to try eCW every few seconds, so that trials are under way when a process
// dies. By itself the circuit would wait for half a minute or longer.
func (s *system) tryOften(ctx context.Context) {
	for ctx.Err() == nil {
		signal, cancel := context.WithTimeout(ctx, time.Second) // refused while the circuit is closed
		_ = s.temporal.SignalWorkflow(signal, workflows.CircuitBreakerWorkflowID(devstack.SandboxPractice), "", workflows.SignalTryNow, nil)
		cancel()
		pause(ctx, 6*time.Second)
	}
}

// watchCircuit polls the circuit and logs when it opens and closes. The function that it returns ends that,
// and returns how often the circuit opened, by reason.
func watchCircuit(ctx context.Context, log *slog.Logger, o proof.Operator) (openings func() map[string]int) {
	ctx, cancel := context.WithCancel(ctx)
	opened := map[string]int{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)

		var last proof.Circuit
		for ; ctx.Err() == nil; pause(ctx, 300*time.Millisecond) {
			now, err := lookAtCircuit(ctx, o)
			switch {
			case err != nil: // the API is down
				continue
			case !now.Since.Equal(last.Since) && !now.Since.IsZero():
				opened[now.Reason]++
				log.Info("circuit opened", "reason", now.Reason, "message", now.Message)
			case now.Since.IsZero() && !last.Since.IsZero():
				log.Info("circuit closed", "after", time.Since(last.Since).Round(time.Second), "held", now.Held)
			}

			last = now
		}
	}()

	return func() map[string]int {
		cancel()
		<-ended
		return opened
	}
}

// lookAtCircuit reads the circuit, with a timeout for an API that hangs.
func lookAtCircuit(ctx context.Context, o proof.Operator) (proof.Circuit, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return o.Circuit(ctx)
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/test/proof"
)

// running is a process of the system: a *devstack.Program, *devstack.Postgres or *devstack.Temporal.
type running interface {
	Done() <-chan struct{}
	Kill() error
	Stop() error
}

// part keeps one process of the system running, as a service manager does, and ends it on demand.
type part struct {
	name   string
	start  func(context.Context) (running, error)
	alive  string // URL that answers while the process runs; "" for a server, which is ready when it is started
	orders chan order
	log    *slog.Logger

	first sync.Once
	up    chan struct{} // closed after the first start
	stop  context.CancelFunc
	ended chan struct{}

	mu       sync.Mutex
	problems []string // what must not happen, such as a panic or a process that does not stop on SIGTERM
}

// order ends a process and says how long to leave it dead.
type order struct {
	gently bool // by SIGTERM
	down   time.Duration
}

// restartPause is how long a process that ended by itself is left alone.
const restartPause = 500 * time.Millisecond

// keep starts the part and returns when it runs for the first time.
func keep(ctx context.Context, p *part) (*part, error) {
	p.orders, p.up, p.ended = make(chan order, 1), make(chan struct{}), make(chan struct{})
	var own context.Context
	own, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	go p.run(own)
	select {
	case <-p.up:
		return p, nil
	case <-ctx.Done():
		p.end()
		return nil, fmt.Errorf("start %s: %w", p.name, ctx.Err())
	}
}

func (p *part) run(ctx context.Context) {
	defer close(p.ended)

	for ctx.Err() == nil {
		r, err := p.start(ctx)
		if err != nil {
			p.log.Warn("not started, tried again", "process", p.name, "error", err)
			pause(ctx, restartPause)
			continue
		}

		p.first.Do(func() { close(p.up) })
		select {
		case <-ctx.Done():
			p.note(r.Stop())
		case o := <-p.orders:
			p.obey(ctx, o, r)
			pause(ctx, o.down)
		case <-r.Done():
			p.endedByItself(r)
			p.note(r.Stop()) // gives back what it held
			pause(ctx, restartPause)
		}
	}
}

func (p *part) obey(ctx context.Context, o order, r running) {
	program, ours := r.(*devstack.Program)
	if !o.gently || !ours || !p.awaitAlive(ctx, program) {
		p.note(r.Kill())
		return
	}

	began := time.Now()
	p.note(program.Stop())
	took := time.Since(began)
	p.log.Info("stopped", "process", p.name, "took", took.Round(time.Millisecond), "exit", program.ExitCode())
	if program.ExitCode() != 0 || took > stopTimeout {
		p.note(fmt.Errorf("ended with %d, %s after SIGTERM", program.ExitCode(), took))
	}
}

// awaitAlive waits until the process handles signals. It returns false if the process ends before.
func (p *part) awaitAlive(ctx context.Context, r running) bool {
	for {
		if proof.Call(ctx, http.MethodGet, p.alive, "", nil, nil) == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-r.Done():
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// endedByItself notes a problem: a process waits for servers that are down, and does not end.
func (p *part) endedByItself(r running) {
	code := -1
	if own, ours := r.(*devstack.Program); ours {
		code = own.ExitCode()
	}
	p.log.Warn("ended by itself", "process", p.name, "exit", code)
	p.note(fmt.Errorf("ended by itself with %d", code))
}

func (p *part) note(err error) {
	if err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, p.name+": "+err.Error())
}

// order ends the process, or the next one if none runs at the moment. It does not wait for that.
func (p *part) order(o order) {
	select {
	case p.orders <- o:
	default: // it is about to end already
	}
}

// end stops the process for good, and returns when it has ended.
func (p *part) end() {
	p.stop()
	<-p.ended
}

// wrong lists the problems of the process.
func (p *part) wrong() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.problems
}

// pause waits, or returns earlier when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vantrexia/vantrexia/devstack"
)

// running is a process of the system: a *devstack.Program, *devstack.Postgres or *devstack.Temporal.
type running interface {
	Done() <-chan struct{}
	Kill() error
	Stop() error
}

// part keeps one process of the system running, as a service manager would, and kills it on demand.
type part struct {
	name  string
	start func(context.Context) (running, error)
	kills chan time.Duration // how long to leave it dead
	log   *slog.Logger

	first sync.Once
	up    chan struct{} // closed after the first start
	stop  context.CancelFunc
	ended chan struct{}

	mu       sync.Mutex
	problems []string // what must not happen: a panic, a process that cannot be stopped
}

// restartPause is how long a process that ended by itself is left alone.
const restartPause = 500 * time.Millisecond

// keep starts the part and returns when it runs for the first time.
func keep(ctx context.Context, log *slog.Logger, name string, start func(context.Context) (running, error)) (*part, error) {
	p := &part{name: name, start: start, kills: make(chan time.Duration, 1), log: log, up: make(chan struct{}), ended: make(chan struct{})}
	var own context.Context
	own, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	go p.run(own)
	select {
	case <-p.up:
		return p, nil
	case <-ctx.Done():
		p.end()
		return nil, fmt.Errorf("start %s: %w", name, ctx.Err())
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
		case down := <-p.kills:
			p.note(r.Kill())
			pause(ctx, down)
		case <-r.Done():
			p.endedByItself(r)
			p.note(r.Stop()) // gives back what it held
			pause(ctx, restartPause)
		}
	}
}

// endedByItself is in order, for example, for a worker that is started while Temporal is away; a panic never is.
func (p *part) endedByItself(r running) {
	own, ours := r.(*devstack.Program)
	p.log.Info("ended by itself", "process", p.name)
	const panicked = 2 // the exit code of a Go program
	if !ours || own.ExitCode() == panicked {
		p.note(fmt.Errorf("%s crashed by itself", p.name))
	}
}

func (p *part) note(err error) {
	if err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, p.name+": "+err.Error())
}

// kill kills the process, or the next one if it is not running at the moment. It does not wait.
func (p *part) kill(down time.Duration) {
	select {
	case p.kills <- down:
	default: // it is about to be killed already
	}
}

// end stops the process for good, and returns when it has ended.
func (p *part) end() {
	p.stop()
	<-p.ended
}

// pause waits, or returns earlier when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

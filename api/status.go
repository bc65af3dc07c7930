package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// The states of the service, worst first. serviceState has the rules.
const (
	stateUnhealthy = "unhealthy"
	stateDegraded  = "degraded"
	stateHealthy   = "healthy"
)

const (
	// stalledAfter is the age at which a reading without a running workflow has missed two sweeps.
	stalledAfter = 10 * time.Minute
	// fewestToJudge is how many transmissions must have ended today before their success rate counts: with
	// fewer, one failure would decide. leastSuccess is the rate below which the service is degraded.
	fewestToJudge = 20
	leastSuccess  = 0.95
	// ecwProbeEvery is how long an answer of eCW is reused; ecwProbeTimeout is how long it may take.
	ecwProbeEvery   = 30 * time.Second
	ecwProbeTimeout = 5 * time.Second
)

type statusAnswer struct {
	Status                        string     `json:"status"`
	ECWConnection                 string     `json:"ecw_connection"`
	ECWLastSuccessfulTransmission *time.Time `json:"ecw_last_successful_transmission"`
	Queue                         queue      `json:"queue"`
	TodayStats                    todayStats `json:"today_stats"`
	Circuit                       circuit    `json:"circuit"`
	Uptime                        string     `json:"uptime"`
}

// circuit says whether readings are let through to eCW. Reason, message, since and next_try_at are null
// while it is closed.
type circuit struct {
	State     string     `json:"state"`
	Reason    *string    `json:"reason"`
	Message   *string    `json:"message"`
	Since     *time.Time `json:"since"`
	NextTryAt *time.Time `json:"next_try_at"`
	Held      int64      `json:"held"`
}

type queue struct {
	Pending             int64 `json:"pending"`
	Processing          int64 `json:"processing"`
	FailedAwaitingRetry int64 `json:"failed_awaiting_retry"`
	// HeldForArchivedPatients is how many of the pending ones wait until a person unarchives the patient.
	HeldForArchivedPatients int64 `json:"held_for_archived_patients"`
}

// todayStats counts what ended today; the rate is 1 when nothing did.
type todayStats struct {
	Transmitted int64   `json:"transmitted"`
	Failed      int64   `json:"failed"`
	SuccessRate float64 `json:"success_rate"`
}

func (s *server) getStatus(c echo.Context) error {
	ctx := c.Request().Context()
	now := time.Now()
	figures, err := s.Store.QueueFigures(ctx, db.QueueFiguresParams{PracticeCode: s.PracticeCode, StalledAfter: stalledAfter.Seconds()})
	if err != nil {
		return fmt.Errorf("queue figures: %w", err)
	}

	today, err := s.Store.DayFigures(ctx, db.DayFiguresParams{PracticeCode: s.PracticeCode, Since: startOfDay(now, s.TimeZone)})
	if err != nil {
		return fmt.Errorf("today's figures: %w", err)
	}

	way, err := s.circuit(ctx, figures.Held)
	if err != nil {
		return err
	}

	answer := statusAnswer{
		ECWConnection: s.connection(ctx, way),
		Circuit:       way,
		Queue: queue{
			Pending:                 figures.Pending,
			Processing:              figures.Processing,
			FailedAwaitingRetry:     figures.FailedAwaitingRetry,
			HeldForArchivedPatients: figures.Archived,
		},
		TodayStats: todayStats{Transmitted: today.Transmitted, Failed: today.Failed, SuccessRate: successRate(today)},
		Uptime:     uptime(now.Sub(s.started)),
	}

	last, err := s.Store.LastTransmitted(ctx, s.PracticeCode)
	switch {
	case err == nil:
		last = last.Truncate(time.Second)
		answer.ECWLastSuccessfulTransmission = &last
	case !db.IsNotFound(err):
		return fmt.Errorf("last transmission: %w", err)
	}

	answer.Status = serviceState(answer, figures.Stalled, s.temporalAnswers(ctx))
	return c.JSON(http.StatusOK, answer)
}

// circuit reads the practice's circuit. A practice that has not sent anything has no row yet, which means
// closed.
func (s *server) circuit(ctx context.Context, held int64) (circuit, error) {
	row, err := s.Store.GetGate(ctx, s.PracticeCode)
	if err != nil && !db.IsNotFound(err) {
		return circuit{}, fmt.Errorf("circuit: %w", err)
	}
	if err != nil || row.Circuit == gate.Closed {
		return circuit{State: gate.Closed, Held: held}, nil
	}
	return circuit{
		State:     row.Circuit,
		Reason:    &row.Reason,
		Message:   &row.Message,
		Since:     row.OpenedAt,
		NextTryAt: row.NextTrialAt,
		Held:      held,
	}, nil
}

// connection asks eCW only while the circuit is closed. Otherwise the circuit's own trials ask, and eCW is
// shown as disconnected.
func (s *server) connection(ctx context.Context, way circuit) string {
	if way.State != gate.Closed {
		return disconnected
	}
	return s.probe.connection(ctx)
}

// serviceState is unhealthy when nothing can be delivered (eCW or Temporal does not answer, or the circuit is
// not closed), degraded when readings have no workflow, or when fewer than 95 % of today's
// transmissions succeeded (judged from 20 on), and healthy otherwise. Failures that wait for their retry are
// normal.
func serviceState(a statusAnswer, stalled int64, temporalAnswers bool) string {
	ended := a.TodayStats.Transmitted + a.TodayStats.Failed
	switch {
	case a.ECWConnection != connected || !temporalAnswers:
		return stateUnhealthy
	case stalled > 0, ended >= fewestToJudge && a.TodayStats.SuccessRate < leastSuccess:
		return stateDegraded
	default:
		return stateHealthy
	}
}

func (s *server) temporalAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := s.Temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
	return err == nil
}

func startOfDay(now time.Time, zone *time.Location) time.Time {
	year, month, day := now.In(zone).Date()
	return time.Date(year, month, day, 0, 0, 0, 0, zone)
}

func successRate(day db.DayFiguresRow) float64 {
	ended := day.Transmitted + day.Failed
	if ended == 0 {
		return 1
	}
	return math.Round(float64(day.Transmitted)/float64(ended)*1000) / 1000
}

// uptime is written as the API reference shows it: 14d 6h 32m.
func uptime(d time.Duration) string {
	minutes := int(d.Minutes())
	return fmt.Sprintf("%dd %dh %dm", minutes/(24*60), minutes/60%24, minutes%60)
}

const (
	connected    = "connected"
	disconnected = "disconnected"
)

// probe asks eCW whether it answers and knows us, at most every 30 s: a busy status page must not use up
// eCW's limit.
type probe struct {
	ehr *ecw.Client

	mu    sync.Mutex
	asked time.Time
	state string
}

func (p *probe) connection(ctx context.Context) string {
	p.mu.Lock()
	defer p.mu.Unlock()

	if time.Since(p.asked) < ecwProbeEvery {
		return p.state
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ecwProbeTimeout)
	defer cancel()

	p.state = connected
	if err := p.ask(ctx); err != nil {
		p.state = disconnected
	}

	p.asked = time.Now()
	return p.state
}

// ask returns nil when eCW answers and knows us, which it also does when it throttles us.
func (p *probe) ask(ctx context.Context) error {
	err := p.ehr.Authenticate(ctx)
	if err == nil {
		_, err = p.ehr.Capabilities(ctx)
	}

	var e *ecw.Error
	if errors.As(err, &e) && e.Class == ecw.ClassThrottled {
		return nil
	}
	return err
}

package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/workflows"
)

// sweepGrace leaves alone what the API or a worker touched a moment ago.
const sweepGrace = time.Minute

// schedules are what replaces cron. A run that is due while the last one is busy is skipped: the next sees the same
// work. Runs missed for longer than the catch-up window are not made up for.
func schedules(practice string) []client.ScheduleOptions {
	return []client.ScheduleOptions{
		{
			ID: "process-pending/" + practice,
			Spec: client.ScheduleSpec{
				Intervals: []client.ScheduleIntervalSpec{{Every: 5 * time.Minute}},
				Jitter:    10 * time.Second,
			},
			Overlap:       enums.SCHEDULE_OVERLAP_POLICY_SKIP,
			CatchupWindow: 5 * time.Minute,
			Action: &client.ScheduleWorkflowAction{
				ID: "process-pending/" + practice, TaskQueue: workflows.TaskQueue(practice), Workflow: workflows.ProcessPending,
				Args:          []any{workflows.PendingInput{PracticeCode: practice, Grace: sweepGrace}},
				StaticSummary: "Starts whatever is pending and carried by nobody",
			},
		},
		{
			ID: "refresh-patients/" + practice,
			Spec: client.ScheduleSpec{
				Calendars: []client.ScheduleCalendarSpec{{Hour: []client.ScheduleRange{{Start: 7}}}}, // UTC: night in America
				Jitter:    30 * time.Minute,
			},
			Overlap:       enums.SCHEDULE_OVERLAP_POLICY_SKIP,
			CatchupWindow: 12 * time.Hour,
			Action: &client.ScheduleWorkflowAction{
				ID: "refresh-patients/" + practice, TaskQueue: workflows.TaskQueue(practice), Workflow: workflows.RefreshPatients,
				Args:          []any{practice},
				StaticSummary: "Reads the demographics of every linked patient again",
			},
		},
		{
			ID: "prune/" + practice,
			Spec: client.ScheduleSpec{
				Calendars: []client.ScheduleCalendarSpec{{Hour: []client.ScheduleRange{{Start: 9}}}}, // UTC: after the refresh
				Jitter:    30 * time.Minute,
			},
			Overlap:       enums.SCHEDULE_OVERLAP_POLICY_SKIP,
			CatchupWindow: 12 * time.Hour,
			Action: &client.ScheduleWorkflowAction{
				ID: "prune/" + practice, TaskQueue: workflows.TaskQueue(practice), Workflow: workflows.Prune,
				Args:          []any{workflows.PruneInput{PracticeCode: practice}},
				StaticSummary: "Deletes what is kept no longer",
			},
		},
	}
}

// EnsureSchedules creates the schedules, or brings them up to date. One that a person paused stays paused.
func EnsureSchedules(ctx context.Context, c client.Client, practice string) error {
	for _, want := range schedules(practice) {
		_, err := c.ScheduleClient().Create(ctx, want)
		if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
			err = updateSchedule(ctx, c, want)
		}
		if err != nil {
			return fmt.Errorf("schedule %s: %w", want.ID, err)
		}
	}
	return nil
}

func updateSchedule(ctx context.Context, c client.Client, want client.ScheduleOptions) error {
	return c.ScheduleClient().GetHandle(ctx, want.ID).Update(ctx, client.ScheduleUpdateOptions{
		DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			schedule := in.Description.Schedule
			schedule.Spec, schedule.Action = &want.Spec, want.Action
			schedule.Policy = &client.SchedulePolicies{Overlap: want.Overlap, CatchupWindow: want.CatchupWindow}
			return &client.ScheduleUpdate{Schedule: &schedule}, nil
		},
	})
}

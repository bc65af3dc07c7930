package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc/codes"

	"github.com/vantrexia/vantrexia/db"
)

const (
	firstPause   = time.Second
	longestPause = 5 * time.Second
	// askTimeout bounds one question, so that a host that swallows packets is told of as well.
	askTimeout = 6 * time.Second
)

// await asks until the answer is good, and logs each time why it is not. It ends with an error that waiting cannot mend,
// and with ctx's as soon as that ends.
func await(ctx context.Context, log *slog.Logger, what string, ask func(context.Context) error, hopeless func(error) bool) error {
	pause := firstPause
	for {
		err := ask(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || hopeless(err) {
			return err
		}
		log.WarnContext(ctx, "waiting for "+what, "reason", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// awaitDatabase closes migrated when the database is there and as new as this binary, and then rests until ctx ends.
func awaitDatabase(ctx context.Context, d dependencies, migrated chan<- struct{}) error {
	ask := func(ctx context.Context) error {
		if err := d.checkDatabase(ctx); err != nil {
			return databaseError(err)
		}
		return nil
	}
	err := await(ctx, d.log, "the database", ask, db.IsRefused)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	warnOfServerLog(ctx, d)
	close(migrated)
	<-ctx.Done()
	return nil
}

// warnOfServerLog says when PostgreSQL's log may hold patient data, which nobody would look for there.
func warnOfServerLog(ctx context.Context, d dependencies) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	settings, err := d.store.RevealingLogSettings(ctx)
	if err != nil {
		d.log.WarnContext(ctx, "the settings of PostgreSQL's log could not be read", "error", err)
	}
	if len(settings) > 0 {
		d.log.WarnContext(ctx, "PostgreSQL may write rows into its log: set what is named here", "set", settings)
	}
}

func (d dependencies) checkDatabase(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return d.store.CheckMigrated(ctx)
}

func checkTemporal(ctx context.Context, d dependencies) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout) // the client itself would ask for ever
	defer cancel()
	_, err := d.temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
	return err
}

// refusedByTemporal tells whether the server answered, and will not take us however long we wait.
func refusedByTemporal(err error) bool {
	var answer serviceerror.ServiceError
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Status().Code() {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		return true
	}
	return false
}

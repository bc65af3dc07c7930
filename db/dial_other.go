//go:build !linux

package db

import (
	"context"
	"syscall"
)

// limitUnanswered does nothing: TCP_USER_TIMEOUT needs Linux.
func limitUnanswered(context.Context, string, string, syscall.RawConn) error { return nil }

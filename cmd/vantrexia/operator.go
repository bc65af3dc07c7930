package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/keyring"
)

// operator names who runs a command: the account of the operating system and the machine, as far as they are known.
func operator() (account, machine string) {
	if who, err := user.Current(); err == nil {
		account = who.Username
	}
	machine, _ = os.Hostname()
	return account, machine
}

// byOperator is a row of the audit trail about what the operator does.
func (c config) byOperator(action audit.Action, reason string) audit.Event {
	account, machine := operator()
	return audit.Event{
		PracticeCode: c.ECW.PracticeCode,
		Subject:      audit.Local,
		TokenID:      account,
		Address:      machine,
		Action:       action,
		Reason:       reason,
	}
}

// keysChanged is a row about keys. Each is named as keyset/id.
func (c config) keysChanged(reason string, keys ...string) audit.Event {
	changed := c.byOperator(audit.KeysChange, reason)
	changed.ResourceType, changed.ResourceIDs = "key", keys
	return changed
}

func keyName(set keyring.Keyset, id string) string { return string(set) + "/" + id }

// recordTimeout is how long a command waits for a database that it does not need for its work.
const recordTimeout = 10 * time.Second

// recordKeys writes a row about a change of a file that holds keys. The database may be away, or on another machine: then it
// says that the change is not in the audit trail.
func (c config) recordKeys(ctx context.Context, say io.Writer, changed audit.Event) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if err := c.tryRecord(ctx, changed); err != nil {
		fmt.Fprintf(say, "This is not recorded in the audit trail (%s): note who did it, and when.\n", err)
	}
}

func (c config) tryRecord(ctx context.Context, changed audit.Event) error {
	if c.DatabaseURL == "" {
		return errors.New("DATABASE_URL is not set")
	}
	store, err := openMigrated(ctx, c)
	if err != nil {
		return err
	}
	defer store.Close()
	return audit.RecordNow(ctx, store, changed)
}

package audit

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/vantrexia/vantrexia/db"
)

const (
	// mostRefusals is how many rows callers whom we know get within [Window], of refusals that differ.
	mostRefusals = 10_000
	// mostOfStrangers is how many rows all others get together, so that they cannot fill the disk, from however many
	// addresses they come.
	mostOfStrangers = 1_000
	// refusalTimeout is how long a refusal waits for its row.
	refusalTimeout = 2 * time.Second
	// refusalRetry is how long no other row of the same kind is tried when one could not be written: whoever is refused
	// must not hold the database's connections.
	refusalRetry = 10 * time.Second
)

// TooManyRefusals is the reason of the row that stands for the refusals beyond those that get a row each.
const TooManyRefusals = "too_many_refusals"

// Refusals writes rows about what was refused. Within [Window], those of one caller at one address, for the same resource
// and reason, are one row.
type Refusals struct {
	store              *db.Store
	log                *slog.Logger
	callers, strangers *Recent
	tried              *Recent // wrong passwords and the like for accounts that there are, which no stranger can push out
	others             *Recent // the rows that stand for those beyond
}

// NewRefusals returns a writer of refusals.
func NewRefusals(store *db.Store, log *slog.Logger) *Refusals {
	return &Refusals{
		store:     store,
		log:       log,
		callers:   NewRecent(mostRefusals),
		strangers: NewRecent(mostOfStrangers),
		tried:     NewRecent(mostOfStrangers),
		others:    NewRecent(1),
	}
}

// Record writes the row of a refusal, whose TokenID is empty when the caller is a stranger: nobody who has shown a
// credential of ours. It returns no error, because the refusal stands anyway; it is logged.
func (r *Refusals) Record(ctx context.Context, e Event) {
	e.Outcome = Refused
	written, row := r.callers, refusalKey(e)
	switch {
	case e.TokenID == "" && e.Subject != "":
		written = r.tried
	case e.TokenID == "":
		written = r.strangers
	}

	switch written.claim(row) {
	case known:
		return
	case full:
		e = Event{PracticeCode: e.PracticeCode, Action: AccessRefuse, Outcome: Refused, Reason: TooManyRefusals}
		written, row = r.others, refusalKey(e)
		if written.claim(row) != mine {
			return
		}
	}

	// A caller who hangs up is recorded all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
	defer cancel()
	if err := RecordNow(ctx, r.store, e); err != nil {
		written.forgetIn(row, refusalRetry)
		r.log.WarnContext(ctx, "a refusal could not be written into the audit trail",
			"action", e.Action, "reason", e.Reason, "subject", e.Subject, "error", err)
	}
}

// refusalKey says what makes two refusals equal.
func refusalKey(e Event) string {
	parts := append([]string{string(e.Action), e.Reason, e.Subject, e.TokenID, network(e.Address)}, e.ResourceIDs...)
	return strings.Join(parts, "\x1f")
}

// network returns the address, or the IPv6 network of 64 bits that one customer of a provider has.
func network(address string) string {
	parsed, err := netip.ParseAddr(address)
	if err != nil || !parsed.Is6() {
		return address
	}
	block, _ := parsed.Prefix(64)
	return block.String()
}

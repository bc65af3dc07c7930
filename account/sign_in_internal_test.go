package account

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pquerna/otp/totp"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack/devtest"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

var stack = devtest.Stack{Migrate: func(ctx context.Context, url string) error {
	store, err := db.Open(ctx, url, keyringtest.Shared())
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Migrate(ctx)
	return err
}}

func TestMain(m *testing.M) { os.Exit(stack.Run(m)) }

func newTestPeople(t *testing.T) *People {
	t.Helper()
	return newTestPeopleAt(t, stack.Postgres(t))
}

func newTestPeopleAt(t *testing.T, url string) *People {
	t.Helper()
	store, err := db.Open(t.Context(), devtest.AsRuntime(t, url), keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	signer, err := NewSigner("vantrexia", "tests", make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPeople(Config{Store: store, PracticeCode: "FFHEDD", Signer: signer, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func addNurse(t *testing.T, p *People, email string) db.User {
	t.Helper()
	row, _, err := p.Add(t.Context(), By{Actor: Local}, NewUser{
		Email:       email,
		FirstName:   "Nora",
		LastName:    "Lind",
		Role:        Nurse,
		Password:    "gravel pocket lantern nine",
		OwnPassword: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return row.User
}

// Each sign-in computes one hash, whoever has the e-mail, except while it is locked: then none. While all
// turns are taken, a sign-in that computes a hash cannot end.
func TestEverySignInComputesAHash(t *testing.T) {
	t.Parallel()
	p := newTestPeople(t)
	addNurse(t, p, "known@example.com")
	disabled, yes := addNurse(t, p, "disabled@example.com"), true
	if _, err := p.Change(t.Context(), By{}, disabled.ID, Change{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	for range mostHashes {
		p.hasher.turns <- struct{}{}
	}

	try := func(email string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := p.SignIn(ctx, Credentials{Email: email, Password: "wrong"}, "")
		return err
	}
	for _, email := range []string{"known@example.com", "disabled@example.com", "unknown@example.com"} {
		if err := try(email); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s is answered without a hash: %v", email, err)
		}
	}

	for range mostHashes {
		<-p.hasher.turns
	}
	for _, email := range []string{"known@example.com", "unknown@example.com"} {
		for range MostFailures {
			if _, err := p.SignIn(t.Context(), Credentials{Email: email, Password: "wrong"}, ""); !errors.Is(err, ErrWrong) {
				t.Fatalf("%s: %v", email, err)
			}
		}
	}
	for range mostHashes {
		p.hasher.turns <- struct{}{}
	}
	var locked *LockedError
	for _, email := range []string{"known@example.com", "unknown@example.com"} {
		if err := try(email); !errors.As(err, &locked) {
			t.Errorf("%s, locked, is answered with %v", email, err)
		}
	}
}

func codeAt(t *testing.T, secret string, at time.Time) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, at)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// A code is good for its 30 seconds, the 30 before and the 30 after, and once.
func TestCodesAreGoodOnce(t *testing.T) {
	t.Parallel()
	p := newTestPeople(t)
	nora := addNurse(t, p, "nora@example.com")
	secret, _, err := newTOTP(nora.Email)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_770_000_015, 0) // in the middle of a step
	for shift, want := range map[time.Duration]int64{-60 * time.Second: 0, -30 * time.Second: -1, 0: 0, 30 * time.Second: 1, 60 * time.Second: 0} {
		code := codeAt(t, secret, now.Add(shift))
		step, err := stepOf(secret, code, now)
		if good := shift.Abs() <= 30*time.Second; err != nil || good != (step != 0) || good && step != now.Unix()/30+want {
			t.Errorf("a code of %s is of step %d, %v", shift, step, err)
		}
	}

	nora.TOTPSecret = &secret
	q, at := p.Store.Queries, time.Now()
	for i, test := range []struct {
		code string
		want bool
	}{
		{codeAt(t, secret, at), true},
		{codeAt(t, secret, at), false},
		{codeAt(t, secret, at.Add(-totpStep)), false}, // older than one that was used
		{codeAt(t, secret, at.Add(totpStep)), true},
		{"", false},
	} {
		if got, err := useCode(t.Context(), q, nora, test.code); err != nil || got != test.want {
			t.Errorf("code %d is taken: %t, %v", i, got, err)
		}
	}
}

// Rows of account_events are only ever added.
func TestEventsStay(t *testing.T) {
	t.Parallel()
	url := stack.Postgres(t)
	p := newTestPeopleAt(t, url)
	addNurse(t, p, "nora@example.com")
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range []string{"UPDATE account_events SET actor = 'x'", "DELETE FROM account_events"} {
		if _, err := conn.Exec(t.Context(), statement); err == nil {
			t.Errorf("%s is taken", statement)
		}
	}

	rows, count, err := p.Events(t.Context(), 10, 0)
	if err != nil || count != 1 || Action(rows[0].Action) != Added || rows[0].Actor != Local || rows[0].Detail != string(Nurse) {
		t.Errorf("%+v, %d, %v", rows, count, err)
	}
}

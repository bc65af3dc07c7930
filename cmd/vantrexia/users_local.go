package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/db"
)

// localAccounts are the accounts in the database.
type localAccounts struct {
	people *account.People
	by     account.By
}

func openLocalAccounts(ctx context.Context, cfg config, reason string) (accounts, func(), error) {
	store, err := openMigrated(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}

	people, err := newPeople(cfg, store, cfg.logger(slog.LevelInfo))
	if err != nil {
		store.Close()
		return nil, nil, err
	}
	return localAccounts{people, localBy(reason)}, store.Close, nil
}

func newPeople(cfg config, store *db.Store, log *slog.Logger) (*account.People, error) {
	return account.NewPeople(account.Config{Store: store, PracticeCode: cfg.ECW.PracticeCode, Logger: log})
}

// localBy names the operator, as far as that is known.
func localBy(reason string) account.By {
	who, machine := operator()
	by := account.By{Actor: account.Local, Address: machine, Reason: reason}
	if who != "" {
		by.Actor += ":" + who
	}
	return by
}

func (l localAccounts) add(ctx context.Context, want account.NewUser) (cliUser, string, error) {
	row, password, err := l.people.Add(ctx, l.by, want)
	return showCLIUser(row), password.Text, explainAccount(err)
}

// listPage is how many accounts are read at a time.
const listPage = 100

func (l localAccounts) list(ctx context.Context, email string) (users []cliUser, err error) {
	for {
		rows, count, err := l.people.List(ctx, email, listPage, len(users))
		if err != nil {
			return nil, explainAccount(err)
		}
		for _, row := range rows {
			users = append(users, showCLIUser(row))
		}
		if len(rows) == 0 || int64(len(users)) >= count {
			return users, nil
		}
	}
}

func (l localAccounts) setDisabled(ctx context.Context, id uuid.UUID, disabled bool) error {
	_, err := l.people.Change(ctx, l.by, id, account.Change{Disabled: &disabled})
	return err
}

func (l localAccounts) resetPassword(ctx context.Context, id uuid.UUID, password string) (string, error) {
	made, err := l.people.ResetPassword(ctx, l.by, id, password, true)
	return made.Text, explainAccount(err)
}

func (l localAccounts) removeTOTP(ctx context.Context, id uuid.UUID) error {
	return l.people.RemoveTOTP(ctx, l.by, id)
}

func (l localAccounts) unlock(ctx context.Context, id uuid.UUID) error {
	_, err := l.people.Unlock(ctx, l.by, id)
	return err
}

func showCLIUser(row db.ShownUser) cliUser {
	return cliUser{
		ID:           row.User.ID,
		Email:        row.User.Email,
		Role:         account.Role(row.User.Role),
		Is2FAEnabled: row.User.TOTPEnabled,
		Disabled:     row.User.DisabledAt != nil,
		LockedUntil:  row.LockedUntil,
		LastSignInAt: row.User.LastSignInAt,
	}
}

// explainAccount names the flag that an error of package account is about.
func explainAccount(err error) error {
	for flag, refused := range map[string][]error{
		"--email":           {account.ErrEmail},
		"--role":            {account.ErrRole},
		"--first or --last": {account.ErrName},
		"the password":      {account.ErrPasswordLength, account.ErrPasswordCommon},
	} {
		for _, about := range refused {
			if errors.Is(err, about) {
				return errors.New(flag + " " + err.Error())
			}
		}
	}
	return err
}

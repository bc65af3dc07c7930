package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vantrexia/vantrexia/account"
)

// demoPasswordFile holds the password of all demo accounts.
const demoPasswordFile = stateDir + "/demo-password"

// demoEmail is the address of the demo account of a role.
func demoEmail(role account.Role) string { return string(role) + "@demo.example" }

// makeDemoAccounts makes an account for each role of people, unless it is there, and returns the password of
// all of them. Only `vantrexia dev` with its sandbox EHR has them: they are accounts of the sandbox's practice.
func makeDemoAccounts(ctx context.Context, d dependencies) (password string, err error) {
	password, isNew, err := demoPassword()
	if err != nil {
		return "", fmt.Errorf("the password of the demo accounts: %w", err)
	}
	people, err := newPeople(d.cfg, d.store, d.log)
	if err != nil {
		return "", err
	}

	by := localBy("demo accounts of make run")
	for _, role := range account.RolesWith(account.OwnAccount) {
		known, _, err := people.List(ctx, demoEmail(role), 1, 0)
		switch {
		case err != nil:
		case len(known) == 0:
			_, _, err = people.Add(ctx, by, account.NewUser{
				Email:       demoEmail(role),
				FirstName:   "Demo",
				LastName:    string(role),
				Role:        role,
				Password:    password,
				OwnPassword: true,
			})
		case isNew: // the file was removed
			_, err = people.ResetPassword(ctx, by, known[0].User.ID, password, true)
		}
		if err != nil {
			return "", fmt.Errorf("the demo account of a %s: %w", role, err)
		}
	}
	return password, nil
}

// demoPassword reads the file, or makes it.
func demoPassword() (password string, isNew bool, err error) {
	text, err := os.ReadFile(demoPasswordFile)
	if err == nil && strings.TrimSpace(string(text)) != "" {
		return strings.TrimSpace(string(text)), false, nil
	}
	if err == nil {
		return "", false, errors.New(demoPasswordFile + " is empty: remove it, and another one is made")
	}
	if !missing(demoPasswordFile) {
		return "", false, err
	}

	if password, err = account.NewPassword(); err != nil {
		return "", false, err
	}
	return password, true, writeNew(demoPasswordFile, []byte(password+"\n"))
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/vantrexia/vantrexia/account"
)

func usersCommand() *cobra.Command {
	var where adminFlags
	users := &cobra.Command{
		Use:   "users",
		Short: "Manage the accounts of the people who sign in",
		Long: `Manages the accounts of the people who sign in, through the API, with an administrator's token in VANTREXIA_TOKEN.

With --local it works on the database alone (DATABASE_URL, ECW_PRACTICE_CODE): for the first administrator, and for
emergencies. A change then needs a --reason, which is kept with it.`,
		Example: `  vantrexia users add --local --reason "first administrator" --email ada@example.com --first Ada --last Berg --role admin
  vantrexia users disable nurse@example.com`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}

	where.define(users.PersistentFlags())
	users.AddCommand(
		where.addCommand(),
		where.listCommand(),
		where.resetPasswordCommand(),
		where.userCommand("disable", "Let somebody sign in no more, and end the sessions", func(ctx context.Context, a accounts, u cliUser) error {
			return a.setDisabled(ctx, u.ID, true)
		}),
		where.userCommand("enable", "Let somebody who was disabled sign in again", func(ctx context.Context, a accounts, u cliUser) error {
			return a.setDisabled(ctx, u.ID, false)
		}),
		where.userCommand("unlock", "Take a lock after failed sign-ins away", func(ctx context.Context, a accounts, u cliUser) error {
			return a.unlock(ctx, u.ID)
		}),
	)
	return users
}

// accounts are the accounts in the API or in the database.
type accounts interface {
	// add and resetPassword return the password that was made; empty when one was given.
	add(ctx context.Context, want account.NewUser) (cliUser, string, error)
	list(ctx context.Context, email string) ([]cliUser, error)
	setDisabled(ctx context.Context, id uuid.UUID, disabled bool) error
	resetPassword(ctx context.Context, id uuid.UUID, password string) (string, error)
	removeTOTP(ctx context.Context, id uuid.UUID) error
	unlock(ctx context.Context, id uuid.UUID) error
}

// cliUser is an account as the API shows it.
type cliUser struct {
	ID           uuid.UUID    `json:"id"`
	Email        string       `json:"email"`
	Role         account.Role `json:"role"`
	Is2FAEnabled bool         `json:"is_2fa_enabled"`
	Disabled     bool         `json:"disabled"`
	LockedUntil  *time.Time   `json:"locked_until"`
	LastSignInAt *time.Time   `json:"last_sign_in_at"`
}

// accounts connects to the accounts. changes is whether anything will be changed.
func (f adminFlags) accounts(ctx context.Context, changes bool) (accounts, func(), error) {
	cfg, err := f.load(changes)
	if err != nil {
		return nil, nil, err
	}
	if f.local {
		return openLocalAccounts(ctx, cfg, f.reason)
	}
	remote, err := newAPIClient(cfg, f.url, "")
	return remoteAccounts{remote}, func() {}, err
}

func (f *adminFlags) addCommand() *cobra.Command {
	var want account.NewUser
	var ask bool
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Make an account, and print its password",
		Long: `Makes an account. Unless --ask-password is given, it makes a password and prints it, this once. It is good for three days, and
only for choosing another one. With --ask-password the password is read from the terminal, or from the first line of the standard
input. With --local it is then the person's own: sit the person at the keyboard.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, done, err := f.accounts(cmd.Context(), true)
			if err != nil {
				return err
			}
			defer done()

			if ask {
				if want.Password, err = readPassword(cmd); err != nil {
					return err
				}
				want.OwnPassword = f.local
			}
			user, made, err := all.add(cmd.Context(), want)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "account %s made\n", user.ID)
			printPassword(cmd, made)
			return nil
		},
	}

	flags := cmd.Flags()
	flags.StringVar(&want.Email, "email", "", "the e-mail address to sign in with")
	flags.StringVar(&want.FirstName, "first", "", "given names")
	flags.StringVar(&want.LastName, "last", "", "family name")
	flags.StringVar((*string)(&want.Role), "role", "", "admin, clinical_manager, provider, nurse, ma or data_monitor")
	flags.BoolVar(&ask, "ask-password", false, "read the password instead of making one")
	for _, name := range []string{"email", "first", "last", "role"} {
		_ = cmd.MarkFlagRequired(name) // the flags are there
	}
	return cmd
}

func (f *adminFlags) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the accounts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, done, err := f.accounts(cmd.Context(), false)
			if err != nil {
				return err
			}
			defer done()

			users, err := all.list(cmd.Context(), "")
			if err != nil {
				return err
			}
			return printUsers(cmd.OutOrStdout(), users)
		},
	}
}

func (f *adminFlags) resetPasswordCommand() *cobra.Command {
	var ask, removeTOTP bool
	cmd := &cobra.Command{
		Use:   "reset-password <e-mail or id>",
		Short: "Give somebody another password, and print it",
		Long: `Makes a password and prints it, this once. It is good for three days, and only for choosing another one. All sessions of the
person end, and a lock is taken away. With --local, --ask-password reads the person's own password instead.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ask && !f.local {
				return errors.New("--ask-password needs --local: leave it out, and a password is made")
			}
			return f.withUser(cmd, args[0], func(ctx context.Context, all accounts, user cliUser) (err error) {
				var password string
				if ask {
					if password, err = readPassword(cmd); err != nil {
						return err
					}
				}
				if removeTOTP {
					if err := all.removeTOTP(ctx, user.ID); err != nil {
						return err
					}
				}
				made, err := all.resetPassword(ctx, user.ID, password)
				if err == nil {
					printPassword(cmd, made)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&ask, "ask-password", false, "read the password instead of making one")
	cmd.Flags().BoolVar(&removeTOTP, "remove-totp", false, "turn two-factor sign-in off too, for somebody who has lost the authenticator app")
	return cmd
}

// userCommand does something to one account.
func (f *adminFlags) userCommand(name, short string, do func(context.Context, accounts, cliUser) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " <e-mail or id>",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := f.withUser(cmd, args[0], do)
			if err == nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s is %sed\n", args[0], strings.TrimSuffix(name, "e"))
			}
			return err
		},
	}
}

// withUser does something to the account with an e-mail or an id.
func (f *adminFlags) withUser(cmd *cobra.Command, name string, do func(context.Context, accounts, cliUser) error) error {
	all, done, err := f.accounts(cmd.Context(), true)
	if err != nil {
		return err
	}
	defer done()

	if id, err := uuid.Parse(name); err == nil {
		return do(cmd.Context(), all, cliUser{ID: id})
	}
	found, err := all.list(cmd.Context(), name)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return errors.New("nobody has this e-mail: `vantrexia users list` shows all")
	}
	return do(cmd.Context(), all, found[0])
}

// readPassword reads a password from the terminal, twice, without showing it, or the first line of the input.
func readPassword(cmd *cobra.Command) (string, error) {
	input := int(os.Stdin.Fd())
	if !term.IsTerminal(input) {
		line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return notEmpty(strings.TrimRight(line, "\r\n"))
	}

	var typed [2]string
	for i, prompt := range []string{"Password: ", "Once more: "} {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		text, err := term.ReadPassword(input)
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		typed[i] = string(text)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two passwords differ: type the same one twice")
	}
	return notEmpty(typed[0])
}

func notEmpty(password string) (string, error) {
	if password == "" {
		return "", errors.New("the password is empty: type one, or leave --ask-password out")
	}
	return password, nil
}

func printPassword(cmd *cobra.Command, made string) {
	if made == "" {
		return
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "The password is shown this once. It is good for three days, and only for choosing another one:")
	fmt.Fprintln(cmd.OutOrStdout(), made)
}

func printUsers(out io.Writer, users []cliUser) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tE-MAIL\tROLE\tSTATE\tTWO-FACTOR\tLAST SIGN-IN")
	for _, u := range users {
		state := "active"
		switch {
		case u.Disabled:
			state = "disabled"
		case u.LockedUntil != nil:
			state = "locked until " + u.LockedUntil.UTC().Format(time.RFC3339)
		}
		second, seen := "off", "never"
		if u.Is2FAEnabled {
			second = "on"
		}
		if u.LastSignInAt != nil {
			seen = u.LastSignInAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", u.ID, u.Email, u.Role, state, second, seen)
	}
	return table.Flush()
}

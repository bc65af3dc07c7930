package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/account"
)

func tokenCommand() *cobra.Command {
	var role, subject string
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a signed bearer token for the API",
		Long: `Prints a bearer token of a machine for the API, signed with API_TOKEN_SECRET (or the secret in API_TOKEN_SECRET_FILE,
which "make run" creates). README.md says what each role may do. A machine that stays has an API key instead.`,
		Example: `  curl -H "Authorization: Bearer $(vantrexia token --role provider)" http://localhost:8000/api/v1/patients/`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			token, err := cfg.signToken(subject, account.Role(role), life)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), token)
			return nil
		},
	}

	cmd.Flags().StringVar(&role, "role", string(account.Provider), "what the token may do: "+account.JoinRoles(account.Roles()))
	cmd.Flags().StringVar(&subject, "sub", "cli", "who uses the token; the log and workflows name it")
	cmd.Flags().DurationVar(&life, "ttl", time.Hour, "how long the token is valid, 12h at most")
	return cmd
}

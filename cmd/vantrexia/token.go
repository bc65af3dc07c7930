package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/api"
)

func tokenCommand() *cobra.Command {
	var want api.Token
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a signed bearer token for the API",
		Long: `Prints a bearer token for the API, signed with API_TOKEN_SECRET (or the secret in API_TOKEN_SECRET_FILE, which
"make run" creates). README.md says what each role may do.`,
		Example: `  curl -H "Authorization: Bearer $(vantrexia token --role provider)" http://localhost:8000/api/v1/patients/`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			token, err := cfg.signToken(want)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), token)
			return nil
		},
	}

	cmd.Flags().StringVar((*string)(&want.Role), "role", string(account.Provider), "what the token may do; README.md lists the roles")
	cmd.Flags().StringVar(&want.Subject, "sub", "cli", "who uses the token; the log names it")
	cmd.Flags().DurationVar(&want.TTL, "ttl", time.Hour, "how long the token is valid, for example 15m or 12h")
	return cmd
}

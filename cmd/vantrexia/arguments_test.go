package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestNoSecretIsAnArgument: every account of a machine sees the arguments of a process, and shells keep them. A secret
// comes from the environment, a file, or the standard input.
func TestNoSecretIsAnArgument(t *testing.T) {
	t.Parallel()
	secret := regexp.MustCompile(`(?i)passw|passphrase|token|secret|credential|private|\bkey|totp|\bpin\b`)
	notOne := map[string]string{
		"vantrexia users reset-password": "an account",
		"vantrexia keys retire":          "the id of a key",
		"vantrexia keys rotate":          "names of keysets",
	}
	flags := 0

	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		check := func(flag *pflag.Flag) {
			flags++
			if secret.MatchString(flag.Name) && flag.Value.Type() != "bool" {
				t.Errorf("%s --%s takes a value of type %s: read it from a setting, a file or the standard input",
					cmd.CommandPath(), flag.Name, flag.Value.Type())
			}
		}
		cmd.LocalFlags().VisitAll(check)

		_, arguments, _ := strings.Cut(cmd.Use, " ")
		if secret.MatchString(arguments) && notOne[cmd.CommandPath()] == "" {
			t.Errorf("%s takes the argument %q", cmd.CommandPath(), arguments)
		}
		for _, below := range cmd.Commands() {
			walk(below)
		}
	}
	walk(rootCommand())

	if flags < 30 {
		t.Errorf("only %d flags were found", flags)
	}
}

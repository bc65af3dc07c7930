package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func certsCommand() *cobra.Command {
	made := certificates{now: time.Now}
	certs := &cobra.Command{
		Use:   "certs",
		Short: "Make or renew the certificates between PostgreSQL, Temporal and Vantrexia on one host",
		Long: `Makes a private authority (CA), and the certificates with which the parts of an installation on one host know each other:
PostgreSQL and the Temporal server prove who they are, and Vantrexia, the Temporal Web UI and administrators prove to the Temporal
server who they are. Each has a directory of its own with ca.pem, cert.pem and key.pem, to be given to that part and to no other.

The authority is valid for ten years, the others for one. Run it again, for example every month: it renews what is past two thirds of its
life, makes what is missing or has other names than those asked for, and leaves the rest as it is. It overwrites nothing that another
authority signed. Only you can read the files.`,
		Example: `  vantrexia certs --dir deploy/certs
  vantrexia certs --dir certs --postgres db.example.com --temporal temporal,temporal.example.com`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			results, err := made.ensure()
			if err != nil {
				return err
			}
			return printCertificates(cmd.OutOrStdout(), results, made.now())
		},
	}

	const names = "names and addresses by which %s is reached, with commas between"
	certs.Flags().StringVar(&made.dir, "dir", "deploy/certs", "directory of all certificates")
	certs.Flags().StringSliceVar(&made.postgres, "postgres", []string{"postgres", "localhost", "127.0.0.1", "::1"},
		fmt.Sprintf(names, "PostgreSQL"))
	certs.Flags().StringSliceVar(&made.temporal, "temporal", []string{temporalServerName, "localhost", "127.0.0.1", "::1"},
		fmt.Sprintf(names, "the Temporal server")+`; "temporal" has to be one, by which its own services know each other`)
	return certs
}

// printCertificates says of each directory what it is for, and what was done to it.
func printCertificates(out io.Writer, results []certificateResult, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	renewed := false
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\tuntil %s\t%s\n", r.dir, r.done, r.until.UTC().Format(time.DateOnly), r.purpose)
		renewed = renewed || r.done == doneRenewed
	}
	if err := w.Flush(); err != nil {
		return err
	}

	if authority := results[0]; authority.until.Before(now.Add(leafLife)) {
		fmt.Fprintf(out, "\nThe authority expires at %s, and with it all others. Before that, move the whole directory away, run "+
			"this again, and start all parts again.\n", authority.until.UTC().Format(time.DateOnly))
	}
	if renewed {
		fmt.Fprintln(out, "\nVantrexia and the Web UI use a renewed certificate from their next connection on, and the Temporal server "+
			"within an hour.\nPostgreSQL reads its own at its start: restart it, such as with `docker compose restart postgres`.")
	}
	return nil
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// The linker writes these two into the image's binary, which is built without the repository's history
// (deploy/Dockerfile). They are empty in all others.
var imageCommit, imageDate string

// build is what the binary was made of.
type build struct {
	Version string `json:"version"` // the tag; or one that Go makes of the commit
	Commit  string `json:"commit"`
	Date    string `json:"date"`  // of the commit
	Dirty   bool   `json:"dirty"` // it was built with changes that are not in the commit
	Go      string `json:"go"`
	Target  string `json:"target"`
}

// unknown stands for what a binary says that was built without the history.
const unknown = "unknown"

func thisBuild() build {
	info, _ := debug.ReadBuildInfo() // nil: not built with modules, which ours always is
	b := readBuild(info)
	if b.Commit == unknown && imageCommit != "" {
		b.Commit, b.Date = imageCommit, imageDate
	}
	return b
}

func readBuild(info *debug.BuildInfo) build {
	b := build{Version: unknown, Commit: unknown, Date: unknown, Go: runtime.Version(), Target: runtime.GOOS + "/" + runtime.GOARCH}
	if info == nil {
		return b
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		b.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Commit = setting.Value
		case "vcs.time":
			b.Date = setting.Value
		case "vcs.modified":
			b.Dirty = setting.Value == "true"
		}
	}
	return b
}

func (b build) write(out io.Writer) error {
	commit := b.Commit
	if b.Dirty {
		commit += ", with changes"
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "version\t%s\ncommit\t%s\ndate\t%s\ngo\t%s\ntarget\t%s\n", b.Version, commit, b.Date, b.Go, b.Target)
	return table.Flush()
}

// log says at the start of a process what it is.
func (b build) log(log *slog.Logger, role string) {
	log.Info("vantrexia "+role, "version", b.Version, "commit", b.Commit, "dirty", b.Dirty, "go", b.Go)
}

func versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the Go that this binary was built of",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !asJSON {
				return thisBuild().write(cmd.OutOrStdout())
			}
			text, err := json.MarshalIndent(thisBuild(), "", "  ")
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), string(text))
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

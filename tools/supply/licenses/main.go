// Command licenses writes docs/licenses.md of the SBOM on its standard input: which modules are in the binary, and under which licence.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
)

// sbom is what we read of a CycloneDX document.
type sbom struct {
	Components []struct {
		Name, Version string
		Type          string
		Licenses      licences
		Evidence      struct{ Licenses licences }
	}
}

type licences []struct {
	License    struct{ ID, Name string }
	Expression string
}

// known holds what somebody read in the modules' licences where the detector finds nothing, half, or takes the text of Go's own
// people for BSD-Source-Code and that of gogo for 0BSD. The SBOM keeps what it found.
var known = map[string]string{
	"filippo.io/hpke":                              "BSD-3-Clause",
	"github.com/gogo/protobuf":                     "BSD-3-Clause",
	"golang.org/x/crypto":                          "BSD-3-Clause",
	"golang.org/x/mod":                             "BSD-3-Clause",
	"golang.org/x/net":                             "BSD-3-Clause",
	"golang.org/x/oauth2":                          "BSD-3-Clause",
	"golang.org/x/sync":                            "BSD-3-Clause",
	"golang.org/x/sys":                             "BSD-3-Clause",
	"golang.org/x/term":                            "BSD-3-Clause",
	"golang.org/x/text":                            "BSD-3-Clause",
	"golang.org/x/time":                            "BSD-3-Clause",
	"github.com/nexus-rpc/nexus-proto-annotations": "NOASSERTION", // neither the module nor a file in it names one
	"github.com/pressly/goose/v3":                  "MIT",
	"github.com/oasdiff/yaml":                      "MIT AND BSD-3-Clause",
	"github.com/oasdiff/yaml3":                     "MIT AND Apache-2.0",
	"go.yaml.in/yaml/v3":                           "MIT AND Apache-2.0",
}

func main() {
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

func write() error {
	var of sbom
	if err := json.NewDecoder(os.Stdin).Decode(&of); err != nil {
		return fmt.Errorf("the SBOM cannot be read: %w", err)
	}
	var rows []string
	for _, module := range of.Components {
		if module.Name == "std" {
			continue // Go itself, which the text names
		}
		licence := known[module.Name]
		if licence == "" {
			licence = spdx(append(module.Licenses, module.Evidence.Licenses...))
		}
		if licence == "" {
			return fmt.Errorf("no licence was found for %s %s: read it and add it to known in tools/supply/licenses", module.Name, module.Version)
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", module.Name, module.Version, licence))
	}
	sort.Strings(rows)
	fmt.Print(`# Licences

The modules in the binary of Linux on amd64, written by ` + "`make licenses`" + `. Go and its standard library are BSD-3-Clause. The texts
stand in the modules.

| module | version | licence |
| --- | --- | --- |
` + strings.Join(rows, "\n") + "\n")
	return nil
}

func spdx(found licences) string {
	var ids []string
	seen := map[string]bool{}
	for _, one := range found {
		id := one.License.ID + one.Expression
		if id != "" && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	sort.Strings(ids)
	return strings.Join(ids, " AND ")
}

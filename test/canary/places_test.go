package canary_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// texts returns everything that is searched, but for what Temporal says.
func (s *system) texts(t *testing.T) (all []text) {
	t.Helper()
	for name, file := range map[string]string{
		"log of vantrexia serve":   "serve.log",
		"log of vantrexia sandbox": "sandbox.log",
		"log of PostgreSQL":        filepath.Join("postgres", "log"),
		"log of Temporal":          filepath.Join("temporal", "temporal.log"),
	} {
		content, err := os.ReadFile(filepath.Join(s.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		content = append(bytes.Clone(s.logs[name]), content...)
		if strings.HasPrefix(name, "log of vantrexia") {
			all = append(all, lines(name, content)...)
		} else {
			all = append(all, text{name, content})
		}
	}

	files, err := filepath.Glob(filepath.Join(s.dir, "temporal", "temporal.db*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("Temporal's database: %v, %v", files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text{"database file of Temporal", content})
	}

	dump, err := s.postgres.Dump(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	return append(all, columns(t, dump)...)
}

// lines takes a log in JSON apart, so that a finding names the level and the component.
func lines(name string, log []byte) (all []text) {
	content := map[string][]byte{}
	for line := range bytes.Lines(log) {
		place := name + ": other lines"
		var head struct{ Level, Component string }
		if json.Unmarshal(line, &head) == nil && head.Level != "" {
			place = fmt.Sprintf("%s: level %s, component %s", name, head.Level, head.Component)
		}
		content[place] = append(content[place], line...)
	}
	for _, place := range sortedKeys(content) {
		all = append(all, text{place, content[place]})
	}
	return all
}

// columns takes a dump apart, so that a finding names the column.
func columns(t *testing.T, dump []byte) (all []text) {
	t.Helper()
	content := map[string]*bytes.Buffer{}
	var order []string
	var row []string // the places of the columns of the table that is read
	add := func(place, value string) {
		if content[place] == nil {
			content[place] = &bytes.Buffer{}
			order = append(order, place)
		}
		content[place].WriteString(value + "\n")
	}

	for line := range strings.Lines(string(dump)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case row != nil && line == `\.`:
			row = nil
		case row != nil:
			values := strings.Split(line, "\t")
			if len(values) != len(row) {
				t.Fatalf("a row of %s has %d values", row[0], len(values))
			}
			for i, value := range values {
				add(row[i], value)
			}
		case strings.HasPrefix(line, "COPY "):
			table, names, _ := strings.Cut(strings.TrimPrefix(line, "COPY public."), " (")
			names, _, _ = strings.Cut(names, ")")
			for _, name := range strings.Split(names, ", ") {
				row = append(row, fmt.Sprintf("pg_dump: %s.%s", table, strings.Trim(name, `"`)))
			}
		default:
			add("pg_dump: outside of the rows", line)
		}
	}

	for _, place := range order {
		all = append(all, text{place, content[place].Bytes()})
	}
	return all
}

// finding is a canary in a place where it must not be.
type finding struct{ place, canary string }

// findings are all of them, each with the forms and an example.
type findings map[finding]map[string]string

func (f findings) add(place string, h hit) {
	key := finding{place, h.canary}
	if f[key] == nil {
		f[key] = map[string]string{}
	}
	f[key][h.form] = h.near
}

// exception permits a canary in a place.
type exception struct {
	place  string // how the place begins
	canary string // "" is any
	sent   bool   // only if the one who sees it has sent it
	reason string
}

func (e exception) covers(place, canary string, sent bool) bool {
	return strings.HasPrefix(place, e.place) && (e.canary == "" || e.canary == canary) && (!e.sent || sent)
}

func (s *system) appendTo(t *testing.T, file, line string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(s.dir, file), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(line); err != nil {
		t.Fatal(err)
	}
}

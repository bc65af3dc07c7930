// Package canary_test sends patients, readings and secrets that nobody could mistake through a whole
// installation and everything that can go wrong in it, and then searches for them wherever they must not be:
// in Temporal's histories, lists and database, in the logs of all processes, in a dump of the database, in
// answers to errors.
package canary_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"
)

func TestNothingPrivateLeaves(t *testing.T) {
	s := startSystem(t)
	s.heal(t)
	admin := s.commands(t)
	s.adminToken = admin.token

	t.Run("calm", func(t *testing.T) {
		t.Run("accounts", func(t *testing.T) { s.accounts(t, admin) })
		t.Run("patients", func(t *testing.T) { s.patients(t, admin) })
		t.Run("doors", func(t *testing.T) { s.doors(t, admin) })
		t.Run("bad requests", func(t *testing.T) { s.badRequests(t, admin) })
	})
	for _, step := range []struct {
		name string
		run  func(*testing.T, caller)
	}{
		{"deliveries", s.deliveries},
		{"links", s.links},
		{"tokens", s.tokens},
		{"schedules", s.schedules},
		{"bundles", s.bundles},
		{"outages", s.outages},
		{"secret of the app", s.secretOfTheApp},
		{"answers without names", s.withoutNames},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, admin) }) {
			t.FailNow() // the search would look at half of it
		}
	}

	s.plant(t)
	r := s.readTemporal(t)
	texts := append(s.texts(t), r.texts...)
	t.Run("the search finds what is planted", func(t *testing.T) { s.findPlanted(t, texts) })
	t.Run("payloads", func(t *testing.T) { s.judgePayloads(t, r) })
	t.Run("canaries", func(t *testing.T) { s.judgeTexts(t, texts) })
	t.Run("error answers", s.judgeAnswers)
}

// planted is put into each place that is searched, to see that the search finds it.
const planted = "plantedOnPurposeQX"

// plantedIn are the places.
func plantedIn() []string {
	return []string{
		"history: planted, WorkflowExecutionStarted", "visibility: planted", "description: planted", "database file of Temporal",
		"log of vantrexia serve: other lines", "log of vantrexia sandbox: other lines", "log of PostgreSQL", "log of Temporal",
		"pg_dump: planted.as_text", "pg_dump: planted.as_bytes",
	}
}

func (s *system) plant(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	_, err := s.raw.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: "planted", TaskQueue: "nobody-listens", Memo: map[string]any{"note": planted}, StaticDetails: planted,
	}, "planted", planted)
	if err != nil {
		t.Fatal(err)
	}

	conn, err := pgx.Connect(ctx, s.postgres.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, statement := range []string{
		"CREATE TABLE planted (as_text text, as_bytes bytea)",
		fmt.Sprintf("INSERT INTO planted VALUES ('%[1]s', convert_to('%[1]s', 'UTF8'))", planted),
		fmt.Sprintf("DO $$ BEGIN RAISE WARNING '%s'; END $$", planted),
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}

	for _, file := range []string{"serve.log", "sandbox.log", "temporal/temporal.log"} {
		s.appendTo(t, file, planted+"\n")
	}
	// An error answer that repeats what was asked for.
	s.caller(t, s.adminToken).do("GET", "/api/v1/fhir/transmissions/"+planted+"/", nil).want(http.StatusNotFound)
}

func (s *system) findPlanted(t *testing.T, texts []text) {
	search, err := newSearcher([]canary{{"planted", planted}})
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]bool{}
	for _, x := range texts {
		if len(search.in(x.content)) > 0 {
			in[x.place] = true
		}
	}
	for _, place := range plantedIn() {
		if !in[place] {
			t.Errorf("what was planted is not found in %q", place)
		}
	}
	for _, u := range s.said.all {
		if len(search.in([]byte(u.answer))) > 0 {
			in["answers"] = true
		}
	}
	if !in["answers"] {
		t.Error("what was planted is not found in the error answers")
	}
}

// judgePayloads fails the test if anything in Temporal but search attributes is readable.
func (s *system) judgePayloads(t *testing.T, r *reading) {
	t.Logf("%d events, %d payloads decrypted", r.events, r.opened)
	if r.events < 500 {
		t.Errorf("there are %d events only", r.events)
	}
	if r.opened == 0 {
		t.Errorf("no payload is %s", encrypted)
	}
	for _, problem := range sortedKeys(r.problems) {
		if !strings.Contains(problem, ": planted") {
			t.Errorf("%s (%d times)", problem, r.problems[problem])
		}
	}
}

func (s *system) judgeTexts(t *testing.T, texts []text) {
	search, err := newSearcher(s.canaries())
	if err != nil {
		t.Fatal(err)
	}
	found, used := findings{}, map[exception]bool{}
	for _, x := range texts {
		for _, h := range search.in(x.content) {
			if !permitted(x.place, h.canary, false, used) {
				found.add(x.place, h)
			}
		}
	}
	report(t, found)
	wantUsed(t, used, func(e exception) bool { return !strings.Contains(e.place, "answer") })
}

// judgeAnswers fails the test if an error told somebody what he has not sent himself, or repeats what it
// should not.
func (s *system) judgeAnswers(t *testing.T) {
	search, err := newSearcher(s.canaries())
	if err != nil {
		t.Fatal(err)
	}
	found, used := findings{}, map[exception]bool{}
	for _, u := range s.said.all {
		sent := map[string]bool{}
		for _, h := range search.in([]byte(u.sent)) {
			sent[h.canary] = true
		}
		for _, h := range search.in([]byte(u.answer)) {
			if !permitted(u.place, h.canary, sent[h.canary], used) {
				h.near = fmt.Sprintf("sent by the caller: %t, %s", sent[h.canary], h.near)
				found.add(u.place, h)
			}
		}
	}
	t.Logf("%d error answers", len(s.said.all))
	report(t, found)
	wantUsed(t, used, func(e exception) bool { return strings.Contains(e.place, "answer") })
}

// wantUsed fails the test for an exception that nothing needs any more.
func wantUsed(t *testing.T, used map[exception]bool, of func(exception) bool) {
	t.Helper()
	for _, e := range exceptions() {
		if of(e) && !used[e] {
			t.Errorf("the exception of the %s in %q is not needed: delete it", e.canary, e.place)
		}
	}
}

func permitted(place, canary string, sent bool, used map[exception]bool) bool {
	for _, e := range exceptions() {
		if e.covers(place, canary, sent) {
			used[e] = true
			return true
		}
	}
	return false
}

// report names every finding once.
func report(t *testing.T, found findings) {
	t.Helper()
	var lines []string
	for f, forms := range found {
		form := sortedKeys(forms)
		lines = append(lines, fmt.Sprintf("%s holds the %s (%s): %s", f.place, f.canary, strings.Join(form, ", "), forms[form[0]]))
	}
	slices.Sort(lines)
	for _, line := range lines {
		t.Error(line)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

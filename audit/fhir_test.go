package audit_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// actions are those of action.go.
func actions(t *testing.T) (all []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "action.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if value, ok := n.(*ast.BasicLit); ok && value.Kind == token.STRING {
			text, _ := strconv.Unquote(value.Value)
			all = append(all, text)
		}
		return true
	})
	if len(all) < 10 {
		t.Fatalf("action.go has the actions %v", all)
	}
	return all
}

// The API's filter takes exactly the actions that there are.
func TestTheContractNamesEveryAction(t *testing.T) {
	t.Parallel()
	contract, err := os.ReadFile("../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(contract), "\n    AuditAction:\n")
	_, after, _ = strings.Cut(after, "      enum:\n")
	var named []string
	for line := range strings.Lines(after) {
		action, ok := strings.CutPrefix(line, "        - ")
		if !ok {
			break
		}
		named = append(named, strings.TrimSpace(action))
	}
	want := actions(t)
	slices.Sort(want)
	slices.Sort(named)
	if !slices.Equal(named, want) {
		t.Errorf("openapi.yaml has the actions %v\naction.go %v", named, want)
	}
}

// Every row becomes an AuditEvent that R4 allows, whoever did whatever with whatever outcome.
func TestEveryRowIsAnAuditEventOfR4(t *testing.T) {
	t.Parallel()
	subjects := []struct{ subject, role, token, address, name string }{
		{uuid.NewString(), "nurse", uuid.NewString(), "10.0.0.7", "Maria Lopez"},
		{"key:" + uuid.NewString(), "service", uuid.NewString(), "2001:db8::7", ""},
		{audit.Local, "", "alice", "db-1", ""},
		{audit.Local, "", "", "", ""},
		{audit.System, "", "", "", ""},
		{"", "", "", "192.0.2.1", ""},
		{"", "", "", "", ""},
	}
	for _, action := range actions(t) {
		for _, who := range subjects {
			for _, outcome := range []string{"success", "refused", "failure"} {
				for _, kind := range []string{"Patient", "Observation", "APIKey", ""} {
					row := db.AuditEvent{
						RecordedAt:   time.Now().UTC(),
						Writer:       uuid.New(),
						Sequence:     1<<63 - 1,
						PracticeCode: "FFHEDD",
						Subject:      who.subject,
						Role:         who.role,
						TokenID:      who.token,
						Address:      who.address,
						Action:       action,
						ResourceType: kind,
						Outcome:      outcome,
					}
					if kind != "" {
						row.ResourceIDs, row.PatientIDs, row.Reason = []string{uuid.NewString()}, []uuid.UUID{uuid.New()}, "a reason"
					}
					got, err := json.Marshal(audit.FHIR(row, who.name, ""))
					if err != nil {
						t.Fatal(err)
					}
					if wrong := r4Faults(got); len(wrong) > 0 {
						t.Fatalf("%s by %q, %s: %s\n%s", action, who.subject, outcome, strings.Join(wrong, "; "), got)
					}
				}
			}
		}
	}
}

// balp is what IHE's Basic Audit Log Patterns prescribe for an interaction.
type balp struct {
	action, event, interaction string
	client, server, user       string // the types of the agents
	patient                    bool
}

// Reads and writes of patients follow the patterns PatientRead, PatientCreate, PatientUpdate of IHE BALP.
func TestReadsAndWritesFollowBALP(t *testing.T) {
	t.Parallel()
	const (
		source, destination = "110153", "110152"
		recipient, author   = "IRCP", "AUT"
	)
	patient, observation := uuid.New(), uuid.NewString()
	for action, want := range map[audit.Action]balp{
		audit.PatientRead:       {"R", "rest", "read", destination, source, recipient, true},
		audit.ObservationRead:   {"R", "rest", "read", destination, source, recipient, true},
		audit.PatientSearch:     {"E", "rest", "search-type", source, destination, recipient, true},
		audit.PatientCreate:     {"C", "rest", "create", source, destination, author, true},
		audit.PatientUpdate:     {"U", "rest", "update", source, destination, author, true},
		audit.PatientArchive:    {"E", "rest", "operation", source, destination, recipient, true},
		audit.SignIn:            {"E", "110114", "110122", source, destination, recipient, false},
		audit.AccessRefuse:      {"E", "110113", "110132", source, destination, recipient, false},
		audit.AuditSearch:       {"R", "110101", "", destination, source, recipient, true},
		audit.ObservationCreate: {"C", "rest", "create", source, destination, author, true},
	} {
		row := db.AuditEvent{
			RecordedAt:   time.Date(2026, 2, 6, 10, 31, 7, 481223000, time.UTC),
			Writer:       uuid.MustParse("0199d2c4-7a10-7c3e-9f5b-1d2e3f4a5b6c"),
			Sequence:     42,
			PracticeCode: "FFHEDD",
			Subject:      "6f0d3c1e-2a4b-4c5d-8e6f-7a8b9c0d1e2f",
			Role:         "nurse",
			TokenID:      "5d6c1c0e-9a55-4c52-8b8f-0f5f3b0f6a11",
			Address:      "10.0.0.7",
			Action:       string(action),
			Outcome:      "success",
			Reason:       "asked by the patient",
		}
		if want.patient {
			row.PatientIDs, row.ResourceType, row.ResourceIDs = []uuid.UUID{patient}, "Observation", []string{observation}
		}
		got := audit.FHIR(row, "Maria Lopez", "https://rpm.example.org")
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			if got.ID != "0199d2c4-7a10-7c3e-9f5b-1d2e3f4a5b6c.42" || got.Recorded != "2026-02-06T10:31:07.481223Z" || got.Outcome != "0" {
				t.Errorf("the id is %s, recorded %s, outcome %s", got.ID, got.Recorded, got.Outcome)
			}
			subtype := got.Subtype[0].Code
			if want.interaction == "" {
				subtype = ""
			}
			if got.Action != want.action || got.Type.Code != want.event || subtype != want.interaction {
				t.Errorf("it is %s %s %s, want %+v", got.Action, got.Type.Code, subtype, want)
			}
			if last := got.Subtype[len(got.Subtype)-1]; last.Code != string(action) {
				t.Errorf("our own action is %+v", last)
			}
			if len(got.Agent) != 3 {
				t.Fatalf("the agents are %+v", got.Agent)
			}
			user, client, server := got.Agent[0], got.Agent[1], got.Agent[2]
			if user.Type.Coding[0].Code != want.user || client.Type.Coding[0].Code != want.client || server.Type.Coding[0].Code != want.server {
				t.Errorf("the agents are %+v %+v %+v", user.Type, client.Type, server.Type)
			}
			if user.Who.Identifier.Value != row.Subject || user.Name != "Maria Lopez" || user.Role[0].Coding[0].Code != "nurse" || user.Network != nil {
				t.Errorf("the user is %+v", user)
			}
			if client.Who.Identifier.Value != row.TokenID || *client.Network != (audit.Network{Address: "10.0.0.7", Type: "2"}) {
				t.Errorf("the client is %+v", client)
			}
			if server.Who == nil || *server.Network != (audit.Network{Address: "https://rpm.example.org", Type: "5"}) {
				t.Errorf("the server is %+v", server)
			}
			if got.PurposeOfEvent[0].Text != row.Reason || got.OutcomeDesc != "" {
				t.Errorf("the reason is %+v, %q", got.PurposeOfEvent, got.OutcomeDesc)
			}
			if want.patient {
				wantEntities(t, got.Entity, "Patient/"+patient.String(), "Observation/"+observation)
			}
		})
	}
}

func wantEntities(t *testing.T, got []audit.Entity, patient, data string) {
	t.Helper()
	if len(got) != 2 {
		t.Fatalf("the entities are %+v", got)
	}
	if p := got[0]; p.What.Reference != patient || p.Type.Code != "1" || p.Role.Code != "1" {
		t.Errorf("the patient is %+v", p)
	}
	if d := got[1]; d.What.Reference != data || d.Type.Code != "2" || d.Role.Code != "4" {
		t.Errorf("the data is %+v", d)
	}
}

// What leaves for eCW goes from us to there; nobody is named who was not there.
func TestDeliveriesGoFromUsToECW(t *testing.T) {
	t.Parallel()
	row := db.AuditEvent{
		RecordedAt: time.Now().UTC(), Writer: uuid.New(), Sequence: 1, PracticeCode: "FFHEDD",
		Subject: audit.System, Action: string(audit.ObservationDelivered), Outcome: "failure", Reason: "permanent_data",
	}
	got := audit.FHIR(row, "", "")
	if got.Type.Code != "110106" || got.Outcome != "8" || got.OutcomeDesc != "permanent_data" || got.PurposeOfEvent != nil {
		t.Errorf("it is %+v", got)
	}
	if len(got.Agent) != 2 || !got.Agent[0].Requestor || got.Agent[0].Type.Coding[0].Code != "110153" || got.Agent[1].Who.Display != "eClinicalWorks" {
		t.Errorf("the agents are %+v", got.Agent)
	}
	row.Outcome = "refused"
	if got := audit.FHIR(row, "", ""); got.Outcome != "4" {
		t.Errorf("refused is %s", got.Outcome)
	}
}

// The command line is a person at a machine.
func TestTheCommandLineIsAPersonAtAMachine(t *testing.T) {
	t.Parallel()
	got := audit.FHIR(db.AuditEvent{
		RecordedAt: time.Now().UTC(), Writer: uuid.New(), Sequence: 1, Subject: audit.Local, TokenID: "alice", Address: "db-1",
		Action: string(audit.KeysChange), Outcome: "success",
	}, "", "")
	if user, client := got.Agent[0], got.Agent[1]; user.Name != "alice" || client.Who.Display != "command line" ||
		*client.Network != (audit.Network{Address: "db-1", Type: "1"}) {
		t.Errorf("the agents are %+v %+v", user, client)
	}
}

// The checker of these tests finds what R4 does not allow.
func TestTheCheckerRefusesWhatR4DoesNotAllow(t *testing.T) {
	t.Parallel()
	good, err := json.Marshal(audit.FHIR(db.AuditEvent{
		RecordedAt: time.Now().UTC(), Writer: uuid.New(), Sequence: 1, Action: "patient.read", Outcome: "success", Address: "10.0.0.7",
	}, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	if wrong := r4Faults(good); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	for what, change := range map[string]func(map[string]any){
		"no type":         func(m map[string]any) { delete(m, "type") },
		"no recorded":     func(m map[string]any) { delete(m, "recorded") },
		"no agent":        func(m map[string]any) { m["agent"] = []any{} },
		"no requestor":    func(m map[string]any) { delete(m["agent"].([]any)[0].(map[string]any), "requestor") },
		"no observer":     func(m map[string]any) { delete(m["source"].(map[string]any), "observer") },
		"a date":          func(m map[string]any) { m["recorded"] = "2026-02-06" },
		"another action":  func(m map[string]any) { m["action"] = "X" },
		"another outcome": func(m map[string]any) { m["outcome"] = "success" },
		"two types":       func(m map[string]any) { m["type"] = []any{m["type"]} },
		"a stray":         func(m map[string]any) { m["subject"] = "x" },
		"an empty text":   func(m map[string]any) { m["outcomeDesc"] = "" },
	} {
		var m map[string]any
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		broken, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if len(r4Faults(broken)) == 0 {
			t.Errorf("%s is not found: %s", what, broken)
		}
	}
}

package audit

import (
	"strings"
	"time"

	"github.com/vantrexia/vantrexia/db"
)

// The systems of our own codes and ids in FHIR.
const (
	actionSystem = "https://vantrexia.com/fhir/CodeSystem/audit-action"
	roleSystem   = "https://vantrexia.com/fhir/CodeSystem/role"
	idSystem     = "https://vantrexia.com/fhir/sid/"
)

// The code systems that FHIR R4 and IHE BALP prescribe.
const (
	dicomSystem       = "http://dicom.nema.org/resources/ontology/DCM"
	eventSystem       = "http://terminology.hl7.org/CodeSystem/audit-event-type"
	interactionSystem = "http://hl7.org/fhir/restful-interaction"
	participantSystem = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
	entitySystem      = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
	objectRoleSystem  = "http://terminology.hl7.org/CodeSystem/object-role"
	sourceSystem      = "http://terminology.hl7.org/CodeSystem/security-source-type"
)

// The resource AuditEvent of FHIR R4, as far as the trail fills it.
type (
	// AuditEvent is a row of the trail in FHIR. Reads and writes follow IHE's Basic Audit Log Patterns: who used which client,
	// on which server, on which data of which patients. The trail has no values, so a search has no query.
	AuditEvent struct {
		ResourceType   string            `json:"resourceType"`
		ID             string            `json:"id"`
		Type           Coding            `json:"type"`
		Subtype        []Coding          `json:"subtype"`
		Action         string            `json:"action"`
		Recorded       string            `json:"recorded"`
		Outcome        string            `json:"outcome"`
		OutcomeDesc    string            `json:"outcomeDesc,omitempty"`
		PurposeOfEvent []CodeableConcept `json:"purposeOfEvent,omitempty"`
		Agent          []Agent           `json:"agent"`
		Source         Source            `json:"source"`
		Entity         []Entity          `json:"entity,omitempty"`
	}
	// Agent is who or what took part.
	Agent struct {
		Type      *CodeableConcept  `json:"type,omitempty"`
		Role      []CodeableConcept `json:"role,omitempty"`
		Who       *Reference        `json:"who,omitempty"`
		Name      string            `json:"name,omitempty"`
		Requestor bool              `json:"requestor"`
		Network   *Network          `json:"network,omitempty"`
	}
	// Network is where an agent is: 1 is a machine's name, 2 an IP address, 5 a URI.
	Network struct {
		Address string `json:"address"`
		Type    string `json:"type"`
	}
	// Source is who has recorded the event.
	Source struct {
		Site     string    `json:"site,omitempty"`
		Observer Reference `json:"observer"`
		Type     []Coding  `json:"type"`
	}
	// Entity is what it was about.
	Entity struct {
		What Reference `json:"what"`
		Type Coding    `json:"type"`
		Role Coding    `json:"role"`
	}
	// Coding is a code and its system.
	Coding struct {
		System  string `json:"system"`
		Code    string `json:"code"`
		Display string `json:"display,omitempty"`
	}
	// CodeableConcept is codes, or a text.
	CodeableConcept struct {
		Coding []Coding `json:"coding,omitempty"`
		Text   string   `json:"text,omitempty"`
	}
	// Reference points to a resource, or has an identifier of something that is none.
	Reference struct {
		Reference  string      `json:"reference,omitempty"`
		Identifier *Identifier `json:"identifier,omitempty"`
		Display    string      `json:"display,omitempty"`
	}
	// Identifier is an id and its system.
	Identifier struct {
		System string `json:"system"`
		Value  string `json:"value"`
	}
)

// FHIR returns a row of the trail as FHIR R4 has it. The name is that of its subject, and server the URL of the API; both
// may be empty.
func FHIR(e db.AuditEvent, name, server string) AuditEvent {
	kind := kindOf(Action(e.Action))
	event := AuditEvent{
		ResourceType: "AuditEvent",
		ID:           ID(e),
		Type:         kind.event,
		Subtype:      append(kind.subtype, Coding{System: actionSystem, Code: e.Action}),
		Action:       kind.action,
		Recorded:     e.RecordedAt.Format(time.RFC3339Nano),
		Outcome:      map[string]string{db.AuditSuccess: "0", db.AuditRefused: "4", db.AuditFailure: "8"}[e.Outcome],
		Agent:        agents(e, kind, name, server),
		Source: Source{
			Site:     e.PracticeCode,
			Observer: vantrexia(),
			Type:     []Coding{{sourceSystem, "4", "Application Server"}},
		},
		Entity: entities(e),
	}
	switch {
	case strings.TrimSpace(e.Reason) == "": // FHIR has no empty texts
	case e.Outcome == db.AuditSuccess:
		event.PurposeOfEvent = []CodeableConcept{{Text: e.Reason}}
	default:
		event.OutcomeDesc = e.Reason
	}
	return event
}

// kind is what an action is called in FHIR and DICOM.
type kind struct {
	event   Coding
	subtype []Coding
	action  string // create, read, update, delete, execute
}

func kindOf(action Action) kind {
	dicom := func(action, event string, subtype ...string) kind {
		k := kind{event: dicomCode(event), action: action}
		for _, code := range subtype {
			k.subtype = append(k.subtype, dicomCode(code))
		}
		return k
	}
	switch action {
	case SignIn:
		return dicom("E", "110114", "110122")
	case SignOut:
		return dicom("E", "110114", "110123")
	case TokenRefresh:
		return dicom("E", "110114")
	case AccessRefuse:
		return dicom("E", "110113", "110132")
	case AccountChange, TokenRevoke:
		return dicom("U", "110113", "110137")
	case APIKeyCreate:
		return dicom("C", "110113", "110137")
	case APIKeyRevoke:
		return dicom("D", "110113", "110137")
	case KeysChange:
		return dicom("U", "110113", "110129")
	case AuditSearch, AuditExport, AuditVerify:
		return dicom("R", "110101")
	case AuditPrune:
		return dicom("D", "110101")
	case PatientImport:
		return dicom("C", "110107")
	case ObservationSend, ObservationDelivered:
		return dicom("R", "110106")
	}

	rest := func(action, interaction string) kind {
		return kind{Coding{eventSystem, "rest", "Restful Operation"}, []Coding{{interactionSystem, interaction, interaction}}, action}
	}
	switch string(action[strings.LastIndex(string(action), ".")+1:]) {
	case "read":
		return rest("R", "read")
	case "search":
		return rest("E", "search-type")
	case "create":
		return rest("C", "create")
	case "update":
		return rest("U", "update")
	case "delete", "prune":
		return rest("D", "delete")
	}
	return rest("E", "operation")
}

func dicomCode(code string) Coding {
	return Coding{dicomSystem, code, map[string]string{
		"110101": "Audit Log Used",
		"110106": "Export",
		"110107": "Import",
		"110113": "Security Alert",
		"110114": "User Authentication",
		"110122": "Login",
		"110123": "Logout",
		"110129": "Security Configuration",
		"110132": "Use of Restricted Function",
		"110137": "User Security Attributes Changed",
		"110152": "Destination Role ID",
		"110153": "Source Role ID",
	}[code]}
}

// agents returns the person or the machine, the client that it used, and the server, as BALP names them. The first asked for it.
func agents(e db.AuditEvent, k kind, name, server string) []Agent {
	source, destination := concept(dicomCode("110153")), concept(dicomCode("110152"))
	from, to := source, destination // a request goes from the client to the server
	if k.action == "R" {            // what is read goes the other way
		from, to = destination, source
	}
	us := Agent{Type: to, Who: new(vantrexia())}
	if server != "" {
		us.Network = &Network{server, "5"}
	}

	switch {
	case e.Action == string(ObservationSend) || e.Action == string(ObservationDelivered):
		us.Type = source
		us.Requestor = true
		return []Agent{us, {Type: destination, Who: &Reference{Display: "eClinicalWorks"}}}
	case e.Subject == System:
		us.Requestor = true
		return []Agent{us}
	}

	client := Agent{Type: from, Who: &Reference{Display: "client"}}
	if e.TokenID != "" {
		client.Who = &Reference{Identifier: &Identifier{idSystem + "token", e.TokenID}}
	}
	if e.Address != "" {
		client.Network = &Network{e.Address, "2"}
	}
	switch e.Subject {
	case Local: // its token is the account of the operating system, its address the machine's name
		client.Who = &Reference{Display: "command line"}
		if e.TokenID != "" {
			name = e.TokenID
		}
		if client.Network != nil {
			client.Network.Type = "1"
		}
	case "":
		client.Requestor = true
		return []Agent{client, us}
	}

	participation := Coding{participantSystem, "IRCP", "information recipient"}
	if k.action == "C" || k.action == "U" || k.action == "D" {
		participation = Coding{participantSystem, "AUT", "author (originator)"}
	}
	person := Agent{
		Type:      concept(participation),
		Who:       &Reference{Identifier: &Identifier{idSystem + "subject", e.Subject}, Display: name},
		Name:      name,
		Requestor: true,
	}
	if e.Role != "" {
		person.Role = []CodeableConcept{*concept(Coding{System: roleSystem, Code: e.Role})}
	}
	return []Agent{person, client, us}
}

func vantrexia() Reference {
	return Reference{Identifier: &Identifier{idSystem + "system", System}, Display: "Vantrexia"}
}

func concept(c Coding) *CodeableConcept { return &CodeableConcept{Coding: []Coding{c}} }

// entities returns the patients, and what else it was done to. The patients that a search found are named once.
func entities(e db.AuditEvent) (list []Entity) {
	for _, id := range e.PatientIDs {
		list = append(list, Entity{
			What: Reference{Reference: "Patient/" + id.String()},
			Type: Coding{entitySystem, "1", "Person"},
			Role: Coding{objectRoleSystem, "1", "Patient"},
		})
	}
	if e.ResourceType == "Patient" && strings.HasSuffix(e.Action, ".search") {
		return list
	}
	for _, id := range e.ResourceIDs {
		list = append(list, Entity{
			What: resource(e.ResourceType, id),
			Type: Coding{entitySystem, "2", "System Object"},
			Role: Coding{objectRoleSystem, "4", "Domain Resource"},
		})
	}
	return list
}

// resource refers to a resource of FHIR, or to something that FHIR does not know.
func resource(kind, id string) Reference {
	switch kind {
	case "Patient", "Observation", "AuditEvent":
		return Reference{Reference: kind + "/" + id}
	}
	return Reference{Identifier: &Identifier{idSystem + strings.ToLower(kind), id}}
}

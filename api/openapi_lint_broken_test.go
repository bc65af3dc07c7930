package api_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Each rule finds the fault in a document that breaks it. Otherwise a rule that accepts everything would not
// be noticed.
func TestOpenAPIRulesRefuseBrokenDocuments(t *testing.T) {
	t.Parallel()

	text, broken := readDocument(t), brokenDocuments()
	for _, rule := range lintRules() {
		if len(broken[rule.name]) == 0 {
			t.Errorf("%s: no document breaks this rule", rule.name)
		}
		for _, b := range broken[rule.name] {
			t.Run(rule.name+"/"+b.finding, func(t *testing.T) {
				t.Parallel()
				b.wantFinding(t, rule, text)
			})
		}
		delete(broken, rule.name)
	}

	for name := range broken {
		t.Errorf("%s: no such rule", name)
	}
}

// breakage replaces the first occurrence of a text in openapi.yaml; a finding of the rule must then contain
// the last text.
type breakage struct{ old, new, finding string }

func (b breakage) wantFinding(t *testing.T, rule lintRule, text string) {
	t.Helper()
	if !strings.Contains(text, b.old) {
		t.Fatalf("openapi.yaml has no %q", b.old)
	}

	var findings []string
	d, err := parseDocument(strings.Replace(text, b.old, b.new, 1))
	if err != nil {
		findings = []string{err.Error()}
	} else {
		findings = rule.find(d)
	}

	if !slices.ContainsFunc(findings, func(finding string) bool { return strings.Contains(finding, b.finding) }) {
		t.Errorf("the findings are %q, want one with %q", findings, b.finding)
	}
}

// brokenDocuments are what breaks each rule, by the rule's name.
func brokenDocuments() map[string][]breakage {
	all := map[string][]breakage{}
	maps.Copy(all, brokenOpenAPI())
	maps.Copy(all, brokenHead())
	maps.Copy(all, brokenPaths())
	maps.Copy(all, brokenOperations())
	maps.Copy(all, brokenSchemas())
	return all
}

func brokenOpenAPI() map[string][]breakage {
	return map[string][]breakage{
		"the document and its examples are valid OpenAPI 3.0": {
			{"info:\n", "info:\n  lost: true\n", `lost`},
			{"info:\n", "info:\n  title: Another\n", `"title"`},
			{`#/components/headers/Location`, `#/components/headers/Nowhere`, `Nowhere`},
			{`operationId: getObservation`, `operationId: listPatients`, `listPatients`},
			{`/api/v1/observations/{id}/:`, `/api/v1/observations/{number}/:`, `/api/v1/observations/{number}/`},
			{`- bearer: []`, `- cookie: []`, `cookie`},
			{`      responses:`, `      answers:`, `answers`},
			{`test_patient_count: 142`, `test_patient_count: many`, `test_patient_count`},
			{`test_patient_count: 142`, `members_lost: 142`, `members_lost`},
			{`created_at: "2026-02-06T10:30:02.318204Z"`, `created_at: yesterday`, `date-time`},
			{`maximum: 100, default: 20`, `maximum: 100, default: 200`, `default`},
			{`'^TXN-[0-9]{4}-[0-9]{5,}$'`, `'^TXN-[0-9'`, `error parsing regexp`},
			{`{$ref: "#/components/schemas/Reading"}`, `{$ref: "#/components/schemas/Reading", x-lost: 1}`, `x-lost`},
			{`created: {type: integer`, `created: {type: count`, `"count"`},
		},
		"an example has the format that its schema names": {
			{`patient_id: d290f1ee`, `patient_id: 42-d290f1ee`, `POST /api/v1/observations/ bloodPressure`},
			{`id: d4e5f6a7`, `id: 42-d4e5f6a7`, `POST /api/v1/observations/ 201`},
			{`example: d4e5f6a7`, `example: 42-d4e5f6a7`, `/components/parameters/ObservationID`},
			{`example: "2026-02-06"`, `example: 06.02.2026`, `/paths/~1api~1v1~1fhir~1transmissions~1/get/parameters`},
			{`first_name: Lisa`, `first_name: " "`, `POST /api/v1/patients/ linked`},
			{`phone: "+1 555 0187"`, `phone: "\t"`, `POST /api/v1/patients/ linked`},
			{`date_of_birth: "1948-11-02"`, `date_of_birth: "1948-02-30"`, `POST /api/v1/patients/ linked`},
			{`example: "1957-03-21"`, `example: "1957-02-30"`, `/properties/date_of_birth`},
		},
	}
}

func brokenHead() map[string][]breakage {
	return map[string][]breakage{
		"the licence has a name and a URL": {
			{`    url: https://www.apache.org`, `    x-url: https://www.apache.org`, `info.license`},
		},
		"the servers are named": {
			{"servers:\n  - url: /\n", "", `servers`},
		},
		"a token is asked for by default": {
			{"security:\n  - bearer: []\n", "", `security`},
		},
		"a tag has a description": {
			{"    description: The connection to eClinicalWorks.\n", "", `eCW`},
		},
		"a component is used": {
			{"  schemas:\n", "  schemas:\n    Lost: {type: string, description: Lost.}\n", `#/components/schemas/Lost`},
			{"  responses:\n    B", "  responses:\n    Lost: {description: Lost.}\n    B", `#/components/responses/Lost`},
			{"  headers:\n    L", "  headers:\n    Lost: {schema: {type: string}}\n    L", `#/components/headers/Lost`},
			{
				"  parameters:\n    A",
				"  parameters:\n    Lost: {name: lost, in: query, schema: {type: string}}\n    A",
				`#/components/parameters/Lost`,
			},
			{
				"  headers:\n    L",
				"  examples:\n    Lost: {value: 1}\n  headers:\n    L",
				`#/components/examples/Lost`,
			},
			{
				"  headers:\n    L",
				"  requestBodies:\n    Lost: {content: {text/plain: {}}}\n  headers:\n    L",
				`#/components/requestBodies/Lost`,
			},
		},
	}
}

func brokenPaths() map[string][]breakage {
	return map[string][]breakage{
		"no request fits two paths": {
			{
				`/api/v1/observations/batch/:`,
				`/api/v1/fhir/transmissions/batch/:`,
				`POST /api/v1/fhir/transmissions/batch/ and GET /api/v1/fhir/transmissions/{id}/`,
			},
			{
				`      format: uuid`,
				`      format: text`,
				`GET /api/v1/patients/imports/{id}/ and GET /api/v1/patients/{id}/sync-status/`,
			},
		},
		"a path under /api/ ends with a slash, and no other does": {
			{`/api/v1/fhir/status/:`, `/api/v1/fhir/status:`, `GET /api/v1/fhir/status`},
			{`/api/v1/fhir/status/:`, `/api/v1/fhir//status/:`, `GET /api/v1/fhir//status/`},
			{`/api/v1/fhir/status/:`, `/api/v1/fhir/status/?all=1/:`, `GET /api/v1/fhir/status/?all=1/`},
			{`/api/v1/fhir/status/:`, `/api/fhir/status/:`, `GET /api/fhir/status/`},
			{`/healthz:`, `/healthz/:`, `GET /healthz/`},
		},
		"everything under /api/ asks for a token, and nothing else does": {
			{`operationId: getStatus`, "operationId: getStatus\n      security: []", `GET /api/v1/fhir/status/`},
			{"      security: []\n", "", `GET /.well-known/jwks.json`},
		},
	}
}

func brokenOperations() map[string][]breakage {
	return map[string][]breakage{
		"an operationId is in camel case": {
			{`operationId: getStatus`, `operationId: get_status`, `GET /api/v1/fhir/status/`},
			{"      operationId: getStatus\n", "", `GET /api/v1/fhir/status/`},
		},
		"an operation has a summary": {
			{"      summary: List patients\n", "", `GET /api/v1/patients/`},
		},
		"an operation has a description": {
			{"      description: What `/docs` loads.\n", "", `GET /docs/{file}`},
		},
		"a description ends with the roles": {
			{"nothing: 404.\n\n        Roles: admin, ", "nothing: 404.\n\n        Roles: ", `GET /api/v1/observations/{id}/`},
			{`Role: admin only.`, `Roles: admin, provider.`, `GET /api/v1/api-keys/`},
		},
		"an operation has one tag": {
			{"      tags: [Patients]\n", "", `GET /api/v1/patients/`},
			{`tags: [Patients]`, `tags: [Patients, FHIR]`, `GET /api/v1/patients/`},
		},
		"a tag is declared": {
			{`tags: [Patients]`, `tags: [People]`, `GET /api/v1/patients/: People`},
		},
		"a body is required": {
			{"        required: true\n        content:", `        content:`, `POST /api/v1/observations/`},
		},
		"an operation can succeed": {
			{"\"200\":\n          description: It is.", "\"301\":\n          description: It is.", `GET /healthz`},
		},
		"an answer that any such operation may give is documented": {
			{`"400": {$ref`, `"418": {$ref`, `POST /api/v1/observations/: 400`},
			{`"401": {$ref`, `"418": {$ref`, `POST /api/v1/observations/: 401`},
			{`"403": {$ref`, `"418": {$ref`, `POST /api/v1/observations/: 403`},
			{`"404": {$ref`, `"418": {$ref`, `GET /api/v1/observations/{id}/: 404`},
			{`"413": {$ref`, `"418": {$ref`, `POST /api/v1/observations/: 413`},
			{`"415": {$ref`, `"418": {$ref`, `POST /api/v1/observations/: 415`},
			{`"500": {$ref`, `"418": {$ref`, `POST /api/v1/observations/: 500`},
			{`"503": {$ref`, `"418": {$ref`, `POST /api/v1/observations/: 503`},
		},
		"a parameter has a description": {
			{
				"          description: Only this patient's.\n",
				"",
				`/paths/~1api~1v1~1fhir~1transmissions~1/get/parameters/1`,
			},
			{"      description: The reading's id.\n", "", `/components/parameters/ObservationID`},
		},
	}
}

func brokenSchemas() map[string][]breakage {
	return map[string][]breakage{
		"a schema and each of its properties has a description": {
			{"    JWK:\n      description", "    JWK:\n      x-description", `/components/schemas/JWK`},
			{`description: Its id.`, `x-description: Its id.`, `/components/schemas/JWK/properties/kid`},
		},
		"a format is a known one": {
			{`format: date-or-time`, `format: date-and-time`, `/components/schemas/DateOrTime`},
			{`created: {type: integer`, `created: {type: integer, format: date`, `/properties/created`},
		},
		"a choice has the schema's type": {
			{`enum: [200, 201, 400,`, `enum: ["200", 201, 400,`, `/components/schemas/ReadingBatchItem/properties/status`},
			{`enum: [unavailable, credentials, null]`, `enum: [unavailable, credentials, 0]`, `/components/schemas/Circuit/properties/reason`},
		},
		"a required property is defined": {
			{`required: [ecw_patient_ids]`, `required: [ecw_patient_ids, lost]`, `/components/schemas/ImportRequest`},
		},
		"a nullable schema has a type": {
			{"type: string\n          nullable: true\n          enum: [una", "nullable: true\n          enum: [una", `/Circuit/properties/reason`},
		},
		"only an object has properties, and only an array has items": {
			{"(RFC 7518 §6.3).\n      type: object", `(RFC 7518 §6.3).`, `/components/schemas/JWK`},
			{"type: array\n          description: Its codes.", `description: Its codes.`, `/FHIRCodeableConcept/properties/coding`},
		},
	}
}

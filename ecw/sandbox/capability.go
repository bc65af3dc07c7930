package sandbox

import (
	"net/http"
	"slices"
)

// capability returns the CapabilityStatement. Like eCW's it does not list conditional create, although the
// sandbox supports it, so that a client cannot rely on the statement.
func (s *Server) capability(*call) reply {
	type object = map[string]any
	params := func(kind string, names ...string) []object {
		var list []object
		for _, name := range names {
			list = append(list, object{"name": name, "type": kind})
		}
		return list
	}

	interactions := func(codes ...string) []object {
		var list []object
		for _, code := range codes {
			list = append(list, object{"code": code})
		}
		return list
	}

	return jsonReply(http.StatusOK, typeFHIR, object{
		"resourceType":   "CapabilityStatement",
		"status":         "active",
		"date":           patientsUpdated,
		"kind":           "instance",
		"software":       object{"name": "Vantrexia sandbox EHR"},
		"implementation": object{"description": "A stand-in for eClinicalWorks", "url": s.FHIRBaseURL()},
		"fhirVersion":    "4.0.1",
		"format":         []string{"application/fhir+json"},
		"rest": []object{{
			"mode": "server",
			"security": object{
				"service": []codeableConcept{{Coding: []coding{{
					System: "http://terminology.hl7.org/CodeSystem/restful-security-service",
					Code:   "SMART-on-FHIR",
				}}}},
				"extension": []object{{
					"url":       "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
					"extension": []object{{"url": "token", "valueUri": s.TokenURL()}},
				}},
			},
			"interaction": interactions("transaction"),
			"resource": []object{
				{
					"type":        "Patient",
					"interaction": interactions("read", "search-type"),
					"searchParam": slices.Concat(
						params("token", "_id", "identifier", "gender"),
						params("string", "name", "family", "given"),
						params("date", "birthdate"),
					),
				},
				{
					"type":        "Observation",
					"interaction": interactions("create", "read", "vread", "search-type"),
					"searchParam": slices.Concat(
						params("token", "_id", "identifier", "category", "code"),
						params("reference", "patient", "subject"),
						params("date", "date"),
					),
				},
			},
		}},
	})
}

// smartConfiguration is the discovery document of SMART App Launch 2.2.0 for backend services.
func (s *Server) smartConfiguration(*call) reply {
	return jsonReply(http.StatusOK, typeJSON, map[string]any{
		"token_endpoint":                                   s.TokenURL(),
		"grant_types_supported":                            []string{grantType},
		"token_endpoint_auth_methods_supported":            []string{"private_key_jwt"},
		"token_endpoint_auth_signing_alg_values_supported": []string{"RS384"},
		"scopes_supported":                                 s.cfg.Scopes,
		"capabilities":                                     []string{"client-confidential-asymmetric", "permission-v1", "permission-v2"},
		"code_challenge_methods_supported":                 []string{"S256"},
	})
}

// noSuchInteraction answers every other request below the FHIR base.
func (s *Server) noSuchInteraction(c *call) reply {
	p := problem{status: http.StatusNotFound, code: "not-supported", detail: "the sandbox serves Patient, Observation and metadata only"}
	if r := c.Request; r.Method != http.MethodGet && r.Method != http.MethodPost {
		p = problem{status: http.StatusMethodNotAllowed, code: "not-supported", detail: "this interaction is not supported"}
	}
	return p.outcome()
}

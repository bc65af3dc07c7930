package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

func (s *Server) createObservation(c *call) reply {
	body, problems := s.received(c.body)
	if len(problems) > 0 {
		return outcomeReply(problems[0].status, problems...)
	}

	unless, err := s.condition(c, c.Header.Values("If-None-Exist"))
	if err != nil {
		return err.outcome()
	}

	created, existing, storeErr := s.store.create(c.creation(c.body, body, unless))
	switch {
	case storeErr != nil:
		return s.cannotStore(storeErr).outcome()
	case len(existing) > 1:
		return severalMatch().outcome()
	case len(existing) == 1:
		return s.observationReply(http.StatusOK, existing[0], c.Request)
	}

	return s.observationReply(http.StatusCreated, created, c.Request)
}

// creation is the Observation to store, changed by a fault if there is one.
func (c *call) creation(resource json.RawMessage, body observationBody, unless *query[*observation]) creation {
	if c.effects.has(kindDropIdentifier) {
		resource, body.Identifier = withoutIdentifier(resource), nil
	}
	return creation{
		resource:   resource,
		body:       body,
		unless:     unless,
		indexDelay: c.effects.indexDelay,
	}
}

// withoutIdentifier removes the identifiers of an Observation that was decoded before.
func withoutIdentifier(resource json.RawMessage) json.RawMessage {
	var elements map[string]json.RawMessage
	if json.Unmarshal(resource, &elements) != nil {
		return resource
	}
	delete(elements, "identifier")
	stripped, err := encode(elements)
	if err != nil {
		return resource
	}
	return stripped
}

// received decodes, counts and checks an Observation sent to be created.
func (s *Server) received(resource json.RawMessage) (observationBody, []problem) {
	body, p := decodeObservation(resource)
	if p != nil {
		return body, []problem{*p}
	}
	s.stats.createReceived(body.Identifier)
	return body, s.validate(resource, body)
}

// condition reads If-None-Exist (FHIR R4 §3.1.0.8.1). It returns nil if there is none, or if it is to be
// ignored.
func (s *Server) condition(c *call, header []string) (*query[*observation], *problem) {
	if len(header) == 0 || s.cfg.IgnoreIfNoneExist || c.effects.has(kindIgnoreIfNoneExist) || c.effects.has(kindStoreAgain) {
		return nil, nil
	}

	bad := func(detail string) *problem {
		return &problem{status: http.StatusBadRequest, code: "invalid", detail: "If-None-Exist: " + detail}
	}

	if c.effects.has(kindRejectIfNoneExist) {
		return nil, &problem{status: http.StatusBadRequest, code: "not-supported", detail: "conditional create is not supported"}
	}
	if len(header) > 1 {
		return nil, bad("given more than once")
	}

	criteria := strings.TrimPrefix(strings.TrimPrefix(header[0], "Observation"), "?")
	values, err := url.ParseQuery(criteria)
	if err != nil || len(values) == 0 {
		return nil, bad("write a search such as identifier=system|value")
	}

	q, err := parseQuery(values, s.observationParams())
	if err != nil {
		return nil, bad(err.Error())
	}
	if len(q.filters) == 0 {
		return nil, bad("it has no criterion that selects an Observation")
	}

	return &q, nil
}

func severalMatch() problem {
	return problem{
		status: http.StatusPreconditionFailed,
		code:   "multiple-matches",
		detail: "If-None-Exist matches several Observations",
	}
}

func (s *Server) cannotStore(err error) problem {
	s.log.Error("sandbox cannot store an Observation", "error", err)
	return problem{status: http.StatusInternalServerError, code: "exception", detail: "the Observation was not stored"}
}

func (s *Server) observationReply(status int, o *observation, r *http.Request) reply {
	rep := reply{
		status:      status,
		contentType: typeFHIR,
		header:      http.Header{},
		body:        o.resource,
	}

	rep.header.Set("ETag", `W/"1"`)
	rep.header.Set("Last-Modified", o.received.Format(http.TimeFormat))
	if r.Method == http.MethodPost {
		rep.header.Set("Location", s.FHIRBaseURL()+"/"+location(o))
		if strings.Contains(r.Header.Get("Prefer"), "return=minimal") {
			rep.body, rep.contentType = nil, ""
		}
	}

	return rep
}

func location(o *observation) string { return "Observation/" + o.id + "/_history/1" }

func (s *Server) readObservation(c *call) reply {
	o, ok := s.store.get(c.PathValue("id"))
	if version := c.PathValue("version"); !ok || (version != "" && version != "1") {
		return problem{status: http.StatusNotFound, code: "not-found", detail: "no such Observation"}.outcome()
	}
	return s.observationReply(http.StatusOK, o, c.Request)
}

func (s *Server) searchObservations(c *call) reply {
	values := c.URL.Query()
	if c.effects.has(kindRefuseIdentifier) && values.Has("identifier") {
		return refuseSearch(fmt.Errorf("a search for Observations takes no identifier"))
	}

	if c.effects.has(kindIgnoreIdentifier) {
		values.Del("identifier")
	}
	if c.effects.has(kindStrictSearch) && (values.Has("_count") || !values.Has("category")) {
		return refuseSearch(fmt.Errorf("a search for Observations needs category and takes no _count"))
	}

	q, err := parseQuery(values, s.observationParams())
	if err != nil {
		return refuseSearch(err)
	}

	var matches []*observation
	if !c.effects.has(kindEmptySearch) {
		matches = s.store.search(q)
	}

	return searchReply(s.FHIRBaseURL(), "Observation", values, q, matches,
		func(o *observation) (string, json.RawMessage) { return o.id, o.resource })
}

func (s *Server) observationParams() map[string]matcher[*observation] {
	ofPatient := func(v string) (func(*observation) bool, error) {
		id := patientID(v, s.FHIRBaseURL())
		if id == "" {
			id = v
		}
		return func(o *observation) bool { return o.patient == id }, nil
	}

	return map[string]matcher[*observation]{
		"_id": func(v string) (func(*observation) bool, error) {
			return func(o *observation) bool { return o.id == v }, nil
		},
		"identifier": func(v string) (func(*observation) bool, error) {
			t := parseToken(v)
			return func(o *observation) bool { return t.matchesIdentifier(o.body.Identifier) }, nil
		},
		"patient": ofPatient,
		"subject": ofPatient,
		"code": func(v string) (func(*observation) bool, error) {
			t := parseToken(v)
			return func(o *observation) bool { return t.matchesConcept(*o.body.Code) }, nil
		},
		"category": func(v string) (func(*observation) bool, error) {
			t := parseToken(v)
			return func(o *observation) bool {
				for _, category := range o.body.Category {
					if t.matchesConcept(category) {
						return true
					}
				}
				return false
			}, nil
		},
		"date": func(v string) (func(*observation) bool, error) {
			test, err := dateTest(v)
			return func(o *observation) bool { return test(o.when) }, err
		},
	}
}

// patientID takes the id out of a reference to a Patient, relative or below the base; "" if it is not such a
// reference.
func patientID(ref, base string) string {
	if base != "" {
		ref = strings.TrimPrefix(ref, base+"/")
	}
	id, ok := strings.CutPrefix(ref, "Patient/")
	if !ok || strings.Contains(id, "/") {
		return ""
	}
	return id
}

package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// adminError is the answer to a mistake in an administrative request.
type adminError struct {
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"`
}

func (s *Server) listFaults(w http.ResponseWriter, _ *http.Request) {
	s.send(w, jsonReply(http.StatusOK, typeJSON, struct {
		Faults []fault     `json:"faults"`
		Kinds  []faultKind `json:"kinds"` // what can be asked for
	}{s.faults.active(s.now()), faultKinds()}))
}

// addFault takes {"kind": …, "target": …, "count": n or "for": "30s"} and the further fields of some kinds:
// "delay": "2s", "work": "150ms", "retry_after": "7s", "location": "https://…", "number": "613", "text": "…".
// Without count and for, the fault affects one request.
func (s *Server) addFault(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		s.send(w, jsonReply(http.StatusBadRequest, typeJSON, adminError{Detail: "the body cannot be read; send it again"}))
		return
	}
	f, mistake := s.parseFault(data)
	if mistake != nil {
		s.send(w, jsonReply(http.StatusBadRequest, typeJSON, mistake))
		return
	}
	s.send(w, jsonReply(http.StatusCreated, typeJSON, s.faults.add(f)))
}

func (s *Server) clearFaults(w http.ResponseWriter, _ *http.Request) {
	s.faults.clear()
	s.capacity.release()
	w.WriteHeader(http.StatusNoContent)
}

// faultRequest is the body of POST /admin/faults. A nil pointer means that the field is absent.
type faultRequest struct {
	kind, target                 string
	location, number, text       string
	count                        *int
	period, delay, work, retryIn *time.Duration
}

func (s *Server) parseFault(data []byte) (fault, *adminError) {
	req, mistake := decodeFault(data)
	if mistake != nil {
		return fault{}, mistake
	}

	kind, ok := kindNamed(req.kind)
	if !ok {
		return fault{}, &adminError{fmt.Sprintf("kind: %q is unknown; GET /admin/faults lists the kinds", req.kind), "kind"}
	}

	f := fault{
		Kind:      kind.Kind,
		Target:    kind.Targets[0],
		phase:     kind.phase,
		Remaining: 1,
	}

	if req.target != "" {
		f.Target = operation(req.target)
	}
	if !slices.Contains(kind.Targets, f.Target) {
		return fault{}, &adminError{fmt.Sprintf("target: %q does not go with %s; use one of %v", req.target, kind.Kind, kind.Targets), "target"}
	}

	switch {
	case req.count != nil && req.period != nil:
		return fault{}, &adminError{"for: give count or for, not both", "for"}
	case req.count != nil && *req.count < 1:
		return fault{}, &adminError{"count: must be 1 or more", "count"}
	case req.count != nil:
		f.Remaining = *req.count
	case req.period != nil:
		f.Remaining, f.Until, f.period = 0, s.now().Add(*req.period), *req.period
	}

	if mistake := f.times(req); mistake != nil {
		return fault{}, mistake
	}

	return f, f.contents(req)
}

// contents sets the fields that say what the fault answers, which only some kinds take.
func (f *fault) contents(req faultRequest) *adminError {
	redirects, refuses, speaks := f.Kind == kindRedirect, f.Kind == kindNumber, f.Kind == kindPersonalText
	target, err := url.Parse(req.location)
	number, numberErr := strconv.Atoi(req.number)

	switch {
	case req.location != "" && !redirects:
		return &adminError{"location: only redirect takes it", "location"}
	case req.number != "" && !refuses:
		return &adminError{"number: only ecw_number takes it", "number"}
	case (req.text != "") != speaks:
		return &adminError{"text: personal_text needs it, and no other kind takes it", "text"}
	case redirects && (err != nil || target.Host == ""):
		return &adminError{"location: redirect needs an absolute URL", "location"}
	case refuses && (numberErr != nil || number < 2):
		return &adminError{"number: ecw_number needs one of eCW's numbers for a failure, such as 613", "number"}
	}

	f.Location, f.Number, f.Text = req.location, req.number, req.text
	return nil
}

// times sets the durations, which only some kinds take.
func (f *fault) times(req faultRequest) *adminError {
	slow := slices.Contains([]string{kindSlow, kindSlowAfter, kindSlowStart, kindLateIndex}, f.Kind)
	shares := f.Kind == kindSharedCapacity
	announces := f.Kind == kindThrottle || f.Kind == kindError503

	switch {
	case req.delay != nil && !slow:
		return &adminError{"delay: only slow, slow_after, slow_start and late_index take it", "delay"}
	case f.Kind == kindSlowStart && req.period == nil:
		return &adminError{"for: slow_start needs it, the time until everything is as fast as usual", "for"}
	case req.work != nil && !shares:
		return &adminError{"work: only shared_capacity takes it", "work"}
	case req.work == nil && shares:
		return &adminError{`work: shared_capacity needs it, the time that a request takes when it is alone, such as "150ms"`, "work"}
	case req.retryIn != nil && !announces:
		return &adminError{"retry_after: only throttle and error_503 take it", "retry_after"}
	}

	if slow {
		f.delay = 2 * time.Second
		if req.delay != nil {
			f.delay = *req.delay
		}
		f.Delay = f.delay.String()
	}

	if shares {
		f.work, f.Work = *req.work, req.work.String()
	}
	if req.retryIn != nil {
		f.retryAfter, f.RetryAfter = *req.retryIn, req.retryIn.String()
	}

	return nil
}

func decodeFault(data []byte) (faultRequest, *adminError) {
	var req faultRequest
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return req, &adminError{Detail: `the body is not a JSON object such as {"kind": "slow", "target": "create", "count": 3}`}
	}
	for _, name := range sortedKeys(fields) {
		if err := req.set(name, fields[name]); err != nil {
			return req, &adminError{name + ": " + err.Error(), name}
		}
	}
	return req, nil
}

func (req *faultRequest) set(name string, value json.RawMessage) error {
	switch name {
	case "kind":
		return stringField(value, &req.kind)
	case "target":
		return stringField(value, &req.target)
	case "count":
		if json.Unmarshal(value, &req.count) != nil || req.count == nil {
			return fmt.Errorf("must be a whole number")
		}
		return nil
	case "for":
		return durationField(value, &req.period)
	case "delay":
		return durationField(value, &req.delay)
	case "work":
		return durationField(value, &req.work)
	case "retry_after":
		return durationField(value, &req.retryIn)
	case "location":
		return stringField(value, &req.location)
	case "number":
		return stringField(value, &req.number)
	case "text":
		return stringField(value, &req.text)
	default:
		return fmt.Errorf("unknown field; use kind, target, count, for, delay, work, retry_after, location, number, text")
	}
}

func stringField(value json.RawMessage, into *string) error {
	if json.Unmarshal(value, into) != nil || *into == "" {
		return fmt.Errorf("must be a string")
	}
	return nil
}

func durationField(value json.RawMessage, into **time.Duration) error {
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return fmt.Errorf(`must be a duration such as "30s"`)
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return fmt.Errorf(`%q is no duration above zero such as "30s"`, text)
	}
	*into = &d
	return nil
}

func (s *Server) showStats(w http.ResponseWriter, _ *http.Request) {
	stored, total := s.store.counts()
	s.send(w, jsonReply(http.StatusOK, typeJSON, s.stats.view(stored, total, s.limiter.stats(), s.capacity.busy())))
}

// putPatient adds a patient, or gives the one with this fhir_id other demographics, as when a chart is corrected or merged in the
// EHR. A restart forgets it.
func (s *Server) putPatient(w http.ResponseWriter, r *http.Request) {
	person := Person{Active: true}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&person); err != nil {
		const example = `{"fhir_id": "ecw-patient-1", "mrn": "ECW-1", "last_name": "Lee", "birth_date": "1957-03-21"}`
		detail := "the body is not a patient such as " + example + ": " + err.Error()
		s.send(w, jsonReply(http.StatusBadRequest, typeJSON, adminError{Detail: detail}))
		return
	}
	if err := s.patients.put(person); err != nil {
		s.send(w, jsonReply(http.StatusBadRequest, typeJSON, adminError{Detail: err.Error()}))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// reset returns to the state of a first start, without Observations, tokens, faults or counts. It empties the
// file too.
func (s *Server) reset(w http.ResponseWriter, _ *http.Request) {
	s.faults.clear()
	s.capacity.release()
	s.capacity.forget()
	s.tokens.reset()
	s.limiter.reset()
	s.patients.reset()
	err := s.store.reset()
	s.stats.reset()
	if err != nil {
		detail := "the file of Observations cannot be emptied: " + err.Error()
		s.send(w, jsonReply(http.StatusInternalServerError, typeJSON, adminError{Detail: detail}))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

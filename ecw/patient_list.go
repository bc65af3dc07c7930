package ecw

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const (
	// MaxPatientList is how many patients [Client.ReadPatients] asks for with one request.
	MaxPatientList = 100
	// maxIDList bounds the list of ids in a URL, in bytes: many servers and proxies refuse a URL of 8 kB. A
	// hundred ids of 64 characters fit.
	maxIDList = 7000
)

// CodeNoPatientList is the [Error.Code] of a server that does not search for patients by a list of ids.
const CodeNoPatientList = "no_patient_list"

// ReadPatients searches for the patients with these ids, and returns those that the search shows, as eCW sent
// them, by their ids. One that it does not show may exist all the same, because a search may hide who is
// inactive or merged: only [Client.ReadPatient] decides that.
//
// It makes one request (FHIR R4 §3.1.1.4.9, a list of _id), and another for each further page. Of more than
// [MaxPatientList] ids it asks for the first only.
//
// The error is an [*Error] with Op "patients" or "token". If a later page failed, what the pages before it
// showed is returned with the error. If the server refuses the list or ignores it, the client remembers that
// for an hour: then nothing is sent, and the Code is [CodeNoPatientList].
func (c *Client) ReadPatients(ctx context.Context, ids []string) (map[string]json.RawMessage, error) {
	if c.habits.refusesPatientLists.get(c.now()) {
		return nil, noPatientList(0)
	}

	list := newPatientList(ids)
	if len(list.asked) == 0 {
		return nil, nil
	}

	bundle, err := c.patientsBy(ctx, url.Values{
		"_id":    {strings.Join(list.asked, ",")},
		"_count": {strconv.Itoa(len(list.asked))},
	})
	if refusesPatientList(err) {
		c.noteNoPatientLists(ctx, err)
	}

	for err == nil {
		more, isAnswer := list.take(bundle)
		if !isAnswer {
			err := noPatientList(http.StatusOK)
			c.noteNoPatientLists(ctx, err)
			return nil, err
		}

		next, hasNext := bundle.next()
		if !more || !hasNext {
			return list.found, nil
		}
		bundle, err = c.nextPatients(ctx, next)
	}

	return list.found, err
}

// refusesPatientList reports whether the server answers a search by a list of ids with an error that it would
// repeat, or with more than we read.
func refusesPatientList(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Op != OpPatients {
		return false
	}
	return e.Class == ClassPermanentData || e.HTTPStatus == http.StatusForbidden || e.HTTPStatus == http.StatusNotImplemented ||
		e.Code == "response_too_large"
}

func (c *Client) noteNoPatientLists(ctx context.Context, err error) {
	c.habits.refusesPatientLists.learn(true, c.now())
	c.log.InfoContext(ctx, "eCW does not search for patients by a list of ids; each is read by itself for an hour", slog.Any("error", err))
}

func noPatientList(status int) *Error {
	return &Error{
		Class:      ClassPermanentData,
		Op:         OpPatients,
		Code:       CodeNoPatientList,
		HTTPStatus: status,
		Message:    "eCW does not search for patients by a list of ids; read each by itself",
	}
}

// patientList is what a search by a list of ids has shown so far.
type patientList struct {
	asked   []string
	missing map[string]bool // by the ids asked for: no page has shown it
	found   map[string]json.RawMessage
}

// newPatientList takes as many of the ids as one request may ask for. An id that cannot be one is left out,
// because a server may refuse the whole list for it.
func newPatientList(ids []string) *patientList {
	l := &patientList{missing: map[string]bool{}, found: map[string]json.RawMessage{}}
	length := 0
	for _, id := range ids {
		length += len(id) + len("%2C")
		if len(l.asked) == MaxPatientList || length > maxIDList {
			break
		}
		if isID(id) && !l.missing[id] {
			l.asked = append(l.asked, id)
			l.missing[id] = true
		}
	}
	return l
}

// take keeps the patients on a page who were asked for, except one of whom eCW shows a part only, and one whom
// it shows twice: neither is better than the other. It reports whether further pages may have more, and whether the page is an answer to the
// search. On a page of a server that ignores the list, most were not asked for.
func (l *patientList) take(b patientBundle) (more, isAnswer bool) {
	resources, ids := b.patients()
	strangers, fresh := 0, 0
	for i, id := range ids {
		missing, asked := l.missing[id]
		switch {
		case !asked:
			strangers++
		case missing:
			l.missing[id] = false
			fresh++
			if !isPart(resources[i]) {
				l.found[id] = resources[i]
			}
		default:
			delete(l.found, id)
		}
	}
	return fresh > 0 && len(l.found) < len(l.asked), strangers <= len(ids)/2
}

// isPart reports whether a resource is marked as a part of what the server holds (FHIR R4 §3.1.1.5.8), or has
// a mark that cannot be read.
func isPart(resource json.RawMessage) bool {
	var marked struct {
		Meta struct {
			Tag short[struct {
				Code string `json:"code"`
			}] `json:"tag"`
		} `json:"meta"`
	}
	if json.Unmarshal(resource, &marked) != nil {
		return true
	}
	for _, tag := range marked.Meta.Tag {
		if tag.Code == "SUBSETTED" {
			return true
		}
	}
	return false
}

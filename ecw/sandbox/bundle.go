package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// transactionBundle is the form of a write that some contracts of eCW demand: a transaction that creates one
// Observation.
type transactionBundle struct {
	ResourceType string             `json:"resourceType"`
	Type         string             `json:"type"`
	Entry        []transactionEntry `json:"entry"`
}

type transactionEntry struct {
	Resource json.RawMessage `json:"resource"`
	Request  struct {
		Method      string `json:"method"`
		URL         string `json:"url"`
		IfNoneExist string `json:"ifNoneExist"`
	} `json:"request"`
}

type transactionResponse struct {
	ResourceType string          `json:"resourceType"`
	Type         string          `json:"type"`
	Entry        []responseEntry `json:"entry"`
}

type responseEntry struct {
	Response entryResponse `json:"response"`
}

type entryResponse struct {
	Status       string   `json:"status"` // one of eCW's numbers; "1" is success, "201" an error
	Location     string   `json:"location,omitempty"`
	Etag         string   `json:"etag,omitempty"`
	LastModified string   `json:"lastModified,omitempty"`
	Outcome      *outcome `json:"outcome,omitempty"`
}

// transaction stores the Observation of a Bundle. As in eCW, the HTTP status only says that the Bundle was
// understood. The outcome for the Observation is in entry[0].response.status.
func (s *Server) transaction(c *call) reply {
	entry, p := decodeTransaction(c.body)
	if p != nil {
		return p.outcome()
	}

	body, problems := s.received(entry.Resource)
	if len(problems) > 0 {
		return refusedEntry(problems...)
	}

	var header []string
	if entry.Request.IfNoneExist != "" {
		header = []string{entry.Request.IfNoneExist}
	}

	unless, p := s.condition(c, header)
	if p != nil {
		return p.outcome()
	}

	toStore := c.creation(entry.Resource, body, unless)
	toStore.uniqueIDs = !c.effects.has(kindStoreAgain)
	created, existing, err := s.store.create(toStore)

	switch {
	case err != nil:
		return s.cannotStore(err).outcome()
	case created != nil:
		return s.acceptedEntry(c, created)
	case unless == nil:
		return refusedEntry(problem{
			code:   "duplicate",
			number: numberAlreadyExist,
			at:     "Observation.identifier",
			detail: "an Observation with this identifier exists",
		})
	case len(existing) > 1:
		return severalMatch().outcome()
	}

	return s.acceptedEntry(c, existing[0])
}

func decodeTransaction(data []byte) (transactionEntry, *problem) {
	var b transactionBundle
	malformed := func(at, detail string) (transactionEntry, *problem) {
		return transactionEntry{}, &problem{
			status: http.StatusBadRequest,
			code:   "structure",
			number: numberGeneric,
			at:     at,
			detail: detail,
		}
	}

	if err := json.Unmarshal(data, &b); err != nil {
		return malformed("", "the body is not a Bundle in JSON")
	}

	switch {
	case b.ResourceType != "Bundle":
		return malformed("resourceType", fmt.Sprintf("%q is not Bundle", b.ResourceType))
	case b.Type != "transaction":
		return malformed("Bundle.type", fmt.Sprintf("%q is not transaction", b.Type))
	case len(b.Entry) != 1:
		return malformed("Bundle.entry", fmt.Sprintf("%d entries; exactly one is accepted", len(b.Entry)))
	case b.Entry[0].Request.Method != http.MethodPost || b.Entry[0].Request.URL != "Observation":
		return malformed("Bundle.entry[0].request", "only POST of Observation is accepted")
	case len(b.Entry[0].Resource) == 0:
		return malformed("Bundle.entry[0].resource", "missing")
	}

	return b.Entry[0], nil
}

func (s *Server) acceptedEntry(c *call, o *observation) reply {
	status := numberSuccess
	if c.effects.has(kindStandardStatus) {
		status = "201 Created"
	}
	return entryReply(entryResponse{
		Status:       status,
		Location:     location(o),
		Etag:         `W/"1"`,
		LastModified: o.received.Format(time.RFC3339),
	})
}

func refusedEntry(problems ...problem) reply {
	o := outcomeOf(problems...)
	return entryReply(entryResponse{Status: problems[0].number, Outcome: &o})
}

func entryReply(r entryResponse) reply {
	return jsonReply(http.StatusOK, typeFHIR, transactionResponse{
		ResourceType: "Bundle",
		Type:         "transaction-response",
		Entry:        []responseEntry{{r}},
	})
}

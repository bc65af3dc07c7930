package canary_test

import (
	"fmt"
	"strings"
	"testing"

	commonpb "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const namespace = "default"

// What a payload and the message of a failure have to be.
const (
	encrypted       = "binary/encrypted"
	encodedFailure  = "Encoded failure"
	ourFailures     = "GoSDK" // the source of failures that the SDK has written, and not the server
	schedulersTypes = "temporal-sys-"
)

// reading is what was read of Temporal.
type reading struct {
	texts    []text
	problems map[string]int // that a payload or failure is not encoded, by place
	events   int
	opened   int // payloads that were decrypted
}

// text is something that is searched.
type text struct {
	place   string
	content []byte
}

// readTemporal reads every event of every history, every row of the visibility, what Temporal describes of
// each workflow, and the schedules: as JSON, as it is on the wire, and decrypted.
func (s *system) readTemporal(t *testing.T) *reading {
	t.Helper()
	r := &reading{problems: map[string]int{}}
	for _, query := range []string{"", "TemporalNamespaceDivision = 'TemporalScheduler'"} {
		var page []byte
		for more := true; more; more = len(page) > 0 {
			rows, err := s.raw.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query, NextPageToken: page})
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows.Executions {
				kind := row.GetType().GetName()
				s.note(t, r, "visibility: "+kind, row)
				s.readWorkflow(t, r, kind, row.GetExecution())
			}
			page = rows.NextPageToken
		}
	}
	s.readSchedules(t, r)
	return r
}

func (s *system) readWorkflow(t *testing.T, r *reading, kind string, execution *commonpb.WorkflowExecution) {
	t.Helper()
	described, err := s.raw.DescribeWorkflowExecution(t.Context(), execution.WorkflowId, execution.RunId)
	if err != nil {
		t.Fatal(err)
	}
	s.note(t, r, "description: "+kind, described)

	events := s.raw.GetWorkflowHistory(t.Context(), execution.WorkflowId, execution.RunId, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		r.events++
		s.note(t, r, fmt.Sprintf("history: %s, %s", kind, eventName(event)), event)
	}
}

func eventName(event *historypb.HistoryEvent) string { return event.GetEventType().String() }

func (s *system) readSchedules(t *testing.T, r *reading) {
	t.Helper()
	list, err := s.raw.WorkflowService().ListSchedules(t.Context(), &workflowservice.ListSchedulesRequest{Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range list.Schedules {
		name, _, _ := strings.Cut(entry.ScheduleId, "/")
		s.note(t, r, "schedule: "+name, entry)
		described, err := s.raw.WorkflowService().DescribeSchedule(t.Context(), &workflowservice.DescribeScheduleRequest{
			Namespace: namespace, ScheduleId: entry.ScheduleId,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.note(t, r, "schedule: "+name, described)
	}
}

// note keeps a message in all its forms, and what in it is not encoded.
func (s *system) note(t *testing.T, r *reading, place string, m proto.Message) {
	t.Helper()
	wire, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r.texts = append(r.texts, text{place, []byte(protojson.Format(m))}, text{place, wire})

	kind, _, _ := strings.Cut(strings.SplitN(place, ": ", 2)[1], ",")
	internal := strings.HasPrefix(kind, schedulersTypes) // workflows of the server itself, which has no codec
	walk(m.ProtoReflect(), func(inner protoreflect.Message) bool {
		switch v := inner.Interface().(type) {
		case *commonpb.SearchAttributes:
			return false // the server has to read them
		case *commonpb.Payload:
			s.notePayload(t, r, place, v, internal)
		case *failurepb.Failure:
			if v.Source == ourFailures && (v.Message != encodedFailure || v.StackTrace != "") {
				r.problems[fmt.Sprintf("%s: a failure reads %q", place, v.Message)]++
			}
		}
		return true
	})
}

func (s *system) notePayload(t *testing.T, r *reading, place string, p *commonpb.Payload, internal bool) {
	t.Helper()
	switch encoding := string(p.Metadata["encoding"]); {
	case encoding == encrypted:
		plain, err := s.keys.OpenPayload(namespace, p.Data)
		if err != nil {
			t.Errorf("%s: a payload cannot be decrypted: %v", place, err)
			return
		}
		r.opened++
		r.texts = append(r.texts, text{place + ", decrypted", plain})
	case !internal:
		r.problems[fmt.Sprintf("%s: a payload is %s", place, encoding)]++
	}
}

// walk calls visit for a message and all messages in it; visit reports whether to go into the message.
func walk(m protoreflect.Message, visit func(protoreflect.Message) bool) {
	if !visit(m) {
		return
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { walk(v.Message(), visit); return true })
			}
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				walk(value.List().Get(i).Message(), visit)
			}
		default:
			walk(value.Message(), visit)
		}
		return true
	})
}

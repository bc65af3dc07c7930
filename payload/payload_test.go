package payload_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/payload"
)

// sealing has keys of its own.
func sealing(t *testing.T) payload.Sealing {
	t.Helper()
	content, err := keyring.Generate()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.New(content)
	if err != nil {
		t.Fatal(err)
	}
	return payload.Sealing{Keys: keys, Namespace: "ours"}
}

func seal(t *testing.T, s payload.Sealing, value any) *commonpb.Payload {
	t.Helper()
	data, _ := s.Converters()
	sealed, err := data.ToPayload(value)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestAPayloadOpensWithItsKeyInItsNamespaceOnly(t *testing.T) {
	t.Parallel()
	ours := sealing(t)
	sealed := seal(t, ours, "canary")
	if !payload.Sealed(sealed) || strings.Contains(sealed.String(), "canary") {
		t.Fatalf("the payload is %s", sealed)
	}
	var opened string
	data, _ := ours.Converters()
	if err := data.FromPayload(sealed, &opened); err != nil || opened != "canary" {
		t.Errorf("it opens as %q (%v)", opened, err)
	}

	elsewhere := ours
	elsewhere.Namespace = "theirs"
	for name, c := range map[string]struct {
		opens payload.Sealing
		want  string
	}{
		"another namespace": {elsewhere, keyring.ErrCorrupt.Error()},
		"other keys":        {sealing(t), "the key " + string(sealed.GetMetadata()[payload.MetadataKeyID]) + " of the keyset"},
	} {
		data, _ := c.opens.Converters()
		err := data.FromPayload(sealed, &opened)
		if !errors.Is(err, payload.ErrUnopened) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, c.want)
		}
	}
}

func TestPlainPayloadsAreReadForATime(t *testing.T) {
	t.Parallel()
	plain, err := converter.GetDefaultDataConverter().ToPayload("hello")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		until time.Time
		read  bool
	}{
		"never":     {time.Time{}, false},
		"not more":  {time.Now().Add(-time.Minute), false},
		"for today": {time.Now().Add(time.Minute), true},
	} {
		s := sealing(t)
		s.PlainUntil = c.until
		data, _ := s.Converters()
		var text string
		if err := data.FromPayload(plain, &text); (err == nil) != c.read || c.read && text != "hello" {
			t.Errorf("%s: read as %q (%v)", name, text, err)
		}
		if !payload.Sealed(seal(t, s, "hello")) {
			t.Errorf("%s: it is written in clear", name)
		}
	}
}

// Where a workflow reads, what cannot be opened is a panic: an error would be taken for that of an activity.
func TestAWorkflowStopsWhereAPayloadCannotBeOpened(t *testing.T) {
	t.Parallel()
	sealed := seal(t, sealing(t), "canary")
	_, theirs := sealing(t).Converters()
	failure := theirs.ErrorToFailure(temporal.NewApplicationError("canary", "some_type", "detail"))
	ours := sealing(t)
	data, failures := ours.Converters()

	var text string
	inWorkflow := data.(converter.ContextAware).WithWorkflowContext(nil)
	wantPanic(t, "a result", func() { _ = inWorkflow.FromPayload(sealed, &text) })
	of := converter.WithFailureConverterSerializationContext(failures, converter.ActivitySerializationContext{Namespace: "ours"})
	wantPanic(t, "the failure of an activity", func() { _ = of.FailureToError(failure) })

	inActivity := data.(converter.ContextAware).WithContext(t.Context())
	err := inActivity.FromPayload(sealed, &text)
	if !errors.Is(err, payload.ErrUnopened) {
		t.Errorf("in an activity: %v", err)
	}
	answered := failures.ErrorToFailure(errors.Join(errors.New("unable to decode"), err))
	if answered.GetApplicationFailureInfo().GetType() != payload.TypeUnopened || answered.GetApplicationFailureInfo().GetNonRetryable() {
		t.Errorf("the activity's failure is %v", answered)
	}
	client := converter.WithFailureConverterSerializationContext(failures, converter.WorkflowSerializationContext{Namespace: "ours"})
	var shown *temporal.ApplicationError
	if !errors.As(client.FailureToError(failure), &shown) || shown.Type() != "some_type" {
		t.Errorf("to a client the failure is %v", shown)
	}
}

func wantPanic(t *testing.T, what string, do func()) {
	t.Helper()
	defer func() {
		err, _ := recover().(error)
		if !errors.Is(err, payload.ErrUnopened) {
			t.Errorf("%s: %v, want a panic", what, err)
		}
	}()
	do()
}

func TestFailuresAreSealed(t *testing.T) {
	t.Parallel()
	_, failures := sealing(t).Converters()
	cause := temporal.NewApplicationError("canary cause", "inner", "canary detail")
	failure := failures.ErrorToFailure(temporal.NewApplicationErrorWithCause("canary", "outer", cause, "canary detail"))
	if strings.Contains(failure.String(), "canary") {
		t.Errorf("the failure is %v", failure)
	}
	if failure.GetMessage() != "Encoded failure" || failure.GetCause().GetMessage() != "Encoded failure" {
		t.Errorf("the messages are %q and %q", failure.GetMessage(), failure.GetCause().GetMessage())
	}

	var outer *temporal.ApplicationError
	if !errors.As(failures.FailureToError(failure), &outer) || outer.Message() != "canary" || outer.Type() != "outer" {
		t.Errorf("it comes back as %v", outer)
	}
	var detail string
	if err := outer.Details(&detail); err != nil || detail != "canary detail" {
		t.Errorf("its detail comes back as %q (%v)", detail, err)
	}
}

func BenchmarkSealAndOpen(b *testing.B) {
	content, err := keyring.Generate()
	if err != nil {
		b.Fatal(err)
	}
	keys, err := keyring.New(content)
	if err != nil {
		b.Fatal(err)
	}
	data, _ := payload.Sealing{Keys: keys, Namespace: "ours"}.Converters()
	value := strings.Repeat("x", 300)
	for b.Loop() {
		sealed, err := data.ToPayload(value)
		if err != nil {
			b.Fatal(err)
		}
		var opened string
		if err := data.FromPayload(sealed, &opened); err != nil {
			b.Fatal(err)
		}
	}
}

func TestNothingIsReadWithoutAKey(t *testing.T) {
	t.Parallel()
	data, _ := sealing(t).Converters()
	nothing, err := converter.GetDefaultDataConverter().ToPayload(nil)
	if err != nil {
		t.Fatal(err)
	}
	var read *string
	if err := data.FromPayload(nothing, &read); err != nil || read != nil {
		t.Errorf("it reads as %v (%v)", read, err)
	}
}

// The SDK opens the failure that it is given, and sends the one of a local activity to Temporal afterwards.
func TestAFailureThatIsReadStaysSealed(t *testing.T) {
	t.Parallel()
	_, failures := sealing(t).Converters()
	sealed := failures.ErrorToFailure(errors.New("canary"))
	if err := failures.FailureToError(sealed); err == nil || !strings.Contains(err.Error(), "canary") {
		t.Errorf("it opens as %v", err)
	}
	if strings.Contains(sealed.String(), "canary") {
		t.Errorf("after it was read it is %s", sealed)
	}
	if err := failures.FailureToError(nil); err != nil {
		t.Errorf("no failure reads as %v", err)
	}
}

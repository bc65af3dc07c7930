// Package payload seals what Temporal stores of our workflows: inputs, results, summaries, and the texts of
// failures. Every client and every worker gets its converters from here, and none of them writes anything else.
//
// What cannot be opened stops the work and loses nothing. In a workflow it fails the workflow task, which
// Temporal tries again until the key is there. In an activity it is an error of [TypeUnopened]. Anywhere else it
// is an error that wraps [ErrUnopened].
package payload

import (
	"context"
	"errors"
	"fmt"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"

	"github.com/vantrexia/vantrexia/keyring"
)

// The metadata of a sealed payload.
const (
	// Encoding is the value of Temporal's own field "encoding".
	Encoding = "binary/encrypted"
	// MetadataKeyID names the key, as `vantrexia keys status` shows it.
	MetadataKeyID = "encryption-key-id"
)

// TypeUnopened is the type of an activity's error whose input could not be opened: nothing of it was done. An import has it
// too when a row needs a key that the worker lacks.
const TypeUnopened = "unopened"

// ErrUnopened means that a payload could not be opened. The error beside it says why.
var ErrUnopened = errors.New("a payload of Temporal cannot be opened")

// errPlain is the cause for a payload that is not sealed.
var errPlain = errors.New("it is not encrypted: was it typed into the Web UI or written by an older version? " +
	"Set TEMPORAL_PLAIN_PAYLOADS_UNTIL to have plain payloads read until a day")

// Sealing seals and opens the payloads of a namespace.
type Sealing struct {
	Keys      *keyring.Keyring
	Namespace string
	// PlainUntil is the moment until which payloads that are not sealed are read. The zero time: never.
	PlainUntil time.Time
}

// Sealed reports whether a payload is sealed.
func Sealed(p *commonpb.Payload) bool {
	return string(p.GetMetadata()[converter.MetadataEncoding]) == Encoding
}

// Encode seals payloads; see [converter.PayloadCodec].
func (s Sealing) Encode(plain []*commonpb.Payload) ([]*commonpb.Payload, error) {
	sealed := make([]*commonpb.Payload, len(plain))
	for i, p := range plain {
		bytes, err := proto.Marshal(p)
		if err != nil {
			return nil, err
		}
		data, err := s.Keys.SealPayload(s.Namespace, bytes)
		if err != nil {
			return nil, err
		}
		sealed[i] = &commonpb.Payload{
			Metadata: map[string][]byte{
				converter.MetadataEncoding: []byte(Encoding),
				MetadataKeyID:              []byte(keyring.SealedWith(data)),
			},
			Data: data,
		}
	}
	return sealed, nil
}

// Decode opens payloads; see [converter.PayloadCodec]. Its errors wrap [ErrUnopened].
func (s Sealing) Decode(sealed []*commonpb.Payload) ([]*commonpb.Payload, error) {
	opened := make([]*commonpb.Payload, len(sealed))
	for i, p := range sealed {
		var err error
		if opened[i], err = s.open(p); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnopened, err)
		}
	}
	return opened, nil
}

func (s Sealing) open(p *commonpb.Payload) (*commonpb.Payload, error) {
	if !Sealed(p) {
		if s.takesPlain(p, time.Now()) {
			return p, nil
		}
		return nil, errPlain
	}

	plain, err := s.Keys.OpenPayload(s.Namespace, p.GetData())
	if err != nil {
		return nil, err
	}
	var opened commonpb.Payload
	if err := proto.Unmarshal(plain, &opened); err != nil {
		return nil, errors.New("it holds no payload") // the bytes stay out of the error
	}
	return &opened, nil
}

// takesPlain reports whether a payload is read at a moment although it is not sealed. A person who signals a workflow
// from Temporal's command line sends no value, and nothing is no secret.
func (s Sealing) takesPlain(p *commonpb.Payload, at time.Time) bool {
	isNil := string(p.GetMetadata()[converter.MetadataEncoding]) == converter.MetadataEncodingNil
	return isNil || at.Before(s.PlainUntil)
}

// Converters returns what a client, a worker or a replay needs: both go into its options.
func (s Sealing) Converters() (converter.DataConverter, converter.FailureConverter) {
	lenient := s.data(s)
	strict := s.data(strict{s})
	return data{DataConverter: lenient, strict: strict}, failures{
		FailureConverter: s.failures(lenient),
		strict:           s.failures(strict),
	}
}

func (s Sealing) data(codec converter.PayloadCodec) converter.DataConverter {
	return converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), codec)
}

// failures keeps messages and stack traces in a payload, which the codec seals.
func (s Sealing) failures(dc converter.DataConverter) converter.FailureConverter {
	return temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter:          dc,
		EncodeCommonAttributes: true,
	})
}

// strict is a codec for workflows. An error there would be taken for one of an activity, or drop a signal, and
// the workflow would go on with it. A panic fails the workflow task, and Temporal repeats that.
type strict struct{ Sealing }

// Decode opens payloads, or panics.
func (s strict) Decode(sealed []*commonpb.Payload) ([]*commonpb.Payload, error) {
	opened, err := s.Sealing.Decode(sealed)
	if err != nil {
		panic(err)
	}
	return opened, nil
}

// data is the data converter. It is strict in workflows.
type data struct {
	converter.DataConverter
	strict converter.DataConverter
}

// WithWorkflowContext is the SDK's hook, see [converter.ContextAware].
func (d data) WithWorkflowContext(converter.WorkflowContext) converter.DataConverter { return d.strict }

// WithContext is the SDK's hook for activities and clients.
func (d data) WithContext(context.Context) converter.DataConverter { return d }

// failures is the failure converter. It is strict about failures of activities, which only workflows read.
type failures struct {
	converter.FailureConverter
	strict converter.FailureConverter
}

// WithSerializationContext is the SDK's hook, see [converter.FailureConverterWithSerializationContext].
func (f failures) WithSerializationContext(ctx converter.SerializationContext) converter.FailureConverter {
	if _, of := ctx.(converter.ActivitySerializationContext); of {
		f.FailureConverter = f.strict
	}
	return f
}

// FailureToError opens a copy: the SDK would open the failure itself, and that of a local activity's marker is
// sent to Temporal afterwards.
func (f failures) FailureToError(failure *failurepb.Failure) error {
	return f.FailureConverter.FailureToError(proto.Clone(failure).(*failurepb.Failure))
}

// ErrorToFailure gives the error of an activity whose input cannot be opened its type.
func (f failures) ErrorToFailure(err error) *failurepb.Failure {
	if errors.Is(err, ErrUnopened) {
		err = temporal.NewApplicationError(err.Error(), TypeUnopened)
	}
	return f.FailureConverter.ErrorToFailure(err)
}

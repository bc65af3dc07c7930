package payload

import (
	"slices"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/workflow"
)

// Interceptor returns what every client takes into its options beside the converters: the workers of the client
// leave out signals that are not sealed, such as one with an argument that somebody typed into the Web UI. It can
// never be opened, so waiting for a key would only stop the workflow for good. One that is sealed with a key that is
// missing waits for it.
func (s Sealing) Interceptor() interceptor.ClientInterceptor { return &plainSignals{sealing: s} }

type plainSignals struct {
	interceptor.InterceptorBase
	sealing Sealing
}

// InterceptWorkflow is the SDK's hook.
func (p *plainSignals) InterceptWorkflow(
	_ workflow.Context, next interceptor.WorkflowInboundInterceptor,
) interceptor.WorkflowInboundInterceptor {
	return &signalled{interceptor.WorkflowInboundInterceptorBase{Next: next}, p.sealing}
}

type signalled struct {
	interceptor.WorkflowInboundInterceptorBase
	sealing Sealing
}

// HandleSignal is the SDK's hook. The time is the workflow's, so that a replay decides as the first run did.
func (s *signalled) HandleSignal(ctx workflow.Context, in *interceptor.HandleSignalInput) error {
	at := workflow.Now(ctx)
	isRefused := func(p *commonpb.Payload) bool { return !Sealed(p) && !s.sealing.takesPlain(p, at) }
	if slices.ContainsFunc(in.Arg.GetPayloads(), isRefused) {
		workflow.GetLogger(ctx).Warn("a signal that is not encrypted is left out: send it through the API", "signal", in.SignalName)
		return nil
	}
	return s.Next.HandleSignal(ctx, in)
}

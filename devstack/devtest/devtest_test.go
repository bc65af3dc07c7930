package devtest_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/devstack/devtest"
)

var practice = temporal.NewSearchAttributeKeyKeyword("Practice")

var stack = devtest.Stack{
	Migrate: func(ctx context.Context, url string) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, "CREATE TABLE reading (systolic int PRIMARY KEY)")
		return err
	},
	SearchAttributes: map[string]string{practice.GetName(): "Keyword"},
}

func TestMain(m *testing.M) { os.Exit(stack.Run(m)) }

func TestEachTestHasAMigratedDatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			conn, err := pgx.Connect(t.Context(), stack.Postgres(t))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.Background()) }()
			// The key is taken already if another test writes to the same table.
			if _, err := conn.Exec(t.Context(), "INSERT INTO reading VALUES (128)"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEachTestHasANamespaceOfItsOwn(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			address, namespace := stack.Temporal(t)
			c, err := client.DialContext(t.Context(), client.Options{HostPort: address, Namespace: namespace})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()

			// The id is taken already if another test starts its workflow in the same namespace.
			_, err = c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
				ID:                                       "transmission",
				TaskQueue:                                "transmissions",
				WorkflowExecutionErrorWhenAlreadyStarted: true,
				TypedSearchAttributes:                    temporal.NewSearchAttributes(practice.ValueSet("FHAGDC")),
			}, "Transmission")
			if err != nil {
				t.Error(err)
			}
		})
	}
}

package worker

import (
	"errors"
	"reflect"
	"testing"

	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/activities"
)

// Every input of every activity must name the practice: the guard refuses what does not.
func TestEveryActivityNamesThePractice(t *testing.T) {
	t.Parallel()
	for group := range reflect.TypeFor[Activities]().Fields() {
		for method := range group.Type.Methods() {
			for i := 2; i < method.Type.NumIn(); i++ { // after the receiver and the context
				input := reflect.New(method.Type.In(i)).Elem()
				name := input
				if input.Kind() == reflect.Struct {
					name = input.FieldByName("PracticeCode")
				}
				if !name.IsValid() || name.Kind() != reflect.String {
					t.Errorf("%s takes %s, which names no practice", method.Name, input.Type())
					continue
				}
				name.SetString("FFHEDD")
				if got := practiceOf(input.Interface()); got != "FFHEDD" {
					t.Errorf("the practice of the input of %s is read as %q", method.Name, got)
				}
			}
		}
	}
}

// Temporal repeats what the guard refuses, but not Post: that must say that nothing was sent.
func TestForeignPostWasNotSent(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"Post": activities.TypeNotSent, "Record": TypeForeignPractice} {
		var refused *temporal.ApplicationError
		err := foreign(name, "A", "B")
		if !errors.As(err, &refused) || refused.Type() != want || refused.NonRetryable() != (name == "Post") {
			t.Errorf("%s is refused with %v", name, err)
		}
	}
}

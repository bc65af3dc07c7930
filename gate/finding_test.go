package gate_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

func TestFindingOf(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err  error
		want gate.Finding
	}{
		"an answer":          {nil, gate.Answers},
		"our own fault":      {errors.New("boom"), gate.Nothing},
		"no connection":      {&ecw.Error{Op: ecw.OpCreate, Class: ecw.ClassRetryable, Code: "connect"}, gate.Unavailable},
		"an error of eCW's":  {&ecw.Error{Op: ecw.OpCreate, Class: ecw.ClassUnknown, Code: "http_500", HTTPStatus: 500}, gate.Unavailable},
		"a busy record":      {&ecw.Error{Op: ecw.OpCreate, Class: ecw.ClassRetryable, Code: "http_409", HTTPStatus: http.StatusConflict}, gate.Answers},
		"refused data":       {&ecw.Error{Op: ecw.OpCreate, Class: ecw.ClassPermanentData, HTTPStatus: http.StatusUnprocessableEntity}, gate.Answers},
		"a limit":            {&ecw.Error{Op: ecw.OpCreate, Class: ecw.ClassThrottled, HTTPStatus: http.StatusTooManyRequests}, gate.Nothing},
		"our own limit":      {&ecw.Error{Op: ecw.OpToken, Class: ecw.ClassThrottled, Code: ecw.CodeRateLimited}, gate.Nothing},
		"no token":           {&ecw.Error{Op: ecw.OpToken, Class: ecw.ClassPermanentCredentials, HTTPStatus: http.StatusBadRequest}, gate.Refuses},
		"a refused token":    {&ecw.Error{Op: ecw.OpCreate, Class: ecw.ClassPermanentCredentials, HTTPStatus: http.StatusUnauthorized}, gate.Refuses},
		"forbidden":          {&ecw.Error{Op: ecw.OpCreate, Class: ecw.ClassPermanentCredentials, HTTPStatus: http.StatusForbidden}, gate.Forbids},
		"given up by us":     {&ecw.Error{Op: ecw.OpCreate, Class: ecw.ClassUnknown, Code: "canceled"}, gate.Nothing},
		"wrapped, forbidden": {fmt.Errorf("read: %w", &ecw.Error{Class: ecw.ClassPermanentCredentials, HTTPStatus: http.StatusForbidden}), gate.Forbids},
	} {
		if got := gate.FindingOf(tc.err); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

package main

import (
	"net/http"
	"testing"
	"time"
)

func TestTheSandboxsClockCanBeOff(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	p := start(t, t.TempDir(), []string{"SANDBOX_ADDRESS=" + address, "SANDBOX_CLOCK_OFFSET=-2h"}, "sandbox")
	p.await(t, &p.stderr, "listening")
	res, err := http.Get("http://" + address + "/admin/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()

	date, err := http.ParseTime(res.Header.Get("Date"))
	if behind := time.Since(date); err != nil || (behind-2*time.Hour).Abs() > time.Hour {
		t.Errorf("the sandbox is %s behind, want 2h (%v)", behind, err)
	}
}

// TestTheSandboxDoesNotStartInProduction: whoever reaches its /admin/ decides what becomes of readings. An
// environment that nobody knows counts as production.
func TestTheSandboxDoesNotStartInProduction(t *testing.T) {
	t.Parallel()
	for _, environment := range []string{"production", "Production", "prod"} {
		address := freeAddress(t)
		p := run(t, t.TempDir(), []string{"SANDBOX_ADDRESS=" + address, "ECW_ENVIRONMENT=" + environment}, "sandbox")
		mustSay(t, p, 1, `ECW_ENVIRONMENT is "`+environment+`"`)
	}
}

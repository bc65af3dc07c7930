package main

import (
	"testing"

	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// The memory limit decides how many waiting workflows are cached. It is set before the process waits for
// anything.
func TestTheCacheFitsTheMemory(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	settings := []string{
		"KEYRING_FILE=" + keyringtest.File(t), "DATABASE_URL=postgres://u:p@127.0.0.1:1/db", "TEMPORAL_ADDRESS=127.0.0.1:1", "ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD",
	}
	mustSay(t, run(t, dir, settings, "keys", "generate"), 0, "")
	for limit, want := range map[string]string{"100MiB": "limit_mib=100 cached_workflows=800", "off": "limit=none cached_workflows=1000"} {
		p := start(t, dir, append(settings, "GOMEMLIMIT="+limit), "worker")
		p.await(t, &p.stderr, want)
	}
}

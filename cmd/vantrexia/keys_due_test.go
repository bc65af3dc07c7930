package main

import (
	"bytes"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/keyring"
)

func TestKeysThatAreDueAreNamed(t *testing.T) {
	t.Parallel()
	content, err := keyring.Generate()
	if err != nil {
		t.Fatal(err)
	}
	dates := regexp.MustCompile(`"used_from": "[^"]+"`)
	for days, want := range map[int]int{0: 0, 90: 0, 101: 3} { // columns, indexes and temporal
		old := `"used_from": "` + time.Now().AddDate(0, 0, -days).UTC().Format(time.RFC3339) + `"`
		keys, err := keyring.New(dates.ReplaceAll(content, []byte(old)))
		if err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		warnOfOldKeys(slog.New(slog.NewTextHandler(&said, nil)), keys)
		if got := strings.Count(said.String(), "keys rotate"); got != want {
			t.Errorf("after %d days there are %d warnings, want %d: %s", days, got, want, said.String())
		}
	}
}

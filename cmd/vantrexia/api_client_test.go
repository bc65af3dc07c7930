package main

import (
	"strings"
	"testing"
)

// Passwords and tokens do not leave this machine in clear.
func TestTheAPIIsReachedWithTLS(t *testing.T) {
	t.Parallel()
	cfg := config{UnencryptedHosts: []string{"mesh.example"}}
	for url, refused := range map[string]bool{
		"":                             false,
		"https://api.example":          false,
		"http://127.0.0.1:8000":        false,
		"http://localhost:8000/":       false,
		"http://[::1]:8000":            false,
		"http://mesh.example:8000":     false,
		"http://api.example":           true,
		"HTTP://api.example":           true,
		"http://localhost@api.example": true,
		"api.example":                  true,
		"api.example:8000":             true,
		"ftp://api.example":            true,
	} {
		_, err := newAPIClient(cfg, url, "token")
		if (err != nil) != refused {
			t.Errorf("%q: %v", url, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "--url") || !strings.Contains(err.Error(), "https://")) {
			t.Errorf("%q: %v does not say what to do", url, err)
		}
	}
}

package ecw

import (
	"strings"
	"testing"
)

func TestMissingScopes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ asked, granted, missing string }{
		{DefaultScope, DefaultScope, ""},
		{DefaultScope, "system/Observation.cruds system/Patient.rs", ""},
		{DefaultScope, "system/*.*", ""},
		{DefaultScope, "", DefaultScope},
		{"system/Observation.write", "system/Observation.c", ""},
		{"system/Observation.write", "system/Observation.cu", ""},
		{"system/Observation.write", "system/Observation.*", ""},
		{"system/Observation.write", "system/*.write", ""},
		{"system/Observation.write", "system/Observation.u", "system/Observation.write"},
		{"system/Observation.write", "system/Observation.rs", "system/Observation.write"},
		{"system/Observation.write", "system/Patient.write", "system/Observation.write"},
		{"system/Observation.write", "user/Observation.write", "system/Observation.write"},
		{"system/Observation.write", "system/Observation.c?category=vital-signs", "system/Observation.write"},
		{"system/Observation.c?category=vital-signs", "system/Observation.c?category=vital-signs", ""},
		{"system/Observation.c?category=vital-signs", "system/Observation.c", ""},
		{"system/Observation.read", "system/Observation.r system/Observation.s", ""},
		{"system/Observation.read", "system/Observation.r", "system/Observation.read"},
		{"system/Observation.rs", "system/Observation.read", ""},
		{"system/Observation.cu", "system/Observation.write", ""},
		{"system/Observation.*", "system/Observation.read system/Observation.write", ""},
		{"system/*.read", "system/Observation.read", "system/*.read"},
		{"openid", "openid", ""},
		{"openid", "system/*.*", "openid"},
	} {
		if got := strings.Join(missingScopes(tc.asked, tc.granted), " "); got != tc.missing {
			t.Errorf("asked %q, granted %q: missing %q, want %q", tc.asked, tc.granted, got, tc.missing)
		}
	}
}

// TestMayCreate: a token whose scope does not allow creating Observations is recognised before a reading
// fails.
func TestMayCreate(t *testing.T) {
	t.Parallel()
	for scope, want := range map[string]bool{
		"system/Patient.read system/Observation.write": true,
		"system/Patient.rs system/Observation.crs":     true,
		"system/*.*": true,
		"system/Patient.read system/Observation.read": false,
		"system/Patient.write":                        false,
	} {
		e := newEHR(t)
		e.token = grant(`{"access_token":"tok-1","token_type":"Bearer","expires_in":300,"scope":"` + scope + `"}`)
		c := e.client(t, func(cfg *Config) { cfg.Scope = scope })
		if !c.MayCreate() {
			t.Errorf("%s: refused before there is a token", scope)
		}

		mustAuthenticate(t, c)
		if got := c.MayCreate(); got != want {
			t.Errorf("%s: %v", scope, got)
		}
	}
}

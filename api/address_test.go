package api_test

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/vantrexia/vantrexia/api"
)

// TestNobodyMakesUpAnAddress: a caller cannot choose which address is counted. What tells whose bucket it was
// is what is left in it.
func TestNobodyMakesUpAnAddress(t *testing.T) {
	t.Parallel()
	const proxy, another = "127.0.0.0/8", "198.51.100.0/24"
	for name, test := range map[string]struct {
		trusted []string
		headers []string
		client  string
	}{
		"nobody is trusted by default":                       {nil, []string{from, "192.0.2.1", "X-Real-Ip", "192.0.2.1"}, "127.0.0.1"},
		"somebody else is trusted":                           {[]string{another}, []string{from, "192.0.2.1"}, "127.0.0.1"},
		"no header":                                          {[]string{proxy}, nil, "127.0.0.1"},
		"the proxy says it":                                  {[]string{proxy}, []string{from, "192.0.2.1"}, "192.0.2.1"},
		"with a port":                                        {[]string{proxy}, []string{from, "192.0.2.1:40000"}, "192.0.2.1"},
		"the client has made up the first":                   {[]string{proxy}, []string{from, "203.0.113.7, 192.0.2.1"}, "192.0.2.1"},
		"a second trusted proxy":                             {[]string{proxy, another}, []string{from, "192.0.2.1, 198.51.100.4"}, "192.0.2.1"},
		"a second proxy that is not trusted":                 {[]string{proxy}, []string{from, "192.0.2.1, 198.51.100.4"}, "198.51.100.4"},
		"all are trusted":                                    {[]string{proxy, another}, []string{from, "198.51.100.3, 198.51.100.4"}, "198.51.100.3"},
		"no address":                                         {[]string{proxy}, []string{from, "unknown"}, "127.0.0.1"},
		"no address behind a good one":                       {[]string{proxy}, []string{from, "192.0.2.1, <script>"}, "127.0.0.1"},
		"a made up end of the trusted":                       {[]string{proxy, another}, []string{from, "nonsense, 198.51.100.4"}, "198.51.100.4"},
		"the header X-Real-Ip is nobody's":                   {[]string{proxy}, []string{"X-Real-Ip", "192.0.2.1"}, "127.0.0.1"},
		"an IPv4 address in IPv6 form is the same address":   {[]string{proxy, another}, []string{from, "192.0.2.1, ::ffff:198.51.100.4"}, "192.0.2.1"},
		"a zone does not make another address of the client": {[]string{proxy}, []string{from, "fe80::1%eth0"}, "fe80::2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trust := func(cfg *api.Config) {
				cfg.Limits.Anonymous = 2
				for _, block := range test.trusted {
					cfg.TrustedProxies = append(cfg.TrustedProxies, netip.MustParsePrefix(block))
				}
			}
			c := door(t, trust).with("")
			c.do("GET", "/api/v1/patients/", "", test.headers...).want(t, http.StatusUnauthorized, "not_authenticated").wantLeft(t, 2, 1)

			// The same client once more, in the plainest form there is.
			plain := []string{from, test.client}
			if test.client == "127.0.0.1" {
				plain = nil
			}
			if test.trusted == nil || test.trusted[0] != proxy {
				plain = nil
			}
			c.do("GET", "/api/v1/patients/", "", plain...).wantLeft(t, 2, 0)
		})
	}
}

func TestHSTSOnlyBehindTLS(t *testing.T) {
	t.Parallel()
	const want = "max-age=31536000; includeSubDomains"
	trusting, wary := door(t, behindProxy), door(t, func(*api.Config) {})
	for _, test := range []struct {
		c      caller
		scheme string
		hsts   string
	}{
		{trusting, "https", want},
		{trusting, "http", ""},
		{trusting, "", ""},
		{wary, "https", ""},
	} {
		for _, path := range []string{"/api/v1/patients/", "/api/v1/nothing/", "/docs"} {
			if got := test.c.with("").do("GET", path, "", "X-Forwarded-Proto", test.scheme).header.Get("Strict-Transport-Security"); got != test.hsts {
				t.Errorf("%s with %q: HSTS is %q, want %q", path, test.scheme, got, test.hsts)
			}
		}
	}
}

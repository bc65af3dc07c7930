package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/api"
)

// Links lead to the configured address, whatever a caller or a proxy writes into the headers. Without one
// they are paths, which every client resolves against the address that it used.
func TestLinksFollowTheConfiguredURL(t *testing.T) {
	t.Parallel()
	for _, public := range []string{"", "https://rpm.example", "https://rpm.example/vantrexia"} {
		t.Run("public URL "+public, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, setup{missing: temporal, change: func(cfg *api.Config) { cfg.PublicURL = public }})
			s.patient(kevin)
			s.patient(susan)
			forged := []string{"X-Forwarded-Proto", "https", "X-Forwarded-Protocol", "https", "X-Forwarded-Ssl", "on", "X-Url-Scheme", "https",
				"X-Forwarded-Host", "evil.example", "Forwarded", "host=evil.example;proto=https"}
			for page, member := range map[string]string{"1": "next", "2": "previous"} {
				got := s.do("GET", "/api/v1/patients/?page_size=1&page="+page, "", forged...).want(t, http.StatusOK, "")
				if link := got.text(member); !strings.HasPrefix(link, public+"/api/v1/patients/?") {
					t.Errorf("%s is %s", member, link)
				}
			}

			created := s.do("POST", "/api/v1/patients/", `{"first_name":"A","last_name":"B","date_of_birth":"1950-01-01","mrn":"M-1"}`, forged...).want(t, http.StatusCreated, "")
			if location := created.header.Get("Location"); location != public+"/api/v1/patients/"+created.text("id")+"/" {
				t.Errorf("Location is %s", location)
			}

			reading := s.do("POST", "/api/v1/observations/", weight(created.text("id")), forged...).want(t, http.StatusCreated, "")
			if location := reading.header.Get("Location"); location != public+"/api/v1/observations/"+reading.text("id")+"/" {
				t.Errorf("Location is %s", location)
			}
		})
	}
}

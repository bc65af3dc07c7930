package api_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// wantNoBudget checks that the request was refused because people have used up their part of eCW's limit.
func (a answer) wantNoBudget(t *testing.T) {
	t.Helper()
	a.want(t, http.StatusTooManyRequests, "ecw_budget_used")
	if wait, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || wait < 1 || wait > 60 {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
}

// Somebody who clicks through eCW's patients hundreds of times gets a quarter of the limit at most, and readings
// are delivered meanwhile. The limit is the usual one: so many clicks outrun it on a slow machine too.
func TestClickingLeavesTheLimitToDeliveries(t *testing.T) {
	t.Parallel()
	const perMinute = 240
	var asked atomic.Int64
	s := startWith(t, setup{perMinute: perMinute, watch: func(ehr http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/Patient") {
				asked.Add(1)
			}
			ehr.ServeHTTP(w, r)
		})
	}})
	patient := s.patient(kevin)

	began := time.Now()
	var refused atomic.Int64
	var clicks errgroup.Group
	clicks.SetLimit(16)
	for range 300 {
		clicks.Go(func() error {
			if got := s.do("GET", "/api/v1/ecw/patients/", ""); got.status == http.StatusTooManyRequests {
				got.wantNoBudget(t)
				refused.Add(1)
			} else if got.status != http.StatusOK {
				t.Errorf("got %d %s", got.status, clip(string(got.body)))
			}
			return nil
		})
	}
	s.await(s.post(weight(patient)), "transmitted")
	_ = clicks.Wait()

	most := perMinute/8 + int64(time.Since(began)*(perMinute/8)/time.Minute) + 1
	if n := asked.Load(); n > most || n < perMinute/8/2 || refused.Load() == 0 {
		t.Errorf("%d requests reached eCW and %d were refused, want %d at most", n, refused.Load(), most)
	}
}

// All that people ask of eCW comes out of one part. What asks nothing of eCW goes on.
func TestWhatPeopleAskOfECWHasABudget(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{perMinute: 240})
	patient, failed := s.patient(kevin), s.patient("")
	reading := s.post(weight(failed))
	s.await(reading, "failed")
	s.link(failed, susan)

	s.do("POST", "/api/v1/ecw/test/connection/", "").want(t, http.StatusOK, "")
	s.exec("UPDATE ecw_gates SET asked_full_at = clock_timestamp() + interval '60 seconds'")
	for _, request := range [][3]string{
		{"GET", "/api/v1/ecw/patients/", ""},
		{"POST", "/api/v1/ecw/test/jwt/", ""},
		{"POST", "/api/v1/ecw/test/connection/", ""},
		{"PATCH", "/api/v1/patients/" + patient + "/", `{"external_id":"` + susan + `x"}`},
		{"POST", "/api/v1/patients/", `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21","mrn":"new","external_id":"1"}`},
		{"POST", "/api/v1/fhir/observations/" + reading + "/transmit/", ""},
	} {
		s.do(request[0], request[1], request[2]).wantNoBudget(t)
	}

	s.do("GET", "/api/v1/fhir/status/", "").want(t, http.StatusOK, "")
	s.do("PATCH", "/api/v1/patients/"+patient+"/", `{"phone":"1"}`).want(t, http.StatusOK, "")
	s.await(s.post(weight(patient)), "transmitted")
	if stored, received := s.inChart(reading); stored != 0 || received != 0 {
		t.Errorf("the reading was sent %d times although nobody could pay for it", received)
	}

	s.exec("UPDATE ecw_gates SET asked_full_at = clock_timestamp() + interval '58 seconds'") // room for one
	before := s.askedFullAt()
	s.transmit(reading).want(t, http.StatusOK, "")
	s.await(reading, "transmitted")
	if !s.askedFullAt().After(before) {
		t.Error("what a person asked to transmit comes out of nobody's part")
	}
}

// askedFullAt is when all of the people's part may be used again.
func (s *system) askedFullAt() (at time.Time) {
	s.tb.Helper()
	if err := s.conn.QueryRow(s.tb.Context(), "SELECT asked_full_at FROM ecw_gates").Scan(&at); err != nil {
		s.tb.Fatal(err)
	}
	return at
}

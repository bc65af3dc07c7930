package api_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tinyPages lets the EHR show one patient a page, however many are asked for.
func tinyPages(asked *atomic.Int64) func(http.Handler) http.Handler {
	return func(ehr http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/Patient") {
				asked.Add(1)
				query := r.URL.Query()
				query.Set("_count", "1")
				r.URL.RawQuery = query.Encode()
			}
			ehr.ServeHTTP(w, r)
		})
	}
}

// Of an EHR whose pages hold one patient each, a page of ours takes many requests. Whoever goes on clicking there
// uses up people's part of the limit and no more: readings are delivered meanwhile.
func TestBrowsingTinyPagesStarvesNoDelivery(t *testing.T) {
	t.Parallel()
	const perMinute, readings = 240, 10
	var asked atomic.Int64
	s := startWith(t, setup{perMinute: perMinute, patients: 500, watch: tinyPages(&asked)})
	patient := s.patient(kevin)

	began := time.Now()
	ctx, stop := context.WithCancel(t.Context())
	var browsing sync.WaitGroup
	var refused atomic.Int64
	for range 8 {
		browsing.Go(func() {
			for ctx.Err() == nil {
				switch got := s.do("GET", "/api/v1/ecw/patients/?page_size=50&page=2", ""); got.status {
				case http.StatusTooManyRequests:
					got.wantNoBudget(t)
					refused.Add(1)
				case http.StatusOK:
				default:
					t.Errorf("got %d %s", got.status, clip(string(got.body)))
				}
			}
		})
	}
	eventually(t, "browsing to use up its part", func() bool { return refused.Load() > 10 })

	ids := make([]string, readings)
	for i := range ids {
		ids[i] = s.post(weight(patient))
	}
	for _, id := range ids {
		s.await(id, "transmitted")
		if stored, received := s.inChart(id); stored != 1 || received != 1 {
			t.Errorf("%s is stored %d times, sent %d times", id, stored, received)
		}
	}
	stop()
	browsing.Wait()

	most := perMinute/8 + int64(time.Since(began)*(perMinute/8)/time.Minute) + 1
	if n := asked.Load(); n > most || n < perMinute/8/2 {
		t.Errorf("browsing sent %d requests to eCW, want %d at most", n, most)
	}
}

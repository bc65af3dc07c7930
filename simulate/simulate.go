package simulate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// Config says where the readings go.
type Config struct {
	APIURL string // http://127.0.0.1:8000
	// TLS is how the API is asked over TLS; nil is Go's default.
	TLS    *tls.Config
	Token  string // of the role provider: the patients are created too
	Visits int    // how many of the 602 visits; 0 = all
	// Parallel is how many readings are under way at a time.
	Parallel int
	// Wait is how long to wait for the deliveries after the last reading was sent; 0 = not at all.
	Wait time.Duration
	// Progress shows the progress bars.
	Progress io.Writer
}

// Result counts what became of the readings.
type Result struct {
	Visits, Patients, Readings int
	Created, AlreadyThere      int
	Transmitted, Failed        int
	Waiting                    int // not delivered yet, or not looked at
}

// Sent is how many readings the API has taken.
func (r Result) Sent() int { return r.Created + r.AlreadyThere }

func (r Result) String() string {
	return fmt.Sprintf("%s of %s in %s: %d stored now, %d stored before; %d transmitted, %d failed, %d waiting",
		count(r.Readings, "reading"), count(r.Patients, "patient"), count(r.Visits, "visit"),
		r.Created, r.AlreadyThere, r.Transmitted, r.Failed, r.Waiting)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Run sends the readings. It stops at the first one that the API refuses. The result counts what was done,
// also beside an error.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if cfg.Visits < 0 {
		return Result{}, fmt.Errorf("%d visits cannot be sent: give 1 to %d, or 0 for all", cfg.Visits, len(sandbox.Vitals()))
	}

	visits := sandbox.Vitals()
	if cfg.Visits > 0 && cfg.Visits < len(visits) {
		visits = visits[:cfg.Visits]
	}

	c := &client{base: strings.TrimRight(cfg.APIURL, "/"), token: cfg.Token, http: &http.Client{
		Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Parallel, TLSClientConfig: cfg.TLS},
	}}

	s := &simulation{Config: cfg, client: c, all: readings(visits)}
	s.result = Result{Visits: len(visits), Readings: len(s.all), Waiting: len(s.all)}
	if err := s.linkPatients(ctx); err != nil {
		return s.result, err
	}

	if err := s.each(ctx, "Sending readings   ", s.send); err != nil {
		return s.result, err
	}

	if cfg.Wait == 0 {
		return s.result, nil
	}

	waitCtx, cancel := context.WithTimeout(ctx, cfg.Wait)
	defer cancel()

	err := s.each(waitCtx, "Waiting for the EHR", s.await)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("%s not delivered within %s; they stay queued: run the command again to see the rest", count(s.result.Waiting,
			"reading"), cfg.Wait)
	}
	return s.result, err
}

type simulation struct {
	Config
	client *client
	all    []reading
	ids    sync.Map // index in all → id of the stored observation

	mu     sync.Mutex
	result Result
}

// each runs do for every reading, some at a time, behind a progress bar.
func (s *simulation) each(ctx context.Context, title string, do func(context.Context, int) error) error {
	bar := progressbar.NewOptions(len(s.all), progressbar.OptionSetWriter(s.Progress), progressbar.OptionSetDescription(title),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("readings"),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(s.Progress) }))

	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, s.Parallel))
	for i := range s.all {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := do(ctx, i); err != nil {
				return err
			}
			return bar.Add(1)
		})
	}

	if err := group.Wait(); err != nil {
		return errors.Join(err, bar.Exit())
	}
	return nil
}

// linkPatients creates those sample patients that the API does not know yet, linked to the sandbox, and puts
// their ids into the readings.
func (s *simulation) linkPatients(ctx context.Context) error {
	people := map[string]sandbox.Person{}
	for _, p := range sandbox.People() {
		people[p.SampleID] = p
	}

	ids := map[string]string{}
	for i, r := range s.all {
		if ids[r.sampleID] == "" {
			id, err := s.patientID(ctx, people[r.sampleID])
			if err != nil {
				return fmt.Errorf("patient %s: %w", people[r.sampleID].MRN, err)
			}
			ids[r.sampleID] = id
		}
		s.all[i].PatientID = ids[r.sampleID]
	}

	s.result.Patients = len(ids)
	return nil
}

func (s *simulation) patientID(ctx context.Context, p sandbox.Person) (string, error) {
	var known struct {
		Results []struct {
			ID string `json:"id"`
		} `json:"results"`
	}

	_, err := s.client.call(ctx, http.MethodGet, "/api/v1/patients/", url.Values{"external_id": {p.FHIRID}}, nil, &known)
	if err != nil {
		return "", err
	}
	if len(known.Results) > 0 {
		return known.Results[0].ID, nil
	}

	var created struct {
		ID string `json:"id"`
	}

	_, err = s.client.call(ctx, http.MethodPost, "/api/v1/patients/", nil, map[string]any{
		"first_name": p.FirstName, "last_name": p.LastName, "date_of_birth": p.BirthDate, "mrn": p.MRN, "external_id": p.FHIRID,
	}, &created)
	return created.ID, err
}

func (s *simulation) send(ctx context.Context, i int) error {
	var stored struct {
		ID string `json:"id"`
	}

	status, err := s.client.call(ctx, http.MethodPost, "/api/v1/observations/", nil, s.all[i], &stored)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", s.all[i].ObservationType, s.all[i].EffectiveAt.Format(time.RFC3339), err)
	}

	s.ids.Store(i, stored.ID)
	s.mu.Lock()
	defer s.mu.Unlock()

	if status == http.StatusCreated {
		s.result.Created++
	} else {
		s.result.AlreadyThere++
	}
	return nil
}

// await polls one reading until it is transmitted or has failed for good.
func (s *simulation) await(ctx context.Context, i int) error {
	id, _ := s.ids.Load(i)
	for {
		var stored struct {
			Transmission *struct {
				Status      string     `json:"status"`
				NextRetryAt *time.Time `json:"next_retry_at"`
			} `json:"transmission"`
		}
		if _, err := s.client.call(ctx, http.MethodGet, fmt.Sprintf("/api/v1/observations/%s/", id), nil, nil, &stored); err != nil {
			return err
		}

		if t := stored.Transmission; t != nil {
			switch {
			case t.Status == "transmitted":
				s.settle(&s.result.Transmitted)
				return nil
			case t.Status == "failed" && t.NextRetryAt == nil:
				s.settle(&s.result.Failed)
				return nil
			}
		}

		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settle counts a reading whose delivery is decided.
func (s *simulation) settle(final *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*final++
	s.result.Waiting--
}

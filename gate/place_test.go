package gate_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// bears sets how many requests may be under way at once.
func (r *rig) bears(g *gate.Gate, parallel float64) {
	r.tb.Helper()
	_, err := g.State(r.tb.Context())
	r.must(err)
	r.exec("UPDATE ecw_gates SET parallel = $1, reduced_at = 'epoch'", parallel)
}

// expectParallel checks how many requests may be under way at once.
func (r *rig) expectParallel(why string, want float64) {
	r.tb.Helper()
	if got := r.row().Parallel; math.Abs(got-want) > 1e-9 {
		r.tb.Errorf("%s: %v may be under way, want %v", why, got, want)
	}
}

// later begins a request in the background, which has to wait for its place. done waits until it has left or
// was refused, and ends it.
func (r *rig) later(ctx context.Context, g *gate.Gate) (done func() (left bool, err error)) {
	r.tb.Helper()
	type result struct {
		end func(context.Context, ecw.Observed)
		err error
	}

	results := make(chan result, 1)
	r.exec("UPDATE ecw_gates SET reserved_until = 'epoch'")
	go func() {
		end, _, err := g.Begin(ctx)
		results <- result{end, err}
	}()

	r.await("a request that waits for a place", func() bool { return r.row().ReservedUntil.Year() > 1970 })
	return func() (bool, error) {
		got := <-results
		if got.end != nil {
			got.end(context.WithoutCancel(ctx), prompt)
		}
		return got.end != nil, got.err
	}
}

// Deliveries and single requests share the places.
func TestNoMoreUnderWayThanThereArePlaces(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(2)
	var ends []func(context.Context, ecw.Observed)

	for i := range parallel / 2 {
		r.goes(gates[i%2], r.transmission())
		ends = append(ends, r.begin(t.Context(), gates[i%2]))
	}

	if n := r.taken(); n != parallel {
		t.Fatalf("%d places are taken, want %d", n, parallel)
	}

	waiting := r.transmission()
	r.waits(gates[0], waiting)
	done := r.later(t.Context(), gates[1])

	if n := r.taken(); n != parallel {
		t.Errorf("%d places are taken, want %d", n, parallel)
	}

	ends[0](t.Context(), prompt)
	ends[1](t.Context(), prompt)
	if left, err := done(); !left || err != nil {
		t.Errorf("the request that waited has left: %t (%v)", left, err)
	}

	r.expectCalls("there is a place for both", waiting)
}

func TestImportsTakeHalfOfThePlaces(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	imports := gate.Importing(t.Context())
	var end func(context.Context, ecw.Observed)

	for range parallel / 2 {
		end = r.begin(imports, g)
	}

	done := r.later(imports, g)
	if n := r.taken(); n != parallel/2 {
		t.Errorf("imports take %d places, want %d", n, parallel/2)
	}

	for range parallel / 2 { // the others are free for other requests
		r.begin(t.Context(), g)
	}

	end(imports, prompt)
	if left, err := done(); !left || err != nil {
		t.Errorf("the import that waited has left: %t (%v)", left, err)
	}
}

func TestAnImportHasOnePlaceAtLeast(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 2, 3} {
		r := newRig(t)
		g := r.gate(places(most))
		imports := gate.Importing(t.Context())
		end := r.begin(imports, g)
		done := r.later(imports, g)
		end(imports, prompt)
		if left, err := done(); !left || err != nil {
			t.Errorf("of %d places: the other import has left: %t (%v)", most, left, err)
		}
	}
}

// If the process of a request has died, its place is free when the request's time is over.
func TestAPlaceThatExpiredIsFree(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	before := r.now()
	r.begin(t.Context(), g)
	var expires time.Time
	r.must(r.sql.QueryRow(t.Context(), "SELECT expires_at FROM ecw_places").Scan(&expires))

	if expires.Before(before.Add(g.Lease())) || expires.After(r.now().Add(g.Lease())) || g.Lease() != lease {
		t.Errorf("the place expires %s from now, want %s", expires.Sub(before), lease)
	}

	waiting := r.transmission()
	r.waits(g, waiting)

	r.expire()
	r.goes(g, waiting)
	r.expire()
	r.begin(t.Context(), g)(t.Context(), prompt)
}

func TestARequestThatIsGivenUpLeavesItsPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(limit(gate.MinPerMinute), places(1))
	_, err := g.State(t.Context())
	r.must(err)
	r.exec("UPDATE ecw_gates SET bucket_full_at = clock_timestamp() + interval '62 seconds'") // its moment is in 8 s
	ctx, cancel := context.WithCancel(t.Context())
	group := errgroup.Group{}
	group.Go(func() error { _, _, err := g.Begin(ctx); return err })
	r.await("a request that waits for its moment", func() bool { return r.taken() == 1 })
	cancel()

	if err := group.Wait(); err == nil {
		t.Error("it has left")
	}
	if n := r.taken(); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}

// All requests of a delivery share the place that it was admitted to, and each renews it.
func TestADeliverysRequestsShareItsPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	delivery := r.transmission()
	r.goes(g, delivery)
	ctx := gate.Delivering(t.Context(), delivery.TransmissionID)

	for range 2 {
		r.exec("UPDATE ecw_places SET expires_at = clock_timestamp() + interval '30 seconds'")
		first, second := r.begin(ctx, g), r.begin(ctx, g) // a token request and a look-up at the same time
		var renewed bool
		r.must(r.sql.QueryRow(ctx, "SELECT expires_at > clock_timestamp() + interval '30 seconds' FROM ecw_places").Scan(&renewed))

		if !renewed {
			t.Error("the place is not kept for longer")
		}

		first(ctx, prompt)
		second(ctx, prompt)
		if r.taken() != 1 || !r.hasPlace(delivery.TransmissionID) {
			t.Errorf("%d places are taken between its requests, want its own", r.taken())
		}
	}

	r.delivered(g, delivery)
	if n := r.taken(); n != 0 {
		t.Errorf("%d places are taken when it is over", n)
	}
}

// A delivery that waited long between two requests may have lost its place.
func TestADeliveryWhosePlaceExpired(t *testing.T) {
	t.Parallel()
	t.Run("takes a free one", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		g := r.gate(places(1))
		delivery := r.transmission()
		r.goes(g, delivery)
		r.expire()
		r.begin(gate.Delivering(t.Context(), delivery.TransmissionID), g)

		if r.taken() != 1 || !r.hasPlace(delivery.TransmissionID) {
			t.Errorf("%d places are taken, want its own", r.taken())
		}
	})

	t.Run("waits for one, and is sent back", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		g := r.gate(places(1))
		delivery, other := r.transmission(), r.transmission()
		r.goes(g, delivery)
		r.expire()
		r.goes(g, other)
		full := r.row().BucketFullAt
		end, wait, err := g.Begin(gate.Delivering(t.Context(), delivery.TransmissionID))
		if end != nil || wait <= 0 || err != nil {
			t.Errorf("told to wait %s (%v), want it sent back", wait, err)
		}

		row := r.row()
		if !row.BucketFullAt.Equal(full) || r.hasPlace(delivery.TransmissionID) {
			t.Error("a delivery that is sent back uses a request or a place")
		}
		if row.ReservedUntil.Year() > 1970 {
			t.Error("a delivery reserves a place: it is called when one is free")
		}
	})
}

// While eCW answers in good time the number of places grows up to the maximum, by one for all requests that
// were under way together.
func TestMoreIsUnderWayWhileECWAnswersInGoodTime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	r.bears(g, 1)

	for _, want := range []float64{2, 2.5, 2.9} {
		r.begin(t.Context(), g)(t.Context(), prompt)
		r.expectParallel("an answer in good time", want)
	}

	for range 2 { // the number of places is rounded down
		r.begin(t.Context(), g)
	}

	r.waits(g, r.transmission())
	r.expire()

	for why, observed := range map[string]ecw.Observed{"a slow answer": slow, "no answer": nothing, "a 429": {}} {
		r.begin(t.Context(), g)(t.Context(), observed)
		r.expectParallel(why, 2.9)
	}

	r.begin(t.Context(), g)(t.Context(), ecw.Observed{Took: time.Second, Answered: true})
	r.expectParallel("a token in good time", 2.9+1/2.9)
	for range 100 {
		r.begin(t.Context(), g)(t.Context(), prompt)
	}

	r.expectParallel("a hundred answers", parallel)
}

// Requests that time out together count as one overload.
func TestOverloadHalvesOnceWhatIsUnderWayTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(2)
	r.bears(gates[0], parallel)
	var ends []func(context.Context, ecw.Observed)

	for i := range 4 {
		ends = append(ends, r.begin(t.Context(), gates[i%2]))
	}

	group := errgroup.Group{}
	for _, end := range ends[:3] {
		group.Go(func() error { end(t.Context(), overload); return nil })
	}

	r.must(group.Wait())
	r.expectParallel("three time-outs together", parallel/2)

	after := r.begin(t.Context(), gates[0])
	ends[3](t.Context(), overload)
	r.expectParallel("a time-out that began before", parallel/2)
	after(t.Context(), overload)
	r.expectParallel("a time-out of what began since", parallel/4)

	for _, want := range []float64{1, 1} {
		r.begin(t.Context(), gates[1])(t.Context(), overload)
		r.expectParallel("another time-out", want)
	}
}

// The maximum of requests under way is a setting, and may be less than the number in the database.
func TestTheMostIsASetting(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(4))
	r.bears(g, 64)
	for range 4 {
		r.goes(g, r.transmission())
	}
	r.waits(g, r.transmission())
	r.expire()
	r.begin(t.Context(), g)(t.Context(), overload)
	r.expectParallel("half of the most", 2)
}

// After an outage not all waiting deliveries are sent to eCW at once.
func TestACircuitThatClosesStartsSlowly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	before := r.begin(t.Context(), g)
	r.openCircuit(g, time.Minute)
	waiting := r.transmissions(5)

	for _, w := range waiting {
		r.admit(g, w)
	}

	trial := r.transmission()
	if a := r.admit(g, asked(trial)); !a.Trial {
		t.Fatalf("told %+v, want it to be the trial", a)
	}

	change := r.report(g, trial.TransmissionID, gate.Answers)
	before(t.Context(), overload)
	r.expectParallel("the circuit closed", 1)
	r.calls.take()
	r.expire()
	r.must(g.Release(t.Context(), change.FailingSince))
	r.expectCalls("one at first", waiting[0])

	r.goes(g, waiting[0])
	r.begin(gate.Delivering(t.Context(), waiting[0].TransmissionID), g)(t.Context(), prompt)
	r.delivered(g, waiting[0])
	r.expectCalls("then two", waiting[1], waiting[2])
}

// reserve simulates a single request that waits for a place and always polls in time.
func (r *rig) reserve() {
	r.tb.Helper()
	r.exec("UPDATE ecw_gates SET reserved_until = clock_timestamp() + interval '1 hour'")
}

// fill takes n places by deliveries.
func (r *rig) fill(g *gate.Gate, n int) []gate.Request {
	r.tb.Helper()
	list := r.transmissions(n)
	for _, t := range list {
		r.goes(g, t)
	}
	return list
}

// A backlog takes every free place at once. Still a single request that waits gets the next place.
func TestABacklogDoesNotStarveSingleRequests(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, parallel} {
		r := newRig(t)
		g := r.gate(places(most))
		under := r.fill(g, most)
		waiting := r.transmissions(4)
		r.waits(g, waiting...)
		r.reserve()
		r.delivered(g, under[0])
		r.expectCalls("the place is kept for the single request")

		end := r.begin(t.Context(), g)
		if most > 1 { // a single place is enough for them
			r.delivered(g, under[1])
			r.expectCalls("a single request has a place", waiting[0])
		}

		end(t.Context(), prompt)
		r.expectCalls("the single request is over", waiting[min(1, most-1)])
	}
}

// Single requests that follow each other, or wait side by side, take turns with the queue.
func TestSingleRequestsDoNotStarveABacklog(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, parallel} {
		r := newRig(t)
		g := r.gate(places(most))
		r.fill(g, most-1)
		end := r.begin(t.Context(), g)
		waiting := r.transmissions(2)
		r.waits(g, waiting...)
		r.reserve() // another single request waits already
		end(t.Context(), prompt)
		r.expectCalls("the queue's turn", waiting[0])

		r.goes(g, waiting[0])
		r.delivered(g, waiting[0])
		r.expectCalls("the other single request's turn")
		r.begin(t.Context(), g)(t.Context(), prompt)
		r.expectCalls("the queue's turn again", waiting[1])
	}
}

// The same with real requests, which poll for a place: each gets a place within its patience, and so does
// each delivery.
func TestSingleRequestsAndABacklogShareOnePlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	running := r.fill(g, 1)[0]
	waiting := r.transmissions(6)
	r.waits(g, waiting...)
	group, ctx := errgroup.WithContext(t.Context())

	for i := range 3 {
		ctx := ctx
		if i == 0 {
			ctx = gate.Importing(ctx)
		}

		group.Go(func() error {
			for range 2 {
				end, wait, err := g.Begin(ctx)
				if err != nil {
					return err
				}
				if wait == 0 {
					end(ctx, prompt)
				}
			}

			return nil
		})
	}

	for range waiting {
		r.delivered(g, running)
		var next []called
		r.await("the next delivery to be called", func() bool { next = r.calls.take(); return len(next) > 0 })

		for _, w := range waiting {
			if w.ObservationID == next[0].observationID {
				running = w
			}
		}

		r.goes(g, running)
	}

	r.delivered(g, running)
	r.must(group.Wait())
	if n := r.taken(); n != 0 {
		t.Errorf("%d places are taken in the end", n)
	}
}

// A single request that gives up had reserved a place. The next delivery in the queue is called at once, and
// does not have to wait for another request.
func TestASingleRequestThatGivesUpCallsTheQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	running, waiting := r.fill(g, 1)[0], r.transmission()
	r.waits(g, waiting)
	r.reserve()
	r.delivered(g, running)
	r.expectCalls("the place is kept for the single request")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	if _, _, err := g.Begin(ctx); err == nil {
		t.Error("it has left")
	}

	r.expectCalls("the single request has given up", waiting)
}

// A place is reserved only as long as a single request waits. After that the place could stay unused for
// minutes.
func TestNoPlaceIsKeptAfterTheRequestGaveUp(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(*rig, *gate.Gate){
		"it has left": func(r *rig, g *gate.Gate) { r.begin(t.Context(), g)(t.Context(), prompt) },
		"it has given up": func(_ *rig, g *gate.Gate) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, _, err := g.Begin(ctx); err == nil {
				t.Error("it has left")
			}
		},
	} {
		r := newRig(t)
		g := r.gate(places(1))
		_, err := g.State(t.Context())
		r.must(err)
		r.reserve()
		wait(r, g)
		running, waiting := r.fill(g, 1)[0], r.transmission()
		r.waits(g, waiting)
		r.delivered(g, running)
		r.expectCalls(name, waiting)
	}
}

// A report frees only the place of its delivery.
func TestAReportFreesOnePlace(t *testing.T) {
	t.Parallel()
	for name, finding := range map[string]gate.Finding{
		"nothing":     gate.Nothing,
		"answers":     gate.Answers,
		"unavailable": gate.Unavailable,
		"refuses":     gate.Refuses,
		"forbids":     gate.Forbids,
	} {
		r := newRig(t)
		g := r.gate()
		under := r.fill(g, 2)
		r.report(g, uuid.New(), finding)

		if n := r.taken(); n != 2 {
			t.Errorf("%s of another: %d places are taken, want 2", name, n)
		}

		r.report(g, under[0].TransmissionID, finding)
		if r.taken() != 1 || !r.hasPlace(under[1].TransmissionID) {
			t.Errorf("%s: %d places are taken, want the other one's", name, r.taken())
		}
	}
}

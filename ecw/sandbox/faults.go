package sandbox

import (
	"slices"
	"sync"
	"time"
)

// The kinds of fault. Several faults of the first group, which change how a request is handled, may apply
// together. Of the second and third group only the oldest matching fault applies.
const (
	kindSlow              = "slow"
	kindSlowAfter         = "slow_after"
	kindSharedCapacity    = "shared_capacity"
	kindSlowStart         = "slow_start"
	kindIgnoreIfNoneExist = "ignore_if_none_exist"
	kindStoreAgain        = "store_again"
	kindRejectIfNoneExist = "reject_if_none_exist"
	kindStandardStatus    = "standard_status"
	kindLateIndex         = "late_index"
	kindEmptySearch       = "empty_search"
	kindStrictSearch      = "strict_search"
	kindRefuseIdentifier  = "refuse_identifier"
	kindIgnoreIdentifier  = "ignore_identifier"
	kindDropIdentifier    = "drop_identifier"
	kindRefuseIDList      = "refuse_id_list"
	kindIgnoreIDList      = "ignore_id_list"
	kindHidePatients      = "hide_patients"
	kindSmallPages        = "small_pages"
	kindOtherPerson       = "other_person"
	kindPersonalText      = "personal_text"
	kindNarrowScope       = "narrow_scope"
	kindNoExpiresIn       = "no_expires_in"

	kindResetBefore  = "reset_before"
	kindUnauthorized = "unauthorized"
	kindForbidden    = "forbidden"
	kindThrottle     = "throttle"
	kindError500     = "error_500"
	kindError502     = "error_502"
	kindError503     = "error_503"
	kindError504     = "error_504"
	kindHTML         = "html"
	kindRedirect     = "redirect"
	kindNumber       = "ecw_number"
	kindTokenDown    = "token_down"
	kindAccessDenied = "access_denied"

	kindResetAfter = "reset_after"
	kindMalformed  = "malformed_json"
	kindTruncated  = "truncated"
	kindNoID       = "no_id"
	kindDuplicate  = "duplicate"
	kindLarge      = "large_body"
	kindWrongType  = "wrong_type"
)

type phase int

const (
	changesHandling phase = iota
	insteadOfHandling
	afterHandling
)

// faultKind describes a kind of fault. The first of its targets is the default.
type faultKind struct {
	Kind    string      `json:"kind"`
	Targets []operation `json:"targets"`
	Does    string      `json:"does"`
	phase   phase
}

const opAny operation = "any" // only as a target

func faultKinds() []faultKind {
	every := []operation{opAny, opToken, opCreate, opSearch, opRead}
	create, search, token := []operation{opCreate}, []operation{opSearch}, []operation{opToken}
	return []faultKind{
		{kindSlow, every, "waits for delay, then handles the request, even if the client has gone", changesHandling},
		{kindSlowAfter, every, "handles the request, then waits for delay before the answer", changesHandling},
		{kindSharedCapacity, every, "does work, which must be given, before it handles a request; all requests under way share the " +
			"time equally, those included whose clients have gone", changesHandling},
		{
			kindSlowStart,
			every,
			"waits for delay, which shrinks to nothing during for, as after a start; with shared_capacity it is work instead",
			changesHandling,
		},
		{kindIgnoreIfNoneExist, create, "ignores If-None-Exist and creates again; a known identifier in a Bundle gets 201", changesHandling},
		{kindStoreAgain, create, "ignores If-None-Exist and creates again, in a Bundle too, with the answer of a new one", changesHandling},
		{kindRejectIfNoneExist, create, "answers 400 to a create with If-None-Exist", changesHandling},
		{kindStandardStatus, create, `answers a Bundle with "201 Created" in place of "1"`, changesHandling},
		{kindLateIndex, create, "stores an Observation that searches and If-None-Exist do not find until delay has passed", changesHandling},
		{kindEmptySearch, search, "finds nothing, as while a write is still queued", changesHandling},
		{kindStrictSearch, search, "refuses a search for Observations with _count or without category", changesHandling},
		{kindRefuseIdentifier, search, "refuses a search for Observations by identifier", changesHandling},
		{kindIgnoreIdentifier, search, "ignores the identifier in a search for Observations, and finds too much", changesHandling},
		{kindDropIdentifier, create, "stores the Observation without its identifiers", changesHandling},
		{kindRefuseIDList, search, "refuses a search for Patients by a list of ids", changesHandling},
		{kindIgnoreIDList, search, "ignores a list of ids in a search for Patients, and finds everybody", changesHandling},
		{kindHidePatients, search, "leaves every other Patient out of a search, as one that is inactive or merged", changesHandling},
		{kindSmallPages, search, "answers a search for Patients with 20 on a page at most, whatever _count says", changesHandling},
		{
			kindOtherPerson,
			[]operation{opRead, opSearch},
			"shows Patients with another person's demographics under their ids and MRNs",
			changesHandling,
		},
		{
			kindPersonalText,
			every,
			"puts text, which must be given, into every text of the answer: diagnostics, displays, names, pages, headers, the token",
			changesHandling,
		},
		{kindNarrowScope, token, "grants no scope that writes Observations", changesHandling},
		{kindNoExpiresIn, token, "issues a token without expires_in", changesHandling},
		{kindResetBefore, every, "resets the connection, nothing is handled", insteadOfHandling},
		{kindUnauthorized, every, "answers 401 and revokes the access token used", insteadOfHandling},
		{kindForbidden, every, "answers 403", insteadOfHandling},
		{
			kindThrottle,
			every,
			"answers 429 to this and every other request until the top of the minute, or for retry_after, which is then announced",
			insteadOfHandling,
		},
		{kindError500, every, "answers 500", insteadOfHandling},
		{kindError502, every, "answers 502 with HTML, as a gateway does", insteadOfHandling},
		{kindError503, every, "answers 503, with Retry-After if retry_after is given", insteadOfHandling},
		{kindError504, every, "answers 504 with HTML, as a gateway does", insteadOfHandling},
		{kindHTML, every, "answers 200 with an HTML page of a gateway, nothing is handled", insteadOfHandling},
		{kindRedirect, every, "answers 307 with location, which must be given, nothing is handled", insteadOfHandling},
		{
			kindNumber,
			create,
			"refuses with number, one of eCW's, which must be given: alone in a Bundle's entry, in an OperationOutcome with 400 otherwise",
			insteadOfHandling,
		},
		{kindTokenDown, token, "answers 503 with HTML: the token server is down", insteadOfHandling},
		{kindAccessDenied, token, "answers access_denied, which eCW sends with status 500", insteadOfHandling},
		{kindResetAfter, every, "handles (stores), then resets the connection", afterHandling},
		{kindMalformed, every, "handles (stores), then answers with broken JSON and no Location", afterHandling},
		{kindTruncated, every, "handles (stores), then sends half of the answer, without Location, and closes", afterHandling},
		{kindNoID, create, "handles (stores), then answers without id and Location", afterHandling},
		{kindDuplicate, create, "handles (stores), then answers 200 with an OperationOutcome duplicate", afterHandling},
		{kindLarge, every, "handles (stores), then answers with 10 MB and no Location", afterHandling},
		{kindWrongType, every, "handles (stores), then answers with the content type text/plain, without Location", afterHandling},
	}
}

func kindNamed(name string) (faultKind, bool) {
	kinds := faultKinds()
	i := slices.IndexFunc(kinds, func(k faultKind) bool { return k.Kind == name })
	if i < 0 {
		return faultKind{}, false
	}
	return kinds[i], true
}

// fault is one that was asked for. It ends either after a number of requests or at a time.
type fault struct {
	ID         int       `json:"id"`
	Kind       string    `json:"kind"`
	Target     operation `json:"target"`
	Remaining  int       `json:"remaining,omitempty"`
	Until      time.Time `json:"until,omitzero"`
	Delay      string    `json:"delay,omitempty"`
	Work       string    `json:"work,omitempty"`
	RetryAfter string    `json:"retry_after,omitempty"`
	Location   string    `json:"location,omitempty"`
	Number     string    `json:"number,omitempty"`
	Text       string    `json:"text,omitempty"`
	Hits       int       `json:"hits"`

	phase      phase
	delay      time.Duration
	work       time.Duration
	retryAfter time.Duration
	period     time.Duration // from the start to Until
}

// cold is the part of a slow start's delay that is left.
func (f *fault) cold(now time.Time) time.Duration {
	return time.Duration(float64(f.delay) * float64(f.Until.Sub(now)) / float64(f.period))
}

func (f *fault) over(now time.Time) bool {
	if f.Until.IsZero() {
		return f.Remaining == 0
	}
	return !now.Before(f.Until)
}

// faults are the ones in force, oldest first.
type faults struct {
	mu   sync.Mutex
	list []*fault
	last int // id given
}

func (fs *faults) add(f fault) fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.last++
	f.ID = fs.last
	kept := f
	fs.list = append(fs.list, &kept)
	return f
}

func (fs *faults) clear() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.list = nil
}

func (fs *faults) active(now time.Time) []fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.prune(now)
	list := make([]fault, 0, len(fs.list))
	for _, f := range fs.list {
		list = append(list, *f)
	}
	return list
}

func (fs *faults) prune(now time.Time) {
	fs.list = slices.DeleteFunc(fs.list, func(f *fault) bool { return f.over(now) })
}

// effects is what the faults do to one request.
type effects struct {
	kinds             []string
	delay, delayAfter time.Duration
	work              time.Duration // to be done by the shared capacity
	indexDelay        time.Duration
	text              string // to stand in every text of the answer
	decisive          fault  // the one that replaces or spoils the answer; Kind "" = none
}

func (e effects) has(kind string) bool { return slices.Contains(e.kinds, kind) }

// take returns the effects of the faults that match a request, and counts it against them.
func (fs *faults) take(op operation, now time.Time) effects {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.prune(now)
	var e effects
	var cold time.Duration

	for _, f := range fs.list {
		if f.Target != opAny && f.Target != op {
			continue
		}
		if f.phase != changesHandling && e.decisive.Kind != "" {
			continue
		}

		f.Hits++
		if f.Until.IsZero() {
			f.Remaining--
		}

		switch {
		case f.Kind == kindSlow:
			e.delay += f.delay
		case f.Kind == kindSlowAfter:
			e.delayAfter += f.delay
		case f.Kind == kindSharedCapacity:
			e.work += f.work
		case f.Kind == kindSlowStart:
			cold += f.cold(now)
		case f.Kind == kindLateIndex:
			e.indexDelay = max(e.indexDelay, f.delay)
		case f.Kind == kindPersonalText:
			e.text = f.Text
		case f.phase == changesHandling:
			e.kinds = append(e.kinds, f.Kind)
		default:
			e.decisive = *f
		}
	}

	if e.work > 0 {
		e.work += cold // with a shared capacity, a cold cache is work that slows all requests down
	} else {
		e.delay += cold
	}

	return e
}

package audit

import (
	"cmp"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vantrexia/vantrexia/db"
)

// checkLog computes the log's root hashes anew, and compares them with all checkpoints. It does so twice, from the seals and
// from the stored hashes of the seals: when a seal was changed and its hash was not, the hashes still fit the checkpoints,
// and so exactly that seal is known to be changed.
func (v *verifier) checkLog(outside []string) error {
	l := logCheck{verifier: v}
	if err := l.readCheckpoints(outside); err != nil {
		return err
	}
	if err := l.readSeals(); err != nil {
		return err
	}
	for _, p := range l.points { // those of a longer log than there is
		l.compare(p, false)
	}
	l.reportCheckpoints()
	return nil
}

type logCheck struct {
	*verifier

	points []point // to compare, the smallest log first
	// inside is how large the log was at the checkpoints in the database.
	inside map[int64]bool

	seals, hashes frontier // the same tree, of what the two tables hold
	broken        bool     // so many seals are missing that nothing after them can be compared

	database, outsider compared
	unknown            []int64 // sizes of the log at checkpoints from outside that fit, and that the database does not have
}

// point is a checkpoint to compare.
type point struct {
	Checkpoint
	outside bool
}

func whereIs(outside bool) string {
	if outside {
		return "outside of the database"
	}
	return "in the database"
}

// compared counts the checkpoints of one place.
type compared struct {
	all, unfit int
	// fit and first are the sizes of the log at the last checkpoint that fits before one that does not, and at that one.
	fit, first int64
}

// readCheckpoints reads all that we signed. One that we did not sign is a finding.
func (l *logCheck) readCheckpoints(outside []string) error {
	open, err := checkpointOpener(l.keys, l.practice)
	if err != nil {
		return err
	}
	seen := map[point]bool{}
	add := func(signed string, outside bool) (size int64) {
		c, err := open(signed)
		if err != nil {
			l.report.find(nil, "a checkpoint %s is not one that we signed: %s", whereIs(outside), err)
			return 0
		}
		if p := (point{c, outside}); !seen[p] { // two processes may have published it
			seen[p] = true
			l.points = append(l.points, p)
		}
		return c.N
	}

	for _, signed := range outside {
		add(signed, true)
	}
	l.inside = map[int64]bool{}
	for after := int64(0); ; {
		rows, err := l.q.ListAuditCheckpoints(l.ctx, db.ListAuditCheckpointsParams{After: after, Batch: verifyBatch})
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			l.inside[add(row.Note, false)] = true
			after = row.Size
		}
	}
	slices.SortStableFunc(l.points, func(a, b point) int { return cmp.Compare(a.N, b.N) })
	return nil
}

// readSeals walks through all seals in the log's order, and through the hashes beside them.
func (l *logCheck) readSeals() error {
	for from := int64(0); !l.broken; {
		seals, err := l.q.ListAuditSeals(l.ctx, db.ListAuditSealsParams{FromLeaf: from, Batch: verifyBatch})
		if err != nil || len(seals) == 0 {
			return err
		}
		last := seals[len(seals)-1].Leaf
		if last-from > verifyBatch+mostNamed {
			l.report.find(nil, "more than %d seals from number %d on were removed from the log, or numbers were made up", mostNamed, from)
			l.broken = true
			return nil
		}
		stored, err := l.storedHashes(from, last)
		if err != nil {
			return err
		}
		for _, s := range seals {
			for l.seals.size < s.Leaf {
				l.report.find(nil, "seal %d was removed from the log", l.seals.size)
				l.addLeaf(nil, stored)
			}
			l.addLeaf(&s, stored)
			l.report.Leaves++
		}
		from = last + 1
	}
	return nil
}

// storedHashes returns the stored hashes that the leaves bring.
func (l *logCheck) storedHashes(first, last int64) (map[int64]tlog.Hash, error) {
	rows, err := l.q.ListAuditHashesFrom(l.ctx, db.ListAuditHashesFromParams{
		FromPosition:   tlog.StoredHashIndex(0, first),
		BeforePosition: tlog.StoredHashIndex(0, last+1),
	})
	if err != nil {
		return nil, err
	}
	stored := make(map[int64]tlog.Hash, len(rows))
	for _, row := range rows {
		stored[row.Position] = hashOf(row)
	}
	return stored, nil
}

// addLeaf adds the next leaf to both trees; s is nil when the seal is missing, of which the hash may be left.
func (l *logCheck) addLeaf(s *db.AuditSeal, stored map[int64]tlog.Hash) {
	n := l.seals.size
	at := tlog.StoredHashIndex(0, n)
	kept, ok := stored[at]
	hash := kept
	if s != nil {
		hash = tlog.RecordHash(leaf(*s))
	}
	if !ok {
		kept = hash
	}
	ofSeals, ofHashes := l.seals.add(hash), l.hashes.add(kept)

	if s != nil && (!ok || kept != hash) {
		l.report.find(nil, "seal %d (rows %d to %d of writer %s) and its hash in the log do not fit: one of them was changed or removed",
			n, s.FirstSequence, s.LastSequence, s.Writer)
	}
	for i := 1; i < len(ofSeals); i++ { // those of the trees above it
		if kept, ok := stored[at+int64(i)]; !ok || kept != ofSeals[i] && kept != ofHashes[i] {
			l.report.find(nil, "the hash %d of the log, which covers seals up to %d, was changed or removed", at+int64(i), n)
		}
	}

	for len(l.points) > 0 && l.points[0].N == l.seals.size {
		l.compare(l.points[0], l.points[0].Hash == l.seals.root() || l.points[0].Hash == l.hashes.root())
		l.points = l.points[1:]
	}
}

// compare counts a checkpoint as one that fits or does not.
func (l *logCheck) compare(p point, fits bool) {
	l.report.Checkpoints++
	c := &l.database
	if p.outside {
		c = &l.outsider
		l.report.Outside++
		if fits && !l.inside[p.N] {
			l.unknown = append(l.unknown, p.N)
		}
	}
	c.all++
	switch {
	case !fits && c.unfit == 0:
		c.unfit, c.first = 1, p.N
	case !fits:
		c.unfit++
	case c.unfit == 0:
		c.fit = p.N
	}
}

func (l *logCheck) reportCheckpoints() {
	for _, c := range []struct {
		compared
		outside bool
	}{
		{l.database, false},
		{l.outsider, true},
	} {
		if c.unfit == 0 {
			continue
		}
		l.report.find(nil, "the log has %d seals, and %d of %d checkpoints %s do not fit it, the first at %d seals: of the seals from %d to %d, some were "+
			"changed, removed or exchanged, or hashes of the log were", l.seals.size, c.unfit, c.all, whereIs(c.outside), c.first, c.fit, c.first-1)
	}
	if l.outsider.unfit > 0 && l.database.unfit == 0 {
		l.report.find(nil, "the checkpoints in the database fit, and those outside of it do not: either the database was restored from a "+
			"backup, and what it had sealed since is lost, or somebody who has the keyring has made this part of the trail anew, in which "+
			"case no row of it can be trusted")
	}

	if l.seals.size > 0 && !l.inside[l.seals.size] && !l.broken {
		l.report.find(nil, "the database lacks the checkpoint of its %d seals: it was removed, or seals were added", l.seals.size)
	}
	if n := len(l.unknown); n > 0 {
		l.report.find(nil, "%d checkpoints were removed from the database, which outside of it are known, the first at %d seals", n, l.unknown[0])
	}
}

// frontier computes a Merkle tree's root from leaves that come one after the other, and remembers only the roots of the
// complete subtrees (RFC 6962 §2.1), the largest first.
type frontier struct {
	size  int64
	roots []tlog.Hash
}

// add returns the hashes that the leaf brings, which [tlog.StoredHashes] returns too: its own, and those of the subtrees that
// it completes.
func (f *frontier) add(leaf tlog.Hash) []tlog.Hash {
	made := []tlog.Hash{leaf}
	f.roots = append(f.roots, leaf)
	f.size++
	for n := f.size; n%2 == 0; n /= 2 {
		last := len(f.roots) - 1
		above := tlog.NodeHash(f.roots[last-1], f.roots[last])
		f.roots = append(f.roots[:last-1], above)
		made = append(made, above)
	}
	return made
}

func (f *frontier) root() tlog.Hash {
	last := len(f.roots) - 1
	root := f.roots[last]
	for i := last - 1; i >= 0; i-- {
		root = tlog.NodeHash(f.roots[i], root)
	}
	return root
}

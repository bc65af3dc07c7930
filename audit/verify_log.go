package audit

import (
	"golang.org/x/mod/sumdb/tlog"

	"github.com/vantrexia/vantrexia/db"
)

// checkLog computes the log's root hashes anew from the seals, and compares them with all checkpoints.
func (v *verifier) checkLog(outside []string) error {
	points, err := v.checkpoints(outside)
	if err != nil {
		return err
	}

	var tree frontier
	compared := int64(0) // up to that size the log is known to be as it was, or is reported
	err = v.eachSeal(func(s db.AuditSeal) error {
		for s.Leaf > tree.size {
			v.report.find(nil, "seal %d was removed from the log", tree.size)
			tree.add(tlog.Hash{})
		}
		tree.add(tlog.RecordHash(leaf(s)))
		for _, p := range points[tree.size] {
			v.report.Checkpoints++
			if p.outside {
				v.report.Outside++
			}
			if tree.root() != p.Hash {
				v.report.find(nil, "the seals %d to %d are not those of the checkpoint %s: seals were changed or removed, or the "+
					"database was restored from a backup", compared, tree.size-1, p.where())
				break
			}
		}
		if len(points[tree.size]) > 0 {
			compared = tree.size
		}
		delete(points, tree.size)
		return nil
	})
	v.report.Leaves = tree.size
	for size, list := range points {
		v.report.find(nil, "the log has %d seals, and the checkpoint %s says %d: seals were removed, or the database was restored from "+
			"a backup", tree.size, list[0].where(), size)
	}
	return err
}

// point is a checkpoint to compare.
type point struct {
	Checkpoint
	outside bool
}

func (p point) where() string {
	if p.outside {
		return "outside of the database"
	}
	return "in the database"
}

// checkpoints returns all that we signed, by their size. One that we did not sign is a finding.
func (v *verifier) checkpoints(outside []string) (map[int64][]point, error) {
	points := map[int64][]point{}
	open, err := checkpointOpener(v.keys, v.practice)
	if err != nil {
		return nil, err
	}
	add := func(signed string, outside bool) {
		c, err := open(signed)
		if err != nil {
			v.report.find(nil, "a checkpoint %s is not one that we signed: %s", point{outside: outside}.where(), err)
			return
		}
		points[c.N] = append(points[c.N], point{c, outside})
	}

	for _, signed := range outside {
		add(signed, true)
	}
	for after := int64(0); ; {
		rows, err := v.q.ListAuditCheckpoints(v.ctx, db.ListAuditCheckpointsParams{After: after, Batch: verifyBatch})
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			return points, nil
		}
		for _, row := range rows {
			add(row.Note, false)
			after = row.Size
		}
	}
}

// eachSeal calls fn with all seals in the log's order.
func (v *verifier) eachSeal(fn func(db.AuditSeal) error) error {
	for from := int64(0); ; {
		seals, err := v.q.ListAuditSeals(v.ctx, db.ListAuditSealsParams{FromLeaf: from, Batch: verifyBatch})
		if err != nil || len(seals) == 0 {
			return err
		}
		for _, s := range seals {
			if err := fn(s); err != nil {
				return err
			}
			from = s.Leaf + 1
		}
	}
}

// frontier computes a Merkle tree's root from leaves that come one after the other, and remembers only the roots of the
// complete subtrees (RFC 6962 §2.1), the largest first.
type frontier struct {
	size  int64
	roots []tlog.Hash
}

func (f *frontier) add(leaf tlog.Hash) {
	f.roots = append(f.roots, leaf)
	f.size++
	for n := f.size; n%2 == 0; n /= 2 {
		last := len(f.roots) - 1
		f.roots = append(f.roots[:last-1], tlog.NodeHash(f.roots[last-1], f.roots[last]))
	}
}

func (f *frontier) root() tlog.Hash {
	last := len(f.roots) - 1
	root := f.roots[last]
	for i := last - 1; i >= 0; i-- {
		root = tlog.NodeHash(f.roots[i], root)
	}
	return root
}

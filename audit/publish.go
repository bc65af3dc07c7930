package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vantrexia/vantrexia/db"
)

// publish puts the newest checkpoint where the database's administrator cannot change it: into the process's log, if it is
// new, and into the file, if that lacks it. A file that cannot be written is a warning: the trail is sealed all the same.
func (s *Sealer) publish(ctx context.Context, isNew bool) error {
	// The file is read first: what it holds then is in the database already.
	published, problem := s.lastPublished()

	newest, err := s.Store.NewestAuditCheckpoint(ctx)
	if err != nil && !db.IsNotFound(err) {
		return err
	}
	if isNew {
		s.Logger.InfoContext(ctx, "the audit trail is sealed", "checkpoint", newest.Note)
	}
	if s.Checkpoints == "" || newest.Note == published {
		return nil
	}

	if published != "" {
		if err := s.compare(ctx, published, newest.Size); err != nil {
			return err
		}
	}
	if problem == nil && newest.Note != "" {
		problem = appendTo(s.Checkpoints, newest.Note)
	}
	if problem != nil {
		s.Logger.WarnContext(ctx, "the audit trail's checkpoint could not be written to the file of AUDIT_CHECKPOINTS_FILE, it is tried "+
			"again in a minute: see that the file can be read and written, and that its disk has room", "error", problem)
	}
	return nil
}

// compare says it loudly when the log in the database does not continue the one that the file knows.
func (s *Sealer) compare(ctx context.Context, published string, size int64) error {
	open, err := checkpointOpener(s.Keys, s.PracticeCode)
	if err != nil {
		return err
	}
	known, err := open(published)
	if err != nil {
		s.Logger.ErrorContext(ctx, "the last checkpoint in the file of AUDIT_CHECKPOINTS_FILE is not one that we signed", "error", err)
		return nil
	}

	if known.N <= size {
		root, err := tlog.TreeHash(known.N, &hashes{ctx: ctx, q: s.Store.Queries})
		if err == nil && root == known.Hash {
			return nil
		}
		if err != nil && !errors.Is(err, errChanged) {
			return err
		}
	}
	s.Logger.ErrorContext(ctx, "the log of the audit trail in the database does not continue the one that AUDIT_CHECKPOINTS_FILE knows: the "+
		"database was restored from a backup, or the trail was changed. Run `vantrexia audit verify`, and keep the file",
		"seals", size, "seals_in_file", known.N)
	return nil
}

// tail is how much of the end of the file is read: some checkpoints.
const tail = 4 << 10

// lastPublished returns the last checkpoint in the file; empty when there is none.
func (s *Sealer) lastPublished() (string, error) {
	if s.Checkpoints == "" {
		return "", nil
	}
	file, err := os.OpenFile(s.Checkpoints, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return "", fmt.Errorf("read the end of it: %w", err)
	}
	content, err := io.ReadAll(io.NewSectionReader(file, max(0, size-tail), tail))
	if err != nil {
		return "", err
	}
	list := ReadCheckpoints(string(content))
	if len(list) == 0 {
		return "", nil
	}
	return list[len(list)-1], nil
}

// appendTo adds a checkpoint to a file, in one piece. The empty line before it ends one that was cut off.
func appendTo(path, signed string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString("\n" + signed)
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err
}

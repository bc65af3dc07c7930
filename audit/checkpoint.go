package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/vantrexia/vantrexia/keyring"
)

// Checkpoint says what the log held at a moment: how many leaves, and their root hash.
type Checkpoint struct {
	// Origin is the practice's log: "vantrexia/audit/<practice code>".
	Origin string
	tlog.Tree
}

// originOf is the name of a practice's log, and of its keys.
func originOf(practice string) string { return "vantrexia/audit/" + practice }

// text is the signed text, as https://c2sp.org/tlog-checkpoint has it.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.N, base64.StdEncoding.EncodeToString(c.Hash[:]))
}

func parseCheckpoint(text string) (c Checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return c, errors.New("a checkpoint has three lines")
	}
	c.Origin = lines[0]
	if c.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.N < 1 {
		return c, errors.New("the second line of a checkpoint is the number of leaves")
	}
	c.Hash, err = tlog.ParseHash(lines[2])
	return c, err
}

// sign signs a checkpoint with the keyring's audit key that is in use, and returns which that was.
func (c Checkpoint) sign(keys *keyring.Keyring) (signed, keyID string, err error) {
	seed, keyID := keys.AuditCode([]byte(checkpointKey))
	signer, err := note.NewSigner(signingKey(seed, c.Origin))
	if err != nil {
		return "", "", err
	}
	content, err := note.Sign(&note.Note{Text: c.text()}, signer)
	return string(content), keyID, err
}

// Keys of checkpoints are Ed25519 keys that follow from the audit keys of the keyring, so that there is no second
// secret to keep.
const checkpointKey = "audit checkpoint key"

// algEd25519 is the first byte of an Ed25519 key in a note (golang.org/x/mod/sumdb/note).
const algEd25519 = 1

func signingKey(seed []byte, origin string) string {
	verifier := verifierKey(seed, origin)
	hash := strings.Split(strings.TrimPrefix(verifier, origin+"+"), "+")[0]
	return "PRIVATE+KEY+" + origin + "+" + hash + "+" + base64.StdEncoding.EncodeToString(append([]byte{algEd25519}, seed...))
}

func verifierKey(seed []byte, origin string) string {
	public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	key, err := note.NewEd25519VerifierKey(origin, public)
	if err != nil {
		panic("a key of 32 bytes has its length: " + err.Error())
	}
	return key
}

// VerifierKeys returns the public keys of a practice's checkpoints, the newest last, in the form of
// golang.org/x/mod/sumdb/note. Whoever has them can check checkpoints without our keys.
func VerifierKeys(keys *keyring.Keyring, practice string) ([]string, error) {
	var list []string
	for _, key := range keys.Keys() {
		if key.Keyset != keyring.Audit {
			continue
		}
		seed, err := keys.AuditCodeWith(key.ID, []byte(checkpointKey))
		if err != nil {
			return nil, err
		}
		list = append(list, verifierKey(seed, originOf(practice)))
	}
	return list, nil
}

// checkpointOpener returns a function that opens the practice's checkpoints, and refuses what none of our keys has signed.
func checkpointOpener(keys *keyring.Keyring, practice string) (func(signed string) (Checkpoint, error), error) {
	list, err := VerifierKeys(keys, practice)
	if err != nil {
		return nil, err
	}
	var verifiers []note.Verifier
	for _, key := range list {
		verifier, err := note.NewVerifier(key)
		if err != nil {
			return nil, err
		}
		verifiers = append(verifiers, verifier)
	}

	return func(signed string) (Checkpoint, error) {
		opened, err := note.Open([]byte(signed), note.VerifierList(verifiers...))
		if err != nil {
			return Checkpoint{}, err
		}
		c, err := parseCheckpoint(opened.Text)
		if err == nil && c.Origin != originOf(practice) {
			err = errors.New("it is of another practice")
		}
		return c, err
	}, nil
}

// ReadCheckpoints finds the signed checkpoints in a file to which sealers have appended them, and in a process's log, whose
// line has all of a checkpoint in quotation marks. What was cut off is left out.
func ReadCheckpoints(content string) []string {
	const above = 4 // origin, size, root and an empty line stand above the signature
	var list []string
	lines := strings.SplitAfter(strings.ReplaceAll(content, `\n`, "\n"), "\n")
	for i, line := range lines {
		if i >= above && lines[i-1] == "\n" && isSignature(line) {
			origin := lines[i-above]
			origin = origin[max(0, strings.LastIndex(origin, originOf(""))):] // what a log writes before it
			list = append(list, origin+strings.Join(lines[i-above+1:i+1], ""))
		}
	}
	return list
}

// isSignature reports whether a line is a whole signature of a note: a name, and in base64 a key's hash and an Ed25519
// signature.
func isSignature(line string) bool {
	const length = 4 + ed25519.SignatureSize
	fields := strings.Split(line, " ")
	if len(fields) != 3 || fields[0] != "—" || !strings.HasSuffix(line, "\n") {
		return false
	}
	signature, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(fields[2], "\n"))
	return err == nil && len(signature) == length
}

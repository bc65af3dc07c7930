package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// lineHandler writes log lines in the form of the integration's tutorial, followed by the attributes:
//
//	[2026-02-06 12:30:01] INFO ecw_sync: eCW response: 201 Created, FHIR Observation ID: obs-fhir-98765 practice=FFHEDD
//
// The time is UTC. The name before the message is the attribute "component".
type lineHandler struct {
	shared    *lineWriter
	rest      slog.Handler // writes the attributes
	component string
	grouped   bool
}

// lineWriter is shared by a handler and all handlers made from it.
type lineWriter struct {
	mu  sync.Mutex
	out io.Writer
	end bytes.Buffer // of the line: its attributes
}

func newLineHandler(out io.Writer, level slog.Leveler) *lineHandler {
	shared := &lineWriter{out: out}
	rest := slog.NewTextHandler(&shared.end, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutHead})
	return &lineHandler{shared: shared, rest: rest, component: "vantrexia"}
}

// withoutHead drops the attributes that Handle writes at the beginning of the line.
func withoutHead(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
		return slog.Attr{}
	}
	return a
}

// Enabled is part of slog.Handler.
func (h *lineHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.rest.Enabled(ctx, level)
}

// Handle is part of slog.Handler.
func (h *lineHandler) Handle(ctx context.Context, r slog.Record) error {
	h.shared.mu.Lock()
	defer h.shared.mu.Unlock()
	h.shared.end.Reset()
	if err := h.rest.Handle(ctx, r); err != nil {
		return err
	}
	line := "[" + r.Time.UTC().Format(time.DateTime) + "] " + r.Level.String() + " " + h.component + ": " + oneLine(r.Message)
	line = strings.TrimRight(line+" "+h.shared.end.String(), "\n ") + "\n"
	_, err := io.WriteString(h.shared.out, line)
	return err
}

// oneLine quotes a message that would take more than one line, or move the cursor of a terminal.
func oneLine(message string) string {
	if strings.ContainsFunc(message, unicode.IsControl) {
		return strconv.Quote(message)
	}
	return message
}

// WithAttrs is part of slog.Handler.
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	made := *h
	var others []slog.Attr
	for _, a := range attrs {
		if a.Key == "component" && !h.grouped {
			made.component = a.Value.String()
			continue
		}
		others = append(others, a)
	}
	made.rest = h.rest.WithAttrs(others)
	return &made
}

// WithGroup is part of slog.Handler.
func (h *lineHandler) WithGroup(name string) slog.Handler {
	made := *h
	made.rest, made.grouped = h.rest.WithGroup(name), h.grouped || name != ""
	return &made
}

// libraryLog takes what libraries write with package log. net/http quotes there what a server has sent beyond its
// answer, and eCW's answers name patients: the text is shown to the first quotation mark only.
type libraryLog struct{ out io.Writer }

func (l libraryLog) Write(text []byte) (int, error) {
	shown, _, _ := strings.Cut(string(text), `"`)
	if _, err := io.WriteString(l.out, "vantrexia: a library reports: "+strings.TrimSpace(shown)+"\n"); err != nil {
		return 0, err
	}
	return len(text), nil
}

package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/api"
)

// codecAddress is where the Temporal Web UI finds `vantrexia codec` by default.
const codecAddress = "127.0.0.1:8234"

// mostPayloads is the largest request that is passed on; the API takes no larger one.
const mostPayloads = 1 << 20

func codecCommand() *cobra.Command {
	var url, email, listenOn, ui string
	cmd := &cobra.Command{
		Use:   "codec",
		Short: "Show encrypted workflows in the Temporal Web UI",
		Long: `Runs on an administrator's own machine while he or she looks at workflows. The Temporal Web UI asks it to decode what
Temporal stores encrypted, and it asks the API with the administrator's token, which no browser ever has. It signs in with
e-mail, password and code, or uses VANTREXIA_TOKEN.

It listens on this machine only, and answers the Web UI at --ui and no other page. While it runs, everybody who can use this
machine can use it: do not run it on a shared one.`,
		Example: `  vantrexia codec --url https://your-domain.com --email you@example.com --ui http://127.0.0.1:8233`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			forwarder, err := newForwarder(cfg, cmp.Or(ui, cfg.TemporalUIURL, "http://"+cfg.TemporalUIAddress))
			if err != nil {
				return err
			}
			if forwarder.token, err = codecToken(cmd, cfg, url, email); err != nil {
				return err
			}
			defer forwarder.token.end()
			return runCodec(cmd, cfg, forwarder, listenOn)
		},
	}

	flags := cmd.Flags()
	flags.StringVar(&url, "url", "", "the API's address; this machine's if it is left out")
	flags.StringVar(&email, "email", "", "sign in with this e-mail")
	flags.StringVar(&listenOn, "listen", codecAddress, "the address of this machine to listen on")
	flags.StringVar(&ui, "ui", "", "the address of the Temporal Web UI; TEMPORAL_UI_URL if it is left out")
	return cmd
}

// runCodec passes requests on until the command is stopped.
func runCodec(cmd *cobra.Command, cfg config, f *forwarder, address string) error {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("--listen %q is not a port of this machine: use for example %s", address, codecAddress)
	}
	listener, err := listen(address, "--listen")
	if err != nil {
		return err
	}
	f.host = listener.Addr().String()
	fmt.Fprintf(cmd.ErrOrStderr(), "Enter http://%s as the codec endpoint in the Web UI at %s. Ctrl-C ends it.\n", f.host, f.origin)
	return serveHTTP(cmd.Context(), listener, f, cfg.DrainTimeout)
}

// forwarder passes what the Temporal Web UI wants decoded on to the API.
type forwarder struct {
	host   string // what the browser must have asked for: another name that leads here is DNS rebinding
	origin string // of the Web UI, the only page that is answered
	log    *slog.Logger
	token  tokenSource
}

func newForwarder(cfg config, ui string) (*forwarder, error) {
	origin := api.OriginOf(ui)
	if origin == "" {
		return nil, fmt.Errorf("--ui %q is not the address of the Temporal Web UI: use for example http://127.0.0.1:8233", ui)
	}
	return &forwarder{origin: origin, log: cfg.logger(slog.LevelWarn)}, nil
}

// ServeHTTP answers the protocol of Temporal's remote codecs, decoding only.
func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Add("Vary", "Origin")
	switch {
	case r.Host != f.host:
		http.Error(w, "this is not the name of the codec: use http://"+f.host, http.StatusMisdirectedRequest)
		return
	case r.Header.Get("Origin") != f.origin:
		http.Error(w, "only the Temporal Web UI at "+f.origin+" is answered: name another one with --ui", http.StatusForbidden)
		return
	case r.URL.Path != "/decode":
		http.NotFound(w, r)
		return
	}

	header.Set("Access-Control-Allow-Origin", f.origin)
	header.Set("Access-Control-Allow-Credentials", "true") // the Web UI may be set to send cookies, which are not looked at
	switch r.Method {
	case http.MethodOptions:
		header.Set("Access-Control-Allow-Methods", http.MethodPost)
		header.Set("Access-Control-Allow-Headers", "Content-Type, X-Namespace, Authorization")
		if r.Header.Get("Access-Control-Request-Private-Network") != "" { // of a Web UI that is on the network
			header.Set("Access-Control-Allow-Private-Network", "true")
		}
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPost:
		f.forward(w, r)
	default:
		header.Set("Allow", http.MethodPost)
		http.Error(w, "use POST", http.StatusMethodNotAllowed)
	}
}

func (f *forwarder) forward(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostPayloads))
	if err != nil {
		http.Error(w, "the payloads are too many at once", http.StatusRequestEntityTooLarge)
		return
	}

	answer, err := f.ask(r.Context(), body, r.Header.Get("X-Namespace"))
	if err != nil {
		f.log.Warn("nothing was decoded", "error", err)
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = answer.Body.Close() }()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}

// ask has the API decode payloads, once more with another token when the first is refused.
func (f *forwarder) ask(ctx context.Context, body []byte, namespace string) (*http.Response, error) {
	answer, err := f.askOnce(ctx, body, namespace, false)
	if err == nil && answer.StatusCode == http.StatusUnauthorized {
		_ = answer.Body.Close()
		answer, err = f.askOnce(ctx, body, namespace, true)
	}
	return answer, err
}

func (f *forwarder) askOnce(ctx context.Context, body []byte, namespace string, again bool) (*http.Response, error) {
	to, err := f.token.access(ctx, again)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.base+"/temporal/decode", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+to.token)
	req.Header.Set("Content-Type", "application/json")
	if namespace != "" {
		req.Header.Set("X-Namespace", namespace)
	}

	answer, err := to.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the API does not answer, check that it runs and that --url is right: %w", err)
	}
	return answer, nil
}

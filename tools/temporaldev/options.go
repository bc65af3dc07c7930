package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/dynamicconfig"
)

// options is the command line, checked.
type options struct {
	ip               string
	port             int // 0 picks a free one
	uiIP             string
	uiPort           int // 0 picks a free one
	headless         bool
	codec            string // where the Web UI has payloads decoded; empty is nowhere
	namespaces       []string
	retention        time.Duration
	searchAttributes map[string]enumspb.IndexedValueType
	dbFile           string // empty keeps everything in memory
	dynamicConfig    dynamicconfig.StaticClient
	logLevel         string
	logFormat        string
	exitWithStdin    bool
}

const usage = `Runs a Temporal server with its Web UI in one process.

Usage: temporaldev server start-dev [flags]

Prints one line on standard output when it accepts work, and ends on SIGINT or SIGTERM.

Flags:
`

// uiPortOffset is added to the server's port when the Web UI has no port of its own: 7233 and 8233, as in the
// Temporal CLI.
const uiPortOffset = 1000

func parse(args []string, output io.Writer) (options, error) {
	opts := options{
		searchAttributes: map[string]enumspb.IndexedValueType{},
		dynamicConfig:    developmentConfig(),
	}

	flags := flag.NewFlagSet("temporaldev", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the error, once and in one line
	flags.StringVar(&opts.ip, "ip", "127.0.0.1", "`address` the server listens on")
	flags.IntVar(&opts.port, "port", 7233, "`port` the server listens on; 0 picks a free one")
	flags.StringVar(&opts.uiIP, "ui-ip", "", "`address` the Web UI listens on (default: that of --ip)")
	flags.IntVar(&opts.uiPort, "ui-port", -1, "`port` of the Web UI; 0 picks a free one, -1 takes --port + 1000")
	flags.BoolVar(&opts.headless, "headless", false, "leave the Web UI out")
	flags.StringVar(&opts.codec, "codec-endpoint", "", "`URL` at which the Web UI has payloads decoded")
	flags.Func("namespace", "`name` of a namespace to create, again for more; the first is the Web UI's (default: default)",
		func(name string) error {
			if name == "" {
				return errors.New("a namespace needs a name")
			}
			if !slices.Contains(opts.namespaces, name) {
				opts.namespaces = append(opts.namespaces, name)
			}
			return nil
		})

	flags.DurationVar(&opts.retention, "retention", 7*24*time.Hour, "how long a new namespace keeps closed workflows")
	flags.Func("search-attribute", "`Name=Type` every namespace has, again for more; types as in the Temporal documentation",
		opts.addSearchAttribute)

	flags.StringVar(&opts.dbFile, "db-filename", "", "SQLite `file` that keeps the state (default: in memory, gone at the end)")
	flags.Func("dynamic-config-value", "`key=JSON` of the server's dynamic configuration, again for more", opts.addDynamicConfig)
	flags.StringVar(&opts.logLevel, "log-level", "warn", "debug, info, warn, error or never")
	flags.StringVar(&opts.logFormat, "log-format", "text", "text or json")
	flags.BoolVar(&opts.exitWithStdin, "exit-with-stdin", false,
		"also end when standard input ends; if that is a pipe from the parent, the server does not outlive the parent")

	if len(args) >= 2 && args[0] == "server" && args[1] == "start-dev" {
		args = args[2:]
	}

	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(output, usage)
			flags.SetOutput(output)
			flags.PrintDefaults()
			return options{}, err
		}
		return options{}, fmt.Errorf("%w; see --help", err)
	}

	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unknown argument %q; see --help", flags.Arg(0))
	}
	return opts, opts.complete()
}

// complete fills in values that follow from other flags, and refuses values that cannot work.
func (o *options) complete() error {
	if len(o.namespaces) == 0 {
		o.namespaces = []string{"default"}
	}
	if o.uiIP == "" {
		o.uiIP = o.ip
	}
	if o.uiPort == -1 {
		o.uiPort = o.port
		if o.port != 0 {
			o.uiPort += uiPortOffset
		}
	}

	for _, address := range []*string{&o.ip, &o.uiIP} {
		if *address == "localhost" {
			*address = "127.0.0.1"
		}
		if net.ParseIP(*address) == nil {
			return fmt.Errorf("%q is not an IP address; use 127.0.0.1, or 0.0.0.0 to be reached from other machines", *address)
		}
	}

	for _, port := range []int{o.port, o.uiPort} {
		if port < 0 || port > 65535 {
			return fmt.Errorf("port %d is outside 0 to 65535", port)
		}
	}

	if o.retention < 24*time.Hour {
		return fmt.Errorf("--retention %s is below the server's minimum of 24h", o.retention)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error", "never"}, o.logLevel) {
		return fmt.Errorf("--log-level %q is none of debug, info, warn, error, never", o.logLevel)
	}
	// "pretty" is what older SDKs call "text".
	if !slices.Contains([]string{"text", "pretty", "json"}, o.logFormat) {
		return fmt.Errorf("--log-format %q is none of text, json", o.logFormat)
	}
	return nil
}

func (o *options) addSearchAttribute(pair string) error {
	name, kind, found := strings.Cut(pair, "=")
	if !found || name == "" {
		return errors.New("use Name=Type")
	}
	value, err := enumspb.IndexedValueTypeFromString(kind)
	if err != nil || value == enumspb.INDEXED_VALUE_TYPE_UNSPECIFIED {
		return fmt.Errorf("%q is none of Bool, Datetime, Double, Int, Keyword, KeywordList, Text", kind)
	}
	o.searchAttributes[name] = value
	return nil
}

func (o *options) addDynamicConfig(pair string) error {
	key, text, found := strings.Cut(pair, "=")
	if !found || key == "" {
		return errors.New("use key=JSON")
	}

	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return fmt.Errorf("the value of %s is not JSON (a string needs its quotes): %w", key, err)
	}

	if number, ok := value.(float64); ok && number == math.Trunc(number) {
		value = int(number) // the server accepts only an int for a whole number, and would silently use its default
	}

	o.dynamicConfig[dynamicconfig.MakeKey(key)] = value
	return nil
}

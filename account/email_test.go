package account_test

import (
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/account"
)

func TestEmailsHaveOneForm(t *testing.T) {
	t.Parallel()
	for _, spelling := range []string{
		"jane.doe+rpm@example.com", " Jane.Doe+RPM@Example.COM\t", "ｊａｎｅ.ｄｏｅ+rpm@ｅｘａｍｐｌｅ.com", "jane.doe+rpm@example.com\u00a0", "jane.doe﹢rpm﹫example.com",
	} {
		if got, err := account.NormaliseEmail(spelling); err != nil || got != "jane.doe+rpm@example.com" {
			t.Errorf("%q: %q, %v", spelling, got, err)
		}
	}

	for name, text := range map[string]string{
		"empty":                "",
		"no @":                 "jane.example.com",
		"two @":                "jane@doe@example.com",
		"no domain":            "jane@",
		"no local part":        "@example.com",
		"no dot":               "jane@localhost",
		"a dot at the end":     "jane@example.com.",
		"two dots":             "jane@example..com",
		"a space":              "jane doe@example.com",
		"a line break":         "jane@example.com\nbcc:x@example.com",
		"a NUL":                "jane\x00@example.com",
		"a zero-width space":   "jane\u200b@example.com",
		"a soft hyphen":        "ja\u00adne@example.com",
		"right to left":        "jane\u202e@example.com",
		"an isolate":           "\u2066jane@example.com\u2069",
		"a byte order mark":    "\ufeffjane@example.com",
		"a Cyrillic a":         "j\u0430ne@example.com",
		"a Greek omicron":      "jane@example.c\u03bfm",
		"a dotless i":          "adm\u0131n@example.com",
		"a dotted capital I":   "adm\u0130n@example.com", // in lower case it is an i
		"a combining mark":     "jane\u0301@example.com",
		"a tag":                "jane\U000e0061@example.com",
		"a variation selector": "jane\ufe0f@example.com",
		"not UTF-8":            "jane\xff@example.com",
		"a quoted local part":  `"jane doe"@example.com`,
		"a name":               "Jane <jane@example.com>",
		"too long a name":      strings.Repeat("a", 65) + "@example.com",
		"too long":             "jane@" + strings.Repeat("a.", 125) + "com",
	} {
		if got, err := account.NormaliseEmail(text); err == nil {
			t.Errorf("%s: %q was taken as %q", name, text, got)
		}
	}
}

package sandbox

import (
	"bytes"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"strings"
)

// withText puts text into every place of an answer that is meant for people, as an EHR does that names the
// patient in its errors. What a client has to understand stays as it is: codes, ids, values.
func withText(rep reply, text string) reply {
	if text == "" || rep.reset {
		return rep
	}

	if rep.header == nil {
		rep.header = http.Header{}
	}
	rep.header.Set("Warning", `199 - "`+text+`"`)
	rep.header.Set("X-Request-Id", text)
	if rep.status == http.StatusUnauthorized {
		rep.header.Set("WWW-Authenticate", `Bearer error="invalid_token", error_description="`+text+`"`)
	}
	if at := rep.header.Get("Location"); at != "" {
		rep.header.Set("Location", at+"?patient="+url.QueryEscape(text))
	}

	if rep.contentType == typeHTML {
		rep.body = bytes.Replace(rep.body, []byte("<p>"), []byte("<p>"+html.EscapeString(text)+" "), 1)
		return rep
	}
	var body any
	decoder := json.NewDecoder(bytes.NewReader(rep.body))
	decoder.UseNumber() // a decimal keeps its digits
	if decoder.Decode(&body) != nil {
		return rep
	}
	if changed, err := encode(spoken(body, text)); err == nil {
		rep.body = changed
	}
	return rep
}

// spoken changes a decoded JSON value in place.
func spoken(value any, text string) any {
	switch v := value.(type) {
	case []any:
		for i := range v {
			v[i] = spoken(v[i], text)
		}
	case map[string]any:
		for name, member := range v {
			v[name] = spoken(member, text)
			if _, is := member.(string); is && isForPeople(name) {
				v[name] = text
			}
		}
		speak(v, text)
	}
	return value
}

func isForPeople(name string) bool {
	switch name {
	case "text", "display", "diagnostics", "description", "error_description":
		return true
	}
	return false
}

// speak adds the texts that FHIR and OAuth have room for.
func speak(object map[string]any, text string) {
	if issues, is := object["issue"].([]any); is {
		for _, one := range issues {
			if i, is := one.(map[string]any); is {
				speakInIssue(i, text)
			}
		}
	}
	if _, is := object["coding"].([]any); is {
		object["text"] = text
	}
	if _, is := object["resourceType"].(string); is {
		div := `<div xmlns="http://www.w3.org/1999/xhtml">` + html.EscapeString(text) + "</div>"
		object["text"] = map[string]any{"status": "generated", "div": div}
	}
	if _, is := object["error"].(string); is {
		object["error_description"], object["error_uri"] = text, "https://ehr.example/?who="+url.QueryEscape(text)
	}
}

// speakInIssue fills an issue. The coding that it adds has a code that nobody knows.
func speakInIssue(issue map[string]any, text string) {
	details, is := issue["details"].(map[string]any)
	if !is {
		details = map[string]any{}
	}
	codes, _ := details["coding"].([]any)
	details["coding"] = append(codes, map[string]any{"system": text, "code": text, "display": text})
	details["text"] = text

	issue["details"], issue["diagnostics"] = details, text
	issue["expression"], issue["location"] = []any{text}, []any{text}
}

// tokenText is what of a text may stand in a bearer token (RFC 6750 §2.1).
func tokenText(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return -1
	}, text)
}

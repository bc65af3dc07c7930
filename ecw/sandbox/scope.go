package sandbox

import "strings"

// grant is one scope of an access token: a type of resource, and what may be done with it in the letters of
// SMART 2 (create, read, update, delete, search).
type grant struct {
	resource string // a FHIR type or "*"
	allowed  string // some of "cruds"
}

// parseScope reads a system scope of SMART 1 (system/Observation.write) or 2 (system/Observation.cu).
func parseScope(scope string) (grant, bool) {
	rest, ok := strings.CutPrefix(scope, "system/")
	if !ok {
		return grant{}, false
	}

	resource, verbs, ok := strings.Cut(rest, ".")
	if !ok || resource == "" {
		return grant{}, false
	}

	switch verbs {
	case "read":
		verbs = "rs"
	case "write":
		verbs = "cud"
	case "*":
		verbs = "cruds"
	default:
		if !inOrder(verbs, "cruds") {
			return grant{}, false
		}
	}

	return grant{resource: resource, allowed: verbs}, true
}

// inOrder reports whether s consists of letters of order, each at most once and in that order, as SMART 2
// demands.
func inOrder(s, order string) bool {
	for _, letter := range s {
		i := strings.IndexRune(order, letter)
		if i < 0 {
			return false
		}
		order = order[i+1:]
	}
	return s != ""
}

// permits reports whether the scopes allow an interaction (a letter of "cruds") with a type of resource.
func permits(scopes []string, resource string, interaction rune) bool {
	for _, scope := range scopes {
		g, ok := parseScope(scope)
		if ok && (g.resource == resource || g.resource == "*") && strings.ContainsRune(g.allowed, interaction) {
			return true
		}
	}
	return false
}

package ecw

import "strings"

const createScope = "system/Observation.c"

// MayCreate reports whether the scope of the access token allows to create Observations. It is true while the
// client holds no token.
func (c *Client) MayCreate() bool {
	t, held := c.tokens.held()
	return !held || len(missingScopes(createScope, t.scope)) == 0
}

// missingScopes returns the scopes of asked that granted does not cover. Both are separated by spaces.
//
// A server may grant a scope in another spelling than that of the request: SMART v1 has read, write and *,
// SMART v2 the letters c, r, u, d and s (SMART App Launch 2.2, "Scopes for requesting FHIR Resources"). A
// wanted write is covered by c, because we never update or delete.
func missingScopes(asked, granted string) []string {
	grants := strings.Fields(granted)
	var missing []string
	for _, want := range strings.Fields(asked) {
		if !covered(want, grants) {
			missing = append(missing, want)
		}
	}
	return missing
}

func covered(want string, grants []string) bool {
	wantTarget, need, ok := splitScope(want)
	if strings.HasSuffix(want, ".write") {
		need = "c"
	}

	var have strings.Builder
	for _, g := range grants {
		if g == want {
			return true
		}
		target, letters, isResource := splitScope(g)
		// A grant with a query covers only a part of the resource type.
		if isResource && !strings.Contains(g, "?") && targetCovers(target, wantTarget) {
			have.WriteString(letters)
		}
	}

	if !ok {
		return false
	}

	for _, letter := range need {
		if !strings.ContainsRune(have.String(), letter) {
			return false
		}
	}

	return true
}

// splitScope splits "system/Observation.rs?x=y" into "system/Observation" and its permissions as letters of
// "cruds". It returns false if the scope is not one on a resource type.
func splitScope(scope string) (target, letters string, ok bool) {
	scope, _, _ = strings.Cut(scope, "?")
	dot := strings.LastIndexByte(scope, '.')
	if dot < 0 || !strings.Contains(scope[:dot], "/") {
		return "", "", false
	}

	target, letters = scope[:dot], scope[dot+1:]
	switch letters {
	case "*":
		letters = "cruds"
	case "read":
		letters = "rs"
	case "write":
		letters = "cud"
	}

	if letters == "" || strings.Trim(letters, "cruds") != "" {
		return "", "", false
	}

	return target, letters, true
}

// targetCovers reports whether a grant on one target covers another: system/* covers every resource type.
func targetCovers(granted, wanted string) bool {
	level, isWildcard := strings.CutSuffix(granted, "/*")
	return granted == wanted || isWildcard && strings.HasPrefix(wanted, level+"/")
}

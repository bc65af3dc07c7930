package account

import (
	"cmp"

	"github.com/vantrexia/vantrexia/audit"
)

// Caller is who makes a request. The API finds it out once, and all that needs to know takes it from there.
type Caller struct {
	// Subject is the id of the person, of the API key ("key:" and its id), or the subject of a token signed
	// with the shared secret. It names no person by itself, so it may stand in logs and in workflows.
	Subject string
	Role    Role
	// TokenID is the id of the credential: the jti of a token, or the id of an API key.
	TokenID string
	// Devices are those whose readings an API key may post, see [Caller.MayPost]. Empty: all.
	Devices []string
	// Session is the id of the session of a person who has signed in; empty for all others.
	Session string
	// MustChangePassword means that the person may do nothing until the password is another one.
	MustChangePassword bool
	// Address is the client's IP address.
	Address string
}

// Has reports whether the caller has a right.
func (c Caller) Has(right Right) bool { return c.Role.Has(right) }

// Credential names what the caller is known by, in the audit trail: the session of a person, which outlives its tokens,
// or the id of a machine's token or key.
func (c Caller) Credential() string { return cmp.Or(c.Session, c.TokenID) }

// By says who does something to an account or a key.
type By struct {
	// Actor is the subject of a caller, or Local with the user of the operating system behind it.
	Actor string
	// Role and TokenID are a caller's, and empty for others. TokenID is [Caller.Credential].
	Role    Role
	TokenID string
	Address string
	// Reason is what the command line was given.
	Reason string
}

// Local is the actor of what is done with the database alone.
const Local = "local"

// ByCaller is a caller of the API.
func ByCaller(c Caller) By {
	return By{
		Actor:   c.Subject,
		Role:    c.Role,
		TokenID: c.Credential(),
		Address: c.Address,
	}
}

// event is the row of the audit trail about something that was done to a resource.
func (b By) event(practice string, action audit.Action, resource, id string) audit.Event {
	return audit.Event{
		PracticeCode: practice,
		Subject:      b.Actor,
		Role:         string(b.Role),
		TokenID:      b.TokenID,
		Address:      b.Address,
		Action:       action,
		ResourceType: resource,
		ResourceIDs:  []string{id},
	}
}

// What the ids of audited actions are of.
const (
	userResource    = "User"
	sessionResource = "Session"
	apiKeyResource  = "APIKey"
	tokenResource   = "Token"
)

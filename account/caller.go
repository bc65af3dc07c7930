package account

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

// By says who does something to an account or a key.
type By struct {
	// Actor is the subject of a caller, or Local with the user of the operating system behind it.
	Actor   string
	Address string
	// Reason is what the command line was given.
	Reason string
}

// Local is the actor of what is done with the database alone.
const Local = "local"

// ByCaller is a caller of the API.
func ByCaller(c Caller) By { return By{Actor: c.Subject, Address: c.Address} }

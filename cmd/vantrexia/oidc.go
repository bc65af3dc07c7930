package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/vantrexia/vantrexia/account"
)

// oidcConfig says how people sign in with the practice's identity provider. Without an issuer they do not.
type oidcConfig struct {
	Issuer           string   `env:"ISSUER"`
	ClientID         string   `env:"CLIENT_ID"`
	ClientSecret     string   `env:"CLIENT_SECRET"`
	ClientSecretFile string   `env:"CLIENT_SECRET_FILE"`
	Scopes           string   `env:"SCOPES" envDefault:"openid profile email"`
	GroupsClaim      string   `env:"GROUPS_CLAIM" envDefault:"groups"`
	Roles            []string `env:"ROLES"`
	RequireAMR       []string `env:"REQUIRE_AMR"`
	RequireACR       []string `env:"REQUIRE_ACR"`
}

func (c oidcConfig) check(publicURL string) (errs []error) {
	if c.Issuer == "" {
		if c.ClientID != "" || c.ClientSecret != "" || len(c.Roles) > 0 {
			errs = append(errs, errors.New("OIDC_ISSUER is not set, but other OIDC_ settings are: set it to the URL of your identity provider"))
		}
		return errs
	}

	if !isSafeURL(c.Issuer) {
		errs = append(errs, errors.New("OIDC_ISSUER must be an https URL without user, query and fragment, exactly as issuer stands in the "+
			"provider's /.well-known/openid-configuration"))
	}
	if publicURL == "" || !isSafeURL(publicURL) {
		errs = append(errs, errors.New("API_PUBLIC_URL must be an https URL when OIDC_ISSUER is set: the identity provider "+
			"sends browsers back there"))
	}
	for _, needed := range []struct{ setting, value, remedy string }{
		{"OIDC_CLIENT_ID", c.ClientID, "the provider gave it when you registered Vantrexia"},
		{"OIDC_CLIENT_SECRET", cmp.Or(c.ClientSecret, c.ClientSecretFile), "the provider gave it when you registered Vantrexia; or set OIDC_CLIENT_SECRET_FILE"},
		{"OIDC_GROUPS_CLAIM", c.GroupsClaim, "for example groups"},
	} {
		if needed.value == "" {
			errs = append(errs, fmt.Errorf("%s is not set: %s", needed.setting, needed.remedy))
		}
	}
	if !slices.Contains(strings.Fields(c.Scopes), "openid") {
		errs = append(errs, errors.New(`OIDC_SCOPES has no openid: use for example "openid profile email"`))
	}
	if _, err := c.groupRoles(); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// isSafeURL reports whether secrets may be sent to the URL: with TLS, or on this machine.
func isSafeURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || !isPublicURL(text) {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// groupRoles reads OIDC_ROLES. A group may hold "=", as names in a directory do.
func (c oidcConfig) groupRoles() ([]account.GroupRole, error) {
	const form = "use for example vantrexia-admins=admin,nurses=nurse"
	if len(c.Roles) == 0 {
		return nil, errors.New("OIDC_ROLES is not set, so that nobody could sign in: " + form)
	}

	var roles []account.GroupRole
	for _, text := range c.Roles {
		at := strings.LastIndex(text, "=")
		if at < 0 {
			return nil, fmt.Errorf("OIDC_ROLES has %q without a role: %s", text, form)
		}
		group, role := strings.TrimSpace(text[:at]), account.Role(strings.TrimSpace(text[at+1:]))
		switch {
		case group == "":
			return nil, fmt.Errorf("OIDC_ROLES has %q without a group: %s", text, form)
		case !role.HasPerson():
			return nil, fmt.Errorf("OIDC_ROLES has %q, which is no role of people: use %s", role,
				account.JoinRoles(account.RolesWith(account.OwnAccount)))
		}
		roles = append(roles, account.GroupRole{Group: group, Role: role})
	}
	return roles, nil
}

// secret is read by the API only, which alone has the file.
func (c oidcConfig) secret() (string, error) {
	if c.Issuer == "" {
		return "", nil
	}
	return secret{"OIDC_CLIENT_SECRET", c.ClientSecret, c.ClientSecretFile}.read()
}

// forAPI is the zero value without an issuer. The client's secret may be in a file: see secret.
func (c oidcConfig) forAPI() account.OIDCConfig {
	if c.Issuer == "" {
		return account.OIDCConfig{}
	}
	roles, _ := c.groupRoles() // check has read them before
	return account.OIDCConfig{
		Issuer:       c.Issuer,
		ClientID:     c.ClientID,
		ClientSecret: c.ClientSecret,
		Scopes:       strings.Fields(c.Scopes),
		GroupsClaim:  c.GroupsClaim,
		Roles:        roles,
		RequireAMR:   trimAll(c.RequireAMR),
		RequireACR:   trimAll(c.RequireACR),
	}
}

// trimAll takes the space around the texts away, and empty ones out.
func trimAll(texts []string) (all []string) {
	for _, text := range texts {
		if text = strings.TrimSpace(text); text != "" {
			all = append(all, text)
		}
	}
	return all
}

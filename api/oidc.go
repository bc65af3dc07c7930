package api

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
)

const (
	oidcPath         = "/api/v1/auth/oidc"
	oidcCallbackPath = oidcPath + "/callback"
)

// newOIDC returns the sign-in with the practice's identity provider; nil when none is configured.
func newOIDC(people *account.People, cfg Config) *account.OIDC {
	if cfg.OIDC.Issuer == "" {
		return nil
	}
	made := cfg.OIDC
	made.RedirectURL = cfg.PublicURL + oidcCallbackPath + "/"
	return account.NewOIDC(people, made)
}

// addOIDCRoutes adds the two halves of a sign-in with the identity provider. The contract does not check the
// second: what a provider adds to its answer must be ignored (RFC 6749 §4.1.2).
func (s *server) addOIDCRoutes(e *echo.Echo) {
	take := func(path string, handle echo.HandlerFunc, check ...echo.MiddlewareFunc) {
		e.Match(methodsOf(http.MethodGet), path, handle, append([]echo.MiddlewareFunc{s.whenOIDC, s.whenMigrated}, check...)...)
	}
	take(oidcPath, s.beginOIDC, s.contract.check)
	take(oidcCallbackPath, s.finishOIDC)
}

// whenOIDC answers 404 without an identity provider, and keeps the answers out of caches: they hold tokens, and
// their URLs hold codes.
func (s *server) whenOIDC(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
		c.Response().Header().Set("Referrer-Policy", "no-referrer")
		if s.oidc == nil {
			return &Error{
				Status: http.StatusNotFound,
				Code:   "oidc_not_configured",
				Detail: "No identity provider is set up here: sign in with e-mail and password, POST /api/v1/auth/login/. " +
					"An operator sets one up with OIDC_ISSUER.",
			}
		}
		return next(c)
	}
}

func (s *server) beginOIDC(c echo.Context) error {
	begun, err := s.oidc.Begin(c.Request().Context(), c.QueryParam("return_to"))
	if err != nil {
		return oidcError(err)
	}
	c.SetCookie(s.oidcCookie(begun.Browser, int(account.OIDCSignInFor.Seconds())))
	return c.Redirect(http.StatusFound, begun.URL)
}

// oidcCookie ties a sign-in to the browser that began it. It has to come along when the provider sends the
// browser back, so it is Lax and not Strict.
func (s *server) oidcCookie(value string, seconds int) *http.Cookie {
	cookie := &http.Cookie{
		Name:     "vantrexia-sign-in",
		Value:    value,
		Path:     "/",
		MaxAge:   seconds,
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
	}
	if strings.HasPrefix(s.PublicURL, "https://") {
		cookie.Secure = true
		cookie.Name = "__Host-" + cookie.Name // no other host of the domain can set it (RFC 6265bis §4.1.3.2)
	}
	return cookie
}

func (s *server) finishOIDC(c echo.Context) error {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return oidcRefused(account.ErrOIDCState)
	}
	for _, name := range []string{"state", "code", "error", "iss"} {
		if len(query[name]) > 1 { // RFC 6749 §3.1
			return oidcRefused(account.ErrOIDCState)
		}
	}

	var browser string
	if cookie, err := c.Cookie(s.oidcCookie("", 0).Name); err == nil {
		browser = cookie.Value
	}
	in, err := s.oidc.Finish(c.Request().Context(), account.OIDCAnswer{
		State:   query.Get("state"),
		Code:    query.Get("code"),
		Error:   query.Get("error"),
		Issuer:  query.Get("iss"),
		Browser: browser,
		Address: c.RealIP(),
	})
	if err != nil {
		suspect(c, in.User.ID)
		return oidcRefused(err)
	}

	c.SetCookie(s.oidcCookie("", -1))
	return c.JSON(http.StatusOK, struct {
		tokenPair
		User     signedInUser `json:"user"`
		ReturnTo string       `json:"return_to,omitempty"`
	}{tokenPair(in.Tokens), showSignedIn(in.User), in.ReturnTo})
}

// oidcRefused is oidcError for a sign-in that has ended. All that are refused are in the audit trail, with whatever status.
func oidcRefused(err error) error {
	err = oidcError(err)
	var answer *Error
	if errors.As(err, &answer) && answer.Status < http.StatusInternalServerError {
		return asRefused(err, answer.Code)
	}
	return err
}

// oidcError gives an error of a sign-in with the identity provider its answer. Others stay as they are.
func oidcError(err error) error {
	for _, answer := range []struct {
		err    error
		status int
		code   string
		detail string
	}{
		{account.ErrOIDCState, http.StatusBadRequest, "oidc_state_invalid",
			"This sign-in is over, or began in another browser. Begin again: GET /api/v1/auth/oidc/."},
		{account.ErrOIDCDenied, http.StatusForbidden, "oidc_denied",
			"The identity provider did not let you in. Begin again, or ask its administrator for access to Vantrexia."},
		{account.ErrOIDCFailed, http.StatusUnauthorized, "oidc_failed",
			"The answer of the identity provider is not valid. Begin again: GET /api/v1/auth/oidc/. If it happens again, tell your " +
				"operator: the log says why."},
		{account.ErrOIDCUnavailable, http.StatusServiceUnavailable, "oidc_unavailable",
			"The identity provider does not answer. Try again in a moment. If it happens again, tell your operator: the log says why. " +
				"Who has a password here can use POST /api/v1/auth/login/ meanwhile."},
		{account.ErrOIDCWeak, http.StatusForbidden, "oidc_stronger_sign_in",
			"Your practice wants a stronger sign-in, such as with a second factor. Set it up at the identity provider, and begin again."},
		{account.ErrOIDCNoRole, http.StatusForbidden, "oidc_no_role",
			"None of your groups at the identity provider may use Vantrexia. Ask its administrator to add you to one that may."},
		{account.ErrOIDCClaims, http.StatusForbidden, "oidc_claims_missing",
			"The identity provider does not send your e-mail or your name. Ask its administrator to send the claims email, given_name " +
				"and family_name to Vantrexia."},
		{account.ErrOIDCAccountExists, http.StatusConflict, "user_exists",
			"Another account has your e-mail, and the identity provider does not show that it is yours. Sign in with its password, or ask " +
				"an administrator: after a reset of its password it is yours at your next sign-in if your e-mail is verified there."},
		{account.ErrDisabled, http.StatusForbidden, "account_disabled",
			"Your account is disabled. Ask an administrator to enable it."},
	} {
		if errors.Is(err, answer.err) {
			return &Error{Status: answer.status, Code: answer.code, Detail: answer.detail}
		}
	}
	return err
}

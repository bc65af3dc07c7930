package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/db"
)

// tokenPair is what a client uses a session with.
type tokenPair struct {
	Access  string `json:"access"`
	Refresh string `json:"refresh"`
}

// signedInUser is a user as the answer to a sign-in shows it.
type signedInUser struct {
	ID           uuid.UUID    `json:"id"`
	Email        string       `json:"email"`
	FirstName    string       `json:"first_name"`
	LastName     string       `json:"last_name"`
	Role         account.Role `json:"role"`
	Is2FAEnabled bool         `json:"is_2fa_enabled"`
}

func showSignedIn(u db.User) signedInUser {
	return signedInUser{
		ID:           u.ID,
		Email:        u.Email,
		FirstName:    u.FirstName,
		LastName:     u.LastName,
		Role:         account.Role(u.Role),
		Is2FAEnabled: u.TOTPEnabled,
	}
}

func (s *server) signIn(c echo.Context) error {
	var req struct {
		Email    string `json:"email"`
		Password string `json:"password"`
		TOTPCode string `json:"totp_code"`
	}
	if err := bind(c, &req); err != nil {
		return err
	}

	credentials := account.Credentials{Email: req.Email, Password: req.Password, Code: req.TOTPCode}
	in, err := s.people.SignIn(c.Request().Context(), credentials, c.RealIP())
	if err != nil {
		suspect(c, in.User.ID)
		return accountError(err)
	}
	return c.JSON(http.StatusOK, struct {
		tokenPair
		User signedInUser `json:"user"`
	}{tokenPair(in.Tokens), showSignedIn(in.User)})
}

func (s *server) refreshTokens(c echo.Context) error {
	var req struct {
		Refresh string `json:"refresh"`
	}
	if err := bind(c, &req); err != nil {
		return err
	}

	tokens, err := s.people.Refresh(c.Request().Context(), req.Refresh, c.RealIP())
	if err != nil {
		return accountError(err)
	}
	return c.JSON(http.StatusOK, tokenPair(tokens))
}

func (s *server) signOut(c echo.Context) error {
	if err := s.people.SignOut(c.Request().Context(), callerOf(c)); err != nil {
		return ownError(err)
	}
	return c.NoContent(http.StatusNoContent)
}

func (s *server) signOutEverywhere(c echo.Context) error {
	if err := s.people.SignOutEverywhere(c.Request().Context(), callerOf(c)); err != nil {
		return ownError(err)
	}
	return c.NoContent(http.StatusNoContent)
}

// checkSession completes a caller who has signed in. A machine has no session.
func (s *server) checkSession(ctx context.Context, caller account.Caller) (account.Caller, error) {
	if caller.Session == "" {
		return caller, nil
	}
	caller, err := s.people.Check(ctx, caller)
	return caller, accountError(err)
}

func passwordChangeRequired() *Error {
	return &Error{
		Status: http.StatusForbidden,
		Code:   "password_change_required",
		Detail: "Your password was made by somebody else. Choose one of your own first: POST /api/v1/auth/me/password/.",
	}
}

// accountError gives an error of package account its answer. Others stay as they are.
func accountError(err error) error {
	var locked *account.LockedError
	switch {
	case errors.As(err, &locked):
		until := locked.Until.UTC()
		return &Error{
			Status:      http.StatusLocked,
			Code:        "account_locked",
			Detail:      "Too many failures in a row. Do not try before " + until.Format(time.RFC3339) + ": each try starts the time again. Or ask an administrator to unlock the account.",
			LockedUntil: &until,
		}
	case errors.Is(err, account.ErrWrong):
		return unauthorized("authentication_failed", "The e-mail, the password or the code is wrong. Correct it, and sign in again.")
	case errors.Is(err, account.ErrTOTPRequired):
		return unauthorized("totp_required", "Two-factor sign-in is on: send totp_code as well, the 6 digits of the authenticator app.")
	case errors.Is(err, account.ErrSessionEnded):
		return unauthorized("session_ended", "The session has ended: sign in again.")
	case errors.Is(err, account.ErrRoleChanged):
		return unauthorized("invalid_token", "Your role has changed: get a new token with POST /api/v1/auth/token/refresh/.")
	case errors.Is(err, account.ErrRefresh):
		return unauthorized("invalid_token", "The refresh token is not valid any more: sign in again.")
	case errors.Is(err, account.ErrUnknownUser):
		return &Error{Status: http.StatusNotFound, Code: "not_found", Detail: "There is no such account."}
	case errors.Is(err, account.ErrEmailTaken):
		return conflict("user_exists", "Somebody has this e-mail already: change that account instead.")
	case errors.Is(err, account.ErrLastAdmin):
		return conflict("last_admin", "This is the last administrator who may sign in: make somebody else one first.")
	case errors.Is(err, account.ErrTOTPIsEnabled):
		return conflict("totp_enabled", "Two-factor sign-in is on already: turn it off first, with DELETE /api/v1/auth/me/totp/.")
	case errors.Is(err, account.ErrNoTOTP):
		return conflict("totp_not_set_up", "There is no secret to use: get one with POST /api/v1/auth/me/totp/.")
	}
	return accountFieldError(err)
}

// accountFieldError names the field of the request that package account refuses.
func accountFieldError(err error) error {
	var field *account.FieldError
	var b broken
	switch {
	case errors.As(err, &field):
		b.add(field.Field, "%s", field.Message)
	case errors.Is(err, account.ErrEmail):
		b.add("email", "%s", account.ErrEmail)
	case errors.Is(err, account.ErrName):
		b.add("first_name or last_name", "%s", account.ErrName)
	case errors.Is(err, account.ErrRole):
		b.add("role", "%s", account.ErrRole)
	case errors.Is(err, account.ErrCode):
		b.add("code", "%s", account.ErrCode)
	case isPasswordError(err):
		b.add("password", "%s", err)
	default:
		return err
	}
	return b.err()
}

func isPasswordError(err error) bool {
	return errors.Is(err, account.ErrPasswordLength) || errors.Is(err, account.ErrPasswordCommon) || errors.Is(err, account.ErrPasswordSame)
}

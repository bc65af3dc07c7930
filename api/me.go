package api

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/db"
)

// me is the caller's own account.
type me struct {
	signedInUser
	MustChangePassword bool `json:"must_change_password"`
}

func showMe(u db.User) me { return me{showSignedIn(u), u.PasswordTemporaryUntil != nil} }

func (s *server) getMe(c echo.Context) error {
	user, err := s.people.Own(c.Request().Context(), callerOf(c))
	if err != nil {
		return ownError(err)
	}
	return c.JSON(http.StatusOK, showMe(user))
}

// updateMe changes the caller's names. The e-mail and the role are an administrator's.
func (s *server) updateMe(c echo.Context) error {
	var req struct {
		FirstName *string `json:"first_name"`
		LastName  *string `json:"last_name"`
	}
	if err := bind(c, &req); err != nil {
		return err
	}

	user, err := s.people.Rename(c.Request().Context(), callerOf(c), req.FirstName, req.LastName)
	if err != nil {
		return ownError(err)
	}
	return c.JSON(http.StatusOK, showMe(user))
}

func (s *server) changePassword(c echo.Context) error {
	var req struct {
		OldPassword string `json:"old_password"`
		NewPassword string `json:"new_password"`
	}
	if err := bind(c, &req); err != nil {
		return err
	}

	err := s.people.ChangePassword(c.Request().Context(), callerOf(c), req.OldPassword, req.NewPassword)
	var b broken
	switch {
	case errors.Is(err, account.ErrWrong):
		b.add("old_password", "is not your password")
		return asRefused(b.err(), refusedPassword)
	case isPasswordError(err):
		b.add("new_password", "%s", err)
		return b.err()
	case err != nil:
		return ownError(err)
	}
	return c.NoContent(http.StatusNoContent)
}

func (s *server) offerTOTP(c echo.Context) error {
	var req struct {
		Password string `json:"password"`
	}
	if err := bind(c, &req); err != nil {
		return err
	}

	secret, url, err := s.people.OfferTOTP(c.Request().Context(), callerOf(c), req.Password)
	if err != nil {
		return ownError(err)
	}
	return c.JSON(http.StatusOK, struct {
		Secret     string `json:"secret"`
		OTPAuthURL string `json:"otpauth_url"`
	}{secret, url})
}

func (s *server) confirmTOTP(c echo.Context) error {
	var req struct {
		Code string `json:"code"`
	}
	if err := bind(c, &req); err != nil {
		return err
	}
	if err := s.people.ConfirmTOTP(c.Request().Context(), callerOf(c), req.Code); err != nil {
		return ownError(err)
	}
	return s.getMe(c)
}

func (s *server) dropTOTP(c echo.Context) error {
	var req struct {
		Password string `json:"password"`
		Code     string `json:"code"`
	}
	if err := bind(c, &req); err != nil {
		return err
	}
	if err := s.people.DropTOTP(c.Request().Context(), callerOf(c), req.Password, req.Code); err != nil {
		return ownError(err)
	}
	return c.NoContent(http.StatusNoContent)
}

// ownError is accountError for what people do with their own accounts. A wrong password is a field of theirs
// here: 401 would tell a client that its token is bad.
func ownError(err error) error {
	switch {
	case errors.Is(err, account.ErrUnknownUser):
		return &Error{Status: http.StatusNotFound, Code: "not_found", Detail: "This token is not of a person who has signed in."}
	case errors.Is(err, account.ErrWrong):
		var b broken
		b.add("password", "it, or the code, is wrong, or the code was used before")
		return asRefused(b.err(), refusedPassword)
	}
	return accountError(err)
}

// refusedPassword is why the trail has a row of somebody who is signed in and does not know the own password.
const refusedPassword = "wrong_password"

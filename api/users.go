package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// user is an account as administrators see it.
type user struct {
	me
	Disabled bool `json:"disabled"`
	// LockedUntil is null when the account is not locked.
	LockedUntil  *time.Time `json:"locked_until"`
	LastSignInAt *time.Time `json:"last_sign_in_at"`
	CreatedAt    time.Time  `json:"created_at"`
	UpdatedAt    time.Time  `json:"updated_at"`
}

func showUser(row db.ShownUser) user {
	return user{
		me:           showMe(row.User),
		Disabled:     row.User.DisabledAt != nil,
		LockedUntil:  row.LockedUntil,
		LastSignInAt: row.User.LastSignInAt,
		CreatedAt:    row.User.CreatedAt,
		UpdatedAt:    row.User.UpdatedAt,
	}
}

// newPassword is a password that was set for somebody else.
type newPassword struct {
	// TemporaryPassword is shown this once; null when the request had one.
	TemporaryPassword *string    `json:"temporary_password"`
	PasswordExpiresAt *time.Time `json:"password_expires_at"`
}

func showPassword(p account.Password) newPassword {
	return newPassword{nullable(p.Text), p.TemporaryUntil}
}

func (s *server) listUsers(c echo.Context) error {
	p := queryPage(c)
	rows, count, err := s.people.List(c.Request().Context(), c.QueryParam("email"), p.size, p.offset())
	if err != nil {
		return accountError(err)
	}
	users := make([]user, len(rows))
	for i, row := range rows {
		users[i] = showUser(row)
	}
	ids := textOfEach(rows, func(row db.ShownUser) uuid.UUID { return row.User.ID })
	if err := s.showing(c, s.eventOf(callerOf(c), audit.AccountSearch, userResource, ids)); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, newNumberedList(c, p, count, users))
}

func (s *server) createUser(c echo.Context) error {
	var req struct {
		Email     string       `json:"email"`
		FirstName string       `json:"first_name"`
		LastName  string       `json:"last_name"`
		Role      account.Role `json:"role"`
		Password  string       `json:"password"`
	}
	if err := bind(c, &req); err != nil {
		return err
	}

	row, password, err := s.people.Add(c.Request().Context(), account.ByCaller(callerOf(c)), account.NewUser{
		Email:     req.Email,
		FirstName: req.FirstName,
		LastName:  req.LastName,
		Role:      req.Role,
		Password:  req.Password,
	})
	if err != nil {
		return accountError(err)
	}

	setLocation(c, "/api/v1/users/"+row.User.ID.String()+"/")
	return c.JSON(http.StatusCreated, struct {
		user
		newPassword
	}{showUser(row), showPassword(password)})
}

func (s *server) getUser(c echo.Context) error {
	row, err := s.people.Get(c.Request().Context(), idParam(c))
	if err != nil {
		return accountError(err)
	}
	if err := s.showing(c, s.eventOf(callerOf(c), audit.AccountRead, userResource, textOf(row.User.ID))); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, showUser(row))
}

func (s *server) updateUser(c echo.Context) error {
	var req struct {
		Email     *string       `json:"email"`
		FirstName *string       `json:"first_name"`
		LastName  *string       `json:"last_name"`
		Role      *account.Role `json:"role"`
		Disabled  *bool         `json:"disabled"`
	}
	if err := bind(c, &req); err != nil {
		return err
	}

	row, err := s.people.Change(c.Request().Context(), account.ByCaller(callerOf(c)), idParam(c), account.Change(req))
	if err != nil {
		return accountError(err)
	}
	return c.JSON(http.StatusOK, showUser(row))
}

func (s *server) resetPassword(c echo.Context) error {
	password, err := s.people.ResetPassword(c.Request().Context(), account.ByCaller(callerOf(c)), idParam(c), "", false)
	if err != nil {
		return accountError(err)
	}
	return c.JSON(http.StatusOK, showPassword(password))
}

func (s *server) unlockUser(c echo.Context) error {
	row, err := s.people.Unlock(c.Request().Context(), account.ByCaller(callerOf(c)), idParam(c))
	if err != nil {
		return accountError(err)
	}
	return c.JSON(http.StatusOK, showUser(row))
}

// removeTOTP is for somebody who has lost the authenticator app.
func (s *server) removeTOTP(c echo.Context) error {
	if err := s.people.RemoveTOTP(c.Request().Context(), account.ByCaller(callerOf(c)), idParam(c)); err != nil {
		return accountError(err)
	}
	return c.NoContent(http.StatusNoContent)
}

// accountEvent is something that was done to an account.
type accountEvent struct {
	ID        int64          `json:"id"`
	CreatedAt time.Time      `json:"created_at"`
	UserID    uuid.UUID      `json:"user_id"`
	Action    account.Action `json:"action"`
	Actor     string         `json:"actor"`
	Address   string         `json:"address"`
	Detail    string         `json:"detail"`
	Reason    string         `json:"reason"`
}

func (s *server) listAccountEvents(c echo.Context) error {
	p := queryPage(c)
	rows, count, err := s.people.Events(c.Request().Context(), p.size, p.offset())
	if err != nil {
		return err
	}
	events, ids := make([]accountEvent, len(rows)), make([]string, len(rows))
	for i, row := range rows {
		ids[i] = strconv.FormatInt(row.ID, 10)
		events[i] = accountEvent{
			ID:        row.ID,
			CreatedAt: row.CreatedAt,
			UserID:    row.UserID,
			Action:    account.Action(row.Action),
			Actor:     row.Actor,
			Address:   row.Address,
			Detail:    row.Detail,
			Reason:    row.Reason,
		}
	}
	if err := s.showing(c, s.eventOf(callerOf(c), audit.AccountSearch, accountEventResource, ids)); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, newNumberedList(c, p, count, events))
}

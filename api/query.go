package api

import (
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
)

// queryText is nil when the query does not name the parameter, or names it with nothing.
func queryText(c echo.Context, name string) *string {
	return nullable(strings.TrimSpace(c.QueryParam(name)))
}

// queryInt is fallback when the query does not name the parameter, or names it with nothing.
func queryInt(c echo.Context, name string, fallback int) int {
	n, err := strconv.Atoi(c.QueryParam(name))
	if err != nil { // it is empty
		return fallback
	}
	return n
}

// queryBool is nil when the query does not name the parameter, or names it with nothing.
func queryBool(c echo.Context, name string) *bool {
	yes, err := strconv.ParseBool(c.QueryParam(name))
	if err != nil { // it is empty
		return nil
	}
	return &yes
}

// queryUUID is nil when the query does not name the parameter, or names it with nothing.
func queryUUID(c echo.Context, name string) *uuid.UUID {
	id, ok := parseUUID(c.QueryParam(name))
	if !ok { // it is empty
		return nil
	}
	return &id
}

// queryTime takes an RFC 3339 time or a date. A date means the whole day in the practice's time zone: its
// beginning, or for an upper bound its end.
func queryTime(c echo.Context, name string, zone *time.Location, upper bool) *time.Time {
	value := c.QueryParam(name)
	if day, err := time.ParseInLocation(time.DateOnly, value, zone); err == nil {
		if upper {
			day = day.AddDate(0, 0, 1)
		}
		return &day
	}

	at, err := time.Parse(time.RFC3339, value)
	if err != nil { // it is empty
		return nil
	}
	return &at
}

package api

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
)

// parametersKey is the key under which byBody keeps the parameters of a search.
const parametersKey = "parameters"

// parameters are what a list is asked for: the query, or the body of a search.
func parameters(c echo.Context) url.Values {
	if sent, ok := c.Get(parametersKey).(url.Values); ok {
		return sent
	}
	return c.QueryParams()
}

// parameter is empty when the request does not name it, or names it with nothing.
func parameter(c echo.Context, name string) string { return parameters(c).Get(name) }

// isByBody reports whether the list was asked for with a body.
func isByBody(c echo.Context) bool { return c.Get(parametersKey) != nil }

// byBody makes a search of a list: the same parameters, in the body. A query with names or record numbers would
// stand in the log of every proxy.
func byBody(list echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		var members map[string]any
		if err := bind(c, &members); err != nil {
			return err
		}

		sent := url.Values{}
		for name, value := range members {
			switch value := value.(type) {
			case string:
				sent.Set(name, value)
			case bool:
				sent.Set(name, strconv.FormatBool(value))
			case float64: // the contract takes whole numbers only, also when they are written as 2.0
				sent.Set(name, strconv.Itoa(int(value)))
			}
		}
		c.Set(parametersKey, sent)
		return list(c)
	}
}

// queryText is nil when the request does not name the parameter, or names it with nothing.
func queryText(c echo.Context, name string) *string {
	return nullable(strings.TrimSpace(parameter(c, name)))
}

// queryInt is fallback when the request does not name the parameter, or names it with nothing.
func queryInt(c echo.Context, name string, fallback int) int {
	n, err := strconv.Atoi(parameter(c, name))
	if err != nil { // it is empty
		return fallback
	}
	return n
}

// queryBool is nil when the request does not name the parameter, or names it with nothing.
func queryBool(c echo.Context, name string) *bool {
	yes, err := strconv.ParseBool(parameter(c, name))
	if err != nil { // it is empty
		return nil
	}
	return &yes
}

// queryUUID is nil when the request does not name the parameter, or names it with nothing.
func queryUUID(c echo.Context, name string) *uuid.UUID {
	id, ok := parseUUID(parameter(c, name))
	if !ok { // it is empty
		return nil
	}
	return &id
}

// queryTime takes an RFC 3339 time or a date. A date means the whole day in the practice's time zone: its
// beginning, or for an upper bound its end.
func queryTime(c echo.Context, name string, zone *time.Location, upper bool) *time.Time {
	value := parameter(c, name)
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

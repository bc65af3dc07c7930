package account

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/vantrexia/vantrexia/db"
)

// Names returns the names of a practice's people and API keys by their [Caller.Subject], also of those who may not sign in
// any more. A practice has dozens of them.
func Names(ctx context.Context, store *db.Store, practiceCode string) (map[string]string, error) {
	users, err := store.ListUsers(ctx, practiceCode)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	keys, err := store.ListAPIKeys(ctx, practiceCode)
	if err != nil {
		return nil, fmt.Errorf("list API keys: %w", err)
	}

	names := make(map[string]string, len(users)+len(keys))
	for _, u := range users {
		names[u.ID.String()] = cmp.Or(strings.TrimSpace(u.FirstName+" "+u.LastName), u.Email)
	}
	for _, k := range keys {
		names[keySubject+k.ID.String()] = k.Name
	}
	return names, nil
}

package db

import (
	"context"
	"database/sql"

	"github.com/google/uuid"
)

// sealUsers fills the sealed columns of accounts, all in one transaction: a practice has dozens of them.
func (s *Store) sealUsers(ctx context.Context, tx *sql.Tx) error {
	users, err := clearUsers(ctx, tx)
	if err != nil {
		return err
	}

	for _, u := range users {
		sealed, err := u.profile.seal(s.keys, u.practice, u.id)
		if err != nil {
			return err
		}
		var secret []byte
		if u.totpSecret != nil {
			if secret, err = sealTOTPSecret(s.keys, u.practice, u.id, *u.totpSecret); err != nil {
				return err
			}
		}

		index := s.keys.Index(indexUserEmail, u.practice, u.profile.Email)
		_, err = tx.ExecContext(ctx, `UPDATE users
			SET profile = $2,
			    email_index_a = $3,
			    email_index_b = $4,
			    totp_secret = $5
			WHERE id = $1`, u.id, sealed, index.A, index.B, secret)
		if err != nil {
			return err
		}
	}
	return nil
}

// clearUser is an account as it was stored before columns were sealed.
type clearUser struct {
	id         uuid.UUID
	practice   string
	profile    profile
	totpSecret *string
}

func clearUsers(ctx context.Context, tx *sql.Tx) (users []clearUser, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, practice_code, email, first_name, last_name, plain_totp_secret FROM users")
	if err != nil {
		return nil, err
	}
	defer rows.Close()

	for rows.Next() {
		var u clearUser
		err := rows.Scan(&u.id, &u.practice, &u.profile.Email, &u.profile.FirstName, &u.profile.LastName, &u.totpSecret)
		if err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	return users, rows.Err()
}

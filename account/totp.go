package account

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"github.com/vantrexia/vantrexia/db"
)

// totpStep is how long a code is shown (RFC 6238 §5.2).
const totpStep = 30 * time.Second

// newTOTP makes a secret, and the URL that an authenticator app reads from a QR code.
func newTOTP(email string) (secret, url string, err error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Vantrexia", AccountName: email, Period: uint(totpStep.Seconds())})
	if err != nil {
		return "", "", fmt.Errorf("make a TOTP secret: %w", err)
	}
	return key.Secret(), key.URL(), nil
}

// stepOf returns the step whose code this is: the present one, the one before or the one after (RFC 6238
// §5.2), or 0. All three are compared in any case.
func stepOf(secret, code string, now time.Time) (step int64, err error) {
	for shift := int64(-1); shift <= 1; shift++ {
		at := now.Add(time.Duration(shift) * totpStep)
		want, err := totp.GenerateCodeCustom(secret, at, totp.ValidateOpts{Period: uint(totpStep.Seconds()), Digits: otp.DigitsSix})
		if err != nil {
			return 0, fmt.Errorf("a stored TOTP secret cannot be read: remove the person's second factor: %w", err)
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			step = at.Unix() / int64(totpStep.Seconds())
		}
	}
	return step, nil
}

// useCode reports whether a code is right and was not used before, and uses it up.
func useCode(ctx context.Context, q *db.Queries, user db.User, code string) (bool, error) {
	step, err := stepOf(*user.TOTPSecret, code, time.Now())
	if err != nil || step == 0 {
		return false, err
	}
	used, err := q.UseTOTPStep(ctx, db.UseTOTPStepParams{ID: user.ID, Step: step})
	if err != nil {
		return false, fmt.Errorf("use a TOTP code: %w", err)
	}
	return used == 1, nil
}

package account

import (
	"errors"
	"strings"
	"sync"
	"testing"
)

func TestCommonPasswordsAreRefused(t *testing.T) {
	t.Parallel()
	own := []string{"jane.murakami@tulsaclinic.example", "Jane", "Murakami"}
	for _, password := range []string{
		"password1234", "Password123!", "P@ssw0rd2026", "passwordpassword", "123456789012", "qwertyuiop12", "1qaz2wsx3edc", "aaaaaaaaaaaa",
		"abcabcabcabc", "iloveyou2024!", "correcthorsebatterystaple", "letmeinletmein", "Vantrexia2026!", "Summer2026!!", "trustno1trustno1",
		"JaneMurakami1957", "jane.murakami@tulsaclinic.example", "tulsaclinic123", "admin-admin-admin", "qwerty123456", "zyxwvutsrqponm",
		"ｐａｓｓｗｏｒｄ1234", "nursenurse2025", "111111222222", "poiuytrewq12", "abcdefghijkl", "Welcome to 2026",
	} {
		if err := checkPassword(password, own...); !errors.Is(err, ErrPasswordCommon) {
			t.Errorf("%q: %v, want %v", password, err, ErrPasswordCommon)
		}
	}

	for _, password := range []string{"", "elevenchars", strings.Repeat("x7", 64) + "y", "ééééééééééé", "ﬁﬁﬁ2"} {
		if err := checkPassword(password, own...); !errors.Is(err, ErrPasswordLength) {
			t.Errorf("%q: %v, want %v", password, err, ErrPasswordLength)
		}
	}

	for _, password := range []string{
		"gravel pocket lantern nine", "x7$Kp2!9qZ#4", "Tr0ub4dor&3xyz", "zwölf Boxkämpfer", "k2mu-x8ra-vv4t-9qpe-h3sd", "сорок семь кошек", "四十七匹の猫が屋根で鳴く",
	} {
		if err := checkPassword(password, own...); err != nil {
			t.Errorf("%q: %v", password, err)
		}
	}
}

func TestGeneratedPasswordsAreTaken(t *testing.T) {
	t.Parallel()
	for range 1000 {
		password, err := NewPassword()
		if err != nil {
			t.Fatal(err)
		}
		if err := checkPassword(password, "jane.doe@example.com", "Jane", "Doe"); err != nil {
			t.Fatalf("%q: %v", password, err)
		}
	}
}

func TestHashes(t *testing.T) {
	t.Parallel()
	h, err := newHasher()
	if err != nil {
		t.Fatal(err)
	}

	hash, err := h.hash(t.Context(), "zwölf Boxkämpfer")
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("%q, %v", hash, err)
	}

	decomposed := "zwo\u0308lf Boxka\u0308mpfer" // what some keyboards send
	for password, want := range map[string]bool{"zwölf Boxkämpfer": true, decomposed: true, "zwölf boxkämpfer": false, "": false} {
		if got, err := h.matches(t.Context(), &hash, password); err != nil || got != want {
			t.Errorf("%q: %t, %v", password, got, err)
		}
		if got, err := h.matches(t.Context(), nil, password); err != nil || got {
			t.Errorf("%q matches nobody: %t, %v", password, got, err)
		}
	}

	for _, broken := range []string{"", "x", "$argon2id$v=19$m=19456,t=2,p=1$$", strings.Replace(hash, "t=2", "t=0", 1), strings.Replace(hash, "argon2id", "argon2i", 1)} {
		if _, err := h.matches(t.Context(), &broken, "zwölf Boxkämpfer"); err == nil {
			t.Errorf("%q was read", broken)
		}
	}
}

// A crowd that signs in at once is let through a few at a time.
func TestHashesAreBounded(t *testing.T) {
	t.Parallel()
	h, err := newHasher()
	if err != nil {
		t.Fatal(err)
	}

	for range mostHashes {
		h.turns <- struct{}{}
	}

	var crowd sync.WaitGroup
	done := make(chan struct{}, 10)
	for range 10 {
		crowd.Go(func() {
			_, _ = h.matches(t.Context(), nil, "gravel pocket lantern nine")
			done <- struct{}{}
		})
	}

	select {
	case <-done:
		t.Error("a hash was computed although all turns were taken")
	default:
	}
	for range mostHashes {
		<-h.turns
	}
	crowd.Wait()
}

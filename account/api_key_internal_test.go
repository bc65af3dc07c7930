package account

import (
	"strings"
	"testing"
)

func TestKeysAreWellFormed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		key, err := newKey()
		if err != nil || !wellFormed(key) || !IsAPIKey(key) || seen[key] {
			t.Fatalf("%q, %v", key, err)
		}
		seen[key] = true

		// Any one character that is mistyped is noticed.
		i := len(keyMark) + len(seen)%(len(key)-len(keyMark))
		other := "x"
		if key[i] == 'x' {
			other = "y"
		}
		if mistyped := key[:i] + other + key[i+1:]; wellFormed(mistyped) {
			t.Errorf("%q passes for %q", mistyped, key)
		}
		for _, wrong := range []string{key + "0", key[:len(key)-1], strings.ToUpper(key), " " + key, key + "\n"} {
			if wellFormed(wrong) {
				t.Errorf("%q passes", wrong)
			}
		}
	}
}

func TestMayPost(t *testing.T) {
	t.Parallel()
	all, some := Caller{}, Caller{Devices: []string{"SCALE-7", "BP-*"}}
	for device, want := range map[string]bool{"SCALE-7": true, "BP-OMRON-7250": true, "BP-": true, "SCALE-70": false, "bp-omron": false, "": false} {
		if !all.MayPost(device) || some.MayPost(device) != want {
			t.Errorf("%q: %t and %t", device, all.MayPost(device), some.MayPost(device))
		}
	}
}

func TestDevicesAreChecked(t *testing.T) {
	t.Parallel()
	for _, wrong := range [][]string{{""}, {"*"}, {" "}, {"A*B"}, {"A**"}, make([]string, maxDevices+1)} {
		if checkDevices(wrong) == "" {
			t.Errorf("%q passes", wrong)
		}
	}
	if wrong := checkDevices([]string{"SCALE-7", "BP-*"}); wrong != "" {
		t.Error(wrong)
	}
}

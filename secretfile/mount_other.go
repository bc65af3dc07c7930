//go:build unix && !linux && !darwin && !freebsd

package secretfile

import "os"

// isOnReadOnlyMount is false where we do not know how to ask.
func isOnReadOnlyMount(*os.File) bool { return false }

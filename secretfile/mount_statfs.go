//go:build linux || darwin || freebsd

package secretfile

import (
	"os"
	"syscall"
)

// readOnlyMount is ST_RDONLY of Linux, and MNT_RDONLY of macOS and FreeBSD.
const readOnlyMount = 0x1

// isOnReadOnlyMount reports whether nothing can be written where the file is. A mount that cannot be asked
// counts as one that can be written to.
func isOnReadOnlyMount(file *os.File) bool {
	var mount syscall.Statfs_t
	return syscall.Fstatfs(int(file.Fd()), &mount) == nil && mount.Flags&readOnlyMount != 0
}

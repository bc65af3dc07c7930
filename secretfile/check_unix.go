//go:build unix

package secretfile

import (
	"io/fs"
	"os"
	"syscall"
)

func check(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return &fs.PathError{Op: "read", Path: file.Name(), Err: syscall.EISDIR}
	}

	found := access{mode: info.Mode(), owner: int(info.Sys().(*syscall.Stat_t).Uid), readOnly: isOnReadOnlyMount(file)}
	if err := found.err(); err != nil {
		return refusal(file.Name(), found.mode, err)
	}
	return nil
}

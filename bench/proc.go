package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of the times in /proc/<pid>/stat: USER_HZ, which is 100 on every Linux of today.
const tick = time.Second / 100

// procStat is what we read of /proc/<pid>/stat.
type procStat struct {
	parent int
	own    time.Duration // used by the process itself, in user and kernel mode
	ended  time.Duration // used by children that have ended and were waited for, and theirs
}

// parseStat reads the text of a /proc/<pid>/stat. The name of the command stands in parentheses and may hold anything, spaces
// and parentheses too: the fields are counted from the last one.
func parseStat(text string) (procStat, error) {
	end := strings.LastIndexByte(text, ')')
	if end < 0 {
		return procStat{}, fmt.Errorf("%q is no process's stat: it has no parenthesis", text)
	}
	fields := strings.Fields(text[end+1:]) // the first is field 3 of proc(5), the state
	if len(fields) < 15 {
		return procStat{}, fmt.Errorf("%q is no process's stat: it is too short", text)
	}

	numbers := map[int]int64{4: 0, 14: 0, 15: 0, 16: 0, 17: 0} // by their number in proc(5)
	for field := range numbers {
		n, err := strconv.ParseInt(fields[field-3], 10, 64)
		if err != nil {
			return procStat{}, fmt.Errorf("field %d of a process's stat: %w", field, err)
		}
		numbers[field] = n
	}
	return procStat{
		parent: int(numbers[4]),
		own:    time.Duration(numbers[14]+numbers[15]) * tick,
		ended:  time.Duration(numbers[16]+numbers[17]) * tick,
	}, nil
}

// processes are those of the machine at one moment.
type processes map[int]procStat

func readProcesses() (processes, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errors.New("there is no /proc here: the benchmark runs on Linux")
	}

	all := processes{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		if all[pid], err = parseStat(string(text)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// gone reports whether a process ended before we could read its file.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// tree lists the process and everything that descends from it.
func (all processes) tree(root int) []int {
	if _, ok := all[root]; !ok {
		return nil
	}
	children := map[int][]int{}
	for pid, p := range all {
		children[p.parent] = append(children[p.parent], pid)
	}

	list := []int{root}
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i]]...)
	}
	return list
}

// cpu is what the process and all its descendants have used. Those that have ended are in it, since each parent counts what
// its ended children used: sessions of PostgreSQL come and go.
func (all processes) cpu(root int) time.Duration {
	var sum time.Duration
	for _, pid := range all.tree(root) {
		sum += all[pid].own + all[pid].ended
	}
	return sum
}

// memory is the proportional set size of the process and all its descendants, in bytes: pages that several processes share,
// such as PostgreSQL's buffers, count once.
func (all processes) memory(root int) (int64, error) {
	var sum int64
	for _, pid := range all.tree(root) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if gone(err) || len(text) == 0 { // it has ended, or is about to
			continue
		}
		if err != nil {
			return 0, err
		}
		size, err := parsePSS(text)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		sum += size
	}
	return sum, nil
}

// parsePSS reads the proportional set size out of a /proc/<pid>/smaps_rollup, in bytes.
func parsePSS(text []byte) (int64, error) {
	for line := range bytes.Lines(text) {
		rest, ok := strings.CutPrefix(string(line), "Pss:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		return kib * 1024, err
	}
	return 0, errors.New("smaps_rollup has no line Pss")
}

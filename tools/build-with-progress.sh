#!/bin/sh
# Builds the Go command PACKAGE with the module in DIR and says how far it is: for builds that take minutes when the build
# cache is cold.
#
#   build-with-progress.sh LABEL DIR PACKAGE OUTPUT [go build flags]
#
# On a terminal one line is kept up to date; elsewhere (CI logs) a line is written every ten per cent. What the
# compiler says is shown only when the build fails, and the exit status is go build's.
set -u

if [ $# -lt 4 ]; then
	echo "usage: build-with-progress.sh LABEL DIR PACKAGE OUTPUT [go build flags]" >&2
	exit 2
fi
label=$1 dir=$2 package=$3 shown=$4
shift 4
case $shown in
/*) output=$shown ;;
*) output=$PWD/$shown ;;
esac

work=$(mktemp -d "${TMPDIR:-/tmp}/build.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# build writes go's own lines (packages, downloads, errors) and, between them, its own that begin with "::".
build() {
	cd "$dir" || { echo "::exit 1"; return; }
	if go list -deps "$package" >"$work/packages"; then
		echo "::total $(($(wc -l <"$work/packages")))"
		echo "::main $(tail -n 1 "$work/packages")"
		go build -v -o "$output" "$@" "$package"
	fi
	echo "::exit $?"
}

# grouped writes 1203 as 1,203.
grouped() {
	if [ "$1" -ge 1000 ]; then
		printf '%d,%03d' $(($1 / 1000)) $(($1 % 1000))
	else
		printf '%d' "$1"
	fi
}

# say shows text as the state of things: in place on a terminal, as a line of its own elsewhere.
say() {
	if [ -t 1 ]; then
		printf '\r\033[K%s: %s' "$label" "$1"
	else
		printf '%s: %s\n' "$label" "$1"
	fi
}

# follow reads what build writes. It stays silent until go has something to do.
follow() {
	total=0 built=0 fetched=0 said=0 main='' status=1
	while IFS= read -r line; do
		case $line in
		"::exit "*) status=${line#::exit } ;;
		"::total "*) total=${line#::total } ;;
		"::main "*) main=${line#::main } ;;
		"go: downloading "*)
			fetched=$((fetched + 1))
			if [ -t 1 ] || [ "$fetched" -eq 1 ]; then say "downloading modules ($fetched)"; fi
			;;
		"" | *[:\ ]*) printf '%s\n' "$line" >>"$work/errors" ;;
		"$main")
			built=$((built + 1))
			if [ -t 1 ]; then say "linking"; fi
			;;
		*)
			built=$((built + 1))
			tenth=$((total > 0 ? built * 10 / total : 0))
			if [ -t 1 ] || [ "$tenth" -gt "$said" ] || [ "$built" -eq 1 ]; then
				say "$(grouped "$built") of $(grouped "$total") packages"
				said=$tenth
			fi
			;;
		esac
	done
	if [ -t 1 ] && [ $((built + fetched)) -gt 0 ]; then printf '\r\033[K'; fi
	if [ "$status" -ne 0 ]; then
		echo "$label: failed" >&2
		cat "$work/errors" >&2
	elif [ "$built" -gt 0 ]; then
		echo "$shown is built"
	else
		echo "$shown is up to date"
	fi
	return "$status"
}

build "$@" 2>&1 | follow

#!/bin/sh
# Builds the commit that is checked out in two directories, the second time with an empty build cache, and compares the two
# binaries. It takes minutes, because the second build compiles everything. Changes that are not committed are left out.
set -eu
cd "$(dirname "$0")/.."
commit=$(git rev-parse HEAD)
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT INT TERM

# built NAME: the binary of a fresh clone.
built() {
	git clone --quiet --no-local --no-tags . "$work/$1" # like a clone of another machine, with files of its own
	git -C "$work/$1" checkout --quiet --detach "$commit"
	make --silent --directory="$work/$1" bin/vantrexia GO="${GO:-go}"
	echo "$work/$1/bin/vantrexia"
}

first=$(built one)
second=$(export GOCACHE="$work/cache"; built another/directory)
"$first" version
if ! cmp "$first" "$second"; then
	echo "two builds of $commit differ" >&2
	exit 1
fi
"$first" version --json | grep -q "\"commit\": \"$commit\"" || { echo "the binary does not name its commit" >&2; exit 1; }
echo "two builds of $commit are the same: $(sha256sum "$first" | cut -d' ' -f1)"

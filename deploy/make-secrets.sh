#!/bin/sh
# Makes the secrets of a new installation in deploy/secrets/. A file that exists is left as it is.
#
# The directory is closed to everybody but its owner. The files in it are not: containers run in another account, and Docker
# shows each of them the files that it is given.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets

# secret NAME COMMAND...: what the command prints becomes the secret.
secret() {
	name=$1
	shift
	if [ -e "secrets/$name" ]; then
		echo "deploy/secrets/$name exists"
		return
	fi
	"$@" >"secrets/$name.new"
	chmod 0444 "secrets/$name.new"
	mv "secrets/$name.new" "secrets/$name"
	echo "deploy/secrets/$name made"
}

random() { openssl rand -hex 32; }
rsa_key() { openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 2>/dev/null; } # it draws its progress
database_url() { echo "postgres://vantrexia:$(cat secrets/vantrexia-password)@postgres:5432/vantrexia?sslmode=disable"; }

secret postgres-password random
secret temporal-password random
secret vantrexia-password random
secret database-url database_url
secret api-token-secret random
secret ecw-private-key rsa_key

#!/bin/sh
# Makes the secrets of a new installation in deploy/secrets/, and the key for eCW in backend/keys/private.pem.
# A file that exists stays as it is. Run it again when a container cannot read .env or the key.
#
# The directories in deploy/certs/, deploy/keyring/ and deploy/audit/ stay empty here: `docker compose up` has the certificates
# made and renewed in the first, the keyring made in the second, and checkpoints of the audit trail appended in the third.
#
# Only their owner can open the directories. Every account can read the passwords in deploy/secrets/: PostgreSQL
# and Temporal run in accounts of their own, and Docker shows each container only the files that it is given.
# Only their owner can read the other secrets, the key, .env and the certificates: our containers and Temporal's
# run in the owner's account.
set -eu
cd "$(dirname "$0")/.."
umask 077
mkdir -p deploy/secrets backend/keys deploy/certs/ca deploy/certs/postgres deploy/certs/temporal deploy/certs/temporal-ui \
	deploy/certs/vantrexia deploy/certs/admin deploy/keyring deploy/audit

# secret MODE FILE COMMAND...: the output of the command becomes the secret.
secret() {
	mode=$1
	file=$2
	shift 2
	if [ -e "$file" ]; then
		echo "$file exists"
		return
	fi
	"$@" >"$file.new"
	chmod "$mode" "$file.new"
	mv "$file.new" "$file"
	echo "$file made"
}

random() { openssl rand -hex 32; }
# database_url ACCOUNT FILE: the URL for an account whose password is in the file.
database_url() {
	echo "postgres://$1:$(cat "deploy/secrets/$2")@postgres:5432/vantrexia?sslmode=verify-full&sslrootcert=/certs/ca.pem"
}

# A key that an earlier version kept in deploy/secrets is registered with eCW, so it is used again.
rsa_key() {
	if [ -e deploy/secrets/ecw-private-key ]; then
		cat deploy/secrets/ecw-private-key
	else
		openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 2>/dev/null # it prints its progress
	fi
}

secret 0444 deploy/secrets/postgres-password random
secret 0444 deploy/secrets/temporal-password random
secret 0444 deploy/secrets/vantrexia-password random
secret 0444 deploy/secrets/vantrexia-runtime-password random
secret 0600 deploy/secrets/database-owner-url database_url vantrexia vantrexia-password
secret 0600 deploy/secrets/database-url database_url vantrexia_runtime vantrexia-runtime-password
secret 0600 deploy/secrets/api-token-secret random
secret 0600 backend/keys/private.pem rsa_key

if [ ! -f .env ]; then
	echo ".env does not exist: copy deploy/sandbox.env or deploy/practice.env.example to it, then run this again" >&2
	exit 1
fi

# The containers run in your account. If that is root, they run in the image's account instead.
if grep -q '^VANTREXIA_USER=' .env; then
	echo ".env names the account of the containers"
elif [ "$(id -u)" -eq 0 ]; then
	chown -R 65532:65532 .env backend/keys deploy/certs deploy/keyring deploy/secrets/database-url deploy/secrets/database-owner-url \
		deploy/secrets/api-token-secret
	chmod 0600 .env
	chown -R 65532:65532 deploy/audit
	echo ".env, backend/keys, deploy/certs, deploy/keyring and our secrets belong to the account of the containers"
else
	[ -z "$(tail -c 1 .env)" ] || echo >>.env
	echo "VANTREXIA_USER=$(id -u):$(id -g)" >>.env
	chmod 0600 .env
	echo ".env names your account for the containers"
fi

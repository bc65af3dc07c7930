#!/bin/sh
# Starts PostgreSQL's image with a copy of its certificate and key that belongs to PostgreSQL's account: it takes no
# other. Runs as root, as the image does; the image's own script leaves root.
set -eu

for name in cert.pem key.pem; do
	install -o postgres -g postgres -m 0600 "/certs/$name" "/run/postgresql-tls/$name"
done
chown postgres:postgres /run/postgresql-tls
exec docker-entrypoint.sh "$@"

#!/bin/sh
# Makes the accounts and the database of Vantrexia, and an account for Temporal, which creates its own two databases.
# PostgreSQL's image runs this when its volume is new. Run it again to add what is missing, and to give each account
# the password that is in its file now:
#
#   docker compose exec postgres /docker-entrypoint-initdb.d/create-databases.sh
#
# vantrexia           owns the tables: `vantrexia migrate`
# vantrexia_runtime   API and workers; it may not change the schema, nor what proves who did what
# vantrexia_readonly  people who look; each has an account of his or her own in it
#
# What the last two may do stands in db/grants.sql, which `vantrexia migrate` runs.
set -eu

SECRETS=${SECRETS:-/run/secrets}
export SECRETS
for name in vantrexia-password vantrexia-runtime-password temporal-password; do
	[ -s "$SECRETS/$name" ] || { echo "$SECRETS/$name is missing: run deploy/make-secrets.sh" >&2; exit 1; }
done

# psql reads the passwords itself: every account of the host sees the arguments of a process.
psql --set ON_ERROR_STOP=1 --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set owner `cat "$SECRETS/vantrexia-password"`
\set runtime `cat "$SECRETS/vantrexia-runtime-password"`
\set temporal `cat "$SECRETS/temporal-password"`

SELECT format('CREATE ROLE %I', name)
FROM (VALUES ('vantrexia'), ('vantrexia_runtime'), ('vantrexia_readonly'), ('temporal')) wanted (name)
WHERE to_regrole(name) IS NULL
\gexec
ALTER ROLE vantrexia LOGIN PASSWORD :'owner';
ALTER ROLE vantrexia_runtime LOGIN PASSWORD :'runtime';
ALTER ROLE temporal LOGIN CREATEDB PASSWORD :'temporal';

SELECT 'CREATE DATABASE vantrexia OWNER vantrexia'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'vantrexia')
\gexec
REVOKE ALL ON DATABASE vantrexia FROM PUBLIC;
GRANT CONNECT ON DATABASE vantrexia TO vantrexia_runtime, vantrexia_readonly;
SQL

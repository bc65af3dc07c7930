#!/bin/sh
# PostgreSQL's image runs this when its volume is new. It makes an account and a database for Vantrexia, and
# an account for Temporal, which creates its own two databases.
set -eu

vantrexia=$(cat /run/secrets/vantrexia-password)
temporal=$(cat /run/secrets/temporal-password)
psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
	--set vantrexia="$vantrexia" --set temporal="$temporal" <<'SQL'
CREATE ROLE vantrexia LOGIN PASSWORD :'vantrexia';
CREATE DATABASE vantrexia OWNER vantrexia;
REVOKE CONNECT ON DATABASE vantrexia FROM PUBLIC;
CREATE ROLE temporal LOGIN CREATEDB PASSWORD :'temporal';
SQL

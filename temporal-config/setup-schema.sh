#!/bin/sh
# Creates Temporal's two databases in PostgreSQL and brings their schemas up to date. Run it before the first
# start of the server, and before the first start of a newer one. Running it again does nothing.
#
# Needs temporal-sql-tool (image temporalio/admin-tools, or `make bin/temporal-sql-tool`), server.env, and
# POSTGRES_SEEDS, POSTGRES_USER, POSTGRES_PASSWORD_FILE and, when it is not 5432, DB_PORT. With TLS_DIR, in which
# ca.pem is the authority of PostgreSQL's certificate, it connects with verified TLS.
set -eu

tool=${TEMPORAL_SQL_TOOL:-temporal-sql-tool}
SQL_PLUGIN=$DB
SQL_HOST=$POSTGRES_SEEDS
SQL_PORT=${DB_PORT:-5432}
SQL_USER=$POSTGRES_USER
SQL_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
export SQL_PLUGIN SQL_HOST SQL_PORT SQL_USER SQL_PASSWORD

if [ -n "${TLS_DIR:-}" ]; then
	SQL_TLS=true
	SQL_TLS_CA_FILE=$TLS_DIR/ca.pem
	export SQL_TLS SQL_TLS_CA_FILE
fi

# migrate DATABASE SCHEMA
migrate() {
	"$tool" --db "$1" create
	"$tool" --db "$1" setup-schema -v 0.0
	"$tool" --db "$1" update-schema --schema-name "postgresql/v12/$2"
}

migrate "$DBNAME" temporal
migrate "$VISIBILITY_DBNAME" visibility

"$tool" --db "$VISIBILITY_DBNAME" setup-schema --disable-versioning \
	-f "$(dirname "$0")/visibility-indexes-${VISIBILITY_INDEXES:-all}.sql"

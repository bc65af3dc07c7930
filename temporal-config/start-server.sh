#!/bin/sh
# Starts the Temporal server with PostgreSQL's password from a file: the server itself reads it from the
# environment only.
#
# Needs temporal-server (image temporalio/server, or `make bin/temporal-server`), server.env, and
# POSTGRES_SEEDS, POSTGRES_USER, POSTGRES_PASSWORD_FILE, DYNAMIC_CONFIG_FILE_PATH and, when it is not 5432,
# DB_PORT. TLS_DIR is the directory of the server's certificate that `vantrexia certs` makes. Without it nothing
# is encrypted, and every caller may do everything: that is for one's own machine.
set -eu

POSTGRES_PWD=$(cat "$POSTGRES_PASSWORD_FILE")
# The server has a second setting for the same port. Without it, it would look for the visibility database at
# 5432.
VISIBILITY_DB_PORT=${DB_PORT:-5432}
export POSTGRES_PWD VISIBILITY_DB_PORT

# Everything speaks TLS: the frontend to callers, who need a certificate of the same authority, the services to
# each other, and all of them to PostgreSQL. The services find each other by address, so the name that the
# certificate must have is given here. The server's own workers are callers of the frontend too: they show the
# services' certificate. Renewed files are read every hour.
if [ -n "${TLS_DIR:-}" ]; then
	TEMPORAL_TLS_REQUIRE_CLIENT_AUTH=true
	TEMPORAL_TLS_FRONTEND_CERT=$TLS_DIR/cert.pem
	TEMPORAL_TLS_FRONTEND_KEY=$TLS_DIR/key.pem
	TEMPORAL_TLS_CLIENT1_CA_CERT=$TLS_DIR/ca.pem
	TEMPORAL_TLS_SERVER_CERT=$TLS_DIR/cert.pem
	TEMPORAL_TLS_SERVER_KEY=$TLS_DIR/key.pem
	TEMPORAL_TLS_SERVER_CA_CERT=$TLS_DIR/ca.pem
	TEMPORAL_TLS_FRONTEND_SERVER_NAME=temporal
	TEMPORAL_TLS_INTERNODE_SERVER_NAME=temporal
	TEMPORAL_TLS_REFRESH_INTERVAL=1h
	TEMPORAL_TLS_EXPIRATION_CHECKS_WARNING_WINDOW=720h
	TEMPORAL_TLS_EXPIRATION_CHECKS_CHECK_INTERVAL=24h
	export TEMPORAL_TLS_REQUIRE_CLIENT_AUTH TEMPORAL_TLS_FRONTEND_CERT TEMPORAL_TLS_FRONTEND_KEY
	export TEMPORAL_TLS_CLIENT1_CA_CERT TEMPORAL_TLS_SERVER_CERT TEMPORAL_TLS_SERVER_KEY TEMPORAL_TLS_SERVER_CA_CERT
	export TEMPORAL_TLS_FRONTEND_SERVER_NAME TEMPORAL_TLS_INTERNODE_SERVER_NAME TEMPORAL_TLS_REFRESH_INTERVAL
	export TEMPORAL_TLS_EXPIRATION_CHECKS_WARNING_WINDOW TEMPORAL_TLS_EXPIRATION_CHECKS_CHECK_INTERVAL

	SQL_TLS_ENABLED=true
	SQL_HOST_VERIFICATION=true
	SQL_CA=$TLS_DIR/ca.pem
	export SQL_TLS_ENABLED SQL_HOST_VERIFICATION SQL_CA
fi

# In a container the server listens on every address, and its services find each other at the container's
# address.
if [ -z "${BIND_ON_IP:-}" ]; then
	BIND_ON_IP=0.0.0.0
	TEMPORAL_BROADCAST_ADDRESS=$(getent hosts "$(hostname)" | awk '{print $1; exit}')
	export BIND_ON_IP TEMPORAL_BROADCAST_ADDRESS
fi

exec "${TEMPORAL_SERVER:-temporal-server}" start

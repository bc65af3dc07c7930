#!/bin/sh
# Starts the Temporal server with PostgreSQL's password from a file: the server itself reads it from the
# environment only.
#
# Needs temporal-server (image temporalio/server, or `make bin/temporal-server`), server.env, and
# POSTGRES_SEEDS, POSTGRES_USER, POSTGRES_PASSWORD_FILE, DYNAMIC_CONFIG_FILE_PATH and, when it is not 5432,
# DB_PORT.
set -eu

POSTGRES_PWD=$(cat "$POSTGRES_PASSWORD_FILE")
# The server has a second setting for the same port. Without it, it would look for the visibility database at
# 5432.
VISIBILITY_DB_PORT=${DB_PORT:-5432}
export POSTGRES_PWD VISIBILITY_DB_PORT

# In a container the server listens on every address, and its services find each other at the container's
# address.
if [ -z "${BIND_ON_IP:-}" ]; then
	BIND_ON_IP=0.0.0.0
	TEMPORAL_BROADCAST_ADDRESS=$(getent hosts "$(hostname)" | awk '{print $1; exit}')
	export BIND_ON_IP TEMPORAL_BROADCAST_ADDRESS
fi

exec "${TEMPORAL_SERVER:-temporal-server}" start

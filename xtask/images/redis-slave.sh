#!/bin/sh
# Starts a server that replicates the one at $MASTER_ADDR, whose name the server itself looks up at each connection.
set -eu
: "${MASTER_ADDR:?must name the master to replicate}"
exec /entrypoint.sh redis-server --replicaof "$MASTER_ADDR" "${MASTER_PORT:-6379}" "$@"

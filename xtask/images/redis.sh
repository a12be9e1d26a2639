#!/bin/sh
# Starts the server in the foreground and reachable from other Pods. Options given are the server's; any other first
# word is a command of its own. Options of the caller come last, so that they win.
set -eu
case "${1:---}" in
    -*|*.conf) set -- redis-server "$@" ;;
esac
if [ "$1" != redis-server ]; then
    exec "$@"
fi
shift
case "${1:-}" in
    *.conf)
        configuration=$1
        shift
        exec redis-server "$configuration" --protected-mode no "$@"
        ;;
esac
exec redis-server --bind 0.0.0.0 '-::*' --protected-mode no --repl-diskless-sync-delay 0 "$@"

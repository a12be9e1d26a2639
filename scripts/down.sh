#!/bin/bash
# Ends the cluster of up.sh and removes what it made on the host. The data folder stays.
set -eu
cd "$(dirname "$0")/.."
data=${XEBEC_DATA:-/var/lib/xebec}
target=${CARGO_TARGET_DIR:-target}
[ "$(id -u)" = 0 ] || { echo "the node needs root: sudo make down" >&2; exit 1; }
[ -d "$data" ] || { echo "nothing to take down: there is no $data"; exit 0; }
[ -x "$target/release/xebec" ] || cargo build --release -p xebec
"$target/release/xebec" down --data-dir "$data"

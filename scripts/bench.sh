#!/bin/bash
# Measures the release binary; see BENCHMARKS.md. Rows that need a node are measured as root only.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
scripts/packages.sh
cargo build --release -p xebec -p xtask -p xebec-e2e
"$target/release/xtask" images >/dev/null
exec "$target/release/xebec-bench" --xebec "$target/release/xebec" --images "$target/images" ${PEERS:+--peers "$PEERS"} "$@"

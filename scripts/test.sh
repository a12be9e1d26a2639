#!/bin/bash
# All tests: those of the crates in one build of the workspace, then the release binary with real containers. The tests of
# e2e are no part of a plain `cargo test`, for they need root and the release binary; `--workspace` keeps one set of features,
# so that nothing is built a second time for them.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
scripts/packages.sh
echo "== tests of the crates"
cargo test --workspace --quiet --no-fail-fast
echo "== release build and images"
cargo build --release -p xebec -p xtask
"$target/release/xtask" images
KUBECTL=${KUBECTL:-$(scripts/kubectl.sh || true)}
export KUBECTL XEBEC="$PWD/$target/release/xebec" XEBEC_IMAGES="$PWD/$target/images"
case $target in /*) XEBEC=$target/release/xebec XEBEC_IMAGES=$target/images ;; esac
echo "== the binary with real containers"
cargo test --workspace --test 'e2e_*' -- --test-threads=1 --nocapture

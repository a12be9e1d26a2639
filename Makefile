# The four things one does with the tree. Each is a script, so that it also runs without make.

.PHONY: up down test bench

# Installs what is missing, builds, starts a one-node cluster in the background and runs the Redis example on it.
up:
	@scripts/up.sh

# Ends the cluster and removes all it made on the host; the data folder stays.
down:
	@scripts/down.sh

# Everything CI runs: tests of the crates, then the release binary with real containers.
test:
	@scripts/test.sh

# Prints the rows of BENCHMARKS.md; with PEERS=DIR, whose bin/ holds kube-apiserver and etcd, the ratio to them too.
bench:
	@scripts/bench.sh

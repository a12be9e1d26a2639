#!/bin/bash
# Starts a one-node cluster in the background and runs the Redis example on it. What runs already is left running, so a
# second call takes seconds and changes nothing. The data lie in XEBEC_DATA, /var/lib/xebec unless set; XEBEC_UP_ARGS are more
# arguments of `xebec up`, for a second cluster on one machine (--cgroup-root, --bridge and the like).
set -eu
cd "$(dirname "$0")/.."
data=${XEBEC_DATA:-/var/lib/xebec}
target=${CARGO_TARGET_DIR:-target}
pidfile=$data/xebec.pid
log=$data/xebec.log
export KUBECONFIG=$data/admin.kubeconfig

fail() {
    echo "$1" >&2
    exit 1
}

# Whether the process of the pid file is ours and runs the binary that was just built.
running() {
    [ -f "$pidfile" ] && [ "$(readlink "/proc/$(cat "$pidfile")/exe" 2>/dev/null)" = "$(readlink -f "$target/release/xebec")" ]
}

# Tries a command until it succeeds: wait_for SECONDS WHAT COMMAND…
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        running || fail "the cluster has ended; see $log"
        [ $SECONDS -lt $deadline ] || fail "$what did not come; see $log"
        sleep 0.2
    done
}

node_ready() { xebec get nodes | grep -qw Ready; }
slaves() { xebec get pods -l app=ku8-redis-slave -o name | wc -l; }
replication() { xebec exec ku8-redis-master -- redis-cli info replication | tr -d '\r'; }
replicating() {
    local count
    count=$(slaves)
    [ "$count" -gt 0 ] && replication | grep -qx "connected_slaves:$count" && [ "$(replication | grep -c state=online)" = "$count" ]
}

# The master is a bare Pod that nothing restarts: where `make down` ended its container, it has failed for good.
master_ended() { xebec get pod ku8-redis-master -o json | grep -qE '"phase": *"(Failed|Succeeded)"'; }
example_runs() {
    if master_ended; then
        xebec delete pod ku8-redis-master
        xebec create -f examples/redis/redis-master.yaml
        return 1
    fi
    replicating
}

[ "$(id -u)" = 0 ] || fail "the node needs root: sudo make up"
scripts/packages.sh
cargo build --release -p xebec -p xtask
"$target/release/xtask" images
xebec() { "$target/release/xebec" "$@"; }

mkdir -p "$data"
if ! running; then
    # A process of an older build ends first; its containers go on running and are taken up again.
    if [ -f "$pidfile" ] && readlink "/proc/$(cat "$pidfile")/exe" 2>/dev/null | grep -q '/xebec\( (deleted)\)\?$'; then
        old=$(cat "$pidfile")
        kill "$old"
        for _ in $(seq 100); do
            kill -0 "$old" 2>/dev/null || break
            sleep 0.1
        done
    fi
    setsid "$(readlink -f "$target/release/xebec")" up --data-dir "$data" ${XEBEC_UP_ARGS:-} </dev/null >>"$log" 2>&1 &
    # The process writes the same number itself, but later than it is asked for here.
    echo $! >"$pidfile"
fi
wait_for 60 "a ready node" node_ready

xebec images import --data-dir "$data" "$target"/images/{pause,testtool,redis,redis-slave}.tar >/dev/null
for file in examples/redis/redis-master.yaml examples/redis/redis-slave-rc.yaml; do
    # What the user has changed since, the number of slaves for one, is left as it is.
    xebec create -f "$file" 2>&1 | grep -v AlreadyExists || true
done
wait_for 120 "the replication of the slaves" example_runs

echo
xebec get pods -o wide
echo
replication | grep -E '^(role|connected_slaves|slave[0-9]+):'
cat <<END

The cluster runs; its log is $log. Next:

  $target/release/xebec scale --replicas=3 rc/ku8-redis-slave
  $target/release/xebec exec -it ku8-redis-master -- redis-cli
  KUBECONFIG=$KUBECONFIG kubectl get pods -w

make down ends it.
END

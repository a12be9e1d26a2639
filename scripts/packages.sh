#!/bin/bash
# Installs from Debian what the node runs and what building needs, where it is missing. Quick when nothing is.
set -eu
declare -A provides=(
    [containerd]=containerd [runc]=runc [nft]=nftables [iptables]=iptables [conntrack]=conntrack
    [ip]=iproute2 [mount]=mount [nsenter]=util-linux [cc]=gcc [dpkg-deb]=dpkg
)
missing=()
PATH=$PATH:/usr/sbin:/sbin
for program in "${!provides[@]}"; do
    command -v "$program" >/dev/null || missing+=("${provides[$program]}")
done
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}; install these packages, or run as root on Debian" >&2
    exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }

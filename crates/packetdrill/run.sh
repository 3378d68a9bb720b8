#!/bin/bash
# Runs packetdrill's scripts against the stack and compares with expected.txt.
#
#   PACKETDRILL=/path/to/packetdrill/gtests/net crates/packetdrill/run.sh [-v] [script ...]
#
# PACKETDRILL is the folder of a google/packetdrill checkout in which packetdrill was built (docs/packetdrill.md). Scripts are
# named as in expected.txt, or as in scripts/ here (own/NAME.pkt), which are expected to pass; without any, all of it is run. -v shows what packetdrill says about each script that fails.
# IP_VERSION is ipv4, ipv6 or ipv4-mapped-ipv6 (default: ipv4); the outcomes are the same.
# Each script runs in a network namespace of its own, for the sysctls that it sets; so this needs root.
#
# Exit status: 0 if every outcome is as expected, 1 if not.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
suite=$(cd "${PACKETDRILL:?set it to the folder gtests/net of a packetdrill checkout}" && pwd)
[ "$(id -u)" = 0 ] || { echo "$0: needs root, for network namespaces" >&2; exit 1; }
verbose=
[ "${1-}" != -v ] || { verbose=1; shift; }

(cd "$here" && cargo build --quiet)
object=$(cd "$here/../.." && pwd)
object=${CARGO_TARGET_DIR:-$object/target}/debug/libsockshim_packetdrill.so
case ${IP_VERSION:=ipv4} in
    ipv6) addresses="--mtu=1520 --local_ip=fd3d:a0b:17d6::1 --gateway_ip=fd3d:a0b:17d6:8888::1 --remote_ip=fd3d:fa7b:d17d::1
        --so_flags=local=fd3d:a0b:17d6::1,mtu=1520" ;;
    *) addresses="--local_ip=192.168.0.1 --gateway_ip=192.168.0.1 --netmask_ip=255.255.0.0 --remote_ip=192.0.2.1
        --so_flags=local=192.168.0.1" ;;
esac
own=$here/scripts
export IP_VERSION addresses object suite own
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# In the namespace: tun0 is there for the commands that configure it, and nothing uses it. The addresses are those
# of packetdrill's own run_all.py. A script that writes to /sys finds a copy of what it expects there.
run() {
    unshare --net --mount bash -euc '
        ip tuntap add dev tun0 mode tun
        ip link set dev lo up
        ip link set dev tun0 up
        case $1 in own/*) cd "$own" ;; *) cd "$suite/$(dirname "$1")" ;; esac
        if [ -d /sys/module/tcp_cubic/parameters ]; then
            mount -t tmpfs none /sys/module/tcp_cubic/parameters
        fi
        LD_PRELOAD=$object exec timeout 60 "$suite/packetdrill/packetdrill" --send_omit_free --ip_version=$IP_VERSION \
            $addresses --so_filename="$object" "$(basename "$1")"
    ' run "$1"
}

passed=0 failed=0 surprises=0
while read -r expected script reason; do
    case $expected in pass | differs | unsupported) ;; *) continue ;; esac
    if [ $# -gt 0 ] && [[ " $* " != *" $script "* ]]; then continue; fi
    [ $expected != unsupported ] || { echo "skipped $script: $reason"; continue; }
    if run "$script" >"$output" 2>&1; then
        outcome=pass
        passed=$((passed + 1))
    else
        outcome=differs
        failed=$((failed + 1))
    fi
    note=
    if [ $outcome != $expected ]; then
        note=" (expected: $expected)"
        surprises=$((surprises + 1))
    fi
    echo "$outcome $script$note"
    if [ $outcome = differs ] && [ -n "$verbose" ]; then sed 's/^/    /' "$output"; fi
done < <(cat "$here/expected.txt"; cd "$own"; printf 'pass own/%s\n' *.pkt)
echo "$surprises not as expected"
echo "$passed passed, $failed failed"
[ $surprises = 0 ]

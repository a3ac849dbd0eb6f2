#!/usr/bin/env bash
# Runs the tests that need a machine's privileges (test binary `machines`), in namespaces of their own: no network, mount or
# address that they make is ever seen outside.
#   --can-run: ends with 0 if this machine can run them   --why-not: says why it cannot   --left-out: names those of them that it
#   cannot run, with the reason
set -euo pipefail
cd "$(dirname "$0")/.."
# Where ip is, on some systems, for root only.
PATH="$PATH:/usr/sbin:/sbin"

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(--user --map-root-user)
inside() { unshare "${as_root[@]}" --mount --net "$0" "$@"; }

# The following two run inside.
set_up() {
  ip link set lo up
  # For the names that `ip netns` gives. Over all of /run: to make a missing /run/netns would be seen outside, and no
  # ordinary user may. The socket of a Docker engine is out of sight as well, whose containers cannot be reached from here.
  mount -t tmpfs tmpfs /run
  mkdir /run/netns
}
probe() {
  set_up
  ip netns add probe
  ip link add name probe-net address 02:00:00:00:00:01 type bridge
  ip link add name probe-link type veth peer name inner netns probe
  ip link set probe-link master probe-net up
  ip netns exec probe true
}
# How a storage that folds case can be mounted here: by the system, or by a program; nothing if neither can.
folding_storage() {
  local kind place
  place=$(mktemp -d)
  for kind in vfat exfat-fuse; do
    rm -f "$place/image"
    truncate -s 32M "$place/image"
    mkdir -p "$place/root"
    if "mkfs.${kind%-fuse}" "$place/image" && mount -t "$kind" -o loop "$place/image" "$place/root"; then
      umount "$place/root"
      echo "$kind" >&3
      break
    fi
  done 3>&1 >/dev/null 2>&1
  rm -r "$place"
}
case "${1:-}" in
  --probe-inside) probe; exit ;;
  --folding-inside) folding_storage; exit ;;
  --run-inside)
    set_up
    shift
    export IMGQ_TEST_INSIDE_NAMESPACES=1
    IMGQ_TEST_FOLDING_STORAGE=$(folding_storage)
    export IMGQ_TEST_FOLDING_STORAGE
    [ -n "$IMGQ_TEST_FOLDING_STORAGE" ] || set -- "$@" --skip storage_that_folds_case
    exec cargo test --package tests --locked --features machines --test machines -- "$@" ;;
esac

why_not() {
  scripts/ensure-fault-tools.sh
  command -v ip >/dev/null 2>&1 || { echo "there is no ip (iproute2)"; return; }
  command -v unshare >/dev/null 2>&1 || { echo "there is no unshare (util-linux)"; return; }
  command -v strace >/dev/null 2>&1 || { echo "there is no strace"; return; }
  command -v faketime >/dev/null 2>&1 || { echo "there is no libfaketime (faketime)"; return; }
  local why
  why=$(inside --probe-inside 2>&1) || echo "namespaces with networks and mounts are not allowed (${why##*$'\n'})"
}
case "${1:-}" in
  --why-not) why_not; exit 0 ;;
  --can-run) [ -z "$(why_not)" ]; exit ;;
  --left-out)
    [ -n "$(inside --folding-inside)" ] || echo "storage that folds case: neither vfat (dosfstools) nor exFAT (exfat-fuse, exfatprogs) can be mounted"
    exit ;;
esac

why=$(why_not)
[ -z "$why" ] || { echo "error: the tests cannot run here: $why" >&2; exit 1; }
scripts/ensure-redis.sh
# All that is built is built out here, where there is a network; as the tests themselves build it.
cargo build --package producer --package worker --package tests --bins --locked
cargo test --package tests --locked --features machines --test machines --no-run
inside --run-inside "$@"

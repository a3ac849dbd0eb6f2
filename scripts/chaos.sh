#!/usr/bin/env bash
# The chaos suite: kills, freezes, partitions, rollbacks, full disks and wrong clocks, mixed by a seed; at the end nothing may
# be lost, doubled or torn. docs/reliability.md says what is checked.
#
#   scripts/chaos.sh                       the long run: 100,000 jobs, 200 kills, every other fault 5 times (about 7 minutes)
#   scripts/chaos.sh --short               what the tests run: 8,000 jobs, 15 kills, every other fault once or more
#   scripts/chaos.sh --soak                150,000 jobs of 30 hosts with bad periods, two producers that overlap
#   scripts/chaos.sh --seed 7              a run again
#   scripts/chaos.sh --recovery 60         how fast the jobs of a killed worker run elsewhere
#   scripts/chaos.sh --help                the rest
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=()
for argument in "$@"; do
  case "$argument" in
    --short) arguments+=(--jobs 8000 --kills 15 --each 1 --workers 4 --seconds 75) ;;
    --soak) arguments+=(--jobs 150000 --hosts 30 --kills 100 --each 3 --seconds 480) ;;
    *) arguments+=("$argument") ;;
  esac
done

scripts/ensure-redis.sh
scripts/ensure-fault-tools.sh
profile=${IMGQ_CHAOS_PROFILE:-release}
build=(cargo build --locked --package producer --package worker --package tests --bins)
[ "$profile" = release ] && build+=(--release)
"${build[@]}"
target=${CARGO_TARGET_DIR:-target}/$profile

# Mounts of its own, so that a storage can be taken away without anybody else noticing. An ordinary user gets them where user
# namespaces are allowed; else those faults are left out, and named as not injected.
own_mounts=(unshare --mount --propagation private)
[ "$(id -u)" -eq 0 ] || own_mounts=(unshare --user --map-root-user --mount --propagation private)
"${own_mounts[@]}" true 2>/dev/null || own_mounts=()
[ ${#own_mounts[@]} -gt 0 ] || exec "$target/chaos" "${arguments[@]}"
# In memory: on a slow disk Redis postpones what it writes (see docs/reliability.md), and a SIGKILL would be a rollback that
# nobody counted.
folder=$(mktemp -d)
trap 'rmdir "$folder"' EXIT
"${own_mounts[@]}" sh -c 'mount -t tmpfs tmpfs "$1" && export TMPDIR="$1" && shift && exec "$@"' sh "$folder" "$target/chaos" "${arguments[@]}"

#!/usr/bin/env bash
# Runs the wire suite several times in a row while every core is kept busy by something else, as a test that shows causes passes then
# too, and one that counts on a quick machine does not. Ends with 1 at the first run that fails, and says which tests failed.
#   scripts/wire-under-load.sh [--times N] [FILTER...]     five times, all wire tests
set -euo pipefail
cd "$(dirname "$0")/.."
times=5
filters=()
while [ $# -gt 0 ]; do
  case "$1" in
    --times) times=${2:?--times needs a number}; shift ;;
    -*) echo "error: unknown option $1: use --times N, and names of tests" >&2; exit 2 ;;
    *) filters+=("$1") ;;
  esac
  shift
done
scripts/ensure-redis.sh
# Built before anything is kept busy: what is tried are the tests.
cargo build --workspace --bins --locked
cargo test --package tests --locked --test wire --no-run

busy=()
report=$(mktemp)
stop() {
  for pid in "${busy[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -f "$report"
}
trap stop EXIT
for _ in $(seq "$(nproc)"); do
  # A loop of its own for each core, at the same priority as the tests.
  (while :; do :; done) &
  busy+=($!)
done
for run in $(seq "$times"); do
  begun=$(date +%s)
  if ! cargo test --package tests --locked --test wire -- ${filters[@]+"${filters[@]}"} >"$report" 2>&1; then
    grep -E '^test .* FAILED$|panicked at|^test result' "$report" || tail -20 "$report"
    kept=$(mktemp "${TMPDIR:-/tmp}/wire-under-load.XXXXXX")
    cp "$report" "$kept"
    echo "run $run of $times failed after $(($(date +%s) - begun)) s; its whole output is in $kept" >&2
    exit 1
  fi
  echo "run $run of $times: $(grep '^test result' "$report") ($(($(date +%s) - begun)) s)"
done

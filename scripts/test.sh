#!/usr/bin/env bash
# Sets up what the tests need, and runs them all: format, lints, whether the fuzz targets compile, the compose file where a Docker engine answers, the tests that
# need namespaces where these are allowed, those in a browser, unit tests, alerts and Grafana's queries against a live Prometheus, the chaos
# suite for two minutes, then the end-to-end tests. The last lines are cargo's own.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s\n' "$*"; }

step "redis-server"
scripts/ensure-redis.sh
command -v redis-server || command -v valkey-server

step "format"
cargo fmt --all -- --check
step "lints"
cargo clippy --workspace --all-targets --features tests/machines,tests/browser --locked -- -D warnings

not_run=()
step "fuzz targets"
if command -v c++ >/dev/null 2>&1; then
  scripts/fuzz.sh --check
else
  not_run+=("scripts/fuzz.sh --check (fuzz targets): there is no c++, which libFuzzer is compiled with")
fi

step "compose"
if scripts/compose-test.sh --can-run; then
  scripts/compose-test.sh
else
  not_run+=("scripts/compose-test.sh (the compose file): $(scripts/compose-test.sh --why-not)")
fi

step "machines"
if scripts/machines-test.sh --can-run; then
  scripts/machines-test.sh
  left_out=$(scripts/machines-test.sh --left-out)
  [ -z "$left_out" ] || not_run+=("of scripts/machines-test.sh: $left_out")
else
  not_run+=("scripts/machines-test.sh (hosts, mounts and clocks of their own): $(scripts/machines-test.sh --why-not)")
fi

step "browser"
if scripts/browser-test.sh --can-run; then
  scripts/browser-test.sh
else
  not_run+=("scripts/browser-test.sh (the dashboard in Chromium): $(scripts/browser-test.sh --why-not)")
fi

step "tests"
cargo build --workspace --all-targets --locked
cargo test --workspace --locked --lib --bins

step "observability"
if scripts/observability-test.sh --can-run; then
  IMGQ_PROGRAMS="${CARGO_TARGET_DIR:-target}/debug" scripts/observability-test.sh
  left_out=$(scripts/observability-test.sh --left-out)
  [ -z "$left_out" ] || not_run+=("of scripts/observability-test.sh: $left_out")
else
  not_run+=("scripts/observability-test.sh (alerts and Grafana's queries): $(scripts/observability-test.sh --why-not)")
fi

step "chaos"
# Always the same schedule, so that a failure is a change's doing; scripts/chaos.sh alone draws a new one each time.
chaos_report=$(mktemp)
trap 'rm -f "$chaos_report"' EXIT
IMGQ_CHAOS_PROFILE=debug scripts/chaos.sh --short --seed 1 | tee "$chaos_report"
if grep -q "NOT INJECTED" "$chaos_report"; then
  not_run+=("faults of the chaos suite that this machine cannot make: $(sed -n 's/.*NOT INJECTED: //p' "$chaos_report")")
fi
for what in "${not_run[@]}"; do printf '\nNOT RUN: %s\n' "$what"; done
# Last, so that what cargo sums up last is what crosses a wire.
cargo test --package tests --locked --test wire

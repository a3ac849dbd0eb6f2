#!/usr/bin/env bash
# Builds the fuzz targets below fuzz/ with libFuzzer's instrumentation and runs them, each for a while; the corpus stays in target/fuzz
# and is gone on from. Ends with 1 if one of them found something. Needs a C++ compiler for libFuzzer itself, and no nightly toolchain.
#   scripts/fuzz.sh [--seconds N] [TARGET...]     600 seconds each, all targets
#   scripts/fuzz.sh --check                       only sees whether they compile
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=600
targets=()
while [ $# -gt 0 ]; do
  case "$1" in
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --check) exec cargo check --manifest-path fuzz/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}" --locked ;;
    -*) echo "error: unknown option $1: use --seconds N, --check, and names of targets" >&2; exit 2 ;;
    *)
      [ -f "fuzz/fuzz_targets/$1.rs" ] || { echo "error: there is no target $1: there are $(cd fuzz/fuzz_targets && echo *.rs)" >&2; exit 2; }
      targets+=("$1") ;;
  esac
  shift
done
if [ ${#targets[@]} -eq 0 ]; then
  for source in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$source" .rs)"); done
fi
command -v c++ >/dev/null 2>&1 || { echo "error: there is no c++, which libFuzzer is compiled with" >&2; echo "hint: install a C++ compiler, as in apt-get install g++" >&2; exit 1; }

folder="${CARGO_TARGET_DIR:-target}/fuzz"
host=$(rustc -vV | sed -n 's/^host: //p')
# Not the address sanitizer, which needs a standard library of its own: our code and most of what it calls has nothing unsafe.
# The pass is LLVM's name for what cargo-fuzz switches on; the compiler takes it on any toolchain that is told to.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing" \
  cargo build --manifest-path fuzz/Cargo.toml --target-dir "$folder" --release --target "$host" --locked

found=0
report=()
for target in "${targets[@]}"; do
  corpus="$folder/corpus/$target" findings="$folder/findings/$target" log="$folder/$target.log"
  mkdir -p "$corpus" "$findings"
  printf '\n== %s, %s s\n' "$target" "$seconds"
  result="no finding"
  # An input takes microseconds: 5 s is a loop without end, 1 GB memory without bound.
  if ! "$folder/$host/release/$target" "$corpus" -dict="fuzz/dictionaries/$target.dict" -artifact_prefix="$findings/" \
    -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=1024 -timeout=5 -print_final_stats=1 >"$log" 2>&1; then
    found=1
    result="FOUND: $(ls -t "$findings" | head -n 1) in $findings, told in $log"
    tail -n 30 "$log"
  fi
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\) corp: \([0-9]*\).*/\1 edges, \2 features, \3 inputs kept/p' "$log" | tail -n 1)
  report+=("$target: ${executions:-?} executions; ${coverage:-no coverage}; $result")
done
printf '\n'
printf '%s\n' "${report[@]}"
exit $found

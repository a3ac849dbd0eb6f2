#!/usr/bin/env bash
# Measures imgq: against curl --parallel, wget2, aria2c, img2dataset and Python's Pool(8), in turn, and each promise about
# speed by itself; prints tables of ratios, and PASS or short beside each goal. What is not installed is left out.
# See scripts/bench.sh --help; docs/performance.md has the figures.
#
#   scripts/bench.sh                                                   everything but profile (about 16 minutes)
#   scripts/bench.sh small --divide 10 --rounds 3 --tools imgq,curl    a quick look
#   scripts/bench.sh --setup                                           installs img2dataset below target/, then as above
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-redis.sh
command -v python3 >/dev/null || { echo "error: python3 is missing" >&2; echo "hint: it drives the benchmark; install it with the system's package manager" >&2; exit 1; }
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || { echo "error: nginx is missing" >&2; echo "hint: it serves the files; Debian: apt-get install nginx-light" >&2; exit 1; }
target=${CARGO_TARGET_DIR:-target}
options=()
if [ "${1:-}" = --setup ]; then
  shift
  # Only where it can be had; the others are measured without it.
  [ -x "$target/img2dataset/bin/img2dataset" ] || { python3 -m venv "$target/img2dataset" && "$target/img2dataset/bin/pip" install --quiet img2dataset; } >&2 ||
    echo "note: img2dataset could not be installed, and is left out" >&2
fi
[ -x "$target/img2dataset/bin/img2dataset" ] && options+=(--img2dataset "$target/img2dataset/bin/img2dataset")
case " $* " in
  *" --programs "* | *" --programs="* | *" --help "* | *" -h "*) ;;
  *)
    cargo build --release --locked --package producer --package worker --package tests --bins --no-default-features >&2
    options+=(--programs "$target/release")
    ;;
esac
exec python3 -B scripts/bench/bench.py "${options[@]}" "$@"

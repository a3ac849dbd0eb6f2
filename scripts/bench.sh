#!/usr/bin/env bash
# Measures imgq against curl --parallel, wget2, aria2c, img2dataset and Python's Pool(8), in turn, and prints tables of ratios.
# What is not installed is left out. See scripts/bench.sh --help; docs/performance.md has the figures.
#
#   scripts/bench.sh                    small, web and large files, five rounds (about ten minutes)
#   scripts/bench.sh small --divide 10 --rounds 3 --tools imgq,curl
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-redis.sh
command -v python3 >/dev/null || { echo "error: python3 is missing" >&2; echo "hint: it drives the benchmark; install it with the system's package manager" >&2; exit 1; }
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || { echo "error: nginx is missing" >&2; echo "hint: it serves the files; Debian: apt-get install nginx-light" >&2; exit 1; }
case " $* " in *" --programs "*|*" --help "*|*" -h "*) ;; *) cargo build --release --locked --package producer --package worker >&2 ;; esac
exec python3 scripts/bench/bench.py "$@"

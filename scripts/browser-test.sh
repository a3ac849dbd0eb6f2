#!/usr/bin/env bash
# Runs the tests of the dashboard in a real Chromium (test binary `browser`). With IMGQ_SCREENSHOTS=docs/images the pictures of the
# README are taken anew.
#   --can-run: ends with 0 if this machine can run them   --why-not: says why it cannot
set -euo pipefail
cd "$(dirname "$0")/.."

why_not() {
  scripts/ensure-browser.sh
  local browser found=
  for browser in "${IMGQ_TEST_BROWSER:-}" chromium chromium-browser google-chrome; do
    [ -n "$browser" ] && command -v "$browser" >/dev/null 2>&1 && { found=$browser; break; }
  done
  [ -n "$found" ] || { echo "there is no Chromium (chromium)"; return; }
  local sandbox=() profile why
  [ "$(id -u)" -eq 0 ] && sandbox=(--no-sandbox)
  profile=$(mktemp -d)
  why=$(timeout 60 "$found" --headless=new --disable-gpu --disable-dev-shm-usage "${sandbox[@]}" --user-data-dir="$profile" --dump-dom about:blank 2>&1) \
    || echo "$found does not start (${why##*$'\n'})"
  rm -rf "$profile"
}
case "${1:-}" in
  --why-not) why_not; exit 0 ;;
  --can-run) [ -z "$(why_not)" ]; exit ;;
esac

why=$(why_not)
[ -z "$why" ] || { echo "error: the tests cannot run here: $why" >&2; exit 1; }
scripts/ensure-redis.sh
if [ -n "${IMGQ_SCREENSHOTS:-}" ]; then
  mkdir -p "$IMGQ_SCREENSHOTS"
  IMGQ_SCREENSHOTS=$(realpath "$IMGQ_SCREENSHOTS")
  export IMGQ_SCREENSHOTS
fi
# One at a time: a browser takes as much of a machine as all that it looks at.
exec cargo test --package tests --locked --features browser --test browser -- --test-threads=1 "$@"

#!/usr/bin/env bash
# Installs Chromium, in which the dashboard is tested, where that can be done. Without it those tests are left out, and that is said.
set -euo pipefail
for browser in "${IMGQ_TEST_BROWSER:-}" chromium chromium-browser google-chrome; do
  [ -n "$browser" ] && command -v "$browser" >/dev/null 2>&1 && exit 0
done
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 && as_root=(sudo -n)
fi
if command -v apt-get >/dev/null 2>&1; then
  echo "installing chromium, in which the dashboard is tested" >&2
  { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >&2 \
    || echo "note: chromium could not be installed; the tests in a browser are left out" >&2
else
  echo "note: chromium not found; the tests in a browser are left out" >&2
fi

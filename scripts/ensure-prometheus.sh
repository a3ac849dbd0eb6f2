#!/usr/bin/env bash
# Installs promtool and prometheus, which check the alerts and the dashboard, where that can be done (Debian's package
# `prometheus` has both). Without them that check is left out, and named.
set -euo pipefail
command -v promtool >/dev/null 2>&1 && exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 && as_root=(sudo -n)
fi
if command -v apt-get >/dev/null 2>&1; then
  echo "installing prometheus, which checks alerts" >&2
  # policy-rc.d keeps the package from starting servers of its own: nobody asked for one.
  policy=/usr/sbin/policy-rc.d
  made_policy=
  if [ ! -e "$policy" ] && printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null 2>&1; then
    "${as_root[@]}" chmod +x "$policy"; made_policy=1
  fi
  { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus; } >&2 \
    || echo "note: prometheus could not be installed" >&2
  [ -n "$made_policy" ] && "${as_root[@]}" rm -f "$policy"
else
  echo "note: promtool not found" >&2
fi
exit 0

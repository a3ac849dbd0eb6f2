#!/usr/bin/env bash
# Makes sure that a redis-server program is on this machine, with the system's package manager.
# Ends with 1, and says what to do, when that cannot be done.
set -euo pipefail

found() { command -v redis-server >/dev/null 2>&1 || command -v valkey-server >/dev/null 2>&1 || [ -x /usr/sbin/redis-server ]; }
found && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 && as_root=(sudo)
fi
echo "redis-server is missing; installing it" >&2
if command -v apt-get >/dev/null 2>&1; then
  # policy-rc.d keeps the package from starting a server of its own: nobody asked for one.
  policy=/usr/sbin/policy-rc.d
  made_policy=
  if [ ! -e "$policy" ] && printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null 2>&1; then
    "${as_root[@]}" chmod +x "$policy"; made_policy=1
  fi
  { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server; } >&2 || true
  [ -n "$made_policy" ] && "${as_root[@]}" rm -f "$policy"
elif command -v dnf >/dev/null 2>&1; then "${as_root[@]}" dnf install -y redis >&2 || "${as_root[@]}" dnf install -y valkey >&2 || true
elif command -v apk >/dev/null 2>&1; then "${as_root[@]}" apk add redis >&2 || true
elif command -v pacman >/dev/null 2>&1; then "${as_root[@]}" pacman -S --noconfirm valkey >&2 || true
elif command -v zypper >/dev/null 2>&1; then "${as_root[@]}" zypper install -y redis >&2 || true
elif command -v brew >/dev/null 2>&1; then brew install redis >&2 || true
fi
found && exit 0
echo "error: redis-server could not be installed" >&2
echo "hint: install Redis 7.0 or newer (or Valkey) by hand, so that redis-server is in the PATH" >&2
exit 1

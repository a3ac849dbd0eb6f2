#!/usr/bin/env bash
# Installs the tools that some faults are made with, where that can be done: strace (slow storage), libfaketime (wrong clocks),
# iproute2 and util-linux (hosts and mounts of their own). Without one of them its faults are left out, and named.
set -euo pipefail
missing=()
command -v strace >/dev/null 2>&1 || missing+=(strace)
command -v faketime >/dev/null 2>&1 || missing+=(faketime)
command -v ip >/dev/null 2>&1 || [ -x /usr/sbin/ip ] || missing+=(iproute2)
command -v unshare >/dev/null 2>&1 || missing+=(util-linux)
[ ${#missing[@]} -eq 0 ] && exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 && as_root=(sudo -n)
fi
if command -v apt-get >/dev/null 2>&1; then
  echo "installing ${missing[*]}, which make faults" >&2
  { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2 \
    || echo "note: ${missing[*]} could not be installed; their faults are left out" >&2
else
  echo "note: ${missing[*]} not found; their faults are left out" >&2
fi

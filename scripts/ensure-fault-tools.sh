#!/usr/bin/env bash
# Installs the tools that some faults are made with, where that can be done: strace (slow storage), libfaketime (wrong clocks),
# iproute2 and util-linux (hosts and mounts of their own), dosfstools, exfatprogs and exfat-fuse (storages that fold case; the last
# two where the system has no vfat). Without one of them its faults are left out, and named.
set -euo pipefail
missing=()
command -v strace >/dev/null 2>&1 || missing+=(strace)
command -v faketime >/dev/null 2>&1 || missing+=(faketime)
command -v ip >/dev/null 2>&1 || [ -x /usr/sbin/ip ] || missing+=(iproute2)
command -v unshare >/dev/null 2>&1 || missing+=(util-linux)
PATH="$PATH:/usr/sbin:/sbin"
if grep -qw vfat /proc/filesystems || modprobe --dry-run vfat 2>/dev/null; then
  command -v mkfs.vfat >/dev/null 2>&1 || missing+=(dosfstools)
else
  command -v mkfs.exfat >/dev/null 2>&1 || missing+=(exfatprogs)
  command -v mount.exfat-fuse >/dev/null 2>&1 || missing+=(exfat-fuse)
fi
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

#!/usr/bin/env bash
# Whether pyarrow reads what `producer results --format parquet` writes, which the tests read with the library that wrote it:
# 20,000 results, so that there is more than one row group. It needs python3 with venv, and installs pyarrow below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-redis.sh
target=${CARGO_TARGET_DIR:-target}
producer=${1:-$target/release/producer}
[ -x "$producer" ] || { echo "error: there is no $producer" >&2; echo "hint: cargo build --release, or name the program" >&2; exit 1; }
[ -x "$target/pyarrow/bin/python" ] || { python3 -m venv "$target/pyarrow" && "$target/pyarrow/bin/pip" install --quiet pyarrow; } >&2
work=$(mktemp -d)
redis-server --port 0 --unixsocket "$work/redis.sock" --save "" --dir "$work" --daemonize no > "$work/redis.log" &
redis=$!
trap 'kill "$redis"; wait "$redis" 2>/dev/null || true; rm -rf "$work"' EXIT
until redis-cli -s "$work/redis.sock" PING > "$work/ping" 2>&1 && grep -q PONG "$work/ping"; do :; done
redis-cli -s "$work/redis.sock" EVAL "
  for n = 1, 20000 do
    if n % 10 == 0 then
      redis.call('XADD', KEYS[1], '*', 'id', n, 'url', 'https://x.org/ä?' .. n, 'outcome', 'failed', 'reason', 'dns', 'attempts', 5)
    else
      redis.call('XADD', KEYS[1], '*', 'id', n, 'url', 'https://x.org/' .. n, 'outcome', 'stored', 'key', n .. '.jpg', 'bytes', n * 1000000,
        'sha256', string.rep('ab', 32), 'type', 'jpeg', 'width', 800, 'height', 600, 'status', 200, 'attempts', 1, 'ms', 12)
    end
  end" 1 'imgq:{default}:results' > "$work/filled"
REDIS_URL="unix://$work/redis.sock" "$producer" results --format parquet --output "$work/results.parquet"
"$target/pyarrow/bin/python" - "$work/results.parquet" <<'PYTHON'
import sys

import pyarrow
import pyarrow.compute
import pyarrow.parquet

table = pyarrow.parquet.read_table(sys.argv[1])
groups = pyarrow.parquet.ParquetFile(sys.argv[1]).num_row_groups
rows = table.to_pylist()
assert (len(rows), groups) == (20000, 2), (len(rows), groups)
kinds = {name: str(table.schema.field(name).type) for name in ["time", "url", "bytes", "status"]}
assert kinds == {"time": "timestamp[ms, tz=UTC]", "url": "string", "bytes": "uint64", "status": "uint64"}, kinds
assert rows[9]["url"] == "https://x.org/ä?10" and rows[9]["reason"] == "dns" and rows[9]["bytes"] is None, rows[9]
assert rows[19998]["bytes"] == 19999 * 10**6 and rows[0]["width"] == 800 and rows[0]["reason"] is None, rows[19998]
stored = table.filter(pyarrow.compute.equal(table["outcome"], "stored"))
assert stored.num_rows == 18000
print(f"pyarrow {pyarrow.__version__} reads {len(rows):,} rows in {groups} groups, as they were written")
PYTHON

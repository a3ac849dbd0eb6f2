"""What looking costs: status, on a long queue with many workers and many results behind it."""

import json
import os
import re
import statistics
import subprocess
import sys
import time

from comparison import spread
from goals import MOST, table
from machine import Redis, cpu_seconds

PREFIX = "imgq:{default}:"
# Jobs and results are made inside Redis, some thousands in a call: to send them would take longer than all else.
FILL_READY = """
local jobs = {}
for n = ARGV[1], ARGV[2] - 1 do
  jobs[#jobs + 1] = string.format('{"id":"5f1d3c2ab4e080008%015x","url":"http://img.example/photos/2024/%08d.jpg"}', n, n)
end
for from = 1, #jobs, 1000 do redis.call('RPUSH', KEYS[1], unpack(jobs, from, math.min(from + 999, #jobs))) end
"""
FILL_RESULTS = """
for n = ARGV[1], ARGV[2] - 1 do
  redis.call('XADD', KEYS[1], '*', 'id', string.format('5f1d3c2ab4e080008%015x', n), 'url',
    string.format('http://img.example/photos/2024/%08d.jpg', n), 'outcome', 'stored', 'key', n .. '.jpg', 'bytes', 65000,
    'sha256', string.rep('ab', 32), 'type', 'jpeg', 'width', 800, 'height', 600, 'status', 200, 'attempts', 1, 'worker',
    'host-1-0123abcd', 'ms', 80, 'batch', '5f1d3c2ab4e0')
end
"""
# What a worker tells of itself, and what it holds.
FILL_WORKERS = """
local now = redis.call('TIME')[1] * 1000
for n = 1, tonumber(ARGV[1]) do
  local name = string.format('host%04d-%d-0123abcd', n, n)
  local hosts = {}
  for h = 1, 10 do hosts[h] = string.format('["img%d.example.com",12.34,6,0.01]', h) end
  redis.call('ZADD', KEYS[1], now + 3600000, name)
  redis.call('HSET', KEYS[2] .. name, 'host', 'host' .. n, 'pid', n, 'version', '0.1.0', 'started', now, 'seen', now, 'rate', '123.4',
    'done', 100000, 'claim', 1000, 'waiting', '', 'hosts', '[' .. table.concat(hosts, ',') .. ']', 'timings',
    'body 12.3 connect 1.2 first_byte 3.4 lookup 0.1 store 0.2 total 20.1')
  for job = 1, 64 do
    redis.call('HSET', KEYS[3] .. name, '1000.' .. job, '{"id":"5f1d3c2ab4e08000","url":"http://img.example/photos/1.jpg"}')
  end
end
"""


def fill(redis, script, keys, total, step):
    for first in range(0, total, step):
        redis.ask("EVAL", script, len(keys), *keys, first, min(first + step, total))


def in_commands(redis):
    """Microseconds in commands. A transaction's own time holds that of the commands in it, so that only these are counted."""
    found = re.findall(r"cmdstat_(\S+):calls=\d+,usec=(\d+)", redis.ask("INFO", "commandstats"))
    return sum(int(usec) for name, usec in found if name not in ("exec", "info", "config|resetstat"))


def status(bench, part):
    """Status read by its own program, and what that costs Redis."""
    jobs, results = max(1000, 10_000_000 // bench.divide), max(1000, 1_000_000 // bench.divide)
    rows, figures = [], {}
    with Redis(bench.work) as redis:
        # The append-only file would lie in memory too, and says nothing about reading.
        redis.ask("CONFIG", "SET", "appendonly", "no")
        fill(redis, FILL_READY, [PREFIX + "ready"], jobs, 20_000)
        fill(redis, FILL_RESULTS, [PREFIX + "results"], results, 5_000)
        for workers in (1, 100, 1000):
            redis.ask("DEL", PREFIX + "workers")
            redis.ask("EVAL", FILL_WORKERS, 3, PREFIX + "workers", PREFIX + "worker:", PREFIX + "inflight:", workers)
            times, command_ms, cpu_ms = read_often(bench, redis, jobs, results, workers)
            rows.append([f"{workers:,}", spread(times, 1), f"{max(times):.1f}", f"{command_ms:.2f}", f"{cpu_ms:.2f}"])
            figures[workers] = {"ms": times, "command_ms": command_ms, "cpu_ms": cpu_ms}
            print(f"  status: {workers} workers: {spread(times, 1)} ms", file=sys.stderr)
    what = f"status of {jobs:,} jobs, {results:,} results and 1,000 workers"
    kept = bench.goals.check(part, what, statistics.median(figures[1000]["ms"]), MOST, 50, " ms", 1)
    cost = bench.goals.check(part, "Redis' time for one of them", figures[1000]["command_ms"], MOST, 5, " ms")
    text = f"**status**: {jobs:,} jobs ready, {results:,} results, each worker with 64 jobs ({kept}; Redis' time {cost})\n\n"
    head = ["workers", "ms, the whole program", "at most", "ms in Redis' commands", "ms of Redis' CPU, network included"]
    return [(text + table(head, rows), {part: figures})]


def read_often(bench, redis, jobs, results, workers):
    """Milliseconds of each run of the program, and of Redis for one."""
    environment = dict(os.environ, REDIS_URL=redis.url, RUST_LOG="error")
    command = [bench.program("producer"), "status", "--json"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    redis.ask("CONFIG", "RESETSTAT")
    before, times = cpu_seconds(redis.process.pid), []
    # A process' CPU time is told in hundredths of a second: many reads, so that they show.
    reads = 100
    for _ in range(reads):
        started = time.monotonic()
        shown = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
        times.append((time.monotonic() - started) * 1000)
    cpu_ms = (cpu_seconds(redis.process.pid) - before) * 1000 / reads
    told = json.loads(shown)
    found = (told["ready"], told["results"], len(told["workers"]), told["in_flight"])
    if found != (jobs, results, workers, workers * 64):
        raise RuntimeError(f"status tells of {found}")
    return times, in_commands(redis) / 1000 / reads, cpu_ms

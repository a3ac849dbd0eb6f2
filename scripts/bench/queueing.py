"""The queue without downloads: queue, enqueue."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

from comparison import spread
from goals import LEAST, MOST, table
from machine import Redis, cpu_seconds, reap, run_and_wait, start
from peers import enqueue


def queue(bench, part):
    """Claims and settlements, results included, by workers that download nothing."""
    jobs = max(1000, 200_000 // bench.divide)
    list_file = bench.work / "queue.txt"
    list_file.write_text("".join(f"http://img.example/photos/2024/{n:08}.jpg\n" for n in range(jobs)))
    rows, figures, best = [], {}, 0.0
    # (processes, workers in each, jobs of one claim)
    shapes = [(1, 1, 64), (1, 1, 256), (2, 1, 128), (4, 1, 64)]
    for processes, workers, batch in shapes:
        rates, cpu = [], []
        for _ in range(min(3, bench.rounds)):
            # A server for each: its append-only file only grows, and lies in memory.
            with Redis(bench.work) as redis:
                rate, redis_cpu, _ = empty(bench, redis, list_file, jobs, processes, workers, batch)
            rates.append(rate)
            cpu.append(redis_cpu * 1e6 / jobs)
        shape = f"{processes} × {workers}, {batch} in a claim"
        print(f"  queue: {shape}: {spread(rates, 0)} jobs/s", file=sys.stderr)
        rows.append([shape, spread(rates, 0), spread(cpu, 1)])
        figures[shape] = {"rates": rates, "redis_us": cpu}
        best = max(best, statistics.median(rates))
    # Once more with claims and settlements apart, to say where the time goes.
    with Redis(bench.work) as redis:
        _, redis_cpu, done = empty(bench, redis, list_file, jobs, 1, 1, 128, "--apart")
        where = commands(redis, jobs)
    where.append(["Redis in all, network and append-only file included", "", f"{redis_cpu * 1e6 / jobs:.2f}"])
    where.append(["a claim, as its worker waits for it", "", f"{done['claiming'] * 1e6 / jobs:.2f}"])
    where.append(["a settlement, as its worker waits for it", "", f"{done['settling'] * 1e6 / jobs:.2f}"])
    verdict = bench.goals.check(part, "claims and settlements, the best shape", best, LEAST, 60_000, " jobs/s", 0)
    text = f"**queue**: {jobs:,} jobs claimed and settled at once, one Redis, no HTTP ({verdict})\n\n"
    text += table(["processes × workers", "jobs/s", "µs of Redis' CPU a job"], rows)
    text += "\n\nWhere the time goes, one worker, 128 in a claim, claims and settlements apart:\n\n"
    text += table(["what", "calls a job", "µs a job"], where)
    return [(text, {part: {**figures, "where": where}})]


def empty(bench, redis, list_file, jobs, processes, workers, batch, *options):
    """Fills the queue and empties it; jobs a second, CPU seconds of Redis, and what queue-bench says."""
    enqueue(bench, redis, list_file, "--no-dedup")
    redis.ask("CONFIG", "RESETSTAT")
    before = cpu_seconds(redis.process.pid)
    command = [bench.program("queue-bench"), "--workers", str(workers), "--batch", str(batch), *options]
    environment = dict(os.environ, REDIS_URL=redis.url)
    started = time.monotonic()
    running = [start(command, env=environment, stdout=subprocess.PIPE) for _ in range(processes)]
    said = [process.stdout.read() for process in running]
    for process in running:
        reap(process)
    seconds = time.monotonic() - started
    used = cpu_seconds(redis.process.pid) - before
    if not all(said):
        raise RuntimeError("queue-bench failed: try it by hand, it says why")
    said = [json.loads(text) for text in said]
    done = {name: sum(one[name] for one in said) for name in said[0]}
    if done["jobs"] != jobs or redis.results() != jobs:
        raise RuntimeError(f"{done['jobs']:,.0f} of {jobs:,} were settled, and {redis.results():,} results are there")
    return jobs / seconds, used, done


def commands(redis, jobs):
    """Redis' own account of its commands. The scripts' time (evalsha) includes that of the commands that they call."""
    found = re.findall(r"cmdstat_(\S+):calls=(\d+),usec=(\d+)", redis.ask("INFO", "commandstats"))
    rows = sorted(((name, int(calls) / jobs, int(usec) / jobs) for name, calls, usec in found), key=lambda row: -row[2])
    inner = sum(usec for name, _, usec in rows if name not in ("evalsha", "eval", "script|load", "config|resetstat", "info"))
    scripts = sum(usec for name, _, usec in rows if name in ("evalsha", "eval"))
    shown = [[f"`{name}`", f"{calls:.3f}", f"{usec:.2f}"] for name, calls, usec in rows if usec >= 0.02]
    return shown + [["the scripts without the commands that they call", "", f"{scripts - inner:.2f}"]]


def enqueueing(bench, part):
    """A million links, against what only pushes them. The goal is for the one with dedup."""
    links = max(1000, 1_000_000 // bench.divide)
    list_file = bench.work / "million.txt"
    list_file.write_text("".join(f"http://img.example/photos/2024/{n:08}.jpg\n" for n in range(links)))
    pushes = bench.work / "pushes.resp"
    with pushes.open("wb") as out:
        for n in range(links):
            job = b'{"id":"5f1d3c2ab4e08000%016x","url":"http://img.example/photos/2024/%08d.jpg"}' % (n, n)
            out.write(b"*3\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n$%d\r\n%s\r\n" % (len(job), job))
    rows, figures = [], {}
    ways = [
        ("producer enqueue", [bench.program("producer"), "enqueue", list_file], None),
        ("producer enqueue --no-dedup", [bench.program("producer"), "enqueue", list_file, "--no-dedup"], None),
    ]
    if shutil.which("redis-cli"):
        ways.append(("redis-cli --pipe, jobs made before", ["redis-cli", "--pipe", "-s"], pushes))
    for name, command, standard_input in ways:
        rates, peaks, cpu = [], [], []
        for _ in range(min(3, bench.rounds)):
            with Redis(bench.work) as redis:
                environment = dict(os.environ, REDIS_URL=redis.url, RUST_LOG="error")
                before = cpu_seconds(redis.process.pid)
                source = standard_input.open("rb") if standard_input else subprocess.DEVNULL
                run = run_and_wait([*command, redis.path] if standard_input else command, env=environment, stdin=source)
                found = redis.ask("LLEN", "l" if standard_input else "imgq:{default}:ready")
                if found != links:
                    raise RuntimeError(f"{name}: {found:,} of {links:,} are in the queue")
                rates.append(links / run.seconds)
                peaks.append(run.peak_kb / 1024)
                cpu.append((cpu_seconds(redis.process.pid) - before) * 1e6 / links)
        print(f"  enqueue: {name}: {spread(rates, 0)} links/s", file=sys.stderr)
        rows.append([name, spread(rates, 0), f"{max(peaks):.0f}", spread(cpu, 2)])
        figures[name] = {"rates": rates, "peak_mb": max(peaks), "redis_us": cpu}
    for file in [list_file, pushes]:
        file.unlink()
    pipe = figures.get("redis-cli --pipe, jobs made before")
    if pipe:
        for way, goal in [("producer enqueue", 0.6), ("producer enqueue --no-dedup", None)]:
            ratio = statistics.median(figures[way]["rates"]) / statistics.median(pipe["rates"])
            figures[way]["of_pipe"] = ratio
            if goal:
                bench.goals.check(part, f"`{way}`, as a share of redis-cli --pipe's speed", ratio, LEAST, goal)
    peak = figures["producer enqueue"]["peak_mb"]
    bench.goals.check(part, "peak memory of `producer enqueue`", peak, MOST, 48, " MB", 0)
    head = ["how", "links/s", "peak MB", "µs of Redis' CPU a link"]
    return [(f"**enqueue**: {links:,} links out of a list\n\n" + table(head, rows), {part: figures})]

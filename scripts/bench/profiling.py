"""Where the CPU of a worker goes: perf for its time, strace for its system calls."""

import os
import re
import shutil
import signal
import subprocess

from goals import table
from machine import Nginx, NotMeasured, Redis, start, stop, until
from peers import at_once, start_worker
from singles import fill


def profile(bench, name):
    corpus = bench.corpus(name)
    if not shutil.which("perf") and not shutil.which("strace"):
        raise NotMeasured("neither perf nor strace is here")
    text, figures = [f"**profile** of one worker, {name}, {bench.at_once} at once"], {}
    with Nginx(bench.corpora_folder, bench.work) as nginx, Redis(bench.work) as redis:
        base = f"http://127.0.0.1:{nginx.port}"

        def watched(watcher, times):
            """A worker with a watcher attached from its first moments, downloading the corpus so many times."""
            urls = [f"{url}?{turn}" for turn in range(times) for url in corpus.urls(base)]
            fill(bench, redis, urls)
            output = bench.work / "out"
            worker = start_worker(bench, redis, output, *at_once(bench.at_once))
            watching = start([*watcher, "-p", worker.pid])
            try:
                until(lambda: redis.results() >= len(urls), 600, "the worker", worker)
                ticks = [int(field) for field in open(f"/proc/{worker.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]]
            finally:
                stop(watching, signal.SIGINT)
                stop(worker)
                shutil.rmtree(output, ignore_errors=True)
            tick = os.sysconf("SC_CLK_TCK")
            return len(urls), ticks[0] / tick, ticks[1] / tick

        if shutil.which("perf"):
            data = bench.work / "perf.data"
            images, user, kernel = watched(["perf", "record", "-q", "-F", "999", "-o", data], 3)
            text.append(f"CPU ms an image: {user * 1000 / images:.3f} in the program, {kernel * 1000 / images:.3f} in the kernel "
                        f"({kernel / max(user + kernel, 1e-9):.0%})")  # fmt: skip
            figures["user_ms"], figures["kernel_ms"] = user * 1000 / images, kernel * 1000 / images
            for title, keys, most in [("thread", "comm", 8), ("where", "sym", 30)]:
                rows = report(data, keys)[:most]
                text.append(table([title, "share"], [[f"`{what}`", share] for share, what in rows]))
                figures[title] = rows
        if shutil.which("strace"):
            summary = bench.work / "strace.txt"
            images, _, _ = watched(["strace", "-c", "-f", "-o", summary], 1)
            rows = calls(summary.read_text(), images)
            text.append("System calls (strace makes all slower, and batches larger than they are otherwise):")
            text.append(table(["call", "an image"], [[f"`{call}`", f"{count:.3f}"] for call, count in rows[:20]]))
            figures["calls"] = rows
    return [("\n\n".join(text), {f"profile {name}": figures})]


def report(data, keys):
    """What perf found, largest first."""
    command = ["perf", "report", "-i", data, "--stdio", "-q", "--sort", keys, "-F", f"overhead,{keys}"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    found = [re.match(r"\s*([\d.]+%)\s+(.*\S)", line) for line in lines]
    # With fields of one's own choice perf sorts by the last.
    return sorted(((match[1], match[2]) for match in found if match), key=lambda row: -float(row[0].rstrip("%")))


def calls(text, images):
    rows = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[0].replace(".", "").isdigit() and fields[-1] != "total":
            rows.append((fields[-1], int(fields[3]) / images))
    return sorted(rows, key=lambda row: -row[1])

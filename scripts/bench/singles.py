"""One promise each, imgq alone: latency, memory, rate, mix."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from comparison import spread
from corpora import GIF_HEAD
from goals import LEAST, MOST, table
from machine import Nginx, NotMeasured, Origin, Peak, Redis, start, stop, until
from peers import at_once, enqueue, start_worker


def fill(bench, redis, urls):
    """A queue with just these."""
    redis.ask("FLUSHALL")
    list_file = bench.work / "links.txt"
    list_file.write_text("\n".join(urls) + "\n")
    enqueue(bench, redis, list_file)


def download(bench, redis, jobs, *options, limit=300):
    """One worker, from the start of its process to the last result; its seconds and its peak memory in MB. All must be stored."""
    output = bench.work / "out"
    started = time.monotonic()
    worker = start_worker(bench, redis, output, *options)
    peak = Peak(worker.pid)
    try:
        until(lambda: redis.results() >= jobs, limit, "the worker", worker)
        seconds = time.monotonic() - started
        if (stored := redis.stored()) != jobs:
            raise RuntimeError(f"{stored:,} of {jobs:,} were stored")
        return seconds, peak.stop() / 1024
    finally:
        peak.stop()
        stop(worker)
        shutil.rmtree(output, ignore_errors=True)


def latency(bench, part):
    """50 ms at the origin, 256 at once: arithmetic allows 5,120 images/s."""
    jobs, limit = max(256, 51_200 // bench.divide), 256 / 0.050
    rates = []
    with Origin(bench) as origin, Redis(bench.work) as redis:
        for number in range(1 + min(3, bench.rounds)):
            fill(bench, redis, [f"http://127.0.0.1:{origin.port}/delay/50/{n}.gif" for n in range(jobs)])
            seconds, _ = download(bench, redis, jobs, *at_once(256))
            print(f"  latency round {number}: {jobs / seconds:,.0f}/s", file=sys.stderr)
            if number:
                rates.append(jobs / seconds)
        delay = origin.mean_delay_ms()
    share = statistics.median(rates) / limit
    verdict = bench.goals.check(part, "share of the 5,120 images/s that 256 at once and 50 ms allow", share, LEAST, 0.95)
    text = f"**latency**: {jobs:,} files of 3.8 KB from an origin that took {delay:.1f} ms on average, 256 at once: "
    text += f"{spread(rates, 0)} images/s, {share:.2f} of what 50 ms allow ({verdict})"
    return [(text, {part: {"rates": rates, "delay_ms": delay, "share": share}})]


def memory(bench, part):
    """The most memory that the worker had."""
    rows, figures = [], {}
    with Nginx(bench.corpora_folder, bench.work) as nginx, Redis(bench.work) as redis:
        base = f"http://127.0.0.1:{nginx.port}"

        def measure(what, urls, *options):
            fill(bench, redis, urls)
            _, peak = download(bench, redis, len(urls), *options)
            verdict = bench.goals.check(part, f"peak memory, {what}", peak, MOST, 64, " MB", 0)
            rows.append([what, f"{peak:.0f}", verdict])
            figures[what] = peak

        for name in ["small", "web"]:
            measure(f"{name}, 256 at once", bench.corpus(name).urls(base), *at_once(256))
        size = (1 << 30) // bench.divide
        # What is stored of the four is no hole any more, and lies in memory too.
        free = shutil.disk_usage(bench.work).free
        if free < 5 * size:
            bench.goals.not_measured(part, f"files of {size >> 20:,} MiB need {5 * size >> 20:,} MiB, and there are {free >> 20:,} free")
        else:
            folder = bench.corpora_folder / "huge"
            folder.mkdir(exist_ok=True)
            (folder / "0.gif").write_bytes(GIF_HEAD)
            os.truncate(folder / "0.gif", size)
            for n in range(1, 4):
                os.link(folder / "0.gif", folder / f"{n}.gif")
            urls = [f"{base}/huge/{n}.gif" for n in range(4)]
            options = [*at_once(4), "--max-bytes", "2GB", "--total-timeout", "10m"]
            measure(f"files of {size >> 20:,} MiB, 4 at once", urls, *options)
            shutil.rmtree(folder)
    return [("**memory** of one worker\n\n" + table(["what", "peak MB", "goal"], rows), {part: figures})]


def rate(bench, part):
    """What three workers with --host-rate 50/s ask of one host, by the access log of the origin."""
    help_text = subprocess.run([bench.program("worker"), "--help"], capture_output=True, text=True).stdout
    if "--host-rate" not in help_text:
        raise NotMeasured("this worker has no --host-rate")
    seconds = max(5, 60 // bench.divide)
    files = bench.corpus("small").files
    log = bench.work / "access.log"
    with Nginx(bench.corpora_folder, bench.work, log=log) as nginx, Redis(bench.work) as redis:
        base = f"http://127.0.0.1:{nginx.port}/small"
        fill(bench, redis, [f"{base}/{n % files}.gif?{n}" for n in range(50 * (seconds + 20))])
        output = bench.work / "out"
        workers = [start_worker(bench, redis, output, "--host-rate", "50/s") for _ in range(3)]
        try:
            until(lambda: log.stat().st_size > 0, 30, "the first request", workers[0])
            # Not the first two seconds, in which the workers come one after the other.
            time.sleep(2 + seconds + 1)
            workers_with_results = len(set(workers_that_stored(redis)))
        finally:
            for worker in workers:
                stop(worker)
            shutil.rmtree(output, ignore_errors=True)
    times = sorted(float(line) for line in log.read_text().split())
    log.unlink()
    start_at = times[0] + 2
    counts = Counter(int(at - start_at) for at in times if start_at <= at < start_at + seconds)
    each = [counts[second] for second in range(seconds)]
    mean = sum(each) / seconds
    shown = f"{mean:.2f}/s, in single seconds {min(each)} to {max(each)}"
    verdict = bench.goals.note(part, f"requests over {seconds} s, three workers at 50/s", shown, "50 ± 1/s", 49 <= mean <= 51, mean)
    text = f"**rate**: three workers with `--host-rate 50/s`, one host, {seconds} s: {shown}; {workers_with_results} of the workers "
    text += f"stored something ({verdict})"
    return [(text, {part: {"mean": mean, "each": each}})]


def workers_that_stored(redis):
    for _, fields in redis.ask("XRANGE", "imgq:{default}:results", "-", "+"):
        entry = dict(zip(fields[::2], fields[1::2]))
        if entry["outcome"] == "stored":
            yield entry["worker"]


def mix(bench, part):
    """Hosts that must not hold up others."""
    return [never_finishes(bench, part), slow_in_front(bench, part)]


def until_stored(bench, redis, jobs, limit):
    """Starts one worker as it comes; the seconds until so many are stored, and how many were when the limit was over."""
    output = bench.work / "out"
    started = time.monotonic()
    worker = start_worker(bench, redis, output)
    try:
        while (stored := redis.stored()) < jobs and time.monotonic() - started < limit:
            time.sleep(0.01)
        return time.monotonic() - started, stored
    finally:
        # A second signal gives back at once what would end with its timeout only.
        os.kill(worker.pid, 15)
        time.sleep(0.2)
        stop(worker)
        shutil.rmtree(output, ignore_errors=True)


def never_finishes(bench, part):
    """1 % of the jobs are for a host that sends half of each body and no more."""
    corpus = bench.corpus("small")
    ratios, rates = [], {"without": [], "with": []}
    limit = 60
    with Nginx(bench.corpora_folder, bench.work) as nginx, Origin(bench) as origin, Redis(bench.work) as redis:
        good = [f"http://127.0.0.1:{nginx.port}/small/{n}.gif" for n in range(corpus.files)]
        mixed = []
        for n, url in enumerate(good):
            mixed.append(url)
            if n % 100 == 50:
                mixed.append(f"http://127.0.0.1:{origin.port}/stall/{n}.gif")
        for number in range(1 + min(3, bench.rounds)):
            pair = {}
            for name, urls in [("without", good), ("with", mixed)][:: 1 if number % 2 else -1]:
                fill(bench, redis, urls)
                seconds, stored = until_stored(bench, redis, corpus.files, limit)
                pair[name] = stored / seconds
            print(f"  mix round {number}: {pair['with']:,.0f}/s with, {pair['without']:,.0f}/s without", file=sys.stderr)
            if number:
                ratios.append(pair["with"] / pair["without"])
                for name, value in pair.items():
                    rates[name].append(value)
    what = "throughput of good jobs among 1 % that never finish"
    verdict = bench.goals.check(part, f"{what}, as a share of that without", statistics.median(ratios), LEAST, 0.9)
    text = f"**mix**: {what}: {spread(rates['with'], 0)} images/s, without them {spread(rates['without'], 0)}; "
    return text + f"share {spread(ratios, 2)} ({verdict})", {"mix": {"ratios": ratios, **rates}}


def slow_in_front(bench, part):
    """100,000 jobs of a host that takes a second for each, and 2,000 of a fast host behind them."""
    slow_jobs, fast_jobs = max(100, 100_000 // bench.divide), max(20, 2_000 // bench.divide)
    files, limit = bench.corpus("small").files, 60
    with Nginx(bench.corpora_folder, bench.work) as nginx, Origin(bench) as origin, Redis(bench.work) as redis:
        fast = [f"http://127.0.0.1:{nginx.port}/small/{n % files}.gif?{n}" for n in range(fast_jobs)]
        slow = [f"http://127.0.0.1:{origin.port}/delay/1000/{n}.gif" for n in range(slow_jobs)]
        fill(bench, redis, fast)
        alone, _ = until_stored(bench, redis, fast_jobs, limit)
        fill(bench, redis, slow + fast)
        output = bench.work / "out"
        host = output / f"127.0.0.1@{nginx.port}"
        started = time.monotonic()
        worker = start_worker(bench, redis, output)

        def done():
            return sum(1 for _ in host.rglob("*.gif*")) if host.exists() else 0

        try:
            while (stored := done()) < fast_jobs and time.monotonic() - started < limit:
                time.sleep(0.1)
            seconds = time.monotonic() - started
        finally:
            os.kill(worker.pid, 15)
            time.sleep(0.2)
            stop(worker)
            shutil.rmtree(output, ignore_errors=True)
    what = f"{fast_jobs:,} jobs of a fast host behind {slow_jobs:,} of a slow one"
    shown = f"{seconds:.1f} s" if stored >= fast_jobs else f"{stored:,} done after {seconds:.0f} s"
    verdict = bench.goals.note(part, what, shown, "at most 10 s", stored >= fast_jobs and seconds <= 10, seconds)
    text = f"**mix**: {what} (a second for each): {shown}; without the slow ones {alone:.1f} s ({verdict})"
    return text, {"mix, slow in front": {"seconds": seconds, "stored": stored, "alone": alone}}

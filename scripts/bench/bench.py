#!/usr/bin/env python3
"""Measures imgq on one machine: against other downloaders in turn, and each promise about speed by itself.

Everything lies in memory: the files, nginx that serves them, what is stored, Redis. A tool is timed from the start of its
process to its end; imgq from the start of the worker, its queue filled before, to the last result on the stream (a worker does
not end by itself); a row of its own has the enqueue in it. What counts are ratios within a round; absolute figures drift. After
each run what a tool stored is counted and hashed: one that lost a file has no time. A first round warms up and is not counted.

parts, and how long each takes on two cores (in all about 16 minutes; what has a goal prints it, and PASS or short):
  small       20,000 files of 3.8 KB, all tools                                              4 min
  web         8,000 files of about 65 KB, lognormal, all tools                               3 min
  large       100 files of 7 MB, all tools                                                   1 min
  https       web from nginx with TLS, once with HTTP/1.1 and once with HTTP/2, imgq and curl   1 min
  queue       claims and settlements without downloads, and what they cost Redis               40 s
  latency     50 ms at the origin, 256 at once                                               1 min
  memory      the worker's peak at 256 at once, and while files of 1 GB stream                 30 s
  rate        three workers with --host-rate 50/s, a minute of the origin's access log         70 s
  mix         1 % of jobs for a host that never finishes; 100,000 jobs of a slow host in front   2 min
  enqueue     a million links, against redis-cli --pipe                                        30 s
  status      producer status on 10,000,000 jobs, 1,000,000 results and 1,000 workers          2 min
  profile [small|web]   perf and strace of one worker; only by name
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from comparison import compare, https
from corpora import Corpus
from goals import Goals
from machine import NotMeasured, raise_file_limit, stop_all
from profiling import profile
from queueing import enqueueing, queue
from singles import latency, memory, mix, rate
from watching import status

ROOT = Path(__file__).resolve().parents[2]

PARTS = {"small": compare, "web": compare, "large": compare, "https": https, "queue": queue, "latency": latency,
         "memory": memory, "rate": rate, "mix": mix, "enqueue": enqueueing, "status": status}  # fmt: skip


class Bench:
    """What all parts share."""

    def __init__(self, arguments, work):
        self.work, self.divide = Path(work), arguments.divide
        self.rounds, self.slow_rounds, self.at_once = arguments.rounds, arguments.slow_rounds, arguments.at_once
        self.tools = set(arguments.tools.split(",")) if arguments.tools else None
        self.programs, self.img2dataset = Path(arguments.programs), arguments.img2dataset
        self.corpora_folder = self.work / "corpora"
        self.corpora = {}
        self.goals = Goals()
        # imgq itself did not do what it was asked for.
        self.broken = False

    def corpus(self, name):
        if name not in self.corpora:
            print(f"  making the files of {name}", file=sys.stderr)
            self.corpora[name] = Corpus(name, self.corpora_folder, self.divide)
        return self.corpora[name]

    def program(self, name):
        path = self.programs / name
        if not path.exists():
            raise NotMeasured(f"{name} is not in {self.programs}")
        return path


def read_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="all but profile, if none is named")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="that are counted (5); 3 at most where only imgq is measured")
    parser.add_argument("--slow-rounds", type=int, default=1, metavar="N", help="of img2dataset, aria2c and the Python loop (1)")
    parser.add_argument("--at-once", type=int, default=64, metavar="N", help="downloads at once in the comparisons (64)")
    parser.add_argument("--tools", metavar="LIST", help="only these, by the first word of their names, as in imgq,curl")
    parser.add_argument("--divide", type=int, default=1, metavar="N", help="so many times fewer files, for a quick look")
    parser.add_argument("--programs", default=ROOT / "target/release", metavar="DIR", help="where producer, worker, queue-bench and bench-origin are; else they are built")
    parser.add_argument("--img2dataset", metavar="FILE", help="the program; else the one in the PATH")
    parser.add_argument("--json", metavar="FILE", help="also write all figures to this file")
    parser.add_argument("--markdown", metavar="FILE", help="also write to this file what is printed: docs/performance.md shows it")
    arguments = parser.parse_args()
    if arguments.parts[:1] == ["profile"]:
        wanted = arguments.parts[1:] or ["small", "web"]
        unknown = set(wanted) - {"small", "web", "large"}
    else:
        unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}, profile")
    if min(arguments.rounds, arguments.divide, arguments.at_once) < 1:
        parser.error("numbers begin at 1")
    return arguments


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    arguments = read_arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    raise_file_limit()
    memory_folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    if memory_folder is None:
        print("note: there is no /dev/shm; the disk is measured as well", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="imgq-bench-", dir=memory_folder) as work:
            try:
                return measure(arguments, work)
            finally:
                stop_all()
    except KeyboardInterrupt:
        print("interrupted; servers are stopped and files removed", file=sys.stderr)
        return 130


def measure(arguments, work):
    bench = Bench(arguments, work)
    if arguments.parts[:1] == ["profile"]:
        todo = [(f"profile {name}", profile, name) for name in arguments.parts[1:] or ["small", "web"]]
    else:
        todo = [(part, PARTS[part], part) for part in arguments.parts or PARTS]
    printed, figures, took = [], {}, []

    def show(text):
        printed.append(text)
        print(text + "\n", flush=True)

    if arguments.divide > 1 or arguments.rounds < 5:
        show("A quick look: fewer files or fewer rounds than the goals are meant for.")
    for title, function, name in todo:
        print(f"{title}:", file=sys.stderr)
        started = time.monotonic()
        try:
            for text, found in function(bench, name):
                show(text)
                figures.update(found)
        except NotMeasured as why:
            bench.goals.not_measured(title, str(why))
        except RuntimeError as error:
            bench.broken = True
            bench.goals.not_measured(title, f"FAILED: {error}")
        took.append(f"{title} {time.monotonic() - started:.0f} s")
        stop_all()
    if bench.goals.all:
        show("**goals**\n\n" + bench.goals.table())
    print("took: " + ", ".join(took), file=sys.stderr)
    if arguments.json:
        machine = {"cores": os.cpu_count(), "load": os.getloadavg(), "took": took}
        found = {"machine": machine, "figures": figures, "goals": bench.goals.all}
        Path(arguments.json).write_text(json.dumps(found, indent=1))
    if arguments.markdown:
        Path(arguments.markdown).write_text("\n\n".join(printed) + "\n")
    return 1 if bench.broken else 0


if __name__ == "__main__":
    sys.exit(main())

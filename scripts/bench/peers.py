"""Tools that download a list: imgq, and what a person would take otherwise. Each has run(setting, output) -> Run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from machine import Peak, Run, run_and_wait, start, stop, until


class Setting:
    """What to download: a corpus behind a server."""

    def __init__(self, bench, corpus, base, redis, authority=None):
        self.bench, self.corpus, self.redis, self.authority = bench, corpus, redis, authority
        self.files, self.at_once, self.urls = corpus.files, bench.at_once, corpus.urls(base)
        self.list = bench.work / f"{corpus.name}.txt"
        self.list.write_text("\n".join(self.urls) + "\n")
        self.tls_environment = {"SSL_CERT_FILE": str(authority)} if authority else {}


class Imgq:
    """One worker, its queue filled before. From the start of its process to the last result on the stream; its end comes after
    that, because a worker goes on waiting for jobs."""

    name, is_slow = "imgq", False

    @staticmethod
    def missing(_):
        return None

    @staticmethod
    def run(setting, output):
        redis, bench = setting.redis, setting.bench
        redis.ask("FLUSHALL")
        before = time.monotonic()
        enqueue(bench, redis, setting.list)
        started = time.monotonic()
        worker = start_worker(bench, redis, output, *at_once(setting.at_once), env=setting.tls_environment)
        peak = Peak(worker.pid)
        try:
            until(lambda: redis.results() >= setting.files, 600, "the worker", worker)
            seconds = time.monotonic() - started
        finally:
            peak_kb = peak.stop()
            used = stop(worker)
        return Run(seconds, used.ru_utime + used.ru_stime, peak_kb, started - before)


def enqueue(bench, redis, list_file, *options):
    environment = dict(os.environ, REDIS_URL=redis.url, RUST_LOG="error")
    command = [bench.program("producer"), "enqueue", list_file, *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"producer enqueue: {done.stderr.strip()}")


def start_worker(bench, redis, storage, *options, env=None):
    environment = dict(os.environ, REDIS_URL=redis.url, RUST_LOG="error", **(env or {}))
    command = [bench.program("worker"), "--storage", storage, "--allow-networks", "127.0.0.0/8", *options]
    said = bench.work / "worker.log"
    with said.open("wb") as log:
        worker = start(command, env=environment, stderr=log, stdout=log)
    worker.said = said
    return worker


def at_once(downloads):
    """All from one host: there is only one."""
    return ["--concurrency", downloads, "--host-concurrency", downloads]


class Program:
    """A downloader that is a program of its own."""

    is_slow, does_https = False, True

    def missing(self, setting):
        if setting.authority and not self.does_https:
            return "not over HTTPS here"
        return None if self.found(setting) else "not installed"

    def found(self, _):
        return shutil.which(self.name.split()[0])


class Curl(Program):
    name = "curl --parallel"

    def run(self, setting, output):
        config = output.parent / "curl.conf"
        config.write_text("".join(f'url = "{url}"\noutput = "{output}/{n}.gif"\n' for n, url in enumerate(setting.urls)))
        trust = ["--cacert", setting.authority] if setting.authority else []
        return run_and_wait(["curl", "-q", "-s", "--parallel", "--parallel-max", setting.at_once, *trust, "--config", config])


class Wget2(Program):
    name = "wget2"

    def run(self, setting, output):
        trust = ["--ca-certificate", setting.authority] if setting.authority else []
        options = ["-q", "--no-config", "--no-hsts", "--no-robots", "--max-threads=32", *trust]
        return run_and_wait(["wget2", *options, "-i", setting.list, "-P", output])


class Aria2(Program):
    name, is_slow, does_https = "aria2c", True, False

    def run(self, setting, output):
        options = ["-q", "--no-conf", "--file-allocation=none", f"-j{setting.at_once}"]
        return run_and_wait(["aria2c", *options, "-i", setting.list, "-d", output])


class Img2dataset(Program):
    """Without decoding and encoding anew, which it would do otherwise: imgq does not either."""

    name, is_slow, does_https = "img2dataset", True, False

    def found(self, setting):
        own = setting.bench.img2dataset
        return own if own and Path(own).exists() else shutil.which("img2dataset")

    def run(self, setting, output):
        options = ["--output_format=files", "--resize_mode=no", "--disable_all_reencoding=True", "--input_format=txt",
                   "--processes_count=2", "--thread_count=64"]  # fmt: skip
        # It wants to make its folder itself, and asks a service on the network for a newer version of what it stands on.
        environment = dict(os.environ, NO_ALBUMENTATIONS_UPDATE="1", WANDB_MODE="disabled")
        command = [self.found(setting), f"--url_list={setting.list}", f"--output_folder={output}/out", *options]
        return run_and_wait(command, env=environment)


class Python(Program):
    """What many begin with: the standard library, a connection for each file."""

    ONE = """
import sys, urllib.request
def download(url):
    with urllib.request.urlopen(url) as reply, open(sys.argv[2] + "/" + url.rsplit("/", 1)[1], "wb") as file:
        file.write(reply.read())
urls = open(sys.argv[1]).read().split()
"""

    def found(self, _):
        return True

    def run(self, setting, output):
        command = [sys.executable, "-c", self.ONE + self.ALL, setting.list, output]
        return run_and_wait(command, env=dict(os.environ, **setting.tls_environment))


class Pool8(Python):
    name = "Python Pool(8)"
    ALL = """
from multiprocessing import Pool
with Pool(8) as pool:
    pool.map(download, urls)
"""


class OneLoop(Python):
    name, is_slow = "Python, one loop", True
    ALL = """
for url in urls:
    download(url)
"""


def all_tools():
    return [Imgq(), Curl(), Wget2(), Pool8(), OneLoop(), Aria2(), Img2dataset()]

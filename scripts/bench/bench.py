#!/usr/bin/env python3
"""Measures imgq against other downloaders, in turn, on one machine; scripts/bench.sh sets up what it needs.

Everything lies in memory: a corpus served by nginx, the outputs, Redis. Each round runs every tool once, in an order that
rotates, so that a slow minute of the machine hits all of them. What counts are ratios within a round; absolute figures
drift. Every tool's output is counted and hashed: a tool that lost a file has no time.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# name -> (files, median bytes, spread of the lognormal distribution; 0: all the same)
CORPORA = {"small": (20_000, 3_800, 0.0), "web": (8_000, 55_000, 0.6), "large": (100, 7_000_000, 0.1)}


def make_corpus(name, folder, files):
    """Files that begin like a GIF and go on at random: nothing decodes or compresses them."""
    _, median, spread = CORPORA[name]
    chance = random.Random(name)
    noise = chance.randbytes(32 << 20)
    folder.mkdir(parents=True)
    hashes = {}
    for n in range(files):
        size = max(200, int(median * chance.lognormvariate(0, spread))) if spread else median
        head = b"GIF89a\x20\0\x10\0\0\0\0" + n.to_bytes(8, "little")
        body, left = bytearray(head), size - len(head) - 1
        while left > 0:
            start = chance.randrange(len(noise) // 2)
            piece = noise[start : start + min(left, len(noise) // 2)]
            body += piece
            left -= len(piece)
        body += b";"
        (folder / f"{n}.gif").write_bytes(body)
        hashes[f"{n}.gif"] = hashlib.sha256(body).hexdigest()
    return hashes


class Redis:
    """One server, and the few commands that are needed of it."""

    def __init__(self, folder):
        self.path = str(folder / "redis.sock")
        options = ["--port", "0", "--unixsocket", self.path, "--save", "", "--appendonly", "yes", "--dir", str(folder)]
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        self.url = f"unix://{self.path}"
        until(lambda: os.path.exists(self.path), 10)
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(self.path)
        self.reply = self.connection.makefile("rb")

    def ask(self, *words):
        self.connection.sendall(b"".join([b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(w), w) for w in map(str.encode, words)]))
        line = self.reply.readline()
        if line[:1] == b"-":
            raise RuntimeError(line.decode())
        return int(line[1:]) if line[:1] == b":" else line[1:].strip().decode()

    def stop(self):
        self.process.terminate()
        self.process.wait()


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("it took too long")
        time.sleep(0.002)


class Run:
    """What one tool did in one round."""

    def __init__(self, seconds, cpu, peak_kb):
        self.seconds, self.cpu, self.peak_kb = seconds, cpu, peak_kb


class Peak(threading.Thread):
    """The most memory that a process had. What wait4 tells begins with the memory of this script, which it was forked from."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.kb, self.over = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.02):
            try:
                for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        self.kb = int(line.split()[1])
            except OSError:
                return

    def stop(self):
        self.over.set()
        self.join()
        return self.kb


def run_and_wait(command, **options):
    """From the start of a process to its end; the CPU time of what it started included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, **options)
    peak = Peak(process.pid)
    os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, cpu, peak.stop())


class Tool:
    def __init__(self, name, setting):
        self.name, self.setting = name, setting

    def is_there(self):
        return True


class Imgq(Tool):
    """One worker, its queue filled before. From the start of its process to the last result on the stream; its end comes after
    that, because a worker goes on waiting for jobs."""

    def __init__(self, setting):
        super().__init__("imgq", setting)

    def run(self, output):
        s = self.setting
        s.redis.ask("FLUSHALL")
        environment = dict(os.environ, REDIS_URL=s.redis.url, RUST_LOG="error", **s.tls_environment)
        subprocess.run([s.programs / "producer", "enqueue", s.list], env=environment, check=True, stdout=subprocess.DEVNULL)
        options = ["--storage", output, "--concurrency", s.at_once, "--host-concurrency", s.at_once, "--allow-networks", "127.0.0.0/8"]
        started = time.monotonic()
        worker = subprocess.Popen([s.programs / "worker", *map(str, options)], env=environment, stdin=subprocess.DEVNULL)
        peak = Peak(worker.pid)
        until(lambda: s.redis.ask("XLEN", "imgq:{default}:results") >= s.files, 600)
        seconds = time.monotonic() - started
        peak_kb = peak.stop()
        worker.send_signal(signal.SIGTERM)
        _, _, used = os.wait4(worker.pid, 0)
        return Run(seconds, used.ru_utime + used.ru_stime, peak_kb)


class Curl(Tool):
    def __init__(self, setting):
        super().__init__("curl --parallel", setting)

    def is_there(self):
        return shutil.which("curl")

    def run(self, output):
        s = self.setting
        config = output.parent / "curl.conf"
        config.write_text("".join(f'url = "{url}"\noutput = "{output}/{n}.gif"\n' for n, url in enumerate(s.urls)))
        trust = ["--cacert", str(s.certificate)] if s.certificate else []
        return run_and_wait(["curl", "-s", "--parallel", "--parallel-max", str(s.at_once), *trust, "--config", str(config)])


class Wget2(Tool):
    def __init__(self, setting):
        super().__init__("wget2", setting)

    def is_there(self):
        return shutil.which("wget2")

    def run(self, output):
        s = self.setting
        trust = ["--ca-certificate", str(s.certificate)] if s.certificate else []
        return run_and_wait(["wget2", "-q", "--max-threads=32", "--no-robots", *trust, "-i", str(s.list), "-P", str(output)])


class Aria2(Tool):
    def __init__(self, setting):
        super().__init__("aria2c", setting)

    def is_there(self):
        return shutil.which("aria2c") and not self.setting.certificate

    def run(self, output):
        s = self.setting
        return run_and_wait(["aria2c", "-q", f"-j{s.at_once}", "-i", str(s.list), "-d", str(output)])


POOL = """
import sys, urllib.request
from multiprocessing import Pool
def download(url):
    with urllib.request.urlopen(url) as reply, open(sys.argv[2] + "/" + url.rsplit("/", 1)[1], "wb") as file:
        file.write(reply.read())
if __name__ == "__main__":
    with Pool(8) as pool:
        pool.map(download, open(sys.argv[1]).read().split())
"""


class Pool8(Tool):
    def __init__(self, setting):
        super().__init__("Python Pool(8)", setting)

    def run(self, output):
        return run_and_wait([sys.executable, "-c", POOL, str(self.setting.list), str(output)], env=dict(os.environ, **self.setting.tls_environment))


class Img2dataset(Tool):
    def __init__(self, setting):
        super().__init__("img2dataset", setting)

    def is_there(self):
        return shutil.which("img2dataset") and not self.setting.certificate

    def run(self, output):
        options = ["--output_format=files", "--resize_mode=no", "--processes_count=2", "--thread_count=64", "--input_format=txt"]
        return run_and_wait(["img2dataset", f"--url_list={self.setting.list}", f"--output_folder={output}/out", *options])


def stored(output):
    """Hashes of all files below, whatever the tool called them; Counter-like, because names differ between tools."""
    hashes = []
    for folder, _, names in os.walk(output):
        if ".imgq-tmp" in folder:
            continue
        for name in names:
            if not name.endswith((".json", ".parquet", ".aria2")):
                hashes.append(hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest())
    return sorted(hashes)


class Setting:
    """A corpus behind nginx."""

    def __init__(self, arguments, corpus, work, redis):
        files, _, _ = CORPORA[corpus]
        self.files = max(1, files // arguments.divide)
        self.at_once, self.redis, self.programs = arguments.at_once, redis, Path(arguments.programs)
        self.certificate, self.tls_environment = None, {}
        self.folder = work / corpus
        self.hashes = sorted(make_corpus(corpus, self.folder, self.files).values())
        self.nginx, base = start_nginx(self.folder, work, arguments.https)
        if arguments.https:
            self.certificate = work / "certificate.pem"
            self.tls_environment = {"SSL_CERT_FILE": str(self.certificate)}
        self.urls = [f"{base}/{n}.gif" for n in range(self.files)]
        self.list = work / f"{corpus}.txt"
        self.list.write_text("\n".join(self.urls) + "\n")

    def stop(self):
        self.nginx.terminate()
        self.nginx.wait()
        shutil.rmtree(self.folder)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_nginx(folder, work, https):
    port = free_port()
    tls = ""
    if https:
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        key, certificate = work / "key.pem", work / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-keyout", key, "-out", certificate, *subject], check=True, stderr=subprocess.DEVNULL)
        tls = f"ssl_certificate {certificate}; ssl_certificate_key {key};"
    listen = f"127.0.0.1:{port}" + (" ssl http2" if https else "")
    config = work / "nginx.conf"
    config.write_text(f"""
daemon off; pid {work}/nginx.pid; error_log {work}/nginx.log; worker_processes 2; worker_rlimit_nofile 20000;
events {{ worker_connections 8000; }}
http {{
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=50000; keepalive_requests 10000000;
  types {{ image/gif gif; }}
  client_body_temp_path {work}/nginx-body; proxy_temp_path {work}/nginx-proxy; fastcgi_temp_path {work}/nginx-fastcgi;
  uwsgi_temp_path {work}/nginx-uwsgi; scgi_temp_path {work}/nginx-scgi;
  server {{ listen {listen}; root {folder}; {tls} }}
}}
""")
    nginx = subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(config), "-e", f"{work}/nginx.log"])

    def answers():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(answers, 10)
    return nginx, f"http{'s' if https else ''}://127.0.0.1:{port}"


def measure(arguments, corpus, work, redis):
    setting = Setting(arguments, corpus, work, redis)
    tools = [kind(setting) for kind in (Imgq, Curl, Wget2, Pool8, Aria2, Img2dataset)]
    only = arguments.tools.split(",") if arguments.tools else None
    tools = [tool for tool in tools if tool.is_there() and (only is None or tool.name.split()[0] in only)]
    runs = {tool.name: [] for tool in tools}
    try:
        for number in range(arguments.rounds):
            for tool in tools[number % len(tools) :] + tools[: number % len(tools)]:
                # The slow ones are measured once: their ratio is far from any doubt.
                if runs[tool.name] and runs[tool.name][0].seconds > 20 * runs_of_imgq(runs):
                    continue
                with tempfile.TemporaryDirectory(dir=work) as folder:
                    output = Path(folder) / "out"
                    output.mkdir()
                    run = tool.run(output)
                    found = stored(output)
                    if found != setting.hashes:
                        whole = len(set(found) & set(setting.hashes))
                        print(f"error: {tool.name} stored {len(found)} files, {whole} of {setting.files} as they were served", file=sys.stderr)
                        return None
                runs[tool.name].append(run)
                print(f"  {corpus} round {number + 1}: {tool.name} {setting.files / run.seconds:,.0f}/s", file=sys.stderr)
    finally:
        setting.stop()
    return table(arguments, corpus, setting.files, runs)


def runs_of_imgq(runs):
    return runs["imgq"][0].seconds if runs.get("imgq") else float("inf")


def table(arguments, corpus, files, runs):
    lines = [
        f"**{corpus}**{', HTTPS' if arguments.https else ''}: {files:,} files, {arguments.at_once} at once, {arguments.rounds} rounds",
        "",
        "| tool | images/s, median | CPU ms an image | peak MB | imgq is so many times as fast: median (least to most) |",
        "| --- | --- | --- | --- | --- |",
    ]
    figures = {}
    for name, of in runs.items():
        rate = statistics.median(files / run.seconds for run in of)
        cpu = statistics.median(run.cpu * 1000 / files for run in of)
        peak = max(run.peak_kb for run in of) / 1024
        ratios = sorted(other.seconds / own.seconds for own, other in zip(runs.get("imgq", []), of))
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios and name != "imgq" else ""
        lines.append(f"| {name} | {rate:,.0f} | {cpu:.3f} | {peak:.0f} | {ratio} |")
        figures[name] = {"rate": rate, "cpu_ms": cpu, "peak_mb": peak, "ratio": statistics.median(ratios) if ratios else None}
    return "\n".join(lines), figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", default=list(CORPORA), help=f"some of {', '.join(CORPORA)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--tools", help="only these, by the first word of their names, as in imgq,curl")
    parser.add_argument("--divide", type=int, default=1, help="so many times fewer files, for a quick look")
    parser.add_argument("--https", action="store_true")
    parser.add_argument("--programs", default=ROOT / "target/release", help="where producer and worker are")
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    if memory is None:
        print("note: there is no /dev/shm; the disk is measured as well", file=sys.stderr)
    all_figures = {}
    with tempfile.TemporaryDirectory(prefix="imgq-bench-", dir=memory) as work:
        work = Path(work)
        # nginx serves as another user where root starts it.
        work.chmod(0o755)
        redis = Redis(work)
        try:
            for corpus in arguments.corpora:
                result = measure(arguments, corpus, work, redis)
                if result is None:
                    return 1
                print(result[0] + "\n")
                all_figures[corpus] = result[1]
        finally:
            redis.stop()
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(all_figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

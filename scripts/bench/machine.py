"""Processes of the benchmark: servers that live for one part of it, and tools that are timed. Whatever happens, main() ends with
stop_all(), and a server ends with this script even when that is killed."""

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

alive = {}


class NotMeasured(Exception):
    """Something that a part needs is not here; the message says what."""


def until(condition, seconds, what="it", by=None):
    """Waits; `by` is the process that has to bring it about."""
    end = time.monotonic() + seconds
    while not condition():
        # WNOWAIT: whoever stops it learns what it used.
        if by and os.waitid(os.P_PID, by.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise RuntimeError(f"{what} ended by itself: {last_line(by)}")
        if time.monotonic() > end:
            raise RuntimeError(f"{what} took longer than {seconds:.0f} s")
        time.sleep(0.005)


def last_line(process):
    """What a process said last, where that was kept."""
    said = getattr(process, "said", None)
    return (said and Path(said).read_text(errors="replace").strip().rsplit("\n", 1)[-1]) or "it said nothing"


def end_with_this_script():
    """In a child before its program starts: it gets a SIGTERM when this script dies (PR_SET_PDEATHSIG is 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def start(command, **options):
    """A process in a session of its own, so that a Ctrl-C ends it here, in order, and not at once."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, preexec_fn=end_with_this_script, **options)
    alive[process.pid] = process
    return process


def stop(process, how=signal.SIGTERM, seconds=30):
    """Ends a process and returns what it used. One that does not end in time is killed."""
    if process.pid not in alive:
        return None
    # Not by Popen, which would wait for the process here and there, and lose what it used.
    os.kill(process.pid, how)
    impatience = threading.Timer(seconds, os.kill, [process.pid, signal.SIGKILL])
    impatience.start()
    try:
        return reap(process)
    finally:
        impatience.cancel()


def reap(process):
    """Waits, and returns the CPU time of the process and of all that it waited for."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    del alive[process.pid]
    return used


def stop_all():
    for process in list(alive.values()):
        # What it started is in its session: the processes of a pool would outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        impatience = threading.Timer(5, os.killpg, [process.pid, signal.SIGKILL])
        impatience.start()
        with contextlib.suppress(ChildProcessError):
            reap(process)
        impatience.cancel()


def cpu_seconds(pid):
    """What a running process used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Peak(threading.Thread):
    """The most memory that a process had (VmHWM), or, where it has children, that all had together: pages that they share
    counted once (Pss). What wait4 tells would begin with the memory of this script, which the process was forked from."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.kb, self.over, self.looks = pid, 0, threading.Event(), 0
        self.start()

    def run(self):
        while not self.over.wait(0.05):
            self.look()

    def look(self):
        self.kb = max(self.kb, self.read(f"/proc/{self.pid}/status", "VmHWM:"))
        self.looks += 1
        # Pss walks the page tables: not too often.
        if self.looks % 5 == 0 and (children := list(self.children(self.pid))):
            together = sum(self.read(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in [self.pid, *children])
            self.kb = max(self.kb, together)

    def children(self, pid):
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                        yield child
                        yield from self.children(child)

    @staticmethod
    def read(path, name):
        with contextlib.suppress(OSError):
            for line in Path(path).read_text().splitlines():
                if line.startswith(name):
                    return int(line.split()[1])
        return 0

    def stop(self):
        self.over.set()
        self.join()
        self.look()
        return self.kb


class Run:
    """What one tool did in one round. `seconds_before` went by for what it needs beforehand: the enqueue."""

    def __init__(self, seconds, cpu, peak_kb, seconds_before=0.0):
        self.seconds, self.cpu, self.peak_kb, self.seconds_before = seconds, cpu, peak_kb, seconds_before


def run_and_wait(command, limit=600, **options):
    """From the start of a process to its end; the CPU time is its own and that of what it started."""
    started = time.monotonic()
    process = start(command, **options)
    impatience = threading.Timer(limit, os.killpg, [process.pid, signal.SIGKILL])
    impatience.start()
    peak = Peak(process.pid)
    try:
        used = reap(process)
        seconds = time.monotonic() - started
    finally:
        impatience.cancel()
        peak.stop()
    return Run(seconds, used.ru_utime + used.ru_stime, peak.kb)


class Redis:
    """One server, and the few commands that are needed of it. It writes its append-only file, as imgq asks for, but does not
    rewrite it: that would hit one round of many."""

    def __init__(self, folder):
        self.folder = Path(folder) / f"redis-{free_port()}"
        self.folder.mkdir()
        path = str(self.folder / "redis.sock")
        options = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "yes", "--dir", self.folder]
        self.process = start(["redis-server", *options, "--auto-aof-rewrite-percentage", "0"])
        self.url, self.path = f"unix://{path}", path
        self.connection = socket.socket(socket.AF_UNIX)
        until(lambda: os.path.exists(path) and self.connection.connect_ex(path) == 0, 20, "the start of Redis")
        self.reply = self.connection.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()
        stop(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *words):
        words = [str(word).encode() for word in words]
        self.connection.sendall(b"".join([b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(w), w) for w in words]))
        return self.read()

    def read(self):
        line = self.reply.readline()
        kind, rest = line[:1], line[1:].strip()
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.reply.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return rest.decode()

    def results(self):
        return self.ask("XLEN", "imgq:{default}:results")

    def stored(self):
        return int(self.ask("HGET", "imgq:{default}:stats", "stored") or 0)


class Nginx:
    """Serves a folder: plain, and with `tls` over HTTPS once with HTTP/1.1 and once with HTTP/2. `log` writes the time of each
    request to a file."""

    def __init__(self, folder, work, tls=False, log=None):
        self.port, self.port_http1, self.port_http2 = free_port(), free_port(), free_port()
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        own = Path(work) / f"nginx-{self.port}"
        own.mkdir()
        # As root nginx gives up its rights, and could not read a folder of somebody else.
        user = "user root;" if os.geteuid() == 0 else ""
        temporary = "".join(f"{kind}_temp_path {own}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        logged = f"log_format times '$msec'; access_log {log} times;" if log else "access_log off;"
        secure = ""
        if tls:
            self.authority = make_certificates(own)
            keys = f"ssl_certificate {own}/leaf.pem; ssl_certificate_key {own}/leaf.key; root {folder};"
            secure = f"server {{ listen 127.0.0.1:{self.port_http1} ssl; {keys} }}"
            secure += f"server {{ listen 127.0.0.1:{self.port_http2} ssl http2; {keys} }}"
        # Without worker_rlimit_nofile it stalls near 1,024 descriptors. No open_file_cache: there are more files than descriptors, and
        # it would answer 500 now and then.
        (own / "nginx.conf").write_text(f"""
{user} daemon off; pid {own}/pid; error_log {own}/error.log; worker_processes 2; worker_rlimit_nofile 20000;
events {{ worker_connections 8000; }}
http {{
  {logged} {temporary} types {{ image/gif gif; }}
  sendfile on; tcp_nopush on; keepalive_requests 10000000; http2_max_concurrent_streams 256;
  server {{ listen 127.0.0.1:{self.port}; root {folder}; }}
  {secure}
}}
""")
        self.process = start([program, "-c", own / "nginx.conf", "-e", own / "error.log"])

        def answers():
            if self.process.poll() is not None:
                del alive[self.process.pid]
                raise RuntimeError("nginx did not start: " + (own / "error.log").read_text()[-300:])
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        until(answers, 20, "the start of nginx")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)


def make_certificates(folder):
    """An authority and a certificate that it signed, for a day or two. Returns the authority's file."""

    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    if not shutil.which("openssl"):
        raise NotMeasured("openssl is not here")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    openssl("req", "-x509", *key, "-days", 2, "-keyout", folder / "ca.key", "-out", folder / "ca.pem", "-subj", "/CN=imgq bench")
    openssl("req", *key, "-keyout", folder / "leaf.key", "-out", folder / "leaf.csr", "-subj", "/CN=localhost")
    openssl("x509", "-req", "-in", folder / "leaf.csr", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial",
            "-days", 2, "-extfile", folder / "names", "-out", folder / "leaf.pem")  # fmt: skip
    return folder / "ca.pem"


class Origin:
    """`bench-origin`: answers late, or never to the end."""

    def __init__(self, bench):
        self.process = start([bench.program("bench-origin")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)

    def mean_delay_ms(self):
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"GET /stats HTTP/1.1\r\nhost: x\r\n\r\n")
            answers, micros = connection.recv(4096).decode().rsplit("\n", 1)[1].split()
        return int(micros) / max(1, int(answers)) / 1000


def raise_file_limit():
    """256 downloads at once need more descriptors than some systems give."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""Runs Prometheus against real workers and a real dashboard, and asks it everything that Grafana would.

The numbers have to be there, whatever they are: a panel that finds nothing has a name wrong. And alerts have to fire for what
is really so: many failures, a queue that is paused, a Redis that is away. Everything lives in a temporary folder, on
ports that were free, and ends with this process.
"""

import contextlib
import http.server
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKEN = "observability-test-token"
GIF = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b")
# Links of each kind. A worker with four slots does some 100 a second: the queue is not empty before the test is over.
LINKS = 9000
DEADLINE_SECONDS = 50


class Origin(http.server.BaseHTTPRequestHandler):
    """Pictures, and the ways in which there are none; /later/ asks to be left alone."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.03)
        kind = self.path.split("/")[1]
        status = {"ok": 200, "gone": 404, "broken": 500, "later": 429}[kind]
        body = GIF if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 200:
            self.send_header("Content-Type", "image/gif")
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, condition, seconds=DEADLINE_SECONDS):
    """What `condition` says once it is true; ends the test when that takes too long."""
    ends = time.monotonic() + seconds
    last = None
    while time.monotonic() < ends:
        try:
            found = condition()
            if found:
                return found
        except (OSError, ValueError) as error:
            last = error
        time.sleep(0.2)
    sys.exit(f"FAILED: {what} did not come within {seconds} s" + (f" ({last})" if last else ""))


class Programs:
    """Processes that were started here, and are ended here, by what they are and not by their names."""

    def __init__(self, place):
        self.place = place
        self.running = []

    def start(self, name, *command):
        log = self.place / f"{name}.log"
        process = subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT, cwd=self.place)
        self.running.append(process)
        return process, log

    def end(self):
        for process in self.running:
            process.terminate()
        for process in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            if process.poll() is None:
                process.kill()
                process.wait()


def address_in(process, log):
    """The address that a program says it listens on."""

    def found():
        if process.poll() is not None:
            sys.exit(f"FAILED: {log.stem} ended with {process.returncode}:\n{log.read_text()}")
        return re.search(r"http://(127\.0\.0\.1:\d+)", log.read_text())

    return until(f"the address of {log.stem}", found)[1]


def substituted(text, pattern, replacement):
    changed, times = re.subn(pattern, lambda _: replacement, text)
    assert times, f"{pattern} is not there any more"
    return changed


def configuration(place, workers, dashboard, prometheus):
    """deploy/prometheus, with these targets, and in a hurry."""
    source = ROOT / "deploy/prometheus"
    text = (source / "prometheus.yml").read_text()
    static = "static_configs:\n      - targets: " + json.dumps(workers) + "\n"
    text = substituted(text, r"dns_sd_configs:\n(?: {6,}.*\n)+", static)
    text = substituted(text, r"dashboard:8080", dashboard)
    text = substituted(text, r"localhost:9090", prometheus)
    text = substituted(text, r"/tmp/imgq-dashboard-token", str(place / "token"))
    text = substituted(text, r"_interval: 15s", "_interval: 1s")
    text = substituted(text, r"scrape_timeout: 10s", "scrape_timeout: 1s")
    (place / "prometheus.yml").write_text(text)
    (place / "token").write_text(TOKEN)
    # The same conditions, believed at once.
    (place / "alerts.yml").write_text(substituted((source / "alerts.yml").read_text(), r"for: \d+[mh]\n", "for: 1s\n"))


class Prometheus:
    def __init__(self, address):
        self.address = address

    def get(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        return self.get("query", query=expression)["result"]

    def finds(self, expression):
        """Whether a panel would show a number; 0 / 0 is none."""
        return any(series["value"][1] != "NaN" for series in self.query(expression))

    def firing(self):
        return {alert["labels"]["alertname"]: alert for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"}


def expressions():
    """Every query of the Grafana dashboard: where it stands, and itself with the variables filled in."""
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/imgq.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels), "two panels have one id"
    for panel in panels:
        for target in panel.get("targets", []):
            text = target["expr"].replace("$__rate_interval", "1m").replace("$queue", ".*").replace("$worker", ".*")
            assert "$" not in text, f"{panel['title']}: a variable is unknown: {text}"
            yield panel["title"], text


def variables():
    """Each variable that asks Prometheus: the series, and the label that it shows."""
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/imgq.json").read_text())
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            yield variable["name"], series, label


def scrape_lint(address, token=None):
    """What promtool has to say about the page of a program."""
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=5) as answer:
        page = answer.read()
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert checked.returncode == 0, (checked.stdout + checked.stderr).decode()


def check(place, programs_folder):
    programs = Programs(place)
    try:
        run(place, programs_folder, programs)
    finally:
        programs.end()


def run(place, folder, programs):
    producer, worker = str(folder / "producer"), str(folder / "worker")
    redis_server = shutil.which("redis-server") or shutil.which("valkey-server") or "/usr/sbin/redis-server"
    redis = f"unix://{place}/redis.sock"
    redis_process, _ = programs.start("redis", redis_server, "--port", "0", "--unixsocket", f"{place}/redis.sock", "--dir", str(place))
    until("Redis' socket", (place / "redis.sock").exists)

    def produce(*arguments, **options):
        return subprocess.run([producer, arguments[0], "--redis-url", redis, *arguments[1:]], check=True, capture_output=True, timeout=30, **options)

    # One by its name, so that it is looked up.
    good, busy = f"localhost:{serve()}", f"127.0.0.1:{serve()}"
    nobody = f"127.0.0.1:{free_port()}"
    links = []
    for n in range(LINKS):
        kind = {0: "gone", 1: "broken"}.get(n % 12, "ok")
        links.append(f"http://{good}/{kind}/{n}.gif")
        if n % 12 == 2:
            links += [f"http://{busy}/later/{n}.gif", f"http://{nobody}/{n}.gif"]

    workers = []
    for n in range(2):
        process, log = programs.start(
            f"worker-{n}", worker, "--redis-url", redis, "--storage", f"{place}/images", "--metrics", "127.0.0.1:0",
            "--concurrency", "4", "--max-attempts", "2", "--retry-delay", "200ms", "--allow-networks", "127.0.0.0/8,::1/128", "--grace", "1s",
        )
        workers.append(address_in(process, log))
    process, log = programs.start("dashboard", "env", f"IMGQ_DASHBOARD_TOKEN={TOKEN}", producer, "dashboard",
                                  "--redis-url", redis, "--listen", "127.0.0.1:0", "--storage", f"{place}/images")
    dashboard = address_in(process, log)
    prometheus = Prometheus(f"127.0.0.1:{free_port()}")
    configuration(place, workers, dashboard, prometheus.address)
    programs.start("prometheus", shutil.which("prometheus"), f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/tsdb",
                   f"--web.listen-address={prometheus.address}", "--log.level=warn")
    until("three targets that are up", lambda: len(prometheus.query('up{job=~"imgq|imgq-queue"} == 1')) == 3)
    print(f"-- live: Prometheus scrapes {len(workers)} workers and the dashboard")
    quiet = prometheus.firing()
    assert not quiet, f"alerts fire before anything happened: {sorted(quiet)}"

    produce("enqueue", "-", input="\n".join(links).encode())
    fired = until("an alert about failures", lambda: prometheus.firing().get("ImgqManyFailures"))
    print(f"   fires: {fired['annotations']['summary']}")
    assert "ImgqPaused" not in prometheus.firing()

    asked = list(expressions())
    silent = asked
    ends = time.monotonic() + DEADLINE_SECONDS
    while silent and time.monotonic() < ends:
        time.sleep(0.5)
        silent = [(title, text) for title, text in silent if not prometheus.finds(text)]
    for title, text in silent:
        print(f"   finds nothing: {title}: {text}")
    assert not silent, f"{len(silent)} of {len(asked)} queries of the Grafana dashboard find nothing"
    for name, series, label in variables():
        assert prometheus.get(f"label/{label}/values", **{"match[]": series}), f"variable {name} has no value"
    print(f"   all {len(asked)} queries of the Grafana dashboard find something")
    for address, token in [*((address, None) for address in workers), (dashboard, TOKEN)]:
        scrape_lint(address, token)
    print("   promtool has nothing to say about the pages of workers and dashboard")

    produce("pause")
    fired = until("an alert about the pause", lambda: prometheus.firing().get("ImgqPaused"))
    print(f"   fires: {fired['annotations']['summary']}: {fired['annotations']['action']}")
    produce("resume")
    until("the end of that alert", lambda: "ImgqPaused" not in prometheus.firing())
    print("   ended: producer resume")

    redis_process.send_signal(signal.SIGKILL)
    fired = until("an alert about Redis", lambda: prometheus.firing().get("ImgqRedisAway"))
    print(f"   fires: {fired['annotations']['summary']}")
    until("an alert about ill workers", lambda: prometheus.firing().get("ImgqWorkerIll"))
    print("   fires: workers that are ill without Redis")
    assert "ImgqTargetDown" not in prometheus.firing(), "a dashboard without Redis has to answer Prometheus"


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="imgq-observability-") as folder:
        check(pathlib.Path(folder), pathlib.Path(sys.argv[1]).resolve())
    print(f"-- everything is watched; took {time.monotonic() - started:.0f} s")

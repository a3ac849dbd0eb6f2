"""imgq and the others in turn: small, web, large, https."""

import statistics
import sys
import tempfile
from pathlib import Path

from corpora import wrong
from goals import LEAST, MOST, table
from machine import Nginx, NotMeasured, Redis
from peers import Curl, Imgq, Setting, all_tools

RATIOS = {
    "small": {"curl": 1.4, "wget2": 1.8, "Python Pool(8)": 4, "img2dataset": 20, "aria2c": 20},
    "web": {"curl": 1.2, "wget2": 1.8, "Python Pool(8)": 4, "img2dataset": 20, "aria2c": 20},
    "large": {"curl": 1.35},
    "https": {"curl": 1.0},
}
CPU_MS = {"small": 0.08, "web": 0.19}


def compare(bench, part):
    """small, web, large."""
    corpus = bench.corpus(part)
    with Nginx(bench.corpora_folder, bench.work) as nginx, Redis(bench.work) as redis:
        setting = Setting(bench, corpus, f"http://127.0.0.1:{nginx.port}", redis)
        return [take_turns(bench, part, part, setting, all_tools())]


def https(bench, part):
    """web again, from a server with a certificate by an authority of its own; what it speaks is its choice."""
    corpus = bench.corpus("web")
    sections = []
    with Nginx(bench.corpora_folder, bench.work, tls=True) as nginx, Redis(bench.work) as redis:
        for version, port in [("HTTP/1.1", nginx.port_http1), ("HTTP/2", nginx.port_http2)]:
            setting = Setting(bench, corpus, f"https://127.0.0.1:{port}", redis, nginx.authority)
            sections.append(take_turns(bench, part, f"web over HTTPS, {version}", setting, [Imgq(), Curl()]))
    return sections


def take_turns(bench, part, title, setting, tools):
    """Each round runs every tool once, in an order that rotates, so that a slow minute of the machine hits all of them. Round 0
    warms up and is not counted. The slow ones take part in the first rounds only: their ratio is far from any doubt."""
    wanted, notes = [], []
    for tool in tools:
        if bench.tools and tool.name.split()[0] not in bench.tools and tool.name not in bench.tools:
            continue
        if why := tool.missing(setting):
            notes.append(f"{tool.name}: {why}, left out.")
            continue
        wanted.append(tool)
    if not wanted:
        raise NotMeasured("no tool is left")
    runs, failed = {tool.name: {} for tool in wanted}, {}
    for number in range(bench.rounds + 1):
        turn = number % len(wanted)
        for tool in wanted[turn:] + wanted[:turn]:
            if tool.name in failed or (tool.is_slow and not 1 <= number <= bench.slow_rounds):
                continue
            run, why = run_once(bench, tool, setting)
            if why:
                failed[tool.name] = why
                print(f"  {title} round {number}: {tool.name} FAILED: {why}", file=sys.stderr)
                continue
            rate = f"{setting.files / run.seconds:,.0f}/s"
            print(f"  {title} round {number}{'' if number else ' (warms up)'}: {tool.name} {rate}", file=sys.stderr)
            if number:
                runs[tool.name][number] = run
    bench.broken |= "imgq" in failed
    return section(bench, part, title, setting, runs, failed, notes)


def run_once(bench, tool, setting):
    """The run, and what was wrong with what it stored: a tool that lost a file has no time."""
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        output = Path(folder) / "out"
        output.mkdir()
        try:
            run = tool.run(setting, output)
        except RuntimeError as error:
            return None, str(error)
        return run, wrong(setting.corpus.hashes, output)


def spread(values, digits):
    """The median, and the least and the most beside it."""
    values = sorted(values)
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({values[0]:,.{digits}f} to {values[-1]:,.{digits}f})"


def section(bench, part, title, setting, runs, failed, notes):
    files, own = setting.files, runs.get("imgq", {})
    rows, figures = [], {}
    for name, rounds in runs.items():
        if name in failed:
            rows.append([name, f"FAILED: {failed[name]}", "", "", "", "", ""])
            figures[name] = {"failed": failed[name]}
            continue
        if not rounds:
            continue
        variants = [(name, lambda run: run.seconds)]
        if name == "imgq":
            variants.append(("imgq, enqueue included", lambda run: run.seconds + run.seconds_before))
        for shown, seconds in variants:
            rates = [files / seconds(run) for run in rounds.values()]
            cpu = [run.cpu * 1000 / files for run in rounds.values()]
            peak = max(run.peak_kb for run in rounds.values()) / 1024
            if shown != name:
                # CPU time and memory would be those of another program.
                curl = runs.get("curl --parallel", {})
                ratios = [curl[number].seconds / seconds(run) for number, run in rounds.items() if number in curl]
                note = f"{spread(ratios, 2)} times curl's speed" if ratios else ""
                rows.append([shown, spread(rates, 0), "", "", "", note, len(rates)])
            else:
                pairs = [(run, own[number]) for number, run in rounds.items() if number in own and name != "imgq"]
                ratios = [run.seconds / mine.seconds for run, mine in pairs]
                verdict = judge(bench, part, title, shown, ratios, cpu)
                shown_ratio = spread(ratios, 2) if ratios else ""
                rows.append([shown, spread(rates, 0), spread(cpu, 3), f"{peak:.0f}", shown_ratio, verdict, len(rates)])
            figures[shown] = {"rates": rates, "cpu_ms": cpu, "peak_mb": peak, "ratios": ratios}
    head = ["tool", "images/s", "CPU ms an image", "peak MB", "imgq is so many times as fast", "goal", "rounds"]
    text = f"**{title}**: {files:,} files, {setting.at_once} at once; medians (least to most)\n\n" + table(head, rows)
    return text + "".join(f"\n\n{note}" for note in notes), {title: figures}


def judge(bench, part, title, name, ratios, cpu):
    """Holds the medians against what is wanted of them."""
    if name == "imgq" and part in CPU_MS:
        figure = statistics.median(cpu)
        return bench.goals.check(title, "CPU of the worker for an image", figure, MOST, CPU_MS[part], " ms", 3)
    goal = next((goal for other, goal in RATIOS[part].items() if name.startswith(other)), None)
    if goal is None or not ratios:
        return ""
    return bench.goals.check(title, f"speed as a multiple of {name}'s", statistics.median(ratios), LEAST, goal)

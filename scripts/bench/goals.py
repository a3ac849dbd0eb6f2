"""What was wanted, beside what was measured."""

import sys

MOST, LEAST = "at most", "at least"


class Goals:
    """Every goal that was looked at, for the table at the end."""

    def __init__(self):
        self.all = []

    def check(self, part, what, figure, how, goal, unit="", digits=2):
        """Prints the figure beside its goal, and remembers both."""
        is_kept = figure >= goal if how == LEAST else figure <= goal
        return self.note(part, what, f"{figure:,.{digits}f}{unit}", f"{how} {goal:,.{digits}f}{unit}", is_kept, figure)

    def note(self, part, what, figure_text, goal_text, is_kept, figure):
        self.all.append({"part": part, "what": what, "figure": figure, "shown": figure_text, "goal": goal_text, "kept": is_kept})
        verdict = "PASS" if is_kept else "short"
        print(f"  {verdict}: {what}: {figure_text} (goal: {goal_text})", file=sys.stderr)
        return f"{goal_text}: {verdict}"

    def not_measured(self, part, why):
        self.all.append({"part": part, "what": "not measured", "figure": None, "shown": why, "goal": "", "kept": None})
        print(f"  not measured: {why}", file=sys.stderr)

    def table(self):
        words = {True: "PASS", False: "short", None: "not measured"}
        rows = [[g["part"], g["what"], g["shown"], g["goal"], words[g["kept"]]] for g in self.all]
        return table(["part", "what", "figure", "goal", ""], rows)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])

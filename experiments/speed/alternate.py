"""Run two commands in turn, A B A B …, and print the medians of what they report and of the ratios B/A, pair by pair.

    python experiments/speed/alternate.py [--rounds 6] "COMMAND A" "COMMAND B"

Each command prints one JSON object on its last line; every number in it that both report is compared. Pairs of neighbours in
time are compared because the speed of a shared machine drifts.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys


def run(command: str) -> dict[str, float]:
    """The numbers that `command` reports; its errors are shown."""
    done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {k: v for k, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("commands", nargs=2)
    given = parser.parse_args()
    pairs = []
    for number in range(given.rounds):
        pairs.append([run(command) for command in given.commands])
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
    print(f"{'':<16} {'A':>12} {'B':>12} {'B/A':>8} {'lowest':>8} {'highest':>8}")
    for name in pairs[0][0]:
        if name not in pairs[0][1]:
            continue
        first, second = ([pair[i][name] for pair in pairs] for i in (0, 1))
        ratios = [b / a for a, b in zip(first, second, strict=True) if a]
        if not ratios or first == second:  # a setting, not a figure
            continue
        spread = (statistics.median(ratios), min(ratios), max(ratios))
        middle = f"{statistics.median(first):>12.4f} {statistics.median(second):>12.4f}"
        print(f"{name:<16} {middle} " + " ".join(f"{value:>8.2f}" for value in spread))


if __name__ == "__main__":
    main()

"""`python experiments/demo_seeds/figure.py RUNS FILE.svg`: FCR and WAR of the main arms as bars with 95 % intervals."""

import sys
from pathlib import Path

from erv.report.rows import load, rows_of

SHOWN = {"sft": "SFT", "grpo": "GRPO, format + answer", "grpo_erv": "GRPO + R_E"}
COLOURS = {"fcr": "#228833", "war": "#8899aa"}
LEFT, WIDTH, BAR, GAP = 190, 420, 18, 26  # pixels; WIDTH is 100 %


def bar(y: int, name: str, value: float, low: float, high: float) -> str:
    """One bar with its interval and its figure."""
    x = [LEFT + WIDTH * v for v in (value, low, high)]
    middle = y + BAR / 2
    return (
        f'<rect x="{LEFT}" y="{y}" width="{x[0] - LEFT:.1f}" height="{BAR}" rx="2" fill="{COLOURS[name]}"/>'
        f'<path d="M{x[1]:.1f} {middle}H{x[2]:.1f}" stroke="#777" stroke-width="2"/>'
        f'<text x="{x[2] + 8:.1f}" y="{middle + 4}">{name.upper()} {100 * value:.1f} %</text>'
    )


def main(runs: str, file: str) -> None:
    """Read the runs, write the picture."""
    rows, y = [], 12
    by_label = {row.label: row for row in rows_of(load([Path(runs)]))}
    for label, name in SHOWN.items():
        rows.append(f'<text x="{LEFT - 12}" y="{y + BAR + 5}" text-anchor="end" font-weight="600">{name}</text>')
        for metric in ("fcr", "war"):
            estimate = by_label[label].estimate(metric)
            if estimate is None:
                sys.exit(f"{label} has no {metric}: its runs were evaluated without a judge")
            rows.append(bar(y, metric, estimate.value, *estimate.interval))
            y += BAR + 3
        y += GAP - BAR
    style = 'font-family="system-ui, sans-serif" font-size="13" fill="#888"'
    size = f'viewBox="0 0 {LEFT + WIDTH + 110} {y}" width="{LEFT + WIDTH + 110}" height="{y}"'
    Path(file).write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(rows) + "\n</svg>\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

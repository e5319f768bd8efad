"""`python -m erv.report RUNS…`: one table of runs, as Markdown, CSV, JSON and an HTML page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from erv.config.targets import import_plugins
from erv.errors import ConfigError

if TYPE_CHECKING:
    from erv.report.compare import Comparison
    from erv.report.rows import Row
    from erv.report.runs import Unfinished


def parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m erv.report",
        description="One table of the evaluated runs below RUNS: a row per setting, mean ± sd over its seeds. Figures are those "
        "of the sampled answers, of the greedy ones where there are no others.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="a run's folder, or a folder of runs")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--json", action="store_true", help="print one JSON object per row and line, figures as fractions"
    )
    output.add_argument("--csv", action="store_true", help="print one line per row, figures as fractions")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table as Markdown to FILE as well")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write one page with curves, confusion and clips to FILE"
    )
    parser.add_argument(
        "--wandb", metavar="ENTITY/PROJECT", help="make a W&B workspace for the runs (pip install 'erv[report]')"
    )
    parser.add_argument("--clips", type=int, metavar="N", help="the first N clips on the page (default: all)")
    parser.add_argument(
        "--embed",
        action="store_true",
        help="put the clips' files into the page (default: it plays them from where they are)",
    )
    parser.add_argument(
        "--baseline",
        action="append",
        metavar="ROW",
        help="compare every row with this one, clip by clip: an arm or a row's whole label; may be repeated "
        "(default: grpo and sft where they are, else the first row)",
    )
    parser.add_argument(
        "--over",
        action="append",
        default=["seed"],
        metavar="KEY",
        help="a key whose runs are averaged over beside the seed, such as data.fold; may be repeated",
    )
    parser.add_argument(
        "--verifiers", action="store_true", help="the table of the trained verifiers below RUNS instead"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command; without an option, the table is printed."""
    options = parser().parse_args(arguments)
    missing = [folder for folder in options.runs if not folder.exists()]
    if missing:
        sys.exit(f"erv.report: there is no {', '.join(map(str, missing))}; give the folders of runs")
    try:
        import_plugins()  # which may register metrics
    except ConfigError as error:
        sys.exit(f"erv.report: {error}")
    text = _report_verifiers(options) if options.verifiers else _report_runs(options)
    print(text, end="")


def _report_verifiers(options: argparse.Namespace) -> str:
    """The table of trained verifiers, written where `--table` says."""
    from erv.report import verifiers

    results = verifiers.load_verifiers(options.runs)
    if not results:
        sys.exit(f"erv.report: no trained verifier below {', '.join(map(str, options.runs))}")
    text = verifiers.as_markdown(results)
    if options.table:
        options.table.write_text(text)
    return text


def _report_runs(options: argparse.Namespace) -> str:
    """Write the files that the options name; returns what is to be printed."""
    from erv.report import export, table
    from erv.report.compare import against
    from erv.report.rows import load, rows_of
    from erv.report.runs import unfinished_runs

    rows, unfinished = rows_of(load(options.runs, options.over), options.over), unfinished_runs(options.runs)
    if not rows:
        also = "".join(f"\n  unfinished: {run.folder}" for run in unfinished)
        sys.exit(
            f"erv.report: no evaluated run below {', '.join(map(str, options.runs))} (no metrics.json with figures){also}"
        )
    baselines = _baselines(rows, options.baseline)
    # two baselines are compared once, as the first minus the second
    candidates = [against(base, [row for row in rows if row not in baselines[i:]]) for i, base in enumerate(baselines)]
    comparisons = [comparison for comparison in candidates if comparison.rows]
    markdown = table.as_markdown(rows, comparisons, unfinished)
    if options.table:
        options.table.write_text(markdown)
    if options.html:
        _write_page(options, rows, comparisons, unfinished)
    if options.wandb:
        from erv.report.wandb_workspace import publish

        print(f"erv.report: {publish(rows, options.wandb)}", file=sys.stderr)
    if not (options.json or options.csv):
        return markdown
    for run in unfinished:
        print(f"erv.report: unfinished, left out: {run.folder}", file=sys.stderr)
    return export.as_json(rows, comparisons) if options.json else export.as_csv(rows, comparisons)


def _baselines(rows: Sequence[Row], names: Sequence[str] | None) -> list[Row]:
    """The rows that the others are compared with; exits when a name matches none."""
    available = {row.arm for row in rows} | {row.label for row in rows}
    unknown = [name for name in names or () if name not in available]
    if unknown:
        sys.exit(f"erv.report: no run of baseline {', '.join(unknown)}; there are {', '.join(sorted(available))}")
    names = names or [name for name in ("grpo", "sft") if name in available] or [rows[0].label]
    return [row for name in names for row in rows if name in (row.arm, row.label)]


def _write_page(
    options: argparse.Namespace,
    rows: Sequence[Row],
    comparisons: Sequence[Comparison],
    unfinished: Sequence[Unfinished],
) -> None:
    from erv.report.page import page

    options.html.parent.mkdir(parents=True, exist_ok=True)
    html = page(rows, comparisons, unfinished, options.html, options.clips, options.embed)
    options.html.write_text(html, encoding="utf-8", errors="replace")  # half of a surrogate pair cannot be encoded
    print(f"erv.report: {options.html}, {options.html.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()

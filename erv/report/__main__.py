"""`python -m erv.report RUNS…`: tables, JSON and an HTML page of every evaluated run below the given folders."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from erv.report import verifiers
from erv.report.runs import Result, load
from erv.report.table import as_csv, as_markdown


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and write what it asks for; without an option, the table is printed."""
    parser = argparse.ArgumentParser(
        prog="python -m erv.report",
        description="Tables and pages of the evaluated runs below RUNS. Figures are those of the sampled answers.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="a run's folder, or a folder of runs")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--json", action="store_true", help="print one JSON object per run and line, figures as fractions"
    )
    output.add_argument("--csv", action="store_true", help="print one line per run, figures as fractions")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table as Markdown to FILE as well")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with curves and clips to FILE")
    parser.add_argument("--clips", type=int, default=50, metavar="N", help="clips on the page (default 50)")
    parser.add_argument(
        "--baseline", action="append", metavar="ARM",
        help="compare every arm with ARM, clip by clip; may be repeated (default: grpo and sft, where they are)",
    )  # fmt: skip
    parser.add_argument(
        "--verifiers", action="store_true", help="the table of the trained verifiers below RUNS instead"
    )
    options = parser.parse_args(arguments)
    if options.verifiers:
        _verifiers(options)
        return
    results = load(options.runs)
    if not results:
        sys.exit(
            f"erv.report: no evaluated run below {', '.join(map(str, options.runs))} (no metrics.json with figures)"
        )
    arms = {result.arm for result in results}
    unknown = [arm for arm in options.baseline or () if arm not in arms]
    if unknown:
        sys.exit(f"erv.report: no run of baseline {', '.join(unknown)}; there are {', '.join(sorted(arms))}")
    baselines = options.baseline or [arm for arm in ("grpo", "sft") if arm in arms]
    _print(results, baselines, options)


def _verifiers(options: argparse.Namespace) -> None:
    found = verifiers.load_verifiers(options.runs)
    if not found:
        sys.exit(f"erv.report: no trained verifier below {', '.join(map(str, options.runs))}")
    text = verifiers.as_markdown(found)
    print(text, end="")
    if options.table:
        options.table.write_text(text)


def _print(results: list[Result], baselines: list[str], options: argparse.Namespace) -> None:
    if options.json:
        print("\n".join(json.dumps(result.row(), ensure_ascii=False) for result in results))
    elif options.csv:
        print(as_csv(results), end="")
    else:
        print(as_markdown(results, baselines), end="")
    if options.table:
        options.table.write_text(as_markdown(results, baselines))
    if options.html:
        from erv.report.page import page

        options.html.write_text(page(results, baselines, options.clips))


if __name__ == "__main__":
    main()

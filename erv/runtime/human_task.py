"""A sheet for people who rate explanations."""

from __future__ import annotations

from pathlib import Path

from erv.evaluation.judges.human import export_sheet
from erv.evaluation.predictions import read_rows
from erv.runs.run import METRICS
from erv.taxonomy import Taxonomy

HUMAN = "human"  # folder of the sheet to rate, in the run's folder


def export(folder: Path, taxonomy: Taxonomy, items: int, seed: int) -> None:
    """Write a sheet for people to rate from a finished run's answers, and say where it is and how it comes back."""
    if not (folder / METRICS).is_file():
        return
    rows = [p for p in read_rows(folder).values() if p.sample == 0]
    sampled = [p for p in rows if p.decoding == "sampled"]
    sheet = export_sheet(sampled or rows, taxonomy, folder / HUMAN, items, seed)
    print(
        f"Sheet to rate: {sheet}; a copy for each rater. Read back with\n  python -m erv.evaluate predictions={folder} data=… "
        "judge=[…,human] judge.human.sheets=[ALICE.csv,BOB.csv]"
    )

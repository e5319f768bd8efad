"""The HTML page: one file that loads nothing else. Tables are in its HTML; curves and clips are data for its own scripts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from erv import __version__
from erv.report.clips import Clips
from erv.report.compare import Comparison
from erv.report.curves import curves
from erv.report.rows import Row
from erv.report.runs import Unfinished
from erv.report.sections import content

SCRIPTS = ("page.js", "clips.js", "charts.js")
_TEMPLATES = Path(__file__).parent / "templates"


def page(
    rows: Sequence[Row],
    comparisons: Sequence[Comparison],
    unfinished: Sequence[Unfinished],
    file: Path,
    limit: int | None = None,
    embed: bool = False,
) -> str:
    """Render the page as HTML, to be written to `file`, which the paths of clips are relative to.

    `limit` keeps the first clips only; `embed` puts the clips' files into the page.
    """
    runs = [run for row in rows for run in row.runs]
    clips = Clips(runs, file.parent, limit, embed)
    packed = [pack(clips.answers(run)) for run in runs]
    charts = curves(runs)
    first, second = _initial_pair(rows, comparisons)
    data = {
        "runs": [{**clips.about(run), "row": i} for i, row in enumerate(rows) for run in row.runs],
        "clips": clips.rows,
        "hues": clips.hues,
        "neutral": sorted({run.taxonomy.neutral for run in runs}),
        "curves": charts,
        "several_seeds": any(len(row.runs) > 1 for row in rows),
        "a": first,
        "b": second,
    }
    plotly = _plotly() if charts else ""
    scripts = [(_TEMPLATES / name).read_text() for name in SCRIPTS]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(
        **content(rows, comparisons, bool(charts)),
        unfinished=unfinished,
        version=__version__,
        embedded=embed,
        policy=_security_policy([*scripts, plotly]),
        css=Markup((_TEMPLATES / "page.css").read_text()),
        scripts=[Markup(script) for script in scripts],
        data=pack(data),
        packed=packed,
        curves=charts,
        plotly=pack(plotly, text=True) if plotly else None,
    )


def pack(value: Any, text: bool = False) -> str:
    """JSON (or text as it is), gzipped, in base64: small, and without characters that are special in HTML."""
    content = value if text else json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(content.encode(), 6, mtime=0)).decode()


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _security_policy(scripts: Sequence[str]) -> str:
    """A content security policy that allows these scripts and no others, and no network access."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "media-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )


def _initial_pair(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> tuple[int, int | None]:
    """The two runs that are side by side when the page opens: of the row that gains most, and of the first baseline."""
    if not comparisons:
        return 0, None
    first_run = {row.label: sum(len(r.runs) for r in rows[:i]) for i, row in enumerate(rows)}
    return first_run[comparisons[0].best.row.label], first_run[comparisons[0].baseline.label]

"""The calibration plot: reliability before and after the temperature, and the threshold sweep, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from erv.verifier.calibration import Calibration

_SIDE, _LEFT, _TOP, _GAP = 260, 56, 44, 96  # pixels; SIDE is the unit interval
_BLUE, _GREEN, _GREY = "#4477aa", "#228833", "#aaaaaa"


def calibration_svg(found: Calibration, ece: tuple[float, float], chosen_at: str) -> str:
    """The picture. `ece` is the calibration error before and after, `chosen_at` names the sentences it was made on."""
    second = _LEFT + _SIDE + _GAP
    width, height = second + _SIDE + 40, _TOP + _SIDE + 72
    most = max(f for _, f, _ in found.sweep)
    parts = [
        _axes(_LEFT, "mean probability", "share that is right", f"Reliability ({chosen_at})"),
        _line(_LEFT, [(0, 0), (1, 1)], _GREY, dashed=True),
        _line(_LEFT, [(p, t) for p, t, _ in found.before], _BLUE, dots=True),
        _line(_LEFT, [(p, t) for p, t, _ in found.after], _GREEN, dots=True),
        _note(_LEFT, 0, _BLUE, f"as trained, ECE {ece[0]:.3f}"),
        _note(_LEFT, 1, _GREEN, f"temperature {found.temperature:.2f}, ECE {ece[1]:.3f}"),
        _axes(second, "threshold", "macro F1", f"Threshold ({chosen_at})"),
        _line(second, [(t, f) for t, f, _ in found.sweep], _BLUE),
        _line(second, [(found.threshold, 0), (found.threshold, 1)], _GREY, dashed=True),
        _note(second, 0, _BLUE, f"best macro F1 {most:.3f} at threshold {found.threshold:.2f}"),
    ]
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#777"'
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(parts) + "\n</svg>\n"


def _place(left: int) -> Callable[[float, float], tuple[float, float]]:
    return lambda x, y: (left + _SIDE * x, _TOP + _SIDE * (1 - y))


def _axes(left: int, x: str, y: str, title: str) -> str:
    at = _place(left)
    ticks = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        (tx, _), (_, ty) = at(value, 0), at(0, value)
        ticks.append(f'<text x="{tx:.0f}" y="{_TOP + _SIDE + 16}" text-anchor="middle">{value:g}</text>')
        ticks.append(f'<text x="{left - 6}" y="{ty + 4:.0f}" text-anchor="end">{value:g}</text>')
    middle = left + _SIDE / 2
    return "".join([
        f'<rect x="{left}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#ccc"/>', *ticks,
        f'<text x="{middle}" y="{_TOP - 14}" text-anchor="middle" font-weight="600">{title}</text>',
        f'<text x="{middle}" y="{_TOP + _SIDE + 34}" text-anchor="middle">{x}</text>',
        f'<text transform="translate({left - 40} {_TOP + _SIDE / 2}) rotate(-90)" text-anchor="middle">{y}</text>',
    ])  # fmt: skip


def _line(
    left: int, points: Sequence[tuple[float, float]], colour: str, dots: bool = False, dashed: bool = False
) -> str:  # fmt: skip
    at = _place(left)
    placed = [at(x, y) for x, y in points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    dash = ' stroke-dasharray="4 4"' if dashed else ""
    marks = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed] if dots else []
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>' + "".join(marks)


def _note(left: int, row: int, colour: str, text: str) -> str:
    y = _TOP + _SIDE + 50 + 14 * row - (0 if row == 0 else 1)
    return f'<text x="{left}" y="{y}" fill="{colour}">{text}</text>'

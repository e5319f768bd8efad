"""The calibration plot, an SVG: reliability before and after the temperature, and the threshold sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from erv.verifier.calibration import Calibration

_SIDE, _LEFT, _TOP, _GAP = 260, 56, 44, 96  # pixels; an axis of _SIDE pixels is the unit interval
_BLUE, _GREEN, _GREY = "#4477aa", "#228833", "#aaaaaa"


def calibration_svg(calibration: Calibration, ece: tuple[float, float], measured_on: str) -> str:
    """Draw the plot.

    Args:
        calibration: Curves, threshold and temperature.
        ece: Expected calibration error before and after the temperature.
        measured_on: Name of the sentences, for the titles.
    """
    second = _LEFT + _SIDE + _GAP  # left edge of the second diagram
    width, height = second + _SIDE + 40, _TOP + _SIDE + 72
    best = max(point.macro_f1 for point in calibration.sweep)
    elements = [
        _axes(_LEFT, "mean probability", "share that is right", f"Reliability ({measured_on})"),
        _line(_LEFT, [(0, 0), (1, 1)], _GREY, dashed=True),
        _line(_LEFT, [(p, share) for p, share, _ in calibration.before], _BLUE, dots=True),
        _line(_LEFT, [(p, share) for p, share, _ in calibration.after], _GREEN, dots=True),
        _caption(_LEFT, 0, _BLUE, f"as trained, ECE {ece[0]:.3f}"),
        _caption(_LEFT, 1, _GREEN, f"temperature {calibration.temperature:.2f}, ECE {ece[1]:.3f}"),
        _axes(second, "threshold", "macro F1", f"Threshold ({measured_on})"),
        _line(second, [(threshold, f1) for threshold, f1, _ in calibration.sweep], _BLUE),
        _line(second, [(calibration.threshold, 0), (calibration.threshold, 1)], _GREY, dashed=True),
        _caption(second, 0, _BLUE, f"best macro F1 {best:.3f} at threshold {calibration.threshold:.2f}"),
    ]
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#777"'
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(elements) + "\n</svg>\n"


def _to_pixels(left: int) -> Callable[[float, float], tuple[float, float]]:
    return lambda x, y: (left + _SIDE * x, _TOP + _SIDE * (1 - y))


def _axes(left: int, x_title: str, y_title: str, title: str) -> str:
    pixels = _to_pixels(left)
    middle = left + _SIDE / 2
    elements = [f'<rect x="{left}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#ccc"/>']
    for value in (0, 0.25, 0.5, 0.75, 1):
        (x, _), (_, y) = pixels(value, 0), pixels(0, value)
        elements += [
            f'<text x="{x:.0f}" y="{_TOP + _SIDE + 16}" text-anchor="middle">{value:g}</text>',
            f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{value:g}</text>',
        ]
    rotated = f'transform="translate({left - 40} {_TOP + _SIDE / 2}) rotate(-90)"'
    elements += [
        f'<text x="{middle}" y="{_TOP - 14}" text-anchor="middle" font-weight="600">{title}</text>',
        f'<text x="{middle}" y="{_TOP + _SIDE + 34}" text-anchor="middle">{x_title}</text>',
        f'<text {rotated} text-anchor="middle">{y_title}</text>',
    ]
    return "".join(elements)


def _line(
    left: int,
    points: Sequence[tuple[float, float]],
    colour: str,
    dots: bool = False,
    dashed: bool = False,
) -> str:
    pixels = _to_pixels(left)
    positions = [pixels(x, y) for x, y in points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in positions)
    dash = ' stroke-dasharray="4 4"' if dashed else ""
    marks = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in positions] if dots else []
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>' + "".join(marks)


def _caption(left: int, row: int, colour: str, text: str) -> str:
    y = _TOP + _SIDE + 50 + 14 * row - (0 if row == 0 else 1)
    return f'<text x="{left}" y="{y}" fill="{colour}">{text}</text>'

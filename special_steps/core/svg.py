"""Small line charts as SVG text, for pages that carry everything inside them."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

MARGIN = (8, 8, 34, 46)  # pixels: top, right, bottom, left


class Line(NamedTuple):
    """A line of a chart; NaN breaks it."""

    x: np.ndarray
    y: np.ndarray
    style: str  # CSS: stroke and the like
    spread: np.ndarray | None = None  # half the height of a band around it


def ticks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, `most` at most; `whole` ones, if asked for."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(m for m in (1, 2, 2.5, 5, 10, 20) if (high - low) / (step * m) <= most - 1 + 1e-9)
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def line_chart(
    lines: Sequence[Line],
    *,
    label: str,
    x_title: str,
    y_title: str,
    gap: float = math.inf,
    size: tuple[int, int] = (340, 190),
    from_zero: bool = False,
    whole_x: bool = False,
) -> str:
    """An SVG element.

    Args:
        lines: each over its own x, which increases.
        label: what a screen reader says instead of the picture.
        x_title: under the x axis.
        y_title: above the y axis.
        gap: difference in x that a line does not cross.
        size: width and height in pixels.
        from_zero: whether the y axis has 0.
        whole_x: whether x counts something.
    """
    (width, height), (top, right, bottom, left) = size, MARGIN
    top += 12
    x_all = np.concatenate([line.x for line in lines])
    spreads = [0 if line.spread is None else line.spread for line in lines]
    ends = [line.y + sign * s for line, s in zip(lines, spreads, strict=True) for sign in (-1, 1)]
    y_all = np.concatenate(ends)
    y_all = y_all[np.isfinite(y_all)]
    x_low, x_high = float(x_all.min()), float(x_all.max())
    y_low, y_high = (float(y_all.min()), float(y_all.max())) if len(y_all) else (0.0, 1.0)
    if from_zero:
        y_low, y_high = min(y_low, 0.0), max(y_high, 0.0)
    x_high, y_high = (
        high if high > low else low + 1 for low, high in ((x_low, x_high), (y_low, y_high))
    )
    inner = (width - left - right, height - top - bottom)

    def place(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        across = left + (x - x_low) / (x_high - x_low) * inner[0]
        down = top + (y_high - y) / (y_high - y_low) * inner[1]
        return np.stack([across, down], -1)

    parts = [
        f'<svg class="chart" role="img" viewBox="0 0 {width} {height}" aria-label="{escape(label)}">'
    ]
    for value in ticks(y_low, y_high):
        y = place(np.array(x_low), np.array(value))[1]
        parts.append(
            f'<path class="grid" d="M{left} {y:.1f}H{width - right}"/>'
            f'<text x="{left - 5}" y="{y + 3.5:.1f}" text-anchor="end">{value:g}</text>'
        )
    for value in ticks(x_low, x_high, 6, whole_x):
        x = place(np.array(value), np.array(y_low))[0]
        parts.append(
            f'<text x="{x:.1f}" y="{height - bottom + 14}" text-anchor="middle">{value:g}</text>'
        )
    parts.append(
        f'<text x="{left + inner[0] / 2}" y="{height - 4}" text-anchor="middle">{escape(x_title)}</text>'
        f'<text x="2" y="11">{escape(y_title)}</text>'
    )
    for line in lines:
        for piece in _pieces(line, gap):
            if line.spread is not None:
                upper = place(line.x[piece], line.y[piece] + line.spread[piece])
                lower = place(line.x[piece], line.y[piece] - line.spread[piece])[::-1]
                parts.append(
                    f'<path class="spread" style="{line.style}" d="{_path(np.concatenate([upper, lower]))}Z"/>'
                )
            drawn = _path(place(line.x[piece], line.y[piece]))
            parts.append(f'<path class="line" style="{line.style}" d="{drawn}"/>')
    return "".join([*parts, "</svg>"])


def _pieces(line: Line, gap: float) -> Iterator[slice]:
    """The parts of a line without NaN and without a gap."""
    known = np.isfinite(line.y)
    starts = np.flatnonzero(
        known & ~np.concatenate([[False], known[:-1] & (np.diff(line.x) <= gap)])
    )
    for start in starts:
        stop = start + 1
        while stop < len(known) and known[stop] and line.x[stop] - line.x[stop - 1] <= gap:
            stop += 1
        yield slice(int(start), int(stop))


def _path(points: np.ndarray) -> str:
    """The points joined; a single one as a short stroke, which is seen."""
    if len(points) == 1:
        points = np.stack([points[0], points[0] + (0.1, 0.0)])
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)

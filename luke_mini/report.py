"""A page about a run or data: inline SVG, numbers, examples. No scripts, no other files; light or dark, phones too.

    chart("Loss", {"words": points, "words, held out": points})    -> a figure, HTML with an SVG in it
    histogram("Tokens of an example", lengths)                      -> another
    bars([("Norway", 30), ("Oslo", 7)])                             -> names on bars as long as their numbers
    table({"model": "2.3M weights"})                                -> names and values
    write(path, "A run", [part, part, ...])                         -> the page; parts are HTML

A curve is a list of points (x, y). Left out: zooming, values to point at; they are in metrics.jsonl.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from luke_mini import files
from luke_mini.views import printable

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 340, 190  # of a chart, in units that are pixels on a phone
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 22  # margins for the numbers at the axes
MOST_POINTS = 200  # of a curve
MOST_BARS = 40  # of a histogram
STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --paper: #fff; --soft: #6b6b70; --edge: #ddd; --ground: #eef3fa;
  --c0: #1f6fb8; --c1: #c2410c; --c2: #15803d; --c3: #7e3fb0 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececee; --paper: #17171a; --soft: #9a9aa0; --edge: #38383c; --ground: #22303f;
    --c0: #6cb6ff; --c1: #ff9d5c; --c2: #6fd08c; --c3: #c79bf2 }
}
body { max-width: 72rem; margin: 1rem auto; padding: 0 .8rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.3rem } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); gap: .8rem 1.4rem;
  margin: .8rem 0 }
figure { margin: 0; min-width: 0 } figcaption { font-weight: 600; font-size: .95rem }
svg { display: block; width: 100%; height: auto; font: 10.5px system-ui, sans-serif }
svg text { fill: var(--soft) } .axis { stroke: var(--edge); stroke-width: 1 }
.legend { color: var(--soft); font-size: .8rem; margin: 0 }
.legend span { display: inline-block; margin-right: .9em } .legend b { color: var(--ink); font-weight: 500 }
.legend i { display: inline-block; width: 1.4em; border-top: 2.5px solid; vertical-align: middle; margin-right: .3em }
i.dashed { border-top-style: dashed }
polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round } polyline.dashed { stroke-dasharray: 5 3 }
table { border-collapse: collapse; font-size: .88rem; width: 100% }
th { text-align: left; font-weight: 500; color: var(--soft); white-space: nowrap; vertical-align: top;
  padding-right: 1em; width: 1% }
td { overflow-wrap: anywhere; white-space: pre-line }
@media (max-width: 30rem) { th { white-space: normal; width: 45% } }
p { margin: .2rem 0; overflow-wrap: anywhere } mark { background: var(--ground); color: inherit; padding: .1em .2em }
article { border-top: 1px solid var(--edge); padding: .5rem 0; min-width: 0; font-size: .92rem }
ol { margin: .3rem 0; padding: 0; list-style: none; font-size: .85rem }
li { display: flex; gap: .6em; background: linear-gradient(var(--ground) 0 0) no-repeat; padding: 0 .3em;
  background-size: calc(100% * var(--share)) 100% }
li > :first-child { flex: 1; min-width: 0; overflow-wrap: anywhere } .right { font-weight: 700 }
.soft { color: var(--soft) } small { color: var(--soft); margin-left: .35em }
"""


def text(value: object) -> str:
    """Text for an element; what HTML forbids, control characters, becomes U+FFFD."""
    return escape(printable(str(value)))


def number(value: float) -> str:
    """1234567 -> 1.23M, 999999 -> 1M, 0.00012 -> 0.00012"""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


# --- Charts -----------------------------------------------------------------------------------------------------------


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """Means of neighbors, so that at most `most` points are left."""
    group = math.ceil(len(points) / most)
    if group <= 1:
        return points
    parts = (points[i : i + group] for i in range(0, len(points), group))
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from low to high, about `most` of them: ticks(0.3, 9.2) -> [2, 4, 6, 8]"""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= rough)
    first, last = math.ceil(low / step), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def chart(title: str, curves: Mapping[str, Points], marks: Points = (), from_zero: bool = False) -> str:
    """A figure of curves by name; "held out" in a name makes it dashed, in the color of the curve before. marks: dots.

    Curves without points are left out; without any "" is returned.
    """
    curves = {name: thinned(points) for name, points in curves.items() if points}
    if not curves:
        return ""
    every = [point for points in (*curves.values(), marks) for point in points]
    (x0, x1), (y0, y1) = (bounds(values) for values in zip(*every))
    y0 = min(0.0, y0) if from_zero else y0
    place = placing(x0, x1, y0, y1)
    parts = [*axes(place, ticks(x0, x1), ticks(y0, y1))]
    legend, color = [], -1
    for name, points in curves.items():
        dashed = ' class="dashed"' * ("held out" in name and color >= 0)
        color += not dashed
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        parts.append(f'<polyline{dashed} stroke="var(--c{color % 4})" points="{path}"/>')
        swatch = f'<i{dashed} style="color:var(--c{color % 4})"></i>'
        legend.append(f"<span>{swatch}{text(name)} <b>{number(points[-1][1])}</b></span>")
    parts += ('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="var(--c1)"/>'.format(*place(*mark)) for mark in marks)
    return figure(title, "".join(legend), parts)


def histogram(title: str, values: np.ndarray) -> str:
    """A figure of how often whole numbers from 0 on occur, in bars of equal width; "" without any number."""
    if not len(values):
        return ""
    width = -(-(int(values.max()) + 1) // MOST_BARS)
    counts = np.bincount(values // width)
    place = placing(0, width * len(counts), 0, counts.max())
    parts = [*axes(place, ticks(0, width * len(counts)), ticks(0, counts.max()))]
    for index, count in enumerate(counts.tolist()):
        (left, top), (right, bottom) = place(width * index, count), place(width * (index + 1), 0)
        parts.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left - 1, 1):.1f}" '
                     f'height="{bottom - top:.1f}" fill="var(--c0)"/>')  # fmt: skip
    return figure(title, f"<span>mean <b>{values.mean():,.1f}</b></span>", parts)


def figure(title: str, legend: str, parts: Iterable[str]) -> str:
    return (f'<figure><figcaption>{text(title)}</figcaption><p class="legend">{legend}</p><svg role="img" '
            f'aria-label="{text(title)}" viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg></figure>')  # fmt: skip


def placing(x0: float, x1: float, y0: float, y1: float) -> Callable[[float, float], tuple[float, float]]:
    """Where in the SVG a point is, if these are its borders."""

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    return place


def bounds(values: Iterable[float]) -> tuple[float, float]:
    """The least and the largest, a little apart if they are equal."""
    values = sorted(values)
    gap = 0.0 if values[0] < values[-1] else abs(values[0]) / 2 or 1.0
    return values[0] - gap, values[-1] + gap


def axes(place, x_ticks: list[float], y_ticks: list[float]) -> Iterator[str]:
    for y in y_ticks:
        _, height = place(0, y)
        yield f'<path class="axis" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 5}" y="{height + 3.5:.1f}" text-anchor="end">{number(y)}</text>'
    for x in x_ticks:
        across, _ = place(x, 0)
        yield f'<text x="{across:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{number(x)}</text>'


# --- The page ---------------------------------------------------------------------------------------------------------


def table(values: Mapping[str, object]) -> str:
    rows = (f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in values.items())
    return f"<table>{''.join(rows)}</table>"


def bars(values: Iterable[tuple[str, float]], form: str = "{:,}", whole: float = 0, right: str | None = None) -> str:
    """Names on bars as long as their numbers; right: the name that is set off.

    whole: what is as wide as the page [the largest number].
    """
    values = list(values)
    whole = whole or max((value for _, value in values), default=0) or 1
    rows = (f'<li style="--share:{value / whole:.3f}"><span{" class=right" * (name == right)}>{text(name)}</span>'
            f"<span>{form.format(value)}</span></li>" for name, value in values)  # fmt: skip
    return f"<ol>{''.join(rows)}</ol>"


def grid(parts: Iterable[str]) -> str:
    """Side by side where there is room."""
    return f'<div class="grid">{"".join(parts)}</div>'


def write(path: Path, title: str, parts: Iterable[str]) -> None:
    """Writes the page; `path` has it whole or not at all."""
    with files.write_file(path) as file:
        file.write('<!doctype html><html lang="en"><head><meta charset="utf-8">'
                   '<meta name="viewport" content="width=device-width, initial-scale=1">'
                   f"<title>{text(title)}</title><style>{STYLE}</style></head>"
                   f"<body><h1>{text(title)}</h1>")  # fmt: skip
        file.writelines(f"{part}\n" for part in parts)
        file.write("</body></html>\n")

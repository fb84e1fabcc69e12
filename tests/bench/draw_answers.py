"""Draws answers as they look in a terminal: the picture at the head of the README.

    python tests/bench/draw_answers.py answers.jsonl answers.svg

answers.jsonl: what `finetune.py TASK --text ...` prints. A column of the terminal is as wide as textLength makes it,
whatever the reader's font.
"""

import sys
from collections.abc import Iterable
from html import escape
from pathlib import Path

import project  # noqa: F401  (finds luke_mini)

from luke_mini import files, views

WIDTH = 76  # columns
COLUMN, LINE, EDGE = 9, 26, 16  # pixels
STYLE = """text { font: 15px ui-monospace, monospace; white-space: pre; fill: #1c1c1e }
.paper { fill: #fff; stroke: #ddd } .faint { fill: #6b6b70 } .bold { font-weight: 600 } .ground { fill: #1c1c1e }
@media (prefers-color-scheme: dark) { text { fill: #ececee } .faint { fill: #9a9aa0 } .ground { fill: #1c1c1e }
.paper { fill: #17171a; stroke: #38383c } }"""
CLASSES = {"": "", "1": "bold", "2": "faint"}


def draw(answers: Iterable[views.Shown]) -> str:
    lines = [line for shown in answers for line in views.lines(shown, True, WIDTH)]
    width, height = WIDTH * COLUMN + 2 * EDGE, len(lines) * LINE + 2 * EDGE
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"><style>{STYLE}</style>'
           f'<rect class="paper" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>']  # fmt: skip
    for row, line in enumerate(lines):
        x, y = EDGE, EDGE + row * LINE
        for text, style in line:
            size = COLUMN * sum(map(views.columns, text))
            if style.startswith("30;"):
                fill = color(int(style.split(";")[-1]))
                out.append(f'<rect x="{x}" y="{y}" width="{size}" height="{LINE - 4}" rx="3" fill="{fill}"/>')
            where = f'x="{x}" y="{y + 16}" textLength="{size}" xml:space="preserve"'
            out.append(f'<text class="{CLASSES.get(style, "ground")}" {where}>{escape(text)}</text>')
            x += size
    return "\n".join([*out, "</svg>\n"])


def color(number: int) -> str:
    """One of a terminal's 216 colors, 16 to 231."""
    return "#" + "".join(f"{(0, 95, 135, 175, 215, 255)[(number - 16) // part % 6]:02x}" for part in (36, 6, 1))


def main() -> None:
    source, target = sys.argv[1:]
    answers = [views.show(record.values) for record in files.read_json_lines(source)]
    Path(target).write_text(draw(answers), encoding="utf-8")


if __name__ == "__main__":
    main()

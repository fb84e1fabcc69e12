"""Answers for people: the dicts that `inference.answer` yields, as colored text in a terminal or as an HTML page.

    show(answer)              -> what a reader sees of an answer, a `Shown`: texts with marks
    to_terminal(shown)        -> lines for a terminal, no wider than it
    write_html(path, shown)   -> one page without scripts or other files, light or dark as the reader's system is

    python -m luke_mini.views answers.jsonl [--html page.html]    what --predict printed, or predictions.jsonl of a run

`SHAPES` tells the answers of the tasks apart. Marks may lie inside each other or cross, and may be empty: a text is cut
at every border, and each stretch is wrapped in all marks that cover it, the longest outermost. The color of a mark is a
hash of its first type, else of its label, the same in every run. Left out: arcs between mentions; windowing of long
pages; line breaks as in typesetting (hyphens, rules of a language).
"""

import argparse
import colorsys
import re
import shutil
import sys
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2s
from html import escape
from itertools import accumulate, groupby
from pathlib import Path
from typing import NamedTuple

from luke_mini import files

MOST_DETAILS = 5  # of a verdict in a terminal
MOST_IN_LEGEND = 24  # types at the head of a page
# Line ends and tabs excepted: control characters and lone surrogates; characters that set a reading direction.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
STAYS_BEHIND = set("|])}.,;:!?…»”’、。，．：；！？」』）】》ー")  # no line begins with one of these


class Mark(NamedTuple):
    start: int  # half-open characters of the text
    end: int
    label: str  # beside the mention; may be empty
    details: tuple[str, ...] = ()  # lines to see when pointed at
    types: tuple[str, ...] = ()  # for the legend

    @property
    def hue(self) -> int:
        """Its color, see `hue`."""
        return hue(self.types[0] if self.types else self.label)


class Passage(NamedTuple):
    text: str
    marks: tuple[Mark, ...] = ()


class Shown(NamedTuple):
    heading: str  # what was asked; may be empty
    passages: tuple[Passage, ...]
    verdict: str  # what was answered, if it is about the whole; may be empty
    details: tuple[str, ...] = ()  # lines to see when the verdict is pointed at


# --- Shapes of answers ------------------------------------------------------------------------------------------------


def show(answer: dict) -> Shown:
    """ValueError for a dict of a shape that no task has."""
    for field, view in SHAPES.items():
        if field in answer:
            return view(answer)
    raise ValueError(f"no view for an answer of the fields {', '.join(answer)}")


def _with_number(name: str, number: float | None) -> str:
    return name if number is None else f"{name} {number:.2f}"


def _mention(mention: dict) -> Mark:
    """A mention with what is known of it: a title, types, or only the probability that it is the answer."""
    types = mention.get("types", [mention] * ("type" in mention))
    names = tuple(found["type"] for found in types)
    label, details = ", ".join(names), [_with_number(found["type"], found.get("probability")) for found in types]
    if "title" in mention:
        title = mention["title"]
        label = "?" if title is None else title * (title != mention.get("text"))
        details = [_with_number(title, mention["probability"]) if title else "no title"]
        details += names  # the probability is that of the title
        details += [f"{_numbers(candidate)} {candidate['title']}" for candidate in mention.get("candidates", ())]
    elif not types:
        details = ["no type"] if "types" in mention else []
        details = [_with_number("probability", mention["probability"])] if "probability" in mention else details
    return Mark(mention["start"], mention["end"], label, tuple(details), names)


def _numbers(candidate: dict) -> str:
    return "  ".join(_with_number(name, value) for name, value in candidate.items() if isinstance(value, float))


def _mentions(answer: dict) -> Shown:
    """Mentions with their types or titles; those of a cloze question are candidates, one of them the answer."""
    text, marks = answer["text"], [_mention(mention) for mention in answer["mentions"]]
    if "query" in answer:
        right = [text[mark.start : mark.end] == answer["answer"] for mark in marks]
        marks = [mark._replace(label="answer" if chosen else "candidate") for mark, chosen in zip(marks, right)]
    if "labels" in answer:  # of a file of predictions
        gold = f"right: {', '.join(answer['labels']) or 'no type'}"
        marks = [mark._replace(details=(*mark.details, gold)) for mark in marks]
    return Shown(answer.get("query", ""), (Passage(text, tuple(marks)),), answer.get("answer", ""))


def _relation(answer: dict) -> Shown:
    marks = (Mark(answer[name]["start"], answer[name]["end"], name) for name in ("head", "tail"))
    verdict = f"{answer['head']['text']} — {answer['label']} → {answer['tail']['text']}"
    details = [_with_number(answer["label"], answer.get("probability"))]
    details += [f"right: {answer['gold']}"] if "gold" in answer else []  # of a file of predictions
    return Shown("", (Passage(answer["text"], tuple(marks)),), verdict, tuple(details))


def _question(answer: dict) -> Shown:
    """The answer is marked in its context; an answer that is nowhere ("") is not."""
    best = [found for found in answer["answers"] if found["text"] and found["text"] == answer["answer"]][:1]
    details = tuple(_with_number(found["text"] or "no answer", found.get("probability")) for found in answer["answers"])
    marks = tuple(Mark(found["start"], found["end"], "answer", details) for found in best)
    return Shown(answer["question"], (Passage(answer["context"], marks),), answer["answer"] or "no answer", details)


def _ranking(answer: dict) -> Shown:
    kinds = [(kind, answer[kind]) for kind in ("words", "entities") if answer.get(kind)]
    verdict = "; ".join(f"by {kind}: {found[0]['candidate']}" for kind, found in kinds)
    details = (f"by {kind}: {found['candidate']} {found['score']:.2f}" for kind, rows in kinds for found in rows)
    return Shown(answer["question"], (), verdict, tuple(details))


def _label(answer: dict) -> Shown:
    label, texts = answer["label"], answer["texts"]
    is_choice = isinstance(label, int)
    verdict = texts[1 + label] if is_choice else f"{label:.2f}" if isinstance(label, float) else label
    passages = tuple(Passage(text) for text in texts[is_choice:])
    details = (_with_number(verdict, answer["probability"]),) if "probability" in answer else ()
    return Shown(texts[0] if is_choice else "", passages, verdict, details)


# The first of these fields that an answer has decides.
SHAPES = {
    "head": _relation,  # text, head, tail, label
    "answers": _question,  # question, context, answers
    "words": _ranking,  # question, words, entities: candidates in order (mLAMA)
    "texts": _label,  # texts, label: a class, a number or a choice
    "mentions": _mentions,  # text, mentions: NER, typing, disambiguation and linking; with query and answer, cloze
}


# --- Marks in a text --------------------------------------------------------------------------------------------------


def stretches(passage: Passage) -> Iterator[tuple[int, int, list[Mark]]]:
    """The text cut at the borders of all marks: (start, end, the marks that cover it, the longest first)."""
    text, marks = passage
    borders = sorted({0, len(text), *(border for mark in marks for border in (mark.start, mark.end))})
    order = sorted(marks, key=lambda mark: (mark.start - mark.end, mark.start))
    for start, end in zip(borders, borders[1:]):
        yield start, end, [mark for mark in order if mark.start <= start and end <= mark.end]


def hue(label: str) -> int:
    """The color of a type or label, in degrees of a circle. The key, one of many tried, sets common types apart."""
    return int.from_bytes(blake2s(label.encode("utf-8", "surrogatepass"), digest_size=4, key=b"774").digest()) % 360


# --- Terminal ---------------------------------------------------------------------------------------------------------


Run = tuple[str, str]  # a text and its style, the numbers of an ANSI escape: "1" is bold, "2" faint


def to_terminal(shown: Shown, color: bool = True, width: int | None = None) -> str:
    """Mentions on a ground of their color, the label behind them; without color in brackets.

    width: columns that no line exceeds; None: a line is as long as its text.
    """
    made = ((_styled(text, style if color else "") for text, style in line) for line in lines(shown, color, width))
    return "\n".join(map("".join, made))


def lines(shown: Shown, color: bool, width: int | None) -> Iterator[list[Run]]:
    """The lines of `to_terminal`."""
    blocks: list[list[Run]] = [[(printable(shown.heading), "1")]] if shown.heading else []
    blocks += [list(_terminal_passage(passage, color)) for passage in shown.passages]
    if shown.verdict:
        more = f" ({printable('; '.join(shown.details[:MOST_DETAILS]))})" if shown.details else ""
        blocks.append([("→ " + printable(shown.verdict), "1"), (more, "")])
    return (line for block in blocks for line in wrap(block, width))


def _terminal_passage(passage: Passage, color: bool) -> Iterator[Run]:
    for start, end, marks in stretches(passage):
        opened = "" if color else "[" * sum(mark.start == start for mark in marks)
        yield opened + printable(passage.text[start:end]), f"30;48;5;{_ground(marks[-1].hue)}" if marks else ""
        for label in (printable(mark.label) for mark in reversed(marks) if mark.end == end):
            yield (f" {label}" * bool(label), "2") if color else (f"|{label}" * bool(label) + "]", "")


def _ground(hue: int) -> int:
    """A light color among the 216 of a terminal."""
    red, green, blue = (round(5 * part) for part in colorsys.hls_to_rgb(hue / 360, 0.75, 0.8))
    return 16 + 36 * red + 6 * green + blue


def _styled(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and text else text


def printable(text: str) -> str:
    """What could steer a terminal or turn the reading direction of all that follows -> U+FFFD."""
    return CONTROL.sub("\ufffd", text)


def columns(char: str) -> int:
    """Columns of a terminal that a character takes: two for Chinese, Japanese and Korean, none for an accent."""
    return 0 if unicodedata.category(char) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(char) in "WF")


def wrap(runs: Sequence[Run], width: int | None) -> Iterator[list[Run]]:
    """Lines of at most `width` columns; a line break takes the place of a space, or stands beside a wide character.

    What is longer than a line is cut. Line ends of the text stay.
    """
    width = width or sys.maxsize
    line, left, is_continued = [], width, False
    for word in _words([(" " if char == "\t" else char, style) for text, style in runs for char in text]):
        size = sum(columns(char) for char, _ in word)
        if word[0][0] == "\n":
            yield _joined(line)
            line, left, is_continued = [], width, False
            continue
        if size > left and line:
            yield _joined(line)
            line, left, is_continued = [], width, True
        if word[0][0] == " " and is_continued and not line:
            continue
        while size > width:
            taken = list(accumulate(columns(char) for char, _ in word))
            n = max(1, bisect_right(taken, width))
            yield _joined(word[:n])
            word, size = word[n:], size - taken[n - 1]
        line += word
        left -= size
    yield _joined(line)


def _words(cells: Sequence[Run]) -> Iterator[list[Run]]:
    """Single characters with their styles, in groups that no line break divides."""
    word = []
    for cell in cells:
        if word and _may_break(word[-1][0], cell[0]):
            yield word
            word = []
        word.append(cell)
    if word:
        yield word


def _may_break(before: str, after: str) -> bool:
    beside_wide = 2 in (columns(before), columns(after)) and columns(after) > 0 and after not in STAYS_BEHIND
    return before in " \n" or after in " \n" or (beside_wide and before != "[")


def _joined(cells: Sequence[Run]) -> list[Run]:
    """Characters of one style as one run."""
    return [("".join(char for char, _ in same), style) for style, same in groupby(cells, key=lambda cell: cell[1])]


def print_answer(shown: Shown) -> None:
    """In color and as wide as the terminal; plain, a line a text, where standard output is a file or a pipe."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    print(to_terminal(shown, is_terminal, width), end="\n\n", flush=True)


# --- HTML -------------------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --ground: 84%; --line: 45%; --label: 28%;
  --ink: #1c1c1e; --paper: #fff; --soft: #6b6b70; --edge: #ddd }
@media (prefers-color-scheme: dark) {
  :root { --ground: 26%; --line: 60%; --label: 80%; --ink: #ececee; --paper: #17171a; --soft: #9a9aa0; --edge: #38383c }
}
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/2.1 system-ui, sans-serif; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.2rem; margin: 0 }
h2 { font-size: 1rem; margin: 0 }
p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere }
article { border-top: 1px solid var(--edge); padding: .7rem 0; position: relative }
mark { color: inherit; background: none; padding: .1em 0; border-bottom: 2px solid hsl(var(--hue) 60% var(--line)) }
mark:has(> mark) { padding-bottom: .35em }
.in { background: hsl(var(--hue) 70% var(--ground)) }
.label { font-size: .7rem; margin: 0 .3em; user-select: none; color: hsl(var(--hue) 45% var(--label)) }
.legend { color: var(--soft) }
.legend b { color: var(--ink); font-weight: 500; padding: .1em .3em; margin-right: .4em; border-radius: .2em }
.legend span { display: inline-block; margin-right: 1.2em }
.verdict { font-weight: 600 }
.has-tip { cursor: help }
.tip { display: none; position: absolute; z-index: 1; min-width: 8rem; margin-top: 1.9em; padding: .4rem .7rem;
  font: .85rem/1.5 system-ui, sans-serif; white-space: pre-wrap; user-select: none; color: var(--ink);
  background: var(--paper); border: 1px solid var(--edge); border-radius: .4rem; box-shadow: 0 4px 16px #0003 }
.has-tip:hover > .tip, .has-tip:focus > .tip { display: inline-block }
@media (max-width: 46rem) { .tip { left: 0; right: 0 } }
"""


def write_html(path: str | Path, answers: Iterable[Shown], title: str) -> None:
    """Writes the page; `path` has it whole or not at all."""
    with files.write_file(path) as file:
        file.writelines(part + "\n" for part in html_page(list(answers), title))


def html_page(answers: Sequence[Shown], title: str) -> Iterator[str]:
    marks = (mark for shown in answers for passage in shown.passages for mark in passage.marks)
    counts = Counter(name for mark in marks for name in mark.types)
    yield "<!doctype html>"
    yield '<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_html(title)}</title><style>{STYLE}</style></head><body><h1>{_html(title)}</h1>"
    legend = (f'<span><b class="in" style="--hue:{hue(name)}">{_html(name)}</b>{count}</span>'
              for name, count in counts.most_common(MOST_IN_LEGEND))  # fmt: skip
    yield f'<p class="legend">{"".join(legend)}</p>' if counts else ""
    for shown in answers:
        yield "<article>"
        if shown.heading:
            yield f'<h2 dir="auto">{_html(shown.heading)}</h2>'
        for passage in shown.passages:
            yield f'<p dir="auto">{"".join(_html_passage(passage))}</p>'
        if shown.verdict:
            yield f'<p class="verdict">→ {_tipped(_html(shown.verdict), shown.details)}</p>'
        yield "</article>"
    yield "</body></html>"


def _html_passage(passage: Passage) -> Iterator[str]:
    """Every stretch in the marks that cover it; a mark's label is inside of it, behind its last stretch."""
    for start, end, marks in stretches(passage):
        html = _html(passage.text[start:end])
        for depth, mark in enumerate(reversed(marks)):
            label = f'<small class="label">{_html(mark.label)}</small>' if mark.end == end and mark.label else ""
            ground = ' class="in"' if depth == 0 else ""
            html = f'<mark{ground} style="--hue:{mark.hue}">{html}{label}</mark>'
        yield _tipped(html, [line for mark in reversed(marks) for line in mark.details])


def _tipped(html: str, details: Sequence[str]) -> str:
    """With the details beside it, which show when somebody points at it or comes to it with the tab key."""
    if not details:
        return html
    tip = "\n".join(map(_html, details))
    return f'<span class="has-tip" tabindex="0"><span class="tip" role="tooltip">{tip}</span>{html}</span>'


def _html(text: str) -> str:
    """Text for an element or a quoted attribute; what HTML forbids, control characters, becomes U+FFFD."""
    return escape(printable(text))


# --- Command line -----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m luke_mini.views", description="Shows answers, one a line.")
    parser.add_argument("file", type=Path, metavar="FILE", help="what --predict printed, or a predictions.jsonl of OUT")
    parser.add_argument("--html", type=Path, metavar="PAGE", help="as a page instead")
    arguments = parser.parse_args(argv)
    answers = []
    for where, answer in files.read_json_lines(arguments.file):
        try:
            answers.append(show(answer))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{where}: not an answer ({error})") from None
    if arguments.html:
        write_html(arguments.html, answers, arguments.file.name)
    for shown in () if arguments.html else answers:
        print_answer(shown)


if __name__ == "__main__":
    files.run(main, "luke_mini.views")

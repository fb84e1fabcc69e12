"""Answers for people: the dicts that `inference.answer` yields, as colored text in a terminal or as an HTML page.

    show(answer)              -> what there is to see of an answer, a `Shown`: texts with marks
    to_terminal(shown)        -> lines for a terminal
    write_html(path, shown)   -> one page without scripts or other files, light or dark as the reader's system is

A task's answers are told apart by their fields, one small function for each shape:

    text, mentions            NER, typing, disambiguation, linking: mentions with a type, types or a title
    text, head, tail, label   a relation
    question, context, answers
    text, query, mentions     a cloze question
    question, words           candidates in order (mLAMA)
    texts, label              a class, a number or a choice

Marks may lie inside each other or cross, and may be empty: a text is cut at every border, and each stretch is wrapped
in all marks that cover it, the longest outermost. The color of a label is a hash of it, the same in every run.
Left out: arcs between mentions; windowing of long pages.
"""

import colorsys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2s
from html import escape
from pathlib import Path
from typing import NamedTuple

from luke_mini.files import write_file

MOST_DETAILS = 5  # of a verdict in a terminal
MOST_IN_LEGEND = 24  # labels at the head of a page
TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # characters that set a reading direction


class Mark(NamedTuple):
    start: int  # half-open characters of the text
    end: int
    label: str  # beside the mention; its color
    details: tuple[str, ...] = ()  # lines to see when pointed at


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
    types = mention.get("types") or [mention] * ("type" in mention)
    if "title" in mention:
        title, names = mention["title"], [mention["title"] or "?"]
        details = [_with_number(title, mention["probability"]) if title else "no candidate"]
        details += [found["type"] for found in types]  # the probability is that of the title
        details += [f"{_with_number('prior', c['prior'])} {c['title']}" for c in mention.get("candidates", ())]
    else:
        names = [found["type"] for found in types]
        details = [_with_number(found["type"], found.get("probability")) for found in types]
        details = details or [_with_number("probability", mention["probability"])] * ("probability" in mention)
    return Mark(mention["start"], mention["end"], ", ".join(names), tuple(details))


def _mentions(answer: dict) -> Shown:
    return Shown("", (Passage(answer["text"], tuple(map(_mention, answer["mentions"]))),), "")


def _relation(answer: dict) -> Shown:
    marks = (Mark(answer[name]["start"], answer[name]["end"], name) for name in ("head", "tail"))
    verdict = f"{answer['head']['text']} — {answer['label']} → {answer['tail']['text']}"
    details = (_with_number(answer["label"], answer.get("probability")),)
    return Shown("", (Passage(answer["text"], tuple(marks)),), verdict, details)


def _question(answer: dict) -> Shown:
    """The answer is marked in its context; an answer that is nowhere ("") is not."""
    best = [found for found in answer["answers"] if found["text"] and found["text"] == answer["answer"]][:1]
    details = tuple(_with_number(found["text"] or "no answer", found.get("probability")) for found in answer["answers"])
    marks = tuple(Mark(found["start"], found["end"], "answer", details) for found in best)
    return Shown(answer["question"], (Passage(answer["context"], marks),), answer["answer"] or "no answer", details)


def _cloze(answer: dict) -> Shown:
    marks = []
    for mention in answer["mentions"]:
        chosen = answer["text"][mention["start"] : mention["end"]] == answer["answer"]
        marks.append(_mention(mention)._replace(label="answer" if chosen else "candidate"))
    return Shown(answer["query"], (Passage(answer["text"], tuple(marks)),), answer["answer"])


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


# The first field that an answer has decides.
SHAPES = {
    "head": _relation,
    "query": _cloze,
    "answers": _question,
    "words": _ranking,
    "texts": _label,
    "mentions": _mentions,
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
    """The color of a label, in degrees of the color circle. The key, one of many tried, sets common types apart."""
    return int.from_bytes(blake2s(label.encode("utf-8", "surrogatepass"), digest_size=4, key=b"774").digest()) % 360


# --- Terminal ---------------------------------------------------------------------------------------------------------


def to_terminal(shown: Shown, color: bool = True) -> str:
    """Mentions on a ground of their label's color, the label behind them; without color in brackets."""
    lines = [_bold(printable(shown.heading), color)] if shown.heading else []
    lines += ["".join(_terminal_passage(passage, color)) for passage in shown.passages]
    if shown.verdict:
        more = f" ({printable('; '.join(shown.details[:MOST_DETAILS]))})" if shown.details else ""
        lines.append(_bold("→ " + printable(shown.verdict), color) + more)
    return "\n".join(lines)


def _terminal_passage(passage: Passage, color: bool) -> Iterator[str]:
    for start, end, marks in stretches(passage):
        text = printable(passage.text[start:end])
        if not color:
            text = "[" * sum(mark.start == start for mark in marks) + text
        elif marks:
            text = f"\x1b[30;48;5;{_ground(marks[-1].label)}m{text}\x1b[0m"
        yield text
        for label in (printable(mark.label) for mark in reversed(marks) if mark.end == end):
            yield f"\x1b[2m{label and ' ' + label}\x1b[0m" if color else f"|{label}]"


def _ground(label: str) -> int:
    """A light color among the 216 of a terminal."""
    red, green, blue = (round(5 * part) for part in colorsys.hls_to_rgb(hue(label) / 360, 0.75, 0.8))
    return 16 + 36 * red + 6 * green + blue


def _bold(text: str, color: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if color else text


def printable(text: str) -> str:
    """Control characters, which could steer a terminal or turn the reading direction of all that follows -> U+FFFD."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if _is_control(character) else character for character in text)


def _is_control(character: str) -> bool:
    is_control = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    return is_control or unicodedata.bidirectional(character) in TURNING


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
"""


def write_html(path: str | Path, answers: Iterable[Shown], title: str) -> None:
    """Writes the page; `path` has it whole or not at all."""
    answers = list(answers)
    with write_file(path) as file:
        file.writelines(part + "\n" for part in html_page(answers, title))


def html_page(answers: Sequence[Shown], title: str) -> Iterator[str]:
    marks = (mark for shown in answers for passage in shown.passages for mark in passage.marks)
    counts = Counter(mark.label for mark in marks if mark.label)
    yield "<!doctype html>"
    yield '<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_html(title)}</title><style>{STYLE}</style></head><body><h1>{_html(title)}</h1>"
    legend = (f'<span><b class="in" style="--hue:{hue(label)}">{_html(label)}</b>{count}</span>'
              for label, count in counts.most_common(MOST_IN_LEGEND))  # fmt: skip
    yield f'<p class="legend">{"".join(legend)}</p>'
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
            html = f'<mark{ground} style="--hue:{hue(mark.label)}">{html}{label}</mark>'
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

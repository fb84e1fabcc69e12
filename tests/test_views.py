"""Views of answers: every shape, hostile texts, and marks that lie inside each other, cross or are empty.

Pages are read back by `html.parser`: balanced elements, and the text, the labels and the tips that were put in.

pytest tests/test_views.py
"""

import json
import re
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini import views
from luke_mini.views import Mark, Passage, Shown

ANSI = re.compile(r"\x1b\[[0-9;]*m")
ADA, BO = {"text": "Ada", "start": 0, "end": 3}, {"text": "Bo", "start": 8, "end": 10}
LIKELY = {"probability": 0.9}


class Page(HTMLParser):
    """Fails where elements are not balanced; gathers the text of each article, its labels and its tips."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.labels, self.tips, self.marks, self.legend = [], [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag in "html head title style body h1 h2 p b span mark small article meta".split()
        assert set(attributes) <= {"class", "style", "dir", "tabindex", "role", "charset", "name", "content"}
        if tag != "meta":
            self.open.append((tag, attributes.get("class", "")))
        if tag == "article":
            self.texts.append("")
        if attributes.get("class") in ("label", "tip"):
            getattr(self, attributes["class"] + "s").append("")
        if tag == "mark":
            self.marks.append(attributes["style"])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        classes = [name for _, name in self.open]
        if "legend" in classes:
            self.legend.append(data)
        elif "tip" in classes:
            self.tips[-1] += data
        elif "label" in classes:
            self.labels[-1] += data
        elif self.texts and ("article", "") in self.open:
            self.texts[-1] += data


def page(*answers: Shown) -> Page:
    return Page("".join(views.html_page(answers, "a <title> & more")))


def mentions(*found, **fields):
    return {"text": "Ada met Bo.", "mentions": list(found)} | fields


def asked(answer):
    answers = [{"text": "", "start": 0, "end": 0, "probability": 0.5},
               {"text": "Oslo", "start": 3, "end": 7, "probability": 0.4}]  # fmt: skip
    return {"id": "1", "question": "Where?", "context": "In Oslo.", "answer": answer, "answers": answers}


SEVERAL = [{"type": "person", "probability": 0.9}, {"type": "chemist", "probability": 0.6}]
LINKED = ADA | LIKELY | {"type": "PER", "title": "Ada Lovelace", "candidates": [
    {"title": "Ada Lovelace", "prior": 0.7, "score": -1.25}, {"title": "Ada, Oklahoma", "prior": 0.3}]}  # fmt: skip
UNLINKED = BO | {"title": None, "probability": 0.0, "candidates": []}
SAME_TITLE = BO | LIKELY | {"link_probability": 0.5, "title": "Bo", "candidates": []}


@pytest.mark.parametrize("answer, plain, tips", [
    (mentions(ADA | LIKELY | {"type": "PER"}, BO | {"type": "ORG"}), "[Ada|PER] met [Bo|ORG].", ["PER 0.90", "ORG"]),
    (mentions(ADA | {"types": SEVERAL}, BO | {"types": []}), "[Ada|person, chemist] met [Bo].",
     ["person 0.90\nchemist 0.60", "no type"]),
    (mentions(ADA | {"types": SEVERAL[:1]}, predictions=["person"], labels=["person", "poet"]), "[Ada|person] met Bo.",
     ["person 0.90\nright: person, poet"]),
    (mentions(LINKED, UNLINKED), "[Ada|Ada Lovelace] met [Bo|?].",
     ["Ada Lovelace 0.90\nPER\nprior 0.70  score -1.25 Ada Lovelace\nprior 0.30 Ada, Oklahoma", "no title"]),
    (mentions(SAME_TITLE), "Ada met [Bo].", ["Bo 0.90"]),
    (mentions(BO | LIKELY, ADA, query="Who? X", answer="Bo"), "Who? X\n[Ada|candidate] met [Bo|answer].\n→ Bo",
     ["probability 0.90"]),
    ({"text": "Ada met Bo.", "head": BO, "tail": ADA, "label": "knows", "probability": 0.75},
     "[Ada|tail] met [Bo|head].\n→ Bo — knows → Ada (knows 0.75)", ["knows 0.75"]),
    ({"text": "Ada met Bo.", "head": BO, "tail": ADA, "label": "knows", "probability": 0.75, "gold": "met"},
     "[Ada|tail] met [Bo|head].\n→ Bo — knows → Ada (knows 0.75; right: met)", ["knows 0.75\nright: met"]),
    (asked("Oslo"), "Where?\nIn [Oslo|answer].\n→ Oslo (no answer 0.50; Oslo 0.40)", ["no answer 0.50\nOslo 0.40"] * 2),
    (asked(""), "Where?\nIn Oslo.\n→ no answer (no answer 0.50; Oslo 0.40)", ["no answer 0.50\nOslo 0.40"]),
    ({"texts": ["A", "B"], "label": "same", "probability": 0.8}, "A\nB\n→ same (same 0.80)", ["same 0.80"]),
    ({"texts": ["A", "B"], "label": 3.456}, "A\nB\n→ 3.46", []),
    ({"texts": ["Q?", "fire", "ice"], "label": 1, "probability": 1.0}, "Q?\nfire\nice\n→ ice (ice 1.00)", ["ice 1.00"]),
    ({"question": "It is [Y].", "words": [{"candidate": "a", "score": -1.5}], "entities": []},
     "It is [Y].\n→ by words: a (by words: a -1.50)", ["by words: a -1.50"]),
])  # fmt: skip
def test_answers_of_every_shape(answer, plain, tips):
    shown = views.show(answer)
    assert views.to_terminal(shown, color=False) == plain
    read = page(shown)
    assert read.tips == tips and read.labels == re.findall(r"\|([^\]]+)\]", plain)
    assert "".join(read.texts) == re.sub(r"\|[^\]]*\]|\[(?!Y)|(?<!Y)\]|\n| \([^)]*\)$", "", plain)


def test_colored_text_and_an_unknown_shape():
    shown = views.show(mentions(ADA | {"type": "PER"}, BO | {"type": "ORG"}))
    assert ANSI.sub("", views.to_terminal(shown)) == "Ada PER met Bo ORG."
    with pytest.raises(ValueError, match="fields nothing"):
        views.show({"nothing": 1})


def test_marks_inside_each_other_and_across():
    text = "University of Oslo in Norway"
    marks = (Mark(0, 18, "ORG", ("org",)), Mark(14, 18, "LOC", ("loc",)), Mark(11, 28, "MISC", ("misc",)))
    shown = Shown("", (Passage(text, marks),), "")
    assert views.to_terminal(shown, color=False) == "[University [of [Oslo|LOC]|ORG] in Norway|MISC]"
    read = page(shown)
    assert read.texts == [text] and sorted(read.labels) == ["LOC", "MISC", "ORG"]
    assert read.tips == ["org", "misc\norg", "loc\nmisc\norg", "misc"]  # the innermost, shortest one first
    # "University ", "of ", "Oslo", " in Norway" lie in 1, 2, 3 and 1 marks
    assert len(read.marks) == 7


def test_hostile_text_stays_text():
    text = "<script>alert(1)</script> & \"x\" 'y' </p></article> &lt; \x1b[31mred\x07 \u202egnp"
    mark = Mark(0, 8, '"><img src=x onerror=alert(1)>', ("<b>\x1b[2J",))
    shown = Shown("<h1>", (Passage(text, (mark,)),), "</span>", ("&amp;",))
    safe = text.replace("\x1b", "\ufffd").replace("\x07", "\ufffd").replace("\u202e", "\ufffd")
    read = page(shown)
    assert read.texts == ["<h1>" + safe + "→ </span>"]
    assert read.labels == [mark.label] and read.tips == ["<b>\ufffd[2J", "&amp;"]
    plain = ANSI.sub("", views.to_terminal(shown))
    assert not {"\x1b", "\x07", "\u202e"} & set(plain) and safe[8:] in plain


@st.composite
def passages(draw):
    text = draw(st.text(max_size=30))
    border = st.integers(0, len(text))
    spans = draw(st.lists(st.tuples(border, border, st.text(max_size=4)), max_size=6))
    return Passage(text, tuple(Mark(min(a, b), max(a, b), label, (label,) * bool(label)) for a, b, label in spans))


@settings(max_examples=150, deadline=None)
@given(passages())
def test_any_marks_give_a_balanced_page_with_the_whole_text(passage):
    shown = Shown("", (passage,), "")
    read = page(shown)
    text = views.printable(passage.text)
    assert "".join(read.texts) == text
    by_stretches = [(i, marks) for a, b, marks in views.stretches(passage) for i in range(a, b)]
    assert [i for i, _ in by_stretches] == list(range(len(text)))
    for i, marks in by_stretches:
        assert sorted(marks) == sorted(mark for mark in passage.marks if mark.start <= i < mark.end)
    real = [mark for mark in passage.marks if mark.start < mark.end and mark.label]
    assert sorted(read.labels) == sorted(views.printable(mark.label) for mark in real)
    if "\ufffd" not in text and not set("[]|\t") & set(text + "".join(mark.label for mark in real)):
        plain = re.sub(r"\|[^\]]*\]|[\[\]]", "", views.to_terminal(shown, color=False))
        assert plain == text


LONG = ("The University of Oslo in Norway invited 山田育矢さんは東京大学で、自然言語処理を研究している。 "
        "Äçe\u0301 " * 9 + "x" * 300 + " end.\nA second line, which is short.")  # fmt: skip


def n_columns(text: str) -> int:
    """Columns of LONG's characters: Japanese ones, and their stops, take two, a combining accent none."""
    return sum(0 if char == "\u0301" else 1 + ("\u3000" <= char <= "\u9fff") for char in text)


@pytest.mark.parametrize("width", [40, 41, 57, 80, 120, 200])
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_wider_than_the_terminal(width, color):
    at = LONG.index("東京大学")
    marks = Mark(4, 22, "ORG"), Mark(at, at + 4, "ORG"), Mark(18, 22, "LOC")
    shown = Shown("Which university is it, and where does it lie? " * 3, (Passage(LONG, marks),), "Oslo " * 30)
    lines = views.to_terminal(shown, color, width).split("\n")
    plain = [ANSI.sub("", line) for line in lines]
    assert max(map(n_columns, plain)) <= width and not any(line.startswith((" ", "、", "。", "|", "]")) for line in plain)
    # Greedy: what stays together at the beginning of a line has no place on the line before.
    for line, after in zip(plain, plain[1:]):
        together = re.match(r"[^\sぁ-鿿]*\[[ぁ-鿿]|[^\sぁ-鿿]+|[ぁ-鿿](?:[|、。][^\sぁ-鿿]*)?", after)[0]
        starts_new_text = after.startswith(("The", "A second", "→"))
        assert starts_new_text or n_columns(line + together) > width
    whole = ANSI.sub("", views.to_terminal(shown, color))
    assert re.sub(r"\s", "", "".join(plain)) == re.sub(r"\s", "", whole)
    assert all(line.count("\x1b[0m") == len(ANSI.findall(line)) / 2 for line in lines)  # no style runs on


def test_wrapping_keeps_line_ends_and_indentation():
    def wrapped(text, width):
        return views.to_terminal(Shown("", (Passage(text),), ""), False, width).split("\n")

    assert wrapped("ab cd\n\n  ef", 5) == ["ab cd", "", "  ef"]
    assert wrapped("ab cd ef", 7) == ["ab cd ", "ef"]
    assert wrapped("abcdefgh ij", 3) == ["abc", "def", "gh ", "ij"]
    assert wrapped("東京。大阪", 5) == ["東", "京。", "大阪"]  # the stop stays with what it ends
    assert wrapped("e\u0301" * 4, 3) == ["e\u0301" * 3, "e\u0301"]
    assert wrapped("か\u3099" * 2, 2) == ["か\u3099"] * 2  # an accent stays, too
    assert wrapped("a\tb", 9) == ["a b"]
    marked = Shown("", (Passage("ab 東", (Mark(3, 4, ""),)),), "")
    assert views.to_terminal(marked, False, 5) == "ab \n[東]"


def test_the_legend_names_types_only():
    person = ADA | LIKELY | {"type": "PER"}
    assert page(views.show(mentions(person, BO | {"type": "PER"}))).legend == ["PER", "2"]
    assert page(views.show(mentions(LINKED, SAME_TITLE))).legend == ["PER", "1"]
    assert page(views.show(mentions(ADA | {"types": SEVERAL}))).legend == ["person", "1", "chemist", "1"]
    for answer in (asked("Oslo"), mentions(BO, ADA, query="Who?", answer="Bo")):
        assert page(views.show(answer)).legend == []
        assert 'class="legend"' not in "".join(views.html_page([views.show(answer)], ""))
    assert views.show(mentions(LINKED)).passages[0].marks[0].hue == views.hue("PER")


def test_a_file_of_answers_is_shown(tmp_path, capsys, monkeypatch):
    path = tmp_path / "predictions.jsonl"
    answers = [mentions(ADA | {"type": "PER"}), mentions(BO | {"types": []})]
    path.write_text("\n".join(map(json.dumps, answers)))
    views.main([str(path)])
    assert capsys.readouterr().out == "[Ada|PER] met Bo.\n\nAda met [Bo].\n\n"
    monkeypatch.setenv("COLUMNS", "8")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    views.main([str(path)])
    assert ANSI.sub("", capsys.readouterr().out) == "Ada PER \nmet Bo.\n\nAda met \nBo.\n\n"
    views.main([str(path), "--html", str(tmp_path / "page.html")])
    assert [text.strip() for text in Page((tmp_path / "page.html").read_text()).texts] == ["Ada met Bo."] * 2
    path.write_text('{"text": "Ada met Bo.", "mentions": [3]}')
    with pytest.raises(ValueError, match=r"predictions.jsonl, line 1: not an answer"):
        views.main([str(path)])


def test_colors_are_the_same_in_every_run_and_far_apart():
    labels = ("PER", "ORG", "LOC", "MISC")
    assert [views.hue(label) for label in labels] == [189, 60, 242, 14]
    shown = Shown("", (Passage("abcd", tuple(Mark(i, i + 1, label) for i, label in enumerate(labels))),), "")
    grounds = [int(code) - 16 for code in re.findall(r"48;5;(\d+)m", views.to_terminal(shown))]
    assert len(set(grounds)) == 4
    assert all(3 <= part <= 5 for ground in grounds for part in (ground // 36, ground // 6 % 6, ground % 6))  # light


def test_a_page_is_one_file_without_scripts_or_links(tmp_path):
    path = tmp_path / "page.html"
    views.write_html(path, [views.show(mentions(ADA | {"type": "PER"}))], "ner")
    html = path.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") and 'charset="utf-8"' in html and "prefers-color-scheme: dark" in html
    assert not re.search(r"<script|<link|src=|href=|url\(|@import", html)

"""Views of answers: every shape, hostile texts, and marks that lie inside each other, cross or are empty.

Pages are read back by `html.parser`: balanced elements, and the text, the labels and the tips that were put in.

pytest tests/test_views.py
"""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini import views
from luke_mini.views import Mark, Passage, Shown

ANSI = re.compile(r"\x1b\[[0-9;]*m")
NER = {"text": "Ada met Bo.", "mentions": [
    {"text": "Ada", "type": "PER", "start": 0, "end": 3, "probability": 0.98},
    {"text": "Bo", "type": "ORG", "start": 8, "end": 10, "probability": 0.4}]}  # fmt: skip


class Page(HTMLParser):
    """Fails where elements are not balanced; gathers the text of each article, its labels and its tips."""

    EMPTY = {"meta"}

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.labels, self.tips, self.marks = [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag in "html head title style body h1 h2 p b span mark small article meta".split()
        assert set(attributes) <= {"class", "style", "dir", "tabindex", "role", "charset", "name", "content"}
        if tag not in self.EMPTY:
            self.open.append((tag, attributes.get("class", "")))
        if tag == "article":
            self.texts.append("")
        kinds = {"label": self.labels, "tip": self.tips}
        if attributes.get("class") in kinds:
            kinds[attributes["class"]].append("")
        if tag == "mark":
            self.marks.append(attributes["style"])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        classes = [name for _, name in self.open]
        if "tip" in classes:
            self.tips[-1] += data
        elif "label" in classes:
            self.labels[-1] += data
        elif self.texts and ("article", "") in self.open:
            self.texts[-1] += data


def page(*answers: Shown) -> Page:
    return Page("".join(views.html_page(answers, "a <title> & more")))


def test_mentions_with_types():
    shown = views.show(NER)
    read = page(shown)
    assert read.texts == ["Ada met Bo."] and read.labels == ["PER", "ORG"] and read.tips == ["PER 0.98", "ORG 0.40"]
    assert views.to_terminal(shown, color=False) == "[Ada|PER] met [Bo|ORG]."
    assert ANSI.sub("", views.to_terminal(shown)) == "Ada PER met Bo ORG."


def test_a_mention_with_several_types():
    types = [{"type": "person", "probability": 0.9}, {"type": "chemist", "probability": 0.6}]
    shown = views.show({"text": "Ada met Bo.", "mentions": [{"text": "Ada", "start": 0, "end": 3, "types": types}]})
    assert views.to_terminal(shown, color=False) == "[Ada|person, chemist] met Bo."
    assert page(shown).tips == ["person 0.90\nchemist 0.60"]


def test_linked_mentions_with_candidates():
    candidates = [{"title": "Ada Lovelace", "prior": 0.7}, {"title": "Ada, Oklahoma", "prior": 0.3}]
    linked = {"text": "Ada", "start": 0, "end": 3, "type": "PER", "title": "Ada Lovelace", "probability": 0.9}
    unknown = {"text": "Bo", "start": 8, "end": 10, "title": None, "probability": 0.0, "candidates": []}
    shown = views.show({"text": "Ada met Bo.", "mentions": [linked | {"candidates": candidates}, unknown]})
    assert views.to_terminal(shown, color=False) == "[Ada|Ada Lovelace] met [Bo|?]."
    first, second = page(shown).tips
    assert first == "Ada Lovelace 0.90\nPER\nprior 0.70 Ada Lovelace\nprior 0.30 Ada, Oklahoma"
    assert second == "no candidate"


def test_a_relation():
    ends = {"head": {"text": "Bo", "start": 8, "end": 10}, "tail": {"text": "Ada", "start": 0, "end": 3}}
    shown = views.show({"text": "Ada met Bo.", **ends, "label": "knows", "probability": 0.75})
    assert views.to_terminal(shown, color=False) == "[Ada|tail] met [Bo|head].\n→ Bo — knows → Ada (knows 0.75)"


@pytest.mark.parametrize(
    "chosen, marked, verdict", [("Oslo", "In [Oslo|answer].", "Oslo"), ("", "In Oslo.", "no answer")]
)
def test_a_question(chosen, marked, verdict):
    answers = [{"text": "", "start": 0, "end": 0, "probability": 0.5},
               {"text": "Oslo", "start": 3, "end": 7, "probability": 0.4}]  # fmt: skip
    asked = {"id": "1", "question": "Where?", "context": "In Oslo.", "answer": chosen, "answers": answers}
    text = views.to_terminal(views.show(asked | {"null_odds": 0.2}), color=False)
    assert text == f"Where?\n{marked}\n→ {verdict} (no answer 0.50; Oslo 0.40)"


def test_a_cloze_question():
    mentions = [{"text": "Bo", "start": 8, "end": 10, "probability": 0.9},
                {"text": "Ada", "start": 0, "end": 3, "probability": 0.1}]  # fmt: skip
    shown = views.show({"id": "1", "text": "Ada met Bo.", "query": "Who? X", "answer": "Bo", "mentions": mentions})
    assert views.to_terminal(shown, color=False) == "Who? X\n[Ada|candidate] met [Bo|answer].\n→ Bo"


def test_labels_numbers_choices_and_rankings():
    def seen(answer):
        return views.to_terminal(views.show(answer), color=False)

    assert seen({"texts": ["A", "B"], "label": "same", "probability": 0.8}) == "A\nB\n→ same (same 0.80)"
    assert seen({"texts": ["A", "B"], "label": 3.456}) == "A\nB\n→ 3.46"
    assert seen({"texts": ["Q?", "fire", "ice"], "label": 1, "probability": 1.0}) == "Q?\nfire\nice\n→ ice (ice 1.00)"
    ranked = {"question": "It is [Y].", "words": [{"candidate": "a", "score": -1.5}], "entities": []}
    assert seen(ranked) == "It is [Y].\n→ by words: a (by words: a -1.50)"
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
    covered = {i for mark in passage.marks for i in range(mark.start, mark.end)}
    by_stretches = [(i, marks) for a, b, marks in views.stretches(passage) for i in range(a, b)]
    assert [i for i, _ in by_stretches] == list(range(len(text)))
    for i, marks in by_stretches:
        assert sorted(marks) == sorted(mark for mark in passage.marks if mark.start <= i < mark.end)
    assert {i for i, marks in by_stretches if marks} == covered
    real = [mark for mark in passage.marks if mark.start < mark.end and mark.label]
    assert sorted(read.labels) == sorted(views.printable(mark.label) for mark in real)
    if "\ufffd" not in text and not set("[]|") & set(text + "".join(mark.label for mark in real)):
        plain = re.sub(r"\|[^\]]*\]|\[", "", views.to_terminal(shown, color=False))
        assert plain == text


def test_colours_are_the_same_in_every_run_and_far_apart():
    hues = [views.hue(label) for label in ("PER", "ORG", "LOC", "MISC")]
    assert hues == [189, 60, 242, 14]
    assert len({views._ground(label) for label in ("PER", "ORG", "LOC", "MISC")}) == 4


def test_a_page_is_one_file_without_scripts_or_links(tmp_path):
    path = tmp_path / "page.html"
    views.write_html(path, [views.show(NER)], "ner")
    html = path.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") and 'charset="utf-8"' in html and "prefers-color-scheme: dark" in html
    assert not re.search(r"<script|<link|src=|href=|url\(|@import", html)

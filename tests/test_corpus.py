"""Sources: .jsonl files. Parts of a corpus: documents, counts, their sum. The tokenizer's sample. (test_prepare_wiki.py
has the stages from end to end.)

    pytest tests/test_corpus.py
"""

import json
from pathlib import Path

import pytest

from luke_mini import pieces
from luke_mini.corpus import Corpus, Document, Part, Rules, parse, read_jsonl
from luke_mini.pieces import Piece
from luke_mini.wikitext import Link, Paragraph

OSLO = {"title": "oslo", "paragraphs": [{"text": "In Norway.", "links": [{"title": "norway#x", "start": 3, "end": 9}]}]}


def test_jsonl_by_hand(tmp_path):
    """Titles stand as they are, also those that would be others on a wiki; links may be missing or in any order."""
    unsorted = [{"title": "B", "start": 1, "end": 3}, {"title": "A", "start": 0, "end": 1}]
    second = {"title": "x_y", "paragraphs": [{"text": "a b"}, {"text": "a b", "is_abstract": True, "links": unsorted}]}
    path = tmp_path / "c.jsonl"
    path.write_text(f"{json.dumps(OSLO)}\n\n{json.dumps(second)}\n", encoding="utf-8")
    assert list(read_jsonl(Piece(path, 1))) == [
        Document("oslo", [Paragraph("In Norway.", [Link("norway#x", 3, 9)], False)]),
        Document("x_y", [Paragraph("a b", [], False), Paragraph("a b", [Link("A", 0, 1), Link("B", 1, 3)], True)]),
    ]


def with_link(**link) -> dict:
    return {"title": "T", "paragraphs": [{"text": "abcdef", "links": [{"title": "A", "start": 1, "end": 3}, link]}]}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", r"line 2, column 2: invalid JSON \(Expecting"),
        ("[]", r"line 2 is \[\], expected an object"),
        ({"paragraphs": []}, "line 2: field 'title' is missing"),
        ({"title": "T"}, "field 'paragraphs' is missing"),
        ({"title": "T", "paragraphs": [3]}, "paragraphs 1 is 3, expected an object"),
        ({"title": 3, "paragraphs": []}, "field 'title' is 3, expected a string"),
        ({"title": " ", "paragraphs": []}, "field 'title' is empty, expected a page's title or an id of your own"),
        (with_link(title="", start=4, end=5), "links 2: field 'title' is empty"),
        (with_link(title="B", start=4.0, end=5), "field 'start' is 4.0, expected an integer"),
        ({"title": "T", "paragraphs": [{}]}, "paragraphs 1: field 'text' is missing"),
        ({"title": "T", "paragraphs": [{"text": 5, "links": []}]}, "field 'text' is 5"),
        ({"title": "T", "paragraphs": [{"text": "a", "is_abstract": 1}]}, "field 'is_abstract' is 1"),
        (with_link(title="B", start=2, end=5), "paragraphs 1: links 1 to 3 and 2 to 5 overlap"),
        (with_link(title="B", start=4, end=4), "links 2: fields 'start' and 'end' are 4 and 4, expected a span"),
        (with_link(title="B", start=4, end=7), "inside the text of 6 characters"),
        (with_link(title="B", start="4", end=5), "field 'start' is \"4\", expected an integer"),
        (with_link(title="B", start=4), "field 'end' is missing"),
        ("\udcff", "line 2: not UTF-8 text"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, what):
    path = tmp_path / "c.jsonl"
    bad = line if isinstance(line, str) else json.dumps(line)
    path.write_bytes(f"{json.dumps(OSLO)}\n{bad}\n".encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=what) as error:
        list(read_jsonl(Piece(path, 1)))
    assert str(error.value).startswith(f"{path}, line 2") and "\n" not in str(error.value)


# --- Parts ------------------------------------------------------------------------------------------------------------


def write_dump(path: Path, *pages: tuple[str, str | None, str], language: str = "en") -> Piece:
    body = "".join(
        f"<page><title>{title}</title><ns>0</ns>" + (f'<redirect title="{target}" />' if target else "")
        + f"<revision><text>{text}</text></revision></page>\n" for title, target, text in pages
    )  # fmt: skip
    path.write_text(f'<mediawiki xml:lang="{language}">\n{body}</mediawiki>\n')
    return Piece(path, path.stat().st_size)


def parsed(piece: Piece, language: str | None = None, max_pages: int | None = None, is_jsonl: bool = False) -> Part:
    path = piece.path.with_suffix(".part")
    return Part(path, parse(Rules(is_jsonl, language, max_pages, True), piece, path))


def test_pages_become_documents(tmp_path):
    part = parsed(write_dump(tmp_path / "x.xml", ("A", None, "[[B]] and [[b|x]]\n\n[[C]]"), ("D", None, "e")))
    first, second = part.documents()
    assert first.paragraphs == [
        Paragraph("B and x", [Link("B", 0, 1), Link("B", 6, 7)], True), Paragraph("C", [Link("C", 0, 1)], True)
    ]  # fmt: skip
    assert second == Document("D", [Paragraph("e", [], True)]) and list(part.documents({1})) == []
    assert part.counts() == (["A", "D"], [len("B and x") + len("C"), 1], {}, {"B": 2, "C": 1})
    assert {name: part.made[name] for name in ("pages", "redirects", "characters", "links")} == {
        "pages": 2, "redirects": 0, "characters": 9, "links": 3}  # fmt: skip


def test_own_documents_stay_as_they_are(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(OSLO) + "\n")
    part = parsed(Piece(tmp_path / "x.jsonl", 1), "en", is_jsonl=True)
    assert list(part.documents()) == list(read_jsonl(Piece(tmp_path / "x.jsonl", 1)))
    assert part.counts().links == {"norway#x": 1}


def test_the_language_decides_what_a_category_is(tmp_path):
    piece = write_dump(tmp_path / "x.xml", ("A", None, "[[Kategorie:X]] [[B]]"))
    assert set(parsed(piece).counts().links) == {"Kategorie:X", "B"}
    assert set(parsed(piece, "de").counts().links) == {"B"}


def test_what_is_no_article_is_skipped(tmp_path):
    """Redirects and LUKE's prefixes; max_pages counts articles, and what follows them does not count."""
    pages = [("A", "B", ""), ("File:C", None, "[[B]]"), ("B", None, "[[A]]"), ("Category:D", None, ""),
             ("E", None, "[[A]] [[B]]"), ("G", "E", ""), ("F", None, "x")]  # fmt: skip
    part = parsed(write_dump(tmp_path / "x.xml", *pages, language="de"), max_pages=2)
    assert part.counts() == (["B", "E"], [1, 3], {"A": "B"}, {"A": 2, "B": 1}) and part.made["language"] == "de"
    assert parsed(write_dump(tmp_path / "x.xml", *pages)).counts().redirects == {"A": "B", "G": "E"}


@pytest.mark.parametrize("max_pages", [1, 39, 40, 41, 100, None])
def test_parts_add_up_to_the_whole(tmp_path, monkeypatch, max_pages):
    """Of pieces of 500 bytes, whatever the number of pages wanted."""
    pages = [(f"P{k}", f"P{k // 7}" if k % 3 == 0 else None, f"[[P{k + 1}]] [[P{k % 5}]] {'x ' * (k % 50)}.")
             for k in range(150)]  # fmt: skip
    piece = write_dump(tmp_path / "x.xml", *pages)
    counts = parsed(piece, max_pages=max_pages).counts()
    monkeypatch.setattr(pieces, "SMALLEST", 500)
    for _ in range(2):  # once more, from the parts that are there
        whole = Corpus(tmp_path / "work", 2, Rules(False, None, max_pages, True))
        whole.cut([piece.path], {})
        whole.parse()
        whole.count()
        assert (whole.titles, whole.redirects, whole.links) == (set(counts.titles), counts.redirects, counts.links)
        assert len(whole.parts) > 20 or max_pages in (1, 39, 40, 41)
        assert [page.title for page in whole.documents(lambda title: True)] == counts.titles
        assert [page.title for page in whole.documents(lambda title: title.endswith("7"))] == [
            title for title in counts.titles if title.endswith("7")]  # fmt: skip


# --- The sample -------------------------------------------------------------------------------------------------------


def test_sample_is_bounded_and_does_not_depend_on_the_order(tmp_path):
    texts = {f"Page {k}": [f"text {k}", "x" * (k % 50)] for k in range(1000)}

    def taken(titles, seed=0, limit=5000) -> list[str]:
        lines = [{"title": title, "paragraphs": [{"text": text} for text in texts[title]]} for title in titles]
        path = tmp_path / "x.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)))
        corpus = Corpus(tmp_path, 1, Rules(True, "en", None, True))
        corpus.parts = [parsed(Piece(path, 1), "en", is_jsonl=True)]
        sample = corpus.sample(limit, seed)
        assert sum(map(len, sample)) <= limit or len(sample) == len(texts[titles[0]])
        return sample

    first = taken([*texts])
    assert first == taken([*texts][::-1])
    assert 1000 < sum(map(len, first)) <= 5000  # whole thing: about 33,000, so three or four halvings
    assert 60 < len(first) // 2 < 160
    assert set(taken([*texts], seed=1)) != set(first)
    assert len(taken([*texts], limit=10**6)) == 2000
    texts["Long"] = ["x" * 100]
    assert taken(["Long"], limit=10) == ["x" * 100]  # a single long document stays

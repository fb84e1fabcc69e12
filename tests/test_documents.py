"""Documents: .jsonl files, finding a dump, the tokenizer's sample.

    pytest tests/test_documents.py
"""

import json
from pathlib import Path

import pytest

from luke_mini.documents import HASHES, Document, TextSample, find_dump, pack, parse_pages, read_jsonl, unpack
from luke_mini.wiki_dump import Page
from luke_mini.wikitext import Link, Paragraph

OSLO = {"title": "oslo", "paragraphs": [{"text": "In Norway.", "links": [{"title": "norway#x", "start": 3, "end": 9}]}]}


def write(path: Path, *lines) -> Path:
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8"
    )
    return path


def test_jsonl_by_hand(tmp_path):
    """Titles are normalised as in a dump; links may be missing or in any order."""
    unsorted = [{"title": "B", "start": 2, "end": 3}, {"title": "A", "start": 0, "end": 1}]
    second = {"title": "x_y", "paragraphs": [{"text": "a b"}, {"text": "a b", "is_abstract": True, "links": unsorted}]}
    path = write(tmp_path / "c.jsonl", OSLO, "", second)
    read = []
    assert list(read_jsonl(path, read.append)) == [
        Document("Oslo", [Paragraph("In Norway.", [Link("Norway", 3, 9)], False)]),
        Document("X y", [Paragraph("a b", [], False), Paragraph("a b", [Link("A", 0, 1), Link("B", 2, 3)], True)]),
    ]
    assert sum(read) == path.stat().st_size


def with_link(**link) -> dict:
    return {"title": "T", "paragraphs": [{"text": "abcdef", "links": [{"title": "A", "start": 1, "end": 3}, link]}]}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "Expecting"),
        ("[]", "list"),
        ({"paragraphs": []}, "no 'title'"),
        ({"title": "T"}, "no 'paragraphs'"),
        ({"title": 3, "paragraphs": []}, "title 3"),
        ({"title": " ", "paragraphs": []}, "title ' '"),
        (with_link(title="#", start=4, end=5), "title '#'"),
        (with_link(title="B", start=4.0, end=5), "4.0"),
        ({"title": "T", "paragraphs": [{}]}, "no 'text'"),
        ({"title": "T", "paragraphs": [{"text": 5, "links": []}]}, "text 5"),
        (with_link(title="B", start=2, end=5), "overlaps"),
        (with_link(title="B", start=4, end=4), "empty"),
        (with_link(title="B", start=4, end=7), "6 characters"),
        (with_link(title="B", start="4", end=5), "'str'"),
        (with_link(title="B", start=4), "no 'end'"),
        ("\udcff", "utf-8"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, what):
    path = tmp_path / "c.jsonl"
    bad = line if isinstance(line, str) else json.dumps(line)
    path.write_bytes(f"{json.dumps(OSLO)}\n{bad}\n".encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=what) as error:
        list(read_jsonl(path))
    assert str(error.value).startswith(f"{path}: line 2: ") and "\n" not in str(error.value)


def test_pages_become_documents():
    pages = [
        Page("A", None, "[[B]] and [[b|x]]\n\n[[C]]", "en"),
        Document("D", [Paragraph("e B", [Link("B", 2, 3)], False)]),
    ]
    packed, titles, links, characters = parse_pages(None, pages)
    assert titles == ["A", "D"] and links == {"B": 3, "C": 1} and characters == len("B and x") + len("C") + len("e B")
    assert [document.title for document in unpack(packed)] == titles
    assert unpack(packed)[0].paragraphs[1] == Paragraph("C", [Link("C", 0, 1)], True)
    assert unpack(pack([])) == []


def test_the_language_decides_what_a_category_is():
    page = Page("A", None, "[[Kategorie:X]] [[B]]", "en")
    assert set(parse_pages(None, [page])[2]) == {"Kategorie:X", "B"}
    assert set(parse_pages("de", [page])[2]) == {"B"}


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["swwiki-20260101-pages-articles.xml.bz2", "swwiki-20250101-pages-articles.xml.bz2"], [0]),
        (["swwiki-latest-pages-articles.xml.bz2", "swwiki-20250101-pages-articles.xml.bz2"], [0]),
        (["swwiki-1-pages-articles-multistream.xml.bz2", "swwiki-1-pages-articles-multistream-index.txt.bz2"], [0]),
        (["swwiki-1-pages-articles.xml.bz2", "swwiki-1-pages-articles-multistream.xml.bz2"], [1]),
        ([f"swwiki-1-pages-articles{k}.xml-p{k}p{k}.bz2" for k in (2, 10, 1)], [2, 0, 1]),
        (
            [
                "swwiki-1-pages-articles1.xml-p1p9.bz2",
                "swwiki-1-pages-articles.xml.bz2",
                "simplewiki-2-pages-articles.xml.bz2",
            ],
            [1],
        ),
    ],
)
def test_finds_the_newest_dump(tmp_path, there, expected):
    for name in there:
        (tmp_path / name).touch()
    assert [path.name for path in find_dump("sw", tmp_path)] == [there[k] for k in expected]


def test_no_dump_tells_where_to_get_it(tmp_path):
    with pytest.raises(ValueError, match="https://dumps.wikimedia.org/sw") as error:
        find_dump("sw", tmp_path)
    assert "\n" not in str(error.value)


def document(number: int) -> Document:
    return Document(
        f"Page {number}", [Paragraph(f"text {number}", [], False), Paragraph("x" * (number % 50), [], False)]
    )


def test_sample_is_bounded_and_does_not_depend_on_the_order():
    numbers = range(1000)

    def taken(order, seed=0, limit=5000) -> TextSample:
        sample = TextSample(limit, seed)
        for number in order:
            sample.offer(document(number))
            assert sum(map(len, sample.texts())) <= limit
        return sample

    first = taken(numbers)
    assert list(first.texts()) == list(taken(reversed(numbers)).texts())
    assert 1000 < sum(map(len, first.texts())) <= 5000  # whole thing: about 33,000, so three or four halvings
    assert HASHES // first.threshold in (8, 16)
    assert all(first.wants(text.replace("text", "Page")) for text in first.texts() if text.startswith("text"))
    assert set(taken(numbers, seed=1).texts()) != set(first.texts())
    assert len(list(taken(numbers, limit=10**6).texts())) == 2000


def test_a_single_long_document_stays():
    sample = TextSample(10, 0)
    sample.offer(Document("Long", [Paragraph("x" * 100, [], False)]))
    assert list(sample.texts()) == ["x" * 100]

"""Sources: .jsonl files, finding a dump. Worker processes: order, how far ahead tasks are read, errors, dying workers,
a dying parent. The tokenizer's sample. (test_prepare_wiki.py has the passes from end to end.)

    pytest tests/test_corpus.py
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luke_mini.corpus import HASHES, TASKS_IN_FLIGHT, Corpus, Document, TextSample
from luke_mini.corpus import from_bytes, in_order, parse_pages, read_jsonl, to_bytes
from luke_mini.wiki_dump import Page
from luke_mini.wikitext import Link, Paragraph

ROOT = Path(__file__).parent.parent

OSLO = {"title": "oslo", "paragraphs": [{"text": "In Norway.", "links": [{"title": "norway#x", "start": 3, "end": 9}]}]}


def test_jsonl_by_hand(tmp_path):
    """Titles stand as they are, also those that would be others on a wiki; links may be missing or in any order."""
    unsorted = [{"title": "B", "start": 1, "end": 3}, {"title": "A", "start": 0, "end": 1}]
    second = {"title": "x_y", "paragraphs": [{"text": "a b"}, {"text": "a b", "is_abstract": True, "links": unsorted}]}
    path, read = tmp_path / "c.jsonl", []
    path.write_text(f"{json.dumps(OSLO)}\n\n{json.dumps(second)}\n", encoding="utf-8")
    assert list(read_jsonl(path, read.append)) == [
        Document("oslo", [Paragraph("In Norway.", [Link("norway#x", 3, 9)], False)]),
        Document("x_y", [Paragraph("a b", [], False), Paragraph("a b", [Link("A", 0, 1), Link("B", 1, 3)], True)]),
    ]
    assert sum(read) == path.stat().st_size


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
        list(read_jsonl(path))
    assert str(error.value).startswith(f"{path}, line 2") and "\n" not in str(error.value)


def test_pages_become_documents():
    pages = [
        Page("A", None, "[[B]] and [[b|x]]\n\n[[C]]", "en"),
        Document("D", [Paragraph("e B", [Link("B", 2, 3)], False)]),
    ]
    block, titles, links, characters = parse_pages(None, pages)
    assert titles == ["A", "D"] and links == {"B": 3, "C": 1} and characters == len("B and x") + len("C") + len("e B")
    assert [document.title for document in from_bytes(block)] == titles
    assert from_bytes(block)[0].paragraphs[1] == Paragraph("C", [Link("C", 0, 1)], True)
    assert from_bytes(to_bytes([])) == []


def test_the_language_decides_what_a_category_is():
    page = Page("A", None, "[[Kategorie:X]] [[B]]", "en")
    assert set(parse_pages(None, [page])[2]) == {"Kategorie:X", "B"}
    assert set(parse_pages("de", [page])[2]) == {"B"}


def test_what_is_no_article_is_skipped(tmp_path):
    """Redirects and LUKE's three prefixes; max_pages counts articles. The language is the dump's."""
    pages = [Page("A", "B", "", "de"), Page("File:C", None, "[[B]]", "de"), Page("B", None, "[[A]]", "de"),
             Document("Category:D", []), Page("E", None, "[[A]] [[B]]", "de"), Page("F", None, "x", "de")]  # fmt: skip
    (tmp_path / "dump").touch()
    with open(tmp_path / "store", "w+b") as store:
        corpus = Corpus(store, 1)
        corpus.parse([tmp_path / "dump"], lambda path, on_bytes: pages, max_pages=2)
    assert corpus.titles == {"B", "E"} and corpus.redirects == {"A": "B"} and corpus.language == "de"
    assert corpus.links == {"A": 2, "B": 1} and corpus.characters == len("A") + len("A B")


# --- Worker processes -------------------------------------------------------------------------------------------------


def add_slowly(state: int, task: int) -> tuple[int, int]:
    time.sleep(0.02 if task % 5 == 0 else 0)  # so that results are ready out of order
    return state + task, os.getpid()


def fail_at_seven(kill: bool, task: int) -> int:
    if task == 7 and kill:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 7:
        raise ValueError(f"no {task}")
    return task


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers):
    found = list(in_order(add_slowly, 100, range(40), workers))
    assert [result for result, _ in found] == list(range(100, 140))
    assert 1 <= len({process for _, process in found}) <= workers and os.getpid() not in {p for _, p in found}


def test_tasks_are_read_only_a_little_ahead():
    read = []
    results = in_order(add_slowly, 0, (read.append(k) or k for k in range(1000)), 2)
    for _ in range(3):
        next(results)
    assert len(read) <= 3 + TASKS_IN_FLIGHT * 2
    results.close()
    assert list(in_order(add_slowly, 0, [], 2)) == []


def test_an_exception_comes_through_and_a_dead_worker_is_an_error_not_a_hang():
    results = in_order(fail_at_seven, False, range(1000), 2)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="no 7"):
        next(results)
    with pytest.raises(ChildProcessError, match="worker process died"):
        list(in_order(fail_at_seven, True, range(1000), 2))


ENDLESS = """
from itertools import count
from luke_mini.corpus import in_order
from tests.test_corpus import add_slowly
for _, process in in_order(add_slowly, 0, count(), 2):
    print(process, flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_parent():
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        workers = {int(parent.stdout.readline()) for _ in range(20)}
        parent.kill()
    deadline = time.monotonic() + 60
    while any(_is_running(worker) for worker in workers):
        assert time.monotonic() < deadline, "worker processes outlive their parent"
        time.sleep(0.05)


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- The sample -------------------------------------------------------------------------------------------------------


def test_sample_is_bounded_and_does_not_depend_on_the_order():
    texts = {f"Page {k}": [f"text {k}", "x" * (k % 50)] for k in range(1000)}

    def taken(titles, seed=0, limit=5000) -> TextSample:
        sample = TextSample(limit, seed)
        for title in titles:
            sample.offer(Document(title, [Paragraph(text, [], False) for text in texts[title]]))
            assert sum(map(len, sample.texts())) <= limit
        return sample

    first = taken(texts)
    assert list(first.texts()) == list(taken(reversed(texts)).texts())
    assert 1000 < sum(map(len, first.texts())) <= 5000  # whole thing: about 33,000, so three or four halvings
    assert HASHES // first.threshold in (8, 16)
    assert all(first.wants(text.replace("text", "Page")) for text in first.texts() if text.startswith("text"))
    assert set(taken(texts, seed=1).texts()) != set(first.texts())
    assert len(list(taken(texts, limit=10**6).texts())) == 2000
    sample = TextSample(10, 0)
    sample.offer(Document("Long", [Paragraph("x" * 100, [], False)]))
    assert list(sample.texts()) == ["x" * 100]  # a single long document stays

"""Files of entity disambiguation: examples of every published format, their faults with file and line, candidates of
persons against a plain transcription, and the published test sets counted by other means.

    python -m pytest -q tests/test_disambiguation_data.py
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from conftest import shared_data
from hypothesis import given
from hypothesis import strategies as st

from luke_mini import disambiguation_data as files
from luke_mini import mentions
from luke_mini.disambiguation_data import Candidate, Document, Mention

ADA, OKLAHOMA = Candidate("Ada Lovelace", 0.7), Candidate("Ada, Oklahoma", 0.3)


# --- WNED -------------------------------------------------------------------------------------------------------------

TEXT = "\r\nAda & Bo left\u00a0Ada. Bo"
XML = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<own.entityAnnotation><document docName="d1">
<annotation><mention>Ada</mention><wikiName>Ada_Lovelace</wikiName><offset>2</offset><length>3</length></annotation>
<annotation><mention>Ada &amp; Bo</mention><wikiName>Ada &amp; Bo</wikiName><offset>2</offset></annotation>
<annotation><mention>Bo</mention><wikiName>NIL</wikiName><offset>8</offset><length>2</length></annotation>
<annotation><mention>Bo</mention><wikiName/><offset>8</offset><length>2</length></annotation>
<annotation><mention>Ada</mention><wikiName>Ada, Oklahoma</wikiName><offset>17</offset><length>3</length></annotation>
</document></own.entityAnnotation>"""


@pytest.fixture
def wned(tmp_path) -> Path:
    (tmp_path / "RawText").mkdir()
    (tmp_path / "RawText/d1").write_bytes(TEXT.encode())
    (tmp_path / "own.xml").write_text(XML)
    return tmp_path / "own.xml"


def test_wned(wned):
    """Offsets count \\r and \\n; escapes are resolved; NIL and no name are left out; a wrong offset finds its place."""
    (document,) = files.read(wned)
    assert document.id == "d1" and document.text == TEXT and document.skipped == 2
    assert [(TEXT[m.start : m.end], m.start, m.title) for m in document.mentions] == [
        ("Ada", 2, "Ada Lovelace"), ("Ada & Bo", 2, "Ada & Bo"), ("Ada", 16, "Ada, Oklahoma"),
    ]  # fmt: skip
    assert all(m.candidates is None for m in document.mentions)


def test_wned_without_texts(wned):
    assert files.read(wned, mentions_alone=True) == files.read(wned)  # a text that is there is read
    (wned.parent / "RawText/d1").unlink()
    with pytest.raises(ValueError, match="RawText/d1: missing, .*--mentions-alone"):
        files.read(wned)
    (document,) = files.read(wned, mentions_alone=True)
    assert document.text == "Ada Ada & Bo Ada"
    assert [document.text[m.start : m.end] for m in document.mentions] == ["Ada", "Ada & Bo", "Ada"]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("<offset>2</offset>", "<offset>x</offset>", "document d1, annotation 1: <offset> is 'x'"),
        ("<wikiName>NIL</wikiName>", "", "document d1, annotation 3: expected <mention>, <wikiName>"),
        ("<mention>Ada</mention>", "<mention>Eve</mention>", "document d1: the mention 'Eve' is not in the text"),
        (' docName="d1"', "", "expected an attribute docName"),
        ("</document>", "", "line 8, column"),
    ],
)
def test_faults_of_wned(wned, old, new, message):
    wned.write_text(XML.replace(old, new))
    with pytest.raises(ValueError) as error:
        files.read(wned)
    assert message in str(error.value) and str(wned) in str(error.value) and "\n" not in str(error.value)


# --- Le & Titov -------------------------------------------------------------------------------------------------------

ROWS = [
    "12testb OSLO\t12testb OSLO\tAda\tl\tr\tCANDIDATES\t12,0.3,Ada, Oklahoma\t11,0.7,Ada Lovelace\t9,0.9,\t"
    "GT:\t0,11,0.7,Ada Lovelace",
    "12testb OSLO\t12testb OSLO\tU.S.\tl\tr\tCANDIDATES\tEMPTYCAND\tGT:\t-1,5,AT&amp;T, Inc.",
    "12testb OSLO\t12testb OSLO\tOslo\tl\tr\tCANDIDATES\tEMPTYCAND\tGT:\t-1",
    "Jiří_Třanovský x\tJiří_Třanovský x\tWho\tl\tr\tCANDIDATES\tEMPTYCAND\tGT:\t-1,5,Who",
]
WORDS = """\
-DOCSTART- (12testb OSLO)
Bo\tB\tBo\t--NME--
met
Ada\tB\tAda\tAda_Lovelace\thttp://en/Ada_Lovelace\t11

U.S\tB\tU.S.\tx\ty\tz
.\tI\tU.S.\tx\ty\tz
Oslo\tB\tOslo\tx\ty\tz
left

-DOCSTART- (13testb X)
Ada
"""


@pytest.fixture
def table(tmp_path) -> Path:
    (tmp_path / "aida_testB.csv").write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    (tmp_path / "testa_testb_aggregate_original").write_text(WORDS)
    return tmp_path / "aida_testB.csv"


def test_le_and_titov(table):
    """Best prior first, nameless candidates out, commas in titles; -1 is a title that is no candidate, or none."""
    (document,) = files.read(table)
    assert document == Document(
        "12testb", "Bo met Ada U.S . Oslo left",
        (Mention(7, 10, "Ada Lovelace", (ADA, OKLAHOMA)), Mention(11, 16, "AT&T, Inc.", ())), 1,
    )  # fmt: skip


def test_the_words_of_the_wned_sets_have_other_names(table):
    table.rename(table.parent / "wned-msnbc.csv")
    with pytest.raises(ValueError, match="msnbc.conll: missing"):
        files.read(table.parent / "wned-msnbc.csv")
    (table.parent / "testa_testb_aggregate_original").rename(table.parent / "msnbc.conll")
    assert len(files.read(table.parent / "wned-msnbc.csv")[0].mentions) == 2


@pytest.mark.parametrize(
    "row, message",
    [
        (ROWS[0].replace("GT:", "GT"), "line 2: expected 5 columns, CANDIDATES"),
        (ROWS[0].replace("0.3", "x"), "line 2: candidate '12,x,Ada, Oklahoma', expected id,prior,title"),
        (ROWS[0].replace("12,0.3,Ada, Oklahoma", "12"), "line 2: candidate '12', expected id,prior,title or EMPTYCAND"),
        (ROWS[0].replace("12testb", "14testb"), "line 2: the document '14testb' is not in"),
        (ROWS[0], "line 2: the mention 'Ada' is not among those that remain"),
        (" " + ROWS[0][12:], "line 2: column 1 is empty"),
    ],
)
def test_faults_of_the_table(table, row, message):
    table.write_text("\n".join([ROWS[0], row]), encoding="utf-8")
    with pytest.raises(ValueError) as error:
        files.read(table)
    assert str(error.value).startswith(str(table)) and message in str(error.value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("U.S.\tx\ty\tz\nOslo\tB", "U.S.\tx\ty\tz\nOslo\tO", "line 8: column 2 is 'O', expected B or I"),
        ("-DOCSTART- (13", "-DOCSTART- 13", "line 11: expected -DOCSTART- (the document's name"),
        ("-DOCSTART- (12testb OSLO)\n", "", "line 1: expected a -DOCSTART- line"),
    ],
)
def test_faults_of_the_words(table, old, new, message):
    path = table.parent / "testa_testb_aggregate_original"
    path.write_text(WORDS.replace(old, new))
    with pytest.raises(ValueError) as error:
        files.read(table)
    assert str(error.value).startswith(str(path)) and message in str(error.value)


# --- Own files --------------------------------------------------------------------------------------------------------


def test_own_lines(tmp_path):
    spans = [
        {"start": 0, "end": 3, "title": "Ada Lovelace", "candidates": {"Ada, Oklahoma": 0.3, "Ada Lovelace": 0.7}},
        {"start": 0, "end": 3},
    ]
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"id": 7, "text": "Ada left.", "spans": spans}) + "\n")
    expected = (Mention(0, 3, "Ada Lovelace", (ADA, OKLAHOMA)), Mention(0, 3, None, None))
    assert files.read(path) == [Document("7", "Ada left.", expected)]
    path.write_text(path.read_text() + '{"text": "x", "spans": [{"start": 0, "end": 1, "candidates": {"X": "1"}}]}\n')
    message = f"{path}, line 2, spans 1: prior of 'X' is \"1\", expected a number"
    with pytest.raises(ValueError, match=re.escape(message)):
        files.read(path)


# --- Candidates and titles --------------------------------------------------------------------------------------------


def test_candidates_from_statistics():
    links = {("ada", "Ada Lovelace"): 7, ("ada", "Ada, Oklahoma"): 3}
    document = Document("", "ADA, Eve", (Mention(0, 3, None, None), Mention(5, 8, None, None), Mention(0, 3, None, ())))
    (found,) = files.with_candidates([document], mentions.from_links(links))
    assert [m.candidates for m in found.mentions] == [(ADA, OKLAHOMA), (), ()]


NAMES = ["ada", "ada lovelace", "Lovelace", "love", "ada byron lovelace", "byron"]


SOME_TITLES = st.lists(st.sampled_from("ABCD"), max_size=3, unique=True)


@given(st.lists(st.tuples(st.sampled_from(NAMES), SOME_TITLES), max_size=6))
def test_persons_equal_a_plain_transcription(found):
    """Section 11.1 of the specification. A and B are persons; priors 0.5, 0.25, 0.125 are exact in binary."""
    text, spans, made = " ; ".join(name for name, _ in found), [], []
    for name, titles in found:
        start = text.index(name, spans[-1][1] + 3 if spans else 0)
        spans.append((start, start + len(name)))
        made.append(Mention(*spans[-1], None, tuple(Candidate(t, 0.5 ** (k + 1)) for k, t in enumerate(titles))))
    document = files.with_persons(Document("", text, tuple(made)), {"A", "B"})
    for (name, titles), before, after in zip(found, made, document.mentions):
        referring = []
        for other, candidates in found:
            start = other.lower().find(name.lower())
            end = start + len(name) - 1
            if not candidates or candidates[0] not in "AB" or start == -1 or other.lower() == name.lower():
                continue
            if (start == 0 or other[start - 1] == " ") and (end == len(other) - 1 or other[end + 1] == " "):
                referring.append(candidates)
        if not referring:
            assert after == before
            continue
        sums = Counter()
        for candidates in referring:
            sums.update({title: 0.5 ** (k + 1) for k, title in enumerate(candidates)})
        expected = {title: value / len(referring) for title, value in sums.items()}
        assert dict(after.candidates) == expected
        assert [c.prior for c in after.candidates] == sorted(expected.values(), reverse=True)


def test_redirects_and_valid_titles(tmp_path):
    (tmp_path / "redirects.tsv").write_text("Ada L\tAda Lovelace\nOK\tAda, Oklahoma\n")
    redirects = files.read_redirects(tmp_path / "redirects.tsv")
    made = (Mention(0, 1, "Ada L", (Candidate("OK", 1.0),)), Mention(0, 1, "Bo", ()), Mention(0, 1, None, ()))
    found = files.with_titles(Document("", "x", made), lambda t: redirects.get(t, t), {"Ada Lovelace"})
    kept = (Mention(0, 1, "Ada Lovelace", (Candidate("Ada, Oklahoma", 1.0),)), Mention(0, 1, None, ()))
    assert found == Document("", "x", kept, skipped=1)
    (tmp_path / "redirects.tsv").write_text("Ada L\n")
    with pytest.raises(ValueError, match="redirects.tsv, line 1: expected two titles"):
        files.read_redirects(tmp_path / "redirects.tsv")


@pytest.mark.parametrize("name", ["msnbc", "aquaint"])
def test_published_sets(name):
    """Every surface is at its offset in the raw text; the XML read by other means, a regular expression, says the same."""
    path = shared_data(f"disambiguation/{name}/{name}.xml")
    text = re.sub("(?s)<!--.*?-->", "", path.read_text(encoding="utf-8")).replace("&amp;", "&")
    pattern = r"<mention>(.*?)</mention>\s*<wikiName(?:/>|>(.*?)</wikiName>)\s*<offset>(\d+)</offset>"
    expected = re.findall(pattern, text)
    documents = files.read(path)
    assert sum(document.skipped for document in documents) == sum(title in ("", "NIL") for _, title, _ in expected)
    found = [(d.text[m.start : m.end], m.title, str(m.start)) for d in documents for m in d.mentions]
    assert found == [row for row in expected if row[1] not in ("", "NIL")] and len(found) > 600


def test_published_set_without_texts():
    documents = files.read(shared_data("disambiguation/aida-testa/aida-testa.xml"), mentions_alone=True)
    assert len(documents) == 216 and sum(len(d.mentions) for d in documents) == 4791

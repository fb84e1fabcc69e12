"""Files of entity disambiguation: examples of every published format and the JSON lines that `--to-jsonl` makes of
them, their faults with file and line, candidates of persons against a plain transcription, the published test sets
counted by other means. Inputs equal a plain transcription of the rules, whatever the document; nothing crashes.

    python -m pytest -q tests/test_disambiguation_data.py
"""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

import finetune
from luke_mini import disambiguation_data as data
from luke_mini.disambiguation_data import Document, Options, candidate_ids, make_features, to_document
from luke_mini.entity_vocab import EntityVocab
from luke_mini.mentions import Candidate, Mention, from_links
from luke_mini.spans import equal_parts

ADA, OKLAHOMA = Candidate("Ada Lovelace", 0.7), Candidate("Ada, Oklahoma", 0.3)


def read(path, mentions_alone=False) -> list[Document]:
    return list(map(to_document, data.records(path, mentions_alone)))


def fault_of(path) -> str:
    with pytest.raises(ValueError) as error:
        read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


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
    (document,) = read(wned)
    spans = (Mention(2, 5, "Ada Lovelace"), Mention(2, 10, "Ada & Bo"), Mention(16, 19, "Ada, Oklahoma"))
    assert document == Document("d1", TEXT, spans, skipped=2)
    assert [TEXT[m.start : m.end] for m in document.mentions] == ["Ada", "Ada & Bo", "Ada"]


@pytest.mark.parametrize(
    "text, surface, offset, expected",
    [
        ("to Rio de\r\n Janeiro x", "Rio de Janeiro", 3, "Rio de\r\n Janeiro"),
        ("to Rio\u2003de\tJaneiro x", "Rio de Janeiro", 99, "Rio\u2003de\tJaneiro"),
        ("the U.N . said", "U.N.", 4, "U.N ."),
        ("the U. N. said", "U.N.", 4, "U. N."),
        ("SÃO PAULO won", "São Paulo", 0, "SÃO PAULO"),
        ("x d\u2019Ivoire x", "D'Ivoire", 2, "d\u2019Ivoire"),
        ("x d`Ivoire x", "d\u00b4Ivoire", 2, "d`Ivoire"),
        ("x A&amp;P x", "A&amp;P", 2, "A&amp;P"),  # the text is written as HTML, the mention in XML is A&P
        ("x A&P x", "A&amp;amp;P", 2, "A&P"),  # the other way round
        ("x \u201cM\u201d \u2013 x", "&quot;M&quot; -", 2, "\u201cM\u201d \u2013"),
        ("may. May. MAY.", "May", 10, "MAY"),  # at its place in another spelling, before elsewhere in the same
        ("may. May. MAY.", "May", 9, "May"),  # nowhere near: the same spelling before the nearest
        ("ma y. MAY. x", "May", 5, "MAY"),
        ("Mayor may", "MAY", 0, "May"),
    ],
)
def test_mentions_in_another_spelling(wned, text, surface, offset, expected):
    (wned.parent / "RawText/d1").write_bytes(text.encode())
    item = f"<mention>{surface}</mention><wikiName>X</wikiName><offset>{offset}</offset>"
    wned.write_text(f'<a><document docName="d1"><annotation>{item}</annotation></document></a>', encoding="utf-8")
    ((mention,),) = (document.mentions for document in read(wned))
    assert text[mention.start : mention.end] == expected


def test_a_mention_of_white_space_or_of_other_letters_is_named(wned):
    xml = wned.read_text()
    wned.write_text(xml.replace("<mention>Ada</mention>", "<mention> </mention>", 1))
    assert "annotation 1: expected <mention>" in fault_of(wned)
    wned.write_text(xml.replace("<mention>Ada</mention>", "<mention>Adas</mention>", 1))
    assert "the mention 'Adas' is not in the text, which has 'Ada' at 2" in fault_of(wned)


def test_wned_without_texts(wned):
    assert read(wned, mentions_alone=True) == read(wned)  # a text that is there is read
    (wned.parent / "RawText/d1").unlink()
    with pytest.raises(ValueError, match="RawText/d1: missing, .*--mentions-alone"):
        read(wned)
    (document,) = read(wned, mentions_alone=True)
    assert document.text == "Ada Ada & Bo Ada" and [m[:2] for m in document.mentions] == [(0, 3), (4, 12), (13, 16)]


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
    assert read(table) == [Document(
        "12testb", "Bo met Ada U.S . Oslo left",
        (Mention(7, 10, "Ada Lovelace", (ADA, OKLAHOMA)), Mention(11, 16, "AT&T, Inc.", ())), 1,
    )]  # fmt: skip


@pytest.mark.parametrize("kind", ["wned", "table"])
def test_the_json_lines_of_a_published_file_are_the_same_documents(kind, request, capsys):
    path = request.getfixturevalue(kind)
    finetune.main(["disambiguation", "--to-jsonl", str(path)])
    own = path.with_suffix(".jsonl")
    own.write_text(capsys.readouterr().out, encoding="utf-8", newline="")
    assert read(own) == read(path)


def test_the_words_of_the_wned_sets_have_other_names(table):
    table.rename(table.parent / "wned-msnbc.csv")
    with pytest.raises(ValueError, match="msnbc.conll: missing"):
        read(table.parent / "wned-msnbc.csv")
    (table.parent / "testa_testb_aggregate_original").rename(table.parent / "msnbc.conll")
    assert len(read(table.parent / "wned-msnbc.csv")[0].mentions) == 2


OWN, TABLE, COLUMNS = "own.xml", "aida_testB.csv", "testa_testb_aggregate_original"


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        (OWN, "<offset>2</offset>", "<offset>x</offset>", ", document d1, annotation 1: <offset> is 'x'"),
        (OWN, "<wikiName>NIL</wikiName>", "", ", document d1, annotation 3: expected <mention>, <wikiName>"),
        (OWN, "<mention>Ada</mention>", "<mention>Eve</mention>", ", document d1: the mention 'Eve' is not in the text"),
        (OWN, ' docName="d1"', "", ": expected an attribute docName"),
        (OWN, "</document>", "", ", line 8, column 3: mismatched tag"),
        (OWN, '"d1"', '"../own.xml"', ": docName is '../own.xml', expected the name of a file in RawText/"),
        (OWN, '"d1"', '"/etc/hostname"', ": docName is '/etc/hostname', expected the name of a file in RawText/"),
        (OWN, "UTF-8", "foo", ": an encoding that cannot be read"),
        (OWN, "UTF-8", "shift_jis", ": an encoding that cannot be read"),
        (TABLE, ROWS[1], ROWS[0].replace("GT:", "GT"), ", line 2: expected 5 columns, CANDIDATES"),
        (TABLE, "0.3", "x", ", line 1: candidate '12,x,Ada, Oklahoma', expected id,prior,title"),
        (TABLE, "12,0.3,Ada, Oklahoma", "12", ", line 1: candidate '12', expected id,prior,title or EMPTYCAND"),
        (TABLE, ROWS[1], ROWS[0].replace("12testb", "14testb"), ", line 2: the document '14testb' is not in"),
        (TABLE, ROWS[1], ROWS[0], ", line 2: the mention 'Ada' is not among those that remain"),
        (TABLE, ROWS[1], " " + ROWS[0][12:], ", line 2: column 1 is empty"),
        (COLUMNS, "z\nOslo\tB", "z\nOslo\tO", ", line 8: column 2 is 'O', expected B or I"),
        (COLUMNS, "-DOCSTART- (13", "-DOCSTART- 13", ", line 11: expected -DOCSTART- (the document's name"),
        (COLUMNS, "-DOCSTART- (12testb OSLO)\n", "", ", line 1: expected a -DOCSTART- line"),
    ],
)
def test_faults_are_named(wned, table, name, old, new, message):
    path = wned.parent / name
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert fault_of(wned if name == OWN else table).startswith(f"{path}{message}")


# --- Own files --------------------------------------------------------------------------------------------------------


def test_own_lines(tmp_path):
    spans = [
        {"start": 0, "end": 3, "title": "Ada Lovelace", "candidates": {"Ada, Oklahoma": 0.3, "Ada Lovelace": 0.7}},
        {"start": 0, "end": 3},
    ]
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"id": 7, "text": "Ada left.", "spans": spans}) + "\n")
    expected = (Mention(0, 3, "Ada Lovelace", (ADA, OKLAHOMA)), Mention(0, 3))
    assert read(path) == [Document("7", "Ada left.", expected)]
    path.write_text(path.read_text() + '{"text": "x", "spans": [{"start": 0, "end": 1, "candidates": {"X": "1"}}]}\n')
    assert fault_of(path) == f"{path}, line 2, spans 1: prior of 'X' is \"1\", expected a number"


# --- Candidates and titles --------------------------------------------------------------------------------------------


def test_mentions_and_candidates_from_statistics():
    statistics = from_links({("ada", "Ada Lovelace"): 7, ("ada", "Ada, Oklahoma"): 3})
    document = Document("", "ADA, Eve", (Mention(0, 3), Mention(5, 8), Mention(0, 3, None, ())))
    found = data.with_candidates(document, statistics, 0.5)
    sure = {"certainty": 10 / 11}  # ten links, on ten pages, and one more that might have none
    assert found.mentions == (
        Mention(0, 3, None, (ADA, OKLAHOMA), **sure), Mention(5, 8, None, (), certainty=0.0), Mention(0, 3, None, ())
    )  # fmt: skip
    bare = document._replace(mentions=None)
    assert data.with_candidates(bare, statistics, 0.5).mentions == (Mention(0, 3, None, (ADA, OKLAHOMA), 1.0, **sure),)
    assert data.with_candidates(bare, statistics, 1.5).mentions == ()


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
    document = data.with_persons(Document("", text, tuple(made)), {"A", "B"})
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
    redirects = data.read_redirects(tmp_path / "redirects.tsv")
    made = (Mention(0, 1, "Ada L", (Candidate("OK", 1.0),)), Mention(0, 1, "Bo", ()), Mention(0, 1, None, ()))
    found = data.with_titles(Document("", "x", made), lambda t: redirects.get(t, t), {"Ada Lovelace"})
    kept = (Mention(0, 1, "Ada Lovelace", (Candidate("Ada, Oklahoma", 1.0),)), Mention(0, 1, None, ()))
    assert found == Document("", "x", kept, skipped=1)
    (tmp_path / "redirects.tsv").write_text("Ada L\n")
    with pytest.raises(ValueError, match="redirects.tsv, line 1: expected two titles"):
        data.read_redirects(tmp_path / "redirects.tsv")


@pytest.mark.parametrize("name", ["msnbc", "aquaint"])
def test_published_sets(name):
    """Every surface is at its offset in the raw text; a regular expression reads the same from the XML."""
    path = shared_data(f"disambiguation/{name}/{name}.xml")
    text = re.sub("(?s)<!--.*?-->", "", path.read_text(encoding="utf-8")).replace("&amp;", "&")
    pattern = r"<mention>(.*?)</mention>\s*<wikiName(?:/>|>(.*?)</wikiName>)\s*<offset>(\d+)</offset>"
    expected = re.findall(pattern, text)
    documents = read(path)
    assert sum(document.skipped for document in documents) == sum(title in ("", "NIL") for _, title, _ in expected)
    found = [(d.text[m.start : m.end], m.title, str(m.start)) for d in documents for m in d.mentions]
    assert found == [row for row in expected if row[1] not in ("", "NIL")] and len(found) > 600


def test_published_set_without_texts():
    documents = read(shared_data("disambiguation/aida-testa/aida-testa.xml"), mentions_alone=True)
    assert len(documents) == 216 and sum(len(d.mentions) for d in documents) == 4791


# --- Inputs -----------------------------------------------------------------------------------------------------------

TITLES = [f"T{k}" for k in range(8)]
VOCAB = EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]", *TITLES, "[MASK2]"])
UNK = 1


class LetterTokenizer:
    """One piece a letter, none for a space."""

    bos_id, pad_id, eos_id, unk_id = 0, 1, 2, 3

    def encode_segments(self, segments):
        ids = [[10 + ord(char) % 80 for char in segment if char != " "] for segment in segments]
        return np.array([k for part in ids for k in part], np.int32), np.array([*map(len, ids)])


def mention(start, end, title, *titles) -> Mention:
    return Mention(start, end, title, tuple(Candidate(name, 1 / (k + 1)) for k, name in enumerate(titles)))


def test_candidates_worked_by_hand():
    """X and Y are not in the vocabulary: together one [UNK], whose first number is X's. T0 has the id 3."""
    found = mention(0, 1, "T1", "X", "T0", "Y", "T1", "T2")
    ids, gold = candidate_ids(found, VOCAB, Options())
    assert list(ids.items()) == [(UNK, 0), (3, 1), (4, 3), (5, 4)] and gold == 4
    assert candidate_ids(found, VOCAB, Options(max_candidates=3)) == ({UNK: 0, 3: 1}, -1)  # the title is the fourth
    for title in ("X", None, "T5"):
        assert candidate_ids(found._replace(title=title), VOCAB, Options()) == (ids, -1)
    assert candidate_ids(found._replace(candidates=()), VOCAB, Options()) == ({}, -1)


def plain_inputs(document: Document, options: Options):
    """[(word ids, [(mention, first, last + 1, is target)])] of one document, piece by piece."""
    before = [sum(char != " " for char in document.text[:k]) for k in range(len(document.text) + 1)]
    ids = [10 + ord(char) % 80 for char in document.text if char != " "]
    n, room, made = len(ids), options.max_seq_length - 2, []
    spans = {k: (before[m.start], before[m.end]) for k, m in enumerate(document.mentions)}
    order = sorted(spans, key=lambda k: document.mentions[k][:2])

    def clipped(k, first, last):
        start, end = spans[k]
        return start - first + 1, min(end, last, start + options.max_mention) - first + 1

    if n > room and options.split == "per_mention":
        for target in order:
            start, end = spans[target]
            end = min(end, start + room)
            left = right = 0
            half = (room - (end - start)) // 2
            if start < n - end:
                left = min(start, half)
                right = min(n - end, room - (end - start) - left)
            else:
                right = min(n - end, half)
                left = min(start, room - (end - start) - right)
            first, last = start - left, end + right
            others = [k for k in order if k != target and first <= spans[k][0] and spans[k][1] <= last]
            chosen = [target, *others[: options.max_entities - 1]]
            made.append((ids[first:last], [(k, *clipped(k, first, last), k == target) for k in chosen]))
    else:
        borders = equal_parts(n, room, np.array([spans[k] for k in order], np.int64).reshape(-1, 2))
        for number, (first, last) in enumerate(zip(borders, borders[1:])):
            is_last = number == len(borders) - 2
            inside = [k for k in order if first <= spans[k][0] and (spans[k][0] < last or is_last)]
            parts = -(-len(inside) // options.max_entities)
            for part in range(parts):  # as equal as can be, the larger ones first
                size = len(inside) // (parts - part) + (len(inside) % (parts - part) > 0)
                chosen, inside = inside[:size], inside[size:]
                made.append((ids[first:last], [(k, *clipped(k, first, last), True) for k in chosen]))
    return made


@st.composite
def documents(draw):
    text = draw(st.text("ab c", max_size=50))
    places = st.tuples(st.integers(0, max(0, len(text) - 1)), st.integers(1, 15))
    found = draw(st.lists(places, max_size=10)) if text else []
    titles = st.lists(st.sampled_from([*TITLES, "X", "Y"]), max_size=5, unique=True)
    title = st.sampled_from([*TITLES, "X", None])
    made = [mention(start, min(start + n, len(text)), draw(title), *draw(titles)) for start, n in found]
    return Document("", text, tuple(made))


@given(
    documents(), st.sampled_from(["simple", "per_mention"]), st.integers(6, 30), st.integers(1, 5), st.integers(1, 6)
)
@settings(max_examples=100, deadline=None)
def test_features_equal_a_plain_transcription(document, split, max_length, max_entities, max_mention):
    options = Options(split=split, max_seq_length=max_length, max_entities=max_entities, max_mention=max_mention)
    features = make_features([document], LetterTokenizer(), VOCAB, (), options)
    found = []
    for _, (word_ids, gold, spans, kept), is_target, candidates, priors in features:
        assert word_ids[0] == 0 and word_ids[-1] == 2 and len(word_ids) <= max_length
        found.append((word_ids[1:-1].tolist(), list(zip(kept.tolist(), *spans.T.tolist(), is_target.tolist()))))
        of_mentions = [candidate_ids(document.mentions[k], VOCAB, options) for k in kept]
        assert list(zip(candidates, gold)) == of_mentions
        numbers = [[*ids.values()] for ids in candidates]
        assert priors == [[1 / (number + 1) for number in own] for own in numbers]
    expected = [(ids, rows) for ids, rows in plain_inputs(document, options) if rows]
    assert found == expected
    decided = Counter(k for _, rows in found for k, _, _, is_target in rows if is_target)
    assert decided == Counter(range(len(document.mentions)))  # every mention once


# --- Other candidates, other vocabularies -----------------------------------------------------------------------------

PPRFORNED = """\
ENTITY\ttext:norway\tnormalName:norway\tpredictedType:LOC\tq:true\tqid:Q0\tdocId:12\torigText:Norway\turl:http://en.wikipedia.org/wiki/Norway
CANDIDATE\tid:1\tinCount:9\toutCount:1\tlinks:2;3\turl:http://en.wikipedia.org/wiki/Norway\tname:Norway
ENTITY\ttext:ada\tnormalName:ada\tpredictedType:PER\tq:true\tqid:Q1\tdocId:12\torigText:A.da\turl:http://en.wikipedia.org/wiki/Ada_Lovelace
CANDIDATE\tid:2\tinCount:9\toutCount:1\tlinks:\turl:http://en.wikipedia.org/wiki/Ada,_Oklahoma\tname:Ada, Oklahoma
CANDIDATE\tid:3\tinCount:9\toutCount:1\tlinks:\turl:http://en.wikipedia.org/wiki/Ada_Lovelace\tname:Ada Lovelace
"""


def test_pprforned(tmp_path):
    """By the number of the document; mentions in order, by their letters; Norway is none of this document's mentions."""
    (tmp_path / "PART_1_1000").mkdir()
    path = tmp_path / "PART_1_1000/12"
    path.write_text(PPRFORNED)
    document = data.Document("12testb OSLO", "Ada was here.", (Mention(0, 3, "Ada Lovelace", (ADA,)),))
    (found,) = data.with_pprforned(document, tmp_path).mentions
    assert found.candidates == (("Ada, Oklahoma", 0.5), ("Ada Lovelace", 0.5)) and found.title == "Ada Lovelace"
    twice = document._replace(mentions=document.mentions * 2)
    for other, what in (
        (document._replace(id="1testb"), "0 files for the document '1testb', expected one named '1'"),
        (document._replace(id="OSLO"), "0 files for the document 'OSLO'"),
        (twice, f"{path}: the mention 'Ada' is not among those that remain"),
    ):
        with pytest.raises(ValueError, match=re.escape(what)):
            data.with_pprforned(other, tmp_path)
    for broken in (PPRFORNED.replace("origText:A", "text:A"), PPRFORNED.partition("\n")[2], "CANDIDATE\turl:x\n"):
        path.write_text(broken)
        with pytest.raises(ValueError, match=f"{path}, line [13]: expected ENTITY with origText"):
            data.with_pprforned(document, tmp_path)


def test_entities_of_a_data_set(tmp_path):
    """All candidates up to a number, best first; titles of mentions that have none; each once."""
    spans = [
        {"start": 0, "end": 3, "title": "Ada Lovelace", "candidates": {"Ada, Oklahoma": 0.3, "Ada Lovelace": 0.7}},
        {"start": 4, "end": 7, "title": "Was (not was)"}, {"start": 4, "end": 7, "title": "X", "candidates": {}},
        {"start": 0, "end": 3, "candidates": {"Ada Lovelace": 1, "Ada (ship)": 0.5, "Ada Lie": 0.6}},
    ]  # fmt: skip
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"text": "Ada was here.", "spans": spans}) + "\n")
    expected = ["Ada Lovelace", "Ada, Oklahoma", "Was (not was)", "X", "Ada Lie"]
    assert data.meant_titles(path) == [*expected, "Ada (ship)"] and data.meant_titles(path, 2) == expected

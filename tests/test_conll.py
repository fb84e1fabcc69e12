"""CoNLL files are read as conlleval and the published statistics count them; raw text becomes words with offsets.

    python -m pytest -q tests/test_conll.py
"""

import pytest
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini.conll import Document, raw_document, read_examples, read_json_lines, split_words, write_predictions

EXAMPLE = """-DOCSTART- -X- O O

Ada NNP I-NP I-PER
visited VBD I-VP O
Oslo NNP I-NP I-LOC
. . O O

Rain NN I-NP O

-DOCSTART- -X- O O

Bo NNP I-NP I-PER
Ada NNP I-NP B-PER
"""  # no blank line after the last sentence: it is kept


def write(tmp_path, text: str | bytes):
    path = tmp_path / "file.conll"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- Reading --------------------------------------------------------------------------------------------------------


def test_example(tmp_path):
    assert read_examples(write(tmp_path, EXAMPLE)) == [
        Document(["Ada", "visited", "Oslo", ".", "Rain"], [(0, 1, "PER"), (2, 3, "LOC")], [0, 4, 5], "IOB1", "utf-8"),
        Document(["Bo", "Ada"], [(0, 1, "PER"), (1, 2, "PER")], [0, 2], "IOB1", "utf-8"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace(" ", " \t "),
        lambda text: text.replace("\n\n", "\n \n\t\n\n"),
        lambda text: text + "\n\n\n",
        lambda text: text.removesuffix("\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("-DOCSTART- -X- O O", "-DOCSTART- O"),  # its columns are not counted
        lambda text: text.replace("-X- O O\n", "-X- O O"),  # ... nor is a blank line after it needed
        lambda text: text.replace("-DOCSTART- -X- O O\n\n", "", 1),  # a first document without a start
        lambda text: text.replace(" NNP I-NP", "").replace(" VBD I-VP", "").replace(" . O", "").replace(" NN I-NP", ""),
    ],
)
def test_layouts_that_mean_the_same(tmp_path, change):
    assert read_examples(write(tmp_path, change(EXAMPLE))) == read_examples(write(tmp_path, EXAMPLE))


def test_without_docstart_all_is_one_document(tmp_path):
    (document,) = read_examples(write(tmp_path, "a B-X\n\nb I-X\nc I-X\n\n"))
    assert (document.words, document.sentences) == (["a", "b", "c"], [0, 1, 3])
    assert document.spans == [(0, 1, "X"), (1, 3, "X")]  # no mention crosses the end of a sentence


@pytest.mark.parametrize(
    "tags, scheme",
    [
        ("I-PER I-PER B-PER O I-LOC", "IOB1"),
        ("B-PER I-PER B-PER O B-LOC", "IOB2"),
        ("B-PER E-PER S-PER O S-LOC", "IOBES"),
    ],
)
def test_schemes_are_recognised_and_agree(tmp_path, tags, scheme):
    path = write(tmp_path, "".join(f"w {tag}\n" for tag in tags.split()))
    (document,) = read_examples(path)
    assert document.scheme == scheme
    assert document.spans == [(0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC")]
    assert read_examples(path, scheme=scheme) == [document]
    with pytest.raises(ValueError, match=f"file.conll: the tags are {scheme}, expected IOB9"):
        read_examples(path, scheme="IOB9")


def test_a_few_odd_tags_do_not_change_the_scheme(tmp_path):
    (document,) = read_examples(write(tmp_path, "a B-X\nb O\nc I-X\nd O\ne B-X\n"))
    assert (document.scheme, len(document.spans)) == ("IOB2", 3)


def test_without_mentions_any_scheme_fits(tmp_path):
    path = write(tmp_path, "a O\nb O\n")
    assert [read_examples(path, scheme=scheme)[0].scheme for scheme in (None, "IOB1")] == ["IOB2", "IOB1"]


def test_encodings(tmp_path):
    text = "Zürich I-LOC\n"
    for encoding, found in [("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("iso-8859-1", "iso-8859-1")]:
        (document,) = read_examples(write(tmp_path, text.encode(encoding)))
        assert (document.words, document.encoding) == (["Zürich"], found)
    (document,) = read_examples(write(tmp_path, text.encode("cp1250")), encoding="cp1250")
    assert document.words == ["Zürich"]


@pytest.mark.parametrize("word", ["\u00a0", "\u0085", "\u2028", "\x1c", "a\u00a0b", "\u3000"])
def test_only_space_and_tab_separate_columns(tmp_path, word):
    """Python's split() and splitlines() also break here; such words are in real files."""
    (document,) = read_examples(write(tmp_path, f"x NN O\n{word} NN I-X\n"))
    assert document.words == ["x", word]


@pytest.mark.parametrize(
    "text, message",
    [
        (EXAMPLE.replace("Oslo NNP ", "Oslo "), "line 5: 3 columns, expected 4 as above"),
        (EXAMPLE.replace("Oslo NNP", "Oslo NNP x"), "line 5: 5 columns, expected 4 as above"),
        ("Ada\n", "line 1: 1 columns, expected at least 2"),
        ("Ada I-PER\nOslo LOC\n", "line 2: last column 'LOC', expected O or one of B- I- E- S- and a type"),
        ("Ada I-\n", "line 1: last column 'I-'"),
        ("", "no sentence"),
        ("\n\n-DOCSTART- O\n\n", "no sentence"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, text, message):
    with pytest.raises(ValueError) as error:
        read_examples(write(tmp_path, text))
    assert "file.conll" in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


def test_bad_encodings(tmp_path):
    path = write(tmp_path, "Zürich I-LOC\n".encode("iso-8859-1"))
    with pytest.raises(ValueError, match="file.conll: cannot be read as utf-8"):
        read_examples(path, encoding="utf-8")
    with pytest.raises(ValueError, match="file.conll: cannot be read as latin-99"):
        read_examples(path, encoding="latin-99")


# Sentences, tokens and mentions per type: Tjong Kim Sang and De Meulder 2003, tables 1 and 2. Spanish and Dutch, where
# the papers give no such table: tokens and mentions that conlleval counts.
PUBLISHED = {
    "eng.train": ("IOB1", 946, 14041, 203621, {"LOC": 7140, "MISC": 3438, "ORG": 6321, "PER": 6600}),
    "eng.testa": ("IOB1", 216, 3250, 51362, {"LOC": 1837, "MISC": 922, "ORG": 1341, "PER": 1842}),
    "deu.testa": ("IOB1", 201, 2867, 51444, {"LOC": 1181, "MISC": 1010, "ORG": 1241, "PER": 1401}),
    "esp.testa": ("IOB2", 1, None, 52923, {"LOC": 985, "MISC": 445, "ORG": 1700, "PER": 1222}),
    "ned.testa": ("IOB2", 74, None, 37687, {"LOC": 479, "MISC": 748, "ORG": 686, "PER": 703}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    scheme, n_documents, n_sentences, n_words, by_type = PUBLISHED[name]
    documents = read_examples(shared_data(f"ner/{name}"))
    assert {document.scheme for document in documents} == {scheme}
    assert len(documents) == n_documents
    assert sum(len(document.words) for document in documents) == n_words
    kinds = [kind for document in documents for _, _, kind in document.spans]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == by_type
    if n_sentences:
        assert sum(len(document.sentences) - 1 for document in documents) == n_sentences


# --- Writing --------------------------------------------------------------------------------------------------------

GOLD_IOB1 = Document(["Ada", "Bo", "sang", "Eve"], [(0, 1, "PER"), (1, 2, "PER"), (3, 4, "PER")], [0, 2, 4], "IOB1")
PREDICTED = [(3, 4, "LOC", 0.5), (0, 2, "PER", 0.9), (2, 3, "PER", 0.8)]


@pytest.mark.parametrize(
    "scheme, lines",
    [
        ("IOB1", ["Ada I-PER I-PER", "Bo B-PER I-PER", "", "sang O I-PER", "Eve I-PER I-LOC", ""]),
        ("IOB2", ["Ada B-PER B-PER", "Bo B-PER I-PER", "", "sang O B-PER", "Eve B-PER B-LOC", ""]),
        ("IOBES", ["Ada B-PER B-PER", "Bo B-PER I-PER", "", "sang O B-PER", "Eve B-PER B-LOC", ""]),
    ],
)
def test_predictions_file(tmp_path, scheme, lines):
    document = Document(GOLD_IOB1.words, GOLD_IOB1.spans, GOLD_IOB1.sentences, scheme)
    path = tmp_path / "predictions.txt"
    write_predictions(path, [document], [PREDICTED])
    assert path.read_text().split("\n") == [*lines, ""]
    assert [mention[:3] for mention in sorted(PREDICTED)] == read_examples(path)[0].spans


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError):
        write_predictions(tmp_path / "predictions.txt", [GOLD_IOB1, GOLD_IOB1], [PREDICTED])
    assert list(tmp_path.iterdir()) == []


# --- Raw text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, words",
    [
        ("Ada visited Oslo.", "Ada|visited|Oslo|."),
        ("(\"Bo's\" 1,000.5 AT&T-men)", "(|\"|Bo|'s|\"|1|,|000.5|AT&T-men|)"),
        ("don't they're I'm", "don|'t|they|'re|I|'m"),
        ("l'Italie, O’Brien’s", "l'|Italie|,|O’|Brien|’s"),
        ("the 'quoted' dogs' den", "the|'|quoted|'|dogs|'|den"),
        ("U.S. ...", "U.S|.|.|.|."),
        ("東京とOslo。", "東|京|と|Oslo|。"),
        ("हिन्दी भाषा", "हिन्दी|भाषा"),
        ("بَيْت في", "بَيْت|في"),
        ("a\u00a0b\tc  d", "a|b|c|d"),
        ("", ""),
        (" \t ", ""),
    ],
)
def test_words_of_raw_text(text, words):
    assert "|".join(text[start:end] for start, end in split_words(text)) == words


@settings(deadline=None)
@given(st.text(alphabet="ab 1'.,-&’\t東か हि\u0301\u00a0(é", max_size=40) | st.text(max_size=40))
def test_words_cover_all_but_white_space(text):
    spans = split_words(text)
    covered = [i for start, end in spans for i in range(start, end)]
    assert covered == [i for i, char in enumerate(text) if not char.isspace()]
    assert all(start < end for start, end in spans)


def test_raw_document():
    text = "  Ada visited Oslo. Rain fell on Bo.  "
    document, char_spans = raw_document(text)
    assert document.words == ["Ada", "visited", "Oslo", ".", "Rain", "fell", "on", "Bo", "."]
    assert document.sentences == [0, 4, 9]
    assert [text[start:end] for start, end in char_spans] == document.words
    assert raw_document(" \n") == (Document([], [], [0]), [])


# --- JSON lines -----------------------------------------------------------------------------------------------------


def json_lines(tmp_path, *lines: str):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_own_texts_with_character_spans(tmp_path):
    """Words end at the mentions' borders, and a sentence does not end inside of a mention."""
    line = '{"text": "Ada saw Dr. No-land. It rained.", "spans": [{"start": 8, "end": 14, "label": "WORK"}, %s]}'
    (document,) = read_json_lines(json_lines(tmp_path, line % '{"start": 0, "end": 3, "label": "PER"}'))
    text = [" ".join(document.words[start:end]) for start, end, _ in document.spans]
    assert document.spans[0] == (0, 1, "PER") and document.spans[1][2] == "WORK" and text == ["Ada", "Dr . No"]
    starts = document.sentences
    assert all(any(a <= s and e <= b for a, b in zip(starts, starts[1:])) for s, e, _ in document.spans)
    assert "".join(document.words) == "AdasawDr.No-land.Itrained."


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"text": "Ada", "spans": [{"start": 0, "end": 4, "label": "X"}]}', "line 1, spans 1: fields 'start' and 'end'"),
        ('{"text": "Ada b", "spans": [{"start": 0, "end": 4, "label": "X"}]}', "'Ada ' begins or ends with white space"),
        ('{"text": "Ada", "spans": [{"start": 0, "end": 3}]}', "spans 1: field 'label' is missing"),
        (
            '{"text": "Ada", "spans": [{"start": 0, "end": 2, "label": "X"}, {"start": 1, "end": 3, "label": "X"}]}',
            "two of them share character 1",
        ),
        ("", "no document"),
    ],
)
def test_what_is_wrong_with_own_texts_is_named(tmp_path, line, message):
    with pytest.raises(ValueError, match=message) as error:
        read_json_lines(json_lines(tmp_path, line))
    assert "own.jsonl" in str(error.value)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_character_spans_come_back(data):
    """Any mentions without overlaps, white space at their borders excepted, are found at their characters."""
    text = data.draw(st.text("ab. '-\u3042", max_size=30))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = [(a, b, "X") for a, b in zip(cuts[::2], cuts[1::2]) if text[a:b].strip() == text[a:b] != ""]
    document, words = raw_document(text, "en", spans)
    found = [(words[start][0], words[end - 1][1], kind) for start, end, kind in document.spans]
    assert found == spans
    assert document.sentences[0] == 0 and document.sentences[-1] == len(document.words)
    for start, end, _ in document.spans:
        assert not any(start < boundary < end for boundary in document.sentences)

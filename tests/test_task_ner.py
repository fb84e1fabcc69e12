"""The NER task equals its specification: CoNLL files against published counts, features against a plain transcription
of the rules, scores of the head against transformers, decoding against brute force, and a tiny model that learns 20
sentences.

    python -m pytest -q tests/test_task_ner.py
"""

import json
import random
import re
import string
import sys
from functools import partial
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_rounded, assert_same, generator, seeded
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini import checkpoint, finetuning, inference, optim, task_ner
from luke_mini.config import ModelConfig
from luke_mini.files import Record
from luke_mini.heads import TaskModel
from luke_mini.initialization import initialize
from luke_mini.metrics import chunks
from luke_mini.task_ner import CONLL_LABELS, Document, Options

SMALL = ModelConfig(
    vocab_size=300, entity_vocab_size=7, hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, entity_emb_size=12, max_position_embeddings=70,
)  # fmt: skip
MASK_ENTITY = 3  # neither a released model's id nor a neighbor of the padding


class WordTokenizer:
    """One piece a word, numbered as they come."""

    bos_id, pad_id, eos_id, unk_id = 0, 1, 2, 3

    def __init__(self):
        self.words = {}

    def encode_pieces(self, texts, prefix_spaces):
        return [[self.words.setdefault(text, 10 + len(self.words))] for text in texts]


class LetterTokenizer:
    """One piece a letter, one more where there is a space before; U+200B has none. Counts what it is asked for."""

    bos_id, pad_id, eos_id, unk_id = 0, 1, 2, 3

    def __init__(self):
        self.calls = 0

    def encode(self, text, prefix_space):
        letters = [10 + ord(char) % 280 for char in text if char != "\u200b"]
        return [4] * (prefix_space and text != "\u200b") + letters

    def encode_pieces(self, texts, prefix_spaces):
        self.calls += len(texts)
        return [self.encode(text, prefix_space) for text, prefix_space in zip(texts, prefix_spaces)]


def document(text, *mentions, **fields) -> Document:
    """Given words, with spaces between, and sentences, with line ends between; mentions (start, end, type) in words."""
    words = [match.span() for match in re.finditer("[^ \n]+", text)]
    spans = [{"start": words[start][0], "end": words[end - 1][1], "label": kind} for start, end, kind in mentions]
    (found,) = task_ner.from_record(Record("here", {"text": text, "is_split": True, "spans": spans} | fields))
    return found


def read(path, **options) -> list[Document]:
    return finetuning.read_examples(task_ner, path, Options(**options))


def unreachable(documents, features) -> int:
    (count,) = task_ner.skipped(documents, features).values()
    return count


# --- CoNLL files ----------------------------------------------------------------------------------------------------

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


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name="file.conll"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def test_example(write):
    assert read(write(EXAMPLE)) == [
        document("Ada visited Oslo .\nRain", (0, 1, "PER"), (2, 3, "LOC"), scheme="IOB1"),
        document("Bo Ada", (0, 1, "PER"), (1, 2, "PER"), scheme="IOB1"),
    ]
    first = read(write(EXAMPLE))[0]
    assert first.words == ["Ada", "visited", "Oslo", ".", "Rain"] and first.sentences == [0, 4, 5]
    assert first.spans == [(0, 1, "PER"), (2, 3, "LOC")] and first.encoding == "utf-8"


@pytest.mark.parametrize("change", [
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
])  # fmt: skip
def test_layouts_that_mean_the_same(write, change):
    assert read(write(change(EXAMPLE))) == read(write(EXAMPLE))


def test_types_may_have_spaces_behind_a_tab(write):
    spaced = EXAMPLE.replace(" ", "\t").replace("I-LOC", " B-town by the sea ")
    whole = read(write(spaced))
    assert whole[0].spans == [(0, 1, "PER"), (2, 3, "town by the sea")] and whole[1] == read(write(EXAMPLE))[1]
    mentions = [[(*span, 1.0) for span in one.spans] for one in whole]
    made = task_ner.prediction_files(whole, mentions)["predictions.txt"]
    assert "Oslo I-town_by_the_sea I-town_by_the_sea\n" in made  # three columns, as conlleval reads them
    with pytest.raises(ValueError, match="conll, line 5: 7 columns, expected 4 as above"):
        read(write(EXAMPLE.replace("I-LOC", "B-town by the sea")))


@pytest.mark.parametrize("text", [
    "1\tTorun\tB-LOC\tO\n2\tgrew\tO\tO\n\n1\tBo\tB-PER\tO\n2\tleft\tO\tO\n3\t.\tO\tO\n",  # GermEval
    "0 Torun B-LOC\n1 grew O\n2 . O\n\n3 Bo B-PER\n4 left O\n",  # the words of a file, not of its sentences
    "1-2 du _ O\n1 de _ O\n2 le _ B-LOC\n2.1 x _ O\n3 . _ O\n",  # CoNLL-U's ranges and empty words
])  # fmt: skip
def test_a_column_that_counts_is_not_taken_for_words(write, text):
    with pytest.raises(ValueError, match=r"file.conll: the first column counts the words \([\d. -]+ ...\), expected"):
        read(write(text))


@pytest.mark.parametrize("text", ["1 O\n\n7 O\n", "1 O\n2 B-X\n\nlegs O\n", "1 O\n3 O\n\n5 B-X\n", "a B-X\n1 O\n2 O\n"])
def test_words_that_are_numbers_are_words(write, text):
    words = [word for one in read(write(text)) for word in one.words]
    assert words == [line.split()[0] for line in text.split("\n") if line]


@pytest.mark.parametrize("tag", ["B-X|B-Y", "B-X|O", "I-X,I-Y", "B-X;I-Z", "B-X/B-Y", "S-X+E-Y"])
def test_several_tags_in_a_column_are_named(write, tag):
    with pytest.raises(ValueError, match=f"line 2: last column {re.escape(repr(tag))}, expected one tag: O or"):
        read(write(f"a O\nb {tag}\n"))
    (found,) = read(write("a O\nb B-X/Y,Z-3\n"))  # one, whose type has such signs
    assert found.spans == [(1, 2, "X/Y,Z-3")]


def test_context_by_what_the_file_says(write):
    """Without document marks each sentence stands alone, but for the published files; --context decides otherwise."""
    text = "a B-X\n\nb I-X\nc I-X\n\n"  # no mention crosses the end of a sentence
    alone = [document("a", (0, 1, "X")), document("b c", (0, 2, "X"))]
    whole = [document("a\nb c", (0, 1, "X"), (1, 3, "X"))]
    assert read(write(text)) == read(write(text), context="sentence") == alone
    assert read(write(text), context="document") == whole
    assert read(write(text, "esp.train")) == read(write(text, "esp.testb.bio")) == whole
    marked = f"-DOCSTART- O\n\n{text}"
    assert read(write(marked)) == read(write(marked), context="document") == whole
    assert read(write(marked), context="sentence") == alone
    assert task_ner.describe(whole) == "in 1 documents, 2 mentions, IOB2, utf-8"
    assert task_ner.describe(alone) == "each alone, 2 mentions, IOB2, utf-8"
    auto, sentence = Options(), Options(context="sentence")
    assert task_ner.settled(auto, alone) == sentence and task_ner.settled(auto, whole) == auto
    assert task_ner.settled(Options(context="document"), alone).context == "document"
    # All files of a run are read in the way that its training file has settled.
    for train, n in ((text, 2), (marked, 1)):
        files = {"train": write(train, "train.txt"), "test": write(marked, "eng.testa")}
        read_both = finetuning.read_splits(task_ner, files, auto, {})
        assert [len(found) for found in read_both.values()] == [n, n]


def test_sentences_are_counted_and_cut(write):
    """The same sentences whatever they stand in; mentions and words of JSON lines keep their characters."""
    spans = [{"start": 0, "end": 3, "label": "PER"}, {"start": 10, "end": 12, "label": "LOC"}]
    path = write(json.dumps({"text": "Ada went. Bo left. End.", "spans": spans})
                 + '\n{"text": "Fin.", "spans": []}', "own.jsonl")  # fmt: skip
    whole, alone = read(path), read(path, context="sentence")
    assert task_ner.count(whole) == task_ner.count(alone) == len(alone) == 4 and len(whole) == 2
    assert [one.words for one in alone] == [["Ada", "went", "."], ["Bo", "left", "."], ["End", "."], ["Fin", "."]]
    assert [one.spans for one in alone] == [[(0, 1, "PER")], [(0, 1, "LOC")], [], []]
    assert task_ner.first(alone, 2) == alone[:2] and task_ner.first(whole, 9) == whole
    (cut,) = task_ner.first(whole, 2)
    assert cut == whole[0]._replace(char_spans=whole[0].char_spans[:6], sentences=[0, 3, 6])
    mentions = [[(0, 1, "PER", 0.5)], [(0, 1, "LOC", 0.25)], []]
    answer = task_ner.answer(alone[:3], mentions)
    assert answer["text"] == "Ada went. Bo left. End." and [(m["start"], m["text"]) for m in answer["mentions"]] == [
        (0, "Ada"), (10, "Bo")]  # fmt: skip


@pytest.mark.parametrize("tags, scheme", [
    ("I-PER I-PER B-PER O I-LOC", "IOB1"),
    ("B-PER I-PER B-PER O B-LOC", "IOB2"),
    ("B-PER E-PER S-PER O S-LOC", "IOBES"),
])  # fmt: skip
def test_schemes_are_recognized_and_agree(write, tags, scheme):
    path = write("".join(f"w {tag}\n" for tag in tags.split()))
    wanted = [document("w w w w w", (0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC"), scheme=scheme)]
    assert read(path) == read(path, scheme=scheme) == wanted
    with pytest.raises(ValueError, match=f"file.conll: the tags are {scheme}, expected IOB9"):
        read(path, scheme="IOB9")


def test_odd_tags_and_files_without_mentions(write):
    (found,) = read(write("a B-X\nb O\nc I-X\nd O\ne B-X\n"))
    assert (found.scheme, len(found.spans)) == ("IOB2", 3)
    path = write("a O\nb O\n")
    assert [read(path, scheme=scheme)[0].scheme for scheme in ("auto", "IOB1")] == ["IOB2", "IOB1"]


@pytest.mark.parametrize("encoding, found", [
    ("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("iso-8859-1", "iso-8859-1"),
])  # fmt: skip
def test_encodings(write, encoding, found):
    documents = read(write("Zürich I-LOC\n".encode(encoding)))
    assert [(one.words, one.encoding) for one in documents] == [(["Zürich"], found)]
    assert task_ner.describe(documents) == f"each alone, 1 mentions, IOB1, {found}"


def test_one_faulty_byte_is_named_and_another_encoding_said(write, capsys):
    """One byte of a UTF-8 file must not turn all its umlauts into two characters each."""
    lines = "Zürich I-LOC\nin O\nÖsterreich I-LOC\n".encode()
    with pytest.raises(ValueError, match="file.conll, line 3: not UTF-8 text .invalid start byte., as the rest is"):
        read(write(lines.replace(b"rreich", b"\xffreich")))
    assert not capsys.readouterr().out
    read(write(lines.decode().encode("iso-8859-1")))
    assert "file.conll: read as ISO-8859-1, as it is not UTF-8 (invalid start byte at byte 1)" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["\u00a0", "\u0085", "\u2028", "\x1c", "a\u00a0b", "\u3000"])
def test_only_space_and_tab_separate_columns(write, word):
    """Python's split() and splitlines() also break here; such words are in real files."""
    (found,) = read(write(f"x NN O\n{word} NN I-X\n"))
    assert found.words == ["x", word] and found.spans == [(1, 2, "X")]


@pytest.mark.parametrize("text, message", [
    (EXAMPLE.replace("Oslo NNP ", "Oslo "), "line 5: 3 columns, expected 4 as above"),
    (EXAMPLE.replace("Oslo NNP", "Oslo NNP x"), "line 5: 5 columns, expected 4 as above"),
    ("Ada\n", "line 1: 1 columns, expected at least 2"),
    ("Ada I-PER\nOslo LOC\n", "line 2: last column 'LOC', expected one tag: O or one of B- I- E- S- and a type"),
    ("Ada I-\n", "line 1: last column 'I-'"),
    ("", "no sentence"),
    ("\n\n-DOCSTART- O\n\n", "no sentence"),
])  # fmt: skip
def test_bad_files_are_named_with_their_line(write, text, message):
    with pytest.raises(ValueError, match=f"file.conll[:,] {message}") as error:
        read(write(text))
    assert "\n" not in str(error.value)


# Documents, sentences, tokens and mentions per type: Tjong Kim Sang and De Meulder 2003, tables 1 and 2. Spanish and
# Dutch, where the papers give no such table: tokens and mentions that conlleval counts.
PUBLISHED = {
    "eng.train": ("IOB1", 946, 14041, 203621, {"LOC": 7140, "MISC": 3438, "ORG": 6321, "PER": 6600}),
    "eng.testa": ("IOB1", 216, 3250, 51362, {"LOC": 1837, "MISC": 922, "ORG": 1341, "PER": 1842}),
    "deu.testa": ("IOB1", 201, 2867, 51444, {"LOC": 1181, "MISC": 1010, "ORG": 1241, "PER": 1401}),
    "esp.testa": ("IOB2", 1, None, 52923, {"LOC": 985, "MISC": 445, "ORG": 1700, "PER": 1222}),
    "ned.testa": ("IOB2", 74, None, 37687, {"LOC": 479, "MISC": 748, "ORG": 686, "PER": 703}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_files(name):
    """The published counts; and inputs that fit the model.

    With RoBERTa's tokenizer, a handful of gold mentions have more than 16 pieces or are cut in a sentence of more than
    510.
    """
    scheme, n_documents, n_sentences, n_words, by_type = PUBLISHED[name]
    documents = read(shared_data(f"ner/{name}"))
    assert {document.scheme for document in documents} == {scheme}
    assert (len(documents), sum(len(document.words) for document in documents)) == (n_documents, n_words)
    kinds = [kind for document in documents for _, _, kind in document.spans]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == by_type
    assert n_sentences in (None, sum(len(document.sentences) - 1 for document in documents))
    if name == "eng.train":
        return
    features = task_ner.make_features(documents, LetterTokenizer(), None, CONLL_LABELS)
    assert max(len(feature.word_ids) for feature in features) <= 512
    assert max(len(feature.labels) for feature in features) <= 128
    spans = np.concatenate([feature.token_spans for feature in features])
    assert (spans[:, 0] >= 1).all() and (spans[:, 1] - spans[:, 0]).max() == 16
    reachable = {(feature.document, *span) for feature in features for span in feature.word_spans.tolist()}
    gold = [(index, start, end) for index, document in enumerate(documents) for start, end, _ in document.spans]
    assert unreachable(documents, features) == sum(span not in reachable for span in gold)


GOLD = [(0, 1, "PER"), (1, 2, "PER"), (3, 4, "PER")]
PREDICTED = [(3, 4, "LOC", 0.5), (0, 2, "PER", 0.9), (2, 3, "PER", 0.8)]


@pytest.mark.parametrize("scheme, lines", [
    ("IOB1", ["Ada I-PER I-PER", "Bo B-PER I-PER", "", "sang O I-PER", "Eve I-PER I-LOC", ""]),
    ("IOB2", ["Ada B-PER B-PER", "Bo B-PER I-PER", "", "sang O B-PER", "Eve B-PER B-LOC", ""]),
    ("IOBES", ["Ada B-PER B-PER", "Bo B-PER I-PER", "", "sang O B-PER", "Eve B-PER B-LOC", ""]),
])  # fmt: skip
def test_predictions_file(write, scheme, lines):
    one = document("Ada Bo\nsang Eve", *GOLD, scheme=scheme)
    ((name, text),) = task_ner.prediction_files([one], [PREDICTED]).items()
    assert name == "predictions.txt" and text.split("\n") == [*lines, ""]
    assert [mention[:3] for mention in sorted(PREDICTED)] == read(write(text), context="document")[0].spans
    with pytest.raises(ValueError):
        task_ner.prediction_files([one, one], [PREDICTED])


# --- Our own texts ----------------------------------------------------------------------------------------------------


def test_own_texts_with_character_spans(write):
    """Words end at the mentions' borders, and a sentence does not end inside of a mention."""
    spans = [{"start": 8, "end": 14, "label": "WORK"}, {"start": 0, "end": 3, "label": "PER"}]
    (found,) = read(write(json.dumps({"text": "Ada saw Dr. No-land. It rained.", "spans": spans}), "own.jsonl"))
    assert found.words == ["Ada", "saw", "Dr", ".", "No", "-", "land", ".", "It", "rained", "."]
    assert (found.spans, found.sentences) == ([(0, 1, "PER"), (2, 5, "WORK")], [0, 8, 11])
    (plain,) = read(write('{"text": "  Ada went. Rain fell on Bo.  ", "spans": []}\n', "own.jsonl"))
    assert plain.words == ["Ada", "went", ".", "Rain", "fell", "on", "Bo", "."] and plain.sentences == [0, 3, 8]
    (empty,) = task_ner.from_record(Record("here", {"text": " \n", "spans": []}))
    assert empty == Document(" \n", [], [0], [], "IOB2", "utf-8")


X = {"start": 0, "end": 2, "label": "X"}


@pytest.mark.parametrize("record, message", [
    ({"text": "Ada", "spans": [X | {"end": 4}]}, "line 2, spans 1: fields 'start' and 'end'"),
    ({"text": "Ada b", "spans": [X | {"end": 4}]}, "line 2, spans 1: 'Ada ' begins or ends with white space"),
    ({"text": " Ada b", "spans": [X | {"end": 4}]}, "' Ada' begins or ends with white space"),
    ({"text": "Ada b", "is_split": True, "spans": [X | {"end": 4}]}, "'Ada ' begins or ends with white space"),
    ({"text": "Ada", "spans": [{"start": 0, "end": 3}]}, "line 2, spans 1: field 'label' is missing"),
    ({"text": "Ada", "spans": [X, X | {"start": 1, "end": 3}]}, "line 2: field 'spans': two spans share character 1"),
    ({"text": "Ada", "is_split": 1, "spans": []}, "line 2: field 'is_split' is 1, expected a boolean"),
    ({"text": "Ada", "spans": [X | {"start": "0"}]}, "line 2, spans 1: field 'start' is \"0\", expected an integer"),
    ({"text": "Ada", "spans": [X | {"end": 2.5}]}, "line 2, spans 1: field 'end' is 2.5, expected an integer"),
    ({"text": "Ada", "spans": [[0, 3, "X"]]}, "line 2: spans 1 is .*, expected an object"),
    # doccano, label-studio, spaCy: a text without a mention would be learned as one that has none
    ({"text": "Ada", "label": [[0, 3, "X"]], "Comments": []},
     "line 2: field 'spans' is missing, expected a list; fields: text, label, Comments"),
    ({"id": 1, "text": "Ada", "ents": [X]}, "field 'spans' is missing, expected a list; fields: id, text, ents"),
    ({"text": "Ada", "spans": [{"start_offset": 0, "end_offset": 3, "label": "X"}]},
     "spans 1: field 'start' is missing, expected an integer; fields: start_offset, end_offset, label"),
])  # fmt: skip
def test_what_is_wrong_with_own_texts_is_named(write, record, message):
    with pytest.raises(ValueError, match=f"own.jsonl, .*{message}"):
        read(write("\n" + json.dumps(record), "own.jsonl"))


@settings(deadline=None, max_examples=200)
@given(st.text("ab. '-\u3042\n", max_size=30), st.sets(st.integers(0, 30), max_size=6), st.booleans())
def test_character_spans_come_back(text, cuts, is_split):
    """Any mentions without overlaps, white space at their borders excepted, are found at their characters."""
    cuts = sorted(cut for cut in cuts if cut <= len(text))
    spans = [(a, b, "X") for a, b in zip(cuts[::2], cuts[1::2]) if text[a:b].strip() == text[a:b] != ""]
    items = [dict(zip(("start", "end", "label"), span)) for span in spans]
    (found,) = task_ner.from_record(Record("here", {"text": text, "is_split": is_split, "spans": items}))
    words = found.char_spans
    assert [(words[start][0], words[end - 1][1], kind) for start, end, kind in found.spans] == spans
    assert "".join(found.words) == "".join(text.split())
    assert found.sentences == sorted({0, *found.sentences, len(words)})
    assert not any(start < boundary < end for start, end, _ in found.spans for boundary in found.sentences)


# --- Features -------------------------------------------------------------------------------------------------------


def by_the_book(document, tokenizer, labels, options):
    """Features of one document by the rules: (word_ids, token_spans, word_spans, labels)."""
    limit = options.max_seq_length - 2
    pieces = []
    for word in document.words:
        glued = word[0] == "'" or len(word) == 1 and word in string.punctuation + "…»"
        ids = tokenizer.encode(word, prefix_space=options.space_before_all or not glued)
        pieces.append(ids[:limit] if ids else [tokenizer.unk_id])
    all_ids = [piece for ids in pieces for piece in ids]
    parts = []  # a sentence with too many pieces becomes several
    for begin, end in zip(document.sentences, document.sentences[1:]):
        room = 0
        for word in range(begin, end):
            if len(pieces[word]) > room or word == begin:
                parts.append([word, word])
                room = limit
            room -= len(pieces[word])
            parts[-1][1] = word + 1
    gold = {(start, end): labels.index(kind) for start, end, kind in document.spans if kind in labels}
    features = []
    for begin, end in parts:
        l, n, r = (sum(map(len, part)) for part in (pieces[:begin], pieces[begin:end], pieces[end:]))
        half = (limit - n) // 2
        left, right = min(l, half), min(r, half)
        if l < r:
            right = min(r, limit - left - n)
        else:
            left = min(l, limit - right - n)
        word_ids = [tokenizer.bos_id] + all_ids[l - left : l + n + right] + [tokenizer.eos_id]
        candidates = []
        for i, j in combinations(range(begin, end + 1), 2):
            length = sum(map(len, pieces[i:j]))
            if length <= options.max_mention:
                first = 1 + left + sum(map(len, pieces[begin:i]))
                candidates.append(([first, first + length], [i, j], gold.get((i, j), 0)))
        if candidates:
            inputs = -(-len(candidates) // options.max_candidates)
            size = -(-len(candidates) // inputs)
            for i in range(0, len(candidates), size):
                features.append((word_ids, *map(list, zip(*candidates[i : i + size]))))
    return features


@st.composite
def documents_and_options(draw):
    words = st.text(alphabet="ab'.…\u200b", min_size=1, max_size=9)
    pairs = st.lists(st.tuples(words, st.sampled_from("O O I-A B-A I-B I-C".split())), min_size=1, max_size=9)
    sentences = draw(st.lists(pairs, max_size=5))
    mentions, n = [], 0
    for sentence in sentences:
        mentions += [(n + start, n + end, kind) for start, end, kind in chunks([tag for _, tag in sentence])]
        n += len(sentence)
    text = "\n".join(" ".join(word for word, _ in sentence) for sentence in sentences)
    room, candidates = draw(st.integers(1, 30)), draw(st.integers(1, 9))
    max_mention = draw(st.integers(1, min(room, 12)))
    spaced = draw(st.booleans())
    return document(text, *mentions), Options("token", room + 2, max_mention, candidates, space_before_all=spaced)


@settings(deadline=None, max_examples=200)
@given(documents_and_options())
def test_features_are_those_of_the_rules(case):
    text, options = case
    labels = ("NIL", "A", "B")  # C is a type that the model does not know
    other = document("ab", (0, 1, "A"))
    features = task_ner.make_features([other, text], LetterTokenizer(), None, labels, options)
    expected = by_the_book(text, LetterTokenizer(), labels, options)
    ours = [feature for feature in features if feature.document == 1]
    assert [tuple(array.tolist() for array in feature[1:]) for feature in ours] == expected
    found = sum(label > 0 for *_, label_ids in expected for label in label_ids)
    assert unreachable([text], ours) == len(text.spans) - found


def test_space_before_a_word():
    glued = ["'s", "'", "'tis", ".", ",", "(", "$", "<", "~", "-", "»", "…", "。", "—"]
    spaced = ["Oslo", "s", "I", "7", "...", "--", "n't", "€", "`a", "é", "日", "U.S."]
    assert [word for word in glued + spaced if not task_ner.takes_space(word)] == glued


def test_129_candidates_become_65_and_64():
    """44 words of two pieces (space and letter), at most three in a candidate: 42 * 3 + 2 + 1 = 129."""
    features = features_of(document("a " * 44), options=Options(max_mention=3 * 2))
    assert [len(feature.labels) for feature in features] == [65, 64]
    assert features[0].word_ids is features[1].word_ids  # one copy of the words


def test_each_distinct_word_is_tokenized_once():
    tokenizer = LetterTokenizer()
    task_ner.make_features([document("a b a " * 25 + "\n" + "a b a " * 25)] * 2, tokenizer, None, CONLL_LABELS)
    assert tokenizer.calls == 2


def test_a_new_head_depends_on_its_seed_only():
    first, again, other = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.classifier.weight.std().item() == pytest.approx(SMALL.initializer_range, rel=0.1)
    assert not first.classifier.bias.any()


@pytest.mark.parametrize("kinds, labels", [
    ("LOC PER MISC ORG PER", "NIL MISC PER ORG LOC"),
    ("river city river", "NIL city river"),
    ("PER LOC", "NIL LOC PER"),
])  # fmt: skip
def test_labels(kinds, labels):
    text = document(kinds, *((i, i + 1, kind) for i, kind in enumerate(kinds.split())))
    assert task_ner.label_list([text, document("")]) == tuple(labels.split())
    with pytest.raises(ValueError, match="no mention"):
        task_ner.label_list([document(kinds)])


@pytest.mark.parametrize("wrong", [{"max_mention": 511}, {"max_mention": 0}, {"max_candidates": 0}])
def test_impossible_options(wrong):
    with pytest.raises(ValueError, match="--max-mention"):
        Options(**wrong)


@pytest.mark.parametrize("settings, options", [
    ({"architectures": [task_ner.ARCHITECTURE[0]]}, {}),
    ({"architectures": [task_ner.ARCHITECTURE[1]]}, {"head": task_ner.TAGS}),
    ({"architectures": [task_ner.ARCHITECTURE[1]], "luke_mini": {}}, {}),
])  # fmt: skip
def test_options_of_released_folders(settings, options):
    """(mLUKE's tokenizers: test_recipes.py)"""
    assert task_ner.released_options(SimpleNamespace(settings=settings, tokenizer=WordTokenizer())) == options


# --- Batches and model ------------------------------------------------------------------------------------------------

TEXT = document("Ada of Oslo 's club .\nIt rained", (0, 1, "PER"), (2, 5, "ORG"))
OPTIONS = Options(max_seq_length=42, max_candidates=10)


def build(labels=CONLL_LABELS, head="token+entity", seed=0):
    model = task_ner.build_model(SMALL, SimpleNamespace(mask_id=MASK_ENTITY), labels, Options(head))
    initialize(model, SMALL, seed)
    return model


def features_of(*documents, options=OPTIONS, labels=CONLL_LABELS):
    return task_ner.make_features(documents, LetterTokenizer(), None, labels, options)


class Echo(torch.nn.Module):
    """A stand-in for the encoder whose hidden states say which row they are: [kind, sequence, id, first position]."""

    def forward(self, packed):
        def rows(kind, lengths, ids, positions):
            sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
            return torch.stack([torch.full_like(sequence, kind), sequence, ids, positions], dim=1).float()

        words = rows(0, packed.word_lengths, packed.word_ids, packed.word_positions)
        first = packed.mention_positions[packed.mention_offsets[:-1]]
        return torch.cat([words, rows(1, packed.entity_lengths, packed.entity_ids, first)])


@pytest.mark.parametrize("head", task_ner.HEAD_INPUTS)
def test_the_head_sees_start_end_and_entity_of_its_own_candidate(head):
    features, model, seen = features_of(TEXT, TEXT), build(head=head).eval(), []
    model.luke = Echo()
    model.classifier.forward = lambda *states: torch.cat(states, dim=1)
    out = model.logits(model.collate(features)).reshape(-1, task_ner.HEAD_INPUTS[head], 4).tolist()
    for sequence, feature in enumerate(features):
        for start, end in feature.token_spans.tolist():
            words = [[0, sequence, feature.word_ids[i], i + SMALL.pad_token_id + 1] for i in (start, end - 1)]
            entity = [1, sequence, MASK_ENTITY, start]
            seen.append({"token+entity": [*words, entity], "token": words, "entity": [entity]}[head])
    assert out == seen


def test_an_entity_covers_all_pieces_of_its_candidate():
    features = features_of(TEXT)
    packed = task_ner.collate(features, MASK_ENTITY, pad_word_id=1).packed
    spans = [span for feature in features for span in feature.token_spans.tolist()]
    offsets = packed.mention_offsets.tolist()
    mentions = [packed.mention_positions[begin:end].tolist() for begin, end in zip(offsets, offsets[1:])]
    assert mentions == [list(range(start, end)) for start, end in spans]
    assert packed.entity_lengths == tuple(len(feature.labels) for feature in features)
    assert packed.word_positions[: packed.word_lengths[0]].tolist() == list(range(2, 2 + packed.word_lengths[0]))


def test_words_only_has_no_entities():
    features = features_of(TEXT)
    batch = task_ner.collate(features, MASK_ENTITY, 1, head="token")
    assert batch.packed.n_entities == len(batch.packed.mention_positions) == 0 and len(batch.rows) == 2
    assert batch.packed.mention_offsets.tolist() == [0] and batch.packed.entity_lengths == (0,) * len(features)
    assert batch.counts == {"label": sum(len(feature.labels) for feature in features)}
    assert batch.n_tokens == sum(len(feature.word_ids) for feature in features)


@pytest.mark.parametrize("head", task_ner.HEAD_INPUTS)
def test_loss_is_the_cross_entropy_of_all_candidates(head):
    model = build(head=head, seed=seeded(3)).eval().double()
    batch = model.collate(features_of(TEXT))
    logits = model.logits(batch)
    loss, hits = model(batch)["label"]
    log_probability = torch.log(torch.softmax(logits, dim=1)).tolist()
    expected = -sum(log_probability[i][k] for i, k in enumerate(batch.labels.tolist()))
    assert_rounded(loss, expected)
    assert hits.item() == sum(int(row.argmax()) == k for row, k in zip(logits, batch.labels.tolist()))
    assert batch.labels.sum() > 0


def test_same_logits_as_transformers():
    """A random LukeForEntitySpanClassification, weights through the checkpoint's name table; each input alone."""
    transformers = pytest.importorskip("transformers")
    settings = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    torch.manual_seed(seeded())
    theirs = transformers.LukeForEntitySpanClassification(
        transformers.LukeConfig(**settings, num_labels=len(CONLL_LABELS), attn_implementation="eager")
    ).eval()
    with torch.no_grad():  # biases and norms away from 0 and 1, entity queries away from the word query
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    model = build().eval()
    weights = checkpoint.from_released(dict(theirs.state_dict()), SMALL)
    checkpoint.fill(model, weights)
    theirs, model = theirs.double(), model.double()

    features, expected = features_of(TEXT, document("Bo")), []
    for feature in features:
        ids = torch.from_numpy(feature.word_ids.astype(np.int64))[None]
        starts, ends = torch.from_numpy(feature.token_spans.astype(np.int64))[None].unbind(dim=2)
        positions = starts[:, :, None] + torch.arange(16)
        with torch.no_grad():
            expected.append(theirs(
                input_ids=ids, attention_mask=torch.ones_like(ids), entity_ids=torch.full_like(starts, MASK_ENTITY),
                entity_attention_mask=torch.ones_like(starts), entity_start_positions=starts,
                entity_end_positions=ends - 1, entity_position_ids=positions.where(positions < ends[:, :, None], -1),
            ).logits[0])  # fmt: skip
    with torch.no_grad():
        ours = model.logits(model.collate(features))
    expected = torch.cat(expected)
    assert len(features) == 4 and expected.std() > 0.1
    assert_same(ours, expected)


# --- Decoding -------------------------------------------------------------------------------------------------------


def decode(spans, logits, n_words=20):
    accepted = task_ner.greedy_decode(np.array(spans).reshape(-1, 2), np.array(logits, dtype=np.float32), n_words)
    return [tuple(spans[i]) for i in accepted]


@pytest.mark.parametrize("spans, logits, accepted", [
    ([(0, 2), (1, 3), (2, 4)], [[0, 3.0, 0], [0, 0, 2.9], [0, 2.5, 0]], [(0, 2), (2, 4)]),  # the second frees the third
    ([(0, 1), (0, 2), (1, 2), (1, 3)], [[0, 1]] * 4, [(0, 1), (1, 2)]),  # ties keep the order of the candidates
    ([(0, 1), (0, 2)], [[1, 1]] * 2, []),  # as good as NIL is NIL
    ([(0, 2), (1, 3)], [[2.9, 3.0], [-9.0, 2.0]], [(0, 2)]),  # the higher logit, not the higher probability
    ([], np.zeros((0, 3)), []),
])  # fmt: skip
def test_decode_by_hand(spans, logits, accepted):
    assert decode(spans, logits) == accepted


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.lists(st.integers(-2, 2), min_size=3, max_size=3))))
def test_decode_against_brute_force(candidates):
    spans = [(start, start + length) for start, length, _ in candidates]
    logits = [scores for _, _, scores in candidates]
    best = sorted(range(len(spans)), key=lambda i: (-max(logits[i]), i))
    expected = []
    for i in best:
        overlaps = any(spans[i][0] < end and start < spans[i][1] for start, end in expected)
        if max(logits[i]) > logits[i][0] and not overlaps:
            expected.append(spans[i])
    assert decode(spans, np.array(logits).reshape(-1, 3)) == expected


def test_decode_takes_linear_time():
    """Executed lines, not seconds: four times the candidates, at most 4.1 times the lines, of which few a candidate."""

    def lines(n):
        counted = []

        def trace(frame, event, _):
            counted.append(event == "line")
            return trace

        draws = np.random.default_rng(0)
        spans = draws.integers(0, n, (n, 1)) + np.array([[0, 3]])
        logits = draws.normal(size=(n, 5)).astype(np.float32)
        sys.settrace(trace)
        try:
            task_ner.greedy_decode(spans, logits, n + 3)
        finally:
            sys.settrace(None)
        return sum(counted)

    few, many = lines(2500), lines(10000)
    assert 1000 < few * 3.9 < many < few * 4.1 and many < 4 * 10000


# --- Prediction and scores --------------------------------------------------------------------------------------------


class Oracle(TaskModel):
    """Knows the gold labels; names the batches' sizes."""

    def __init__(self, sure: float = 4.0):
        luke = torch.nn.Identity()
        luke.config = SMALL
        collate = partial(task_ner.collate, mask_entity_id=MASK_ENTITY, pad_word_id=SMALL.pad_token_id)
        super().__init__(luke, CONLL_LABELS, "token+entity", 3, collate)
        self.sure, self.sizes = sure, []

    def logits(self, batch):
        assert not self.training and torch.is_inference_mode_enabled()
        self.sizes.append(batch.packed.word_lengths)
        return F.one_hot(batch.labels, len(CONLL_LABELS)).bfloat16() * self.sure


FAR = document(f"{'x' * 40}\nBo {'y' * 15} Oslo", (0, 1, "MISC"), (1, 2, "PER"), (2, 3, "LOC"), (3, 4, "XYZ"))
DOCUMENTS = [TEXT, document(""), FAR]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_predictions_come_back_in_order(batch_size):
    features = features_of(*DOCUMENTS)
    model = Oracle().train()
    predictions = task_ner.predict(model, features, DOCUMENTS, batch_size)
    probability = pytest.approx(np.exp(4) / (np.exp(4) + 4))
    assert predictions == [
        [(0, 1, "PER", probability), (2, 5, "ORG", probability)],
        [],
        [(1, 2, "PER", probability), (2, 3, "LOC", probability)],
    ]
    assert model.training
    lengths = [length for batch in model.sizes for length in batch]
    assert lengths == sorted(lengths, reverse=True) or batch_size > 1
    assert max(map(len, model.sizes)) <= batch_size


def test_gold_out_of_reach_counts_against_recall():
    """Of six gold mentions one is longer than 16 pieces and one of a type that the model does not know."""
    features = features_of(*DOCUMENTS)
    scores = task_ner.evaluate(DOCUMENTS, task_ner.predict(Oracle(), features, DOCUMENTS), features)
    assert (scores["gold"], scores["predicted"], scores["correct"], scores["unreachable"]) == (6, 4, 4, 2)
    assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((1, 4 / 6, 8 / 10))
    assert (scores["MISC_recall"], scores["XYZ_gold"], scores["ORG_f1"]) == (0, 1, 1)


def test_nothing_predicted():
    features = features_of(TEXT)
    predictions = task_ner.predict(Oracle(sure=0.0), features, [TEXT])
    assert predictions == [[]]
    assert task_ner.evaluate([TEXT], predictions, features)["f1"] == 0


def test_a_real_model_predicts_the_same_in_any_batch():
    documents = [TEXT, document("Bo saw\nAda in Rome")]
    features = features_of(*documents)
    model = build(seed=seeded(1))
    torch.nn.init.normal_(model.classifier.weight, std=3.0, generator=generator(2))
    model = model.double()
    one, all_at_once = (task_ner.predict(model, features, documents, size) for size in (1, 99))
    assert [[m[:3] for m in mentions] for mentions in one] == [[m[:3] for m in mentions] for mentions in all_at_once]
    assert sum(map(len, one)) > 2
    for text, mentions in zip(documents, one):
        words = [word for start, end, *_ in mentions for word in range(start, end)]
        assert len(words) == len(set(words)) and max(words) < len(text.words)


# --- From a file to mentions in raw text ------------------------------------------------------------------------------

PEOPLE, CITIES, CLUBS = ["Ada", "Bo", "Eve", "Max Lund"], ["Oslo", "Rome", "New Elm"], ["Elm United", "FC Oslo"]
PATTERNS = ["{P} went to {C} .", "{P} plays for {O} .", "In {C} it rained on {P} .", "{O} of {C} met {P} ."]


def training_sentences(n: int) -> str:
    """A CoNLL file of n made-up sentences, five to a document."""
    generator = random.Random(1)
    blocks = []
    for i in range(n):
        lines = ["-DOCSTART- O\n"] if i % 5 == 0 else []
        for word in PATTERNS[i % len(PATTERNS)].split():
            kind = {"{P}": "PER", "{C}": "LOC", "{O}": "ORG"}.get(word)
            names = {"PER": PEOPLE, "LOC": CITIES, "ORG": CLUBS}.get(kind, [word])
            for position, part in enumerate(generator.choice(names).split()):
                lines.append(f"{part} {'O' if kind is None else 'BI'[position > 0] + '-' + kind}\n")
        blocks.append("".join(lines))
    return "\n".join(blocks)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("ner") / "train.conll"
    path.write_text(training_sentences(20))
    documents = read(path)
    labels = task_ner.label_list(documents)
    tokenizer = WordTokenizer()
    features = task_ner.make_features(documents, tokenizer, None, labels, Options(max_seq_length=66, max_mention=4))
    model = build(labels)
    optimizer = optim.AdamW(model, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.01)
    torch.manual_seed(0)
    for _ in range(25):
        for begin in range(0, len(features), 5):
            batch = model.collate(features[begin : begin + 5])
            loss, _ = model(batch)["label"]
            (loss / batch.counts["label"]).backward()
            optimizer.set_learning_rate(5e-3)
            optimizer.step()
            optimizer.zero_grad()
    return documents, features, model, tokenizer


def test_a_tiny_model_learns_twenty_sentences(trained):
    documents, features, model, _ = trained
    scores = task_ner.evaluate(documents, task_ner.predict(model, features, documents), features)
    assert scores["gold"] >= 40 and scores["unreachable"] == 0
    assert scores["f1"] > 0.9


def test_raw_text_to_characters(trained):
    """Plain lines, and the same with given words; the gold mentions of a line count for nothing."""
    _, _, model, tokenizer = trained
    opened = inference.Predictor(task_ner, model, tokenizer, None, Options(max_seq_length=66, max_mention=4))
    texts = ["  Ada went to Oslo. Eve plays for FC Oslo.\n", "", "It rained.",
             "Ada went to Oslo .\nEve plays for FC Oslo ."]  # fmt: skip
    given = {"text": texts[3], "is_split": True, "spans": [{"start": 0, "end": 8, "label": "LOC"}]}
    answers = list(inference.answer(opened, [*texts[:3], json.dumps(given)]))
    assert [answer["text"] for answer in answers] == texts
    found = [[(m["text"], m["type"]) for m in answer["mentions"]] for answer in answers]
    assert found[0] == found[3] == [("Ada", "PER"), ("Oslo", "LOC"), ("Eve", "PER"), ("FC Oslo", "ORG")]
    assert found[1] == []
    for text, answer in zip(texts, answers):
        for mention in answer["mentions"]:
            assert text[mention["start"] : mention["end"]] == mention["text"]
            assert 0.2 < mention["probability"] == round(mention["probability"], 4) <= 1
    assert list(inference.answer(opened, [])) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_tags_words(seed):
    """LukeForTokenClassification: the tag of a word is that of its first piece; mentions as seqeval reads the tags."""
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="the oracle `seqeval` is not installed")
    labels, options = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG"), Options(head=task_ner.TAGS, max_seq_length=18)
    documents = [TEXT, document("Bo ran\nto Acme")]
    features = task_ner.make_features(documents, LetterTokenizer(), None, labels, options)
    model = build(labels, task_ner.TAGS, seed).eval()
    predicted = task_ner.predict(model, features, documents)
    tags = [[""] * len(text.words) for text in documents]
    with torch.no_grad():
        for feature in features:  # each alone
            hidden = model.luke(model.collate([feature]).packed)
            for (word, _), (piece, _) in zip(feature.word_spans.tolist(), feature.token_spans.tolist()):
                tags[feature.document][word] = labels[int(model.classifier(hidden[piece : piece + 1]).argmax())]
    assert all(tag for row in tags for tag in row)
    for text, row, mentions in zip(documents, tags, predicted):
        wanted = []
        for begin, end in zip(text.sentences, text.sentences[1:]):
            found = seqeval.get_entities(row[begin:end])
            wanted += [(begin + start, begin + stop + 1, kind) for kind, start, stop in found]
        assert [mention[:3] for mention in mentions] == wanted
        assert all(0 < probability <= 1 for *_, probability in mentions)
    assert any(predicted)

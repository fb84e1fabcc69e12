"""The builder of pretraining examples: by hand, and against a slow transcription of the rules. Shards: round trips,
gather against a loop over examples, damaged files, full disks.

    pytest tests/test_examples.py

A toy tokenizer whose tokens can be read (words, and single characters of words it does not know) makes expectations
writable; the transcription works one sentence and one segment at a time, without the builder's batching.
"""

import json
import re
import resource
import signal
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import PEAK, Example, flatten, listed, needs_proc, read_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini import examples, files, tokenizer_sentencepiece
from luke_mini.examples import Shards, ShardWriter, build_examples, open_shard, write_shard
from luke_mini.spans import split_sentences
from luke_mini.tokenizer import in_a_row
from luke_mini.wikitext import Link, Paragraph

ROOT = Path(__file__).parent.parent

# --- Building ---------------------------------------------------------------------------------------------------------

ENTITIES = {"Oslo": 3, "Norway": 4, "Kristiania": 3, "Ada": 5}
UNK = 1


class ToyTokenizer:
    """One token per word or sign; ids count up as tokens are met. A leading space is written as ▁."""

    def __init__(self):
        self.vocab: list[str] = []

    def encode_parts(self, texts):
        result = []
        for text in texts:
            assert text == re.sub(r"\s+", " ", text).rstrip(" ")  # collapsed before the tokenizer sees it
            marked = "▁" * text.startswith(" ") + text.strip().replace(" ", "▁")
            tokens = re.findall(r"▁?\w+|▁?[^\w▁]", marked)
            self.vocab += [token for token in dict.fromkeys(tokens) if token not in self.vocab]
            result.append([self.vocab.index(token) for token in tokens])
        return in_a_row(result)


def paragraph(marked: str, is_abstract: bool = False) -> Paragraph:
    """ "In [[Oslo]] and [[Norway|it]]" -> a paragraph with two links."""
    text, links = "", []
    for plain, title, surface in re.findall(r"(.*?)(?:\[\[([^]|]*)(?:\|([^]]*))?\]\]|$)", marked, re.DOTALL):
        text += plain
        if title:
            surface = surface or title
            links.append(Link(title, len(text), len(text) + len(surface)))
            text += surface
    return Paragraph(text, links, is_abstract)


def build(*page, title="Ada", limits={}, **options) -> list[tuple]:
    """Examples in readable form: (page id, text of the tokens, (entity id, tokens of the mention), ...)."""
    tokenizer, readable = ToyTokenizer(), []
    page = [paragraph(marked) if isinstance(marked, str) else marked for marked in page]
    with mock.patch.multiple(examples, **{"MIN_SENTENCE_LENGTH": 1, **limits}):
        made, (count,) = build_examples([(title, page)], tokenizer, ENTITIES, **{"unk_entity_id": UNK, **options})
    assert count == len(made.page_ids)
    for example in listed(made):
        words = [tokenizer.vocab[k] for k in example.word_ids]
        mentions = zip(example.entity_ids, example.mention_spans, strict=True)
        readable.append((example.page_id, " ".join(words), *((e, " ".join(words[a:b])) for e, (a, b) in mentions)))
    return readable


KNOWN_OR_NOT = "[[Kristiania]] and [[Atlantis]]."
LONG_MENTION = "[[Oslo|a b c d e]] [[Ada]] [[Norway]]."


@pytest.mark.parametrize(
    ("marked", "options", "expected"),
    [(marked, options, list(expected)) for marked, options, *expected in [
        ("Oslo is in [[Norway]]. [[Ada]] moved there.", {},
         (5, "▁Oslo ▁is ▁in ▁Norway . ▁Ada ▁moved ▁there .", (4, "▁Norway"), (5, "▁Ada"))),
        ("a pre-[[Norway]]'s ([[Oslo]]) [[Ada|Ada's]]b", {},  # ▁ only after a space, in a mention and behind it
         (5, "▁a ▁pre - Norway ' s ▁( Oslo ) ▁Ada ' s b", (4, "Norway"), (3, "Oslo"), (5, "▁Ada ' s"))),
        (KNOWN_OR_NOT, {}, (5, "▁Kristiania ▁and ▁Atlantis .", (3, "▁Kristiania"), (UNK, "▁Atlantis"))),
        (KNOWN_OR_NOT, {"unk_entity_id": None}, (5, "▁Kristiania ▁and ▁Atlantis .", (3, "▁Kristiania"))),
        ("[[Ada]].", {"title": "Nobody"}, (-1, "▁Ada .", (5, "▁Ada"))),
        # A sentence end inside a mention does not cut it: one sentence of 7 tokens, the next of 6.
        ("To [[Oslo|A. The B]] he ran. I saw [[Ada]] in it.", {"max_seq_length": 12},
         (5, "▁To ▁A . ▁The ▁B ▁he ▁ran .", (3, "▁A . ▁The ▁B")), (5, "▁I ▁saw ▁Ada ▁in ▁it .", (5, "▁Ada"))),
        ("See [[Oslo|Aa. The Bb. The Cc]]. [[Ada]] ran.", {"max_seq_length": 12},
         (5, "▁See ▁Aa . ▁The ▁Bb . ▁The ▁Cc .", (3, "▁Aa . ▁The ▁Bb . ▁The ▁Cc")), (5, "▁Ada ▁ran .", (5, "▁Ada"))),
        ("See [[Atlantis|Aa. The Bb]] here. I saw [[Ada]].",  # but one that is no entity does not join sentences
         {"unk_entity_id": None, "max_seq_length": 8, "sentences_without_entities": True},
         (5, "▁See ▁Aa ."), (5, "▁The ▁Bb ▁here ."), (5, "▁I ▁saw ▁Ada .", (5, "▁Ada"))),
        (LONG_MENTION, {"limits": {"MAX_MENTION_LENGTH": 3, "MAX_ENTITIES": 2}},
         (5, "▁a ▁b ▁c ▁d ▁e ▁Ada ▁Norway .", (3, "▁a ▁b ▁c"), (5, "▁Ada"))),
        ("A\u00a0 b  [[Oslo| \t ]] [[Ada| Ada\u3000]]c.  ", {}, (5, "▁A ▁b ▁Ada ▁c .", (5, "▁Ada"))),
    ]],
)  # fmt: skip
def test_worked_examples(marked, options, expected):
    assert build(marked, **options) == expected


def test_links_that_are_lost_are_counted():
    """Sentences of 2, 6, 14, 2 tokens and so on; every link is an entity, or counted with its reason."""
    page = ["[[Oslo]]. In [[Ada]] and [[Atlantis]] it is. [[Oslo]] and [[Ada]] " + "is a b " * 5 + "."]
    last = "[[Oslo]] is a big city [[Ada| \t ]] here. [[Ada]] [[Oslo]] [[Oslo]] [[Ada]] [[Oslo]] ran."
    page += [paragraph(last, is_abstract=True)]

    def count(**options) -> tuple[dict, int]:
        lost = Counter()
        limits = {"MIN_SENTENCE_LENGTH": 4, "MAX_ENTITIES": 4}
        made = build(*page, limits=limits, lost=lost, max_seq_length=16, **options)
        return {reason: n for reason, n in lost.items() if n}, sum(len(mentions) for _, _, *mentions in made)

    lost = {"sentence_too_short": 1, "sentence_too_long": 2, "no_token": 1, "beyond_the_first_128": 1}
    assert count() == (lost | {"unk": 1}, 7)
    assert count(unk_entity_id=None) == (lost | {"unknown_title": 1}, 6)
    assert count(abstract_only=True) == ({"outside_abstract": 5, "no_token": 1, "beyond_the_first_128": 2}, 4)


def test_packing():
    """Sentences of 4 tokens; 10 fit, so two a time; the third example holds no entity and is left out."""
    page = "Aa bb [[Oslo]]. Cc dd ee. Ff gg [[Ada]].", "Hh ii jj. Kk ll mm. Nn oo ww. Qq rr [[Norway]]."
    all_of_them = [
        (5, "▁Aa ▁bb ▁Oslo . ▁Cc ▁dd ▁ee .", (3, "▁Oslo")),
        (5, "▁Ff ▁gg ▁Ada . ▁Hh ▁ii ▁jj .", (5, "▁Ada")),
        (5, "▁Kk ▁ll ▁mm . ▁Nn ▁oo ▁ww ."),
        (5, "▁Qq ▁rr ▁Norway .", (4, "▁Norway")),
    ]
    assert build(*page, max_seq_length=12, sentences_without_entities=True) == all_of_them
    assert build(*page, max_seq_length=12) == [*all_of_them[:2], all_of_them[3]]


def test_sentence_lengths():
    """Sentences of 3, 5 and 11 tokens."""
    page = "[[Oslo]] aa. [[Oslo]] aa bb cc. [[Oslo]] aa b c d e f g h ii."
    assert [words.count("▁Oslo") for _, words, *_ in build(page, max_seq_length=13)] == [2, 1]
    kept = build(page, max_seq_length=12, limits={"MIN_SENTENCE_LENGTH": 4})
    assert [words for _, words, *_ in kept] == ["▁Oslo ▁aa ▁bb ▁cc ."]


def test_which_paragraphs():
    page = [paragraph("In [[Oslo]].", is_abstract=True), paragraph("In [[Norway]].")]
    assert [words for _, words, _ in build(*page, abstract_only=True)] == ["▁In ▁Oslo ."]
    assert build() == build("") == build(" \n") == []
    page = [f"Word{k} [[Oslo]] x. [[Ada|y{k}]] z." for k in range(50)]
    words = " ".join(words for _, words, *_ in build(*page, max_seq_length=30)).split()
    assert words == " ".join(f"▁Word{k} ▁Oslo ▁x . ▁y{k} ▁z ." for k in range(50)).split()


# --------------------------------------------------------------------------------------------------------------------
# The rules again, slowly: one encode call per segment, positions counted token by token.


def slow(paragraphs, title, tokenizer, unk, max_words, min_sentence, max_entities, max_mention, keep_empty):
    def tokenize(text: str, start: int, end: int) -> list[int]:
        piece = re.sub(r"\s+", " ", text[start:end]).rstrip(" ")
        marked = start == 0 or text[start - 1].isspace()
        return tokenizer.encode(piece, prefix_space=marked).ids if piece else []

    sentences = []
    for item in paragraphs:
        borders = [end for _, end in split_sentences(item.text)]
        known = [link for link in item.links if ENTITIES.get(link.title, unk) is not None]
        kept = [end for end in borders if not any(link.start < end < link.end for link in known)]
        kept += borders[-1:] if borders[-1:] != kept[-1:] else []
        starts = [len(item.text[:end]) + len(item.text[end:]) - len(item.text[end:].lstrip()) for end in [0, *kept]]
        for sentence_start, sentence_end in zip(starts, kept):
            tokens, mentions, position = [], [], sentence_start
            for link in item.links:
                inside = sentence_start <= link.start and link.end <= sentence_end
                entity = ENTITIES.get(link.title, unk)
                if inside and entity is not None:
                    tokens = tokens + tokenize(item.text, position, link.start)
                    mention = tokenize(item.text, link.start, link.end)
                    if mention:
                        mentions.append((entity, len(tokens), len(tokens) + len(mention)))
                    tokens = tokens + mention
                    position = link.end
            tokens = tokens + tokenize(item.text, position, sentence_end)
            if min_sentence <= len(tokens) <= max_words:
                sentences.append((tokens, mentions))
    groups = []
    for tokens, mentions in sentences:
        if not groups or sum(len(t) for t, _ in groups[-1]) + len(tokens) > max_words:
            groups.append([])
        groups[-1].append((tokens, mentions))
    found = []
    for group in groups:
        words, entities, spans = [], [], []
        for tokens, mentions in group:
            for entity, start, end in mentions:
                entities.append(entity)
                spans.append((len(words) + start, len(words) + min(end, start + max_mention)))
            words = words + tokens
        if entities or keep_empty:
            found.append(Example(ENTITIES.get(title, -1), words, entities[:max_entities], spans[:max_entities]))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    corpus = ["Ada lives in Oslo, Norway. She (Ada) is from Bergen's coast. Why? Nobody knows."] * 20
    return tokenizer_sentencepiece.train(corpus, 80, tmp_path_factory.mktemp("tokenizer"))


WORDS = st.sampled_from(
    ["Ada", "is", "in", "Oslo", ".", ". ", "? ", "! ", " ", " ", "  ", "\u00a0", "(", "'s", "☃", "½", "\t"]
)
PLAIN = st.lists(WORDS, max_size=8).map("".join)
LINKS = st.tuples(PLAIN, st.sampled_from([*ENTITIES, "Atlantis"]))


@st.composite
def paragraphs_strategy(draw):
    result = []
    for _ in range(draw(st.integers(0, 4))):
        text, links = draw(PLAIN), []
        for surface, title in draw(st.lists(LINKS, max_size=5)):
            links.append(Link(title, len(text), len(text) + len(surface)))
            text += surface + draw(PLAIN)
        result.append(Paragraph(text, links, False))
    return result


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["Ada", "Nobody"]), paragraphs_strategy()), max_size=3),
    st.sampled_from([UNK, None]), st.integers(5, 40), st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.booleans(),
)  # fmt: skip
def test_equals_the_slow_transcription(trained, pages, unk, max_words, least, entities, mention, keep):
    limits = {"MIN_SENTENCE_LENGTH": least, "MAX_ENTITIES": entities, "MAX_MENTION_LENGTH": mention}
    rules = {"unk_entity_id": unk, "max_seq_length": max_words + 2, "sentences_without_entities": keep}
    with mock.patch.multiple(examples, **limits):
        built, counts = build_examples(pages, trained, ENTITIES, **rules)
    expected = [slow(paragraphs, title, trained, unk, max_words, *limits.values(), keep) for title, paragraphs in pages]
    assert listed(built) == [*chain(*expected)] and counts.tolist() == [*map(len, expected)]


@settings(max_examples=100, deadline=None)
@given(paragraphs_strategy())
def test_mentions_spell_their_surfaces(trained, paragraphs):
    """What the words of a span decode to is the surface of a link, as far as the tokenizer keeps it."""

    def spelling(text: str) -> str:
        return trained.decode(trained.encode(text).ids).replace(" ", "")

    surfaces = {(ENTITIES.get(l.title, UNK), spelling(p.text[l.start : l.end])) for p in paragraphs for l in p.links}
    with mock.patch.object(examples, "MIN_SENTENCE_LENGTH", 1):
        made, _ = build_examples([("Ada", paragraphs)], trained, ENTITIES, unk_entity_id=UNK)
    for example in listed(made):
        for entity, (start, end) in zip(example.entity_ids, example.mention_spans, strict=True):
            found = trained.decode(example.word_ids[start:end]).replace(" ", "")
            assert end > start and (entity, found) in surfaces


# --- Shards -----------------------------------------------------------------------------------------------------------


def random_examples(count: int, vocab: int, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        words, entities = int(rng.integers(1, 40)), int(rng.integers(0, 6))
        spans = [(int(start), int(rng.integers(start, words)) + 1) for start in rng.integers(0, words, entities)]
        word_ids, entity_ids = rng.integers(0, vocab, words), rng.integers(0, 2**31 - 1, entities)
        made.append(Example(int(rng.integers(-1, 2**31 - 1)), word_ids.tolist(), entity_ids.tolist(), spans))
    return made


def write_all(folder: Path, written: list[Example], vocab: int, words_per_shard: int, block: int = 3) -> ShardWriter:
    writer = ShardWriter(folder, vocab, words_per_shard)
    for k in range(0, len(written), block):
        writer.write(flatten(written[k : k + block]))
    writer.close()
    return writer


def test_hand_worked_file(tmp_path):
    """One example, every byte of the file: header, two starts each, page, entity, three words, one span."""
    path = tmp_path / "shard-00000.bin"
    write_shard(path, [flatten([Example(7, [5, 6, 300], [9], [(1, 3)])])], word_vocab_size=1000)
    assert path.read_bytes() == (
        b"LUKESHRD" + bytes([1, 0, 0, 0, 2, 0, 0, 0]) + b"".join(n.to_bytes(8, "little") for n in (1, 3, 1))
        + b"".join(n.to_bytes(8, "little") for n in (0, 3, 0, 1))
        + bytes([7, 0, 0, 0, 9, 0, 0, 0])
        + bytes([5, 0, 6, 0, 44, 1])
        + bytes([1, 0, 3, 0])
    )  # fmt: skip


@pytest.mark.parametrize("vocab", [1000, 1 << 16, (1 << 16) + 1, 250004])
@pytest.mark.parametrize("words_per_shard", [1, 100, 10**9])
def test_round_trip(tmp_path, vocab, words_per_shard):
    written = random_examples(50, vocab)
    writer = write_all(tmp_path, written, vocab, words_per_shard)
    opened = Shards.open(tmp_path)
    assert read_examples(tmp_path) == written
    assert opened.lengths.tolist() == [len(example.word_ids) for example in written]
    shards = len(list(tmp_path.glob("shard-*.bin")))
    entities = sum(len(example.entity_ids) for example in written)
    assert writer.counts == {
        "shards": shards, "examples": len(written), "words": opened.lengths.sum(), "entities": entities}  # fmt: skip
    assert words_per_shard == 100 or shards == {1: 17, 10**9: 1}[words_per_shard]
    width = open_shard(tmp_path / "shard-00000.bin")["word_ids"].dtype.itemsize
    assert width == (2 if vocab <= 1 << 16 else 4)


def test_gather_equals_a_loop(tmp_path):
    """Any order, with repeats, over many shards: what a loop over examples puts together."""
    written = random_examples(60, 5000, seed=1)
    write_all(tmp_path, written, 5000, words_per_shard=150)
    opened = Shards.open(tmp_path)
    rng = np.random.default_rng(2)
    for size in (1, 2, 17, 100):
        indices = rng.integers(0, len(written), size)
        found, expected = opened.gather(indices), flatten([written[k] for k in indices])
        for name, ours, loop in zip(found._fields[:-1], found, expected):
            assert ours.dtype == np.int64 and np.array_equal(ours, loop), name


def test_gather_nothing_and_too_far(tmp_path):
    write_all(tmp_path, random_examples(5, 100), 100, 10**9)
    opened = Shards.open(tmp_path)
    empty = opened.gather(np.array([], dtype=np.int64))
    assert [array.shape for array in empty[:-1]] == [(0,), (0,), (0,), (0,), (0, 2)]
    for wrong in ([5], [-1], [0, 9]):
        with pytest.raises(IndexError, match="there are 5"):
            opened.gather(np.array(wrong))


@needs_proc
def test_opening_reads_almost_nothing(tmp_path):
    """The address space grows by the file, the memory in use does not: measured in a fresh process."""
    write_shard(tmp_path / "shard-00000.bin", [flatten(random_examples(2000, 60000))] * 400, 60000)
    code = PEAK + (
        "import sys; from luke_mini.examples import Shards\n"
        "before = peak()\n"
        "opened = Shards.open(sys.argv[1]); opened.gather([777777])\n"
        "print(peak() - before)"
    )
    size = (tmp_path / "shard-00000.bin").stat().st_size
    grown = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT)
    assert size > 50e6 and int(grown.stdout) < size / 8


def flipped(position: int, bits: int):
    return lambda data: data[:position] + bytes([data[position] ^ bits]) + data[position + 1 :]


LAST_WORD_START = examples.HEADER.size + 20 * 8


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        *((lambda data, keep=keep: data[:keep], "not a shard") for keep in (0, 20, 39)),
        *((lambda data, keep=keep: data[:keep], "truncated") for keep in (40, 200, -1)),
        (flipped(0, 5), "not a shard"), (flipped(8, 5), "version"), (flipped(12, 5), "version"),
        (flipped(16, 5), "bytes"), (flipped(24, 5), "bytes"), (flipped(LAST_WORD_START, 1), "do not end where"),
    ],
)  # fmt: skip
def test_damaged_shards_are_refused(tmp_path, damage, what):
    write_all(tmp_path, random_examples(20, 100), 100, 10**9)
    path = tmp_path / "shard-00000.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"shard-00000.bin.*{what}") as error:
        Shards.open(tmp_path)
    assert "\n" not in str(error.value)


def test_missing_shards_are_named(tmp_path):
    with pytest.raises(ValueError, match="no shard-"):
        Shards.open(tmp_path)
    write_all(tmp_path, random_examples(20, 100), 100, 60)
    (tmp_path / "shard-00001.bin").unlink()
    with pytest.raises(ValueError, match="shard-00001.bin is missing"):
        Shards.open(tmp_path)


@pytest.mark.parametrize(("words", "what"), [([1, 100], "word id 100"), ([1] * 65536, "65536 words")])
def test_ids_outside_of_the_vocabulary_are_refused(tmp_path, words, what):
    with pytest.raises(ValueError, match=what):
        write_shard(tmp_path / "shard-00000.bin", [flatten([Example(-1, words, [], [])])], 100)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_file(tmp_path):
    """A limit on the size of files stands in for the full disk: the same OSError path."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError):
            write_all(tmp_path, random_examples(2000, 100), 100, 10**9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "made, message",
    [
        (None, "second: no manifest.json, so prepare_wiki.py has not finished; run it with --out .*second"),
        ({"max_seq_length": 65, "examples": 20}, "second: sequences of up to 65 tokens, the model takes 64"),
        ({"max_seq_length": 64, "examples": 21}, "second: 20 examples, but its manifest.json promises 21"),
        ({"max_seq_length": 64}, "second/manifest.json: field 'examples' is missing, expected an integer"),
        ({"max_seq_length": 64, "examples": 20}, ""),
    ],
)
def test_data_folders_must_be_finished_and_fit_the_model(tmp_path, made, message):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, manifest in zip(folders, ({"max_seq_length": 64, "examples": 20}, made)):
        (folder / "tokenizer").mkdir(parents=True)
        (folder / "entity_vocab.jsonl").touch()
        write_all(folder, random_examples(20, 100), 100, 60)
        if manifest:
            (folder / "manifest.json").write_text(json.dumps(manifest))
    if not message:
        assert examples.open_folders(folders, 64).sizes == [20, 20]
        (folders[1] / "entity_vocab.jsonl").write_text("other")
        message = "second/entity_vocab.jsonl differs from .*first/entity_vocab.jsonl: make this folder with"
    with pytest.raises(ValueError, match=message):
        examples.open_folders(folders, 64)


def test_the_folder_above_several_languages_names_them(tmp_path):
    for language in ("de", "fr"):
        (tmp_path / language).mkdir()
        (tmp_path / language / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=f"a folder for each language, expected {tmp_path}/de {tmp_path}/fr$"):
        examples.open_folders([tmp_path], 64)


@pytest.fixture
def whole(tmp_path) -> Path:
    """A data folder with a manifest."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/vocab.txt").write_text("a")
    (tmp_path / "entity_vocab.jsonl").write_text("b")
    write_all(tmp_path, random_examples(20, 50), 50, 60)
    made = {"max_seq_length": 64, "examples": 20, "word_vocab_size": 50, "entity_vocab_size": 1 << 31}
    (tmp_path / "manifest.json").write_text(json.dumps(made | {"files": examples.describe_parts(tmp_path)}))
    return tmp_path


PARTS = ["shard-00000.bin", "entity_vocab.jsonl", "tokenizer/vocab.txt"]


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("name", PARTS)
def test_parts_are_those_that_were_written(whole, name, checked):
    """One bit, in a file that was checked before or not; then one byte more, and a file from elsewhere."""
    if checked:
        examples.open_folders([whole], 64)
    data = bytearray((whole / name).read_bytes())
    data[-1] ^= 1
    (whole / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{whole / name}: not what manifest.json has the hash of"):
        examples.open_folders([whole], 64)
    data[-1] ^= 1
    (whole / name).write_bytes(data)
    examples.open_folders([whole], 64)
    (whole / "tokenizer/added.json").write_text("{}")
    with pytest.raises(ValueError, match="added.json: 2 there, nothing expected .bytes.: damaged"):
        examples.open_folders([whole], 64)
    (whole / "tokenizer/added.json").unlink()
    (whole / PARTS[1]).unlink()
    with pytest.raises(ValueError, match="entity_vocab.jsonl: nothing there, 1 expected"):
        examples.open_folders([whole], 64)


def test_hashes_are_computed_once(whole, monkeypatch):
    hashed = []
    monkeypatch.setattr(files, "sha256", lambda path, sha256=files.sha256: hashed.append(path) or sha256(path))
    for expected in (len(json.loads((whole / "manifest.json").read_text())["files"]), 0):
        hashed.clear()
        examples.open_folders([whole], 64)
        assert len(hashed) == expected


@pytest.mark.parametrize("kind", ["word", "entity"])
def test_ids_outside_of_the_vocabularies(whole, kind):
    """Also in a folder of an older version, without hashes."""
    made = json.loads((whole / "manifest.json").read_text())
    ids = getattr(Shards.open(whole).gather(np.arange(20)), f"{kind}_ids")
    made = {name: value for name, value in made.items() if name != "files"}
    for size, fits in ((ids.max() + 1, True), (ids.max(), False)):
        (whole / ".checked").unlink(missing_ok=True)
        (whole / "manifest.json").write_text(json.dumps(made | {f"{kind}_vocab_size": int(size)}))
        if fits:
            assert examples.open_folders([whole], 64).sizes == [20]
            continue
        with pytest.raises(ValueError, match=rf"shard-0000\d.bin: {kind} ids from \d+ to {ids.max()}, expected 0 to"):
            examples.open_folders([whole], 64)

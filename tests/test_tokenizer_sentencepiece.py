"""SentencePiece: XLM-R's ids, offsets, pieces in mid-word, training; Unigram from a tokenizer.json.

    pytest tests/test_tokenizer_sentencepiece.py
    pytest tests/test_tokenizer_sentencepiece.py --lines 20000 --strings 5000     the same on all of the real text

The library's vocabulary is trained here on a few hundred made-up sentences; transformers' XLM-R tokenizer (another
implementation, in Rust) is the oracle, and with ../shared/data there are XLM-R's own pieces. Unigram: all segmentations
of short words; Python's own normalization; the Rust library. Small recorded and live tokenizers of transformers are in
test_saved_by_transformers.py.
"""

import base64
import io
import itertools
import json
import math
import random
import re
import struct
import unicodedata

import pytest
import sentencepiece
from fixtures import make_tokenizer_fixtures as recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from test_saved_by_transformers import assert_reads
from tokenizer_texts import all_pieces, assert_contract, assert_cuts_as, assert_in_order, encode_cut

from luke_mini import tokenizer
from luke_mini.spans import is_punctuation
from luke_mini.tokenizer_sentencepiece import Charsmap, SentencePieceTokenizer, UnigramTokenizer, offsets, rules, train

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
ADDED = ["<mask>", "<ent>", "<ent2>"]
NAMES = "Ada Bo Cleo Dan Eva Finn Gro Hal Ida Jon".split()
CITIES = "Oslo Bergen Narvik Hamar Larvik Molde Bodø Ålesund 東京 Владивосток".split()
TEXTS = [
    f"{name} was born in {city} in {1900 + 7 * a + b}, not far from {CITIES[(a + b) % 10]}; she (or he?) wrote "
    f"{a + 2} books about {city}'s cafés and «naïve» painters. <mask> 50% of x_{b} @ {name}#{b} - 東京は首都。"
    for a, name in enumerate(NAMES)
    for b, city in enumerate(CITIES)
]
PLAIN = TEXTS + ["Ada saw 東京.", "x", "", "no known: ☃☃ snow ☃man", "Oslo, Bergen (and Bodø).", "a  b"]
HARD = ["ﬁne  ㌔½ cafe\u0301", " \t lead", "trail \u3000 ", "Ａ　Ｂ", "½", "a\u200bb", "☃☃ ☃", "\u0301x", "▁a ▁"]
HARD += ["ªº\u00adz", "ﷺ!"]

# --- The library's segmentation ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> SentencePieceTokenizer:
    return train(TEXTS, 120, tmp_path_factory.mktemp("tokenizer"))


def test_id_layout(words):
    """The table of the module's docstring, from the library's own ids."""
    model = words.processor
    size = model.get_piece_size()
    assert all_pieces(words) == [*SPECIAL, *map(model.id_to_piece, range(3, size)), *ADDED] and len(words) == 120
    assert (words.bos_id, words.pad_id, words.eos_id, words.unk_id) == (0, 1, 2, 3)
    assert (words.mask_id, words.ent_id, words.ent2_id) == (size + 1, size + 2, size + 3)


def scored_pieces(words) -> list[tuple[str, float]]:
    """The pieces with their scores as XLM-R's tokenizer takes them, special ones included."""
    model = words.processor
    scored = [(model.id_to_piece(k), model.get_score(k)) for k in range(3, model.get_piece_size())]
    return [*((name, 0.0) for name in SPECIAL), *scored, ("<mask>", 0.0)]


def assert_reads_as(words, oracle, text: str, ties: bool = False) -> None:
    """Ids and offsets of a tokenizer of transformers. ties: where two segmentations have the same score, NN N and N NN,
    the two libraries may choose differently."""
    ours, theirs = words.encode(text), oracle(text, add_special_tokens=False, return_offsets_mapping=True)
    if ties and ours.ids != theirs["input_ids"]:
        assert sorted(ours.ids) == sorted(theirs["input_ids"]), text
        return
    assert ours.ids == theirs["input_ids"], text
    for piece, mine, other in zip(words.pieces(ours.ids), ours.offsets, theirs["offset_mapping"], strict=True):
        assert mine == (other if piece != "▁" else (other[0], other[0])), (text, piece)


def test_ids_and_offsets_equal_transformers(words):
    """On normalized text, as transformers leaves the normalizer out when it is built from pieces and scores."""
    transformers = pytest.importorskip("transformers")
    oracle = transformers.XLMRobertaTokenizer(vocab=scored_pieces(words))
    assert oracle.convert_tokens_to_ids("<mask>") == words.mask_id and len(oracle) == len(words) - 2
    for text in PLAIN:
        text = text.replace("<mask>", "mask").replace("  ", " ")  # transformers takes "<mask>" for the special token
        assert_reads_as(words, oracle, text)


def assert_offsets_fit(words, text: str, prefix_space: bool) -> None:
    """In order, every character but white space covered, slices spell their pieces."""
    ids, spans = words.encode(text, prefix_space)
    assert_in_order(text, ids, spans)
    model, covered = words.processor, set()
    for token, (start, end) in zip(ids, spans):
        covered.update(range(start, end))
        if token != words.unk_id:
            spelled, found = words.pieces([token])[0].removeprefix("▁"), model.normalize(text[start:end])
            assert spelled in found, (text, spelled, start, end)
            assert spelled or start == end or found.count("▁") > 1
    assert all(k in covered for k, character in enumerate(text) if model.normalize(character) not in ("", "▁")), text


@pytest.mark.parametrize("prefix_space", [True, False])
def test_offsets_of_hard_texts(words, prefix_space):
    for text in HARD + PLAIN:
        assert_offsets_fit(words, text, prefix_space)


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from("aBo sl é½ﬁ㌔\u0301\u3000\t☃東.<>"), max_size=20), st.booleans())
def test_offsets_of_any_text(words, text, prefix_space):
    assert_offsets_fit(words, text, prefix_space)


def test_offsets_by_hand(words):
    """e + accent and ㌔ come from 2 and 1 characters; ½ becomes three that all come from it."""
    text, pieces = "cafe\u0301  ½☃", ["▁ca", "fé", "▁1", "⁄2", "☃"]
    normalized, source = words.processor.normalize(text, with_offsets=True)
    assert "".join(pieces) == normalized
    assert offsets(text, pieces, normalized, source) == [(0, 2), (2, 5), (7, 8), (7, 8), (8, 9)]
    lone = words.encode("\u3000 東京")
    assert dict(zip(words.pieces(lone.ids), lone.offsets)).get("▁", (2, 2)) == (2, 2)


def test_no_space_marker_in_mid_word(words):
    """Equal to mLUKE's way, a sacrificial character whose two pieces are dropped, wherever that way works."""
    unknown = "𓀀"
    for text in ["lo.", "way", ".", "'s cafés", "東京は", "Oslo in 1900"]:
        ids, reference = words.encode(text, prefix_space=False).ids, words.encode(unknown + text).ids
        assert words.pieces(reference)[:2] == ["▁", "<unk>"] and ids == reference[2:]
        assert not words.pieces(ids)[0].startswith("▁")
    assert words.encode("  Oslo", False).ids == words.encode("  Oslo").ids  # white space of its own counts
    # Here the sacrifice would take the first character with it: two unknown characters become one piece.
    assert words.encode(unknown + "☃a").ids[2:] == words.encode("a", prefix_space=False).ids
    assert words.encode("☃a", prefix_space=False).ids == [3] + words.encode("a", prefix_space=False).ids


def test_contract(words, tmp_path):
    assert_contract(words, PLAIN + HARD, tmp_path)
    assert json.loads((tmp_path / "a/tokenizer_config.json").read_text())["tokenizer_class"] == "MLukeTokenizer"


def test_decode(words):
    for text in PLAIN:
        if "☃" not in text:
            assert words.decode(words.encode(text).ids) == " ".join(text.split())
    ids = [0, *words.encode("Ada saw").ids, words.mask_id, *words.encode("☃").ids, 2]
    assert words.decode(ids) == "<s> Ada saw<mask> <unk></s>"


def test_starts_word(words):
    for piece, starts in zip(all_pieces(words), words.starts_word, strict=True):
        assert starts == (piece in SPECIAL + ADDED or piece[0] == "▁" or is_punctuation(piece[0])), piece
    assert not words.starts_word.all()


# --- Training ---------------------------------------------------------------------------------------------------------


def test_training_is_reproducible_and_takes_a_generator(words, tmp_path):
    assert train(iter(TEXTS), 120, tmp_path).model == words.model


def test_long_texts_are_not_skipped(tmp_path):
    """SentencePiece itself leaves out texts of more than 4,192 bytes: then ß would be unknown."""
    long = "Straße " * 1000
    assert 3 not in train([long, *TEXTS], 300, tmp_path).encode("Straße").ids


def test_small_text_gives_fewer_pieces(tmp_path):
    small = train(["Ada saw Bo in Oslo.", "Bo saw Ada."], 32000, tmp_path)
    assert 10 < len(small) < 100 and small.decode(small.encode("Ada saw Oslo.").ids) == "Ada saw Oslo."


@pytest.mark.parametrize(("corpus", "size"), [([], 300), ([""], 300), (["abcdefghijklmnopqrstuvwxyz"], 20)])
def test_untrainable_texts_give_one_line(tmp_path, corpus, size):
    with pytest.raises(ValueError, match=f"word vocabulary of {size}") as error:
        train(corpus, size, tmp_path)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


BROKEN = [
    (b"", "sentencepiece.bpe.model"),
    (b"no model", "sentencepiece.bpe.model"),
    (b"\x0a\xff\xff", "sentencepiece.bpe.model"),
    ({"vocab_size": 380, "byte_fallback": True}, "no byte pieces"),
    ({"bos_id": -1}, "expected <unk> <s> </s> at ids 0, 1, 2"),  # models of other families
    ({"unk_id": 2, "bos_id": 0, "eos_id": 1}, "expected <unk> <s> </s> at ids 0, 1, 2"),
    ({"pad_id": 1, "bos_id": 3}, "expected <unk> <s> </s> at ids 0, 1, 2"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_other_models_are_refused(tmp_path, content, message):
    """content: of the file, or how it is trained."""
    if isinstance(content, dict):
        file, options = io.BytesIO(), {"vocab_size": 120, "minloglevel": 2} | content
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS), model_writer=file, **options)
        content = file.getvalue()
    (tmp_path / "sentencepiece.bpe.model").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        tokenizer.load(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/sentencepiece.bpe.model: no usable SentencePiece model (")


# --- XLM-R's pieces ---------------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


def _message(field: int, content: bytes) -> bytes:
    """A protobuf field that holds bytes, a string or a message."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _without_pieces(model: bytes) -> bytes:
    """A model's settings: its fields after the pieces, all of which have the tag 0x0a."""
    position = 0
    while model[position] == 0x0A:
        assert model[position + 1] < 128
        position += 2 + model[position + 1]
    return model[position:]


@pytest.fixture(scope="module")
def xlmr(words, xlmr_pieces) -> SentencePieceTokenizer:
    """A SentencePiece model with XLM-R's 250,000 pieces and the settings of ours: unigram, nmt_nfkc, as XLM-R's."""
    kinds = {0: 2, 1: 3, 2: 3}  # <unk> is of type 2 (unknown), <s> </s> of type 3 (control), pieces of type 1
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *xlmr_pieces[4:-1]]
    model = b"".join(
        _message(1, _message(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kinds.get(k, 1)]))
        for k, (piece, score) in enumerate(pieces)
    )
    return SentencePieceTokenizer(model + _without_pieces(words.model))


def test_released_xlmr_vocabulary(xlmr, xlmr_pieces):
    """Published ids of a sentence, and of the special tokens."""
    assert (len(xlmr), xlmr.mask_id, xlmr.ent_id, xlmr.ent2_id) == (250004, 250001, 250002, 250003)
    assert xlmr.pieces(range(4, 250001)) == [piece for piece, _ in xlmr_pieces[4:250001]]
    assert xlmr.encode("Hello world!").ids == [35378, 8999, 38]
    text = "Die ﬁnnische Hauptstadt Helsinki (schwed. Helsingfors) zählt ½ Mio. 東京は日本の首都。 Привет, мир"
    assert_offsets_fit(xlmr, text, True)


def test_xlmr_on_real_lines(xlmr, xlmr_pieces, real_lines):
    """Ids and offsets of the Rust library with the same pieces, on normalized text; offsets fit on the text itself."""
    transformers = pytest.importorskip("transformers")
    oracle = transformers.XLMRobertaTokenizer(vocab=xlmr_pieces)
    for text in real_lines:
        assert_offsets_fit(xlmr, text, True)
        text = xlmr.processor.normalize(text).replace("▁", " ")[1:].replace("``", '"').replace("''", '"')
        assert_reads_as(xlmr, oracle, text, ties=True)


# --- Cuts -------------------------------------------------------------------------------------------------------------


def released(words: SentencePieceTokenizer, text: str) -> list[int]:
    """transformers 4's MLukeTokenizer on a segment: special tokens out, the rest to the library, shifted."""
    model, size = words.processor, words.processor.get_piece_size()
    added = dict(zip(SPECIAL + ADDED, (0, 1, 2, 3, size + 1, size + 2, size + 3)))
    ids = []
    for part in re.split(r"(<s>|<pad>|</s>|<unk>|\s*<mask>|<ent2?>)", text):
        if part.strip() in added:
            ids.append(added[part.strip()])
        else:
            ids += [k + 1 if k else 3 for k in map(model.piece_to_id, model.encode(part, out_type=str))]
    return ids


def test_cuts(words, some_strings):
    assert_cuts_as(words, lambda segment: released(words, segment), TEXTS + HARD + some_strings, seed=4)


def test_cuts_of_real_lines(xlmr, some_strings, real_lines):
    assert_cuts_as(xlmr, lambda segment: released(xlmr, segment), some_strings + real_lines, seed=4)


def test_cuts_by_hand(words):
    ids, before = encode_cut(words, "Ada <mask>.<ent>Bo", [1, 3, 10])
    pieces = words.pieces(ids)
    assert pieces[0].startswith("▁") and pieces[before[0]].startswith("▁")  # "da" is a new word for SentencePiece
    assert pieces[before[1] : before[2]] == ["<mask>"] and pieces[before[2]] in ("▁.", "▁")
    assert "<ent>" in pieces and encode_cut(words, "", [0]) == ([], [0])


def test_a_saved_folder_opens_in_transformers(words, tmp_path):
    """MLukeTokenizer of transformers 5 reads the folder: same ids, and its markers are our rows.

    Not compared: unknown characters, which 5.23 takes for <s>, and what the normalization that it leaves out changes.
    """
    transformers = pytest.importorskip("transformers")
    words.save(tmp_path)
    (tmp_path / "entity_vocab.json").write_text('{"[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "[MASK2]": 3}')
    theirs = transformers.MLukeTokenizer.from_pretrained(tmp_path)
    found = {text: words.encode(text).ids for text in (text.replace("<mask> ", "") for text in TEXTS)}
    found = {text: ids for text, ids in found.items() if words.unk_id not in ids}
    assert len(found) > 50
    for text, ids in found.items():
        assert theirs(text).input_ids == [0, *ids, 2]
    ids = [0, 1, 2, 3, words.mask_id, words.ent_id, words.ent2_id]
    assert theirs.convert_tokens_to_ids(SPECIAL + ADDED) == ids
    theirs = transformers.MLukeTokenizer.from_pretrained(tmp_path, task="entity_classification")
    marked = theirs("Ada was born in Oslo", entity_spans=[(16, 20)]).input_ids
    assert marked.count(words.ent_id) == 2


def test_a_bpe_model_is_not_passed_off_as_unigram(tmp_path):
    """What transformers makes of it: test_saved_by_transformers.py."""
    train(TEXTS, 120, tmp_path, "bpe")
    model = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert model["type"] == "BPE" and (tmp_path / "sentencepiece.bpe.model").exists()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


# --- Unigram ----------------------------------------------------------------------------------------------------------

SPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
OLD_SPACE = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
XLMR_SPLIT = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, SPACE]}
CHARSMAP = json.loads((recorded.HERE / "xlmr/tokenizer.json").read_text(encoding="utf-8"))["normalizer"]
STRIP = {"type": "Strip", "strip_left": False, "strip_right": True}
SQUEEZE = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
NORMALIZERS = {  # of released files
    "transformers 5": [],
    "transformers 4": [CHARSMAP],
    "transformers 4.40": [CHARSMAP, STRIP, SQUEEZE | {"content": "▁"}],
    "ours": [{"type": "Nmt"}, {"type": "NFKC"}, SQUEEZE],
}
SCORED = [(token, 0.0) for token in SPECIAL]


def form(pieces, normalizer=None, pre_tokenizer=XLMR_SPLIT, **model) -> dict:
    """The content of a tokenizer.json."""
    model = {"type": "Unigram", "unk_id": 3, "vocab": [list(pair) for pair in pieces], "byte_fallback": False} | model
    return {"added_tokens": [], "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model}


def test_the_pieces_with_the_largest_sum():
    """Against every way to cut a word."""
    draw = random.Random(0)
    pieces = {"".join(p) for n in (1, 2, 3) for p in itertools.product("▁ab", repeat=n) if "▁" not in p[1:]}
    scores = {piece: draw.uniform(-9, -1) for piece in sorted(pieces - {"bb", "ab"})}
    made = UnigramTokenizer(form([*SCORED, *scores.items(), ("<mask>", 0.0)]))
    for length in range(1, 8):
        for letters in itertools.product("ab", repeat=length):
            word = "▁" + "".join(letters)
            ways = []
            for cuts in itertools.product((True, False), repeat=length):
                borders = [0, *(k + 1 for k in range(length) if cuts[k]), len(word)]
                parts = [word[start:end] for start, end in itertools.pairwise(borders)]
                ways.append(sum(scores.get(part, -math.inf) for part in parts))
            found = made.pieces(made.encode(word[1:]).ids)
            assert "".join(found) == word and sum(map(scores.get, found)) == pytest.approx(max(ways), abs=1e-9)


@pytest.mark.parametrize("score, pieces", [(-3.3, "xa b c d"), (-3.4, "<unk> abcd")])
def test_an_unknown_character_costs_ten_more_than_the_least_likely_piece(score, pieces):
    """x has no piece of its own: -4 and three scores, against -4 - 10 and nothing."""
    known = [("xa", -4.0), ("b", score), ("c", score), ("d", score), ("abcd", 0.0), ("<mask>", 0.0)]
    made = UnigramTokenizer(form([*SCORED, *known]))
    assert made.pieces(made.encode("xabcd", prefix_space=False).ids) == pieces.split()


def test_unknown_neighbors_are_one_piece():
    made = UnigramTokenizer(form([*SCORED, ("▁", -1.0), ("a", -1.0), ("bc", -4.0), ("<mask>", 0.0)]))
    assert made.pieces(made.encode("ab☃bc").ids) == ["▁", "a", "<unk>", "bc"]
    assert made.encode("ab☃bc").offsets == [(0, 0), (0, 1), (1, 3), (3, 5)]
    other = UnigramTokenizer(form([*SCORED, ("▁", -1.0), ("<mask>", 0.0)], unk_id=0))  # mLUKE's tokenizer.json
    assert other.encode("☃☃").ids == [4, other.bos_id] and other.unk_id == 3


def test_a_text_that_continues_a_word():
    words = tokenizer.load(recorded.HERE / "xlmr")
    read = lambda *given: words.pieces(words.encode(*given).ids)  # noqa: E731
    assert read("met Bo") == ["▁met", "▁Bo"] and read("met Bo", False) == ["met", "▁Bo"]
    assert read(" met Bo", False) == ["▁met", "▁Bo"] and read("", False) == []
    assert words.encode("met Bo", False).offsets == [(0, 3), (4, 6)]


def test_contract_of_unigram(some_strings, tmp_path):
    assert_contract(tokenizer.load(recorded.HERE / "xlmr"), [*recorded.PLAIN, *some_strings], tmp_path)


def test_the_charsmap_holds_its_rules():
    """Those that SentencePiece compiled, one by one; a longer key is not found by its beginning."""
    found = Charsmap(base64.b64decode(CHARSMAP["precompiled_charsmap"]))
    for old, new in recorded.RULES.items():
        assert found.find(old) == new and found.find(old + "x") == new
    for other in ("x", "e", "か", "\u3099", "é", "", "ｂ", "\U0001f600"):
        assert found.find(other) is None


@pytest.mark.parametrize("kind", ["NFC", "NFKC", "NFD", "NFKD"])
def test_normal_forms(kind):
    (rule,) = rules({"type": kind})
    for text in ("cafe\u0301 ﬁ½ Å", "\u1112\u1161\u11ab글", "か\u3099が", "a\u0323\u0307", "plain"):
        assert rule.apply(text) == unicodedata.normalize(kind, text)
        made, source = rule.apply_to_both(text, list(range(len(text))))
        assert made == rule.apply(text) and len(source) == len(made) and source == sorted(source)


def test_what_a_file_may_not_say(tmp_path):
    good = form(recorded.pieces())
    UnigramTokenizer(good)
    pieces = good["model"]["vocab"]
    for change, message in (
        ({"normalizer": {"type": "BertNormalizer"}}, "normalizer of type BertNormalizer, expected Replace"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, r"pre-tokenizer \['ByteLevel'\], expected Metaspace"),
        ({"pre_tokenizer": None}, "expected Metaspace"),
        ({"pre_tokenizer": SPACE | {"prepend_scheme": "first"}}, "expected to write ▁ always or never"),
        ({"model": good["model"] | {"byte_fallback": True}}, "byte_fallback is true"),
        ({"model": good["model"] | {"vocab": good["model"]["vocab"][1:]}}, "the vocabulary has no <s>"),
        ({"model": {"type": "Unigram"}}, "it has no 'vocab'"),
        ({"model": good["model"] | {"unk_id": "x"}}, 'unk_id is "x", expected an integer'),
        ({"model": good["model"] | {"unk_id": -1}}, "unk_id is -1, expected an id below"),
        ({"model": good["model"] | {"unk_id": 10**6}}, "unk_id is 1000000, expected an id below"),
        *(
            ({"model": good["model"] | {"vocab": [*pieces, ["zq", score]]}}, f"the score of 'zq' is {shown}")
            for score, shown in ((10**400, "1000"), (-(10**400), "-1000"), (math.nan, "nan"), (-math.inf, "-inf"))
        ),
    ):
        (tmp_path / "tokenizer.json").write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=message) as error:
            tokenizer.load(tmp_path)
        assert str(error.value).startswith(f"{tmp_path}/tokenizer.json: no usable Unigram model (")
        assert "\n" not in str(error.value)


def loses_its_beginning(text: str) -> bool:
    """Whether a normalizer removes the first character: then Rust's offsets are one too low."""
    return text[:1] < " " or text[:1] in "\u200b\x7f"


@pytest.mark.parametrize("split", [SPACE, OLD_SPACE, SPACE | {"prepend_scheme": "never"}, XLMR_SPLIT])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_as_the_rust_library_on_strings(name, split, tmp_path, some_strings):
    """Every normalizer and split that released files have, on strings of all scripts and on the recorded texts."""
    rust = pytest.importorskip("tokenizers", reason="the oracle `tokenizers`, a part of transformers, is not installed")
    parts = NORMALIZERS[name]
    normalizer = {"type": "Sequence", "normalizers": parts} if parts else None
    content = {"version": "1.0", "post_processor": None, "decoder": None, "truncation": None, "padding": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | form(recorded.pieces(), normalizer, split)))
    oracle, words = rust.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), tokenizer.load(tmp_path)
    for text in [*recorded.PLAIN, *some_strings]:
        if "<" not in text:
            found = oracle.encode(text)
            compared = name != "ours" and not loses_its_beginning(text)  # NFKC says little about where it composes
            assert_reads(words, text, found.ids, found.offsets if compared else None)


def test_xlmr_from_tokenizer_json_on_real_lines(xlmr_pieces, real_lines, some_strings, tmp_path):
    """XLM-R's and mLUKE's tokenizers with all of XLM-R's pieces: the same ids and offsets, bit for bit."""
    transformers = pytest.importorskip("transformers")
    entities = {"[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "[MASK2]": 3}
    for made in (
        transformers.XLMRobertaTokenizer(vocab=xlmr_pieces, _spm_precompiled_charsmap=recorded.charsmap()),
        transformers.MLukeTokenizer(vocab=xlmr_pieces, entity_vocab=entities),
    ):
        folder = tmp_path / type(made).__name__
        made.save_pretrained(folder)
        words = tokenizer.load(folder)
        assert (len(words), words.mask_id, words.ent_id, words.ent2_id) == (250004, 250001, 250002, 250003)
        for text in real_lines + some_strings:
            if "<" not in text and "[" not in text:
                ids, offsets = recorded.reading(made, text)
                assert_reads(words, text, ids, None if loses_its_beginning(text) else offsets)

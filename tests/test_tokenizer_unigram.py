"""Unigram from tokenizer.json: the best pieces, normalization with offsets, what files may say.

    pytest tests/test_tokenizer_unigram.py
    pytest tests/test_tokenizer_unigram.py --lines 20000 --strings 5000       more texts

Oracles: all segmentations of short words; Python's own normalization; with ../shared/data and transformers, the Rust
library on XLM-R's pieces. Small recorded and live tokenizers of transformers are in test_saved_by_transformers.py.
"""

import base64
import itertools
import json
import math
import random
import unicodedata

import pytest
from fixtures import make_tokenizer_fixtures as texts
from test_saved_by_transformers import assert_reads

from luke_mini import tokenizer
from luke_mini.tokenizer_unigram import Charsmap, UnigramTokenizer, rules

SPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
SPECIAL = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
XLMR_SPLIT = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, SPACE]}


def form(pieces, normalizer=None, pre_tokenizer=XLMR_SPLIT, **model) -> dict:
    """The content of a tokenizer.json."""
    model = {"type": "Unigram", "unk_id": 3, "vocab": [list(pair) for pair in pieces], "byte_fallback": False} | model
    return {"added_tokens": [], "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model}


def test_the_pieces_with_the_largest_sum():
    """Against every way to cut a word."""
    draw = random.Random(0)
    pieces = {"".join(p) for n in (1, 2, 3) for p in itertools.product("▁ab", repeat=n) if "▁" not in p[1:]}
    scores = {piece: draw.uniform(-9, -1) for piece in sorted(pieces - {"bb", "ab"})}
    made = UnigramTokenizer(form([*SPECIAL, *scores.items(), ("<mask>", 0.0)]))
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
    made = UnigramTokenizer(form([*SPECIAL, *known]))
    assert made.pieces(made.encode("xabcd", prefix_space=False).ids) == pieces.split()


def test_unknown_neighbours_are_one_piece():
    made = UnigramTokenizer(form([*SPECIAL, ("▁", -1.0), ("a", -1.0), ("bc", -4.0), ("<mask>", 0.0)]))
    assert made.pieces(made.encode("ab☃bc").ids) == ["▁", "a", "<unk>", "bc"]
    assert made.encode("ab☃bc").offsets == [(0, 0), (0, 1), (1, 3), (3, 5)]
    other = UnigramTokenizer(form([*SPECIAL, ("▁", -1.0), ("<mask>", 0.0)], unk_id=0))  # mLUKE's tokenizer.json
    assert other.encode("☃☃").ids == [4, other.bos_id] and other.unk_id == 3


def test_a_text_that_continues_a_word():
    words = tokenizer.load(texts.HERE / "xlmr")
    pieces = lambda *given: words.pieces(words.encode(*given).ids)  # noqa: E731
    assert pieces("met Bo") == ["▁met", "▁Bo"] and pieces("met Bo", False) == ["met", "▁Bo"]
    assert pieces(" met Bo", False) == ["▁met", "▁Bo"] and pieces("", False) == []
    assert words.encode_pieces(["met", "met", " met"], [True, False, False]) == [
        words.encode(text, prefix).ids for text, prefix in (("met", True), ("met", False), (" met", False))
    ]
    assert words.encode("met Bo", False).offsets == [(0, 3), (4, 6)]


def test_the_charsmap_holds_its_rules():
    """Those that SentencePiece compiled, one by one; a longer key is not found by its beginning."""
    normalizer = json.loads((texts.HERE / "xlmr/tokenizer.json").read_text(encoding="utf-8"))["normalizer"]
    found = Charsmap(base64.b64decode(normalizer["precompiled_charsmap"]))
    for old, new in texts.RULES.items():
        assert found.find(old) == new and found.find(old + "x") == new
    for other in ("x", "e", "か", "\u3099", "é", "", "ｂ", "\U0001f600"):
        assert found.find(other) is None


@pytest.mark.parametrize("kind", ["NFC", "NFKC", "NFD", "NFKD"])
def test_normal_forms(kind):
    (rule,) = rules({"type": kind})
    for text in ("cafe\u0301 ﬁ½ Å", "\u1112\u1161\u11ab글", "か\u3099が", "a\u0323\u0307", "plain"):
        assert rule.apply(text) == unicodedata.normalize(kind, text)
        made, spans = rule.apply_to_both(text, [(k, k + 1) for k in range(len(text))])
        assert made == rule.apply(text) and len(spans) == len(made) and spans == sorted(spans)


def test_what_a_file_may_not_say(tmp_path):
    good = form(texts.pieces())
    UnigramTokenizer(good)
    for change, message in (
        ({"normalizer": {"type": "BertNormalizer"}}, "normalizer of type BertNormalizer, expected Replace"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, r"pre-tokenizer \['ByteLevel'\], expected Metaspace"),
        ({"pre_tokenizer": None}, "expected Metaspace"),
        ({"pre_tokenizer": SPACE | {"prepend_scheme": "first"}}, "expected to write ▁ always or never"),
        ({"model": good["model"] | {"byte_fallback": True}}, "byte_fallback is true"),
        ({"model": good["model"] | {"vocab": good["model"]["vocab"][1:]}}, "the vocabulary has no <s>"),
        ({"model": {"type": "Unigram"}}, "it has no 'vocab'"),
    ):
        (tmp_path / "tokenizer.json").write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=message) as error:
            tokenizer.load(tmp_path)
        assert str(error.value).startswith(f"{tmp_path}/tokenizer.json: no usable Unigram model (")
        assert "\n" not in str(error.value)


NORMALIZERS = {
    "transformers 5": None,
    "transformers 4": "charsmap",
    "transformers 4.40": ["charsmap", {"type": "Strip", "strip_left": False, "strip_right": True},
                          {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}],
    "ours": [{"type": "Nmt"}, {"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}],
}  # fmt: skip
def loses_its_beginning(text: str) -> bool:
    """Whether a normalizer removes the first character: then Rust's offsets are one too low."""
    return text[:1] < " " or text[:1] in "\u200b\x7f"


OLD_SPACE = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}


@pytest.mark.parametrize("split", [SPACE, OLD_SPACE, SPACE | {"prepend_scheme": "never"}, XLMR_SPLIT])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_as_the_rust_library_on_strings(name, split, tmp_path, some_strings):
    """Every normalizer and split that released files have, on strings of all scripts and on the recorded texts."""
    rust = pytest.importorskip("tokenizers", reason="the oracle `tokenizers`, a part of transformers, is not installed")
    charsmap = json.loads((texts.HERE / "xlmr/tokenizer.json").read_text(encoding="utf-8"))["normalizer"]
    parts = NORMALIZERS[name] if isinstance(NORMALIZERS[name], list) else [NORMALIZERS[name]]
    parts = [charsmap if part == "charsmap" else part for part in parts]
    normalizer = {"type": "Sequence", "normalizers": parts} if parts != [None] else None
    content = {"version": "1.0", "post_processor": None, "decoder": None, "truncation": None, "padding": None}
    content |= form(texts.pieces(), normalizer, split)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    oracle, words = rust.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), tokenizer.load(tmp_path)
    for text in [*texts.PLAIN, *some_strings]:
        if "<" not in text:
            found = oracle.encode(text)
            compared = name != "ours" and not loses_its_beginning(text)  # NFKC says little about where it composes
            assert_reads(words, text, found.ids, found.offsets if compared else None)


def test_xlmr_on_real_lines(xlmr_pieces, real_lines, some_strings, tmp_path):
    """XLM-R's and mLUKE's tokenizers with all of XLM-R's pieces: the same ids and offsets, bit for bit."""
    transformers = pytest.importorskip("transformers")
    entities = {"[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "[MASK2]": 3}
    for made in (
        transformers.XLMRobertaTokenizer(vocab=xlmr_pieces, _spm_precompiled_charsmap=texts.charsmap()),
        transformers.MLukeTokenizer(vocab=xlmr_pieces, entity_vocab=entities),
    ):
        folder = tmp_path / type(made).__name__
        made.save_pretrained(folder)
        words = tokenizer.load(folder)
        assert (len(words), words.mask_id, words.ent_id, words.ent2_id) == (250004, 250001, 250002, 250003)
        for text in real_lines + some_strings:
            if "<" not in text and "[" not in text:
                ids, offsets = texts.reading(made, text)
                assert_reads(words, text, ids, None if loses_its_beginning(text) else offsets)

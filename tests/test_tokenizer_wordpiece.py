"""WordPiece: ids, offsets and cuts equal to BERT's tokenizers, cased and uncased.

    pytest tests/test_tokenizer_wordpiece.py
    pytest tests/test_tokenizer_wordpiece.py --lines 20000 --strings 5000     the same on all of the real text

Oracles: `tokenizers` (Rust) for ids and offsets, and for ids transformers' Python version of Google's code. Each knows
an older or newer Unicode than we do: single characters about which an oracle differs are found by asking it, and
written x in its texts. The vocabulary is a few hundred words and characters of the texts themselves.
"""

import json
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import SNIPPETS, all_pieces, assert_contract, assert_cuts_as, assert_in_order, encode_cut, english
from tokenizer_texts import random_strings

from luke_mini.tokenizer_wordpiece import WordPieceTokenizer, load

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def vocab() -> dict[str, int]:
    """Words and their parts in either case, and most characters of the snippets."""
    words = sorted(set(re.findall(r"\w+|[^\w\s]", " ".join(english()))))
    words += [word.lower() for word in words]
    parts = [word[:k] for word in words for k in (1, 2, 3)] + ["##" + word[k:] for word in words for k in (1, 2, 3)]
    characters = sorted(set("".join(SNIPPETS + random_strings(50, 3))))
    characters += unicodedata.normalize("NFD", "".join(characters).lower())
    kept = [c for c in characters if hash_of(c) % 4] + ["##" + c for c in characters if hash_of(c) % 3]
    pieces = [piece for piece in dict.fromkeys([*SPECIAL, *words, *parts, *kept]) if piece.split() == [piece] != ["##"]]
    return {piece: k for k, piece in enumerate(pieces)}


def hash_of(character: str) -> int:
    return ord(character) * 2654435761 >> 8


@pytest.fixture(scope="module", params=["uncased", "cased", "cased without accents"])
def tokenizer(request, vocab) -> WordPieceTokenizer:
    return WordPieceTokenizer(
        vocab, lower_case=request.param == "uncased", strip_accents=True if "accents" in request.param else None
    )


def rust(tokenizer: WordPieceTokenizer, special: bool = False):
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {piece: k for k, piece in enumerate(all_pieces(tokenizer))}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=tokenizer.lower_case, strip_accents=tokenizer.strip_accents
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    if special:
        names = [*SPECIAL, "<ent>", "<ent2>"]
        made.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in names])
    return made


def agreed(texts: list[str], oracle) -> list[str]:
    """The texts with x for the characters that the Rust library, with Unicode 8's categories, takes for others."""
    changed = {ord("Σ"): "x"}
    for c in set("".join(texts)):
        category = unicodedata.category(c)
        normal = oracle.normalizer.normalize_str("é" + c + "b")
        words = len(oracle.pre_tokenizer.pre_tokenize_str(normal))
        mark = category == "Mn" and len(normal) != len(oracle.normalizer.normalize_str("é\u0301b"))
        punctuation = (category[0] == "P" and words != 3) or (category[0] == "S" and c > "\x7f" and words == 3)
        reserved = category in ("Cn", "Lo") and words == 1 and 0x2B820 <= ord(c) < 0x2B920  # its list has a slip
        control = category in ("Cc", "Cf", "Co") and not c.isspace() and c in normal
        if mark or punctuation or reserved or control or (category in ("Mn", "Cf", "Cn") and words != 1):
            changed[ord(c)] = "x"
    return [text.translate(changed) for text in texts]


def assert_equals_rust(tokenizer, texts: list[str]) -> None:
    """Ids and offsets of whole texts, ids of texts that are cut."""
    oracle, with_special = rust(tokenizer), rust(tokenizer, special=True)
    texts = agreed(texts, oracle)
    for text in texts:
        theirs = oracle.encode(text)
        assert tokenizer.encode(text) == (theirs.ids, theirs.offsets), text
    assert_cuts_as(tokenizer, lambda segment: with_special.encode(segment).ids, texts, seed=1)


def assert_equals_google(tokenizer, texts: list[str]) -> None:
    """transformers' Python version, which drops unassigned characters and composes the others (NFC) in advance."""
    legacy = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")
    if tokenizer.strip_accents and not tokenizer.lower_case:
        return  # it takes accents off only where it lowers
    basic = legacy.BasicTokenizer(do_lower_case=tokenizer.lower_case, strip_accents=tokenizer.strip_accents)
    wordpiece = legacy.WordpieceTokenizer({piece: k for k, piece in enumerate(all_pieces(tokenizer))}, "[UNK]")
    for text in texts:
        text = "".join(c for c in text if unicodedata.category(c) != "Cn")
        if not tokenizer.lower_case:  # it composes what is left after control characters are out
            text = unicodedata.normalize("NFC", basic._clean_text(text))
        expected = [piece for word in basic.tokenize(text) for piece in wordpiece.tokenize(word)]
        assert tokenizer.pieces(tokenizer.encode(text).ids) == expected, text


@pytest.mark.parametrize("check", [assert_equals_rust, assert_equals_google])
def test_equals_its_oracles(tokenizer, some_strings, check):
    check(tokenizer, [*english()[:40], *some_strings])


@pytest.mark.parametrize("check", [assert_equals_rust, assert_equals_google])
def test_equals_its_oracles_on_real_lines(tokenizer, real_lines, check):
    check(tokenizer, real_lines)


def test_contract(tokenizer, some_strings, tmp_path):
    assert_contract(tokenizer, some_strings, tmp_path)


# --- By hand ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> WordPieceTokenizer:
    words = "zoe ' s na ##ive 東 京 ας σ".split()
    return WordPieceTokenizer({piece: k for k, piece in enumerate(SPECIAL + words)})


def test_the_example_of_the_docstring(small):
    text = "Zoë's nai\u0308ve\u200b 東京"
    ids, offsets = small.encode(text)
    assert small.pieces(ids) == "zoe ' s na ##ive 東 京".split()
    assert [text[start:end] for start, end in offsets] == ["Zoë", "'", "s", "na", "i\u0308ve", "東", "京"]
    assert small.decode(ids) == "zoe ' s naive 東 京"


def test_unknown_words_and_long_ones(small):
    assert small.encode("s" * 3 + " s x").ids == [small.unk_id, all_pieces(small).index("s"), small.unk_id]
    long = WordPieceTokenizer({piece: k for k, piece in enumerate([*SPECIAL, "s", "##s"])})
    assert long.encode("s" * 100).ids == [5] + [6] * 99 and long.encode("s" * 101) == ([1], [(0, 101)])


def test_sigma_at_the_end_of_a_word(small):
    assert small.pieces(small.encode("ΑΣ Σ").ids) == ["ας", "σ"]


def test_special_tokens(small):
    assert [small.bos_id, small.eos_id, small.pad_id, small.unk_id, small.mask_id] == [2, 3, 0, 1, 4]
    assert (small.ent_id, small.ent2_id, len(small)) == (14, 15, 16)
    assert encode_cut(small, "s [MASK]<ent2>s", [1, 2]) == ([7, 4, 15, 7], [1, 1])
    assert small.encode_pieces(["s", "", "Na"], [True, False, False]) == [[7], [], [8]]
    assert small.starts_word.tolist() == [not piece.startswith("##") for piece in all_pieces(small)]


@settings(max_examples=200)
@given(st.text(max_size=30))
def test_offsets_are_in_order_and_inside(small, text):
    ids, offsets = small.encode(text)
    assert_in_order(text, ids, offsets)
    assert all(start < end for start, end in offsets)


# --- Files ------------------------------------------------------------------------------------------------------------


def test_from_tokenizer_json_alone(tokenizer, tmp_path, some_strings):
    rust(tokenizer, special=True).save(str(tmp_path / "tokenizer.json"))
    again = load(tmp_path)
    assert all(again.encode(text) == tokenizer.encode(text) for text in some_strings)


def test_transformers_opens_what_we_save(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    for text in english():
        assert theirs(text)["input_ids"] == [2, *tokenizer.encode(text).ids, 3]


@pytest.mark.parametrize(
    ("config", "lowers_and_strips"),
    [
        (None, (True, True)),  # BERT's defaults
        ({"do_lower_case": False}, (False, False)),
        ({"do_lower_case": True, "strip_accents": False}, (True, False)),
    ],
)
def test_settings_of_a_released_folder(vocab, tmp_path, config, lowers_and_strips):
    (tmp_path / "vocab.txt").write_text("".join(piece + "\n" for piece in vocab), encoding="utf-8")
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    words = load(tmp_path)
    assert (words.lower_case, words.strip_accents) == lowers_and_strips


def test_broken_folders_give_one_line(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    with pytest.raises(ValueError, match=re.escape("the vocabulary has no [MASK]")) as error:
        load(tmp_path)
    assert str(tmp_path) in str(error.value)

"""Byte-level BPE: ids, offsets, cuts and training equal to the libraries that LUKE's released vocabulary came with.

    pytest tests/test_tokenizer_bpe.py
    pytest tests/test_tokenizer_bpe.py --lines 20000 --strings 5000     the same on all of the real text, minutes

Oracles: `tokenizers` (Rust; behind transformers 5's LukeTokenizer), the `regex` package for GPT-2's pattern, and, with
../shared/data, RoBERTa's own vocabulary. The small vocabularies are trained here.
"""

import json
from itertools import accumulate

import pytest
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import all_pieces, assert_contract, assert_cuts_as, assert_in_order, encode_cut, english
from tokenizer_texts import random_strings

from luke_mini.spans import is_punctuation
from luke_mini.tokenizer import ADDED, SHORT, SPECIAL, Memory
from luke_mini.tokenizer_bpe import BYTE_CHARACTERS, BpeTokenizer, load, merge, pre_tokens, train

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # as published


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> BpeTokenizer:
    return train(english(), 420, tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory) -> BpeTokenizer:
    return load(shared_data("tokenizers/vocab.json").parent)


def rust(tokenizer: BpeTokenizer, special: bool = False):
    """The same vocabulary in the tokenizers library."""
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {piece: k for k, piece in enumerate(all_pieces(tokenizer))}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=tokenizer.merges))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    if special:
        names = tokenizer.pieces([0, 1, 2, 3, tokenizer.mask_id, tokenizer.ent_id, tokenizer.ent2_id])
        made.add_special_tokens([tokenizers.AddedToken(name, lstrip=name == "<mask>") for name in names])
    return made


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    inside = text[start:end]
    return (end - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())) if inside.strip() else (end, end)


def assert_equals_rust(tokenizer: BpeTokenizer, texts: list[str]) -> None:
    """Ids and offsets of whole texts, ids of texts that are cut."""
    oracle, with_special = rust(tokenizer), rust(tokenizer, special=True)
    for text in texts:
        theirs = oracle.encode(text)
        offsets = [trimmed(text, *span) for span in theirs.offsets]
        assert tokenizer.encode(text, prefix_space=False) == (theirs.ids, offsets), text
    # \x1c and \x1f are no white space to the Rust library, but to the released tokenizer.
    texts = [text for text in texts if not any(c in text for c in "\x1c\x1f")]
    assert_cuts_as(tokenizer, lambda segment: with_special.encode(segment).ids, texts, seed=2)


# --- Pre-tokens -------------------------------------------------------------------------------------------------------


def test_pre_tokens_by_hand():
    words = ["Ada", "'s", " ", " 2", " cafés", "\n\n", " x", "_", "y", "'", "S"]
    assert pre_tokens("".join(words)) == words


def test_pattern_equals_the_published_one(some_strings):
    """Code points that only the regex package's newer Unicode knows as letters or numbers are made letters first."""
    regex = pytest.importorskip("regex")
    published = regex.compile(GPT2)
    newer = {
        ord(c): "x"
        for c in set("".join(some_strings))
        if regex.match(r"[\p{L}\p{N}]", c) and len(pre_tokens("é" + c)) == len(pre_tokens("²" + c)) == 2
    }
    for text in some_strings:
        text = text.translate(newer)
        assert pre_tokens(text) == published.findall(text), text


def test_every_code_point_is_what_the_rust_library_takes_it_for():
    """Letter, number, other or white space: one pre-token with é, ², · or alone. From plane 4 on in steps."""
    tokenizers = pytest.importorskip("tokenizers")
    if tokenizers.__version__.split(".")[:2] != ["0", "23"]:
        pytest.skip("another version of tokenizers than 0.23 may have another version of Unicode")
    theirs = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    points = [k for k in [*range(0x40000), *range(0x40000, 0x110000, 97)] if not 0xD800 <= k < 0xE000]
    for k in range(0, len(points), 512):
        text = "é".join(f"é{c}²{c}·{c}" for c in map(chr, points[k : k + 512]))
        ends = [end for _, (_, end) in theirs.pre_tokenize_str(text)]
        assert list(accumulate(map(len, pre_tokens(text)))) == ends, hex(points[k])


@settings(max_examples=300)
@given(st.text())
def test_pre_tokens_lose_nothing(text):
    assert "".join(pre_tokens(text)) == text


# --- Ids and offsets --------------------------------------------------------------------------------------------------


def test_merges_by_hand():
    ranks = {("a", "b"): 0, ("ab", "c"): 1, ("b", "c"): 2, ("a", "a"): 3}
    assert merge(list("abcbcaaa"), ranks) == ["abc", "bc", "aa", "a"]


def test_bytes_by_hand():
    """The published table: space Ġ, newline Ċ, é Ã©; the visible characters of Latin-1 are themselves."""
    assert [BYTE_CHARACTERS[byte] for byte in b" \nA\x00\x7f\xad" + "é".encode()] == list("ĠĊAĀġŃÃ©")
    assert len(set(BYTE_CHARACTERS)) == 256 and not any(map(str.isspace, BYTE_CHARACTERS))


def test_small_vocabulary_equals_tokenizers(tokenizer, some_strings):
    assert_equals_rust(tokenizer, [*english()[:40], *some_strings])


def test_roberta_equals_tokenizers(roberta, some_strings, real_lines):
    assert_equals_rust(roberta, [*some_strings, *real_lines])


@pytest.mark.parametrize("text", ["a   b", "a\xa0 ", "a \0b", "\0", "a  "])
def test_parts_whose_spaces_do_not_begin_pre_tokens(text):
    """Several spaces may be one piece; the character that marks borders may stand in a text."""
    tokens = [*SPECIAL, *BYTE_CHARACTERS, "ĠĠ", "łĠ", *ADDED]
    words = BpeTokenizer({token: k for k, token in enumerate(tokens)}, [("Ġ", "Ġ"), ("ł", "Ġ")])
    ids, counts = words.encode_parts(["of", text, " a"])
    expected = [words.encode(part, prefix_space=False).ids for part in ("of", text, " a")]
    assert ids.tolist() == sum(expected, []) and counts.tolist() == [*map(len, expected)]


def test_contract(tokenizer, some_strings, tmp_path):
    assert_contract(tokenizer, some_strings, tmp_path)


def test_roberta_ids(roberta):
    """Published ids: of a sentence, and of the special tokens, three of which LUKE's file adds."""
    assert roberta.encode("Hello world", prefix_space=False).ids == [31414, 232]
    assert (roberta.bos_id, roberta.pad_id, roberta.eos_id, roberta.unk_id) == (0, 1, 2, 3)
    assert (roberta.mask_id, roberta.ent_id, roberta.ent2_id, len(roberta)) == (50264, 50265, 50266, 50267)
    assert roberta.pieces([50261, 50263]) == ["madeupword0000", "madeupword0002"]


@settings(max_examples=200)
@given(st.text(max_size=30), st.booleans())
def test_offsets_cover_all_but_white_space(tokenizer, text, prefix_space):
    encoding = tokenizer.encode(text, prefix_space)
    assert_in_order(text, *encoding)
    covered = {k for start, end in encoding.offsets for k in range(start, end)}
    assert all(k in covered or text[k].isspace() for k in range(len(text)))


def test_prefix_space(tokenizer):
    for text in ("Ada", "café", "'s"):
        spaced = tokenizer.encode(" " + text, False)
        assert tokenizer.encode(text).ids == spaced.ids != tokenizer.encode(text, False).ids
        assert tokenizer.encode(text).offsets[-1] == (spaced.offsets[-1][0] - 1, spaced.offsets[-1][1] - 1)
        assert tokenizer.encode("\t" + text).ids == tokenizer.encode("\t" + text, False).ids


def test_decode(tokenizer, some_strings):
    for text in some_strings:
        assert tokenizer.decode(tokenizer.encode(text, prefix_space=False).ids) == text.removeprefix(" ")
        assert tokenizer.decode(tokenizer.encode("x" + text).ids) == "x" + text
    special = [0, *tokenizer.encode("Ada").ids, tokenizer.mask_id, 2]
    assert tokenizer.decode(special) == "<s> Ada<mask></s>"
    assert tokenizer.decode(tokenizer.encode("東", False).ids[:1]) == "\ufffd"  # a byte of three


def test_lone_surrogates_are_bytes(tokenizer):
    assert len(tokenizer.encode("a\ud83d", False).ids) == 4 and tokenizer.encode("a\ud83d", False).offsets[-1] == (1, 2)


def test_long_runs_are_quick(tokenizer):
    """A run of one character is merged in a few passes, whatever its length."""
    assert len(tokenizer.encode("=" * 20000, False).ids) == 20000
    ranks = {("=" * 2**k,) * 2: k for k in range(6)}
    assert merge(["="] * 64 * 300, ranks) == ["=" * 64] * 300


def test_starts_word(tokenizer):
    table = dict(zip(all_pieces(tokenizer), tokenizer.starts_word.tolist()))
    for piece in ("Ġ", "Ġthe", ".", "'s", "_", "Ċ", "<s>", "<mask>", "<ent2>"):
        assert table.get(piece, True), piece
    for piece in ("a", "est", "é".encode().decode("latin-1"), "Ã", "©"):
        assert not table.get(piece, False), piece
    assert all(is_punctuation(c) == table[c] for c in map(chr, range(0x21, 0x7F)))


# --- Cuts -------------------------------------------------------------------------------------------------------------


def test_cuts_by_hand(tokenizer):
    text = "Ada  <mask> <ent>Bo's"
    ids, before = encode_cut(tokenizer, text, [0, 3, 5, 11, 12, 18])
    assert before[:3] == [0, len(tokenizer.encode("Ada", False).ids), before[1] + 2]
    pieces = tokenizer.pieces(ids)
    assert pieces[before[1] : before[4]] == ["Ġ", "Ġ", "<mask>", "Ġ"] and pieces[before[4]] == "<ent>"
    assert encode_cut(tokenizer, "a  <mask>", [])[0] == [*tokenizer.encode("a", False).ids, tokenizer.mask_id]
    assert encode_cut(tokenizer, "", [0]) == ([], [0])


def test_of_two_special_tokens_the_longer_one_counts(tokenizer):
    vocab, n = {piece: k for k, piece in enumerate(all_pieces(tokenizer))}, len(tokenizer)
    longer = BpeTokenizer(vocab, tokenizer.merges, added={"<x>": n, "<x>y": n + 1})
    assert encode_cut(longer, "<x>y<x>", [])[0] == [n + 1, n]


def test_the_memory_is_bounded(tokenizer, monkeypatch):
    monkeypatch.setattr("luke_mini.tokenizer.MOST_REMEMBERED", 50)
    again = BpeTokenizer(dict(zip(all_pieces(tokenizer), range(len(tokenizer)))), tokenizer.merges)
    memories = [value for value in vars(again).values() if isinstance(value, Memory)]  # of pre-tokens, words, segments
    assert len(memories) == 3
    for text in english() + ["x" * 1000]:
        assert encode_cut(again, text, [3, 4])[0] and 1 <= min(map(len, memories)) and max(map(len, memories)) <= 50
    assert max(len(remembered) for memory in memories for remembered in memory) <= SHORT


# --- Files ------------------------------------------------------------------------------------------------------------


def test_from_tokenizer_json_alone(tokenizer, tmp_path, some_strings):
    rust(tokenizer, special=True).save(str(tmp_path / "tokenizer.json"))
    again = load(tmp_path)
    assert all_pieces(again) == all_pieces(tokenizer) and again.ent2_id == tokenizer.ent2_id
    assert all(again.encode(text) == tokenizer.encode(text) for text in some_strings[:100])


def test_added_tokens_of_a_released_folder(tokenizer, tmp_path):
    """added_tokens.json and special_tokens_map.json, as LUKE's first release has them; another spelling of a marker."""
    vocab = {piece: k for k, piece in enumerate(all_pieces(tokenizer)[:-2])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    merges = "".join(" ".join(pair) + "\n" for pair in tokenizer.merges)
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<b>": len(vocab) + 1, "<a>": len(vocab)}))
    mask = {"content": "<mask>", "lstrip": True}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"mask_token": mask, "entity_token_1": "<a>"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"entity_2_token": {"content": "<b>"}}))
    again = load(tmp_path)
    assert (again.ent_id, again.ent2_id, len(again)) == (len(vocab), len(vocab) + 1, len(vocab) + 2)
    assert encode_cut(again, "<a>x<b>", [])[0][::2] == [again.ent_id, again.ent2_id]


def test_transformers_opens_what_we_save(tokenizer, tmp_path, some_strings):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.LukeTokenizer.from_pretrained(tmp_path)
    assert theirs.max_mention_length == 30 and theirs.max_entity_length == 32 and theirs.model_max_length == 512
    ids = [tokenizer.mask_id, tokenizer.ent_id, tokenizer.ent2_id]
    assert theirs.convert_tokens_to_ids(["<mask>", "<ent>", "<ent2>"]) == ids
    for text in [*english()[:40], *some_strings]:
        if not any(token in text for token in ("\x1c", "\x1f", "[MASK]", "[UNK]")):  # it makes these word tokens, too
            assert theirs(text, add_special_tokens=False)["input_ids"] == encode_cut(tokenizer, text, [])[0], text


SMALL, PAIR = {"a": 0, "b": 1, "ab": 2}, "a b\n"
BROKEN = [  # vocab.json, merges.txt, message
    (SMALL, PAIR, "no <s> <pad> </s> <unk> <mask>"),
    ([], None, r"vocab.json is \[\], expected an object"),
    ("{", None, "vocab.json, .*: invalid JSON"),
    (SMALL, None, "merges.txt: no such file"),
    (SMALL, "a b\nb a\n", "merge 'b a'"),
    (SMALL, "ab\n", "merge 'ab'"),
    (SMALL | {"b": 0}, PAIR, "same id"),
]


@pytest.mark.parametrize(("vocab", "merges", "message"), BROKEN)
def test_broken_folders_give_one_line(tmp_path, vocab, merges, message):
    (tmp_path / "vocab.json").write_text(vocab if isinstance(vocab, str) else json.dumps(vocab))
    if merges is not None:
        (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


# --- Training ---------------------------------------------------------------------------------------------------------


def test_training_equals_tokenizers(tmp_path, some_strings):
    """The same pieces and merges, ties included: both take the pair of the smallest symbols."""
    tokenizers = pytest.importorskip("tokenizers")
    for corpus, size in ((english(), 420), (some_strings, 600), (random_strings(200, 9), 900)):
        corpus = [text for text in corpus if not text[:1].isspace()]
        oracle = tokenizers.Tokenizer(tokenizers.models.BPE())
        oracle.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size - 3,
            min_frequency=2,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        oracle.train_from_iterator(corpus, trainer)
        trained = train(corpus, size, tmp_path)
        model = json.loads(oracle.to_str())["model"]
        assert trained.merges == [tuple(pair) for pair in model["merges"]]
        assert all_pieces(trained) == sorted(model["vocab"], key=model["vocab"].get) + ["<mask>", "<ent>", "<ent2>"]


def test_training_by_hand(tmp_path):
    """Words (with their space) aaab x 2 and ab x 3: ab occurs 5 times, Ġab 3 times, then the rest of Ġaaab twice."""
    trained = train(["aaab aaab ab ab ab"], 267, tmp_path)
    assert trained.merges[:2] == [("a", "b"), ("Ġ", "ab")] and len(trained) == 267
    assert all_pieces(trained)[260:262] == ["ab", "Ġab"] and all_pieces(trained)[264:] == ["<mask>", "<ent>", "<ent2>"]
    assert all_pieces(load(tmp_path)) == all_pieces(trained)


def test_small_text_gives_fewer_pieces(tmp_path):
    assert len(train(["Ada saw Bo."], 1000, tmp_path)) == 263 == len(train([], 1000, tmp_path))
    with pytest.raises(ValueError, match="word vocabulary of 262: expected at least 263"):
        train(["a"], 262, tmp_path)

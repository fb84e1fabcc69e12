"""SentencePiece: XLM-R's ids, offsets, pieces in mid-word, training.

    pytest tests/test_tokenizer_sentencepiece.py
    pytest tests/test_tokenizer_sentencepiece.py --lines 20000 --strings 5000     the same on all of the real text

The vocabulary is trained here on a few hundred made-up sentences; transformers' XLM-R tokenizer (another
implementation, in Rust) is the oracle, and with ../shared/data there is XLM-R's own vocabulary.
"""

import io
import json
import random
import re
import struct

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import encode_cut, random_cuts

from luke_mini.spans import is_punctuation
from luke_mini.tokenizer_sentencepiece import SentencePieceTokenizer, load, offsets, train

NAMES = "Ada Bo Cleo Dan Eva Finn Gro Hal Ida Jon".split()
CITIES = "Oslo Bergen Narvik Hamar Larvik Molde Bodø Ålesund 東京 Владивосток".split()


def texts() -> list[str]:
    return [
        f"{name} was born in {city} in {1900 + 7 * a + b}, not far from {CITIES[(a + b) % 10]}; she (or he?) wrote "
        f"{a + 2} books about {city}'s cafés and «naïve» painters. <mask> 50% of x_{b} @ {name}#{b} - 東京は首都。"
        for a, name in enumerate(NAMES)
        for b, city in enumerate(CITIES)
    ]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> SentencePieceTokenizer:
    return train(texts(), 120, tmp_path_factory.mktemp("tokenizer"))


def test_id_layout(tokenizer):
    """The table of the module's docstring, from the library's own ids."""
    model = tokenizer.processor
    size = model.get_piece_size()
    assert len(tokenizer) == size + 4 == 120
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2, 3)
    assert (tokenizer.mask_id, tokenizer.ent_id, tokenizer.ent2_id) == (size + 1, size + 2, size + 3)
    assert (
        tokenizer.pieces([0, 1, 2, 3, size + 1, size + 2, size + 3])
        == "<s> <pad> </s> <unk> <mask> <ent> <ent2>".split()
    )
    assert tokenizer.pieces(range(4, size + 1)) == [model.id_to_piece(k) for k in range(3, size)]


def plain_sentences() -> list[str]:
    return texts() + ["Ada saw 東京.", "x", "", "no known: ☃☃ snow ☃man", "Oslo, Bergen (and Bodø).", "a  b"]


def test_ids_and_offsets_equal_transformers(tokenizer):
    """On normalised text, as transformers leaves the normaliser out when it is built from pieces and scores."""
    transformers = pytest.importorskip("transformers")
    model = tokenizer.processor
    scored = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    scored += [(model.id_to_piece(k), model.get_score(k)) for k in range(3, model.get_piece_size())] + [("<mask>", 0.0)]
    oracle = transformers.XLMRobertaTokenizer(vocab=scored)
    assert oracle.convert_tokens_to_ids("<mask>") == tokenizer.mask_id and len(oracle) == len(tokenizer) - 2
    for text in plain_sentences():
        text = text.replace("<mask>", "mask").replace("  ", " ")  # transformers takes "<mask>" for the special token
        ours, theirs = tokenizer.encode(text), oracle(text, add_special_tokens=False, return_offsets_mapping=True)
        assert ours.ids == theirs["input_ids"], text
        for piece, mine, other in zip(tokenizer.pieces(ours.ids), ours.offsets, theirs["offset_mapping"]):
            assert mine == (other if piece != "▁" else (other[0], other[0])), (text, piece)


def assert_offsets_fit(tokenizer, text: str, prefix_space: bool) -> None:
    """Starts and ends in order, white space at no border, every other character covered, slices spell their pieces."""
    encoding = tokenizer.encode(text, prefix_space)
    model = tokenizer.processor
    assert len(encoding.ids) == len(encoding.offsets)
    covered, previous = set(), (0, 0)
    for token, (start, end) in zip(encoding.ids, encoding.offsets):
        assert previous[0] <= start and previous[1] <= end and start <= end
        assert not text[start:end][:1].isspace() and not text[start:end][-1:].isspace()
        spelt = tokenizer.pieces([token])[0].removeprefix("▁")
        if token != tokenizer.unk_id:
            assert spelt in model.normalize(text[start:end]), (text, spelt, start, end)
            assert spelt or start == end or model.normalize(text[start:end]).count("▁") > 1
        covered.update(range(start, end))
        previous = (start, end)
    assert all(k in covered for k, character in enumerate(text) if model.normalize(character) not in ("", "▁")), text


HARD = [
    "ﬁne  ㌔½ cafe\u0301",
    " \t lead",
    "trail \u3000 ",
    "Ａ　Ｂ",
    "½",
    "a\u200bb",
    "☃☃ ☃",
    "\u0301x",
    "▁a ▁",
    "ªº\u00adz",
    "ﷺ!",
]


@pytest.mark.parametrize("prefix_space", [True, False])
def test_offsets_of_hard_texts(tokenizer, prefix_space):
    for text in HARD + plain_sentences():
        assert_offsets_fit(tokenizer, text, prefix_space)


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from("aBo sl é½ﬁ㌔\u0301\u3000\t☃東.<>"), max_size=20), st.booleans())
def test_offsets_of_any_text(tokenizer, text, prefix_space):
    assert_offsets_fit(tokenizer, text, prefix_space)


def test_offsets_by_hand(tokenizer):
    """e + accent and ㌔ come from 2 and 1 characters; ½ becomes three that all come from it."""
    text, pieces = "cafe\u0301  ½☃", ["▁ca", "fé", "▁1", "⁄2", "☃"]
    normalized, source = tokenizer.processor.normalize(text, with_offsets=True)
    assert "".join(pieces) == normalized
    assert offsets(text, pieces, normalized, source) == [(0, 2), (2, 5), (7, 8), (7, 8), (8, 9)]
    lone = tokenizer.encode("\u3000 東京")
    assert dict(zip(tokenizer.pieces(lone.ids), lone.offsets)).get("▁", (2, 2)) == (2, 2)


def test_no_space_marker_in_mid_word(tokenizer):
    """Equal to mLUKE's way, a sacrificial character whose two pieces are dropped, wherever that way works."""
    unknown = "𓀀"
    for text in ["lo.", "way", ".", "'s cafés", "東京は", "  Oslo", "Oslo in 1900"]:
        ids, reference = tokenizer.encode(text, prefix_space=False).ids, tokenizer.encode(unknown + text)
        first = tokenizer.pieces(reference.ids)[:2]
        assert first == ["▁", "<unk>"]
        if not text.startswith(" "):
            assert ids == reference.ids[2:]
            assert not tokenizer.pieces(ids)[0].startswith("▁")
        else:
            assert ids == tokenizer.encode(text).ids  # white space of its own counts
    # Here the sacrifice would take the first character with it: two unknown characters become one piece.
    assert tokenizer.encode(unknown + "☃a").ids[2:] == tokenizer.encode("a", prefix_space=False).ids
    assert tokenizer.encode("☃a", prefix_space=False).ids == [3] + tokenizer.encode("a", prefix_space=False).ids


def test_encode_pieces_equals_encode(tokenizer):
    many = plain_sentences() + HARD
    for flags in ([True] * len(many), [False] * len(many), [k % 3 == 0 for k in range(len(many))]):
        expected = [tokenizer.encode(text, flag).ids for text, flag in zip(many, flags)]
        assert tokenizer.encode_pieces(many, flags) == expected
    assert tokenizer.encode_pieces([], []) == []


def test_special_tokens_in_text_are_text(tokenizer):
    special = {
        tokenizer.bos_id,
        tokenizer.pad_id,
        tokenizer.eos_id,
        tokenizer.mask_id,
        tokenizer.ent_id,
        tokenizer.ent2_id,
    }
    for text in ("<mask>", "a <ent> b <ent2>", "<s> </s> <pad>", "<s>"):
        assert special.isdisjoint(tokenizer.encode(text).ids)
        assert special.isdisjoint(tokenizer.encode_pieces([text], [False])[0])


def test_decode(tokenizer):
    for text in plain_sentences():
        if "☃" not in text:
            assert tokenizer.decode(tokenizer.encode(text).ids) == " ".join(text.split())
    ids = [0, *tokenizer.encode("Ada saw").ids, tokenizer.mask_id, *tokenizer.encode("☃").ids, 2]
    assert tokenizer.decode(ids) == "<s> Ada saw<mask> <unk></s>"


def test_initialization_word(tokenizer):
    assert tokenizer.starts_word.shape == (len(tokenizer),) and tokenizer.starts_word.dtype == np.bool_
    for piece, starts in zip(tokenizer.pieces(range(len(tokenizer))), tokenizer.starts_word):
        special = piece in "<s> <pad> </s> <unk> <mask> <ent> <ent2>".split()
        assert starts == (special or piece.startswith("▁") or is_punctuation(piece[0])), piece
    assert not tokenizer.starts_word.all()


def test_round_trip_through_a_folder(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a")
    again = load(tmp_path / "a")
    assert all(again.encode(text) == tokenizer.encode(text) for text in HARD)
    again.save(tmp_path / "b")
    for name in ("sentencepiece.bpe.model", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a/tokenizer_config.json").read_text())["tokenizer_class"] == "MLukeTokenizer"


def test_training_is_reproducible_and_takes_a_generator(tokenizer, tmp_path):
    again = train((text for text in texts()), 120, tmp_path)
    assert again.model == tokenizer.model


def test_long_texts_are_not_skipped(tmp_path):
    """SentencePiece itself leaves out texts of more than 4,192 bytes: then ß would be unknown."""
    long = "Straße " * 1000
    assert 3 not in train([long, *texts()], 300, tmp_path).encode("Straße").ids


def test_small_text_gives_fewer_pieces(tmp_path):
    small = train(["Ada saw Bo in Oslo.", "Bo saw Ada."], 32000, tmp_path)
    assert 10 < len(small) < 100 and small.decode(small.encode("Ada saw Oslo.").ids) == "Ada saw Oslo."


@pytest.mark.parametrize(("corpus", "size"), [([], 300), ([""], 300), (["abcdefghijklmnopqrstuvwxyz"], 20)])
def test_untrainable_texts_give_one_line(tmp_path, corpus, size):
    with pytest.raises(ValueError, match=f"word vocabulary of {size}") as error:
        train(corpus, size, tmp_path)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no model", b"\x0a\xff\xff"])
def test_broken_model_is_named(tmp_path, content):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(content)
    with pytest.raises(ValueError, match="sentencepiece.bpe.model"):
        load(tmp_path)


def test_byte_pieces_are_refused(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()), model_writer=model, vocab_size=380, byte_fallback=True, minloglevel=2
    )
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    with pytest.raises(ValueError, match="no byte pieces"):
        load(tmp_path)


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
def xlmr(tokenizer, xlmr_pieces) -> SentencePieceTokenizer:
    """A SentencePiece model with XLM-R's 250,000 pieces and the settings of ours: unigram, nmt_nfkc, as XLM-R's."""
    kinds = {0: 2, 1: 3, 2: 3}  # <unk> is of type 2 (unknown), <s> </s> of type 3 (control), pieces of type 1
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *xlmr_pieces[4:-1]]
    model = b"".join(
        _message(1, _message(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kinds.get(k, 1)]))
        for k, (piece, score) in enumerate(pieces)
    )
    return SentencePieceTokenizer(model + _without_pieces(tokenizer.model))


def test_released_xlmr_vocabulary(xlmr, xlmr_pieces):
    """Published ids of a sentence, and of the special tokens."""
    assert (len(xlmr), xlmr.mask_id, xlmr.ent_id, xlmr.ent2_id) == (250004, 250001, 250002, 250003)
    assert xlmr.pieces(range(4, 250001)) == [piece for piece, _ in xlmr_pieces[4:250001]]
    assert xlmr.encode("Hello world!").ids == [35378, 8999, 38]
    text = "Die ﬁnnische Hauptstadt Helsinki (schwed. Helsingfors) zählt ½ Mio. 東京は日本の首都。 Привет, мир"
    assert_offsets_fit(xlmr, text, True)


def test_xlmr_on_real_lines(xlmr, xlmr_pieces, real_lines):
    """Ids and offsets of the Rust library with the same pieces, on normalised text; offsets fit on the text itself.

    Where two segmentations have the same score, NN N and N NN, the two libraries may choose differently.
    """
    transformers = pytest.importorskip("transformers")
    oracle = transformers.XLMRobertaTokenizer(vocab=xlmr_pieces)
    for text in real_lines:
        assert_offsets_fit(xlmr, text, True)
        text = xlmr.processor.normalize(text).replace("▁", " ")[1:].replace("``", '"').replace("''", '"')
        ours, theirs = xlmr.encode(text), oracle(text, add_special_tokens=False, return_offsets_mapping=True)
        if ours.ids != theirs["input_ids"]:
            assert sorted(ours.ids) == sorted(theirs["input_ids"]), text
            continue
        for piece, mine, other in zip(xlmr.pieces(ours.ids), ours.offsets, theirs["offset_mapping"]):
            assert mine == (other if piece != "▁" else (other[0], other[0])), (text, piece)


# --- Cuts -------------------------------------------------------------------------------------------------------------


def released(tokenizer: SentencePieceTokenizer, text: str) -> list[int]:
    """transformers 4's MLukeTokenizer on a segment: special tokens out, the rest to the library, shifted."""
    model, size = tokenizer.processor, tokenizer.processor.get_piece_size()
    added = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": size + 1, "<ent>": size + 2, "<ent2>": size + 3}
    ids = []
    for part in re.split(r"(<s>|<pad>|</s>|<unk>|\s*<mask>|<ent2?>)", text):
        if part.strip() in added:
            ids.append(added[part.strip()])
        else:
            known = (model.piece_to_id(piece) for piece in model.encode(part, out_type=str))
            ids += [k + 1 if k else 3 for k in known]
    return ids


def assert_cuts_as_released(tokenizer: SentencePieceTokenizer, texts: list[str]) -> None:
    draw = random.Random(4)
    for text in texts:
        cuts = random_cuts(text, draw)
        expected, before = [], []
        for start, end in zip([0, *cuts], [*cuts, len(text)]):
            expected += released(tokenizer, text[start:end])
            before.append(len(expected))
        assert encode_cut(tokenizer, text, cuts) == (expected, before[:-1]), (text, cuts)


def test_cuts(tokenizer, some_strings):
    assert_cuts_as_released(tokenizer, texts() + HARD + some_strings)


def test_cuts_of_real_lines(xlmr, some_strings, real_lines):
    assert_cuts_as_released(xlmr, some_strings + real_lines)


def test_cuts_by_hand(tokenizer):
    ids, before = encode_cut(tokenizer, "Ada <mask>.<ent>Bo", [1, 3, 10])
    pieces = tokenizer.pieces(ids)
    assert pieces[0].startswith("▁") and pieces[before[0]].startswith("▁")  # "da" is a new word for SentencePiece
    assert pieces[before[1] : before[2]] == ["<mask>"] and pieces[before[2]] in ("▁.", "▁")
    assert "<ent>" in pieces and encode_cut(tokenizer, "", [0]) == ([], [0])


LAYOUTS = [{"bos_id": -1}, {"unk_id": 2, "bos_id": 0, "eos_id": 1}, {"pad_id": 1, "bos_id": 3}]


@pytest.mark.parametrize("settings", LAYOUTS)
def test_other_layouts_are_refused(tmp_path, settings):
    """Models of other families: without <s>, with <unk> elsewhere, with a <pad> of their own."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()), model_writer=model, vocab_size=120, minloglevel=2, **settings
    )
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    with pytest.raises(ValueError, match="expected <unk> <s> </s> at ids 0, 1, 2"):
        load(tmp_path)


def test_a_saved_folder_opens_in_transformers(tokenizer, tmp_path):
    """MLukeTokenizer of transformers 5 reads the folder: same ids, and its markers are our rows.

    Not compared: unknown characters, which 5.23 takes for <s>, and what the normalisation that it leaves out changes.
    """
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    special = {"[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "[MASK2]": 3}
    (tmp_path / "entity_vocab.json").write_text(json.dumps(special))
    theirs = transformers.MLukeTokenizer.from_pretrained(tmp_path)
    compared = 0
    for text in texts():
        text = text.replace("<mask> ", "")
        ours = tokenizer.encode(text).ids
        if tokenizer.unk_id not in ours:
            assert theirs(text).input_ids == [0, *ours, 2]
            compared += 1
    assert compared > 50
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<ent>", "<ent2>"]
    ids = [0, 1, 2, 3, tokenizer.mask_id, tokenizer.ent_id, tokenizer.ent2_id]
    assert theirs.convert_tokens_to_ids(names) == ids
    theirs = transformers.MLukeTokenizer.from_pretrained(tmp_path, task="entity_classification")
    marked = theirs("Ada was born in Oslo", entity_spans=[(16, 20)]).input_ids
    assert marked.count(tokenizer.ent_id) == 2


def test_a_bpe_model_is_not_passed_off_as_unigram(tmp_path):
    train(texts(), 120, tmp_path, "bpe")
    assert not (tmp_path / "tokenizer.json").exists() and (tmp_path / "sentencepiece.bpe.model").exists()

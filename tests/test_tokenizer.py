"""tokenizer.load finds the kind of tokenizer by the files of a folder, and each kind has the whole interface.

    pytest tests/test_tokenizer.py
"""

import pickle
import re

import pytest

from luke_mini import tokenizer, tokenizer_bpe, tokenizer_sentencepiece, tokenizer_unigram, tokenizer_wordpiece

TEXTS = ["Ada lives in Oslo.", "Bo lives in Bergen."] * 20
SPELLED = "▁Ada ▁Bo ▁lives ▁in ▁Oslo ▁Ber gen ▁ . a d".split()
PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] ada bo lives in oslo ber ##gen .".split()


def make(kind: str, folder):
    if kind == "sentencepiece":
        return tokenizer_sentencepiece.train(TEXTS, 60, folder)
    if kind == "bpe":
        return tokenizer_bpe.train(TEXTS, 280, folder)
    if kind == "unigram":
        vocab = [[piece, -1.0 - k] for k, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *SPELLED, "<mask>"])]
        space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
        made = tokenizer_unigram.UnigramTokenizer({"pre_tokenizer": space, "model": {"type": "Unigram", "vocab": vocab}})
        made.save(folder)
        return made
    made = tokenizer_wordpiece.WordPieceTokenizer({piece: k for k, piece in enumerate(PIECES)})
    made.save(folder)
    return made


@pytest.fixture(scope="module", params=["sentencepiece", "unigram", "bpe", "wordpiece"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    made, loaded = make(request.param, folder), tokenizer.load(folder)
    assert type(loaded) is type(made) and len(loaded) == len(made)
    return loaded


def test_special_ids_are_apart(trained):
    names = "bos_id pad_id eos_id unk_id mask_id ent_id ent2_id".split()
    ids = [getattr(trained, name) for name in names]
    assert len(set(ids)) == len(ids) and set(ids) <= set(range(len(trained)))
    assert trained.pieces(ids[-2:]) == ["<ent>", "<ent2>"] and trained.starts_word[ids].all()
    assert trained.starts_word.shape == (len(trained),)


def test_a_text_cut_at_a_space_reads_as_a_whole(trained):
    kinds = (tokenizer_sentencepiece.SentencePieceTokenizer, tokenizer_unigram.UnigramTokenizer)
    always_marked = isinstance(trained, kinds)
    ids, before = trained.encode_cut("Ada lives in Bergen.", [3, 9, 20])
    assert ids == trained.encode("Ada lives in Bergen.", always_marked).ids and before[-1] == len(ids)
    assert trained.encode_cut("in <ent>", [])[0][-1] == trained.ent_id


def test_the_interface_is_what_the_docstring_says(trained):
    """Every name in the first column of the table exists."""
    table = tokenizer.__doc__.split("\n\n")[2]
    names = re.findall(r"^    (.*?)(?:   +|$)", table, re.MULTILINE)
    words = [word for name in names for word in re.findall(r"[a-z_0-9]+", name.split("(")[0].split("->")[0])]
    assert {"encode", "encode_pieces", "decode", "pieces", "save", "mask_id", "ent2_id", "starts_word"} <= set(words)
    for word in words:
        assert word == "len" or hasattr(trained, word), word


def test_save_and_load(trained, tmp_path):
    trained.save(tmp_path)
    assert tokenizer.load(tmp_path).encode("Ada in Bergen") == trained.encode("Ada in Bergen")


def test_tokenizer_json_of_an_unknown_kind(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordLevel"}}')
    with pytest.raises(ValueError, match="model of type WordLevel, expected BPE or WordPiece or Unigram"):
        tokenizer.load(tmp_path)


def test_workers_can_have_it(trained):
    """Processes get tokenizers by pickling."""
    trained.encode_cut("Ada in Bergen", [3])
    again = pickle.loads(pickle.dumps(trained))
    assert again.encode_cut("Ada in Oslo", [3]) == trained.encode_cut("Ada in Oslo", [3])


def test_no_tokenizer(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="expected sentencepiece.bpe.model") as error:
            tokenizer.load(folder)
        assert str(folder) in str(error.value)

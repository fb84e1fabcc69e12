"""tokenizer.load finds the kind of tokenizer by the files of a folder, and each kind has the whole interface.

    pytest tests/test_tokenizer.py
"""

import pickle

import pytest
from tokenizer_texts import encode_cut

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
    ids, before = encode_cut(trained, "Ada lives in Bergen.", [3, 9, 20])
    assert ids == trained.encode("Ada lives in Bergen.", always_marked).ids and before[-1] == len(ids)
    assert encode_cut(trained, "in <ent>", [])[0][-1] == trained.ent_id


def test_the_interface_is_that_of_the_base_class(trained):
    """No kind has public methods that others lack, and each has its own where the base class has none."""
    names = {name for name in vars(tokenizer.Tokenizer) if not name.startswith("_")}
    assert names == set("encode encode_pieces encode_segments decode pieces save starts_word".split())
    assert {name for name in vars(type(trained)) if not name.startswith("_")} <= names
    for name in ("encode", "encode_pieces", "save"):
        assert getattr(type(trained), name) is not getattr(tokenizer.Tokenizer, name)
    for role in ("bos", "pad", "eos", "unk", "mask", "ent", "ent2"):
        assert isinstance(getattr(trained, f"{role}_id"), int)


def test_save_and_load(trained, tmp_path):
    trained.save(tmp_path)
    assert tokenizer.load(tmp_path).encode("Ada in Bergen") == trained.encode("Ada in Bergen")


def test_tokenizer_json_of_an_unknown_kind(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordLevel"}}')
    with pytest.raises(ValueError, match="model of type WordLevel, expected BPE or WordPiece or Unigram"):
        tokenizer.load(tmp_path)


def test_workers_can_have_it(trained):
    """Processes get tokenizers by pickling."""
    encode_cut(trained, "Ada in Bergen", [3])
    again = pickle.loads(pickle.dumps(trained))
    assert encode_cut(again, "Ada in Oslo", [3]) == encode_cut(trained, "Ada in Oslo", [3])


def test_no_tokenizer(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="expected sentencepiece.bpe.model") as error:
            tokenizer.load(folder)
        assert str(folder) in str(error.value)

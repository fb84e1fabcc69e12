"""tokenizer.load finds the kind of tokenizer by the files of a folder, and each kind has the whole interface.

    pytest tests/test_tokenizer.py
"""

import pickle

import pytest
from tokenizer_texts import assert_contract, encode_cut

from luke_mini import tokenizer, tokenizer_bpe, tokenizer_sentencepiece, tokenizer_wordpiece

TEXTS = ["Ada lives in Oslo.", "Bo lives in Bergen."] * 20
SPELLED = "▁Ada ▁Bo ▁lives ▁in ▁Oslo ▁Ber gen ▁ . a d".split()
PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] ada bo lives in oslo ber ##gen .".split()


def unigram() -> tokenizer_sentencepiece.UnigramTokenizer:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *SPELLED, "<mask>"]
    model = {"type": "Unigram", "vocab": [[piece, -1.0 - k] for k, piece in enumerate(pieces)]}
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    return tokenizer_sentencepiece.UnigramTokenizer({"pre_tokenizer": space, "model": model})


KINDS = {  # name -> a tokenizer that is made in a folder
    "sentencepiece": lambda folder: tokenizer_sentencepiece.train(TEXTS, 60, folder),
    "unigram": lambda folder: unigram(),
    "bpe": lambda folder: tokenizer_bpe.train(TEXTS, 280, folder),
    "wordpiece": lambda folder: tokenizer_wordpiece.WordPieceTokenizer(dict(zip(PIECES, range(len(PIECES))))),
}


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    made = KINDS[request.param](folder)
    if not any(folder.iterdir()):  # training saves by itself
        made.save(folder)
    loaded = tokenizer.load(folder)
    assert type(loaded) is type(made) and len(loaded) == len(made)
    return loaded


def test_contract(trained, tmp_path):
    assert_contract(trained, [*TEXTS[:2], "", "Ada in Bergen", " Ada"], tmp_path)
    assert trained.pieces([trained.ent_id, trained.ent2_id]) == ["<ent>", "<ent2>"]


def test_a_text_cut_at_a_space_reads_as_a_whole(trained):
    ids, before = encode_cut(trained, "Ada lives in Bergen.", [3, 9, 20])
    space_in_front = type(trained).__module__ == "luke_mini.tokenizer_sentencepiece"
    assert ids == trained.encode("Ada lives in Bergen.", space_in_front).ids and before[-1] == len(ids)
    assert encode_cut(trained, "in <ent>", [])[0][-1] == trained.ent_id


def test_the_interface_is_that_of_the_base_class(trained):
    """No kind has public methods that others lack, and each has its own where the base class has none."""
    names = {name for name in vars(tokenizer.Tokenizer) if not name.startswith("_")}
    assert names == set("encode encode_parts encode_pieces encode_segments decode pieces save starts_word".split())
    assert {name for name in vars(type(trained)) if not name.startswith("_")} <= names
    for name in ("encode", "encode_parts", "save"):
        assert getattr(type(trained), name) is not getattr(tokenizer.Tokenizer, name)


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

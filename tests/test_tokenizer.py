"""tokenizer.load finds the kind of tokenizer by the files of a folder, and each kind has the whole interface.

    pytest tests/test_tokenizer.py
"""

import re

import pytest

from luke_mini import tokenizer, tokenizer_sentencepiece


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentencepiece")
    tokenizer_sentencepiece.train(["Ada lives in Oslo.", "Bo lives in Bergen."] * 20, 60, folder)
    return tokenizer.load(folder)


def test_load_finds_the_kind(trained):
    assert isinstance(trained, tokenizer_sentencepiece.SentencePieceTokenizer)


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


def test_no_tokenizer(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="expected sentencepiece.bpe.model") as error:
            tokenizer.load(folder)
        assert str(folder) in str(error.value)

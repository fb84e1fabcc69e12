"""Model folders: what is saved comes back, what is missing or damaged is named in one line.

pytest tests/test_checkpoint.py
"""

import json
import pickle
import shutil
from dataclasses import replace

import pytest
import torch

from luke_mini import atomic, checkpoint, config, tokenizer
from luke_mini.entity_vocab import EntityVocab
from luke_mini.model import LukeForPretraining, initialize


@pytest.fixture(scope="module")
def folder(toy_data, tmp_path_factory):
    words, entities = tokenizer.load(toy_data / "tokenizer"), EntityVocab.load(toy_data / "entity_vocab.jsonl")
    shape = replace(config.TINY, vocab_size=len(words), entity_vocab_size=len(entities), num_hidden_layers=2)
    model = LukeForPretraining(shape)
    initialize(model, shape, 3)
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    checkpoint.save(path, model, words, entities)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_saving_what_was_loaded_gives_equal_tensors(folder, tmp_path):
    model, words, entities = checkpoint.load(folder)
    checkpoint.save(tmp_path / "again", model, words, entities)
    again = checkpoint.read(tmp_path / "again")
    first = checkpoint.read(folder)
    assert again.config == first.config
    assert first.weights.keys() == again.weights.keys() == model.state_dict().keys()
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in first.weights.items())
    text = "The firm moved to the coast."
    assert again.tokenizer.encode(text) == words.encode(text)
    assert [again.entity_vocab.title(i) for i in range(len(entities))] == [
        entities.title(i) for i in range(len(entities))
    ]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "entity_vocab.json", "sentencepiece.bpe.model"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(ValueError, match=str(copy)) as error:
        checkpoint.read(copy)
    assert name in str(error.value) or "no saved" in str(error.value) or "config.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_files_are_named(copy):
    whole = (copy / "model.safetensors").read_bytes()
    for damaged in (whole[:-1000], whole[:5], b"", pickle.dumps({"a": 1})):
        (copy / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="model.safetensors: ") as error:
            checkpoint.read(copy)
        assert "\n" not in str(error.value)
    (copy / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: no valid JSON"):
        checkpoint.read(copy)
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="model_type is 'bert'"):
        checkpoint.read(copy)


def test_a_wrong_shape_is_named(copy):
    settings = json.loads((copy / "config.json").read_text())
    settings["entity_vocab_size"] += 1
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"entity_predictions.bias has the shape \[\d+\], expected \[\d+\]"):
        checkpoint.load(copy)


def test_lite_keeps_the_special_entities(folder):
    full = checkpoint.read(folder)
    lite = checkpoint.lite(full)
    table, vocab = full.weights["luke.entities.entity.weight"], full.entity_vocab
    expected = table[[vocab.mask_id, vocab.unk_id, vocab.pad_id, vocab.mask2_id]]
    assert torch.equal(lite.weights["luke.entities.entity.weight"], expected)
    assert [lite.entity_vocab.title(i) for i in range(4)] == ["[MASK]", "[UNK]", "[PAD]", "[MASK2]"]
    assert lite.entity_vocab.mask_id == 0 and lite.config.entity_vocab_size == 4


def test_the_newest_saved_step_of_a_run_is_found(folder, tmp_path):
    for step in ("step-000009", "step-000010"):
        shutil.copytree(folder, tmp_path / step)
    (tmp_path / ".step-000011.tmp").mkdir()
    assert checkpoint.find_folder(tmp_path) == tmp_path / "step-000010"
    assert checkpoint.find_folder(folder) == folder
    with pytest.raises(ValueError, match="no config.json"):
        checkpoint.find_folder(tmp_path / "nothing")


def test_a_folder_is_whole_or_absent(tmp_path):
    target = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic.write_folder(target) as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with atomic.write_folder(target) as temporary:
            (temporary / "file").write_text(text)
    assert (target / "file").read_text() == "second" and list(tmp_path.iterdir()) == [target]
    with pytest.raises(RuntimeError), atomic.write_file(target / "file") as file:
        file.write("half")
        raise RuntimeError
    assert (target / "file").read_text() == "second" and list(target.iterdir()) == [target / "file"]


def test_a_full_disk_is_named_and_other_errors_keep_their_words(tmp_path):
    target = tmp_path / "file"
    full, other = OSError(28, "No space left on device"), ChildProcessError("it died")
    for error, words in ((full, str(target)), (other, "it died")):
        with pytest.raises(OSError, match=words), atomic.write_file(target):
            raise error
    assert list(tmp_path.iterdir()) == []

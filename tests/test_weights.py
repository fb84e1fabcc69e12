"""Weight files: the same tensors as safetensors and torch give, and one clear line for everything that is damaged.

    pytest tests/test_weights.py
"""

import json
import os
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file

from luke_mini import weights
from luke_mini.weights import stack

TENSORS = {
    "a": torch.randn(3, 5),
    "half": torch.randn(4, 2).half(),
    "brain": torch.randn(2, 3).bfloat16(),
    "long": torch.arange(6),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "double": torch.randn(2).double(),
}


def values(found: dict) -> dict:
    return {name: stack([tensor]) for name, tensor in found.items()}


def as_float(tensor):
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@pytest.fixture(params=["safetensors", "bin", "old bin", "safetensors shards", "bin shards", "module"])
def folder(request, tmp_path):
    """The tensors, written in every way that is read."""
    kind = request.param
    if kind == "safetensors":
        save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt"})
    elif kind == "module":  # DeepSpeed
        torch.save({"module": TENSORS, "global_steps": 3}, tmp_path / "pytorch_model.bin")
    elif "shards" not in kind:
        torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "bin")
    else:
        name = "model.safetensors" if kind.startswith("safe") else "pytorch_model.bin"
        save = save_file if kind.startswith("safe") else torch.save
        shards = {f"{i}-{name}": dict(list(TENSORS.items())[i::2]) for i in range(2)}
        for shard, part in shards.items():
            save(part, tmp_path / shard)
        index = {"metadata": {}, "weight_map": {key: shard for shard, part in shards.items() for key in part}}
        (tmp_path / f"{name}.index.json").write_text(json.dumps(index))
    return tmp_path


def test_every_kind_gives_the_same_tensors(folder):
    found = values(weights.read_folder(folder))
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], as_float(tensor)) and found[name].dtype == as_float(tensor).dtype


def test_stack_takes_any_precision(tmp_path):
    save_file({"x": TENSORS["a"], "y": TENSORS["a"].half() * 2}, tmp_path / "model.safetensors")
    found = weights.read_folder(tmp_path)
    expected = torch.cat([TENSORS["a"], (TENSORS["a"].half() * 2).float()])
    assert torch.equal(stack([found["x"], found["y"]]), expected)
    assert torch.equal(stack([TENSORS["a"], found["y"]]), expected)
    assert torch.equal(stack([found["x"], TENSORS["a"].half() * 2]), expected)


def one_line(folder, pattern: str = "") -> str:
    with pytest.raises(ValueError, match=pattern) as error:
        values(weights.read_folder(folder))
    message = str(error.value)
    assert "\n" not in message and len(message) < 400 and str(folder) in message
    return message


def test_a_file_cut_short_anywhere_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()
    for size in [0, 3, 8, 20, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        one_line(tmp_path, "model.safetensors: not a complete safetensors file")
    path.unlink()
    path = tmp_path / "pytorch_model.bin"
    for new in (True, False):
        torch.save(TENSORS, path, _use_new_zipfile_serialization=new)
        whole = path.read_bytes()
        for size in [0, 3, 100, len(whole) // 2, len(whole) - 100]:
            path.write_bytes(whole[:size])
            one_line(tmp_path, "pytorch_model.bin: ")


def test_a_decoder_is_tied_if_all_of_its_values_are_the_tables(tmp_path):
    """The last value counts, and so do shapes and types that round alike."""
    table = torch.arange(3 * 5000, dtype=torch.float32).view(5000, 3)
    other = table.clone()
    other[-1, -1] += 1
    save_file({"a": table, "b": table.clone(), "c": other, "d": table[:-1].clone(), "e": table.half()},
              tmp_path / "model.safetensors")  # fmt: skip
    stored = weights.read_folder(tmp_path)

    def equal(one, two) -> bool:
        return weights.tied({"lm_head.decoder.bias": one, "lm_head.bias": two}) == ["lm_head.decoder.bias"]

    for one in (table, stored["a"]):
        assert [equal(one, stored[name]) for name in "abcde"] == [True, True, False, False, False]
        assert not equal(stored["d"], one) and equal(one, table)
    assert equal(table.half(), stored["e"]) and not equal(other, table)


def test_random_bytes_never_get_through(tmp_path):
    rng = random.Random(0)
    for name in ("model.safetensors", "pytorch_model.bin"):
        path = tmp_path / name
        save_file(TENSORS, path) if "safe" in name else torch.save(TENSORS, path)
        whole = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(min(len(whole), 900))] = rng.randrange(256)
            path.write_bytes(damaged)
            try:
                values(weights.read_folder(tmp_path))
            except ValueError as error:
                assert "\n" not in str(error) and name in str(error)
        path.unlink()


class Code:
    """A pickle that would leave a trace if it was executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_not_executed(tmp_path):
    trace = tmp_path / "trace"
    path = tmp_path / "pytorch_model.bin"
    for write in (
        lambda: torch.save({"a": TENSORS["a"], "b": Code(trace)}, path),
        lambda: torch.save({"a": TENSORS["a"], "b": Code(trace)}, path, _use_new_zipfile_serialization=False),
        lambda: path.write_bytes(pickle.dumps({"a": Code(trace)})),
        lambda: path.write_bytes(pickle.dumps(Code(trace), protocol=0)),
    ):
        write()
        one_line(tmp_path, "pytorch_model.bin: ")
        assert not trace.exists()
    torch.save({"a": TENSORS["a"], "b": Code(trace)}, path)
    assert "mkdir" in one_line(tmp_path, "contains pickled code") and not trace.exists()
    with path.open("rb") as file:  # the trap is real
        torch.load(file, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "invalid JSON"),
        ("[]", "expected an object"),
        ("{}", "weight_map"),
        ('{"weight_map": {"a": "../other.safetensors"}}', "files of the same folder"),
        ('{"weight_map": {"a": 3}}', "files of the same folder"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors: missing"),
        ('{"weight_map": {"b": "s.safetensors"}}', "b is not in s.safetensors"),
    ],
)
def test_a_damaged_index_is_named(tmp_path, content, words):
    save_file({"a": TENSORS["a"]}, tmp_path / "s.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(content)
    one_line(tmp_path, words)


def test_headers_that_lie(tmp_path):
    path = tmp_path / "model.safetensors"
    for entry, words in (
        ({"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]}, "not a complete safetensors file"),
        ({"dtype": "F32", "shape": [-2, -2], "data_offsets": [-16, 0]}, "not a complete safetensors file"),
        ({"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}, "not a complete safetensors file"),
        ({"dtype": "F32", "shape": "ab", "data_offsets": [0, 8]}, "not a complete safetensors file"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0]}, "not a complete safetensors file"),
        ({"dtype": "F32"}, "not a complete safetensors file"),
    ):
        header = json.dumps({"a": entry}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
        one_line(tmp_path, words)


def test_nothing_there(tmp_path):
    one_line(tmp_path, "missing from the folder")
    torch.save([TENSORS["a"]], tmp_path / "pytorch_model.bin")
    one_line(tmp_path, "expected tensors by name, found list")

"""Weight files: the same tensors as safetensors and torch give, and one clear line for everything that is damaged.
Names: files of every generation give the same weights, and every tensor is accounted for.

    pytest tests/test_weights.py
"""

import json
import os
import pickle
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from closeness import assert_equal
from safetensors.torch import save_file
from test_model import SMALL, build

from luke_mini import model_tools, weights
from luke_mini.model import LukeForPretraining
from luke_mini.weights import ENTITY_TABLES, TIED, WORD_TABLES, canonical_name, from_released, stack, to_released

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


# --- Files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["safetensors", "bin", "old bin", "safetensors shards", "bin shards", "module", "state_dict"])
def folder(request, tmp_path):
    """The tensors, written in every way that is read."""
    kind = request.param
    if kind == "safetensors":
        save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt"})
    elif kind in ("module", "state_dict"):  # DeepSpeed, Lightning
        torch.save({kind: TENSORS, "epoch": 3}, tmp_path / "pytorch_model.bin")
    elif "shards" not in kind:
        torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "bin")
    else:
        name, save = ("model.safetensors", save_file) if kind[0] == "s" else ("pytorch_model.bin", torch.save)
        shards = {f"{i}-{name}": dict(list(TENSORS.items())[i::2]) for i in range(2)}
        for shard, part in shards.items():
            save(part, tmp_path / shard)
        index = {"metadata": {}, "weight_map": {key: shard for shard, part in shards.items() for key in part}}
        (tmp_path / f"{name}.index.json").write_text(json.dumps(index))
    return tmp_path


def test_every_kind_gives_the_same_tensors(folder):
    found = values(weights.read_folder(folder))
    assert_equal(found, {name: as_float(tensor) for name, tensor in TENSORS.items()})
    assert {name: tensor.dtype for name, tensor in found.items()} == {n: as_float(t).dtype for n, t in TENSORS.items()}


def test_stack_takes_any_precision():
    one, two = TENSORS["a"], TENSORS["a"].half() * 2
    assert torch.equal(stack([one, two]), torch.cat([one, two.float()]))
    assert torch.equal(stack([two, one]), torch.cat([two.float(), one])) and stack([two, two]).dtype == torch.float32


def one_line(folder, pattern: str) -> str:
    with pytest.raises(ValueError, match=pattern) as error:
        values(weights.read_folder(folder))
    message = str(error.value)
    assert "\n" not in message and len(message) < 400 and str(folder) in message
    return message


def save_as(kind: str, tensors: dict, folder):
    path = folder / ("model.safetensors" if kind == "safetensors" else "pytorch_model.bin")
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "bin")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "bin", "old bin"])
def test_a_file_cut_short_anywhere_is_named(kind, tmp_path):
    path = save_as(kind, TENSORS, tmp_path)
    whole = path.read_bytes()
    for size in [0, 3, 8, 20, 100, len(whole) // 2, len(whole) - (1 if kind == "safetensors" else 100)]:
        path.write_bytes(whole[:size])
        one_line(tmp_path, f"{path.name}: " + "not a complete safetensors file" * (kind == "safetensors"))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_random_bytes_never_get_through(kind, tmp_path):
    rng, path = random.Random(0), save_as(kind, TENSORS, tmp_path)
    whole = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(min(len(whole), 900))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            values(weights.read_folder(tmp_path))
        except ValueError as error:
            assert "\n" not in str(error) and path.name in str(error)


class Code:
    """A pickle that would leave a trace if it was executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_no_container_and_no_protocol_runs_code(tmp_path, protocol):
    """A weight file of torch's new and old kind, a bare pickle; as a shard, and in archives of the original code."""
    trace, held = tmp_path / "trace", {"a": TENSORS["a"], "b": Code(tmp_path / "trace")}
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "pytorch_model.bin"
    for write in (
        lambda: torch.save(held, path, pickle_protocol=protocol),
        lambda: torch.save(held, path, pickle_protocol=protocol, _use_new_zipfile_serialization=False),
        lambda: path.write_bytes(pickle.dumps({"a": Code(trace)}, protocol=protocol)),
    ):
        write()
        one_line(path.parent, "pytorch_model.bin: ")
        shard = path.rename(tmp_path / "m" / "s.bin")
        index = tmp_path / "m" / "pytorch_model.bin.index.json"
        index.write_text('{"weight_map": {"a": "s.bin"}}')
        one_line(path.parent, "s.bin: ")
        index.unlink()
        shard.rename(path)
        (path.parent / "metadata.json").write_text("{}")
        for kind in ("", ".gz", ".bz2", ".xz"):
            with tarfile.open(tmp_path / f"a.tar{kind}", f"w:{kind[1:]}") as archive:
                archive.add(path.parent, "m")
            with pytest.raises(ValueError, match="pytorch_model.bin: "), model_tools.unpacked(Path(archive.name)) as folder:
                model_tools.read_original(folder, None, folder)
        (path.parent / "metadata.json").unlink()
    assert not trace.exists()


def test_a_pickle_with_code_is_not_executed(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "pytorch_model.bin"
    held = {"a": TENSORS["a"], "b": Code(trace)}
    for write in (
        lambda: torch.save(held, path, _use_new_zipfile_serialization=False),
        lambda: path.write_bytes(pickle.dumps({"a": Code(trace)})),
        lambda: path.write_bytes(pickle.dumps(Code(trace), protocol=0)),
        lambda: torch.save(held, path),
    ):
        write()
        message = one_line(tmp_path, "pytorch_model.bin: ")
        assert not trace.exists()
    assert "contains pickled code" in message and "mkdir" in message
    torch.load(path, weights_only=False)  # the trap is real
    assert trace.exists()


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "invalid JSON"),
        ("[]", "expected an object"),
        ("{}", "weight_map"),
        ('{"weight_map": {}}', "files of the same folder"),
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


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [-2, -2], "data_offsets": [-16, 0]},
        {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]},
        {"dtype": "F32", "shape": "ab", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": "F32"},
    ],
)
def test_headers_that_lie(entry, tmp_path):
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    one_line(tmp_path, "not a complete safetensors file")


def test_nothing_there(tmp_path):
    one_line(tmp_path, "missing from the folder")
    torch.save([TENSORS["a"]], tmp_path / "pytorch_model.bin")
    one_line(tmp_path, "expected tensors by name, found list")


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        weights.save_tensors({"a": TENSORS["a"]}, tmp_path / "nowhere/model.safetensors")
    weights.save_tensors({"a": TENSORS["a"].T}, tmp_path / "model.safetensors")
    assert torch.equal(weights.read_folder(tmp_path)["a"], TENSORS["a"].T)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_saved_file_may_be_read_by_those_who_may_read_any_new_file(tmp_path, umask):
    old = os.umask(umask)
    try:
        weights.save_tensors({"a": TENSORS["a"]}, tmp_path / "model.safetensors")
        (tmp_path / "other").touch()
    finally:
        os.umask(old)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


# --- Names ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own():
    """The weights of a model, under our names."""
    return build(SMALL, LukeForPretraining).state_dict()


@pytest.fixture
def released(own):
    """The same as in a released file, decoders included."""
    tensors = to_released(own, SMALL)
    return tensors | {decoder: tensors[table] for decoder, table in TIED.items()}


def test_names_of_older_files():
    for old, new in {
        "encoder.layer.0.output.LayerNorm.gamma": "luke.encoder.layer.0.output.LayerNorm.weight",
        "module.embeddings.LayerNorm.beta": "luke.embeddings.LayerNorm.bias",
        "feature_extractor.embedder.luke_model.pooler.dense.bias": "luke.pooler.dense.bias",
        "typing.weight": "classifier.weight",
        "scorer.bias": "classifier.bias",
        "span_scoring_layer.weight": "classifier.weight",
        "qa_outputs.bias": "classifier.bias",
        "luke.encoder.layer.1.attention.self.w2e_query.bias": "luke.encoder.layer.1.attention.self.w2e_query.bias",
        "lm_head.layer_norm.weight": "lm_head.layer_norm.weight",
        "bert.encoder.layer.0.output.LayerNorm.gamma": "luke.encoder.layer.0.output.LayerNorm.weight",
        "cls.predictions.transform.LayerNorm.beta": "lm_head.layer_norm.bias",
        "cls.predictions.decoder.weight": "lm_head.decoder.weight",
    }.items():
        assert canonical_name(old) == new


@pytest.mark.parametrize("entity_aware", [True, False])
@pytest.mark.parametrize("changes", [{}, {"entity_emb_size": 32}, {"mask_entity_id": 2}], ids=str)
def test_there_and_back(changes, entity_aware):
    config = replace(SMALL, use_entity_aware_attention=entity_aware, **changes)
    own = build(config, LukeForPretraining).state_dict()
    tensors = to_released(own, config)
    assert_equal(from_released(tensors, config), own)
    assert weights.unexpected_names(tensors, config) == []
    assert len(tensors) == sum(map(len, weights.name_table(config).values())) - 2  # no classifier
    bare = to_released(own, config, "LukeModel")
    assert bare.keys() == {name.removeprefix("luke.") for name in tensors}
    head = {"classifier.weight": torch.ones(2, 3)}
    assert to_released(head, config, "LukeForQuestionAnswering").keys() == {"qa_outputs.weight"}


WRAPPERS = ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.module._orig_mod."]
GENERATIONS = {
    "bare": lambda name: name.removeprefix("luke."),
    **{wrapper: lambda name, first=wrapper: first + name for wrapper in WRAPPERS},
    **{f"{wrapper}bare": lambda name, first=wrapper: first + name.removeprefix("luke.") for wrapper in WRAPPERS},
    "one layer compiled": lambda name: name.replace("layer.1.", "layer.1._orig_mod."),
    "gamma": lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma"),
    "beta": lambda name: name.replace("LayerNorm.bias", "LayerNorm.beta"),
    "no decoders": lambda name: None if "decoder" in name else name,
    "decoders alone": lambda name: None if name in TIED.values() else name,
}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_files_of_every_generation_are_read_alike(generation, own, released):
    renamed = {GENERATIONS[generation](name): tensor for name, tensor in released.items()}
    renamed.pop(None, None)
    found = from_released(renamed, SMALL)
    assert_equal(found, own)
    assert weights.unexpected_names(renamed, SMALL) == weights.unexpected_names(renamed, SMALL, found) == []


@pytest.mark.parametrize("decoder", TIED)
def test_a_decoder_that_differs_from_its_table_is_named(decoder, own, released):
    """LUKE scores with the tables; another decoder gives other scores, which nobody gets without a word. The last value
    counts, and so do shapes; types that round alike do not."""
    released[decoder] = released[decoder].clone()
    released[decoder].view(-1)[-1] += 0.25
    assert weights.tied(released) == [name for name in TIED if name != decoder]
    found = from_released(released, SMALL)
    assert_equal(found, own)
    for read in (None, found):
        assert weights.unexpected_names(released, SMALL, read) == [f"{decoder} (differs from {TIED[decoder]})"]
    table = released[TIED[decoder]]
    assert not weights.tied({decoder: table[:-1], TIED[decoder]: table})
    assert weights.tied({decoder: table.half(), TIED[decoder]: table.half().float()}) == [decoder]


def test_tensors_without_a_place_are_named_and_known_ones_without_use_are_not(own, released):
    layer = "module.encoder.layer.7"  # the model has two
    expected = ["mystery", f"{layer}.output.dense.bias", f"{layer}.attention.self.w2e_query.bias"]
    released |= {"luke.embeddings.position_ids": torch.arange(514)[None], **dict.fromkeys(expected, torch.zeros(3))}
    assert weights.unexpected_names(released, SMALL) == expected
    plain = replace(SMALL, use_entity_aware_attention=False)
    assert weights.unexpected_names(released, plain) == expected
    size = SMALL.hidden_size
    changed = {name: own[name][:size] for name in own if ".w2w_w2e." in name}
    assert_equal(from_released(released, plain), {n: t for n, t in own.items() if ".e2w_e2e." not in n} | changed)


def test_missing_weights_are_named_in_one_line(released):
    del released["luke.encoder.layer.1.output.dense.bias"]
    with pytest.raises(ValueError, match="^the weight luke.encoder.layer.1.output.dense.bias is missing$"):
        from_released(released, SMALL)
    for name in [name for name in released if "layer.0.attention" in name]:
        del released[name]
    with pytest.raises(ValueError, match=r"^17 weights are missing: luke.encoder.layer.0(.*, ){4}.* and 12 more$"):
        from_released(released, SMALL)
    five = [name for name in released if name.startswith("luke.embeddings.")]
    assert len(five) == 5 and weights.missing_message(five) == f"5 weights are missing: {', '.join(five)}"
    released["module.lm_head.bias"] = released["lm_head.bias"]
    with pytest.raises(ValueError, match="the weight lm_head.bias appears twice"):
        from_released(released, SMALL)


def test_parts_that_not_every_model_has_may_be_missing(own, released):
    kept = {name: t for name, t in released.items() if name.startswith("luke.") and "pooler" not in name}
    inner = {name: t for name, t in own.items() if "head." not in name and "pooler" not in name}
    assert_equal(from_released(kept, SMALL), inner)
    with pytest.raises(ValueError, match="weights are missing: luke.pooler.dense.weight"):
        from_released(kept, SMALL, optional=("word_head.", "entity_head.", "classifier."))


def test_an_embedding_of_mask_starts_as_its_row(own, released):
    found = from_released(released, replace(SMALL, mask_entity_id=7))
    assert_equal(found, own | {"luke.entities.mask": own["luke.entities.entity.weight"][7]})
    found["luke.entities.mask"].zero_()
    assert own["luke.entities.entity.weight"][7].any()


def test_rows_are_appended_as_copies(released):
    before, half = dict(released), {WORD_TABLES[1]: torch.arange(4).half()}
    weights.append_rows(released, WORD_TABLES, [7, 8])
    weights.append_rows(released, ENTITY_TABLES, [2])
    weights.append_rows(half, WORD_TABLES, [3])
    grown = dict.fromkeys(WORD_TABLES, [7, 8]) | dict.fromkeys(ENTITY_TABLES, [2])
    expected = {name: torch.cat([before[name], before[name][rows]]) for name, rows in grown.items()}
    assert_equal(released, before | expected)
    assert_equal(half, {WORD_TABLES[1]: torch.tensor([0.0, 1, 2, 3, 3])})

"""Model folders: what is saved comes back, what is missing or damaged is named in one line.

pytest tests/test_checkpoint.py
"""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from closeness import assert_same, generator, seeded
from safetensors.torch import load_file, save_file
from test_model import SMALL, build, padded_batch

from luke_mini import checkpoint, config, files, heads, inputs, model_tools, tokenizer, tokenizer_bpe
from luke_mini.entity_vocab import EntityVocab
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining, LukeModel
from luke_mini.weights import TIED, from_released, to_released


@pytest.fixture(scope="module")
def folder(toy_data, tmp_path_factory):
    words, entities = tokenizer.load(toy_data / "tokenizer"), EntityVocab.load(toy_data / "entity_vocab.jsonl")
    shape = replace(config.TINY, vocab_size=len(words), entity_vocab_size=len(entities), num_hidden_layers=2)
    model = LukeForPretraining(shape)
    initialize(model, shape, seeded(3))
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
    with pytest.raises(ValueError, match="config.json, line 1, column 2: invalid JSON"):
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


def rewrite(folder, change) -> None:
    """Lets `change` edit the tensors of a folder's weight file."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_missing_weights_are_all_named_in_one_line(copy):
    rewrite(copy, lambda tensors: tensors.pop("luke.encoder.layer.1.output.dense.bias"))
    with pytest.raises(ValueError, match="the weight luke.encoder.layer.1.output.dense.bias is missing"):
        checkpoint.read(copy)
    rewrite(copy, lambda tensors: [tensors.pop(name) for name in list(tensors) if "layer.0.attention" in name])
    with pytest.raises(ValueError, match="17 weights are missing: luke.encoder.layer.0.*and 12 more") as error:
        checkpoint.read(copy)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_a_missing_head_is_named_by_the_model_that_needs_it(copy):
    rewrite(copy, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("lm_head.")])
    assert "entity_head.bias" in checkpoint.read(copy).weights
    with pytest.raises(ValueError, match="5 weights are missing: lm_head.bias, lm_head.dense.weight"):
        checkpoint.load(copy)
    settings = json.loads((copy / "config.json").read_text()) | {"architectures": ["LukeForEntityClassification"]}
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="the weight classifier.weight is missing"):
        checkpoint.load(copy)
    (copy / "config.json").write_text(json.dumps(settings | {"architectures": ["BertModel"]}))
    with pytest.raises(ValueError, match="architectures names BertModel"):
        checkpoint.load(copy)
    (copy / "config.json").write_text(json.dumps(settings | {"architectures": None}))
    assert isinstance(checkpoint.load(copy)[0], LukeModel)
    (copy / "config.json").write_text(json.dumps(settings | {"hidden_size": "128"}))
    with pytest.raises(ValueError, match="hidden_size is '128', expected"):
        checkpoint.load(copy)


def test_unknown_tensors_are_listed_and_known_ones_without_use_are_not(copy, capsys):
    def change(tensors):
        tensors["luke.embeddings.position_ids"] = torch.arange(514)[None]
        tensors["luke.encoder.layer.7.output.dense.bias"] = torch.zeros(3)
        tensors["mystery"] = torch.zeros(1)

    rewrite(copy, change)
    assert set(checkpoint.read(copy).unexpected) == {"luke.encoder.layer.7.output.dense.bias", "mystery"}
    assert not checkpoint.read(copy, entity_aware=False).weights.keys() & {"luke.layers.0.attention.entity_query.bias"}
    assert set(checkpoint.read(copy, entity_aware=False).unexpected) == set(checkpoint.read(copy).unexpected)
    model_tools.main(["lite", str(copy), str(copy) + "-lite"])
    model_tools.main(["info", str(copy)])
    said = capsys.readouterr().out
    assert "not part of any LUKE model: " in said and said.count("mystery") == 2 and "position_ids" not in said


WRAPPERS = ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.module._orig_mod."]
TABLES = ("luke.embeddings.word_embeddings.weight", "luke.entity_embeddings.entity_embeddings.weight")


def test_files_of_every_generation_load_alike(folder, copy):
    """Without `luke.`, wrapped, as a pickle, with gamma and beta, with one of two tied tensors: the same weights."""
    expected = checkpoint.read(folder).weights
    tensors = load_file(copy / "model.safetensors")
    tensors["entity_predictions.decoder.weight"] = tensors[TABLES[1]]
    bare = {name.removeprefix("luke."): tensor for name, tensor in tensors.items()}
    (copy / "model.safetensors").unlink()
    for old in (
        bare,
        *({wrapper + name: tensor for name, tensor in file.items()} for wrapper in WRAPPERS for file in (tensors, bare)),
        {name.replace("layer.1.", "layer.1._orig_mod."): tensor for name, tensor in tensors.items()},  # compiled alone
        {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()},
        {name: tensor for name, tensor in tensors.items() if "decoder" not in name},
        {name: tensor for name, tensor in tensors.items() if name not in ("lm_head.bias", *TABLES)},  # decoders alone
        {"state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()}, "epoch": 3},
    ):
        torch.save(old, copy / "pytorch_model.bin")
        found = checkpoint.read(copy)
        assert not found.unexpected and found.weights.keys() == expected.keys()
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.items())


def test_a_table_that_is_a_decoder_alone_has_its_shape_checked(copy):
    def change(tensors):
        tensors["lm_head.decoder.weight"] = tensors.pop(TABLES[0])[:-1].clone()

    rewrite(copy, change)
    with pytest.raises(ValueError, match=r"word_embeddings.weight has the shape \[\d+, 128\], expected"):
        checkpoint.read(copy)


def test_the_same_weight_under_two_names_is_an_error(copy):
    rewrite(copy, lambda tensors: tensors.update({"module.lm_head.bias": tensors["lm_head.bias"] + 1}))
    with pytest.raises(ValueError, match="the weight lm_head.bias appears twice"):
        checkpoint.read(copy)


@pytest.mark.parametrize("decoder", TIED)
def test_a_decoder_that_differs_from_its_table_is_named(decoder, folder, copy, tmp_path, capsys):
    """LUKE scores with the tables; another decoder gives other scores, which nobody gets without a word."""

    def change(tensors):
        tensors["entity_predictions.decoder.weight"] = tensors[TABLES[1]].clone()
        tensors[decoder] = tensors[decoder].clone()
        tensors[decoder].view(-1)[-1] += 0.25

    rewrite(copy, change)
    found = checkpoint.read(copy)
    (named,) = found.unexpected
    assert named == f"{decoder} (differs from {TIED[decoder]})"
    with pytest.warns(UserWarning, match=f"ignored, not part of any LUKE model: {decoder}"):
        checkpoint.load(copy)
    expected = checkpoint.read(folder).weights
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.items())
    model_tools.main(["info", str(copy)])
    model_tools.main(["convert", str(copy), str(tmp_path / "out")])
    assert capsys.readouterr().out.count(named) == 2
    assert not checkpoint.read(tmp_path / "out").unexpected  # what is written is tied


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_config_json_says_which_type_is_written(dtype, key, copy, tmp_path):
    """Halves become float32 when they are read; config.json then says so, whatever it said."""
    rewrite(copy, lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    settings = json.loads((copy / "config.json").read_text())
    del settings["dtype"]
    (copy / "config.json").write_text(json.dumps(settings | {key: str(dtype).removeprefix("torch.")}))
    for command in ("lite", "convert"):
        model_tools.main([command, str(copy), str(tmp_path / command)])
        settings = json.loads((tmp_path / command / "config.json").read_text())
        (written,) = {tensor.dtype for tensor in load_file(tmp_path / command / "model.safetensors").values()}
        assert f"torch.{settings['dtype']}" == str(written) and "torch_dtype" not in settings
    model = checkpoint.load(tmp_path / "convert")[0].to(dtype)
    checkpoint.save(tmp_path / "model", model, None, None)
    settings = json.loads((tmp_path / "model/config.json").read_text())
    assert f"torch.{settings['dtype']}" == str(dtype)


def test_a_vocabulary_larger_than_its_table_is_named(folder, copy):
    keys = json.loads((copy / "entity_vocab.json").read_text())
    (copy / "entity_vocab.json").write_text(json.dumps(keys | {"A new one": len(keys)}))
    with pytest.raises(ValueError, match=f"entity_vocab_size is {len(keys)}, but the vocabulary has {len(keys) + 1}"):
        checkpoint.read(copy)
    (copy / "entity_vocab.json").write_text(json.dumps(keys))
    settings = json.loads((copy / "config.json").read_text())
    rows = settings["vocab_size"] - 1
    (copy / "config.json").write_text(json.dumps(settings | {"vocab_size": rows}))
    words = ("lm_head.bias", "lm_head.decoder.bias", "lm_head.decoder.weight", TABLES[0])
    rewrite(copy, lambda tensors: tensors.update({name: tensors[name][:rows].clone() for name in words}))
    with pytest.raises(ValueError, match=f"vocab_size is {rows}, but the vocabulary has {rows + 1} entries"):
        checkpoint.read(copy)


def test_classes_without_names_have_those_of_transformers(folder):
    shape = checkpoint.read(folder).config

    def names(architecture, classes, **settings):
        weights = {"classifier.weight": torch.zeros(classes, 2)} if classes else {}
        settings |= {"architectures": [architecture]}
        return checkpoint.class_names(checkpoint.Checkpoint(shape, weights, None, None, settings))

    assert names("LukeForSequenceClassification", 3, num_labels=3) == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert names("LukeForEntityClassification", 2, id2label={"1": "b", "0": "a"}) == ("a", "b")
    assert names("LukeForEntitySpanClassification", 2, id2label={}) == ("LABEL_0", "LABEL_1")
    for kind, classes in (("MultipleChoice", 1), ("QuestionAnswering", 2), ("MaskedLM", 0)):
        assert names(f"LukeFor{kind}", classes, id2label={"0": "a", "1": "b", "2": "c"}) == ()
    for wrong in ({"0": "a"}, {"0": "a", "1": "b", "2": "c"}, {"a": 0, "b": 1}, ["a", "b"]):
        with pytest.raises(ValueError, match="id2label does not name the 2 classes 0 to 1"):
            names("LukeForSequenceClassification", 2, id2label=wrong)


def test_the_class_follows_the_architecture(folder, tmp_path):
    words, entities = tokenizer.load(folder), EntityVocab.load(folder / "entity_vocab.json")
    shape = checkpoint.read(folder).config
    for architecture in heads.HEADS:
        model = heads.LukeForTask(shape, architecture, 4, problem_type="regression")
        initialize(model, shape, 1)
        settings = {"id2label": {str(i): label for i, label in enumerate("ABCD")}, "_name_or_path": "mine"}
        checkpoint.save(tmp_path / architecture, model, words, entities, settings)
        again, _, vocab = checkpoint.load(tmp_path / architecture)
        assert (again.architecture, again.problem_type, again.training) == (architecture, "regression", False)
        assert again.classifier.out_features == 4 and len(vocab) == len(entities)
        assert all(torch.equal(again.state_dict()[name], t) for name, t in model.state_dict().items())
        kept = json.loads((tmp_path / architecture / "config.json").read_text())
        assert kept["id2label"]["3"] == "D" and kept["_name_or_path"] == "mine"
        names = load_file(tmp_path / architecture / "model.safetensors").keys()
        assert ("luke.pooler.dense.weight" in names) == again.head.pooler
        assert ("qa_outputs.weight" in names) == (architecture == "LukeForQuestionAnswering")


@pytest.mark.parametrize("bias", [True, False])
def test_the_bias_of_a_pair_head_is_there_if_the_file_has_it(bias, folder, copy):
    """mLUKE's model for KBP37 was trained with one, against the class."""
    shape = checkpoint.read(folder).config
    model = build(shape, lambda shape: heads.LukeForTask(shape, "LukeForEntityPairClassification", 3, bias=bias))
    checkpoint.write(copy, model, None, None)
    settings = json.loads((copy / "config.json").read_text())
    assert settings.get("classifier_bias", False) == bias
    inputs = padded_batch(shape, [6, 7], [2, 2])
    assert torch.equal(checkpoint.load(copy)[0](**inputs)[1], model(**inputs)[1])
    settings.pop("classifier_bias", None)  # the key alone decides, too
    (copy / "config.json").write_text(json.dumps(settings))
    assert torch.equal(checkpoint.load(copy)[0](**inputs)[1], model(**inputs)[1])
    rewrite(copy, lambda tensors: tensors.pop("classifier.bias", None))
    (copy / "config.json").write_text(json.dumps(settings | {"classifier_bias": True}))
    with pytest.raises(ValueError, match="the weight classifier.bias is missing"):
        checkpoint.load(copy)


def test_loading_leaves_the_checkpoint_alone(folder):
    """`fill` copies into a model that has memory; only a model without any takes the tensors themselves."""
    found = checkpoint.read(folder)
    model = LukeForPretraining(found.config)
    checkpoint.fill(model, found.weights)
    with torch.no_grad():
        model.luke.words.token.weight.zero_()
    assert found.weights["luke.words.token.weight"].any()
    built = checkpoint.build(found)
    assert built.luke.words.token.weight.data_ptr() == found.weights["luke.words.token.weight"].data_ptr()
    assert all(parameter.requires_grad for parameter in built.parameters())


@pytest.mark.parametrize("entity_size", [12, 32])
@pytest.mark.parametrize("entity_aware", [True, False])
def test_lite_gives_the_same_bits_for_mask(entity_size, entity_aware):
    """Words, entities and the scores of a head, with [MASK], [MASK2], [UNK] as inputs, whatever their ids are."""
    shape = replace(SMALL, entity_emb_size=entity_size, use_entity_aware_attention=entity_aware)
    titles = [f"Title {i}" for i in range(shape.entity_vocab_size)]
    titles[7], titles[3], titles[0], titles[39] = "[MASK]", "[UNK]", "[PAD]", "[MASK2]"
    vocab = EntityVocab.from_titles(titles)
    model = build(shape, LukeForPretraining).double()
    full = checkpoint.Checkpoint(shape, model.state_dict(), None, vocab, {"architectures": ["LukeForMaskedLM"]})
    small = checkpoint.build(checkpoint.lite(full))
    inputs = padded_batch(shape, [11, 4, 8], [3, 0, 5], seed=3)
    choice = torch.randint(0, 3, inputs["entity_ids"].shape, generator=generator())
    ids = {"full": torch.tensor([7, 39, 3])[choice], "lite": torch.tensor([0, 3, 1])[choice]}
    before = model.luke(**(inputs | {"entity_ids": ids["full"]}))
    after = small.luke(**(inputs | {"entity_ids": ids["lite"]}))
    assert all(torch.equal(one, other) for one, other in zip(before, after))
    scores = model.entity_head(before[1], model.luke.entities.entity.weight)[..., [7, 3, 0, 39]]
    assert_same(small.entity_head(after[1], small.luke.entities.entity.weight), scores)
    without = replace(full, entity_vocab=EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]"]))
    with pytest.raises(ValueError, match=r"no \[MASK2\]"):
        checkpoint.lite(without)


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
    for step in ("step-999999", "step-1000000"):
        shutil.copytree(folder, tmp_path / step)
    assert checkpoint.find_folder(tmp_path) == tmp_path / "step-1000000"
    assert checkpoint.find_folder(folder) == folder
    with pytest.raises(ValueError, match="no config.json"):
        checkpoint.find_folder(tmp_path / "nothing")


def test_a_folder_is_whole_or_absent(tmp_path):
    target = tmp_path / "folder"
    with pytest.raises(RuntimeError), files.write_folder(target) as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with files.write_folder(target) as temporary:
            (temporary / "file").write_text(text)
    assert (target / "file").read_text() == "second" and list(tmp_path.iterdir()) == [target]
    with pytest.raises(RuntimeError), files.write_file(target / "file") as file:
        file.write("half")
        raise RuntimeError
    assert (target / "file").read_text() == "second" and list(target.iterdir()) == [target / "file"]


def test_a_full_disk_is_named_and_other_errors_keep_their_words(tmp_path):
    target = tmp_path / "file"
    full, other = OSError(28, "No space left on device"), ChildProcessError("it died")
    for error, words in ((full, str(target)), (other, "it died")):
        with pytest.raises(OSError, match=words), files.write_file(target):
            raise error
    assert list(tmp_path.iterdir()) == []


def test_transformers_reads_a_text_with_our_folder(tmp_path):
    """Tokenizer files, entity vocabulary and weights together: the same ids and the same hidden states from a text."""
    transformers = pytest.importorskip("transformers", reason="the oracle `transformers` is not installed")
    texts = ["Ada Lovelace wrote the first program in London.", "The program ran in London, and Ada saw it."] * 3
    words = tokenizer_bpe.train(texts, 330, tmp_path / "words")
    vocab = EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]", "Ada Lovelace", "London", "[MASK2]"])
    shape = replace(SMALL, vocab_size=len(words), entity_vocab_size=len(vocab))
    model = build(shape)
    checkpoint.save(tmp_path / "model", model, words, vocab)
    theirs, model = transformers.LukeModel.from_pretrained(tmp_path / "model").eval().double(), model.double()
    read = transformers.LukeTokenizer.from_pretrained(tmp_path / "model")
    text, spans, titles = texts[0], [(0, 12), (40, 46)], ["Ada Lovelace", "London"]
    given = read(text, entity_spans=spans, entities=titles, return_tensors="pt")
    made = inputs.collate([inputs.encode(words, vocab, text, entity_spans=spans, entities=titles)])
    for name in ("input_ids", "entity_ids", "entity_position_ids"):
        assert given[name].tolist() == made[name].tolist()
    with torch.no_grad():
        out = theirs(**given)
        for mine, other in zip(model(**made), (out.last_hidden_state, out.entity_last_hidden_state)):
            assert_same(mine, other)


# --- Command line -----------------------------------------------------------------------------------------------------


def test_lite_from_the_command_line_and_what_info_says(folder, tmp_path, capsys):
    model_tools.main(["lite", str(folder), str(tmp_path / "lite")])
    capsys.readouterr()
    model_tools.main(["info", str(tmp_path / "lite")])
    said = capsys.readouterr().out
    model, words, entities = checkpoint.load(tmp_path / "lite")
    assert len(entities) == 4 and len(words) == model.config.vocab_size
    assert f"weights     {sum(p.numel() for p in model.parameters()):,}, of them 256 entity embeddings" in said
    assert "[PAD] 2, [UNK] 1, [MASK] 0, [MASK2] 3" in said and "masked words, masked entities" in said
    full, small = checkpoint.read(folder), checkpoint.read(tmp_path / "lite")
    for name, tensor in small.weights.items():
        if name not in ("luke.entities.entity.weight", "entity_head.bias"):
            assert torch.equal(tensor, full.weights[name])
    assert json.loads((tmp_path / "lite/entity_vocab.json").read_text()) == {
        "[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "[MASK2]": 3,
    }  # fmt: skip


def test_convert_of_a_pretraining_run(folder, tmp_path):
    """The newest step; markers get their start, and the three further queries, if it was pretrained without them."""
    found = checkpoint.read(folder, entity_aware=False)
    plain = LukeForPretraining(found.config)
    initialize(plain, found.config, 5)
    for step in ("step-000009", "step-000010"):
        checkpoint.save(tmp_path / "run" / step, plain, found.tokenizer, found.entity_vocab)
        (tmp_path / "run" / step / "run.json").write_text("{}")
    model_tools.main(["convert", str(tmp_path / "run"), str(tmp_path / "out")])
    made = checkpoint.read(tmp_path / "out")
    words, vocab = made.tokenizer, made.entity_vocab
    at, number = (words.encode(sign, prefix_space=False).ids[-1] for sign in "@#")
    expected = from_released(to_released(plain.state_dict(), found.config), made.config)
    for table in ("luke.words.token.weight", "word_head.bias"):
        expected[table][[words.ent_id, words.ent2_id]] = expected[table][[at, number]]
    for table in ("luke.entities.entity.weight", "entity_head.bias"):
        expected[table][vocab.mask2_id] = expected[table][vocab.mask_id]
    assert made.config.use_entity_aware_attention and made.weights.keys() == expected.keys()
    assert all(torch.equal(made.weights[name], tensor) for name, tensor in expected.items())

    model_tools.main(["convert", str(folder), str(tmp_path / "same"), "--no-entity-aware"])
    same = checkpoint.read(tmp_path / "same")  # of a model folder, the markers may have been trained
    assert all(torch.equal(same.weights[name], tensor) for name, tensor in found.weights.items())


def test_errors_are_one_line_and_status_2(run_script, copy, tmp_path):
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-9])
    for arguments, status, words in (
        (["info", copy], 2, "not a complete safetensors file"),
        (["lite", copy, tmp_path / "out"], 2, "not a complete safetensors file"),
        (["convert", tmp_path / "nothing", tmp_path / "out"], 2, "no such file or folder"),
        (["lite", "--help"], 0, ""),
    ):
        done = run_script("luke_mini.model_tools", *arguments)
        assert done.returncode == status and words in done.stderr
        assert done.stderr.count("\n") == (status == 2) and not (tmp_path / "out").exists()

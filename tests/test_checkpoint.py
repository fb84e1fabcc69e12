"""Model folders: what is saved comes back, what is missing or damaged is named in one line.

pytest tests/test_checkpoint.py
"""

import json
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from closeness import assert_equal, assert_same, generator
from safetensors.torch import load_file, save_file
from test_initialization import words_with_tokenizer
from test_model import SMALL, build, padded_batch

from luke_mini import checkpoint, files, heads, model_tools, packing, tokenizer
from luke_mini.entity_vocab import EntityVocab
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining, LukeModel


@pytest.fixture(scope="module")
def folder(tiny_checkpoint):
    return tiny_checkpoint


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def rewrite(folder, change) -> None:
    """Lets `change` edit the tensors of a folder's weight file."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def settings_of(folder, **changes) -> dict:
    """The folder's config.json, which keeps the changes."""
    settings = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(settings))
    return settings


def refused(folder, message: str, read=checkpoint.load) -> None:
    """One line that names the folder."""
    with pytest.raises(ValueError, match=message) as error:
        read(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("read", [checkpoint.load, checkpoint.start_from_words])
def test_a_released_model_that_is_not_there_yet(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    hint = "; to download it: hf download {}/{} --local-dir {}"
    for name, said in {
        "mluke-base": hint.format("studio-ousia", "mluke-base", "mluke-base"),
        "studio-ousia/luke-large": hint.format("studio-ousia", "luke-large", "studio-ousia/luke-large"),
        "xlm-roberta-base": hint.format("FacebookAI", "xlm-roberta-base", "xlm-roberta-base"),
        "runs/toyworld-ner": "; the README's first command makes it",
        "mine": "", "runs/luke-x": "", "other/luke-base": "",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name}: no such folder{said}$"):
            read(name)


def test_saving_what_was_loaded_gives_equal_tensors(folder, tmp_path):
    model, words, entities = checkpoint.load(folder)
    checkpoint.save(tmp_path / "again", model, words, entities)
    first, again = checkpoint.read(folder), checkpoint.read(tmp_path / "again")
    assert again.config == first.config and first.weights.keys() == model.state_dict().keys()
    assert_equal(again.weights, first.weights)
    text = "The firm moved to the coast."
    assert again.tokenizer.encode(text) == words.encode(text)
    first, again = ([vocab.title(i) for i in range(len(vocab))] for vocab in (entities, again.entity_vocab))
    assert again == first


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "entity_vocab.json", "vocab.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    refused(copy, name, checkpoint.read)


def test_damaged_files_are_named(copy):
    whole = (copy / "model.safetensors").read_bytes()
    for damaged in (whole[:-1000], whole[:5], b"", pickle.dumps({"a": 1})):
        (copy / "model.safetensors").write_bytes(damaged)
        refused(copy, "model.safetensors: ", checkpoint.read)
    for text, message in (("{", "json, line 1, column 2: invalid JSON"), ('{"model_type": "bert"}', "type is 'bert'")):
        (copy / "config.json").write_text(text)
        refused(copy, message, checkpoint.read)


def test_weights_and_settings_that_do_not_fit_are_named(copy):
    """Also a table that is there as its decoder alone."""
    settings = settings_of(copy)
    settings_of(copy, entity_vocab_size=settings["entity_vocab_size"] + 1)
    refused(copy, r"entity_predictions.bias has the shape \[5\], expected \[6\] as config.json says", checkpoint.read)
    settings_of(copy, **settings | {"hidden_size": "128"})
    refused(copy, 'hidden_size is "128", expected an integer', checkpoint.read)
    settings_of(copy, **settings)
    rewrite(copy, lambda tensors: tensors.pop("luke.encoder.layer.1.output.dense.bias"))
    refused(copy, "the weight luke.encoder.layer.1.output.dense.bias is missing", checkpoint.read)
    rewrite(copy, lambda tensors: tensors.update({"lm_head.decoder.weight": tensors.pop(TABLES[0])[:-1].clone()}))
    refused(copy, r"word_embeddings.weight has the shape \[\d+, 32\], expected", checkpoint.read)


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 0}, {"vocab_size": -1}, {"vocab_size": 10**18}, {"hidden_size": -4}, {"hidden_size": 10**400},
        {"intermediate_size": 1.5}, {"pad_token_id": 10**6}, {"pad_token_id": True}, {"eos_token_id": -1},
        {"max_position_embeddings": 0}, {"type_vocab_size": None}, {"num_hidden_layers": 10**9}, {"layer_norm_eps": -1e-5},
        {"layer_norm_eps": float("nan")}, {"hidden_dropout_prob": "x"}, {"attention_probs_dropout_prob": 1},
        {"initializer_range": float("inf")}, {"classifier_dropout": []}, {"mask_entity_id": 5}, {"mask_entity_id": "2"},
        {"use_entity_aware_attention": 1}, {"hidden_act": {}}, {"model_type": []}, {"architectures": 7},
        {"architectures": [None]}, {"id2label": ["A"]}, {"id2label": {"x": "A"}}, {"id2label": {"0": 3}},
        {"luke_mini": 3}, {"classifier_bias": "no"}, {"problem_type": 1}, {"bert_model_name": {}},
    ],
    ids=str,
)  # fmt: skip
def test_entries_of_config_json_out_of_their_range(copy, change):
    settings_of(copy, **change)
    (name,) = change
    refused(copy, name)
    refused(copy, name, model_tools.info)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"vocab_size": 1' + "0" * 5000 + "}"])
def test_json_that_python_cannot_read(copy, text):
    for name in ("config.json", "entity_vocab.json", "vocab.json", "tokenizer_config.json"):
        whole = (copy / name).read_text()
        (copy / name).write_text(text)
        refused(copy, "recursion|nested too deeply|Exceeds the limit|expected a title")
        (copy / name).write_text(whole)


def test_numbers_that_are_not_finite_are_refused_with_their_weight(copy):
    for value in (float("nan"), -float("inf")):
        rewrite(copy, lambda tensors: tensors["luke.encoder.layer.1.output.dense.bias"].__setitem__(3, value))
        refused(copy, "layer.1.output.dense.bias has numbers that are not finite, 1 of 32")


def test_a_missing_head_is_named_by_the_model_that_needs_it(copy):
    rewrite(copy, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("lm_head.")])
    assert "entity_head.bias" in checkpoint.read(copy).weights
    refused(copy, "5 weights are missing: lm_head.bias, lm_head.dense.weight")
    settings_of(copy, architectures=["LukeForEntityClassification"])
    refused(copy, "the weight classifier.weight is missing")
    settings_of(copy, architectures=["BertModel"])
    refused(copy, "architectures names BertModel")
    settings_of(copy, architectures=None)
    assert isinstance(checkpoint.load(copy)[0], LukeModel)


@pytest.mark.parametrize("named", [None, ["LukeModel"]])
def test_a_file_with_both_heads_is_the_pretrained_model_whatever_its_config_names(copy, named):
    settings_of(copy, architectures=named)
    assert isinstance(checkpoint.load(copy)[0], LukeForPretraining)


def test_weights_that_a_model_has_no_place_for(folder):
    """Those of a head are ignored, anything else is refused."""
    found = checkpoint.read(folder)
    encoder = LukeModel(found.config)
    inner = {name.removeprefix("luke."): tensor for name, tensor in found.weights.items()}
    checkpoint.fill(encoder, inner)
    assert_equal(encoder.state_dict(), {name: inner[name] for name in encoder.state_dict()})
    for name, tensor, message in (
        ("words.norm.bias", torch.zeros(3), r"words.norm.bias has the shape \[3\], expected \[32\]$"),
        ("words.norm.scale", torch.zeros(3), "words.norm.scale has no place in the model"),
    ):
        with pytest.raises(ValueError, match=message):
            checkpoint.fill(encoder, inner | {name: tensor})


TABLES = ("luke.embeddings.word_embeddings.weight", "luke.entity_embeddings.entity_embeddings.weight")


def test_tensors_that_are_not_read_are_named_by_every_command(copy, tmp_path, capsys):
    """What no LUKE has, and a decoder that differs from its table; what is written is tied."""

    def change(tensors):
        tensors["mystery"], tensors["luke.embeddings.position_ids"] = torch.zeros(1), torch.arange(514)[None]
        tensors["lm_head.decoder.weight"].view(-1)[-1] += 0.25

    rewrite(copy, change)
    named = f"mystery, lm_head.decoder.weight (differs from {TABLES[0]})"
    assert ", ".join(checkpoint.read(copy).unexpected) == named
    with pytest.warns(UserWarning) as warnings:
        checkpoint.load(copy)
    assert str(warnings[0].message) == f"{copy}: ignored {named}: not part of any LUKE model"
    for command in (["info"], ["lite", str(tmp_path / "lite")], ["convert", str(tmp_path / "out")]):
        model_tools.main([command[0], str(copy), *command[1:]])
        assert f"ignored     {named}" in capsys.readouterr().out
    assert not checkpoint.read(tmp_path / "out").ignored
    model_tools.main(["info", str(tmp_path / "out")])
    assert "ignored     nothing" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_config_json_says_which_type_is_written(dtype, key, copy, tmp_path):
    """Halves become float32 when they are read; config.json then says so, whatever it said."""
    rewrite(copy, lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    settings = {name: value for name, value in settings_of(copy).items() if name != "dtype"}
    (copy / "config.json").write_text(json.dumps(settings | {key: str(dtype).removeprefix("torch.")}))
    model_tools.main(["convert", str(copy), str(tmp_path / "out")])
    settings = settings_of(tmp_path / "out")
    (written,) = {tensor.dtype for tensor in load_file(tmp_path / "out/model.safetensors").values()}
    assert f"torch.{settings['dtype']}" == str(written) and "torch_dtype" not in settings
    checkpoint.save(tmp_path / "model", checkpoint.load(tmp_path / "out")[0].to(dtype), None, None)
    assert f"torch.{settings_of(tmp_path / 'model')['dtype']}" == str(dtype)


def test_a_vocabulary_larger_than_its_table_is_named(folder, copy):
    keys = json.loads((copy / "entity_vocab.json").read_text())
    (copy / "entity_vocab.json").write_text(json.dumps(keys | {"A new one": len(keys)}))
    refused(copy, f"entity_vocab_size is {len(keys)}, but the vocabulary has {len(keys) + 1}")
    (copy / "entity_vocab.json").write_text(json.dumps(keys))
    rows = settings_of(copy)["vocab_size"] - 1
    settings_of(copy, vocab_size=rows)
    words = ("lm_head.bias", "lm_head.decoder.bias", "lm_head.decoder.weight", TABLES[0])
    rewrite(copy, lambda tensors: tensors.update({name: tensors[name][:rows].clone() for name in words}))
    refused(copy, f"vocab_size is {rows}, but the vocabulary has {rows + 1} entries")


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
        assert_equal(again.state_dict(), model.state_dict())
        kept = settings_of(tmp_path / architecture)
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
    settings = settings_of(copy)
    assert settings.get("classifier_bias", False) == bias
    inputs = padded_batch(shape, [6, 7], [2, 2])
    assert torch.equal(checkpoint.load(copy)[0](**inputs)[1], model(**inputs)[1])
    settings.pop("classifier_bias", None)  # the key alone decides, too
    (copy / "config.json").write_text(json.dumps(settings))
    assert torch.equal(checkpoint.load(copy)[0](**inputs)[1], model(**inputs)[1])
    rewrite(copy, lambda tensors: tensors.pop("classifier.bias", None))
    settings_of(copy, classifier_bias=True)
    refused(copy, "the weight classifier.bias is missing")


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


def test_without_pretraining_an_entity_begins_as_a_masked_word(folder, tmp_path):
    own = words_with_tokenizer(tmp_path / "words", tokenizer.load(folder)).double()
    start = checkpoint.start_from_words(tmp_path / "words")
    luke = checkpoint.build(start).eval().double()
    mask_word, mask_entity = start.tokenizer.mask_id, start.entity_vocab.mask_id
    ids, rows = torch.tensor([[0, 17, mask_word, mask_word, 23, 2]]), torch.tensor([[[2, -1]]])
    alone = luke(input_ids=ids, entity_ids=torch.tensor([[mask_entity]]), entity_position_ids=rows)
    packed = packing.from_padded(ids, None, torch.tensor([[mask_entity]]), rows, None, pad_id=1)
    assert torch.equal(luke.entities(packed), luke.words(packed)[2:3])
    with torch.no_grad():
        # Four equal queries: the entity reads what the word of the same embedding reads, and so ends as that does.
        assert_same(alone[1][0, 0], alone[0][0, 2])
        assert_same(luke(input_ids=ids)[0], own.luke(input_ids=ids)[0])
    titles = [start.entity_vocab.title(i) for i in range(len(start.entity_vocab))]
    assert titles == ["[MASK]", "[UNK]", "[PAD]", "[MASK2]"] and start.config.entity_emb_size == 128
    refused(folder, "expected a folder with a config.json whose model_type is one of r", checkpoint.start_from_words)


def test_the_newest_saved_step_of_a_run_is_found(folder, tmp_path):
    for step in ("step-000009", "step-000010"):
        shutil.copytree(folder, tmp_path / step)
    (tmp_path / ".step-000011.0123abcd.tmp").mkdir()
    assert checkpoint.find_folder(tmp_path) == tmp_path / "step-000010"
    for step in ("step-999999", "step-1000000"):
        shutil.copytree(folder, tmp_path / step)
    assert checkpoint.find_folder(tmp_path) == tmp_path / "step-1000000"
    assert checkpoint.find_folder(folder) == folder
    for name, said in (("nothing", "no such folder"), (".step-000011.0123abcd.tmp", "no config.json")):
        with pytest.raises(ValueError, match=said):
            checkpoint.find_folder(tmp_path / name)


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

"""Archives of LUKE's own code become the Hugging Face folder that the published rules describe.

    pytest tests/test_model_tools.py

The archives are made here from random models, under the names of those files. Each rule is checked by itself, and the
numbers of the model are the same before and after. Fine-tuned models are those of tests/fixtures/hf, with the scores
that transformers computed, under AllenNLP's names.
"""

import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import assert_equal, assert_same, seeded
from conftest import ROOT
from fixtures import make_hf_fixtures as oracle
from safetensors.torch import load_file, save_file
from test_heads import recorded
from test_model import SMALL, build, padded_batch

from luke_mini import checkpoint, inference, model_tools, tokenizer
from luke_mini.model import LukeForPretraining
from luke_mini.weights import ENTITY_TABLES, WORD_TABLES, from_released, to_released

TITLES = ["[PAD]", "[UNK]", "[MASK]", "Oslo", "New York City", "Ada"]


@pytest.fixture(scope="module")
def words(tiny_checkpoint):
    return tokenizer.load(tiny_checkpoint)


@pytest.fixture(scope="module")
def given(words, tmp_path_factory):
    """The flag with a folder that holds a tokenizer and nothing else."""
    folder = tmp_path_factory.mktemp("words")
    words.save(folder)
    return "--tokenizer", folder


def shape_of(words, **settings):
    return replace(SMALL, vocab_size=len(words) - 2, entity_vocab_size=len(TITLES), **settings)


def write_archive(folder, config, vocab="tsv", entity_aware=False, wrapped=False, bert=False, language=None):
    """-> (the model, its released tensors), written as LUKE's code writes them."""
    model = build(replace(config, use_entity_aware_attention=entity_aware), LukeForPretraining)
    released = to_released(model.state_dict(), model.config)
    stored = {name.removeprefix("luke."): tensor.clone() for name, tensor in released.items()}
    stored["embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    stored["entity_predictions.decoder.weight"] = stored["entity_embeddings.entity_embeddings.weight"]
    stored["lm_head.decoder.weight"] = stored["embeddings.word_embeddings.weight"]
    folder.mkdir()
    torch.save({"module": stored, "ds_version": "0.8"} if wrapped else stored, folder / "pytorch_model.bin")
    names = (
        "vocab_size entity_vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size "
        "max_position_embeddings type_vocab_size layer_norm_eps pad_token_id"
    ).split()
    model_config = {name: getattr(config, name) for name in names}
    if config.entity_emb_size != config.hidden_size:
        model_config["entity_emb_size"] = config.entity_emb_size
    model_config["bert_model_name"] = "bert-base-uncased" if bert else "roberta-base"
    metadata = {"model_config": model_config, "max_seq_length": 512, "max_entity_length": 128, "max_mention_length": 30}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    if vocab == "tsv":
        text = "".join(f"{title}\t{len(TITLES) - i}\n" for i, title in enumerate(TITLES))
    else:
        names = [[title, None if i < 3 else language] for i, title in enumerate(TITLES)]
        lines = [{"id": i, "entities": [name], "count": 1} for i, name in enumerate(names)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / f"entity_vocab.{vocab}").write_text(text)
    return model, released


def pack(folder, kind):
    """The archive as a file, at its root as LUKE's code packs it, or inside a folder as people do."""
    path = folder.parent / f"archive.tar{kind}"
    with tarfile.open(path, "w" + kind.replace(".", ":") if kind else "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name if kind != ".gz" else f"luke_base/{file.name}")
    return path


def run(*arguments) -> None:
    model_tools.main([str(argument) for argument in arguments])


def refused(pattern: str, source, out, *more) -> None:
    with pytest.raises((ValueError, OSError), match=pattern) as error:
        run("convert", source, out, *more)
    assert "\n" not in str(error.value) and not out.exists()


@pytest.mark.parametrize("kind", ["folder", "", ".gz", ".bz2", ".xz"])
def test_every_rule_of_the_conversion(kind, words, given, tmp_path, capsys):
    config = shape_of(words)
    model, released = write_archive(tmp_path / "archive", config, wrapped=kind == ".xz")
    source = tmp_path / "archive" if kind == "folder" else pack(tmp_path / "archive", kind)
    run("convert", source, tmp_path / "out", *given)
    assert "ignored" not in capsys.readouterr().out
    found = checkpoint.read(tmp_path / "out")
    assert not found.unexpected

    signs = [words.encode(sign, prefix_space=False).ids[-1] for sign in "@#"]
    grown = dict.fromkeys(WORD_TABLES, signs) | dict.fromkeys(ENTITY_TABLES, [TITLES.index("[MASK]")])
    grown = {name: torch.cat([released[name], released[name][rows]]) for name, rows in grown.items()}
    queries = {
        name.replace("self.query", f"self.{kind}_query"): tensor
        for name, tensor in released.items() for kind in ("w2e", "e2w", "e2e") if "self.query" in name
    }  # fmt: skip
    assert len(queries) == 6 * config.num_hidden_layers
    assert_equal(to_released(found.weights, found.config), released | grown | queries)

    assert (found.config.vocab_size, found.config.entity_vocab_size) == (len(words), len(TITLES) + 1)
    assert found.config.use_entity_aware_attention and found.settings["architectures"] == ["LukeForMaskedLM"]
    vocab = json.loads((tmp_path / "out/entity_vocab.json").read_text())
    assert vocab == {title: i for i, title in enumerate([*TITLES, "[MASK2]"])}
    inputs = padded_batch(config, [9, 5], [3, 1])
    for mine, other in zip(checkpoint.build(found).double().luke(**inputs), model.double().luke(**inputs)):
        assert_same(mine, other)


def test_titles_carry_their_language_if_the_vocabulary_does(words, given, tmp_path):
    write_archive(tmp_path / "archive", shape_of(words), vocab="jsonl", language="ja")
    run("convert", tmp_path / "archive", tmp_path / "out", *given, "--no-entity-aware")
    keys = json.loads((tmp_path / "out/entity_vocab.json").read_text())
    assert list(keys) == ["[PAD]", "[UNK]", "[MASK]", "ja:Oslo", "ja:New York City", "ja:Ada", "[MASK2]"]
    found = checkpoint.read(tmp_path / "out")
    assert not found.config.use_entity_aware_attention
    assert found.entity_vocab.id("Oslo") == found.entity_vocab.id("ja:Oslo") == 3
    run("convert", tmp_path / "out", tmp_path / "again")
    assert json.loads((tmp_path / "again/entity_vocab.json").read_text()) == keys


def test_bert_positions_and_the_mask_embedding_of_disambiguation_models(words, given, tmp_path, capsys):
    """E = H, no entity-aware attention, pad id 0, no masked-word head, [MASK] apart from the table."""
    config = shape_of(words, entity_emb_size=SMALL.hidden_size, pad_token_id=0)
    folder = tmp_path / "archive"
    model, released = write_archive(folder, config, bert=True)
    stored = torch.load(folder / "pytorch_model.bin")
    stored = {f"luke.{k}" if k.startswith(("em", "en", "po")) and "predictions" not in k else k: v
              for k, v in stored.items() if not k.startswith("lm_head.")}  # fmt: skip
    stored["luke.entity_embeddings.mask_embedding"] = mask = torch.randn(config.hidden_size)
    stored["mystery"] = torch.zeros(1)
    torch.save(stored, folder / "pytorch_model.bin")
    run("convert", folder, tmp_path / "out", *given, "--no-entity-aware")
    assert "ignored     mystery: not part of any LUKE model" in capsys.readouterr().out
    found = checkpoint.read(tmp_path / "out")
    assert found.config.mask_entity_id == 2
    assert found.config.max_position_embeddings == config.max_position_embeddings + 1
    assert "entity_head.bias" in found.weights and "word_head.bias" not in found.weights
    table = found.weights["luke.words.position.weight"]
    assert not table[0].any() and torch.equal(table[1:], released["luke.embeddings.position_embeddings.weight"])
    # Positions from 0: word i of the old model read row i, as does word i now, one row further down.
    old, new = model.luke.double(), checkpoint.build(found).double()
    inputs = padded_batch(config, [9], [3])
    with torch.no_grad():
        old.words.position.weight[1:] = old.words.position.weight[:-1].clone()  # pad_token_id + 1 = 1 is the first row
        old.entities.entity.weight[2] = mask
    for mine, other in zip(new(**inputs), old(**inputs)):
        assert_same(mine, other)


def test_what_is_wrong_is_said_in_one_line(words, given, tmp_path):
    config = shape_of(words)
    write_archive(tmp_path / "good", config)
    write_archive(tmp_path / "words", replace(config, vocab_size=17))
    write_archive(tmp_path / "entities", replace(config, entity_vocab_size=9))
    write_archive(tmp_path / "lost", config)
    (tmp_path / "lost/entity_vocab.tsv").unlink()
    shutil.copytree(tmp_path / "good", tmp_path / "bare")
    (tmp_path / "bare/metadata.json").write_text('{"model_config": {"vocab_size": 3}}')
    write_archive(tmp_path / "code", config)
    (tmp_path / "code/pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    (tmp_path / "short.tar").write_bytes(pack(tmp_path / "good", "").read_bytes()[:-30000])
    (tmp_path / "short.tar.gz").write_bytes(pack(tmp_path / "good", ".gz").read_bytes()[:-3000])
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    for source, more, pattern in (
        ("words", given, "the tokenizer has .* the archive's model 17"),
        ("entities", given, "6 titles, but entity_vocab_size is 9"),
        ("lost", given, "neither entity_vocab.jsonl nor entity_vocab.tsv"),
        ("bare", given, "bare/metadata.json: expected model_config with vocab_size, entity_vocab_size, hidden_size"),
        ("good", (), "no tokenizer here"),
        ("code", given, "pytorch_model.bin: "),
        ("archive.tar.gz", (), "give --tokenizer"),
        ("short.tar", given, "not a complete tar file|pytorch_model.bin"),
        ("short.tar.gz", given, "not a complete tar file"),
        ("empty.tar", given, "no metadata.json in it, so it is not an archive"),
        ("nothing", given, "no such file"),
    ):
        refused(pattern, tmp_path / source, tmp_path / "out", *more)


def test_no_member_of_a_tar_lands_outside(words, tmp_path):
    """A file named ../metadata.json is read as metadata.json, in a folder that is thrown away."""
    write_archive(tmp_path / "archive", shape_of(words))
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "archive/metadata.json", "../../evil/metadata.json")
    with model_tools.unpacked(tmp_path / "evil.tar") as folder:
        assert [path.name for path in folder.iterdir()] == ["metadata.json"]
        assert folder.parent != tmp_path
    assert not folder.exists() and not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", [".gz", ".bz2", ".xz"])
def test_one_bit_of_a_compressed_archive(kind, words, given, tmp_path):
    """Anywhere behind the first tenth, where a gzip file has a date; the last bits are its checksum."""
    write_archive(tmp_path / "archive", shape_of(words))
    path = pack(tmp_path / "archive", kind)
    whole = path.read_bytes()
    places = np.random.default_rng(seeded(0)).integers(len(whole) // 10, len(whole), 12)
    for place in [*places, len(whole) - 7, len(whole) // 2]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        refused(f"{path}: not a complete tar file, or damaged", path, tmp_path / "out", *given)
    path.write_bytes(whole[: len(whole) // 2])
    refused(f"{path}: not a complete tar file, or damaged", path, tmp_path / "out", *given)
    path.write_bytes(whole)
    run("convert", path, tmp_path / "out", *given)


# --- A pretraining run ------------------------------------------------------------------------------------------------


def training_run(folder, config, tags, latest=None) -> dict:
    """-> tag -> the model saved there, as DeepSpeed saves it: with much beside the weights, some of it no tensor."""
    models = {}
    for number, tag in enumerate(tags):
        shutil.rmtree(folder, ignore_errors=True)
        models[tag], _ = write_archive(folder, config, vocab="jsonl")
        with torch.no_grad():
            models[tag].luke.words.norm.bias.add_(number)
        stored = torch.load(folder / "pytorch_model.bin")
        stored["embeddings.LayerNorm.bias"] = models[tag].luke.words.norm.bias.detach()
        state = {
            "module": stored, "optimizer": None, "lr_scheduler": {"last_batch_iteration": 4}, "skipped_steps": 0,
            "csr_tensor_module_names": set(), "global_steps": 5, "dp_world_size": 8, "mp_world_size": 1,
            "ds_config": {"train_batch_size": 2048, "fp16": {"enabled": True}}, "ds_version": "0.4.5", "epoch": number,
        }  # fmt: skip
        path = folder.parent / "checkpoints" / tag / "mp_rank_00_model_states.pt"
        path.parent.mkdir(parents=True)
        torch.save(state, path)
        (path.parent / "zero_pp_rank_0_mp_rank_00optim_states.pt").write_bytes(b"not read")
    (folder / "pytorch_model.bin").unlink()
    shutil.move(folder.parent / "checkpoints", folder)
    if latest:
        (folder / "checkpoints/latest").write_text(latest)
    return models


@pytest.mark.parametrize(
    "place, expected",
    [("", "epoch10"), ("checkpoints", "epoch10"), ("checkpoints/epoch9", "epoch9"),
     ("checkpoints/epoch9/mp_rank_00_model_states.pt", "epoch9")],
)  # fmt: skip
def test_a_pretraining_run_of_lukes_own_code(place, expected, words, given, tmp_path):
    """The folder, what is in it, or the file itself; of several the largest epoch. It is what an archive would be."""
    config = shape_of(words)
    models = training_run(tmp_path / "run", config, ["epoch9", "epoch10", "step0000123"])
    run("convert", tmp_path / "run" / place, tmp_path / "out", *given, "--no-entity-aware")
    found = checkpoint.read(tmp_path / "out")
    assert not found.unexpected and found.settings["architectures"] == ["LukeForMaskedLM"]
    assert list(json.loads((tmp_path / "out/entity_vocab.json").read_text())) == [*TITLES, "[MASK2]"]
    batch = padded_batch(config, [9, 5], [3, 1])
    ours, theirs = (model.double().luke(**batch) for model in (checkpoint.build(found), models[expected]))
    for mine, other in zip(ours, theirs):
        assert_same(mine, other)


def test_the_latest_of_a_run_is_what_it_says(words, given, tmp_path):
    models = training_run(tmp_path / "run", shape_of(words), ["epoch9", "epoch10", "step0000123"], latest="step0000123")
    run("convert", tmp_path / "run", tmp_path / "out", *given)
    bias = checkpoint.read(tmp_path / "out").weights["luke.words.norm.bias"]
    assert torch.equal(bias, models["step0000123"].luke.words.norm.bias)
    (tmp_path / "run/metadata.json").unlink()
    message = "no metadata.json in the folder above its checkpoints/"
    refused(message, tmp_path / "run/checkpoints/epoch9", tmp_path / "again", *given)


# --- Fine-tuned by AllenNLP -------------------------------------------------------------------------------------------

FINE_TUNED = {
    "LukeForEntitySpanClassification-luke": ("span_ner", "token+entity", ["O", "PER", "LOC"]),
    "LukeForEntityPairClassification-mluke": ("relation_classifier", "entity", ["no_relation", "title", "city"]),
    "LukeForEntityClassification-luke": ("entity_typing", "entity", ["person", "place", "time"]),
}


def start_folder(folder, name) -> None:
    """The Hugging Face folder that was fine-tuned: configuration, words and entities, all of the fixture's sizes."""
    folder.mkdir()
    settings = json.loads((oracle.HERE / name / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"architectures": ["LukeForMaskedLM"]}))
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456"]
    (folder / "vocab.txt").write_text("\n".join(names[:38]) + "\n")
    titles = ["[PAD]", "[UNK]", "[MASK]", *(f"Title {i}" for i in range(10)), "[MASK2]"]
    (folder / "entity_vocab.json").write_text(json.dumps({title: i for i, title in enumerate(titles)}))


def allennlp_folder(folder, name, weights="weights.th", labels=None, start="studio-ousia/luke-base") -> torch.Tensor:
    """-> the bias of the classifier, which the fixture of a pair head has not."""
    kind, features, own_labels = FINE_TUNED[name]
    (folder / "vocabulary").mkdir(parents=True)
    embedder = {"type": "transformers-luke", "model_name": str(start), "output_embeddings": features,
                "use_entity_aware_attention": not name.endswith("mluke")}  # fmt: skip
    model = {"type": kind, "feature_extractor": {"type": features, "embedder": embedder}}
    config = {"dataset_reader": {"type": "any", "tokenizer": {"model_name": str(start)}}, "model": model, "trainer": {}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocabulary/labels.txt").write_text("".join(f"{label}\n" for label in labels or own_labels))
    (folder / "vocabulary/non_padded_namespaces.txt").write_text("*tags\n*labels\n")
    stored = load_file(oracle.HERE / name / "model.safetensors")
    bias = stored.setdefault("classifier.bias", torch.tensor([0.5, -1.0, 2.0]))
    prefix = "feature_extractor.embedder.luke_model."
    stored = {name.replace("luke.", prefix) if name.startswith("luke.") else name: t for name, t in stored.items()}
    stored[f"{prefix}embeddings.position_ids"] = torch.arange(30)[None]
    torch.save(stored, folder / weights)
    return bias


def expected_scores(name, bias):
    """Inputs of the recorded cases and transformers' scores, to which the fixture of a pair head gets its bias."""
    for case, held in recorded(name).items():
        if case != "gradient":
            scores = held["output"]["scores"] + bias if "Pair" in name else held["output"]["scores"]
            yield held["input"], scores


@pytest.mark.parametrize("kind", ["weights.th", "best.th", ".gz"])
@pytest.mark.parametrize("name", FINE_TUNED)
def test_a_model_fine_tuned_by_allennlp(name, kind, tmp_path):
    start_folder(tmp_path / "start", name)
    bias = allennlp_folder(tmp_path / "archive", name, "best.th" if kind == "best.th" else "weights.th")
    source = tmp_path / "archive" if kind != ".gz" else pack(tmp_path / "archive", kind)
    run("convert", source, tmp_path / "out", "--tokenizer", tmp_path / "start")
    model, words, vocab = checkpoint.load(tmp_path / "out")
    found = checkpoint.read(tmp_path / "out")
    labels = FINE_TUNED[name][2]
    assert not found.unexpected and (len(words), len(vocab), vocab.mask2_id) == (40, 14, 13)
    assert found.settings["id2label"] == {str(i): label for i, label in enumerate(labels)}
    assert found.settings["label2id"] == {label: i for i, label in enumerate(labels)}
    assert found.settings["architectures"] == [name.split("-")[0]] and found.settings["classifier_bias"] is True
    assert found.config.use_entity_aware_attention == name.endswith("-luke")
    for batch, scores in expected_scores(name, bias):
        mine = model.double()(**{key: tensor for key, tensor in batch.items() if key != "labels"})[1]
        real = batch["entity_attention_mask"].bool() if "Span" in name else slice(None)
        assert_same(mine[real], scores[real])
    assert inference.load(tmp_path / "out").model.labels == tuple(labels)


def test_no_mention_is_the_first_class(tmp_path):
    """NER takes class 0 for no mention; AllenNLP puts the most frequent label there, which need not be O."""
    name = "LukeForEntitySpanClassification-luke"
    start_folder(tmp_path / "start", name)
    allennlp_folder(tmp_path / "archive", name, labels=["PER", "LOC", "O"], start=tmp_path / "start")
    run("convert", tmp_path / "archive", tmp_path / "out")  # config.json says where the fine-tuned folder lies
    assert checkpoint.read(tmp_path / "out").settings["id2label"] == {"0": "O", "1": "PER", "2": "LOC"}
    model = checkpoint.load(tmp_path / "out")[0]
    for batch, scores in expected_scores(name, None):
        mine = model.double()(**{key: tensor for key, tensor in batch.items() if key != "labels"})[1]
        real = batch["entity_attention_mask"].bool()
        assert_same(mine[real], scores[real][:, [2, 0, 1]])


def test_what_is_wrong_with_a_fine_tuned_model_is_said_in_one_line(tmp_path):
    name = "LukeForEntitySpanClassification-luke"
    start_folder(tmp_path / "start", name)
    allennlp_folder(tmp_path / "good", name)
    config = json.loads((tmp_path / "good/config.json").read_text())

    def broken(kind, change):
        shutil.copytree(tmp_path / "good", tmp_path / kind)
        change(tmp_path / kind)
        return tmp_path / kind

    def with_model(**changes):
        changed = json.dumps(config | {"model": config["model"] | changes})
        return lambda folder: (folder / "config.json").write_text(changed)

    shutil.copytree(tmp_path / "start", tmp_path / "words")
    for file in ("config.json", "entity_vocab.json"):
        (tmp_path / "words" / file).unlink()
    (tmp_path / "words/entity_vocab.json").write_text("{}")
    embedder = config["model"]["feature_extractor"] | {"embedder": {"type": "pretrained_transformer"}}
    for source, start, message in (
        (broken("crf", with_model(type="crf_tagger")), "start", r"crf_tagger of token\+entity over .*, expected span"),
        (broken("bert", with_model(feature_extractor=embedder)), "start", "over pretrained_transformer, expected"),
        (broken("none", with_model(feature_extractor=None)), "start", "config.json: expected a model with a feat"),
        (broken("few", lambda at: (at / "vocabulary/labels.txt").write_text("O\n")), "start", "labels.txt: 1 labels, but"),
        (broken("no", lambda folder: (folder / "vocabulary/labels.txt").unlink()), "start", "labels.txt: no such file"),
        (broken("empty", lambda folder: (folder / "weights.th").unlink()), "start", "no weights, expected"),
        (tmp_path / "good", "words", "hidden size 12, an unknown number of heads: give a --tokenizer DIR"),
    ):
        refused(message, source, tmp_path / "out", "--tokenizer", tmp_path / start)
    (tmp_path / "start/entity_vocab.json").unlink()
    message = "no entity vocabulary, but the model has 14: give --tokenizer DIR"
    refused(message, tmp_path / "good", tmp_path / "out", "--tokenizer", tmp_path / "start")
    with pytest.raises(ValueError, match="config.json: AllenNLP's; `python -m luke_mini.model_tools convert`"):
        checkpoint.read(tmp_path / "good")


def test_the_shape_of_a_fine_tuned_lite_model_is_in_its_weights(words, given, tmp_path):
    """With a tokenizer alone: a head has 64 features and the four entities their order, as in every released LUKE."""
    config = replace(SMALL, hidden_size=128, num_attention_heads=2, vocab_size=len(words), entity_vocab_size=4)
    model = build(config, LukeForPretraining)
    allennlp_folder(tmp_path / "archive", "LukeForEntityPairClassification-mluke")
    released = to_released(model.state_dict(), config)
    stored = {name.replace("luke.", "feature_extractor.embedder.luke_model."): t for name, t in released.items()}
    classifier = {"classifier.weight": torch.ones(3, 256), "classifier.bias": torch.ones(3)}
    torch.save(stored | classifier, tmp_path / "archive/weights.th")
    run("convert", tmp_path / "archive", tmp_path / "out", *given, "--entity-aware")
    found = checkpoint.read(tmp_path / "out")
    assert found.config == replace(config, use_entity_aware_attention=True, pad_token_id=words.pad_id)
    assert [found.entity_vocab.title(i) for i in range(4)] == ["[MASK]", "[UNK]", "[PAD]", "[MASK2]"]
    assert_equal(found.weights, model.state_dict() | classifier)


# --- Runs of train.py, and model folders ------------------------------------------------------------------------------


def test_lite_from_the_command_line_and_what_info_says(tiny_checkpoint, tmp_path, capsys):
    run("lite", tiny_checkpoint, tmp_path / "lite")
    capsys.readouterr()
    run("info", tmp_path / "lite")
    said = capsys.readouterr().out
    model, words, entities = checkpoint.load(tmp_path / "lite")
    assert len(entities) == 4 and len(words) == model.config.vocab_size
    assert f"weights     {sum(p.numel() for p in model.parameters()):,}, of them 64 entity embeddings" in said
    assert "[PAD] 2, [UNK] 1, [MASK] 0, [MASK2] 3" in said and "masked words, masked entities" in said
    full, small = checkpoint.read(tiny_checkpoint), checkpoint.read(tmp_path / "lite")
    vocab, tables = full.entity_vocab, ("luke.entities.entity.weight", "entity_head.bias")
    rows = [vocab.mask_id, vocab.unk_id, vocab.pad_id, vocab.mask2_id]
    assert_equal(small.weights, full.weights | {name: full.weights[name][rows] for name in tables})
    assert small.config == replace(full.config, entity_vocab_size=4)
    assert json.loads((tmp_path / "lite/entity_vocab.json").read_text()) == {
        "[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "[MASK2]": 3,
    }  # fmt: skip


def test_convert_of_a_pretraining_run(tiny_checkpoint, tmp_path):
    """The newest step; markers get their start, and the three further queries, if it was pretrained without them."""
    found = checkpoint.read(tiny_checkpoint, entity_aware=False)
    plain = build(found.config, LukeForPretraining)
    for step in ("step-000009", "step-000010"):
        checkpoint.save(tmp_path / "run" / step, plain, found.tokenizer, found.entity_vocab)
        (tmp_path / "run" / step / "run.json").write_text("{}")
    run("convert", tmp_path / "run", tmp_path / "out")
    made = checkpoint.read(tmp_path / "out")
    words, vocab = made.tokenizer, made.entity_vocab
    at, number = (words.encode(sign, prefix_space=False).ids[-1] for sign in "@#")
    expected = from_released(to_released(plain.state_dict(), found.config), made.config)
    for table in ("luke.words.token.weight", "word_head.bias"):
        expected[table][[words.ent_id, words.ent2_id]] = expected[table][[at, number]]
    for table in ("luke.entities.entity.weight", "entity_head.bias"):
        expected[table][vocab.mask2_id] = expected[table][vocab.mask_id]
    assert made.config.use_entity_aware_attention
    assert_equal(made.weights, expected)

    run("convert", tiny_checkpoint, tmp_path / "same", "--no-entity-aware")
    same = checkpoint.read(tmp_path / "same")  # of a model folder, the markers may have been trained
    assert_equal(same.weights, found.weights)


def said(folder) -> dict[str, list[str]]:
    """The lines of `info`: word in front -> what follows."""
    lines = [(line[:12].strip(), line[12:]) for line in model_tools.info(folder)]
    return {name: [text for word, text in lines if word == name] for name, _ in lines}


def test_info_says_what_a_model_folder_lacks(tiny_checkpoint, tmp_path):
    assert said(tiny_checkpoint)["missing"] == ["nothing"]
    shutil.copytree(tiny_checkpoint, tmp_path / "out/model")  # as finetune.py leaves it
    assert said(tmp_path / "out") == said(tiny_checkpoint)
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    del tensors["luke.embeddings.LayerNorm.bias"]
    save_file(tensors, tmp_path / "out/model/model.safetensors")
    assert said(tmp_path / "out")["missing"] == ["the weight luke.embeddings.LayerNorm.bias is missing"]
    for name in ("model.safetensors", "entity_vocab.json", "merges.txt", "vocab.json"):
        (tmp_path / "out/model" / name).unlink()
    vocab, words, weights = said(tmp_path / "out")["missing"]
    assert vocab.startswith("entity_vocab.json") and "no tokenizer here" in words
    assert weights.startswith("model.safetensors or pytorch_model.bin")
    assert said(tmp_path / "out")["shape"] == said(tiny_checkpoint)["shape"]


def test_info_of_word_models_data_and_archives(tiny_checkpoint, toy_data, words, tmp_path):
    settings = json.loads((tiny_checkpoint / "config.json").read_text()) | {"model_type": "roberta"}
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    (tmp_path / "words").mkdir()
    (tmp_path / "words/config.json").write_text(json.dumps(settings | {"architectures": ["RobertaModel"]}))
    save_file({name.replace("luke.", "roberta."): tensor for name, tensor in tensors.items()
               if "entit" not in name and "2e_" not in name and "e2w" not in name},
              tmp_path / "words/model.safetensors")  # fmt: skip
    found = said(tmp_path / "words")
    assert found["class"] == ["RobertaModel, a word model: for --init"] and found["entities"] == ["none"]
    assert "2 layers, hidden 32" in found["shape"][0] and "no tokenizer here" in found["missing"][0]
    words.save(tmp_path / "words")
    assert said(tmp_path / "words")["missing"] == ["nothing"] and "ignored" not in said(tmp_path / "words")

    data = shutil.copytree(toy_data, tmp_path / "data")
    manifest = json.loads((data / "manifest.json").read_text())
    found = said(data)
    assert found["missing"] == ["nothing"] and found["words"] == [f"{manifest['word_vocab_size']:,}"]
    assert found["examples"][0].startswith(f"{manifest['examples']:,} examples, {manifest['words']:,} words, ")
    for name in ("shard-00000.bin", "mentions.safetensors"):
        (data / name).unlink()
    shutil.rmtree(data / "tokenizer")
    statistics, shard, tokens = said(data)["missing"]
    assert statistics == "mentions.safetensors, for `finetune.py link`" and shard.startswith("shard-00000.bin")
    assert "no tokenizer here" in tokens

    write_archive(tmp_path / "archive", shape_of(words))
    assert said(tmp_path / "archive")["class"] == ["the original LUKE code's; `convert` makes a model folder of it"]
    with pytest.raises(ValueError, match="hf download studio-ousia/luke-base"):
        model_tools.info(Path("luke-base"))


def test_errors_are_one_line_and_status_2(tiny_checkpoint, tmp_path):
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-9])
    command = [sys.executable, "-m", "luke_mini.model_tools", "info", str(copy)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "not a complete safetensors file" in done.stderr
    refused("no such file or folder", tmp_path / "nothing", tmp_path / "out")
    for command, out, words in (("lite", tmp_path / "out", "not a complete safet"), ("convert", copy, "exists already")):
        with pytest.raises(ValueError, match=words):
            run(command, copy, out)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match="0"):
        run("lite", "--help")

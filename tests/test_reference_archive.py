"""Archives of LUKE's own code become the Hugging Face folder that the published rules describe.

    pytest tests/test_reference_archive.py

The archives are made here from random models, under the names of those files. Each rule is checked by itself, and the
numbers of the model are the same before and after.
"""

import json
import tarfile
from dataclasses import replace

import pytest
import torch
from closeness import assert_same
from test_model import SMALL, build, padded_batch

from luke_mini import checkpoint, tokenizer
from luke_mini.entity_vocab import EntityVocab
from luke_mini.model import LukeForPretraining
from luke_mini.released_names import to_released

TITLES = ["[PAD]", "[UNK]", "[MASK]", "Oslo", "New York City", "Ada"]


@pytest.fixture(scope="module")
def words(toy_data):
    return tokenizer.load(toy_data / "tokenizer")


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
    checkpoint.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", ["folder", "", ".gz", ".bz2", ".xz"])
def test_every_rule_of_the_conversion(kind, words, toy_data, tmp_path):
    config = shape_of(words)
    model, released = write_archive(tmp_path / "archive", config, wrapped=kind == ".xz")
    source = tmp_path / "archive" if kind == "folder" else pack(tmp_path / "archive", kind)
    run("convert", source, tmp_path / "out", "--tokenizer", toy_data / "tokenizer")
    found = checkpoint.read(tmp_path / "out")
    assert not found.unknown
    made = to_released(found.weights, found.config)

    at, number = (words.encode(sign, prefix_space=False).ids[-1] for sign in "@#")
    grown = {
        "luke.embeddings.word_embeddings.weight": [at, number],
        "lm_head.bias": [at, number],
        "luke.entity_embeddings.entity_embeddings.weight": [2],  # [MASK]
        "entity_predictions.bias": [2],
    }
    for name, rows in grown.items():
        assert torch.equal(made[name], torch.cat([released[name], released[name][rows]])), name
    for layer in range(config.num_hidden_layers):
        for kind_of_query in ("w2e_query", "e2w_query", "e2e_query"):
            for part in ("weight", "bias"):
                prefix = f"luke.encoder.layer.{layer}.attention.self."
                assert torch.equal(made[f"{prefix}{kind_of_query}.{part}"], released[f"{prefix}query.{part}"])
    rest = released.keys() - grown.keys()
    assert all(torch.equal(made[name], released[name]) for name in rest) and len(rest) > 40
    assert len(made) == len(released) + 6 * config.num_hidden_layers

    assert (found.config.vocab_size, found.config.entity_vocab_size) == (len(words), len(TITLES) + 1)
    assert found.config.use_entity_aware_attention and found.settings["architectures"] == ["LukeForMaskedLM"]
    vocab = json.loads((tmp_path / "out/entity_vocab.json").read_text())
    assert vocab == {title: i for i, title in enumerate([*TITLES, "[MASK2]"])}
    inputs = padded_batch(config, [9, 5], [3, 1])
    for mine, other in zip(checkpoint.build(found).double().luke(**inputs), model.double().luke(**inputs)):
        assert_same(mine, other)


def test_titles_carry_their_language_if_the_vocabulary_does(words, toy_data, tmp_path):
    write_archive(tmp_path / "archive", shape_of(words), vocab="jsonl", language="ja")
    run("convert", tmp_path / "archive", tmp_path / "out", "--tokenizer", toy_data / "tokenizer", "--no-entity-aware")
    keys = json.loads((tmp_path / "out/entity_vocab.json").read_text())
    assert list(keys) == ["[PAD]", "[UNK]", "[MASK]", "ja:Oslo", "ja:New York City", "ja:Ada", "[MASK2]"]
    found = checkpoint.read(tmp_path / "out")
    assert not found.config.use_entity_aware_attention
    assert found.entity_vocab.id("Oslo") == found.entity_vocab.id("ja:Oslo") == 3
    run("convert", tmp_path / "out", tmp_path / "again")
    assert json.loads((tmp_path / "again/entity_vocab.json").read_text()) == keys


def test_bert_positions_and_the_mask_embedding_of_disambiguation_models(words, toy_data, tmp_path):
    """E = H, no entity-aware attention, pad id 0, no masked-word head, [MASK] apart from the table."""
    config = shape_of(words, entity_emb_size=SMALL.hidden_size, pad_token_id=0)
    folder = tmp_path / "archive"
    model, released = write_archive(folder, config, bert=True)
    stored = torch.load(folder / "pytorch_model.bin")
    stored = {f"luke.{k}" if k.startswith(("em", "en", "po")) and "predictions" not in k else k: v
              for k, v in stored.items() if not k.startswith("lm_head.")}  # fmt: skip
    stored["luke.entity_embeddings.mask_embedding"] = mask = torch.randn(config.hidden_size)
    torch.save(stored, folder / "pytorch_model.bin")
    run("convert", folder, tmp_path / "out", "--tokenizer", toy_data / "tokenizer", "--no-entity-aware")
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


def test_what_is_wrong_is_said_in_one_line(words, toy_data, tmp_path, capsys):
    config, given = shape_of(words), ("--tokenizer", toy_data / "tokenizer")
    write_archive(tmp_path / "good", config)
    write_archive(tmp_path / "words", replace(config, vocab_size=17))
    write_archive(tmp_path / "entities", replace(config, entity_vocab_size=9))
    write_archive(tmp_path / "lost", config)
    (tmp_path / "lost/entity_vocab.tsv").unlink()
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
        ("good", (), "no tokenizer here"),
        ("code", given, "pytorch_model.bin: "),
        ("archive.tar.gz", (), "give --tokenizer"),
        ("short.tar", given, ""),
        ("short.tar.gz", given, ""),
        ("empty.tar", given, ""),
        ("nothing", given, "no such file"),
    ):
        with pytest.raises((ValueError, OSError), match=pattern or None) as error:
            run("convert", tmp_path / source, tmp_path / "out", *more)
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        run("convert", tmp_path / "good", tmp_path / "out", *given)


def test_no_member_of_a_tar_lands_outside(words, tmp_path):
    """A file named ../metadata.json is read as metadata.json, in a folder that is thrown away."""
    write_archive(tmp_path / "archive", shape_of(words))
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "archive/metadata.json", "../../evil/metadata.json")
    from luke_mini import reference_archive

    with reference_archive.unpacked(tmp_path / "evil.tar") as folder:
        assert [path.name for path in folder.iterdir()] == ["metadata.json"]
        assert folder.parent != tmp_path
    assert not folder.exists() and not (tmp_path.parent / "evil").exists()
    assert EntityVocab.from_titles(TITLES).mask2_id is None

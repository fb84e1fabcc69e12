"""Weights begin as their equations say, and the words of another model compute what that model computes.

    pytest tests/test_initialization.py

RoBERTa, XLM-R and BERT live against transformers in float64 where it is installed; the names of older files and what
train.py does with a folder, without.
"""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from closeness import assert_as_good, assert_equal, assert_rounded, assert_same, generator, seeded
from safetensors.torch import load_file, save_file
from test_heads import masked_lm
from test_model import SMALL, build, padded_batch

import finetune
import train
from luke_mini import checkpoint, config, inference, initialization, packing, recipes, tokenizer
from luke_mini.config import ModelConfig
from luke_mini.initialization import copy_word_positions, initialize
from luke_mini.model import LukeForPretraining
from luke_mini.weights import to_released

SETTINGS = {
    "vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
    "max_position_embeddings": 34,
}  # fmt: skip


def test_a_start_at_frequencies_guesses_them():
    """With no evidence (a table of zeros) the head's probabilities are the smoothed shares of the counts."""
    model = build(SMALL, LukeForPretraining)
    words, entities = torch.arange(SMALL.vocab_size), torch.zeros(SMALL.entity_vocab_size, dtype=torch.long)
    initialization.start_at_frequencies(model, words, entities)
    nothing = torch.zeros(1, SMALL.hidden_size)
    for head, table, counts in (
        (model.word_head, torch.zeros(SMALL.vocab_size, SMALL.hidden_size), words),
        (model.entity_head, torch.zeros(SMALL.entity_vocab_size, SMALL.entity_emb_size), entities),
    ):
        exact = (counts + 1).double() / (counts + 1).sum()
        assert_rounded(head(nothing, table).softmax(1)[0], exact, exponent=float(-exact.min().log()))


def titled(entity_emb_size: int) -> tuple[LukeForPretraining, list[list[int]]]:
    """A model of the size tiny that starts at 300 random titles of one to five of 500 words, no two with the same first
    word; the last title is empty."""
    shape = replace(
        config.TINY, vocab_size=500, entity_vocab_size=300, entity_emb_size=entity_emb_size, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = LukeForPretraining(shape)
    initialize(model, shape, seeded())
    draws = generator(1)
    lengths, first = torch.randint(1, 6, (300,), generator=draws).tolist(), torch.randperm(490, generator=draws) + 10
    titles = [
        [int(word), *torch.randint(10, 500, (n - 1,), generator=draws).tolist()] for n, word in zip(lengths, first)
    ]
    titles[-1] = []
    initialization.start_at_titles(model, titles, seeded())
    return model.eval(), titles


@pytest.mark.parametrize("entity_emb_size", [64, 128])
@torch.no_grad()
def test_words_of_a_title_name_its_entity(entity_emb_size):
    model, titles = titled(entity_emb_size)
    words, table = model.luke.words.token.weight, model.luke.entities.entity.weight
    read = torch.stack([words[title].mean(0) for title in titles[:-1]])
    right = (read @ model.entity_head.dense.weight.T @ table.T).argmax(1) == torch.arange(299)
    assert right.float().mean() > 0.98
    size = config.TINY.initializer_range
    plain = F.rms_norm(table[:-1], table.shape[1:]) * size
    found, plain = (rows.double().square().mean(1).sqrt() for rows in (table[:-1], plain))
    assert_as_good(found, plain, torch.full((299,), size, dtype=torch.float64))


@torch.no_grad()
def test_entities_read_the_words_at_their_positions():
    """In the first layer an entity's own word gets more than twice its even share of the look; it arrives as it was."""
    model, _ = titled(64)
    luke, attention, draws = model.luke, model.luke.layers[0].attention, generator(2)
    ids, place = torch.randint(10, 500, (16, 40), generator=draws), torch.arange(2, 38, 3)
    positions = place[:, None].expand(16, 12, 1)
    packed = packing.from_padded(ids, None, torch.full((16, 12), 3), positions, None, pad_id=1)
    words, entities = luke.words(packed), luke.entities(packed)
    size = luke.config.hidden_size
    query = attention.e2w_e2e(entities)[:, :size].view(16, 12, 4, -1)
    key, value = attention.key_value(words).view(-1, 2, size).unbind(1)
    look = torch.einsum("sehd,swhd->shew", query, key.view(16, 40, 4, -1)).mul(query.shape[-1] ** -0.5).softmax(-1)
    assert look[:, :, torch.arange(12), place].mean() > 2 / 40
    basis = torch.linalg.qr(torch.randn(size, size, generator=draws))[0]
    assert_as_good(attention.output(value), words @ basis @ basis.T, words.double())


def test_sinusoids_fade_with_the_distance():
    waves = initialization.sinusoids(100, 64)
    assert_rounded(waves.square().mean(1), torch.ones(100))
    near = [float(waves[50] @ waves[50 + k]) / 64 for k in (0, 1, 3, 10)]
    assert near == sorted(near, reverse=True)


def test_title_start_needs_entity_aware_attention():
    with pytest.raises(ValueError, match="--title-start .* needs --entity-aware"):
        replace(recipes.PRETRAINING["scratch-tiny"].stages[0], entity_aware=False)


# --- The words of another model ---------------------------------------------------------------------------------------


class Words:
    """A tokenizer of n ids where "@" is 7 and "#" is 8."""

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n

    def encode(self, text: str, prefix_space: bool) -> SimpleNamespace:
        assert not prefix_space
        return SimpleNamespace(ids=[{"@": 7, "#": 8}[text]])


def luke_on(folder, words: Words, entity_aware: bool) -> LukeForPretraining:
    """As train.py makes it."""
    shape = initialization.word_model_shape(folder) | {"vocab_size": len(words)}
    config = ModelConfig(**shape, entity_vocab_size=11, entity_emb_size=6, use_entity_aware_attention=entity_aware)
    model = LukeForPretraining(config)
    initialize(model, config, seeded())
    weights = initialization.read_word_model(folder, config, words)
    assert not [name for name in weights if "entities" in name or "entity_head" in name]
    checkpoint.fill(model, weights, fresh=("word_head.", "entity_head.", "luke.entities.", "luke.pooler."))
    copy_word_positions(model.luke)
    return model.eval()


@pytest.mark.parametrize("entity_aware", [True, False])
@pytest.mark.parametrize("kind", ["Roberta", "XLMRoberta", "Bert"])
def test_words_are_those_of_transformers(kind, entity_aware, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle `transformers` is not installed")
    pad = 0 if kind == "Bert" else 1
    settings = SETTINGS | ({} if kind == "Bert" else {"type_vocab_size": 1, "layer_norm_eps": 1e-5})
    config = getattr(transformers, f"{kind}Config")(**settings, pad_token_id=pad)
    name = "BertForPreTraining" if kind == "Bert" else f"{kind}ForMaskedLM"
    torch.manual_seed(seeded())
    theirs, draws = getattr(transformers, name)(config).eval(), generator()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draws))
    theirs.save_pretrained(tmp_path)

    model = luke_on(tmp_path, Words(62), entity_aware)
    theirs, exact = theirs.double(), copy.deepcopy(model).double()
    inputs = padded_batch(model.config, [20, 32, 3], [2, 0, 3], seed=1)
    inputs["input_ids"] = torch.where(inputs["attention_mask"] == 1, inputs["input_ids"] % 57 + 3, pad)
    plain = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    real = plain["attention_mask"].bool()
    with torch.no_grad():
        out = theirs(**plain, output_hidden_states=True)
        hidden = exact.luke(**plain)[0]
        assert_same(hidden[real], out.hidden_states[-1][real])
        scores = exact.word_head(hidden, exact.luke.words.token.weight)[..., :60]
        assert_same(scores[real], (out.prediction_logits if kind == "Bert" else out.logits)[real])
        if kind == "Bert":
            assert_same(exact.luke.pool(hidden[:, 0]), theirs.bert.pooler(out.hidden_states[-1]))
        # Padded and packed are one thing, whatever the padding id; and an entity at word i has word i's position.
        packed = packing.from_padded(**inputs, pad_id=pad)
        assert torch.equal(model.luke(**inputs)[0][real], model.luke(packed)[: real.sum()])
    assert packed.word_positions[:3].tolist() == [pad + 1, pad + 2, pad + 3]
    table = load_file(tmp_path / "model.safetensors")
    positions = next(tensor for name, tensor in table.items() if name.endswith("position_embeddings.weight"))
    skipped = 0 if kind == "Bert" else 2
    assert torch.equal(model.luke.entities.position.weight[: 34 - skipped], positions[skipped:])

    # What is made of it opens in transformers as a LUKE and gives our numbers.
    checkpoint.save(tmp_path / "luke", model, None, None)
    luke, loading = transformers.LukeForMaskedLM.from_pretrained(tmp_path / "luke", output_loading_info=True)
    assert not any(loading.values())
    with torch.no_grad():
        out = luke.eval().double()(**inputs)
        scores, entity_scores = masked_lm(exact, inputs)
    assert_same(scores[real], out.logits[real])
    some = inputs["entity_attention_mask"].bool()
    assert_same(entity_scores[some], out.entity_logits[some])


def word_folder(folder, config, kind="roberta", prefix="roberta.", old=False, **more):
    """The word side of one of our models, written as a RoBERTa of some generation."""
    model = build(config, LukeForPretraining)
    released = to_released(model.state_dict(), config)
    tensors = {
        name.replace("luke.", prefix): tensor.clone()
        for name, tensor in released.items() if not any(part in name for part in ("entit", "2e_", "e2w"))
    }  # fmt: skip
    if old:  # of tied tensors, the file holds the decoder alone
        tensors["lm_head.decoder.weight"] = tensors.pop(f"{prefix}embeddings.word_embeddings.weight")
        changed = ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")
        tensors = {name.replace(*changed[0]).replace(*changed[1]): tensor for name, tensor in tensors.items()}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    names = [name for name in initialization.SHAPE if name != "hidden_act"]
    settings = {"model_type": kind} | {name: getattr(config, name) for name in names} | more
    (folder / "config.json").write_text(json.dumps(settings))
    return model


@pytest.mark.parametrize("prefix", ["roberta.", "", "_orig_mod.roberta.", "module.model.roberta."])
@pytest.mark.parametrize("old", [False, True])
def test_names_of_every_generation(prefix, old, tmp_path):
    own = word_folder(tmp_path / "words", SMALL, prefix=prefix, old=old).state_dict()
    expected = {name: tensor for name, tensor in own.items() if "entit" not in name}
    for name in [name for name in expected if ".w2w_w2e." in name]:
        w2w = own[name][: SMALL.hidden_size]
        expected[name] = expected[name.replace("w2w_w2e", "e2w_e2e")] = torch.cat([w2w, w2w])
    assert_equal(initialization.read_word_model(tmp_path / "words", SMALL, Words(SMALL.vocab_size)), expected)


def test_marker_rows_are_copies_of_at_and_number(tmp_path):
    model = word_folder(tmp_path / "words", SMALL)
    weights = initialization.read_word_model(tmp_path / "words", replace(SMALL, vocab_size=92), Words(92))
    for name in ("luke.words.token.weight", "word_head.bias"):
        own = model.state_dict()[name]
        assert torch.equal(weights[name], torch.cat([own, own[[7, 8]]]))


def test_another_tokenizer_is_refused(tmp_path):
    word_folder(tmp_path / "words", SMALL)
    for n in (89, 91, 93):
        with pytest.raises(ValueError, match=f"a vocabulary of 90 tokens, .* built with {n}: .*--tokenizer") as error:
            initialization.read_word_model(tmp_path / "words", SMALL, Words(n))
        assert "\n" not in str(error.value)
    word_folder(tmp_path / "relative", SMALL, position_embedding_type="relative_key")
    with pytest.raises(ValueError, match="position_embedding_type is 'relative_key'"):
        initialization.word_model_shape(tmp_path / "relative")


def words_with_tokenizer(folder, words) -> LukeForPretraining:
    """A small word model beside the tokenizer that it was made for."""
    shape = replace(config.TINY, vocab_size=len(words), max_position_embeddings=80, num_hidden_layers=3)
    model = word_folder(folder, shape)
    words.save(folder)
    return model


def test_finetuning_starts_from_a_word_model(toy_data, tmp_path):
    words_with_tokenizer(tmp_path / "words", tokenizer.load(toy_data / "tokenizer"))
    few = "--epochs 1 --train-examples 3 --dev-examples 2 --test-examples 2 --max-seq-length 64"
    options = f"--data {toy_data}/ner {few} --out {tmp_path / 'ner'}"
    finetune.main(f"ner --init {tmp_path / 'words'} {options}".split())
    assert (tmp_path / "ner/results.json").is_file()
    assert inference.load(tmp_path / "ner").task.NAME == "ner"
    with pytest.raises(ValueError, match="expected a folder with a config.json whose model_type is one of roberta"):
        finetune.main(f"ner --init {tmp_path / 'ner/model'} {options} --overwrite".split())


@pytest.mark.parametrize("recipe", ["luke-base --stage 1", "scratch-base"])
def test_train_starts_from_a_word_model(recipe, toy_data, tmp_path):
    """Two steps of train.py; stage 1 leaves the words alone. Another size is refused."""
    words = tokenizer.load(toy_data / "tokenizer")
    model = words_with_tokenizer(tmp_path / "words", words)
    common = f"--data {toy_data} --init {tmp_path / 'words'} --out {tmp_path / 'run'} --recipe {recipe}"
    options = "--steps 2 --warmup-steps 1 --global-batch 4 --micro-batch 4 --precision fp32"
    train.main(f"{common} {options}".split())
    found = checkpoint.read(tmp_path / "run")
    assert found.config.max_position_embeddings == 80 and found.config.vocab_size == len(words)
    assert (found.config.num_hidden_layers, found.config.entity_emb_size) == (3, config.TINY.entity_emb_size)
    name = "luke.layers.2.feed_forward.up.weight"
    assert torch.equal(found.weights[name], model.state_dict()[name]) == ("--stage 1" in recipe)
    assert (found.weights[name] - model.state_dict()[name]).abs().max() < 0.01
    again = f"--data {toy_data} --init {tmp_path / 'run'} --out {tmp_path / 'again'} --recipe {recipe}"
    train.main(f"{again} {options}".split())  # a LUKE's shape, too, is that of its folder
    assert checkpoint.read(tmp_path / "again").config == found.config
    with pytest.raises(ValueError, match="for use with --init"):
        checkpoint.read(tmp_path / "words")
    assert isinstance(checkpoint.load(tmp_path / "run")[0], LukeForPretraining)

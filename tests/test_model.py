"""The model: packed = padded = the dense encoder of `export`. Its numbers beside transformers: test_heads.py.

pytest tests/test_model.py
"""

import copy
import random
from dataclasses import replace

import pytest
import torch
from closeness import assert_as_good, assert_same, by_layer, generator, seeded

from luke_mini import export, packing
from luke_mini.config import ModelConfig
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining, LukeModel
from luke_mini.weights import from_released, to_released

SMALL = ModelConfig(
    vocab_size=90, entity_vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=48, entity_emb_size=12, max_position_embeddings=530,
)  # fmt: skip


def build(config: ModelConfig, model_class=LukeModel, seed: int = 0):
    """A model in evaluation mode whose every tensor is random: zero biases and equal queries would hide mistakes."""
    model = model_class(config)
    initialize(model, config, seeded(seed))
    draws = generator(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draws) * (0.3 if parameter.dim() == 1 else 0.15)
            parameter.copy_(1 + noise if name.endswith("norm.weight") else noise)
    return model.eval()


def padded_batch(config: ModelConfig, word_lengths, entity_lengths, seed=0, mention=5) -> dict:
    """A right-padded batch with random ids and random mention positions, some mentions without any position."""
    draws = generator(seed)
    batch, seq, entities = len(word_lengths), max(word_lengths), max(entity_lengths)
    word_mask = torch.arange(seq) < torch.tensor(word_lengths)[:, None]
    entity_mask = torch.arange(entities) < torch.tensor(entity_lengths)[:, None]
    input_ids = torch.randint(3, config.vocab_size, (batch, seq), generator=draws)
    entity_ids = torch.randint(1, config.entity_vocab_size, (batch, entities), generator=draws)
    positions = (
        torch.randint(0, seq, (batch, entities, mention), generator=draws) % torch.tensor(word_lengths)[:, None, None]
    )
    used = torch.randint(0, mention + 1, (batch, entities, 1), generator=draws)
    positions[(torch.arange(mention) >= used) | ~entity_mask[:, :, None]] = -1
    return {
        "input_ids": torch.where(word_mask, input_ids, config.pad_token_id),
        "attention_mask": word_mask.long(),
        "entity_ids": torch.where(entity_mask, entity_ids, 0),
        "entity_position_ids": positions,
        "entity_attention_mask": entity_mask.long(),
    }


def random_lengths(seed: int) -> tuple[list[int], list[int]]:
    """Up to six sequences of 1 to 60 words, half of them with up to 9 entities."""
    rng = random.Random(seed)
    words = [rng.randint(1, 60) for _ in range(rng.randint(1, 6))]
    return words, [rng.choice([0, rng.randint(1, 9)]) for _ in words]


CASES = [
    *(random_lengths(seed) for seed in range(3)),
    ([7, 3, 12], [2, 0, 5]),
    ([1], [0]),
    ([1, 4], [1, 0]),
    ([9, 9], [1, 1]),
    ([512, 30], [128, 7]),
    ([5, 6], [0, 0]),
]


def value_and_gradients(model, forward) -> dict[str, torch.Tensor]:
    """Hidden states of a packed batch by `forward`, and the gradients of a random sum of them, by layer."""
    hidden = forward(model)
    weight = torch.randn(hidden.shape, generator=generator(1)).to(hidden.dtype)
    parameters = {name: p for name, p in model.named_parameters() if not name.startswith("pooler")}
    gradients = torch.autograd.grad((hidden * weight).sum(), parameters.values(), materialize_grads=True)
    return {"hidden": hidden} | by_layer(dict(zip(parameters, gradients)))


@pytest.mark.parametrize("entity_aware", [True, False])
@pytest.mark.parametrize("entity_size", [12, 32])
@pytest.mark.parametrize("lengths", CASES, ids=str)
def test_packed_equals_padded(lengths, entity_size, entity_aware):
    """The packed call and a dense masked computation are the same function, forward and backward, and in float32 one is
    as good as the other; the padded call gives the bits of the packed one."""
    config = replace(SMALL, entity_emb_size=entity_size, use_entity_aware_attention=entity_aware)
    model = build(config)
    batch = padded_batch(config, *lengths)
    word_mask, entity_mask = batch["attention_mask"].bool(), batch["entity_attention_mask"].bool()
    packed = packing.from_padded(**batch, pad_id=config.pad_token_id)
    words, entities = model(**batch)
    assert torch.equal(torch.cat([words[word_mask], entities[entity_mask]]), model(packed))
    assert not words[~word_mask].any() and not entities[~entity_mask].any()

    def dense(model):
        words, entities = export.encode(model, batch)
        return torch.cat([words[word_mask], entities[entity_mask]])

    exact = value_and_gradients(copy.deepcopy(model).double(), dense)
    same = value_and_gradients(copy.deepcopy(model).double(), lambda model: model(packed))
    ours, plain = (value_and_gradients(model, forward) for forward in (lambda model: model(packed), dense))
    for name, expected in exact.items():
        assert_same(same[name], expected, name)
        assert_as_good(ours[name], plain[name], expected)


def test_the_comparison_detects_a_wrong_split():
    """The check above fails when words and entities are told apart one row off."""
    model = build(SMALL)
    batch = padded_batch(SMALL, [6, 6], [3, 3])
    packed = packing.from_padded(**batch, pad_id=1)
    shifted = replace(packed, word_lengths=(5, 7), segments=None)
    assert (model(packed) - model(shifted)).abs().max() > 1e-2


def test_without_entities_it_is_plain_attention_with_w2w():
    config = replace(SMALL, use_entity_aware_attention=False)
    aware, plain = build(SMALL).double(), build(config).double()
    weights = {name: tensor.clone() for name, tensor in aware.state_dict().items()}
    for name in list(weights):
        if ".w2w_w2e." in name:
            weights[name] = weights[name][: SMALL.hidden_size]
        if ".e2w_e2e." in name:
            del weights[name]
    plain.load_state_dict(weights)
    batch = padded_batch(SMALL, [8, 5], [0, 0])
    for training in (False, True):  # dropout of a batch of none: both modes must agree when dropout is off
        for module in [*aware.modules(), *plain.modules()]:
            module.training = training
            for name in ("dropout", "hidden_dropout", "attention_dropout"):
                if hasattr(module, name):
                    setattr(module, name, 0.0)
        assert_same(aware(**batch)[0], plain(**batch)[0])


def test_entity_aware_is_switched_on_by_copying_query():
    config = replace(SMALL, use_entity_aware_attention=False)
    plain = build(config, LukeForPretraining).double()
    released = to_released(plain.state_dict(), config)
    aware = LukeForPretraining(SMALL).eval().double()
    aware.load_state_dict(from_released(released, SMALL))
    batch = padded_batch(SMALL, [8, 5], [3, 1])
    for mine, other in zip(aware.luke(**batch), plain.luke(**batch)):
        assert_same(mine, other)

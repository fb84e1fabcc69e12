"""The optimizer and the schedule against worked numbers and against torch where the two agree.

pytest tests/test_optim.py
"""

import copy
from dataclasses import replace

import pytest
import torch
from closeness import assert_equal, assert_same, seeded
from torch import nn

from luke_mini import optim, recipes
from luke_mini.config import TINY
from luke_mini.model import LukeForPretraining

STEPPED = 1 - 0.1 * 0.1 / (0.02**0.5 + 1e-6)  # g = 1, p = 1, lr 0.1: m = 0.1, v = 0.02


def test_one_step_by_hand():
    """Then weight decay 0.01, after the step: times 1 - 0.001, in all 0.9283605. Biases do not decay."""
    model = nn.Linear(1, 1).double()
    optimizer = optim.AdamW(model, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.01)
    for p in model.parameters():
        nn.init.ones_(p)
        p.grad = torch.ones_like(p)
    optimizer.set_learning_rate(0.1)
    optimizer.step()
    assert_same(model.weight.item(), STEPPED * 0.999)
    assert_same(model.bias.item(), STEPPED)
    assert round(model.weight.item(), 7) == 0.9283605


def test_many_steps_equal_the_formula():
    torch.manual_seed(seeded())
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).double()
    state = {
        name: (p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)) for name, p in model.named_parameters()
    }
    optimizer = optim.AdamW(model, beta1=0.8, beta2=0.95, eps=1e-5, weight_decay=0.1)
    for step in range(5):
        rate = 0.01 * (step + 1)
        for name, p in model.named_parameters():
            p.grad = torch.randn_like(p)
            value, m, v = state[name]
            m, v = 0.8 * m + 0.2 * p.grad, 0.95 * v + 0.05 * p.grad**2
            value = value - rate * m / (v.sqrt() + 1e-5)
            state[name] = (value * (1 - rate * 0.1) if name == "0.weight" else value, m, v)
        optimizer.set_learning_rate(rate)
        optimizer.step()
    for name, p in model.named_parameters():
        if name != "1.weight":  # "1" is the LayerNorm here; in LUKE its name holds ".norm."
            assert_same(p, state[name][0], name)


def test_state_round_trip_and_mismatch():
    model = nn.Linear(2, 2)
    optimizer = optim.AdamW(model, beta1=0.9, beta2=0.99, eps=1e-6, weight_decay=0)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.set_learning_rate(0.1)
    optimizer.step()
    saved = {name: tensor.clone() for name, tensor in optimizer.moments().items()}
    other = optim.AdamW(model, beta1=0.9, beta2=0.99, eps=1e-6, weight_decay=0)
    other.load_moments(saved, 1)
    assert_equal(other.moments(), saved)
    wide = saved | {"exp_avg.bias": torch.zeros(())}
    with pytest.raises(ValueError, match=r"exp_avg.bias has the shape \[\], expected"):
        other.load_moments(wide, 1)
    del saved["exp_avg.bias"]
    with pytest.raises(ValueError, match="exp_avg.bias"):
        other.load_moments(saved, 1)


@pytest.mark.parametrize("bias_correction", [False, True])
def test_torch_saves_and_restores_it(bias_correction):
    """state_dict, as any torch optimizer's, and the form of torch's distributed checkpoints, by parameter names."""
    from torch.distributed.checkpoint import state_dict as by_name

    def made():
        torch.manual_seed(seeded())
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        return model, optim.AdamW(model, beta1=0.9, beta2=0.99, eps=1e-6, weight_decay=0.1,
                                  bias_correction=bias_correction)  # fmt: skip

    def train(model, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            model(torch.randn(5, 3)).square().sum().backward()
            optimizer.set_learning_rate(0.1 / (step + 1))
            optimizer.step()
            optimizer.zero_grad()
        return [p.detach().clone() for p in model.parameters()]

    expected = train(*made(), range(4))
    for restore in ("state_dict", "by name"):
        model, optimizer = made()
        train(model, optimizer, range(2))
        again, other = made()
        again.load_state_dict(model.state_dict())
        if restore == "state_dict":
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        else:
            saved = by_name.get_optimizer_state_dict(model, optimizer)
            assert "0.weight" in saved["state"]
            by_name.set_optimizer_state_dict(again, other, copy.deepcopy(saved))
        assert all(torch.equal(p, q) for p, q in zip(train(again, other, range(2, 4)), expected))


def test_schedule():
    rates = [optim.linear_schedule(step, 10, 4, 8.0) for step in range(10)]
    assert rates == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0 * 5 / 6, 8.0 * 4 / 6, 4.0, 8.0 * 2 / 6, 8.0 / 6]
    assert optim.linear_schedule(0, 5, 0, 1.0) == 1.0  # without warm-up
    assert optim.linear_schedule(1, 2, 100, 1.0) == 1.0  # warm-up longer than the run


def test_what_each_stage_trains():
    model = LukeForPretraining(replace(TINY, vocab_size=20, entity_vocab_size=9))
    optim.select_trainable(model, recipes.published("luke 1"))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    names = {name for name, _ in model.named_parameters()}
    assert trained == {name for name in names if name.startswith(("luke.entities.", "entity_head."))}
    optim.select_trainable(model, recipes.published("luke 2"))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"luke.pooler.weight", "luke.pooler.bias"}


def test_only_matrices_and_tables_decay():
    model = LukeForPretraining(replace(TINY, vocab_size=20, entity_vocab_size=9))
    names = [name for name, _ in model.named_parameters()]
    without = {name for name in names if not optim.decays(name)}
    assert without == {name for name in names if name.endswith(".bias") or ".norm.weight" in name}
    assert "luke.words.token.weight" not in without and "luke.layers.0.attention.norm.weight" in without


def test_bias_correction_equals_torch():
    """Without weight decay, which torch applies before the step, the two are the same formula."""
    torch.manual_seed(seeded())
    ours, theirs = nn.Linear(3, 4).double(), nn.Linear(3, 4).double()
    theirs.load_state_dict(ours.state_dict())
    betas = dict(beta1=0.9, beta2=0.999)
    optimizer = optim.AdamW(ours, **betas, eps=1e-8, weight_decay=0.0, bias_correction=True)
    oracle = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    for _ in range(5):
        for p, q in zip(ours.parameters(), theirs.parameters()):
            p.grad = q.grad = torch.randn_like(p)
        optimizer.set_learning_rate(0.01)
        optimizer.step()
        oracle.step()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert_same(p, q)

"""The fast forms in ops.py against the equations in float64, values and gradients; dropout against its own definition.

pytest tests/test_ops.py
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_as_good, assert_rounded, assert_same, generator, seeded

from luke_mini import ops, ops_cpu
from luke_mini.packing import PackedBatch


def packed(word_lengths, entity_lengths) -> PackedBatch:
    """A batch of these lengths; attention looks at nothing else."""
    n_words, n_entities = sum(word_lengths), sum(entity_lengths)
    zeros = torch.zeros(n_words, dtype=torch.long)
    entities = torch.zeros(n_entities, dtype=torch.long)
    return PackedBatch(
        zeros, zeros, entities, entities, torch.arange(n_entities + 1), tuple(word_lengths), tuple(entity_lengths)
    )


def qkv(batch: PackedBatch, heads=3, head_dim=8, seed=0):
    draws, shape = generator(seed), (batch.n_words + batch.n_entities, heads, head_dim)
    return [torch.randn(shape, generator=draws, dtype=torch.float64).requires_grad_() for _ in range(4)]


def joined(form):
    """A form of the attention that takes queries together, and key and value, as a function of the four."""

    def function(q2w, q2e, key, value, *rest):
        return form(torch.stack([q2w] if q2e is None else [q2w, q2e], 1), torch.stack([key, value], 1), *rest)

    return function


entity_attention, padded_attention = joined(ops.entity_attention), joined(ops.padded_attention)


def value_and_gradients(function, inputs, seed=1):
    out = function(*inputs)
    weight = torch.randn(out.shape, generator=generator(seed), dtype=torch.float64).to(out.dtype)
    used = [x for x in inputs if x is not None]
    return [out, *torch.autograd.grad(out, used, weight)]


def random_lengths(seed: int) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(seed)  # not that of --seed: the names of the tests
    n = int(rng.integers(1, 6))
    return rng.integers(1, 40, n).tolist(), (rng.integers(0, 12, n) * rng.integers(0, 2, n)).tolist()


CASES = [([1], [0]), ([1], [1]), ([5, 1, 7], [2, 0, 3]), ([512], [128]), *(random_lengths(seed) for seed in range(8))]


@pytest.mark.parametrize("form", [entity_attention, padded_attention])
@pytest.mark.parametrize("one_query", [False, True])
@pytest.mark.parametrize("lengths", CASES, ids=str)
def test_attention_equals_the_equations(lengths, one_query, form):
    """That of CPUs, and that of other devices without kernels."""
    batch = packed(*lengths)
    q2w, q2e, key, value = qkv(batch)
    inputs = (q2w, None if one_query else q2e, key, value)
    ours = value_and_gradients(lambda *x: form(*x, batch), inputs)
    exact = value_and_gradients(lambda *x: ops.entity_attention_equations(*x, batch), inputs)
    for mine, other in zip(ours, exact):
        assert_same(mine, other)


@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize("lengths", [([100, 37], [9, 0]), ([300], [20]), ([3, 1, 4, 1, 5], [9, 2, 6, 5, 3])], ids=str)
def test_attention_in_float32_is_as_good_as_the_equations(lengths, sure):
    """Of long and of short sequences. sure: nearly all weight of a row is on itself, where a sum cancels backward."""
    batch = packed(*lengths)
    inputs = [x.detach().float() for x in qkv(batch, head_dim=64, seed=5)]
    if sure:
        inputs[:3] = [2 * F.layer_norm(inputs[2], (64,))] * 3
    exact_inputs = [x.double().requires_grad_() for x in inputs]
    inputs = [x.clone().requires_grad_() for x in inputs]
    exact = value_and_gradients(lambda *x: ops.entity_attention_equations(*x, batch), exact_inputs)
    plain = value_and_gradients(lambda *x: ops.entity_attention_equations(*x, batch), inputs)
    ours = value_and_gradients(lambda *x: entity_attention(*x, batch), inputs)
    for found in zip(ours, plain, exact):
        assert_as_good(*found)


def test_attention_backward_with_dropout_is_the_derivative_of_its_forward():
    """With the same draw of the mask, finite differences in float64 agree."""
    batch = packed([6, 3], [2, 1])
    inputs = qkv(batch, heads=2, head_dim=4)

    def function(*x):
        torch.manual_seed(seeded(3))
        return entity_attention(*x, batch, 0.3)

    assert torch.autograd.gradcheck(function, inputs, atol=1e-6)


def test_the_comparison_detects_swapped_queries_and_shifted_lengths():
    batch = packed([5, 4], [3, 2])
    q2w, q2e, key, value = qkv(batch)
    exact = ops.entity_attention_equations(q2w, q2e, key, value, batch)
    for wrong in (
        entity_attention(q2e, q2w, key, value, batch),
        entity_attention(q2w, q2e, key, value, packed([4, 5], [3, 2])),
        entity_attention(q2w, q2e, key, value, packed([5, 4], [2, 3])),
        entity_attention(q2w, None, key, value, batch),
    ):
        assert (wrong - exact).norm() > 1e-2 * exact.norm()


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_mask_statistics(p):
    torch.manual_seed(seeded())
    mask = ops_cpu.dropout_mask(torch.empty(1000, 1000), p)
    n, dropped = mask.numel(), int((mask == 0).sum())
    assert abs(dropped - p * n) < 5 * (n * p * (1 - p)) ** 0.5
    assert torch.equal(mask[mask != 0].unique(), torch.tensor([1 / (1 - p)]))
    neighbours = ((mask[:, 1:] == 0) & (mask[:, :-1] == 0)).double().mean()
    assert abs(float(neighbours) - p * p) < 5 * (p * p / n) ** 0.5


def test_padded_attention_drops_with_its_probability():
    """Of 64 equal weights on one-hot values; with float32 the mean of what is left is 1."""
    batch, nothing = packed([40], [24]), torch.zeros(64, 1, 64)
    out = padded_attention(nothing, nothing, nothing, torch.eye(64)[:, None], batch, 0.25)
    assert abs(float((out == 0).double().mean()) - 0.25) < 0.05 and abs(float(out.sum()) / 64 - 1) < 0.05


def test_dropout_obeys_the_seed_and_the_mode():
    x = torch.ones(50, 50)
    torch.manual_seed(seeded(7))
    first = ops.dropout(x, 0.2, True)
    assert not torch.equal(first, ops.dropout(x, 0.2, True))
    torch.manual_seed(seeded(7))
    assert torch.equal(first, ops.dropout(x, 0.2, True))
    assert ops.dropout(x, 0.2, False) is x and ops.dropout(x, 0.0, True) is x


@pytest.mark.parametrize("bias", [True, False])
def test_a_large_linear_layer_is_as_good_as_plain_pytorch(bias):
    """By another library's products than PyTorch's default; of inputs that are parts of tensors, too."""
    draws = generator()
    x, weight = torch.randn(37, 1200, generator=draws)[:, ::2], torch.randn(500, 600, generator=draws)
    inputs = [x, weight, torch.randn(500, generator=draws) if bias else None]
    assert weight.numel() > ops_cpu.ONEDNN_SIZE
    leaves = [None if part is None else part.detach().requires_grad_() for part in inputs]
    exact_leaves = [None if part is None else part.detach().double().requires_grad_() for part in inputs]
    exact = value_and_gradients(F.linear, exact_leaves)
    for found in zip(value_and_gradients(ops.linear, leaves), value_and_gradients(F.linear, leaves), exact):
        assert_as_good(*found)


def test_only_the_gradients_that_are_wanted_are_computed():
    x, weight = torch.ones(3, 600), torch.ones(500, 600, requires_grad=True)
    ops.linear(x, weight).sum().backward()
    assert x.grad is None and torch.equal(weight.grad, torch.full_like(weight, 3))
    x.requires_grad_()
    ops.linear(x, weight.detach()).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 500))


def test_linear_cross_entropy_equals_the_definition():
    draws = generator()
    hidden, weight, bias = (torch.randn(n, generator=draws, dtype=torch.float64) for n in ((9, 5), (31, 5), (31,)))
    target = torch.randint(0, 31, (9,), generator=draws)
    target[3] = (hidden[3] @ weight.T + bias).argmax()
    scores = hidden @ weight.T + bias
    exact = scores.exp().sum(1).log() - scores[torch.arange(9), target]
    for form, compare in ((ops.linear_cross_entropy, assert_same), (ops.full_cross_entropy, assert_rounded)):
        loss, hit = form(hidden, weight, bias, target)
        compare(loss, exact)
        assert hit.tolist() == [int(row.argmax()) == int(t) for row, t in zip(scores, target)] and hit[3]


def test_mean_of_rows_with_an_empty_and_a_repeated_group():
    table = torch.arange(12.0, dtype=torch.float64).view(6, 2)
    indices, offsets = torch.tensor([1, 1, 4, 5]), torch.tensor([0, 3, 3, 4])
    expected = torch.stack([(2 * table[1] + table[4]) / 3, torch.zeros(2), table[5]])
    assert_same(ops.mean_of_rows(table, indices, offsets), expected)
    empty = ops.mean_of_rows(table, torch.tensor([], dtype=torch.long), torch.tensor([0]))
    assert empty.shape == (0, 2)

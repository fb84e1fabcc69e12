"""The fast forms in ops.py against the equations in float64, values and gradients; dropout against its own definition.

pytest tests/test_ops.py
"""

import numpy as np
import pytest
import torch

from luke_mini import ops
from luke_mini.packing import PackedBatch


def packed(word_lengths, entity_lengths) -> PackedBatch:
    """A batch of these lengths; attention looks at nothing else."""
    n_words, n_entities = sum(word_lengths), sum(entity_lengths)
    zeros = torch.zeros(n_words, dtype=torch.long)
    entities = torch.zeros(n_entities, dtype=torch.long)
    return PackedBatch(
        zeros, zeros, entities, entities, torch.arange(n_entities + 1), tuple(word_lengths), tuple(entity_lengths)
    )


def qkv(batch: PackedBatch, heads=3, head_dim=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch.n_words + batch.n_entities, heads, head_dim)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(4)]


def value_and_gradients(function, inputs, seed=1):
    out = function(*inputs)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(out.dtype)
    used = [x for x in inputs if x is not None]
    return [out, *torch.autograd.grad(out, used, weight)]


def random_lengths(seed: int) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    return rng.integers(1, 40, n).tolist(), (rng.integers(0, 12, n) * rng.integers(0, 2, n)).tolist()


CASES = [([1], [0]), ([1], [1]), ([5, 1, 7], [2, 0, 3]), ([512], [128]), *(random_lengths(seed) for seed in range(8))]


@pytest.mark.parametrize("one_query", [False, True])
@pytest.mark.parametrize("lengths", CASES, ids=str)
def test_attention_equals_the_equations(lengths, one_query):
    batch = packed(*lengths)
    q_word, q_entity, key, value = qkv(batch)
    inputs = (q_word, None if one_query else q_entity, key, value)
    ours = value_and_gradients(lambda *x: ops.entity_attention(*x, batch), inputs)
    exact = value_and_gradients(lambda *x: ops.entity_attention_equations(*x, batch), inputs)
    for mine, other in zip(ours, exact):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_attention_in_float32_stays_close_to_float64():
    batch = packed([100, 37], [9, 0])
    exact = value_and_gradients(lambda *x: ops.entity_attention_equations(*x, batch), qkv(batch, seed=5))
    ours = value_and_gradients(lambda *x: ops.entity_attention(*x, batch), qkv(batch, seed=5, dtype=torch.float32))
    for mine, other in zip(ours, exact):
        assert (mine.double() - other).norm() <= 1e-6 * other.norm()


def test_attention_backward_with_dropout_is_the_derivative_of_its_forward():
    """With the same draw of the mask, finite differences in float64 agree."""
    batch = packed([6, 3], [2, 1])
    inputs = qkv(batch, heads=2, head_dim=4)

    def function(*x):
        torch.manual_seed(3)
        return ops.entity_attention(*x, batch, 0.3)

    assert torch.autograd.gradcheck(function, inputs, atol=1e-6)


def test_the_comparison_detects_swapped_queries_and_shifted_lengths():
    batch = packed([5, 4], [3, 2])
    q_word, q_entity, key, value = qkv(batch)
    exact = ops.entity_attention_equations(q_word, q_entity, key, value, batch)
    for wrong in (
        ops.entity_attention(q_entity, q_word, key, value, batch),
        ops.entity_attention(q_word, q_entity, key, value, packed([4, 5], [3, 2])),
        ops.entity_attention(q_word, q_entity, key, value, packed([5, 4], [2, 3])),
        ops.entity_attention(q_word, None, key, value, batch),
    ):
        assert (wrong - exact).norm() > 1e-2 * exact.norm()


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_mask_statistics(p):
    torch.manual_seed(0)
    mask = ops.dropout_mask(torch.empty(1000, 1000), p)
    n, dropped = mask.numel(), int((mask == 0).sum())
    assert abs(dropped - p * n) < 5 * (n * p * (1 - p)) ** 0.5
    assert torch.equal(mask[mask != 0].unique(), torch.tensor([1 / (1 - p)]))
    neighbours = ((mask[:, 1:] == 0) & (mask[:, :-1] == 0)).double().mean()
    assert abs(float(neighbours) - p * p) < 5 * (p * p / n) ** 0.5


def test_dropout_obeys_the_seed_and_the_mode():
    x = torch.ones(50, 50)
    torch.manual_seed(7)
    first = ops.dropout(x, 0.2, True)
    assert not torch.equal(first, ops.dropout(x, 0.2, True))
    torch.manual_seed(7)
    assert torch.equal(first, ops.dropout(x, 0.2, True))
    assert ops.dropout(x, 0.2, False) is x and ops.dropout(x, 0.0, True) is x


def test_linear_cross_entropy_equals_the_definition():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, 5, generator=generator)
    weight, bias = torch.randn(31, 5, generator=generator), torch.randn(31, generator=generator)
    target = torch.randint(0, 31, (9,), generator=generator)
    target[3] = (hidden[3] @ weight.T + bias).argmax()
    loss, hit = ops.linear_cross_entropy(hidden, weight, bias, target)
    scores = hidden.double() @ weight.double().T + bias.double()
    expected = scores.exp().sum(1).log() - scores[torch.arange(9), target]
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    assert hit.tolist() == [int(row.argmax()) == int(t) for row, t in zip(scores, target)] and hit[3]


def test_mean_of_rows_with_an_empty_and_a_repeated_group():
    table = torch.arange(12.0).view(6, 2)
    indices, offsets = torch.tensor([1, 1, 4, 5]), torch.tensor([0, 3, 3, 4])
    expected = torch.stack([(2 * table[1] + table[4]) / 3, torch.zeros(2), table[5]])
    torch.testing.assert_close(ops.mean_of_rows(table, indices, offsets), expected)
    empty = ops.mean_of_rows(table, torch.tensor([], dtype=torch.long), torch.tensor([0]))
    assert empty.shape == (0, 2)

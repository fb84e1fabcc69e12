"""The competitors in bench_gpu.py compute what they claim to: each against the equations, on a CPU, small.

pytest tests/test_bench_gpu.py
"""

import bench_gpu
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_as_good, assert_same, generator, seeded
from test_ops import packed

from luke_mini import ops

WORDS, ENTITIES = (11, 7, 20), (3, 5, 1)


@pytest.mark.parametrize("name", bench_gpu.ATTENTION)
def test_attention_equals_the_equations(name):
    inputs = bench_gpu.attention_inputs(WORDS, ENTITIES, 2, 16, torch.float64, "cpu", seeded())
    rows, _, padded, n_word, mask, places = inputs
    rows, leaves = ([x.requires_grad_() for x in tensors] for tensors in (rows, padded))
    exact = ops.entity_attention_equations(*rows, packed(WORDS, ENTITIES))
    d_out = torch.randn(exact.shape, generator=generator(1), dtype=torch.float64)
    out = bench_gpu.ATTENTION[name](*leaves, n_word, mask).transpose(1, 2).flatten(0, 1)[places]
    assert_same(out, exact)
    gradients = torch.autograd.grad(out, leaves, d_out)
    for mine, other in zip(gradients, torch.autograd.grad(exact, rows, d_out), strict=True):
        assert_same(mine.transpose(1, 2).flatten(0, 1)[places], other)


def test_packing_of_the_kernels_is_that_of_the_batch():
    _, packing, *_ = bench_gpu.attention_inputs(WORDS, ENTITIES, 2, 16, torch.float32, "cpu")
    assert torch.equal(packing.segments, packed(WORDS, ENTITIES).segments)


def test_eager_is_what_transformers_layer_computes():
    """With identity projections of distinct scale, the layer's own output."""
    luke = pytest.importorskip("transformers.models.luke.modeling_luke")
    from transformers import LukeConfig

    config = LukeConfig(hidden_size=32, num_attention_heads=2, use_entity_aware_attention=True,
                        attn_implementation="eager")  # fmt: skip
    torch.manual_seed(seeded())
    layer = luke.LukeSelfAttention(config).eval().double()
    word, entity = torch.randn(2, 9, 32).double(), torch.randn(2, 4, 32).double()
    mask = torch.zeros(2, 1, 1, 13, dtype=torch.float64)
    mask[0, :, :, 7:9] = mask[1, :, :, 12:] = -1e4
    with torch.no_grad():
        theirs = torch.cat(layer(word, entity, mask)[:2], 1)
        both = torch.cat([word, entity], 1)
        q_word = torch.cat([layer.query(word), layer.e2w_query(entity)], 1)
        q_entity = torch.cat([layer.w2e_query(word), layer.e2e_query(entity)], 1)
        heads = [x.view(2, 13, 2, 16).transpose(1, 2) for x in (q_word, q_entity, layer.key(both), layer.value(both))]
        ours = bench_gpu.eager(*heads, 9, mask).transpose(1, 2).flatten(2)
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", ["full", "torch"])
def test_cross_entropy_equals_the_definition(name):
    if name == "torch" and not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        pytest.skip("this torch has no chunked linear_cross_entropy")
    steps, flops = bench_gpu.cross_entropy_steps(6, 50, 16, torch.float32, "cpu")
    draws = torch.Generator().manual_seed(0)  # its own
    leaves = [torch.randn(shape, generator=draws) / 8 for shape in ((6, 16), (50, 16), (50,))]
    target = torch.randint(50, (6,), generator=draws)

    def gradients(dtype):
        wide = [x.to(dtype).requires_grad_() for x in leaves]
        return torch.autograd.grad(F.cross_entropy(F.linear(*wide), target), wide)

    for found in zip(steps[name](), gradients(torch.float32), gradients(torch.float64), strict=True):
        assert_as_good(*found)
    assert flops == 3 * 2 * 6 * 50 * 16

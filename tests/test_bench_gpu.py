"""The competitors in kernels/bench_gpu.py compute what they claim to: each against the equations, on a CPU, small.

pytest tests/test_bench_gpu.py
"""

import pytest
import torch
import torch.nn.functional as F
from test_ops import packed

from kernels import bench_gpu
from luke_mini import ops

WORDS, ENTITIES = (11, 7, 20), (3, 5, 1)


def close(mine, other):
    return (mine.double() - other).norm() < 1e-5 * other.norm()


@pytest.mark.parametrize("name", bench_gpu.ATTENTION)
def test_attention_equals_the_equations(name):
    rows, _, padded, n_word, mask, places = bench_gpu.attention_inputs(WORDS, ENTITIES, 2, 16, torch.float32, "cpu")
    exact_leaves = [x.double().requires_grad_() for x in rows]
    exact = ops.entity_attention_equations(*exact_leaves, packed(WORDS, ENTITIES))
    d_out = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    exact_gradients = torch.autograd.grad(exact, exact_leaves, d_out.double())
    leaves = [x.requires_grad_() for x in padded]
    out = bench_gpu.ATTENTION[name](*leaves, n_word, mask).transpose(1, 2).flatten(0, 1)[places]
    gradients = torch.autograd.grad(out, leaves, d_out)
    assert close(out, exact)
    for mine, other in zip(gradients, exact_gradients, strict=True):
        assert close(mine.transpose(1, 2).flatten(0, 1)[places], other)


def test_packing_of_the_kernels_is_that_of_the_batch():
    _, packing, *_ = bench_gpu.attention_inputs(WORDS, ENTITIES, 2, 16, torch.float32, "cpu")
    assert torch.equal(packing.segments, packed(WORDS, ENTITIES).segments)


def test_eager_is_what_transformers_layer_computes():
    """With identity projections of distinct scale, the layer's own output."""
    luke = pytest.importorskip("transformers.models.luke.modeling_luke")
    from transformers import LukeConfig

    config = LukeConfig(hidden_size=32, num_attention_heads=2, use_entity_aware_attention=True,
                        attn_implementation="eager")  # fmt: skip
    layer = luke.LukeSelfAttention(config).eval()
    word, entity = torch.randn(2, 9, 32), torch.randn(2, 4, 32)
    mask = torch.zeros(2, 1, 1, 13)
    mask[0, :, :, 7:9] = mask[1, :, :, 12:] = -1e4
    with torch.no_grad():
        theirs = torch.cat(layer(word, entity, mask)[:2], 1)
        both = torch.cat([word, entity], 1)
        q_word = torch.cat([layer.query(word), layer.e2w_query(entity)], 1)
        q_entity = torch.cat([layer.w2e_query(word), layer.e2e_query(entity)], 1)
        heads = [x.view(2, 13, 2, 16).transpose(1, 2) for x in (q_word, q_entity, layer.key(both), layer.value(both))]
        ours = bench_gpu.eager(*heads, 9, mask).transpose(1, 2).flatten(2)
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", ["full", "torch"])
def test_cross_entropy_equals_the_definition(name):
    if name == "torch" and not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        pytest.skip("this torch has no chunked linear_cross_entropy")
    steps, flops = bench_gpu.cross_entropy_steps(6, 50, 16, torch.float32, "cpu")
    generator = torch.Generator().manual_seed(0)
    leaves = [(torch.randn(s, generator=generator) / 8).double().requires_grad_() for s in ((6, 16), (50, 16), (50,))]
    loss = F.cross_entropy(F.linear(*leaves), torch.randint(50, (6,), generator=generator))
    for mine, other in zip(steps[name](), torch.autograd.grad(loss, leaves), strict=True):
        assert close(mine, other)
    assert flops == 3 * 2 * 6 * 50 * 16

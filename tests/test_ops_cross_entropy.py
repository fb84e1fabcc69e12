"""The chunked cross-entropy in plain PyTorch against the definition in float64, chunk by chunk and kept whole.

pytest tests/test_ops_cross_entropy.py

Proved: loss, log-sum-exp, hit and all gradients for ragged chunks and all types, against float64 on the same rounded
inputs; ties as argmax breaks them; derivatives by finite differences; float16 with 500,000 classes keeps the
probability of all the classes that are not the target, and a gradient scaled beforehand is shown to lose it; memory.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from luke_mini import ops_cross_entropy as plain

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=["kept", "recomputed"])
def chunked(request, monkeypatch):
    """Chunks of a few hundred classes; scores kept for the backward pass or computed again."""
    monkeypatch.setattr(plain, "CHUNK_BYTES", 37 * 250 * 4)
    if request.param == "recomputed":
        monkeypatch.setattr(plain, "KEPT_BYTES", 0)


def make_inputs(rows=37, classes=1003, features=24, dtype=torch.float32, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, features, generator=generator).to(dtype)
    weight = (torch.randn(classes, features, generator=generator) / 5).to(dtype)
    b = torch.randn(classes, generator=generator).to(dtype) if bias else None
    target = torch.randint(0, classes, (rows,), generator=generator)
    target[::3] = (hidden.double() @ weight.double().T + (0 if b is None else b.double())).argmax(1)[::3]
    return hidden, weight, b, target, torch.rand(rows, generator=generator) / rows


def definition(hidden, weight, bias, target, g):
    """Loss, hit, log-sum-exp and gradients, in float64 and by autograd."""
    leaves = [x.double().requires_grad_() for x in (hidden, weight, bias) if x is not None]
    scores = F.linear(*leaves)
    loss = F.cross_entropy(scores, target, reduction="none")
    hit, lse = scores.argmax(1) == target, scores.logsumexp(1).detach()
    return loss.detach(), hit, lse, torch.autograd.grad(loss, leaves, g.double())


def ours(hidden, weight, bias, target, g):
    leaves = [x.clone().requires_grad_() for x in (hidden, weight, bias) if x is not None]
    loss, hit, lse = plain.linear_cross_entropy(*leaves[:2], leaves[2] if bias is not None else None, target)
    return loss.detach(), hit, lse, torch.autograd.grad(loss, leaves, g.to(loss.dtype))


def error(mine, exact):
    return float((mine.double() - exact).norm() / exact.norm())


# bfloat16 on a CPU rounds the scores themselves, as F.linear does
LIMITS = {torch.float32: (1e-6, 5e-7), torch.float16: (1e-6, 4e-4), torch.bfloat16: (1e-3, 5e-3)}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_equals_the_definition(chunked, dtype, bias):
    inputs = make_inputs(dtype=dtype, bias=bias)
    loss, hit, lse, gradients = ours(*inputs)
    exact_loss, exact_hit, exact_lse, exact_gradients = definition(*inputs)
    limit, gradient_limit = LIMITS[dtype]
    assert error(loss, exact_loss) <= limit and error(lse, exact_lse) <= limit
    assert loss.dtype == lse.dtype == torch.float32
    if dtype == torch.float32:
        assert torch.equal(hit, exact_hit) and 12 < hit.sum() < 37
    for mine, exact, leaf in zip(gradients, exact_gradients, inputs):
        assert error(mine, exact) <= gradient_limit and mine.dtype == leaf.dtype


def test_derivative_by_finite_differences(chunked):
    *leaves, target, _ = make_inputs(rows=5, classes=30, features=4, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in leaves]
    assert torch.autograd.gradcheck(lambda *x: plain.linear_cross_entropy(*x, target)[0], leaves)


def test_only_what_is_wanted_is_differentiated(chunked):
    hidden, weight, bias, target, g = make_inputs()
    *_, (dx, *_) = definition(hidden, weight, bias, target, g)
    hidden.requires_grad_()
    plain.linear_cross_entropy(hidden, weight, bias, target)[0].backward(g)
    assert error(hidden.grad, dx) < 5e-7 and weight.grad is None


def test_of_equally_good_classes_the_first_counts(chunked):
    """Scores are a class's bias: whole numbers, with many ties within chunks and across them."""
    generator = torch.Generator().manual_seed(0)
    bias = torch.randint(0, 3, (1003,), generator=generator).float()
    target = torch.cat([(bias == 2).nonzero()[:30, 0], torch.tensor([int((bias == 2).long().argmax()), 1002])])
    zeros = torch.zeros(32, 4, requires_grad=True)
    hit = plain.linear_cross_entropy(zeros, torch.zeros(1003, 4), bias, target)[1]
    assert torch.equal(hit, bias.expand(32, -1).argmax(1) == target) and 1 <= hit.sum() <= 2


def test_large_scores_and_no_rows(chunked):
    hidden, weight, bias, target, g = make_inputs()
    inputs = hidden * 300, weight, bias, target, g
    loss, *_, gradients = ours(*inputs)
    exact_loss, *_, exact_gradients = definition(*inputs)
    assert error(loss, exact_loss) < 1e-6 and all(map(lambda a, b: error(a, b) < 1e-4, gradients, exact_gradients))
    loss, hit, lse, gradients = ours(hidden[:0], weight, bias, target[:0], g[:0])
    assert loss.shape == hit.shape == lse.shape == (0,) and not any(x.any() for x in gradients)


def test_autocast_multiplies_in_its_type_and_returns_gradients_in_the_weights_own(chunked):
    hidden, weight, bias, target, g = make_inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, *_, gradients = ours(hidden, weight, bias, target, g)
    rounded, *_, exact = definition(hidden.bfloat16(), weight.bfloat16(), bias.bfloat16(), target, g)
    assert error(loss, rounded) < 4e-3 and 1e-5 < error(loss, definition(hidden, weight, bias, target, g)[0])
    assert all(error(a, b) < 6e-3 and a.dtype == torch.float32 for a, b in zip(gradients, exact))


def test_float16_keeps_the_tail_of_the_softmax():
    """Each of 500,000 classes has a probability of about 2e-6, and the gradient of a class that is nobody's target is
    nothing but that. Multiplied by the 1/1024 of a mean in float16 it would be zero, as the last line shows."""
    hidden, weight, _, target, _ = make_inputs(rows=8, classes=500_000, dtype=torch.float16, bias=False)
    others = torch.ones(500_000, dtype=torch.bool).index_fill_(0, target, False)
    *_, (dx, dw) = ours(hidden, weight, None, target, torch.ones(8))
    *_, (exact_dx, exact_dw) = definition(hidden, weight, None, target, torch.ones(8))
    assert error(dx, exact_dx) < 4e-4 and error(dw[others], exact_dw[others]) < 6e-3
    mean = torch.full((8,), 1 / 1024)
    *_, (dx, dw) = ours(hidden.float(), weight.float(), None, target, mean)
    assert error(dw[others], exact_dw[others] / 1024) < 5e-7
    p = torch.softmax(hidden.float() @ weight.float().T, 1)
    assert error((p / 1024).half().T.double() @ hidden.double(), exact_dw / 1024) > 0.5


def test_extra_memory_is_one_chunk():
    """Peak memory of the process in a run of its own, beyond inputs and gradients."""
    script = (
        "import re, torch\n"
        "from luke_mini.ops_cross_entropy import linear_cross_entropy\n"
        "torch.set_num_threads(1)\n"
        "peak = lambda: 1024 * int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
        "for classes in (20_000, 200_000):\n"
        "    hidden, weight = torch.ones(256, 32, requires_grad=True), torch.ones(classes, 32, requires_grad=True)\n"
        "    target = torch.zeros(256, dtype=torch.long)\n"
        "    before = peak()\n"
        "    linear_cross_entropy(hidden, weight, None, target)[0].sum().backward()\n"
        "    print(peak() - before - classes * 32 * 4)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(run.stdout.split()[1]) < 40e6  # the scores of 200,000 classes would be 205 MB

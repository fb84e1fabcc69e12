"""The cross-entropy kernels against float64, in Triton's interpreter: no GPU is needed and none is used.

    python -m pytest tests/test_linear_cross_entropy.py          everything here; each part in a process of its own
    TRITON_INTERPRET=1 python -m pytest tests/test_linear_cross_entropy.py -o 'python_functions=interpreted_*' -k types

Proved: loss, hit, log-sum-exp and all gradients, as good as by the definition (closeness.py), against float64 fed the
same rounded inputs, for rows, classes and chunks that fit no tile; ties as argmax breaks them; float16 with 200,000
classes; two runs bit-equal; no byte outside a tensor and every output written once; memory; and, by mutants, that these
checks can fail."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import test_ops_cpu
import torch
import torch.nn.functional as F
from closeness import assert_as_good, error, generator, rounding
from conftest import PEAK, needs_proc
from interpreter import LAUNCHES, Guarded, expect_passed, interpreted, load_mutant, repair_bfloat16
from test_ops_cpu import run

ROOT = Path(__file__).parent.parent
PROCESSES = interpreted(__file__, "interpreted", "mutant")


@pytest.mark.parametrize("kind", PROCESSES)
def test_in_the_interpreter(output_of, kind):
    expect_passed(output_of(kind))


MEMORY = """
import torch
from kernels import linear_cross_entropy as fused

class Launch:
    def __init__(self, outputs): self.outputs = outputs
    def __getitem__(self, grid): return lambda *arguments, **_: [out.fill_(1) for out in arguments[self.outputs]]

fused.statistics_kernel, fused.score_gradient_kernel = Launch(slice(4, 8)), Launch(slice(6, 8))
fused._product = lambda a, b, out=None: a.new_full((len(a), b.shape[1]), 1, dtype=torch.float32)  # cuBLAS needs no more
torch.set_num_threads(1)
for rows, classes in ((4, 16), (1024, 100_000)):
    x, w = (torch.ones(n, 768, dtype=torch.float16, requires_grad=True) for n in (rows, classes))
    before = peak()
    fused.linear_cross_entropy(x, w, torch.zeros(classes), torch.zeros(rows, dtype=torch.long))[0].mean().backward()
    extra = peak() - before - (rows + classes) * 768 * 2
print(extra)
"""


@needs_proc
def test_extra_memory_of_many_classes():
    """Everything around the kernels as it is, the kernels and products filling what they would; base's features."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", PEAK + MEMORY]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert 16e6 < int(done.stdout) < 64e6  # d alone has 16 MB; all scores would be 200 MB


if os.environ.get("TRITON_INTERPRET") == "1":
    from kernels import linear_cross_entropy as fused


# ---------------------------------------------------------------- reference


def definition(hidden, weight, bias, target, g, dtype=torch.float64):
    """Loss, hit, log-sum-exp and gradients by autograd, on what is left of the inputs in hidden's type."""
    leaves = [x.to(hidden.dtype).to(dtype).requires_grad_() for x in (hidden, weight)]
    leaves.append(bias.to(dtype).requires_grad_())
    scores = F.linear(*leaves)
    loss = F.cross_entropy(scores, target, reduction="none")
    gradients = torch.autograd.grad(loss, leaves, g.to(dtype))
    return loss.detach(), scores.argmax(1) == target, scores.logsumexp(1).detach(), gradients


make_inputs = partial(test_ops_cpu.make_inputs, rows=50, classes=403, features=64)


def terms(hidden, weight, bias, *_) -> float:
    """The size of what a score is a sum of, over all rows."""
    return float((hidden.abs().float() @ weight.abs().float().T + bias.abs()).amax(1).norm().detach())


def check(*inputs, exponent=1.0):
    loss, hit, lse, gradients = run(fused, *inputs)
    plain_loss, _, plain_lse, plain_gradients = definition(*inputs, dtype=torch.float32)
    exact_loss, exact_hit, exact_lse, exact = definition(*inputs)
    assert_as_good(loss, plain_loss, exact_loss, scale=terms(*inputs))
    assert_as_good(lse, plain_lse, exact_lse, scale=terms(*inputs))
    assert torch.equal(hit, exact_hit)
    for found in zip(gradients, plain_gradients, exact, strict=True):
        assert_as_good(*found, exponent=exponent, through=inputs[0].dtype)
    assert [x.dtype for x in gradients] == [x.dtype for x in inputs[:3]]


# ---------------------------------------------------------------- against float64


FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
CASES = [
    *({"dtype": dtype, "weight_dtype": weight_dtype}
      for dtype, weight_dtype in ((FP32, FP32), (FP16, FP16), (FP16, FP32), (BF16, BF16), (BF16, FP32))),
    *({"rows": 33, "classes": 300, "features": features, "dtype": FP16} for features in (16, 80, 256)),
    # one off a tile
    *({"rows": rows, "classes": classes} for rows, classes in ((1, 1), (32, 32), (31, 33), (33, 63), (2, 700))),
]  # fmt: skip


@pytest.mark.parametrize("options", CASES, ids=str)
def interpreted_is_as_good_as_the_definition(monkeypatch, options):
    repair_bfloat16(monkeypatch)
    *inputs, g = make_inputs(**options)
    check(*inputs, g)
    if "weight_dtype" in options:
        check(*inputs, torch.full_like(g, 1 / 1100))


@pytest.mark.parametrize("chunk_bytes", [1, 64 * 4 * 32 * 3])
@pytest.mark.parametrize("programs", [1, 40, 10_000])
def interpreted_chunks_and_shares(monkeypatch, programs, chunk_bytes):
    """One share of the classes or many, of equal size or not; one chunk, several, one a tile."""
    monkeypatch.setattr(fused, "PROGRAMS", programs)
    monkeypatch.setattr(fused, "CHUNK_BYTES", chunk_bytes)
    check(*make_inputs())


def interpreted_no_rows():
    loss, hit, lse, gradients = run(fused, *make_inputs(rows=0, classes=40))
    assert loss.shape == hit.shape == lse.shape == (0,) and not any(x.any() for x in gradients)


def interpreted_large_scores():
    """Scores beyond +-1000, where an exponential without the running maximum would overflow."""
    hidden, *rest = make_inputs()
    largest = float(definition(hidden * 400, *rest)[2].max())
    assert largest > 1000
    check(hidden * 400, *rest, exponent=largest)


def interpreted_of_equally_good_classes_the_first_counts(monkeypatch):
    """Scores are a class's bias: small whole numbers, with ties within tiles, across tiles and across shares."""
    monkeypatch.setattr(fused, "PROGRAMS", 8)
    bias = torch.randint(0, 3, (1003,), generator=generator()).float()
    winners = (bias == 2).nonzero()[:, 0]
    target = torch.cat([winners[:20], winners[-20:], torch.arange(5)])
    hit = fused.linear_cross_entropy(torch.zeros(len(target), 16), torch.zeros(1003, 16), bias, target)[1]
    assert torch.equal(hit, target == winners[0]) and hit[0]


def interpreted_float16_keeps_the_tail_of_the_softmax(monkeypatch):
    """Each of 200,000 classes has a probability of about 5e-6, and the gradient of a class that is nobody's target is
    nothing but that. The loss is a mean over 1,024 rows, of which these are eight."""
    monkeypatch.setattr(fused, "choose_tile", lambda *_: fused.Tile(16, 2048, 16, 8, 2))
    hidden, weight, _, target, _ = make_inputs(rows=8, classes=200_000, features=16, dtype=torch.float16)
    bias = torch.zeros(200_000)
    others = torch.ones(200_000, dtype=torch.bool).index_fill_(0, target, False)
    mean = torch.full((8,), 1 / 1024)
    *_, (exact_dx, exact_dw, _) = definition(hidden, weight, bias, target, mean)
    *_, (dx, dw, _) = run(fused, hidden, weight.float(), bias, target, mean)
    assert_as_good(dx, exact_dx.float(), exact_dx, through=torch.float16)
    assert_as_good(dw[others], exact_dw[others].float(), exact_dw[others], through=torch.float16)


def interpreted_sums_that_float16_does_not_hold():
    """Forty rows with one target: its d is about -4,096 in each, and dw a sum of these."""
    hidden, weight, bias, target, g = make_inputs(rows=40, classes=40, features=16, dtype=FP16)
    check(hidden.abs(), weight, bias, torch.full_like(target, 3), torch.full_like(g, 1 / 40))


# ---------------------------------------------------------------- properties


def interpreted_two_runs_are_bit_equal():
    inputs = make_inputs(dtype=torch.float16)
    first, second = run(fused, *inputs), run(fused, *inputs)
    assert all(torch.equal(a, b) for a, b in zip((*first[:3], *first[3]), (*second[:3], *second[3]), strict=True))


def interpreted_strided_inputs_and_what_is_not_wanted():
    hidden, weight, bias, target, g = make_inputs()
    plain, exact = (definition(hidden, weight, bias, target, g, dtype)[3] for dtype in (torch.float32, torch.float64))
    wide = torch.full((50, 96), float("nan"))
    wide[:, :64] = hidden
    x = wide[:, :64].requires_grad_()
    loss, *_ = fused.linear_cross_entropy(x, weight.T.contiguous().T, bias, target)
    assert_as_good(torch.autograd.grad(loss, x, g)[0], plain[0], exact[0])
    ones = hidden, weight, bias, target, torch.ones(50)
    plain, exact = (definition(*ones, dtype)[3] for dtype in (torch.float32, torch.float64))
    weight.requires_grad_()
    loss, *_ = fused.linear_cross_entropy(hidden, weight, bias, target)
    loss.sum().backward()  # the sum's gradient is one number seen everywhere
    assert_as_good(weight.grad, plain[1], exact[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def interpreted_every_byte_in_bounds_and_written_once(monkeypatch, dtype):
    monkeypatch.setattr(fused, "choose_tile", lambda *_: fused.Tile(32, 32, 16, 4, 2))
    monkeypatch.setattr(fused, "CHUNK_BYTES", 4 * 32 * 256)
    for kernel in ("statistics_kernel", "score_gradient_kernel"):
        monkeypatch.setattr(fused, kernel, Guarded(getattr(fused, kernel), monkeypatch))
    LAUNCHES.clear()
    run(fused, *make_inputs(classes=305, dtype=dtype))
    forward, *backward = LAUNCHES
    # three of the four are parts of one tensor; d and the strips' part of db have a margin at their row ends
    assert len(forward) == 4 and all((counts == 1).all() for counts in forward.values())
    assert len(backward) == 3 and all(counts.max() == 1 for stores in backward for counts in stores.values())
    stored = [sorted(int(counts.sum()) for counts in stores.values()) for stores in backward]
    assert stored == [[2 * n, 50 * n] for n in (128, 128, 49)]


# ---------------------------------------------------------------- PyTorch


def interpreted_operator_contract():
    """Schema, fake tensors, autograd registration and tracing, by torch's own checker."""
    hidden, weight, bias, target, _ = make_inputs(rows=5, classes=40, features=16)
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]
    torch.library.opcheck(fused._cross_entropy, (*leaves, target))


@pytest.mark.parametrize("transposed", [False, True])
def interpreted_compile_and_autocast(transposed):
    hidden, weight, bias, target, _ = make_inputs(rows=20, classes=100)
    hidden = hidden.T.contiguous().T if transposed else hidden
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]

    def loss(hidden, weight, bias):
        return fused.linear_cross_entropy(hidden * 2, weight, bias, target)[0].square().sum()

    eager = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(*leaves), leaves)
    assert all(torch.equal(a, b) for a, b in zip(eager, compiled, strict=True))
    with torch.autocast("cpu", dtype=torch.float16):
        out = fused.linear_cross_entropy(*leaves, target)[0]
    inputs = hidden.detach().half(), weight.detach(), bias.detach(), target, torch.ones(20)
    (plain_loss, *_, plain), (exact_loss, *_, exact) = (definition(*inputs, t) for t in (torch.float32, torch.float64))
    assert_as_good(out, plain_loss, exact_loss, scale=terms(*inputs))
    gradients = torch.autograd.grad(out.sum(), leaves)
    assert all(x.dtype == torch.float32 for x in (out, *gradients))
    for found in zip(gradients, plain, exact, strict=True):
        assert_as_good(*found, through=torch.float16)


def interpreted_bad_input_is_named():
    hidden, weight, bias, target, _ = make_inputs(rows=4, classes=40, features=16)
    for message, *arguments in (
        ("features a multiple of 16", hidden[:, :8], weight[:, :8], bias, target),
        (r"weight \(40, 8\)", hidden, weight[:, :8], bias, target),
        ("weight is torch.float16", hidden, weight.half(), bias, target),
        (r"bias is \(39,\)", hidden, weight, bias[:-1], target),
        (r"target is torch.int32 \(4,\)", hidden, weight, bias, target.int()),
        ("float16, bfloat16 or float32", hidden.double(), weight.double(), bias.double(), target),
    ):
        with pytest.raises(ValueError, match=message):
            fused.linear_cross_entropy(*arguments)


# ---------------------------------------------------------------- mutants: each check fails when it should

MUTANTS = {  # what is wrong: (text in the file, what replaces it, everywhere)
    "natural exponential": ("tl.sum(tl.exp2(s - new", "tl.sum(tl.exp(s - new"),
    "sum not brought to the new maximum": ("row_sum * tl.exp2(row_max - new_max)", "row_sum"),
    "maximum of the last tile only": ("new_max = tl.maximum(row_max, top)", "new_max = top"),
    "classes past the end count": ('other=float("-inf")).to', "other=0.0).to"),
    "no bias": ("s * LOG2_E + shift[None, :]", "s * LOG2_E + tl.minimum(shift[None, :], 0.0)"),
    "last tile of a share left out": ("tl.minimum(first + n_tiles", "tl.minimum(first + (n_tiles - 1)"),
    "last features left out": ("in range(0, FEATURES, BLOCK_K)", "in range(0, FEATURES - BLOCK_K, BLOCK_K)"),
    "one target for all": ("label[None, :] == row_target[:, None]", "label[None, :] == tl.max(row_target, 0)"),
    "last equal class counts": ("tl.where(top > row_max, first_top", "tl.where(top >= row_max, first_top"),
    "worst class is best": ("tl.min(tl.where(s == top", "tl.min(tl.where(s < top"),
    "shares not brought to one maximum": ("share_sum * torch.exp2(share_max - joint_max)", "share_sum"),
    "target not subtracted": ("tl.where(is_target, gradient - 1.0, gradient)", "gradient"),
    "target of another chunk": ("(first + column)[None, :] == tl", "column[None, :] == tl"),
    "softmax without the sum": ("tl.load(lse + row)[:, None])", "tl.max(s, 1)[:, None])"),
    "without the rows' gradients": ("gradient) * row_g[:, None]", "gradient)"),
    "only the last chunk in dx": ("dx += _product", "dx = _product"),
    "grad_scale left in dw": ("torch.div(_product(d.T, x), grad_scale,", "torch.div(_product(d.T, x), 1.0,"),
    "grad_scale left in dw of float32": ("d_weight /= grad_scale", "d_weight /= 1.0"),
    "grad_scale left in db": ("(d_bias / grad_scale)", "d_bias"),
    "grad_scale left in dx": ("(dx / grad_scale)", "dx"),
    "features read crosswise": ("weight_rows + k)", "weight_rows)"),
}  # fmt: skip


@pytest.fixture(scope="session")
def mutant_cases():
    """float16, several tiles, shares and chunks; with a weight in float32, too; and ties."""
    inputs = make_inputs(rows=40, classes=203, features=32, dtype=torch.float16)
    tied = torch.zeros(6, 16), torch.zeros(403, 16), torch.arange(403.0) % 3, torch.tensor([2, 5, 95, 200, 0, 1])
    return inputs, definition(*inputs), tied


def worst_error(module, cases, monkeypatch):
    monkeypatch.setattr(module, "choose_tile", lambda *_: module.Tile(16, 32, 16, 4, 2))
    monkeypatch.setattr(module, "CHUNK_BYTES", 40 * 2 * 64 * 2)
    monkeypatch.setattr(module, "PROGRAMS", 5)
    inputs, (exact_loss, exact_hit, exact_lse, exact), tied = cases
    loss, hit, lse, gradients = run(module, *inputs)
    misses = int((hit != exact_hit).sum())
    misses += module.linear_cross_entropy(*tied)[1].tolist() != [True] + [False] * 5
    hidden, weight, *rest = inputs
    wide = run(module, hidden, weight.float(), *rest)[3]
    errors = [error(loss, exact_loss), error(lse, exact_lse), *map(error, (*gradients, *wide), (*exact, *exact))]
    return float("inf") if any(e != e for e in errors) else max(*errors, misses)


def mutant_none_is_close(monkeypatch, mutant_cases):
    assert worst_error(fused, mutant_cases, monkeypatch) < rounding(torch.float16)


@pytest.mark.parametrize("name", MUTANTS)
def mutant_is_caught(monkeypatch, tmp_path, mutant_cases, name):
    mutant = load_mutant(fused, *MUTANTS[name], tmp_path)
    assert worst_error(mutant, mutant_cases, monkeypatch) > 4 * rounding(torch.float16)

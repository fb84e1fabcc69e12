"""The chunked cross-entropy in plain PyTorch against the definition in float64, chunk by chunk and kept whole.

pytest tests/test_ops_cpu.py

Proved: loss, log-sum-exp, hit and all gradients for ragged chunks and all types, as good as of all scores at once
(closeness.py), against float64 on the same rounded inputs; ties as argmax breaks them; derivatives by finite
differences; float16 with 200,000 classes keeps the probability of all the classes that are not the target, and a
gradient scaled beforehand is shown to lose it; memory.
"""

import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from closeness import assert_as_good, assert_same, error, generator, targets
from conftest import PEAK, needs_proc

from luke_mini import ops_cpu

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=["kept", "recomputed"])
def chunked(request, monkeypatch):
    """Chunks of 256 classes, which just fill the buffer; scores kept for the backward pass or computed again."""
    monkeypatch.setattr(ops_cpu, "CHUNK_BYTES", 37 * 256 * 4)
    if request.param == "recomputed":
        monkeypatch.setattr(ops_cpu, "KEPT_BYTES", 0)


def make_inputs(rows=37, classes=1003, features=24, dtype=torch.float32, weight_dtype=None, bias=True, seed=0):
    draws, weight_dtype = generator(seed), weight_dtype or dtype
    hidden = torch.randn(rows, features, generator=draws).to(dtype)
    weight = (torch.randn(classes, features, generator=draws) / 5).to(weight_dtype)
    b = torch.randn(classes, generator=draws).to(weight_dtype) if bias else None
    scores = F.linear(hidden.double(), weight.to(dtype).double(), b if b is None else b.double())
    return hidden, weight, b, targets(scores, draws), torch.rand(rows, generator=draws) / max(1, rows)


def all_at_once(hidden, weight, bias, target, g):
    """Loss, hit, log-sum-exp and gradients by autograd, all scores in memory."""
    leaves = [x.clone().requires_grad_() for x in (hidden, weight, bias) if x is not None]
    scores = F.linear(*leaves)
    loss = F.cross_entropy(scores.to(torch.promote_types(scores.dtype, torch.float32)), target, reduction="none")
    hit, lse = scores.argmax(1) == target, scores.logsumexp(1).detach()
    return loss.detach(), hit, lse, torch.autograd.grad(loss, leaves, g.to(loss.dtype))


def definition(hidden, weight, bias, target, g):
    """In float64."""
    return all_at_once(*(x if x is None else x.double() for x in (hidden, weight, bias)), target, g)


def plain(hidden, weight, bias, target, g):
    """In float32; bfloat16 as it is: on a CPU it rounds the scores themselves, as F.linear does."""
    wide = (lambda x: x.float()) if hidden.dtype == torch.float16 else (lambda x: x)
    return all_at_once(*(x if x is None else wide(x) for x in (hidden, weight, bias)), target, g)


def run(module, hidden, weight, bias, target, g):
    """The same by a module's linear_cross_entropy: of ops_cpu, or of the kernels."""
    leaves = [x.clone().requires_grad_() for x in (hidden, weight, bias) if x is not None]
    loss, hit, lse = module.linear_cross_entropy(*[*leaves, None][:3], target)
    return loss.detach(), hit, lse, torch.autograd.grad(loss, leaves, g.to(loss.dtype))


def ours(*inputs):
    return run(ops_cpu, *inputs)


def check(found, others, exact, dtype=torch.float32, **options):
    """found, others: ours and plain PyTorch's loss, hit, log-sum-exp and gradients."""
    loss, _, lse, gradients = zip(found, others, exact)
    assert_as_good(*loss, **options)
    assert_as_good(*lse, **options)
    for each in zip(*gradients):
        assert_as_good(*each, through=dtype, **options)
    assert found[0].dtype == found[2].dtype == torch.float32


@pytest.mark.parametrize("bias", [True, False])
def test_is_the_definition(chunked, bias):
    inputs = make_inputs(dtype=torch.float64, bias=bias)
    (loss, hit, lse, gradients), (exact_loss, exact_hit, exact_lse, exact) = ours(*inputs), definition(*inputs)
    for mine, expected in zip((loss, lse, *gradients), (exact_loss, exact_lse, *exact), strict=True):
        assert_same(mine, expected)
    assert torch.equal(hit, exact_hit)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_is_as_good_as_the_definition(chunked, dtype, bias):
    inputs = make_inputs(dtype=dtype, bias=bias)
    found, exact = ours(*inputs), definition(*inputs)
    check(found, plain(*inputs), exact, dtype)
    assert [x.dtype for x in found[3]] == [dtype] * (3 if bias else 2)
    if dtype == torch.float32:
        assert torch.equal(found[1], exact[1]) and 5 < found[1].sum() < 37


def test_derivative_by_finite_differences(chunked):
    *leaves, target, _ = make_inputs(rows=5, classes=30, features=4, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in leaves]
    assert torch.autograd.gradcheck(lambda *x: ops_cpu.linear_cross_entropy(*x, target)[0], leaves)


def test_only_what_is_wanted_is_differentiated(chunked):
    hidden, weight, bias, target, g = inputs = make_inputs()
    hidden.requires_grad_()
    ops_cpu.linear_cross_entropy(hidden, weight, bias, target)[0].backward(g)
    assert_as_good(hidden.grad, plain(*inputs)[3][0], definition(*inputs)[3][0])
    assert weight.grad is None


def test_of_equally_good_classes_the_first_counts(chunked):
    """Scores are a class's bias: whole numbers, with many ties within chunks and across them."""
    bias = torch.randint(0, 3, (1003,), generator=generator()).float()
    first = int((bias == 2).long().argmax())
    target = torch.cat([(bias == 2).nonzero()[:30, 0], torch.tensor([first, 256, 1002])])  # 256 begins a chunk
    zeros = torch.zeros(33, 4, requires_grad=True)
    hit = ops_cpu.linear_cross_entropy(zeros, torch.zeros(1003, 4), bias, target)[1]
    assert torch.equal(hit, bias.expand(33, -1).argmax(1) == target) and 1 <= hit.sum() <= 2


@pytest.mark.parametrize("rows", [7, 1050])
def test_without_gradients_the_numbers_are_the_same(rows):
    """Then all chunks have their scores in the same memory. One chunk of classes, or two."""
    hidden, weight, bias, target, g = make_inputs(rows=rows, classes=1000)
    assert len(ops_cpu.chunks(rows, 1000)) == (1 if rows == 7 else 2)
    with torch.no_grad():
        found = ops_cpu.linear_cross_entropy(hidden, weight, bias, target)
    expected = ops_cpu.linear_cross_entropy(hidden.requires_grad_(), weight, bias, target)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_large_scores_and_no_rows(chunked):
    hidden, weight, bias, target, g = make_inputs()
    inputs = hidden * 300, weight, bias, target, g
    exact = definition(*inputs)
    check(ours(*inputs), plain(*inputs), exact, exponent=float(exact[2].max()))
    loss, hit, lse, gradients = ours(hidden[:0], weight, bias, target[:0], g[:0])
    assert loss.shape == hit.shape == lse.shape == (0,) and not any(x.any() for x in gradients)


def test_autocast_multiplies_in_its_type_and_returns_gradients_in_the_weights_own(chunked):
    hidden, weight, bias, target, g = inputs = make_inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, others = ours(*inputs), plain(*inputs)
    check(found, others, definition(hidden.bfloat16(), weight.bfloat16(), bias.bfloat16(), target, g))
    assert error(found[0], definition(*inputs)[0]) > 1e-5  # some of which float32 would not have lost
    assert all(gradient.dtype == torch.float32 for gradient in found[3])


def test_float16_keeps_the_tail_of_the_softmax():
    """Each of 200,000 classes has a probability of about 5e-6, and the gradient of a class that is nobody's target is
    nothing but that. Multiplied by the 1/1024 of a mean in float16 it would be zero, as the last line shows."""
    hidden, weight, _, target, _ = make_inputs(rows=8, classes=200_000, dtype=torch.float16, bias=False)
    others = torch.ones(200_000, dtype=torch.bool).index_fill_(0, target, False)
    *_, (dx, dw) = ours(hidden, weight, None, target, torch.ones(8))
    *_, (exact_dx, exact_dw) = definition(hidden, weight, None, target, torch.ones(8))
    assert_as_good(dx, exact_dx.float(), exact_dx, through=torch.float16)
    assert_as_good(dw[others], exact_dw[others].half(), exact_dw[others])
    inputs = hidden.float(), weight.float(), None, target, torch.full((8,), 1 / 1024)
    assert_as_good(*(dw[others] for *_, (_, dw) in (ours(*inputs), plain(*inputs), definition(*inputs))))
    p = torch.softmax(hidden.float() @ weight.float().T, 1)
    assert error((p / 1024).half().T.double() @ hidden.double(), exact_dw / 1024) > 0.5


@needs_proc
def test_extra_memory_is_one_chunk():
    """Peak memory of the process in a run of its own, beyond inputs and gradients."""
    script = PEAK + (
        "import torch\n"
        "from luke_mini.ops_cpu import linear_cross_entropy\n"
        "torch.set_num_threads(1)\n"
        "for classes in (20_000, 500_000):\n"
        "    hidden, weight = torch.ones(256, 32, requires_grad=True), torch.ones(classes, 32, requires_grad=True)\n"
        "    target = torch.zeros(256, dtype=torch.long)\n"
        "    before = peak()\n"
        "    linear_cross_entropy(hidden, weight, None, target)[0].sum().backward()\n"
        "    print(peak() - before - classes * 32 * 4)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(run.stdout.split()[1]) < 40e6  # the scores of 500,000 classes would be 512 MB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc alone")
def test_kept_memory_is_not_touched_anew():
    """Pages that ten tensors of 100 MB, one after another, touch for the first time, in a process of its own."""
    script = (
        "import resource, sys, torch\n"
        "from luke_mini.ops_cpu import keep_memory\n"
        "if sys.argv[1] == 'keep':\n"
        "    keep_memory()\n"
        "for n in range(20):\n"
        "    if n == 10:\n"
        "        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    torch.ones(25_000_000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    command = [sys.executable, "-c", script]
    kept, given_back = (
        int(subprocess.run([*command, how], cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "give back")
    )
    assert kept < 1000 and given_back > 100 + 5 * kept  # of 4 KB, or of 2 MB


def test_side_by_side_keeps_order_and_shares_out_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        both_run, ops = threading.Barrier(2, timeout=30), ops_cpu

        def act(item):
            both_run.wait()
            time.sleep(0.05 * (item % 2 == 0))  # the first is done last
            return item, torch.get_num_threads(), torch.rand(1, generator=ops.generator()).item()

        def run():
            torch.manual_seed(3)
            with ops.side_by_side(2) as each:
                return torch.get_num_threads(), list(each(act, [0, 1, 2, 3]))

        (here, found), again = run(), run()
        assert here == 2 and [item[:2] for item in found] == [(i, 2) for i in range(4)] and again == (here, found)
        assert len({drawn for _, _, drawn in found}) == 4 and torch.get_num_threads() == 4
        with ops.side_by_side(1) as each:
            assert list(each(lambda item: (item, ops.generator()), [5])) == [(5, None)]
        with ops.side_by_side(4) as each:  # a second sharing inside the first begins from all threads
            assert torch.get_num_threads() == 1 and ops.threads() == 4
            with ops.side_by_side(2) as inner:
                assert torch.get_num_threads() == 2 and len(list(inner(lambda item: item, [1, 2]))) == 2
            assert torch.get_num_threads() == 1
        with pytest.raises(ZeroDivisionError), ops.side_by_side(2) as each:
            list(each(lambda item: 1 // item, [1, 0]))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_every_thread_has_as_many_pairs_of_a_long_sequence_at_a_time(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    [group] = ops_cpu.layout(torch.tensor([[0, 500, 500, 6]]), 12).groups
    assert [part.stop - part.start for part in group.parts()] == [4, 4, 4]


def test_lanes_draw_dropout_from_their_own_generators():
    queries, key_value, segments = torch.randn(9, 2, 2, 4), torch.randn(9, 2, 2, 4), torch.tensor([[0, 7, 7, 2]])

    def draw(other: int):
        if other:
            torch.rand(5)  # from torch's generator, as another lane might at any time
        return ops_cpu.dropout_mask(queries, 0.5), ops_cpu.packed_attention(queries, key_value, segments, 0.5)

    def draws(other: int):
        torch.manual_seed(1)
        with ops_cpu.side_by_side(2) as each:
            return [torch.cat([part.flatten() for part in found]) for found in each(draw, [other, other])]

    one, two = draws(0)
    assert torch.equal(one, draws(1)[0]) and torch.equal(two, draws(1)[1]) and not torch.equal(one, two)

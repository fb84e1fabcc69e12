"""The competitors in bench_gpu.py compute what they claim to: each against the equations, on a CPU, small.

pytest tests/test_bench_gpu.py
"""

import json
import sys
import time

import bench_gpu
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_as_good, assert_same, generator, seeded
from interpreter import expect_passed, interpreted, repair_bfloat16
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


@pytest.mark.parametrize("name", bench_gpu.PACKED)
def test_forms_on_packed_rows_equal_the_equations(name, monkeypatch):
    """With a stand-in for PyTorch's flash attention, which runs on GPUs alone: sequence by sequence."""

    def varlen_attn(query, key, value, starts, same, *longest):
        parts = [[x[a:b].transpose(0, 1) for x in (query, key, value)] for a, b in zip(starts[:-1], starts[1:])]
        assert longest == (21, 21)
        return torch.cat([F.scaled_dot_product_attention(*part).transpose(0, 1) for part in parts])

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    rows, packing, *_ = bench_gpu.attention_inputs(WORDS, ENTITIES, 2, 16, torch.float32, "cpu", seeded())
    batch = packed(WORDS, ENTITIES)
    types = torch.float32, torch.float64
    plain, exact = (ops.entity_attention_equations(*(x.to(t) for x in rows), batch) for t in types)
    assert_as_good(bench_gpu.PACKED[name](packing, sum(WORDS))(*rows), plain, exact)


def test_packing_of_the_kernels_is_that_of_the_batch():
    _, packing, *_ = bench_gpu.attention_inputs(WORDS, ENTITIES, 2, 16, torch.float32, "cpu")
    batch = packed(WORDS, ENTITIES)
    assert torch.equal(packing[0], batch.segments) and packing[1:] == (batch.max_words, batch.max_entities)


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


def interpreted_lease_runs_every_line(monkeypatch, capsys, tmp_path):
    """On a CPU, small: the kernels in the interpreter, a stand-in for the device's clock and memory."""
    repair_bfloat16(monkeypatch)

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.time = time.perf_counter()

        def elapsed_time(self, end):
            return 1e3 * (end.time - self.time)

    nothing = ("synchronize", "reset_peak_memory_stats")
    for name, stand_in in {"Event": Event, "is_available": lambda: True, "get_device_name": lambda: "a CPU",
                           "memory_allocated": lambda: 0, "max_memory_allocated": lambda: 0,
                           **dict.fromkeys(nothing, lambda: None)}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    tile = bench_gpu.attention.Tile(64, 64, 32, 4, 2, False)
    monkeypatch.setattr(bench_gpu.attention, "choose_tile", lambda *_: tile)
    monkeypatch.setattr(bench_gpu.attention, "cuda_capability_geq", lambda *_: False)  # no driver to ask
    for name, value in dict(DEVICE="cpu", BATCH=2, HEADS={"base": 1}, ROUNDS=1, ROWS=(40,), SWEEP=[(64, 64, 4, 2)],
                            TABLES=((300, 64, torch.float32),),
                            wikipedia_lengths=lambda batch: ([40, 20], [9, 0])).items():  # fmt: skip
        monkeypatch.setattr(bench_gpu, name, value)
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--lease", "--json", str(tmp_path / "out.json")])
    bench_gpu.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(found["check"]) == 14 and len(found["tiles"]) == 6 and "no Tile" not in capsys.readouterr().out
    failed = {(row["method"], "backward" in name) for name, rows in found.items() if isinstance(rows, list)
              for row in rows if "error" in row and "method" in row}  # fmt: skip
    # flash has no CPU form, and flex no backward pass there
    assert failed <= {("flash", False), ("flash", True), ("flex", True)}
    assert sum(name.startswith("attention") for name in found) == 6


PROCESSES = interpreted(__file__, "interpreted")


def test_in_the_interpreter(output_of):
    expect_passed(output_of("interpreted"))

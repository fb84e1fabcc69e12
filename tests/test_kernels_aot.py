"""The kernels as the GPU will get them: compiled ahead of time for A100, H100 and B200, without a GPU.

    python -m pytest tests/test_kernels_aot.py

The operators launch as they would on a GPU, up to the point where one is needed; what that compiles is looked at. For
every target, dropout off and on, one query and two, with the tiles that would be launched: no spills, shared memory within the chip's, the
tensor cores of that generation and no older ones, pipelined loads, no 2-byte loads, no atomics, and a bounded number of
instructions per attention score in the hot loop. The number of heads is a dimension of the launch grid and strides are
arguments, so base (12 heads) and large (16) are one and the same binary; that is checked. The cross-entropy's kernels
likewise, for tables of 768 features in half precision and of 256 in float32. Each of these in one of float16 and
bfloat16: the two differ in rounding alone, and not in any number here (`bench_kernels.py --static` compiles both).

Compilation runs in processes of their own (conftest.py), without TRITON_INTERPRET and with an empty cache.
"""

import json

import pytest

SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
# instructions per score and thread in the hot loop: (kernel, dropout): sm_80, sm_90, sm_100
PER_SCORE = {
    ("forward", False): (9.35, 6.7, 7.3),  # sm_80: 9.33, of which two no-ops that the assembler adds
    ("query_gradient", False): (11.4, 6.2, 6.1),
    ("key_gradient", False): (13.8, 9.8, 7.7),
    ("forward", True): (24, 19, 20.5),
    ("query_gradient", True): (27, 20.5, 25),
    ("key_gradient", True): (36.5, 25.5, 33),
}
# (kernel, architecture, dropout) that have one program on a processor, and why that is better than two
ONE_PROGRAM = {
    **{("forward", arch, dropout): "8 warps of 190 to 250 registers; 4 warps spill" for arch in (80, 100)
       for dropout in (False, True)},
    **{("key_gradient", arch, dropout): "sm_80: 8 warps share the reads of 128 keys; sm_100: all of the tensor memory"
       for arch in (80, 100) for dropout in (False, True)},
    ("query_gradient", 100, True): "8 warps: with 4 dropout's mask does not fit the registers",
}  # fmt: skip
TWO_STAGES = """
import json, torch, bench_kernels as bench
from bench_kernels import attention
tiles = {key: tuple(tile._replace(num_stages=2) for tile in pair) for key, pair in attention.TILES.items()}
attention.TILES = tiles
print(json.dumps(bench.inspect_attention(90)))
"""
INSPECT = """
import json, sys, torch, bench_kernels as bench
dtype, weight_dtype = (getattr(torch, name) for name in sys.argv[1:3])
features, dropout = int(sys.argv[3]), float(sys.argv[4])
rows = []
for arch in bench.ARCHITECTURES:
    rows += bench.inspect_attention(arch, dtype, dropout) + bench.inspect_attention(arch, dtype, dropout, False)
    rows += bench.inspect_cross_entropy(arch, dtype, weight_dtype, features)
print(json.dumps(rows))
"""
NOT_ALIGNED = """
import json, torch, bench_kernels as bench
from bench_kernels import attention
wide, packing = bench.attention_inputs(torch.float16)
tensors = [torch.zeros(x.numel() + 1).half()[1:].view(x.shape) for x in wide[:4]]
attention.readable = lambda tensor: tensor
with bench.compiling(attention, ["forward"], 80) as compiled:
    attention._attention(*tensors, *packing, 0.0, None)
print(json.dumps(bench.read_back(compiled[0], attention.TILES["forward", 80][0])))
"""
PROCESSES = {
    "with dropout": (["-c", INSPECT, "bfloat16", "float32", "256", "0.1"], {}),
    "without": (["-c", INSPECT, "float16", "float16", "768", "0.0"], {}),
    "not aligned": (["-c", NOT_ALIGNED], {}),
    "two stages": (["-c", TWO_STAGES], {}),
}


@pytest.fixture
def everything(output_of):
    """All 36 + 12 kernels, as dicts of numbers from `bench_kernels.py`."""
    return json.loads(output_of("without")) + json.loads(output_of("with dropout"))


@pytest.fixture
def compiled(everything):
    return [row for row in everything if "dropout" in row]


def test_all_were_compiled(everything, compiled):
    keys = {(r["kernel"], r["arch"], r["features"]) for r in everything if r not in compiled}
    assert len(keys) == len(everything) - len(compiled) == 2 * 3 * 2
    keys = {(r["kernel"], r["arch"], r["dropout"], r["queries"]) for r in compiled}
    assert len(keys) == len(compiled) == 3 * 3 * 2 * 2
    assert {r["dtype"] for r in everything} == {"fp16", "bf16"}


def test_nothing_spills_and_everything_fits(everything):
    for r in everything:
        assert r["spilled_bytes"] == r["local_instructions"] == 0, r
        assert r["registers"] <= 255 and r["shared_bytes"] <= SHARED_MEMORY[r["arch"]], r
        assert r["tensor_memory_columns"] <= 512, r


def test_tensor_cores_of_the_generation(everything):
    for r in everything:
        used = {name for name in ("mma_sync", "wgmma", "tcgen05") if r[name]}
        assert used == {{80: "mma_sync", 90: "wgmma", 100: "tcgen05"}[r["arch"]]}, r


def test_loads_are_wide_and_pipelined(compiled):
    for r in compiled:
        assert r["tma_loads" if r["arch"] >= 90 else "cp_async"] > 0, r
        assert r["narrow_loads"] == r["atomics"] == 0, r


def test_loads_of_the_cross_entropy(everything):
    for r in everything:
        if "features" in r:
            assert r["cp_async"] > 0 and r["atomics"] == 0, r
            # A bias in half precision is read one number at a time; all else is wide. On sm_100 a thread has a row's 64
            # classes, so there are 64 such loads; in the forward kernel's flat loop the compiler has them twice.
            assert r["narrow_loads"] == 0 or (r["weight"] != "fp32" and r["narrow_loads"] <= 128), r
            assert 10 < r["per_score"] < 60, r


def test_tiles_are_asked_for_early(compiled, output_of):
    """On sm_90 without dropout, in the order of the machine code: a tile is asked for a whole pass or more before it is
    waited for. In the keys' gradient, when the products of a tile begin, the tile after the next one has been asked
    for; the other two kernels' tiles of 128 keys would need a fourth buffer for that, and leave room for one program."""
    for r in compiled:
        if r["arch"] == 90 and not r["dropout"]:
            assert r["load_to_wait"] >= r["loop"], r
            assert r["second_next"] > 0 or r["kernel"] != "key_gradient", r
    for r in json.loads(output_of("two stages")):
        assert r["load_to_wait"] < r["loop"] and r["second_next"] < 0, r


def test_programs_of_a_processor(compiled, everything):
    """Two or more, so that one computes while another waits, but where ONE_PROGRAM says what more would cost. The
    score gradient has two, by its register limit, where that does not spill: a float32 table on sm_80 and sm_90."""
    for r in compiled:
        assert r["programs"] >= 2 or (r["kernel"], r["arch"], r["dropout"]) in ONE_PROGRAM, r
    limited = [r for r in everything if r["kernel"] == "score_gradient" and r["weight"] == "fp32" and r["arch"] < 100]
    assert len(limited) == 2 and all(r["programs"] == 2 for r in limited), limited


def test_instructions_per_score(compiled):
    for r in compiled:
        limit = PER_SCORE[r["kernel"], r["dropout"]][(80, 90, 100).index(r["arch"])]
        assert 4 < r["per_score"] <= limit, r


def test_model_size_is_not_compiled_in():
    """What is fixed at compile time is the tile, the head size and three switches: no number of heads, no stride."""
    from kernels import entity_attention as attention

    kernels = attention.forward_kernel, attention.query_gradient_kernel, attention.key_gradient_kernel
    fixed = {p.name for kernel in kernels for p in kernel.params if p.is_constexpr}
    assert fixed == {"BLOCK_M", "BLOCK_N", "HEAD_DIM", "TWO_QUERIES", "DROPOUT", "TMA"}


def test_these_checks_can_fail(output_of):
    """Without copies of what is not aligned the compiler falls back to 2-byte loads, and the numbers say so."""
    row = json.loads(output_of("not aligned"))
    assert row["narrow_loads"] > 0 and row["cp_async"] == 0, row

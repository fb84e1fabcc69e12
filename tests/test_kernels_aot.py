"""The kernels as the GPU will get them: compiled ahead of time for A100, H100 and B200, without a GPU.

    python -m pytest tests/test_kernels_aot.py

For every target x float16, bfloat16 x dropout off, on, with the tiles that would be launched: no spills, shared memory
within the chip's, the tensor cores of that generation and no older ones, pipelined loads, no 2-byte loads, no atomics,
and a bounded number of instructions per attention score in the hot loop. The number of heads is a dimension of the
launch grid and strides are arguments, so base (12 heads) and large (16) are one and the same binary; that is checked.
The cross-entropy's kernels likewise, for tables of 256 and 768 features, in half precision and in float32.

Compilation runs in processes of their own, two at a time, without TRITON_INTERPRET and with an empty cache.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
# instructions per score and thread in the hot loop: (kernel, dropout): sm_80, sm_90, sm_100
PER_SCORE = {
    ("forward", False): (10.5, 7.5, 7.5),
    ("query_gradient", False): (14, 7.6, 6.5),
    ("key_gradient", False): (16, 10.5, 10),
    ("forward", True): (24, 19, 20.5),
    ("query_gradient", True): (27, 20.5, 25),
    ("key_gradient", True): (36.5, 25.5, 33),
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of all processes here; what one has compiled another finds."""
    mine = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return mine | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/bench'}", "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}


@pytest.fixture(scope="module")
def everything(environment, tmp_path_factory):
    """All 36 + 24 kernels, as dicts of numbers from `bench_kernels.py`."""
    command = [sys.executable, ROOT / "tests/bench/bench_kernels.py", "--static", "--dtype"]
    runs = []
    for dtype in ("fp16", "bf16"):
        file = tmp_path_factory.mktemp(dtype) / "static.json"
        process = subprocess.Popen([*command, dtype, "--json", file], env=environment, cwd=ROOT, stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, text=True)  # fmt: skip
        runs.append((process, file))
    rows = []
    for process, file in runs:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors[-3000:]
        rows += json.loads(file.read_text())["static"]
    return rows


@pytest.fixture(scope="module")
def compiled(everything):
    return [row for row in everything if row["kernel"] in ("forward", "query_gradient", "key_gradient")]


def test_all_were_compiled(everything, compiled):
    cross_entropy = [row for row in everything if row not in compiled]
    keys = {(r["kernel"], r["arch"], r["dtype"], r["weight"], r["features"]) for r in cross_entropy}
    assert len(keys) == len(cross_entropy) == 2 * 3 * 2 * 2
    keys = {(r["kernel"], r["arch"], r["dtype"], r["dropout"]) for r in compiled}
    assert len(keys) == len(compiled) == 3 * 3 * 2 * 2


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
            # a bias in half precision is read one number at a time, once a class and tile; all else is wide
            assert r["narrow_loads"] == 0 or (r["weight"] != "fp32" and r["narrow_loads"] <= 64), r
            assert 10 < r["per_score"] < 60, r


def test_instructions_per_score(compiled):
    for r in compiled:
        limit = PER_SCORE[r["kernel"], r["dropout"]][(80, 90, 100).index(r["arch"])]
        assert 4 < r["per_score"] <= limit, r


def run_script(environment, script, *arguments):
    subprocess.run([sys.executable, "-c", script, *arguments], env=environment, cwd=ROOT, check=True)


LAUNCH = """
import sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
import bench_kernels as bench
from kernels import entity_attention as attention

ARCH = int(sys.argv[1])

class PretendedGPU:
    get_current_target = lambda self: GPUTarget("cuda", ARCH, 32)
    get_current_device = lambda self: 0
    get_current_stream = lambda self, device: 0

class CompileOnly:  # kernel[grid](...) compiles for these very arguments, by Triton's own launching code, and stops
    def __init__(self, name):
        self.name, self.kernel = name, bench.KERNELS[name]
    def __getitem__(self, grid):
        return lambda *args, **options: launched.update({self.name: self.kernel.warmup(*args, grid=grid, **options)})

launched = {}
driver.set_active(PretendedGPU())
attention._architecture = lambda device: ARCH
for name in bench.KERNELS:
    setattr(attention, name + "_kernel", CompileOnly(name))
wide = torch.randn(1152, 5, 2, 64).half().unbind(1)
lengths = [torch.arange(3, dtype=torch.int32) * n for n in (512, 64)]
packing = attention.pack(*lengths, 512, 64)
out, lse = attention._attention(*wide[:4], *packing, 0.1, -5)
attention._attention_backward(wide[4], *wide[:4], out, lse, *packing, 0.1, 2**40)

def code(compiled):  # without the lines that say where in the source an instruction comes from
    lines = [line.strip() for line in compiled.asm["ptx"].splitlines() if line.startswith("\t")]
    return [line for line in lines if not line.startswith((".", "//"))]

for name, ours in launched.items():
    inspected, _ = bench.compile_kernel(name, ARCH, torch.float16, 64, 0.1)
    assert code(ours) == code(inspected) and len(code(ours)) > 500, name
"""


@pytest.mark.parametrize("arch", [80, 90])
def test_launching_asks_for_the_code_that_was_inspected(environment, everything, arch):
    """The operators up to the point where a GPU is needed: what they pass is what the figures above are of."""
    run_script(environment, LAUNCH, str(arch))


def test_model_size_is_not_compiled_in(environment):
    """What is fixed at compile time is the tile, the head size and three switches: no number of heads, no stride."""
    run_script(
        environment,
        "import bench_kernels as bench\n"
        "fixed = {p.name for kernel in bench.KERNELS.values() for p in kernel.params if p.is_constexpr}\n"
        "tile = {'BLOCK_M', 'BLOCK_N', 'BLOCK_E'}\n"
        "assert fixed == tile | {'HEAD_DIM', 'TWO_QUERIES', 'DROPOUT', 'TMA'}, fixed\n"
    )


def test_these_checks_can_fail(environment):
    """Without the promise of aligned pointers the compiler falls back to 2-byte loads, and the numbers say so."""
    run_script(
        environment,
        "import bench_kernels as bench\n"
        "honest = bench.argument_type\n"
        "bench.argument_type = lambda *a: (honest(*a)[0], False)\n"
        "row = bench.inspect('forward', 80)\n"
        "assert row['narrow_loads'] > 0 and row['cp_async'] == 0, row\n"
    )

"""What the kernels cost, measured without a GPU: from the compiler's output and from the interpreter.

    python tests/bench/bench_kernels.py                      all tables
    python tests/bench/bench_kernels.py --static             only the compiled code (two minutes on one core)
    python tests/bench/bench_kernels.py --traffic            only bytes, FLOPs and exponentials (seconds)
    python tests/bench/bench_kernels.py --rungs              what each addition to the first rung buys, on sm_90
    python tests/bench/bench_kernels.py --json out.json      the same numbers for a program to read

*Static.* Every kernel is launched on a pretended sm_80 (A100), sm_90 (H100) and sm_100 (B200), which compiles it as a
GPU would have it, and the machine code is read back: registers, spills, shared memory, which tensor-core
instruction it uses, whether loads are pipelined, and how many instructions the hot loop spends per attention score and
thread; how many programs a processor holds at a time, and how far ahead of its use a tile is asked for. The hot loop is
the innermost loop with tensor-core instructions and the most exponentials, the first of them in the program: full tiles
of word keys (or of word rows, for the gradient of the keys).

*Traffic.* The kernels run in Triton's interpreter while a counter looks at every load, store, product and exponential.
Requested bytes are what the loads and stores ask for; unique bytes are the 32-byte sectors touched at least once, which
is what memory must deliver if the caches are perfect; the minimum is every input read once and every output written
once.

Both are exact and repeatable, and neither is a time. The *roofline* at the end is an estimate: the least that tensor
cores, exponentials and memory could each take on a chip running at its published rates. Left out: anything that needs a
GPU (`bench_gpu.py`).
"""
import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

import numpy as np
import project  # noqa: F401 (finds kernels)
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from kernels import entity_attention as attention
from kernels import entity_attention_simple as simple
from kernels import linear_cross_entropy as cross_entropy

KERNELS = ("forward", "query_gradient", "key_gradient")
CROSS_ENTROPY_KERNELS = ("statistics", "score_gradient")
ARCHITECTURES = (80, 90, 100)
PRODUCT = r"\b(HMMA|HGMMA|UTC\w*MMA)\b"  # a matmul of the tensor cores
TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}

# ---------------------------------------------------------------- compiled code


class PretendedGPU:
    """What launching asks a driver for. Triton keeps code by the number of the device: here the architecture."""

    def __init__(self, arch):
        self.arch = arch

    def get_current_target(self):
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self):
        return self.arch

    def get_current_stream(self, device):
        return 0


class CompileOnly:
    """In place of a kernel: a launch compiles for these very arguments, by Triton's own launching code, and stops."""

    def __init__(self, kernel, compiled):
        self.kernel, self.compiled = kernel, compiled

    def __getitem__(self, grid):
        return lambda *args, **options: self.compiled.append(self.kernel.warmup(*args, grid=grid, **options))


@contextmanager
def compiling(module, names, arch):
    """Inside, the operators of a module of kernels compile for an architecture, without a GPU, and compute nothing.
    Gives the list of what was compiled, in the order of the launches."""
    compiled = []
    driver.set_active(PretendedGPU(arch))
    kernels = {f"{name}_kernel": CompileOnly(getattr(module, f"{name}_kernel"), compiled) for name in names}
    with mock.patch.multiple(module, **kernels):
        yield compiled


def attention_inputs(dtype, words=512, entities=64, batch=2, heads=2):
    """q_word, q_entity, key, value, the output's gradient, slices of one wide tensor; segments and longest lengths."""
    wide = torch.randn(batch * (words + entities), 5, heads, 64).to(dtype).unbind(1)
    segments = [(b * words, words, batch * words + b * entities, entities) for b in range(batch)]
    return wide, (torch.tensor(segments, dtype=torch.int32), words, entities)


def inspect_attention(arch, dtype=torch.float16, dropout=0.0, two_queries=True):
    """Compile and read back the three kernels as `entity_attention` would launch them: dicts of numbers."""
    (q_word, q_entity, *tensors, d_out), packing = attention_inputs(dtype)
    inputs = q_word, q_entity if two_queries else None, *tensors
    options = *packing, dropout, torch.tensor(0) if dropout else None
    with compiling(attention, KERNELS, arch) as compiled, mock.patch.object(attention, "architecture", lambda _: arch):
        out, lse = attention._attention(*inputs, *options)
        attention._attention_backward(d_out, *inputs, out, lse, *options)
    rows = []
    for name, code in zip(KERNELS, compiled, strict=True):
        tile = attention.choose_tile(name, arch, dtype, dropout)
        rows.append({"kernel": name, "arch": arch, "dtype": TYPES[dtype], "queries": 1 + two_queries,
                     "dropout": dropout > 0,
                     "tile": f"{tile.block_m}/{tile.block_n}/{tile.block_e} w{tile.num_warps} s{tile.num_stages}",
                     **read_back(code, tile)})  # fmt: skip
    return rows


def inspect_first_rung(arch, dtype=torch.float16):
    """The same for the kernels of `entity_attention_simple.py`."""
    (*tensors, d_out), packing = attention_inputs(dtype)
    with compiling(simple, KERNELS, arch) as compiled:
        simple.SimpleAttention.apply(*(x.requires_grad_() for x in tensors), packing[0]).backward(d_out)
    sides = simple.TILE["BLOCK_M"], simple.TILE["BLOCK_N"], simple.TILE["BLOCK_N"]
    tile = attention.Tile(*sides, simple.TILE["num_warps"], simple.TILE["num_stages"], False)
    return [read_back(code, tile) for code in compiled]


def inspect_cross_entropy(arch, dtype=torch.bfloat16, weight_dtype=torch.float32, features=256):
    """The same for the kernels of the cross-entropy. Instructions per score are those of the whole program, for a tile
    of scores outgrows any loop that the compiler leaves in it."""
    x, target = torch.zeros(32, features, dtype=dtype), torch.zeros(32, dtype=torch.int64)
    weight, bias = (torch.zeros(256, *shape, dtype=weight_dtype) for shape in ((features,), ()))
    with (compiling(cross_entropy, CROSS_ENTROPY_KERNELS, arch) as compiled,
          mock.patch.object(cross_entropy, "architecture", lambda _: arch)):  # fmt: skip
        loss, _, lse = cross_entropy._cross_entropy(x, weight, bias, target)
        cross_entropy._cross_entropy_backward(loss, x, weight, bias, target, lse, True, True)
    tile, rows = cross_entropy.choose_tile(dtype, weight_dtype, features), []
    for name, code in zip(CROSS_ENTROPY_KERNELS, compiled, strict=True):
        row = {"kernel": name, "arch": arch, "dtype": TYPES[dtype], "weight": TYPES[weight_dtype], "features": features,
               "tile": f"{tile.block_m}/{tile.block_n}/{tile.block_k} w{tile.num_warps} s{tile.num_stages}",
               **read_back(code, tile)}  # fmt: skip
        row["per_score"] = round(row["instructions"] * 32 * tile.num_warps / (tile.block_m * tile.block_n), 2)
        rows.append(row)
    return rows


def read_back(compiled, tile):
    """What the compiler made, in numbers."""
    usage, sass = disassemble(compiled.asm["cubin"])
    ptx = compiled.asm["ptx"]
    instructions, loops = loops_of(sass)
    per_thread = tile.block_m * tile.block_n / (32 * tile.num_warps)  # scores of one tile that one thread holds
    exponentials = [count(r"\bMUFU\.EX2", instructions[loop]) for loop in loops]
    hot = loops[int(np.argmax(exponentials))] if loops else slice(0, 0)
    registers = int(re.search(r"REG:(\d+)", usage)[1])
    return {
        "registers": registers,
        "programs": programs_per_processor(compiled.metadata, registers),
        **load_and_use(instructions[: hot.start], instructions[hot]),
        "spilled_bytes": int(re.search(r"STACK:(\d+)", usage)[1]) + int(re.search(r"LOCAL:(\d+)", usage)[1]),
        "local_instructions": count(r"\b(LDL|STL)\b", instructions),
        "shared_bytes": compiled.metadata.shared, "tensor_memory_columns": getattr(compiled.metadata, "tmem_size", 0),
        "mma_sync": len(re.findall(r"\bmma\.sync", ptx)), "wgmma": len(re.findall(r"\bwgmma\.mma_async", ptx)),
        "tcgen05": len(re.findall(r"\btcgen05\.mma", ptx)),
        "cp_async": len(re.findall(r"\bcp\.async\.c[ag]", ptx)),
        "tma_loads": len(re.findall(r"\bcp\.async\.bulk\.tensor", ptx)),
        "narrow_loads": len(re.findall(r"\bld\.global[^;]*\.[bu]16\b", ptx)),
        "atomics": len(re.findall(r"\b(atom|red)\.global", ptx)),
        "instructions": len(instructions),
        "per_score": round(len(instructions[hot]) / per_thread, 2),
    }  # fmt: skip


def programs_per_processor(metadata, registers):
    """How many programs a streaming multiprocessor holds at a time, by registers, warps, shared and tensor memory."""
    shared, columns = metadata.shared, getattr(metadata, "tmem_size", 0)
    by_registers = 65536 // (-(-registers // 8) * 8 * 32 * metadata.num_warps)
    by_shared = (164 if metadata.target.arch < 90 else 228) * 1024 // (shared + 1024)  # of each, 1 KB is the system's
    return min(by_registers, 64 // metadata.num_warps, by_shared, 512 // columns if columns else 64)


def load_and_use(before, loop):
    """How early the hot loop asks for a tile, from the order of the machine code. As many tiles as were asked for before
    the loop, `ahead`, a load in pass i brings that of pass i + ahead. In instructions: `load_to_wait`, from the last
    load of a tile to the first wait for it; `second_next`, how long before the first product of a tile the tile after
    the next one is asked for (negative: after it)."""
    copy = r"\bUTMALDG\b" if count(r"\bUTMALDG\b", loop) else r"\bLDGSTS\b"
    load, wait, product = ([i for i, instruction in enumerate(loop) if re.search(pattern, instruction)] for pattern in
                           (copy, r"\bDEPBAR\.LE SB|\bSYNCS\.PHASECHK", PRODUCT))  # fmt: skip
    if not (load and wait):
        return {"loop": len(loop), "ahead": 0, "load_to_wait": 0, "second_next": -len(loop)}
    ahead = count(copy, before) // len(load)
    return {"loop": len(loop), "ahead": ahead, "load_to_wait": ahead * len(loop) + wait[0] - load[-1],
            "second_next": (ahead - 2) * len(loop) + product[0] - load[-1]}  # fmt: skip


def disassemble(cubin):
    """Resource usage and machine code, by the two programs that come with Triton."""
    tools = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        commands = [["cuobjdump", "-res-usage", file.name], ["nvdisasm", "-c", file.name]]
        return [subprocess.run([os.path.join(tools, c), *rest], capture_output=True, text=True, check=True).stdout
                for c, *rest in commands]  # fmt: skip


def loops_of(sass):
    """All instructions, and where among them is each innermost loop that has tensor-core instructions."""
    instructions, labels = [], {}
    for line in sass.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?)\s*;", line):
            instructions.append(instruction[1])
    spans = []
    for end, instruction in enumerate(instructions):
        target = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", instruction)
        if target and labels.get(target[1], end + 1) <= end:
            spans.append((labels[target[1]], end + 1))
    spans = [s for s in spans if count(PRODUCT, instructions[slice(*s)])]
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return instructions, [slice(*s) for s in sorted(inner)]


def count(pattern, instructions):
    return sum(re.search(pattern, instruction) is not None for instruction in instructions)


# ---------------------------------------------------------------- traffic, in the interpreter


class Traffic(NamedTuple):
    requested: int  # bytes asked for
    unique: int  # bytes of the 32-byte sectors touched
    flops: int  # of matrix products
    exponentials: int
    atomics: int


class TrafficCounter:
    """`with TrafficCounter() as counter:` counts what interpreted kernels do inside; `counter.traffic()` says it."""

    def __enter__(self):
        from triton.runtime.interpreter import InterpreterBuilder

        self.requested = self.flops = self.exponentials = self.atomics = 0
        self.sectors = {"load": [], "store": []}
        self.builder, self.originals = InterpreterBuilder, {}
        self._replace("create_masked_load", lambda ptrs, mask, *_, **__: self._access("load", ptrs, mask))
        self._replace("create_masked_store", lambda ptrs, value, mask, *_, **__: self._access("store", ptrs, mask))
        self._replace("create_dot", self._dot)
        self._replace("create_exp2", self._exponential)
        self._replace("create_atomic_rmw", self._atomic)
        self._replace("create_atomic_cas", self._atomic)
        return self

    def __exit__(self, *_):
        for name, original in self.originals.items():
            setattr(self.builder, name, original)

    def _replace(self, name, look):
        original = self.originals[name] = getattr(self.builder, name)

        def both(builder, *args, **kwargs):
            look(*args, **kwargs)
            return original(builder, *args, **kwargs)

        setattr(self.builder, name, both)

    def _access(self, kind, ptrs, mask):
        size = ptrs.get_element_ty().primitive_bitwidth // 8
        addresses = np.asarray(ptrs.data)[np.asarray(mask.data, dtype=bool)]
        self.requested += addresses.size * size
        self.sectors[kind].append(np.unique(addresses // 32))

    def _dot(self, a, b, *_):
        self.flops += 2 * a.data.shape[0] * a.data.shape[1] * b.data.shape[1]

    def _exponential(self, arg):
        self.exponentials += arg.data.size

    def _atomic(self, *_, **__):
        self.atomics += 1

    def traffic(self):
        unique = 32 * sum(len(np.unique(np.concatenate(sectors))) for sectors in self.sectors.values() if sectors)
        return Traffic(self.requested, unique, self.flops, self.exponentials, self.atomics)


def attention_traffic(arch, words=512, entities=64, batch=2, heads=2, head_dim=64, first_rung=False):
    """Forward and backward with the tiles of an architecture, or by the first rung, as ratios to the least that could do.

    The least: forward reads both queries, keys, values and writes the output and its log-sum-exp; backward reads all of
    these and the output's gradient, writes four gradients. FLOPs: two products of all queries with all keys forward,
    five backward (ours takes seven, because the gradient of the keys and that of the queries each redo the first two).
    """
    rows = batch * (words + entities)
    wide, packing = attention_inputs(torch.float16, words, entities, batch, heads)
    chosen, leaves = attention.choose_tile, [x.clone().requires_grad_() for x in wide[:4]]
    with mock.patch.object(attention, "choose_tile", lambda kernel, _, *rest: chosen(kernel, arch, *rest)):
        with TrafficCounter() as counter:
            if first_rung:
                out = simple.SimpleAttention.apply(*leaves, packing[0])
            else:
                out = attention.entity_attention(*leaves, *packing)
        forward = counter.traffic()
        with TrafficCounter() as counter:
            out.backward(wide[4])
        backward = counter.traffic()
    tensor, statistic = rows * heads * head_dim * 2, rows * heads * 4
    scores = batch * heads * (words + entities) ** 2
    least = {"forward": (5 * tensor + statistic, 2), "backward": (10 * tensor + statistic, 5)}
    results = []
    for (direction, (minimum, products)), counted in zip(least.items(), (forward, backward), strict=True):
        results.append({
            "kernel": direction, "arch": arch, "minimum": minimum, "unique": counted.unique,
            "requested / minimum": round(counted.requested / minimum, 3),
            "unique / minimum": round(counted.unique / minimum, 4),
            "flops / ideal": round(counted.flops / (products * 2 * scores * head_dim), 3),
            "exponentials / score": round(counted.exponentials / scores, 3), "atomics": counted.atomics,
        })  # fmt: skip
    return results


def eager_traffic(words=512, entities=64, batch=2, heads=2, head_dim=64, dropout=0.1):
    """Bytes that the attention of transformers' LUKE layer moves, forward and backward: every operator's inputs and
    outputs, projections left out, dropout counted as the one operator that it is on a GPU. Needs transformers."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from transformers import LukeConfig
    from transformers.models.luke.modeling_luke import LukeSelfAttention

    class Tally(TorchDispatchMode):
        bytes = 0
        free = {"view", "_unsafe_view", "transpose", "permute", "slice", "t", "expand", "detach", "unsqueeze", "alias"}
        projections = {"addmm", "mm", "linear"}

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            result = op(*args, **(kwargs or {}))
            name = op.overloadpacket.__name__
            projection_bias = name == "sum" and args[0].dim() == 2
            if name not in self.free | self.projections and not projection_bias:
                tensors = {id(t): t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)}
                self.bytes += sum(t.numel() * t.element_size() for t in tensors.values())
            return result

    config = LukeConfig(hidden_size=heads * head_dim, num_attention_heads=heads, use_entity_aware_attention=True,
                        attention_probs_dropout_prob=dropout, attn_implementation="eager")  # fmt: skip
    layer = LukeSelfAttention(config).half()
    layer.dropout.forward = lambda x: torch.native_dropout(x, dropout, True)[0] if dropout else x
    word, entity = (torch.randn(batch, n, heads * head_dim).half().requires_grad_() for n in (words, entities))
    mask = torch.zeros(batch, 1, 1, words + entities).half()
    with Tally() as forward:
        out = layer(word, entity, mask)[:2]
    gradients = [torch.randn_like(x) for x in out]
    with Tally() as backward:
        torch.autograd.grad(out, [word, entity, *layer.parameters()], gradients)
    return forward.bytes, backward.bytes


# ---------------------------------------------------------------- what each addition buys

RUNGS = {  # the tile in place of a kernel's own; None: the first rung itself
    "first rung": None,
    "full tiles unmasked": lambda own: attention.Tile(64, 64, 64, 4, 2, False),
    "tensor descriptors": lambda own: attention.Tile(64, 64, 64, 4, 2, True),
    "each kernel's tile": lambda own: own._replace(num_stages=2),
    "loads further ahead": lambda own: own,
}


def rung(name, arch, interpreted):
    """Of forward, gradient of the queries, of the keys: instructions per score, programs of a processor; in the
    interpreter the bytes that forward and backward ask for, in minima."""
    own, change = attention.choose_tile, RUNGS[name] or (lambda tile: tile)
    with mock.patch.object(attention, "choose_tile", lambda *arguments: change(own(*arguments))):
        if interpreted:
            rows = attention_traffic(arch, batch=1, heads=1, first_rung=RUNGS[name] is None)
            return {"requested / minimum": [row["requested / minimum"] for row in rows]}
        rows = inspect_first_rung(arch) if RUNGS[name] is None else inspect_attention(arch)
        return {key: [row[key] for row in rows] for key in ("per_score", "programs", "load_to_wait", "spilled_bytes")}


def rungs_table(interpreted, arch=90):
    rows = [{"rung": name, **rung(name, arch, interpreted)} for name in RUNGS]
    for row in rows:
        print(show(row, row), flush=True)
    return rows


# ---------------------------------------------------------------- roofline: an estimate

CHIPS = {  # dense fp16 FLOP/s, bytes/s, exponentials/s = SMs x 16 a cycle x clock
    "A100": (312e12, 2.04e12, 108 * 16 * 1.41e9),
    "H100": (989e12, 3.35e12, 132 * 16 * 1.83e9),
}


def roofline(words=512, entities=128, batch=32, head_dim=64):
    """Microseconds per layer that each unit needs at the least, at full rate; the true time is at least their maximum
    and, if nothing overlaps, about their sum. Backward with our seven products and two exponentials per score."""
    rows = []
    for chip, (flops, bandwidth, exponentials) in CHIPS.items():
        for size, heads in (("base", 12), ("large", 16)):
            scores = batch * heads * (words + entities) ** 2
            tensor = batch * (words + entities) * heads * head_dim * 2
            for direction, products, passes, tensors in (("forward", 2, 1, 5), ("backward", 7, 2, 10)):
                flop, exponential, byte = 2 * products * scores * head_dim, passes * scores, tensors * tensor
                work = flop / flops, exponential / exponentials, byte / bandwidth
                mma, exp, memory = (round(1e6 * seconds, 1) for seconds in work)
                rows.append({
                    "chip": chip, "model": size, "kernel": direction, "mma us": mma, "exp us": exp, "memory us": memory,
                    "least us": max(mma, exp, memory), "sum us": round(mma + exp + memory, 1),
                })  # fmt: skip
    return rows


# ---------------------------------------------------------------- command line


def static_table():
    """All kernels at the sizes they are made for: heads of 64; entity tables of 256 features in float32, as under
    autocast, and word tables of 768 in the type of the products."""
    rows = []
    for arch, dtype in itertools.product(ARCHITECTURES, (torch.float16, torch.bfloat16)):
        for weight_dtype, features in ((torch.float32, 256), (dtype, 768)):
            rows += show_each(inspect_cross_entropy(arch, dtype, weight_dtype, features), ("weight", "features"))
        for dropout, two_queries in itertools.product((0.0, 0.1), (True, False)):
            rows += show_each(inspect_attention(arch, dtype, dropout, two_queries), ("dropout", "queries"))
    return rows


def show_each(rows, names):
    for row in rows:
        print(show(row, ("kernel", "arch", "dtype", *names, "tile", "registers", "spilled_bytes", "shared_bytes",
                         "programs", "loop", "load_to_wait", "second_next", "per_score")), flush=True)  # fmt: skip
    return rows


def show(row, names):
    return "  ".join(f"{name.replace('_', ' ')} {row[name]}" for name in names)


def traffic_table():
    rows = [row for arch in ARCHITECTURES for row in attention_traffic(arch)]
    try:
        eager = dict(zip(("forward", "backward"), eager_traffic(), strict=True))
    except ImportError:
        eager = {}
    for row in rows:
        if eager:
            row["transformers / unique"] = round(eager[row["kernel"]] / row["unique"], 1)
        print(show(row, row), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--static", action="store_true", help="only the compiled code")
    parser.add_argument("--traffic", action="store_true", help="only bytes, FLOPs, exponentials, in the interpreter")
    parser.add_argument("--rungs", action="store_true", help="only what each addition buys; interpreted: its bytes")
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    results = {}
    if args.rungs:
        results["rungs"] = rungs_table(interpreted)
    elif args.static or not args.traffic:
        if interpreted:
            raise SystemExit("--static compiles: run it without TRITON_INTERPRET")
        results["static"] = static_table()
    if args.traffic or not (args.static or args.rungs):
        results["traffic"] = traffic_table() if interpreted else interpreted_traffic()
    if not (args.static or args.traffic or args.rungs):
        results["roofline, estimated"] = roofline()
        for row in results["roofline, estimated"]:
            print("estimate ", show(row, row))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


def interpreted_traffic():
    """The same program once more with the interpreter on: kernels are interpreted or compiled, never both at once."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "traffic.json")
        command = [sys.executable, __file__, "--traffic", "--json", file]
        subprocess.run(command, env=dict(os.environ, TRITON_INTERPRET="1"), check=True)
        with open(file) as stream:
            return json.load(stream)["traffic"]


if __name__ == "__main__":
    main()

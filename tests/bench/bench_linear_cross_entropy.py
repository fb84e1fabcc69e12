"""Cross-entropy over very many classes on a CPU: ours, the full computation, and torch's own chunks of rows.

    python tests/bench/bench_linear_cross_entropy.py [--rows 512] [--classes 500000] [--features 256] [--rounds 5]
        [--precision fp32] [--skip-rowwise]

Forward and backward with gradients for hidden, weight and bias. Methods take turns, medians are printed, and their
ratios are what to quote. Peak memory is that of a process of its own a method, beyond inputs and gradients. Torch's
chunks are `F.linear_cross_entropy` with its default `LinearCrossEntropyOptions`, where this torch has them."""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import project  # noqa: F401 (finds luke_mini)
import torch
import torch.nn.functional as F

from luke_mini import ops


def ours(hidden, weight, bias, target):
    return ops.linear_cross_entropy(hidden, weight, bias, target)[0].mean()


def full(hidden, weight, bias, target):
    return F.cross_entropy(F.linear(hidden, weight, bias).float(), target)


def rowwise(hidden, weight, bias, target):
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, target, linear_bias=bias, options=options)


METHODS = {"ours": ours, "full": full, "torch's chunks of rows": rowwise}


def make_inputs(arguments):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(arguments.rows, arguments.features, generator=generator)
    weight = torch.randn(arguments.classes, arguments.features, generator=generator).mul_(arguments.features**-0.5)
    bias = torch.zeros(arguments.classes)
    target = torch.randint(arguments.classes, (arguments.rows,), generator=generator)
    return *(x.requires_grad_() for x in (hidden, weight, bias)), target


def step(method, inputs, precision: str) -> float:
    for x in inputs[:3]:
        x.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        loss = METHODS[method](*inputs)
    loss.backward()
    return float(loss.detach())


def peak_mb() -> float:
    """Most memory this process ever had. (getrusage would count its parent's, too.)"""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def memory_alone(arguments, method: str) -> float:
    """Peak beyond inputs and gradients, MB, of one step in this process."""
    inputs = make_inputs(arguments)
    small = argparse.Namespace(rows=8, classes=64, features=8)
    step(method, make_inputs(small), arguments.precision)  # loads libraries
    before = peak_mb()
    step(method, inputs, arguments.precision)
    return peak_mb() - before - sum(x.numel() * 4 for x in inputs[:3]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--classes", type=int, default=500_000)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--skip-rowwise", action="store_true", help="leave torch's own out, which takes longest")
    parser.add_argument("--memory", choices=list(METHODS), help="print one method's peak memory and end")
    arguments = parser.parse_args()
    if arguments.memory:
        return print(memory_alone(arguments, arguments.memory))
    methods = [m for m in METHODS if m != "torch's chunks of rows" or not arguments.skip_rowwise]
    if not hasattr(torch.nn, "LinearCrossEntropyOptions") or arguments.precision != "fp32":
        methods = methods[:2]
    shape = f"{arguments.rows} rows x {arguments.classes:,} classes x {arguments.features} features"
    print(f"{shape}, {arguments.precision}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    inputs, seconds = make_inputs(arguments), {method: [] for method in methods}
    losses = [step(method, inputs, arguments.precision) for method in methods]  # warm-up
    assert max(losses) - min(losses) < (1e-4 if arguments.precision == "fp32" else 5e-2), losses
    for _ in range(arguments.rounds):
        for method in methods:
            began = time.perf_counter()
            step(method, inputs, arguments.precision)
            seconds[method].append(time.perf_counter() - began)
    first = statistics.median(seconds["ours"])
    for method in methods:
        again = [sys.executable, __file__, *sys.argv[1:], "--memory", method]
        megabytes = float(subprocess.run(again, capture_output=True, text=True, check=True).stdout)
        median = statistics.median(seconds[method])
        times = f"{median:7.2f} s   ours / this {first / median:5.2f}"
        print(f"{method:24s} {times}   {megabytes:7.0f} MB extra", flush=True)


if __name__ == "__main__":
    main()

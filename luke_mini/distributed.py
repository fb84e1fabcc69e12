"""One process or many: who am I, who prints, and sums over all of us.

`python train.py` is one process without a process group; under `torchrun` every process finds its place in the
variables that torchrun sets (RANK, LOCAL_RANK, WORLD_SIZE). NCCL joins GPUs, gloo joins CPUs. Everything here works,
and costs nothing, with a single process.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Rank:
    """This process among all processes of the run."""

    index: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.index == 0


def setup() -> Rank:
    """Joins the process group if torchrun started us, and picks the device: its own GPU or the CPU."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        return Rank(0, 1, device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Rank(dist.get_rank(), dist.get_world_size(), device)


def cleanup() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def process() -> Iterator[Rank]:
    """`with process() as rank:` the body of a script: all processes join, and only the first one prints."""
    rank = setup()
    try:
        with nullcontext() if rank.is_first else redirect_stdout(io.StringIO()):
            yield rank
    finally:
        cleanup()


def wrap(model: nn.Module, rank: Rank) -> nn.Module:
    """The model as DistributedDataParallel where there are several processes: gradients become means over them."""
    if rank.world_size == 1:
        return model
    device_ids = [rank.device.index] if rank.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, gradient_as_bucket_view=True)


def no_sync(model: nn.Module):
    """A context in which backward passes add to the local gradients without talking to the other processes."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The sum of every process's tensor, in place, the same on all of them."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def gather(value) -> list:
    """Every process's value, the first process's first, the same list on all of them."""
    values = [value]
    if dist.is_initialized():
        values = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool, rank: Rank) -> bool:
    """Whether the flag is set on one of the processes at least."""
    return flag if rank.world_size == 1 else bool(sum_over_ranks(torch.tensor(float(flag), device=rank.device)))


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()

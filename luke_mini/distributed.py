"""One process or many: who am I, who prints, and sums over all of us.

`python train.py` is one process without a process group; under `torchrun` every process finds its place in the
variables that torchrun sets (RANK, LOCAL_RANK, WORLD_SIZE). NCCL joins GPUs, gloo joins CPUs. Everything here works,
and costs nothing, with a single process.

Every process has the whole model (DistributedDataParallel), or, if it is *sharded* (FSDP2), some rows of every weight, of
its gradient and of its optimizer state: a layer's weights are together only while it computes. Saved steps hold whole
tensors either way, so that any number of processes can go on with them.
"""

import io
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from luke_mini import files


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
    store, rank, world_size = next(dist.rendezvous("env://"))
    backend, store = "nccl" if device.type == "cuda" else "gloo", fresh_store(store, rank, world_size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    return Rank(rank, world_size, device)


def fresh_store(store: dist.Store, rank: int, world_size: int) -> dist.Store:
    """A part of the store in which nothing lies yet, the same for all processes.

    `torchrun --max-restarts` starts all workers again with the store of those that it stopped, whose addresses are still
    there (github.com/pytorch/pytorch/issues/135712), and machines do not agree on the number of restarts. So the first
    process chooses a name and tells it to each of the others, which ask under a word of their own, until all know it.
    """
    own = secrets.token_hex(8)
    if rank:
        store.set(f"asks/{rank}", own)
        name = store.get(f"name/{own}").decode()
        store.add(f"{name}/known", 1)
        return dist.PrefixStore(name, store)
    asks = [f"asks/{other}" for other in range(1, world_size)]
    while store.add(f"{own}/known", 0) < len(asks):
        for word in (store.get(key).decode() for key in asks if store.check([key])):
            store.set(f"name/{word}", own)
        time.sleep(0.01)
    return dist.PrefixStore(own, store)


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


def wrap(model: nn.Module, rank: Rank, sharded: bool = False) -> nn.Module:
    """The model for training by several processes: gradients become means over them. Sharded, it is changed in place."""
    if rank.world_size == 1:
        return model
    if sharded:
        from torch.distributed.fsdp import fully_shard  # costs every start a second

        for layer in model.luke.layers:
            fully_shard(layer)
        return fully_shard(model)
    device_ids = [rank.device.index] if rank.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, gradient_as_bucket_view=True)


def no_sync(model: nn.Module):
    """A context in which backward passes add to the local gradients without talking to the other processes."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def together(model: nn.Module) -> Iterator[None]:
    """A context in which parts of a sharded model can be called; its weights must not be changed."""
    sharded = any(map(is_sharded, model.parameters()))
    if sharded:
        model.unshard()
    yield
    if sharded:
        model.reshard()


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor."""
    return hasattr(tensor, "full_tensor")


def own_rows(tensor: Tensor) -> Tensor:
    """What this process has of a tensor; changes of it are changes of the tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor that every process has as a whole, sharded as another one is."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its rows, on every process."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def gathered(tensors: dict[str, Tensor], rank: Rank) -> dict[str, Tensor]:
    """Whole tensors, of the first process; {} of the others. What is sharded is put together in main memory."""
    found = {}
    for name, tensor in tensors.items():
        complete = whole(tensor)  # all processes must take part
        if rank.is_first:
            found[name] = complete.cpu() if is_sharded(tensor) else complete
    return found


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


def one_writer(out: Path, rank: Rank):
    """`files.one_writer`; the first process takes the lock for all."""
    return files.one_writer(out) if rank.is_first else nullcontext()


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()

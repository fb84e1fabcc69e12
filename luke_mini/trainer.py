"""Training, shared by pretraining and fine-tuning: gradient accumulation, mixed precision, many processes; prediction.

A *micro-batch* is a `packing.MicroBatch` with .counts, how many predictions each term of its loss averages over:
{"word": 1200, "entity": 310}. The model turns it into {"word": (summed loss, number of hits), "entity": (…)}.

The loss of a step is, for each term, the mean over *all* predictions of the step, whichever process or micro-batch they
fell in. So one process with 64 sequences, two with 32, and two micro-batches of 32 give the same gradients.
# differs from LUKE: the reference averages the means of the micro-batches, where predictions in small ones weigh more.
"""

import io
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from luke_mini import distributed, files, ops_cpu, optim, saves
from luke_mini.config import MINI, FinetuneConfig, PretrainConfig
from luke_mini.distributed import Rank
from luke_mini.packing import MicroBatch
from luke_mini.progress import Progress
from luke_mini.saves import Saving

X86 = ("x86_64", "AMD64")
LANES = ((1 << 25, 4), (1 << 28, 2))  # up to so many weights of a model, so many micro-batches side by side at most


def default_precision(device: torch.device, hidden_size: int) -> str:
    """bf16 where the hardware supports it and the matmuls are large, which makes it two to three times faster.

    On a CPU a bf16 matmul is compiled anew for every number of rows, which changes with each packed batch: for the size
    tiny (hidden size 128) fp32 is faster, by half and more.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if hidden_size > MINI.hidden_size and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported()


def device_text(rank: Rank, precision: str) -> str:
    """For the log: what computes, and how."""
    cpu = f"cpu, {torch.get_num_threads()} threads"
    if precision == "bf16" and rank.device.type == "cpu" and platform.machine() in X86 and not cpu_has_bf16():
        precision += ", which this processor only emulates: --precision fp32 is many times faster"
    name = torch.cuda.get_device_name(rank.device) if rank.device.type == "cuda" else cpu
    return f"{rank.world_size} x {name}, {precision}" if rank.world_size > 1 else f"{name}, {precision}"


def autocast(device: torch.device, precision: str):
    """bf16 matmuls with float32 weights, or a no-op. bf16 has float32's range, so no loss scaling is needed."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def no_work(batch: MicroBatch) -> float:
    """Nobody counts operations."""
    return 0.0


def seed_step(seed: int, step: int, rank: int) -> None:
    """Ties dropout to (seed, step, rank), so that a resumed run draws what an uninterrupted one would have drawn."""
    torch.manual_seed((seed * 1_000_003 + step) * 4099 + rank)


def lanes(model: nn.Module, rank: Rank) -> int:
    """How many micro-batches compute side by side: several where a CPU has one process, and memory for their gradients."""
    weights = sum(p.numel() for p in model.parameters())
    most = next((number for limit, number in LANES if weights <= limit), 1)
    return min(ops_cpu.threads(), most) if rank.world_size == 1 and rank.device.type == "cpu" else 1


def accumulate_gradients(
    model: nn.Module, micro_batches: list, rank: Rank, precision: str, work: Callable[[MicroBatch], float] = no_work,
    each: Callable = map,
) -> dict[str, Tensor]:  # fmt: skip
    """Adds the gradient of the step's loss to the parameters, over all micro-batches and processes.

    work: the floating-point operations of a micro-batch. each: runs over micro-batches, see `ops_cpu.side_by_side`.
    Returns this process's sums, float64: "work" [3]: tokens, entities, operations; and for each term [3]: loss, hits,
    number of predictions.
    """
    names = sorted(micro_batches[0].counts)
    local = [sum(batch.counts[name] for batch in micro_batches) for name in names]
    # Numbers that the host knows stay there: copying them to a GPU would wait for all that it still has to do.
    counts = torch.tensor(local, dtype=torch.float64)
    if rank.world_size > 1:
        counts = distributed.sum_over_ranks(counts.to(rank.device))
    # DistributedDataParallel divides by the number of processes; a sum over them is wanted.
    scales = rank.world_size / counts.clamp(min=1)
    sums = {name: torch.zeros(3, dtype=torch.float64, device=rank.device) for name in names}
    done = [(batch.n_tokens, batch.packed.n_entities, work(batch)) for batch in micro_batches]
    parameters = [p for p in model.parameters() if p.requires_grad]

    def both_ways(batch: MicroBatch) -> tuple[dict, tuple]:
        """The terms of a micro-batch, and its gradients where several are computed at a time."""
        is_last = batch is micro_batches[-1]
        with nullcontext() if is_last else distributed.no_sync(model):
            with autocast(rank.device, precision):
                terms = model(batch.to(rank.device))
            loss = sum(terms[name][0] * scale.float() for name, scale in zip(names, scales))
            if each is not map:
                return terms, torch.autograd.grad(loss, parameters, allow_unused=True)
            loss.backward()
        return terms, ()

    for batch, (terms, found) in zip(micro_batches, each(both_ways, micro_batches)):
        for p, gradient in zip(parameters, found):  # in the order of the micro-batches, whichever was done first
            if gradient is not None and p.grad is None:
                p.grad = gradient.clone(memory_format=torch.contiguous_format)  # it may be another's, too
            elif gradient is not None:
                p.grad += gradient
        for name, (loss_sum, hits) in terms.items():
            sums[name][:2] += torch.stack([loss_sum.detach().double(), hits.double()])
            sums[name][2] += batch.counts[name]
    return {"work": torch.tensor(done, dtype=torch.float64).sum(0).to(rank.device), **sums}


def train(
    model: nn.Module,
    optimizer: optim.AdamW,
    steps: Iterable[list],
    *,
    recipe: PretrainConfig | FinetuneConfig,
    rank: Rank,
    precision: str,
    learning_rate: Callable[[int], float],
    start_step: int = 0,
    out: Path = Path(),
    work: Callable[[MicroBatch], float] = no_work,
    each: Callable = map,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Runs one optimizer step for each list of micro-batches; yields (steps done so far, sums over all processes).

    model: wrapped by `distributed.wrap`. learning_rate: from the 0-based step to the rate. The sums are those of
    `accumulate_gradients` and "norm" [2]: the gradient's norm, 1. The caller logs, evaluates and saves between the
    steps, where weights and optimizer are consistent. ValueError before a step whose loss or gradient is NaN or
    infinite; the weights are still good, and its batch is kept in a file in `out`.
    """
    model.train()
    for step, micro_batches in enumerate(steps, start=start_step):
        seed_step(recipe.seed, step, rank.index)
        own = accumulate_gradients(model, micro_batches, rank, precision, work, each)
        joint = distributed.sum_over_ranks(torch.cat([*own.values()])).split([len(terms) for terms in own.values()])
        sums = dict(zip(own, joint))
        if recipe.max_grad_norm > 0:
            norm = torch.nn.utils.clip_grad_norm_(optimizer.parameters, recipe.max_grad_norm)
        else:
            norm = torch.nn.utils.get_total_norm([p.grad for p in optimizer.parameters if p.grad is not None])
        norm = distributed.whole(norm)
        rates = [learning_rate(max(0, step - 1)), learning_rate(step)]
        check_finite_step(sums, norm, step, rates, micro_batches, out / f"failed-batch-{rank.index}.pt")
        optimizer.set_learning_rate(learning_rate(step))
        optimizer.step()
        optimizer.zero_grad()
        yield step + 1, sums | {"norm": torch.stack([norm, torch.ones_like(norm)]).double()}


def check_finite_step(sums: dict, norm: Tensor, step: int, rates: list[float], batch: list, out: Path) -> None:
    """ValueError, on all processes, if loss or gradient of the step is not finite; each keeps its part of the batch.

    sums: over all processes. norm: of the gradient, which they share. rates: of the step before and of this one.
    """
    losses = {name: (terms[0] / terms[2].clamp(min=1)).item() for name, terms in sums.items() if name != "work"}
    found = losses | {"norm of the gradient": norm.item()}
    if all(map(math.isfinite, found.values())):
        return
    made = io.BytesIO()
    torch.save([asdict(part) for part in batch], made)
    with files.write_file(out, "wb") as file:
        file.write(made.getbuffer())
    shown = ", ".join(f"{name} {value:g}" for name, value in found.items())
    before, now = rates
    raise ValueError(f"step {step + 1}: the loss is not finite ({shown}), learning rate {now:g}, before {before:g}; "
                     f"its batch is in {out}, the saved steps are from before")  # fmt: skip


class Ahead:
    """Iterates over `items`; a thread makes the next one while the caller works on this one.

    waited: seconds that the caller had to wait nevertheless. The thread must not draw from torch's generator.
    """

    def __init__(self, items: Iterable):
        self.items, self.waited = iter(items), 0.0

    def __iter__(self) -> Iterator:
        end = object()
        with ThreadPoolExecutor(1, "loader") as thread:
            following = thread.submit(next, self.items, end)
            while True:
                began = time.perf_counter()
                item = following.result()
                self.waited += time.perf_counter() - began
                if item is end:
                    return
                following = thread.submit(next, self.items, end)
                yield item


@contextmanager
def stop_asked(rank: Rank) -> Iterator[Callable[[], bool]]:
    """`with stop_asked(rank) as asked:` SIGINT and SIGTERM do not end the process, but asked() is true from then on.

    All processes get the same answer. A second SIGINT ends a run of one process at once; torchrun sends two for one.
    """
    received: list[int] = []

    def receive(number: int, frame) -> None:
        received.append(number)
        if rank.world_size == 1:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, b"\nstopping after this step, which is saved; Ctrl-C again stops at once\n" * rank.is_first)

    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in old.items():
        if handler is not signal.SIG_IGN:  # as a shell's background job has it for SIGINT
            signal.signal(number, receive)
    try:
        yield lambda: distributed.any_rank(bool(received), rank)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def fit(
    model: nn.Module,
    batches: Callable[[int, int], Iterable[list]],
    *,
    recipe: PretrainConfig | FinetuneConfig,
    rank: Rank,
    precision: str,
    total_steps: int,
    warmup_steps: int,
    saving: Saving,
    log_every: int,
    title: str,
    validate: Callable[[int], dict | None] = lambda step: None,
    is_better: Callable[[dict, dict], bool] = lambda found, best: True,
    measure: Callable[[int], dict] = lambda step: {},
    work: Callable[[MicroBatch], float] = no_work,
    peak: float = 0.0,
    sharded: bool = False,
    side_by_side: bool = True,
    price: float = 0.0,
) -> dict:
    """Trains the model from the latest saved step, if any, and leaves it with its last weights or the best ones.

    batches: start step, `lanes` -> the lists of micro-batches from there on, at least so many in each. validate: step ->
    scores of the weights after it, or None if that step is not scored. is_better: whether scores beat the best so far;
    then their weights are kept. measure: more numbers of the weights after a step, for metrics.jsonl; {} after most.
    work: operations of a micro-batch; peak: how many a second all processes could do, 0 if nobody knows. sharded: see
    `distributed`. side_by_side: whether there can be `lanes`, whose random numbers are not torch's own. price: of an
    hour of a process.
    Returns the scores of the final weights, {} if no step was scored. SIGINT (Ctrl-C) and SIGTERM save the step, say so
    and exit with status 0.
    """
    if rank.device.type == "cpu":
        ops_cpu.keep_memory()
    wrapped = distributed.wrap(model, rank, sharded)
    optimizer = optim.AdamW.of(model, recipe)
    for index, info in enumerate(distributed.gather(saving.info)):
        saves.check_same_run(info, saving.info, f"process {index} of this run")
    start_step, best, best_weights, state = saves.load_step(saving, model, optimizer, total_steps)
    if rank.is_first:
        saves.cut_metrics(saving.metrics, start_step)

    def learning_rate(step: int) -> float:
        return optim.linear_schedule(step, total_steps, warmup_steps, recipe.learning_rate)

    n_lanes = lanes(model, rank) if side_by_side else 1
    steps = batches(start_step, n_lanes)
    if rank.device.type == "cuda":
        steps = ([part.pinned() for part in micro_batches] for micro_batches in steps)
    loader, saved = Ahead(steps), time.monotonic()
    progress = Progress(rank, total_steps, start_step, log_every, saving.metrics, title, state, loader, peak, price)
    # The bar is closed last: an error's line is below it.
    with closing(progress.bar), stop_asked(rank) as asked, ops_cpu.side_by_side(n_lanes) as each:
        steps = train(
            wrapped, optimizer, loader, recipe=recipe, rank=rank, precision=precision, learning_rate=learning_rate,
            start_step=start_step, out=saving.metrics.parent, work=work, each=each,
        )  # fmt: skip
        for step, sums in steps:
            with progress.aside():
                measured = measure(step)
            progress.update(step, sums, learning_rate(step - 1), measured)
            found = validate(step)
            if found and (not best or is_better(found, best)):
                best, best_weights = found, saves.copy_weights(model) if step < total_steps else None
            stopped = asked()
            if stopped or saving.is_due(step, total_steps, saved):
                tensors = [distributed.gathered(part, rank) for part in (model.state_dict(), optimizer.moments())]
                if rank.is_first:
                    saves.save_step(saving, step, total_steps, *tensors, best, best_weights, progress.state())
                    saving.report()
                saved = time.monotonic()
            if stopped:
                stop(saving, progress, step)
    progress.close()
    distributed.barrier()  # the last step is on disk
    if best_weights:
        model.load_state_dict(best_weights)
    return best


def stop(saving: Saving, progress: Progress, step: int) -> NoReturn:
    """Ends the process after a step that was saved."""
    progress.close()
    distributed.barrier()  # the step is on disk
    place = saves.saved_steps(saving.out)[-1]
    print(f"stopped     after step {step:,} of {progress.total_steps:,}, saved in {place}; --resume goes on from there")
    sys.exit(0)


# --- Prediction -------------------------------------------------------------------------------------------------------


def prediction_precision(device: torch.device) -> str:
    return default_precision(device, hidden_size=0) if device.type == "cuda" else "fp32"


@contextmanager
def predicting(model: nn.Module) -> Iterator[None]:
    """`with predicting(model):` eval mode without gradients; restores the previous mode on exit. On a GPU in bf16 where
    it has bf16, whatever the model was trained in: the fast kernels are for half precision."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        with torch.inference_mode(), autocast(device, prediction_precision(device)):
            yield
    finally:
        model.train(was_training)


def long_to_short(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yields the indices of all inputs in batches, longest first: similar lengths together, peak memory at once."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]


def predict_logits(model: nn.Module, features: Sequence, sizes: Sequence[int], batch_size: int) -> list[Tensor]:
    """The logits of every input, float32 on the CPU, in order. sizes: tokens of each, to batch similar ones.

    model.collate makes a batch of features; its .rows_per_input says how many rows of model.logits belong to each.
    """
    device, logits = next(model.parameters()).device, {}
    batches = list(long_to_short(sizes, batch_size))

    def rows_of(chosen: list[int]) -> Sequence[Tensor]:
        with predicting(model):
            batch = model.collate([features[i] for i in chosen]).to(device)
            return model.logits(batch).float().cpu().split(batch.rows_per_input)

    with predicting(model), ops_cpu.side_by_side(lanes(model, Rank(0, 1, device))) as each:
        for chosen, rows in zip(batches, each(rows_of, batches)):
            logits.update(zip(chosen, rows))
    return [logits[i] for i in range(len(features))]

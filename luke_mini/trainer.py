"""Training, shared by pretraining and fine-tuning: gradient accumulation, mixed precision, many processes, log, saves.

A *micro-batch* is a `packing.MicroBatch` with .counts, how many predictions each term of its loss averages over:
{"word": 1200, "entity": 310}. The model turns it into {"word": (summed loss, number of hits), "entity": (…)}.

The loss of a step is, for each term, the mean over *all* predictions of the step, whichever process or micro-batch they
fell in. So one process with 64 sequences, two with 32, and two micro-batches of 32 give the same gradients.
# differs from LUKE: the reference averages the means of the micro-batches, where predictions in small ones weigh more.

A saved step is a folder, whole or absent, with all that a run needs to continue exactly where it stopped:

    step-000400/    model files (for pretraining, a complete checkpoint folder)
                    optimizer.safetensors                AdamW's two moments, by parameter name
                    run.json                             step, configuration, best scores so far, hashes of the files
    metrics.jsonl   one line per logged step

There is no random state to keep: the order of the examples, the masks and the seed of dropout are functions of (seed,
step), so the step alone is the position in the data.
"""

import hashlib
import io
import json
import math
import os
import platform
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from luke_mini import distributed, files, ops_cpu, optim
from luke_mini.config import MINI, FinetuneConfig, PretrainConfig
from luke_mini.distributed import Rank
from luke_mini.packing import MicroBatch
from luke_mini.weights import check_finite, read_file, save_tensors

HELD = ("step-*", "results.json", "state")  # what says that a folder holds a run, of pretraining or of fine-tuning
LENGTH = ("steps", "epochs")  # settings that may change when a run is resumed: it becomes longer or shorter
CLOCK = ("seconds", "tokens_per_second", "entities_per_second", "flop_per_second", "share_of_peak", "loader_share",
         "memory_gb")  # of metrics.jsonl: what is not the same when a run is repeated, nor after it was resumed
DISTANCES = ("page",)  # terms of a loss without hits
SPIKE = 5.0  # times the usual norm of the gradient
X86 = ("x86_64", "AMD64")
LANES, LANE_WEIGHTS = 4, 1 << 25  # micro-batches side by side at most; weights of a model up to which there are
CALM = 20  # steps before any norm is usual, and before a run says how long it will take


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
    """How many micro-batches compute side by side: several where a single process has a small model on a CPU."""
    weights = sum(p.numel() for p in model.parameters())
    is_small = rank.world_size == 1 and rank.device.type == "cpu" and weights <= LANE_WEIGHTS
    return min(ops_cpu.threads(), LANES) if is_small else 1


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
                p.grad = torch.zeros_like(p)
            if gradient is not None:
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


@dataclass
class Saving:
    """Where a run saves its steps, what it saves, and when."""

    out: Path  # holds the step-NNNNNN folders
    metrics: Path  # metrics.jsonl
    info: dict  # what the run depends on, for run.json; resuming requires the same
    write_model: Callable[[Path, dict[str, Tensor], int], None]  # writes a model's files: folder, weights, step
    read_model: Callable[[Path], None]  # reads them back into the model
    resume: bool
    kept: int  # saved steps that stay on disk
    every_steps: int = 0  # 0: use every_minutes
    every_minutes: float = 0.0
    milestones: frozenset[int] = frozenset()  # steps that are saved, too, and stay
    report: Callable[[], None] = lambda: None  # what the first process does after each save

    def is_due(self, step: int, total_steps: int, since: float) -> bool:
        """since: the time of the last save, in seconds of `time.monotonic`. The last step is always saved."""
        if step in self.milestones:
            return True
        if self.every_steps and step < total_steps:
            return step % self.every_steps == 0
        return step == total_steps or time.monotonic() - since > 60 * self.every_minutes


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
) -> dict:
    """Trains the model from the latest saved step, if any, and leaves it with its last weights or the best ones.

    batches: start step, `lanes` -> the lists of micro-batches from there on, at least so many in each. validate: step ->
    scores of the weights after it, or None if that step is not scored. is_better: whether scores beat the best so far;
    then their weights are kept. measure: more numbers of the weights after a step, for metrics.jsonl; {} after most.
    work: operations of a micro-batch; peak: how many a second all processes could do, 0 if nobody knows. sharded: see
    `distributed`.
    Returns the scores of the final weights, {} if no step was scored. SIGINT (Ctrl-C) and SIGTERM save the step, say so
    and exit with status 0.
    """
    if rank.device.type == "cpu":
        ops_cpu.keep_memory()
    wrapped = distributed.wrap(model, rank, sharded)
    optimizer = optim.AdamW.of(model, recipe)
    for index, info in enumerate(distributed.gather(saving.info)):
        check_same_run(info, saving.info, f"process {index} of this run")
    start_step, best, best_weights, state = load_step(saving, model, optimizer, total_steps)
    if rank.is_first:
        cut_metrics(saving.metrics, start_step)

    def learning_rate(step: int) -> float:
        return optim.linear_schedule(step, total_steps, warmup_steps, recipe.learning_rate)

    n_lanes = lanes(model, rank)
    steps = batches(start_step, n_lanes)
    if rank.device.type == "cuda":
        steps = ([part.pinned() for part in micro_batches] for micro_batches in steps)
    loader, saved = Ahead(steps), time.monotonic()
    progress = Progress(rank, total_steps, start_step, log_every, saving.metrics, title, state, loader, peak)
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
                best, best_weights = found, copy_weights(model) if step < total_steps else None
            stopped = asked()
            if stopped or saving.is_due(step, total_steps, saved):
                tensors = [distributed.gathered(part, rank) for part in (model.state_dict(), optimizer.moments())]
                if rank.is_first:
                    save_step(saving, step, total_steps, *tensors, best, best_weights, progress.state())
                    saving.report()
                saved = time.monotonic()
            if stopped:
                stop(saving, progress, step)
    progress.close()
    distributed.barrier()  # the last step is on disk
    if best_weights:
        model.load_state_dict(best_weights)
    return best


def stop(saving: Saving, progress: "Progress", step: int) -> NoReturn:
    """Ends the process after a step that was saved."""
    progress.close()
    distributed.barrier()  # the step is on disk
    place = saved_steps(saving.out)[-1]
    print(f"stopped     after step {step:,} of {progress.total_steps:,}, saved in {place}; --resume goes on from there")
    sys.exit(0)


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


# --- Saved steps ------------------------------------------------------------------------------------------------------


def saved_steps(out: Path) -> list[Path]:
    """The folders of all saved steps, oldest first, by number: step 1,000,000 has one more digit."""
    found = (path for path in Path(out).glob("step-*") if path.name[5:].isdecimal() and path.is_dir())
    return sorted(found, key=lambda path: int(path.name[5:]))


def agreed_steps(out: Path) -> list[Path]:
    """`saved_steps`, if all processes see the same latest one; otherwise a ValueError in each of them."""
    found = saved_steps(out)
    latest = distributed.gather(found[-1].name if found else "no saved step")
    for rank, name in enumerate(latest):
        if name != latest[0]:
            held = f"{out}: process 0 sees {latest[0]}, process {rank} {name}"
            raise ValueError(f"{held}: expected a disk that all machines share")
    return found


def refuse_used(out: Path, wanted: bool) -> None:
    """ValueError if OUT holds a run; wanted: to resume or to overwrite it was asked for."""
    if not wanted and any(any(out.glob(name)) for name in HELD):
        raise ValueError(f"{out}: holds a run already; --resume, --overwrite or another --out DIR")


def save_step(
    saving: Saving, step: int, total_steps: int, weights: dict[str, Tensor], moments: dict[str, Tensor], best: dict,
    best_weights: dict | None, state: dict,
) -> None:  # fmt: skip
    """Saves a step, then deletes all but the latest ones and the milestones. OSError when the disk is full.

    state: of the log, see `Progress.state`.
    """
    with files.write_folder(saving.out / f"step-{step:06d}") as folder:
        with files.naming(f"step {step}, not saved"):  # its loss was finite, but was what became of the weights?
            check_finite(weights | moments)
        saving.write_model(folder, weights, step)
        if best_weights:
            save_tensors(best_weights, folder / "best.safetensors")
        save_tensors(moments, folder / "optimizer.safetensors")
        hashes = {path.name: files.sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
        run = {"step": step, "total_steps": total_steps, **saving.info, "best": best, "log": state, "files": hashes}
        with files.write_file(folder / "run.json") as file:
            json.dump(run, file, indent=1, allow_nan=False)
    for leftover in saving.out.glob(".step-*.tmp"):  # of killed processes, at steps that may never be saved again
        shutil.rmtree(leftover)
    for old in saved_steps(saving.out)[: -saving.kept]:
        if int(old.name[5:]) not in saving.milestones:
            files.remove_folder(old)


def load_step(
    saving: Saving, model: nn.Module, optimizer: optim.AdamW, total_steps: int
) -> tuple[int, dict, dict | None, dict]:
    """If the run resumes, restores model and optimizer from the latest saved step, if any, and says so.

    Returns (steps done, best scores, best weights, state of the log). ValueError naming what is missing, damaged or
    different.
    """
    folders = agreed_steps(saving.out) if saving.resume else []
    if not folders:
        return 0, {}, None, {}
    moments, run, best = (folders[-1] / name for name in ("optimizer.safetensors", "run.json", "best.safetensors"))
    for path in (moments, run):
        if not path.is_file():
            held = f"{path}: missing, so the run cannot resume from {path.parent.name}"
            raise ValueError(f"{held}; remove that folder or restart")
    found = files.Record(str(run), files.read_object(run))
    check_same_run(found.values, saving.info, f"{folders[-1]}: saved")
    check_hashes(folders[-1], found)
    step, scores = found.get("step", int), found.get("best", dict)
    planned = found.get("total_steps", int, total_steps)
    if step > total_steps:
        raise ValueError(f"{folders[-1]}: the run has these steps already; more than {total_steps} cannot be undone")
    print(f"resumed     after step {step:,} of {total_steps:,}", flush=True)
    if planned != total_steps:
        rates = f"a schedule of {total_steps:,} steps from here on, until here of {planned:,}"
        print(f"            the learning rate follows {rates}", flush=True)
    optimizer.load_moments(read_state(moments, optimizer.moments()), step)
    saving.read_model(folders[-1])
    state = found.get("log", dict, {})
    if best.exists():
        return step, scores, read_state(best, model.state_dict()), state
    return step, scores, copy_weights(model) if scores else None, state  # of a run that ended with the best


def check_hashes(folder: Path, run: files.Record) -> None:
    """ValueError naming a file of a saved step that is not the one that was saved."""
    for name, expected in run.get("files", dict, {}).items():
        if not (folder / name).is_file() or files.sha256(folder / name) != expected:
            raise ValueError(f"{folder / name}: not what {run.where} has the hash of: missing or damaged")


def read_state(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file of a saved step. ValueError if they are not those expected, or not finite."""
    with files.naming(path):
        found = read_file(path)
        for name in sorted(found.keys() | expected.keys()):
            shapes = [list(side[name].shape) if name in side else "missing" for side in (found, expected)]
            if shapes[0] != shapes[1]:
                raise ValueError(f"{name}: {shapes[0]}, expected {shapes[1]}: not of this run, or damaged")
        check_finite(found)
    return found


def check_same_run(saved: dict, now: dict, where: str, prefix: str = "") -> None:
    """ValueError naming the first setting in which a saved run differs from this one, but for its length.

    where: what the saved one is, "runs/a/step-000400: saved". prefix: of the setting's name, "recipe.".
    """
    for key, value in now.items():
        held = saved.get(key)
        if isinstance(value, dict) and isinstance(held, dict):
            check_same_run(held, value, where, f"{prefix}{key}.")
        elif key not in LENGTH and held != value:
            shown, expected = (text if len(text := str(one)) < 80 else f"{text[:80]}..." for one in (held, value))
            held = f"{where} with {prefix}{key} = {shown}, now it is {expected}"
            raise ValueError(f"{held}: give the same options and data")


def fingerprint(*values) -> str:
    """A hash of tensors, arrays, texts, numbers, and of tuples, lists, dicts and dataclasses of these."""
    digest = hashlib.sha256()

    def add(value) -> None:
        if isinstance(value, Tensor):  # its bytes: numpy has no bfloat16
            add((str(value.dtype), value.shape, value.detach().cpu().flatten().view(torch.uint8).numpy()))
        elif isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(value.tobytes())
        elif isinstance(value, (tuple, list)):
            digest.update(f"({len(value)}".encode())
            for item in value:
                add(item)
        elif isinstance(value, dict) or is_dataclass(value):
            add([*(value if isinstance(value, dict) else vars(value)).items()])
        elif value is None or isinstance(value, (str, bytes, int, float, np.generic, Path)):
            digest.update(f"{value!r},".encode())
        else:
            raise TypeError(f"no hash of a {type(value).__name__}")

    add(values)
    return digest.hexdigest()[:16]


def cut_metrics(path: Path, step: int) -> None:
    """Drops the lines of metrics.jsonl after the step that a run resumes from, and a half-written last line."""
    if not path.exists():
        return
    kept, last = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)["step"]
            if not last < found <= step:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line)
        last = found
    with files.write_file(path) as file:
        file.write("".join(line + "\n" for line in kept))


# --- Prediction and progress ------------------------------------------------------------------------------------------


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


def short(number: float) -> str:
    """22,713,216 -> 22.7M"""
    unit = next((unit for unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if number >= unit[0]), None)
    return f"{number / unit[0]:.1f}{unit[1]}" if unit else f"{number:.0f}"


def device_text(rank: Rank, precision: str) -> str:
    """For the log: what computes, and how."""
    cpu = f"cpu, {torch.get_num_threads()} threads"
    if precision == "bf16" and rank.device.type == "cpu" and platform.machine() in X86 and not cpu_has_bf16():
        precision += ", which this processor only emulates: --precision fp32 is many times faster"
    name = torch.cuda.get_device_name(rank.device) if rank.device.type == "cuda" else cpu
    return f"{rank.world_size} x {name}, {precision}" if rank.world_size > 1 else f"{name}, {precision}"


def peak_memory(device: torch.device) -> float:
    """The most that this process has had so far, in bytes: of the GPU, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Progress:
    """Progress bar on the terminal and one JSON line per `every` steps in a file, by the first process.

    A line: step, learning_rate, gradient_norm, and for each term `<term>_loss` and `<term>_accuracy`, means over all
    predictions (and steps) since the last line on all processes; spikes, [step, norm] of gradients SPIKE times as large
    as usual; what `CLOCK` names; and what `measure` of `fit` found after this step, whatever its number.
    """

    def __init__(
        self, rank: Rank, total_steps: int, start_step: int, every: int, path: Path | None, title: str, state: dict,
        loader: Ahead, peak: float,
    ):  # fmt: skip
        self.rank, self.total_steps, self.every, self.path = rank, total_steps, max(1, every), path
        # Since the last line, over all processes, see `train`; the usual norm; steps that it rests on; spikes.
        self.sums = {name: torch.tensor(terms, dtype=torch.float64, device=rank.device)
                     for name, terms in state.get("sums", {}).items()}  # fmt: skip
        self.usual, self.steps, self.spikes = state.get("usual", 0.0), state.get("steps", 0), state.get("spikes", [])
        self.loader, self.waited, self.peak = loader, 0.0, peak
        self.started = self.last = self.warm = time.perf_counter()
        self.start_step, self.tokens, self.flop = start_step, 0, 0.0
        pause = 0.1 if sys.stderr.isatty() else 30.0  # seconds between updates of the bar; few in a log file
        self.bar = tqdm(
            total=total_steps, initial=start_step, desc=title, disable=not rank.is_first, mininterval=pause,
            ncols=79, bar_format="{desc}: {n_fmt}/{total_fmt} steps |{bar}| {elapsed}<{remaining}{postfix}",
        )  # fmt: skip

    def state(self) -> dict:
        """What a resumed run must know to write the same lines."""
        sums = {name: terms.tolist() for name, terms in self.sums.items()}
        return {"sums": sums, "usual": self.usual, "steps": self.steps, "spikes": self.spikes}

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What the block takes counts as no time of training."""
        began = time.perf_counter()
        yield
        self.last += time.perf_counter() - began

    def update(self, step: int, sums: dict[str, Tensor], learning_rate: float, measured: dict) -> None:
        self.sums = {name: seen + self.sums.get(name, 0) for name, seen in sums.items()}
        self._watch(step, sums["norm"][0].item())
        self.bar.update()
        if step == self.start_step + CALM // 4:
            self.warm = time.perf_counter()  # the first steps are slower
        if step == self.start_step + CALM:
            self._estimate(step)
        if step % self.every == 0 or step == self.total_steps or measured:
            self._log(step, learning_rate, measured)

    def _watch(self, step: int, norm: float) -> None:
        """Keeps spikes of the gradient's norm, and a running mean of the others."""
        if self.steps >= CALM and norm > SPIKE * self.usual:
            self.spikes.append([step, norm])
            if self.rank.is_first:
                tqdm.write(f"step {step:,}: the gradient's norm is {norm:.3g}, usually {self.usual:.3g}")
            norm = SPIKE * self.usual
        self.steps += 1
        self.usual += (norm - self.usual) / min(self.steps, 5 * CALM)

    def _estimate(self, step: int) -> None:
        """Says how long the run will take, and what of."""
        left, measured = self.total_steps - step, CALM - CALM // 4
        seconds = (time.perf_counter() - self.warm) / measured
        if self.rank.is_first and left > 0:
            needed, processes = left * seconds, self.rank.world_size
            total = f", {files.duration(needed * processes)} of {processes} processes" * (processes > 1)
            tqdm.write(f"estimate    {left:,} steps to go in {files.duration(needed)} ({seconds:.3g} s a step){total}")

    def _log(self, step: int, learning_rate: float, measured: dict) -> None:
        parts = torch.cat([*self.sums.values()]).cpu().split([len(terms) for terms in self.sums.values()])
        sums = {name: terms.tolist() for name, terms in zip(self.sums, parts)}
        now = time.perf_counter()
        (tokens, entities, flop), (norm, steps) = sums.pop("work"), sums.pop("norm")
        self.tokens, self.flop, seconds = self.tokens + tokens, self.flop + flop, now - self.last
        line = {
            "step": step,
            "seconds": round(now - self.started, 3),
            "tokens_per_second": round(tokens / seconds),
            "entities_per_second": round(entities / seconds),
            **({"flop_per_second": float(f"{flop / seconds:.4g}")} if flop else {}),
            **({"share_of_peak": round(flop / seconds / self.peak, 4)} if flop and self.peak else {}),
            "loader_share": round((self.loader.waited - self.waited) / seconds, 4),
            "memory_gb": round(peak_memory(self.rank.device) / 1e9, 3),
            "learning_rate": learning_rate,
            "gradient_norm": norm / steps,
            **({"spikes": self.spikes} if self.spikes else {}),
        }
        for name, (loss, hits, count) in sums.items():
            line[f"{name}_loss"] = loss / max(1, count)
            if name not in DISTANCES:
                line[f"{name}_accuracy"] = hits / max(1, count)
        self.sums, self.last, self.waited, self.spikes = {}, now, self.loader.waited, []
        if not self.rank.is_first:
            return
        losses = (f"{name} {line[f'{name}_loss']:.2f}" for name in sums)
        self.bar.set_postfix_str(f"loss: {', '.join(losses)}", refresh=False)
        if self.path is not None:
            try:
                with open(self.path, "a", encoding="utf-8") as file:
                    known = {name: value if math.isfinite(value) else None for name, value in measured.items()}
                    file.write(json.dumps(line | known, allow_nan=False) + "\n")
            except OSError as error:  # a full disk has no name
                raise files.with_path(error, self.path) from None

    def close(self) -> None:
        """Ends the bar; what was done, in one line."""
        self.bar.close()
        steps, seconds = self.bar.n - self.start_step, self.last - self.started
        if steps and seconds:
            speed, memory = short(self.tokens / seconds), peak_memory(self.rank.device) / 1e9
            share = f", {self.flop / seconds / self.peak:.0%} of the machine's product rate" if self.peak else ""
            print(f"trained     {steps:,} steps in {seconds:.0f} s: {short(self.tokens)} tokens, {speed} per second"
                  f"{share}; at most {memory:.1f} GB of memory", flush=True)  # fmt: skip

"""The loop that pretraining and fine-tuning share: accumulation, mixed precision, many processes, progress.

A *micro-batch* is anything with
    .to(device)   the same on another device
    .counts       {"word": 1200, "entity": 310}: how many predictions each term of its loss averages over
    .n_tokens     input tokens, for the throughput
and the model turns it into {"word": (summed loss, number of hits), "entity": (…)}.

The loss of a step is, for each term, the mean over *all* predictions of the step, whichever process or micro-batch they
fell in. So one process with 64 sequences, two with 32, and two micro-batches of 32 give the same gradients.
# differs from LUKE: the reference averages the means of the micro-batches, which weighs a prediction by its company.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from luke_mini import distributed, optim
from luke_mini.config import MINI, FinetuneConfig, PretrainConfig
from luke_mini.distributed import Place


def default_precision(device: torch.device, hidden_size: int) -> str:
    """bf16 where the hardware multiplies it natively and the products are large, which is two to three times faster.

    A CPU compiles a bf16 product anew for every number of rows, and a packed batch has another one in each step: for
    the size tiny (hidden size 128) fp32 is faster, by half and more.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() and hidden_size > MINI.hidden_size else "fp32"


def autocast(device: torch.device, precision: str):
    """bf16 products with float32 weights, or nothing. bf16 has float32's range, so no loss scaling is needed."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Ties dropout to (seed, step, rank), so that a resumed run draws what an uninterrupted one would have drawn."""
    torch.manual_seed((seed * 1_000_003 + step) * 4099 + rank)


@dataclass
class StepSums:
    """What this process saw in one optimiser step, or in several added up."""

    terms: dict[str, Tensor]  # float64 [3] each: summed loss, hits, predictions
    tokens: int

    def __add__(self, other: "StepSums") -> "StepSums":
        terms = {name: self.terms[name] + other.terms[name] for name in self.terms}
        return StepSums(terms, self.tokens + other.tokens)


def accumulate_gradients(model: nn.Module, micro_batches: list, place: Place, precision: str) -> StepSums:
    """Adds the gradient of the step's loss to the parameters, over all micro-batches and processes."""
    names = sorted(micro_batches[0].counts)
    local = [sum(batch.counts[name] for batch in micro_batches) for name in names]
    counts = distributed.sum_over_ranks(torch.tensor(local, dtype=torch.float64, device=place.device))
    # DistributedDataParallel divides by the number of processes; a sum over them is wanted.
    scales = place.world_size / counts.clamp(min=1)
    sums = {name: torch.zeros(3, dtype=torch.float64, device=place.device) for name in names}
    for index, batch in enumerate(micro_batches):
        is_last = index == len(micro_batches) - 1
        with nullcontext() if is_last else distributed.no_sync(model):
            with autocast(place.device, precision):
                terms = model(batch.to(place.device))
            loss = sum(terms[name][0] * scale.float() for name, scale in zip(names, scales))
            loss.backward()
        for name, (loss_sum, hits) in terms.items():
            seen = [loss_sum.detach(), hits, hits.new_tensor(batch.counts[name])]
            sums[name] += torch.stack([number.double() for number in seen])
    return StepSums(sums, sum(batch.n_tokens for batch in micro_batches))


def train(
    model: nn.Module,
    optimizer: optim.AdamW,
    steps: Iterable[list],
    *,
    recipe: PretrainConfig | FinetuneConfig,
    place: Place,
    precision: str,
    learning_rate: Callable[[int], float],
    start_step: int = 0,
) -> Iterator[tuple[int, StepSums]]:
    """Runs one optimiser step for each list of micro-batches; yields (steps done so far, what the step saw).

    model: wrapped by `distributed.wrap`. learning_rate: from the 0-based step to the rate. The caller logs, evaluates
    and saves between the steps, where weights and optimiser are consistent.
    """
    model.train()
    for step, micro_batches in enumerate(steps, start=start_step):
        seed_step(recipe.seed, step, place.rank)
        sums = accumulate_gradients(model, micro_batches, place, precision)
        optim.clip_gradients(optimizer.parameters, recipe.max_grad_norm)
        optimizer.step(learning_rate(step))
        optimizer.zero_grad()
        yield step + 1, sums


@contextmanager
def predicting(model: nn.Module) -> Iterator[None]:
    """`with predicting(model):` no dropout and no gradients inside; then the mode that the model was in before."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def long_to_short(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of all inputs in batches: similar lengths together, the batch that needs most memory first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]


class Progress:
    """Progress bar on the terminal and one JSON line each `every` steps in a file; only the first process shows them.

    A line: step, seconds, tokens_per_second, learning_rate, and for each term `<term>_loss` and `<term>_accuracy`,
    means over all predictions since the last line on all processes.
    """

    def __init__(self, place: Place, total_steps: int, start_step: int, every: int, path: Path | None, title: str):
        self.place, self.total_steps, self.every, self.path = place, total_steps, max(1, every), path
        self.sums: StepSums | None = None
        self.started = self.last = time.perf_counter()
        hidden = not place.is_first
        pause = 0.1 if sys.stderr.isatty() else 30.0  # seconds between two states of the bar; a log wants few
        self.bar = tqdm(
            total=total_steps, initial=start_step, desc=title, unit="step", disable=hidden, mininterval=pause
        )

    def update(self, step: int, sums: StepSums, learning_rate: float) -> None:
        self.sums = sums if self.sums is None else self.sums + sums
        self.bar.update()
        if step % self.every == 0 or step == self.total_steps:
            self._log(step, learning_rate)

    def _log(self, step: int, learning_rate: float) -> None:
        names = list(self.sums.terms)
        tokens = torch.tensor([self.sums.tokens], dtype=torch.float64, device=self.place.device)
        joint = distributed.sum_over_ranks(torch.cat([tokens, *self.sums.terms.values()])).tolist()
        now = time.perf_counter()
        line = {
            "step": step,
            "seconds": round(now - self.started, 3),
            "tokens_per_second": round(joint[0] / (now - self.last)),
            "learning_rate": learning_rate,
        }
        for index, name in enumerate(names):
            loss, hits, count = joint[1 + 3 * index : 4 + 3 * index]
            line[f"{name}_loss"] = loss / max(1, count)
            line[f"{name}_accuracy"] = hits / max(1, count)
        self.sums, self.last = None, now
        if not self.place.is_first:
            return
        shown = {name: f"{line[f'{name}_loss']:.3f} ({line[f'{name}_accuracy']:.0%})" for name in names}
        self.bar.set_postfix({**shown, "tok/s": line["tokens_per_second"]}, refresh=False)
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        self.bar.close()

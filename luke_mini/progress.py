"""What a run shows: a bar on the terminal, lines of metrics.jsonl, an estimate, spikes of the gradient's norm."""

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from luke_mini import files
from luke_mini.distributed import Rank
from luke_mini.report import number

CLOCK = ("seconds", "tokens_per_second", "entities_per_second", "flop_per_second", "share_of_peak", "loader_share",
         "memory_gb")  # of metrics.jsonl: what is not the same when a run is repeated, nor after it was resumed
DISTANCES = ("page",)  # terms of a loss without hits
SPIKE = 5.0  # times the usual norm of the gradient
CALM = 20  # steps before any norm is usual, and before a run says how long it will take


def peak_memory(device: torch.device) -> float:
    """The most that this process has had so far, in bytes: of the GPU, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return files.peak_memory()


class Progress:
    """Progress bar on the terminal and one JSON line per `every` steps in a file, by the first process.

    A line: step, learning_rate, gradient_norm, and for each term `<term>_loss` and `<term>_accuracy`, means over all
    predictions (and steps) since the last line on all processes; spikes, [step, norm] of gradients SPIKE times as large
    as usual; what `CLOCK` names; and what `measure` of `fit` found after this step, whatever its number.
    """

    def __init__(
        self, rank: Rank, total_steps: int, start_step: int, every: int, path: Path | None, title: str, state: dict,
        loader, peak: float, price: float = 0.0,
    ):  # fmt: skip
        self.rank, self.total_steps, self.every, self.path = rank, total_steps, max(1, every), path
        # Since the last line, over all processes, see `train`; the usual norm; steps that it rests on; spikes.
        self.sums = {name: torch.tensor(terms, dtype=torch.float64, device=rank.device)
                     for name, terms in state.get("sums", {}).items()}  # fmt: skip
        self.usual, self.steps, self.spikes = state.get("usual", 0.0), state.get("steps", 0), state.get("spikes", [])
        self.loader, self.waited, self.peak, self.price = loader, 0.0, peak, price
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
        each = (time.perf_counter() - self.warm) / measured
        if self.rank.is_first and left > 0:
            seconds, processes = left * each, self.rank.world_size
            total = f", {files.duration(seconds * processes)} of {processes} processes" * (processes > 1)
            total += f", for {seconds / 3600 * processes * self.price:,.2f}" * (self.price > 0)
            tqdm.write(f"estimate    {left:,} steps to go in {files.duration(seconds)} ({each:.3g} s a step){total}")

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
            speed, memory = number(self.tokens / seconds), peak_memory(self.rank.device) / 1e9
            share = f", {self.flop / seconds / self.peak:.0%} of the machine's product rate" if self.peak else ""
            print(f"trained     {steps:,} steps in {seconds:.0f} s: {number(self.tokens)} tokens, {speed} per second"
                  f"{share}; at most {memory:.1f} GB of memory", flush=True)  # fmt: skip

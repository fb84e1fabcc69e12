"""A run on disk: saved steps, from which a killed run goes on exactly where it stopped.

A saved step is a folder, whole or absent:

    step-000400/    model files (for pretraining, a complete checkpoint folder)
                    optimizer.safetensors                AdamW's two moments, by parameter name
                    run.json                             step, configuration, best scores so far, hashes of the files
    metrics.jsonl   one line per logged step

There is no random state to keep: the order of the examples, the masks and the seed of dropout are functions of (seed,
step), so the step alone is the position in the data.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from luke_mini import distributed, files, optim
from luke_mini.weights import check_finite, read_file, save_tensors

HELD = ("step-*", "results.json", "state")  # what says that a folder holds a run, of pretraining or of fine-tuning
LENGTH = ("steps", "epochs")  # settings that may change when a run is resumed: it becomes longer or shorter


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


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


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

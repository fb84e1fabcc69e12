"""What a run needs to go on exactly where it stopped: one folder a saved step, whole or absent.

    OUT/step-000400/    model.safetensors, config.json, tokenizer, entity vocabulary   (a complete checkpoint folder)
                        optimizer.safetensors                                          (both moments, by parameter name)
                        run.json                                                       (step, configuration, versions)
    OUT/metrics.jsonl   one line each logged step

There is no random state to keep: the order of the examples, the masks and the seed of dropout are functions of (seed,
step), so the step alone is the position in the data. A folder is renamed into place when all of it is on the disk.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from luke_mini import files
from luke_mini.optim import AdamW

KEPT = 2  # saved steps that stay on the disk


def save(out: Path, step: int, write_model: Callable[[Path], None], optimizer: AdamW, info: dict) -> Path:
    """Saves step `step` into OUT/step-NNNNNN and drops all but the newest saved steps.

    write_model(folder) writes the model's own files. info: anything JSON can hold. OSError when the disk is full.
    """
    folder = out / f"step-{step:06d}"
    with files.write_folder(folder) as temporary:
        write_model(temporary)
        save_tensors(optimizer.state_dict(), temporary / "optimizer.safetensors")
        (temporary / "run.json").write_text(json.dumps({"step": step, **info}, indent=1), encoding="utf-8")
    for old in saved_steps(out)[:-KEPT]:
        shutil.rmtree(old)
    return folder


def save_tensors(tensors: dict, path: Path) -> None:
    """safetensors, with its own kind of error turned into the OSError that a full disk is."""
    try:
        safetensors.torch.save_file({name: t.contiguous() for name, t in tensors.items()}, path, {"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path}: could not be written: {error}") from None


def saved_steps(out: Path) -> list[Path]:
    """The folders of all saved steps, oldest first: by number, as step 1,000,000 has a digit more."""
    return sorted((p for p in Path(out).glob("step-*") if p.is_dir()), key=lambda p: (len(p.name), p.name))


def clear(out: Path) -> None:
    """Removes the saved steps and the metrics of an earlier run from OUT."""
    for folder in saved_steps(out):
        shutil.rmtree(folder)
    (Path(out) / "metrics.jsonl").unlink(missing_ok=True)
    Path(out).mkdir(parents=True, exist_ok=True)


def load(folder: Path, optimizer: AdamW) -> dict:
    """Fills the optimiser from a saved step and returns its run.json. Raises ValueError naming what is missing."""
    state, run = folder / "optimizer.safetensors", folder / "run.json"
    for path in (state, run):
        if not path.is_file():
            raise ValueError(
                f"{path}: missing, so the run cannot go on from {folder.name}; remove that folder or restart"
            )
    try:
        optimizer.load_state_dict(safetensors.torch.load_file(state))
    except SafetensorError as error:
        raise ValueError(f"{state}: no whole safetensors file ({error})") from None
    return json.loads(run.read_text(encoding="utf-8"))


def cut_metrics(path: Path, step: int) -> None:
    """Drops the lines of metrics.jsonl newer than the step that a run goes on from, and a half-written last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            break
    with files.write_file(path) as file:
        file.write("".join(line + "\n" for line in kept))

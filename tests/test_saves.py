"""Folders of saved steps; test_trainer.py kills and resumes whole runs.

    pytest tests/test_saves.py
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from luke_mini import checkpoint, optim, saves


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = optim.AdamW(model, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.0)
    model.weight.grad = torch.tensor([[1.0, float("inf")]])
    optimizer.step()
    nothing = lambda *of_a_save: None  # noqa: E731
    saving = saves.Saving(tmp_path, tmp_path / "metrics.jsonl", {}, nothing, nothing, False, kept=1)
    with pytest.raises(ValueError, match="^step 1, not saved: the weight weight has numbers that are not finite, 1 of"):
        saves.save_step(saving, 1, 9, model.state_dict(), optimizer.moments(), {}, None, {})
    assert not list(tmp_path.iterdir())


def save_steps(out: Path, steps, keep: int) -> list[str]:
    def write(folder: Path, weights: dict, step: int) -> None:
        (folder / "config.json").write_text("{}")

    saving = saves.Saving(out, out / "metrics.jsonl", {}, write, lambda folder: None, False, kept=keep)
    for step in steps:
        saves.save_step(saving, step, step, {}, {}, {}, None, {})
    return [path.name for path in saves.saved_steps(out)]


def test_steps_are_ordered_by_number_and_as_many_are_kept_as_asked(tmp_path):
    found = save_steps(tmp_path / "a", (9, 999_998, 999_999, 1_000_000, 10_000_000), 3)
    assert found == ["step-999999", "step-1000000", "step-10000000"]
    assert checkpoint.find_folder(tmp_path / "a").name == "step-10000000"
    assert save_steps(tmp_path / "b", (5, 6), 1) == ["step-000006"]
    (tmp_path / "b/step-7").mkdir()  # made by hand: 7 comes after 6, whatever its length
    (tmp_path / "b/step-best").mkdir()
    assert [path.name for path in saves.saved_steps(tmp_path / "b")] == ["step-000006", "step-7"]


def test_a_save_removes_what_killed_saves_and_removals_left(tmp_path, monkeypatch):
    for leftover in (".step-000002.0123abcd.tmp", ".step-000004.4567cdef.tmp"):
        (tmp_path / leftover / "part").mkdir(parents=True)
    assert save_steps(tmp_path, (5, 6), 1) == ["step-000006"]
    monkeypatch.setattr(shutil, "rmtree", lambda *given, **named: None)  # killed as soon as it begins to remove
    assert save_steps(tmp_path, (7,), 1) == ["step-000007"]
    monkeypatch.undo()
    assert len(list(tmp_path.glob(".step-000006.*.tmp"))) == 1
    assert save_steps(tmp_path, (8,), 1) == [path.name for path in tmp_path.iterdir()] == ["step-000008"]


OTHER_STEPS = """
import sys
import threading
from pathlib import Path
from luke_mini import distributed, files, saves
def main():
    with distributed.process() as rank:
        print([path.name for path in saves.agreed_steps(Path(sys.argv[1 + rank.index]))], file=sys.stderr)
files.run(main, "it")
"""


@pytest.mark.parametrize("second, shown", [("a", None), ("b", "process 1 no saved step")])
def test_processes_that_see_other_saved_steps_all_stop(tmp_path, second, shown):
    save_steps(tmp_path / "a", (3, 4), 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    call = [sys.executable, "-c", OTHER_STEPS, str(tmp_path / "a"), str(tmp_path / second)]
    place |= os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ranks = [subprocess.Popen(call, env=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                              stderr=subprocess.PIPE, text=True) for rank in range(2)]  # fmt: skip
    for rank in ranks:
        last = rank.communicate(timeout=120)[1].strip().split("\n")[-1]
        assert rank.returncode == (2 if shown else 0)
        if shown:
            assert f": process 0 sees step-000004, {shown}: expected a disk that all machines share" in last
        else:
            assert last == "['step-000003', 'step-000004']"

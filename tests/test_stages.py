"""Worker processes: order, how far ahead tasks are read, errors, dying workers, a dying parent. Stages: parts are made
once, also across a kill; other options, damaged parts. (test_prepare_wiki.py kills whole runs.)

    pytest tests/test_stages.py
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luke_mini.stages import TASKS_IN_FLIGHT, Stage, in_order, read_block, skip_block, write_block

ROOT = Path(__file__).parent.parent

# --- Worker processes -------------------------------------------------------------------------------------------------


def add_slowly(state: int, task: int) -> tuple[int, int]:
    time.sleep(0.02 if task % 5 == 0 else 0)  # so that results are ready out of order
    return state + task, os.getpid()


def fail_at_seven(kill: bool, task: int) -> int:
    if task == 7 and kill:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 7:
        raise ValueError(f"no {task}")
    return task


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers):
    found = list(in_order(add_slowly, 100, range(40), workers))
    assert [result for result, _ in found] == list(range(100, 140))
    assert 1 <= len({process for _, process in found}) <= workers and os.getpid() not in {p for _, p in found}


def test_tasks_are_read_only_a_little_ahead():
    read = []
    results = in_order(add_slowly, 0, (read.append(k) or k for k in range(1000)), 2)
    for _ in range(3):
        next(results)
    assert len(read) <= 3 + TASKS_IN_FLIGHT * 2
    results.close()
    assert list(in_order(add_slowly, 0, [], 2)) == []


def test_an_exception_comes_through_and_a_dead_worker_is_an_error_not_a_hang():
    results = in_order(fail_at_seven, False, range(1000), 2)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="no 7"):
        next(results)
    with pytest.raises(ChildProcessError, match="worker process died"):
        list(in_order(fail_at_seven, True, range(1000), 2))


ENDLESS = """
from itertools import count
from luke_mini.stages import in_order
from tests.test_stages import add_slowly
for _, process in in_order(add_slowly, 0, count(), 2):
    print(process, flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_parent():
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        workers = {int(parent.stdout.readline()) for _ in range(20)}
        parent.kill()
    deadline = time.monotonic() + 60
    while any(_is_running(worker) for worker in workers):
        assert time.monotonic() < deadline, "worker processes outlive their parent"
        time.sleep(0.05)


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- Stages -----------------------------------------------------------------------------------------------------------


def write_square(state: Path | None, task: int, path: Path) -> dict:
    """Writes a part, and a line into a log; `state`: the log."""
    path.write_text(str(task * task))
    with open(state, "a") as log:
        log.write(f"{task}\n")
    return {"square": task * task}


def test_parts_are_made_once(tmp_path):
    log = tmp_path / "log"
    for workers in (2, 1):
        stage = Stage(tmp_path, "squares", {"of": "numbers"})
        assert list(stage.run(write_square, log, range(5), workers)) == [0, 1, 2, 3, 4]
    assert sorted(log.read_text().split()) == list("01234")
    assert [stage.record(k) for k in range(6)] == [*({"square": k * k} for k in range(5)), None]
    assert stage.path(3).read_text() == "9"
    assert json.loads((stage.folder / "stage.json").read_text())["of"] == "numbers"


def test_other_options_have_other_parts(tmp_path):
    first, other = (Stage(tmp_path, "squares", {"of": name}) for name in ("a", "b"))
    list(first.run(write_square, tmp_path / "log", range(2), 1))
    assert other.folder != first.folder and other.record(0) is None
    assert Stage(tmp_path, "squares", {"of": "a"}).record(1) == {"square": 1}


def test_a_part_is_whole_only_with_its_record(tmp_path):
    """What a killed worker leaves is made anew; what has another size since then is an error of one line."""
    stage, log = Stage(tmp_path, "squares", {}), tmp_path / "log"
    list(stage.run(write_square, log, range(3), 1))
    (stage.folder / "00001.json").unlink()
    stage.path(1).write_text("half a")
    list(stage.run(write_square, log, range(3), 1))
    assert stage.path(1).read_text() == "1" and log.read_text().split() == list("0121")
    stage.path(2).write_text("12345")
    with pytest.raises(ValueError, match=r"00002: 5 bytes, 1 expected: damaged; remove .*squares-\w+$"):
        stage.record(2)


KILLED = """
import os, signal, sys
from pathlib import Path
from luke_mini.stages import Stage
from tests.test_stages import write_square
for number in Stage(Path(sys.argv[1]), "squares", {}).run(write_square, Path(sys.argv[1]) / "log", range(40), 2):
    if number == 9:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_goes_on(tmp_path):
    """At most the parts that its two workers were at are made again."""
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT).returncode == -signal.SIGKILL
    time.sleep(0.5)  # the workers notice
    before = len((tmp_path / "log").read_text().split())
    assert 10 <= before < 40
    list(Stage(tmp_path, "squares", {}).run(write_square, tmp_path / "log", range(40), 2))
    made = (tmp_path / "log").read_text().split()
    assert set(made) == set(map(str, range(40))) and len(made) <= 40 + 2


def test_once(tmp_path):
    """A file or a folder; its contents are in the record."""
    calls = []

    def make(path: Path) -> None:
        calls.append(path)
        path.mkdir()
        (path / "a.json").write_text("1")

    for _ in range(2):
        path = Stage(tmp_path, "one", {}).once(make)
    assert calls == [path] and (path / "a.json").read_text() == "1"
    (path / "a.json").write_text("12")
    with pytest.raises(ValueError, match="00000/a.json: 2 bytes, 1 expected"):
        Stage(tmp_path, "one", {}).once(make)


def test_blocks(tmp_path):
    with open(tmp_path / "blocks", "w+b") as file:
        for value in ([1, "é"], {}, None):
            write_block(file, value)
        file.seek(0)
        skip_block(file)
        assert read_block(file) == {} and read_block(file) is None
        with pytest.raises(EOFError):
            read_block(file)

"""Worker processes: order, how far ahead tasks are read, errors, dying workers, a dying parent.

    pytest tests/test_workers.py
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luke_mini.workers import TASKS_IN_FLIGHT, in_order

ROOT = Path(__file__).parent.parent


def add_slowly(state: int, task: int) -> tuple[int, int]:
    time.sleep(0.02 if task % 5 == 0 else 0)  # so that results are ready out of order
    return state + task, os.getpid()


def fail_at_seven(state: str, task: int) -> int:
    if task == 7:
        raise ValueError(f"{state} {task}")
    return task


def die_at_seven(state: None, task: int) -> int:
    if task == 7:
        os.kill(os.getpid(), signal.SIGKILL)
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


def test_an_exception_comes_through():
    results = in_order(fail_at_seven, "no", range(1000), 2)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="no 7"):
        next(results)


def test_a_dead_worker_is_an_error_not_a_hang():
    with pytest.raises(ChildProcessError, match="worker process died"):
        list(in_order(die_at_seven, None, range(1000), 2))


ENDLESS = """
from itertools import count
from luke_mini.workers import in_order
from tests.test_workers import add_slowly
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

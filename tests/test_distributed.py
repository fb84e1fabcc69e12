"""Processes that find each other, also when torchrun starts them again.

    pytest tests/test_distributed.py
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import torch.distributed as dist
from conftest import ROOT

from luke_mini import distributed


def test_each_start_of_the_workers_has_a_part_of_the_store_of_its_own():
    store = dist.HashStore()
    with ThreadPoolExecutor(3) as pool:
        for start in range(3):
            found = [pool.submit(distributed.fresh_store, store, rank, 3) for rank in (2, 1, 0)]
            of_rank = [one.result(timeout=60) for one in found]
            assert not of_rank[0].check(["address"])
            of_rank[0].set("address", f"of start {start}")
            assert [one.get("address") for one in of_rank] == [f"of start {start}".encode()] * 3


RESTARTED = """
import os, signal, time
import torch
from luke_mini import distributed
start, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])
time.sleep(1.5 * (rank != start % 2) * (start > 0))  # meanwhile the other one looks for addresses
with distributed.process() as me:
    print("start", start, "sum", distributed.sum_over_ranks(torch.tensor(1.0 + me.index)).item(), flush=True)
    distributed.barrier()
    if start < 2 and rank == start:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()
"""


def test_killed_workers_are_started_again_and_find_each_other(tmp_path):
    script = tmp_path / "restarted.py"
    script.write_text(RESTARTED)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    call = "-m torch.distributed.run --nproc_per_node 2 --standalone --max-restarts 2".split()
    done = subprocess.run([sys.executable, *call, script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f"start {start} sum 3.0" for start in range(3)]

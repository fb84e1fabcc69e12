"""Work that outlives its process: a stage is cut into parts, each made once, by any worker of any run, and kept.

    stage = Stage(OUT / "work", "pages", {"sources": [...], "language": "en"})     what its parts are made of
    for number in stage.run(function, state, tasks, workers):     function(state, task, path) -> dict, where part
        ...                                                       `number` is missing; path: where it goes
    stage.record(number)                                          what the function returned

A stage is a folder, `pages-3fa9c27e41b0`, named after a hash of what it is made of, which is in its stage.json: other
inputs or options have another folder, and what is there is not made again. Part 12 is the files `00012*`; `00012.json`,
written last, has their sizes and hashes and what the function returned. A part without it does not count, so a killed
run loses only the parts that its workers were at, and several machines can make parts of one stage, each its `Share`.
"""

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from luke_mini import files

VERSION = 1  # of all parts: parts of other versions are not taken
TASKS_IN_FLIGHT = 4  # per worker, so that no worker waits while the consumer is busy

# --- Work in processes ------------------------------------------------------------------------------------------------

_state = None  # of this worker process: set once, because it can be too large to send with every task


def _start(state) -> None:
    global _state
    _state = state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers; without this they would wait for tasks forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(function: Callable, task):
    return function(_state, task)


def in_order(function: Callable, state, tasks: Iterable, workers: int) -> Iterator:
    """Yields function(state, task) for every task, in order. function: of a module, not a closure.

    Unlike `multiprocessing.Pool.imap` it reads tasks only as far ahead as needed and raises ChildProcessError (an
    OSError) if a worker is killed. Worker exceptions propagate; pending tasks are cancelled.
    """
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(state,))
    waiting: deque = deque()
    try:
        pool.submit(int).result()  # start the processes before `tasks` can start threads: fork would copy their locks
        for task in tasks:
            waiting.append(pool.submit(_run, function, task))
            if len(waiting) >= TASKS_IN_FLIGHT * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise ChildProcessError("a worker process died, perhaps for lack of memory: try fewer workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def ticking(title: str) -> Iterator[None]:
    """`with ticking(title):` prints the title, and at a terminal the time that has passed, as its work says nothing."""
    ended, progress = threading.Event(), tqdm(desc=title, bar_format="{desc}: {elapsed}", disable=None)

    def tick() -> None:
        while not ended.wait(1):
            progress.refresh()

    if progress.disable:
        print(title, flush=True)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.close()


# --- Stages -----------------------------------------------------------------------------------------------------------


def describe(path: Path) -> list:
    """A source in what a stage is made of: name, size, and time of its last change."""
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]


class Share(NamedTuple):
    """The parts that a process makes: every count-th one. A share of several makes no stage that has only one part."""

    index: int = 0
    count: int = 1  # 0: none at all, others have made them


class Incomplete(ValueError):
    """Parts are missing that are not of this process's share."""

    def __init__(self, stage: "Stage", missing: list[int], parts: int):
        names = ", ".join(f"{number:05d}" for number in missing[:5]) + ", ..." * (len(missing) > 5)
        super().__init__(f"{stage.folder}: {len(missing):,} of {parts:,} parts are missing ({names})")
        self.stage, self.is_untouched = stage, len(missing) == parts


class Stage:
    def __init__(self, work: Path, name: str, made_of: dict, share: Share = Share()):
        """made_of: everything that its parts depend on, to be written as JSON."""
        self.share = share
        self._made_of = json.dumps({"version": VERSION, **made_of}, ensure_ascii=False, indent=1, sort_keys=True)
        self.name, self.key = name, hashlib.sha256(self._made_of.encode()).hexdigest()[:12]
        self.folder = work / f"{name}-{self.key}"

    def path(self, number: int) -> Path:
        return self.folder / f"{number:05d}"

    def record(self, number: int) -> dict | None:
        """What was returned when a part was made; None if it is missing. ValueError if it is not as it was then."""
        with suppress(FileNotFoundError):
            record = json.loads(self.path(number).with_suffix(".json").read_text(encoding="utf-8"))
            for name, part in record["files"].items():
                if (size := (self.folder / name).stat().st_size) != part["bytes"]:
                    held = f"{self.folder / name}: {size} bytes, {part['bytes']} expected"
                    raise ValueError(f"{held}: damaged; remove {self.folder}")
            return record["made"]
        return None

    @staticmethod
    def most_parts(work: Path, name: str, made_of: dict) -> int:
        """How many parts a stage of this name has, of those made of this, whatever else they are made of."""
        known, found = json.loads(json.dumps({"version": VERSION, **made_of})), [0]
        for path in work.glob(f"{name}-*/stage.json"):
            held = files.read_object(path)
            if all(held.get(name) == value for name, value in known.items()):
                found.append(len(list(path.parent.glob("[0-9]*.json"))))
        return max(found)

    def run(self, function: Callable, state, tasks: Sequence, workers: int) -> Iterator[int]:
        """Makes what is missing of its share: calls function(state, task, path) -> dict in worker processes.

        Yields the number of each part of the share, in order, when it is there.
        """
        own = range(self.share.index, len(tasks), self.share.count) if self.share.count else range(0)
        missing = self._begin(own)
        given = ((self, number, tasks[number]) for number in missing)
        made = in_order(_make, (function, state), given, min(workers, len(missing))) if missing else iter(())
        for number in own:
            if number in missing:
                next(made)
            yield number

    def require(self, parts: int) -> None:
        """Raises `Incomplete` unless all parts are there."""
        if missing := [number for number in range(parts) if self.record(number) is None]:
            raise Incomplete(self, missing, parts)

    def make(self, number: int, function: Callable, state, task) -> None:
        """Makes a part in this process, also if it is there."""
        _make((function, state), (self, number, task))

    def once(self, function: Callable[[Path], object]) -> Path:
        """The only part of a stage, made by function(path), in this process, if it is missing."""
        if self.share.count > 1:
            self.require(1)
        if self._begin([0]):
            self.make(0, lambda *_: function(self.path(0)), None, None)
        return self.path(0)

    def _begin(self, numbers: Iterable[int]) -> list[int]:
        """Which of these parts are missing."""
        if not (self.folder / "stage.json").is_file():
            with files.write_file(self.folder / "stage.json") as file:
                file.write(self._made_of)
        return [number for number in numbers if self.record(number) is None]


def _make(state: tuple[Callable, object], task: tuple[Stage, int, object]) -> None:
    (function, own_state), (stage, number, own_task) = state, task
    path = stage.path(number)
    made = function(own_state, own_task, path)
    held = [file for found in sorted(path.parent.glob(path.name + "*"))
            for file in (sorted(found.rglob("*")) if found.is_dir() else [found]) if file.is_file()]  # fmt: skip
    described = {str(file.relative_to(stage.folder)): {"bytes": file.stat().st_size, "sha256": files.sha256(file)}
                 for file in held if file.suffix != ".json" or file.parent != path.parent}  # fmt: skip
    with files.write_file(path.with_suffix(".json")) as file:
        json.dump({"made": made or {}, "files": described}, file, ensure_ascii=False)


# --- Blocks -----------------------------------------------------------------------------------------------------------


def write_block(file: BinaryIO, value) -> None:
    """Appends a value, packed, behind its length in 4 bytes."""
    block = zlib.compress(pickle.dumps(value, protocol=5), level=1)
    file.write(len(block).to_bytes(4, "little") + block)


def read_block(file: BinaryIO):
    """The next value. EOFError if there is none."""
    size = int.from_bytes(file.read(4), "little")
    if not size:
        raise EOFError
    return pickle.loads(zlib.decompress(file.read(size)))


def skip_block(file: BinaryIO) -> None:
    file.seek(int.from_bytes(file.read(4), "little"), os.SEEK_CUR)

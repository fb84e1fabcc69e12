"""A function over many tasks in worker processes: results in order, few in memory, no hanging when a process dies.

In: function(state, task), a state that all tasks share, the tasks, how many processes. Out: the results, as a
generator. `multiprocessing.Pool.imap` would do the same, but it reads all tasks at once (a dump does not fit into
memory) and waits forever for a worker that was killed.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

TASKS_IN_FLIGHT = 4  # per worker: enough that no worker waits while the consumer is busy

_state = None  # of this worker process: set once, as it can be too large to be sent with every task


def _start(state) -> None:
    global _state
    _state = state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers; without this they would wait for tasks for good."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(function: Callable, task):
    return function(_state, task)


def in_order(function: Callable, state, tasks: Iterable, workers: int) -> Iterator:
    """Yields function(state, task) for every task, in the order of the tasks. function: of a module, not a closure.

    An exception in a worker is raised here, what waits is dropped. ChildProcessError (an OSError) if a worker dies.
    """
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(state,))
    waiting: deque = deque()
    try:
        pool.submit(int).result()  # the processes start here, before `tasks` may start threads: fork would copy locks
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

"""Files and folders that are whole or absent: written under a temporary name, flushed to the disk, then renamed.

A process killed in the middle leaves a name starting with a dot and ending in `.tmp`, which nobody reads and which the
next writer of the same name removes.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def naming(error: BaseException, path: Path) -> BaseException:
    """The same error; one of the system that names no file, such as a full disk's, then names `path`."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        return OSError(error.errno, error.strerror, str(path))
    return error


@contextmanager
def write_file(path: Path | str, mode: str = "w") -> Iterator:
    """`with write_file(path) as file:` opens a temporary file that takes the name `path` when the block ends well.

    mode "w" (UTF-8 text) or "wb". Raises OSError when the disk is full; the temporary file is then removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        raise naming(error, path) from None


@contextmanager
def write_folder(path: Path | str) -> Iterator[Path]:
    """`with write_folder(path) as folder:` fills a temporary folder that takes the name `path` when the block ends.

    An older folder of that name is replaced. Every file is flushed to the disk before the renaming.
    """
    path = Path(path)
    temporary, outgoing = temporary_name(path), path.with_name(f".{path.name}.old.tmp")
    for leftover in (temporary, outgoing):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for name in [*temporary.rglob("*"), temporary]:
            sync(name)
        if path.exists():
            path.rename(outgoing)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(outgoing, ignore_errors=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flushes one file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

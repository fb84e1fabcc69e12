"""Files: written whole or not at all, and JSON that is checked field by field.

    with write_file(path) as file:                     takes its name when the block ends well; a killed process leaves
        ...                                            `.name.X.tmp`, which nobody reads and the next writer removes

    with one_writer(folder):                           no other process of ours writes there meanwhile

    for record in read_json_lines(path):               one object per line, blank lines are skipped
        text = record.get("text", str)
        start, end = record.span(text)                 fields "start" and "end", half-open characters of the text
        label = record.get("label", str, default="")   absent: the default; present: checked like any other
        for answer in record.list("answers"):          a list of objects, each a record that knows its place

Every error of a file's content is a ValueError of one line, such as `train.jsonl, line 7: field 'start' is "x",
expected an integer`; `run` turns it into exit status 2.
"""

import fcntl
import glob
import hashlib
import json
import os
import platform
import re
import resource
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

# --- Writing ----------------------------------------------------------------------------------------------------------

TRIES = 10  # to get a lock, a tenth of a second apart


def with_path(error: BaseException, path: Path, temporary: Path | None = None) -> BaseException:
    """Adds the path to an OSError that lacks one (disk full), or puts it in place of the temporary one."""
    if not isinstance(error, OSError) or error.errno is None:
        return error
    name = str(path) if error.filename is None else os.fsdecode(error.filename).replace(str(temporary), str(path))
    return OSError(error.errno, error.strerror, name)


@contextmanager
def write_file(path: Path | str, mode: str = "w") -> Iterator:
    """`with write_file(path) as file:` opens a temporary file that takes the name `path` when the block ends well.

    mode "w" (UTF-8 text) or "wb". Raises OSError when the disk is full; the temporary file is then removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path, lambda name: name.touch(exist_ok=False)) as temporary:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextmanager
def write_folder(path: Path | str) -> Iterator[Path]:
    """`with write_folder(path) as folder:` fills a temporary folder that takes the name `path` when the block ends.

    An older folder of that name is replaced. Every file is flushed to the disk before the renaming.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path, Path.mkdir) as temporary:
        yield temporary
        for name in [*temporary.rglob("*"), temporary]:
            sync(name)
        outgoing = _own_name(path)
        if path.exists():
            path.rename(outgoing)
        temporary.rename(path)
    _remove(outgoing)
    sync(path.parent)


@contextmanager
def write_together(folder: Path | str, last: str) -> Iterator[Path]:
    """`with write_together(OUT, "results.json") as new:` the files written into the folder `new` move to OUT when the
    block ends well; until then OUT stays as it was.

    An older file `last` goes first and the new one comes last, so that the others belong to it wherever it is.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _temporary(folder / last, Path.mkdir, folder) as temporary:
        yield temporary
        (folder / last).unlink(missing_ok=True)
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == last):
            path.replace(folder / path.name)
    _remove(temporary)


def remove_folder(path: Path) -> None:
    """Removes a folder, if it is there, under another name: a killed process leaves nothing that is half there."""
    outgoing = _own_name(path)
    with suppress(FileNotFoundError):
        path.rename(outgoing)
    _remove(outgoing)
    _remove_leftovers(path)


def _own_name(path: Path) -> Path:
    """No other writer's, in this process or another."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def _temporary(path: Path, make: Callable[[Path], None], place: Path | None = None) -> Iterator[Path]:
    """A file or folder beside `path` with a name of its own, locked while the block runs; an error removes it.

    place: what an error names in its stead [path].
    """
    _remove_leftovers(path)
    temporary = _own_name(path)
    try:
        make(temporary)
        with _opened(temporary) as handle:
            _lock(handle)
            yield temporary
    except BaseException as error:
        _remove(temporary)
        raise with_path(error, place or path, temporary) from None


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        with suppress(FileNotFoundError), _opened(leftover) as handle:
            if _lock(handle):  # its writer was killed
                _remove(leftover)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    handle = os.open(path, flags)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int) -> bool | None:
    """Takes the lock of an open file; it ends with this process. False: it is taken. None: the disk has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _names(path: Path, handle: int) -> bool:
    """Whether it is still the name of the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextmanager
def one_writer(folder: Path | str) -> Iterator[None]:
    """`with one_writer(OUT):` ValueError if another process is in such a block; a killed one is not.

    The lock is the system's, on OUT/.lock, a file that says whose it is and goes away in the end. So does OUT, if it is
    new and nothing was written.
    """
    path, is_new = Path(folder) / ".lock", not Path(folder).exists()
    for _ in range(TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path, os.O_RDWR | os.O_CREAT) as handle:
            held = _lock(handle)
            if held is not False and _names(path, handle):  # not one that has just gone away
                if held is None:
                    warning = "the disk has no locks: no other process may write there meanwhile"
                    print(f"{folder}: {warning}", file=sys.stderr, flush=True)
                with suppress(OSError):  # a full disk
                    os.ftruncate(handle, 0)
                    os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                    with suppress(OSError):  # it holds something
                        if is_new:
                            path.parent.rmdir()
                return
            writer = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
        time.sleep(0.1)  # the workers of a killed process hold its lock until they notice
    raise ValueError(f"{folder}: {writer} is writing there; wait for it, or give another --out DIR")


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flushes one file or folder to the disk."""
    with _opened(path) as handle:
        os.fsync(handle)


# --- Reading JSON -----------------------------------------------------------------------------------------------------

REQUIRED = object()
KINDS = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list: "a list",
    dict: "an object",
}


class Record(NamedTuple):
    """A JSON object and where it stands."""

    where: str  # "train.jsonl, line 7"
    values: dict

    def get(self, name: str, kind: type, default=REQUIRED):
        """The value of a field. ValueError if it is missing without a default, or not of the kind."""
        if name not in self.values:
            if default is REQUIRED:
                found = ", ".join(list(self.values)[:8]) or "none"
                raise ValueError(f"{self.where}: field {name!r} is missing, expected {KINDS[kind]}; fields: {found}")
            return default
        return check(f"{self.where}: field {name!r}", self.values[name], kind)

    def id(self, default: str = "") -> str:
        """Field "id", a text or a whole number; `default` if it is missing or null."""
        value = self.values.get("id")
        if value is None:
            return default
        return str(self.get("id", int)) if isinstance(value, int) else self.get("id", str)

    def list(self, name: str, default=REQUIRED) -> "list[Record]":
        """The objects of a field that is a list of them."""
        found = self.get(name, list, default)
        return [Record(f"{self.where}, {name} {i}", check(f"{self.where}: {name} {i}", item, dict))
                for i, item in enumerate(found, start=1)]  # fmt: skip

    def texts(self, name: str, default=REQUIRED) -> "list[str]":
        """A field that is a list of texts."""
        found = self.get(name, list, default)
        return [check(f"{self.where}: {name} {i}", item, str) for i, item in enumerate(found, start=1)]

    def span(self, text: str, inclusive: bool = False, may_be_empty: bool = False) -> tuple[int, int]:
        """Fields start and end as a half-open span of characters; inclusive: the end is part of it."""
        first, last = self.get("start", int), self.get("end", int) + inclusive
        if not 0 <= first <= last <= len(text) or (first == last and not may_be_empty):
            held = f"{self.where}: fields 'start' and 'end' are {first} and {last - inclusive}"
            raise ValueError(f"{held}, expected a span inside the text of {len(text)} characters")
        return first, last


def check(name: str, value, kind: type):
    """The value itself, if it is of the kind; a whole number is a number too, unless no float is as large."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    is_whole = is_number and isinstance(value, int)
    is_float = is_number and not (is_whole and abs(value) > sys.float_info.max)
    fits = {int: is_whole, float: is_float}.get(kind, isinstance(value, kind))
    if not fits:
        shown = json.dumps(value, ensure_ascii=False)
        raise ValueError(f"{name} is {shown if len(shown) < 60 else shown[:60] + '...'}, expected {KINDS[kind]}")
    return value


# Half of a pair of UTF-16 units, such as an emoji that was cut in two: JSON can spell it, but UTF-8 has no form for it.
SURROGATE, SPELLED_SURROGATE = re.compile("[\ud800-\udfff]"), re.compile(r"\\u[dD][89a-fA-F]")


def _parse(text: str | bytes, where: str):
    """The value. A character that UTF-8 cannot hold becomes U+FFFD, so that offsets stay."""
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(text)
        if SPELLED_SURROGATE.search(text):
            value = json.loads(SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False)))
        return value
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        place = where if error.lineno == 1 and "line" in where else f"{where}, line {error.lineno}"
        raise ValueError(f"{place}, column {error.colno}: invalid JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # a number of thousands of digits is a ValueError
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]
        raise ValueError(f"{where}: invalid JSON ({reason})") from None


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """`with naming(path):` a ValueError of the block begins with the name of the file or folder."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(tuple(f"{path}{mark}" for mark in ":/, ")):
            raise
        raise ValueError(f"{path}: {error}") from None


def parse_record(text: str | bytes, where: str) -> Record:
    """The object that a line of JSON is; `where` it stands is named in errors."""
    return Record(where, check(where, _parse(text, where), dict))


def line_record(line: str, where: str, unmark: Callable[[str, str], Record]) -> Record:
    """A line as a record: a JSON object, or what `unmark` makes of the line and of where it stands."""
    return (parse_record if line.lstrip().startswith("{") else unmark)(line, where)


def line_records(lines: Sequence[str], unmark: Callable[[str, str], Record]) -> list[Record]:
    """The lines of --predict as records."""
    check_text(lines)
    return [line_record(line, f"line {number}", unmark) for number, line in enumerate(lines, start=1)]


def check_text(lines: Sequence[str]) -> None:
    """ValueError naming the first line that is not Unicode text, as when its bytes were not UTF-8."""
    for number, line in enumerate(lines, start=1):
        if found := SURROGATE.search(line):
            raise ValueError(f"line {number}: not UTF-8 text (at character {found.start() + 1})")


def read_text(path: str | Path) -> str:
    """The whole of a UTF-8 file, without a byte order mark."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def read_lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """The lines of a UTF-8 file that are not blank, each after the place where it stands."""
    # Not splitlines(): it also breaks at U+2028 and U+0085, which JSON allows inside a text.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.rstrip("\r")


def read_json_lines(path: str | Path) -> Iterator[Record]:
    return (parse_record(line, where) for where, line in read_lines(path))


def read_object(path: str | Path) -> dict:
    """A file that is one JSON object."""
    return check(str(path), _parse(read_text(path), str(path)), dict)


def read_json(path: str | Path) -> "Record | list[Record]":
    """A file that is one object, or a list of objects (`record 1` is the first)."""
    value = _parse(read_text(path), str(path))
    if isinstance(value, list):
        return [Record(f"{path}, record {i}", check(f"{path}, record {i}", item, dict))
                for i, item in enumerate(value, start=1)]  # fmt: skip
    return Record(str(path), check(str(path), value, dict))


def read_records(path: str | Path) -> list[Record]:
    """The objects of a file that is either a list of them or JSON lines."""
    text = read_text(path).lstrip()
    return read_json(path) if text.startswith("[") else list(read_json_lines(path))


def is_json(path: str | Path) -> bool:
    """Whether a file is JSON, by its name: tasks whose published format is another one ask."""
    return Path(path).suffix in (".json", ".jsonl", ".ndjson")


# --- Scripts ----------------------------------------------------------------------------------------------------------


def run(main: Callable[[], object], name: str, interrupted: str = "") -> None:
    """Runs a script's main: bad input is one line and exit status 2, Ctrl-C one line that says what stays, and 130.

    Standard input and output are UTF-8, whatever the locale.
    """
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"{name}: error: {one_line(error)}{looked_in(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        stays = str(error) or interrupted
        print(f"{name}: interrupted{stays and '; '}{stays}", file=sys.stderr)
        sys.exit(130)


def show(values: Mapping[str, str]) -> None:
    """Names and values in two columns."""
    for name, value in values.items():
        print(f"{name:12}{value.replace(chr(10), chr(10) + ' ' * 12)}", flush=True)


def peak_memory(whose: int = resource.RUSAGE_SELF) -> int:
    """The most that this process has had so far, or one of its children that have ended, in bytes."""
    return resource.getrusage(whose).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def duration(seconds: float) -> str:
    """90 -> 90 s, 5400 -> 90 min, 864000 -> 10 days"""
    for size, unit, limit in ((1, "s", 120), (60, "min", 7200), (3600, "hours", 172800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.3g} days"


def one_line(error: object, longest: int = 1000) -> str:
    """A message that may quote a damaged file: escapes in place of line ends and the like, of a long one both ends."""
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(error))
    return text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 4 :]}"


def looked_in(error: ValueError | OSError) -> str:
    """The working directory, if the error is about a relative path that is not there; messages begin with the path."""
    if isinstance(error, OSError):
        name = str(error.filename or "") if isinstance(error, FileNotFoundError) else ""
    else:
        name = re.match(r"([^ :,]*)(?=: )|[^ :,]*/[^ :,]*|", str(error))[0]
    path = Path(name)
    return "" if path.is_absolute() or path.exists() else f" (looked in {Path.cwd()})"

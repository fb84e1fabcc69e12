"""Fetches the newest complete dump of a wiki from Wikimedia or a mirror; goes on where a killed download stopped.

    fetch("sw", Path("dumps"), None, "https://dumps.wikimedia.org")
    -> [dumps/swwiki-20261101/swwiki-20261101-pages-articles-multistream.xml.bz2]

Layout of the server: `swwiki/` lists the dates of the dumps, `swwiki/20261101/dumpstatus.json` the jobs of one, each
with its status and its files, with their size in bytes and SHA-1. A large wiki has its articles in many parts.

Parts wait in `swwiki-20261101.part/`, which takes its name when all of them are there and checked: a folder without
that ending is whole. At most two connections at a time, as Wikimedia asks.
"""

import errno
import hashlib
import http.client
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from luke_mini import files
from luke_mini.wikidata import wiki_of

AGENT = "luke-mini (reads a dump of Wikipedia for pretraining)"
JOBS = ("articlesmultistreamdump", "articlesdump")  # multistream can be read in parallel; small old wikis have none
CONNECTIONS = 2
TRIES = 5  # without a byte in between
PAUSE = 2.0  # seconds before the second try, twice as many before each further one
TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 20
WHOLE = (0, 0)  # the place of a dump's only file, see `_place`
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES}  # no fault of the connection


class Part(NamedTuple):
    name: str
    url: str
    size: int  # bytes
    sha1: str


def find(language: str, folder: Path = Path()) -> list[Path]:
    """The files of the newest dump of a language in a folder: the single file, otherwise its parts in order, each once,
    though the folder may have both variants of a dump. [] if there is none."""
    pattern = re.compile(rf"{wiki_of(language)}-(\w+)-pages-articles(?:-multistream)?\d*\.xml.*\.bz2")
    dates = {path: match[1] for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
    newest = max(dates.values(), default="")  # "latest" sorts after any date
    parts = {_place(path.name): path for path in sorted(dates, reverse=True) if dates[path] == newest}
    ordered = [parts[place] for place in sorted(parts)]
    return ordered[:1] if WHOLE in parts else ordered


def find_downloaded(language: str, folder: Path) -> list[Path]:
    """The files of the newest dump that was downloaded into a folder of its own inside `folder`; [] if none was."""
    whole = sorted(folder.glob(f"{wiki_of(language)}-" + 8 * "[0-9]"))
    return find(language, whole[-1]) if whole else []


def fetch(language: str, folder: Path, date: str | None, mirror: str) -> list[Path]:
    """Downloads the articles of `{language}wiki` into a folder of their own inside `folder`; its files in order.

    date: "20261101", or None for the newest dump whose articles are complete. Raises ValueError, one line, if there is
    no such dump, a file is not what the server promised or the disk is too small; OSError if the server cannot be read.
    """
    wiki = wiki_of(language)
    if date and (whole := folder / f"{wiki}-{date}").is_dir():
        return find(language, whole)
    date, parts = newest(language, date, mirror)
    whole = folder / f"{wiki}-{date}"
    if not whole.is_dir():
        waiting = whole.with_name(f"{whole.name}.part")
        waiting.mkdir(parents=True, exist_ok=True)
        _fetch_parts(parts, waiting)
        files.sync(waiting)
        waiting.rename(whole)
        files.sync(folder)
    return [whole / part.name for part in parts]


# --- What there is ----------------------------------------------------------------------------------------------------


def _open(url: str, start: int = 0) -> http.client.HTTPResponse:
    headers = {"User-Agent": AGENT} | ({"Range": f"bytes={start}-"} if start else {})
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def _read(url: str, on_failure: str) -> bytes | None:
    """None if the server does not have it."""
    try:
        with _open(url) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise OSError(f"{url}: the server answers {error.code} {error.reason}; {on_failure}") from None
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"{url}: {getattr(error, 'reason', error)}; {on_failure}") from None


def newest(language: str, date: str | None, mirror: str) -> tuple[str, list[Part]]:
    """The date and the files of the dump asked for, or of the newest whose articles are complete."""
    wiki, mirror = wiki_of(language), mirror.rstrip("/")
    otherwise = "download the dump by other means and give its files to --dump"
    listing = _read(f"{mirror}/{wiki}/", otherwise)
    if listing is None:
        raise ValueError(f"{mirror}/{wiki}/: no such wiki, expected a language of Wikipedia, as sw of sw.wikipedia.org")
    dates = sorted(set(re.findall(r'href="(\d{8})/?"', listing.decode("utf-8", "replace"))), reverse=True)
    for found in [date] if date else dates:
        if parts := _complete_parts(f"{mirror}/{wiki}/{found}", otherwise):
            return found, parts
    wanted, shown = f" of {date}" if date else "", ", ".join(dates) or "none"
    raise ValueError(f"{mirror}/{wiki}/: no complete dump of the articles{wanted}, dates are {shown}")


def _complete_parts(base: str, otherwise: str) -> list[Part]:
    """The files of the first job that is done, in order of their pages; [] if none is."""
    url = f"{base}/dumpstatus.json"
    status = _read(url, otherwise)
    if status is None:
        return []
    jobs = files.parse_record(status, url).get("jobs", dict)
    for job in JOBS:
        record = files.Record(f"{url}, {job}", jobs.get(job) or {})
        if record.get("status", str, default="") == "done":
            parts = [_part(name, record.get("files", dict), base, url) for name in record.get("files", dict)]
            return sorted((part for part in parts if "-index" not in part.name), key=lambda part: _place(part.name))
    return []


def _part(name: str, listed: dict, base: str, url: str) -> Part:
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise ValueError(f"{url}: file {name!r}, expected a plain name")
    record = files.Record(f"{url}, {name}", files.check(f"{url}: {name}", listed[name], dict))
    return Part(name, f"{base}/{name}", record.get("size", int), record.get("sha1", str))


def _place(name: str) -> tuple[int, int]:
    """`...-pages-articles12.xml-p700p800.bz2`: part 12, from page 700."""
    number, page = re.search(r"articles(?:-multistream)?(\d*)", name), re.search(r"-p(\d+)p", name)
    return int(number[1] or 0) if number else 0, int(page[1]) if page else 0


# --- Downloading ------------------------------------------------------------------------------------------------------


def _fetch_parts(parts: list[Part], folder: Path) -> None:
    paths = [folder / part.name for part in parts]
    held = [path.stat().st_size if path.exists() else 0 for path in paths]
    missing, free = sum(part.size for part in parts) - sum(held), shutil.disk_usage(folder).free
    if missing > free:
        raise ValueError(f"{folder}: {missing / 1e9:.1f} GB to download, but {free / 1e9:.1f} GB are free on this disk")
    stopped = threading.Event()
    total = sum(part.size for part in parts)
    with tqdm(total=total, initial=sum(held), desc="download", unit="B", unit_scale=True, disable=None) as progress:

        def advance(count: int) -> None:
            progress.update(count)
            if stopped.is_set():
                raise InterruptedError("another part failed")

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            waiting = [pool.submit(_fetch_part, part, path, advance) for part, path in zip(parts, paths)]
            try:
                for future in waiting:
                    future.result()
            finally:  # a fault or Ctrl-C: the other connection ends, too
                stopped.set()
                pool.shutdown(cancel_futures=True)


def _fetch_part(part: Part, path: Path, advance: Callable[[int], None]) -> None:
    """Appends to what is there until it is whole. A connection that breaks is opened again."""
    tries = 0
    while (held := path.stat().st_size if path.exists() else 0) < part.size:
        try:
            _append(part, path, held, advance)
            problem = f"the connection ended at byte {path.stat().st_size:,} of {part.size:,}"
        except InterruptedError:
            raise
        except urllib.error.HTTPError as error:
            problem = f"the server answers {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                raise ValueError(f"{part.url}: {problem}") from None
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in DISK:
                raise files.with_path(error, path) from None
            problem = getattr(error, "reason", error)
        grown = path.exists() and path.stat().st_size > held
        tries = 0 if grown else tries + 1
        if tries == TRIES:
            raise OSError(f"{part.url}: {problem}; what is there stays, the same command goes on")
        if tries:
            time.sleep(PAUSE * 2 ** (tries - 1))
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha1").hexdigest()
    if held != part.size or found != part.sha1:
        path.unlink()
        wrong = f"{held:,} bytes with SHA-1 {found}, expected {part.size:,} bytes with {part.sha1}"
        raise ValueError(f"{part.url}: {wrong}; the file was removed, the same command fetches it again")


def _append(part: Part, path: Path, held: int, advance: Callable[[int], None]) -> None:
    with _open(part.url, held) as response:
        if held and response.status != 206:  # the server knows no ranges: from the beginning
            advance(-held)
            held = 0
        with open(path, "ab" if held else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                advance(len(chunk))

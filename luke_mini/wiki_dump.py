"""Streams the articles and redirects of a MediaWiki XML dump.

In:  a `pages-articles` dump: `.xml`, `.xml.gz` or `.xml.bz2`, told apart by its first bytes. Read a dump in several
     parts with one call per part; a multistream dump is an ordinary bzip2 file of many streams, its index is ignored.
Out: `Page`s in file order, namespace 0 only, redirects included.

Memory is bounded whatever the length of the dump: it holds one page, one chunk of XML and a few bzip2 blocks.

Decompression is the slowest stage (about 40 MB of XML per second and core; expat parses 400). bzip2 blocks are
independent, so a few threads decompress them (Python's bz2 releases the GIL). A block starts with a 48-bit mark at any
bit offset: `bzip2_blocks` searches for the marks, and `_wrap_block` aligns the bits between two marks to bytes and
wraps them as a bzip2 file.

LUKE's entity annotations are the links of Wikipedia (section 3.3).
Left out on purpose: full histories (the last revision counts), 7z, downloading.
"""

import bz2
import gzip
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO
from xml.parsers import expat

from luke_mini.wikitext import normalize_title

CHUNK = 1 << 18  # bytes per read
MAX_THREADS = 8  # 8 x 40 MB/s is more than the rest of the pipeline consumes


@dataclass(slots=True)
class Page:
    title: str
    redirect: str | None  # normalized title of the target, without `#section`; None for an article
    wikitext: str
    language: str  # "en", "zh-yue", ... from xml:lang
    wiki: str = ""  # "https://en.wikipedia.org/wiki/": the address of a page without its title; "" if not known


# -------------------------------------------------------------------------------------------------------- decompression

_BLOCK_MARK = 0x314159265359  # pi
_END_MARK = 0x177245385090  # square root of pi: the end of a stream


# A mark at any of 8 bit offsets is found by the 5 bytes that it fully covers, bytes 1 to 5 of the 7 that it lies in.
_INNER = {
    (mark << (8 - shift)).to_bytes(7, "big")[1:6]: (mark, shift)
    for mark in (_BLOCK_MARK, _END_MARK)
    for shift in range(8)
}
_MARK = re.compile(b"|".join(map(re.escape, _INNER)))


def _find_marks(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """(bit at which it starts, mark) for every mark whose 7 bytes lie in data[start:]."""
    for match in _MARK.finditer(data, start + 1):
        mark, shift = _INNER[match[0]]
        window = data[match.start() - 1 : match.end() + 1]
        if len(window) == 7 and int.from_bytes(window, "big") >> (8 - shift) & 0xFFFFFFFFFFFF == mark:
            yield (match.start() - 1) * 8 + shift, mark


def _wrap_block(data: bytes, start: int, end: int) -> bytes:
    """Bits [start, end) of `data`, one block with its mark, as a bzip2 file of this block alone."""
    last = -(-end // 8)
    block = int.from_bytes(data[start // 8 : last], "big") >> (last * 8 - end)
    length = end - start
    block &= (1 << length) - 1
    checksum = block >> (length - 80) & 0xFFFFFFFF  # after the mark; the checksum of a one-block stream is its block's
    bits = (block << 48 | _END_MARK) << 32 | checksum
    length += 80
    return b"BZh9" + (bits << -length % 8).to_bytes(-(-length // 8), "big")


def bzip2_blocks(file: BinaryIO) -> Iterator[bytes]:
    """The blocks of all streams of a bzip2 file, each as a bzip2 file. EOFError if the file ends inside a stream.

    A mark occurs by chance inside a block once in 2**48 bits and reads as damage: one English dump in about 1,500.
    """
    data = b""  # starts at the byte where the open block starts; bit positions below count from here
    block_start = None  # None between streams
    stream_end = 0
    searched = 0  # bytes of `data` without a further mark
    while piece := file.read(CHUNK):
        data += piece
        for bit, mark in _find_marks(data, searched):
            if block_start is not None:
                yield _wrap_block(data, block_start, bit)
            block_start = bit if mark == _BLOCK_MARK else None
            stream_end = bit + 80  # a 32-bit checksum follows the end mark
            searched = bit // 8 + 6
        searched = max(searched, len(data) - 7)
        done = searched if block_start is None else block_start // 8
        data, searched, stream_end = data[done:], searched - done, stream_end - done * 8
        block_start = None if block_start is None else block_start - done * 8
    if block_start is not None or stream_end > len(data) * 8:
        raise EOFError


def _bzip2_chunks(file: BinaryIO) -> Iterator[bytes]:
    threads = min(os.cpu_count() or 1, MAX_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        pending = deque()
        for block in bzip2_blocks(file):
            pending.append(pool.submit(bz2.decompress, block))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _decompressed(file: BinaryIO, path: str) -> Iterator[bytes]:
    """The XML in chunks of at most a megabyte. ValueError if the file is damaged, OSError if the disk is."""
    head = file.peek(3)[:3]
    if not head:
        raise ValueError(f"{path}: the file is empty, expected a MediaWiki XML dump")
    if head == b"BZh":
        chunks, kind = _bzip2_chunks(file), "bzip2"
    elif head[:2] == b"\x1f\x8b":
        chunks, kind = iter(partial(gzip.GzipFile(fileobj=file).read, CHUNK), b""), "gzip"
    else:
        chunks, kind = iter(partial(file.read, CHUNK), b""), ""
    try:
        yield from chunks
    except EOFError:
        raise ValueError(f"{path}: the {kind} data end early, the file is truncated") from None
    except (OSError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path}: the {kind} data are damaged ({error})") from None


# ------------------------------------------------------------------------------------------------------------------ XML

_FIELDS = {"title", "ns", "text", "namespace", "dbname", "base"}  # the elements whose text is read
_NAMESPACES = "media special talk user wikipedia file image mediawiki template help category portal module".split()
_REDIRECT = re.compile(r"\s*#redirect\W*?\[\[([^\]|]*)", re.IGNORECASE)
_LINK = re.compile(r"\[\[([^\]|]*)")


class _Handler:
    """Callbacks of expat, and the state between them."""

    def __init__(self, path: str):
        self.path = path
        self.pages = []  # finished, for read_dump
        self.language, self.wiki = None, ""
        self.prefixes = tuple(f"{name}{talk}:" for name in _NAMESPACES for talk in ("", " talk"))  # more in the dump
        self.fields, self.parts = {}, []  # of the open page, by element; of the text of the open element
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.buffer_size = 1 << 20
        self.parser.StartElementHandler = self._check_root

    def _check_root(self, name: str, attributes: dict[str, str]):
        if name.rpartition(":")[2] != "mediawiki":
            raise ValueError(f"{self.path}: not a MediaWiki dump, its root element is <{name}> and not <mediawiki>")
        self.language = attributes.get("xml:lang")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def _start(self, name: str, attributes: dict[str, str]):
        name = name.rpartition(":")[2]  # a dump may write <mw:page>
        if name == "page":
            self.fields = {}
        elif name == "redirect":
            self.fields["redirect"] = attributes.get("title", "")
        elif name in _FIELDS:
            self.parts = []
            if self.fields.get("ns", "0") == "0":  # of other namespaces nothing more is read
                self.parser.CharacterDataHandler = self.parts.append

    def _end(self, name: str):
        name = name.rpartition(":")[2]
        if name in _FIELDS:
            self.parser.CharacterDataHandler = None
            self._take(name, "".join(self.parts))
        elif name == "page":
            self._finish_page(**self.fields)

    def _take(self, name: str, value: str):
        if name == "namespace":
            self.prefixes += (f"{value.lower()}:",) if value else ()
        elif name == "dbname":
            self.language = self.language or value.partition("wik")[0].replace("_", "-")  # "zh_yuewiki" -> "zh-yue"
        elif name == "base":  # the address of the main page
            self.wiki = value.strip().rpartition("/")[0] + "/"
        else:
            self.fields[name] = value.strip() if name == "ns" else value

    def _finish_page(self, title: str = "", ns: str | None = None, text: str = "", redirect: str | None = None):
        if title.lower().startswith(self.prefixes) if ns is None else ns != "0":  # dumps before 2012 have no <ns>
            return
        if not redirect:  # <redirect> had no target before 2011; the element is missing before 2009
            match = _LINK.search(text) if redirect == "" else _REDIRECT.match(text)
            redirect = match[1] if match else None
        language = self.language or "en"
        if redirect is not None:
            redirect = normalize_title(redirect, language) or title  # [[#section]]: a redirect to itself
        self.pages.append(Page(title, redirect, text, language, self.wiki))

    def feed(self, chunk: bytes, is_last: bool = False) -> list[Page]:
        """The pages that end in this chunk of XML."""
        try:
            self.parser.Parse(chunk, is_last)
        except expat.ExpatError as error:
            problem = "the XML ends early, the file is truncated" if is_last else "the XML is damaged"
            if self.parser.EndElementHandler is None:  # before the root element
                problem = "not a MediaWiki XML dump"
            reason = f"{expat.errors.messages[error.code]} at line {error.lineno}"
            raise ValueError(f"{self.path}: {problem} ({reason})") from None
        pages, self.pages = self.pages, []
        return pages


def read_dump(path: str | os.PathLike, on_bytes: Callable[[int], object] | None = None) -> Iterator[Page]:
    """Yields the pages of namespace 0 of one dump file, in file order.

    `on_bytes(n)` is called with the number of bytes read since the last call (for a progress bar). Raises OSError if
    the file cannot be read, ValueError (one line with the file's name) if it is empty, truncated, damaged or not a
    dump. A dump without pages yields nothing.
    """
    path = os.fspath(path)
    handler = _Handler(path)
    reported = 0
    with open(path, "rb") as file:
        for chunk in _decompressed(file, path):
            yield from handler.feed(chunk)
            if on_bytes:
                on_bytes(file.tell() - reported)
                reported = file.tell()
        yield from handler.feed(b"", is_last=True)

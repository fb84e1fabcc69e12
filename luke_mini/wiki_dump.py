"""Streams the articles and redirects of a MediaWiki XML dump.

In:  a `pages-articles` dump: `.xml`, `.xml.gz` or `.xml.bz2`, told apart by its first bytes. Read a dump in several
     parts with one call per part; a multistream dump is an ordinary bzip2 file of many streams, its index is ignored.
Out: `Page`s in file order, namespace 0 only, redirects included.

Memory is bounded whatever the length of the dump: it holds one page, one chunk of XML and a few bzip2 blocks. What is
longer than any block, or longer than any page, is an error and not read to its end.

Decompression is the slowest stage (about 40 MB of XML per second and core; expat parses 400). bzip2 blocks are
independent, so a few threads decompress them (Python's bz2 releases the GIL). A block starts with a 48-bit mark at any
bit offset: `bzip2_blocks` searches for the marks, and `_wrap_block` aligns the bits between two marks to bytes and
wraps them as a bzip2 file. A block's checksum sees damage inside of it. That no block is missed is seen by the rest:
streams follow each other without a byte between them, and each ends with the checksum of its blocks' checksums.

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
from dataclasses import dataclass, field
from functools import cached_property, partial
from multiprocessing import parent_process
from typing import BinaryIO
from xml.parsers import expat

import numpy as np

from luke_mini.wikitext import ARTICLE, Site, leads_to, normalize_title

CHUNK = 1 << 18  # bytes per read
MAX_THREADS = 8  # 8 x 40 MB/s is more than the rest of the pipeline consumes
MAX_BLOCK = 2 << 20  # bytes of a bzip2 block; it holds at most 900,000, and grows little if they are random
MAX_ELEMENT = 256 << 20  # bytes of text without a tag; MediaWiki's own limit for a page is 2 MB
MAX_WAITING = 1 << 20  # bytes of a page until its end is there; longer ones are left to expat, which needs not wait
MAX_CHUNK = 1 << 20  # bytes of XML at a time: expat takes the square of the time for a comment at once
MAX_TAG = 1 << 20  # bytes of a tag. A comment may be longer


@dataclass(slots=True)
class Page:
    title: str
    redirect: str | None  # normalized title of the target, without `#section`; None for an article
    wikitext: str
    language: str  # "en", "zh-yue", ... from xml:lang
    wiki: str = ""  # "https://en.wikipedia.org/wiki/": the address of a page without its title; "" if not known
    site: Site | None = field(default=None, compare=False, repr=False)  # all rules of its wiki


# -------------------------------------------------------------------------------------------------------- decompression

_BLOCK_MARK = 0x314159265359  # pi
_END_MARK = 0x177245385090  # square root of pi: the end of a stream


# A mark at any of 8 bit offsets is found by the 5 bytes that it fully covers, bytes 1 to 5 of the 7 that it lies in.
_INNER = {
    (mark << (8 - shift)).to_bytes(7, "big")[1:6]: (mark, shift)
    for mark in (_BLOCK_MARK, _END_MARK)
    for shift in range(8)
}
_IS_MIDDLE = np.zeros(1 << 16, bool)  # whether two bytes are the third and fourth of these: for a first, quick look
_IS_MIDDLE[[int.from_bytes(inner[2:4], "little") for inner in _INNER]] = True


def _find_marks(data: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """(bit at which it starts, mark, the 32-bit checksum after it) for each mark whose 11 bytes lie in data[start:]."""
    starts = [at for at in (max(start, 0) + 3, max(start, 0) + 4) if at < len(data)]
    pairs = [np.frombuffer(data, "<u2", (len(data) - at) // 2, at) for at in starts]
    for at in sorted(at + 2 * i for at, pair in zip(starts, pairs) for i in np.flatnonzero(_IS_MIDDLE[pair]).tolist()):
        mark, shift = _INNER.get(data[at - 2 : at + 3], (None, 0))
        window = data[at - 3 : at + 8]
        bits = int.from_bytes(window, "big") >> (8 - shift) & (1 << 80) - 1
        if len(window) == 11 and bits >> 32 == mark:
            yield (at - 3) * 8 + shift, mark, bits & 0xFFFFFFFF


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


_HEADER = re.compile(rb"BZh[1-9]")
_TOO_LONG = "no end of a block for 2 MB"
_NO_STREAM = "no stream begins where it should"
_MISSING = "a block is missing"


def block_after(file: BinaryIO, byte: int) -> int | None:
    """The bit at which the first block behind a byte of a bzip2 file begins; None if none is near."""
    file.seek(byte)
    data = file.read(MAX_BLOCK)
    return next((8 * byte + bit for bit, mark, _ in _find_marks(data, 0) if mark == _BLOCK_MARK), None)


def bzip2_blocks(file: BinaryIO, start: int | None = None, end: int | None = None) -> Iterator[bytes]:
    """The blocks of all streams of a bzip2 file, each as a bzip2 file; or those that begin at the bits start to end.

    At each of these bits a block has to begin.

    EOFError if the file ends inside a stream, ValueError if it holds something else between streams, or lacks a block.
    A mark occurs by chance inside a block once in 2**48 bits and reads as damage: one English dump in about 1,500.
    """
    data = b""  # begins with the open block, or between streams with the next stream; bit positions count from here
    in_block, block_start = start is not None, (start or 0) % 8
    before = (start or 0) // 8  # bytes of the file before the data
    stream = 0  # byte at which the next stream begins, its header of 4 bytes first
    searched, checksum, is_last = 6 * in_block, None if start else 0, False  # None: blocks before are not known
    if start:
        file.seek(before)
    while not is_last:
        piece = file.read(CHUNK)
        is_last = not piece
        data += piece or b"\0"  # a byte behind the last mark, which needs not end with a byte
        for bit, mark, sum_ in _find_marks(data, searched):
            if is_last and bit + 80 > len(data) * 8 - 8:
                raise EOFError
            if in_block:
                yield _wrap_block(data, block_start, bit)
            if end is not None and 8 * before + bit >= end:
                return
            if not in_block and (bit != stream * 8 + 32 or not _HEADER.match(data, stream)):
                raise ValueError(_NO_STREAM)
            if in_block := mark == _BLOCK_MARK:
                block_start = bit
                checksum = checksum if checksum is None else (checksum << 1 | checksum >> 31) & 0xFFFFFFFF ^ sum_
            elif checksum not in (None, sum_):
                raise ValueError(_MISSING)
            else:
                stream, checksum = -(-(bit + 80) // 8), 0
            searched = bit // 8 + 6
        searched, done = max(searched, len(data) - 10), block_start // 8 if in_block else stream
        if in_block and len(data) - done > MAX_BLOCK:
            raise ValueError(_TOO_LONG)
        if not in_block and len(data) - stream > 15:  # there should have been a mark
            raise ValueError(_NO_STREAM)
        data, searched, stream, block_start = data[done:], searched - done, stream - done, block_start - done * 8
        before += done
    rest = data[stream:-1]
    if in_block or b"BZh".startswith(rest[:3]) and rest:
        raise EOFError
    if rest:
        raise ValueError(_NO_STREAM)


def _threads() -> int:
    """One for each processor. One in all in a worker, whose siblings have the others, and then without a thread: two
    that take turns on a processor push each other's data out of its cache, and need a third more time together."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if parent_process() else min(processors, MAX_THREADS)


def _bzip2_chunks(file: BinaryIO, start: int | None, end: int | None) -> Iterator[bytes]:
    is_piece, threads, pending = start is not None or end is not None, _threads(), deque()
    if is_piece or threads == 1:  # the pieces of a file are read in parallel
        yield from map(bz2.decompress, bzip2_blocks(file, start, end))
        return
    with ThreadPoolExecutor(threads) as pool:
        for block in bzip2_blocks(file):
            pending.append(pool.submit(bz2.decompress, block))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


_OTHER_FILES = {  # what else is on a dump server, or in a folder, by its first bytes
    b"\xfd7zXZ\0": "an .xz file", b"7z\xbc\xaf\x27\x1c": "a .7z archive", b"PK\x03\x04": "a .zip archive",
    b"PK\x05\x06": "a .zip archive", b"\x28\xb5\x2f\xfd": "a .zst file", b"Rar!": "a .rar archive",
}  # fmt: skip
_INDEX = re.compile(rb"\d+:\d+:")  # offset:id:title


def decompressed(
    file: BinaryIO, path: str, start: int | None = None, end: int | None = None
) -> Iterator[bytes]:
    """The XML in chunks of at most a megabyte. ValueError if the file is damaged, OSError if the disk is.

    start, end: as of `bzip2_blocks`.
    """
    head = file.peek(8)[:8]
    if not head:
        raise ValueError(f"{path}: the file is empty, expected a dump")
    for magic, kind in _OTHER_FILES.items():
        if head.startswith(magic):
            raise ValueError(f"{path}: {kind}, expected .xml, .xml.bz2 or .xml.gz: unpack it first")
    if head[:3] == b"BZh":
        chunks, kind = _bzip2_chunks(file, start, end), "bzip2"
    elif head[:2] == b"\x1f\x8b":
        chunks, kind = iter(partial(gzip.GzipFile(fileobj=file).read, CHUNK), b""), "gzip"
    else:
        chunks, kind = iter(partial(file.read, CHUNK), b""), ""
    try:
        for chunk in chunks:  # a bzip2 block that repeats itself has 45 MB
            yield from (chunk[at : at + MAX_CHUNK] for at in range(0, len(chunk), MAX_CHUNK))
    except EOFError:
        raise ValueError(f"{path}: the {kind} data end early, the file is truncated") from None
    except (OSError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path}: the {kind} data are damaged ({error})") from None


# ------------------------------------------------------------------------------------------------------------------ XML

# The shape that MediaWiki gives to a page, in three parts: before and behind the namespace, and behind the text. A value
# holds no markup, and no other references than these.
_REFERENCES = {b"lt": b"<", b"gt": b">", b"quot": b'"', b"#039": b"'", b"amp": b"&"}
_REFERENCE = re.compile(rb"&(lt|gt|quot|#039|amp);")
_VALUE = rb'[^<>&"]*+(?:&(?:lt|gt|quot|#039|amp);[^<>&"]*+)*+'
_DETAILS = (
    rb"(?:\s++|<(?P<name>id|parentid|timestamp|comment|origin|model|format|sha1)>VALUE</(?P=name)>|<contributor>\s*+"
    rb"(?:<(?P<who>username|ip|id)>VALUE</(?P=who)>\s*+)*</contributor>|<minor ?/>|"
    rb'<(?:contributor|comment) deleted="deleted" ?/>)*'
)
_PAGE, _REVISION, _TAIL = (
    re.compile(shape.replace(b"DETAILS", _DETAILS).replace(b"VALUE", _VALUE))
    for shape in (
        rb"\s*+<page>\s*+<title>(VALUE)</title>\s*+<ns>(-?\d++)</ns>",
        rb'\s*+<id>\d++</id>\s*+(?:<redirect title="(VALUE)" ?/>\s*+)?(?:<restrictions>VALUE</restrictions>\s*+)?+'
        rb'<revision>DETAILS<text(?: [\w:]++="VALUE")*+(?: ?(?P<empty>/))?>',
        rb"(?:</text>)?+DETAILS</revision>\s*+</page>",
    )
)
_OPENER, _PAGE_END = re.compile(rb"\s*+<page>"), b"</page>"
_FIELDS = {"title", "ns", "text", "role", "namespace", "dbname", "case", "base"}  # the elements whose text is read
_REDIRECT = re.compile(r"\s*#redirect\W*?\[\[([^\]|]*)", re.IGNORECASE)
_LINK = re.compile(r"\[\[([^\]|]*)")


def _unescaped(value: bytes) -> str | None:
    """A value of the XML as text; None if expat must look at it."""
    pieces = _REFERENCE.split(value)  # bytes, name, bytes, ...
    if b">" in value or value.count(b"&") != len(pieces) // 2:
        return None
    pieces[1::2] = map(_REFERENCES.__getitem__, pieces[1::2])
    try:
        text = b"".join(pieces).decode()
    except UnicodeDecodeError:
        return None
    return None if "\ufffe" in text or "\uffff" in text else text


def _has_controls(data: bytes) -> bool:
    """Whether there are characters that XML forbids, or \r, which expat reads as \n."""
    codes = np.frombuffer(data, np.uint8)
    return np.count_nonzero(codes < 32) != np.count_nonzero((codes == 9) | (codes == 10))


class _Handler:
    """Pages of the usual shape are taken out of the XML before expat sees it; callbacks of expat for all else."""

    def __init__(self, path: str):
        self.path = path
        self.pages = []  # finished, for read_dump
        self.language, self.wiki = None, ""
        self.namespaces, self.case = [], None  # of the header
        self.fields, self.parts = {}, []  # of the open page, by element; of the text of the open element
        self.fed, self.last_tag = 0, 0  # bytes parsed; the byte at which the last tag begins
        self.opening, self.skipped = b"", None  # of an open tag or comment; the end of a comment that is not parsed
        self.waiting, self.lines = b"", 0  # the beginning of a page; lines that expat has not seen
        self.page_end, self.is_utf8 = -1 << 30, True  # the byte at which the last </page> begins that expat has seen
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.buffer_size = 1 << 20
        self.parser.XmlDeclHandler = self._check_encoding
        self.parser.StartElementHandler = self._check_root

    def _check_encoding(self, version: str, encoding: str | None, standalone: int):
        self.is_utf8 = (encoding or "utf-8").lower() == "utf-8"

    def _check_root(self, name: str, attributes: dict[str, str]):
        if name.rpartition(":")[2] != "mediawiki":
            raise ValueError(f"{self.path}: not a MediaWiki dump, its root element is <{name}> and not <mediawiki>")
        self.language = attributes.get("xml:lang")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def _start(self, name: str, attributes: dict[str, str]):
        name = name.rpartition(":")[2]  # a dump may write <mw:page>
        self.last_tag = self.parser.CurrentByteIndex
        if name == "page":
            self.fields = {}
        elif name == "redirect":
            self.fields["redirect"] = attributes.get("title", "")
        elif name == "content":  # one of several slots of a revision; <role> says which
            self.fields["role"] = ""
        elif name == "namespace":
            self.namespaces.append([int(attributes.get("key", 0)), ""])
            if self.namespaces[-1][0] == 0:
                self.case = attributes.get("case") or self.case
        if name in _FIELDS:
            self.parts = []
            if self.fields.get("ns", "0") == "0":  # of other namespaces nothing more is read
                self.parser.CharacterDataHandler = self.parts.append

    def _end(self, name: str):
        name = name.rpartition(":")[2]
        if name in _FIELDS:
            self.parser.CharacterDataHandler = None
            self._take(name, "".join(self.parts))
        elif name == "content":
            self.fields.pop("role", None)
        elif name == "page":
            self.page_end = self.parser.CurrentByteIndex
            self.fields.pop("role", None)
            self._finish_page(**self.fields)

    def _take(self, name: str, value: str):
        if name == "namespace":
            self.namespaces[-1][1] = value
        elif name == "case":
            self.case = self.case or value
        elif name == "dbname":
            self.language = self.language or value.partition("wik")[0].replace("_", "-")  # "zh_yuewiki" -> "zh-yue"
        elif name == "base":  # the address of the main page
            self.wiki = value.strip().rpartition("/")[0] + "/"
        elif name != "text" or self.fields.get("role", "main") == "main":
            self.fields[name] = value.strip() if name in ("ns", "role") else value

    @cached_property
    def site(self) -> Site:
        """The header, which is complete when the first page ends."""
        return Site(self.language or "en", tuple(map(tuple, self.namespaces)), self.case == "case-sensitive")

    def _finish_page(self, title: str = "", ns: str | None = None, text: str = "", redirect: str | None = None):
        if leads_to(title, self.site) != ARTICLE if ns is None else ns != "0":  # dumps before 2012 have no <ns>
            return
        if not redirect:  # <redirect> had no target before 2011; the element is missing before 2009
            match = _LINK.search(text) if redirect == "" else _REDIRECT.match(text)
            redirect = match[1] if match else None
        language, _, case_sensitive = self.site
        if redirect is not None:
            redirect = normalize_title(redirect, language, case_sensitive) or title  # [[#section]]: to itself
        self.pages.append(Page(title, redirect, text, language, self.wiki, self.site))

    def feed(self, chunk: bytes, is_last: bool = False) -> list[Page]:
        """The pages that end in this chunk of XML."""
        if not self.fed and _INDEX.match(chunk):
            raise ValueError(f"{self.path}: the index of a multistream dump, expected the dump itself")
        data, self.waiting, position = self.waiting + chunk, b"", 0
        is_usual = self.is_utf8 and not _has_controls(data)
        while position < len(data):
            # nothing is open in expat but the root element, if the last that it saw was the end of a page
            if is_usual and self.fed == self.page_end + len(_PAGE_END):
                position = self._take_pages(data, position)
                if not is_last and len(data) - position < MAX_WAITING and _OPENER.match(data, position):
                    if data.find(_PAGE_END, position) < 0:
                        self.waiting = data[position:]
                        break
            end = data.find(_PAGE_END, position) + len(_PAGE_END)
            end = end if end >= len(_PAGE_END) else len(data)
            self._feed_expat(data[position:end])
            position = end
        if is_last:
            self._parse(b"", True)
        pages, self.pages = self.pages, []
        return pages

    def _take_pages(self, data: bytes, position: int) -> int:
        """Reads pages of the usual shape; returns where something else begins."""
        start = position
        while page := _PAGE.match(data, position):
            if page[2] != b"0":
                end = data.find(_PAGE_END, page.end())
                if end < 0 or data.find(b"<page>", page.end(), end) >= 0:
                    break
                position = end + len(_PAGE_END)
                continue
            revision = _REVISION.match(data, page.end())
            if not revision:
                break
            end = revision.end() if revision["empty"] else data.find(b"<", revision.end())
            tail = _TAIL.match(data, end) if end >= 0 else None
            if not tail:
                break
            title, text = _unescaped(page[1]), _unescaped(data[revision.end() : end])
            redirect = None if revision[1] is None else _unescaped(revision[1])
            if title is None or text is None or (redirect is None) != (revision[1] is None):
                break
            self._finish_page(title, "0", text, redirect)
            position = tail.end()
        self.lines += np.count_nonzero(np.frombuffer(data, np.uint8)[start:position] == 10)
        return position

    def _feed_expat(self, data: bytes) -> None:
        if self.skipped is not None:
            data = self._skip(data)
        self._parse(data, False)
        self._check_size(data)

    def _check_size(self, chunk: bytes) -> None:
        """Ends what nothing in a dump is as long as; a long comment goes on without expat.

        expat reads an unfinished tag or comment again from its beginning for each chunk: quadratic time.
        """
        unfinished = self.fed - self.parser.CurrentByteIndex
        before = b"" if unfinished <= len(chunk) else self.opening  # it began in this chunk, or before
        self.opening = (before + chunk[max(len(chunk) - unfinished, 0) :])[:4]
        if unfinished > MAX_TAG and self.opening == b"<!--" and not chunk.endswith(b"-"):
            self._parse(b"-->", False)
            self.skipped = b""
        elif unfinished > 4 * MAX_TAG or self.fed - self.last_tag > MAX_ELEMENT:
            held = f"a tag of over {4 * MAX_TAG >> 20} MB, or a text of over {MAX_ELEMENT >> 20} MB"
            raise ValueError(f"{self.path}: {held}, after the title {self.fields.get('title', '')!r}")

    def _skip(self, chunk: bytes) -> bytes:
        """What follows the end of the open comment in this chunk."""
        _, found, rest = (self.skipped + chunk).partition(b"-->")
        self.skipped = None if found else (self.skipped + chunk)[-2:]
        return rest

    def _parse(self, data: bytes, is_last: bool) -> None:
        self.fed += len(data)
        try:
            self.parser.Parse(data, is_last)
        except expat.ExpatError as error:
            problem = "the XML ends early, the file is truncated" if is_last else "the XML is damaged"
            if self.parser.EndElementHandler is None:  # before the root element
                problem = "not a MediaWiki XML dump"
            reason = f"{expat.errors.messages[error.code]} at line {error.lineno + self.lines}"
            raise ValueError(f"{self.path}: {problem} ({reason})") from None
        except (LookupError, ValueError) as error:
            if str(error).startswith(f"{self.path}: "):
                raise
            raise ValueError(f"{self.path}: {error}, expected a MediaWiki XML dump in UTF-8") from None


def parse_xml(chunks: Iterator[bytes], path: str) -> Iterator[Page]:
    """The pages of a dump that comes in chunks of XML; path: its name in errors."""
    handler = _Handler(path)
    for chunk in chunks:
        yield from handler.feed(chunk)
    yield from handler.feed(b"", is_last=True)


def read_dump(path: str | os.PathLike, on_bytes: Callable[[int], object] | None = None) -> Iterator[Page]:
    """Yields the pages of namespace 0 of one dump file, in file order.

    `on_bytes(n)` is called with the number of bytes read since the last call (for a progress bar). Raises OSError if
    the file cannot be read, ValueError (one line with the file's name) if it is empty, truncated, damaged or not a
    dump. A dump without pages yields nothing.
    """
    path, reported = os.fspath(path), 0
    with open(path, "rb") as file:

        def chunks() -> Iterator[bytes]:
            nonlocal reported
            for chunk in decompressed(file, path):
                yield chunk
                if on_bytes:
                    on_bytes(file.tell() - reported)
                    reported = file.tell()

        yield from parse_xml(chunks(), path)


def language_of(path: str | os.PathLike) -> str | None:
    """What a dump says of its language; None if it has no page."""
    return next((page.language for page in read_dump(path)), None)

"""Cuts sources into pieces that can be read one by one, in any order, by any worker: `Piece`s of 0.5 to 8 MB.

    plain XML   a piece has the pages whose <page> begins in its bytes, and reads on to the end of the last one
    bzip2       the same, cut where a block begins: blocks are independent, in one stream or in many, so neither
                a multistream dump nor its index is needed
    .jsonl      a piece has the lines that begin in its bytes
    gzip        cannot be cut: one piece

Every piece begins with the head of its dump (language, namespaces), which is read again. The cuts depend on the files
alone, so results do not depend on the number of workers. All pieces of a file together have each page once; a block
that is damaged, cut short or lost is an error in its piece or the one before it. A small file is one piece.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

from luke_mini import wiki_dump
from luke_mini.wiki_dump import Page

SMALLEST, LARGEST = 1 << 19, 1 << 23  # bytes of a piece; in between 1/256 of all
CHUNK = 1 << 18  # bytes per read
MAX_HEAD = 1 << 22  # bytes of XML before the first page
PAGE, END = b"<page>", b"</mediawiki>\n"  # in a dump every other "<" is written &lt;
KEPT = 16  # bytes of a chunk that wait for the next: a tag may begin in them


class Piece(NamedTuple):
    path: Path
    size: int  # bytes of the file
    start: int = 0  # bit of a bzip2 file, else byte
    end: int | None = None  # None: the end of the file


def cut(paths: list[Path], is_lines: bool = False) -> list[Piece]:
    """The pieces of all files in order; is_lines: .jsonl files, not dumps."""
    total = sum(path.stat().st_size for path in paths)
    size = min(max(total >> 8, SMALLEST), LARGEST)
    return [piece for path in paths for piece in _cut(path, size, is_lines)]


def _cut(path: Path, size: int, is_lines: bool) -> Iterator[Piece]:
    total = path.stat().st_size
    near = range(size, total - size // 2, size)
    borders = list(near) if is_lines else _borders(path, near)
    unit = 8 if not is_lines and _is_bzip2(path) else 1
    for start, end in pairwise([0, *borders, None]):
        yield Piece(path, (total if end is None else end // unit) - start // unit, start, end)


def _borders(path: Path, near: range) -> list[int]:
    """Where pieces of a dump begin, at or behind these bytes; [] if it cannot be cut."""
    if not near or not dump_head(path):
        return []
    if not _is_bzip2(path):
        return list(near)
    with open(path, "rb") as file:
        found = (wiki_dump.block_after(file, byte) for byte in near)
        return sorted({bit for bit in found if bit is not None})


def _is_bzip2(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(3) == b"BZh"


def dump_head(path: Path) -> bytes:
    """The XML before the first page; b"" if it is too long, or the file is gzip or something else."""
    return _dump_head(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _dump_head(path: Path, _: int) -> bytes:
    head = b""
    with open(path, "rb") as file:
        if file.peek(2)[:2] != b"\x1f\x8b":
            for chunk in wiki_dump.decompressed(file, str(path)):
                head += chunk
                if (end := head.find(PAGE)) >= 0:
                    return head[:end]
                if len(head) > MAX_HEAD:
                    break
    return b""


def read_pages(piece: Piece) -> Iterator[Page]:
    """The pages of a piece of a dump. Errors as of `read_dump`."""
    if piece.start == 0 and piece.end is None:
        return wiki_dump.read_dump(piece.path)
    following = None if piece.end is None else _xml(piece.path, piece.end, None)
    pages = _whole_pages(_xml(piece.path, piece.start, piece.end), following)
    return wiki_dump.parse_xml(chain([dump_head(piece.path)], pages), str(piece.path))


def _xml(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    """The XML between two borders; lazily."""
    with open(path, "rb") as file:
        if _is_bzip2(path):
            yield from wiki_dump.decompressed(file, str(path), start or None, end)
        else:
            file.seek(start)
            while chunk := file.read(CHUNK if end is None else min(CHUNK, end - file.tell())):
                yield chunk


def _whole_pages(own: Iterator[bytes], following: Iterator[bytes] | None) -> Iterator[bytes]:
    """The pages that begin in `own`, and the end of the XML; of `following` only what the last page lacks."""
    rest, is_inside = b"", False
    for chunk in own:
        data = rest + chunk
        if not is_inside:
            first = data.find(PAGE)
            is_inside, data = first >= 0, data[max(first, 0) :]
        if is_inside:
            yield data[:-KEPT]
        rest = data[-KEPT:]
    if following is None:  # to the end of the file, whatever that is
        yield rest if is_inside else END
    elif is_inside and rest.rstrip().endswith(b"</page>"):
        yield rest + END
    else:
        yield from _last_page(rest, is_inside, following)


def _last_page(rest: bytes, is_inside: bool, following: Iterator[bytes]) -> Iterator[bytes]:
    """What the last page has in `following`; `rest`: the last bytes before that, in which its tag may begin."""
    own = len(rest)
    for chunk in following:
        data = rest + chunk
        if not is_inside:
            first = data.find(PAGE)
            if first < 0 and len(data) < own + len(PAGE):
                rest = data
                continue
            if not 0 <= first < own:
                break
            data, own, is_inside = data[first:], own - first, True
        if (next_page := data.find(PAGE, own)) >= 0:
            yield data[:next_page] + END
            return
        yield data[:-KEPT]
        own, rest = max(0, own - len(data[:-KEPT])), data[-KEPT:]
    yield rest if is_inside else END


def lines(piece: Piece) -> Iterator[tuple[int, bytes]]:
    """The byte at which each line begins, and the line."""
    with open(piece.path, "rb") as file:
        if piece.start:
            file.seek(piece.start - 1)
            file.readline()  # of the piece before
        position = file.tell()
        while (piece.end is None or position < piece.end) and (line := file.readline()):
            yield position, line
            position += len(line)


def line_number(path: Path, position: int) -> int:
    """Of the line that begins there; the first is 1."""
    with open(path, "rb") as file:
        return file.read(position).count(b"\n") + 1

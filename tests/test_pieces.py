"""Pieces of dumps and of JSON lines: together they have every page once, wherever they are cut; damage is seen.

    pytest tests/test_pieces.py
"""

import bz2
import gzip
import random
import re
from pathlib import Path

import pytest
from conftest import shared_data

from luke_mini import pieces
from luke_mini.pieces import cut, line_number, lines, read_pages
from luke_mini.wiki_dump import read_dump

HEAD = '<mediawiki xml:lang="de">\n<siteinfo><base>https://de.wikipedia.org/wiki/Haupt</base></siteinfo>\n'


def dump(pages: int = 50, seed: int = 0) -> bytes:
    """Text of chance, which bzip2 hardly packs; pages of 0 to 3,000 characters."""
    rng = random.Random(seed)
    texts = ("".join(rng.choices("abcdefghij \n", k=rng.randrange(3000))) for _ in range(pages))
    body = "".join(f"  <page>\n<title>T{k}</title><ns>{k % 3 and 0}</ns><revision><text>{text}</text></revision>"
                   f"</page>{' ' * (k % 20)}\n" for k, text in enumerate(texts))  # fmt: skip
    return f"{HEAD}{body}</mediawiki>{' ' * (seed % 9)}\n".encode()


def in_streams(data: bytes, borders: list[int]) -> bytes:
    return b"".join(bz2.compress(data[start:end]) for start, end in zip([0, *borders], [*borders, len(data)]))


def assert_same_pages(path: Path) -> int:
    """-> the number of pieces"""
    found = cut([path])
    assert [page for piece in found for page in read_pages(piece)] == list(read_dump(path))
    assert sum(piece.size for piece in found) == path.stat().st_size
    return len(found)


@pytest.mark.parametrize("seed", range(4))
def test_pieces_have_every_page_once(tmp_path, monkeypatch, seed):
    """Plain; one stream of several blocks; streams that begin anywhere, also inside of <page>, and at pages."""
    data, rng = dump(seed=seed), random.Random(seed)
    monkeypatch.setattr(pieces, "SMALLEST", rng.randrange(900, 4000))
    anywhere = sorted(rng.sample(range(1, len(data)), 25))
    near_tags = [tag.start() + rng.randrange(-3, 9) for tag in re.finditer(b"<page>", data)]
    at_pages = [tag.start() for tag in re.finditer(b"  <page>", data)]
    for name, packed in {
        "x.xml": data,
        "x1.xml.bz2": in_streams(data, anywhere),
        "x2.xml.bz2": in_streams(data, near_tags),
        "x3.xml.bz2": in_streams(data, at_pages[::4]),
        "x4.xml.bz2": in_streams(data, sorted({*near_tags, *at_pages})),
    }.items():
        (tmp_path / name).write_bytes(packed)
        assert assert_same_pages(tmp_path / name) > 5


def test_one_stream_is_cut_at_its_blocks(tmp_path, monkeypatch):
    """Blocks of 100,000 bytes, at any bit."""
    monkeypatch.setattr(pieces, "SMALLEST", 30_000)
    (tmp_path / "x.xml.bz2").write_bytes(bz2.compress(dump(400), compresslevel=1))
    assert assert_same_pages(tmp_path / "x.xml.bz2") > 4


def test_a_real_dump(monkeypatch):
    monkeypatch.setattr(pieces, "SMALLEST", 200_000)
    assert assert_same_pages(shared_data("wiki/enwiki-106-pages.xml.bz2")) > 5


def test_what_cannot_be_cut_is_one_piece(tmp_path, monkeypatch):
    """gzip; a dump whose elements have a prefix; a file of another kind, which reading it refuses."""
    monkeypatch.setattr(pieces, "SMALLEST", 500)
    (tmp_path / "x.xml.gz").write_bytes(gzip.compress(dump()))
    (tmp_path / "y.xml").write_bytes(re.sub(b"<(/?)(mediawiki|page|title|ns|text|revision)", rb"<\1mw:\2", dump()))
    for name in ("x.xml.gz", "y.xml"):
        assert assert_same_pages(tmp_path / name) == 1
    (tmp_path / "z.xml").write_text("<html>" + "x" * 5000)
    assert len(cut([tmp_path / "z.xml"])) == 1


def test_the_size_of_pieces_depends_on_all_files(tmp_path):
    for name, size in {"a.jsonl": 3 << 20, "b.jsonl": 600 << 20}.items():
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)  # takes no room on the disk
    assert [piece.size for piece in cut([tmp_path / "a.jsonl"], is_lines=True)] == [1 << 19] * 6
    found = cut([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], is_lines=True)
    assert 250 < len(found) < 258 and {piece.path.name for piece in found} == {"a.jsonl", "b.jsonl"}


@pytest.mark.parametrize("kind", ["one stream", "streams"])
def test_damage_is_seen_in_every_block(tmp_path, monkeypatch, kind):
    """A byte in the middle of each block, and the mark of each; and a file that ends early."""
    monkeypatch.setattr(pieces, "SMALLEST", 20_000)
    data = dump(250)
    packed = bz2.compress(data, 1) if kind == "one stream" else in_streams(data, [*range(50_000, len(data), 50_000)])
    path = tmp_path / "x.xml.bz2"
    path.write_bytes(packed)
    borders = [piece.start // 8 for piece in cut([path])]
    assert len(borders) > 3
    for place in [*(border + 1 for border in borders[1:]), *(border + 1000 for border in borders[:-1])]:
        path.write_bytes(packed[:place] + bytes([packed[place] ^ 16]) + packed[place + 1 :])
        with pytest.raises(ValueError, match="x.xml.bz2: the bzip2 data are damaged"):
            [page for piece in cut([path]) for page in read_pages(piece)]
    path.write_bytes(packed[:-3000])
    with pytest.raises(ValueError, match="truncated"):
        [page for piece in cut([path]) for page in read_pages(piece)]


def test_a_plain_file_that_ends_early(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "SMALLEST", 5000)
    (tmp_path / "x.xml").write_bytes(dump()[:-1000])
    with pytest.raises(ValueError, match="the XML ends early, the file is truncated"):
        [page for piece in cut([tmp_path / "x.xml"]) for page in read_pages(piece)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_lines_have_a_piece_each(tmp_path, monkeypatch, size):
    monkeypatch.setattr(pieces, "SMALLEST", size)
    text = b"".join(b"x" * (k * 7 % 11) + b"\n" for k in range(60)) + b"the last one"
    (tmp_path / "x.jsonl").write_bytes(text)
    found = [line for piece in cut([tmp_path / "x.jsonl"], is_lines=True) for line in lines(piece)]
    assert b"".join(line for _, line in found) == text and len(found) == 61
    for number, (position, line) in enumerate(found, start=1):
        assert text[position:].startswith(line) and line_number(tmp_path / "x.jsonl", position) == number

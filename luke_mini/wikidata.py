"""Wikidata: which titles of different languages are about the same thing.

In: a JSON dump (`latest-all.json.bz2`, `.gz` or unpacked, told apart by its first bytes), a list with one item a line:

    {"type":"item","id":"Q64","labels":{...},"claims":{...},"sitelinks":{"enwiki":{"title":"Berlin",...},...}},

Out: `Item`s that have a title in one of the languages wanted, in file order.

Of a line only its sitelinks are parsed, as nearly all of it is claims: the rest of the work is decompressing. Memory is
bounded by the longest line. Left out: labels, aliases and claims; sitelinks of other projects than Wikipedia; the
interlanguage links that pages had before Wikidata.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from luke_mini.wiki_dump import decompressed

# Inside a string a quote is \", so these match keys alone. The first "Q64" of a line is the item's own.
_SITELINKS = re.compile(rb'"sitelinks"\s*:\s*')
_ID = re.compile(rb'"id"\s*:\s*"(Q\d+)"')
OLDER_CODES = {  # language as a dump says it -> as its wiki is named
    "be-tarask": "be-x-old", "gsw": "als", "lzh": "zh-classical", "nan": "zh-min-nan", "nb": "no", "rup": "roa-rup",
    "sgs": "bat-smg", "vro": "fiu-vro", "yue": "zh-yue",
}  # fmt: skip


class Item(NamedTuple):
    id: str | None  # "Q64"; None in excerpts that have lost it
    titles: dict[str, str]  # language -> title, in the order of the languages wanted


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest


def wiki_of(language: str) -> str:
    """The name of a language's Wikipedia in sitelinks and dumps: "zh-yue", or "yue" as texts say -> "zh_yuewiki"."""
    return f"{OLDER_CODES.get(language, language).replace('-', '_')}wiki"


def read_items(
    path: str | os.PathLike, languages: Sequence[str], on_bytes: Callable[[int], object] | None = None
) -> Iterator[Item]:
    """Streams the items that have a title in one of the languages.

    on_bytes(n) is called for every n bytes read. ValueError with file and line if a line is damaged, and if there is
    no item with sitelinks at all.
    """
    path, found, reported = os.fspath(path), False, 0
    sites = {language: wiki_of(language) for language in languages}
    with open(path, "rb") as file:
        for number, line in enumerate(_lines(decompressed(file, path)), start=1):
            links = _sitelinks(line.strip().rstrip(b","), f"{path}, line {number}")
            found = found or bool(links)
            titles = {language: links[name]["title"] for language, name in sites.items() if name in links}
            if titles:
                named = _ID.search(line)
                yield Item(named and named[1].decode(), titles)
            if on_bytes:
                on_bytes(file.tell() - reported)
                reported = file.tell()
    if not found:
        raise ValueError(f"{path}: no item with sitelinks, expected a JSON dump of Wikidata, one item a line")


def _sitelinks(line: bytes, where: str) -> dict[str, dict]:
    """The sitelinks of a line; {} if it has none. ValueError if the line is cut or they are damaged."""
    key = _SITELINKS.search(line)
    try:
        if not key and (line in (b"", b"[", b"]") or line.endswith(b"}")):
            return {}
        links, _ = json.JSONDecoder().raw_decode(line[key.end() :].decode("utf-8"))
        if line.endswith(b"}") and all(isinstance(link["title"], str) for link in dict(links).values()):
            return dict(links)  # Wikidata writes [] for an empty object
    except (AttributeError, ValueError, TypeError, KeyError):
        pass
    raise ValueError(f'{where}: damaged, expected an item with "sitelinks": {{"enwiki": {{"title": "Berlin"}}}}')

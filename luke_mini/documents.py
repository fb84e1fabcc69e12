"""Documents: titled paragraphs with links, from a Wikipedia dump or from a file of one's own.

In: the files that prepare_wiki.py is given. Out: `Document`s, one after another; and a `TextSample` of them to train a
tokenizer on. A line of a .jsonl file is a document, `start` and `end` are half-open characters of the text:

    {"title": "Oslo", "paragraphs": [{"text": "In Norway.", "links": [{"title": "Norway", "start": 3, "end": 9}]}]}
"""

import hashlib
import json
import pickle
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from luke_mini import wikitext
from luke_mini.wiki_dump import Page, normalize_title
from luke_mini.wikitext import Link, Paragraph

NO_ARTICLE = ("Image:", "File:", "Category:")  # LUKE skips pages of these names
HASHES = 1 << 32


class Document(NamedTuple):
    title: str
    paragraphs: list[Paragraph]

    @classmethod
    def from_page(cls, page: Page, language: str | None = None) -> "Document":
        return cls(page.title, wikitext.parse(page.wikitext, language or page.language))


def pack(documents: list[Document]) -> bytes:
    return zlib.compress(pickle.dumps(documents, protocol=5), level=1)


def unpack(packed: bytes) -> list[Document]:
    return pickle.loads(zlib.decompress(packed))


def parse_pages(language: str | None, pages: list[Page | Document]) -> tuple[bytes, list[str], Counter[str], int]:
    """Documents, packed; their titles; how often each title is linked; characters of text.

    Pages are parsed, in their own language if none is given; documents (of a .jsonl file) are parsed already.
    """
    documents = [page if isinstance(page, Document) else Document.from_page(page, language) for page in pages]
    paragraphs = [paragraph for document in documents for paragraph in document.paragraphs]
    links = Counter(link.title for paragraph in paragraphs for link in paragraph.links)
    characters = sum(len(paragraph.text) for paragraph in paragraphs)
    return pack(documents), [document.title for document in documents], links, characters


def find_dump(language: str, folder: Path = Path()) -> list[Path]:
    """The files of the newest dump of a language in a folder: the whole one if it is there, else its parts in order."""
    pattern = re.compile(rf"{re.escape(language)}wiki-(\w+)-pages-articles(?:-multistream)?(\d*)\.xml.*\.bz2")
    dumps = {path: match for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
    if not dumps:
        name = f"{language}wiki-latest-pages-articles.xml.bz2"
        raise ValueError(f"no {language}wiki-*-pages-articles*.xml.bz2 in this folder: download "
                         f"https://dumps.wikimedia.org/{language}wiki/latest/{name}")  # fmt: skip
    newest = max(match[1] for match in dumps.values())  # a date; "latest" comes after any
    parts = sorted((int(match[2] or 0), path) for path, match in dumps.items() if match[1] == newest)
    return [path for _, path in parts] if parts[0][0] else [parts[0][1]]


def _read_title(entry: dict) -> str:
    if not isinstance(entry["title"], str) or not (title := normalize_title(entry["title"])):
        raise ValueError(f"title {entry['title']!r} names no page")
    return title


def _read_paragraph(entry: dict) -> Paragraph:
    text, position, links = entry["text"], 0, []
    if not isinstance(text, str):
        raise ValueError(f"text {text!r} is no string")
    for link in sorted(entry.get("links", []), key=lambda link: link["start"]):
        start, end = link["start"], link["end"]
        if not (isinstance(start, int) and isinstance(end, int) and position <= start < end <= len(text)):
            raise ValueError(f"link {link} is empty, overlaps another or leaves its text of {len(text)} characters")
        links.append(Link(_read_title(link), start, end))
        position = end
    return Paragraph(text, links, bool(entry.get("is_abstract")))


def read_jsonl(path: Path, on_bytes: Callable[[int], object] | None = None) -> Iterator[Document]:
    """Yields the documents of a .jsonl file; calls on_bytes(n) as bytes are read. ValueError naming file and line."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if on_bytes:
                on_bytes(len(line))
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                yield Document(_read_title(entry), [_read_paragraph(paragraph) for paragraph in entry["paragraphs"]])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                problem = f"no {error} in it" if isinstance(error, KeyError) else str(error)
                raise ValueError(f"{path}: line {number}: no document as --help describes it: {problem}") from None


class TextSample:
    """Whole documents of at most `limit` characters in all; which ones depends on their titles and the seed alone.

    Each title has a hash below 2^32; kept is what lies below a threshold, which is halved whenever the text grows too
    long. So memory is bounded, and neither the order of the documents nor the number of workers matters.
    """

    def __init__(self, limit: int, seed: int):
        self.limit, self.seed, self.threshold = limit, seed, HASHES
        self._kept: list[tuple[int, list[str]]] = []
        self._characters = 0

    def _key(self, title: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"{self.seed} {title}".encode(), digest_size=4).digest())

    def wants(self, title: str) -> bool:
        """Whether a document of this title would be taken, so that others need not be looked at."""
        return self._key(title) < self.threshold

    def offer(self, document: Document) -> None:
        if not self.wants(document.title):
            return
        texts = [paragraph.text for paragraph in document.paragraphs]
        self._kept.append((self._key(document.title), texts))
        self._characters += sum(map(len, texts))
        while self._characters > self.limit and len(self._kept) > 1:
            self.threshold //= 2
            self._kept = [(key, texts) for key, texts in self._kept if key < self.threshold]
            self._characters = sum(len(text) for _, texts in self._kept for text in texts)

    def texts(self) -> Iterator[str]:
        for _, texts in sorted(self._kept):
            yield from texts

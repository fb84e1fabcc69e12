"""A corpus in passes: dumps or your own documents -> parsed pages -> counts, mention statistics, shards of examples.

In:  MediaWiki dumps, or .jsonl files with one document per line, as `prepare_wiki.py --help` shows it.
Out: what `Corpus` counts while it parses (titles, redirects, links, a sample of the text), and what its further passes
     over the parsed pages make of them. The results are the same for any number of worker processes.

Parsed pages wait in a temporary file, because reading and parsing them again takes longer. Memory grows with the number
of titles and links, not with the text.
"""

import hashlib
import multiprocessing
import os
import pickle
import signal
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from luke_mini import files, mentions, wikitext
from luke_mini.entity_vocab import resolve_redirect
from luke_mini.examples import Examples, ShardWriter, build_examples, flatten
from luke_mini.wiki_dump import Page, read_dump
from luke_mini.wikitext import Link, Paragraph, Site

NO_ARTICLE = ("Image:", "File:", "Category:")  # LUKE skips pages with these prefixes
PAGES_PER_TASK = 16  # fixed, so that results do not depend on the number of workers
TASKS_IN_FLIGHT = 4  # per worker, so that no worker waits while the consumer is busy
HASHES = 1 << 32


class Document(NamedTuple):
    title: str
    paragraphs: list[Paragraph]


# --- Sources ----------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path, on_bytes: Callable[[int], object] | None = None) -> Iterator[Document]:
    """Yields the documents of a .jsonl file. `on_bytes(n)` is called for every n bytes read."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if on_bytes:
                on_bytes(len(line))
            if line := line.strip():
                record = files.parse_record(line, f"{path}, line {number}")
                yield Document(_read_title(record), list(map(_read_paragraph, record.list("paragraphs"))))


def _read_title(record: files.Record) -> str:
    """As it stands: own ids follow no rules of Wikipedia ("umls#C1" and "umls#C2" are two)."""
    title = record.get("title", str).strip()
    if not title:
        raise ValueError(f"{record.where}: field 'title' is empty, expected a page's title or an id of your own")
    return title


def _read_paragraph(record: files.Record) -> Paragraph:
    text = record.get("text", str)
    links = [Link(_read_title(link), *link.span(text)) for link in record.list("links", default=[])]
    links.sort(key=lambda link: link.start)
    for link, following in pairwise(links):
        if following.start < link.end:
            spans = f"{link.start} to {link.end} and {following.start} to {following.end}"
            raise ValueError(f"{record.where}: links {spans} overlap, expected disjoint spans")
    return Paragraph(text, links, record.get("is_abstract", bool, default=False))


def linked_texts(document: Document, redirects: Mapping[str, str]) -> Iterator[dict]:
    """The paragraphs with links of a document, as JSON lines of `disambiguation`, titles behind redirects."""
    for text, links, _ in document.paragraphs:
        spans = [
            {"start": start, "end": end, "title": resolve_redirect(title, redirects)}
            for title, start, end in links if not title.startswith(NO_ARTICLE)
        ]  # fmt: skip
        if spans:
            yield {"id": document.title, "text": text, "spans": spans}


# --- Work in processes ------------------------------------------------------------------------------------------------

_state = None  # of this worker process: set once, because it can be too large to send with every task


def _start(state) -> None:
    global _state
    _state = state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers; without this they would wait for tasks forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(function: Callable, task):
    return function(_state, task)


def in_order(function: Callable, state, tasks: Iterable, workers: int) -> Iterator:
    """Yields function(state, task) for every task, in order. function: of a module, not a closure.

    Unlike `multiprocessing.Pool.imap` it reads tasks only as far ahead as needed (a dump does not fit into memory) and
    raises ChildProcessError (an OSError) if a worker is killed. Worker exceptions propagate; pending tasks are
    cancelled.
    """
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(state,))
    waiting: deque = deque()
    try:
        pool.submit(int).result()  # start the processes before `tasks` can start threads: fork would copy their locks
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


def to_bytes(documents: list[Document]) -> bytes:
    return zlib.compress(pickle.dumps(documents, protocol=5), level=1)


def from_bytes(block: bytes) -> list[Document]:
    return pickle.loads(zlib.decompress(block))


# What the workers run; `block` is the bytes of some documents.


def parse_pages(language: str | None, pages: list[Page | Document]) -> tuple[bytes, list[str], Counter[str], int]:
    """Documents as bytes; their titles; how often each title is linked; characters of text.

    Pages are parsed in `language`, or their own if None.
    """
    documents = [
        page if isinstance(page, Document)
        else Document(page.title, wikitext.parse(page.wikitext, _rules(page, language)))
        for page in pages
    ]  # fmt: skip
    paragraphs = [paragraph for _, paragraphs in documents for paragraph in paragraphs]
    links = Counter(link.title for paragraph in paragraphs for link in paragraph.links)
    return to_bytes(documents), [title for title, _ in documents], links, sum(len(text) for text, _, _ in paragraphs)


def _rules(page: Page, language: str | None) -> Site:
    site = page.site or Site(page.language)
    return site._replace(language=language) if language else site


def _on_documents(state, block: bytes):
    """Runs a function on the documents of a block that are held out, or on the others."""
    function, own_state, held_out, wanted = state
    return function(own_state, [page for page in from_bytes(block) if (page.title in held_out) == wanted])


def _themselves(_, documents: list[Document]) -> list[Document]:
    return documents


def _linked_names(_, documents: list[Document]) -> Counter[tuple[str, str]]:
    return mentions.count_links(paragraph for _, paragraphs in documents for paragraph in paragraphs)


def _pages_with_names(trie: mentions.Trie, documents: list[Document]) -> tuple[np.ndarray, np.ndarray]:
    return mentions.count_pages(trie, [[text for text, _, _ in paragraphs] for _, paragraphs in documents])


def _make_examples(build: Callable, documents: list[Document]) -> tuple[Examples, Counter[str]]:
    """The examples, and how many links became no entity by reason."""
    lost: Counter[str] = Counter()
    made = [example for title, paragraphs in documents for example in build(paragraphs, title, lost=lost)]
    return flatten(made), lost


# --- Passes -----------------------------------------------------------------------------------------------------------


class TextSample:
    """Whole documents with at most `limit` characters in total, chosen by their titles and the seed alone.

    Documents whose title hashes below a threshold are kept; the threshold is halved when the text exceeds the limit. So
    memory is bounded, and the order of the documents and the number of workers do not matter.
    """

    def __init__(self, limit: int, seed: int):
        self.limit, self.seed, self.threshold = limit, seed, HASHES
        self._kept: list[tuple[int, list[str]]] = []
        self._characters = 0

    def _hash(self, title: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"{self.seed} {title}".encode(), digest_size=4).digest())

    def wants(self, title: str) -> bool:
        """Whether a document with this title would be kept."""
        return self._hash(title) < self.threshold

    def offer(self, document: Document) -> None:
        if not self.wants(document.title):
            return
        texts = [paragraph.text for paragraph in document.paragraphs]
        self._kept.append((self._hash(document.title), texts))
        self._characters += sum(map(len, texts))
        while self._characters > self.limit and len(self._kept) > 1:
            self.threshold //= 2
            self._kept = [(key, texts) for key, texts in self._kept if key < self.threshold]
            self._characters = sum(len(text) for _, texts in self._kept for text in texts)

    def texts(self) -> Iterator[str]:
        for _, texts in sorted(self._kept):
            yield from texts


class Corpus:
    """Parsed pages in a temporary file `store`, and what is counted while they are parsed.

    language: of the texts; None takes the language of the dumps, which must be the same in all of them.
    """

    def __init__(self, store: BinaryIO, workers: int, language: str | None = None, sample: TextSample | None = None):
        self.store, self.workers, self.language, self.sample = store, workers, language, sample
        self.titles: set[str] = set()
        self.redirects: dict[str, str] = {}  # title -> target, one step
        self.links: Counter[str] = Counter()  # title as linked -> links
        self.case_sensitive = False  # of the dumps: "gerku" and "Gerku" are two titles
        self.characters = 0  # of text, all paragraphs
        self.wiki = ""  # see `wiki_dump.Page`
        self.held_out: frozenset[str] = frozenset()  # titles of pages that statistics and examples do without
        self._start, self._lengths = 0, []  # of the blocks in the store, which several languages can share

    def parse(self, paths: Sequence[Path], reader: Callable = read_dump, max_pages: int | None = None) -> None:
        """The first pass. reader: `read_dump` or `read_jsonl`.

        differs from LUKE: pages stay in the order of the dump, where LUKE shuffles titles; `train.py` shuffles
        examples. max_pages takes the first pages, where LUKE draws them and counts the vocabulary over all.
        """
        given, self._start = self.language, self.store.seek(0, os.SEEK_END)
        pages = islice(self._read(paths, reader, given), max_pages)
        tasks = iter(lambda: list(islice(pages, PAGES_PER_TASK)), [])
        for block, titles, links, characters in in_order(parse_pages, given, tasks, self.workers):
            self._lengths.append(self.store.write(block))
            self.titles.update(titles)
            self.links.update(links)
            self.characters += characters
            if self.sample and any(map(self.sample.wants, titles)):
                for document in from_bytes(block):
                    self.sample.offer(document)

    def _read(self, paths: Sequence[Path], reader: Callable, given: str | None) -> Iterator[Page | Document]:
        """Yields articles and documents with a progress bar; keeps redirects."""
        size = sum(path.stat().st_size for path in paths)
        with tqdm(total=size, desc="1/2 pages", unit="B", unit_scale=True, disable=None) as progress:
            for path in paths:
                for page in reader(path, progress.update):
                    language = getattr(page, "language", self.language)
                    self.language, self.wiki = self.language or language, self.wiki or getattr(page, "wiki", "")
                    if language != self.language and not given:
                        raise ValueError(f"{path}: language {language}, but {self.language} in the files before")
                    site = getattr(page, "site", None)
                    self.case_sensitive = site.case_sensitive if site else False
                    if getattr(page, "redirect", None):
                        self.redirects[page.title] = page.redirect
                    elif not page.title.startswith(NO_ARTICLE):
                        yield page

    def hold_out(self, n: int | None) -> None:
        """Keeps n pages for `held_out_documents` alone, chosen by their titles; None: 1 in 50, at most 500."""
        n = min(len(self.titles) // 50, 500) if n is None else n
        by_hash = sorted(self.titles, key=lambda title: hashlib.blake2b(title.encode(), digest_size=8).digest())
        self.held_out = frozenset(by_hash[:n])

    def held_out_documents(self) -> Iterator[Document]:
        for documents in self._map(_themselves, None, "held-out pages", held_out=True) if self.held_out else ():
            yield from documents

    def _map(self, function: Callable, state, title: str, held_out: bool = False) -> Iterator:
        """function(state, documents) for every block in the store, in order; of the pages held out, or all others."""
        self.store.seek(self._start)
        lengths = tqdm(self._lengths, desc=title, unit=" blocks", disable=None)
        state = function, state, self.held_out, held_out
        return in_order(_on_documents, state, map(self.store.read, lengths), self.workers)

    def count_mentions(self, any_title: bool) -> mentions.Mentions:
        """Two passes: all names, then the pages that contain them. any_title: entities need no page of their own."""

        def entity(title: str) -> str | None:
            target = resolve_redirect(title, self.redirects)
            return target if (any_title or target in self.titles) and not target.startswith(NO_ARTICLE) else None

        links: Counter[tuple[str, str]] = Counter()
        for title in chain(self.titles, self.redirects):
            if entity(title) in self.titles:
                links.update(dict.fromkeys(mentions.title_names(title), 0))
        for names in self._map(_linked_names, None, "mentions: names"):
            links.update(names)
        table = mentions.from_links(links, entity)
        pages = np.zeros(len(table), np.int64)
        for names, counts in self._map(_pages_with_names, table.trie, "mentions: pages"):
            pages[names] += counts
        return replace(mentions.with_pages(table, pages), wiki=np.frombuffer(self.wiki.encode(), np.uint8))

    def write_examples(self, folder: Path, tokenizer, **rules) -> tuple[dict[str, int], dict[str, int]]:
        """The last pass: the numbers of shards, examples, words, entities; of links that became no entity, by reason.

        rules: arguments of `build_examples`.
        """
        build = partial(build_examples, tokenizer=tokenizer, language=self.language, **rules)
        writer = ShardWriter(folder, len(tokenizer))
        lost: Counter[str] = Counter()
        for block, lost_here in self._map(_make_examples, build, "2/2 examples"):
            writer.write(block)
            lost += lost_here
        writer.close()
        return writer.counts, dict(sorted(lost.items()))

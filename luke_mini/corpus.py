"""A corpus in stages: dumps or your own documents -> paragraphs with links and counts -> statistics and examples.

In:  MediaWiki dumps, or .jsonl files with one document per line, as `prepare_wiki.py --help` shows it.
Out: `parse` writes a part for each piece of the sources: documents, and what is counted in them (titles, redirects,
     links, names). `Corpus` adds the counts up and reads documents again; `make_examples` makes of each part examples
     and how many pages contain each name, which `Corpus` joins. Nothing depends on the number of worker processes.

A dump is parsed once. Memory grows with the number of titles and links, not with the text: a worker holds the counts of
one piece, or its texts and examples.
"""

import hashlib
import heapq
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain, islice, pairwise, starmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from luke_mini import files, mentions, wikitext
from luke_mini.entity_vocab import resolve_redirect
from luke_mini.examples import Examples, ShardWriter, open_shard, write_shard
from luke_mini.pieces import Piece, cut, line_number, lines, read_pages
from luke_mini.stages import Share, Stage, read_block, skip_block, write_block
from luke_mini.wiki_dump import Page
from luke_mini.wikitext import Link, Paragraph, Site

NO_ARTICLE = ("Image:", "File:", "Category:")  # LUKE skips pages with these prefixes
PAGES_PER_BLOCK = 16  # of documents; shards end after such a number of pages, too
RUNS = 64  # sorted rows of so many parts are merged at a time
ROWS_PER_BLOCK = 4096
BYTES = {"unit": "B", "unit_scale": True, "disable": None}  # of a bar


class Document(NamedTuple):
    title: str
    paragraphs: list[Paragraph]


# --- Sources ----------------------------------------------------------------------------------------------------------


def read_jsonl(piece: Piece) -> Iterator[Document]:
    """The documents of a piece of a .jsonl file."""
    for position, line in lines(piece):
        if line := line.strip():
            try:
                yield _read_document(files.parse_record(line, str(piece.path)))
            except ValueError:  # once more, with the number of the line
                where = f"{piece.path}, line {line_number(piece.path, position)}"
                yield _read_document(files.parse_record(line, where))


def _read_document(record: files.Record) -> Document:
    return Document(_read_title(record), list(map(_read_paragraph, record.list("paragraphs"))))


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


# --- Pages -> paragraphs with links and counts ------------------------------------------------------------------------


class Counts(NamedTuple):
    """Of the documents of a part."""

    titles: list[str]  # in order
    characters: list[int]  # of text, of each
    redirects: dict[str, str]  # title -> target, one step
    links: Counter[str]  # title as linked -> links


class Rules(NamedTuple):
    """How pages are parsed."""

    is_jsonl: bool
    language: str | None  # None: that of the dump
    max_pages: int | None
    with_names: bool  # rows for the mention statistics


def parse(rules: Rules, piece: Piece, path: Path) -> dict:
    """Writes a part: blocks of documents, their `Counts`, blocks of rows; for `Stage.run`.

    Redirects behind the last of max_pages articles do not count.
    """
    counts, blocks, rows, site = Counts([], [], {}, Counter()), 0, [], {}
    pages = islice(_articles(piece, rules, counts.redirects, site), rules.max_pages)
    with files.write_file(path, "wb") as file:
        while documents := [_parsed(page, rules.language) for page in islice(pages, PAGES_PER_BLOCK)]:
            write_block(file, documents)
            blocks += 1
            _count(documents, counts)
            if rules.with_names:
                rows.append(mentions.name_rows((part for page in documents for part in page.paragraphs), ()))
        counts_at = file.tell()
        write_block(file, counts)
        rows_at = file.tell()
        if rules.with_names:
            rows.append(mentions.name_rows((), chain(counts.titles, counts.redirects)))
            _write_rows(file, mentions.merge_rows(rows))
    return {"pages": len(counts.titles), "redirects": len(counts.redirects), "characters": sum(counts.characters),
            "links": counts.links.total(), "blocks": blocks, "counts_at": counts_at, "max_pages": rules.max_pages,
            "rows_at": rows_at, **site}  # fmt: skip


def _articles(piece: Piece, rules: Rules, redirects: dict[str, str], site: dict) -> Iterator[Page | Document]:
    """Articles and documents; keeps redirects, and what the dump says of its wiki."""
    for page in read_jsonl(piece) if rules.is_jsonl else read_pages(piece):
        if not rules.is_jsonl:
            site |= {"language": page.language, "wiki": page.wiki,
                     "case_sensitive": bool(page.site and page.site.case_sensitive)}  # fmt: skip
        if getattr(page, "redirect", None):
            redirects[page.title] = page.redirect
        elif not page.title.startswith(NO_ARTICLE):
            yield page


def _parsed(page: Page | Document, language: str | None) -> Document:
    """language: None for the page's own."""
    if isinstance(page, Document):
        return page
    site = page.site or Site(page.language)
    return Document(page.title, wikitext.parse(page.wikitext, site._replace(language=language) if language else site))


def _count(documents: list[Document], counts: Counts) -> None:
    for title, paragraphs in documents:
        counts.titles.append(title)
        counts.characters.append(sum(len(text) for text, _, _ in paragraphs))
        counts.links.update(link.title for paragraph in paragraphs for link in paragraph.links)


def _write_rows(file, rows: Iterator[mentions.Row]) -> None:
    while block := list(islice(rows, ROWS_PER_BLOCK)):
        write_block(file, block)


def _read_rows(path: Path, start: int) -> Iterator[mentions.Row]:
    with open(path, "rb") as file:
        file.seek(start)
        try:
            while True:
                yield from read_block(file)
        except EOFError:
            return


def _merge(_, runs: list[tuple[Path, int]], path: Path) -> dict:
    """Writes the rows of several parts as one run; for `Stage.run`."""
    with files.write_file(path, "wb") as file:
        _write_rows(file, mentions.merge_rows(_read_rows(*run) for run in runs))
    return {}


class Part(NamedTuple):
    """What `parse` has written."""

    path: Path
    made: dict

    def counts(self) -> Counts:
        with open(self.path, "rb") as file:
            file.seek(self.made["counts_at"])
            return read_block(file)

    def documents(self, wanted: set[int] | None = None) -> Iterator[Document]:
        """Of all blocks, or of those wanted."""
        with open(self.path, "rb") as file:
            for number in range(self.made["blocks"]):
                if wanted is None or number in wanted:
                    yield from read_block(file)
                else:
                    skip_block(file)


# --- Paragraphs -> examples and mention statistics --------------------------------------------------------------------


class Making(NamedTuple):
    """What examples are made with."""

    build: Callable  # `build_examples` with all but pages and lost
    words: int  # in the vocabulary
    held_out: frozenset[str]  # titles of pages that are not in examples and statistics
    trie: mentions.Trie | None


def make_examples(making: Making, part: Part, path: Path) -> dict:
    """Writes the examples of a part as a shard, and the number of its pages that contain each name; for `Stage.run`."""
    made, numbers, texts, lost = [], [], [], Counter()
    for block in _blocks(part):
        examples, counts = making.build(
            [(title, () if title in making.held_out else paragraphs) for title, paragraphs in block], lost=lost)
        made.append(examples)
        numbers += counts.tolist()
        texts += ([text for text, _, _ in paragraphs] for title, paragraphs in block if title not in making.held_out)
    if making.trie:
        with files.write_file(f"{path}.pages", "wb") as file:
            np.save(file, np.stack(mentions.count_pages(making.trie, texts)).astype(np.int32))
    write_shard(path, made or [making.build(())[0]], making.words)
    return {"examples": numbers, "lost": lost}


def _blocks(part: Part) -> Iterator[list[Document]]:
    documents = part.documents()
    return iter(lambda: list(islice(documents, PAGES_PER_BLOCK)), [])


def _joined(stage: Stage, parts: int) -> Iterator[Examples]:
    """The examples of 16 pages at a time, counted through all parts: shards do not depend on where parts end."""
    waiting, pages = [], 0
    for number in range(parts):
        arrays, made = open_shard(stage.path(number)), stage.record(number)["examples"]
        ends, page = [0, *accumulate(made)], 0
        while page < len(made):
            stop = min(len(made), page + PAGES_PER_BLOCK - pages)
            waiting.append(_between(arrays, ends[page], ends[stop]))
            page, pages = stop, (pages + stop - page) % PAGES_PER_BLOCK
            if pages == 0:
                yield Examples(*map(np.concatenate, zip(*waiting)))
                waiting = []
    if waiting:
        yield Examples(*map(np.concatenate, zip(*waiting)))


def _between(arrays: dict[str, np.ndarray], first: int, end: int) -> Examples:
    """Some examples of a shard."""
    word_starts, entity_starts = (arrays[name][first : end + 1] for name in ("word_starts", "entity_starts"))
    words, entities = slice(word_starts[0], word_starts[-1]), slice(entity_starts[0], entity_starts[-1])
    return Examples(
        arrays["word_ids"][words], np.diff(word_starts), arrays["entity_ids"][entities], np.diff(entity_starts),
        arrays["mention_spans"][entities], arrays["page_ids"][first:end],
    )  # fmt: skip


# --- A language -------------------------------------------------------------------------------------------------------


class Corpus:
    """The parsed pages of a language, in the parts of a stage, and what is counted in all of them."""

    def __init__(self, work: Path, workers: int, rules: Rules, share: Share = Share()):
        """work: the folder of the stages."""
        self.work, self.workers, self.rules, self.share, self.language = work, workers, rules, share, rules.language
        self.parts: list[Part] = []
        self.titles: set[str] = set()
        self.redirects: dict[str, str] = {}  # title -> target, one step
        self.links: Counter[str] = Counter()  # title as linked -> links
        self.case_sensitive = False  # of the dumps: "gerku" and "Gerku" are two titles
        self.characters = 0  # of text, all paragraphs
        self.wiki = ""  # see `wiki_dump.Page`
        self.held_out: frozenset[str] = frozenset()  # titles of pages that statistics and examples do without

    def cut(self, paths: Sequence[Path], made_of: dict) -> None:
        """The pieces to parse, and their stage. made_of: what makes the paths these and no others."""
        self.pieces = cut(paths, self.rules.is_jsonl)
        borders = [[piece.start, piece.end] for piece in self.pieces]
        self.stage = Stage(self.work, "pages", made_of | self.rules._asdict() | {"pieces": borders}, self.share)

    def parse(self) -> None:
        """Makes the parts that are missing.

        differs from LUKE: pages stay in the order of the dump, where LUKE shuffles titles; `train.py` shuffles
        examples. max_pages takes the first pages, where LUKE draws them and counts the vocabulary over all.
        """
        pages, start = 0, time.monotonic()
        with tqdm(total=sum(piece.size for piece in self.pieces), desc="pages", **BYTES) as progress:
            for number in self.stage.run(parse, self.rules, self.pieces, self.workers):
                pages += self.stage.record(number)["pages"]
                progress.update(self.pieces[number].size)
                progress.set_postfix_str(f"{pages:,} pages, {pages / (time.monotonic() - start):,.0f}/s")
                if pages >= (self.rules.max_pages or sys.maxsize):
                    break

    def count(self) -> None:
        """Adds up the counts of all parts, with one string for each title: a worker's are all its own."""
        for number, piece in enumerate(self.pieces):
            if self.stage.record(number) is None:
                self.stage.require(len(self.pieces))
            self._add(number, piece)
            if self._is_enough(number, piece):
                break
        known: dict[str, str] = {}

        def one(title: str) -> str:
            return known.setdefault(title, title)

        for part in self.parts:
            titles, _, redirects, links = part.counts()
            self.titles.update(map(one, titles))
            self.redirects.update((one(title), one(target)) for title, target in redirects.items())
            self.links.update({one(title): count for title, count in links.items()})

    def _add(self, number: int, piece: Piece) -> None:
        part = Part(self.stage.path(number), self.stage.record(number))
        language = part.made.get("language", self.language)
        self.language, self.wiki = self.language or language, self.wiki or part.made.get("wiki", "")
        if language != self.language and not self.rules.language:
            raise ValueError(f"{piece.path}: language {language}, but {self.language} in the files before")
        self.case_sensitive |= part.made.get("case_sensitive", False)
        self.parts.append(part)

    def _is_enough(self, number: int, piece: Piece) -> bool:
        """Whether there are max_pages; the last part is made anew, if it has more."""
        *before, last = self.parts
        left = (self.rules.max_pages or sys.maxsize) - sum(part.made["pages"] for part in before)
        if last.made["pages"] < left:
            return False
        if last.made["max_pages"] != left:
            self.stage.make(number, parse, self.rules._replace(max_pages=left), piece)
            self.parts[-1] = Part(last.path, self.stage.record(number))
        return True

    def documents(self, wanted: Callable[[str], bool]) -> Iterator[Document]:
        """Those whose titles are wanted; blocks without any are not read."""
        for part in self.parts:
            blocks = {k // PAGES_PER_BLOCK for k, title in enumerate(part.counts().titles) if wanted(title)}
            yield from (page for page in part.documents(blocks) if wanted(page.title))

    def sample(self, limit: int, seed: int) -> list[str]:
        """The texts of whole documents with at most `limit` characters in total (or of a single one), chosen by title
        and seed alone: those whose hash is below a power of two."""
        characters, documents = [0] * 33, [0] * 33  # by the bits that their hash needs
        for part in self.parts:
            counts = part.counts()
            for title, length in zip(counts.titles, counts.characters):
                bits = _hash(title, seed).bit_length()
                characters[bits] += length
                documents[bits] += 1
        while sum(characters) > limit and sum(documents) > 1:
            characters.pop()
            documents.pop()
        bound = 1 << len(characters) - 1
        kept = self.documents(lambda title: _hash(title, seed) < bound)
        texts = sorted((_hash(title, seed), [part.text for part in paragraphs]) for title, paragraphs in kept)
        return [text for _, parts in texts for text in parts]

    def hold_out(self, n: int | None) -> None:
        """Keeps n pages for `held_out_documents` alone, chosen by their titles; None: 1 in 50, at most 500."""
        n = min(len(self.titles) // 50, 500) if n is None else n
        key = partial(heapq.nsmallest, n, key=lambda title: hashlib.blake2b(title.encode(), digest_size=8).digest())
        self.held_out = frozenset(key(self.titles))

    def held_out_documents(self) -> Iterator[Document]:
        return self.documents(self.held_out.__contains__) if self.held_out else iter(())

    def names(self, any_title: bool) -> mentions.Mentions:
        """The names of all titles, still without the pages that contain them. any_title: entities need no page."""
        runs = [(part.path, part.made["rows_at"]) for part in self.parts]
        if len(runs) > RUNS:
            tasks = [runs[k : k + RUNS] for k in range(0, len(runs), RUNS)]
            stage = Stage(self.work, "names", {"pages": self.stage.key})  # by one machine
            runs = [(stage.path(number), 0) for number in stage.run(_merge, None, tasks, self.workers)]
        held_out = chain.from_iterable(paragraphs for _, paragraphs in self.held_out_documents())
        without = sorted((*pair, -count) for pair, count in mentions.count_links(held_out).items())
        return mentions.from_rows(self._resolved(mentions.merge_rows([*starmap(_read_rows, runs), without]), any_title))

    def _resolved(self, rows: Iterator[mentions.Row], any_title: bool) -> Iterator[mentions.Row]:
        for name, title, links in rows:
            target = resolve_redirect(title, self.redirects)
            has_page = target in self.titles
            if has_page or links and any_title and not target.startswith(NO_ARTICLE):
                yield name, target, links

    def make_examples(self, stage: Stage, making: Making) -> None:
        total = sum(part.made["pages"] for part in self.parts)
        with tqdm(total=total, desc="examples", unit=" pages", disable=None) as progress:
            for number in stage.run(make_examples, making, self.parts, self.workers):
                progress.update(self.parts[number].made["pages"])

    def join_examples(self, stage: Stage, folder: Path, words: int) -> tuple[dict[str, int], dict[str, int]]:
        """Writes the shards. -> the numbers of shards, examples, words, entities; of links lost, by reason.

        words: in the vocabulary.
        """
        writer, lost = ShardWriter(folder, words), Counter()
        for block in _joined(stage, len(self.parts)):
            writer.write(block)
        writer.close()
        for number in range(len(self.parts)):
            lost += stage.record(number)["lost"]
        return writer.counts, dict(sorted(lost.items()))

    def join_mentions(self, stage: Stage, names: mentions.Mentions) -> mentions.Mentions:
        pages = np.zeros(len(names), np.int64)
        for number in range(len(self.parts)):
            found, counts = np.load(f"{stage.path(number)}.pages")
            pages[found] += counts
        return replace(mentions.with_pages(names, pages), wiki=np.frombuffer(self.wiki.encode(), np.uint8))


def _hash(title: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {title}".encode(), digest_size=4).digest())

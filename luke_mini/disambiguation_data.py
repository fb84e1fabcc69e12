"""Entity disambiguation's data: documents whose mentions have titles and candidates, from files to model inputs.

    read(path, ...)      -> documents, by the look of the file:
        .xml             WNED (Guo & Barbosa 2018): MSNBC, AQUAINT, ACE2004, CWEB, WIKI; texts in RawText/ beside it
        .csv             AIDA-CoNLL and WNED as Le & Titov (2018) laid them out, with candidates; the words are in a
                         second file beside it
        else             your own JSON lines
    with_candidates      candidates from mention statistics (`mentions.py`) where the file has none
    with_persons         a surname has the candidates of the full names in its document
    with_titles          redirects of titles, and which titles are valid
    make_features        a `Feature` for each document, or several for a long one: in equal parts that cut no mention
                         ("simple"), or in a window per mention, which alone is decided there ("per_mention")

A title that stands for no article (NIL) makes no mention, as in Le & Titov's files. A candidate of a feature is an
entity id; those that the vocabulary lacks share [UNK] and count as one. The text is tokenized in segments, mentions and
what is between them, as the released tokenizers do it (`inputs.token_spans`). Left out: PPRforNED's candidates.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from luke_mini import files, inputs, packing
from luke_mini.config import option
from luke_mini.files import Record
from luke_mini.mentions import Mentions
from luke_mini.packing import PackedBatch
from luke_mini.spans import context_window, equal_parts

SPECIAL = 2  # <s> and </s>
SPLITS = ("simple", "per_mention")


class Candidate(NamedTuple):
    title: str
    prior: float


class Mention(NamedTuple):
    start: int  # half-open characters of the document's text
    end: int
    title: str | None  # what it means; None: nobody says
    candidates: tuple[Candidate, ...] | None  # None: the file has none


class Document(NamedTuple):
    id: str
    text: str
    mentions: tuple[Mention, ...]  # in the order of the file
    skipped: int = 0  # mentions that were left out: their title is no article


def read(path: str | Path, mentions_alone: bool = False) -> list[Document]:
    """Documents of a file. mentions_alone: where a WNED text is missing, the mentions are the text."""
    path = Path(path)
    if path.suffix == ".xml":
        return list(_read_wned(path, mentions_alone))
    if path.suffix == ".csv":
        return list(_read_le_titov(path))
    return [own_document(record) for record in files.read_json_lines(path)]


# --- WNED: XML and raw texts ------------------------------------------------------------------------------------------


def _read_wned(path: Path, mentions_alone: bool) -> Iterator[Document]:
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}, line {error.position[0]}, column {error.position[1] + 1}: {error}") from None
    for document in root.iter("document"):
        name = document.get("docName")
        where = f"{path}, document {name}"
        if name is None:
            raise ValueError(f"{path}: expected an attribute docName in each <document>")
        found = [
            _wned_mention(item, f"{where}, annotation {number}") for number, item in enumerate(document, start=1)
        ]
        kept = [mention for mention in found if mention[2]]
        if mentions_alone and not (path.parent / "RawText" / name).is_file():
            text, spans = _joined(surface for surface, _, _ in kept)
        else:
            text = _raw_text(path.parent / "RawText" / name)
            spans = [_place(text, surface, offset, where) for surface, offset, _ in kept]
        mentions = (Mention(start, end, title, None) for (start, end), (_, _, title) in zip(spans, kept))
        yield Document(name, text, tuple(mentions), len(found) - len(kept))


def _wned_mention(item: ElementTree.Element, where: str) -> tuple[str, int, str]:
    """(surface, offset, title or "")"""
    surface, offset = (item.findtext(name) for name in ("mention", "offset"))
    if not surface or item.find("wikiName") is None:
        raise ValueError(f"{where}: expected <mention>, <wikiName> and <offset>")
    if not (offset or "").strip().isdecimal():
        raise ValueError(f"{where}: <offset> is {offset!r}, expected an integer")
    title = (item.findtext("wikiName") or "").strip().replace("_", " ")
    return surface, int(offset), "" if title == "NIL" else title


def _raw_text(path: Path) -> str:
    if not path.is_file():
        text = "expected the document's text; --mentions-alone does without"
        raise ValueError(f"{path}: missing, {text}")
    # newline="": an offset counts "\r\n" as two characters
    with open(path, encoding="utf-8", newline="") as file:
        try:
            return file.read()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def _place(text: str, surface: str, offset: int, where: str) -> tuple[int, int]:
    """Where a surface is: at its offset, or at the nearest place: copies of the texts differ in white space."""
    length = len(surface)
    if text[offset : offset + length] == surface:
        return offset, offset + length
    found = [match.start() for match in re.finditer(re.escape(surface), text)]
    if not found:
        held = " ".join(text[offset : offset + length].split())
        raise ValueError(f"{where}: the mention {surface!r} is not in the text, which has {held!r} at {offset}")
    start = min(found, key=lambda start: abs(start - offset))
    return start, start + length


def _joined(parts: Iterable[str], between: str = " ") -> tuple[str, list[tuple[int, int]]]:
    """Parts in a row, and the characters of each."""
    text, spans = "", []
    for part in parts:
        start = len(text) + (len(between) if text else 0)
        text += (between if text else "") + part
        spans.append((start, len(text)))
    return text, spans


# --- Le & Titov: a table of mentions, and the words in a file of columns ----------------------------------------------

WORDS_FILE = {"aida_train.csv": "aida_train.txt"}
WORDS_FILE |= dict.fromkeys(("aida_testA.csv", "aida_testB.csv"), "testa_testb_aggregate_original")
WITHOUT_WORDS = "Jiří_Třanovský"  # of the WIKI set: its mentions are not those of its text


def _read_le_titov(path: Path) -> Iterator[Document]:
    name = WORDS_FILE.get(path.name, path.name.removeprefix("wned-").removesuffix(".csv") + ".conll")
    if not (path.parent / name).is_file():
        raise ValueError(f"{path.parent / name}: missing, expected the words of the documents in {path.name}")
    texts = _read_words(path.parent / name)
    rows: dict[str, list[tuple[str, Mention, str]]] = {}
    for number, line in enumerate(files.read_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            document, surface, mention = _table_row(line, where)
            rows.setdefault(document, []).append((surface, mention, where))
    for document, mentions in rows.items():
        if document == WITHOUT_WORDS:
            continue
        if document not in texts:
            raise ValueError(f"{mentions[0][2]}: the document {document!r} is not in {path.parent / name}")
        text, spans = texts[document]
        placed = _align(text, spans, mentions)
        kept = tuple(mention for mention in placed if mention.title)
        yield Document(document, text, kept, len(placed) - len(kept))


def _table_row(line: str, where: str) -> tuple[str, str, Mention]:
    """Of one line: the document, the surface, and the mention without its place."""
    cells = line.rstrip("\r").split("\t")
    if len(cells) < 9 or cells[5] != "CANDIDATES" or cells[-2] != "GT:":
        raise ValueError(f"{where}: expected 5 columns, CANDIDATES, candidates, GT: and the title, between tabs")
    candidates = []
    for cell in cells[6:-2]:
        parts = cell.split(",", 2)  # id, prior, title; a title may have commas
        if len(parts) == 3 and parts[2]:
            try:
                # differs from LUKE: there, &amp; is decoded in the right title alone, which then is no candidate
                candidates.append(Candidate(parts[2].replace("&amp;", "&"), float(parts[1])))
            except ValueError:
                raise ValueError(f"{where}: candidate {cell!r}, expected id,prior,title") from None
        elif cell != "EMPTYCAND" and len(parts) < 3:
            raise ValueError(f"{where}: candidate {cell!r}, expected id,prior,title or EMPTYCAND")
    candidates.sort(key=lambda candidate: -candidate.prior)
    # The title is behind -1 and an id, or behind its number among the candidates, an id and a prior.
    parts = cells[-1].split(",", 2 if cells[-1].startswith("-1,") else 3)
    title = parts[-1].replace("&amp;", "&") if len(parts) == (3 if parts[0] == "-1" else 4) else ""
    if not cells[0].strip():
        raise ValueError(f"{where}: column 1 is empty, expected the name of the document")
    return cells[0].split()[0], cells[2], Mention(0, 0, title, tuple(candidates))


def _read_words(path: Path) -> dict[str, tuple[str, list[tuple[int, int]]]]:
    """Name of a document -> its text, words joined by spaces, and the spans of its mentions."""
    documents: dict[str, tuple[list[str], list[tuple[int, int]]]] = {}
    for number, line in enumerate(files.read_text(path).split("\n"), start=1):
        if line.startswith("-DOCSTART-"):
            parts = line.split()  # -DOCSTART- (12testb OSLO)
            if len(parts) < 2 or not parts[1].startswith("("):
                raise ValueError(f"{path}, line {number}: expected -DOCSTART- (the document's name, found {line!r}")
            words, bounds = documents.setdefault(parts[1][1:], ([], []))
            continue
        if not documents:
            raise ValueError(f"{path}, line {number}: expected a -DOCSTART- line before the first word")
        cells = line.rstrip("\r").split("\t")
        if not cells[0]:
            continue
        words.append(cells[0])
        if len(cells) >= 6:
            if cells[1] not in ("B", "I"):
                raise ValueError(f"{path}, line {number}: column 2 is {cells[1]!r}, expected B or I in a mention")
            if cells[1] == "I" and bounds:
                bounds[-1] = (bounds[-1][0], len(words))
            else:
                bounds.append((len(words) - 1, len(words)))
    texts = {}
    for name, (words, bounds) in documents.items():
        text, places = _joined(words)
        texts[name] = text, [(places[first][0], places[last - 1][1]) for first, last in bounds]
    return texts


def _align(
    text: str, spans: Sequence[tuple[int, int]], mentions: Sequence[tuple[str, Mention, str]]
) -> list[Mention]:
    """Each mention at the next span of the text that has its letters."""
    def letters(part: str) -> str:
        return re.sub(r"\W", "", part).lower()

    placed, remaining = [], iter(spans)
    for surface, mention, where in mentions:
        for start, end in remaining:
            if letters(text[start:end]) == letters(surface):
                placed.append(mention._replace(start=start, end=end))
                break
        else:
            raise ValueError(f"{where}: the mention {surface!r} is not among those that remain in the document's words")
    return placed


# --- Own JSON lines ---------------------------------------------------------------------------------------------------


def own_document(record: Record) -> Document:
    """{"text": ..., "spans": [{"start", "end", "title", "candidates": {title: prior}}]}; the last two may be absent."""
    text = record.get("text", str)
    mentions = []
    for item in record.list("spans"):
        candidates = item.get("candidates", dict, default=None)
        if candidates is not None:
            candidates = [
                Candidate(title, files.check(f"{item.where}: prior of {title!r}", prior, float))
                for title, prior in candidates.items()
            ]
            candidates = tuple(sorted(candidates, key=lambda candidate: -candidate.prior))
        mentions.append(Mention(*item.span(text), item.get("title", str, default=None), candidates))
    return Document(str(record.values.get("id", record.where)), text, tuple(mentions))


# --- Candidates and titles --------------------------------------------------------------------------------------------


def with_candidates(documents: Iterable[Document], statistics: Mentions) -> Iterator[Document]:
    """Documents whose mentions have candidates: those of the file, else the titles that their surface links to."""
    for document in documents:
        mentions = []
        for mention in document.mentions:
            if mention.candidates is None:
                found = statistics.candidates(document.text[mention.start : mention.end])
                mention = mention._replace(candidates=tuple(Candidate(c.title, c.prior) for c in found))
            mentions.append(mention)
        yield document._replace(mentions=tuple(mentions))


def with_persons(document: Document, persons: Collection[str]) -> Document:
    """Mentions that are part of a person's longer name take that name's candidates (Le & Titov 2018).

    The longer name's best candidate is a person, and the mention is in it at the borders of words: "Lovelace" in "Ada
    Lovelace". With several such names, their candidates are joined, each with its mean prior over the names.
    """
    surfaces = [document.text[mention.start : mention.end].lower() for mention in document.mentions]
    names = [
        (surface, mention.candidates)
        for surface, mention in zip(surfaces, document.mentions)
        if mention.candidates and mention.candidates[0].title in persons
    ]
    mentions = []
    for surface, mention in zip(surfaces, document.mentions):
        sums: dict[str, float] = {}
        longer = [candidates for name, candidates in names if name != surface and _is_part(surface, name)]
        for title, prior in (candidate for candidates in longer for candidate in candidates):
            sums[title] = sums.get(title, 0.0) + prior
        if longer:
            joined = sorted(sums.items(), key=lambda item: -item[1])
            mention = mention._replace(candidates=tuple(Candidate(t, prior / len(longer)) for t, prior in joined))
        mentions.append(mention)
    return document._replace(mentions=tuple(mentions))


def _is_part(surface: str, name: str) -> bool:
    """Whether the first occurrence of a surface in a name begins and ends at a space or at an end."""
    start = name.find(surface)
    end = start + len(surface)
    return start >= 0 and (start == 0 or name[start - 1] == " ") and (end == len(name) or name[end] == " ")


def with_titles(document: Document, resolve: Callable[[str], str], valid: Collection[str] | None) -> Document:
    """Titles and candidates behind their redirects; mentions whose title is not a valid one are skipped."""
    mentions = []
    for mention in document.mentions:
        title = None if mention.title is None else resolve(mention.title)
        if title is None or valid is None or title in valid:
            candidates = tuple(c._replace(title=resolve(c.title)) for c in mention.candidates or ())
            mentions.append(mention._replace(title=title, candidates=candidates))
    skipped = document.skipped + len(document.mentions) - len(mentions)
    return document._replace(mentions=tuple(mentions), skipped=skipped)


def read_lines(path: str | Path) -> list[str]:
    """A file of one title a line."""
    return [line.strip() for line in files.read_text(path).split("\n") if line.strip()]


def read_redirects(path: str | Path) -> Mapping[str, str]:
    """A file of lines `title TAB title that it leads to`."""
    redirects = {}
    for number, line in enumerate(files.read_text(path).split("\n"), start=1):
        if line.strip():
            cells = line.rstrip("\r").split("\t")
            if len(cells) != 2:
                raise ValueError(f"{path}, line {number}: expected two titles between a tab, found {line[:60]!r}")
            redirects[cells[0]] = cells[1]
    return redirects


# --- Features ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Inputs, candidates and decoding. Defaults: AIDA-CoNLL in the paper."""

    order: str = option("confidence", "order of decisions; local: all at once", ("confidence", "natural", "local"))
    split: str = option("simple", "training: long documents in equal parts, or in a window per mention", SPLITS)
    scored_split: str = option("per_mention", "the same for files that are scored", SPLITS)
    max_seq_length: int = option(512, "maximum tokens per input")
    max_mention: int = option(30, "tokens of a mention that its position embedding averages")
    max_entities: int = option(128, "mentions per input; a document with more becomes several inputs")
    max_candidates: int = option(30, "candidates per mention, by prior")
    mask_share: float = option(0.9, "fraction of a document's mentions to mask in training")
    mentions: str = option("", "file of mention statistics, for candidates")
    persons: str = option("", "file of titles of persons: a surname takes the candidates of full names")
    redirects: str = option("", "file of lines `title TAB title that it leads to`, for titles of other times")
    titles: str = option("", "file of valid titles; mentions with another one are left out")
    language: str = option("", "language of the titles, if the vocabulary has several")
    min_link_probability: float = option(0.1, "minimum link probability of a mention, for --predict on plain text")
    mentions_alone: bool = option(False, "where the text of a WNED file is missing, take its mentions as the text")

    def __post_init__(self):
        if self.max_seq_length <= SPECIAL or min(self.max_mention, self.max_entities, self.max_candidates) < 1:
            raise ValueError(f"expected --max-seq-length above {SPECIAL}, --max-mention, --max-entities and "
                             "--max-candidates at least 1")  # fmt: skip
        if not 0 < self.mask_share <= 1:
            raise ValueError(f"--mask-share {self.mask_share} must lie in (0, 1]")


class Feature(NamedTuple):
    """One input with E mentions, in text order (per_mention: the target first)."""

    document: int  # index in the list of documents
    word_ids: np.ndarray  # int64 [W], <s> pieces </s>
    spans: np.ndarray  # int64 [E, 2], half-open in word_ids, at most max_mention long
    mentions: np.ndarray  # int64 [E], indices in the document's mentions
    is_target: np.ndarray  # bool [E]: this input decides about it
    candidates: list[np.ndarray]  # E arrays of different entity ids, best prior first; perhaps empty
    numbers: list[np.ndarray]  # for each of them, its first number among the mention's candidates
    gold: np.ndarray  # int64 [E], the title's entity id; -1: not in the vocabulary or not among the candidates


def candidate_ids(mention: Mention, entity_vocab, options: Options) -> tuple[np.ndarray, np.ndarray, int]:
    """Different entity ids of a mention's candidates, the first number of each, and the id of its title or -1.

    Candidates that the vocabulary lacks share [UNK]: if that wins, the first of them is the answer.
    """
    language = options.language or None
    kept = [candidate.title for candidate in (mention.candidates or ())[: options.max_candidates]]
    ids = [entity_vocab.id(title, language) for title in kept]
    first = {entity: number for number, entity in reversed(list(enumerate(ids)))}
    distinct = list(dict.fromkeys(ids))
    gold = entity_vocab.id(mention.title, language) if mention.title in kept else entity_vocab.unk_id
    numbers = np.array([first[entity] for entity in distinct], np.int64)
    return np.array(distinct, np.int64), numbers, -1 if gold == entity_vocab.unk_id else gold


def _inputs(spans: np.ndarray, n: int, options: Options) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """The inputs of a document of n pieces: first piece, last piece + 1, mentions, which of them are decided there."""
    limit = options.max_seq_length - SPECIAL
    if n > limit and options.split == "per_mention":
        for target, (start, end) in enumerate(spans.tolist()):
            size = min(end - start, limit)
            left, right = (int(k) for k in context_window(size, start, n - start - size, limit))
            first, last = start - left, start + size + right
            inside = (first <= spans[:, 0]) & (spans[:, 1] <= last)
            inside[target] = False
            chosen = np.array([target, *np.flatnonzero(inside)[: options.max_entities - 1]])
            yield first, last, chosen, chosen == target
        return
    borders = equal_parts(n, limit, spans)
    part_of = np.clip(np.searchsorted(borders, spans[:, 0], side="right") - 1, 0, len(borders) - 2)
    for part, (first, last) in enumerate(zip(borders, borders[1:])):
        inside = np.flatnonzero(part_of == part)
        # differs from LUKE: more than 128 mentions, or a mention of more than 30 pieces, end the run there
        for chosen in np.array_split(inside, max(1, -(-len(inside) // options.max_entities))):
            yield first, last, chosen, np.ones(len(chosen), bool)


def make_features(
    documents: Sequence[Document], tokenizer, entity_vocab, labels: Sequence[str] = (), options: Options = Options()
) -> list[Feature]:
    """Inputs of all documents, in their order; a part of a document without a mention has none."""
    features = []
    orders = [sorted(range(len(d.mentions)), key=lambda k: d.mentions[k][:2]) for d in documents]
    char_spans = [[d.mentions[k][:2] for k in order] for d, order in zip(documents, orders)]
    tokenized = inputs.token_spans(tokenizer, [document.text for document in documents], char_spans)
    for index, (document, order, ids, spans) in enumerate(zip(documents, orders, *tokenized)):
        found = [candidate_ids(document.mentions[k], entity_vocab, options) for k in order]
        for first, last, chosen, is_target in _inputs(spans, len(ids), options):
            if not len(chosen):
                continue
            word_ids = np.array([tokenizer.bos_id, *ids[first:last], tokenizer.eos_id], np.int64)
            inside = spans[chosen]
            inside[:, 1] = np.minimum(np.minimum(inside[:, 1], last), inside[:, 0] + options.max_mention)
            candidates, numbers, gold = zip(*(found[k] for k in chosen.tolist()))
            features.append(Feature(index, word_ids, inside - first + 1, np.array(order)[chosen], is_target,
                                    list(candidates), list(numbers), np.array(gold, np.int64)))  # fmt: skip
    return features


def pack(features: Sequence[Feature], entity_ids: Sequence[np.ndarray], pad_word_id: int) -> PackedBatch:
    """A batch of the features with these entities at their mentions: E ids each."""
    rows = zip(features, entity_ids)
    return packing.pack([packing.Sequence(f.word_ids, ids, f.spans) for f, ids in rows], pad_word_id)


def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Candidates of several mentions, int64 [mentions, most], -1 behind the last of each."""
    table = np.full((len(rows), max(1, max(map(len, rows), default=1))), -1, np.int64)
    for row, ids in zip(table, rows):
        row[: len(ids)] = ids
    return table

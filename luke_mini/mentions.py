"""Mentions in a text: from statistics over the links of a corpus, or from lists published for question answering.

In: paragraphs with links. Out: `Mentions`, one file. For a surface form ("Washington") it has the titles that its links
lead to, with priors (links to the title / all links of the surface), and its link probability (links of the surface /
pages that contain it), which is small for ordinary words; in a text it detects the surfaces. Question answering takes
its entities from here, entity disambiguation its mentions and candidates.

Surfaces are compared by their words: lower case, without accents, each punctuation mark a word of its own, at most 20.
In scripts without spaces between words (Chinese, Japanese, Thai, ...) every character is a word, so that a mention may
start and end anywhere; in all others at the borders of words. This depends on the script, not on the language.

The names of a whole Wikipedia do not fit into memory as Python objects (some 20 GB): every part of the dump has its
sorted rows of them, `name_rows`, which are merged and come to `from_rows` one by one. Pages that contain a name can be
counted only when all names are known: then `count_pages` finds all of them at once with a trie. Its nodes are 64-bit
hashes of the first words of names in one sorted array: small enough for a whole Wikipedia, shared by worker processes,
and all positions of a page take a step at once. (Two of 30 million random nodes are equal with probability 2e-5.)

Left out: LUKE's other source of the same numbers (p(e|m) files).
"""

import codecs
import heapq
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from luke_mini import files
from luke_mini.files import check
from luke_mini.spans import is_punctuation
from luke_mini.wikitext import Paragraph

STATISTICS = "mentions.safetensors"
HELD_OUT = "held_out_links.jsonl"  # beside them: texts of pages that are in neither statistics nor training
MAX_WORDS = 20  # of a name
MAX_TITLES = 100  # of a name, the most frequent ones
MIN_LINK_PROBABILITY = 0.01  # of a mention that is detected
MOST = 2**48  # links or pages
TITLE = 0.5  # links that a title counts for as the name of its page where nobody links it so: less than one

# --- Words ------------------------------------------------------------------------------------------------------

# Thai, Lao, Myanmar, Khmer, kana, ideographs with their extensions and compatibility forms, kana of half width
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
UNSPACED += "\uff66-\uff9f\U00020000-\U0002fa1f"


@cache
def _word_pattern() -> re.Pattern:
    """An unspaced character with its marks (vowel signs), a punctuation mark, or a run of anything else but spaces.

    The first alternative, an ASCII word before an ASCII space or mark, is a fast path. Punctuation above U+FFFF, of
    ancient scripts, counts as letters, because classes without such characters are faster.
    """
    characters = [chr(code) for code in range(0x10000)]
    unspaced = re.compile(f"[{UNSPACED}]")
    spaces = _character_class(filter(str.isspace, characters))
    punctuation = _character_class(filter(is_punctuation, characters))
    marks = _character_class(c for c in characters if unspaced.match(c) and unicodedata.category(c) in ("Mn", "Mc"))
    return re.compile(
        r"[0-9A-Za-z]+(?=[\t\n -/:-@\[-`{-~]|\Z)"
        rf"|[{punctuation}]|[{UNSPACED}][{marks}]*|[^{spaces}{punctuation}{UNSPACED}]+"
    )


def _character_class(characters: Iterable[str]) -> str:
    """The inside of [...] for characters in order, runs as ranges."""
    codes = enumerate(map(ord, characters))
    runs = ([code for _, code in run] for _, run in groupby(codes, key=lambda pair: pair[1] - pair[0]))
    return "".join(f"\\u{run[0]:04x}-\\u{run[-1]:04x}" for run in runs)


@lru_cache(1 << 18)
def normalize_word(word: str) -> str:
    """Lower case, without accents.

    # differs from LUKE: only U+0300 to U+036F are accents. BERT's rule removes all nonspacing marks, which makes か of
    # が and drops the vowels of Hindi and Thai.
    """
    if word.isascii():
        return word.lower()
    plain = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", word.lower()))
    return unicodedata.normalize("NFC", plain) or word


def word_spans(text: str) -> list[tuple[int, int]]:
    """Half-open characters of every word, punctuation mark and unspaced character."""
    return [match.span() for match in _word_pattern().finditer(text)]


def normalize(surface: str) -> str:
    """The name of a surface, words joined by spaces: "Zoë's" -> "zoe ' s", "東京 23区" -> "東 京 23 区"."""
    return " ".join(map(normalize_word, _word_pattern().findall(surface)))


# --- All names as a trie ----------------------------------------------------------------------------------------

BASE = np.uint64(0x9E3779B97F4A7C15)  # of the polynomial; any large odd number
PARAGRAPH = 1  # between paragraphs; practically never the hash of a word


@lru_cache(1 << 17)  # 25 MB
def _hash(word: str) -> int:
    """64 bits of a word of a text, equal for words with the same normal form."""
    name = normalize_word.__wrapped__(word).encode("utf-8", "surrogatepass")  # kept once is enough
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little")


def _hashes(text: str) -> list[int]:
    return list(map(_hash, _word_pattern().findall(text)))


Trie = tuple[np.ndarray, np.ndarray]  # nodes, uint64, ascending; the name that ends in each, int32, or -1


def make_trie(names: Iterable[str]) -> Trie:
    """A node is the hash of the first words of a name: `hash of the words before * BASE + hash of the word`.

    names: normalized and different, of at least one word. ValueError if two have the same hash.
    """
    hashes, lengths = array("Q"), array("q")
    for name in names:
        words = name.split(" ")
        hashes.extend(map(_hash, words))
        lengths.append(len(words))
    return _trie(np.frombuffer(hashes, np.uint64), np.frombuffer(lengths, np.int64))


def _trie(flat: np.ndarray, lengths: np.ndarray) -> Trie:
    """flat: the hashes of the words of all names; lengths: how many each has."""
    first = np.cumsum(lengths) - lengths
    value = np.zeros(len(lengths), np.uint64)
    levels = []
    for depth in range(lengths.max(initial=0)):
        longer = lengths > depth
        value[longer] = value[longer] * BASE + flat[first[longer] + depth]
        levels.append(np.unique(value[longer]))
    nodes = np.unique(np.concatenate(levels)) if levels else value
    ends = np.full(len(nodes), -1, np.int32)
    ends[np.searchsorted(nodes, value)] = np.arange(len(value))
    if np.count_nonzero(ends >= 0) < len(value):
        raise ValueError(f"two of the {len(value)} names are equal or have equal hashes: expected different names")
    return nodes, ends


def _matches(trie: Trie, words: Sequence[int]) -> np.ndarray:
    """Every occurrence of a name in a row of word hashes: int64 [3, matches], first word, number of words, name."""
    (nodes, names), words = trie, np.array(words, np.uint64)
    start = np.arange(len(words)) if len(nodes) else np.empty(0, np.int64)
    value = np.zeros(len(start), np.uint64)
    found = [np.empty((3, 0), np.int64)]
    for depth in range(MAX_WORDS):
        inside = start + depth < len(words)
        start, value = start[inside], value[inside]
        if not len(start):
            break
        value = value * BASE + words[start + depth]
        node = np.searchsorted(nodes, value).clip(max=len(nodes) - 1)
        alive = nodes[node] == value
        start, value, name = start[alive], value[alive], names[node[alive]]
        ends = name >= 0
        found.append(np.stack([start[ends], np.full(ends.sum(), depth + 1), name[ends]]))
    return np.concatenate(found, axis=1)


def _disjoint(text: str, matches: Iterable[tuple]) -> Iterator[tuple]:
    """(first word, number of words, value), shortest first -> (start, end, value), the longest at each word."""
    spans, position = word_spans(text), 0
    longest = {first: (length, value) for first, length, value in matches}
    for first in sorted(longest):
        length, value = longest[first]
        if first >= position:
            position = first + length
            yield spans[first][0], spans[position - 1][1], value


# --- Counting -------------------------------------------------------------------------------------------------------

def count_links(paragraphs: Iterable[Paragraph]) -> Counter[tuple[str, str]]:
    """How often each (name, title as linked) occurs; names without words or with more than MAX_WORDS are dropped."""
    counts = Counter((text[start:end], title) for text, links, _ in paragraphs for title, start, end in links)
    named: Counter[tuple[str, str]] = Counter()
    for (surface, title), count in counts.items():
        name = normalize(surface)
        if name and name.count(" ") < MAX_WORDS:
            named[name, title] += count
    return named


def count_pages(trie: Trie, pages: Iterable[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """pages: the texts of their paragraphs. -> (names that occur, number of pages that contain each)"""
    present = [np.empty(0, np.int64)]
    for texts in pages:
        words = [word for text in texts for word in (*_hashes(text), PARAGRAPH)]
        present.append(np.unique(_matches(trie, words)[2]))
    return np.unique(np.concatenate(present), return_counts=True)


def title_names(title: str) -> list[tuple[str, str]]:
    """The names that a page has by its title alone: itself, and without brackets behind it, "Mercury (planet)"."""
    names = {normalize(title), normalize(re.sub(r"(?<=\S)\s*[(（][^()（）]*[)）]$", "", title))}
    return [(name, title) for name in sorted(names) if name and name.count(" ") < MAX_WORDS]


Row = tuple[str, str, int]  # name, title, links with that name to it; 0: the title has the name by itself


def name_rows(paragraphs: Iterable[Paragraph], titles: Iterable[str]) -> list[Row]:
    """The names in links, and those of the titles themselves, sorted; titles as linked."""
    rows = {(*pair, 0) for title in titles for pair in title_names(title)}
    return sorted(rows.union((*pair, count) for pair, count in count_links(paragraphs).items()))


def merge_rows(runs: Iterable[Iterable[Row]]) -> Iterator[Row]:
    """Sorted rows of several parts -> sorted rows; links add up, and a row of 0 links stays beside them."""
    for pair, rows in groupby(heapq.merge(*runs), key=itemgetter(0, 1)):
        counts = [count for _, _, count in rows]
        if 0 in counts:
            yield *pair, 0
        if links := sum(counts):
            yield *pair, links


# --- The statistics ---------------------------------------------------------------------------------------------


class Candidate(NamedTuple):
    title: str
    prior: float  # links of the surface to the title / links of the surface to any title


class Mention(NamedTuple):
    start: int  # half-open characters
    end: int
    title: str | None = None  # what it means, if that is known
    candidates: tuple[Candidate, ...] | None = None  # best prior first; None: not looked up yet
    link_probability: float | None = None  # of one that was detected
    certainty: float = 1.0  # that it means an article at all, see `Mentions.certainty`


class _Strings:
    """Grows: all strings as UTF-8, one after the other, and where each ends."""

    def __init__(self):
        self.text, self.ends = bytearray(), array("q")

    def append(self, string: str) -> None:
        self.text += string.encode("utf-8", "surrogatepass")
        self.ends.append(len(self.text))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.frombuffer(self.text, np.uint8), np.frombuffer(self.ends, np.int64)


def _check_array(name: str, values: np.ndarray, kind: str, length: int, least: int, most: int) -> None:
    """ValueError unless it is one row of `length` numbers of a kind ("i", "u": with sign, without), least to most."""
    if values.dtype.kind != kind or values.shape != (length,):
        raise ValueError(f"{name} is {values.dtype} {list(values.shape)}, expected {length} of kind {kind!r}")
    if length and not least <= values.min() <= values.max() <= most:
        raise ValueError(f"{name} has {values.min()} to {values.max()}, expected {least} to {most}")


def _check_strings(name: str, text: np.ndarray, ends: np.ndarray) -> None:
    """ValueError unless the text is UTF-8 that is cut between characters, from its beginning to its end."""
    starts, decoder = np.append(0, ends), codecs.getincrementaldecoder("utf-8")("surrogatepass")
    inside = text[starts[starts < len(text)]]
    if (np.diff(starts) < 0).any() or starts[-1] != len(text) or (inside >> 6 == 0b10).any():
        raise ValueError(f"{name} is not cut between characters, from its beginning to its end")
    for begin in range(0, len(text), 1 << 24):
        decoder.decode(text[begin : begin + (1 << 24)].tobytes())
    decoder.decode(b"", final=True)


def _string(text: np.ndarray, ends: np.ndarray, index: int) -> str:
    start = ends[index - 1] if index else 0
    return text[start : ends[index]].tobytes().decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Mentions:
    """Flat arrays: millions of names take tens of bytes each and load as fast as the disk reads.

    The candidates of name k are rows first[k] to first[k + 1], most frequent first.
    """

    name_text: np.ndarray  # uint8: all names in UTF-8, in alphabetical order
    name_ends: np.ndarray  # int64 [names]
    links: np.ndarray  # int64 [names]: links with that name, to titles beyond MAX_TITLES too; 0 for a title alone
    pages: np.ndarray  # int64 [names]: pages that contain it
    first: np.ndarray  # int64 [names + 1]
    titles: np.ndarray  # int32 [rows]: index of a title
    counts: np.ndarray  # int64 [rows]: links; 0 if the name is only the title of the page, or of a redirect
    title_text: np.ndarray  # uint8
    title_ends: np.ndarray  # int64 [titles]
    nodes: np.ndarray  # Trie
    node_names: np.ndarray
    wiki: np.ndarray = field(default_factory=partial(np.empty, 0, np.uint8))  # UTF-8: `wiki_dump.Page.wiki`
    items: np.ndarray = field(default_factory=partial(np.empty, 0, np.int64))  # [titles or 0]: 64 for Q64, 0: not known

    def __len__(self) -> int:
        return len(self.links)

    @property
    def trie(self) -> Trie:
        return self.nodes, self.node_names

    def names(self) -> list[str]:
        return [_string(self.name_text, self.name_ends, index) for index in range(len(self))]

    def titles_of(self, index: int) -> list[tuple[str, int]]:
        """The titles that links of a name lead to and how many do, most frequent first."""
        rows = slice(self.first[index], self.first[index + 1])
        titles = (_string(self.title_text, self.title_ends, title) for title in self.titles[rows].tolist())
        return list(zip(titles, self.counts[rows].tolist()))

    def candidates(self, surface: str) -> tuple[Candidate, ...]:
        """Titles that links of the surface lead to, most frequent first, then titles that are the surface."""
        name = self._find(surface)
        return () if name is None else self._candidates(name)

    def items_of(self, surface: str) -> dict[str, str]:
        """Wikidata's ids of the titles that links of the surface lead to, as far as prepare_wiki.py was given them."""
        name = self._find(surface)
        if name is None or not len(self.items):
            return {}
        items = self.items[self.titles[self.first[name] : self.first[name + 1]]].tolist()
        return {title: f"Q{item}" for (title, _), item in zip(self.titles_of(name), items) if item}

    def certainty(self, surface: str) -> float:
        """Share of pages with the surface that link it, as if one more did not: a lone link is no certainty."""
        name = self._find(surface)
        return 0.0 if name is None else self._certainty(name)

    def sample_titles(self, n: int) -> list[str]:
        """At most n of the titles, evenly spaced in alphabetical order."""
        number = len(self.title_ends)
        return [_string(self.title_text, self.title_ends, k) for k in range(0, number, -(-number // n) or 1)]

    def _find(self, surface: str) -> int | None:
        words = _hashes(surface)
        whole = [name for _, length, name in _matches(self.trie, words).T.tolist() if length == len(words)]
        return whole[0] if whole else None

    def detect(self, text: str, min_link_probability: float = MIN_LINK_PROBABILITY) -> list[Mention]:
        """Disjoint mentions from left to right, the longest one at each word."""
        matches = _matches(self.trie, _hashes(text))
        kept = self._link_probabilities(matches[2]) >= min_link_probability
        return [
            Mention(start, end, None, self._candidates(k), float(self._link_probabilities(k)), self._certainty(k))
            for start, end, k in _disjoint(text, matches[:, kept].T.tolist())
        ]

    def save(self, path: str | Path) -> None:
        arrays = {name: np.ascontiguousarray(array) for name, array in vars(self).items()}
        with files.write_file(path, "wb") as file:
            file.write(safetensors.numpy.save(arrays))

    @classmethod
    def load(cls, path: str | Path) -> "Mentions":
        try:
            found = cls(**safetensors.numpy.load_file(path))
            found.check()
        except (SafetensorError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a file of mention statistics ({error})") from None
        return found

    def check(self) -> None:
        """ValueError naming an array of another form, or with numbers that lead out of the others."""
        names, rows, titles, nodes = len(self), len(self.counts), len(self.title_ends), len(self.nodes)
        name_text, title_text, wiki = len(self.name_text), len(self.title_text), len(self.wiki)
        for name, kind, length, least, most in (
            ("name_text", "u", name_text, 0, 255), ("name_ends", "i", names, 0, name_text),
            ("links", "i", names, 0, MOST), ("pages", "i", names, 0, MOST), ("first", "i", names + 1, 0, rows),
            ("titles", "i", rows, 0, titles - 1), ("counts", "i", rows, 0, MOST),
            ("title_text", "u", title_text, 0, 255), ("title_ends", "i", titles, 0, title_text),
            ("nodes", "u", nodes, 0, 2**64 - 1), ("node_names", "i", nodes, -1, names - 1), ("wiki", "u", wiki, 0, 255),
            ("items", "i", titles if len(self.items) else 0, 0, MOST),
        ):  # fmt: skip
            _check_array(name, getattr(self, name), kind, length, least, most)
        own = np.diff(self.first, prepend=0, append=rows)  # rows before the first name, of each, and behind the last
        if own[0] or own[-1] or (own < 0).any():
            raise ValueError("first does not lead from the first row to the last")
        if (self.counts > np.repeat(self.links, own[1:-1])).any():
            raise ValueError("links has less than counts")
        _check_strings("name_text", self.name_text, self.name_ends)
        _check_strings("title_text", self.title_text, self.title_ends)
        _check_strings("wiki", self.wiki, np.array([wiki]))

    def _link_probabilities(self, names) -> np.ndarray:
        """Links of a name / pages that contain it, at most 1. A title alone counts as TITLE links."""
        return np.minimum(1.0, np.maximum(self.links[names], TITLE) / np.maximum(self.pages[names], 1))

    def _certainty(self, index: int) -> float:
        pages = self.pages[index]
        return float(min(max(self.links[index], TITLE), pages) / (pages + 1))

    def _candidates(self, index: int) -> tuple[Candidate, ...]:
        titles = self.titles_of(index)
        links = int(self.links[index]) + TITLE * sum(count == 0 for _, count in titles)
        return tuple(Candidate(title, (count or TITLE) / links) for title, count in titles)


def address(wiki: str, title: str) -> str:
    """Of a title's page."""
    return wiki + quote(title.replace(" ", "_"), safe="/:(),!;@*~$'")


def find_statistics(places: Iterable[Path]) -> Path | None:
    """The statistics of the first of these folders that has them, itself or in one of the three folders above it."""
    folders = (folder for place in places for folder in [place.resolve(), *place.resolve().parents][:4])
    return next((folder / STATISTICS for folder in folders if (folder / STATISTICS).is_file()), None)


def from_links(
    links: Mapping[tuple[str, str], int], resolve: Callable[[str], str | None] = lambda title: title
) -> Mentions:
    """`from_rows`, from (name, title as linked) -> links; `resolve` follows redirects, None: not an entity."""
    resolved = ((name, resolve(title), count) for (name, title), count in links.items())
    return from_rows(sorted(row for row in resolved if row[1] is not None))


def from_rows(rows: Iterable[Row]) -> Mentions:
    """From rows whose names are in alphabetical order. A pair may come several times, also with fewer than 0 links.

    Every name has link probability 1 until `with_pages`.
    """
    names, titles, links, hashes, words = _Strings(), _Strings(), array("q"), array("Q"), array("q")
    first, title_ids, counts, number = array("q", [0]), array("i"), array("q"), {}
    for name, group in groupby(rows, key=itemgetter(0)):
        ranked = _ranked(group)
        if not ranked:
            continue
        names.append(name)
        links.append(sum(count for _, count in ranked))
        title_ids.extend(number.setdefault(title, len(number)) for title, _ in ranked[:MAX_TITLES])
        counts.extend(count for _, count in ranked[:MAX_TITLES])
        first.append(len(counts))
        found = name.split(" ")
        hashes.extend(map(_hash, found))
        words.append(len(found))
    ranks = np.empty(len(number), np.int32)
    for rank, title in enumerate(sorted(number)):
        titles.append(title)
        ranks[number[title]] = rank
    del number  # as large as all arrays
    links, first, counts, words = (np.frombuffer(numbers, np.int64) for numbers in (links, first, counts, words))
    title_ids, trie = ranks[np.frombuffer(title_ids, np.int32)], _trie(np.frombuffer(hashes, np.uint64), words)
    return Mentions(*names.arrays(), links, links, first, title_ids, counts, *titles.arrays(), *trie)


def _ranked(rows: Iterable[Row]) -> list[tuple[str, int]]:
    """The titles of a name, most frequent first, then by title."""
    counts, own = Counter(), set()
    for _, title, count in rows:
        counts[title] += count
        if not count:
            own.add(title)
    kept = ((title, count) for title, count in counts.items() if count or title in own)
    return sorted(kept, key=lambda pair: (-pair[1], pair[0]))


def with_pages(mentions: Mentions, pages: np.ndarray) -> Mentions:
    """pages int64 [names]: how many contain each name. A rare link has candidates, too, but `detect` passes over it."""
    return replace(mentions, pages=pages)


def with_items(mentions: Mentions, item_of: Callable[[str], str | None]) -> Mentions:
    """item_of: title -> "Q64"."""
    titles = (_string(mentions.title_text, mentions.title_ends, index) for index in range(len(mentions.title_ends)))
    return replace(mentions, items=np.array([int((item_of(title) or "Q0")[1:]) for title in titles], np.int64))


# --- Detectors for question answering ---------------------------------------------------------------------------------

Found = list[tuple[int, int, str]]  # (start, end, title of the entity): disjoint, from left to right
Detector = Callable[[str, str], Found]  # (text, title of its page) -> mentions
Listed = dict[tuple[str, ...], str]  # the words of a mention -> title


def _words(text: str, ignore_case: bool) -> list[str]:
    words = [text[start:end] for start, end in word_spans(text)]
    return list(map(str.lower, words)) if ignore_case else words


def list_mentions(titles: Mapping[str, str], ignore_case: bool = False) -> Listed:
    """{mention: title} by words. Mentions that have two titles when case is ignored are dropped."""
    meant: dict[tuple[str, ...], set[str]] = {}
    for mention, title in titles.items():
        meant.setdefault(tuple(_words(mention, ignore_case)), set()).add(title)
    return {words: title for words, (title, *others) in meant.items() if words and not others}


def find_listed(text: str, listed: Listed, ignore_case: bool = False) -> Found:
    """The listed mentions in a text, the longest one at each word, whatever the white space between its words.

    # differs from LUKE: it compares tokens. The paper's code has no mention after a bracket or hyphen, "(Oslo)", as the
    # token does not start with a space; mLUKE's code finds "Oslo" in "Oslofjord", and in Japanese only whole tokens.
    # Mentions are not limited to 30 or 10 tokens; the model averages the positions of the first 30.
    """
    words = _words(text, ignore_case)
    matches = (
        (first, length, listed[key])
        for length in sorted(set(map(len, listed)))
        for first in range(len(words) - length + 1)
        if (key := tuple(words[first : first + length])) in listed
    )
    return list(_disjoint(text, matches))


@lru_cache(maxsize=4)
def list_detector(path: str, ignore_case: bool) -> Detector:
    """From a candidate file {"Oslo": {"Norway": "Norway", "the fjord": "Oslofjord"}}, page -> {mention: title}.

    These are the links of the page itself, as published with mLUKE for XQuAD and MLQA; other pages have no mentions.
    """
    pages = files.read_object(path)
    for page, titles in pages.items():
        for mention, title in check(f"{path}: page {page!r}", titles, dict).items():
            check(f"{path}: page {page!r}, mention {mention!r}", title, str)
    listed = lru_cache(None)(lambda page: list_mentions(pages.get(page, {}), ignore_case))
    return lambda text, page: find_listed(text, listed(page), ignore_case)


@lru_cache(maxsize=4)
def statistics_detector(path: str, min_link_probability: float) -> Detector:
    """From a file of `Mentions`: the most frequent title of each surface with at least that link probability."""
    detect = Mentions.load(path).detect
    return lambda text, page: [(m.start, m.end, m.candidates[0].title) for m in detect(text, min_link_probability)]


def no_detector(text: str, page: str) -> Found:
    return []

"""The entities of questions and contexts: which stretches of a text are mentions, and of what.

In: a text and the title of the page it is from. Out: [(start, end, entity title)], half-open characters, from left to
right, never overlapping, the longest that starts at a word first. Two sources:

    candidate files   {"Oslo": {"Norway": "Norway", "the fjord": "Oslofjord"}}: page -> {mention: entity}, the links of
                      the page itself, as published with mLUKE for XQuAD and MLQA. A page that is not in it has none
    mentions.py       what anybody's links to any page say: the most frequent title of a surface, wherever it occurs

A mention begins and ends with a word; in scripts without spaces every character is one (`mentions.word_spans`).
# differs from LUKE: it compares tokens. The paper's code has no mention after a bracket or hyphen, "(Oslo)", as the
# token does not begin with a space; mLUKE's code finds "Oslo" in "Oslofjord", and in Japanese only what tokens spell.
# A mention has no limit here where theirs is 30 or 10 tokens; the model averages the positions of the first 30.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

from luke_mini.mentions import Mentions, word_spans
from luke_mini.files import Record, check, read_json

Found = list[tuple[int, int, str]]
Detector = Callable[[str, str], Found]  # (text, title of its page) -> mentions
Table = dict[str, list[tuple[list[str], str]]]  # first word of a mention -> [(its words, entity)], the longest first


def words_of(text: str, ignore_case: bool = False) -> list[str]:
    words = [text[start:end] for start, end in word_spans(text)]
    return list(map(str.lower, words)) if ignore_case else words


def by_first_word(titles: Mapping[str, str], ignore_case: bool = False) -> Table:
    """{mention: entity} as a table for `detect`. Words that mean two entities when case is ignored mean none."""
    entities: dict[tuple[str, ...], set[str]] = {}
    for mention, title in titles.items():
        entities.setdefault(tuple(words_of(mention, ignore_case)), set()).add(title)
    table: Table = {}
    for words, meant in entities.items():
        if words and len(meant) == 1:
            table.setdefault(words[0], []).append((list(words), *meant))
    for row in table.values():
        row.sort(key=lambda pair: -len(pair[0]))
    return table


def detect(text: str, table: Table, ignore_case: bool = False) -> Found:
    """Mentions in a text: the same words, whatever blanks are between them."""
    spans, words = word_spans(text), words_of(text, ignore_case)
    found, position = [], 0
    while position < len(words):
        end = position + 1
        for mention, title in table.get(words[position], ()):
            if words[position : position + len(mention)] == mention:
                end = position + len(mention)
                found.append((spans[position][0], spans[end - 1][1], title))
                break
        position = end
    return found


@lru_cache(maxsize=4)
def from_candidates(path: str, ignore_case: bool) -> Detector:
    """A published candidate file. ValueError if it is none."""
    found = read_json(path)
    pages = check(path, found.values if isinstance(found, Record) else [], dict)
    for page, titles in pages.items():
        for mention, title in check(f"{path}: page {page!r}", titles, dict).items():
            check(f"{path}: page {page!r}, mention {mention!r}", title, str)
    tables: dict[str, Table] = {}

    def find(text: str, page: str) -> Found:
        if page not in tables:
            tables[page] = by_first_word(pages.get(page, {}), ignore_case)
        return detect(text, tables[page], ignore_case)

    return find


@lru_cache(maxsize=4)
def from_mentions(path: str, min_link_probability: float) -> Detector:
    """A file of `Mentions`, made by prepare_wiki.py; surfaces that are links less often are no mentions."""
    statistics = Mentions.load(path)

    def find(text: str, page: str) -> Found:
        return [(m.start, m.end, m.candidates[0].title) for m in statistics.detect(text, min_link_probability)]

    return find


def nothing(text: str, page: str) -> Found:
    """Words only."""
    return []

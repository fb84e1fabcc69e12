"""Documents for named entity recognition: CoNLL-2002/2003 files, the same format with anybody's types, raw text.

In: a file of one word a line, columns between spaces or tabs, first = word, last = tag, blank line = sentence end,
`-DOCSTART-` line = a new document:

    Ada NNP I-NP I-PER
    visited VBD I-VP O
    Oslo NNP I-NP I-LOC

or raw text, cut into sentences and words, with or without mentions as character spans (`read_json_lines`). Out:
`Document`s. The way back: `write_predictions`, for conlleval.

Tags are read as conlleval reads them (`metrics.chunks`): IOB1 (the released English and German files), IOB2 (Spanish,
Dutch) and IOBES need no switch, and a tag that breaks the scheme of its own file does no harm.
Left out on purpose: BILOU and nested tags, and word segmentation for scripts that are written without spaces.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unicodedata import category

from luke_mini import files
from luke_mini.files import write_file
from luke_mini.metrics import Span, chunks, to_tags
from luke_mini.spans import split_sentences


@dataclass(slots=True)
class Document:
    """Sentence i is words[sentences[i]:sentences[i + 1]]; spans are half-open, in words of the document."""

    words: list[str]
    spans: list[Span]  # gold mentions, in text order, none across a sentence boundary
    sentences: list[int]  # [0, end of sentence 0, end of sentence 1, ...]
    scheme: str = "IOB2"  # as found in the file: IOB1, IOB2 or IOBES
    encoding: str = "utf-8"  # likewise


# --- CoNLL files --------------------------------------------------------------------------------------------------


def _read_text(path: str | Path, encoding: str | None) -> tuple[str, str]:
    raw = Path(path).read_bytes()
    try:
        return raw.decode(encoding or "utf-8-sig"), encoding or "utf-8"
    except (LookupError, UnicodeDecodeError) as error:
        if encoding is not None:
            raise ValueError(f"{path}: cannot be read as {encoding}: {error}") from None
    return raw.decode("iso-8859-1"), "iso-8859-1"  # the German, Spanish and Dutch files as first released


def _sentences(path: str | Path, text: str) -> Iterator[tuple[bool, list[str], list[str]]]:
    """(is the first of its document, words, tags) of each sentence that has words."""
    starts_document, words, tags, n_columns = True, [], [], 0
    # Not splitlines(), not split(): both also break at characters such as U+0085 and U+00A0, which occur as words.
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        line = line.strip(" \t\r")
        if line and not line.startswith("-DOCSTART"):
            columns = re.split(r"[ \t]+", line)
            n_columns = n_columns or len(columns)
            if len(columns) != n_columns or n_columns < 2:
                expected = f"{n_columns} as above" if n_columns > 1 else "at least 2"
                raise ValueError(f"{path}, line {number}: {len(columns)} columns, expected {expected}: word ... tag")
            if not re.fullmatch("O|[BIES]-.+", columns[-1]):
                raise ValueError(
                    f"{path}, line {number}: last column {columns[-1]!r}, expected O or one of B- I- E- S- and a type"
                )
            words.append(columns[0])
            tags.append(columns[-1])
            continue
        if words:
            yield starts_document, words, tags
            starts_document, words, tags = False, [], []
        if line:
            starts_document = True


def _tag_scheme(sentences: list[list[str]]) -> str | None:
    """How most mentions open; None without mentions."""
    openings = Counter()
    for tags in sentences:
        for start, _, kind in chunks(tags):
            # Right after a mention of its own type, one opens with B in IOB1 as in IOB2: says nothing.
            if start == 0 or tags[start - 1][2:] != kind:
                openings[tags[start][0]] += 1
    if any(tag[0] in "ES" for tags in sentences for tag in tags):
        return "IOBES"
    return ("IOB1" if openings["I"] > openings["B"] else "IOB2") if openings else None


def read_examples(path: str | Path, encoding: str | None = None, scheme: str | None = None) -> list[Document]:
    """Documents of a CoNLL file; a file without `-DOCSTART-` lines is one document.

    encoding: None = UTF-8, or else ISO-8859-1. scheme: naming one ("IOB1", "IOB2", "IOBES") changes nothing about how
    tags are read, but a file that is mostly another is an error. What was found is in each document's `scheme` and
    `encoding`. Raises ValueError with file and line for a missing column, an unknown tag, a file without sentences.
    """
    text, encoding = _read_text(path, encoding)
    sentences = list(_sentences(path, text))
    if not sentences:
        raise ValueError(f"{path}: no sentence, expected lines of a word, a space and a tag")
    found = _tag_scheme([tags for _, _, tags in sentences]) or scheme or "IOB2"
    if scheme not in (None, found):
        raise ValueError(f"{path}: the tags are {found}, expected {scheme}")
    documents = []
    for starts_document, words, tags in sentences:
        if starts_document:
            documents.append(Document([], [], [0], found, encoding))
        document = documents[-1]
        offset = len(document.words)
        document.spans += [(offset + start, offset + end, kind) for start, end, kind in chunks(tags)]
        document.words += words
        document.sentences.append(len(document.words))
    return documents


def write_predictions(path: str | Path, documents: Sequence[Document], predictions: Sequence[Sequence[tuple]]) -> None:
    """Lines `word gold predicted` and a blank line after each sentence, as conlleval reads them.

    predictions: mentions of each document, (start, end, type, ...) without overlaps. Both tags are in the scheme of the
    file that was read; IOBES, which conlleval does not know, becomes IOB2.
    """
    with write_file(path) as file:
        for document, mentions in zip(documents, predictions, strict=True):
            scheme = "IOB1" if document.scheme == "IOB1" else "IOB2"
            predicted = sorted(mention[:3] for mention in mentions)
            for begin, end in zip(document.sentences, document.sentences[1:]):
                columns = [document.words[begin:end]]
                for spans in (document.spans, predicted):
                    inside = spans[bisect_left(spans, (begin,)) : bisect_left(spans, (end,))]
                    inside = [(start - begin, stop - begin, kind) for start, stop, kind in inside]
                    columns.append(to_tags(end - begin, inside, scheme))
                file.writelines(" ".join(row) + "\n" for row in zip(*columns))
                file.write("\n")


# --- Raw text -----------------------------------------------------------------------------------------------------

# Over one letter a character, see `_kind`: an English clitic ('s, 're), a word, or any other single character. A word
# keeps hyphens and dots inside (U.S, AT&T, Smith-Jones) and an elided article's apostrophe (l' + Italie).
_WORD = re.compile(r"(?<=w)aw{1,2}(?!w)|w+(?:\.w+)*(?:a(?=www))?|[^ ]")


@cache
def _kind(char: str) -> str:
    if char.isspace():
        return " "
    if "\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff":
        return "c"  # kana and Chinese characters: each is a word
    if char in ".&-":
        return "."
    if char in "'\u2019":
        return "a"
    # Vowel signs and other combining marks (Devanagari, Arabic) are no letters to Python, but parts of words.
    return "w" if char.isalnum() or category(char)[0] == "M" else "p"


def split_words(text: str) -> list[tuple[int, int]]:
    """Character spans of words and punctuation marks; all characters but white space are covered."""
    return [match.span() for match in _WORD.finditer("".join(map(_kind, text)))]


def raw_document(
    text: str, language: str = "en", mentions: Sequence[Span] = ()
) -> tuple[Document, list[tuple[int, int]]]:
    """A text as a document, and the half-open character span of each of its words.

    mentions: gold ones, in characters, without overlaps. Words end where a mention begins or ends; a mention across the
    end of a sentence keeps the sentences together.
    """
    mentions = sorted(mentions)
    borders = sorted({border for start, end, _ in mentions for border in (start, end)})
    char_spans: list[tuple[int, int]] = []
    sentences = [0]
    for begin, end in split_sentences(text, language):
        cuts = [begin, *borders[bisect_right(borders, begin) : bisect_left(borders, end)], end]
        for cut, stop in zip(cuts, cuts[1:]):
            char_spans += [(cut + a, cut + b) for a, b in split_words(text[cut:stop])]
        inside = bisect_left(mentions, (end,))
        if inside == 0 or mentions[inside - 1][1] <= end:
            sentences.append(len(char_spans))
    words = [text[start:end] for start, end in char_spans]
    first = {start: i for i, (start, _) in enumerate(char_spans)}
    last = {end: i + 1 for i, (_, end) in enumerate(char_spans)}
    return Document(words, [(first[start], last[end], kind) for start, end, kind in mentions], sentences), char_spans


def read_json_lines(path: str | Path, language: str = "en") -> list[Document]:
    """Documents of your own: {"text": ..., "spans": [{"start": 0, "end": 3, "label": "PER"}, ...]} a line.

    start and end: half-open characters of the text. ValueError with file, line and field for a span that lies outside
    of the text, overlaps another one, or begins or ends with white space.
    """
    documents = []
    for record in files.read_json_lines(path):
        text = record.get("text", str)
        mentions = []
        for item in record.list("spans", []):
            start, end = item.span(text)
            if text[start:end] != text[start:end].strip():
                raise ValueError(f"{item.where}: {text[start:end]!r} begins or ends with white space")
            mentions.append((start, end, item.get("label", str)))
        mentions.sort()
        for (_, end, _), (start, _, _) in zip(mentions, mentions[1:]):
            if start < end:
                raise ValueError(f"{record.where}: field 'spans': two of them share character {start}")
        documents.append(raw_document(text, language, mentions)[0])
    if not documents:
        raise ValueError(f"{path}: no document, expected lines like {{\"text\": ..., \"spans\": [...]}}")
    return documents

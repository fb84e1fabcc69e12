"""Entity disambiguation's data: documents whose mentions have titles and candidates, from files to model inputs.

    records(path, ...)   -> a file as records of our own JSON lines, by its name:
        .xml             WNED (Guo & Barbosa 2018): MSNBC, AQUAINT, ACE2004, CWEB, WIKI; texts in RawText/ beside it
        .csv             AIDA-CoNLL and WNED as Le & Titov (2018) laid them out, with candidates; the words are in a
                         second file beside it
        else             JSON lines
    to_document          a record -> a document
    with_candidates      from mention statistics (`mentions.py`): mentions of a text that comes without any, candidates
                         of mentions that come without any
    with_persons         a surname has the candidates of the full names in its document
    with_pprforned       other candidates for AIDA-CoNLL (Pershina et al. 2015)
    with_titles          redirects of titles, and which titles are valid
    make_features        a `Feature` for each document, or several for a long one: in equal parts that cut no mention
                         ("simple"), or in a window per mention, which alone is decided there ("per_mention")

A title that stands for no article (NIL) makes no mention, as in Le & Titov's files. A candidate of a feature is an
entity id; those that the vocabulary lacks share [UNK] and count as one. The text is tokenized in segments, mentions and
what is between them, as the released tokenizers do it (`inputs.token_spans`).
"""

import html
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from html.entities import codepoint2name
from itertools import accumulate, chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from luke_mini import files, inputs, packing
from luke_mini.files import Record
from luke_mini.mentions import Candidate, Mention, Mentions
from luke_mini.spans import context_window, equal_parts
from luke_mini.tasks import SPECIAL
from luke_mini.tasks import DisambiguationOptions as Options
from luke_mini.wikitext import normalize_title

CharSpan = tuple[int, int]  # half-open


class Document(NamedTuple):
    id: str
    text: str
    mentions: tuple[Mention, ...] | None  # in the order of the file; None: still to be detected
    skipped: int = 0  # mentions that were left out: their title is no article
    wiki: str = ""  # address of the pages of its candidates, without their titles; "" if not known
    items: dict[str, str] = {}  # candidate -> Wikidata's id, "Q64", as far as known


def records(path: str | Path, mentions_alone: bool = False) -> Iterator[Record]:
    """The documents of a file. mentions_alone: where a WNED text is missing, the mentions are the text."""
    path = Path(path)
    if path.suffix == ".xml":
        return _wned(path, mentions_alone)
    return _le_titov(path) if path.suffix == ".csv" else files.read_json_lines(path)


def to_document(record: Record) -> Document:
    """Of {"id", "text", "spans": [{"start", "end", "title", "candidates": {title: prior}}], "skipped"}.

    Only "text" and "spans" with "start" and "end" must be there. "spans": null means that nobody looked for mentions.
    """
    name, text = record.id(record.where), record.get("text", str)
    if record.values.get("spans", ()) is None:
        return Document(name, text, None)
    mentions = []
    for item in record.list("spans"):
        priors = item.get("candidates", dict, default=None)
        for title, prior in (priors or {}).items():
            files.check(f"{item.where}: prior of {title!r}", prior, float)
        title = item.get("title", str, default=None)
        mentions.append(Mention(*item.span(text), title, None if priors is None else ranked(priors)))
    return Document(name, text, tuple(mentions), record.get("skipped", int, default=0))


def ranked(priors: Mapping[str, float]) -> tuple[Candidate, ...]:
    """{title: prior} as candidates, best prior first."""
    return tuple(Candidate(*item) for item in sorted(priors.items(), key=lambda item: -item[1]))


def _joined(parts: Sequence[str]) -> tuple[str, list[CharSpan]]:
    """Parts in a row with spaces between them, and the characters of each."""
    ends = [end - 1 for end in accumulate(len(part) + 1 for part in parts)]
    return " ".join(parts), [(end - len(part), end) for part, end in zip(parts, ends)]


# --- WNED: XML and raw texts ------------------------------------------------------------------------------------------


def _wned(path: Path, mentions_alone: bool) -> Iterator[Record]:
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}, line {error.position[0]}, column {error.position[1] + 1}: {error}") from None
    except (LookupError, ValueError) as error:
        raise ValueError(f"{path}: an encoding that cannot be read ({error}), expected UTF-8") from None
    for document in root.iter("document"):
        name = document.get("docName")
        if name is None:
            raise ValueError(f"{path}: expected an attribute docName in each <document>")
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ValueError(f"{path}: docName is {name!r}, expected the name of a file in RawText/")
        where, raw = f"{path}, document {name}", path.parent / "RawText" / name
        found = [_annotation(item, f"{where}, annotation {number}") for number, item in enumerate(document, start=1)]
        kept = [annotation for annotation in found if annotation[2]]
        if raw.is_file():
            text = files.read_text(raw)
            places = [_place(text, surface, offset, where) for surface, offset, _ in kept]
        elif mentions_alone:
            text, places = _joined([surface for surface, _, _ in kept])
        else:
            raise ValueError(f"{raw}: missing, expected the document's text; --mentions-alone does without")
        spans = [{"start": start, "end": end, "title": title} for (start, end), (_, _, title) in zip(places, kept)]
        yield Record(where, {"id": name, "text": text, "spans": spans, "skipped": len(found) - len(kept)})


def _annotation(item: ElementTree.Element, where: str) -> tuple[str, int, str]:
    """(surface, offset, title or "")"""
    surface, offset = (item.findtext(name) for name in ("mention", "offset"))
    if not (surface or "").strip() or item.find("wikiName") is None:
        raise ValueError(f"{where}: expected <mention>, <wikiName> and <offset>")
    if not (offset or "").strip().isdecimal():
        raise ValueError(f"{where}: <offset> is {offset!r}, expected an integer")
    title = (item.findtext("wikiName") or "").strip().replace("_", " ")
    return surface, int(offset), "" if title == "NIL" else title


def _place(text: str, surface: str, offset: int, where: str) -> CharSpan:
    """Where a surface is: at its offset, or else at the nearest place, if need be in another spelling."""
    loose = _any_spelling(surface)
    for pattern in (re.compile(re.escape(surface)), loose):
        if found := pattern.match(text, offset):
            return found.span()
    found = [*re.finditer(re.escape(surface), text)] or [*loose.finditer(text)]
    if not found:
        held = " ".join(text[offset : offset + len(surface)].split())
        raise ValueError(f"{where}: the mention {surface!r} is not in the text, which has {held!r} at {offset}")
    return min((match.span() for match in found), key=lambda span: abs(span[0] - offset))


ALIKE = ("'’‘ʼ´`", '"“”„', "-‐‑–—")  # kinds of apostrophes, quotation marks, hyphens


def _any_spelling(surface: str) -> re.Pattern:
    """Copies of the texts differ from the mentions in white space, case, kinds of apostrophe, and `&amp;` for `&`."""

    def pattern(character: str) -> str:
        alike = next((f"[{kinds}]" for kinds in ALIKE if character in kinds), re.escape(character))
        name = codepoint2name.get(ord(character))
        return f"(?:{alike}|&{name};)" if name else alike

    return re.compile(r"\s*".join(map(pattern, re.sub(r"\s", "", html.unescape(surface)))), re.IGNORECASE)


# --- Le & Titov: a table of mentions, and the words in a file of columns ----------------------------------------------

WORDS_FILE = {"aida_train.csv": "aida_train.txt"}
WORDS_FILE |= dict.fromkeys(("aida_testA.csv", "aida_testB.csv"), "testa_testb_aggregate_original")
WITHOUT_WORDS = "Jiří_Třanovský"  # of the WIKI set: its mentions are not those of its text


def _le_titov(path: Path) -> Iterator[Record]:
    name = WORDS_FILE.get(path.name, path.name.removeprefix("wned-").removesuffix(".csv") + ".conll")
    if not (path.parent / name).is_file():
        raise ValueError(f"{path.parent / name}: missing, expected the words of the documents in {path.name}")
    texts = _read_words(path.parent / name)
    rows: dict[str, list[tuple[str, str, dict]]] = {}
    for where, line in files.read_lines(path):
        document, surface, meant = _table_row(line, where)
        rows.setdefault(document, []).append((where, surface, meant))
    rows.pop(WITHOUT_WORDS, None)
    for document, found in rows.items():
        where, *_ = found[0]
        if document not in texts:
            raise ValueError(f"{where}: the document {document!r} is not in {path.parent / name}")
        text, places = texts[document]
        spans = [span for span in _spans(text, places, found) if span["title"]]
        yield Record(where, {"id": document, "text": text, "spans": spans, "skipped": len(found) - len(spans)})


def _table_row(line: str, where: str) -> tuple[str, str, dict]:
    """Of one line: the document, the surface, and {"title", "candidates"}. No article: title ""."""
    cells = line.split("\t")
    if len(cells) < 9 or cells[5] != "CANDIDATES" or cells[-2] != "GT:":
        raise ValueError(f"{where}: expected 5 columns, CANDIDATES, candidates, GT: and the title, between tabs")
    if not cells[0].strip():
        raise ValueError(f"{where}: column 1 is empty, expected the name of the document")
    priors: dict[str, float] = {}
    for cell in cells[6:-2]:
        try:
            # differs from LUKE: there, &amp; is decoded in the right title alone, which then is no candidate
            _, prior, title = cell.split(",", 2) if cell != "EMPTYCAND" else ("", "", "")  # a title may have commas
            if title:
                priors.setdefault(title.replace("&amp;", "&"), float(prior))
        except ValueError:
            raise ValueError(f"{where}: candidate {cell!r}, expected id,prior,title or EMPTYCAND") from None
    # The title is behind -1 and an id, or behind its number among the candidates, an id and a prior.
    found = re.match("(?:-1,[^,]*|[^,]*,[^,]*,[^,]*),(.*)", cells[-1])
    title = found[1].replace("&amp;", "&") if found else ""
    return cells[0].split()[0], cells[2], {"title": title, "candidates": priors}


def _read_words(path: Path) -> dict[str, tuple[str, list[CharSpan]]]:
    """Name of a document -> its text, words joined by spaces, and the spans of its mentions."""
    documents: dict[str, tuple[list[str], list[list[int]]]] = {}
    for where, line in files.read_lines(path):
        if line.startswith("-DOCSTART-"):
            parts = line.split()  # -DOCSTART- (12testb OSLO)
            if len(parts) < 2 or not parts[1].startswith("("):
                raise ValueError(f"{where}: expected -DOCSTART- (the document's name, found {line!r}")
            words, mentions = documents.setdefault(parts[1][1:], ([], []))
            continue
        if not documents:
            raise ValueError(f"{where}: expected a -DOCSTART- line before the first word")
        cells = line.split("\t")
        if cells[0]:
            words.append(cells[0])
        if cells[0] and len(cells) >= 6:
            if cells[1] not in ("B", "I"):
                raise ValueError(f"{where}: column 2 is {cells[1]!r}, expected B or I in a mention")
            if cells[1] == "B" or not mentions:
                mentions.append([len(words) - 1, 0])  # first word, last word + 1
            mentions[-1][1] = len(words)
    texts = {}
    for name, (words, mentions) in documents.items():
        text, places = _joined(words)
        texts[name] = text, [(places[first][0], places[last - 1][1]) for first, last in mentions]
    return texts


def _letters(part: str) -> str:
    return re.sub(r"\W", "", part).lower()


def _spans(text: str, places: Sequence[CharSpan], rows: Sequence[tuple[str, str, dict]]) -> Iterator[dict]:
    """Each mention at the next place of the text that has its letters."""
    remaining = iter(places)
    for where, surface, meant in rows:
        found = ((start, end) for start, end in remaining if _letters(text[start:end]) == _letters(surface))
        start, end = next(found, (None, None))
        if start is None:
            raise ValueError(f"{where}: the mention {surface!r} is not among those that remain in the document's words")
        yield {"start": start, "end": end, **meant}


# --- Candidates and titles --------------------------------------------------------------------------------------------


def with_candidates(document: Document, statistics: Mentions, min_link_probability: float) -> Document:
    """The mentions that the statistics detect if nobody looked for any; candidates of mentions that have none yet."""
    text, mentions = document.text, document.mentions
    if mentions is None:
        mentions = statistics.detect(text, min_link_probability)
    surfaces = [text[m.start : m.end] for m in mentions]
    found = tuple(
        m if m.candidates is not None else
        m._replace(candidates=statistics.candidates(surface), certainty=statistics.certainty(surface))
        for m, surface in zip(mentions, surfaces)
    )  # fmt: skip
    items = {title: item for surface in {*surfaces} for title, item in statistics.items_of(surface).items()}
    return document._replace(mentions=found, wiki=statistics.wiki.tobytes().decode(), items=items)


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
        longer = [candidates for name, candidates in names if name != surface and _is_part(surface, name)]
        sums: Counter[str] = Counter()
        for title, prior in chain.from_iterable(longer):
            sums[title] += prior
        joined = tuple(Candidate(title, total / len(longer)) for title, total in ranked(sums))
        mentions.append(mention._replace(candidates=joined) if longer else mention)
    return document._replace(mentions=tuple(mentions))


def _is_part(surface: str, name: str) -> bool:
    """Whether the first occurrence of a surface in a name begins and ends at a space or at an end."""
    before, found, after = name.partition(surface)
    return bool(found) and before[-1:] in ("", " ") and after[:1] in ("", " ")


def with_pprforned(document: Document, folder: str | Path) -> Document:
    """The mentions with the candidates of PPRforNED, all as likely: in a folder, one file per number of a document.

    Its mentions stand in the order of the text; each of the document's takes the next one with its letters.
    """
    number = re.match(r"\d*", document.id)[0]
    paths = [path for path in sorted(Path(folder).rglob(number or "*")) if number and path.is_file()]
    if len(paths) != 1:
        raise ValueError(f"{folder}: {len(paths)} files for the document {document.id!r}, expected one named {number!r}")
    remaining, mentions = iter(_read_pprforned(paths[0])), []
    for mention in document.mentions:
        surface = document.text[mention.start : mention.end]
        titles = next((titles for other, titles in remaining if _letters(other) == _letters(surface)), None)
        if titles is None:
            raise ValueError(f"{paths[0]}: the mention {surface!r} is not among those that remain in it")
        mentions.append(mention._replace(candidates=tuple(Candidate(title, 1 / len(titles)) for title in titles)))
    return document._replace(mentions=tuple(mentions))


def _read_pprforned(path: Path) -> list[tuple[str, list[str]]]:
    """Its mentions, each with its titles. Cells between tabs: ENTITY, ..., origText:Oslo and CANDIDATE, ..., url:..."""
    mentions: list[tuple[str, list[str]]] = []
    for where, line in files.read_lines(path):
        kind, *cells = line.split("\t")
        values = {name: value for name, _, value in (cell.partition(":") for cell in cells)}
        if kind == "ENTITY" and "origText" in values:
            mentions.append((values["origText"], []))
        elif kind == "CANDIDATE" and mentions and "/wiki/" in values.get("url", ""):
            title = normalize_title(values["url"].partition("/wiki/")[2])
            if title not in mentions[-1][1]:
                mentions[-1][1].append(title)
        elif kind in ("ENTITY", "CANDIDATE"):
            raise ValueError(f"{where}: expected ENTITY with origText:..., then CANDIDATE with url:http://.../wiki/...")
    return mentions


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


def meant_titles(path: str | Path, max_candidates: int = 30) -> list[str]:
    """The entities of a data set: of each mention the candidates, best prior first, or its title if it has none."""
    titles: dict[str, None] = {}  # in their order
    for record in records(path, mentions_alone=True):
        for mention in to_document(record).mentions or ():
            found = [candidate.title for candidate in (mention.candidates or ())[:max_candidates]]
            titles |= dict.fromkeys(found or ([mention.title] if mention.title else []))
    return list(titles)


def read_titles(path: str | Path) -> list[str]:
    """A file of one title a line."""
    return [line.strip() for _, line in files.read_lines(path)]


def read_redirects(path: str | Path) -> Mapping[str, str]:
    """A file of lines `title TAB title that it leads to`."""
    redirects = {}
    for where, line in files.read_lines(path):
        title, tab, target = line.partition("\t")
        if not tab or "\t" in target:
            raise ValueError(f"{where}: expected two titles between a tab, found {line[:60]!r}")
        redirects[title] = target
    return redirects


# --- Features ---------------------------------------------------------------------------------------------------------


class Feature(NamedTuple):
    """One input with E mentions, in text order (per_mention: the target first).

    sequence.entity_ids are the gold ones, -1 for one that is not in the vocabulary or not among the candidates;
    sequence.kept are the mentions' indices in the document; sequence.spans are at most max_mention long.
    """

    document: int  # index in the list of documents
    sequence: packing.Sequence
    is_target: np.ndarray  # bool [E]: this input decides about it
    candidates: list[dict[int, int]]  # E times entity id -> the number of the mention's candidate, best prior first
    priors: list[list[float]] = []  # of each of these


def candidate_ids(mention: Mention, entity_vocab, options: Options) -> tuple[dict[int, int], int]:
    """Entity ids of a mention's candidates with the first number of each, and the id of its title or -1.

    Candidates that the vocabulary lacks share [UNK]: if that wins, the first of them is the answer.
    """
    language = options.language or None
    kept = [candidate.title for candidate in (mention.candidates or ())[: options.max_candidates]]
    first: dict[int, int] = {}
    for number, title in enumerate(kept):
        first.setdefault(entity_vocab.id(title, language), number)
    gold = entity_vocab.id(mention.title, language) if mention.title in kept else entity_vocab.unk_id
    return first, -1 if gold == entity_vocab.unk_id else gold


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
            candidates, gold = zip(*(found[k] for k in chosen.tolist()))
            sequence = packing.Sequence(word_ids, np.array(gold), inside - first + 1, np.array(order)[chosen])
            priors = [
                [document.mentions[k].candidates[number].prior for number in ids.values()]
                for k, ids in zip(sequence.kept.tolist(), candidates)
            ]
            features.append(Feature(index, sequence, is_target, list(candidates), priors))
    return features

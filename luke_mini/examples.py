"""Pretraining examples: built from the paragraphs of a page, and stored in shards of flat arrays.

A paragraph with links becomes examples of up to 510 words, that is, tokens (LUKE, section 3.3); batches add <s> </s>:

    paragraph   "Oslo is in Norway. Ada moved there."      links: Norway (11, 17) and Ada (19, 22)
    sentences   "Oslo is in Norway."   "Ada moved there."
    segments    "Oslo is in " "Norway" "."   "Ada" " moved there."      cut at the borders of links
    example     ▁Oslo ▁is ▁in ▁Norway . ▁Ada ▁moved ▁there .   entities Norway, Ada; mention spans (3, 4), (5, 6)

Segments are tokenized one by one, so that a mention has its own tokens. A segment's first token has a space marker if
it follows a space or starts the paragraph, as in running text. All segments of some pages go to the tokenizer in one
call, and what follows is done to all their sentences at once, as flat arrays. Consecutive sentences then fill an
example until the next one does not fit.

A shard, `shard-00000.bin`, `shard-00001.bin`, ..., is a header of 40 bytes and six little-endian arrays for N examples
with W words and E entities in total:

    word_starts    int64  [N + 1]  words of example i: word_starts[i] to word_starts[i + 1]
    entity_starts  int64  [N + 1]  the same for entities
    page_ids       int32  [N]      entity id of the page's own title, -1 if it has none
    entity_ids     int32  [E]
    word_ids       uint16 [W]      uint32 if the vocabulary has more than 65,536 words; without <s> and </s>
    mention_spans  uint16 [E, 2]   half-open indices into the example's words

Shards are memory-mapped: opening one reads its header and the last element of two arrays; the rest is read on demand
into the operating system's cache, which all processes of a machine share. LUKE shuffles compressed TFRecord files
within a window of 1,000 examples; here every example can be read at any time. An average example (471 words, 19
mentions) takes 1.1 KB. Left out on purpose: compression. The folder's manifest.json has sizes and hashes of all its
files: sizes are compared whenever it is opened, hashes only after a file has changed (OUT/.checked remembers).
"""

import filecmp
import json
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from luke_mini import files
from luke_mini.spans import is_squeezed, split_sentences
from luke_mini.wikitext import Link, Paragraph

MAX_ENTITIES = 128  # per example; the first ones are kept
MAX_MENTION_LENGTH = 30  # tokens per mention; the first ones are kept
MIN_SENTENCE_LENGTH = 5  # tokens; shorter sentences are dropped

MAGIC = b"LUKESHRD"
VERSION = 1
HEADER = struct.Struct("<8sIIQQQ")  # magic, version, bytes per word id, examples, words, entities
NAME = "shard-{:05d}.bin"
MANIFEST, CHECKED = "manifest.json", ".checked"
TRAINED_ON = ("shard-*.bin", "entity_vocab.jsonl", "tokenizer/*")
PARTS = (*TRAINED_ON, "mentions.safetensors", "held_out_links.jsonl", "titles.txt", "redirects.tsv")  # of a data folder
WORDS_PER_SHARD = 1 << 26  # 134 MB with uint16 ids, twice that in the writer's memory; Wikipedia: about 50 shards
MAX_SEQUENCE = 1 << 16  # mention_spans are uint16


class Examples(NamedTuple):
    """B examples, or sentences, as flat integer arrays: the words of all of them, then their entities."""

    word_ids: np.ndarray  # [sum of word_lengths], without <s> and </s>
    word_lengths: np.ndarray  # [B]
    entity_ids: np.ndarray  # [sum of entity_lengths]
    entity_lengths: np.ndarray  # [B]
    mention_spans: np.ndarray  # [sum of entity_lengths, 2], half-open, in the words of the example
    page_ids: np.ndarray  # [B], entity id of the example's page, -1 if it is not in the entity vocabulary


# --- Building ---------------------------------------------------------------------------------------------------------

_WHITE_SPACE = re.compile(r"\s+")


def segments(text: str, borders: list[int]) -> list[str]:
    """The text between borders with single spaces, each segment with the space before it, as in front of the text."""
    text = f" {text}"  # each character is behind the one before it
    cuts = [border + (not text[border].isspace()) for border in borders]
    parts = [text[start:end] for start, end in pairwise(cuts)]
    return parts if is_squeezed(text) else [_WHITE_SPACE.sub(" ", part).rstrip() for part in parts]


def _sentences(text: str, links: list[Link], language: str) -> Iterator[tuple[int, int]]:
    """The sentences of a paragraph; those between which a link lies, as in [[Yahoo! Japan]], are one."""
    position, first = 0, None
    for start, end in split_sentences(text, language):
        first = start if first is None else first
        while position < len(links) and links[position].end <= end:  # both are in text order
            position += 1
        # differs from LUKE: it drops links across sentences
        if position == len(links) or links[position].start >= end:
            yield first, end
            first = None
    if first is not None:  # the last link ends in the white space behind the last sentence
        yield first, end


def _cut(text: str, links: list[Link], language: str) -> tuple[list[str], list[str], list[int]]:
    """A paragraph's segments, of each sentence text, mention, text, ..., mention, text; the titles of all mentions; how
    many each sentence has."""
    borders, titles, counts, position = [], [], [], 0
    for start, end in _sentences(text, links, language):
        borders.append(start)
        before = len(titles)
        while position < len(links) and links[position].start < end:
            title, link_start, link_end = links[position]
            if start <= link_start and link_end <= end:  # not in the white space between sentences
                borders += link_start, link_end
                titles.append(title)
            position += 1
        counts.append(len(titles) - before)
    # differs from LUKE: no token between adjacent mentions ([[Li]][[F]]), where LUKE has a space
    return segments(text, [*borders, len(text)]), titles, counts


def select(examples: Examples, kept: np.ndarray) -> Examples:
    """Some of B examples. kept: bool [B]."""
    words, entities = np.repeat(kept, examples.word_lengths), np.repeat(kept, examples.entity_lengths)
    kept_of = (words, kept, entities, kept, entities, kept)
    return Examples(*(array[mask] for array, mask in zip(examples, kept_of)))


def _sentences_of(words: np.ndarray, counts: np.ndarray, entity_ids: np.ndarray, mentions: np.ndarray,
                  pages: np.ndarray) -> Examples:  # fmt: skip
    """Each sentence as an example. counts: words of each segment; mentions, pages: of each sentence."""
    ends = np.concatenate([[0], np.cumsum(counts)])  # words before each segment
    starts = ends[np.concatenate([[0], np.cumsum(2 * mentions + 1)])]  # words before each sentence
    sentence = np.repeat(np.arange(len(mentions)), mentions)  # of each mention
    segment = 2 * np.arange(len(sentence)) + sentence + 1
    spans = np.stack([ends[segment], ends[segment + 1]], axis=1) - starts[sentence, None]
    # differs from LUKE: mentions without tokens (say, only control characters) are dropped
    kept = counts[segment] > 0
    lengths = np.bincount(sentence[kept], minlength=len(mentions))
    return Examples(words, np.diff(starts), entity_ids[kept], lengths, spans[kept], pages)


def _packed(sentences: Examples, max_words: int) -> Examples:
    """Joins consecutive sentences while they have at most max_words words in total.

    As in LUKE, examples span paragraphs, sections and dropped sentences, but never pages.
    """
    lengths, firsts, room, page = sentences.word_lengths, [], 0, None  # of each example, its first sentence
    for number, (length, own) in enumerate(zip(lengths.tolist(), sentences.page_ids.tolist())):
        if length > room or own != page:
            firsts.append(number)
            room, page = max_words, own
        room -= length
    firsts = np.array(firsts, np.int64)
    before = np.cumsum(lengths) - lengths  # words before each sentence
    shifts = before - np.repeat(before[firsts], np.diff(firsts, append=len(lengths)))
    return Examples(
        sentences.word_ids, np.add.reduceat(lengths, firsts), sentences.entity_ids,
        np.add.reduceat(sentences.entity_lengths, firsts),
        sentences.mention_spans + np.repeat(shifts, sentences.entity_lengths)[:, None], sentences.page_ids[firsts],
    )  # fmt: skip


def _trimmed(examples: Examples) -> Examples:
    """With the first MAX_ENTITIES of each example and MAX_MENTION_LENGTH words of each mention."""
    counts = examples.entity_lengths
    kept = ranges(np.zeros_like(counts), counts) < MAX_ENTITIES
    spans = examples.mention_spans[kept]
    spans[:, 1] = np.minimum(spans[:, 1], spans[:, 0] + MAX_MENTION_LENGTH)
    return examples._replace(
        entity_ids=examples.entity_ids[kept], entity_lengths=np.minimum(counts, MAX_ENTITIES), mention_spans=spans)


def build_examples(
    pages: Iterable[tuple[str, Iterable[Paragraph]]], tokenizer, entity_ids: Mapping[str, int], *,
    unk_entity_id: int | None, language: str = "en", max_seq_length: int = 512,
    sentences_without_entities: bool = False, abstract_only: bool = False, lost: Counter[str] | None = None,
) -> tuple[Examples, np.ndarray]:  # fmt: skip
    """The examples of some pages (title, paragraphs), and how many each page has.

    entity_ids: title -> id, including redirects (`EntityVocab.link_table`). unk_entity_id: id for other titles: [UNK]'s
    as in LUKE; None drops such links as in mLUKE. Sentences of fewer than MIN_SENTENCE_LENGTH or more than
    max_seq_length - 2 tokens are dropped, and examples without entities unless sentences_without_entities. `lost`
    counts the links that become no entity, by reason, and as "unk" those that become [UNK].
    """
    lost = Counter() if lost is None else lost
    page_ids, per_page = [], []  # of each page: its entity, its sentences
    found = segments, titles, mentions = [], [], []
    for title, paragraphs in pages:
        before = len(mentions)
        for text, links, is_abstract in paragraphs:
            if abstract_only and not is_abstract:
                lost["outside_abstract"] += len(links)
                continue
            known = links if unk_entity_id is not None else [link for link in links if link.title in entity_ids]
            lost["unknown_title"] += len(links) - len(known)
            lost["no_token"] += len(known)  # less those that have some, see below
            for all_of_them, more in zip(found, _cut(text, known, language)):
                all_of_them += more
        page_ids.append(entity_ids.get(title, -1))
        per_page.append(len(mentions) - before)
    ids = np.array([entity_ids.get(title, unk_entity_id) for title in titles], np.int64)
    words, counts = tokenizer.encode_parts(segments)
    page = np.repeat(np.arange(len(per_page)), per_page)
    sentences = _sentences_of(words, counts, ids, np.array(mentions, np.int64), page)

    max_words, links = max_seq_length - 2, sentences.entity_lengths
    is_short, is_long = sentences.word_lengths < MIN_SENTENCE_LENGTH, sentences.word_lengths > max_words
    packed = _packed(select(sentences, ~(is_short | is_long)), max_words)
    if not sentences_without_entities:
        packed = select(packed, packed.entity_lengths > 0)
    made = _trimmed(packed)
    lost["no_token"] -= int(links.sum())
    lost["sentence_too_short"] += int(links[is_short].sum())
    lost["sentence_too_long"] += int(links[is_long].sum())
    lost["beyond_the_first_128"] += len(packed.entity_ids) - len(made.entity_ids)
    lost["unk"] += int((made.entity_ids == unk_entity_id).sum())
    per_page = np.bincount(made.page_ids, minlength=len(page_ids))
    return made._replace(page_ids=np.array(page_ids, np.int64)[made.page_ids]), per_page


# --- Writing ----------------------------------------------------------------------------------------------------------


def _layout(word_bytes: int, examples: int, words: int, entities: int) -> dict[str, tuple[np.dtype, int]]:
    """Name -> (dtype, number of elements), in file order; the widest first, so that all are aligned without padding."""
    return {
        "word_starts": (np.dtype("<i8"), examples + 1),
        "entity_starts": (np.dtype("<i8"), examples + 1),
        "page_ids": (np.dtype("<i4"), examples),
        "entity_ids": (np.dtype("<i4"), entities),
        "word_ids": (np.dtype(f"<u{word_bytes}"), words),
        "mention_spans": (np.dtype("<u2"), 2 * entities),
    }


def write_shard(path: str | Path, blocks: list[Examples], word_vocab_size: int) -> None:
    """Writes all examples of the blocks as one shard."""
    longest = max(block.word_lengths.max(initial=0) for block in blocks)
    largest = max(block.word_ids.max(initial=0) for block in blocks)
    if longest >= MAX_SEQUENCE or largest >= word_vocab_size:
        raise ValueError(
            f"{path}: an example of {longest} words (at most {MAX_SEQUENCE - 1}) "
            f"or word id {largest} (vocabulary: {word_vocab_size})"
        )

    def starts(lengths: str) -> np.ndarray:
        return np.cumsum(np.concatenate([[0], *(getattr(block, lengths) for block in blocks)]), dtype=np.int64)

    word_starts, entity_starts = starts("word_lengths"), starts("entity_lengths")
    sizes = (2 if word_vocab_size <= 1 << 16 else 4, len(word_starts) - 1, word_starts[-1], entity_starts[-1])
    arrays = {"word_starts": [word_starts], "entity_starts": [entity_starts]}
    with files.write_file(path, "wb") as file:
        file.write(HEADER.pack(MAGIC, VERSION, *map(int, sizes)))
        for name, (dtype, _) in _layout(*sizes).items():
            for part in arrays.get(name) or [getattr(block, name) for block in blocks]:
                file.write(np.ascontiguousarray(part, dtype=dtype).data)


class ShardWriter:
    """Writes a shard whenever its blocks reach `words_per_shard`, so that memory does not grow with the text."""

    def __init__(self, folder: str | Path, word_vocab_size: int, words_per_shard: int = WORDS_PER_SHARD):
        self.folder = Path(folder)
        self.word_vocab_size = word_vocab_size
        self.words_per_shard = words_per_shard
        self.counts = {"shards": 0, "examples": 0, "words": 0, "entities": 0}  # including what is not yet written
        self._waiting: list[Examples] = []
        self._waiting_words = 0

    def write(self, block: Examples) -> None:
        self.counts["examples"] += len(block.word_lengths)
        self.counts["words"] += len(block.word_ids)
        self.counts["entities"] += len(block.entity_ids)
        self._waiting.append(block)
        self._waiting_words += len(block.word_ids)
        if self._waiting_words >= self.words_per_shard:
            self.close()

    def close(self) -> None:
        """Writes the blocks not yet written, if they have any example."""
        if any(len(block.word_lengths) for block in self._waiting):
            write_shard(self.folder / NAME.format(self.counts["shards"]), self._waiting, self.word_vocab_size)
            self.counts["shards"] += 1
        self._waiting, self._waiting_words = [], 0


# --- Reading ----------------------------------------------------------------------------------------------------------


def open_shard(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one shard, mapped read-only. ValueError if the file is not a shard, damaged or truncated."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size or header[:8] != MAGIC:
        raise ValueError(f"{path}: not a shard, expected {MAGIC.decode()} as its first 8 bytes")
    _, version, *sizes = HEADER.unpack(header)
    if version != VERSION or sizes[0] not in (2, 4):
        raise ValueError(f"{path}: shard version {version} with {sizes[0]}-byte words, expected {VERSION} with 2 or 4")
    layout = _layout(*sizes)
    expected = HEADER.size + sum(dtype.itemsize * count for dtype, count in layout.values())
    if size != expected:
        raise ValueError(f"{path}: {size} bytes, expected {expected} from its header: damaged or truncated")
    raw = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # asarray: memmap's own indexing is slow
    arrays, position = {}, HEADER.size
    for name, (dtype, count) in layout.items():
        arrays[name] = raw[position : position + dtype.itemsize * count].view(dtype)
        position += dtype.itemsize * count
    arrays["mention_spans"] = arrays["mention_spans"].reshape(-1, 2)
    if (arrays["word_starts"][-1], arrays["entity_starts"][-1]) != (sizes[2], sizes[3]):
        raise ValueError(f"{path}: its arrays do not end where its header says: damaged")
    return arrays


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """lengths[0] numbers from starts[0] on, then the next: ranges([7, 2], [2, 3]) -> 7 8 2 3 4."""
    shifts = starts - (np.cumsum(lengths) - lengths)  # added to 0, 1, 2, ... to get each run
    return np.arange(lengths.sum()) + np.repeat(shifts, lengths)


class Shards:
    """All examples of one or several data folders, numbered through the folders and their shards in order."""

    def __init__(self, folders: list[list[dict[str, np.ndarray]]]):
        self.sizes = [sum(len(shard["page_ids"]) for shard in shards) for shards in folders]  # examples per folder
        self._shards = [shard for shards in folders for shard in shards]
        self._first = np.cumsum([0] + [len(shard["page_ids"]) for shard in self._shards])  # each shard's first example

    @classmethod
    def open(cls, *folders: str | Path) -> "Shards":
        """Maps `folder`/shard-*.bin. ValueError if there is none, or one is missing or damaged."""
        return cls([[open_shard(path) for path in _shard_paths(Path(folder))] for folder in folders])

    def __len__(self) -> int:
        return sum(self.sizes)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [len(self)], words of every example, without <s> and </s>."""
        return np.concatenate([np.diff(shard["word_starts"]) for shard in self._shards])

    @property
    def entity_counts(self) -> np.ndarray:
        """int64 [len(self)], entities of every example."""
        return np.concatenate([np.diff(shard["entity_starts"]) for shard in self._shards])

    def gather(self, indices: np.ndarray) -> Examples:
        """The examples `indices` [B], in that order, repeats allowed, as flat int64 arrays."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not (0 <= indices.min() and indices.max() < len(self)):
            raise IndexError(f"examples {indices.min()} to {indices.max()} requested, there are {len(self)}")
        number = np.searchsorted(self._first, indices, side="right") - 1  # the shard of each example
        parts = []  # (shard, rows of the result, their indices in the shard)
        for k in np.unique(number):
            rows = np.flatnonzero(number == k)
            parts.append((self._shards[k], rows, indices[rows] - self._first[k]))
        word_lengths, words = _gather_ragged(parts, len(indices), "word", "word_ids")
        entity_lengths, entities, spans = _gather_ragged(parts, len(indices), "entity", "entity_ids", "mention_spans")
        pages = np.full(len(indices), -1, np.int64)
        for shard, rows, local in parts:
            pages[rows] = shard["page_ids"][local]
        return Examples(words, word_lengths, entities, entity_lengths, spans, pages)


def _shard_paths(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("shard-*.bin"))
    if not paths:
        raise ValueError(f"{folder}: no shard-*.bin here; make them with prepare_wiki.py --out {folder}")
    for number, path in enumerate(paths):
        if path.name != NAME.format(number):
            raise ValueError(f"{folder}: {NAME.format(number)} is missing, though {path.name} is there")
    return paths


def _gather_ragged(parts: list, batch: int, kind: str, *names: str) -> list[np.ndarray]:
    """The length of each example [batch] in items of a kind ("word", "entity"), and the flat int64 arrays `names`."""
    lengths = np.zeros(batch, dtype=np.int64)
    for shard, rows, local in parts:
        starts = shard[f"{kind}_starts"]
        lengths[rows] = starts[local + 1] - starts[local]
    target = np.cumsum(lengths) - lengths  # where each example starts in the result
    results = [np.empty((lengths.sum(), 2) if name == "mention_spans" else lengths.sum(), np.int64) for name in names]
    for shard, rows, local in parts:
        source = ranges(shard[f"{kind}_starts"][local], lengths[rows])
        destination = ranges(target[rows], lengths[rows])
        for result, name in zip(results, names):
            result[destination] = shard[name][source]
    return [lengths, *results]


def open_folders(folders: list[Path], room: int) -> Shards:
    """The examples of the data folders, which must have the same tokenizer and entity vocabulary.

    ValueError if prepare_wiki.py did not finish a folder, or its sequences are longer than `room` tokens.
    """
    manifests = []
    for folder in folders:
        path = folder / MANIFEST
        if not path.is_file():
            if languages := sorted(str(found.parent) for found in folder.glob(f"*/{MANIFEST}")):
                raise ValueError(f"{folder}: has a folder for each language, expected {' '.join(languages)}")
            held = f"{folder}: no {path.name}, so prepare_wiki.py has not finished"
            raise ValueError(f"{held}; run it with --out {folder}")
        manifests.append(files.Record(str(path), files.read_object(path)))
        if (longest := manifests[-1].get("max_seq_length", int)) > room:
            raise ValueError(f"{folder}: sequences of up to {longest} tokens, the model takes {room}")
    for folder in folders[1:]:
        check_same_vocabularies(folder, folders[0])
    shards = Shards.open(*folders)
    for folder, size, manifest in zip(folders, shards.sizes, manifests):
        if size != (expected := manifest.get("examples", int)):
            raise ValueError(f"{folder}: {size} examples, but its {MANIFEST} promises {expected}")
        check_parts(folder, manifest)
    return shards


def describe_parts(folder: Path) -> dict[str, dict]:
    """{"shard-00000.bin": {"bytes": 134217768, "sha256": "..."}, ...}, all files that training reads."""
    return {name: {"bytes": size, "sha256": files.sha256(folder / name)} for name, (size, _) in _stamps(folder).items()}


def part_hashes(folder: Path) -> dict[str, str]:
    """Of what is trained on, for `saves.check_same_run`."""
    made = files.read_object(folder / MANIFEST).get("files") or describe_parts(folder)
    return {name: part["sha256"][:16] for name, part in made.items() if any(map(Path(name).match, TRAINED_ON))}


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size and time of last change of every part."""
    found = {str(path.relative_to(folder)): path.stat() for pattern in PARTS for path in sorted(folder.glob(pattern))
             if path.is_file()}  # fmt: skip
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}


def check_parts(folder: Path, manifest: files.Record) -> None:
    """ValueError if a part is not the one that the manifest describes, or an id is outside of the vocabularies.

    Manifests of older versions have no "files": they are believed.
    """
    expected = files.Record(manifest.where, manifest.get("files", dict, {}))
    stamps, damaged = _stamps(folder), "damaged, or from another run of prepare_wiki.py"
    for name in sorted(expected.values.keys() | stamps.keys() if expected.values else ()):
        sizes = expected.get(name, dict, {}).get("bytes", "nothing"), stamps.get(name, ["nothing"])[0]
        if sizes[0] != sizes[1]:
            raise ValueError(f"{folder / name}: {sizes[1]} there, {sizes[0]} expected (bytes): {damaged}")
    if _is_checked(folder, stamps):
        return
    for name, part in expected.values.items():
        if files.sha256(folder / name) != part.get("sha256"):
            raise ValueError(f"{folder / name}: not what {MANIFEST} has the hash of: {damaged}")
    for path in _shard_paths(folder):
        arrays = open_shard(path)
        for kind in ("word", "entity"):
            ids, size = arrays[f"{kind}_ids"], manifest.get(f"{kind}_vocab_size", int, 1 << 32)
            if len(ids) and not 0 <= ids.min() <= ids.max() < size:
                raise ValueError(f"{path}: {kind} ids from {ids.min()} to {ids.max()}, expected 0 to {size - 1}")
    with suppress(OSError):  # a folder that is not ours to write: checked again next time
        (folder / CHECKED).write_text(json.dumps(stamps), encoding="utf-8")


def _is_checked(folder: Path, stamps: dict) -> bool:
    with suppress(OSError, ValueError):
        return json.loads((folder / CHECKED).read_text(encoding="utf-8")) == stamps
    return False


def check_same_vocabularies(folder: Path, first: Path) -> None:
    for path in [*sorted((first / "tokenizer").iterdir()), first / "entity_vocab.jsonl"]:
        other = folder / path.relative_to(first)
        if not other.is_file() or not filecmp.cmp(path, other, shallow=False):
            options = f"--tokenizer {first}/tokenizer --entity-vocab {first}/entity_vocab.jsonl"
            raise ValueError(f"{other} differs from {path}: make this folder with prepare_wiki.py {options}")

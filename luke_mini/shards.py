"""Pretraining examples on disk: `shard-00000.bin`, `shard-00001.bin`, ... of flat arrays, read through memory maps.

In: blocks of examples (`flatten` makes one from a list). Out: any set of examples as flat arrays (`Shards.gather`).
A shard is a header of 40 bytes and six little-endian arrays, for N examples with W words and E entities in all:

    word_starts    int64  [N + 1]  words of example i: word_starts[i] to word_starts[i + 1]
    entity_starts  int64  [N + 1]  the same for entities
    page_ids       int32  [N]      entity id of the page the example is from, -1 if it has none
    entity_ids     int32  [E]
    word_ids       uint16 [W]      uint32 if the vocabulary has more than 65,536 words; without <s> and </s>
    mention_spans  uint16 [E, 2]   half-open words of its example that mention the entity

Opening a shard reads its header and the last element of two arrays; everything else stays on disk until it is asked
for, and then lives in the operating system's cache, which all processes of a machine share. LUKE keeps its examples in
compressed TFRecord files and shuffles within a window of 1,000; here any example can be reached at any time. An average
example (471 words, 19 mentions) takes 1.1 KB. Left out on purpose: compression, and checksums of the arrays.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from luke_mini import files

MAGIC = b"LUKESHRD"
VERSION = 1
HEADER = struct.Struct("<8sIIQQQ")  # magic, version, bytes per word id, examples, words, entities
NAME = "shard-{:05d}.bin"
WORDS_PER_SHARD = 1 << 26  # 134 MB with uint16 ids, twice that in the writer's memory; Wikipedia: about 50 shards
MAX_SEQUENCE = 1 << 16  # mention_spans are uint16


class Example(NamedTuple):
    """One training sequence; what is written here and read back."""

    page_id: int  # entity id of its page, -1 if the page is not in the entity vocabulary
    word_ids: list[int]  # without <s> and </s>
    entity_ids: list[int]
    mention_spans: list[tuple[int, int]]  # half-open indices of word_ids, one per entity


class Gathered(NamedTuple):
    """B examples as flat integer arrays: all words, example after example, then the same for entities."""

    word_ids: np.ndarray  # [sum of word_lengths]
    word_lengths: np.ndarray  # [B]
    entity_ids: np.ndarray  # [sum of entity_lengths]
    entity_lengths: np.ndarray  # [B]
    mention_spans: np.ndarray  # [sum of entity_lengths, 2]
    page_ids: np.ndarray  # [B]


def flatten(examples: list[Example]) -> Gathered:
    """A block of examples as flat int32 arrays: what the writer takes and what processes send to each other."""

    def flat(lists) -> np.ndarray:
        return np.array([item for items in lists for item in items], dtype=np.int32)

    return Gathered(
        word_ids=flat(example.word_ids for example in examples),
        word_lengths=np.array([len(example.word_ids) for example in examples], dtype=np.int32),
        entity_ids=flat(example.entity_ids for example in examples),
        entity_lengths=np.array([len(example.entity_ids) for example in examples], dtype=np.int32),
        mention_spans=flat(example.mention_spans for example in examples).reshape(-1, 2),
        page_ids=np.array([example.page_id for example in examples], dtype=np.int32),
    )


def _layout(word_bytes: int, examples: int, words: int, entities: int) -> dict[str, tuple[np.dtype, int]]:
    """Name -> (dtype, number of elements), in file order. Widest first: so every array is aligned without padding."""
    return {
        "word_starts": (np.dtype("<i8"), examples + 1),
        "entity_starts": (np.dtype("<i8"), examples + 1),
        "page_ids": (np.dtype("<i4"), examples),
        "entity_ids": (np.dtype("<i4"), entities),
        "word_ids": (np.dtype(f"<u{word_bytes}"), words),
        "mention_spans": (np.dtype("<u2"), 2 * entities),
    }


def _starts(blocks: list[Gathered], field: str) -> np.ndarray:
    lengths = np.concatenate([getattr(block, field) for block in blocks])
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def write_shard(path: str | Path, blocks: list[Gathered], word_vocab_size: int) -> None:
    """Writes all examples of the blocks as one shard, whole or not at all. OSError if the disk is full."""
    longest = max(block.word_lengths.max(initial=0) for block in blocks)
    largest = max(block.word_ids.max(initial=0) for block in blocks)
    if longest >= MAX_SEQUENCE or largest >= word_vocab_size:
        raise ValueError(
            f"{path}: an example of {longest} words (at most {MAX_SEQUENCE - 1}) "
            f"or word id {largest} (vocabulary: {word_vocab_size})"
        )
    word_starts, entity_starts = _starts(blocks, "word_lengths"), _starts(blocks, "entity_lengths")
    sizes = (2 if word_vocab_size <= 1 << 16 else 4, len(word_starts) - 1, word_starts[-1], entity_starts[-1])
    arrays = {"word_starts": [word_starts], "entity_starts": [entity_starts]}
    with files.write_file(path, "wb") as file:
        file.write(HEADER.pack(MAGIC, VERSION, *map(int, sizes)))
        for name, (dtype, _) in _layout(*sizes).items():
            for part in arrays.get(name) or [getattr(block, name) for block in blocks]:
                file.write(np.ascontiguousarray(part, dtype=dtype).data)


class ShardWriter:
    """Collects blocks, writes a shard whenever `words_per_shard` is reached: memory does not grow with the text."""

    def __init__(self, folder: str | Path, word_vocab_size: int, words_per_shard: int = WORDS_PER_SHARD):
        self.folder = Path(folder)
        self.word_vocab_size = word_vocab_size
        self.words_per_shard = words_per_shard
        self.examples = self.words = self.entities = self.shards = 0  # written and waiting
        self._waiting: list[Gathered] = []
        self._waiting_words = 0

    def write(self, block: Gathered) -> None:
        self.examples += len(block.word_lengths)
        self.words += len(block.word_ids)
        self.entities += len(block.entity_ids)
        self._waiting.append(block)
        self._waiting_words += len(block.word_ids)
        if self._waiting_words >= self.words_per_shard:
            self.close()

    def close(self) -> None:
        """Writes what is waiting. Without examples there is no file."""
        if any(len(block.word_lengths) for block in self._waiting):
            write_shard(self.folder / NAME.format(self.shards), self._waiting, self.word_vocab_size)
            self.shards += 1
        self._waiting, self._waiting_words = [], 0


def _open_shard(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one shard, mapped read-only. ValueError if the file is no shard, is damaged or was cut."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size or header[:8] != MAGIC:
        raise ValueError(f"{path}: no shard of luke-mini, the first 8 bytes should be {MAGIC.decode()}")
    _, version, *sizes = HEADER.unpack(header)
    if version != VERSION or sizes[0] not in (2, 4):
        raise ValueError(f"{path}: shard version {version} with {sizes[0]}-byte words, expected {VERSION} with 2 or 4")
    layout = _layout(*sizes)
    expected = HEADER.size + sum(dtype.itemsize * count for dtype, count in layout.values())
    if size != expected:
        raise ValueError(f"{path}: {size} bytes, but its header promises {expected}: damaged or cut short")
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
    """lengths[0] numbers from starts[0] on, then the same for the next: starts [7, 2], lengths [2, 3] -> 7 8 2 3 4."""
    shifts = starts - (np.cumsum(lengths) - lengths)  # what each run's share of a plain 0, 1, 2, ... must be moved by
    return np.arange(lengths.sum()) + np.repeat(shifts, lengths)


class Shards:
    """All examples of a data folder, numbered through its shards in order. Make one with `Shards.open`."""

    def __init__(self, shards: list[dict[str, np.ndarray]]):
        self._shards = shards
        self._first = np.cumsum([0] + [len(shard["page_ids"]) for shard in shards])  # example where each shard begins
        self._lengths: np.ndarray | None = None

    @classmethod
    def open(cls, folder: str | Path) -> "Shards":
        """Maps `folder`/shard-*.bin. ValueError, one line, if there is none, one is missing or one is damaged."""
        paths = sorted(Path(folder).glob("shard-*.bin"))
        if not paths:
            raise ValueError(f"{folder}: no shard-*.bin here; prepare_wiki.py --out {folder} makes them")
        for number, path in enumerate(paths):
            if path.name != NAME.format(number):
                raise ValueError(f"{folder}: {NAME.format(number)} is missing, though {path.name} is there")
        return cls([_open_shard(path) for path in paths])

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def lengths(self) -> np.ndarray:
        """int64 [len(self)], words of every example, without <s> and </s>; computed at first use."""
        if self._lengths is None:
            self._lengths = np.concatenate([np.diff(shard["word_starts"]) for shard in self._shards])
        return self._lengths

    def gather(self, indices: np.ndarray) -> Gathered:
        """The examples `indices` [B], in that order, repeats allowed, as flat int64 arrays. No loop over examples."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not (0 <= indices.min() and indices.max() < len(self)):
            raise IndexError(f"examples {indices.min()} to {indices.max()} asked for, there are {len(self)}")
        number = np.searchsorted(self._first, indices, side="right") - 1  # the shard of each example
        wanted = []  # (shard, the rows of the result that it fills, their indices in the shard)
        for k in np.unique(number):
            rows = np.flatnonzero(number == k)
            wanted.append((self._shards[k], rows, indices[rows] - self._first[k]))
        page_ids = np.empty(len(indices), dtype=np.int64)
        for shard, rows, local in wanted:
            page_ids[rows] = shard["page_ids"][local]
        words, word_lengths = _gather_ragged(wanted, len(indices), "word_starts", ["word_ids"])
        entities, entity_lengths = _gather_ragged(
            wanted, len(indices), "entity_starts", ["entity_ids", "mention_spans"]
        )
        return Gathered(words[0], word_lengths, entities[0], entity_lengths, entities[1], page_ids)

    def example(self, index: int) -> Example:
        """One example as Python lists, to look at."""
        found = self.gather(np.array([index]))
        spans = [tuple(span) for span in found.mention_spans.tolist()]
        return Example(int(found.page_ids[0]), found.word_ids.tolist(), found.entity_ids.tolist(), spans)


def _gather_ragged(wanted: list, batch: int, starts_name: str, names: list[str]) -> tuple[list, np.ndarray]:
    """Flat int64 arrays `names` of the wanted examples, and the length of each example [batch]."""
    lengths = np.zeros(batch, dtype=np.int64)
    for shard, rows, local in wanted:
        starts = shard[starts_name]
        lengths[rows] = starts[local + 1] - starts[local]
    target = np.cumsum(lengths) - lengths  # where each example begins in the result
    results = [np.empty((lengths.sum(), 2) if name == "mention_spans" else lengths.sum(), np.int64) for name in names]
    for shard, rows, local in wanted:
        source = ranges(shard[starts_name][local], lengths[rows])
        destination = ranges(target[rows], lengths[rows])
        for result, name in zip(results, names):
            result[destination] = shard[name][source]
    return results, lengths

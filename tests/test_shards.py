"""Shards: round trips, gather against a loop over examples, damaged files, full disks.

    pytest tests/test_shards.py
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PEAK, needs_proc

from luke_mini import shards
from luke_mini.shards import Example, Shards, ShardWriter, flatten, write_shard

ROOT = Path(__file__).parent.parent


def random_examples(count: int, vocab: int, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        words, entities = int(rng.integers(1, 40)), int(rng.integers(0, 6))
        starts = rng.integers(0, words, entities)
        examples.append(
            Example(
                page_id=int(rng.integers(-1, 2**31 - 1)),
                word_ids=rng.integers(0, vocab, words).tolist(),
                entity_ids=rng.integers(0, 2**31 - 1, entities).tolist(),
                mention_spans=[(int(s), int(rng.integers(s, words)) + 1) for s in starts],
            )
        )
    return examples


def write_all(folder: Path, examples: list[Example], vocab: int, words_per_shard: int, block: int = 3) -> ShardWriter:
    writer = ShardWriter(folder, vocab, words_per_shard)
    for k in range(0, len(examples), block):
        writer.write(flatten(examples[k : k + block]))
    writer.close()
    return writer


def test_hand_worked_file(tmp_path):
    """One example, every byte of the file: header, two starts each, page, entity, three words, one span."""
    path = tmp_path / "shard-00000.bin"
    write_shard(path, [flatten([Example(7, [5, 6, 300], [9], [(1, 3)])])], word_vocab_size=1000)
    assert path.read_bytes() == (
        b"LUKESHRD" + bytes([1, 0, 0, 0, 2, 0, 0, 0]) + b"".join(n.to_bytes(8, "little") for n in (1, 3, 1))
        + b"".join(n.to_bytes(8, "little") for n in (0, 3, 0, 1))
        + bytes([7, 0, 0, 0, 9, 0, 0, 0])
        + bytes([5, 0, 6, 0, 44, 1])
        + bytes([1, 0, 3, 0])
    )  # fmt: skip


@pytest.mark.parametrize("vocab", [1000, 1 << 16, (1 << 16) + 1, 250004])
@pytest.mark.parametrize("words_per_shard", [1, 100, 10**9])
def test_round_trip(tmp_path, vocab, words_per_shard):
    examples = random_examples(50, vocab)
    writer = write_all(tmp_path, examples, vocab, words_per_shard)
    opened = Shards.open(tmp_path)
    assert [opened.example(k) for k in range(len(opened))] == examples
    assert opened.lengths.tolist() == [len(example.word_ids) for example in examples]
    assert writer.examples == len(examples) and writer.words == opened.lengths.sum()
    assert writer.entities == sum(len(example.entity_ids) for example in examples)
    assert writer.shards == len(list(tmp_path.glob("shard-*.bin")))
    assert words_per_shard == 100 or writer.shards == {1: 17, 10**9: 1}[words_per_shard]
    width = shards._open_shard(tmp_path / "shard-00000.bin")["word_ids"].dtype.itemsize
    assert width == (2 if vocab <= 1 << 16 else 4)


def test_gather_equals_a_loop(tmp_path):
    """Any order, with repeats, over many shards: what a loop over examples puts together."""
    examples = random_examples(60, 5000, seed=1)
    write_all(tmp_path, examples, 5000, words_per_shard=150)
    opened = Shards.open(tmp_path)
    rng = np.random.default_rng(2)
    for size in (1, 2, 17, 100):
        indices = rng.integers(0, len(examples), size)
        found, expected = opened.gather(indices), flatten([examples[k] for k in indices])
        for name, ours, loop in zip(found._fields, found, expected):
            assert ours.dtype == np.int64 and np.array_equal(ours, loop), name


def test_gather_nothing_and_too_far(tmp_path):
    write_all(tmp_path, random_examples(5, 100), 100, 10**9)
    opened = Shards.open(tmp_path)
    empty = opened.gather(np.array([], dtype=np.int64))
    assert [array.shape for array in empty] == [(0,), (0,), (0,), (0,), (0, 2), (0,)]
    for wrong in ([5], [-1], [0, 9]):
        with pytest.raises(IndexError, match="there are 5"):
            opened.gather(np.array(wrong))


@needs_proc
def test_opening_reads_almost_nothing(tmp_path):
    """The address space grows by the file, the memory in use does not: measured in a fresh process."""
    write_shard(tmp_path / "shard-00000.bin", [flatten(random_examples(2000, 60000))] * 400, 60000)
    code = PEAK + (
        "import sys; from luke_mini.shards import Shards\n"
        "before = peak()\n"
        "opened = Shards.open(sys.argv[1]); opened.example(777777)\n"
        "print(peak() - before)"
    )
    size = (tmp_path / "shard-00000.bin").stat().st_size
    grown = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT)
    assert size > 50e6 and int(grown.stdout) < size / 8


@pytest.mark.parametrize("keep", [0, 20, 39, 40, 200, -1])
def test_truncated_shard_is_refused(tmp_path, keep):
    write_all(tmp_path, random_examples(20, 100), 100, 10**9)
    path = tmp_path / "shard-00000.bin"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="shard-00000.bin") as error:
        Shards.open(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("position", "what"), [(0, "no shard"), (8, "version"), (12, "version"), (16, "bytes"), (24, "bytes")]
)
def test_damaged_header_is_refused(tmp_path, position, what):
    write_all(tmp_path, random_examples(20, 100), 100, 10**9)
    path = tmp_path / "shard-00000.bin"
    data = bytearray(path.read_bytes())
    data[position] ^= 5
    path.write_bytes(data)
    with pytest.raises(ValueError, match=what):
        Shards.open(tmp_path)


def test_inconsistent_starts_are_refused(tmp_path):
    write_all(tmp_path, random_examples(20, 100), 100, 10**9)
    path = tmp_path / "shard-00000.bin"
    data = bytearray(path.read_bytes())
    data[shards.HEADER.size + 20 * 8] ^= 1  # the last element of word_starts
    path.write_bytes(data)
    with pytest.raises(ValueError, match="do not end where"):
        Shards.open(tmp_path)


def test_missing_shards_are_named(tmp_path):
    with pytest.raises(ValueError, match="no shard-"):
        Shards.open(tmp_path)
    write_all(tmp_path, random_examples(20, 100), 100, 60)
    (tmp_path / "shard-00001.bin").unlink()
    with pytest.raises(ValueError, match="shard-00001.bin is missing"):
        Shards.open(tmp_path)


def test_ids_outside_of_the_vocabulary_are_refused(tmp_path):
    with pytest.raises(ValueError, match="word id 100"):
        write_shard(tmp_path / "shard-00000.bin", [flatten([Example(-1, [1, 100], [], [])])], 100)
    with pytest.raises(ValueError, match="65536 words"):
        write_shard(tmp_path / "shard-00000.bin", [flatten([Example(-1, [1] * 65536, [], [])])], 100)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_file(tmp_path):
    """A limit on the size of files stands in for the full disk: the same OSError path."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError):
            write_all(tmp_path, random_examples(2000, 100), 100, 10**9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert os.listdir(tmp_path) == []

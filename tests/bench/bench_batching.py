"""How many sequences per second of processor time one core turns from shards into masked, packed batches.

    python tests/bench/bench_batching.py [--examples 20000] [--micro-batch 64] [--seconds 5]

Synthetic shards of Wikipedia's shape: 471 words (three in four begin a word) and 19 mentions of 2.6 pieces on average.
They are written to a temporary folder and lie in the operating system's cache, so no disk is measured. The steps are
timed apart; `all` is what `batching.batches` yields. For comparison, on the same kind of machine: LUKE's own worker
makes 650 to 760 sequences a second and core.
"""

import argparse
import tempfile
import time
from dataclasses import replace

import numpy as np
import project  # noqa: F401 (finds luke_mini)
import torch

from luke_mini import masking
from luke_mini.batching import BatchRules, batches, epoch_order, make_batch
from luke_mini.examples import Examples, Shards, write_shard

VOCAB, ENTITIES = 50267, 500_000


def synthetic(n: int, rng: np.random.Generator) -> Examples:
    """n examples: lengths skewed towards 510 with mean 471, mentions with mean 19 and at most 112."""
    word_lengths = np.clip(510 - rng.exponential(40, n), 60, 510).astype(np.int64)
    entity_lengths = np.clip(rng.gamma(3.0, 19 / 3.0, n), 1, 112).astype(np.int64)
    owner_words = np.repeat(word_lengths, entity_lengths)
    lengths = np.minimum(1 + rng.poisson(1.6, len(owner_words)), owner_words)
    starts = (rng.random(len(owner_words)) * (owner_words - lengths)).astype(np.int64)
    return Examples(
        word_ids=rng.integers(5, VOCAB - 3, word_lengths.sum()),
        word_lengths=word_lengths,
        entity_ids=rng.integers(3, ENTITIES - 1, entity_lengths.sum()),
        entity_lengths=entity_lengths,
        mention_spans=np.stack([starts, starts + lengths], axis=1),
        page_ids=rng.integers(3, ENTITIES - 1, n),
    )


def rate(work, sequences: int, seconds: float) -> float:
    """Sequences per second of processor time, the best of five rounds: other work on the machine only slows down."""
    best, work_time = 0.0, seconds / 5
    work()
    for _ in range(5):
        count, begin = 0, time.process_time()
        while (elapsed := time.process_time() - begin) < work_time:
            work()
            count += sequences
        best = max(best, count / elapsed)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each line")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    starts_word = rng.random(VOCAB) < 0.75
    rules = BatchRules(
        bos_id=0,
        pad_id=1,
        eos_id=2,
        words=masking.Scheme(50264, VOCAB, (0, 1, 2, 3, 50264, 50265, 50266)),
        entities=masking.Scheme(2, ENTITIES, (0, 1, 2, ENTITIES - 1), random=0.0, unmasked=0.0),
        starts_word=starts_word,
    )
    size = arguments.micro_batch
    with tempfile.TemporaryDirectory() as folder:
        made = synthetic(arguments.examples, rng)
        write_shard(f"{folder}/shard-00000.bin", [made], VOCAB)
        shards = Shards.open(folder)
        print(
            f"{len(shards):,} examples, on average {made.word_lengths.mean():.0f} words and "
            f"{made.entity_lengths.mean():.1f} mentions of {np.diff(made.mention_spans).mean():.1f} pieces; "
            f"micro-batches of {size}, one thread"
        )
        examples = epoch_order(0, 0, len(shards))[:size]
        keys = masking.derive(0, 0, examples)
        gathered = shards.gather(examples)
        whole = batches(shards, rules, global_batch=size, micro_batch=size)
        by_piece = batches(shards, replace(rules, starts_word=None), global_batch=size, micro_batch=size)
        words, lengths = gathered.word_ids, gathered.word_lengths
        lines = {
            "gather from shards": lambda: shards.gather(examples),
            "mask words": lambda: masking.mask_words(words, lengths, keys, rules.words, starts_word),
            "mask and pack": lambda: make_batch(gathered, keys, rules),
            "all, whole words (LUKE)": lambda: next(whole),
            "all, pieces (mLUKE)": lambda: next(by_piece),
        }
        for name, work in lines.items():
            print(f"{name:26s}{rate(work, size, arguments.seconds):10,.0f} sequences/s", flush=True)
        begin = time.process_time()
        epoch_order(0, 0, 10_000_000)
        print(f"order of 10,000,000 examples, once an epoch: {time.process_time() - begin:.1f} s")


if __name__ == "__main__":
    main()

"""Examples on disk -> packed, masked batches for pretraining, in an order that resumes exactly.

In: the shards of one data folder, or of several (one per language), and `BatchRules`. Out: for each optimizer step the
micro-batches of this process (`PretrainBatch`).

One endless *stream* of examples depends on the seed alone; step s takes the positions from s * global_batch up to
(s + 1) * global_batch. These are dealt out to processes and micro-batches by their lengths, so that all have nearly the
same number of tokens and no process waits for another. Order and masks are drawn by counters (see masking.py), so 1
process x 64 sequences, 2 x 32 and 2 accumulated micro-batches of 32 see the same examples with the same masks, and the
step number is all that is needed to resume.

An *epoch* is N consecutive positions, where N is the number of examples in all folders.
- One folder: every example once per epoch, in a new order. A batch that crosses the end continues with the next epoch.
- Several folders (mLUKE's languages): each has a fixed quota of the N positions, proportional to size ** 0.7, so small
  ones are oversampled. A folder is read in passes of its own, every example once per pass, and the next epoch
  continues where the last one stopped. The positions of an epoch are shuffled: every batch mixes languages.
  differs from LUKE: there each batch is of one language, drawn with replacement, and training ends when the first
  language runs out.
Masks depend on (example, pass): the next pass masks other words.

Left out on purpose: shuffle buffers (memory-mapped shards are read in any order), worker processes (one core makes more
than 20,000 sequences per second: tests/bench/bench_batching.py; a thread of `trainer.Ahead` does it meanwhile).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from typing import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from luke_mini import masking
from luke_mini.config import PretrainConfig
from luke_mini.distributed import Rank
from luke_mini.examples import Examples, Shards, ranges
from luke_mini.packing import MicroBatch, PackedBatch

ORDER, INTERLEAVE, MASKS = range(3)  # branches of the seed in the tree of generators


@dataclass(frozen=True, eq=False)
class BatchRules:
    """Everything that batches depend on except the data and the batch size."""

    bos_id: int
    pad_id: int
    eos_id: int
    words: masking.Scheme
    entities: masking.Scheme
    starts_word: np.ndarray | None  # bool [vocabulary] for whole-word masking; None: mask tokens singly (mLUKE)
    mask_words_in_entity_span: bool = False
    words_only: bool = False  # examples lose their entities
    predict_page: bool = False  # the page's own entity is a prediction of `<s>`
    seed: int = 0
    sampling_exponent: float = 0.7  # quotas ~ size ** this; 1: proportional, 0: equal (mLUKE: 0.7)


@dataclass(frozen=True)
class PretrainBatch(MicroBatch):
    """What the model reads and what it has to predict. All tensors int64; B sequences."""

    masked_word_rows: Tensor  # [K], rows of packed.word_ids, ascending
    masked_word_labels: Tensor  # [K], the original ids at these rows
    masked_entity_rows: Tensor  # [L], rows of packed.entity_ids, ascending
    masked_entity_labels: Tensor  # [L]
    page_rows: Tensor | None = None  # [S], rows of `<s>` of sequences whose page is an entity; None: not predicted
    page_labels: Tensor | None = None  # [S], these entities

    @property
    def counts(self) -> dict[str, int]:
        """How many predictions each term of the loss averages over."""
        found = {"word": len(self.masked_word_rows), "entity": len(self.masked_entity_rows)}
        return found if self.page_rows is None else found | {"page": len(self.page_rows)}


def batch_rules(tokenizer, entity_vocab, recipe: PretrainConfig) -> BatchRules:
    """The recipe's rules for a tokenizer and an entity vocabulary."""
    tk, ev = tokenizer, entity_vocab
    special_words = (tk.bos_id, tk.pad_id, tk.eos_id, tk.unk_id, tk.mask_id, tk.ent_id, tk.ent2_id)
    special_entities = (ev.pad_id, ev.unk_id, ev.mask_id, ev.mask2_id)
    return BatchRules(
        bos_id=tk.bos_id,
        pad_id=tk.pad_id,
        eos_id=tk.eos_id,
        words=masking.Scheme(
            tk.mask_id, len(tk), _present(special_words),
            recipe.masked_word_prob, recipe.random_word_prob, recipe.unmasked_word_prob,
        ),
        entities=masking.Scheme(
            ev.mask_id, len(ev), _present(special_entities),
            recipe.masked_entity_prob, recipe.random_entity_prob, recipe.unmasked_entity_prob,
        ),
        starts_word=tk.starts_word if recipe.whole_word_masking else None,
        mask_words_in_entity_span=recipe.mask_words_in_entity_span,
        words_only=recipe.words_only,
        predict_page=recipe.predict_page,
        seed=recipe.seed,
        sampling_exponent=recipe.sampling_exponent,
    )  # fmt: skip


def _present(ids) -> tuple[int, ...]:
    return tuple(item for item in ids if item is not None)  # not every vocabulary has <ent> or [MASK2]


def epoch_order(seed: int, epoch: int, n: int, folder: int = 0) -> np.ndarray:
    """The order of n examples in one pass through a folder: a permutation of range(n), int64 [n]."""
    numbers = masking.draw(masking.derive(seed, ORDER, folder, epoch), np.arange(n))
    return np.argsort(numbers)  # no two are equal, so all sorting algorithms agree


def quotas(sizes: Sequence[int], exponent: float) -> list[int]:
    """Each folder's positions in an epoch of sum(sizes), ~ size ** exponent; the largest remainders are rounded up.

    quotas([80, 20], 1.0) == [80, 20]; quotas([80, 20], 0.0) == [50, 50]; quotas([80, 20], 0.7) == [73, 27].
    """
    weights = np.array(sizes, dtype=np.float64) ** exponent * (np.array(sizes) > 0)
    exact = sum(sizes) * weights / weights.sum()
    whole = np.floor(exact).astype(np.int64)
    missing = sum(sizes) - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole.tolist()


def epoch_plan(seed: int, epoch: int, sizes: Sequence[int], exponent: float) -> tuple[np.ndarray, np.ndarray]:
    """One epoch of the stream: (examples, passes), both int64 [sum(sizes)].

    examples: indices into the concatenated folders; passes: the number of complete passes over the example's folder
    before this one.
    """
    examples, passes, base = [], [], 0
    for folder, (size, quota) in enumerate(zip(sizes, quotas(sizes, exponent))):
        first, last = epoch * quota, (epoch + 1) * quota  # positions in this folder's endless sequence of passes
        for number in range(first // size, -(-last // size)) if quota else ():
            order = epoch_order(seed, number, size, folder)[max(first - number * size, 0) : last - number * size]
            examples.append(base + order)
            passes.append(np.full(len(order), number))
        base += size
    examples, passes = np.concatenate(examples), np.concatenate(passes)
    if len(sizes) > 1:
        mix = np.argsort(masking.draw(masking.derive(seed, INTERLEAVE, epoch), np.arange(base)))
        examples, passes = examples[mix], passes[mix]
    return examples, passes


def _with_ends(word_ids: np.ndarray, word_lengths: np.ndarray, rules: BatchRules) -> tuple[np.ndarray, np.ndarray]:
    """Adds `<s>` and `</s>` to each sequence. -> (int64 ids with both; the new rows of the given ids)"""
    lengths = word_lengths + 2
    begin = np.cumsum(lengths) - lengths
    inner = ranges(begin + 1, word_lengths)
    ids = np.empty(lengths.sum(), dtype=np.int64)
    ids[inner] = word_ids
    ids[begin] = rules.bos_id
    ids[begin + lengths - 1] = rules.eos_id
    return ids, inner


def make_batch(examples: Examples, keys: np.ndarray, rules: BatchRules) -> PretrainBatch:
    """Masks and packs B examples; keys uint64 [B], one per example and pass."""
    if rules.words_only:
        none = np.zeros(0, np.int64)
        examples = examples._replace(
            entity_ids=none, entity_lengths=np.zeros_like(examples.word_lengths), mention_spans=none.reshape(0, 2)
        )
    word_lengths, entity_lengths = examples.word_lengths, examples.entity_lengths
    starts, ends = examples.mention_spans.T
    masked_entities = masking.mask_entities(examples.entity_ids, entity_lengths, keys, rules.entities)
    spans = None
    if rules.mask_words_in_entity_span:
        row = np.repeat(np.cumsum(word_lengths) - word_lengths, entity_lengths)  # where the entity's sequence starts
        spans = np.stack([row + starts, row + ends], axis=1)[masked_entities.rows]
    masked_words = masking.mask_words(examples.word_ids, word_lengths, keys, rules.words, rules.starts_word, spans)

    word_ids, inner = _with_ends(masked_words.ids, word_lengths, rules)
    mention_lengths = ends - starts
    packed = PackedBatch(
        word_ids=torch.from_numpy(word_ids),
        word_positions=torch.from_numpy(ranges(np.full(len(word_lengths), rules.pad_id + 1), word_lengths + 2)),
        entity_ids=torch.from_numpy(masked_entities.ids),
        mention_positions=torch.from_numpy(ranges(starts + 1, mention_lengths)),
        mention_offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(mention_lengths)])),
        word_lengths=tuple((word_lengths + 2).tolist()),
        entity_lengths=tuple(entity_lengths.tolist()),
    )
    return PretrainBatch(
        packed,
        masked_word_rows=torch.from_numpy(inner[masked_words.rows]),
        masked_word_labels=torch.from_numpy(masked_words.labels),
        masked_entity_rows=torch.from_numpy(masked_entities.rows),
        masked_entity_labels=torch.from_numpy(masked_entities.labels),
        **(_pages(examples) if rules.predict_page else {}),
    )


def _pages(examples: Examples) -> dict[str, Tensor]:
    """What to predict from `<s>`. differs from LUKE: pages outside of the vocabulary are left out; there they fail."""
    begin = np.cumsum(examples.word_lengths + 2) - examples.word_lengths - 2
    known = examples.page_ids >= 0
    return {
        "page_rows": torch.from_numpy(begin[known]),
        "page_labels": torch.from_numpy(examples.page_ids[known].astype(np.int64)),
    }


def batches(
    shards: Shards,
    rules: BatchRules,
    *,
    global_batch: int,
    micro_batch: int,
    rank: int = 0,
    world_size: int = 1,
    start_step: int = 0,
) -> Iterator[list[PretrainBatch]]:
    """Endless: the micro-batches of process `rank` of `world_size` for each optimizer step from start_step on.

    global_batch  sequences per step, across all processes; a multiple of world_size
    micro_batch   maximum sequences per micro-batch; all processes have the same number, of nearly equal sizes and
                  tokens, see `deal`
    """
    if len(shards) == 0:
        raise ValueError("the data folders contain no examples")
    if global_batch < 1 or micro_batch < 1 or not 0 <= rank < world_size or start_step < 0:
        raise ValueError(
            f"global batch {global_batch}, micro-batch {micro_batch}, rank {rank} of {world_size}, step {start_step}: "
            "expected sizes of at least 1, a rank below the number of processes, a step of at least 0"
        )
    if global_batch % world_size:
        raise ValueError(f"a global batch of {global_batch} cannot be split evenly over {world_size} processes")
    n_micro = -(-global_batch // world_size // micro_batch)
    return _steps(shards, rules, global_batch, n_micro, rank, world_size, start_step)


def _steps(shards, rules, global_batch, n_micro, rank, world_size, start_step):
    # One epoch's plan is cached: 16 bytes per example; ten million take seconds to plan.
    plan = lru_cache(maxsize=1)(lambda epoch: epoch_plan(rules.seed, epoch, shards.sizes, rules.sampling_exponent))
    for start in count(start_step * global_batch, global_batch):
        examples, passes = _lookup(start, start + global_batch, len(shards), plan)
        hands = deal(shards.lengths[examples], world_size * n_micro)
        step = []
        for own in hands[rank * n_micro : (rank + 1) * n_micro]:
            keys = masking.derive(rules.seed, MASKS, passes[own], examples[own])
            step.append(make_batch(shards.gather(examples[own]), keys, rules))
        yield step


def deal(lengths: np.ndarray, hands: int) -> list[np.ndarray]:
    """Deals sequences out so that all hands have nearly the same number of tokens, and of sequences (at most one more).

    Like cards, round after round, the longest first; in each round the longest goes to the hand that has least.
    Returns the indices of each hand, ascending: deal([5, 1, 9, 4], 2) -> [1, 2], [0, 3].
    """
    order, tokens = np.argsort(-lengths, kind="stable"), np.zeros(hands, np.int64)
    owner = np.empty(len(lengths), np.int64)
    for first in range(0, len(lengths), hands):
        cards = order[first : first + hands]
        takes = np.argsort(tokens, kind="stable")[: len(cards)]
        owner[cards] = takes
        tokens[takes] += lengths[cards]
    return [np.flatnonzero(owner == hand) for hand in range(hands)]


def _lookup(first, last, epoch_size, plan):
    """(examples, passes) at the positions [first, last) of the stream, which may span several epochs."""
    examples, passes = [], []
    while first < last:
        epoch, offset = divmod(first, epoch_size)
        stop = min(offset + last - first, epoch_size)
        numbers, rounds = plan(epoch)
        examples.append(numbers[offset:stop])
        passes.append(rounds[offset:stop])
        first += stop - offset
    return np.concatenate(examples), np.concatenate(passes)


def steps_for(n_examples: int, global_batch: int, epochs: float) -> int:
    """Optimizer steps for `epochs` epochs, rounded up."""
    return math.ceil(n_examples * epochs / global_batch)


def training_steps(
    shards: Shards, tokenizer, entity_vocab, recipe: PretrainConfig, rank: Rank, start_step: int, total_steps: int,
    lanes: int = 1,
) -> Iterator[list[PretrainBatch]]:  # fmt: skip
    """The micro-batches of this process for the steps [start_step, total_steps) of a recipe; at least `lanes` a step."""
    steps = batches(
        shards,
        batch_rules(tokenizer, entity_vocab, recipe),
        global_batch=recipe.global_batch,
        micro_batch=min(recipe.micro_batch, -(-recipe.global_batch // (rank.world_size * lanes))),
        rank=rank.index,
        world_size=rank.world_size,
        start_step=start_step,
    )
    return islice(steps, max(total_steps - start_step, 0))

"""The packed batch: all words of a batch first, sequence after sequence, then all of its entities. No padding.

A batch of two sequences, `<s> Ada in Oslo </s>` with the entities Ada and Oslo and `<s> Rain </s>` with none:

    row       0    1    2   3     4     5    6     7      8     9
    content   <s>  Ada  in  Oslo  </s>  <s>  Rain  </s>   [Ada] [Oslo]
              '------ sequence 0 ----'  '-- sequence 1 -' '-- sequence 0's entities --'

    word_lengths   (5, 3)      cu_words    [0, 5, 8]
    entity_lengths (2, 0)      cu_entities [0, 2, 2]        (an entity's row is the number of words + its index)
    mention_positions [1, 3]   mention_offsets [0, 1, 2]    (Ada covers word 1 of its sequence, Oslo word 3)

Words here are tokens of the text, as in the paper. cu_ stands for cumulative: where each sequence begins and ends.

Why: a linear layer does not care where a sequence ends, so one matmul serves the whole batch and no time is spent on
padding. Words and entities are two contiguous blocks, so that one matmul computes the queries of each kind.
Only attention looks at the lengths.

On a first reading `PackedBatch` and `pack` are enough. The rest carries batches to a device, and lets the padded
tensors of the Hugging Face interface in (`from_padded`) and out (`scatter_rows`).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """A batch without padding. W words (with `<s>` and `</s>`), E entities, P mention positions in all."""

    word_ids: Tensor  # int64 [W]
    word_positions: Tensor  # int64 [W], rows of the word position table (RoBERTa: `<s>` is pad_id + 1)
    entity_ids: Tensor  # int64 [E]
    mention_positions: Tensor  # int64 [P], 0-based word index within the sequence (0 = `<s>`), mention after mention
    mention_offsets: Tensor  # int64 [E + 1], mention k owns mention_positions[offsets[k]:offsets[k + 1]]
    word_lengths: tuple[int, ...]  # words of each sequence
    entity_lengths: tuple[int, ...]  # entities of each sequence, 0 allowed
    # What attention looks at, made from the lengths: as a tensor and two numbers, which a compiled model can take in.
    segments: Tensor | None = None  # int32 [batch, 4]: first word row, words, first entity row, entities
    max_words: int = 0  # of any sequence
    max_entities: int = 0

    def __post_init__(self):
        if self.segments is None:
            object.__setattr__(self, "segments", self._segments().to(self.word_ids.device))
            object.__setattr__(self, "max_words", max(self.word_lengths, default=0))
            object.__setattr__(self, "max_entities", max(self.entity_lengths, default=0))

    def _segments(self) -> Tensor:
        first_word = accumulate(self.word_lengths, initial=0)
        first_entity = accumulate(self.entity_lengths, initial=self.n_words)
        rows = zip(first_word, self.word_lengths, first_entity, self.entity_lengths)
        return torch.tensor(list(rows), dtype=torch.int32).view(-1, 4)

    @property
    def n_words(self) -> int:
        return self.word_ids.shape[0]

    @property
    def n_entities(self) -> int:
        return self.entity_ids.shape[0]

    @cached_property
    def cu_words(self) -> Tensor:
        """int32 [batch + 1]: sequence b owns the word rows cu_words[b]:cu_words[b + 1]."""
        return _cumulative(self.word_lengths, self.word_ids.device)

    @cached_property
    def cu_entities(self) -> Tensor:
        """int32 [batch + 1]: sequence b owns the entity rows W + cu_entities[b] : W + cu_entities[b + 1]."""
        return _cumulative(self.entity_lengths, self.word_ids.device)

    def to(self, device) -> "PackedBatch":
        return each_tensor(self, lambda tensor: tensor.to(device, non_blocking=True))


class Sequence(NamedTuple):
    """One input, not packed yet: `<s> text </s>` and the mentions of entities in it."""

    word_ids: np.ndarray  # int [W]
    entity_ids: np.ndarray  # int [E]
    spans: np.ndarray  # int [E, 2], half-open, in word_ids
    kept: np.ndarray | None = None  # int [E], each mention's index before truncation, see `inputs`


def pack(sequences: list[Sequence], pad_id: int, max_mention: int | None = None) -> PackedBatch:
    """Packs sequences into a batch. Of a mention longer than max_mention words only the first positions are used.

    The batch above with pad_id 1, Ada as [1, 2) and Oslo as [3, 4) of the first sequence:

        rank              1 2 3 4 5  6 7 8      real tokens so far
        before            0          5          of them in earlier sequences, once for each sequence
        word_positions    2 3 4 5 6  2 3 4      rank - before + pad_id
        offsets           0 1 2                 a mention's words so far; starts 1 3, lengths 1 1
    """
    word_ids = np.concatenate([sequence.word_ids for sequence in sequences], dtype=np.int64)
    word_lengths = [len(sequence.word_ids) for sequence in sequences]
    is_token = word_ids != pad_id  # a literal "<pad>" in a text gets no position, see roberta_positions
    rank = np.cumsum(is_token)
    before = np.concatenate([[0], rank])[np.cumsum([0, *word_lengths[:-1]])]
    starts, ends = np.concatenate([sequence.spans for sequence in sequences], dtype=np.int64).T
    lengths = ends - starts if max_mention is None else np.minimum(ends - starts, max_mention)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return PackedBatch(
        word_ids=torch.from_numpy(word_ids),
        word_positions=torch.from_numpy((rank - np.repeat(before, word_lengths)) * is_token + pad_id),
        entity_ids=torch.from_numpy(np.concatenate([sequence.entity_ids for sequence in sequences], dtype=np.int64)),
        mention_positions=torch.from_numpy(np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])),
        mention_offsets=torch.from_numpy(offsets),
        word_lengths=tuple(word_lengths),
        entity_lengths=tuple(len(sequence.entity_ids) for sequence in sequences),
    )


def _cumulative(lengths: tuple[int, ...], device) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


# --- Skip at first: on the way to a device ----------------------------------------------------------------------------


@dataclass(frozen=True)
class MicroBatch:
    """What one pass through a model sees. Subclasses add what a head and its loss need, and `counts`: see `trainer`."""

    packed: PackedBatch

    @property
    def n_tokens(self) -> int:
        return self.packed.n_words + self.packed.n_entities

    def to(self, device) -> "MicroBatch":
        return each_tensor(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "MicroBatch":
        """In memory from which a GPU copies while the host goes on."""
        return each_tensor(self, Tensor.pin_memory)


def each_tensor(part, act: Callable[[Tensor], Tensor]):
    """What `act` makes of a tensor, or of the tensors in a tuple or dataclass."""
    if isinstance(part, Tensor):
        return act(part)
    if isinstance(part, tuple):
        return tuple(each_tensor(item, act) for item in part)
    if is_dataclass(part):
        return replace(part, **{item.name: each_tensor(getattr(part, item.name), act) for item in fields(part)})
    return part


# --- Skip at first: padded tensors in and out -------------------------------------------------------------------------


def roberta_positions(input_ids: Tensor, pad_id: int) -> Tensor:
    """Rows of the word position table for padded ids, int64 [batch, seq].

    A real token gets pad_id + its 1-based rank among the real ones, a padding token gets pad_id:
    with pad_id 1, [0, 5, 6, 2, 1, 1] gives [2, 3, 4, 5, 1, 1].
    """
    is_token = (input_ids != pad_id).long()
    return is_token.cumsum(dim=1) * is_token + pad_id


def from_padded(
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    entity_ids: Tensor | None = None,
    entity_position_ids: Tensor | None = None,
    entity_attention_mask: Tensor | None = None,
    *,
    pad_id: int,
) -> PackedBatch:
    """Packs padded tensors named as Hugging Face names them; a missing mask means that every row is real.

    input_ids, attention_mask                  [batch, seq]
    entity_ids, entity_attention_mask          [batch, entities]
    entity_position_ids                        [batch, entities, mention], 0-based word indices, -1 is padding
    """
    batch = input_ids.shape[0]
    word_mask = _mask_or_ones(attention_mask, input_ids)
    if entity_ids is None:
        entity_ids = input_ids.new_zeros(batch, 0)
        entity_position_ids = input_ids.new_zeros(batch, 0, 0)
    elif entity_position_ids is None:
        raise ValueError("entity_ids are given without entity_position_ids [batch, entities, mention]")
    entity_mask = _mask_or_ones(entity_attention_mask, entity_ids)
    positions = entity_position_ids[entity_mask]  # [E, mention]
    counts = (positions >= 0).sum(dim=1)
    return PackedBatch(
        word_ids=input_ids[word_mask],
        word_positions=roberta_positions(input_ids, pad_id)[word_mask],
        entity_ids=entity_ids[entity_mask],
        mention_positions=positions[positions >= 0],
        mention_offsets=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        word_lengths=tuple(word_mask.sum(dim=1).tolist()),
        entity_lengths=tuple(entity_mask.sum(dim=1).tolist()),
    )


def _mask_or_ones(mask: Tensor | None, ids: Tensor) -> Tensor:
    return torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()


def scatter_rows(rows: Tensor, mask: Tensor | None, shape: tuple[int, int]) -> Tensor:
    """Packed rows [n, hidden] back into a padded tensor [*shape, hidden]; rows where the mask is 0 are zero."""
    if mask is None:
        return rows.reshape(*shape, rows.shape[-1])
    padded = rows.new_zeros(*shape, rows.shape[-1])
    padded[mask.bool()] = rows
    return padded

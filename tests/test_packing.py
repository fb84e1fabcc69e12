"""Packing padded tensors, by hand-worked examples.

pytest tests/test_packing.py
"""

import numpy as np
import pytest
import torch

from luke_mini import packing


def test_roberta_positions_of_the_specification():
    ids = torch.tensor([[0, 5, 6, 2, 1, 1], [0, 9, 8, 7, 6, 2]])
    assert packing.roberta_positions(ids, pad_id=1).tolist() == [[2, 3, 4, 5, 1, 1], [2, 3, 4, 5, 6, 7]]


def test_the_example_of_the_module():
    """`<s> Ada in Oslo </s>` with two entities, `<s> Rain </s>` with none, padded by hand."""
    batch = packing.from_padded(
        input_ids=torch.tensor([[0, 11, 12, 13, 2], [0, 14, 2, 1, 1]]),
        attention_mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        entity_ids=torch.tensor([[7, 8], [0, 0]]),
        entity_position_ids=torch.tensor([[[1, -1], [3, -1]], [[-1, -1], [-1, -1]]]),
        entity_attention_mask=torch.tensor([[1, 1], [0, 0]]),
        pad_id=1,
    )
    assert batch.word_ids.tolist() == [0, 11, 12, 13, 2, 0, 14, 2]
    assert batch.word_positions.tolist() == [2, 3, 4, 5, 6, 2, 3, 4]
    assert batch.entity_ids.tolist() == [7, 8]
    assert batch.mention_positions.tolist() == [1, 3] and batch.mention_offsets.tolist() == [0, 1, 2]
    assert batch.word_lengths == (5, 3) and batch.entity_lengths == (2, 0)
    assert batch.cu_words.tolist() == [0, 5, 8] and batch.cu_entities.tolist() == [0, 2, 2]
    assert batch.cu_words.dtype == torch.int32


def test_sequences_of_the_example():
    """The same batch from its sequences; "<pad>" (1) as a word has no position of its own, Oslo only its first word."""
    ada, rain = np.array([0, 11, 12, 13, 14, 2]), np.array([0, 1, 14, 2], np.int32)
    sequences = [
        packing.Sequence(ada, np.array([7, 8, 9]), np.array([[1, 2], [3, 5], [5, 5]])),
        packing.Sequence(rain, np.zeros(0, np.int64), np.zeros((0, 2), np.int64)),
        packing.Sequence(rain, np.array([7], np.int32), np.array([[2, 3]], np.int32)),
    ]
    batch = packing.pack(sequences, pad_id=1)
    assert batch.word_ids.tolist() == [*ada, *rain, *rain]
    assert batch.word_positions.tolist() == [2, 3, 4, 5, 6, 7, 2, 1, 3, 4, 2, 1, 3, 4]
    assert batch.entity_ids.tolist() == [7, 8, 9, 7] and batch.entity_lengths == (3, 0, 1)
    assert batch.word_lengths == (6, 4, 4)
    assert batch.mention_positions.tolist() == [1, 3, 4, 2] and batch.mention_offsets.tolist() == [0, 1, 3, 3, 4]
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    assert tensors.pop("segments").tolist() == [[0, 6, 14, 3], [6, 4, 17, 0], [10, 4, 17, 1]]
    assert (batch.max_words, batch.max_entities) == (6, 3) and batch.segments.dtype == torch.int32
    assert len(tensors) == 5 and {tensor.dtype for tensor in tensors.values()} == {torch.int64}
    batch = packing.pack(sequences, pad_id=1, max_mention=1)
    assert batch.mention_positions.tolist() == [1, 3, 2] and batch.mention_offsets.tolist() == [0, 1, 2, 2, 3]


def test_missing_masks_mean_that_all_rows_are_real():
    batch = packing.from_padded(torch.tensor([[0, 5, 1]]), pad_id=1)
    assert batch.word_lengths == (3,) and batch.entity_lengths == (0,) and batch.n_entities == 0


def test_entities_without_positions_are_an_error():
    with pytest.raises(ValueError, match="entity_position_ids"):
        packing.from_padded(torch.tensor([[0, 2]]), entity_ids=torch.tensor([[3]]), pad_id=1)


def test_scatter_rows_undoes_packing():
    mask = torch.tensor([[1, 0, 1], [0, 0, 1]])
    rows = torch.arange(1.0, 7.0).view(3, 2)
    padded = packing.scatter_rows(rows, mask, (2, 3))
    assert torch.equal(padded[mask.bool()], rows) and not padded[~mask.bool()].any()

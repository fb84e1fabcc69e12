"""Head starts do what their equations say.

pytest tests/test_starts.py
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from closeness import assert_as_good, assert_rounded, generator, seeded
from test_model import SMALL, build

from luke_mini import config, packing, starts
from luke_mini.model import LukeForPretraining, initialize


def test_a_start_at_frequencies_guesses_them():
    """With no evidence (a table of zeros) the head's probabilities are the smoothed shares of the counts."""
    model = build(SMALL, LukeForPretraining)
    words, entities = torch.arange(SMALL.vocab_size), torch.zeros(SMALL.entity_vocab_size, dtype=torch.long)
    starts.start_at_frequencies(model, words, entities)
    nothing = torch.zeros(1, SMALL.hidden_size)
    for head, table, counts in (
        (model.word_head, torch.zeros(SMALL.vocab_size, SMALL.hidden_size), words),
        (model.entity_head, torch.zeros(SMALL.entity_vocab_size, SMALL.entity_emb_size), entities),
    ):
        exact = (counts + 1).double() / (counts + 1).sum()
        assert_rounded(head(nothing, table).softmax(1)[0], exact, exponent=float(-exact.min().log()))


def titled(entity_emb_size: int) -> tuple[LukeForPretraining, list[list[int]]]:
    """A model of the size tiny that starts at 300 random titles of one to five of 500 words, no two with the same first
    word; the last title is empty."""
    shape = replace(
        config.TINY, vocab_size=500, entity_vocab_size=300, entity_emb_size=entity_emb_size, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = LukeForPretraining(shape)
    initialize(model, shape, seeded())
    draws = generator(1)
    lengths, first = torch.randint(1, 6, (300,), generator=draws).tolist(), torch.randperm(490, generator=draws) + 10
    titles = [
        [int(word), *torch.randint(10, 500, (n - 1,), generator=draws).tolist()] for n, word in zip(lengths, first)
    ]
    titles[-1] = []
    starts.start_at_titles(model, titles, seeded())
    return model.eval(), titles


@pytest.mark.parametrize("entity_emb_size", [64, 128])
@torch.no_grad()
def test_words_of_a_title_name_its_entity(entity_emb_size):
    model, titles = titled(entity_emb_size)
    words, table = model.luke.words.token.weight, model.luke.entities.entity.weight
    read = torch.stack([words[title].mean(0) for title in titles[:-1]])
    right = (read @ model.entity_head.dense.weight.T @ table.T).argmax(1) == torch.arange(299)
    assert right.float().mean() > 0.98
    size = config.TINY.initializer_range
    plain = F.rms_norm(table[:-1], table.shape[1:]) * size
    found, plain = (rows.double().square().mean(1).sqrt() for rows in (table[:-1], plain))
    assert_as_good(found, plain, torch.full((299,), size, dtype=torch.float64))


@torch.no_grad()
def test_entities_read_the_words_at_their_positions():
    """In the first layer an entity's own word gets more than twice its even share of the look; it arrives as it was."""
    model, _ = titled(64)
    luke, attention, draws = model.luke, model.luke.layers[0].attention, generator(2)
    ids, place = torch.randint(10, 500, (16, 40), generator=draws), torch.arange(2, 38, 3)
    positions = place[:, None].expand(16, 12, 1)
    packed = packing.from_padded(ids, None, torch.full((16, 12), 3), positions, None, pad_id=1)
    words, entities = luke.words(packed), luke.entities(packed)
    size = luke.config.hidden_size
    query = attention.entity_query(entities)[:, :size].view(16, 12, 4, -1)
    key, value = attention.key_value(words).view(-1, 2, size).unbind(1)
    look = torch.einsum("sehd,swhd->shew", query, key.view(16, 40, 4, -1)).mul(query.shape[-1] ** -0.5).softmax(-1)
    assert look[:, :, torch.arange(12), place].mean() > 2 / 40
    basis = torch.linalg.qr(torch.randn(size, size, generator=draws))[0]
    assert_as_good(attention.output(value), words @ basis @ basis.T, words.double())


def test_sinusoids_fade_with_the_distance():
    waves = starts.sinusoids(100, 64)
    assert_rounded(waves.square().mean(1), torch.ones(100))
    near = [float(waves[50] @ waves[50 + k]) / 64 for k in (0, 1, 3, 10)]
    assert near == sorted(near, reverse=True)


def test_title_start_needs_entity_aware_attention():
    with pytest.raises(ValueError, match="--title-start .* needs --entity-aware"):
        replace(config.SCRATCH_TINY, entity_aware=False)

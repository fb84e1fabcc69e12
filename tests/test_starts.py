"""Head starts do what their equations say.

pytest tests/test_starts.py
"""

from dataclasses import replace

import pytest
import torch
from test_model import SMALL, build

from luke_mini import config, packing, starts
from luke_mini.model import LukeForPretraining, initialize


def test_a_start_at_frequencies_guesses_them():
    """With no evidence (a table of zeros) the head's probabilities are the smoothed shares of the counts."""
    model = build(SMALL, LukeForPretraining)
    words, entities = torch.arange(SMALL.vocab_size), torch.zeros(SMALL.entity_vocab_size, dtype=torch.long)
    starts.start_at_frequencies(model, words, entities)
    nothing = torch.zeros(1, SMALL.hidden_size)
    shares = model.word_head(nothing, torch.zeros(SMALL.vocab_size, SMALL.hidden_size)).softmax(1)[0]
    torch.testing.assert_close(shares, (words + 1) / (words + 1).sum())
    shares = model.entity_head(nothing, torch.zeros(SMALL.entity_vocab_size, SMALL.entity_emb_size)).softmax(1)[0]
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / SMALL.entity_vocab_size))


def titled(entity_emb_size: int) -> tuple[LukeForPretraining, list[list[int]]]:
    """A model of the size tiny that starts at 300 random titles of one to five of 500 words; the last title is empty."""
    shape = replace(
        config.TINY, vocab_size=500, entity_vocab_size=300, entity_emb_size=entity_emb_size, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = LukeForPretraining(shape)
    initialize(model, shape, 0)
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 6, (300,), generator=generator).tolist()
    titles = [torch.randint(10, 500, (n,), generator=generator).tolist() for n in lengths]
    titles[-1] = []
    starts.start_at_titles(model, titles, seed=0)
    return model.eval(), titles


@pytest.mark.parametrize("entity_emb_size", [64, 128])
@torch.no_grad()
def test_words_of_a_title_name_its_entity(entity_emb_size):
    model, titles = titled(entity_emb_size)
    words, table = model.luke.words.token.weight, model.luke.entities.entity.weight
    read = torch.stack([words[title].mean(0) for title in titles[:-1]])
    right = (read @ model.entity_head.dense.weight.T @ table.T).argmax(1) == torch.arange(299)
    assert right.float().mean() > (0.9 if entity_emb_size == 64 else 0.99)
    torch.testing.assert_close(table[:-1].square().mean(1).sqrt(), torch.full((299,), config.TINY.initializer_range))


@torch.no_grad()
def test_entities_read_the_words_at_their_positions():
    """In the first layer an entity's own word gets four times its even share of the look, and arrives as it was."""
    model, _ = titled(64)
    luke, attention, generator = model.luke, model.luke.layers[0].attention, torch.Generator().manual_seed(2)
    ids = torch.randint(10, 500, (1, 40), generator=generator)
    place = torch.arange(2, 38, 3)
    packed = packing.from_padded(ids, None, torch.full((1, 12), 3), place[None, :, None], None, pad_id=1)
    words, entities = luke.words(packed), luke.entities(packed)
    size = luke.config.hidden_size
    query = attention.entity_query(entities)[:, :size].view(12, 4, -1)
    key, value = attention.key_value(words).view(40, 2, size).unbind(1)
    look = torch.einsum("ehd,whd->hew", query, key.view(40, 4, -1)).mul(query.shape[-1] ** -0.5).softmax(-1)
    assert look[:, torch.arange(12), place].mean() > 4 / 40
    torch.testing.assert_close(attention.output(value), words, rtol=1e-4, atol=1e-4)


def test_sinusoids_fade_with_the_distance():
    waves = starts.sinusoids(100, 64)
    torch.testing.assert_close(waves.square().mean(1), torch.ones(100))
    near = [float(waves[50] @ waves[50 + k]) / 64 for k in (0, 1, 3, 10)]
    assert near == sorted(near, reverse=True)


def test_title_start_needs_entity_aware_attention():
    with pytest.raises(ValueError, match="--title-start .* needs --entity-aware"):
        replace(config.SCRATCH_TINY, entity_aware=False)

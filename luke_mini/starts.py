"""Where a model starts from that knows nothing, or no entity yet: better than random, and none of it is data.

    frequencies       both heads begin by guessing what is frequent
    titles            entities begin as the words of their titles, and look at the words of their mention
    masked words      every entity begins as the word `<mask>` at its mention; for word models that are fine-tuned

In: a model after `model.initialize`. Out: the same, changed in place. The paper starts its words from RoBERTa and its
entities at random, and trains them on billions of words. A small model on a small corpus would spend most of its time
on what `titles` gives it: after 300 steps on the built-in encyclopedia it names 45 % of the masked entities instead of 2.
"""

import torch
from torch import Tensor

from luke_mini.model import LukeForPretraining, LukeModel, copy_word_positions

LONGEST_WAVE = 1000  # tokens, of the slowest sinusoid, over 2 pi; Vaswani et al. have 10,000 for longer texts
LOOK = 6.0  # how much sharper than at random entities look at the words at their own positions


@torch.no_grad()
def start_at_frequencies(model: LukeForPretraining, word_counts: Tensor, entity_counts: Tensor) -> None:
    """Lets both heads begin by guessing what is frequent: their biases become log probabilities of the counts.

    Otherwise a model from random weights spends its first hundred steps on learning just that. Counts: [classes], 0 is
    smoothed to 1.
    """
    for head, counts in ((model.word_head, word_counts), (model.entity_head, entity_counts)):
        head.bias.copy_(torch.log((counts + 1) / (counts + 1).sum()))


@torch.no_grad()
def start_at_titles(model: LukeForPretraining, titles: list[list[int]], seed: int) -> None:
    """Lets the masked-entity head begin by reading the words of a mention and comparing them with all titles.

    titles: the word pieces of each entity's title. The way of a mention's words, with S a random matrix [hidden,
    entity size] of orthonormal columns (S S^T is then nearly the identity on what matters, the entity table's part):

        position p, of words and of entities    sinusoids, so that near positions are similar (Vaswani et al. 2017)
        first layer, e2w query                  LOOK times its key: an entity looks at the words that are where it is
        first layer, output V = V^T V           the identity: what it reads arrives as it was
        entity table, projection                B_t = S^T (mean of A over the title of t), U = S
        masked-entity head                      W = S^T, so that B_t . (W h) compares words with words

    All of it is trained from there on. Needs entity-aware attention.
    """
    luke, size = model.luke, model.config.hidden_size
    generator = torch.Generator().manual_seed(seed)
    positions = luke.words.position.weight[model.config.pad_token_id + 1 :]
    positions.copy_(sinusoids(len(positions), size) * model.config.initializer_range)
    copy_word_positions(luke)

    attention = luke.layers[0].attention
    key, value = attention.key_value.weight.view(2, size, size)
    attention.entity_query.weight[:size].copy_(LOOK * key)
    value.copy_(orthonormal(size, size, generator))
    attention.output.weight.copy_(value.T)

    table, projection = luke.entities.entity.weight, luke.entities.projection
    basis = torch.eye(size) if projection is None else orthonormal(size, table.shape[1], generator)
    for row, pieces in enumerate(titles):
        if pieces:
            table[row] = luke.words.token.weight[pieces].mean(0) @ basis
    table.mul_(model.config.initializer_range / table.square().mean(1, keepdim=True).sqrt())
    if projection is not None:
        projection.weight.copy_(basis)
    model.entity_head.dense.weight.copy_(basis.T)


def orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """[rows, columns], columns that are orthogonal and of length 1."""
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator))[0]


def sinusoids(n: int, size: int) -> Tensor:
    """Positions 0 to n - 1 as sines and cosines of size / 2 wave lengths, mean square 1. [n, size]"""
    waves = torch.arange(size // 2) / (size // 2)
    angles = torch.arange(n)[:, None] / LONGEST_WAVE**waves
    return 2**0.5 * torch.cat([angles.sin(), angles.cos()], dim=1)


@torch.no_grad()
def start_as_masked_words(luke: LukeModel, mask_id: int) -> None:
    """Every entity begins as the word `<mask>` at the positions of its mention. The two must have the same size."""
    words, entities = luke.words, luke.entities
    copy_word_positions(luke)
    entities.entity.weight.copy_(words.token.weight[mask_id].expand_as(entities.entity.weight))
    entities.token_type.weight.copy_(words.token_type.weight)
    entities.norm.load_state_dict(words.norm.state_dict())

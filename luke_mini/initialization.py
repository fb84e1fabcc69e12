"""Where a model's weights begin.

    random            everything N(0, 0.02); positions of entities and w2e, e2w, e2e are copies of the words'
    a word model      the words are those of a RoBERTa, XLM-R or BERT folder (paper, section 3.4)
    frequencies       both heads begin by predicting what is frequent
    titles            entities begin as the words of their titles, and look at the words of their mention
    masked words      every entity begins as the word `<mask>` at its mention; to fine-tune a word model directly

In: a model. Out: the same, changed in place; of a word model, weights under our names. The paper starts its words from
RoBERTa and its entities at random, and trains them on billions of words. A small model on a small corpus would spend
most of its time on what `titles` gives it: after 300 steps on the built-in encyclopedia it names 45 % of the masked
entities instead of 2.

BERT counts positions from 0, RoBERTa and LUKE from pad_token_id + 1, which with BERT's [PAD] = 0 is 1. BERT's table
therefore gets a first row that nothing looks up; from then on a LUKE on BERT is a LUKE like any other, here and in
transformers: 513 positions, two token types of which the first is used, LayerNorm with eps 1e-12. Left out: relative
positions, next-sentence prediction.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from luke_mini import files, weights
from luke_mini.config import ModelConfig
from luke_mini.model import EntityAwareAttention, LukeForPretraining, LukeModel
from luke_mini.weights import WORD_TABLES

LONGEST_WAVE = 1000  # tokens, of the slowest sinusoid, over 2 pi; Vaswani et al. have 10,000 for longer texts
LOOK = 6.0  # how much sharper than at random entities look at the words at their own positions
# transformers' defaults for missing entries of config.json, by model_type.
WORD_MODELS = {
    "roberta": {"vocab_size": 50265, "pad_token_id": 1},
    "xlm-roberta": {"vocab_size": 30522, "pad_token_id": 1},
    "bert": {"vocab_size": 30522, "pad_token_id": 0},
}
SHARED_DEFAULTS = {"max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12}
SHAPE = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings "
    "type_vocab_size layer_norm_eps pad_token_id hidden_act"
).split()
POSITIONS = "luke.embeddings.position_embeddings.weight"
ENTITY_POSITIONS = "luke.entity_embeddings.position_embeddings.weight"


# --- Random weights ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def initialize(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Random weights, the same for a seed on every machine with the same torch.

    Linear and embedding weights N(0, initializer_range), biases 0, LayerNorm 1 and 0, padding rows 0. Two parts are not
    random: an entity at word i has the position embedding of word i, so that the two can find each other; and w2e, e2w
    and e2e are copies of w2w, as when a released model becomes entity-aware.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.normal_(0.0, config.initializer_range, generator=generator)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.zero_()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()
        if isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
            module.bias.zero_()
    for module in model.modules():
        if isinstance(module, EntityAwareAttention) and module.entity_aware:
            copy_w2w(module)
        if isinstance(module, LukeModel):
            copy_word_positions(module)
            if module.entities.mask is not None:
                module.entities.mask.copy_(module.entities.entity.weight[module.entities.mask_id])


@torch.no_grad()
def copy_w2w(attention: EntityAwareAttention) -> None:
    """w2e, e2w and e2e := w2w (paper, section 3: how entity-aware attention starts from pretrained weights)."""
    size = attention.output.in_features
    for linear in (attention.w2w_w2e, attention.e2w_e2e):
        linear.weight.view(2, size, size).copy_(attention.w2w_w2e.weight[:size].clone())
        linear.bias.view(2, size).copy_(attention.w2w_w2e.bias[:size].clone())


@torch.no_grad()
def copy_word_positions(luke: LukeModel) -> None:
    """An entity at word i gets the position embedding of word i."""
    first = luke.config.pad_token_id + 1  # the row of `<s>` in the word table; the entity table has no such shift
    luke.entities.position.weight[:-first] = luke.words.position.weight[first:]


# --- Better than random -----------------------------------------------------------------------------------------------


@torch.no_grad()
def start_at_frequencies(model: LukeForPretraining, word_counts: Tensor, entity_counts: Tensor) -> None:
    """Sets the biases of both heads to log probabilities of the counts [classes], each smoothed by 1.

    Otherwise a model from random weights spends its first hundred steps on learning just that.
    """
    for head, counts in ((model.word_head, word_counts), (model.entity_head, entity_counts)):
        head.bias.copy_(torch.log((counts + 1) / (counts + 1).sum()))


@torch.no_grad()
def start_at_titles(model: LukeForPretraining, titles: list[list[int]], seed: int) -> None:
    """The masked-entity head begins by reading the words of a mention and comparing them with all titles.

    titles: the token ids of each entity's title. The way of a mention's words, with S a random matrix [hidden,
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
    attention.e2w_e2e.weight[:size].copy_(LOOK * key)
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
    """Every entity begins as the word `<mask>` at the positions of its mention. Needs entities of the words' size."""
    words, entities = luke.words, luke.entities
    copy_word_positions(luke)
    entities.entity.weight.copy_(words.token.weight[mask_id].expand_as(entities.entity.weight))
    entities.token_type.weight.copy_(words.token_type.weight)
    entities.norm.load_state_dict(words.norm.state_dict())


# --- The words of another model ---------------------------------------------------------------------------------------


def is_word_model(folder: Path) -> bool:
    """Whether the folder's config.json describes a RoBERTa, XLM-R or BERT."""
    path = Path(folder) / "config.json"
    return path.is_file() and files.read_object(path).get("model_type") in tuple(WORD_MODELS)


def word_model_shape(folder: Path) -> dict:
    """The entries of ModelConfig that the folder's config.json determines."""
    path = Path(folder) / "config.json"
    settings = files.read_object(path)
    if settings.get("position_embedding_type", "absolute") != "absolute":
        kind = settings["position_embedding_type"]
        raise ValueError(f"{folder}: position_embedding_type is {kind!r}, expected 'absolute'")
    known = SHARED_DEFAULTS | WORD_MODELS[settings["model_type"]] | settings
    found = {name: known[name] for name in SHAPE if name in known}
    if settings["model_type"] == "bert":
        found["max_position_embeddings"] = files.Record(str(path), found).get("max_position_embeddings", int) + 1
    with files.naming(path):
        ModelConfig(**found)
    return found


def shift_positions(released: dict) -> None:
    """Puts a row in front of BERT's position table: it is then read from pad_token_id + 1 = 1. Changes the dictionary.

    Every LUKE reads the entities' table from 0, so that one gets an unused last row: both must have the same size.
    """
    table = weights.stack([released[POSITIONS]])
    unused = torch.zeros(1, table.shape[1], dtype=table.dtype)
    released[POSITIONS] = torch.cat([unused, table])
    if ENTITY_POSITIONS in released:
        released[ENTITY_POSITIONS] = torch.cat([weights.stack([released[ENTITY_POSITIONS]]), unused])


def marker_sources(word_tokenizer) -> list[int]:
    """Ids of "@" and "#", from whose rows `<ent>` and `<ent2>` start."""
    return [word_tokenizer.encode(sign, prefix_space=False).ids[-1] for sign in "@#"]


def read_word_model(folder: Path, config: ModelConfig, word_tokenizer) -> dict[str, Tensor]:
    """The weights of the word side under our names, for a LUKE of this configuration.

    A tokenizer with the markers `<ent>` and `<ent2>` on top of the folder's vocabulary gets two more rows, copies of
    "@" and "#". ValueError if it is another tokenizer: its ids would mean other words.
    """
    folder = Path(folder)
    settings, stored = files.read_object(folder / "config.json"), weights.read_folder(folder)
    try:
        released = weights.canonical(stored)
        n_words, expected = len(released.get(WORD_TABLES[0], ())), len(word_tokenizer)
        if n_words + 2 == expected:
            weights.append_rows(released, WORD_TABLES, marker_sources(word_tokenizer))
        elif n_words not in (expected, 0):
            remedy = f"rebuild it with prepare_wiki.py --tokenizer {folder}"
            raise ValueError(f"a vocabulary of {n_words} tokens, but the data was built with {expected}: {remedy}")
        if settings["model_type"] == "bert":
            shift_positions(released)
        weights.check_finite(released)
        return weights.from_released(released, config, (*weights.OPTIONAL, "luke.entities."))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def copy_marker_rows(state: dict[str, Tensor], word_tokenizer, vocab) -> None:
    """The markers of downstream tasks, in place: `<ent>` := "@", `<ent2>` := "#", `[MASK2]` := `[MASK]`.

    state: weights under our names, or a model's state_dict.
    """
    words = dict(zip((word_tokenizer.ent_id, word_tokenizer.ent2_id), marker_sources(word_tokenizer)))
    for tables, sources in (
        (("luke.words.token.weight", "word_head.bias"), words),
        (("luke.entities.entity.weight", "entity_head.bias"), {vocab.mask2_id: vocab.mask_id}),
    ):
        for table in tables:
            for row, source in sources.items():
                if table in state:
                    state[table][row] = state[table][source]

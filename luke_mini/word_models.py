"""RoBERTa, XLM-R and BERT folders: the word side of a new LUKE (paper, section 3.4: the words start from RoBERTa).

In: a folder with config.json and weights, under the names of any generation, with or without `roberta.` or `bert.` in
front, and the tokenizer of the data. Out: the shape of the network, and under our names the word embeddings, positions,
encoder, pooler and the masked-word head. w2e, e2w and e2e become copies of the query; entities stay to be initialised.

BERT counts positions from 0, RoBERTa and LUKE from pad_token_id + 1, which with BERT's [PAD] = 0 is 1. So BERT's table
gets a first row that nothing looks up, and from there on a LUKE on BERT is a LUKE like any other, here and in
transformers: 513 positions, two token types of which the first is used, LayerNorm with eps 1e-12.

A tokenizer that knows the markers `<ent>` and `<ent2>` on top of the folder's vocabulary gives them two more rows,
copies of "@" and "#". Left out: relative positions, next-sentence prediction.
"""

from pathlib import Path

import torch
from torch import Tensor

from luke_mini import files, released_names, weight_files
from luke_mini.config import ModelConfig

# transformers' defaults where a config.json lacks an entry, by model_type. All types share those of RoBERTa's shape.
DEFAULTS = {
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
WORD_TABLES = ("luke.embeddings.word_embeddings.weight", "lm_head.bias")
# The masked-word head in BERT's names; the same computation.
BERT_HEAD = {
    "cls.predictions.transform.dense.": "lm_head.dense.",
    "cls.predictions.transform.LayerNorm.": "lm_head.layer_norm.",
    "cls.predictions.decoder.": "lm_head.decoder.",
    "cls.predictions.bias": "lm_head.bias",
}


def is_word_model(folder: Path) -> bool:
    """Whether the folder's config.json is one of RoBERTa, XLM-R or BERT."""
    path = Path(folder) / "config.json"
    return path.is_file() and files.read_object(path).get("model_type") in DEFAULTS


def shape(folder: Path) -> dict:
    """The entries of ModelConfig that the folder's config.json settles."""
    settings = files.read_object(Path(folder) / "config.json")
    if settings.get("position_embedding_type", "absolute") != "absolute":
        kind = settings["position_embedding_type"]
        raise ValueError(f"{folder}: position_embedding_type is {kind!r}, expected 'absolute'")
    known = SHARED_DEFAULTS | DEFAULTS[settings["model_type"]] | settings
    found = {name: known[name] for name in SHAPE if name in known}
    if settings["model_type"] == "bert":
        found["max_position_embeddings"] += 1
    return found


def shift_positions(released: dict) -> None:
    """A row in front of BERT's position table, so that it is read from pad_token_id + 1 = 1. Changes the dictionary.

    The entities' table, which is read from 0 in every LUKE, gets an unused last row, as both must have the same size.
    """
    table = weight_files.join([released[POSITIONS]])
    unused = torch.zeros(1, table.shape[1], dtype=table.dtype)
    released[POSITIONS] = torch.cat([unused, table])
    if ENTITY_POSITIONS in released:
        released[ENTITY_POSITIONS] = torch.cat([weight_files.join([released[ENTITY_POSITIONS]]), unused])


def marker_sources(word_tokenizer) -> list[int]:
    """Ids of "@" and "#", from whose rows `<ent>` and `<ent2>` start."""
    return [word_tokenizer.encode(sign, prefix_space=False).ids[-1] for sign in "@#"]


def _luke_name(name: str) -> str:
    """roberta.encoder... and bert.encoder... -> luke.encoder..."""
    name = released_names.unwrapped(name).removeprefix("roberta.").removeprefix("bert.")
    name = released_names.modern_name(name)
    for old, new in BERT_HEAD.items():
        name = name.replace(old, new)
    return name


def read(folder: Path, config: ModelConfig, word_tokenizer) -> dict[str, Tensor]:
    """The weights of the word side under our names, for a LUKE of this configuration.

    ValueError if the tokenizer is not the folder's: then its ids mean other words.
    """
    folder = Path(folder)
    settings = files.read_object(folder / "config.json")
    released = {_luke_name(name): tensor for name, tensor in weight_files.read(folder).items()}
    released = released_names.modern(released)
    if WORD_TABLES[0] not in released:
        raise ValueError(f"{folder}: {released_names.missing_message(['embeddings.word_embeddings.weight'])}")
    n_words, expected = released[WORD_TABLES[0]].shape[0], len(word_tokenizer)
    if n_words + 2 == expected:
        released_names.append_rows(released, WORD_TABLES, marker_sources(word_tokenizer))
    elif n_words != expected:
        mended = f"make the data with prepare_wiki.py --tokenizer {folder}"
        raise ValueError(f"{folder} knows {n_words} word pieces, the data's tokenizer has {expected}: {mended}")
    if settings["model_type"] == "bert":
        shift_positions(released)
    try:
        optional = (*released_names.OPTIONAL, "luke.entities.")
        return released_names.from_released(released, config, optional)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None

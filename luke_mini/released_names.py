"""Our names of the weights <-> the names in released files: one table, and every tensor accounted for.

In: tensors by one kind of name. Out: the same by the other. Matrices that we stack (queries of a row, keys and values)
are taken apart on the way out and put together on the way in. Rules of the released files, of four generations:

- names with and without the leading `luke.`; what wrappers and AllenNLP put in front; LayerNorm's gamma and beta; heads
  under older names;
- an old buffer `embeddings.position_ids` is not read, nor the decoders of both heads, which *are* the embedding tables.
  A file may hold a table as its decoder alone. One that holds both, and different, has a head that LUKE does not know:
  transformers 5 trains the word decoder apart. It is named as `unknown`;
- an entity-aware model whose file lacks w2e, e2w and e2e gets copies of `query`; otherwise those three are not read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from luke_mini.config import ModelConfig
from luke_mini.weight_files import Stored, equal, join

# Ours -> theirs; several of theirs are stacked along the output features of one of ours. `*` = weight and bias.
ENCODER_NAMES = {
    "luke.words.token.weight": ["luke.embeddings.word_embeddings.weight"],
    "luke.words.position.weight": ["luke.embeddings.position_embeddings.weight"],
    "luke.words.token_type.weight": ["luke.embeddings.token_type_embeddings.weight"],
    "luke.words.norm.*": ["luke.embeddings.LayerNorm.*"],
    "luke.entities.entity.weight": ["luke.entity_embeddings.entity_embeddings.weight"],
    "luke.entities.mask": ["luke.entity_embeddings.mask_embedding"],
    "luke.entities.projection.weight": ["luke.entity_embeddings.entity_embedding_dense.weight"],
    "luke.entities.position.weight": ["luke.entity_embeddings.position_embeddings.weight"],
    "luke.entities.token_type.weight": ["luke.entity_embeddings.token_type_embeddings.weight"],
    "luke.entities.norm.*": ["luke.entity_embeddings.LayerNorm.*"],
    "luke.pooler.*": ["luke.pooler.dense.*"],
}
LAYER_NAMES = {
    "attention.word_query.*": ["attention.self.query.*", "attention.self.w2e_query.*"],
    "attention.entity_query.*": ["attention.self.e2w_query.*", "attention.self.e2e_query.*"],
    "attention.key_value.*": ["attention.self.key.*", "attention.self.value.*"],
    "attention.output.*": ["attention.output.dense.*"],
    "attention.norm.*": ["attention.output.LayerNorm.*"],
    "feed_forward.up.*": ["intermediate.dense.*"],
    "feed_forward.down.*": ["output.dense.*"],
    "feed_forward.norm.*": ["output.LayerNorm.*"],
}
HEAD_NAMES = {
    "word_head.dense.*": ["lm_head.dense.*"],
    "word_head.norm.*": ["lm_head.layer_norm.*"],
    "word_head.bias": ["lm_head.bias"],
    "entity_head.dense.*": ["entity_predictions.transform.dense.*"],
    "entity_head.norm.*": ["entity_predictions.transform.LayerNorm.*"],
    "entity_head.bias": ["entity_predictions.bias"],
    "classifier.*": ["classifier.*"],
}
# Parts that not every model has: question answering and token classification come without a pooler.
OPTIONAL = ("word_head.", "entity_head.", "classifier.", "luke.pooler.")
# Beginnings of older names, and what they are called today. A head's only layer is `classifier` with us.
OLDER = {
    "feature_extractor.embedder.luke_model.": "luke.",  # AllenNLP
    "typing.": "classifier.",  # entity typing
    "scorer.": "classifier.",  # ReCoRD
    "span_scoring_layer.": "classifier.",  # AllenNLP's question answering
    "qa_outputs.": "classifier.",  # question answering, still called so
}
BARE = ("embeddings.", "entity_embeddings.", "encoder.", "pooler.")
# Decoders -> the tensors that they are.
TIED = {
    "lm_head.decoder.weight": "luke.embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
    "entity_predictions.decoder.weight": "luke.entity_embeddings.entity_embeddings.weight",
}


def name_table(config: ModelConfig) -> dict[str, list[str]]:
    """Our tensor names -> the released names stacked in each, for one configuration, heads included."""
    table = dict(ENCODER_NAMES)
    if config.entity_emb_size == config.hidden_size:
        del table["luke.entities.projection.weight"]
    if config.mask_entity_id is None:
        del table["luke.entities.mask"]
    for layer in range(config.num_hidden_layers):
        for ours, theirs in LAYER_NAMES.items():
            if not config.use_entity_aware_attention:
                if ours == "attention.entity_query.*":
                    continue
                theirs = [name for name in theirs if "w2e" not in name]
            table[f"luke.layers.{layer}.{ours}"] = [f"luke.encoder.layer.{layer}.{name}" for name in theirs]
    return {
        ours.replace("*", kind): [name.replace("*", kind) for name in theirs]
        for ours, theirs in (table | HEAD_NAMES).items()
        for kind in (("weight", "bias") if "*" in ours else ("",))
    }


def to_released(weights: Mapping[str, Tensor], config: ModelConfig, architecture: str = "") -> dict[str, Tensor]:
    """Our weights under the released names; stacked matrices are taken apart, as views of ours.

    architecture: the Hugging Face class that is to open them. LukeModel has no prefix, question answering has a head
    of another name.
    """
    released = {}
    for ours, theirs in name_table(config).items():
        if ours in weights:
            released |= dict(zip(theirs, weights[ours].chunk(len(theirs))))
    if architecture == "LukeModel":
        return {name.removeprefix("luke."): tensor for name, tensor in released.items()}
    if architecture == "LukeForQuestionAnswering":
        return {name.replace("classifier.", "qa_outputs."): tensor for name, tensor in released.items()}
    return released


def unwrapped(name: str) -> str:
    """Without what torch.compile (around any part), data parallel training and classes that hold a model put there."""
    name = name.replace("_orig_mod.", "")
    while name.startswith(("module.", "model.")):
        name = name.partition(".")[2]
    return name


def modern_name(name: str) -> str:
    """What a tensor of a file of any age is called today."""
    name = unwrapped(name)
    for old, new in OLDER.items():
        if name.startswith(old):
            name = new + name.removeprefix(old)
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return f"luke.{name}" if name.startswith(BARE) else name


def modern(released: Mapping[str, Tensor | Stored]) -> dict[str, Tensor | Stored]:
    """The tensors of a file under today's names. Of tied tensors a file may hold either. ValueError if it holds two."""
    renamed = {modern_name(name): tensor for name, tensor in released.items()}
    if len(renamed) < len(released):
        twice = [name for name, count in Counter(map(modern_name, released)).items() if count > 1]
        raise ValueError(f"the weight {twice[0]} is there twice, under several names")
    for decoder, name in TIED.items():
        if decoder in renamed:
            renamed.setdefault(name, renamed[decoder])
    return renamed


def from_released(
    released: Mapping[str, Tensor | Stored], config: ModelConfig, optional: tuple[str, ...] = OPTIONAL
) -> dict[str, Tensor]:
    """Released weights of any age under our names.

    What is missing of the `optional` parts is left out; any other missing tensor is an error, one line for all of them.
    """
    released = modern(released)
    weights, missing = {}, []
    for ours, theirs in name_table(config).items():
        parts = [_find(name, released, config) for name in theirs]
        if all(part is not None for part in parts):
            weights[ours] = join(parts)
        elif not ours.startswith(optional):
            missing += [name for name, part in zip(theirs, parts) if part is None]
    if missing:
        raise ValueError(missing_message(missing))
    return weights


def _find(name: str, released: Mapping, config: ModelConfig) -> Tensor | Stored | None:
    if name in released:
        return released[name]
    for extra in ("w2e_query", "e2w_query", "e2e_query"):
        if extra in name:
            return released.get(name.replace(extra, "query"))
    if name == "luke.entity_embeddings.mask_embedding":  # its start: the row of [MASK]
        table = released.get("luke.entity_embeddings.entity_embeddings.weight")
        return None if table is None else join([table])[config.mask_entity_id].clone()
    return None


def missing_message(names: list[str]) -> str:
    """One line that names missing tensors, the first five of many."""
    if len(names) == 1:
        return f"the weight {names[0]} is missing"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} weights are missing: {', '.join(names[:5])}{more}"


def copies(released: Mapping[str, Tensor | Stored]) -> list[str]:
    """The decoders, under today's names, that hold what they are tied to."""
    pairs = {decoder: (released[decoder], released[name]) for decoder, name in TIED.items() if decoder in released}
    return [name for name, (one, other) in pairs.items() if one is other or equal(one, other)]


def unknown(
    released: Mapping[str, Tensor | Stored], config: ModelConfig, weights: Mapping[str, Tensor] | None = None
) -> list[str]:
    """What a file has and no LUKE of this configuration: names, and decoders that differ from their tables.

    weights: what was read of the file, under our names; it saves reading the tables again.
    """
    known = {name for theirs in name_table(config).values() for name in theirs}
    today = modern(released) | to_released(weights or {}, config)
    equal = copies(today)
    differ = [f"{name} (differs from {TIED[name]})" for name in TIED if name in today and name not in equal]
    return [name for name in released if not (modern_name(name) in known or _is_ignored(modern_name(name)))] + differ


def _is_ignored(name: str) -> bool:
    """Known and not needed: decoders, which are the embedding tables, and queries that are switched off."""
    if name.startswith("luke.encoder.layer.") and name.split(".")[-2] in ("w2e_query", "e2w_query", "e2e_query"):
        return True
    return name in TIED or name == "luke.embeddings.position_ids"


@torch.no_grad()
def append_rows(released: dict[str, Tensor], names: Iterable[str], sources: list[int]) -> None:
    """Gives each named table that is there new last rows, copies of the rows `sources`. Changes the dictionary."""
    for name in names:
        if name in released:
            table = join([released[name]])
            released[name] = torch.cat([table, table[sources]])

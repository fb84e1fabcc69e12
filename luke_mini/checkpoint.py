"""A model folder is the Hugging Face LUKE folder: config.json, model.safetensors, tokenizer files, entity_vocab.json.

In: a folder. Out: its configuration, weights under our names, tokenizer and entity vocabulary; and the way back.
The table below is the only place that knows the released names. Every tensor of a file is accounted for: a missing one
or one of the wrong shape is an error that names it. Rules of loading (they are those of the released files):

- names with and without the leading `luke.`, an old buffer `embeddings.position_ids` is dropped;
- the decoders of both heads are the embedding tables themselves and are not read;
- an entity-aware model whose file lacks w2e, e2w and e2e gets copies of `query`; otherwise those three are not read.
"""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from luke_mini import atomic, run_state, tokenizer
from luke_mini.config import ModelConfig
from luke_mini.entity_vocab import EntityVocab
from luke_mini.model import LukeForPretraining

# Ours -> theirs; several of theirs are stacked along the output features of one of ours. `*` = weight and bias.
ENCODER_NAMES = {
    "luke.words.token.weight": ["luke.embeddings.word_embeddings.weight"],
    "luke.words.position.weight": ["luke.embeddings.position_embeddings.weight"],
    "luke.words.token_type.weight": ["luke.embeddings.token_type_embeddings.weight"],
    "luke.words.norm.*": ["luke.embeddings.LayerNorm.*"],
    "luke.entities.entity.weight": ["luke.entity_embeddings.entity_embeddings.weight"],
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
HEADS = ("word_head.", "entity_head.", "classifier.")
LITE_ENTITIES = ["[MASK]", "[UNK]", "[PAD]", "[MASK2]"]  # the rows of a released lite model, in its order


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a model folder holds."""

    config: ModelConfig
    weights: dict[str, Tensor]  # by our names, float32 or as in the file
    tokenizer: object
    entity_vocab: EntityVocab
    settings: dict  # config.json as it stands: labels of a fine-tuned model and all that ModelConfig does not hold


def name_table(config: ModelConfig) -> dict[str, list[str]]:
    """Our tensor names -> the released names stacked in each, for one configuration, heads included."""
    table = dict(ENCODER_NAMES)
    if config.entity_emb_size == config.hidden_size:
        del table["luke.entities.projection.weight"]
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


def to_released(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our weights under the released names; stacked matrices are taken apart."""
    released = {}
    for ours, theirs in name_table(config).items():
        if ours in weights:
            released |= dict(zip(theirs, weights[ours].chunk(len(theirs))))
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in released.items()}


def from_released(released: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Released weights under our names. A head that is missing is left out; any other missing tensor is an error."""
    released = {_with_prefix(name): tensor for name, tensor in released.items()}
    weights = {}
    for ours, theirs in name_table(config).items():
        parts = [_find(name, released) for name in theirs]
        if all(part is not None for part in parts):
            weights[ours] = torch.cat(parts) if len(parts) > 1 else parts[0]
        elif not ours.startswith(HEADS):
            missing = next(name for name, part in zip(theirs, parts) if part is None)
            raise ValueError(f"the weight {missing} is missing")
    return weights


def _with_prefix(name: str) -> str:
    bare = ("embeddings.", "entity_embeddings.", "encoder.", "pooler.")
    return f"luke.{name}" if name.startswith(bare) else name


def _find(name: str, released: dict[str, Tensor]) -> Tensor | None:
    for extra in ("w2e_query", "e2w_query", "e2e_query"):
        if extra in name and name not in released:
            return released.get(name.replace(extra, "query"))
    return released.get(name)


def find_folder(folder: Path | str) -> Path:
    """The folder itself if it is a checkpoint, else the newest saved step of a run folder."""
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return folder
    steps = run_state.saved_steps(folder)
    if not steps:
        raise ValueError(f"{folder}: neither a checkpoint (no config.json) nor a run with a saved step-NNNNNN folder")
    return steps[-1]


def read(folder: Path | str, *, entity_aware: bool | None = None) -> Checkpoint:
    """Reads a model folder or the newest saved step of a run. entity_aware overrides the configuration.

    Raises ValueError with one line naming the file and what is wrong with it.
    """
    folder = find_folder(folder)
    for name in ("config.json", "model.safetensors", "entity_vocab.json"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: missing from the checkpoint folder")
    settings = _read_settings(folder / "config.json")
    config = ModelConfig(**{f.name: settings[f.name] for f in fields(ModelConfig) if f.name in settings})
    if entity_aware is not None:
        config = replace(config, use_entity_aware_attention=entity_aware)
    try:
        weights = from_released(safetensors.torch.load_file(folder / "model.safetensors"), config)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{folder / 'model.safetensors'}: {error}") from None
    vocab = EntityVocab.load(folder / "entity_vocab.json")
    return Checkpoint(config, weights, tokenizer.load(folder), vocab, settings)


def _read_settings(path: Path) -> dict:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: no valid JSON ({error})") from None
    if settings.get("model_type", "luke") != "luke":
        raise ValueError(f"{path}: model_type is {settings['model_type']!r}, expected 'luke'")
    return settings


def lite(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with only the four special entities, in the order of the released lite models."""
    vocab = checkpoint.entity_vocab
    rows = torch.tensor([vocab.mask_id, vocab.unk_id, vocab.pad_id, vocab.mask2_id])
    weights = dict(checkpoint.weights)
    for name in ("luke.entities.entity.weight", "entity_head.bias"):
        if name in weights:
            weights[name] = weights[name][rows]
    config = replace(checkpoint.config, entity_vocab_size=len(rows))
    small = EntityVocab.from_titles(LITE_ENTITIES)
    return replace(checkpoint, config=config, weights=weights, entity_vocab=small)


@torch.no_grad()
def fill(model: nn.Module, weights: dict[str, Tensor], fresh: tuple[str, ...] = ()) -> None:
    """Copies weights into a model. Tensors under a prefix in `fresh` may be missing and then keep their values.

    Weights of heads that the model lacks are ignored; any other difference is a ValueError naming the tensor.
    """
    own = model.state_dict()
    for name, tensor in own.items():
        if name in weights:
            if weights[name].shape != tensor.shape:
                found, expected = list(weights[name].shape), list(tensor.shape)
                raise ValueError(f"the weight {name} has the shape {found}, expected {expected}")
            tensor.copy_(weights[name])
        elif not name.startswith(fresh):
            raise ValueError(f"the weight {name} is missing")
    for name in weights:
        if name not in own and not name.startswith(HEADS):
            raise ValueError(f"the weight {name} has no place in the model")


def load(folder: Path | str) -> tuple[LukeForPretraining, object, EntityVocab]:
    """(model, tokenizer, entity vocabulary) of a folder that holds both pretraining heads."""
    checkpoint = read(folder)
    model = LukeForPretraining(checkpoint.config)
    fill(model, checkpoint.weights)
    return model, checkpoint.tokenizer, checkpoint.entity_vocab


def save(
    folder: Path | str, model: nn.Module, word_tokenizer, entity_vocab: EntityVocab, settings: dict | None = None
) -> None:
    """Writes a model folder that is whole or absent. settings: further entries of config.json, such as labels."""
    with atomic.write_folder(folder) as temporary:
        write(temporary, model, word_tokenizer, entity_vocab, settings)


def write(
    folder: Path, model: nn.Module, word_tokenizer, entity_vocab: EntityVocab, settings: dict | None = None
) -> None:
    """Writes the files of a model folder into an existing folder."""
    config = model.config
    released = {"model_type": "luke", "architectures": ["LukeForMaskedLM"], **(settings or {})}
    released |= {f.name: getattr(config, f.name) for f in fields(ModelConfig)}
    (folder / "config.json").write_text(json.dumps(released, indent=1, ensure_ascii=False), encoding="utf-8")
    run_state.save_tensors(to_released(model.state_dict(), config), folder / "model.safetensors")
    word_tokenizer.save(folder)
    entity_vocab.save(folder / "entity_vocab.json")

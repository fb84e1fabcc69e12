"""A model folder is the Hugging Face LUKE folder: config.json, weights, tokenizer files, entity_vocab.json.

In: a folder, released or ours. Out: its configuration, weights under our names, tokenizer and entity vocabulary, or the
model itself; and back to a folder that `transformers` opens. `weights.py` reads the tensors and
holds the table of names. Every tensor is accounted for: a missing one or one of the wrong shape is an error that names
it; one that is not part of any LUKE is listed in `Checkpoint.unexpected`. `model_tools.py` is the command line.
"""

import json
import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from luke_mini import distributed, files, initialization, tokenizer
from luke_mini.config import ModelConfig
from luke_mini.entity_vocab import LITE_ENTITIES, EntityVocab
from luke_mini.heads import HEADS, LukeForTask
from luke_mini.model import LukeForPretraining, LukeModel
from luke_mini.saves import saved_steps
from luke_mini.weights import ENTITY_TABLES, OPTIONAL, TIED, WORD_TABLES, canonical, check_finite, from_released
from luke_mini.weights import missing_message, name_table, read_folder, save_tensors, to_released, unexpected_names


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a model folder holds."""

    config: ModelConfig
    weights: dict[str, Tensor]  # by our names, float32 or as in the file
    tokenizer: object
    entity_vocab: EntityVocab
    settings: dict  # all of config.json, including what ModelConfig lacks, such as labels
    unexpected: tuple[str, ...] = ()  # names of tensors in the file that were not used

    @property
    def ignored(self) -> str:
        """A message about the unexpected tensors, "" if there are none."""
        return f"{', '.join(self.unexpected)}: not part of any LUKE model" if self.unexpected else ""


# --- Reading ----------------------------------------------------------------------------------------------------------


# Whose models begin with this word, on the Hugging Face hub.
OWNERS = {"luke": "studio-ousia", "mluke": "studio-ousia", "roberta": "FacebookAI", "xlm": "FacebookAI",
          "bert": "google-bert"}  # fmt: skip


def check_exists(folder: Path) -> None:
    """ValueError if there is no such folder; with the way to get a released model or the built-in one."""
    if folder.is_dir():
        return
    owner, hint = OWNERS.get(folder.name.split("-")[0]), ""
    if owner and str(folder.parent) in (".", owner):
        hint = f"; to download it: hf download {owner}/{folder.name} --local-dir {folder}"
    elif str(folder).startswith("runs/toyworld"):
        hint = "; the README's first command makes it"
    raise ValueError(f"{folder}: no such folder{hint}")


def model_folder(folder: Path) -> Path:
    """The model/ of what `finetune.py` wrote; any other folder itself."""
    return folder / "model" if (folder / "model").is_dir() else folder


def find_folder(folder: Path | str) -> Path:
    """The folder itself if it is a checkpoint, else the newest saved step of a run folder."""
    folder = Path(folder)
    check_exists(folder)
    if (folder / "config.json").is_file():
        return folder
    steps = saved_steps(folder)
    if not steps:
        raise ValueError(f"{folder}: neither a checkpoint (no config.json) nor a run with a saved step-NNNNNN folder")
    return steps[-1]


def read(folder: Path | str, *, entity_aware: bool | None = None, vocabularies: bool = True) -> Checkpoint:
    """Reads a model folder or the newest saved step of a run. entity_aware overrides the configuration.

    vocabularies=False: tokenizer and entity vocabulary are None. ValueError names the file and what is wrong with it.
    """
    folder = find_folder(folder)
    settings = read_settings(folder / "config.json")
    vocab = EntityVocab.of_folder(folder) if vocabularies else None
    if vocabularies and vocab is None:
        raise ValueError(f"{folder / 'entity_vocab.json'}: missing, and tokenizer_config.json holds no entity_vocab")
    word_tokenizer = tokenizer.load(folder) if vocabularies else None
    return assemble(folder, settings, read_folder(folder), word_tokenizer, vocab, entity_aware)


def assemble(
    source: Path, settings: dict, released: dict, word_tokenizer, vocab: EntityVocab | None, entity_aware=None
) -> Checkpoint:
    """Builds a checkpoint from the contents of config.json, the tensors and the vocabularies, which must agree."""
    with files.naming(source):
        config = model_config(settings, entity_aware)
        check_shapes(released, config)
        weights = from_released(released, config)
        check_finite(to_released(weights, config))
    for known, key in ((word_tokenizer, "vocab_size"), (vocab, "entity_vocab_size")):
        if known is not None and len(known) > getattr(config, key):
            raise ValueError(f"{source}: {key} is {getattr(config, key)}, but the vocabulary has {len(known)} entries")
    if (settings.get("architectures") or ["LukeModel"])[0] == "LukeModel":  # or none is named: the weights know
        heads = all(name in weights for name in ("word_head.bias", "entity_head.bias"))
        settings = settings | {"architectures": ["LukeForMaskedLM" if heads else "LukeModel"]}
    unexpected = tuple(unexpected_names(released, config, weights))
    return Checkpoint(config, weights, word_tokenizer, vocab, settings, unexpected)


def with_attention(found: Checkpoint, entity_aware: bool) -> Checkpoint:
    """The checkpoint with entity-aware attention (w2e, e2w, e2e: its own or copies of w2w) or without (section 3)."""
    config = replace(found.config, use_entity_aware_attention=entity_aware)
    return replace(found, config=config, weights=from_released(to_released(found.weights, found.config), config))


# Further entries of config.json that are read, and what they hold.
ENTRIES = {"architectures": list, "id2label": dict, "problem_type": str, "classifier_bias": bool, "luke_mini": dict,
           "bert_model_name": str}  # fmt: skip


def read_settings(path: Path) -> dict:
    """The contents of a config.json, its entries checked. ValueError naming the file and the entry."""
    settings = files.read_object(path)
    if isinstance(settings.get("model"), dict):
        raise ValueError(f"{path}: AllenNLP's; `python -m luke_mini.model_tools convert` makes a model folder of it")
    kind = settings.get("model_type", "luke")
    if kind not in ("luke", "mluke"):
        hint = ": a word model, for use with --init" if kind in tuple(initialization.WORD_MODELS) else ""
        raise ValueError(f"{path}: model_type is {kind!r}, expected 'luke'{hint}")
    with files.naming(path):
        model_config(settings)
    return settings


def model_config(settings: dict, entity_aware: bool | None = None) -> ModelConfig:
    """The configuration that the settings of a config.json describe. ValueError naming an entry of the wrong kind."""
    known = initialization.SHARED_DEFAULTS | settings
    given = {f.name: known[f.name] for f in fields(ModelConfig) if f.name in known}
    if entity_aware is not None:
        given["use_entity_aware_attention"] = entity_aware
    found = files.Record("config.json", {name: value for name, value in settings.items() if value is not None})
    for name, kind in ENTRIES.items():
        found.get(name, kind, None)
    found.texts("architectures", [])
    labels = found.get("id2label", dict, {})
    if any(not str(key).isdecimal() or not isinstance(label, str) for key, label in labels.items()):
        raise ValueError('config.json: field \'id2label\', expected the names of classes, {"0": "LOC", ...}')
    return ModelConfig(**given)


def check_shapes(released: dict[str, Tensor], config: ModelConfig) -> None:
    """Raises ValueError naming the first tensor of a file whose shape is not what the configuration says."""
    with torch.device("meta"):
        expected = to_released(LukeForPretraining(config).state_dict(), config)
    compare_shapes(canonical(released), expected, " as config.json says")


def compare_shapes(found: dict[str, Tensor], expected: dict[str, Tensor], source: str = "") -> None:
    for name, tensor in found.items():
        if name in expected and tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, expected {list(expected[name].shape)}"
            raise ValueError(f"the weight {name} has the shape {shapes}{source}")


@torch.no_grad()
def fill(model: nn.Module, weights: dict[str, Tensor], fresh: tuple[str, ...] = ()) -> None:
    """Copies weights into a model. Parameters under a prefix in `fresh` may be missing; they stay as they are.

    A model on the meta device has no memory and takes over the tensors themselves. Weights of heads that the
    model lacks are ignored; any other difference is a ValueError naming the tensors.
    """
    own = model.state_dict()
    table = name_table(model.config)
    missing = [name for name in own if name not in weights and not name.startswith(fresh)]
    if missing:
        raise ValueError(missing_message([table.get(name, [name])[0] for name in missing]))
    compare_shapes(weights, own)
    taken = {name: distributed.spread(tensor, own[name]) for name, tensor in weights.items() if name in own}
    for name in weights:
        if name not in own and not name.startswith(OPTIONAL):
            raise ValueError(f"the weight {name} has no place in the model")
    model.load_state_dict(taken, strict=False, assign=any(tensor.is_meta for tensor in own.values()))


def build(checkpoint: Checkpoint) -> nn.Module:
    """The model that config.json names, in eval mode; it shares the checkpoint's tensors.

    LukeForMaskedLM is `LukeForPretraining`, LukeModel the bare encoder, the others are `heads.LukeForTask`.
    """
    config, settings = checkpoint.config, checkpoint.settings
    weights = dict(checkpoint.weights)
    architecture = architecture_of(settings)
    with torch.device("meta"):
        if architecture == "LukeModel":
            model = LukeModel(config, with_pooler="luke.pooler.weight" in weights)
            prefixed = {name for name in weights if name.startswith("luke.")}
            weights = {name.removeprefix("luke."): weights[name] for name in prefixed}
        elif architecture == "LukeForMaskedLM":
            model = LukeForPretraining(config)
        else:
            if "classifier.weight" not in weights:
                raise ValueError(missing_message(["classifier.weight"]))
            # The bias of a pair head exists if the file has one or config.json says so (mLUKE for KBP37).
            bias = "classifier.bias" in weights or settings.get("classifier_bias", HEADS[architecture].bias)
            classes = len(weights["classifier.weight"])
            model = LukeForTask(config, architecture, classes, bias, settings.get("problem_type"))
    fill(model, weights)
    return model.eval()


def architecture_of(settings: dict) -> str:
    """The Hugging Face class that the settings of a checkpoint name."""
    named = settings["architectures"][0]
    if named not in ("LukeModel", "LukeForMaskedLM", *HEADS):
        raise ValueError(f"config.json: architectures names {named}, expected LukeModel, LukeForMaskedLM or a head")
    return named


def class_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The classes of a fine-tuned model by id: id2label of config.json, or LABEL_0, ... as in transformers.

    () if the head has no classes with names (choices, answers, pretraining). ValueError if names and rows differ.
    """
    rows = len(checkpoint.weights.get("classifier.weight", ()))
    if not rows or architecture_of(checkpoint.settings) in ("LukeForMultipleChoice", "LukeForQuestionAnswering"):
        return ()
    names = checkpoint.settings.get("id2label") or {str(i): f"LABEL_{i}" for i in range(rows)}
    if not isinstance(names, dict) or set(names) != set(map(str, range(rows))):
        raise ValueError(f"config.json: id2label does not name the {rows} classes 0 to {rows - 1} of the classifier")
    return tuple(names[str(i)] for i in range(rows))


def start_from_words(folder: Path | str) -> Checkpoint:
    """A LUKE for fine-tuning, made from a RoBERTa, XLM-R or BERT folder, without pretraining on entities.

    It has only the special entities, with embeddings of the words' size. They start as copies of the embedding of the
    word <mask>, with the words' position embeddings, token type and LayerNorm.
    """
    folder = Path(folder)
    check_exists(folder)
    if not initialization.is_word_model(folder):
        kinds = ", ".join(initialization.WORD_MODELS)
        raise ValueError(f"{folder}: expected a folder with a config.json whose model_type is one of {kinds}")
    word_tokenizer = tokenizer.load(folder)
    found = initialization.word_model_shape(folder) | {"vocab_size": len(word_tokenizer)}
    found |= {"entity_vocab_size": len(LITE_ENTITIES), "entity_emb_size": found["hidden_size"]}
    config = ModelConfig(**found, bos_token_id=word_tokenizer.bos_id, eos_token_id=word_tokenizer.eos_id)
    luke = LukeModel(config)
    initialization.initialize(luke, config, seed=0)
    weights = initialization.read_word_model(folder, config, word_tokenizer)
    inner = {name.removeprefix("luke."): tensor for name, tensor in weights.items() if name.startswith("luke.")}
    fill(luke, inner, fresh=("entities.", "pooler."))
    initialization.start_as_masked_words(luke, word_tokenizer.mask_id)
    weights |= {f"luke.{name}": tensor for name, tensor in luke.state_dict().items()}
    vocab = EntityVocab.from_titles(LITE_ENTITIES)
    return Checkpoint(config, weights, word_tokenizer, vocab, {"architectures": ["LukeModel"]})


def warn_of_unread(folder: Path | str, found: Checkpoint) -> None:
    if found.ignored:
        warnings.warn(f"{folder}: ignored {found.ignored}", stacklevel=3)


def load(folder: Path | str) -> tuple[nn.Module, object, EntityVocab]:
    """(model, tokenizer, entity vocabulary) of a folder, see `build`. Warns of tensors that were not used."""
    found = read(folder)
    warn_of_unread(folder, found)
    with files.naming(folder):
        return build(found), found.tokenizer, found.entity_vocab


def lite(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with only the four special entities, in the order of the released lite models."""
    vocab, config = checkpoint.entity_vocab, checkpoint.config
    if vocab.mask2_id is None:
        raise ValueError("the entity vocabulary has no [MASK2]; `convert` adds it")
    rows = torch.tensor([vocab.mask_id, vocab.unk_id, vocab.pad_id, vocab.mask2_id])
    weights = dict(checkpoint.weights)
    for name in ("luke.entities.entity.weight", "entity_head.bias"):
        if name in weights:
            weights[name] = weights[name][rows]
    small = EntityVocab.from_titles(LITE_ENTITIES)
    mask = None if config.mask_entity_id is None else small.mask_id
    config = replace(config, entity_vocab_size=len(rows), mask_entity_id=mask)
    return replace(checkpoint, config=config, weights=weights, entity_vocab=small)


# --- Writing ----------------------------------------------------------------------------------------------------------


def save(
    folder: Path | str, model: nn.Module, word_tokenizer, vocab: EntityVocab | None, settings: dict | None = None
) -> None:  # fmt: skip
    """Writes a model folder atomically. settings: further entries of config.json, such as labels."""
    with files.write_folder(folder) as temporary:
        write(temporary, model, word_tokenizer, vocab, settings)


def write(
    folder: Path, model: nn.Module, word_tokenizer, vocab: EntityVocab | None, settings: dict | None = None,
    weights: dict[str, Tensor] | None = None,
) -> None:  # fmt: skip
    """Writes the files of a model folder into an existing folder. weights: in place of those that the model has."""
    weights, known = weights or model.state_dict(), {"architectures": ["LukeForMaskedLM"]}
    if isinstance(model, LukeModel):
        weights, known = {f"luke.{name}": tensor for name, tensor in weights.items()}, {"architectures": ["LukeModel"]}
    elif isinstance(model, LukeForTask):
        known = _task_settings(model)
    write_files(folder, Checkpoint(model.config, weights, word_tokenizer, vocab, known | (settings or {})))


def _task_settings(model: LukeForTask) -> dict:
    labels = [f"LABEL_{i}" for i in range(model.classifier.out_features)]
    settings = {"architectures": [model.architecture], "problem_type": model.problem_type}
    if model.architecture != "LukeForMultipleChoice":
        settings |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    if (model.classifier.bias is not None) != model.head.bias:
        settings["classifier_bias"] = model.classifier.bias is not None
    return settings


def write_files(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint into an existing folder: config.json, model.safetensors, tokenizer, entity vocabulary.

    transformers 5.x does not tie the MLM decoder to the word embeddings, so that tensor is in the file twice. Nor does
    it know an embedding of [MASK] outside of the entity table: that is in the table's row, too.
    Vocabularies that are None are left out.
    """
    config, settings = checkpoint.config, {"model_type": "luke", **checkpoint.settings}
    settings.pop("torch_dtype", None)  # the older name of dtype; half precision became float32 on reading
    settings["dtype"] = str(checkpoint.weights["luke.words.token.weight"].dtype).removeprefix("torch.")
    architecture = architecture_of(settings)
    settings |= {f.name: getattr(config, f.name) for f in fields(ModelConfig)}
    settings["architectures"] = [architecture]
    with files.write_file(folder / "config.json") as file:
        json.dump(settings, file, indent=1, ensure_ascii=False)
    nameless = checkpoint.weights.keys() - name_table(config).keys()
    if nameless:
        raise ValueError(f"no released name for {', '.join(sorted(nameless))}: it would be lost")
    released = to_released(checkpoint.weights, config, architecture)
    if architecture == "LukeForMaskedLM" and "lm_head.bias" in released:
        released |= {decoder: released[name].clone() for decoder, name in TIED.items() if name in WORD_TABLES}
    if config.mask_entity_id is not None:
        name = next(name for name in released if name.endswith(ENTITY_TABLES[0].removeprefix("luke.")))
        released[name] = released[name].clone()
        released[name][config.mask_entity_id] = checkpoint.weights["luke.entities.mask"]
    save_tensors(released, folder / "model.safetensors")
    if checkpoint.tokenizer is not None:
        checkpoint.tokenizer.save(folder)
    if checkpoint.entity_vocab is not None:
        checkpoint.entity_vocab.save(folder / "entity_vocab.json")

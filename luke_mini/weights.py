"""Weights by name: files on disk, and the released names <-> ours. One table, and every tensor accounted for.

In: a folder with safetensors or torch's pickles, whole or in shards. Out: tensors under our names, and the way back.
Files are memory-mapped: a model takes little more memory than its file. Pickles can hold code, so they are opened with
`weights_only`. Matrices that we stack (queries of a row, keys and values) are taken apart on the way out and joined on
the way in. Four generations of released files differ in this:

- names with and without the leading `luke.`; prefixes of wrappers and of AllenNLP; LayerNorm's gamma and beta; heads
  under older names;
- an old buffer `embeddings.position_ids` is ignored, and so are the decoders of both heads, which *are* the embedding
  tables. A file may hold a table as its decoder alone. If it holds both and they differ, as when transformers 5 trains
  the word decoder apart, the decoder is reported as unexpected;
- an entity-aware model whose file lacks w2e, e2w and e2e gets copies of `query`; otherwise those three are ignored.

Left out: other frameworks' files.
"""

import os
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from luke_mini import files
from luke_mini.config import ModelConfig

# The first of these that exists is read. An index names the shard of each tensor.
FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
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
    "attention.w2w_w2e.*": ["attention.self.query.*", "attention.self.w2e_query.*"],
    "attention.e2w_e2e.*": ["attention.self.e2w_query.*", "attention.self.e2e_query.*"],
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
    "page_head.weight": ["cls_entity_predictions.decoder.weight"],
    "page_head.bias": ["cls_entity_predictions.bias"],
    "classifier.*": ["classifier.*"],
}
# Parts that not every model has: question answering and token classification come without a pooler.
OPTIONAL = ("word_head.", "entity_head.", "page_head.", "classifier.", "luke.pooler.")
# Beginnings of older names and of other models', and what they are called today. A head's one layer is `classifier`.
OLDER = {
    "feature_extractor.embedder.luke_model.": "luke.",  # AllenNLP
    "typing.": "classifier.",  # entity typing
    "scorer.": "classifier.",  # ReCoRD
    "span_scoring_layer.": "classifier.",  # AllenNLP's question answering
    "qa_outputs.": "classifier.",  # question answering, still called so
    "roberta.": "",  # word models, which only `initialization.py` reads
    "bert.": "",
    "cls.predictions.transform.dense.": "lm_head.dense.",  # BERT's masked-word head
    "cls.predictions.transform.LayerNorm.": "lm_head.layer_norm.",
    "cls.predictions.decoder.": "lm_head.decoder.",
    "cls.predictions.bias": "lm_head.bias",
}
BARE = ("embeddings.", "entity_embeddings.", "encoder.", "pooler.")
# Tensors with a row for each word or entity: the table of embeddings, and the bias of the head.
WORD_TABLES = ("luke.embeddings.word_embeddings.weight", "lm_head.bias")
ENTITY_TABLES = ("luke.entity_embeddings.entity_embeddings.weight", "entity_predictions.bias")
MASK_EMBEDDING = "luke.entity_embeddings.mask_embedding"
POSITION_IDS = "luke.embeddings.position_ids"  # an old buffer, 0 1 2 ...
# Decoders -> the tensors that they are.
TIED = {
    "lm_head.decoder.weight": WORD_TABLES[0],
    "lm_head.decoder.bias": WORD_TABLES[1],
    "entity_predictions.decoder.weight": ENTITY_TABLES[0],
}


# --- Files ------------------------------------------------------------------------------------------------------------


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder's weight file or shards, under the file's own names.

    ValueError in one line if there is none, or naming the file that is truncated, damaged or contains code.
    """
    found = [folder / name for name in FILES if (folder / name).is_file()]
    if not found:
        raise ValueError(f"{folder / FILES[0]}: missing from the folder, and so is {FILES[2]}")
    if not found[0].name.endswith(".index.json"):
        return read_file(found[0])
    shard_of = _read_index(found[0])
    tensors = {}
    for shard in sorted(set(shard_of.values())):
        if not (folder / shard).is_file():
            raise ValueError(f"{folder / shard}: missing from the folder, though {found[0].name} names it")
        tensors |= read_file(folder / shard)
    absent = [name for name in shard_of if name not in tensors]
    if absent:
        raise ValueError(f"{found[0]}: {absent[0]} is not in {shard_of[absent[0]]}")
    return tensors


def _read_index(path: Path) -> dict[str, str]:
    try:
        shard_of = files.read_object(path)["weight_map"]
        names = set(shard_of.values())
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f'{path}: expected {{"weight_map": {{"name of a tensor": "name of a file"}}}}') from None
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise ValueError(f"{path}: weight_map must name files of the same folder")
    return shard_of


def read_file(path: Path) -> dict[str, Tensor]:
    """The same for one file; its suffix tells the format."""
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a complete safetensors file ({error})") from None


def _unpickle(path: Path):
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):  # files of torch before 1.6
            raise
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # pickle protocols other than torch's own
            found = _unpickle(path)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if not code:
            raise ValueError(f"{path}: not a torch weight file") from None
        raise ValueError(f"{path}: contains pickled code ({code[1]}); refusing to load it") from None
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        if isinstance(error, OSError) and error.errno:
            raise
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a complete torch weight file ({reason})") from None
    for wrapping in ("state_dict", "model", "module"):  # training states: Lightning's, many people's, DeepSpeed's
        if isinstance(found, dict) and isinstance(found.get(wrapping), dict):
            found = found[wrapping]
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path}: expected tensors by name, found {type(found).__name__}")
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes safetensors. OSError, as for a full disk, in place of the library's own error.

    The library's file is readable by its owner alone; ours gets the mode of any new file.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        safetensors.torch.save_file({name: t.contiguous() for name, t in tensors.items()}, path, {"format": "pt"})
        path.chmod(mode)
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        raise OSError(f"{path}: could not be written: {error}") from None


def stack(parts: Sequence[Tensor]) -> Tensor:
    """All parts along their first axis: [n, ...], [m, ...] -> [n + m, ...]. Half precision becomes float32.

    A single tensor is not copied.
    """
    whole = torch.cat(tuple(parts)) if len(parts) > 1 else parts[0]
    return whole.float() if whole.is_floating_point() and whole.itemsize < 4 else whole


# --- Names ------------------------------------------------------------------------------------------------------------


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
                if ours == "attention.e2w_e2e.*":
                    continue
                theirs = [name for name in theirs if "w2e" not in name]
            table[f"luke.layers.{layer}.{ours}"] = [f"luke.encoder.layer.{layer}.{name}" for name in theirs]
    heads = {ours: theirs for ours, theirs in HEAD_NAMES.items() if config.cls_entity_prediction or "page" not in ours}
    return {
        ours.replace("*", kind): [name.replace("*", kind) for name in theirs]
        for ours, theirs in (table | heads).items()
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


def canonical_name(name: str) -> str:
    """The current name of a tensor of any generation."""
    name = name.replace("_orig_mod.", "")  # torch.compile's, around any part
    while name.startswith(("module.", "model.")):  # those of data parallel training and wrapper classes
        name = name.partition(".")[2]
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    for old, new in OLDER.items():
        if name.startswith(old):
            name = new + name.removeprefix(old)
    return f"luke.{name}" if name.startswith(BARE) else name


def canonical(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under the current names; a tied tensor may be there as its decoder alone.

    ValueError if a name appears twice.
    """
    renamed = {canonical_name(name): tensor for name, tensor in released.items()}
    if len(renamed) < len(released):
        twice = [name for name, count in Counter(map(canonical_name, released)).items() if count > 1]
        raise ValueError(f"the weight {twice[0]} appears twice, under several names")
    for decoder, name in TIED.items():
        if decoder in renamed:
            renamed.setdefault(name, renamed[decoder])
    return renamed


def from_released(
    released: Mapping[str, Tensor], config: ModelConfig, optional: tuple[str, ...] = OPTIONAL
) -> dict[str, Tensor]:
    """Released weights of any generation under our names.

    Missing `optional` parts are left out; any other missing tensor is an error, one line for all of them.
    """
    released = canonical(released)
    weights, missing = {}, []
    for ours, theirs in name_table(config).items():
        parts = [_find(name, released, config) for name in theirs]
        if all(part is not None for part in parts):
            weights[ours] = stack(parts)
        elif not ours.startswith(optional):
            missing += [name for name, part in zip(theirs, parts) if part is None]
    if missing:
        raise ValueError(missing_message(missing))
    return weights


def _find(name: str, released: Mapping, config: ModelConfig) -> Tensor | None:
    if name in released:
        return released[name]
    for extra in ("w2e_query", "e2w_query", "e2e_query"):
        if extra in name:
            return released.get(name.replace(extra, "query"))
    if name == MASK_EMBEDDING:  # its start: the row of [MASK]
        table = released.get(ENTITY_TABLES[0])
        return None if table is None else stack([table[config.mask_entity_id]]).clone()
    return None


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """ValueError naming the first tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            count = tensor.numel() - int(tensor.isfinite().sum())
            raise ValueError(f"the weight {name} has numbers that are not finite, {count} of {tensor.numel():,}")


def missing_message(names: list[str]) -> str:
    """One line that names missing tensors, the first five of many."""
    if len(names) == 1:
        return f"the weight {names[0]} is missing"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} weights are missing: {', '.join(names[:5])}{more}"


def tied(released: Mapping[str, Tensor]) -> list[str]:
    """The decoders, under the current names, that equal the tables they are tied to."""
    pairs = {decoder: (released[decoder], released[name]) for decoder, name in TIED.items() if decoder in released}
    return [name for name, (one, other) in pairs.items() if one is other or torch.equal(stack([one]), stack([other]))]


def unexpected_names(
    released: Mapping[str, Tensor], config: ModelConfig, weights: Mapping[str, Tensor] | None = None
) -> list[str]:
    """Names of a file that a LUKE of this configuration has no place for, and decoders that differ from their tables.

    weights: what was read from the file, under our names; it saves reading the tables again.
    """
    aware = replace(config, use_entity_aware_attention=True)  # queries of switched-off attention are known, not needed
    known = {name for theirs in name_table(aware).values() for name in theirs} | {*TIED, POSITION_IDS}
    current = canonical(released) | to_released(weights or {}, config)
    same = tied(current)
    differ = [f"{name} (differs from {TIED[name]})" for name in TIED if name in current and name not in same]
    return [name for name in released if canonical_name(name) not in known] + differ


@torch.no_grad()
def append_rows(released: dict[str, Tensor], names: Iterable[str], sources: list[int]) -> None:
    """Appends copies of the rows `sources` to each named table that is present. Changes the dictionary."""
    for name in names:
        if name in released:
            table = stack([released[name]])
            released[name] = torch.cat([table, table[sources]])

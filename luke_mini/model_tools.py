"""Command-line tools for model folders.

    python -m luke_mini.model_tools info DIR             what a folder holds and lacks: any that a command takes
    python -m luke_mini.model_tools convert DIR OUT      a checkpoint of the original LUKE code, a run or an old file
    python -m luke_mini.model_tools lite DIR OUT         only the special entities: half the size

Most of it reads what the original code wrote, a folder or a .tar[.gz|.bz2|.xz] of three kinds:

    an archive               pytorch_model.bin, metadata.json (`model_config`, ...), entity_vocab.tsv or .jsonl
    a pretraining run        the same, but checkpoints/epochN/mp_rank_00_model_states.pt in place of pytorch_model.bin
    a fine-tuned model       AllenNLP's: config.json, weights.th (best.th), vocabulary/labels.txt

and makes of it the settings of config.json, weights under the released names, and an entity vocabulary. Pretrained
models get the rows that downstream tasks need, each a copy of one that has been trained:

    words     `<ent>` := "@"   `<ent2>` := "#"     (and the same entries of the masked-word head's bias)
    entities  `[MASK2]` := `[MASK]`                (and the same entry of the masked-entity head's bias)

Titles of a vocabulary with languages become "en:Oslo". None of these hold a tokenizer: it is given. Archives of entity
disambiguation are based on BERT, whose positions are counted differently (see initialization.py), and have an embedding
of [MASK] outside of the table. AllenNLP's config.json names the Hugging Face folder that was fine-tuned, where shape,
tokenizer and entities are; the folder is given if it no longer lies there.
"""

import argparse
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import torch

from luke_mini import checkpoint, files, initialization, tokenizer, weights
from luke_mini.checkpoint import Checkpoint
from luke_mini.config import ModelConfig
from luke_mini.entity_vocab import LITE_ENTITIES, EntityVocab
from luke_mini.weights import ENTITY_TABLES, MASK_EMBEDDING, WORD_TABLES

METADATA, CONFIG = "metadata.json", "config.json"
ENTITY_SIDE = (*weights.OPTIONAL, "luke.entities.")  # what a word model lacks
PRETRAINED = ("model.safetensors", "pytorch_model.bin")
STATES = "mp_rank_00_model_states.pt"  # DeepSpeed's name
FINE_TUNED = ("weights.th", "best.th")  # AllenNLP's names: in its archive, in its folder
VOCABULARIES = ("entity_vocab.jsonl", "entity_vocab.tsv")
PARTS = (METADATA, CONFIG, *PRETRAINED, *FINE_TUNED, *VOCABULARIES)  # and vocabulary/labels.txt
# AllenNLP's names of model and features -> the class whose head sees the same hidden states.
ARCHITECTURES = {
    ("span_ner", "token+entity"): "LukeForEntitySpanClassification",
    ("relation_classifier", "entity"): "LukeForEntityPairClassification",
    ("entity_typing", "entity"): "LukeForEntityClassification",
}


def is_archive(path: Path) -> bool:
    try:
        return _folder_of(path) is not None or (path.is_file() and tarfile.is_tarfile(path))
    except (EOFError, zlib.error, lzma.LZMAError):  # `unpacked` says how it is damaged
        return True


def is_fine_tuned(folder: Path) -> bool:
    """Whether it holds a config.json of AllenNLP, which describes the model in an entry of its own."""
    return (folder / CONFIG).is_file() and isinstance(files.read_object(folder / CONFIG).get("model"), dict)


def _states(path: Path) -> list[Path]:
    """What a pretraining run saved, the last first: what the file `latest` names, else the largest epoch.

    path: the run, its checkpoints/, one of the folders there, or the file itself.
    """

    def age(found: Path) -> tuple[bool, bool, int]:
        tag, latest = found.parent.name, found.parent.parent / "latest"
        is_latest = latest.is_file() and latest.read_text(encoding="utf-8").strip() == tag
        return is_latest, tag.startswith("epoch"), int("0" + "".join(filter(str.isdecimal, tag)))

    if path.name == STATES:
        return [path]
    found = [state for depth in ("", "*/", "checkpoints/*/") for state in path.glob(depth + STATES)]
    return sorted(found, key=age, reverse=True)


def _folder_of(path: Path) -> Path | None:
    """The folder that describes the weights: `path`, or that of the run in whose checkpoints/ it is."""
    if states := _states(path):
        folders = [folder for folder in states[0].resolve().parents[:3] if (folder / METADATA).is_file()]
        if not folders:
            raise ValueError(f"{path}: no {METADATA} in the folder above its checkpoints/")
        return folders[0]
    return path if (path / METADATA).is_file() or is_fine_tuned(path) else None


def _weights_of(path: Path) -> Path:
    found = [path / name for name in PRETRAINED if (path / name).is_file()] + _states(path)
    found += [path / name for name in FINE_TUNED if (path / name).is_file()]
    if not found:
        raise ValueError(f"{path}: no weights, expected {PRETRAINED[-1]}, checkpoints/*/{STATES} or {FINE_TUNED[0]}")
    return found[0]


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """What `read` takes: `path` itself, or for a tar file a temporary folder with the few files that are needed."""
    if not path.is_file() or path.name == STATES:
        yield path
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = Path(member.name).name  # the file alone: no member can be put anywhere else
                    labels = Path(member.name).parent.name == "vocabulary"
                    if member.isfile() and (labels or name in PARTS):
                        target = folder / "vocabulary" / name if labels else folder / name
                        target.parent.mkdir(exist_ok=True)
                        with archive.extractfile(member) as source, open(target, "wb") as file:
                            shutil.copyfileobj(source, file, 1 << 20)
                while archive.fileobj.read(1 << 20):  # a compressed file's checksum is at its end
                    pass
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if getattr(error, "errno", None):  # of the system, as a full disk
                raise files.with_path(error, folder) from None
            reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
            raise ValueError(f"{path}: not a complete tar file, or damaged ({reason})") from None
        if _folder_of(folder) is None:
            raise ValueError(f"{path}: no {METADATA} in it, so it is not an archive of the original code")
        yield folder


def start_of(path: Path) -> Path:
    """Where its tokenizer may lie: the run's folder, or the one that an AllenNLP model says it was fine-tuned from."""
    folder = _folder_of(path)
    name = _embedder(folder)[0].get("model_name") if is_fine_tuned(folder) else None
    return Path(name) if isinstance(name, str) and Path(name).is_dir() else folder


def read_original(path: Path, word_tokenizer, start: Path) -> tuple[dict, dict, EntityVocab]:
    """(settings of config.json, weights under the released names, entity vocabulary) of an unpacked archive.

    start: the Hugging Face folder that an AllenNLP model was fine-tuned from.
    """
    folder, source = _folder_of(path), _weights_of(path)
    released = weights.canonical(weights.read_file(source))
    for name in weights.tied(released):
        del released[name]  # what follows changes the tables
    needed = [WORD_TABLES[0], ENTITY_TABLES[0], *(["classifier.weight"] * is_fine_tuned(folder))]
    missing = [name for name in needed if name not in released]
    if missing:
        raise ValueError(f"{source}: {weights.missing_message(missing)}")
    if is_fine_tuned(folder):
        return _read_fine_tuned(folder, released, word_tokenizer, start)
    return _read_pretrained(folder, released, word_tokenizer)


# --- Pretrained -------------------------------------------------------------------------------------------------------


def _read_pretrained(folder: Path, released: dict, word_tokenizer) -> tuple[dict, dict, EntityVocab]:
    metadata = files.read_object(folder / METADATA)
    settings = metadata.get("model_config")
    if not isinstance(settings, dict) or not {"vocab_size", "entity_vocab_size", "hidden_size"} <= settings.keys():
        raise ValueError(f"{folder / METADATA}: expected model_config with vocab_size, entity_vocab_size, hidden_size")
    vocabularies = [folder / name for name in VOCABULARIES if (folder / name).is_file()]
    if not vocabularies:
        raise ValueError(f"{folder}: neither {' nor '.join(VOCABULARIES)} in it")
    vocab = EntityVocab.load(vocabularies[0])
    if len(word_tokenizer) != settings["vocab_size"] + 2:
        pieces = f"{len(word_tokenizer)} tokens with <ent> and <ent2>"
        raise ValueError(f"the tokenizer has {pieces}, the archive's model {settings['vocab_size']} without them")
    weights.append_rows(released, WORD_TABLES, initialization.marker_sources(word_tokenizer))
    if len(vocab) != settings["entity_vocab_size"]:
        raise ValueError(f"{folder}: {len(vocab)} titles, but entity_vocab_size is {settings['entity_vocab_size']}")
    if vocab.mask2_id is None:
        weights.append_rows(released, ENTITY_TABLES, [vocab.mask_id])
    vocab = vocab.for_release()

    both_heads = "lm_head.dense.weight" in released and ENTITY_TABLES[1] in released
    settings = {
        **settings,
        "model_type": "luke",
        "architectures": ["LukeForMaskedLM" if both_heads else "LukeModel"],
        "vocab_size": len(word_tokenizer),
        "entity_vocab_size": len(vocab),
        "entity_emb_size": settings.get("entity_emb_size") or settings["hidden_size"],
    }
    if str(settings.get("bert_model_name", "")).rpartition("/")[2].startswith("bert-"):
        initialization.shift_positions(released)
        settings["max_position_embeddings"] = released[initialization.POSITIONS].shape[0]
    if MASK_EMBEDDING in released:
        settings["mask_entity_id"] = vocab.mask_id
    return settings, released, vocab


# --- Fine-tuned -------------------------------------------------------------------------------------------------------


def _embedder(folder: Path) -> tuple[dict, str, str]:
    """(settings of the encoder, class of transformers, file of the labels) in AllenNLP's config.json."""
    path = folder / CONFIG
    try:
        model = files.read_object(path)["model"]
        features = model["feature_extractor"]
        kind, embedder = (model["type"], features["type"]), features["embedder"]
        labels = f"vocabulary/{model.get('label_name_space', 'labels')}.txt"
        name = embedder["type"]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: expected a model with a feature_extractor with an embedder, a type each") from None
    if name != "transformers-luke" or kind not in ARCHITECTURES:
        known = ", ".join(map(" of ".join, ARCHITECTURES))
        raise ValueError(f"{path}: {' of '.join(map(str, kind))} over {name}, expected {known} over transformers-luke")
    return embedder, ARCHITECTURES[kind], labels


def _read_fine_tuned(folder: Path, released: dict, word_tokenizer, start: Path) -> tuple[dict, dict, EntityVocab]:
    embedder, architecture, labels = _embedder(folder)
    has_config = (start / CONFIG).is_file() and not is_fine_tuned(start)
    settings = files.read_object(start / CONFIG) if has_config else _shape_of(released, word_tokenizer)
    vocab = EntityVocab.of_folder(start) or EntityVocab.of_folder(folder)
    entities = released[ENTITY_TABLES[0]].shape[0]
    if vocab is None and entities == len(LITE_ENTITIES):
        vocab = EntityVocab.from_titles(LITE_ENTITIES)
    if vocab is None or len(vocab) != entities:
        found = "no entity vocabulary" if vocab is None else f"{len(vocab)} entities"
        wanted = f"give --tokenizer DIR, the folder of {embedder.get('model_name')}, from which it was fine-tuned"
        raise ValueError(f"{start}: {found}, but the model has {entities}: {wanted}")
    names = _labels(folder / labels, released)
    settings = settings | {
        "architectures": [architecture],
        "use_entity_aware_attention": embedder.get("use_entity_aware_attention", False),
        "classifier_bias": "classifier.bias" in released,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    return settings, released, vocab


def _shape_of(released: dict, word_tokenizer) -> dict:
    """The settings of config.json, from the weights; what they do not tell is as in every released LUKE."""
    hidden = released[WORD_TABLES[0]].shape[1]
    if hidden % 64:
        raise ValueError(f"hidden size {hidden}, an unknown number of heads: give a --tokenizer DIR with config.json")
    layers = {name.split(".")[3] for name in released if name.startswith("luke.encoder.layer.")}
    sizes = {
        "vocab_size": WORD_TABLES[0],
        "entity_vocab_size": ENTITY_TABLES[0],
        "intermediate_size": "luke.encoder.layer.0.intermediate.dense.bias",
        "max_position_embeddings": initialization.POSITIONS,
        "type_vocab_size": "luke.embeddings.token_type_embeddings.weight",
    }
    if missing := [name for name in sizes.values() if name not in released]:
        raise ValueError(weights.missing_message(missing))
    return {entry: released[name].shape[0] for entry, name in sizes.items()} | {
        "model_type": "luke",
        "hidden_size": hidden,
        "entity_emb_size": released[ENTITY_TABLES[0]].shape[1],
        "num_hidden_layers": len(layers),
        "num_attention_heads": hidden // 64,
        "layer_norm_eps": 1e-5,
        "pad_token_id": word_tokenizer.pad_id,
    }


def _labels(path: Path, released: dict) -> list[str]:
    """The names of the classes. "O", no mention, becomes the first, with its rows, as it is in every released model."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected the names of the classes, one a line")
    names = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    rows = released["classifier.weight"].shape[0]
    if len(names) != rows:
        raise ValueError(f"{path}: {len(names)} labels, but the classifier has {rows} classes")
    order = sorted(range(rows), key=lambda row: names[row] != "O")
    for name in ("classifier.weight", "classifier.bias"):
        if name in released:
            released[name] = weights.stack([released[name]])[order]
    return [names[row] for row in order]


# --- Tools ------------------------------------------------------------------------------------------------------------


def convert(path: Path, tokenizer_folder: Path | None = None, entity_aware: bool | None = None) -> Checkpoint:
    """A checkpoint of the original LUKE code, a run of train.py or a model folder, as a `Checkpoint`.

    tokenizer_folder: the tokenizer's, if not `path`; for AllenNLP's models, the folder that was fine-tuned.
    entity_aware: None switches it on in pretraining archives and runs, with copies of the query; others keep theirs.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_file() or is_archive(path):
        with unpacked(path) as found:
            start = tokenizer_folder or start_of(found)
            if start == found and not path.is_dir():
                raise ValueError(f"{path}: an archive has no tokenizer, give --tokenizer DIR, as RoBERTa's or XLM-R's")
            words = tokenizer.load(start)
            settings, released, vocab = read_original(found, words, start)
            switch = settings.get("use_entity_aware_attention", True) if entity_aware is None else entity_aware
            return checkpoint.assemble(path, settings, released, words, vocab, switch)
    words = tokenizer.load(tokenizer_folder) if tokenizer_folder else None
    is_run = (checkpoint.find_folder(path) / "run.json").is_file()
    found = checkpoint.read(path, entity_aware=True if is_run and entity_aware is None else entity_aware)
    if is_run:
        initialization.copy_marker_rows(found.weights, found.tokenizer, found.entity_vocab)
    return replace(found, tokenizer=words or found.tokenizer)


# --- Command line -----------------------------------------------------------------------------------------------------


def info(folder: Path) -> list[str]:
    """Lines that describe a folder that some command takes, and what it lacks. Damaged files are a ValueError.

    Model folders, runs of train.py and OUT of finetune.py, word models for --init, data folders, the original code's
    checkpoints. Of the weights, only decoders are read, to compare them with their tables.
    """
    if folder.exists() and is_archive(folder):
        return ["class       the original LUKE code's; `convert` makes a model folder of it"]
    checkpoint.check_exists(folder)
    if (folder / "manifest.json").is_file():
        return _data_info(folder)
    folder = checkpoint.find_folder(checkpoint.model_folder(folder))
    if initialization.is_word_model(folder):
        settings, optional = files.read_object(folder / CONFIG), ENTITY_SIDE
        config = checkpoint.model_config(initialization.word_model_shape(folder))
    else:
        settings, optional = checkpoint.read_settings(folder / CONFIG), weights.OPTIONAL
        config = checkpoint.model_config(settings)
    stored = weights.read_folder(folder) if any((folder / name).is_file() for name in weights.FILES) else {}
    with files.naming(folder):
        lines = _shape_info(settings, config) + _weights_info(stored, settings, config)
    return lines + _vocabulary_info(folder, stored, config, optional)


def _shape_info(settings: dict, config: ModelConfig) -> list[str]:
    is_words = settings.get("model_type") in initialization.WORD_MODELS
    aware = "entity-aware (four queries)" if config.use_entity_aware_attention else "ordinary (one query)"
    entities = f"{config.entity_vocab_size:,} of size {config.entity_emb_size}"
    others = [f"{item.name} {getattr(config, item.name)}" for item in fields(config)[9:]]  # the lines have the rest
    return [
        f"class       {(settings.get('architectures') or ['not named'])[0]}{', a word model: for --init' * is_words}",
        f"words from  {settings.get('bert_model_name') or 'no named model'}",
        f"shape       {config.num_hidden_layers} layers, hidden {config.hidden_size}, "
        f"{config.num_attention_heads} heads, feed-forward {config.intermediate_size}, "
        f"{config.max_position_embeddings} positions",
        f"attention   {'ordinary (one query)' if is_words else aware}",
        f"words       {config.vocab_size:,}",
        f"entities    {'none' if is_words else entities}",
        f"settings    {', '.join(others)}",
    ]


def _weights_info(stored: dict, settings: dict, config: ModelConfig) -> list[str]:
    names = weights.canonical(stored)
    if settings.get("model_type") not in initialization.WORD_MODELS:
        checkpoint.check_shapes(stored, config)
    counted = {n: t.numel() for n, t in names.items() if n not in (*weights.TIED, weights.POSITION_IDS)}
    entity_table = counted.get(ENTITY_TABLES[0], 0)
    heads = {"lm_head.": "masked words", "entity_predictions.": "masked entities", "classifier.": "classifier"}
    found = [title for prefix, title in heads.items() if any(name.startswith(prefix) for name in counted)]
    if "classifier.weight" in names:
        found[-1] += " " + " x ".join(map(str, names["classifier.weight"].shape))
    return [
        f"weights     {sum(counted.values()):,}, of them {entity_table:,} entity embeddings",
        f"heads       {', '.join(found) or 'none'}",
    ]


def _vocabulary_info(folder: Path, stored: dict, config: ModelConfig, optional: tuple[str, ...]) -> list[str]:
    """The vocabularies, and what is missing or of no use in the folder."""
    lines, missing = [], []
    if vocab := EntityVocab.of_folder(folder):
        special = ("pad", "unk", "mask", "mask2")
        ids = ", ".join(f"[{name.upper()}] {getattr(vocab, name + '_id')}" for name in special)
        lines.append(f"vocabulary  {len(vocab):,} entities, {' '.join(vocab.languages) or 'no languages'}; {ids}")
    elif optional is not ENTITY_SIDE:
        missing.append("entity_vocab.json, the titles of the entities")
    try:
        tokenizer.load(folder)
    except ValueError as error:
        missing.append(str(error))
    try:
        shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in stored.items()}
        weights.from_released(shapes, config, optional)
    except ValueError as error:
        missing.append(str(error) if stored else f"{weights.FILES[0]} or pytorch_model.bin, the weights")
    unexpected = weights.unexpected_names(stored, config)
    lines += [f"missing     {what}" for what in missing or ["nothing"]]
    return lines if optional is ENTITY_SIDE else [*lines, f"ignored     {', '.join(unexpected) or 'nothing'}"]


def _data_info(folder: Path) -> list[str]:
    """The same of what prepare_wiki.py writes."""
    manifest = files.Record(str(folder / "manifest.json"), files.read_object(folder / "manifest.json"))
    counts = [f"{manifest.get(name, int):,} {name}" for name in ("examples", "words", "entities")]
    needed = {"entity_vocab.jsonl": "the titles of the entities", "mentions.safetensors": "for `finetune.py link`"}
    needed |= {f"shard-{i:05d}.bin": "examples" for i in range(manifest.get("shards", int))}
    missing = [f"{name}, {what}" for name, what in needed.items() if not (folder / name).is_file()]
    try:
        tokenizer.load(folder / "tokenizer")
    except ValueError as error:
        missing.append(str(error))
    return [
        "class       data for train.py",
        f"examples    {', '.join(counts)}; at most {manifest.get('max_seq_length', int)} tokens each",
        f"words       {manifest.get('word_vocab_size', int):,}",
        f"entities    {manifest.get('entity_vocab_size', int):,}",
        *(f"missing     {what}" for what in missing or ["nothing"]),
    ]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m luke_mini.model_tools", description="Model folders.")
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "info": "print what a folder holds: sizes, heads, vocabularies; what is missing; unexpected tensors",
        "convert": "write a Hugging Face folder from the original code's checkpoint, a run of train.py or an old file",
        "lite": "write the folder again with [MASK], [UNK], [PAD] and [MASK2] as its only entities",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("folder", type=Path, metavar="DIR", help="model folder or run; for convert also a .tar.gz")
        if name != "info":
            command.add_argument("out", type=Path, metavar="OUT", help="the folder to write; must not exist")
        if name == "convert":
            command.add_argument("--tokenizer", type=Path, metavar="DIR", help="where its files are, if not in DIR")
            command.add_argument(
                "--entity-aware", action=argparse.BooleanOptionalAction, help="four queries [archives and runs: yes]"
            )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    if arguments.command == "info":
        print("\n".join(info(arguments.folder)))
        return
    if arguments.out.exists():
        raise ValueError(f"{arguments.out}: exists already")
    if arguments.command == "lite":
        made = checkpoint.lite(checkpoint.read(arguments.folder))
    else:
        made = convert(arguments.folder, arguments.tokenizer, arguments.entity_aware)
    with files.write_folder(arguments.out) as temporary:
        checkpoint.write_files(temporary, made)
    if made.ignored:
        print(f"ignored     {made.ignored}")
    print(f"{arguments.out}: {sum(tensor.numel() for tensor in made.weights.values()):,} weights")


if __name__ == "__main__":
    files.run(main, "luke_mini.model_tools")

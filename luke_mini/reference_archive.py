"""What LUKE's own code wrote: a folder or a .tar[.gz|.bz2|.xz] -> what a Hugging Face folder holds.

In, of three kinds:

    an archive               pytorch_model.bin, metadata.json (`model_config`, ...), entity_vocab.tsv or .jsonl
    a pretraining run        the same, but checkpoints/epochN/mp_rank_00_model_states.pt in place of pytorch_model.bin
    a fine-tuned model       AllenNLP's: config.json, weights.th (best.th), vocabulary/labels.txt

Out: the settings of config.json, the weights under the released names, the entity vocabulary. What is pretrained gets
on the way what downstream tasks need, each new row a copy of one that has been trained:

    words     `<ent>` := "@"   `<ent2>` := "#"     (and the same entries of the masked-word head's bias)
    entities  `[MASK2]` := `[MASK]`                (and the same entry of the masked-entity head's bias)

Titles of a vocabulary that knows languages become "en:Oslo". None of these hold a tokenizer; the caller brings it.
Archives of entity disambiguation stand on BERT, whose positions are counted otherwise (see word_models.py), and have an
embedding of [MASK] apart from the table. AllenNLP's config.json names the Hugging Face folder that was fine-tuned:
shape, tokenizer and entities are there, and the caller brings the folder, if it no longer lies at that place.
"""

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from luke_mini import files, released_names, weight_files, word_models
from luke_mini.entity_vocab import LITE_ENTITIES, EntityVocab

METADATA, CONFIG = "metadata.json", "config.json"
PRETRAINED = ("model.safetensors", "pytorch_model.bin")
STATES = "mp_rank_00_model_states.pt"  # DeepSpeed's name
FINE_TUNED = ("weights.th", "best.th")  # AllenNLP's names: in its archive, in its folder
VOCABULARIES = ("entity_vocab.jsonl", "entity_vocab.tsv")
PARTS = (METADATA, CONFIG, *PRETRAINED, *FINE_TUNED, *VOCABULARIES)  # and vocabulary/labels.txt
ENTITY_TABLES = ("luke.entity_embeddings.entity_embeddings.weight", "entity_predictions.bias")
MASK_EMBEDDING = "luke.entity_embeddings.mask_embedding"
# AllenNLP's names of model and features -> the class whose head sees the same hidden states.
ARCHITECTURES = {
    ("span_ner", "token+entity"): "LukeForEntitySpanClassification",
    ("relation_classifier", "entity"): "LukeForEntityPairClassification",
    ("entity_typing", "entity"): "LukeForEntityClassification",
}


def is_archive(path: Path) -> bool:
    return _folder_of(path) is not None or (path.is_file() and tarfile.is_tarfile(path))


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
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"{path}: no whole tar file ({error})") from None
        if _folder_of(folder) is None:
            raise ValueError(f"{path}: no {METADATA} in it, so it is no archive of LUKE's code")
        yield folder


def start_of(path: Path) -> Path:
    """Where its tokenizer may lie: the run's folder, or the one that an AllenNLP model says it was fine-tuned from."""
    folder = _folder_of(path)
    name = _embedder(folder)[0].get("model_name") if is_fine_tuned(folder) else None
    return Path(name) if isinstance(name, str) and Path(name).is_dir() else folder


def read(path: Path, word_tokenizer, start: Path) -> tuple[dict, dict, EntityVocab]:
    """(settings of config.json, weights under the released names, entity vocabulary) of an unpacked archive.

    start: the Hugging Face folder that an AllenNLP model was fine-tuned from.
    """
    folder, weights = _folder_of(path), _weights_of(path)
    released = released_names.modern(weight_files.read_file(weights))
    for name in released_names.copies(released):
        del released[name]  # what follows changes the tables
    needed = [word_models.WORD_TABLES[0], ENTITY_TABLES[0], *(["classifier.weight"] * is_fine_tuned(folder))]
    missing = [name for name in needed if name not in released]
    if missing:
        raise ValueError(f"{weights}: {released_names.missing_message(missing)}")
    if is_fine_tuned(folder):
        return _read_fine_tuned(folder, released, word_tokenizer, start)
    return _read_pretrained(folder, released, word_tokenizer)


# --- Pretrained -------------------------------------------------------------------------------------------------------


def _read_pretrained(folder: Path, released: dict, word_tokenizer) -> tuple[dict, dict, EntityVocab]:
    metadata = files.read_object(folder / METADATA)
    settings = metadata.get("model_config")
    if not isinstance(settings, dict) or not {"vocab_size", "entity_vocab_size", "hidden_size"} <= settings.keys():
        raise ValueError(f"{folder / METADATA}: expected model_config with vocab_size, entity_vocab_size, hidden_size")
    vocab = _entity_vocab(folder)

    if len(word_tokenizer) != settings["vocab_size"] + 2:
        pieces = f"{len(word_tokenizer)} word pieces with <ent> and <ent2>"
        raise ValueError(f"the tokenizer has {pieces}, the archive's model {settings['vocab_size']} without them")
    released_names.append_rows(released, word_models.WORD_TABLES, word_models.marker_sources(word_tokenizer))
    if len(vocab) != settings["entity_vocab_size"]:
        raise ValueError(f"{folder}: {len(vocab)} titles, but entity_vocab_size is {settings['entity_vocab_size']}")
    if vocab.mask2_id is None:
        released_names.append_rows(released, ENTITY_TABLES, [vocab.mask_id])
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
        word_models.shift_positions(released)
        settings["max_position_embeddings"] = released[word_models.POSITIONS].shape[0]
    if MASK_EMBEDDING in released:
        settings["mask_entity_id"] = vocab.mask_id
    return settings, released, vocab


def _entity_vocab(folder: Path) -> EntityVocab:
    found = [folder / name for name in VOCABULARIES if (folder / name).is_file()]
    if not found:
        raise ValueError(f"{folder}: neither {' nor '.join(VOCABULARIES)} in it")
    return EntityVocab.load(found[0])


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
    hidden = released[word_models.WORD_TABLES[0]].shape[1]
    if hidden % 64:
        raise ValueError(f"hidden size {hidden}, an unknown number of heads: give a --tokenizer DIR with config.json")
    layers = {name.split(".")[3] for name in released if name.startswith("luke.encoder.layer.")}
    sizes = {
        "vocab_size": word_models.WORD_TABLES[0],
        "entity_vocab_size": ENTITY_TABLES[0],
        "intermediate_size": "luke.encoder.layer.0.intermediate.dense.bias",
        "max_position_embeddings": word_models.POSITIONS,
        "type_vocab_size": "luke.embeddings.token_type_embeddings.weight",
    }
    if missing := [name for name in sizes.values() if name not in released]:
        raise ValueError(released_names.missing_message(missing))
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
            released[name] = weight_files.join([released[name]])[order]
    return [names[row] for row in order]

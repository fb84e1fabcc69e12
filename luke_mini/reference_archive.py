"""Archives of LUKE's own code: a folder or a .tar[.gz|.bz2|.xz] -> what a Hugging Face folder holds.

In: pytorch_model.bin, metadata.json (`model_config`, `max_mention_length`, ...) and entity_vocab.tsv or .jsonl. Out:
the settings of config.json, the weights under the released names, the entity vocabulary. On the way they get what
downstream tasks need, each new row a copy of one that has been trained:

    words     `<ent>` := "@"   `<ent2>` := "#"     (and the same entries of the masked-word head's bias)
    entities  `[MASK2]` := `[MASK]`                (and the same entry of the masked-entity head's bias)

Titles of a vocabulary that knows languages become "en:Oslo". Archives hold no tokenizer; the caller brings it. Those of
entity disambiguation stand on BERT, whose positions are counted otherwise (see word_models.py), and have an embedding
of [MASK] apart from the table.
"""

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from luke_mini import released_names, weight_files, word_models
from luke_mini.entity_vocab import EntityVocab

METADATA, WEIGHTS = "metadata.json", "pytorch_model.bin"
VOCABULARIES = ("entity_vocab.jsonl", "entity_vocab.tsv")
ENTITY_TABLES = ("luke.entity_embeddings.entity_embeddings.weight", "entity_predictions.bias")
MASK_EMBEDDING = "luke.entity_embeddings.mask_embedding"


def is_archive(path: Path) -> bool:
    return (path / METADATA).is_file() or (path.is_file() and tarfile.is_tarfile(path))


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The folder of an archive; of a tar file, a temporary one with the few files that are needed."""
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = Path(member.name).name  # the file alone: no member can be put anywhere else
                    if member.isfile() and name in (METADATA, WEIGHTS, *VOCABULARIES):
                        with archive.extractfile(member) as source, open(folder / name, "wb") as target:
                            shutil.copyfileobj(source, target, 1 << 20)
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"{path}: no whole tar file ({error})") from None
        if not (folder / METADATA).is_file():
            raise ValueError(f"{path}: no {METADATA} in it, so it is no archive of LUKE's code")
        yield folder


def read(folder: Path, word_tokenizer) -> tuple[dict, dict, EntityVocab]:
    """(settings of config.json, weights under the released names, entity vocabulary) of an unpacked archive."""
    metadata = weight_files.read_json(folder / METADATA)
    settings = metadata.get("model_config")
    if not isinstance(settings, dict) or not {"vocab_size", "entity_vocab_size", "hidden_size"} <= settings.keys():
        raise ValueError(f"{folder / METADATA}: expected model_config with vocab_size, entity_vocab_size, hidden_size")
    released = released_names.modern(weight_files.read(folder))
    missing = [name for name in (word_models.WORD_TABLES[0], ENTITY_TABLES[0]) if name not in released]
    if missing:
        raise ValueError(f"{folder / WEIGHTS}: {released_names.missing_message(missing)}")
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

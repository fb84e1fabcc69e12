"""The base class of all tokenizers: their interface, special tokens in files and in texts; `load` finds the kind.

A tokenizer turns text into ids of the model's word vocabulary. Each kind is a subclass in a file of its own:

    tokenizer_bpe              byte-level BPE: LUKE, RoBERTa
    tokenizer_sentencepiece    SentencePiece: mLUKE, Japanese LUKE, models pretrained here from scratch
    tokenizer_wordpiece        WordPiece: BERT

There are two ways to read a text; LUKE was pretrained with one and is used with the other:

- `encode`, `encode_parts` and `encode_pieces` are for pretraining and for whole texts. A special token written out in a
  text, "<mask>", is ordinary text.
- `encode_segments` is what the released tokenizers do: a text is cut at the borders of its mentions, and each segment
  is tokenized by itself. No segment gets a prefix space, unless a BPE folder sets add_prefix_space (in SentencePiece
  each gets its ▁ anyway, even in mid-word). A special token written out in a text is that token, and <mask> swallows
  the white space on its left, unless the folder sets that off.

Beside the vocabulary there may be JSON files as transformers writes them, all optional:

    tokenizer_config.json      the class, the two entity markers, limits; newer ones also added_tokens_decoder
    special_tokens_map.json    the spelling of <s>, <mask>, ..., if it is not the usual one
    added_tokens.json          tokens added after training -> ids
    tokenizer.json             everything in one file; we read its added_tokens here, and the kinds their model

transformers 5 counts entities among the added tokens of a LUKE tokenizer: [UNK] [PAD] [MASK] [MASK2]. A model has no
rows for them in its word table, so they are not words here, unless vocab_size in config.json includes them. It also
calls the two markers of mLUKE ▁<ent> and ▁<ent2>.
"""

import json
import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from importlib import import_module
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from luke_mini import files
from luke_mini.spans import Encoding, is_punctuation

SHORT = 32  # characters of the longest text that is remembered
MOST_REMEMBERED = 1 << 18  # texts; about 60 MB
MARK = "▁"  # the space of SentencePiece
ENTITIES = ("[UNK]", "[PAD]", "[MASK]", "[MASK2]")

# RoBERTa's and XLM-R's special tokens: the first ids and the last.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
ADDED = ("<mask>", "<ent>", "<ent2>")
NAMES = dict(zip(("bos", "pad", "eos", "unk", "mask", "ent", "ent2"), SPECIAL + ADDED))  # our role -> token

# Our role -> its names in the files, the older ones last.
KEYS = {
    "bos": ("cls_token", "bos_token"),  # what stands at the beginning of an input; RoBERTa has both, equal
    "eos": ("sep_token", "eos_token"),
    "pad": ("pad_token",),
    "unk": ("unk_token",),
    "mask": ("mask_token",),
    "ent": ("entity_1_token", "entity_token_1"),
    "ent2": ("entity_2_token", "entity_token_2"),
}

# --- The files of a folder --------------------------------------------------------------------------------------------


def _read_if_there(path: Path) -> dict:
    return files.read_object(path) if path.is_file() else {}


def read_files(folder: Path) -> tuple[dict, dict]:
    """(special_tokens_map.json and tokenizer_config.json in one, tokenizer.json), {} for a missing one."""
    settings = _read_if_there(folder / "special_tokens_map.json") | _read_if_there(folder / "tokenizer_config.json")
    return settings, _read_if_there(folder / "tokenizer.json")


def special_tokens(settings: dict) -> dict[str, str]:
    """Role -> token, for those that the files mention: as a string, or as an object with its "content"."""
    found = {}
    for role, keys in KEYS.items():
        for key in keys:
            token = settings.get(key)
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str) and role not in found:
                found[role] = content.removeprefix(MARK)
    return found


def mask_takes_space(settings: dict, whole: dict) -> bool:
    """Whether <mask> swallows the white space on its left: as in every released model, unless the files set it off."""
    mask = settings.get("mask_token") or "<mask>"
    listed = [*(settings.get("added_tokens_decoder") or {}).values(), *whole.get("added_tokens", [])]
    flags = [mask] if isinstance(mask, dict) else [token for token in listed if token["content"] == mask]
    return flags[0].get("lstrip", False) if flags else True


def added_tokens(folder: Path, settings: dict, whole: dict, vocab: Mapping[str, int]) -> dict[str, int]:
    """Token -> id of what was added to a vocabulary, if the model has a row for it."""
    added = dict(_read_if_there(folder / "added_tokens.json"))
    added |= {token["content"]: token["id"] for token in whole.get("added_tokens", [])}
    decoder = settings.get("added_tokens_decoder") or {}
    added |= {token["content"]: int(number) for number, token in decoder.items()}
    for marker in [token for token in added if token.startswith(f"{MARK}<ent")]:
        added.setdefault(marker.removeprefix(MARK), added.pop(marker))
    extra = {token for token in ENTITIES if token in added and token not in vocab}
    rows = _read_if_there(folder / "config.json").get("vocab_size")
    if not isinstance(rows, int):  # not given: as many as the other words need
        rows = max((number for token, number in (vocab | added).items() if token not in extra), default=-1) + 1
    return {token: number for token, number in added.items() if token not in extra or number < rows}


def load(folder: str | Path) -> "Tokenizer":
    """The tokenizer whose files are in `folder`. ValueError naming the folder if there is none."""
    folder = Path(folder)
    kinds = {"sentencepiece.bpe.model": "sentencepiece", "vocab.json": "bpe", "vocab.txt": "wordpiece"}
    kind = next((kind for name, kind in kinds.items() if (folder / name).is_file()), None)
    if kind is None and (folder / "tokenizer.json").is_file():
        models = {"BPE": "bpe", "WordPiece": "wordpiece", "Unigram": "sentencepiece"}
        whole = files.Record(str(folder / "tokenizer.json"), files.read_object(folder / "tokenizer.json"))
        model = whole.get("model", dict, {}).get("type")
        if model not in tuple(models):
            raise ValueError(f"{folder / 'tokenizer.json'}: model of type {model}, expected {' or '.join(models)}")
        kind = models[model]
    if kind is None:
        raise ValueError(f"{folder}: no tokenizer here, expected {' or '.join(kinds)} or tokenizer.json")
    try:
        with files.naming(folder):
            return import_module(f"luke_mini.tokenizer_{kind}").load(folder)  # by name, as that file imports this one
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise ValueError(f"{folder}: the files of its tokenizer have another form than expected ({reason})") from None


# --- The base class ---------------------------------------------------------------------------------------------------


def prefixed(text: str, prefix_space: bool) -> str:
    """A text with a space in front, if one is wanted and there is none."""
    return " " + text if prefix_space and text and not text[0].isspace() else text


def in_a_row(parts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of all parts, int32, and how many each has."""
    counts = np.fromiter(map(len, parts), np.int64, len(parts))
    return np.fromiter(chain.from_iterable(parts), np.int32, counts.sum()), counts


class Memory(dict):
    """text -> what `compute` makes of it, computed once. Forgets everything when it is full."""

    def __init__(self, compute: Callable[[str], list | tuple | bytes]):
        self._compute = compute

    def __missing__(self, text: str):
        value = self._compute(text)
        if len(text) <= SHORT:
            if len(self) >= MOST_REMEMBERED:
                self.clear()
            self[text] = value
        return value


def complete(
    vocab: dict[str, int], names: Mapping[str, str], added: Iterable[str] = ()
) -> tuple[list[str], dict[str, int]]:
    """What `Tokenizer` takes, from token -> id: all tokens in order, and the ids of those that are never cut.

    <ent> and <ent2> get the next ids if they have none. ValueError unless the ids are 0 to n - 1, one per token, and
    every special token has one.
    """
    vocab = dict(vocab)
    for role in ("ent", "ent2"):
        vocab.setdefault(names[role], len(vocab))
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ValueError("two tokens of the vocabulary have the same id, or an id has no token")
    if missing := [token for token in names.values() if token not in vocab]:
        raise ValueError(f"the vocabulary has no {' '.join(missing)}")
    return sorted(vocab, key=vocab.__getitem__), {token: vocab[token] for token in [*names.values(), *added]}


class Tokenizer:
    """The interface, and what all kinds share. What is written here for all follows SentencePiece: ▁ is a space.

    tokens: the vocabulary in the order of its ids. special: tokens that are never cut -> id. names: role ("bos",
    "mask", ...) -> token. takes_space: <mask> swallows the white space on its left.
    """

    def __init__(
        self, tokens: list[str], special: dict[str, int], names: Mapping[str, str] = NAMES, takes_space: bool = True
    ):
        self._tokens, self._special, self._names = tokens, special, names
        self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.mask_id, self.ent_id, self.ent2_id = (
            special[names[role]] for role in NAMES
        )
        self._takes_space = names["mask"] if takes_space else None
        # Of several that begin at one place, the longest.
        self._special_pattern = re.compile(f"({'|'.join(map(re.escape, sorted(special, key=len, reverse=True)))})")
        self._segments = Memory(self._encode_segment)

    def __len__(self) -> int:
        """Rows of the word embedding table."""
        return len(self._tokens)

    def encode(self, text: str, prefix_space: bool = True) -> Encoding:
        """Ids and character offsets (see spans.py) of one text. Special tokens are neither added nor looked for.

        prefix_space=False: the text continues a word, unless it begins with white space.
        """
        raise NotImplementedError

    def encode_parts(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of `encode` for many parts of texts, fast: all in a row, int32, and how many each has.

        A part that begins with white space begins a word, any other one continues a word.
        """
        raise NotImplementedError

    def encode_pieces(self, texts: list[str], prefix_spaces: list[bool]) -> list[list[int]]:
        """The ids of `encode` for many texts, one by one."""
        ids, counts = self.encode_parts(list(map(prefixed, texts, prefix_spaces)))
        ids, ends = ids.tolist(), np.cumsum(counts).tolist()
        return [ids[start:end] for start, end in pairwise([0, *ends])]

    def encode_segments(self, segments: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids as the released tokenizers give them, of all segments in a row, int32; and how many each has."""
        parts = list(map(self._segments.__getitem__, segments))
        counts = np.fromiter(map(len, parts), np.int64, len(parts)) // 4
        return np.frombuffer(b"".join(parts), np.int32), counts

    def decode(self, ids: Iterable[int]) -> str:
        """The text, as far as the normalizer kept it. Special tokens are written out, unknown characters as <unk>."""
        return "".join(self.pieces(ids)).replace(MARK, " ").removeprefix(" ")

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Each id as the vocabulary spells it."""
        return [self._tokens[k] for k in ids]

    def save(self, folder: str | Path) -> None:
        """Writes the files that `load` reads."""
        raise NotImplementedError

    @cached_property
    def starts_word(self) -> np.ndarray:
        """bool [vocabulary], for whole-word masking: the token begins a word, as special tokens and punctuation do."""
        return np.array([self._begins_word(token) for token in self._tokens])

    def _begins_word(self, token: str) -> bool:
        return token in self._special or token[0] == MARK or is_punctuation(token[0])

    def _encode_plain(self, text: str) -> list[int]:
        """Ids of a segment, or the part of one, that has no special tokens."""
        raise NotImplementedError

    def _encode_segment(self, text: str) -> bytes:
        """Its ids as int32: bytes are joined twice as fast as lists of ints."""
        parts = self._special_pattern.split(text)  # text, token, text, token, ..., text
        for k in range(1, len(parts), 2):
            if parts[k] == self._takes_space:
                parts[k - 1] = parts[k - 1].rstrip()
        ids = self._encode_plain(parts[0])
        for token, plain in zip(parts[1::2], parts[2::2]):
            ids += [self._special[token], *self._encode_plain(plain)]
        return array("i", ids).tobytes()

    def _write_config(self, folder: Path, tokenizer_class: str, **more) -> None:
        """Writes tokenizer_config.json. The entity markers are in it under their old and their new names."""
        takes_space = self._takes_space is not None
        flags = {"lstrip": takes_space, "rstrip": False, "normalized": True, "single_word": False}
        config = {"tokenizer_class": tokenizer_class}
        config |= {key: token for role, token in self._names.items() for key in KEYS[role]}
        config["mask_token"] = {"__type": "AddedToken", "content": self._names["mask"]} | flags
        config |= {"model_max_length": 512, "max_entity_length": 32, "max_mention_length": 30} | more
        with files.write_file(folder / "tokenizer_config.json") as file:
            json.dump(config, file, indent=1, ensure_ascii=False)

    def _write_json(self, folder: Path, form: dict) -> None:
        """Writes tokenizer.json: the form, with the special tokens among the added ones."""
        flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
        in_order = sorted(self._special.items(), key=lambda item: item[1])
        added = [{"id": k, "content": token, "lstrip": token == self._takes_space, **flags} for token, k in in_order]
        with files.write_file(folder / "tokenizer.json") as file:
            json.dump(form | {"added_tokens": added}, file, ensure_ascii=False)

"""Special tokens, for every kind of tokenizer: which a folder's files name, and where they stand in a text.

Beside the vocabulary there may lie JSON files as transformers writes them:

    tokenizer_config.json      the class, the two entity markers, limits; newer ones also added_tokens_decoder
    special_tokens_map.json    the spelling of <s>, <mask>, ..., when it is not the usual one
    added_tokens.json          tokens added after training -> ids
    tokenizer.json             everything in one file; we read its added_tokens here, and the tokenizers their model

None of them need exist. A token is a string, or an object whose "content" it is.

transformers 5 counts entities among the added tokens of a LUKE tokenizer: [UNK] [PAD] [MASK] [MASK2]. A model has no
rows for them in its word table, so they are no words here, unless vocab_size in config.json says that it has. It also
calls the two markers of mLUKE ▁<ent> and ▁<ent2>.
"""

import json
import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from pathlib import Path

import numpy as np

from luke_mini import files

SHORT = 32  # characters of the longest text that is remembered
MOST_REMEMBERED = 1 << 18  # texts; about 60 MB
MARK = "▁"  # the space of SentencePiece
ENTITIES = ("[UNK]", "[PAD]", "[MASK]", "[MASK2]")

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


def read_if_there(path: Path) -> dict:
    return files.read_object(path) if path.is_file() else {}


def read_files(folder: Path) -> tuple[dict, dict]:
    """(special_tokens_map.json and tokenizer_config.json in one, tokenizer.json), {} where there is none."""
    settings = read_if_there(folder / "special_tokens_map.json") | read_if_there(folder / "tokenizer_config.json")
    return settings, read_if_there(folder / "tokenizer.json")


def special_tokens(settings: dict) -> dict[str, str]:
    """Role -> spelling, for those that the files mention."""
    found = {}
    for role, keys in KEYS.items():
        for key in keys:
            token = settings.get(key)
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str) and role not in found:
                found[role] = content.removeprefix(MARK)
    return found


def mask_takes_space(settings: dict, whole: dict) -> bool:
    """Whether <mask> swallows the white space on its left: as in every released model, unless the files say no."""
    mask = settings.get("mask_token") or "<mask>"
    listed = [*(settings.get("added_tokens_decoder") or {}).values(), *whole.get("added_tokens", [])]
    flags = [mask] if isinstance(mask, dict) else [token for token in listed if token["content"] == mask]
    return flags[0].get("lstrip", False) if flags else True


def added_tokens(folder: Path, settings: dict, whole: dict, vocab: Mapping[str, int]) -> dict[str, int]:
    """Token -> id of what was added to a vocabulary, if the model has a row for it."""
    added = dict(read_if_there(folder / "added_tokens.json"))
    added |= {token["content"]: token["id"] for token in whole.get("added_tokens", [])}
    decoder = settings.get("added_tokens_decoder") or {}
    added |= {token["content"]: int(number) for number, token in decoder.items()}
    for marker in [token for token in added if token.startswith(f"{MARK}<ent")]:
        added.setdefault(marker.removeprefix(MARK), added.pop(marker))
    extra = {token for token in ENTITIES if token in added and token not in vocab}
    rows = read_if_there(folder / "config.json").get("vocab_size")
    if not isinstance(rows, int):  # nobody tells: all that the other words need
        rows = max((number for token, number in (vocab | added).items() if token not in extra), default=-1) + 1
    return {token: number for token, number in added.items() if token not in extra or number < rows}


def check(vocab: dict[str, int], special: dict[str, str]) -> None:
    """ValueError unless the ids are 0 to n - 1, each for one piece, and every special token has one."""
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ValueError("two pieces of the vocabulary have the same id, or an id has no piece")
    if missing := [token for token in special.values() if token not in vocab]:
        raise ValueError(f"the vocabulary has no {' '.join(missing)}")


def write_config(
    folder: Path, tokenizer_class: str, special: dict[str, str], takes_space: bool = True, **more
) -> None:
    """Writes tokenizer_config.json. The entity markers stand there under their old and their new names.

    takes_space: <mask> swallows the white space on its left.
    """
    flags = {"lstrip": takes_space, "rstrip": False, "normalized": True, "single_word": False}
    config = {"tokenizer_class": tokenizer_class}
    config |= {key: token for role, token in special.items() for key in KEYS[role]}
    config["mask_token"] = {"__type": "AddedToken", "content": special["mask"]} | flags
    config |= {"model_max_length": 512, "max_entity_length": 32, "max_mention_length": 30} | more
    with files.write_file(folder / "tokenizer_config.json") as file:
        json.dump(config, file, indent=1, ensure_ascii=False)


def listed(special: Mapping[str, int], mask: str | None) -> list[dict]:
    """Special tokens as a tokenizer.json lists them. mask: what swallows the white space on its left."""
    flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    in_order = sorted(special.items(), key=lambda item: item[1])
    return [{"id": number, "content": name, "lstrip": name == mask, **flags} for name, number in in_order]


def pattern(tokens: Iterable[str]) -> re.Pattern:
    """Finds any of the tokens; of several that begin at one place the longest."""
    return re.compile(f"({'|'.join(map(re.escape, sorted(tokens, key=len, reverse=True)))})")


def split(text: str, tokens: re.Pattern, mask: str | None) -> list[str]:
    """Text, token, text, token, ..., text; `mask` swallows the white space on its left."""
    parts = tokens.split(text)
    for k in range(1, len(parts), 2):
        if parts[k] == mask:
            parts[k - 1] = parts[k - 1].rstrip()
    return parts


class Memory(dict):
    """text -> its ids, computed when asked for the first time. Forgets everything when it is full."""

    def __init__(self, compute: Callable[[str], list[int]]):
        self._compute = compute

    def __missing__(self, text: str) -> list[int]:
        return self._keep(text, self._compute(text))

    def _keep(self, text: str, value):
        if len(text) <= SHORT:
            if len(self) >= MOST_REMEMBERED:
                self.clear()
            self[text] = value
        return value


class Stretches(Memory):
    """The same for what stands between cuts, with the ids of a stretch as the bytes of int32.

    Thousands of them are then joined in one call that looks at no id: lists of ints would be twice as slow.
    """

    def __missing__(self, text: str) -> bytes:
        return self._keep(text, array("i", self._compute(text)).tobytes())

    def encode(self, stretches: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all stretches in a row, int32, and how many each has."""
        parts = list(map(self.__getitem__, stretches))
        counts = np.fromiter(map(len, parts), np.int64, len(parts)) // 4
        return np.frombuffer(b"".join(parts), np.int32), counts

    def cut(self, text: str, cuts: list[int]) -> tuple[list[int], list[int]]:
        """Ids of the stretches between the cuts, joined, and for each cut the number of ids before it."""
        parts = [self[text[start:end]] for start, end in zip([0, *cuts], [*cuts, None])]
        before = [size // 4 for size in accumulate(map(len, parts))]
        before.pop()
        return array("i", b"".join(parts)).tolist(), before

"""Byte-level BPE, from scratch: the tokenizer of GPT-2, RoBERTa and LUKE.

In: text. Out: ids and offsets; `train` learns a vocabulary. A text goes through four steps:

    text            "Ada's café"
    pre-tokens      "Ada" "'s" " café"              GPT-2's rule, `_pattern`: a space belongs to the word after it
    bytes           A d a   ' s   Ġ c a f Ã ©       UTF-8, each byte written as one visible character, the space as Ġ
    pieces          Ada     's    Ġcaf Ã©           neighbors merged, in the order in which the merges were learned

No text is unknown, as every byte is a piece. RoBERTa's vocab.json has <s> <pad> </s> <unk> as ids 0 to 3, then pieces,
and <mask> 50264; LUKE adds <ent> 50265 and <ent2> 50266. Texts repeat their words, so a cache of pre-tokens seen so far
does most of the work.

GPT-2's rule depends on which characters are letters or numbers, which depends on the version of Unicode and so of
Python. Ours is Unicode 16, as in tokenizers 0.23; `LATER_LETTERS` and `LATER_NUMBERS` add what older Pythons lack.

Left out: BPE dropout; the flags of added tokens, except whether <mask> strips the white space on its left.
"""

import heapq
import json
import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from luke_mini import files, tokenizer
from luke_mini.spans import WHITE_SPACE, Encoding, is_punctuation, is_squeezed, without_space
from luke_mini.tokenizer import ADDED, NAMES, SPECIAL, Memory, Tokenizer, prefixed

NEVER = 1 << 60  # the rank of a pair that is not merged
MOST_SPARE = 100_000  # ids without a token
LONGEST = 50  # characters of a pre-token in training
BORDER = "\0"  # in front of a part of a text, among words; its id is -1

# --- Pre-tokens -------------------------------------------------------------------------------------------------------

# Letters and numbers of Unicode 15.0, 15.1 and 16.0; Python 3.11 is at 14.0.
LATER_LETTERS = """1C89-1C8A A7CB-A7CD A7DA-A7DC 105C0-105F3 10D4A-10D65 10D6F-10D85 10EC2-10EC4 1123F-11240 11380-11389
1138B 1138E 11390-113B5 113B7 113D1 113D3 11BC0-11BE0 11F02 11F04-11F10 11F12-11F33 1342F 13441-13446 13460-143FA
16100-1611D 16D40-16D6C 18CFF 1B132 1B155 1DF25-1DF2A 1E030-1E06D 1E4D0-1E4EB 1E5D0-1E5ED 1E5F0 2B739 2EBF0-2EE5D
31350-323AF"""
LATER_NUMBERS = """10D40-10D49 116D0-116E3 11BF0-11BF9 11F50-11F59 16130-16139 16D70-16D79 1CCF0-1CCF9 1D2C0-1D2D3
1E4F0-1E4F9 1E5F1-1E5FA"""


def _ranges(text: str) -> str:
    """ "1C89-1C8A 2B739" as part of a regular expression's [...]."""
    return re.sub(r"\s", "", re.sub(r"[0-9A-F]+", lambda found: rf"\U{int(found[0], 16):08x}", text))


def _rule(letters: str, numbers: str, others: str) -> re.Pattern:
    """GPT-2's pattern. A word takes one space before it along; other white space is a pre-token of its own."""
    space = WHITE_SPACE
    return re.compile(rf"'(?:s|t|re|ve|m|ll|d)| ?{letters}| ?{numbers}| ?{others}|[{space}]+(?![^{space}])|[{space}]+")


ASCII_PATTERN = _rule("[A-Za-z]+", "[0-9]+", rf"[^A-Za-z0-9{WHITE_SPACE}]+")  # three times as fast


@cache
def _pattern() -> re.Pattern:
    r"""GPT-2's pattern for all of Unicode, with substitutes for \p{L} and \p{N}, which `re` lacks.

    In `re`, \w is a letter, a number or _, and \d a decimal digit. Other kinds of numbers (½ Ⅷ) are listed below; all
    of them are in the first two planes.
    """
    other_numbers = "".join(c for c in map(chr, range(0x20000)) if unicodedata.category(c) in ("Nl", "No"))
    later_letters, later_numbers = _ranges(LATER_LETTERS), _ranges(LATER_NUMBERS)
    return _rule(
        # Nested, but the two sets share no character, so there is only one way to match (no backtracking).
        rf"(?:[^\W\d_{other_numbers}{later_numbers}]+|[{later_letters}]+)+",
        rf"[\d{other_numbers}{later_numbers}]+",
        rf"(?:[^\w{WHITE_SPACE}{later_letters}{later_numbers}]+|_+)+",
    )


def pre_tokens(text: str) -> list[str]:
    """Splits text by GPT-2's rule; the parts concatenate to the text."""
    return (ASCII_PATTERN if text.isascii() else _pattern()).findall(text)


# --- Bytes and merges -------------------------------------------------------------------------------------------------


def _byte_characters() -> str:
    """The character for each byte: visible Latin-1 characters stand for themselves, other bytes are U+0100 and up."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    later = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in visible else next(later)) for byte in range(256))


BYTE_CHARACTERS = _byte_characters()
BYTE_OF = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


def _spell(text: str) -> str:
    """Text as UTF-8, one character per byte. A lone surrogate, though not valid UTF-8, becomes three bytes."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1").translate(BYTE_CHARACTERS)


def merge(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Merges neighbors: the pair of lowest rank at every place, left to right, then the next. Changes `symbols`."""
    ranked = [ranks.get(pair, NEVER) for pair in zip(symbols, symbols[1:])]  # of each pair (symbol, right neighbor)
    while ranked and (best := min(ranked)) < NEVER:
        at = 0
        try:
            for _ in range(ranked.count(best)):
                at = ranked.index(best, at)
                symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
                del ranked[at]
                if at > 0:
                    ranked[at - 1] = ranks.get((symbols[at - 1], symbols[at]), NEVER)
                if at < len(ranked):
                    ranked[at] = ranks.get((symbols[at], symbols[at + 1]), NEVER)
        except ValueError:  # overlapping pairs: aaa has two of (a, a), and merging one removes the other
            pass
    return symbols


# --- The tokenizer ----------------------------------------------------------------------------------------------------


class BpeTokenizer(Tokenizer):
    """vocab: token -> id. merges: pairs of tokens, the earliest learned first. names: role ("bos", "mask", ...) ->
    token, where it is not RoBERTa's. added: further tokens, which are never split -> id. prefixes: put a space before
    every segment, as transformers does with add_prefix_space. Ids that the vocabulary skips get RoBERTa's names for
    unused ids (madeupword0000). For the rest see `tokenizer.complete` and `Tokenizer`.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: list[tuple[str, str]],
        names: dict[str, str] | None = None,
        added: dict[str, int] | None = None,
        takes_space: bool = True,
        prefixes: bool = False,
    ):
        names, vocab = NAMES | (names or {}), vocab | (added or {})
        taken = set(vocab.values())
        if max(taken, default=-1) - len(taken) > MOST_SPARE:
            raise ValueError(f"ids up to {max(taken)} for {len(taken)} tokens")
        for number, spare in enumerate(sorted(set(range(max(taken, default=-1) + 1)) - taken)):
            vocab[f"madeupword{number:04}"] = spare
        super().__init__(*tokenizer.complete(vocab, names, added or ()), names, takes_space)
        self.merges, self._prefixes = merges, prefixes
        self._ids = {token: k for k, token in enumerate(self._tokens)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._bytes = list(map(self._bytes_of, self._tokens))
        self._words = Memory(self._encode_word)  # pre-token -> ids
        self._spaced = Memory(self._encode_spaced)  # what follows a space, up to the next -> ids as int32

    def _bytes_of(self, token: str) -> bytes:
        if token in self._special or not all(character in BYTE_OF for character in token):
            return token.encode()
        return bytes(BYTE_OF[character] for character in token)

    def _begins_word(self, token: str) -> bool:
        if token in self._special:
            return True
        # differs from LUKE: it looks at the character that stands for the first byte, so that – and — continue a word
        # there, and half of some other characters begins one (72 pieces of RoBERTa's, 0.13 % of the tokens).
        spelled = self._bytes_of(token)
        first = spelled.decode("utf-8", "ignore")[:1]  # tokens may begin or end within a character
        starts_whole = first and spelled.startswith(first.encode())
        return bool(starts_whole and (first.isspace() or is_punctuation(first)))

    def _encode_spaced(self, word: str) -> bytes:
        ids = [-1, *self._encode_any(word[1:])] if word[:1] == BORDER else self._encode_any(f" {word}")
        return array("i", ids).tobytes()

    def _encode_word(self, word: str) -> list[int]:
        return [self._ids.get(piece, self.unk_id) for piece in merge(list(_spell(word)), self._ranks)]

    def _encode_any(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._words.__getitem__, pre_tokens(text))))

    def _encode_plain(self, text: str) -> list[int]:
        if self._prefixes and text and text[0] != " ":  # before other white space too, as in transformers 5
            text = f" {text}"
        return self.encode_parts([text])[0].tolist()

    def encode_parts(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        words, whole = [BORDER + text for text in texts], "".join(texts)
        if texts and is_squeezed(whole) and BORDER not in whole:  # then a pre-token begins at each space
            words = " ".join(words).split(" ")
        ids = np.frombuffer(b"".join(map(self._spaced.__getitem__, words)), np.int32)
        is_border = ids < 0
        return ids[~is_border], np.diff(np.flatnonzero(is_border), append=len(ids)) - 1

    def encode(self, text: str, prefix_space: bool = True) -> Encoding:
        spaced = prefixed(text, prefix_space)
        start = len(text) - len(spaced)  # -1: the first character is the added space
        ids, offsets = [], []
        for word in pre_tokens(spaced):
            found = self._words[word]
            ids += found
            # For each byte of the word, the index of its character in the text.
            owner = [k for k, character in enumerate(word, start) for _ in character.encode("utf-8", "surrogatepass")]
            end = 0
            for token in found:
                # an unknown piece is one byte that this vocabulary lacks: longer ones come from merges
                begin, end = end, end + (1 if token == self.unk_id else len(self._bytes[token]))
                offsets.append(without_space(text, owner[begin], owner[end - 1] + 1))
            start += len(word)
        return Encoding(ids, offsets)

    def decode(self, ids: Iterable[int]) -> str:
        """The text, with special tokens written out; invalid UTF-8 (half a character) becomes U+FFFD.

        As in SentencePiece, one space at the beginning is the prefix and not text.
        """
        return b"".join(self._bytes[k] for k in ids).decode("utf-8", "replace").removeprefix(" ")

    def save(self, folder: str | Path) -> None:
        """Writes vocab.json, merges.txt and tokenizer_config.json: transformers' LukeTokenizer reads them, too."""
        folder = Path(folder)
        with files.write_file(folder / "vocab.json") as file:
            json.dump(self._ids, file, ensure_ascii=False)
        with files.write_file(folder / "merges.txt") as file:
            file.write("#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in self.merges))
        self._write_config(folder, "LukeTokenizer", add_prefix_space=self._prefixes)


def load(folder: str | Path) -> BpeTokenizer:
    """From vocab.json and merges.txt, otherwise from tokenizer.json. ValueError that names an invalid file."""
    folder = Path(folder)
    settings, whole = tokenizer.read_files(folder)
    if (folder / "vocab.json").is_file():
        vocab, merges = files.read_object(folder / "vocab.json"), _read_merges(folder / "merges.txt")
    elif "ByteLevel" not in str(whole.get("pre_tokenizer")):
        raise ValueError(f"{folder / 'tokenizer.json'}: BPE over characters, expected bytes, as RoBERTa's; of a model "
                         "that was pretrained here, sentencepiece.bpe.model is needed")  # fmt: skip
    else:
        vocab = whole["model"]["vocab"]
        merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in whole["model"]["merges"]]
    for pair in merges:
        if len(pair) != 2 or "".join(pair) not in vocab:
            raise ValueError(f"{folder}: merge {' '.join(pair)!r}: expected two tokens that join to a known token")
    names, takes_space = tokenizer.special_tokens(settings), tokenizer.mask_takes_space(settings, whole)
    try:
        added = tokenizer.added_tokens(folder, settings, whole, vocab)
        return BpeTokenizer(vocab, merges, names, added, takes_space, bool(settings.get("add_prefix_space")))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def _read_merges(path: Path) -> list[tuple[str, ...]]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected it beside vocab.json")
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[0].startswith("#version"):  # later lines that begin with # are merges
        del lines[0]
    return [tuple(line.split(" ")) for line in lines if line]


# --- Training ---------------------------------------------------------------------------------------------------------


class _Pairs:
    """Counts of each pair of neighbors, and the words that hold it; updated as pairs are merged."""

    def __init__(self, words: list[list[int]], counts: list[int]):
        self._words, self._counts = words, counts  # words as symbols
        self._total = Counter()  # pair -> occurrences
        self._where = defaultdict(set)  # pair -> indices of words that hold it, or once did
        for number in range(len(words)):
            self._count(number, 1)
        self._heap = [(-total, pair) for pair, total in self._total.items()]  # totals may be outdated: see `best`
        heapq.heapify(self._heap)

    def _count(self, number: int, sign: int) -> None:
        word = self._words[number]
        for pair in zip(word, word[1:]):
            self._total[pair] += sign * self._counts[number]
            self._where[pair].add(number)

    def best(self) -> tuple[int, tuple[int, int]]:
        """The largest total and its pair; of several, the pair of the smallest symbols. (0, (0, 0)) if none is left."""
        while self._heap:
            total, pair = heapq.heappop(self._heap)
            if -total == self._total[pair]:
                return -total, pair
            if 0 < self._total[pair] < -total:  # outdated: fewer by now (a larger total has its own entry)
                heapq.heappush(self._heap, (-self._total[pair], pair))
        return 0, (0, 0)

    def merge(self, pair: tuple[int, int], symbol: int) -> None:
        """Writes `symbol` for every occurrence of the pair."""
        touched = set()
        for number in self._where.pop(pair):
            self._count(number, -1)
            self._words[number] = word = _replace(self._words[number], pair, symbol)
            self._count(number, 1)
            touched.update(zip(word, word[1:]))
        for new in touched:
            if symbol in new:  # only their totals can have grown
                heapq.heappush(self._heap, (-self._total[new], new))


def _replace(word: list[int], pair: tuple[int, int], symbol: int) -> list[int]:
    """[1, 2, 1, 2, 2], (1, 2), 9 -> [9, 9, 2]"""
    made, at = [], 0
    while at < len(word):
        found = word[at : at + 2] == [*pair]
        made.append(symbol if found else word[at])
        at += 1 + found
    return made


def train(texts: Iterable[str], vocab_size: int, folder: str | Path) -> BpeTokenizer:
    """Learns a vocabulary of at most vocab_size ids, special tokens included, and saves it into the folder.

    Deterministic. Pairs that occur once are not merged, so a small text gives fewer pieces. All distinct pre-tokens are
    held in memory; one of more than LONGEST characters counts as several, as each merge passes over all of it.
    ValueError if vocab_size has no room for the 256 bytes and the special tokens.
    """
    pieces = [*SPECIAL, *sorted(BYTE_CHARACTERS)]
    if vocab_size < (least := len(pieces) + len(ADDED)):
        raise ValueError(f"a word vocabulary of {vocab_size}: expected at least {least} for all bytes")
    vocab = {piece: k for k, piece in enumerate(pieces)}
    found = chain.from_iterable(pre_tokens(prefixed(text, True)) for text in texts)
    counted = Counter(word[i : i + LONGEST] for word in found for i in range(0, len(word), LONGEST))
    pairs = _Pairs([[vocab[symbol] for symbol in _spell(word)] for word in counted], list(counted.values()))
    merges = []
    while len(pieces) < vocab_size - len(ADDED):
        total, pair = pairs.best()
        if total < 2:
            break
        merges.append((pieces[pair[0]], pieces[pair[1]]))
        piece = "".join(merges[-1])
        if piece not in vocab:  # otherwise another pair has made the same piece
            vocab[piece] = len(pieces)
            pieces.append(piece)
        pairs.merge(pair, vocab[piece])
    for token in ADDED:
        vocab[token] = len(vocab)
    trained = BpeTokenizer(vocab, merges)
    trained.save(folder)
    return trained

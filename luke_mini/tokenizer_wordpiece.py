"""WordPiece, from scratch: the tokenizer of BERT, cased and uncased, on which LUKE's entity disambiguation was built.

In: text. Out: ids and offsets. A text goes through three steps:

    text          "Zoë's naïve\u200b 東京"
    words         zoe ' s naive 東 京        control characters out; lower case and accents off if uncased;
                                           every punctuation mark and every Chinese character is a word
    pieces        zoe ' s na ##ive 東 京     the longest piece of the vocabulary that fits, then the longest that goes on

A word with a part that no piece fits, or of more than 100 characters, is one [UNK]. The vocabulary is vocab.txt, one
piece per line; ## marks those that go on in a word. <ent> and <ent2> come after the last line if the file lacks them.

Google's BERT is followed where its descendants disagree. transformers' own Python version composes characters first
(NFC), which changes what a cased model sees of "e" + accent; the Rust one does not. In lower case Python, and so
Google's code, writes Σ at the end of a word as ς, the Rust version σ.

prefix_space has no effect, as a text that begins in mid-word cannot be told apart here. Left out: training.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from luke_mini import files, tokenizer
from luke_mini.spans import Encoding, is_punctuation
from luke_mini.tokenizer import Memory, Tokenizer

FILE_NAME = "vocab.txt"
NAMES = {"bos": "[CLS]", "eos": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
NAMES |= {"ent": "<ent>", "ent2": "<ent2>"}
GOES_ON = "##"
LONGEST_WORD = 100  # characters
# White space of Unicode, but not \v \f \x85, which are control characters here.
CHUNK = re.compile(r"[^\t\n\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
CHINESE = re.compile(
    r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)


def _is_dropped(character: str) -> bool:
    """Control, format and private characters, and U+FFFD, which stands for broken text.

    Not the unassigned ones, which Google's code drops: what is unassigned depends on Python's version.
    """
    hidden = not character.isprintable() and unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs")
    return hidden or character == "\ufffd"


class WordPieceTokenizer(Tokenizer):
    """vocab: token -> id. names: role ("bos", "mask", ...) -> token, where it is not BERT's. strip_accents: None means
    as lower_case. Otherwise see `tokenizer.complete`.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        names: dict[str, str] | None = None,
        lower_case: bool = True,
        strip_accents: bool | None = None,
        split_chinese: bool = True,
    ):
        names = NAMES | (names or {})
        super().__init__(*tokenizer.complete(vocab, names), names)
        self._ids = {token: k for k, token in enumerate(self._tokens)}
        self._longest = max(map(len, self._tokens))
        self.lower_case, self._split_chinese = lower_case, split_chinese
        self.strip_accents = lower_case if strip_accents is None else strip_accents
        self._chunks = Memory(self._encode_chunk)  # what stands between white space -> ids, spans

    def _begins_word(self, token: str) -> bool:
        return not token.startswith(GOES_ON)

    def _normalize(self, chunk: str) -> tuple[str, list[int]]:
        """The chunk as the vocabulary writes it, and for each of its characters where it comes from."""
        source = [k for k, character in enumerate(chunk) if not _is_dropped(character)]
        text = "".join(chunk[k] for k in source)
        if self.lower_case:
            # As one, for the sake of Σ; that changes a character, never a length.
            source = [k for k in source for _ in chunk[k].lower()]
            text = text.lower()
        if self.strip_accents:
            parts = [(k, c) for k, character in zip(source, text) for c in unicodedata.normalize("NFD", character)]
            kept = [(k, c) for k, c in parts if unicodedata.category(c) != "Mn"]
            text, source = "".join(c for _, c in kept), [k for k, _ in kept]
        return text, source

    def _words(self, text: str) -> list[tuple[int, int]]:
        """Spans of the words in normalized text."""
        spans, start = [], 0
        for k, character in enumerate(text):
            if is_punctuation(character) or self._split_chinese and CHINESE.match(character):
                spans += [(start, k), (k, k + 1)]
                start = k + 1
        return [(start, end) for start, end in [*spans, (start, len(text))] if start < end]

    def _match(self, word: str) -> list[tuple[int, int]]:
        """Ids of the pieces of a word, and where each ends in it."""
        found, start = [], 0
        while start < len(word):
            mark = GOES_ON if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                if (piece := self._ids.get(mark + word[start:end])) is not None:
                    break
            else:
                return [(self.unk_id, len(word))]
            found.append((piece, end))
            start = end
        return found if len(word) <= LONGEST_WORD else [(self.unk_id, len(word))]

    def _encode_chunk(self, chunk: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of what stands between white space, and each one's characters."""
        ids, spans = [], []
        text, source = self._normalize(chunk)
        for start, end in self._words(text):
            begin = start
            for piece, length in self._match(text[start:end]):
                ids.append(piece)
                spans.append((source[begin], source[start + length - 1] + 1))
                begin = start + length
        return ids, spans

    def _encode_plain(self, text: str) -> list[int]:
        return [k for chunk in CHUNK.findall(text) for k in self._chunks[chunk][0]]

    def encode_parts(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return tokenizer.in_a_row(list(map(self._encode_plain, texts)))

    def encode(self, text: str, prefix_space: bool = True) -> Encoding:
        ids, offsets = [], []
        for chunk in CHUNK.finditer(text):
            found, spans = self._chunks[chunk[0]]
            ids += found
            offsets += [(start + chunk.start(), end + chunk.start()) for start, end in spans]
        return Encoding(ids, offsets)

    def decode(self, ids: Iterable[int]) -> str:
        """The words with a space between any two, punctuation too: where spaces were is lost."""
        return " ".join(self.pieces(ids)).replace(" " + GOES_ON, "")

    def save(self, folder: str | Path) -> None:
        """Writes vocab.txt and tokenizer_config.json."""
        folder = Path(folder)
        with files.write_file(folder / FILE_NAME) as file:
            file.writelines(token + "\n" for token in self._tokens)
        more = {"do_lower_case": self.lower_case, "strip_accents": self.strip_accents}
        self._write_config(folder, "BertTokenizer", **more, tokenize_chinese_chars=self._split_chinese)


def load(folder: str | Path) -> WordPieceTokenizer:
    """From vocab.txt, otherwise from tokenizer.json. ValueError that names an invalid folder."""
    folder = Path(folder)
    settings, whole = tokenizer.read_files(folder)
    if (folder / FILE_NAME).is_file():
        lines = (folder / FILE_NAME).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        vocab = {piece: k for k, piece in enumerate(lines)}
    else:
        vocab = whole["model"]["vocab"]
    vocab |= tokenizer.added_tokens(folder, settings, whole, vocab)
    normalizer = whole.get("normalizer") or {}  # what tokenizer_config.json says comes first; without both, uncased
    lower_case = settings.get("do_lower_case", normalizer.get("lowercase", True))
    strip_accents = settings.get("strip_accents", normalizer.get("strip_accents"))
    split_chinese = settings.get("tokenize_chinese_chars", normalizer.get("handle_chinese_chars", True))
    try:
        return WordPieceTokenizer(vocab, tokenizer.special_tokens(settings), lower_case, strip_accents, split_chinese)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None

"""SentencePiece with XLM-R's ids: the tokenizer of mLUKE, Japanese LUKE, and models pretrained here from scratch.

In: text. Out: ids and offsets; `train` makes a new vocabulary from texts. A text goes through three steps:

    text          "Ada  met ﬁve"
    normalized    Ada  met five       replacements; XLM-R's charsmap, SentencePiece's table of NFKC
    words         ▁Ada ▁met ▁five     XLM-R: cut at white space. mLUKE: cut before every space, ▁Ada ▁ ▁met
    pieces        ▁Ada ▁m et ▁five    those whose scores, logarithms of probabilities, have the largest sum

The vocabulary is in one of two files:

    sentencepiece.bpe.model    `SentencePieceTokenizer`: the sentencepiece library takes the steps, also for BPE models
    tokenizer.json alone       `UnigramTokenizer`, from scratch: the file defines each step, as transformers 5 saves it

fairseq, where XLM-R was trained, has four special tokens where SentencePiece has three, and adds <mask> at the end;
mLUKE then adds its two markers. For a model of n pieces:

    id              0      1      2     3              4       ...  n           n + 1   n + 2  n + 3
    SentencePiece   <unk>  <s>    </s>  first piece    second  ...
    here and XLM-R  <s>    <pad>  </s>  <unk>          first   ...  last piece  <mask>  <ent>  <ent2>

`UnigramTokenizer` gives the ids and offsets of transformers 5.23 on the same file, also where SentencePiece itself
decides otherwise: a charsmap sees one character and its accents at a time (か and ゙ stay two), and a character that no
piece has gets the file's unk_id, which in mLUKE's is that of `<s>`. What differs:

- no offset covers white space, and a ▁ that stands alone has an empty one, as in all tokenizers here;
- where the normalizer removes the first character of a text, transformers' offsets are one too low;
- the markers are called <ent> and <ent2>, as mLUKE's authors call them, not ▁<ent> and ▁<ent2>;
- [MASK] and other entities that are written out are ordinary text: the words have no row for them. So is a special
  token that only the normalizer brings out (full-width ＜s＞);
- what is a mark, or white space before <mask>, is Python's answer, older or wider than Rust's for rare characters.

Left out: byte fallback, sampling, BPE dropout, normalizers and pre-tokenizers of other families.
"""

import base64
import io
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import sentencepiece

from luke_mini import files, tokenizer
from luke_mini.spans import WHITE_SPACE, Encoding, without_space
from luke_mini.tokenizer import ADDED, MARK, NAMES, SPECIAL, Memory, Tokenizer

FILE_NAME = "sentencepiece.bpe.model"  # XLM-R's name for it, though the model is a unigram one
UNKNOWN_PENALTY = 10.0  # an unknown character's score is so much below that of the least likely piece
TRAIN_THREADS = 4  # fixed: sums of floats depend on how the texts are dealt out to threads
MAX_TEXT_BYTES = 1 << 20  # SentencePiece ignores longer training texts; its own limit of 4,192 loses paragraphs
NMT = {  # of Google's translation models: control characters vanish, others are spaces
    r"[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]": "",
    r"[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]": " ",
}
WORD = re.compile(f"{MARK}[^{MARK}]*|[^{MARK}]+")
# Appended to a model, these bytes say: normalizer_spec (field 3, 2 bytes) { add_dummy_prefix (field 3) = false }.
# In protobuf's encoding the concatenation of two messages is their merger, the later value wins.
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"

# --- Normalization ----------------------------------------------------------------------------------------------------


class Charsmap:
    """SentencePiece's rules: a double-array trie of UTF-8 keys (as Darts has it), then their replacements."""

    def __init__(self, content: bytes):
        size = int.from_bytes(content[:4], "little")
        self._units = np.frombuffer(content, "<u4", size // 4, offset=4).tolist()
        self._texts = content[4 + size :]

    def find(self, text: str) -> str | None:
        """The replacement of the shortest key that the text begins with."""
        node = _offset(self._units[0])
        for byte in text.encode("utf-8", "surrogatepass"):
            node ^= byte
            unit = self._units[node]
            if unit & 0x800000FF != byte:  # no such branch
                return None
            node ^= _offset(unit)
            if unit >> 8 & 1:  # a key ends here
                start = self._units[node] & 0x7FFFFFFF
                return self._texts[start : self._texts.index(b"\0", start)].decode()
        return None

    def change(self, cluster: str) -> list[tuple[int, str]]:
        """As tokenizers has it: one replacement for a short cluster, else one for each character."""
        whole = self.find(cluster) if len(cluster.encode("utf-8", "surrogatepass")) < 6 else None
        if whole is not None:
            return [(len(cluster), whole)]
        return [(1, c if (new := self.find(c)) is None else new) for c in cluster]


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 0x200) >> 6)


@cache
def _clusters() -> re.Pattern:
    """A character with the accents on it. There are none on control characters."""
    kinds = {chr(k): unicodedata.category(chr(k)) for k in range(0x20000)}
    marks = "".join(c for c, kind in kinds.items() if kind[0] == "M")
    marks += "\u200c\u200d\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\U000e0100-\U000e01ef"
    controls = "".join(c for c, kind in kinds.items() if kind in ("Cc", "Cf", "Zl", "Zp"))
    jamo = "\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff"  # parts of Korean syllables, which compose
    return re.compile(f"\r\n|[{jamo}]+|[^{re.escape(controls)}][{marks}]+|.", re.DOTALL)


class Rule:
    """Changes what a pattern finds: `change` gives (number of old characters, what comes for them), part after part.

    last: the new characters come from the last old one, not each from its own.
    """

    def __init__(self, pattern: re.Pattern, change: Callable[[str], list[tuple[int, str]]], last: bool = False):
        self.pattern, self.changed, self.last = pattern, Memory(change), last

    def apply(self, text: str) -> str:
        return self.pattern.sub(lambda found: "".join([new for _, new in self.changed[found[0]]]), text)

    def apply_to_both(self, text: str, source: list[int]) -> tuple[str, list[int]]:
        """The same, and the character of the original text that each one of the result comes from."""
        made, moved, at = [], [], 0
        for found in self.pattern.finditer(text):
            made.append(text[at : found.start()])
            moved += source[at : found.start()]
            at = found.start()
            for count, new in self.changed[found[0]]:
                last = at + count - 1
                made.append(new)
                moved += [source[last if self.last else min(at + k, last)] for k in range(len(new))]
                at += count
        return "".join(made) + text[at:], moved + source[at:]


def _constant(new: str, old: str) -> list[tuple[int, str]]:
    return [(len(old), new)]


def _composed(form: str, old: str) -> list[tuple[int, str]]:
    whole, parts = unicodedata.normalize(form, old), [(1, unicodedata.normalize(form, c)) for c in old]
    return parts if "".join(part for _, part in parts) == whole else [(len(old), whole)]


def rules(normalizer: dict | None) -> list[Rule]:
    """The normalizer of a tokenizer.json, one rule after the other. ValueError if it has another kind."""
    kind = (normalizer or {}).get("type")
    if kind == "Sequence":
        return [rule for part in normalizer["normalizers"] for rule in rules(part)]
    if kind == "Replace":
        pattern = normalizer["pattern"]
        pattern = re.escape(pattern["String"]) if "String" in pattern else pattern["Regex"]
        return [Rule(re.compile(pattern), partial(_constant, normalizer["content"]), last=True)]
    if kind == "Precompiled":
        return [Rule(_clusters(), Charsmap(base64.b64decode(normalizer["precompiled_charsmap"])).change)]
    if kind in ("NFC", "NFD", "NFKC", "NFKD"):
        return [Rule(_clusters(), partial(_composed, kind))]
    if kind == "Strip":
        ends = rf"\A[{WHITE_SPACE}]+" * normalizer["strip_left"], rf"[{WHITE_SPACE}]+\Z" * normalizer["strip_right"]
        return [Rule(re.compile(end), partial(_constant, "")) for end in ends if end]
    if kind == "Nmt":
        return [Rule(re.compile(pattern), partial(_constant, new), last=True) for pattern, new in NMT.items()]
    if normalizer is not None:
        raise ValueError(f"normalizer of type {kind}, expected Replace, Precompiled, Strip, Nmt, NFKC or a Sequence")
    return []


def splitting(pre_tokenizer: dict | None) -> tuple[re.Pattern, bool]:
    """What is tokenized by itself, and whether ▁ comes in front of it. ValueError for the pre-tokenizer of others."""
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    kinds = [part.get("type") for part in parts]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        raise ValueError(f"pre-tokenizer {kinds}, expected Metaspace, or WhitespaceSplit and Metaspace")
    space = parts[-1]
    scheme = space.get("prepend_scheme") or ("always" if space.get("add_prefix_space", True) else "never")
    if space.get("replacement") != MARK or scheme == "first" or not space.get("split", True):
        raise ValueError(f"Metaspace {space}, expected to write {MARK} always or never, and to split there")
    return re.compile(f"[^{WHITE_SPACE}]+" if len(kinds) == 2 else "(?s:.+)"), scheme == "always"


# --- From a tokenizer.json --------------------------------------------------------------------------------------------


class UnigramTokenizer(Tokenizer):
    """form: the content of a tokenizer.json. names: role ("bos", "mask", ...) -> token, where it is not XLM-R's. added:
    further tokens that are never cut -> id. opened_as: the class that transformers is to open it with, which has rules
    of its own beside the file's. Otherwise see `tokenizer.complete` and `Tokenizer`.
    """

    def __init__(
        self,
        form: dict,
        names: dict[str, str] | None = None,
        added: dict[str, int] | None = None,
        takes_space: bool = True,
        opened_as: str = "MLukeTokenizer",
    ):
        names, model, added = NAMES | (names or {}), form["model"], added or {}
        vocab = {piece: k for k, (piece, _) in enumerate(model["vocab"])} | added
        super().__init__(*tokenizer.complete(vocab, names, added), names, takes_space)
        if model.get("byte_fallback"):
            raise ValueError("byte_fallback is true, expected a model without byte pieces, as XLM-R's")
        self._form, self._opened_as = form, opened_as
        self._scored = {piece: (vocab[piece], score) for piece, score in model["vocab"] if piece not in self._special}
        self._longest = max(map(len, self._scored), default=0)
        unknown = self.unk_id if model.get("unk_id") is None else files.check("unk_id", model["unk_id"], int)
        if unknown not in range(len(vocab)):
            raise ValueError(f"unk_id is {unknown}, expected an id below {len(vocab)}")
        for piece, score in model["vocab"]:
            if not abs(score) <= sys.float_info.max:  # nor is NaN
                raise ValueError(f"the score of {piece!r} is {score}, expected a number that a float can be")
        self._unknown = (unknown, min(score for _, score in model["vocab"]) - UNKNOWN_PENALTY)
        self._rules = rules(form.get("normalizer"))
        self._sections, self._prepend = splitting(form.get("pre_tokenizer"))
        self._best = Memory(self._best_pieces)  # word -> ids, ends

    def _best_pieces(self, word: str) -> tuple[list[int], list[int]]:
        """Ids of the pieces of a word, and where each ends in it (Viterbi's algorithm). Unknown neighbors are one."""
        unknown, penalty = self._unknown
        best = [(0.0, 0, 0)] + [(-math.inf, 0, 0)] * len(word)  # up to here: score; start and id of the last piece
        for start in range(len(word)):
            before = best[start][0]
            for end in range(start + 1, min(start + self._longest, len(word)) + 1):
                piece, score = self._scored.get(word[start:end], (unknown, penalty if end == start + 1 else -math.inf))
                if before + score > best[end][0]:
                    best[end] = (before + score, start, piece)
        ids, ends, end = [], [], len(word)
        while end:
            _, start, piece = best[end]
            if not (ids and piece == ids[-1] == unknown):
                ids.append(piece)
                ends.append(end)
            end = start
        return ids[::-1], ends[::-1]

    def _words(self, text: str, prefix: bool) -> Iterator[tuple[str, int, int]]:
        """Each word of a normalized text, where it begins there, and at least: a ▁ put in front is at -1 of that."""
        for section in self._sections.finditer(text):
            start, marked = section.start(), section[0].replace(" ", MARK)
            if self._prepend and (prefix or start) and marked[0] != MARK:
                start, marked = start - 1, MARK + marked
            for word in WORD.finditer(marked):
                yield word[0], start + word.start(), section.start()

    def _encode_plain(self, text: str, prefix: bool = True) -> list[int]:
        for rule in self._rules:
            text = rule.apply(text)
        return [k for word, _, _ in self._words(text, prefix) for k in self._best[word][0]]

    def encode(self, text: str, prefix_space: bool = True) -> Encoding:
        normalized, source = text, list(range(len(text)))
        for rule in self._rules:
            normalized, source = rule.apply_to_both(normalized, source)
        ids, offsets = [], []
        for word, begin, first in self._words(normalized, prefix_space or text[:1].isspace()):
            found, ends = self._best[word]
            ids += found
            for low, high in zip([0, *ends], ends):
                start, end = source[max(begin + low, first)], source[max(begin + high - 1, first)] + 1
                if word[low:high] == MARK:  # put in front of a character, or a character itself
                    start = end = start if begin + low < first else end
                offsets.append(without_space(text, start, end))
        return Encoding(ids, offsets)

    def encode_parts(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return tokenizer.in_a_row([self._encode_plain(text, text[:1].isspace()) for text in texts])

    def encode_pieces(self, texts: list[str], prefix_spaces: list[bool]) -> list[list[int]]:
        """Not by `encode_parts`: a model that never prepends ▁ knows a prefix space from one in the text."""
        return [self._encode_plain(text, prefix or text[:1].isspace()) for text, prefix in zip(texts, prefix_spaces)]

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, from which transformers makes the same tokenizer."""
        self._write_json(Path(folder), self._form)
        self._write_config(Path(folder), self._opened_as)


# --- Through the sentencepiece library --------------------------------------------------------------------------------


class SentencePieceTokenizer(Tokenizer):
    """model: the bytes of a SentencePiece model.

    SentencePiece puts ▁ before every text, but a mention in mid-word must get none. mLUKE's pretraining puts an unknown
    character in front and drops the first two pieces, which goes wrong when the text itself begins with an unknown
    character, as SentencePiece merges the two. Here a second copy of the model has that rule switched off.
    """

    def __init__(self, model: bytes):
        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        # differs from LUKE: exact for every text, where mLUKE drops the pieces of a sacrificial character
        self._without_mark = sentencepiece.SentencePieceProcessor(model_proto=model + NO_DUMMY_PREFIX)
        size = self.processor.get_piece_size()
        first = (self.processor.unk_id(), self.processor.bos_id(), self.processor.eos_id())
        if first != (0, 1, 2) or any(map(self.processor.is_byte, range(size))):
            raise ValueError("expected <unk> <s> </s> at ids 0, 1, 2 and no byte pieces, as in XLM-R's model")
        tokens = [*SPECIAL, *map(self.processor.id_to_piece, range(3, size)), *ADDED]
        special = {tokens[k]: k for k in (*range(len(SPECIAL)), *range(size + 1, len(tokens)))}
        super().__init__(tokens, special)  # a learned piece may be spelled like a special token, and is not one
        # SentencePiece id -> ours; 1 and 2 never come from text
        self._ids = np.array([self.unk_id, *range(2, size + 1)], np.int32)

    def encode(self, text: str, prefix_space: bool = True) -> Encoding:
        model = self.processor if prefix_space or text[:1].isspace() else self._without_mark
        ids = self._ids[model.encode(text)].tolist()
        pieces = model.encode(text, out_type=str)  # spelled as in the normalized text, unknown ones too
        return Encoding(ids, offsets(text, pieces, *model.normalize(text, with_offsets=True)))

    def encode_parts(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """In two calls of the library, each in one thread: callers run one process per core."""
        marked, found = [text[:1].isspace() for text in texts], {}
        for mark, model in ((True, self.processor), (False, self._without_mark)):
            own = [text for text, is_own in zip(texts, marked) if is_own == mark]
            found[mark] = iter(model.encode(own, num_threads=1))
        ids, counts = tokenizer.in_a_row([next(found[mark]) for mark in marked])
        return self._ids[ids], counts

    def _encode_plain(self, text: str) -> list[int]:
        return self._ids[self.processor.encode(text)].tolist()  # a call for a list of texts costs 40 times as much

    def save(self, folder: str | Path) -> None:
        """Writes sentencepiece.bpe.model and tokenizer_config.json, and for transformers 5 tokenizer.json.

        transformers 5 has no class for BPE pieces and entities: its general class opens a BPE model, for words alone.
        """
        folder = Path(folder)
        with files.write_file(folder / FILE_NAME, "wb") as file:
            file.write(self.model)
        scores = [self.processor.get_score(k) for k in range(3, self.processor.get_piece_size())]
        is_bpe = all(score.is_integer() for score in scores)  # ranks
        self._write_config(folder, "PreTrainedTokenizerFast" if is_bpe else "MLukeTokenizer")
        self._write_json(folder, _form(_bpe(self._tokens) if is_bpe else _unigram(self._tokens, scores)))


def _unigram(pieces: list[str], scores: list[float]) -> dict:
    scores = [*(0.0 for _ in SPECIAL), *scores, 0.0]  # to <mask>, but without the markers
    return {"type": "Unigram", "unk_id": SPECIAL.index("<unk>"), "vocab": list(zip(pieces, scores))}


def _bpe(pieces: list[str]) -> dict:
    """Of pieces in the order of their ranks: all pairs that join to a piece, the best piece first."""
    vocab = {piece: k for k, piece in enumerate(pieces)}
    pairs = ((piece[:at], piece[at:]) for piece in pieces[len(SPECIAL) :] for at in range(1, len(piece)))
    merges = [pair for pair in pairs if pair[0] in vocab and pair[1] in vocab]
    return {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "vocab": vocab, "merges": merges}


def _form(model: dict) -> dict:
    """The model as a tokenizer.json has it: transformers 5 reads that file, 4 the other one."""
    space = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
    squeeze = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    strip = {"type": "Replace", "pattern": {"Regex": r"\A | \Z"}, "content": ""}
    bos, eos = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("<s>", "</s>"))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}, squeeze, strip]},
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first, eos],
            "pair": [bos, first, eos, eos, second, eos],
            "special_tokens": {k: {"id": k, "ids": [SPECIAL.index(k)], "tokens": [k]} for k in ("<s>", "</s>")},
        },
        "decoder": space,
        "model": model,
    }


def offsets(text: str, pieces: list[str], normalized: str, source: list[int]) -> list[tuple[int, int]]:
    """Characters of `text` that each piece comes from. source[j]: where the j-th character of `normalized` comes from.

    The normalizer makes one character of several (e + accent) or several of one (½): a character that is made
    from text[s] reaches up to the next larger source.
    """
    ends = [len(text)] * len(source)
    for j in range(len(source) - 2, -1, -1):
        ends[j] = source[j + 1] if source[j + 1] > source[j] else ends[j + 1]
    found, position = [], 0
    for piece in pieces:
        # A mark stands for a space or for nothing, unless it is the middle of one character (ﷺ becomes four words).
        skip = piece[0] == MARK and (position == 0 or source[position] > source[position - 1])
        begin, position = position + skip, position + len(piece)
        start = source[begin]
        end = ends[position - 1] if begin < position else start
        while start < end and text[end - 1].isspace():
            end -= 1
        while start < end and text[start].isspace():
            start += 1
        found.append((start, end))
    return found


def load(folder: str | Path) -> SentencePieceTokenizer | UnigramTokenizer:
    """From sentencepiece.bpe.model, otherwise from tokenizer.json. ValueError that names an invalid file."""
    folder = Path(folder)
    has_model = (folder / FILE_NAME).is_file()
    try:
        return SentencePieceTokenizer((folder / FILE_NAME).read_bytes()) if has_model else _read_json(folder)
    except KeyError as error:
        reason = f"it has no {error}"
    except (RuntimeError, ValueError, TypeError, re.error) as error:  # RuntimeError: the library cannot parse the file
        reason = str(error)
    name, kind = (FILE_NAME, "SentencePiece") if has_model else ("tokenizer.json", "Unigram")
    raise ValueError(f"{folder / name}: no usable {kind} model ({reason})")


def _read_json(folder: Path) -> UnigramTokenizer:
    settings, form = tokenizer.read_files(folder)
    vocab = {piece: k for k, (piece, _) in enumerate(form["model"]["vocab"])}
    return UnigramTokenizer(
        form,
        tokenizer.special_tokens(settings),
        tokenizer.added_tokens(folder, settings, form, vocab),
        tokenizer.mask_takes_space(settings, form),
        settings.get("tokenizer_class") or "MLukeTokenizer",
    )


# --- Training ---------------------------------------------------------------------------------------------------------

LONGEST = 10_000  # characters


def _cut(text: str) -> list[str]:
    """The text in parts: the library's time grows with the square of what repeats itself within one."""
    return [text[i : i + LONGEST] for i in range(0, len(text), LONGEST)]


def train(
    texts: Iterable[str], vocab_size: int, folder: str | Path, model_type: str = "unigram"
) -> SentencePieceTokenizer:
    """Learns a vocabulary of at most vocab_size ids, special tokens included, and saves it into the folder.

    model_type: "unigram", as XLM-R's, or "bpe", which is better for little text: unigram only considers pieces that
    occur in several different words, and so cuts even the commonest words of a small vocabulary (▁Th e).
    Deterministic: the same texts give the same bytes. The library keeps the texts in memory while it trains. A text
    too small for vocab_size pieces gives fewer. ValueError if there is no text, or more characters than vocab_size.
    """
    model = io.BytesIO()
    pieces = vocab_size - len(SPECIAL) - len(ADDED) + 3
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=chain.from_iterable(map(_cut, texts)),
            model_writer=model,
            model_type=model_type,
            vocab_size=pieces,
            hard_vocab_limit=False,
            character_coverage=0.9995,  # the rarest characters of Chinese or Japanese texts become <unk>
            normalization_rule_name="nmt_nfkc",
            byte_fallback=False,
            max_sentence_length=MAX_TEXT_BYTES,
            num_threads=TRAIN_THREADS,
            minloglevel=2,  # errors only
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot train a word vocabulary of {vocab_size}: {reason}") from None
    trained = SentencePieceTokenizer(model.getvalue())
    trained.save(folder)
    return trained

"""SentencePiece with XLM-R's ids: the tokenizer of mLUKE, and of models pretrained here from scratch.

In: text. Out: ids, offsets; `train` makes a new vocabulary from texts. The segmentation is the sentencepiece library's;
ours are the ids, the offsets in characters of the original text, and pieces that begin in the middle of a word.

fairseq, where XLM-R was trained, has four special tokens where SentencePiece has three, and adds <mask> at the end;
mLUKE then adds its two markers. For a model of n pieces:

    id              0      1      2     3              4       ...  n           n + 1   n + 2  n + 3
    SentencePiece   <unk>  <s>    </s>  first piece    second  ...
    here and XLM-R  <s>    <pad>  </s>  <unk>          first   ...  last piece  <mask>  <ent>  <ent2>

A piece that begins a word starts with ▁ (U+2581). SentencePiece puts ▁ before every text, but a mention in mid-word
must get none. mLUKE's pretraining puts an unknown character in front and drops the first two pieces, which goes wrong
when the text itself begins with an unknown character, as SentencePiece merges the two. Here a second copy of the model
has that rule switched off.

Left out: byte fallback, sampling, BPE dropout.
"""

import io
import json
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from luke_mini import files
from luke_mini.spans import Encoding
from luke_mini.tokenizer import ADDED, MARK, SPECIAL, Tokenizer

FILE_NAME = "sentencepiece.bpe.model"  # XLM-R's name for it, though the model is a unigram one
TRAIN_THREADS = 4  # fixed: sums of floats depend on how the texts are dealt out to threads
MAX_TEXT_BYTES = 1 << 20  # SentencePiece ignores longer training texts; its own limit of 4,192 loses paragraphs
# Appended to a model, these bytes say: normalizer_spec (field 3, 2 bytes) { add_dummy_prefix (field 3) = false }.
# In protobuf's encoding the concatenation of two messages is their merger, the later value wins.
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class SentencePieceTokenizer(Tokenizer):
    """model: the bytes of a SentencePiece model."""

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
        self._ids = [self.unk_id, *range(2, size + 1)]  # SentencePiece id -> ours; 1 and 2 never come from text

    def encode(self, text: str, prefix_space: bool = True) -> Encoding:
        model = self.processor if prefix_space or text[:1].isspace() else self._without_mark
        ids = [self._ids[k] for k in model.encode(text)]
        pieces = model.encode(text, out_type=str)  # spelled as in the normalized text, unknown ones too
        return Encoding(ids, offsets(text, pieces, *model.normalize(text, with_offsets=True)))

    def encode_pieces(self, texts: list[str], prefix_spaces: list[bool]) -> list[list[int]]:
        """In two calls of the library."""
        marked = [prefix or text[:1].isspace() for text, prefix in zip(texts, prefix_spaces)]
        first = iter(_encode_many(self.processor, [text for text, mark in zip(texts, marked) if mark]))
        second = iter(_encode_many(self._without_mark, [text for text, mark in zip(texts, marked) if not mark]))
        ours = self._ids.__getitem__
        return [list(map(ours, next(first if mark else second))) for mark in marked]

    def _encode_plain(self, text: str) -> list[int]:
        return [self._ids[k] for k in self.processor.encode(text)]  # a call for a list of texts costs 40 times as much

    def save(self, folder: str | Path) -> None:
        """Writes sentencepiece.bpe.model and tokenizer_config.json, and for transformers 5 tokenizer.json."""
        folder = Path(folder)
        with files.write_file(folder / FILE_NAME, "wb") as file:
            file.write(self.model)
        self._write_config(folder, "MLukeTokenizer")
        scores = [self.processor.get_score(k) for k in range(3, self.processor.get_piece_size())]
        if not all(score.is_integer() for score in scores):  # ranks are: a BPE model, which MLukeTokenizer cannot be
            form = _rust_form(self._tokens, scores) | {"added_tokens": self._added_tokens()}
            with files.write_file(folder / "tokenizer.json") as file:
                json.dump(form, file, ensure_ascii=False)


def _rust_form(pieces: list[str], scores: list[float]) -> dict:
    """The model as tokenizers spells it: transformers 5 reads pieces and scores from there, 4 from the other file."""
    scores = [*(0.0 for _ in SPECIAL), *scores, 0.0]  # to <mask>, but without the markers
    space = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
    squeeze = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    bos, eos = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("<s>", "</s>"))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    bos_and_eos = {name: {"id": name, "ids": [SPECIAL.index(name)], "tokens": [name]} for name in ("<s>", "</s>")}
    return {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}, squeeze]},
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first, eos],
            "pair": [bos, first, eos, eos, second, eos],
            "special_tokens": bos_and_eos,
        },
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": SPECIAL.index("<unk>"), "vocab": list(zip(pieces, scores))},
    }


def _encode_many(model: sentencepiece.SentencePieceProcessor, texts: list[str]) -> list[list[int]]:
    return model.encode(texts, num_threads=1) if texts else []  # callers run one process per core


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


def load(folder: str | Path) -> SentencePieceTokenizer:
    path = Path(folder) / FILE_NAME
    try:
        return SentencePieceTokenizer(path.read_bytes())
    except (RuntimeError, ValueError) as error:  # RuntimeError: the library cannot parse the file
        raise ValueError(f"{path}: no usable SentencePiece model ({error})") from None


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
            sentence_iterator=iter(texts),
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

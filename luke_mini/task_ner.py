"""Named entity recognition: every span of a sentence is a candidate, and the model names its type or NIL.

CoNLL-2003 in the LUKE paper (Yamada et al. 2020, section 4.3); CoNLL-2002, anybody's own types and raw text as well:

    read_examples   CoNLL file -> documents (`conll.py`)
    make_features   -> one input for each sentence: its pieces with as much of the document around them as fits, and
                    all spans of at most 16 pieces as candidates, each of which becomes one [MASK] entity
    build_model     encoder, dropout, one linear layer over [word at start; word at end; entity] of each candidate
    predict         logits -> mentions that do not overlap, best score first
    evaluate        -> precision, recall, F1 as conlleval counts them
What every task module offers: `finetuning.py`.

Spans are half-open, in words of the document unless said otherwise. Left out: nested mentions, which greedy decoding
excludes, and the AllenNLP reading of over-long gold mentions, which drops them from recall.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from luke_mini import conll, optim, packing, trainer
from luke_mini.checkpoint import Checkpoint
from luke_mini.config import ModelConfig, option
from luke_mini.conll import Document, raw_document
from luke_mini.heads import Batch, TaskModel
from luke_mini.metrics import Span, chunks, span_scores
from luke_mini.model import LukeModel
from luke_mini.files import is_json
from luke_mini.spans import context_window, is_punctuation
from luke_mini.tokenizer_sentencepiece import SentencePieceTokenizer, UnigramTokenizer

NAME, TITLE = "ner", "NER F1"
FILES = (
    {"train": "train.conll train.txt train.jsonl", "dev": "dev.conll valid.txt dev.txt dev.jsonl",
     "test": "test.conll test.txt test.jsonl"},
    *({"train": f"{language}.train", "dev": f"{language}.testa", "test": f"{language}.testb"}
      for language in ("eng", "esp", "ned", "deu")),
)  # fmt: skip
FORMAT = """\
CoNLL-2002/2003: one word a line, columns between spaces or tabs, first = word, last = tag (IOB1, IOB2 or IOBES, found
out by itself), blank line = end of a sentence, -DOCSTART- line = a new document; UTF-8 or ISO-8859-1:

    -DOCSTART- -X- O O

    Ada NNP I-NP I-PER
    visited VBD I-VP O
    Oslo NNP I-NP I-LOC

Your own texts: a .jsonl file, one document a line, half-open character spans, labels as you like:

    {"text": "Ada visited Oslo.",
     "spans": [{"start": 0, "end": 3, "label": "PER"}, {"start": 12, "end": 16, "label": "LOC"}]}

--predict takes one text per line and prints {"text": ..., "mentions": [{"text", "type", "start", "end",
"probability"}]}."""
SCORES = ("precision", "recall", "f1")
ARCHITECTURE = ("LukeForEntitySpanClassification", "LukeForTokenClassification")
ALL_ENTITIES = False
CONLL_LABELS = ("NIL", "MISC", "PER", "ORG", "LOC")  # the order of the released checkpoints
HEAD_INPUTS = {"token+entity": 3, "entity": 1, "token": 2}  # hidden states a candidate contributes
TAGS = "tags"  # the head of a LukeForTokenClassification: a tag for each word, scored and asked here, not trained
SPECIAL = 2  # <s> and </s>


@dataclass(frozen=True)
class Options:
    """What a candidate is and what the head sees. Defaults: CoNLL-2003 in the paper."""

    head: str = option("token+entity", "what the classifier sees of a candidate", tuple(HEAD_INPUTS))
    max_seq_length: int = option(512, "maximum tokens per input, with <s> and </s>")
    max_mention: int = option(16, "maximum tokens of a candidate")
    max_candidates: int = option(128, "candidates per input; a sentence with more becomes several inputs")
    scheme: str = option("auto", "tagging scheme; auto: as in most of the file", ("auto", "IOB1", "IOB2", "IOBES"))
    language: str = option("en", "language of raw text, to split sentences")
    space_before_all: bool = option(False, "tokenize punctuation as if after a space, too (mLUKE)")

    def __post_init__(self):
        if not 1 <= self.max_mention <= self.max_seq_length - SPECIAL or self.max_candidates < 1:
            raise ValueError("expected 1 <= --max-mention <= --max-seq-length - 2 and --max-candidates at least 1")


def read_examples(path: str | Path, options: Options = Options()) -> list[Document]:
    """Documents of a CoNLL file or of JSON lines: see `conll`."""
    if is_json(path):
        return conll.read_json_lines(path, options.language)
    return conll.read_examples(path, scheme=None if options.scheme == "auto" else options.scheme)


def describe(documents: Sequence[Document]) -> str:
    """What was found in a file, for the log."""
    mentions = sum(len(document.spans) for document in documents)
    return f"{mentions} mentions, {documents[0].scheme}, {documents[0].encoding}"


def label_list(documents: Sequence[Document]) -> tuple[str, ...]:
    """Class names of the training documents, index = class: NIL first, CoNLL's types in the checkpoints' order."""
    types = {kind for document in documents for _, _, kind in document.spans}
    if not types:
        raise ValueError("no mention is tagged in the training data: there is no type to learn")
    return CONLL_LABELS if types == set(CONLL_LABELS[1:]) else ("NIL", *sorted(types))


def recipe_name(files: dict[str, Path], examples: dict[str, list[Document]], start: Checkpoint) -> str:
    """mLUKE's for its data sets in other languages than English, and for multilingual models that others trained."""
    foreign = any(path.name[:4] in ("esp.", "ned.", "deu.") for path in files.values())
    return "conll-multilingual" if foreign or "space_before_all" in released_options(start) else "conll2003"


def released_options(start: Checkpoint) -> dict[str, object]:
    """mLUKE put a space before every word, which its tokenizer tells; folders made here have options of their own."""
    options: dict[str, object] = {}
    if "luke_mini" not in start.settings:
        if isinstance(start.tokenizer, (SentencePieceTokenizer, UnigramTokenizer)):
            options["space_before_all"] = True
        if start.settings.get("architectures") == [ARCHITECTURE[1]]:
            options["head"] = TAGS
    return options


# --- Features -------------------------------------------------------------------------------------------------------


class Feature(NamedTuple):
    """One model input with its C candidates."""

    document: int  # index in the list of documents
    sentence: int  # index in the document
    word_ids: np.ndarray  # int32 [W], <s> pieces </s>
    token_spans: np.ndarray  # int32 [C, 2], half-open in word_ids
    word_spans: np.ndarray  # int32 [C, 2], half-open in the document's words
    labels: np.ndarray  # int32 [C], 0 = NIL


def takes_space(word: str) -> bool:
    """False for the words that natural text glues to the left: `'s`, `'t`, and single punctuation marks."""
    return not (word.startswith("'") or (len(word) == 1 and is_punctuation(word)))


def _pieces(documents: Sequence[Document], tokenizer, options: Options) -> dict[str, list[int]]:
    """Word -> piece ids, at least one and at most those of an input; each word is tokenized by itself, and once."""
    words = list(dict.fromkeys(word for document in documents for word in document.words))
    spaces = [options.space_before_all or takes_space(word) for word in words]
    # differs from LUKE: a word without pieces (say, only U+200B) would be an empty candidate, and one that is longer
    # than the input could not be cut at a word boundary.
    return {
        word: ids[: options.max_seq_length - SPECIAL] or [tokenizer.unk_id]
        for word, ids in zip(words, tokenizer.encode_pieces(words, spaces))
    }


def _part_bounds(sentences: list[int], offsets: np.ndarray, limit: int) -> np.ndarray:
    """Sentence boundaries, with more where a sentence has more than `limit` pieces; offsets: pieces before each word.

    differs from LUKE: there, such a sentence is an assertion error. Mentions across the cut cannot be found.
    """
    bounds = [0]
    for end in sentences[1:]:
        while offsets[end] - offsets[bounds[-1]] > limit:
            bounds.append(int(np.searchsorted(offsets, offsets[bounds[-1]] + limit, side="right")) - 1)
        bounds.append(end)
    return np.array(bounds)


def _candidates(
    offsets: np.ndarray, bounds: np.ndarray, gold: list[Span], label_ids: dict[str, int], max_mention: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All candidates of a document, by start, then end: word spans [C, 2], labels [C], and where each word's begin."""
    n_words = len(offsets) - 1
    last = np.searchsorted(offsets, offsets[:-1] + max_mention, side="right") - 1
    last = np.minimum(last, np.repeat(bounds[1:], np.diff(bounds)))  # word i starts those that end at i + 1 ... last[i]
    counts = last - np.arange(n_words)  # 0 where the word alone is too long
    first = np.concatenate([[0], np.cumsum(counts)])
    starts = np.repeat(np.arange(n_words), counts)
    ends = starts + 1 + np.arange(first[-1]) - first[starts]
    labels = np.zeros(first[-1], dtype=np.int32)
    for start, end, kind in gold:
        if end <= last[start]:
            labels[first[start] + end - start - 1] = label_ids.get(kind, 0)
    return np.stack([starts, ends], axis=1).astype(np.int32), labels, first


def _words(n: int, gold: list[Span]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for a head that tags words: each of the n words; its label is 1 where a mention begins."""
    labels = np.zeros(n, dtype=np.int32)
    labels[[start for start, _, _ in gold]] = 1
    return np.stack([np.arange(n), np.arange(n) + 1], axis=1).astype(np.int32), labels, np.arange(n + 1)


def _document_features(
    index: int, document: Document, pieces: dict, label_ids: dict[str, int], tokenizer, options: Options
) -> Iterator[Feature]:
    offsets = np.cumsum([0, *(len(pieces[word]) for word in document.words)])  # pieces before each word
    ids = np.array([piece for word in document.words for piece in pieces[word]], dtype=np.int32)
    bounds = _part_bounds(document.sentences, offsets, options.max_seq_length - SPECIAL)
    if options.head == TAGS:
        word_spans, labels, first = _words(len(document.words), document.spans)
    else:
        word_spans, labels, first = _candidates(offsets, bounds, document.spans, label_ids, options.max_mention)
    token_spans = offsets[word_spans]
    starts, ends = offsets[bounds[:-1]], offsets[bounds[1:]]
    left, right = context_window(ends - starts, starts, offsets[-1] - ends, options.max_seq_length - SPECIAL)
    sentence_of_part = np.searchsorted(document.sentences, bounds[:-1], side="right") - 1
    for part, sentence in enumerate(sentence_of_part.tolist()):
        window = slice(starts[part] - left[part], ends[part] + right[part])
        word_ids = np.concatenate([[tokenizer.bos_id], ids[window], [tokenizer.eos_id]], dtype=np.int32)
        begin, end = first[bounds[part : part + 2]].tolist()
        n_inputs = max(1, -(-(end - begin) // options.max_candidates))
        size = max(1, -(-(end - begin) // n_inputs))
        for i in range(begin, end, size):
            chosen = slice(i, min(i + size, end))
            spans = (token_spans[chosen] - window.start + 1).astype(np.int32)  # + 1 for <s>
            yield Feature(index, sentence, word_ids, spans, word_spans[chosen], labels[chosen])


def make_features(
    documents: Sequence[Document], tokenizer, entity_vocab, labels: Sequence[str], options: Options = Options()
) -> list[Feature]:
    """Model inputs in the order of the documents; a sentence without a candidate has none. entity_vocab: not needed.

    A gold mention that is no candidate (too long, cut in a too long sentence, or of a type that is not in `labels`)
    is in no feature's labels: see `unreachable_gold`.
    """
    label_ids = {label: i for i, label in enumerate(labels)}
    pieces = _pieces(documents, tokenizer, options)
    return [
        feature
        for index, document in enumerate(documents)
        for feature in _document_features(index, document, pieces, label_ids, tokenizer, options)
    ]


def skipped(documents: Sequence[Document], features: Sequence[Feature]) -> dict[str, int]:
    return {"mentions too long, or of an unknown type": unreachable_gold(documents, features)}


def unreachable_gold(documents: Sequence[Document], features: Sequence[Feature]) -> int:
    """Gold mentions that no prediction from these features can find; they count against recall all the same."""
    return sum(len(d.spans) for d in documents) - sum(int(np.count_nonzero(f.labels)) for f in features)


# --- Batches and model ------------------------------------------------------------------------------------------------


def collate(features: Sequence[Feature], mask_entity_id: int, pad_word_id: int, head: str = "token+entity") -> Batch:
    """Each candidate becomes a [MASK] entity at the positions of its pieces; heads on words alone have no entities.

    The classifier sees the first piece, the last piece and the entity of each candidate, or what `head` has of these.
    """
    n_candidates = [len(feature.labels) for feature in features]
    n_entities = [n * ("entity" in head) for n in n_candidates]
    sequences = [packing.Sequence(f.word_ids, np.full(n, mask_entity_id), f.token_spans[:n])
                 for f, n in zip(features, n_entities)]  # fmt: skip
    packed = packing.pack(sequences, pad_word_id)
    spans = np.concatenate([feature.token_spans for feature in features]).astype(np.int64)
    first_row = np.repeat(packed.cu_words[:-1].numpy(), n_candidates)  # of the candidate's sequence
    words = tuple(torch.from_numpy(first_row + column) for column in (spans[:, 0], spans[:, 1] - 1))
    entities = (torch.arange(packed.n_entities) + packed.n_words,)
    rows = {"token+entity": words + entities, "entity": entities, "token": words, TAGS: words[:1]}[head]
    labels = torch.from_numpy(np.concatenate([feature.labels for feature in features]).astype(np.int64))
    return Batch(packed, tuple(n_candidates), rows, labels)


def build_model(config: ModelConfig, entity_vocab, labels: Sequence[str], options: Options = Options()) -> TaskModel:
    """The model, its weights still to be loaded (paper, section 4.3). labels: class names, NIL first."""
    luke = LukeModel(config, with_pooler=options.head != TAGS)
    make_batch = partial(
        collate, mask_entity_id=entity_vocab.mask_id, pad_word_id=config.pad_token_id, head=options.head
    )
    model = TaskModel(luke, labels, options.head, HEAD_INPUTS.get(options.head, 1), make_batch)
    model.architecture = ARCHITECTURE[options.head == TAGS]
    optim.freeze_idle(model.luke, entities="entity" in options.head)
    return model


# --- Prediction and scores --------------------------------------------------------------------------------------------


class Mention(NamedTuple):
    start: int  # half-open, in words of the document
    end: int
    type: str
    probability: float  # softmax over the labels


def greedy_decode(spans: np.ndarray, logits: np.ndarray, n_words: int) -> list[int]:
    """Indices of the candidates that become mentions: the best logit first, if none of its words is taken yet.

    spans [C, 2] in words, logits [C, labels] with label 0 = NIL. Equal scores keep the order of the candidates.
    """
    scores, label = logits.max(axis=1), logits.argmax(axis=1)
    order = np.flatnonzero(label)
    order = order[np.argsort(-scores[order], kind="stable")]
    taken = bytearray(n_words)
    accepted = []
    for candidate, (start, end) in zip(order.tolist(), spans[order].tolist()):
        if taken.find(1, start, end) < 0:
            taken[start:end] = b"\1" * (end - start)
            accepted.append(candidate)
    return accepted


def predict(
    model: TaskModel, features: Sequence[Feature], documents: Sequence[Document], batch_size: int = 32
) -> list[list[Mention]]:
    """Mentions of each document, in text order; features: what `make_features` made of these documents."""
    of_document: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in documents]
    sizes = [len(feature.word_ids) + len(feature.labels) for feature in features]
    for feature, logits in zip(features, trainer.predict_logits(model, features, sizes, batch_size)):
        of_document[feature.document].append((feature.word_spans, logits.numpy()))
    predictions = []
    for document, parts in zip(documents, of_document):
        # One pass for all sentences of a document: candidates of different sentences have no word in common.
        spans = np.concatenate([np.empty((0, 2), dtype=np.int32), *(spans for spans, _ in parts)])
        logits = np.concatenate([np.empty((0, len(model.labels))), *(rows for _, rows in parts)])
        probability = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)  # of the best label
        names = [model.labels[label] for label in logits.argmax(axis=1)]
        if model.head == TAGS:
            predictions.append(_tagged(document, spans[:, 0], names, probability))
            continue
        accepted = greedy_decode(spans, logits, len(document.words))
        mentions = (Mention(*spans[k].tolist(), names[k], probability[k].item()) for k in accepted)
        predictions.append(sorted(mentions))
    return predictions


def _tagged(document: Document, words: np.ndarray, tags: list[str], probability: np.ndarray) -> list[Mention]:
    """The mentions that the tags of words spell, sentence by sentence, each as likely as its least likely tag."""
    found = []
    for begin, end in zip(document.sentences, document.sentences[1:]):
        first, last = np.searchsorted(words, [begin, end])
        for start, stop, kind in chunks(tags[first:last]):
            found.append(Mention(begin + start, begin + stop, kind, probability[first:last][start:stop].min().item()))
    return found


def evaluate(
    documents: Sequence[Document], predictions: Sequence[Sequence[Mention]], features: Sequence[Feature]
) -> dict[str, float | int]:
    """`metrics.span_scores` (precision, recall, f1, ..., each type's as well), and how much gold is `unreachable`."""
    gold = [document.spans for document in documents]
    scores = span_scores(gold, [[mention[:3] for mention in mentions] for mentions in predictions])
    return scores | {"unreachable": unreachable_gold(documents, features)}


def write_predictions(folder: Path, name: str, documents: Sequence[Document], predictions: Sequence) -> None:
    """`word gold predicted` lines in <name>_predictions.txt, for conlleval."""
    conll.write_predictions(Path(folder) / f"{name}_predictions.txt", documents, predictions)


def predict_lines(
    model: TaskModel, lines: Sequence[str], tokenizer, entity_vocab, options: Options = Options()
) -> Iterator[dict]:
    """For each line of raw text, a document of its own and of any length: its mentions, in characters of the line."""
    documents, char_spans = zip(*(raw_document(line, options.language) for line in lines)) if lines else ((), ())
    features = make_features(documents, tokenizer, entity_vocab, model.labels, options)
    for line, words, mentions in zip(lines, char_spans, predict(model, features, documents)):
        found = []
        for mention in mentions:
            start, end = words[mention.start][0], words[mention.end - 1][1]
            probability = round(mention.probability, 4)
            found.append({"text": line[start:end], "type": mention.type, "start": start, "end": end,
                          "probability": probability})  # fmt: skip
        yield {"text": line, "mentions": found}

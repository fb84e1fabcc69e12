"""Named entity recognition: every span of a sentence is a candidate, and the model names its type or NIL.

NIL means: no mention. CoNLL-2003 in the LUKE paper (Yamada et al. 2020, section 4.3); also CoNLL-2002, your own types
and raw text:

    records         CoNLL file (`formats.conll`) or our own JSON lines -> one record per document
    from_record     -> its words, sentences and mentions
    make_features   -> one input per sentence: its tokens, as much of the document on both sides as fits, and every
                    span of at most 16 tokens as a candidate, which becomes one [MASK] entity
    build_model     encoder, dropout, one linear layer over [word at start; word at end; entity] of each candidate
    predict         logits -> mentions that do not overlap, best score first
    evaluate        -> precision, recall, F1 as conlleval counts them
The interface of a task module: see `finetuning.py`.

Spans are half-open, in words of the document unless said otherwise. Left out: nested mentions, which greedy decoding
excludes. Gold mentions too long to be a candidate count as missed; the original drops them before it scores.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from luke_mini import files, formats, optim, packing, tasks, trainer
from luke_mini.checkpoint import Checkpoint
from luke_mini.config import ModelConfig
from luke_mini.files import Record
from luke_mini.heads import Batch, TaskModel
from luke_mini.metrics import Span, chunks, span_scores, to_tags
from luke_mini.model import LukeModel
from luke_mini.spans import context_window, is_punctuation, split_text
from luke_mini.tasks import CONLL, SPECIAL
from luke_mini.tokenizer_sentencepiece import SentencePieceTokenizer, UnigramTokenizer

NAME, TITLE, _, FILES, FORMAT, Options, ALL_ENTITIES, _, TRAINS = tasks.NER
SCORES = ("precision", "recall", "f1")
ARCHITECTURE = ("LukeForEntitySpanClassification", "LukeForTokenClassification")
CONLL_LABELS = ("NIL", "MISC", "PER", "ORG", "LOC")  # the order of the released checkpoints
HEAD_INPUTS = {"token+entity": 3, "entity": 1, "token": 2}  # hidden states per candidate
TAGS = "tags"  # the head of a LukeForTokenClassification: a tag per word; only for --evaluate and --predict


# --- Reading --------------------------------------------------------------------------------------------------------


class Document(NamedTuple):
    """A text with its words; sentence i consists of words[sentences[i]:sentences[i + 1]]."""

    text: str
    char_spans: list[tuple[int, int]]  # of the words, half-open
    sentences: list[int]  # [0, end of sentence 0, end of sentence 1, ...]
    spans: list[Span]  # gold mentions, in text order, none across a sentence boundary
    scheme: str  # as found in the file: IOB1, IOB2 or IOBES
    encoding: str  # as found in the file

    @property
    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.char_spans]


def records(path: str | Path, options: Options = Options()) -> Iterable[Record]:
    """The documents of a CoNLL file or of JSON lines."""
    if files.is_json(path):
        return files.read_records(path)
    # as LUKE: a published file without document marks (Spanish) is one document
    published = options.context == "auto" and Path(path).name.split(".")[0] in CONLL
    return formats.conll(path, options.scheme, "document" if published else options.context)


def unmark(line: str, where: str) -> Record:
    return Record(where, {"text": line})


def from_record(record: Record, options: Options = Options(), labels: Sequence[str] | None = None) -> list[Document]:
    """The record's document, or its sentences. With labels (the model's) it is a line of --predict: without mentions.

    Words are also split at the ends of mentions; a mention across a sentence boundary joins the two sentences.
    """
    text, items = record.get("text", str), record.list("spans") if labels is None else []
    mentions = sorted((*item.span(text), item.get("label", str), item.where) for item in items)
    for (_, end, *_), (start, *_) in pairwise(mentions):
        if start < end:
            raise ValueError(f"{record.where}: field 'spans': two spans share character {start}")
    borders = {border for start, end, *_ in mentions for border in (start, end)}
    words, ends = split_text(text, options.language, record.get("is_split", bool, False), borders)
    first = {start: i for i, (start, _) in enumerate(words)}
    last = {end: i for i, (_, end) in enumerate(words, start=1)}
    spans = []
    for start, end, kind, where in mentions:
        if start not in first or end not in last:
            raise ValueError(f"{where}: {text[start:end]!r} begins or ends with white space")
        spans.append((first[start], last[end], kind))
    inside = {word for start, end, _ in spans for word in range(start + 1, end)}
    sentences = [0, *(last[end] for end in ends if last[end] not in inside)]
    scheme, encoding = record.get("scheme", str, "IOB2"), record.get("encoding", str, "utf-8")
    document = Document(text, words, sentences, spans, scheme, encoding)
    if options.context != "sentence" or len(sentences) <= 2:
        return [document]
    return [_part(document, *ends) for ends in pairwise(sentences)]


def _part(document: Document, begin: int, end: int) -> Document:
    """Words [begin, end) of a document, which are whole sentences."""
    spans = [(first - begin, last - begin, kind) for first, last, kind in document.spans if begin <= first < end]
    sentences = [border - begin for border in document.sentences if begin <= border <= end]
    return document._replace(char_spans=document.char_spans[begin:end], sentences=sentences, spans=spans)


def count(documents: Sequence[Document]) -> int:
    return sum(len(document.sentences) - 1 for document in documents)


def first(documents: Sequence[Document], n: int) -> list[Document]:
    """The first n sentences."""
    kept = []
    for document in documents:
        if n <= 0:
            break
        kept.append(_part(document, 0, document.sentences[: n + 1][-1]))
        n -= len(document.sentences) - 1
    return kept


def describe(documents: Sequence[Document]) -> str:
    """A summary of a file, for the log."""
    mentions, n_sentences = sum(len(document.spans) for document in documents), count(documents)
    alone = "each alone" if n_sentences == len(documents) else f"in {len(documents)} documents"
    return f"{alone}, {mentions} mentions, {documents[0].scheme}, {documents[0].encoding}"


def label_list(documents: Sequence[Document]) -> tuple[str, ...]:
    """Class names of the training documents, index = class: NIL first, CoNLL's types in the checkpoints' order."""
    types = {kind for document in documents for _, _, kind in document.spans}
    if not types:
        raise ValueError("no mention is tagged in the training data: there is no type to learn")
    return CONLL_LABELS if types == set(CONLL_LABELS[1:]) else ("NIL", *sorted(types))


def settled(options: Options, documents: Sequence[Document]) -> Options:
    """A model that was trained on single sentences is asked for single sentences, too."""
    alone = options.context == "auto" and 1 < count(documents) == len(documents)
    return replace(options, context="sentence") if alone else options


def recipe_name(files: dict[str, Path], examples: dict[str, list[Document]], start: Checkpoint) -> str:
    """mLUKE's recipe for data sets not in English and for released multilingual models, otherwise LUKE's."""
    foreign = any(path.name.split(".")[0] in CONLL[1:] for path in files.values())
    return "conll-multilingual" if foreign or "space_before_all" in released_options(start) else "conll2003"


def released_options(start: Checkpoint) -> dict[str, object]:
    """Options of a released model: mLUKE, recognized by its tokenizer, puts a space before every word."""
    if "luke_mini" in start.settings:
        return {}
    is_mluke = isinstance(start.tokenizer, (SentencePieceTokenizer, UnigramTokenizer))
    tags_words = start.settings.get("architectures") == [ARCHITECTURE[1]]
    return ({"space_before_all": True} if is_mluke else {}) | ({"head": TAGS} if tags_words else {})


# --- Features -------------------------------------------------------------------------------------------------------


class Feature(NamedTuple):
    """One model input with its C candidates."""

    document: int  # index in the list of documents
    word_ids: np.ndarray  # int32 [W], <s> tokens </s>
    token_spans: np.ndarray  # int32 [C, 2], half-open in word_ids
    word_spans: np.ndarray  # int32 [C, 2], half-open in the document's words
    labels: np.ndarray  # int32 [C], 0 = NIL


def takes_space(word: str) -> bool:
    """False for words that attach to the one before: `'s`, `'t`, and single punctuation marks."""
    return not (word.startswith("'") or (len(word) == 1 and is_punctuation(word)))


def _word_tokens(documents: Sequence[Document], tokenizer, options: Options) -> dict[str, list[int]]:
    """Word -> its token ids: at least one, at most as many as an input holds. Each distinct word is tokenized once."""
    words = list(dict.fromkeys(word for document in documents for word in document.words))
    spaces = [options.space_before_all or takes_space(word) for word in words]
    # differs from LUKE: a word without tokens (say, only U+200B) would be an empty candidate, and one that is longer
    # than the input could not be cut at a word boundary.
    return {
        word: ids[: options.max_seq_length - SPECIAL] or [tokenizer.unk_id]
        for word, ids in zip(words, tokenizer.encode_pieces(words, spaces))
    }


def _part_bounds(sentences: list[int], offsets: np.ndarray, limit: int) -> np.ndarray:
    """Sentence boundaries, with more where a sentence has more than `limit` tokens; offsets: tokens before each word.

    With sentences [0, 4], two tokens a word and limit 5: [0, 2, 4].
    differs from LUKE, where such a sentence fails an assertion. Mentions across the cut cannot be found.
    """
    bounds = [0]
    for end in sentences[1:]:
        while offsets[end] - offsets[bounds[-1]] > limit:
            bounds.append(int(np.searchsorted(offsets, offsets[bounds[-1]] + limit, side="right")) - 1)
        bounds.append(end)
    return np.array(bounds)


def _candidates(last: np.ndarray, gold: dict[tuple[int, int], int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All candidates of a document, by start, then end: word spans [C, 2], labels [C], each word's first index.

    last [words]: candidates that start at word i end at i + 1, ..., last[i]; none if the word alone is too long.

        last         2        3        3         Ada visited Oslo
        starts       0  0     1  1     2         gold {(0, 1): 2, (2, 3): 4}
        ends         1  2     2  3     3
        labels       2  0     0  0     4
        first        0        2        4  5      of each word among the candidates, and their number
    """
    counts = last - np.arange(len(last))
    first = np.concatenate([[0], np.cumsum(counts)])
    starts = np.repeat(np.arange(len(last)), counts)
    ends = starts + 1 + np.arange(first[-1]) - first[starts]
    labels = np.zeros(first[-1], dtype=np.int32)
    for (start, end), label in gold.items():
        if end <= last[start]:
            labels[first[start] + end - start - 1] = label
    return np.stack([starts, ends], axis=1).astype(np.int32), labels, first


def _document_features(
    index: int, document: Document, tokens: dict, label_ids: dict[str, int], tokenizer, options: Options
) -> Iterator[Feature]:
    """The inputs of one document. Its arrays for "Ada visited Oslo", of 1, 2 and 1 tokens, and max_mention 3:

        offsets        0    1    3    4               tokens before each word, and in all
        last           2    3    3                    as _candidates takes it
        word_spans     0:1  0:2  1:2  1:3  2:3
        token_spans    0:1  0:3  1:3  1:4  3:4        in a Feature 1 more, for `<s>`
    """
    of_words = [tokens[word] for word in document.words]
    offsets = np.cumsum([0, *map(len, of_words)])  # tokens before each word
    ids = np.array([*chain.from_iterable(of_words)], dtype=np.int32)
    limit = options.max_seq_length - SPECIAL
    bounds = _part_bounds(document.sentences, offsets, limit)
    if options.head == TAGS:  # each word is a candidate, of label 1 where a mention begins
        last, gold = np.arange(len(of_words)) + 1, {(start, start + 1): 1 for start, _, _ in document.spans}
    else:
        last = np.searchsorted(offsets, offsets[:-1] + options.max_mention, side="right") - 1
        last = np.minimum(last, np.repeat(bounds[1:], np.diff(bounds)))
        gold = {(start, end): label_ids.get(kind, 0) for start, end, kind in document.spans}
    word_spans, labels, first = _candidates(last, gold)
    token_spans = offsets[word_spans]
    starts, ends = offsets[bounds[:-1]], offsets[bounds[1:]]
    left, right = context_window(ends - starts, starts, offsets[-1] - ends, limit)
    for part in range(len(starts)):
        window = slice(starts[part] - left[part], ends[part] + right[part])
        word_ids = np.concatenate([[tokenizer.bos_id], ids[window], [tokenizer.eos_id]], dtype=np.int32)
        begin, end = first[bounds[part : part + 2]].tolist()
        n_inputs = max(1, -(-(end - begin) // options.max_candidates))
        size = max(1, -(-(end - begin) // n_inputs))
        for i in range(begin, end, size):
            chosen = slice(i, min(i + size, end))
            spans = (token_spans[chosen] - window.start + 1).astype(np.int32)  # + 1 for <s>
            yield Feature(index, word_ids, spans, word_spans[chosen], labels[chosen])


def make_features(
    documents: Sequence[Document], tokenizer, entity_vocab, labels: Sequence[str], options: Options = Options()
) -> list[Feature]:
    """Model inputs in the order of the documents; a sentence without a candidate has none. entity_vocab: not needed.

    A gold mention that cannot be a candidate (too long, cut with a long sentence, or of a type not in `labels`) gets no
    label: see `skipped`.
    """
    label_ids = {label: i for i, label in enumerate(labels)}
    tokens = _word_tokens(documents, tokenizer, options)
    return [
        feature
        for index, document in enumerate(documents)
        for feature in _document_features(index, document, tokens, label_ids, tokenizer, options)
    ]


def skipped(documents: Sequence[Document], features: Sequence[Feature]) -> dict[str, int]:
    """Gold mentions that no prediction from these features can find; they still lower recall."""
    gold, reachable = sum(len(d.spans) for d in documents), sum(int(np.count_nonzero(f.labels)) for f in features)
    return {"mentions too long, or of an unknown type": gold - reachable}


# --- Batches and model ------------------------------------------------------------------------------------------------


def collate(features: Sequence[Feature], mask_entity_id: int, pad_word_id: int, head: str = "token+entity") -> Batch:
    """Each candidate becomes a [MASK] entity at the positions of its tokens, unless the head uses words only.

    The classifier sees the candidate's first token, last token and entity, or those of them that `head` names.
    """
    n_candidates = [len(feature.labels) for feature in features]
    sequences = [
        packing.Sequence(f.word_ids, np.full(n, mask_entity_id), f.token_spans[:n])
        for f, n in zip(features, n_candidates if "entity" in head else [0] * len(features))
    ]
    packed = packing.pack(sequences, pad_word_id)
    spans = np.concatenate([feature.token_spans for feature in features]).astype(np.int64)
    first_row = np.repeat(packed.cu_words[:-1].numpy(), n_candidates)  # of the candidate's sequence
    words = tuple(torch.from_numpy(first_row + column) for column in (spans[:, 0], spans[:, 1] - 1))
    entities = (torch.arange(packed.n_entities) + packed.n_words,)
    rows = {"token+entity": words + entities, "entity": entities, "token": words, TAGS: words[:1]}[head]
    labels = torch.from_numpy(np.concatenate([feature.labels for feature in features]).astype(np.int64))
    return Batch(packed, tuple(n_candidates), rows, labels)


def build_model(config: ModelConfig, entity_vocab, labels: Sequence[str], options: Options = Options()) -> TaskModel:
    """The model without its weights (paper, section 4.3). labels: class names, NIL first."""
    luke = LukeModel(config, with_pooler=options.head != TAGS)
    make_batch = partial(
        collate, mask_entity_id=entity_vocab.mask_id, pad_word_id=config.pad_token_id, head=options.head
    )
    model = TaskModel(luke, labels, options.head, HEAD_INPUTS.get(options.head, 1), make_batch)
    model.architecture = ARCHITECTURE[options.head == TAGS]
    optim.freeze_idle(model.luke, entities="entity" in options.head)
    return model


# --- Prediction and scores --------------------------------------------------------------------------------------------

Mention = tuple[int, int, str, float]  # start, end (half-open, in words of the document), type, probability


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
    parts = [[(np.empty((0, 2), dtype=np.int32), np.empty((0, len(model.labels))))] for _ in documents]
    sizes = [len(feature.word_ids) + len(feature.labels) for feature in features]
    for feature, logits in zip(features, trainer.predict_logits(model, features, sizes, batch_size)):
        parts[feature.document].append((feature.word_spans, logits.numpy()))
    # One pass for all sentences of a document: candidates of different sentences have no word in common.
    return [_mentions(model, document, *map(np.concatenate, zip(*found))) for document, found in zip(documents, parts)]


def _mentions(model: TaskModel, document: Document, spans: np.ndarray, logits: np.ndarray) -> list[Mention]:
    """The mentions of a document, from all of its candidates [C, 2] and their logits [C, labels].

    Its probability is the softmax's; with a head on tags, that of the mention's least likely tag.
    """
    probability = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)  # of the best label
    names = [model.labels[label] for label in logits.argmax(axis=1)]
    if model.head != TAGS:
        accepted = greedy_decode(spans, logits, len(document.char_spans))
        return sorted((*spans[k].tolist(), names[k], probability[k].item()) for k in accepted)
    mentions = []
    for begin, end in pairwise(document.sentences):
        for first, last, kind in chunks(names[begin:end]):
            least = probability[begin + first : begin + last].min().item()
            mentions.append((begin + first, begin + last, kind, least))
    return mentions


def evaluate(
    documents: Sequence[Document], predictions: Sequence[Sequence[Mention]], features: Sequence[Feature]
) -> dict[str, float | int]:
    """`metrics.span_scores` (precision, recall, f1, ..., also per type), and `unreachable`, the sum of `skipped`."""
    gold = [document.spans for document in documents]
    scores = span_scores(gold, [[mention[:3] for mention in mentions] for mentions in predictions])
    return scores | {"unreachable": sum(skipped(documents, features).values())}


def prediction_files(documents: Sequence[Document], predictions: Sequence[Sequence[Mention]]) -> dict[str, str]:
    """Lines `word gold predicted` and a blank line after each sentence, as conlleval reads them.

    Both tags are in the scheme of the file that was read; IOBES, which conlleval does not know, becomes IOB2. A type's
    spaces become _.
    """
    lines = []
    for document, mentions in zip(documents, predictions, strict=True):
        scheme, borders = "IOB1" if document.scheme == "IOB1" else "IOB2", set(document.sentences)
        gold, predicted = (
            to_tags(len(document.char_spans), spans, scheme, borders)
            for spans in (_without_spaces(document.spans), _without_spaces(mentions))
        )
        for end, row in enumerate(zip(document.words, gold, predicted), start=1):
            lines.append(" ".join(row) + "\n" + "\n" * (end in borders))
    return {"predictions.txt": "".join(lines)}


def _without_spaces(mentions: Iterable[tuple]) -> list[Span]:
    return [(start, end, "_".join(kind.split())) for start, end, kind, *_ in mentions]


def answer(documents: Sequence[Document], predictions: Sequence[Sequence[Mention]]) -> dict:
    """What --predict prints for a text, which is in one part or in sentences: its mentions, in characters."""
    text, found = documents[0].text, []
    for document, mentions in zip(documents, predictions):
        for begin, last, kind, probability in mentions:
            start, end = document.char_spans[begin][0], document.char_spans[last - 1][1]
            found.append({"text": text[start:end], "type": kind, "start": start, "end": end,
                          "probability": round(probability, 4)})  # fmt: skip
    return {"text": text, "mentions": found}

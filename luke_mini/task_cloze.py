"""Cloze questions: which of the names in a passage was cut out of a sentence? ReCoRD (LUKE paper, section 4.4).

    from_record     a record of ReCoRD, SuperGLUE or your own -> a question
    make_features   -> windows over the passage: <s> query </s></s> window </s>, with a [MASK] entity for the query's
                    placeholder and one for each mention in the window, its candidates
    build_model     encoder, dropout, one linear layer over [placeholder; candidate] -> the candidate's score
    predict         the text of the best mention of all windows
    evaluate        -> exact match and F1 as ReCoRD's scorer counts them
What every task module offers: `finetuning.py`.

Three word pieces are added behind the tokenizer's own: [HIGHLIGHT] for "@highlight" (the bullet points under a news
text), [PLACEHOLDER] for "@placeholder", [ENTITY] around every mention. `prepare` gives them rows of the word table,
which start from those of "@", "#" and "*"; so the saved model has three words more than its tokenizer, and opens as any
other.

Mentions do not overlap, and each is a candidate of its own, also if several have the same text. Left out: pooling over
such mentions.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from luke_mini import files, formats, optim, packing, tasks, trainer
from luke_mini.checkpoint import Checkpoint
from luke_mini.config import ModelConfig
from luke_mini.heads import Batch, TaskModel
from luke_mini.inputs import CharSpan
from luke_mini.metrics import answer_scores
from luke_mini.model import LukeModel
from luke_mini.spans import sliding_windows
from luke_mini.files import Record

NAME, TITLE, _, FILES, FORMAT, Options, ALL_ENTITIES, _, TRAINS = tasks.CLOZE
SCORES = ("f1", "em")
ARCHITECTURE = "LukeModel"  # what transformers has of it: the encoder
PLACEHOLDER, HIGHLIGHT = "@placeholder", "@highlight"
SIGNS = "@#*"  # the start of [HIGHLIGHT], [PLACEHOLDER], [ENTITY], in the order of their ids


# --- Reading ----------------------------------------------------------------------------------------------------------

unmark = files.parse_record


class Question(NamedTuple):
    id: str
    text: str  # the passage; lines are joined by spaces
    mentions: tuple[CharSpan, ...]  # in text order, none overlaps another
    query: str
    answers: tuple[str, ...]
    gold: frozenset[int]  # the mentions that are right


def records(path: str | Path, options: Options = Options()) -> Iterator[Record]:
    return formats.cloze(path)


def from_record(record: Record, options: Options = Options(), labels: Sequence[str] | None = None) -> list[Question]:
    """Lines of the text are joined. Mentions become ordered; one that is listed twice is one."""
    text = record.get("text", str)
    query = _one_line(record.get("query", str))
    if query.count(PLACEHOLDER) != 1:
        found = query.count(PLACEHOLDER)
        raise ValueError(f"{record.where}: field 'query' has {PLACEHOLDER!r} {found} times, expected once")
    mentions = formats.sorted_spans(record.list("spans"), text)
    answers = tuple(dict.fromkeys(record.texts("answers"))) if labels is None else ()
    if labels is None and not answers:
        raise ValueError(f"{record.where}: field 'answers' is empty, expected at least one answer")
    right = {span for span in mentions if text[slice(*span)] in answers}
    if "gold" in record.values:
        right = {item.span(text): item.where for item in record.list("gold")}
        if wrong := [where for span, where in right.items() if span not in mentions]:
            raise ValueError(f"{wrong[0]}: expected one of the mentions in field 'spans'")
    gold = frozenset(k for k, span in enumerate(mentions) if span in right)
    return [Question(record.id(record.where), _one_line(text), mentions, query, answers, gold)]


def _one_line(text: str) -> str:
    return text.replace("\n", " ")


def describe(questions: Sequence[Question]) -> str:
    mentions = sum(len(question.mentions) for question in questions)
    return f"{mentions / len(questions):.1f} mentions a question, {len({q.text for q in questions})} passages"


# --- The three markers ------------------------------------------------------------------------------------------------


def marker_ids(tokenizer) -> tuple[int, int, int]:
    """[HIGHLIGHT], [PLACEHOLDER], [ENTITY]: behind the tokenizer's own pieces."""
    first = len(tokenizer)
    return first, first + 1, first + 2


def prepare(start: Checkpoint) -> Checkpoint:
    """The checkpoint with rows for the three markers in its word table; one that was fine-tuned here has them."""
    if start.settings.get("luke_mini", {}).get("task") == NAME:
        return start
    name, first = "luke.words.token.weight", len(start.tokenizer)
    table = start.weights[name]
    sources = [start.tokenizer.encode(sign, prefix_space=False).ids[-1] for sign in SIGNS]
    table = torch.cat([table[:first], table[sources], table[first + len(SIGNS) :]])
    return replace(start, config=replace(start.config, vocab_size=len(table)), weights=start.weights | {name: table})


# --- Features ---------------------------------------------------------------------------------------------------------


class Feature(NamedTuple):
    """One window of a question's passage with C candidates."""

    example: int  # index in the list of questions
    sequence: packing.Sequence  # entity 0 is the placeholder, then the candidates
    mentions: np.ndarray  # int64 [C], indices in the question's mentions
    labels: np.ndarray  # float32 [C], 1 = right
    is_cut: bool  # the query was longer than max_query_length


def _stretch(text: str, start: int, end: int, highlight: int) -> Iterator[int | tuple[str, bool]]:
    """text[start:end] as stretches to tokenize, with whether a space is in front, and ids of [HIGHLIGHT]."""
    at = start
    for part in re.split(f"({HIGHLIGHT})", text[start:end]):
        # differs from LUKE: there, a stretch without a space in front is tokenized with its "@highlight", then again
        if part == HIGHLIGHT:
            yield highlight
        elif part.strip():
            yield part.rstrip(), at == 0 or part[0] == " " or text[at - 1] == " "
        at += len(part)


def _tokenize(tokenizer, items: Sequence[int | tuple[str, bool]]) -> list[list[int]]:
    """The ids of each item: a marker, or a stretch of text."""
    stretches = [item for item in items if not isinstance(item, int)]
    texts, spaces = map(list, zip(*stretches)) if stretches else ([], [])
    pieces = iter(tokenizer.encode_pieces(texts, spaces))
    return [[item] if isinstance(item, int) else next(pieces) for item in items]


def passage_tokens(tokenizer, text: str, mentions: Sequence[CharSpan]) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 [n] of a passage with its markers; the half-open span of each mention with its two [mentions, 2]."""
    highlight, _, entity = marker_ids(tokenizer)
    items, first, last, done = [], [], [], 0
    for start, end in mentions:
        items += [*_stretch(text, done, start, highlight), entity]
        first.append(len(items) - 1)
        items += [*_stretch(text, start, end, highlight), entity]
        last.append(len(items))
        done = end
    items += _stretch(text, done, len(text), highlight)
    ids = _tokenize(tokenizer, items)
    before = np.cumsum([0, *map(len, ids)])  # tokens before each item
    joined = np.array([token for part in ids for token in part], np.int64)
    return joined, np.stack([before[first], before[last]], axis=1) if mentions else np.zeros((0, 2), np.int64)


def query_tokens(tokenizer, query: str, limit: int) -> tuple[list[int], int, bool]:
    """Ids of a query, where [PLACEHOLDER] is in them, and whether the query had to be cut."""
    left, right = query.split(PLACEHOLDER)
    sides = [(left.rstrip(), True), (right.rstrip(), right.startswith(" "))]
    before, after = _tokenize(tokenizer, sides)
    ids, place = [*before, marker_ids(tokenizer)[1], *after], len(before)
    # differs from LUKE: there, the first `limit` are taken, and the placeholder may be lost
    start = 0 if place < limit else min(place - limit // 2, len(ids) - limit)
    return ids[start : start + limit], place - start, len(ids) > limit


def make_features(
    questions: Sequence[Question], tokenizer, entity_vocab, labels: Sequence[str] = (), options: Options = Options()
) -> list[Feature]:
    """The windows of all questions in their order; a window that no mention is wholly inside is left out."""
    passages: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
    features = []
    for index, question in enumerate(questions):
        key = (question.text, question.mentions)
        if key not in passages:
            passages[key] = passage_tokens(tokenizer, *key)
        query, place, is_cut = query_tokens(tokenizer, question.query, options.max_query_length)
        ids, spans = passages[key]
        for start, length in sliding_windows(len(ids), options.max_seq_length - len(query) - 4, options.doc_stride):
            end = start + length
            chosen = np.flatnonzero((start <= spans[:, 0]) & (spans[:, 1] <= end))
            if len(chosen):
                word_ids = np.concatenate([[tokenizer.bos_id], query, [tokenizer.eos_id] * 2, ids[start:end],
                                           [tokenizer.eos_id]]).astype(np.int64)  # fmt: skip
                where = np.concatenate([[[place + 1, place + 2]], spans[chosen] - start + len(query) + 3])
                sequence = packing.Sequence(word_ids, np.full(len(where), entity_vocab.mask_id), where)
                gold = np.array([k in question.gold for k in chosen.tolist()], np.float32)
                features.append(Feature(index, sequence, chosen, gold, is_cut))
    return features


def skipped(questions: Sequence[Question], features: Sequence[Feature]) -> dict[str, int]:
    reached = {(f.example, k) for f in features for k in f.mentions.tolist()}
    answerable = {feature.example for feature in features if feature.labels.any()}
    return {
        "questions whose answer is no candidate": len(questions) - len(answerable),
        "mentions longer than a window": sum(len(question.mentions) for question in questions) - len(reached),
        "queries cut": len({feature.example for feature in features if feature.is_cut}),
    }


# --- Batches and model ------------------------------------------------------------------------------------------------


def collate(features: Sequence[Feature], pad_id: int, max_mention: int) -> Batch:
    """The classifier sees the placeholder, the first entity of a window, and each candidate, the others."""
    packed = packing.pack([feature.sequence for feature in features], pad_id, max_mention)
    candidates = torch.tensor(packed.entity_lengths) - 1  # of each window
    first = packed.cu_entities[:-1].long()
    is_candidate = torch.ones(packed.n_entities, dtype=torch.bool)
    is_candidate[first] = False
    placeholder_rows = torch.repeat_interleave(packed.n_words + first, candidates)
    rows = placeholder_rows, packed.n_words + is_candidate.nonzero()[:, 0]
    labels = torch.from_numpy(np.concatenate([feature.labels for feature in features]))[:, None]
    return Batch(packed, tuple(candidates.tolist()), rows, labels)


def build_model(
    config: ModelConfig, entity_vocab, labels: Sequence[str] = (), options: Options = Options()
) -> TaskModel:
    """The model, its weights still to be loaded (paper, section 4.4). config: of a checkpoint after `prepare`."""
    make_batch = partial(collate, pad_id=config.pad_token_id, max_mention=options.max_mention)
    model = TaskModel(LukeModel(config), (), "entity", 2, make_batch)
    optim.freeze_idle(model.luke)
    return model


# --- Prediction and scores --------------------------------------------------------------------------------------------


Prediction = tuple[str, dict[int, float]]  # the answer, "" without candidates; mention -> its best score in any window


def predict(
    model: TaskModel, features: Sequence[Feature], questions: Sequence[Question], batch_size: int = 32
) -> list[Prediction]:
    """The answer to each question: the best mention of all its windows; of equal ones the later one."""
    best: list[tuple[float, int]] = [(float("-inf"), -1)] * len(questions)
    of_mention: list[dict[int, float]] = [{} for _ in questions]
    sizes = [len(feature.sequence.word_ids) for feature in features]
    for feature, scores in zip(features, trainer.predict_logits(model, features, sizes, batch_size)):
        found = of_mention[feature.example]
        for mention, score in zip(feature.mentions.tolist(), scores.flatten().tolist()):
            found[mention] = max(score, found.get(mention, score))
            if score >= best[feature.example][0]:
                best[feature.example] = (score, mention)
    return [
        ("" if mention < 0 else question.text[slice(*question.mentions[mention])], found)
        for question, (_, mention), found in zip(questions, best, of_mention)
    ]


def evaluate(
    questions: Sequence[Question], predictions: Sequence[Prediction], features: Sequence[Feature]
) -> dict[str, float | int]:
    """`metrics.answer_scores`, over all questions, and exact match as `em`."""
    gold = {str(k): question.answers for k, question in enumerate(questions)}
    scores = answer_scores(gold, {str(k): text for k, (text, _) in enumerate(predictions)})
    return {"em": scores["exact_match"]} | scores


def prediction_files(questions: Sequence[Question], predictions: Sequence[Prediction]) -> dict[str, dict]:
    """{question: answer}, as ReCoRD's scorer reads it."""
    return {"predictions.json": {question.id: text for question, (text, _) in zip(questions, predictions)}}


def answer(examples: Sequence[Question], predictions: Sequence[Prediction]) -> dict:
    """What --predict prints for a question: the answer, and the mentions with probabilities, the best first."""
    (question,), ((text, logits),) = examples, predictions
    found = []
    for mention, probability in zip(logits, torch.tensor(list(logits.values())).sigmoid().tolist()):
        start, end = question.mentions[mention]
        found.append({"text": question.text[start:end], "start": start, "end": end,
                      "probability": round(probability, 4)})  # fmt: skip
    found.sort(key=lambda mention: -mention["probability"])
    return {"id": question.id, "text": question.text, "query": question.query, "answer": text, "mentions": found}

"""Extractive question answering: the answer is a stretch of a given text, the context.

SQuAD 1.1 in the LUKE paper (Yamada et al. 2020, section 4.5); XQuAD and MLQA in mLUKE's (Ri et al. 2022), with
question and context in different languages (G-XLT); SQuAD 2.0, where a question may have no answer; JSQuAD:

    read_examples   SQuAD's JSON or our JSON lines -> questions, each with its context
    make_features   -> windows `<s> question </s></s> part of the context </s>`, with the entities that are mentioned in
                    them as inputs (`mentions`)
    QaModel         encoder, one linear layer over each word: how well does an answer start here, end here
    predict         scores of all windows -> the n best answers, cut from the context
    evaluate        -> exact match and F1 as the data set's official script counts them
What every task module offers: `finetuning.py`.

The data set, that is how answers are scored and in which languages the texts are, comes from the options, otherwise
from the name of the file:

    xquad.de.json                             squad    de; the English normalization, as for all its languages
    test-context-de-question-en.json          mlqa     answers in de, questions in en
    jsquad-valid.json, jsquad-v1.3/...        jsquad   ja
    any other                                 squad    en; squad2 if it has questions without an answer

differs from LUKE: it recognizes whole file names only. Sources: LUKE, appendix A, and BERT's original script for SQuAD
(Devlin et al. 2019), whose n-best search LUKE kept. Answers are cut from the context by character offsets; LUKE decodes
tokens and loses what its tokenizer loses. Only SQuAD 2.0 has "" as an answer. Left out: AllenNLP's masking of the
question's scores, which changes the loss, and its unused answer type.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luke_mini import formats, mentions, metrics, packing, tasks, trainer
from luke_mini.checkpoint import Checkpoint
from luke_mini.config import ModelConfig
from luke_mini.entity_vocab import EntityVocab
from luke_mini.files import Record
from luke_mini.inputs import CharSpan
from luke_mini.mentions import STATISTICS, find_statistics
from luke_mini.model import LukeModel
from luke_mini.spans import best_pairs, best_windows, encode_words, sliding_windows, token_span
from luke_mini.tasks import AUTO, NONE

NAME, TITLE, _, FILES, FORMAT, Options, ALL_ENTITIES, _, TRAINS = tasks.QA
SCORES = ("em", "f1")
ARCHITECTURE = "LukeForQuestionAnswering"
MAX_MENTION = 30  # tokens: a longer mention has the mean position of its first ones


# --- Reading ----------------------------------------------------------------------------------------------------------

unmark = formats.question


class Question(NamedTuple):
    id: str
    question: str
    context: str
    title: str  # of the page
    answers: tuple[str, ...]  # accepted ones; () = there is none
    spans: tuple[CharSpan, ...]  # those of them that are in the context where the file says so
    metric: str
    language: str  # of the context and its answers
    question_language: str


def data_set(path: Path, options: Options, has_unanswerable: bool) -> tuple[str, str, str]:
    """Metric, language of the contexts and of the questions: the options', or those of the file."""
    metric, language, question_language = formats.squad_data_set(path, has_unanswerable)
    if options.language:
        language = question_language = options.language
    metric = metric if options.metric == AUTO else options.metric
    return metric, language, options.question_language or question_language


def records(path: str | Path, options: Options = Options()) -> Iterator[Record]:
    return formats.squad(path)


def read_examples(path: str | Path, options: Options = Options()) -> list[Question]:
    """The questions of a file, in its order. ValueError also if two have one id, or if one has no answer but needs it."""
    found = list(records(path))
    of_file = data_set(Path(path), options, not all(record.get("answers", list, []) for record in found))
    questions = [_question(record, str(number), of_file) for number, record in enumerate(found, start=1)]
    seen = set()
    for record, question in zip(found, questions):
        if question.id in seen:
            where = f"{record.where}: field 'id' is {question.id!r}"
            raise ValueError(f"{where}, expected one that no other question has")
        if not question.answers and question.metric != "squad2":
            raise ValueError(f"{record.where}: expected an answer: only --metric squad2 knows questions without")
        seen.add(question.id)
    return questions


def from_record(record: Record, options: Options = Options(), labels: Sequence[str] | None = None) -> list[Question]:
    """The question of a line of --predict."""
    return [_question(record, record.where.removeprefix("line "), data_set(Path(), options, False))]


def _question(record: Record, number: str, of_file: tuple[str, str, str]) -> Question:
    """Its id is its number if it has no other."""
    context, answers, spans = record.get("context", str), [], []
    for answer in record.list("answers", []):
        if "start" in answer.values or "text" not in answer.values:
            spans.append(answer.span(context))
            answers.append(context[slice(*spans[-1])])
        else:
            answers.append(answer.get("text", str))
    name, title = record.id(number), record.get("title", str, "")
    return Question(name, record.get("question", str), context, title, tuple(answers), tuple(spans), *of_file)


def describe(questions: Sequence[Question]) -> str:
    *_, metric, language, question_language = questions[0]
    languages = language if question_language == language else f"{question_language} about {language}"
    contexts = len({one.context for one in questions})
    return f"{contexts} contexts, {sum(not one.answers for one in questions)} without answer, {languages}, {metric}"


def recipe_name(files: dict[str, Path], examples: dict[str, list[Question]], start: Checkpoint) -> str:
    """The test files decide: SQuAD's training file serves for XQuAD and MLQA, too."""
    kinds = {questions[0].metric for questions in examples.values()}
    if "jsquad" in kinds:
        return "jsquad"
    is_multilingual = "mlqa" in kinds or any("xquad" in path.name for path in files.values())
    return "xquad" if is_multilingual else "squad"


def with_entities(options: Options, places: Sequence[Path], entity_vocab: EntityVocab) -> Options:
    """The options with the statistics that lie at hand, if there are any; says where the entities come from.

    ValueError if the checkpoint is a lite one, which has no entities to give, and statistics are asked for.
    """
    is_lite, asked = len(entity_vocab) <= 4, options.candidates or options.mentions
    if is_lite and asked not in (AUTO, NONE):
        raise ValueError(f"{asked}: a lite checkpoint has no entities to give: expected one with all its entities, or "
                         "--mentions none")  # fmt: skip
    if not options.candidates and options.mentions == AUTO:
        found = None if is_lite else find_statistics(places)
        options = replace(options, mentions=NONE if found is None else str(found))
    if options.candidates or options.mentions != NONE:
        print(f"entities    {options.candidates or options.mentions}", flush=True)
    elif asked == AUTO:
        missing = f"no {STATISTICS} beside the data or the checkpoint; prepare_wiki.py writes it, --mentions names it"
        print(f"entities    none: {'the checkpoint is a lite one' if is_lite else missing}", flush=True)
    return options


# --- Features ---------------------------------------------------------------------------------------------------------


class Feature(NamedTuple):
    """One window of a question's context, n tokens of it."""

    example: int  # index in the list of questions
    sequence: packing.Sequence
    first: int  # the first token of the context in it
    offsets: np.ndarray  # int32 [n, 2], half-open characters of the context
    may_start: np.ndarray  # bool [n]: the token has its best place in this window
    target: tuple[int, int]  # first and last token of the first answer that is wholly inside; (0, 0) = <s>: none is
    is_cut: bool  # the question was longer than max_query_length


def _detector(options: Options, language: str, context_language: str) -> mentions.Detector:
    """What finds the mentions in a text of that language."""
    path = options.candidates or options.mentions
    path = path.replace("{language}", language).replace("{context}", context_language)
    if options.candidates:
        return mentions.list_detector(path, options.ignore_case)
    if path in (AUTO, NONE):
        return mentions.no_detector
    return mentions.statistics_detector(path, options.min_link_probability)


Tokens = tuple[packing.Sequence, list[CharSpan]]  # of a question or a context, without <s>; characters of each token


def _encode(text: str, language: str, question: Question, tokenizer, entity_vocab, options: Options) -> Tokens:
    """Tokens, and the mentions whose entity the vocabulary has, as tokens that share a character with them."""
    ids, offsets = encode_words(tokenizer, text)
    entity_ids, spans = [], []
    for start, end, entity in _detector(options, language, question.language)(text, question.title):
        entity_id = entity_vocab.get(entity, language)
        first, last = token_span(offsets, start, end)
        if entity_id is not None and first < last:
            entity_ids.append(entity_id)
            spans.append((first, last))
    spans = np.array(spans, np.int32).reshape(-1, 2)
    return packing.Sequence(np.array(ids, np.int32), np.array(entity_ids, np.int32), spans), offsets


def _features_of(
    index: int, question: packing.Sequence, context: Tokens, answers: Sequence[CharSpan], tokenizer, options: Options
) -> Iterator[Feature]:
    """The windows of one question."""
    context, offsets = context
    n = len(context.word_ids)
    asked = question.word_ids[: options.max_query_length]
    first = len(asked) + 3  # <s> question </s></s>
    found = sliding_windows(n, options.max_seq_length - first - 1, options.doc_stride, options.overlap)
    # A token that straddles the border of an answer belongs to it; an answer without tokens is left out.
    goals = [(start, end) for start, end in (token_span(offsets, *span) for span in answers) if start < end]
    offsets = np.array(offsets, np.int32).reshape(-1, 2)
    in_question = question.spans[:, 1] <= len(asked)
    for (start, length), may_start in zip(found, best_windows(found, n)):
        end = start + length
        words = [[tokenizer.bos_id], asked, [tokenizer.eos_id] * 2, context.word_ids[start:end], [tokenizer.eos_id]]
        inside = (start <= context.spans[:, 0]) & (context.spans[:, 1] <= end)
        entity_ids = np.concatenate([question.entity_ids[in_question], context.entity_ids[inside]])
        spans = np.concatenate([question.spans[in_question] + 1, context.spans[inside] - start + first])
        kept = slice(options.max_entities)
        sequence = packing.Sequence(np.concatenate(words).astype(np.int32), entity_ids[kept], spans[kept])
        whole = ((first + a - start, first + b - 1 - start) for a, b in goals if start <= a and b <= end)
        is_cut = len(asked) < len(question.word_ids)
        yield Feature(index, sequence, first, offsets[start:end], may_start, next(whole, (0, 0)), is_cut)


def make_features(
    questions: Sequence[Question], tokenizer, entity_vocab, labels: Sequence[str] = (), options: Options = Options()
) -> list[Feature]:
    """The windows of all questions, in their order; at least one for each. A context is tokenized once."""
    contexts: dict[tuple, Tokens] = {}
    features = []
    for index, one in enumerate(questions):
        key = (one.context, one.title, one.language)
        if key not in contexts:
            contexts[key] = _encode(one.context, one.language, one, tokenizer, entity_vocab, options)
        asked, _ = _encode(one.question, one.question_language, one, tokenizer, entity_vocab, options)
        features += _features_of(index, asked, contexts[key], one.spans, tokenizer, options)
    return features


def skipped(questions: Sequence[Question], features: Sequence[Feature]) -> dict[str, int]:
    reached = {feature.example for feature in features if feature.target != (0, 0)}
    return {
        "answers that are not where the file says": sum(len(one.answers) - len(one.spans) for one in questions),
        "questions with no answer wholly in a window": sum(
            bool(one.answers) and index not in reached for index, one in enumerate(questions)
        ),
        "questions cut": len({feature.example for feature in features if feature.is_cut}),
    }


# --- Batches and model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QaBatch(packing.MicroBatch):
    rows_per_input: tuple[int, ...]  # words of each window
    targets: Tensor  # int64 [windows, 2], first and last word of the answer, in words of the window

    @property
    def counts(self) -> dict[str, int]:
        return {"answer": len(self.targets)}


def answer_loss(logits: Tensor, word_lengths: Sequence[int], targets: Tensor) -> tuple[Tensor, Tensor]:
    """(cross-entropy of the start + that of the end) / 2, summed over the windows; and how many have both right.

    logits [W, 2], targets int64 [windows, 2]. All words of a window compete, those of the question too, and no others.
    """
    # One row a window; what is beyond its words has probability 0 and no gradient: [windows, 2, longest]
    rows = nn.utils.rnn.pad_sequence(logits.split(tuple(word_lengths)), True, float("-inf")).transpose(1, 2)
    loss = F.cross_entropy(rows.flatten(0, 1), targets.flatten(), reduction="sum") / 2
    return loss, (rows.argmax(dim=2) == targets).all(dim=1).sum()


class QaModel(nn.Module):
    """The encoder, and one linear layer without dropout over each word."""

    def __init__(self, config: ModelConfig, options: Options):
        super().__init__()
        self.config, self.options = config, options
        self.luke = LukeModel(config, with_pooler=False)  # as released models for this task
        self.classifier = nn.Linear(config.hidden_size, 2)

    def collate(self, features: Sequence[Feature]) -> QaBatch:
        packed = packing.pack([feature.sequence for feature in features], self.config.pad_token_id, MAX_MENTION)
        return QaBatch(packed, packed.word_lengths, torch.tensor([feature.target for feature in features]))

    def logits(self, batch: QaBatch) -> Tensor:
        """[W, 2], of the answer's first and last word, for all words of the batch."""
        return self.classifier(self.luke(batch.packed)[: batch.packed.n_words])

    def forward(self, batch: QaBatch) -> dict[str, tuple[Tensor, Tensor]]:
        return {"answer": answer_loss(self.logits(batch).float(), batch.packed.word_lengths, batch.targets)}


def build_model(config: ModelConfig, entity_vocab, labels: Sequence[str] = (), options: Options = Options()) -> QaModel:
    """The model with weights yet to be filled in."""
    model = QaModel(config, options)
    model.luke.entities.entity.weight.requires_grad_(options.train_entity_table)
    return model


# --- Decoding ---------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    text: str  # "" = there is no answer
    start: int  # half-open characters of the context
    end: int
    probability: float  # softmax over the n best; until all are known 0
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        return self.start_logit + self.end_logit


def pool(found: Sequence[tuple[np.ndarray, np.ndarray]], context: str, n_best: int) -> list[Answer]:
    """The n best different texts of what `best_pairs` found in all windows, best first, equal ones in their order."""
    chars, logits = (np.concatenate(parts) for parts in zip(*found))
    answers: dict[str, Answer] = {}
    for k in np.argsort(-logits.sum(axis=1), kind="stable").tolist():
        start, end = chars[k].tolist()
        text = context[start:end]
        if text not in answers:
            answers[text] = Answer(text, start, end, 0.0, *logits[k].tolist())
            if len(answers) == n_best:
                break
    return list(answers.values())


# --- Prediction and scores --------------------------------------------------------------------------------------------


class Prediction(NamedTuple):
    text: str  # the answer; "" = there is none, in SQuAD 2.0 only, or in a context without words
    answers: list[Answer]  # the n best, best first; in SQuAD 2.0 with ""
    null_odds: float  # score of "no answer" - score of the best answer


def decode(
    windows: Sequence[tuple[Feature, np.ndarray]], context: str, with_null: bool, options: Options
) -> Prediction:
    """The answer to one question from the logits [W, 2] of all its windows."""

    def pooled(n_best: int) -> list[Answer]:
        found = [
            best_pairs(logits, f.first, f.offsets, f.may_start, n_best, options.max_answer) for f, logits in windows
        ]
        return pool(found, context, options.n_best_size)

    # differs from LUKE: if no good start goes with a good end, all pairs are tried; there, the answer is then "empty"
    answers = pooled(options.n_best_size) or pooled(options.max_seq_length)
    null = Answer("", 0, 0, 0.0, *min((logits[0].astype(np.float64).tolist() for _, logits in windows), key=sum))
    null_odds = null.score - answers[0].score if answers else 0.0
    text = answers[0].text if answers else ""
    if with_null:  # in its place among the n best, or else as one more
        text = "" if null_odds > options.null_threshold else text
        answers = sorted([*answers, null], key=lambda answer: -answer.score)
        answers = answers[: options.n_best_size + (answers[-1] is null)]
    weights = np.exp([answer.score - answers[0].score for answer in answers])
    probabilities = (weights / weights.sum()).tolist()
    return Prediction(text, [a._replace(probability=p) for a, p in zip(answers, probabilities)], null_odds)


def predict(
    model: QaModel, features: Sequence[Feature], questions: Sequence[Question], batch_size: int = 32
) -> list[Prediction]:
    """The answer to each question; features: what `make_features` made of these questions."""
    windows: list[list[tuple[Feature, np.ndarray]]] = [[] for _ in questions]
    sizes = [len(feature.sequence.word_ids) + len(feature.sequence.entity_ids) for feature in features]
    for feature, logits in zip(features, trainer.predict_logits(model, features, sizes, batch_size)):
        windows[feature.example].append((feature, logits.numpy()))
    return [
        decode(found, question.context, question.metric == "squad2", model.options)
        for question, found in zip(questions, windows)
    ]


def evaluate(
    questions: Sequence[Question], predictions: Sequence[Prediction], features: Sequence[Feature]
) -> dict[str, float | int]:
    """What the data set's function of `metrics` gives, and exact match as `em`."""
    gold = {one.id: one.answers for one in questions}
    predicted = {one.id: prediction.text for one, prediction in zip(questions, predictions)}
    metric, language = questions[0].metric, questions[0].language
    if metric == "squad2":
        odds = {one.id: prediction.null_odds for one, prediction in zip(questions, predictions)}
        scores = metrics.squad2_scores(gold, predicted, odds)
        return {"em": scores["exact"]} | scores
    if metric == "jsquad":
        scores = metrics.jsquad_scores(gold, predicted)
    elif metric == "mlqa":
        scores = metrics.answer_scores(gold, predicted, partial(metrics.normalize_mlqa, language=language))
    else:
        scores = metrics.answer_scores(gold, predicted)
    return {"em": scores["exact_match"]} | scores


def prediction_files(questions: Sequence[Question], predictions: Sequence[Prediction]) -> dict[str, dict]:
    """Answers, the n best of each question and, for SQuAD 2.0, null odds, by the ids of the questions."""
    fields = ("text", "probability", "start_logit", "end_logit")
    n_best = [[{name: getattr(answer, name) for name in fields} for answer in p.answers] for p in predictions]
    made = {"predictions": [prediction.text for prediction in predictions], "nbest_predictions": n_best}
    if questions[0].metric == "squad2":
        made["null_odds"] = [prediction.null_odds for prediction in predictions]
    ids = [one.id for one in questions]
    return {f"{kind}.json": dict(zip(ids, values)) for kind, values in made.items()}


def answer(examples: Sequence[Question], predictions: Sequence[Prediction]) -> dict:
    """What --predict prints for a question: the answer, and the n best with their characters of the context."""
    (one,), (prediction,) = examples, predictions
    answers = [{"text": a.text, "start": a.start, "end": a.end, "probability": round(a.probability, 4)}
               for a in prediction.answers]  # fmt: skip
    return {"id": one.id, "question": one.question, "context": one.context, "answer": prediction.text,
            "answers": answers, "null_odds": round(prediction.null_odds, 4)}  # fmt: skip

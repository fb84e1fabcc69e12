"""Extractive question answering: the answer is a stretch of a given text, the context.

SQuAD 1.1 in the LUKE paper (Yamada et al. 2020, section 4.5); XQuAD and MLQA in mLUKE's (Ri et al. 2022), with
question and context in different languages (G-XLT); SQuAD 2.0, where a question may have no answer; JSQuAD:

    read_examples   SQuAD's JSON or our JSON lines -> questions, each with its context (`qa_data`)
    make_features   -> windows `<s> question </s></s> part of the context </s>` (`qa_data`), with the entities that
                    are mentioned in them as inputs (`mentions`)
    QaModel         encoder, one linear layer over each word: how well does an answer start here, end here
    predict         scores of all windows -> the n best answers, cut from the context
    evaluate        -> exact match and F1 as the data set's official script counts them
What every task module offers: `finetuning.py`.

Only SQuAD 2.0 has "" as an answer. Left out: AllenNLP's masking of the question's scores, which changes the loss, and
its unused answer type.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luke_mini import files, formats, mentions, metrics, packing, qa_data, trainer
from luke_mini.checkpoint import Checkpoint
from luke_mini.config import ModelConfig, option
from luke_mini.entity_vocab import EntityVocab
from luke_mini.mentions import STATISTICS, find_statistics
from luke_mini.files import Record
from luke_mini.model import LukeModel
from luke_mini.qa_data import FORMAT, METRICS, Answer, DataSet, Question  # noqa: F401 (FORMAT is for finetune.py)
from luke_mini.spans import token_span

NAME, TITLE = "qa", "QA F1"
AUTO, NONE = "auto", "none"  # instead of a file's name
FILES = (
    *({split: f"{split}-v{n}.json" for split in ("train", "dev", "test")} for n in ("1.1", "2.0")),
    *({"train": f"train-v{n}.json", "dev": f"valid-v{n}.json", "test": f"test-v{n}.json"}  # JSQuAD
      for n in ("1.3", "1.2", "1.1", "1.0")),
    {split: f"{split}.jsonl" for split in ("train", "dev", "test")},
)  # fmt: skip
SCORES = ("em", "f1")
ARCHITECTURE = "LukeForQuestionAnswering"
ALL_ENTITIES = True


@dataclass(frozen=True)
class Options:
    """How a context is read, and answers are chosen. Defaults: SQuAD 1.1 in the LUKE paper.

    mLUKE's runs: max_seq_length 384, overlap 128. In the name of a file of mentions, {language} stands for the language
    of the text and {context} for that of the context: `{context}-{language}.json` for MLQA. XQuAD's pages have English
    titles in every language: `en-{language}.json`.
    """

    max_seq_length: int = option(512, "maximum tokens per input, with <s> and </s>")
    max_query_length: int = option(64, "maximum tokens of a question; longer ones are truncated")
    doc_stride: int = option(128, "tokens from one window to the next")
    overlap: int = option(0, "tokens shared by two windows, instead of --doc-stride; 0 = use --doc-stride")
    max_answer: int = option(30, "maximum tokens of an answer")
    n_best_size: int = option(20, "starts, ends and answers to consider")
    null_threshold: float = option(0.0, "SQuAD 2.0: null odds above this mean no answer")
    max_entities: int = option(128, "maximum mentions per input; others are dropped")
    candidates: str = option("", "file of each page's mentions; {language} and {context} in its name: see Options")
    ignore_case: bool = option(True, "with --candidates: ignore case (LUKE: yes, mLUKE: no)")
    mentions: str = option(AUTO, "a file of mention statistics instead; auto: the one at hand; none: words only")
    min_link_probability: float = option(0.01, "with --mentions: minimum link probability of a mention")
    train_entity_table: bool = option(False, "train the entity embeddings (published: frozen)")
    metric: str = option(AUTO, "metric; auto: from the file name and its questions", (AUTO, *METRICS))
    language: str = option("", "language of the contexts, if the file name does not imply it [en]")
    question_language: str = option("", "language of the questions, if different and not implied by the file name")

    def __post_init__(self):
        if not 1 <= self.max_query_length <= self.max_seq_length - 5:
            raise ValueError("expected 1 <= --max-query-length <= --max-seq-length - 5, to leave room for the context")
        if self.candidates and self.mentions not in (AUTO, NONE):
            raise ValueError("--candidates and --mentions: expected one of them")
        for name in ("doc_stride", "max_answer", "n_best_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1")


def records(path: str | Path, options: Options = Options()) -> Iterator[Record]:
    return formats.squad(path)


def read_examples(path: str | Path, options: Options = Options()) -> list[Question]:
    """The questions of a file: see `qa_data`."""
    return qa_data.read(path, _metric(options), options.language, options.question_language)


def _metric(options: Options) -> str:
    return "" if options.metric == AUTO else options.metric


def describe(questions: Sequence[Question]) -> str:
    metric, language, question_language = questions[0].data_set
    languages = language if question_language == language else f"{question_language} about {language}"
    contexts = len({one.context for one in questions})
    return f"{contexts} contexts, {sum(not one.answers for one in questions)} without answer, {languages}, {metric}"


def label_list(questions: Sequence[Question]) -> tuple[str, ...]:
    return ()


def recipe_name(files: dict[str, Path], examples: dict[str, list[Question]], start: Checkpoint) -> str:
    """The test files decide: SQuAD's training file serves for XQuAD and MLQA, too."""
    kinds = {questions[0].data_set.metric for questions in examples.values()}
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


# --- Features -------------------------------------------------------------------------------------------------------


class Text(NamedTuple):
    """A question or a context."""

    ids: np.ndarray  # int32 [n]
    offsets: list[tuple[int, int]]  # characters of each
    entity_ids: np.ndarray  # int32 [E]
    spans: np.ndarray  # int32 [E, 2], half-open tokens


class Feature(NamedTuple):
    """One window of a question's context: W words, n of them the context's, E entities."""

    example: int  # index in the list of questions
    word_ids: np.ndarray  # int32 [W]
    first: int  # the context's first word
    offsets: np.ndarray  # int32 [n, 2], half-open characters of the context
    may_start: np.ndarray  # bool [n]: the word has its best place in this window
    entity_ids: np.ndarray  # int32 [E]
    spans: np.ndarray  # int32 [E, 2], half-open words
    target: tuple[int, int]  # first and last word of the answer; (0, 0) = <s>: it is not in this window
    cut: int  # pieces of the question that are left out


def detector(options: Options, of_file: DataSet, language: str) -> mentions.Detector:
    """What finds the mentions in a text of that language."""
    path = options.candidates or options.mentions
    path = path.replace("{language}", language).replace("{context}", of_file.language)
    if options.candidates:
        return mentions.list_detector(path, options.ignore_case)
    if path in (AUTO, NONE):
        return mentions.no_detector
    return mentions.statistics_detector(path, options.min_link_probability)


def make_text(text: str, title: str, find: mentions.Detector, language: str, tokenizer, entity_vocab) -> Text:
    """Tokens, and the mentions whose entity the vocabulary has, as tokens that share a character with them."""
    ids, offsets = qa_data.tokenize(tokenizer, text)
    entity_ids, spans = [], []
    for start, end, entity in find(text, title):
        entity_id = entity_vocab.get(entity, language)
        first, last = token_span(offsets, start, end)
        if entity_id is not None and first < last:
            entity_ids.append(entity_id)
            spans.append((first, last))
    spans = np.array(spans, np.int32).reshape(-1, 2)
    return Text(np.array(ids, np.int32), offsets, np.array(entity_ids, np.int32), spans)


def _features_of(
    index: int, question: Text, context: Text, answers: Sequence[tuple[int, int]], tokenizer, options: Options
) -> Iterator[Feature]:
    """The windows of one question. answers: spans in characters of the context."""
    n = len(context.ids)
    asked = question.ids[: options.max_query_length]
    first = len(asked) + 3  # <s> question </s></s>
    found = qa_data.windows(n, options.max_seq_length - first - 1, options.doc_stride, options.overlap)
    answers = qa_data.answer_tokens(context.offsets, answers)
    offsets = np.array(context.offsets, np.int32).reshape(-1, 2)
    in_question = question.spans[:, 1] <= len(asked)
    for (start, length), may_start in zip(found, qa_data.max_context(found, n)):
        end = start + length
        words = [[tokenizer.bos_id], asked, [tokenizer.eos_id] * 2, context.ids[start:end], [tokenizer.eos_id]]
        inside = (start <= context.spans[:, 0]) & (context.spans[:, 1] <= end)
        entity_ids = np.concatenate([question.entity_ids[in_question], context.entity_ids[inside]])
        spans = np.concatenate([question.spans[in_question] + 1, context.spans[inside] - start + first])
        goal = qa_data.target(answers, (start, length))
        yield Feature(
            index, np.concatenate(words).astype(np.int32), first, offsets[start:end], may_start,
            entity_ids[: options.max_entities], spans[: options.max_entities].astype(np.int32),
            (first + goal[0], first + goal[1]) if goal else (0, 0), len(question.ids) - len(asked),
        )  # fmt: skip


def make_features(
    questions: Sequence[Question], tokenizer, entity_vocab, labels: Sequence[str] = (), options: Options = Options()
) -> list[Feature]:
    """The windows of all questions, in their order; at least one for each. A context is tokenized once."""
    contexts: dict[tuple, Text] = {}
    features = []
    for index, one in enumerate(questions):
        _, language, question_language = of_file = one.data_set
        key = (one.context, one.title, language)
        if key not in contexts:
            find = detector(options, of_file, language)
            contexts[key] = make_text(one.context, one.title, find, language, tokenizer, entity_vocab)
        find = detector(options, of_file, question_language)
        question = make_text(one.question, one.title, find, question_language, tokenizer, entity_vocab)
        features += _features_of(index, question, contexts[key], one.spans, tokenizer, options)
    return features


def skipped(questions: Sequence[Question], features: Sequence[Feature]) -> dict[str, int]:
    reached = {feature.example for feature in features if feature.target != (0, 0)}
    return {
        "answers that are not where the file says": sum(len(one.answers) - len(one.spans) for one in questions),
        "questions with no answer wholly in a window": sum(
            bool(one.answers) and index not in reached for index, one in enumerate(questions)
        ),
        "questions cut": len({feature.example for feature in features if feature.cut}),
    }


# --- Batches and model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QaBatch(packing.MicroBatch):
    rows_per_input: tuple[int, ...]  # words of each window
    targets: Tensor  # int64 [windows, 2], first and last word of the answer, in words of the window

    @property
    def counts(self) -> dict[str, int]:
        return {"answer": len(self.targets)}


def collate(features: Sequence[Feature], pad_word_id: int, max_mention: int = 30) -> QaBatch:
    """A mention of more than max_mention words has the mean position of its first ones."""
    sequences = [packing.Sequence(f.word_ids, f.entity_ids, f.spans) for f in features]
    packed = packing.pack(sequences, pad_word_id, max_mention)
    return QaBatch(packed, packed.word_lengths, torch.tensor([feature.target for feature in features]))


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
        return collate(features, self.config.pad_token_id)

    def logits(self, batch: QaBatch) -> Tensor:
        """[W, 2], of the answer's first and last word, for all words of the batch."""
        return self.classifier(self.luke(batch.packed)[: batch.packed.n_words])

    def forward(self, batch: QaBatch) -> dict[str, tuple[Tensor, Tensor]]:
        return {"answer": answer_loss(self.logits(batch).float(), batch.packed.word_lengths, batch.targets)}


def build_model(config: ModelConfig, entity_vocab, labels: Sequence[str] = (), options: Options = Options()) -> QaModel:
    """The model with weights yet to be filled in. ValueError if it has fewer positions than inputs may be long."""
    positions = config.max_position_embeddings - config.pad_token_id - 1
    if options.max_seq_length > positions:
        held = f"--max-seq-length {options.max_seq_length}"
        raise ValueError(f"{held}: expected at most the checkpoint's {positions} positions")
    model = QaModel(config, options)
    model.luke.entities.entity.weight.requires_grad_(options.train_entity_table)
    return model


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
            qa_data.best_pairs(logits, f.first, f.offsets, f.may_start, n_best, options.max_answer)
            for f, logits in windows
        ]
        return qa_data.pool(found, context, options.n_best_size)

    # differs from LUKE: if no good start goes with a good end, all pairs are tried; there, the answer is then "empty"
    answers = pooled(options.n_best_size) or pooled(options.max_seq_length)
    null = min((logits[0].astype(np.float64).tolist() for _, logits in windows), key=sum)
    null_odds = sum(null) - answers[0].score if answers else 0.0
    text = answers[0].text if answers else ""
    if with_null:
        answers = qa_data.with_null(answers, null, options.n_best_size)
        text = "" if null_odds > options.null_threshold else text
    return Prediction(text, qa_data.with_probabilities(answers), null_odds)


def predict(
    model: QaModel, features: Sequence[Feature], questions: Sequence[Question], batch_size: int = 32
) -> list[Prediction]:
    """The answer to each question; features: what `make_features` made of these questions."""
    windows: list[list[tuple[Feature, np.ndarray]]] = [[] for _ in questions]
    sizes = [len(feature.word_ids) + len(feature.entity_ids) for feature in features]
    for feature, logits in zip(features, trainer.predict_logits(model, features, sizes, batch_size)):
        windows[feature.example].append((feature, logits.numpy()))
    return [
        decode(found, question.context, question.data_set.metric == "squad2", model.options)
        for question, found in zip(questions, windows)
    ]


def evaluate(
    questions: Sequence[Question], predictions: Sequence[Prediction], features: Sequence[Feature]
) -> dict[str, float | int]:
    """What the data set's function of `metrics` gives, and exact match as `em`."""
    gold = {one.id: one.answers for one in questions}
    predicted = {one.id: prediction.text for one, prediction in zip(questions, predictions)}
    metric, language, _ = questions[0].data_set
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


def write_predictions(
    folder: Path, name: str, questions: Sequence[Question], predictions: Sequence[Prediction]
) -> None:
    """<name>_predictions.json, <name>_nbest_predictions.json and, for SQuAD 2.0, <name>_null_odds.json."""
    fields = ("text", "probability", "start_logit", "end_logit")
    made = {
        "predictions": [prediction.text for prediction in predictions],
        "nbest_predictions": [[{f: getattr(a, f) for f in fields} for a in p.answers] for p in predictions],
    }
    if questions[0].data_set.metric == "squad2":
        made["null_odds"] = [prediction.null_odds for prediction in predictions]
    for kind, values in made.items():
        with files.write_file(Path(folder) / f"{name}_{kind}.json") as file:
            json.dump({one.id: value for one, value in zip(questions, values)}, file, ensure_ascii=False, indent=1)


def predict_lines(
    model: QaModel, lines: Sequence[str], tokenizer, entity_vocab, options: Options = Options()
) -> Iterator[dict]:
    """For each line, a question and its context: the answer, and the n best with their characters of the context."""
    questions = qa_data.parse_lines(lines, _metric(options), options.language, options.question_language)
    features = make_features(questions, tokenizer, entity_vocab, (), options)
    for one, prediction in zip(questions, predict(model, features, questions)):
        answers = [{"text": a.text, "start": a.start, "end": a.end, "probability": round(a.probability, 4)}
                   for a in prediction.answers]  # fmt: skip
        yield {"id": one.id, "question": one.question, "context": one.context, "answer": prediction.text,
               "answers": answers, "null_odds": round(prediction.null_odds, 4)}  # fmt: skip

"""mLAMA: does a pretrained model know facts? Cloze questions, answered by its own heads; nothing is trained.

    "[X] has the capital [Y] ."   X = Norway   candidates: the objects of the relation, Oslo, Cape Town, ...

    n = 1    <s> Norway has the capital <mask> . </s>              entities: Norway (or [MASK], or none), [MASK] at Y
    n = 2    <s> Norway has the capital <mask> <mask> . </s>       the same

One input for each number n of tokens that a candidate has. Its two scores (mLUKE, section 5; Kassner et al. 2021):

    by words      mean over its n tokens of log softmax(word scores) at its <mask>, all masks filled in at once
    by entities   log softmax over the whole entity vocabulary at [MASK]; only for candidates that are entities

    read_examples   a language's folder -> questions: a template with a subject, and all objects that are right
    make_features   -> inputs, with the candidates of each
    predict         -> both scores of every candidate
    evaluate        -> top 1, 5, 10, 100: a question counts if one of its right objects is among the first k
What every task module offers: `finetuning.py`. Texts are tokenized as in pretraining, stretch by stretch, a candidate
as it would stand in the sentence. A candidate without a score stands behind all others; `coverage` says how many
questions have a right object with one. Left out: untyped queries, where every word of the vocabulary is a candidate.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from luke_mini import files, inputs, trainer
from luke_mini.files import write_file
from luke_mini.config import ModelConfig, option
from luke_mini.metrics import best_rank, probing_scores
from luke_mini.model import LukeForPretraining
from luke_mini.packing import PackedBatch
from luke_mini.examples import segment

NAME, TITLE, TRAINS = "mlama", "mLAMA top 1 by words", False
FILES = ({"test": "mlama1.1/en en"},)
FORMAT = """\
mLAMA 1.1: a folder for each language, named as the language. In it templates.jsonl, subject and object in any order,

    {"relation": "P36", "template": "[X] has the capital [Y] ."}

and for each relation a file of facts, P36.jsonl; a subject may have several objects:

    {"sub_label": "Norway", "obj_label": "Oslo"}

The candidates are the objects of the relation in objects.json in this folder, and in TREx_multilingual_objects/en.json
and GoogleRE_objects/en.json one or two folders above it or in --objects DIR. Without such a file: those of P36.jsonl.

    {"P36": {"subjects": ["Norway"], "objects": ["Oslo", "Cape Town"]}}

--test takes any number of languages: --test mlama1.1/*. Your own questions: files as these.

--predict takes one question a line and prints {"question", "words": [{"candidate", "score"}], "entities": [...]}, the
likeliest first:

    {"template": "[X] has the capital [Y] .", "subject": "Norway", "candidates": ["Oslo", "Cape Town"]}"""
SCORES = ("entity_coverage", "entity_top1", "top10", "top5", "top1")
ARCHITECTURE = "LukeForMaskedLM"
ALL_ENTITIES = True
OBJECT_FILES = ("TREx_multilingual_objects", "GoogleRE_objects")
MAX_MENTION = 30  # tokens of a mention that its entity's position is the mean of, as in pretraining
SHOWN = 10  # candidates that --predict prints


@dataclass(frozen=True)
class Options:
    subject: str = option("title", "the subject's entity: its own, [MASK] or none", ("title", "mask", "none"))
    words_only: bool = option(False, "no entities at all, as for a model of words")
    objects: str = option("", "folder of TREx_multilingual_objects/ and GoogleRE_objects/, if they are elsewhere")
    max_seq_length: int = option(512, "maximum tokens per input; candidates that exceed it get no score")


# --- Reading ----------------------------------------------------------------------------------------------------------


class Example(NamedTuple):
    """A question. All questions of a relation share one tuple of candidates."""

    language: str
    relation: str
    template: str
    subject: str
    answers: tuple[str, ...]
    candidates: tuple[str, ...]

    @property
    def question(self) -> str:
        return self.template.replace("[X]", self.subject)


def read_examples(path: str | Path, options: Options = Options()) -> list[Example]:
    """The questions of a language: of its folder, or of the templates.jsonl in it.

    Relations without a file of facts are left out, those without a list of objects have the facts' own; both are said.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    objects = _read_objects(folder, options.objects)
    examples, missing, own = [], [], []
    for record in files.read_json_lines(folder / "templates.jsonl"):
        relation, template = record.get("relation", str), _check_template(record.get("template", str), record.where)
        if not (folder / f"{relation}.jsonl").is_file():
            missing.append(relation)
            continue
        answers: dict[str, dict[str, None]] = {}  # differs from LUKE: all objects of a subject are right, not the last
        for fact in files.read_json_lines(folder / f"{relation}.jsonl"):
            answers.setdefault(_label(fact, "sub_label"), {})[_label(fact, "obj_label")] = None
        if not objects.get(relation):
            own.append(relation)
        candidates = tuple(objects.get(relation) or dict.fromkeys(one for found in answers.values() for one in found))
        language = folder.resolve().name
        examples += [Example(language, relation, template, subject, tuple(found), candidates)
                     for subject, found in answers.items()]  # fmt: skip
    for found, what in ((missing, "templates without a file of facts"), (own, "the facts' own objects as candidates")):
        if found:
            print(f"{folder}: {what}: {' '.join(found)}", flush=True)
    return examples


def _check_template(template: str, where: str) -> str:
    if sorted(re.findall(r"\[[XY]\]", template)) != ["[X]", "[Y]"]:
        raise ValueError(f"{where}: field 'template' is {template[:60]!r}, expected [X] and [Y] in it, each once")
    return template


def _label(record: files.Record, name: str) -> str:
    label = record.get(name, str).strip()
    if not label:
        raise ValueError(f"{record.where}: field {name!r} is empty, expected a name")
    return label


def _read_objects(folder: Path, elsewhere: str) -> dict[str, dict[str, None]]:
    """Relation -> its objects in the order of the files, each once (the files of GoogleRE repeat them)."""
    language = folder.resolve().name
    above = [Path(elsewhere)] if elsewhere else [folder.resolve().parent, folder.resolve().parent.parent]
    paths = [folder / "objects.json", *(base / name / f"{language}.json" for base in above for name in OBJECT_FILES)]
    paths = [path for path in paths if path.is_file()]
    if elsewhere and not paths:
        raise ValueError(f"{elsewhere}: expected {' or '.join(f'{name}/{language}.json' for name in OBJECT_FILES)}")
    objects: dict[str, dict[str, None]] = {}
    for path in paths:
        whole = files.read_json(path)
        for relation in files.check(str(path), getattr(whole, "values", whole), dict):
            names = files.Record(f"{path}, {relation}", whole.get(relation, dict)).texts("objects")
            objects.setdefault(relation, {}).update(dict.fromkeys(name.strip() for name in names if name.strip()))
    return objects


def describe(examples: Sequence[Example]) -> str:
    """What was found in a folder, and what guessing would give."""
    relations = len({example.relation for example in examples})
    chance = sum(len(set(x.answers) & set(x.candidates)) / len(x.candidates) for x in examples) / len(examples)
    return f"{relations} relations; a random candidate is right in {chance:.1%}"


def label_list(examples: Sequence[Example]) -> tuple[str, ...]:
    return ()


# --- Features ---------------------------------------------------------------------------------------------------------


class Candidates(NamedTuple):
    """The candidates of a template that have n tokens."""

    places: np.ndarray  # int64 [C], in the list of all candidates
    word_ids: np.ndarray  # int64 [C, n]
    entity_ids: np.ndarray  # int64 [C], -1 = no entity


class Feature(NamedTuple):
    """A question with n masks."""

    example: int  # index in the list of examples
    arrays: dict[str, np.ndarray]  # input_ids, entity_ids, entity_position_ids; the object's [MASK] is the last entity
    first_mask: int  # place of the first <mask> in input_ids
    candidates: Candidates


def make_features(
    examples: Sequence[Example], tokenizer, entity_vocab, labels: Sequence[str] = (), options: Options = Options()
) -> list[Feature]:
    """For each question one input for each number of tokens that its candidates have."""
    stretches = [stretch for example in examples for stretch in _cut(example)]
    ids = tokenizer.encode_pieces([text for text, _ in stretches], [space for _, space in stretches])
    known: dict[tuple, list[Candidates]] = {}  # questions of a template share their candidates
    features = []
    for index, example in enumerate(examples):
        pieces, order = ids[5 * index : 5 * index + 5], _parts(example.template)
        _, prefix_space = stretches[5 * index + order.index("[Y]")]
        key = (example.language, example.candidates, prefix_space)
        if key not in known:
            known[key] = _group(example, prefix_space, tokenizer, entity_vocab)
        for candidates in known[key]:
            n = candidates.word_ids.shape[1]
            arrays, first_mask = _input(example, pieces, order, n, tokenizer, entity_vocab, options)
            if len(arrays["input_ids"]) <= options.max_seq_length:
                features.append(Feature(index, arrays, first_mask, candidates))
    return features


def _parts(template: str) -> list[str]:
    """Text, [X] or [Y], text, the other one, text; the texts may be empty."""
    return re.split(r"(\[[XY]\])", template)


def _cut(example: Example) -> list[tuple[str, bool]]:
    """The five stretches of a question. That of [Y] is not needed, only whether a space goes before it."""
    filled = [{"[X]": example.subject, "[Y]": "Y"}.get(part, part) for part in _parts(example.template)]
    text = "".join(filled)
    return [segment(text, end - len(part), end) for part, end in zip(filled, accumulate(map(len, filled)))]


def _language(language: str, entity_vocab) -> str | None:
    """The language to ask the vocabulary for titles in; None leaves it to the vocabulary, which may have only one."""
    return language if language in entity_vocab.languages else None


def _group(example: Example, prefix_space: bool, tokenizer, entity_vocab) -> list[Candidates]:
    """The candidates by their number of tokens; those without any, such as control characters, are in no group."""
    texts = [" ".join(candidate.split()) for candidate in example.candidates]
    ids = tokenizer.encode_pieces(texts, [prefix_space] * len(texts))
    language, groups = _language(example.language, entity_vocab), []
    for n in sorted({len(tokens) for tokens in ids} - {0}):
        places = [place for place, tokens in enumerate(ids) if len(tokens) == n]
        entity_ids = [entity_vocab.get(example.candidates[place], language, -1) for place in places]
        groups.append(Candidates(*map(np.array, (places, [ids[place] for place in places], entity_ids))))
    return groups


def _input(
    example: Example, pieces: list[list[int]], order: list[str], n: int, tokenizer, entity_vocab, options: Options
) -> tuple[dict[str, np.ndarray], int]:
    """The input with n masks, and where they begin."""
    word_ids, spans = [tokenizer.bos_id], {}
    for part, tokens in zip(order, pieces):
        start = len(word_ids)
        word_ids += [tokenizer.mask_id] * n if part == "[Y]" else tokens
        spans[part] = (start, min(len(word_ids), start + MAX_MENTION))
    arrays = {"input_ids": np.array([*word_ids, tokenizer.eos_id])}
    if not options.words_only:
        of_subject = None if options.subject == "none" else entity_vocab.mask_id
        if options.subject == "title":
            of_subject = entity_vocab.get(example.subject, _language(example.language, entity_vocab))
        entities = [] if of_subject is None or spans["[X]"][0] == spans["[X]"][1] else [(of_subject, spans["[X]"])]
        entities.append((entity_vocab.mask_id, spans["[Y]"]))
        arrays["entity_ids"] = np.array([entity_id for entity_id, _ in entities])
        arrays["entity_position_ids"] = np.full((len(entities), MAX_MENTION), -1)
        for row, (_, (start, end)) in zip(arrays["entity_position_ids"], entities):
            row[: end - start] = np.arange(start, end)
    return arrays, spans["[Y]"][0]


def skipped(examples: Sequence[Example], features: Sequence[Feature]) -> dict[str, int]:
    unanswerable = sum(not set(example.answers) & set(example.candidates) for example in examples)
    scored = sum(len(feature.candidates.places) for feature in features)
    return {
        "questions whose answers are no candidates": unanswerable,
        "candidates too long or without tokens": sum(len(example.candidates) for example in examples) - scored,
    }


# --- Model and scores -------------------------------------------------------------------------------------------------


def build_model(
    config: ModelConfig, entity_vocab, labels: Sequence[str] = (), options: Options = Options()
) -> LukeForPretraining:
    """The model with weights yet to be filled in."""
    return LukeForPretraining(config)


class Prediction(NamedTuple):
    """Scores of all candidates of a question, natural logarithms; nan = none."""

    words: np.ndarray  # float32 [candidates]
    entities: np.ndarray  # float32 [candidates]


def predict(
    model: LukeForPretraining, features: Sequence[Feature], examples: Sequence[Example], batch_size: int = 32
) -> list[Prediction]:
    """Both scores of every candidate of each question. batch_size: inputs, each with a row of entity scores."""
    predictions = [Prediction(*np.full((2, len(x.candidates)), np.nan, np.float32)) for x in examples]
    lengths = [len(feature.arrays["input_ids"]) for feature in features]
    with trainer.predicting(model):
        for batch_indices in trainer.long_to_short(lengths, batch_size):
            chosen = [features[i] for i in batch_indices]
            packed = inputs.pack([x.arrays for x in chosen], model.config.pad_token_id)
            packed = packed.to(model.word_head.bias.device)
            hidden = model.luke(packed)
            for feature, scores in zip(chosen, word_scores(model, hidden, packed, chosen)):
                predictions[feature.example].words[feature.candidates.places] = scores
            if not packed.n_entities:
                continue
            for feature, scores in zip(chosen, entity_scores(model, hidden, packed, chosen)):
                predictions[feature.example].entities[feature.candidates.places] = scores
    return predictions


def word_scores(
    model: LukeForPretraining, hidden: Tensor, packed: PackedBatch, features: Sequence[Feature]
) -> Iterator[np.ndarray]:
    """For each input the scores of its candidates: only rows of <mask> meet the vocabulary."""
    lengths = [feature.candidates.word_ids.shape[1] for feature in features]
    first = packed.cu_words[:-1].tolist()
    rows = [row + x.first_mask + k for row, x, n in zip(first, features, lengths) for k in range(n)]
    scores = model.word_head(hidden[rows], model.luke.words.token.weight).float()
    sums, begin = scores.logsumexp(dim=1), 0
    for feature, n in zip(features, lengths):
        mask = torch.arange(begin, begin + n, device=hidden.device)  # broadcasts over the candidates' [C, n] tokens
        word_ids = torch.from_numpy(feature.candidates.word_ids).to(hidden.device)
        yield (scores[mask, word_ids] - sums[mask]).mean(dim=1).cpu().numpy()
        begin += n


def entity_scores(
    model: LukeForPretraining, hidden: Tensor, packed: PackedBatch, features: Sequence[Feature]
) -> Iterator[np.ndarray]:
    """For each input the scores of its candidates, nan for those that are no entities."""
    rows = packed.n_words + packed.cu_entities[1:].long() - 1
    scores = model.entity_head(hidden[rows], model.luke.entities.entity.weight).float()
    sums = scores.logsumexp(dim=1)
    for k, feature in enumerate(features):
        entity_ids = torch.from_numpy(feature.candidates.entity_ids).to(hidden.device)
        found = scores[k, entity_ids.clamp(min=0)] - sums[k]
        yield found.masked_fill(entity_ids < 0, math.nan).cpu().numpy()


def _or_none(scores: np.ndarray) -> list[float | None]:
    return [None if score != score else score for score in scores.tolist()]


def evaluate(examples: Sequence[Example], predictions: Sequence[Prediction], features: Sequence[Feature]) -> dict:
    """`metrics.probing_scores` by words, and by entities with `entity_` before each name if there are such scores."""
    scores = {}
    for prefix, kind in (("", "words"), ("entity_", "entities")):
        ranks: dict[str, list[int | None]] = {}
        for example, prediction in zip(examples, predictions):
            gold = [place for place, name in enumerate(example.candidates) if name in example.answers]
            rank = best_rank(_or_none(getattr(prediction, kind)), gold)
            ranks.setdefault(example.relation, []).append(rank)
        if kind == "words" or any(not np.isnan(prediction.entities).all() for prediction in predictions):
            scores |= {prefix + name: value for name, value in probing_scores(ranks).items()}
    return scores


def write_predictions(folder: Path, name: str, examples: Sequence[Example], predictions: Sequence[Prediction]) -> None:
    """<name>_predictions.json in the shape of mLUKE's own script.

    {"metrics": {"k1": ...}, "output": {question: {"answer", "template", "candidates": [[object, word score, entity
    score or null], ...]}}}; beside the first right "answer" there are all "answers".
    """
    scores = evaluate(examples, predictions, ())
    output: dict[str, dict] = {}
    for example, prediction in zip(examples, predictions):
        question = example.question
        if question in output:  # another relation with the same words
            question += f" ({example.relation})"
        rows = zip(example.candidates, _or_none(prediction.words), _or_none(prediction.entities))
        output[question] = {"answer": example.answers[0], "answers": example.answers, "template": example.template}
        output[question]["candidates"] = list(rows)
    metrics = {name.replace("top", "k"): value for name, value in scores.items()}
    with write_file(Path(folder) / f"{name}_predictions.json") as file:
        json.dump({"metrics": metrics, "output": output}, file, ensure_ascii=False)


def predict_lines(
    model: LukeForPretraining, lines: Sequence[str], tokenizer, entity_vocab, options: Options = Options()
) -> Iterator[dict]:
    """For each line, a question as JSON: its candidates by words and by entities."""
    examples = []
    for number, line in enumerate(lines, start=1):
        record = files.parse_record(line, f"line {number}")
        template = _check_template(record.get("template", str), record.where)
        subject, candidates = _label(record, "subject"), tuple(record.texts("candidates"))
        examples.append(Example(record.get("language", str, ""), "", template, subject, (), candidates))
    features = make_features(examples, tokenizer, entity_vocab, (), options)
    for example, prediction in zip(examples, predict(model, features, examples)):
        answer = {"question": example.question}
        for kind, scores in prediction._asdict().items():
            order = [place for place in np.argsort(-scores, kind="stable") if not np.isnan(scores[place])]
            answer[kind] = [{"candidate": example.candidates[place], "score": round(float(scores[place]), 4)}
                            for place in order[:SHOWN]]  # fmt: skip
        yield answer

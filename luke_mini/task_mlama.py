"""mLAMA: does a pretrained model know facts? Cloze questions, answered by its own heads; nothing is trained.

    "[X] has the capital [Y] ."   X = Norway   candidates: the objects of the relation, Oslo, Cape Town, ...

    n = 1    <s> Norway has the capital <mask> . </s>              entities: Norway (or [MASK], or none), [MASK] at Y
    n = 2    <s> Norway has the capital <mask> <mask> . </s>       the same

One input for each number n of tokens that a candidate has. Its two scores (mLUKE, section 5; Kassner et al. 2021):

    by words      mean over its n tokens of log softmax(word scores) at its <mask>, all masks filled in at once
    by entities   log softmax over the whole entity vocabulary at [MASK]; only for candidates that are entities

    records         a language's folder -> a record for each relation: template, candidates and facts
    from_record     -> questions: a template with a subject, and all objects that are right
    make_features   -> inputs, with the candidates of each
    predict         -> both scores of every candidate
    evaluate        -> top 1, 5, 10, 100: a question counts if one of its right objects is among the first k
What every task module offers: `finetuning.py`. Texts are tokenized as in pretraining, segment by segment, a candidate
as it would stand in the sentence. A candidate without a score stands behind all others; `coverage` says how many
questions have a right object with one. Left out: untyped queries, where every word of the vocabulary is a candidate.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from luke_mini import files, formats, packing, tasks, trainer
from luke_mini.config import ModelConfig
from luke_mini.examples import segments
from luke_mini.files import Record
from luke_mini.metrics import best_rank, probing_scores
from luke_mini.model import LukeForPretraining
from luke_mini.packing import PackedBatch

NAME, TITLE, _, FILES, FORMAT, Options, ALL_ENTITIES, _, TRAINS = tasks.MLAMA
SCORES = ("entity_coverage", "entity_top1", "top10", "top5", "top1")
ARCHITECTURE = "LukeForMaskedLM"
MAX_MENTION = 30  # tokens of a mention that its entity's position is the mean of, as in pretraining
SHOWN = 10  # candidates that --predict prints
KINDS = ("words", "entities")  # of scores


# --- Reading ----------------------------------------------------------------------------------------------------------

unmark = files.parse_record  # --predict takes JSON alone


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


def records(path: str | Path, options: Options = Options()) -> list[Record]:
    """The relations of a language: of its folder, of the templates.jsonl in it, or of a file of our own."""
    return formats.mlama(path, options.objects)


def from_record(
    record: Record, options: Options = Options(), labels: Sequence[str] | None = None
) -> list[Example]:
    """A question for each fact of a relation; a line of --predict is a question itself."""
    template, candidates = record.get("template", str), tuple(record.texts("candidates"))
    if sorted(re.findall(r"\[[XY]\]", template)) != ["[X]", "[Y]"]:
        found = f"field 'template' is {template[:60]!r}"
        raise ValueError(f"{record.where}: {found}, expected [X] and [Y] in it, each once")
    of_all = record.get("language", str, ""), record.get("relation", str, ""), template
    if labels is not None:
        return [Example(*of_all, formats.stripped(record, "subject"), (), candidates)]
    examples = []
    for fact in record.list("facts"):
        if not (answers := tuple(fact.texts("answers"))):
            raise ValueError(f"{fact.where}: field 'answers' is empty, expected at least one")
        examples.append(Example(*of_all, formats.stripped(fact, "subject"), answers, candidates))
    return examples


def describe(examples: Sequence[Example]) -> str:
    """What was found in a folder, and what guessing would give."""
    relations = len({example.relation for example in examples})
    chance = sum(len(set(x.answers) & set(x.candidates)) / max(1, len(x.candidates)) for x in examples) / len(examples)
    return f"{relations} relations; a random candidate is right in {chance:.1%}"


# --- Features ---------------------------------------------------------------------------------------------------------


class Candidates(NamedTuple):
    """The candidates of a template that have n tokens."""

    places: np.ndarray  # int64 [C], in the list of all candidates
    word_ids: np.ndarray  # int64 [C, n]
    entity_ids: np.ndarray  # int64 [C], -1 = no entity


class Feature(NamedTuple):
    """A question with n masks."""

    example: int  # index in the list of examples
    sequence: packing.Sequence  # the object's [MASK] is its last entity, if it has entities
    first_mask: int  # place of the first <mask> in the sequence
    candidates: Candidates


def make_features(
    examples: Sequence[Example], tokenizer, entity_vocab, labels: Sequence[str] = (), options: Options = Options()
) -> list[Feature]:
    """For each question one input for each number of tokens that its candidates have."""
    cuts = [_cut(example) for example in examples]
    segments = list(dict.fromkeys(chain.from_iterable(cuts)))
    ids = tokenizer.encode_pieces(segments, [False] * len(segments))
    ids_of = dict(zip(segments, ids))
    known: dict[tuple, list[Candidates]] = {}  # questions of a template share their candidates
    features = []
    for index, (example, cut) in enumerate(zip(examples, cuts)):
        parts, tokens = _parts(example.template), [ids_of[item] for item in cut]
        answer = parts.index("[Y]")
        prefix_space = cut[answer].startswith(" ")
        key = (example.language, example.candidates, prefix_space)
        if key not in known:
            known[key] = _group(example, prefix_space, tokenizer, entity_vocab)
        entities = _entities(example, entity_vocab, options)
        for candidates in known[key]:
            tokens[answer] = [tokenizer.mask_id] * candidates.word_ids.shape[1]
            sequence, first_mask = _input(parts, tokens, entities, tokenizer)
            if len(sequence.word_ids) <= options.max_seq_length:
                features.append(Feature(index, sequence, first_mask, candidates))
    return features


def _parts(template: str) -> list[str]:
    """Text, [X] or [Y], text, the other one, text; the texts may be empty."""
    return re.split(r"(\[[XY]\])", template)


def _cut(example: Example) -> list[str]:
    """The parts of a question as pretraining cuts a text, each with the space before it. Of [Y] only that counts."""
    filled = [{"[X]": example.subject, "[Y]": "Y"}.get(part, part) for part in _parts(example.template)]
    return segments("".join(filled), [0, *accumulate(map(len, filled))])


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


def _entities(example: Example, entity_vocab, options: Options) -> dict[str, int]:
    """Part of the template -> its entity, if it has one."""
    title = entity_vocab.get(example.subject, _language(example.language, entity_vocab))
    of_subject = {"title": title, "mask": entity_vocab.mask_id, "none": None}[options.subject]
    entities = {"[X]": of_subject, "[Y]": entity_vocab.mask_id}
    return {part: k for part, k in entities.items() if k is not None and not options.words_only}


def _input(
    parts: list[str], tokens: list[list[int]], entities: dict[str, int], tokenizer
) -> tuple[packing.Sequence, int]:
    """The input of a question with these token ids for its parts, and where those of [Y] begin."""
    spans = dict(zip(parts, pairwise(accumulate(map(len, tokens), initial=1))))  # behind <s>
    kept = [part for part in entities if spans[part][0] < spans[part][1]]  # a subject may have no tokens
    sequence = packing.Sequence(
        np.array([tokenizer.bos_id, *chain.from_iterable(tokens), tokenizer.eos_id]),
        np.array([entities[part] for part in kept], np.int64),
        np.array([spans[part] for part in kept], np.int64).reshape(-1, 2),
    )
    return sequence, spans["[Y]"][0]


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


Prediction = dict[str, np.ndarray]  # kind -> natural logarithms, float32 [candidates] of a question, nan = none


def predict(
    model: LukeForPretraining, features: Sequence[Feature], examples: Sequence[Example], batch_size: int = 32
) -> list[Prediction]:
    """Both scores of every candidate of each question. batch_size: inputs, each with a row of entity scores."""
    predictions = [{kind: np.full(len(x.candidates), np.nan, np.float32) for kind in KINDS} for x in examples]
    lengths = [len(feature.sequence.word_ids) for feature in features]
    with trainer.predicting(model):
        for batch_indices in trainer.long_to_short(lengths, batch_size):
            chosen = [features[i] for i in batch_indices]
            packed = packing.pack([feature.sequence for feature in chosen], model.config.pad_token_id, MAX_MENTION)
            packed = packed.to(model.word_head.bias.device)
            hidden = model.luke(packed)
            for kind, scores in zip(KINDS, (word_scores, entity_scores) if packed.n_entities else (word_scores,)):
                for feature, found in zip(chosen, scores(model, hidden, packed, chosen)):
                    predictions[feature.example][kind][feature.candidates.places] = found
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
    for prefix, kind in zip(("", "entity_"), KINDS):
        ranks: dict[str, list[int | None]] = {}
        for example, prediction in zip(examples, predictions):
            gold = [place for place, name in enumerate(example.candidates) if name in example.answers]
            ranks.setdefault(example.relation, []).append(best_rank(_or_none(prediction[kind]), gold))
        if kind == "words" or any(not np.isnan(prediction[kind]).all() for prediction in predictions):
            scores |= {prefix + name: value for name, value in probing_scores(ranks).items()}
    return scores


def prediction_files(examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, str]:
    """In the shape of mLUKE's own script.

    {"metrics": {"k1": ...}, "output": {question: {"answer", "template", "candidates": [[object, word score, entity
    score or null], ...]}}}; beside the first right "answer" there are all "answers".
    """
    output: dict[str, dict] = {}
    for example, prediction in zip(examples, predictions):
        question = example.question
        if question in output:  # another relation with the same words
            question += f" ({example.relation})"
        rows = zip(example.candidates, *(_or_none(prediction[kind]) for kind in KINDS))
        output[question] = {"answer": example.answers[0], "answers": example.answers, "template": example.template}
        output[question]["candidates"] = list(rows)
    metrics = {name.replace("top", "k"): value for name, value in evaluate(examples, predictions, ()).items()}
    return {"predictions.json": json.dumps({"metrics": metrics, "output": output}, ensure_ascii=False)}


def answer(examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict:
    """What --predict prints for a question: its likeliest candidates by words and by entities."""
    (example,), (prediction,) = examples, predictions
    ranking = {"question": example.question}
    for kind, scores in prediction.items():
        order = [place for place in np.argsort(-scores, kind="stable") if not np.isnan(scores[place])]
        ranking[kind] = [{"candidate": example.candidates[place], "score": round(float(scores[place]), 4)}
                         for place in order[:SHOWN]]  # fmt: skip
    return ranking

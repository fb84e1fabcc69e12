"""Entity typing: what kinds of thing a mention is; none, one or many types.

Open Entity in the LUKE paper (Yamada et al. 2020, section 4.1): the nine general types of the ultra-fine entity typing
data (Choi et al. 2018). All of that data's types, and anybody's own, as well:

    from_record     a record as first published, as LUKE's authors had it or your own -> texts with a mention
    make_features   -> `<s> <ent> Ada <ent> met Bo . </s>`, and one entity, [MASK], at the pieces of the mention,
                    markers included
    build_model     encoder, dropout, one linear layer over the entity: a yes or no for each type
    predict         -> the types whose logit is positive, possibly none
    evaluate        -> loose micro precision, recall and F1, and the loose macro scores of ultra-fine typing
What every task module offers: `finetuning.py`.

Spans are half-open, in characters. Left out: types that no training mention has (of the 10,331 ultra-fine ones most),
and an answer for mentions without a positive logit, which other work on ultra-fine types gives.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from luke_mini import files, formats, inputs, tasks, trainer
from luke_mini.config import ModelConfig
from luke_mini.heads import MentionFeature, TaskModel, mention_model
from luke_mini.inputs import CharSpan
from luke_mini.metrics import typing_scores
from luke_mini.files import Record

NAME, TITLE, _, FILES, FORMAT, Options, ALL_ENTITIES, _, TRAINS = tasks.TYPING
SCORES = ("precision", "recall", "macro_f1", "f1")
ARCHITECTURE = "LukeForEntityClassification"
OPEN_ENTITY = ("entity", "event", "group", "location", "object", "organization", "person", "place", "time")


# --- Reading ----------------------------------------------------------------------------------------------------------

unmark = formats.unmark


class Example(NamedTuple):
    text: str
    mention: CharSpan
    types: tuple[str, ...]


def records(path: str | Path, options: Options = Options()) -> list[Record]:
    kept = OPEN_ENTITY if options.types == "general" else None
    return [formats.open_entity(record, kept) for record in files.read_records(path)]


def from_record(record: Record, options: Options = Options(), labels: Sequence[str] | None = None) -> list[Example]:
    """Its mentions; those of a line of --predict may be empty."""
    text, spans, is_line = record.get("text", str), record.list("spans"), labels is not None
    if not spans and is_line:
        raise ValueError(f"{record.where}: field 'spans' is empty, expected at least one mention")
    types = [() if is_line else tuple(dict.fromkeys(item.texts("labels"))) for item in spans]
    return [Example(text, item.span(text, may_be_empty=is_line), names) for item, names in zip(spans, types)]


def describe(examples: Sequence[Example]) -> str:
    """What was found in a file, for the log. ValueError if there is nothing to score."""
    found = [name for example in examples for name in example.types]
    if not found:
        raise ValueError(f"{len(examples)} mentions, all of them without a type: expected at least one")
    untyped = sum(not example.types for example in examples)
    return f"{len(found)} types, {len(set(found))} different ones; {untyped} mentions have none"


def label_list(examples: Sequence[Example]) -> tuple[str, ...]:
    """The types of the training examples, sorted.

    `entity` joins the other eight of Open Entity: the training file as published lacks it, the dev file does not.
    """
    found = {name for example in examples for name in example.types}
    return OPEN_ENTITY if found | {"entity"} == set(OPEN_ENTITY) else tuple(sorted(found))


# --- Features ---------------------------------------------------------------------------------------------------------


def make_features(
    examples: Sequence[Example], tokenizer, entity_vocab, labels: Sequence[str], options: Options = Options()
) -> list[MentionFeature]:
    """One input for each example, but none for a mention that is longer than an input: see `skipped`."""
    type_ids = {name: i for i, name in enumerate(labels)}
    texts, spans = [example.text for example in examples], [[example.mention] for example in examples]
    made = inputs.mention_sequences(
        tokenizer, entity_vocab, texts, spans, task=inputs.ENTITY, max_length=options.max_seq_length,
        first_space=options.first_space,
    )  # fmt: skip
    return [
        MentionFeature(index, sequence, [type_ids[name] for name in example.types if name in type_ids], is_cut)
        for index, (example, (sequence, is_cut)) in enumerate(zip(examples, made))
        if sequence
    ]


def skipped(examples: Sequence[Example], features: Sequence[MentionFeature]) -> dict[str, int]:
    """What cannot be learned or answered and counts against recall; and texts of which a part is missing."""
    gold = sum(len(examples[feature.example].types) for feature in features)
    return {
        "mentions longer than an input": len(examples) - len(features),
        "types that the training file lacks": gold - sum(len(feature.label) for feature in features),
        "texts cut around their mention": sum(feature.is_cut for feature in features),
    }


# --- Model ------------------------------------------------------------------------------------------------------------


def build_model(config: ModelConfig, entity_vocab, labels: Sequence[str], options: Options = Options()) -> TaskModel:
    """Paper, section 4.1."""
    return mention_model(config, labels, options, n_states=1)


# --- Prediction and scores --------------------------------------------------------------------------------------------

Types = list[tuple[str, float]]  # of a mention: each one's name and probability, the sigmoid of its logit


def predict(
    model: TaskModel, features: Sequence[MentionFeature], examples: Sequence[Example], batch_size: int = 32
) -> list[Types]:
    """The types of each example, in the order of the model's labels; none for one that has no feature."""
    predictions: list[Types] = [[] for _ in examples]
    sizes = [len(feature.sequence.word_ids) for feature in features]
    for feature, (logits,) in zip(features, trainer.predict_logits(model, features, sizes, batch_size)):
        probability = logits.sigmoid().tolist()
        predictions[feature.example] = [(model.labels[k], probability[k]) for k in (logits > 0).nonzero()[:, 0]]
    return predictions


def evaluate(examples: Sequence[Example], predictions: Sequence[Types], features: Sequence[MentionFeature]) -> dict:
    """`metrics.typing_scores`: precision, recall and f1 are the loose micro ones."""
    guesses = [[name for name, _ in types] for types in predictions]
    return typing_scores([example.types for example in examples], guesses)


def prediction_files(examples: Sequence[Example], predictions: Sequence[Types]) -> dict[str, list]:
    """{"predictions": [...], "labels": [...]} for each mention, and its answer, for `views`."""
    answers = [
        {"predictions": [name for name, _ in types], "labels": list(example.types), **answer([example], [types])}
        for example, types in zip(examples, predictions)
    ]
    return {"predictions.jsonl": answers}


def answer(examples: Sequence[Example], predictions: Sequence[Types]) -> dict:
    """What --predict prints for a text: its mentions with their types."""
    mentions = []
    for (text, (start, end), _), types in zip(examples, predictions):
        found = [{"type": name, "probability": round(probability, 4)} for name, probability in types]
        mentions.append({"text": text[start:end], "start": start, "end": end, "types": found})
    return {"text": examples[0].text, "mentions": mentions}

"""Relation classification: how a head and a tail, two mentions in a text, are related.

TACRED in the LUKE paper (Yamada et al. 2020, section 4.2), KBP37 and RELX in the mLUKE paper, your own labels:

    from_record     a record of TACRED, KBP37, RELX or your own -> a text with two character spans
    make_features   -> `<s> <ent> Ada <ent> is a <ent2> chemist <ent2> . </s>`, and two entities, [MASK] for the head
                    and [MASK2] for the tail, at the tokens of their mentions, markers included
    build_model     encoder, dropout, one linear layer over [head; tail]
    predict         -> the best label of each example
    evaluate        -> micro F1 without `no_relation` (TACRED); of labels with a direction, such as per:title(e2,e1),
                    the macro F1 of SemEval-2010 task 8 (KBP37, RELX)
The interface of a task module: see `finetuning.py`.

Spans are half-open, in characters. Left out: the mentions' types, which TACRED gives and LUKE does not look at.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from luke_mini import formats, inputs, tasks, trainer
from luke_mini.checkpoint import Checkpoint
from luke_mini.config import ModelConfig
from luke_mini.heads import IGNORED, MentionFeature, TaskModel, mention_model
from luke_mini.inputs import CharSpan
from luke_mini.metrics import KBP37_RELATIONS, directional_scores, relation_scores, without_direction
from luke_mini.files import Record

NAME, TITLE, _, FILES, FORMAT, Options, ALL_ENTITIES, _, TRAINS = tasks.RELATION
SCORES = ("precision", "recall", "f1", "official_f1")
ARCHITECTURE = "LukeForEntityPairClassification"
NO_RELATION = "no_relation"
KBP37_LABELS = (NO_RELATION, *(relation + way for relation in KBP37_RELATIONS for way in ("(e1,e2)", "(e2,e1)")))
HEAD_INPUTS = {"entity": 2, "token": 2, "token+entity": 4}  # hidden states per example


# --- Reading ----------------------------------------------------------------------------------------------------------

unmark = formats.unmark_pair


class Example(NamedTuple):
    id: str
    text: str
    head: CharSpan  # TACRED's subject, KBP37's e1
    tail: CharSpan
    label: str


def records(path: str | Path, options: Options = Options()) -> list[Record]:
    return formats.relations(path)


def from_record(record: Record, options: Options = Options(), labels: Sequence[str] | None = None) -> list[Example]:
    text = record.get("text", str)
    head, tail = (
        Record(f"{record.where}, {name}", record.get(name, dict)).span(text, may_be_empty=True)  # some in KBP37 are
        for name in ("head", "tail")
    )
    label = record.get("label", str) if labels is None else ""
    return [Example(record.id(), text, head, tail, label)]


def is_directed(labels: Iterable[str]) -> bool:
    return any(without_direction(label) != label for label in labels)


def describe(examples: Sequence[Example]) -> str:
    """A summary of a file, for the log. ValueError if there is nothing to score."""
    related = [example.label for example in examples if example.label != NO_RELATION]
    if not related:
        raise ValueError(f"{len(examples)} examples, all of them {NO_RELATION}: expected at least one relation")
    kind = "directed labels" if is_directed(related) else "labels"
    return f"{len(related)} relations, {len({example.label for example in examples})} {kind}"


def label_list(examples: Sequence[Example]) -> tuple[str, ...]:
    """Class names, no_relation first: all 37 for KBP37, otherwise those in the training examples."""
    found = {example.label for example in examples}
    if is_directed(found) and found <= set(KBP37_LABELS):
        return KBP37_LABELS
    return (NO_RELATION,) * (NO_RELATION in found) + tuple(sorted(found - {NO_RELATION}))


def recipe_name(files: dict[str, Path], examples: dict[str, list[Example]], start: Checkpoint) -> str:
    return "kbp37" if label_list(examples["train"]) == KBP37_LABELS else "tacred"


# --- Features ---------------------------------------------------------------------------------------------------------


def make_features(
    examples: Sequence[Example], tokenizer, entity_vocab, labels: Sequence[str], options: Options = Options()
) -> list[MentionFeature]:
    """One input per example; none if head and tail overlap or are longer than an input: see `skipped`."""
    # differs from LUKE: with byte-level BPE, the markers of KBP37 and RELX follow a space like any word; mLUKE's code
    # attaches them to the word before. With SentencePiece, which mLUKE used, both are the same
    label_ids = {label: i for i, label in enumerate(labels)}
    chosen = [i for i, example in enumerate(examples) if not _overlap(example)]  # differs from LUKE: text appears twice
    texts, spans = [examples[i].text for i in chosen], [[examples[i].head, examples[i].tail] for i in chosen]
    made = inputs.mention_sequences(
        tokenizer, entity_vocab, texts, spans, task=inputs.PAIR, max_length=options.max_seq_length,
        first_space=options.first_space,
    )  # fmt: skip
    return [
        MentionFeature(i, sequence, label_ids.get(examples[i].label, IGNORED), is_cut)
        for i, (sequence, is_cut) in zip(chosen, made)
        if sequence
    ]


def _overlap(example: Example) -> bool:
    return example.head[1] > example.tail[0] and example.tail[1] > example.head[0]


def skipped(examples: Sequence[Example], features: Sequence[MentionFeature]) -> dict[str, int]:
    """Counts of examples without an input (scored as no_relation), of unknown labels, and of truncated texts."""
    missing = [examples[i] for i in sorted({*range(len(examples))} - {feature.example for feature in features})]
    overlaps = sum(map(_overlap, missing))
    return {
        "examples whose head and tail overlap": overlaps,
        "examples whose mentions are longer than an input": len(missing) - overlaps,
        "examples with a label that the training file lacks": sum(f.label == IGNORED for f in features),
        "texts cut around their mentions": sum(feature.is_cut for feature in features),
    }


# --- Model ------------------------------------------------------------------------------------------------------------


def build_model(config: ModelConfig, entity_vocab, labels: Sequence[str], options: Options = Options()) -> TaskModel:
    """Paper, section 4.2."""
    return mention_model(config, labels, options, HEAD_INPUTS[options.head], options.classifier_bias)


# --- Prediction and scores --------------------------------------------------------------------------------------------

Prediction = tuple[str, float]  # label and probability; 0 for an example without an input


def predict(
    model: TaskModel, features: Sequence[MentionFeature], examples: Sequence[Example], batch_size: int = 32
) -> list[Prediction]:
    """The best label of each example; no_relation for one that has no feature."""
    predictions = [(NO_RELATION, 0.0)] * len(examples)
    sizes = [len(feature.sequence.word_ids) for feature in features]
    for feature, (logits,) in zip(features, trainer.predict_logits(model, features, sizes, batch_size)):
        label = int(logits.numpy().argmax())  # the first of equal ones
        predictions[feature.example] = (model.labels[label], logits.softmax(dim=0)[label].item())
    return predictions


def evaluate(
    examples: Sequence[Example], predictions: Sequence[Prediction], features: Sequence[MentionFeature]
) -> dict[str, float | int]:
    """`metrics.relation_scores` or, for labels with a direction, `metrics.directional_scores`; and `official_f1`.

    official_f1: TACRED's micro F1; with a direction, macro F1 over KBP37's 18 relations or those of gold labels.
    """
    gold, guesses = [example.label for example in examples], [label for label, _ in predictions]
    if not is_directed(gold):
        scores = relation_scores(gold, guesses, NO_RELATION)
        return scores | {"official_f1": scores["f1"]}
    # differs from LUKE: its mean is over the relations that happen to occur in the file or in the predictions.
    relations = KBP37_RELATIONS if set(gold) <= set(KBP37_LABELS) else None
    scores = directional_scores(gold, guesses, relations, NO_RELATION)
    return scores | {"official_f1": scores["macro_f1"]}


def prediction_files(examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, str | list]:
    """For the official scorers: one label per line, with a direction after its id and a tab. For `views`: answers."""
    with_id = is_directed(example.label for example in examples)
    lines = [f"{example.id}\t" * with_id + label + "\n" for example, (label, _) in zip(examples, predictions)]
    answers = [answer([e], [found]) | {"gold": e.label} for e, found in zip(examples, predictions)]
    return {"predictions.txt": "".join(lines), "predictions.jsonl": answers}


def answer(examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict:
    """What --predict prints for a text: its relation."""
    (example,), ((label, probability),) = examples, predictions
    mentions = {
        name: {"text": example.text[start:end], "start": start, "end": end}
        for name, (start, end) in (("head", example.head), ("tail", example.tail))
    }
    return {"text": example.text, **mentions, "label": label, "probability": round(probability, 4)}

"""Text classification: one text or two, and a class, a number or the right choice (LUKE-Japanese on JGLUE).

Nothing but words goes in. Four forms, which a file's fields give away; C classes:

    single      one text                        class       C scores          accuracy             MARC-ja
    pair        two texts                       class       C scores          accuracy             JNLI
    regression  one or two, label a number      number      1 score           Pearson, Spearman    JSTS
    choice      a question and its choices      number of   1 score for each  accuracy             JCommonsenseQA
                                                the right   choice

    read_examples   JSON lines -> examples
    make_features   -> <s> A </s>, <s> A </s></s> B </s>, or for a choice one such pair for each of them
    TextModel       encoder, tanh layer over `<s>` (pooler), dropout, one linear layer
    predict         -> the class or choice with its probability, or the number
    evaluate        -> the scores above, and as `score` the one to compare: accuracy, or Pearson's correlation
What every task module offers: `finetuning.py`. The recipes are JGLUE's, which cut the longer text of a pair first.
Left out: several labels for one text.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luke_mini import files, formats, inputs, optim, packing, tasks, trainer
from luke_mini.checkpoint import Checkpoint
from luke_mini.config import ModelConfig
from luke_mini.heads import HEADS, IGNORED, RowClassifier, first_words, head_dropout
from luke_mini.metrics import accuracy, pearson, spearman
from luke_mini.model import LukeModel
from luke_mini.files import Record

NAME, TITLE, _, FILES, FORMAT, Options, ALL_ENTITIES, _, TRAINS = tasks.CLASSIFICATION
SCORES = ("accuracy", "pearson", "spearman", "score")  # those that the form has
ARCHITECTURE = ("LukeForSequenceClassification", "LukeForMultipleChoice")
NUMBER = ("number",)  # the labels of a regression: one score, whose name config.json wants; a class is never alone


# --- Reading ----------------------------------------------------------------------------------------------------------


class Example(NamedTuple):
    texts: tuple[str, ...]  # one text; two texts; a question and its choices, of which there are two at least
    label: str | float | int | None  # class; number; which choice, from 0; None: it is to be found

    @property
    def is_choice(self) -> bool:
        return len(self.texts) > 2


def unmark(line: str, where: str) -> Record:
    """Texts between tabs."""
    return Record(where, {"texts": line.split("\t")})


def records(path: str | Path, options: Options = Options()) -> list[Record]:
    return [formats.jglue(record) for record in files.read_records(path)]


def read_examples(path: str | Path, options: Options = Options()) -> list[Example]:
    """The examples of a file of JSON lines (or of one list), all of one form."""
    examples: list[Example] = []
    for record in records(path, options):
        examples += from_record(record, options)
        wanted, kind = _kind(examples[0]), _kind(examples[-1])
        if kind != wanted:
            raise ValueError(f"{record.where}: {kind}, expected {wanted} like the file's first")
    return examples


def from_record(record: Record, options: Options = Options(), labels: Sequence[str] | None = None) -> list[Example]:
    """With labels, ValueError also if a model with these is not for such texts."""
    between_tabs = list(record.values) == ["texts"]  # see `unmark`
    texts = tuple(record.texts("texts")) if between_tabs else _texts(formats.jglue(record))
    if labels is None:
        return [Example(texts, _label(record, len(texts), options))]
    if (len(texts) > 2) == bool(labels) and between_tabs:
        expected = "one text or two" if labels else "a question and at least 2 choices"
        raise ValueError(f"{record.where}: {len(texts)} texts between tabs, expected {expected}")
    example = Example(texts, None)
    _check(example, labels, f"{record.where}: ")
    return [example]


def _texts(record: Record) -> tuple[str, ...]:
    if "choices" in record.values:
        choices = record.texts("choices")
        if len(choices) < 2:
            raise ValueError(f"{record.where}: {len(choices)} choices, expected at least 2")
        return record.get("question", str), *choices
    if "text_pair" in record.values:
        return record.get("text", str), record.get("text_pair", str)
    return (record.get("text", str),)


def _label(record: Record, n_texts: int, options: Options) -> str | float | int:
    if n_texts > 2:
        label, last = record.get("label", int), n_texts - 2
        if not 0 <= label <= last:
            raise ValueError(f"{record.where}: field 'label' is {label}, expected a choice from 0 to {last}")
        return label
    if isinstance(record.values.get("label"), str):
        return record.get("label", str)
    label = record.get("label", float)
    if not math.isfinite(label):
        raise ValueError(f"{record.where}: field 'label' is {label}, expected a finite number")
    if options.numbers == "regression":
        return float(label)
    return str(int(label) if label == int(label) else label)  # 3 and 3.0 are the same class


def _kind(example: Example) -> str:
    if example.is_choice:
        return "a question with choices"
    what = "a number" if isinstance(example.label, float) else "a class"
    return f"{'one text' if len(example.texts) == 1 else 'two texts'} with {what}"


def _check(example: Example, labels: Sequence[str], where: str = "") -> None:
    """The form of an example fits what the model was trained for."""
    wanted = ("questions with choices", "numbers as labels", "classes as labels")[min(len(labels), 2)]
    fits = example.is_choice == (not labels)
    if example.label is not None and not example.is_choice:
        fits &= isinstance(example.label, float) == (len(labels) == 1)
    if not fits:
        raise ValueError(f"{where}the examples are {_kind(example)} each, the model is trained for {wanted}")


def describe(examples: Sequence[Example]) -> str:
    """The form of a file, and what guessing the same for all of it would give."""
    kind = f"each {_kind(examples[0])}"
    labels = [example.label for example in examples]
    if isinstance(labels[0], float):
        return f"{kind}, from {min(labels):g} to {max(labels):g}, on average {sum(labels) / len(labels):.2f}"
    if examples[0].is_choice:
        counts = sorted({len(example.texts) - 1 for example in examples})
        return f"{kind}, {counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} of them"
    (most, count), *_ = Counter(labels).most_common()
    return f"{kind}; {len(set(labels))} classes, {count / len(labels):.1%} {most}"


def label_list(examples: Sequence[Example]) -> tuple[str, ...]:
    """The classes of the training examples, sorted by name; NUMBER for a regression, () for choices."""
    if examples[0].is_choice:
        return ()
    labels = {example.label for example in examples}
    if isinstance(examples[0].label, float):
        return NUMBER
    if len(labels) < 2:
        raise ValueError(f"all {len(examples)} training examples are {min(labels)!r}: expected two classes or more")
    return tuple(sorted(labels))


def recipe_name(files: dict[str, Path], examples: dict[str, list[Example]], start: Checkpoint) -> str:
    first = examples["train"][0]
    if isinstance(first.label, float):
        return "jsts"
    return ("marc-ja", "jnli", "jcommonsenseqa")[min(len(first.texts), 3) - 1]


# --- Features ---------------------------------------------------------------------------------------------------------


class Feature(NamedTuple):
    example: int  # index in the list of examples
    sequences: list[packing.Sequence]  # one, or one for each choice
    label: int | float  # class, IGNORED if the training file lacks it; number; choice
    is_cut: bool  # a text was longer than max_seq_length


def make_features(
    examples: Sequence[Example], tokenizer, entity_vocab, labels: Sequence[str], options: Options = Options()
) -> list[Feature]:
    """One feature for each example. ValueError if they are no examples for a model with these labels."""
    if not examples:
        return []
    _check(examples[0], labels)
    pairs = [(example.texts[0], second) for example in examples for second in example.texts[1:] or [None]]
    sequences = inputs.encode_sequences(tokenizer, entity_vocab, *map(list, zip(*pairs)))
    too_long = {k for k, sequence in enumerate(sequences) if len(sequence.word_ids) > options.max_seq_length}
    for k in too_long:
        texts = ([text] for text in pairs[k])
        (sequences[k],) = inputs.encode_sequences(tokenizer, entity_vocab, *texts, max_length=options.max_seq_length)
    ids = {label: i for i, label in enumerate(labels)}
    features, first = [], 0
    for index, example in enumerate(examples):
        rows = range(first, first + max(1, len(example.texts) - 1))
        label = ids.get(example.label, IGNORED) if len(labels) > 1 else example.label
        features.append(Feature(index, sequences[rows.start : rows.stop], label, not too_long.isdisjoint(rows)))
        first = rows.stop
    return features


def skipped(examples: Sequence[Example], features: Sequence[Feature]) -> dict[str, int]:
    unheard = [x for x in features if x.label == IGNORED and not isinstance(x.label, float)]  # a number may be -100
    return {
        "labels that the training file lacks": len(unheard),
        "examples cut to the maximal length": sum(feature.is_cut for feature in features),
    }


# --- Batches and model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextBatch(packing.MicroBatch):
    """packed: all choices of the first example, of the second, ..."""

    rows_per_input: tuple[int, ...]  # 1 for each
    n_choices: Tensor  # int64 [batch], sequences of each example
    labels: Tensor  # int64 [batch], classes or choices; float32 [batch], numbers

    @property
    def counts(self) -> dict[str, int]:
        return {"text": len(self.labels) if self.labels.is_floating_point() else int((self.labels != IGNORED).sum())}


class TextModel(nn.Module):
    """The encoder, its pooler, and one linear layer; `labels` say what for, see `label_list`."""

    def __init__(self, config: ModelConfig, labels: Sequence[str]):
        super().__init__()
        self.config, self.labels, self.is_regression = config, tuple(labels), len(labels) == 1
        self.architecture = ARCHITECTURE[0 if labels else 1]
        self.luke = LukeModel(config)
        dropout = head_dropout(HEADS[self.architecture], config)
        self.classifier = RowClassifier(config.hidden_size, 1, max(1, len(labels)), dropout=dropout)

    def collate(self, features: Sequence[Feature]) -> TextBatch:
        packed = packing.pack([sequence for x in features for sequence in x.sequences], self.config.pad_token_id)
        kind = torch.float32 if self.is_regression else torch.int64
        labels = torch.tensor([IGNORED if x.label is None else x.label for x in features], dtype=kind)
        return TextBatch(packed, (1,) * len(features), torch.tensor([len(x.sequences) for x in features]), labels)

    def logits(self, batch: TextBatch) -> Tensor:
        """float32 [batch, classes]; [batch] of numbers; [batch, most choices], -inf where a question has fewer."""
        (rows,) = first_words(batch.packed)
        hidden = self.luke(batch.packed).index_select(0, rows)
        scores = self.classifier(self.luke.pool(hidden)).float()
        if self.labels:
            return scores[:, 0] if self.is_regression else scores
        is_choice = torch.arange(int(batch.n_choices.max()), device=rows.device) < batch.n_choices[:, None]
        return torch.full(is_choice.shape, -math.inf, device=rows.device).masked_scatter(is_choice, scores[:, 0])

    def forward(self, batch: TextBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """What `trainer` asks for: summed losses (squares of differences, cross-entropies) and hits.

        A number is hit if it is the label when rounded to whole numbers.
        """
        scores = self.logits(batch)
        if self.is_regression:
            difference = scores - batch.labels
            return {"text": (difference.square().sum(), (difference.abs() < 0.5).sum())}
        loss = F.cross_entropy(scores, batch.labels, ignore_index=IGNORED, reduction="sum")
        return {"text": (loss, (scores.argmax(dim=1) == batch.labels).sum())}


def build_model(config: ModelConfig, entity_vocab, labels: Sequence[str], options: Options = Options()) -> TextModel:
    """The model with weights yet to be filled in."""
    model = TextModel(config, labels)
    optim.freeze_idle(model.luke, pooler=True, entities=False)
    return model


# --- Prediction and scores --------------------------------------------------------------------------------------------


# The label, as in Example; softmax over classes or choices, None for a number.
Prediction = tuple[str | float | int, float | None]


def predict(
    model: TextModel, features: Sequence[Feature], examples: Sequence[Example], batch_size: int = 32
) -> list[Prediction]:
    """The likeliest class or choice of each example, or its number."""
    predictions: list[Prediction | None] = [None] * len(examples)
    sizes = [sum(len(sequence.word_ids) for sequence in feature.sequences) for feature in features]
    for feature, (scores,) in zip(features, trainer.predict_logits(model, features, sizes, batch_size)):
        if model.is_regression:
            predictions[feature.example] = (scores.item(), None)
        else:
            best = scores.softmax(dim=0).max(dim=0)
            k = best.indices.item()
            predictions[feature.example] = (model.labels[k] if model.labels else k, best.values.item())
    return predictions


def evaluate(examples: Sequence[Example], predictions: Sequence[Prediction], features: Sequence[Feature]) -> dict:
    """accuracy, or pearson and spearman, as fractions; `score` is the first of them."""
    gold, found = [example.label for example in examples], [label for label, _ in predictions]
    if isinstance(gold[0], float):
        scores = {"pearson": pearson(gold, found), "spearman": spearman(gold, found)}
    else:
        scores = {"accuracy": accuracy(gold, found)}
    return scores | {"score": next(iter(scores.values()))}


def prediction_files(examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, list]:
    """{"prediction": ..., "label": ...} for each example."""
    labels = zip(examples, predictions)
    return {"predictions.jsonl": [{"prediction": label, "label": example.label} for example, (label, _) in labels]}


def answer(examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict:
    """What --predict prints: texts with their label."""
    (example,), ((label, probability),) = examples, predictions
    found = {"texts": list(example.texts), "label": label}
    return found if probability is None else found | {"probability": round(probability, 4)}

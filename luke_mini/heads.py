"""The heads of the released fine-tuned models: an encoder and one linear layer over the hidden states of some rows.

In: a packed batch and the rows that a head looks at, or Hugging Face's padded tensors by name. Out: scores, and the
loss if there are labels. H is the hidden size, C the number of classes.

    architecture (LukeFor...)     the layer sees                              a score for
    EntityClassification          the first entity                    H       each sequence: typing
    EntityPairClassification      the first and the second entity    2H       each sequence: relations; without bias
    EntitySpanClassification      [first word; last word; entity]    3H       each entity: NER
    SequenceClassification        pooled `<s>`                        H       each sequence
    TokenClassification           the word                            H       each word
    QuestionAnswering             the word; C = 2, start and end      H       each word, no dropout
    MultipleChoice                pooled `<s>` of each choice; C = 1  H       each choice

Fine-tuning has one model for most tasks: `TaskModel` classifies the rows that a task's `collate` selected (see
task_ner.py). Masked words and entities are `LukeForPretraining`.
Dropout of the entity heads and the loss of each are transformers'. Padding is no row of a packed batch and so in no
loss: the differences that this makes are marked below.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luke_mini import ops, optim, packing
from luke_mini.config import ModelConfig
from luke_mini.model import LukeModel
from luke_mini.packing import MicroBatch, PackedBatch

IGNORED = -100  # a label that counts for nothing


class RowClassifier(nn.Linear):
    """Dropout and one linear layer over hidden states laid side by side: `inputs` tensors [n, H] -> [n, classes]."""

    def __init__(self, hidden_size: int, inputs: int, classes: int, bias: bool = True, dropout: float = 0.0):
        super().__init__(inputs * hidden_size, classes, bias)
        self.dropout = dropout

    def forward(self, *states: Tensor) -> Tensor:
        seen = torch.cat(states, dim=1) if len(states) > 1 else states[0]
        return super().forward(ops.dropout(seen, self.dropout, self.training))


# --- Which rows -------------------------------------------------------------------------------------------------------


def first_entities(batch: PackedBatch, n: int) -> tuple[Tensor, ...]:
    """Rows of the first, second, ... n-th entity of every sequence, n tensors int64 [batch]; see `_existing`."""
    for sequence, (words, found) in enumerate(zip(batch.word_lengths, batch.entity_lengths)):
        if found < n and words:
            raise ValueError(f"sequence {sequence} of the batch has {found} entities, this head looks at {n}")
    first = batch.n_words + batch.cu_entities[:-1].long()
    return tuple(_existing(first + k, batch) for k in range(n))


def first_words(batch: PackedBatch) -> tuple[Tensor]:
    """Rows of `<s>`, int64 [batch]; see `_existing`."""
    return (_existing(batch.cu_words[:-1].long(), batch),)


def _existing(rows: Tensor, batch: PackedBatch) -> Tensor:
    """A sequence that is all padding has no rows, but some row has to be read for it: its score is not looked at."""
    return rows.clamp(max=batch.n_words + batch.n_entities - 1)


def span_rows(batch: PackedBatch, starts: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the first word, the last word and the entity itself, for every entity of the batch, 3 x int64 [E].

    starts, ends: int64 [E], word index within the entity's sequence, both inclusive.
    """
    lengths = torch.tensor(batch.entity_lengths, device=starts.device)
    offset = torch.repeat_interleave(batch.cu_words[:-1].long(), lengths)  # row of `<s>` of the entity's sequence
    return offset + starts, offset + ends, batch.n_words + torch.arange(batch.n_entities, device=starts.device)


# --- Losses -----------------------------------------------------------------------------------------------------------


def classification_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """scores [n, C]. labels int64 [n]: mean cross-entropy, -100 is ignored; [n, C] of 0 and 1: mean of n * C binary.

    differs from transformers: with 0/1 labels for spans, entities of padding are in no mean.
    """
    if labels.dim() == 1:
        return F.cross_entropy(scores, labels, ignore_index=IGNORED)
    return F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype))


def sequence_loss(scores: Tensor, labels: Tensor, problem_type: str | None = None) -> Tensor:
    """Loss of a sequence head: scores [batch, C].

    problem_type is that of config.json: "regression", "single_label_classification", "multi_label_classification";
    None: regression for C = 1, else the second for integer labels and the third for others.
    """
    integers = not labels.is_floating_point()
    if problem_type == "regression" or (problem_type is None and scores.shape[1] == 1):
        return F.mse_loss(scores.reshape(-1), labels.reshape(-1).to(scores.dtype))
    if problem_type == "single_label_classification" or (problem_type is None and integers):
        return classification_loss(scores, labels.view(-1))
    return classification_loss(scores, labels)


def answer_loss(scores: Tensor, mask: Tensor | None, starts: Tensor, ends: Tensor) -> Tensor:
    """Mean of the cross-entropies of start and end over the words of each sequence.

    scores [batch, seq, 2], mask [batch, seq] (1 = a word) or None, starts and ends int64 [batch]. A position outside
    the sequence is ignored: the answer is not in this part of the text. 0 if all are.
    differs from transformers: padding, wherever it is, competes for no answer, and a position there is outside, too.
    """
    is_word = torch.ones_like(scores[:, :, 0], dtype=torch.bool) if mask is None else mask.bool()
    losses = []
    for column, positions in ((0, starts), (1, ends)):
        labels = positions.view(-1, 1).clamp(min=0)
        inside = (labels < is_word.shape[1]) & is_word.gather(1, labels.clamp(max=is_word.shape[1] - 1))
        labels = torch.where(inside, labels, IGNORED)[:, 0]
        loss = F.cross_entropy(scores[:, :, column], labels, ignore_index=IGNORED, reduction="sum")
        losses.append(loss / inside.sum().clamp(min=1))
    return (losses[0] + losses[1]) / 2


# --- A task's model ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch(MicroBatch):
    """A micro-batch of a task: which rows are classified, and as what."""

    rows_per_input: tuple[int, ...]  # predictions for each input
    rows: tuple[Tensor, ...]  # int64 [n] each: rows of the encoder's output, laid side by side before the classifier
    labels: Tensor  # int64 [n] (IGNORED: no label), or float32 [n, classes] of 0 and 1

    @property
    def counts(self) -> dict[str, int]:
        return {"label": self.labels.numel()}


class TaskModel(nn.Module):
    """The encoder, dropout, and one linear layer over selected hidden states.

    head: what the classifier sees, in the task's words. n_states: hidden states per prediction. collate: the task's
    function from features to a Batch.
    """

    def __init__(
        self, luke: LukeModel, labels: Sequence[str], head: str, n_states: int, collate: Callable, bias: bool = True
    ):
        super().__init__()
        self.config, self.labels, self.head, self.collate = luke.config, tuple(labels), head, collate
        self.luke = luke
        size, dropout = luke.config.hidden_size, luke.config.hidden_dropout_prob
        self.classifier = RowClassifier(size, n_states, max(1, len(labels)), bias, dropout)

    def logits(self, batch: Batch) -> Tensor:
        """[n, classes]"""
        hidden = self.luke(batch.packed)
        return self.classifier(*(hidden.index_select(0, row) for row in batch.rows))

    def forward(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """What `trainer` asks for: the summed loss and the number of correct predictions."""
        logits, labels = self.logits(batch).float(), batch.labels
        if labels.is_floating_point():
            loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
            return {"label": (loss, ((logits > 0) == (labels > 0)).sum())}
        loss = F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED)
        return {"label": (loss, (logits.argmax(dim=1) == labels).sum())}


class MentionFeature(NamedTuple):
    """An input with one marked mention, or two."""

    example: int  # index in the list of examples
    sequence: packing.Sequence
    label: int | list[int]  # the class, or IGNORED; a list: the classes that hold, of which there may be none
    is_cut: bool  # the text was longer than max_seq_length


def collate_mentions(
    features: Sequence[MentionFeature], n_classes: int, head: str, pad_id: int, max_mention: int
) -> Batch:
    """head: what is classified, "entity", "token" (the marker in front of the mention) or both.

    Without entities in it the encoder sees words alone, the papers' baseline.
    """
    sequences, labels = [feature.sequence for feature in features], [feature.label for feature in features]
    markers = torch.stack([torch.from_numpy(sequence.spans[:, 0]) for sequence in sequences])  # [batch, mentions]
    if "entity" not in head:
        sequences = [packing.Sequence(s.word_ids, s.entity_ids[:0], s.spans[:0]) for s in sequences]
    packed = packing.pack(sequences, pad_id, max_mention)
    rows = (markers + packed.cu_words[:-1, None]).unbind(dim=1) if "token" in head else ()
    rows += first_entities(packed, markers.shape[1]) if "entity" in head else ()
    return Batch(packed, (1,) * len(sequences), rows, _label_tensor(labels, n_classes))


def _label_tensor(labels: Sequence[int] | Sequence[list[int]], n_classes: int) -> Tensor:
    """The `labels` of a Batch."""
    if isinstance(labels[0], int):
        return torch.tensor(labels)
    held = torch.zeros(len(labels), n_classes)
    for row, classes in zip(held, labels):
        row[classes] = 1
    return held


def mention_model(
    config: ModelConfig, labels: Sequence[str], options, n_states: int, bias: bool = True
) -> TaskModel:
    """The model for marked mentions, its weights still to be loaded. options: the task's, with head and max_mention."""
    collate = partial(
        collate_mentions, n_classes=len(labels), head=options.head, pad_id=config.pad_token_id,
        max_mention=options.max_mention,
    )  # fmt: skip
    model = TaskModel(LukeModel(config), labels, options.head, n_states, collate, bias)
    optim.freeze_idle(model.luke, entities="entity" in options.head)
    return model


# --- Released models --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """What tells one head from another."""

    sees: str  # "entities", "span", "word" or "first" (pooled `<s>`)
    inputs: int = 1  # hidden states side by side
    bias: bool = True
    pooler: bool = True  # released with one
    dropout: str = "hidden"  # "classifier": classifier_dropout, if the configuration has it; "none"


HEADS = {
    "LukeForEntityClassification": Head("entities"),
    "LukeForEntityPairClassification": Head("entities", inputs=2, bias=False),
    "LukeForEntitySpanClassification": Head("span", inputs=3),
    "LukeForSequenceClassification": Head("first", dropout="classifier"),
    "LukeForTokenClassification": Head("word", pooler=False, dropout="classifier"),
    "LukeForQuestionAnswering": Head("word", pooler=False, dropout="none"),
    "LukeForMultipleChoice": Head("first", dropout="classifier"),
}


def head_dropout(head: Head, config: ModelConfig) -> float:
    if head.dropout == "none":
        return 0.0
    given = head.dropout == "classifier" and config.classifier_dropout is not None
    return config.classifier_dropout if given else config.hidden_dropout_prob


class LukeForTask(nn.Module):
    """An encoder under one of the HEADS.

    bias: None is the head's own rule; the mLUKE model for KBP37 has a bias in a pair head, against it.
    """

    def __init__(
        self, config: ModelConfig, architecture: str, classes: int, bias: bool | None = None,
        problem_type: str | None = None,
    ):  # fmt: skip
        super().__init__()
        self.config, self.architecture, self.problem_type = config, architecture, problem_type
        self.head = head = HEADS[architecture]
        self.luke = LukeModel(config, with_pooler=head.pooler)
        bias = head.bias if bias is None else bias
        self.classifier = RowClassifier(config.hidden_size, head.inputs, classes, bias, head_dropout(head, config))

    def scores(self, batch: PackedBatch, rows: tuple[Tensor, ...] | None = None) -> Tensor:
        """Packed: scores [n, C]. rows: `span_rows`, for a span head; the others find their rows themselves.

        A score for each sequence is 0 for one without words, as the last of a batch that is filled up with padding.
        """
        if self.head.sees == "span" and rows is None:
            raise ValueError("a span head needs the rows of the spans, see span_rows")
        if self.head.sees == "entities":
            rows = first_entities(batch, self.head.inputs)
        hidden = self.luke(batch)
        if self.head.sees == "word":
            return self.classifier(hidden[: batch.n_words])
        if self.head.sees == "first":
            scores = self.classifier(self.luke.pool(hidden.index_select(0, *first_words(batch))))
        else:
            scores = self.classifier(*(hidden.index_select(0, row) for row in rows))
        if self.head.sees == "span" or all(batch.word_lengths):
            return scores
        is_empty = torch.tensor(batch.word_lengths, device=scores.device) == 0
        return scores.masked_fill(is_empty[:, None], 0.0)

    def forward(
        self, *, input_ids: Tensor, attention_mask: Tensor | None = None, entity_ids: Tensor | None = None,
        entity_position_ids: Tensor | None = None, entity_attention_mask: Tensor | None = None,
        entity_start_positions: Tensor | None = None, entity_end_positions: Tensor | None = None,
        labels: Tensor | None = None, start_positions: Tensor | None = None, end_positions: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:  # fmt: skip
        """Padded tensors as Hugging Face names and shapes them -> (loss or None, scores).

        Scores: [batch, C]; of a span head [batch, entities, C], of words [batch, seq, C], zero at padding, in question
        answering -inf there; of choices [batch, choices], where the inputs are [batch, choices, ...]. The loss needs
        labels; in question answering start_positions and end_positions. Labels of padding must be -100.
        """
        inputs = (input_ids, attention_mask, entity_ids, entity_position_ids, entity_attention_mask)
        if self.architecture == "LukeForMultipleChoice":
            inputs = tuple(None if tensor is None else tensor.flatten(0, 1) for tensor in inputs)
        batch = packing.from_padded(*inputs, pad_id=self.config.pad_token_id)
        if self.head.sees == "span":
            if entity_start_positions is None or entity_end_positions is None:
                raise ValueError("a span head needs entity_start_positions and entity_end_positions")
            ends = (entity_start_positions, entity_end_positions)
            ends = (_packed_index(positions, attention_mask, entity_attention_mask) for positions in ends)
            scores = self.scores(batch, span_rows(batch, *ends))
            return _per_row(scores, entity_attention_mask, entity_ids.shape, labels)
        scores = self.scores(batch)
        if self.architecture == "LukeForQuestionAnswering":
            _, scores = _per_row(scores, attention_mask, input_ids.shape, None)
            if attention_mask is not None:
                scores = scores.masked_fill(~attention_mask.bool()[:, :, None], float("-inf"))
            if start_positions is None or end_positions is None:
                return None, scores
            return answer_loss(scores, attention_mask, start_positions, end_positions), scores
        if self.head.sees == "word":
            return _per_row(scores, attention_mask, input_ids.shape, labels)
        if self.architecture == "LukeForMultipleChoice":
            scores = scores.view(input_ids.shape[:2])
        if labels is None:
            return None, scores
        if self.architecture == "LukeForSequenceClassification":
            return sequence_loss(scores, labels, self.problem_type), scores
        return classification_loss(scores, labels), scores


def _per_row(scores: Tensor, mask: Tensor | None, shape: torch.Size, labels) -> tuple[Tensor | None, Tensor]:
    """Loss and padded scores of a head with a score for each word or entity."""
    padded = packing.scatter_rows(scores, mask, shape)
    if labels is None:
        return None, padded
    labels = labels.flatten(0, 1) if mask is None else labels[mask.bool()]
    return classification_loss(scores, labels), padded


def _packed_index(positions: Tensor, word_mask: Tensor | None, entity_mask: Tensor | None) -> Tensor:
    """Word indices of padded sequences [batch, entities] -> indices among the sequence's real words, [E]."""
    if word_mask is not None:
        index = word_mask.long().cumsum(dim=1) - 1
        real = word_mask.bool().gather(1, positions)
        positions = index.gather(1, positions)
    chosen = torch.ones_like(positions, dtype=torch.bool) if entity_mask is None else entity_mask.bool()
    if word_mask is not None and not bool(real[chosen].all()):
        raise ValueError("entity_start_positions and entity_end_positions must be at words, found one at padding")
    return positions[chosen]

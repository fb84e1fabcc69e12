"""Documents with mentions -> what the model reads: pieces, where the mentions are, and the ids of their candidates.

In: `disambiguation_files.Document`. Out: a `Feature` for each document, or several for a long one: in equal parts that
cut no mention ("simple"), or in a window for each mention, which alone is decided there ("per_mention"). The text is
tokenised in stretches, mentions and what is between them, as the released tokenizers do it (`inputs.token_spans`).

A candidate is an entity id. Those that the vocabulary lacks share [UNK], and then count as one candidate together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from luke_mini import inputs, packing
from luke_mini.config import option
from luke_mini.disambiguation_files import Document, Mention
from luke_mini.packing import PackedBatch
from luke_mini.windows import context_window, equal_parts

SPECIAL = 2  # <s> and </s>
SPLITS = ("simple", "per_mention")


@dataclass(frozen=True)
class Options:
    """Inputs, candidates and decoding. Defaults: AIDA-CoNLL in the paper."""

    order: str = option("confidence", "of decisions; local: all at once", ("confidence", "natural", "local"))
    split: str = option("simple", "training: long documents in equal parts, or in a window per mention", SPLITS)
    scored_split: str = option("per_mention", "the same for files that are scored", SPLITS)
    max_length: int = option(512, "tokens an input")
    max_mention: int = option(30, "tokens of a mention that its entity's position is the mean of")
    max_entities: int = option(128, "mentions of an input; one with more becomes several")
    max_candidates: int = option(30, "candidates of a mention, those of the highest prior")
    mask_share: float = option(0.9, "of a document's mentions, masked in training")
    mentions: str = option("", "file of mention statistics, for candidates")
    persons: str = option("", "file of titles of persons: a surname takes the candidates of full names")
    redirects: str = option("", "file of lines `title TAB title that it leads to`, for titles of other times")
    titles: str = option("", "file of valid titles; mentions with another one are left out")
    language: str = option("", "of the titles, where the vocabulary has several")
    min_link_probability: float = option(0.1, "of a surface to be a mention, where --predict has to find them")
    mentions_alone: bool = option(False, "where the text of a WNED file is missing, take its mentions as the text")

    def __post_init__(self):
        if self.max_length <= SPECIAL or min(self.max_mention, self.max_entities, self.max_candidates) < 1:
            raise ValueError(f"expected --max-length above {SPECIAL}, --max-mention, --max-entities and "
                             "--max-candidates at least 1")  # fmt: skip
        if not 0 < self.mask_share <= 1:
            raise ValueError(f"--mask-share {self.mask_share} must lie in (0, 1]")


class Feature(NamedTuple):
    """One input with E mentions, in text order (per_mention: the target first)."""

    document: int  # index in the list of documents
    word_ids: np.ndarray  # int64 [W], <s> pieces </s>
    spans: np.ndarray  # int64 [E, 2], half-open in word_ids, at most max_mention long
    mentions: np.ndarray  # int64 [E], indices in the document's mentions
    is_target: np.ndarray  # bool [E]: this input decides about it
    candidates: list[np.ndarray]  # E arrays of different entity ids, best prior first; perhaps empty
    numbers: list[np.ndarray]  # for each of them, its first number among the mention's candidates
    gold: np.ndarray  # int64 [E], the title's entity id; -1: not in the vocabulary or not among the candidates


def candidate_ids(mention: Mention, entity_vocab, options: Options) -> tuple[np.ndarray, np.ndarray, int]:
    """Different entity ids of a mention's candidates, the first number of each, and the id of its title or -1.

    Candidates that the vocabulary lacks share [UNK]: if that wins, the first of them is the answer.
    """
    language = options.language or None
    kept = [candidate.title for candidate in (mention.candidates or ())[: options.max_candidates]]
    ids = [entity_vocab.id(title, language) for title in kept]
    first = {entity: number for number, entity in reversed(list(enumerate(ids)))}
    distinct = list(dict.fromkeys(ids))
    gold = entity_vocab.id(mention.title, language) if mention.title in kept else entity_vocab.unk_id
    numbers = np.array([first[entity] for entity in distinct], np.int64)
    return np.array(distinct, np.int64), numbers, -1 if gold == entity_vocab.unk_id else gold


def _inputs(spans: np.ndarray, n: int, options: Options) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """The inputs of a document of n pieces: first piece, last piece + 1, mentions, which of them are decided there."""
    limit = options.max_length - SPECIAL
    if n > limit and options.split == "per_mention":
        for target, (start, end) in enumerate(spans.tolist()):
            size = min(end - start, limit)
            left, right = (int(k) for k in context_window(size, start, n - start - size, limit))
            first, last = start - left, start + size + right
            inside = (first <= spans[:, 0]) & (spans[:, 1] <= last)
            inside[target] = False
            chosen = np.array([target, *np.flatnonzero(inside)[: options.max_entities - 1]])
            yield first, last, chosen, chosen == target
        return
    borders = equal_parts(n, limit, spans)
    part_of = np.clip(np.searchsorted(borders, spans[:, 0], side="right") - 1, 0, len(borders) - 2)
    for part, (first, last) in enumerate(zip(borders, borders[1:])):
        inside = np.flatnonzero(part_of == part)
        # differs from LUKE: more than 128 mentions, or a mention of more than 30 pieces, end the run there
        for chosen in np.array_split(inside, max(1, -(-len(inside) // options.max_entities))):
            yield first, last, chosen, np.ones(len(chosen), bool)


def make_features(
    documents: Sequence[Document], tokenizer, entity_vocab, labels: Sequence[str] = (), options: Options = Options()
) -> list[Feature]:
    """Inputs of all documents, in their order; a part of a document without a mention has none."""
    features = []
    orders = [sorted(range(len(d.mentions)), key=lambda k: d.mentions[k][:2]) for d in documents]
    char_spans = [[d.mentions[k][:2] for k in order] for d, order in zip(documents, orders)]
    tokenized = inputs.token_spans(tokenizer, [document.text for document in documents], char_spans)
    for index, (document, order, ids, spans) in enumerate(zip(documents, orders, *tokenized)):
        found = [candidate_ids(document.mentions[k], entity_vocab, options) for k in order]
        for first, last, chosen, is_target in _inputs(spans, len(ids), options):
            if not len(chosen):
                continue
            word_ids = np.array([tokenizer.bos_id, *ids[first:last], tokenizer.eos_id], np.int64)
            inside = spans[chosen]
            inside[:, 1] = np.minimum(np.minimum(inside[:, 1], last), inside[:, 0] + options.max_mention)
            candidates, numbers, gold = zip(*(found[k] for k in chosen.tolist()))
            features.append(Feature(index, word_ids, inside - first + 1, np.array(order)[chosen], is_target,
                                    list(candidates), list(numbers), np.array(gold, np.int64)))  # fmt: skip
    return features


def pack(features: Sequence[Feature], entity_ids: Sequence[np.ndarray], pad_word_id: int) -> PackedBatch:
    """A batch of the features with these entities at their mentions: E ids each."""
    rows = zip(features, entity_ids)
    return packing.pack([packing.Sequence(f.word_ids, ids, f.spans) for f, ids in rows], pad_word_id)


def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Candidates of several mentions, int64 [mentions, most], -1 behind the last of each."""
    table = np.full((len(rows), max(1, max(map(len, rows), default=1))), -1, np.int64)
    for row, ids in zip(table, rows):
        row[: len(ids)] = ids
    return table

"""Text with character spans -> what the model reads, exactly as the released LukeTokenizer and MLukeTokenizer have it.

In: a tokenizer, an entity vocabulary, a text or a pair of texts, the spans of its entities in characters, and their
titles if they are known. Out: a dict of int64 arrays under Hugging Face's names. Byte-sized tokens for this example:

    encode(..., "Bo in LA.", entity_spans=[(0, 2), (6, 8)])      <s> B o Ġ i n Ġ L A . </s>
        input_ids              [W]           the ids of these 11 tokens
        attention_mask         [W]           ones
        entity_ids             [E]           [MASK], [MASK]      or the titles' ids
        entity_position_ids    [E, mention]  1 2 -1 -1 ...       tokens of the mention, at most `max_mention_length`
                                             6 7 8 -1 ...        the space in front belongs to it
        entity_attention_mask  [E]           ones

The text is cut at the borders of all spans and every stretch is tokenised by itself, so that a mention's tokens are
exact; which other spans are asked for has an influence on the tokens. Spans may nest, overlap, repeat and be empty.

Four tasks. None: as above. "entity_span_classification": the same, with the first and last token of every span under
two more names. "entity_classification": one span, <ent> around it. "entity_pair_classification": head and tail,
<ent> around the head, <ent2> around the tail; in these two the markers belong to the mention.

A batch is made by `collate` (padded tensors) or by `pack` (our own layout, without padding). Left out: padding on the
left, which spoils entity positions; token types, which LUKE has none of; overflowing tokens.
"""

from collections.abc import Sequence
from itertools import chain, repeat
from operator import index, le
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from luke_mini.entity_vocab import MASK2, EntityVocab
from luke_mini.packing import PackedBatch

ENTITY, PAIR, SPAN = "entity_classification", "entity_pair_classification", "entity_span_classification"
SPANS_OF_TASK = {None: "any number of", ENTITY: "1", PAIR: "2 (head, tail)", SPAN: "at least 1"}

CharSpan = tuple[int, int]  # half-open


class DoesNotFit(ValueError):
    """Sound spans that no input can hold: a head and a tail that overlap, or mentions longer than max_length."""


# --- One text -> tokens -----------------------------------------------------------------------------------------------


class Segment(NamedTuple):
    """Tokens and entities of one text, without special tokens. Entity k is word_ids[starts[k]:ends[k]]."""

    word_ids: list[int]
    entity_ids: list[int]
    starts: list[int]
    ends: list[int]


NOTHING = Segment([], [], [], [])


def _fault(text: str, char_spans: Sequence[CharSpan]) -> str:
    """What is wrong with the first bad span."""
    try:
        for start, end in char_spans:
            if index(start) > index(end):
                return f"the span ({start}, {end}) ends before it starts"
            if start < 0 or end > len(text):
                return f"the span ({start}, {end}) is outside of the text, which has {len(text)} characters"
    except (TypeError, ValueError):
        pass
    return f"expected a list of (start, end) in characters, found {str(char_spans)[:60]}"


def token_spans(tokenizer, text: str, char_spans: Sequence[CharSpan]) -> tuple[list[int], list[int], list[int]]:
    """Ids of the text that is cut at the borders of the spans, then start and end of each span in these ids.

    A space before a border goes with what follows, as byte-level BPE has it: of " in LA." and the span of "LA", the
    stretches are " in", " LA" and ".". One space goes, not two, and no other white space. ValueError for bad spans.
    """
    if not len(char_spans):
        return tokenizer.encode_cut(text, [])[0], [], []
    try:
        char_starts, char_ends = zip(*char_spans, strict=True)
        borders = sorted({*char_starts, *char_ends})
        sound = 0 <= borders[0] and borders[-1] <= len(text) and all(map(le, char_starts, char_ends))
        cuts = [at - 1 if at and text[at - 1] == " " else at for at in borders] if sound else []
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError(_fault(text, char_spans))
    distinct = list(dict.fromkeys(cuts))
    ids, before = tokenizer.encode_cut(text, distinct)
    before_cut = dict(zip(distinct, before))
    token_at = dict(zip(borders, map(before_cut.__getitem__, cuts))).__getitem__
    return ids, list(map(token_at, char_starts)), list(map(token_at, char_ends))


def _segment(tokenizer, entity_vocab, text, char_spans, titles, language) -> Segment:
    """One text with `[MASK]` or a title at each span."""
    if char_spans is None and titles is not None:
        raise ValueError("titles are given without spans")
    char_spans = () if char_spans is None else char_spans
    word_ids, starts, ends = token_spans(tokenizer, text, char_spans)
    if titles is None:
        return Segment(word_ids, [entity_vocab.mask_id] * len(starts), starts, ends)
    if isinstance(titles, str) or len(titles) != len(starts):
        raise ValueError(f"expected a title for each of {len(starts)} spans, found {str(titles)[:60]}")
    return Segment(word_ids, [entity_vocab.id(title, language) for title in titles], starts, ends)


# --- Markers ----------------------------------------------------------------------------------------------------------


def mark(segment: Segment, markers: list[int]) -> Segment:
    """Puts markers[k] before and after mention k; the markers become part of the mention. Mentions do not overlap.

    Of an empty mention and another one that start at the same token, the empty one comes first (differs from LUKE:
    if it is the head, the markers cross there); of two empty ones the tail.
    """
    word_ids, done = [], 0
    starts, ends = list(segment.starts), list(segment.ends)
    in_text_order = sorted(range(len(markers)), key=lambda k: (starts[k], ends[k], -k))
    for k in in_text_order:
        start, end = starts[k], ends[k]
        word_ids += segment.word_ids[done:start]
        starts[k] = len(word_ids)
        word_ids += [markers[k], *segment.word_ids[start:end], markers[k]]
        ends[k] = len(word_ids)
        done = end
    return Segment(word_ids + segment.word_ids[done:], segment.entity_ids, starts, ends)


def _marked_segment(tokenizer, entity_vocab: EntityVocab, text: str, char_spans, task: str) -> Segment:
    """The text of a task on one entity, or on a head and a tail."""
    word_ids, starts, ends = token_spans(tokenizer, text, char_spans)
    if task == ENTITY:
        return mark(Segment(word_ids, [entity_vocab.mask_id], starts, ends), [tokenizer.ent_id])
    head, tail = char_spans
    if head[1] > tail[0] and tail[1] > head[0]:
        # differs from LUKE: there, the markers cross
        raise DoesNotFit(f"head ({head[0]}, {head[1]}) and tail ({tail[0]}, {tail[1]}) overlap")
    if entity_vocab.mask2_id is None:
        raise ValueError(f"the entity vocabulary lacks {MASK2}, which stands for the tail")
    entity_ids = [entity_vocab.mask_id, entity_vocab.mask2_id]
    return mark(Segment(word_ids, entity_ids, starts, ends), [tokenizer.ent_id, tokenizer.ent2_id])


# --- Truncation -------------------------------------------------------------------------------------------------------


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How much of two lengths to keep, in all at most `room`: the longer one gives until both are equal, then both do.

    (10, 4, 9) -> (5, 4); an odd one out is given by the second: (6, 6, 9) -> (5, 4).
    """
    excess = max(first + second - room, 0)
    difference = min(abs(first - second), excess)
    half = (excess - difference) // 2
    longer, shorter = (half, excess - half - difference)
    if first > second:
        return first - difference - longer, second - shorter
    return first - longer, second - difference - shorter


def truncate(first: Segment, second: Segment, room: int, max_entities: int) -> tuple[Segment, Segment, list[int]]:
    """Cuts two texts at their ends to `room` tokens in all, as transformers 4 does for "longest_first".

    Entities that are not wholly inside go, then those beyond max_entities, by the same rule. The last result numbers
    the entities that stay, the second text's after those of the first. A single text: second=NOTHING.
    """
    lengths = longest_first(len(first.word_ids), len(second.word_ids), room)
    inside = [[k for k, end in enumerate(s.ends) if end <= n] for s, n in zip((first, second), lengths)]
    counts = longest_first(len(inside[0]), len(inside[1]), max_entities)
    kept = [numbers[:count] for numbers, count in zip(inside, counts)]
    shorter = [
        Segment(s.word_ids[:n], *([values[k] for k in numbers] for values in s[1:]))
        for s, n, numbers in zip((first, second), lengths, kept)
    ]
    return *shorter, kept[0] + [len(first.ends) + k for k in kept[1]]


def truncate_around(segment: Segment, room: int) -> Segment:
    """Cuts a text to `room` tokens so that its one or two mentions stay. They do not overlap.

    The first that applies:
    - the beginning of the text, if the mentions are in it, as transformers 4 does
    - a window with as much text before the mentions as after them, moved to the left if the text ends too soon
    - both mentions and what is next to them in between, the same on both sides; its middle is cut out
    DoesNotFit if the mentions alone are too long.
    """
    # differs from LUKE: there, a mention outside of the first `room` tokens is lost, and with it the task's question
    n, begin, end = len(segment.word_ids), min(segment.starts), max(segment.ends)
    if n <= room:
        return segment
    length = sum(segment.ends) - sum(segment.starts)
    if length > room:
        raise DoesNotFit(f"the mentions have {length} tokens with their markers, max_length has room for {room}")
    if end - begin <= room:
        left = 0 if end <= room else min(begin - (room - (end - begin)) // 2, n - room)
        return _without(_without(segment, left + room, n), 0, left)
    inner_end, inner_start = min(segment.ends), max(segment.starts)  # of the first mention, of the second
    between = room - length
    segment = _without(segment, end, n)
    segment = _without(segment, inner_end + (between + 1) // 2, inner_start - between // 2)
    return _without(segment, 0, begin)


def _without(segment: Segment, begin: int, end: int) -> Segment:
    """The segment without tokens [begin, end), which are part of no mention."""
    word_ids, entity_ids, starts, ends = segment
    moved = ([at - (end - begin) if at >= end > begin else at for at in borders] for borders in (starts, ends))
    return Segment(word_ids[:begin] + word_ids[end:], entity_ids, *moved)


# --- One input --------------------------------------------------------------------------------------------------------


class Input(NamedTuple):
    """A whole sequence: word_ids with special tokens. Entity k covers tokens starts[k] + 1 to ends[k] + 1."""

    word_ids: list[int]
    entity_ids: list[int]
    starts: list[int]
    ends: list[int]
    has_entities: bool  # False: no spans were given, not even an empty list
    kept: list[int] | None  # numbers of the spans that survived truncation; None: there was none


def _room(max_length: int, special: int) -> int:
    if max_length < special:
        raise ValueError(f"max_length is {max_length}, and the special tokens alone are {special}")
    return max_length - special


def _task_input(tokenizer, entity_vocab, text, char_spans, task, max_length, max_entities) -> Input:
    """The tasks on given spans of one text."""
    found = None if char_spans is None else len(char_spans)
    if not found or found != {ENTITY: 1, PAIR: 2}.get(task, found):
        raise ValueError(f"task {task}: expected {SPANS_OF_TASK[task]} spans, found {'none' if not found else found}")
    kept = None
    if task == SPAN:
        segment = _segment(tokenizer, entity_vocab, text, char_spans, None, None)
        if max_length is not None:
            segment, _, kept = truncate(segment, NOTHING, _room(max_length, 2), max_entities)
    else:
        segment = _marked_segment(tokenizer, entity_vocab, text, char_spans, task)
        if max_length is not None:
            segment, kept = truncate_around(segment, _room(max_length, 2)), list(range(found))
    word_ids, *entities = segment
    return Input([tokenizer.bos_id, *word_ids, tokenizer.eos_id], *entities, True, kept)


def _text_input(tokenizer, entity_vocab, text, pair, max_length, max_entities, language) -> Input:
    """One or two texts, each as (text, spans or None, titles or None); the second text may be None."""
    bos, eos, kept = tokenizer.bos_id, tokenizer.eos_id, None
    has_entities = text[1] is not None or pair[1] is not None
    first, second = _segment(tokenizer, entity_vocab, *text, language), NOTHING
    if pair[0] is not None:
        second = _segment(tokenizer, entity_vocab, *pair, language)
    elif pair[1] is not None or pair[2] is not None:
        raise ValueError("spans or titles are given for a second text that is not there")
    if max_length is not None:
        room = _room(max_length, 2 if pair[0] is None else 4)
        first, second, kept = truncate(first, second, room, max_entities)
    if pair[0] is None:
        word_ids, *entities = first
        return Input([bos, *word_ids, eos], *entities, has_entities, kept)
    shift = len(first.word_ids) + 2  # </s></s>
    return Input(
        [bos, *first.word_ids, eos, eos, *second.word_ids, eos],
        first.entity_ids + second.entity_ids,
        first.starts + [start + shift for start in second.starts],
        first.ends + [end + shift for end in second.ends],
        has_entities,
        kept,
    )


def _input(tokenizer, entity_vocab, text, pair, task, max_length, max_entities, language) -> Input:
    if task is None:
        return _text_input(tokenizer, entity_vocab, text, pair, max_length, max_entities, language)
    if pair != (None, None, None):
        raise ValueError(f"task {task} takes one text, not a pair")
    return _task_input(tokenizer, entity_vocab, text[0], text[1], task, max_length, max_entities)


def _arrays(inputs: list[Input], mention: int, with_ends: bool) -> list[dict[str, np.ndarray]]:
    """Lists -> arrays, for a whole batch at once: each text's arrays are views of the batch's."""

    def joined(lists: list[list[int]]) -> np.ndarray:
        return np.fromiter(chain.from_iterable(lists), np.int64, sum(map(len, lists)))

    word_ids, entity_ids = joined([x.word_ids for x in inputs]), joined([x.entity_ids for x in inputs])
    starts, ends = joined([x.starts for x in inputs]) + 1, joined([x.ends for x in inputs]) + 1  # + 1 for <s>
    column = np.arange(mention)
    positions = np.where(column < (ends - starts)[:, None], starts[:, None] + column, -1)  # [E of all, mention]
    word_mask, entity_mask = np.ones_like(word_ids), np.ones_like(entity_ids)
    made, word, entity = [], 0, 0
    for x in inputs:
        words, entities = slice(word, word + len(x.word_ids)), slice(entity, entity + len(x.entity_ids))
        word, entity = words.stop, entities.stop
        arrays = {"input_ids": word_ids[words], "attention_mask": word_mask[words]}
        if x.has_entities:
            arrays["entity_ids"] = entity_ids[entities]
            arrays["entity_position_ids"] = positions[entities]
            arrays["entity_attention_mask"] = entity_mask[entities]
            if with_ends:
                arrays["entity_start_positions"] = starts[entities]
                arrays["entity_end_positions"] = ends[entities] - 1
            if x.kept is not None:
                arrays["kept_spans"] = np.array(x.kept, np.int64)
        made.append(arrays)
    return made


def encode(
    tokenizer,
    entity_vocab: EntityVocab,
    text: str,
    text_pair: str | None = None,
    *,
    entity_spans: Sequence[CharSpan] | None = None,
    entity_spans_pair: Sequence[CharSpan] | None = None,
    entities: Sequence[str] | None = None,
    entities_pair: Sequence[str] | None = None,
    task: str | None = None,
    max_length: int | None = None,
    max_mention_length: int = 30,
    max_entity_length: int = 32,
    language: str | None = None,
) -> dict[str, np.ndarray]:
    """The model's input for one text or one pair, as int64 arrays; the module's docstring names them.

    entity_spans       half-open (start, end) in characters; the entities come out in this order, the pair's last.
                       None: the result has no entity arrays. []: it has, and they are empty
    entities           titles; one that the vocabulary lacks becomes [UNK]. Without titles, [MASK]. A task has no use
                       for them
    language           of the titles, where a multilingual vocabulary is asked for "Oslo" and not for "en:Oslo"
    max_length         tokens of the whole sequence. None: nothing is cut. Tasks on one or two entities keep them, see
                       `truncate_around`; otherwise see `truncate`, and the result names the spans that are left:
                       "kept_spans" [E] numbers those of entity_spans, then those of entity_spans_pair
    max_entity_length  entities at most; counts only where max_length is given, as in LUKE
    max_mention_length columns of entity_position_ids; what a mention has beyond it is not averaged
    ValueError if spans, titles and task do not fit together, or the text; `DoesNotFit` in tasks on given mentions.
    """
    text, pair = (text, entity_spans, entities), (text_pair, entity_spans_pair, entities_pair)
    made = _input(tokenizer, entity_vocab, text, pair, task, max_length, max_entity_length, language)
    return _arrays([made], max_mention_length, task == SPAN)[0]


def encode_batch(
    tokenizer,
    entity_vocab: EntityVocab,
    texts: Sequence[str],
    text_pairs: Sequence[str | None] | None = None,
    *,
    entity_spans: Sequence[Sequence[CharSpan] | None] | None = None,
    entity_spans_pair: Sequence[Sequence[CharSpan] | None] | None = None,
    entities: Sequence[Sequence[str] | None] | None = None,
    entities_pair: Sequence[Sequence[str] | None] | None = None,
    task: str | None = None,
    max_length: int | None = None,
    max_mention_length: int = 30,
    max_entity_length: int = 32,
    language: str | None = None,
) -> list[dict[str, np.ndarray]]:
    """`encode` for many texts, which is faster; every argument of one text becomes a list. Errors name the text."""
    columns = [texts, entity_spans, entities, text_pairs, entity_spans_pair, entities_pair]
    names = ["texts", "entity_spans", "entities", "text_pairs", "entity_spans_pair", "entities_pair"]
    for name, column in zip(names, columns):
        if isinstance(column, str) or (column is not None and len(column) != len(texts)):
            raise ValueError(f"{name}: expected a list for {len(texts)} texts, found {str(column)[:60]}")
    columns = [repeat(None) if column is None else column for column in columns]
    inputs = []
    for number, row in enumerate(zip(*columns)):
        try:
            made = _input(tokenizer, entity_vocab, row[:3], row[3:], task, max_length, max_entity_length, language)
        except ValueError as error:
            raise ValueError(f"text {number}: {error}") from None
        inputs.append(made)
    return _arrays(inputs, max_mention_length, task == SPAN)


# --- Batches ----------------------------------------------------------------------------------------------------------


def collate(inputs: Sequence[dict[str, np.ndarray]], pad_id: int = 1, entity_pad_id: int = 0) -> dict[str, Tensor]:
    """Padded int64 tensors, the first axis is the batch: as long as the longest text, as wide as the most entities.

    Padding: pad_id and entity_pad_id (which the masks hide from the model), positions -1, all else 0. Entity tensors
    are there if at least one text has them; the others then have no entities. "kept_spans" is left out.
    """
    padding = {"input_ids": pad_id, "attention_mask": 0, "entity_ids": entity_pad_id, "entity_position_ids": -1}
    padding |= {"entity_attention_mask": 0, "entity_start_positions": 0, "entity_end_positions": 0}
    batch = {}
    for key, value in padding.items():
        arrays = {row: x[key] for row, x in enumerate(inputs) if key in x}
        if arrays:
            longest = max(map(len, arrays.values()))
            width = next(iter(arrays.values())).shape[1:]
            padded = np.full((len(inputs), longest, *width), value, np.int64)
            for row, array in arrays.items():
                padded[row, : len(array)] = array
            batch[key] = torch.from_numpy(padded)
    return batch


def pack(inputs: Sequence[dict[str, np.ndarray]], pad_id: int) -> PackedBatch:
    """The same batch without padding, for our own model. pad_id: the tokenizer's, word positions start behind it."""
    word_ids = np.concatenate([x["input_ids"] for x in inputs])
    lengths = [len(x["input_ids"]) for x in inputs]
    is_token = word_ids != pad_id  # "<pad>" written out in a text takes no position, see packing.roberta_positions
    rank = np.cumsum(is_token)
    before = np.concatenate([[0], rank])[np.cumsum([0, *lengths[:-1]])]
    with_entities = [x for x in inputs if "entity_ids" in x]
    positions = np.concatenate([np.zeros(0, np.int64), *(x["entity_position_ids"].ravel() for x in with_entities)])
    entity_ids = np.concatenate([np.zeros(0, np.int64), *(x["entity_ids"] for x in with_entities)])
    is_position = positions >= 0
    counts = is_position.reshape(len(entity_ids), -1).sum(axis=1) if len(entity_ids) else entity_ids
    return PackedBatch(
        word_ids=torch.from_numpy(word_ids),
        word_positions=torch.from_numpy((rank - np.repeat(before, lengths)) * is_token + pad_id),
        entity_ids=torch.from_numpy(entity_ids),
        mention_positions=torch.from_numpy(positions[is_position]),
        mention_offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])),
        word_lengths=tuple(lengths),
        entity_lengths=tuple(len(x.get("entity_ids", ())) for x in inputs),
    )

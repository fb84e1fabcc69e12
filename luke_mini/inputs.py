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
from itertools import accumulate, chain, repeat
from operator import index
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from luke_mini.entity_vocab import MASK2, EntityVocab
from luke_mini.packing import PackedBatch
from luke_mini import packing

ENTITY, PAIR, SPAN = "entity_classification", "entity_pair_classification", "entity_span_classification"
SPANS_OF_TASK = {ENTITY: "1 span", PAIR: "2 spans (head, tail)", SPAN: "at least 1 span"}

CharSpan = tuple[int, int]  # half-open

# --- Texts -> tokens --------------------------------------------------------------------------------------------------


def _fault(text: str, char_spans: Sequence[CharSpan]) -> str | None:
    """What is wrong with the first bad span, None if there is none."""
    try:
        for start, end in char_spans:
            if index(start) > index(end):
                return f"the span ({start}, {end}) ends before it starts"
            if start < 0 or end > len(text):
                return f"the span ({start}, {end}) is outside of the text, which has {len(text)} characters"
    except (TypeError, ValueError):
        return f"expected a list of spans (start, end) in characters, found {str(char_spans)[:60]}"
    return None


def _borders(texts: Sequence[str], char_spans: Sequence[Sequence[CharSpan]], counts: list[int]) -> np.ndarray:
    """All spans of a batch below each other, int64 [spans, 2]. ValueError that names the text of a bad one."""
    try:
        pairs = list(chain.from_iterable(char_spans))
        borders = np.fromiter(chain.from_iterable(pairs), np.int64, 2 * len(pairs)).reshape(-1, 2)
        starts, ends = borders.T
        lengths = np.repeat(list(map(len, texts)), counts)
        sound = set(map(len, pairs)) <= {2} and not ((starts < 0) | (starts > ends) | (ends > lengths)).any()
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        faults = enumerate(map(_fault, texts, char_spans))
        raise ValueError(next(f"text {number}: {fault}" for number, fault in faults if fault))
    return borders


def _stretches(text: str, cuts: list[int]) -> list[str]:
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, None])]


def token_spans(
    tokenizer, texts: Sequence[str], char_spans: Sequence[Sequence[CharSpan]]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Ids of every text that is cut at the borders of its spans, and where these are: int32 [tokens], int64 [spans, 2].

    A space before a border goes with what follows, as byte-level BPE has it: of "Bo in LA." and the span of "LA", the
    stretches are "Bo in", " LA" and ".". One space goes, not two, and no other white space. ValueError for bad spans.
    """
    counts = list(map(len, char_spans))
    borders, owner = _borders(texts, char_spans, counts), np.repeat(np.arange(len(texts)), counts)
    # All texts in a row, a separator before each: a character has one number in the batch, and `first[t]` is text t's.
    characters = np.frombuffer("".join(f"\n{text}" for text in texts).encode("utf-32-le", "surrogatepass"), "<u4")
    first = np.cumsum([1, *(len(text) + 1 for text in texts)])
    cuts = borders + first[owner][:, None]
    cuts -= characters[cuts - 1] == ord(" ")
    is_cut = np.zeros(first[-1], dtype=bool)
    is_cut[cuts] = True
    places = np.flatnonzero(is_cut)
    begins = np.searchsorted(places, first)  # the cuts of text t are places[begins[t]:begins[t + 1]]
    places = (places - np.repeat(first[:-1], np.diff(begins))).tolist()  # in the text
    inner = [places[begin:end] for begin, end in zip(begins.tolist(), begins[1:].tolist())]
    ids, lengths = tokenizer.encode_stretches(chain.from_iterable(map(_stretches, texts, inner)))
    # A text has one stretch more than cuts: cut k of the batch, in text t, is the end of stretch k + t.
    ends = np.cumsum(lengths)
    text_ends = ends[begins[1:] + np.arange(len(texts))].tolist()
    text_begins = [0, *text_ends[:-1]]
    spans = ends[np.cumsum(is_cut)[cuts] - 1 + owner[:, None]] - np.array(text_begins)[owner][:, None]
    span_ends = list(accumulate(counts))
    return (
        [ids[begin:end] for begin, end in zip(text_begins, text_ends)],
        [spans[end - count : end] for count, end in zip(counts, span_ends)],
    )


class Segment(NamedTuple):
    """One text: its tokens, without <s> and </s>, and its entities. Entity k is word_ids[spans[k, 0]:spans[k, 1]]."""

    word_ids: np.ndarray  # int32 [tokens]
    entity_ids: np.ndarray  # int64 [entities]
    spans: np.ndarray  # int64 [entities, 2]


NOTHING = Segment(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, 2), np.int64))

# --- Markers ----------------------------------------------------------------------------------------------------------


def mark(segment: Segment, markers: list[int]) -> Segment:
    """Puts markers[k] before and after mention k; the markers become part of the mention. Mentions do not overlap.

    Of an empty mention and another one that start at the same token, the empty one comes first (differs from LUKE:
    if it is the head, the markers cross there); of two empty ones the tail.
    """
    parts, length, done = [], 0, 0
    spans = segment.spans.tolist()
    in_text_order = sorted(range(len(markers)), key=lambda k: (spans[k], -k))
    for k in in_text_order:
        start, end = spans[k]
        parts += [segment.word_ids[done:start], [markers[k]], segment.word_ids[start:end], [markers[k]]]
        begin = length + start - done
        length = begin + end - start + 2
        spans[k], done = [begin, length], end
    word_ids = np.concatenate([*parts, segment.word_ids[done:]])
    return Segment(word_ids, segment.entity_ids, np.array(spans))


# --- Truncation -------------------------------------------------------------------------------------------------------


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How much of two lengths to keep, in all at most `room`: the longer one gives until both are equal, then both do.

    (10, 4, 9) -> (5, 4); an odd one out is given by the second: (6, 6, 9) -> (5, 4).
    """
    excess = max(first + second - room, 0)
    difference = min(abs(first - second), excess)
    if first > second:
        first -= difference
    else:
        second -= difference
    rest = excess - difference
    return first - rest // 2, second - (rest - rest // 2)


def truncate(first: Segment, second: Segment, room: int, max_entities: int) -> tuple[Segment, Segment, np.ndarray]:
    """Cuts two texts at their ends to `room` tokens in all, as transformers 4 does for "longest_first".

    Entities that are not wholly inside go, then those beyond max_entities, by the same rule. The last result numbers
    the entities that stay, the second text's after those of the first. A single text: second=NOTHING.
    """
    both = (first, second)
    lengths = longest_first(len(first.word_ids), len(second.word_ids), room)
    inside = [np.flatnonzero(segment.spans[:, 1] <= length) for segment, length in zip(both, lengths)]
    counts = longest_first(len(inside[0]), len(inside[1]), max_entities)
    kept = [numbers[:count] for numbers, count in zip(inside, counts)]
    first, second = (
        Segment(segment.word_ids[:length], segment.entity_ids[numbers], segment.spans[numbers])
        for segment, length, numbers in zip(both, lengths, kept)
    )
    return first, second, np.concatenate([kept[0], kept[1] + len(both[0].spans)])


def truncate_around(segment: Segment, room: int) -> Segment:
    """Cuts a text to `room` tokens so that its one or two mentions stay. They do not overlap.

    The first that applies:
    - the beginning of the text, if the mentions are in it, as transformers 4 does
    - a window with as much text before the mentions as after them, moved to the left if the text ends too soon
    - both mentions and what is next to them in between, the same on both sides; the middle is cut out
    ValueError if the mentions alone are too long.
    """
    # differs from LUKE: there, a mention outside of the first `room` tokens is lost, and with it the task's question
    n, begin, end = len(segment.word_ids), int(segment.spans.min()), int(segment.spans.max())
    if n <= room:
        return segment
    length = int(np.diff(segment.spans).sum())
    if length > room:
        raise ValueError(f"the mentions have {length} tokens with their markers, max_length leaves room for {room}")
    if end - begin <= room:
        left = 0 if end <= room else min(begin - (room - (end - begin)) // 2, n - room)
        return _without(_without(segment, left + room, n), 0, left)
    first_end, second_start = int(segment.spans[:, 1].min()), int(segment.spans[:, 0].max())
    between = room - length
    segment = _without(segment, end, n)
    segment = _without(segment, first_end + (between + 1) // 2, second_start - between // 2)
    return _without(segment, 0, begin)


def _without(segment: Segment, begin: int, end: int) -> Segment:
    """The segment without tokens [begin, end), which belong to no mention."""
    spans = np.where(segment.spans >= end, segment.spans - (end - begin), segment.spans)
    return Segment(np.delete(segment.word_ids, slice(begin, end)), segment.entity_ids, spans)


# --- One input --------------------------------------------------------------------------------------------------------


class Text(NamedTuple):
    """What the caller says about one text or one pair."""

    text: str
    pair: str | None
    spans: Sequence[CharSpan] | None
    spans_pair: Sequence[CharSpan] | None
    titles: Sequence[str] | None
    titles_pair: Sequence[str] | None


class Rules(NamedTuple):
    """What holds for all texts of a batch; see `encode`."""

    task: str | None
    max_length: int | None
    max_entities: int
    language: str | None


def _check(row: Text, task: str | None) -> None:
    """ValueError if the parts do not fit together."""
    if not isinstance(row.text, str) or not isinstance(row.pair, str | None):
        raise ValueError(f"expected a text, found {str(row.pair if isinstance(row.text, str) else row.text)[:60]}")
    for spans, titles in ((row.spans, row.titles), (row.spans_pair, row.titles_pair)):
        if titles is not None and spans is None:
            raise ValueError("titles are given without spans")
        if titles is not None and (isinstance(titles, str) or len(titles) != len(spans)):
            raise ValueError(f"expected a title for each of {len(spans)} spans, found {str(titles)[:60]}")
    if row.pair is None and row.spans_pair is not None:
        raise ValueError("spans are given for a second text that is not there")
    if task is None:
        return
    if row.pair is not None:
        raise ValueError(f"task {task} takes one text, not a pair")
    found = 0 if row.spans is None else len(row.spans)
    if found != {ENTITY: 1, PAIR: 2, SPAN: max(found, 1)}[task]:
        raise ValueError(f"task {task}: expected {SPANS_OF_TASK[task]}, found {found}")
    if task == PAIR and _fault(row.text, row.spans) is None:
        head, tail = row.spans
        if head[1] > tail[0] and tail[1] > head[0]:  # differs from LUKE: there, the markers cross
            raise ValueError(f"head ({head[0]}, {head[1]}) and tail ({tail[0]}, {tail[1]}) overlap")


class Input(NamedTuple):
    """A whole sequence: word_ids with <s> and </s>, and positions that count <s>."""

    word_ids: list[Sequence[int]]  # in parts
    entity_ids: np.ndarray  # int64 [entities]
    spans: np.ndarray  # int64 [entities, 2]
    has_entities: bool  # False: no spans were given, not even an empty list
    kept: np.ndarray | None  # numbers of the spans that survived truncation; None: there was none


def _entity_ids(vocab: EntityVocab, n: int, titles: Sequence[str] | None, rules: Rules) -> np.ndarray:
    if rules.task == PAIR:
        return np.array([vocab.mask_id, vocab.mask2_id])
    if titles is None or rules.task is not None:
        return np.full(n, vocab.mask_id)
    return np.array([vocab.id(title, rules.language) for title in titles], dtype=np.int64)


def _assemble(tokenizer, first: Segment, second: Segment | None, rules: Rules, has_entities: bool) -> Input:
    """Marks, truncates, and joins the texts of one input."""
    bos, eos, kept = [tokenizer.bos_id], [tokenizer.eos_id], None
    if rules.task in (ENTITY, PAIR):
        first = mark(first, [tokenizer.ent_id, tokenizer.ent2_id][: len(first.spans)])
    if rules.max_length is not None:
        special = 2 if second is None else 4
        room = rules.max_length - special
        if room < 0:
            raise ValueError(f"max_length is {rules.max_length}, and the special tokens alone are {special}")
        if rules.task in (ENTITY, PAIR):
            first, kept = truncate_around(first, room), np.arange(len(first.spans))
        else:
            first, cut_second, kept = truncate(first, second or NOTHING, room, rules.max_entities)
            second = second and cut_second
    if second is None:
        return Input([bos, first.word_ids, eos], first.entity_ids, first.spans + 1, has_entities, kept)
    return Input(
        [bos, first.word_ids, eos, eos, second.word_ids, eos],
        np.concatenate([first.entity_ids, second.entity_ids]),
        np.concatenate([first.spans + 1, second.spans + len(first.word_ids) + 3]),
        has_entities,
        kept,
    )


def _segments(
    tokenizer, vocab: EntityVocab, texts: list[str], char_spans: list, titles: list, rules: Rules
) -> list[Segment]:
    """Tokens and entities of many texts; no spans at all (None) are as good as an empty list here."""
    all_word_ids, all_spans = token_spans(tokenizer, texts, [() if spans is None else spans for spans in char_spans])
    return [
        Segment(word_ids, _entity_ids(vocab, len(spans), names, rules), spans)
        for word_ids, spans, names in zip(all_word_ids, all_spans, titles)
    ]


def _inputs(tokenizer, vocab: EntityVocab, rows: list[Text], rules: Rules) -> list[Input]:
    """Every row's input. Errors begin with the number of the row, unless they are about all of them."""
    if rules.task not in (None, *SPANS_OF_TASK):
        raise ValueError(f"unknown task {rules.task!r}, expected None or {', '.join(SPANS_OF_TASK)}")
    if rules.task == PAIR and vocab.mask2_id is None:
        raise ValueError(f"the entity vocabulary lacks {MASK2}, which stands for the tail")
    if rules.language is not None and vocab.languages and rules.language not in vocab.languages:
        raise ValueError(f"language {rules.language!r}: the entity vocabulary has {' '.join(vocab.languages)}")
    number = 0
    try:
        for number, row in enumerate(rows):
            _check(row, rules.task)
    except ValueError as error:
        raise ValueError(f"text {number}: {error}") from None
    texts, pairs, spans, spans_pair, titles, titles_pair = map(list, zip(*rows))
    firsts, seconds = _segments(tokenizer, vocab, texts, spans, titles, rules), repeat(None)
    if any(pair is not None for pair in pairs):
        seconds = _segments(tokenizer, vocab, [pair or "" for pair in pairs], spans_pair, titles_pair, rules)
        seconds = [None if pair is None else second for second, pair in zip(seconds, pairs)]
    made = []
    try:
        for number, (row, first, second) in enumerate(zip(rows, firsts, seconds)):
            has_entities = row.spans is not None or row.spans_pair is not None
            made.append(_assemble(tokenizer, first, second, rules, has_entities))
    except ValueError as error:
        raise ValueError(f"text {number}: {error}") from None
    return made


def _arrays(inputs: list[Input], mention: int, with_ends: bool) -> list[dict[str, np.ndarray]]:
    """The arrays of the whole batch are made at once; each text's are views of them."""
    word_ids = np.concatenate([part for x in inputs for part in x.word_ids], dtype=np.int64)
    entity_ids = np.concatenate([x.entity_ids for x in inputs])
    word_mask, entity_mask = np.ones_like(word_ids), np.ones_like(entity_ids)
    starts, ends = np.concatenate([x.spans for x in inputs]).T
    runs = sliding_window_view(np.arange(starts.max(initial=0) + mention + 1), mention)  # row s: s, s + 1, s + 2, ...
    positions = runs[starts]  # [entities of all, mention]
    np.putmask(positions, positions >= ends[:, None], -1)
    made, word, entity = [], 0, 0
    for x in inputs:
        words, entities = slice(word, word + sum(map(len, x.word_ids))), slice(entity, entity + len(x.entity_ids))
        word, entity = words.stop, entities.stop
        arrays = {"input_ids": word_ids[words], "attention_mask": word_mask[words]}
        if x.has_entities:
            arrays["entity_ids"] = entity_ids[entities]
            arrays["entity_position_ids"] = positions[entities]
            arrays["entity_attention_mask"] = entity_mask[entities]
            if with_ends:
                arrays["entity_start_positions"] = x.spans[:, 0]
                arrays["entity_end_positions"] = x.spans[:, 1] - 1
            if x.kept is not None:
                arrays["kept_spans"] = x.kept
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
    ValueError if spans, titles and task do not fit together, or the text.
    """
    row = Text(text, text_pair, entity_spans, entity_spans_pair, entities, entities_pair)
    try:
        made = _inputs(tokenizer, entity_vocab, [row], Rules(task, max_length, max_entity_length, language))
    except ValueError as error:
        raise ValueError(str(error).removeprefix("text 0: ")) from None
    return _arrays(made, max_mention_length, task == SPAN)[0]


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
    names = "texts text_pairs entity_spans entity_spans_pair entities entities_pair".split()
    columns = [texts, text_pairs, entity_spans, entity_spans_pair, entities, entities_pair]
    for name, column in zip(names, columns):
        if isinstance(column, str) or (column is not None and len(column) != len(texts)):
            raise ValueError(f"{name}: expected a list for {len(texts)} texts, found {str(column)[:60]}")
    rows = [Text(*row) for row in zip(*(repeat(None) if column is None else column for column in columns))]
    rules = Rules(task, max_length, max_entity_length, language)
    return _arrays(_inputs(tokenizer, entity_vocab, rows, rules), max_mention_length, task == SPAN) if rows else []


def encode_mentions(
    tokenizer, entity_vocab: EntityVocab, texts: Sequence[str], spans: Sequence[Sequence[CharSpan]], *, task: str,
    max_length: int, max_mention_length: int,
) -> list[tuple[dict[str, np.ndarray] | None, bool]]:  # fmt: skip
    """`encode_batch` for a task on one or two mentions, and for every text whether it was cut around them.

    None instead of arrays: the mentions alone are too long.
    """
    rules = {"task": task, "max_mention_length": max_mention_length}
    made = []
    for text, own, arrays in zip(texts, spans, encode_batch(tokenizer, entity_vocab, texts, entity_spans=spans, **rules)):
        if is_cut := len(arrays["input_ids"]) > max_length:  # differs from LUKE, where it ends the run
            try:
                arrays = encode(tokenizer, entity_vocab, text, entity_spans=own, max_length=max_length, **rules)
            except ValueError:  # nothing else can be wrong here that was not wrong above
                arrays = None
        made.append((arrays, is_cut))
    return made


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
    sequences = []
    for x in inputs:
        ids, positions = x.get("entity_ids", ()), x.get("entity_position_ids", np.zeros((0, 1), np.int64))
        lengths = (positions >= 0).sum(axis=1)
        starts = np.where(lengths, positions[:, 0], 0)
        sequences.append(packing.Sequence(x["input_ids"], ids, np.stack([starts, starts + lengths], axis=1)))
    return packing.pack(sequences, pad_id)

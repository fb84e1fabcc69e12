"""Text with character spans -> what the model reads, exactly as the released LukeTokenizer and MLukeTokenizer do it.

In: a tokenizer, an entity vocabulary, texts or pairs of texts, the spans of their entities in characters, and their
titles if they are known. Out: `Sequence`s for `packing.pack`, from `encode_sequences`; or arrays under Hugging Face's
names, from `encode` and `encode_batch`. With one token per character, for example:

    encode(..., "Bo in LA.", entity_spans=[(0, 2), (6, 8)])      <s> B o Ġ i n Ġ L A . </s>
        input_ids              [W]           the ids of these 11 tokens
        attention_mask         [W]           ones
        entity_ids             [E]           [MASK], [MASK]      or the titles' ids
        entity_position_ids    [E, mention]  1 2 -1 -1 ...       tokens of the mention, at most `max_mention_length`
                                             6 7 8 -1 ...        including the space before it
        entity_attention_mask  [E]           ones

The text is cut at the borders of all spans and every segment is tokenized by itself, so that a mention has
tokens of its own; the tokens of a text thus depend on the spans. Spans may nest, overlap, repeat and be empty.

Four values of `task`. None: as above. "entity_span_classification": also entity_start_positions, entity_end_positions,
first and last token of every span. "entity_classification": one span, <ent> around it. "entity_pair_classification":
head and tail, <ent> around the head, <ent2> around the tail. In these two the markers belong to the mention.

Left out: padding on the left, which shifts entity positions; token types, which LUKE does not use; overflowing tokens.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import accumulate, chain
from operator import index

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from luke_mini import packing
from luke_mini.entity_vocab import MASK2, EntityVocab
from luke_mini.packing import PackedBatch, Sequence

ENTITY, PAIR, SPAN = "entity_classification", "entity_pair_classification", "entity_span_classification"
SPANS_OF_TASK = {ENTITY: "1 span", PAIR: "2 spans (head, tail)", SPAN: "at least 1 span"}
PER_TEXT = ("entity_spans", "entity_spans_pair", "entities", "entities_pair")  # arguments of one text

CharSpan = tuple[int, int]  # half-open
NOTHING = Sequence(*np.zeros((2, 0), np.int64), np.zeros((0, 2), np.int64), np.zeros(0, np.int64))

# --- Texts -> tokens --------------------------------------------------------------------------------------------------


def _span_fault(text: str, char_spans: list[CharSpan]) -> str | None:
    """What is wrong with the first bad span, if any."""
    try:
        for start, end in char_spans:
            if index(start) > index(end):
                return f"the span ({start}, {end}) ends before it starts"
            if start < 0 or end > len(text):
                return f"the span ({start}, {end}) is outside of the text, which has {len(text)} characters"
    except (TypeError, ValueError):
        return f"expected a list of spans (start, end) in characters, found {str(char_spans)[:60]}"
    return None


def _borders(texts: list[str], char_spans: list[list[CharSpan]], counts: list[int]) -> np.ndarray:
    """All spans of a batch as one array, int64 [spans, 2]. ValueError naming the text of a bad span."""
    try:
        pairs = list(chain.from_iterable(char_spans))
        borders = np.fromiter(chain.from_iterable(pairs), np.int64, 2 * len(pairs)).reshape(-1, 2)
        starts, ends = borders.T
        lengths = np.repeat(list(map(len, texts)), counts)
        sound = set(map(len, pairs)) <= {2} and not ((starts < 0) | (starts > ends) | (ends > lengths)).any()
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        faults = enumerate(map(_span_fault, texts, char_spans))
        raise ValueError(next(f"text {number}: {fault}" for number, fault in faults if fault))
    return borders


def _segments(text: str, cuts: list[int]) -> list[str]:
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, None])]


def token_spans(
    tokenizer, texts: list[str], char_spans: list[list[CharSpan]]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Tokenizes texts cut at the borders of their spans. Per text: ids int32 [tokens], token spans int64 [spans, 2].

    A space before a border belongs to the segment after it, as in byte-level BPE: "Bo in LA." with the span of "LA" is
    "Bo in", " LA" and ".". Only one space moves, and no other white space. ValueError for bad spans.
    """
    counts = list(map(len, char_spans))
    borders, owner = _borders(texts, char_spans, counts), np.repeat(np.arange(len(texts)), counts)
    # All texts concatenated, each after a separator; text t begins at character first[t] of the whole.
    characters = np.frombuffer("".join(f"\n{text}" for text in texts).encode("utf-32-le", "surrogatepass"), "<u4")
    first = np.cumsum([1, *(len(text) + 1 for text in texts)])
    cuts = borders + first[owner][:, None]
    cuts -= characters[cuts - 1] == ord(" ")
    is_cut = np.zeros(first[-1], dtype=bool)
    is_cut[cuts] = True
    points = np.flatnonzero(is_cut)  # distinct cuts, in order
    begins = np.searchsorted(points, first)  # the cuts of text t are points[begins[t]:begins[t + 1]]
    points = (points - np.repeat(first[:-1], np.diff(begins))).tolist()  # as characters of its text
    inner = [points[begin:end] for begin, end in zip(begins.tolist(), begins[1:].tolist())]
    ids, lengths = tokenizer.encode_segments(chain.from_iterable(map(_segments, texts, inner)))
    # Each text has one more segment than cuts, so cut k of the batch, in text t, ends segment k + t.
    ends = np.cumsum(lengths)
    text_ends = ends[begins[1:] + np.arange(len(texts))].tolist()
    text_begins = [0, *text_ends[:-1]]
    spans = ends[np.cumsum(is_cut)[cuts] - 1 + owner[:, None]] - np.array(text_begins)[owner][:, None]
    span_ends = list(accumulate(counts))
    return (
        [ids[begin:end] for begin, end in zip(text_begins, text_ends)],
        [spans[end - count : end] for count, end in zip(counts, span_ends)],
    )


# --- Markers ----------------------------------------------------------------------------------------------------------


def mark(sequence: Sequence, markers: list[int]) -> Sequence:
    """Puts markers[k] before and after mention k; the markers become part of the mention. Mentions do not overlap.

    If two mentions start at the same token, an empty one comes first (differs from LUKE, where the markers cross if it
    is the head); if both are empty, the tail comes first.
    """
    parts, length, done = [], 0, 0
    spans = sequence.spans.tolist()
    in_text_order = sorted(range(len(spans)), key=lambda k: (spans[k], -k))
    for k in in_text_order:
        start, end = spans[k]
        parts += [sequence.word_ids[done:start], [markers[k]], sequence.word_ids[start:end], [markers[k]]]
        begin = length + start - done
        length = begin + end - start + 2
        spans[k], done = [begin, length], end
    word_ids = np.concatenate([*parts, sequence.word_ids[done:]])
    return sequence._replace(word_ids=word_ids, spans=np.array(spans))


# --- Truncation -------------------------------------------------------------------------------------------------------


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How much of two lengths to keep, at most `room` in all: cut the longer until both are equal, then cut both.

    (10, 4, 9) -> (5, 4). An odd token is taken from the second: (6, 6, 9) -> (5, 4).
    """
    excess = max(first + second - room, 0)
    difference = min(abs(first - second), excess)
    if first > second:
        first -= difference
    else:
        second -= difference
    rest = excess - difference
    return first - rest // 2, second - (rest - rest // 2)


def truncate(texts: list[Sequence], room: int, max_entities: int) -> list[Sequence]:
    """Cuts one or two texts at their ends to `room` tokens in all, as transformers 4 does for "longest_first".

    Drops entities that are not wholly inside, then those beyond max_entities, by the same rule.
    """
    both = [*texts, NOTHING][:2]
    lengths = longest_first(*(len(text.word_ids) for text in both), room)
    inside = [np.flatnonzero(text.spans[:, 1] <= length) for text, length in zip(both, lengths)]
    counts = longest_first(*map(len, inside), max_entities)
    return [
        Sequence(word_ids[:length], *(of_entities[numbers[:count]] for of_entities in (entity_ids, spans, kept)))
        for (word_ids, entity_ids, spans, kept), length, numbers, count in zip(texts, lengths, inside, counts)
    ]


def truncate_around(sequence: Sequence, max_length: int) -> Sequence | None:
    """Cuts `<s> text </s>` around its one or two mentions, which do not overlap.

    Keeps the first of these that applies:
    - the beginning of the text, if the mentions are in it, as transformers 4 does
    - a window with as much text before the mentions as after them, moved to the left if the text ends too soon
    - both mentions and the text between them, its middle cut out
    None if the mentions alone are too long.
    """
    # differs from LUKE, which keeps the beginning: a mention after it is lost, and with it the example
    n, room, spans = len(sequence.word_ids), max_length - 2, sequence.spans
    if n <= max_length:
        return sequence
    begin, end, length = int(spans.min()), int(spans.max()), int(np.diff(spans).sum())
    if length > room:
        return None
    if end - begin <= room:
        first = 1 if end <= room + 1 else min(begin - (room - (end - begin)) // 2, n - 1 - room)
        return _without(_without(sequence, first + room, n - 1), 1, first)
    first_end, second_start, between = int(spans[:, 1].min()), int(spans[:, 0].max()), room - length
    sequence = _without(sequence, end, n - 1)
    sequence = _without(sequence, first_end + (between + 1) // 2, second_start - between // 2)
    return _without(sequence, 1, begin)


def _without(sequence: Sequence, begin: int, end: int) -> Sequence:
    """The sequence without tokens [begin, end), which belong to no mention."""
    spans = np.where(sequence.spans >= end, sequence.spans - (end - begin), sequence.spans)
    return sequence._replace(word_ids=np.delete(sequence.word_ids, slice(begin, end)), spans=spans)


# --- Inputs -----------------------------------------------------------------------------------------------------------


def _columns(**columns: list | None) -> list[list]:
    """One list per argument, with one value per text."""
    n = len(columns["texts"])
    for name, column in columns.items():
        if isinstance(column, str) or (column is not None and len(column) != n):
            raise ValueError(f"{name}: expected a list for {n} texts, found {str(column)[:60]}")
    return [[None] * n if column is None else column for column in columns.values()]


def _fault(text, pair, spans, spans_pair, titles, titles_pair, task: str | None) -> str | None:
    """What is wrong with the arguments of one text, if anything."""
    if not isinstance(text, str) or not isinstance(pair, str | None):
        return f"expected a text, found {str(pair if isinstance(text, str) else text)[:60]}"
    for own, names in ((spans, titles), (spans_pair, titles_pair)):
        if names is not None and own is None:
            return "titles are given without spans"
        if names is not None and (isinstance(names, str) or len(names) != len(own)):
            return f"expected a title for each of {len(own)} spans, found {str(names)[:60]}"
    if pair is None and spans_pair is not None:
        return "spans are given for a second text that is not there"
    return None if task is None else _task_fault(task, text, pair, [] if spans is None else spans)


def _task_fault(task: str, text: str, pair: str | None, spans: list[CharSpan]) -> str | None:
    if pair is not None:
        return f"task {task} takes one text, not a pair"
    if len(spans) != {ENTITY: 1, PAIR: 2, SPAN: max(len(spans), 1)}[task]:
        return f"task {task}: expected {SPANS_OF_TASK[task]}, found {len(spans)}"
    if task == PAIR and _span_fault(text, spans) is None:
        head, tail = spans
        if head[1] > tail[0] and tail[1] > head[0]:  # differs from LUKE, where the markers cross
            return f"head ({head[0]}, {head[1]}) and tail ({tail[0]}, {tail[1]}) overlap"
    return None


def _check(vocab: EntityVocab, rows: Iterable[tuple], task: str | None, language: str | None) -> None:
    """ValueError for bad arguments; it begins with the text's index if one text is at fault."""
    if task not in (None, *SPANS_OF_TASK):
        raise ValueError(f"unknown task {task!r}, expected None or {', '.join(SPANS_OF_TASK)}")
    if task == PAIR and vocab.mask2_id is None:
        raise ValueError(f"the entity vocabulary lacks {MASK2}, which stands for the tail")
    if language is not None and vocab.languages and language not in vocab.languages:
        raise ValueError(f"language {language!r}: the entity vocabulary has {' '.join(vocab.languages)}")
    for number, row in enumerate(rows):
        if fault := _fault(*row, task):
            raise ValueError(f"text {number}: {fault}")


def _entity_ids(vocab: EntityVocab, n: int, titles: list[str] | None, task: str | None, language: str | None):
    if task == PAIR:
        return np.array([vocab.mask_id, vocab.mask2_id])
    if titles is None or task is not None:
        return np.full(n, vocab.mask_id)
    return np.array([vocab.id(title, language) for title in titles], dtype=np.int64)


def _tokenize(
    tokenizer, vocab: EntityVocab, texts: list[str], char_spans: list, titles: list, task: str | None, language
) -> list[Sequence]:
    """Texts with their entities and markers, still without <s> and </s>. Spans of None count as [] here."""
    found = token_spans(tokenizer, texts, [() if spans is None else spans for spans in char_spans])
    made = [
        Sequence(word_ids, _entity_ids(vocab, len(spans), names, task, language), spans, np.arange(len(spans)))
        for word_ids, spans, names in zip(*found, titles)
    ]
    return [mark(x, [tokenizer.ent_id, tokenizer.ent2_id]) for x in made] if task in (ENTITY, PAIR) else made


def _tokenize_pairs(
    tokenizer, vocab: EntityVocab, columns: list[list], task: str | None, language: str | None
) -> list[list[Sequence]]:
    """The one or two texts of every input."""
    texts, pairs, spans, spans_pair, titles, titles_pair = columns
    firsts = _tokenize(tokenizer, vocab, texts, spans, titles, task, language)
    if all(pair is None for pair in pairs):
        return [[first] for first in firsts]
    seconds = _tokenize(tokenizer, vocab, [pair or "" for pair in pairs], spans_pair, titles_pair, task, language)
    return [
        [first] if pair is None else [first, second._replace(kept=second.kept + len(first.kept))]
        for first, second, pair in zip(firsts, seconds, pairs)
    ]


def _join(bos: np.ndarray, eos: np.ndarray, first: Sequence, second: Sequence | None = None) -> Sequence:
    """<s> first </s>, or <s> first </s></s> second </s>"""
    if second is None:
        return Sequence(np.concatenate([bos, first.word_ids, eos]), first.entity_ids, first.spans + 1, first.kept)
    return Sequence(
        np.concatenate([bos, first.word_ids, eos, eos, second.word_ids, eos]),
        np.concatenate([first.entity_ids, second.entity_ids]),
        np.concatenate([first.spans + 1, second.spans + len(first.word_ids) + 3]),
        np.concatenate([first.kept, second.kept]),
    )


def _fit(join: Callable, texts: list[Sequence], task: str | None, max_length: int | None, max_entities) -> Sequence:
    """Joins one or two texts into one input of at most max_length tokens."""
    if max_length is None:
        return join(*texts)
    special = 2 * len(texts)  # tokens around the texts
    if max_length < special:
        raise ValueError(f"max_length is {max_length}, and the special tokens alone are {special}")
    if task not in (ENTITY, PAIR):
        return join(*truncate(texts, max_length - special, max_entities))
    if (fitted := truncate_around(join(*texts), max_length)) is None:
        length, room = int(np.diff(texts[0].spans).sum()), max_length - special
        raise ValueError(f"mentions take {length} tokens including markers, but max_length leaves only {room}")
    return fitted


def encode_sequences(
    tokenizer,
    entity_vocab: EntityVocab,
    texts: list[str],
    text_pairs: list[str | None] | None = None,
    *,
    entity_spans: list[list[CharSpan] | None] | None = None,
    entity_spans_pair: list[list[CharSpan] | None] | None = None,
    entities: list[list[str] | None] | None = None,
    entities_pair: list[list[str] | None] | None = None,
    task: str | None = None,
    max_length: int | None = None,
    max_entity_length: int = 32,
    language: str | None = None,
) -> list[Sequence]:
    """The inputs of many texts or pairs of texts, for `packing.pack`.

    entity_spans       of each text, half-open characters; None, unlike an empty list, gives an input without entity
                       arrays (`kept` is None). *_pair: the same for the second texts
    entities           titles; one that the vocabulary lacks becomes [UNK]. Without titles, [MASK]. Tasks ignore them
    language           of the titles, for a multilingual vocabulary and titles like "Oslo" rather than "en:Oslo"
    max_length         tokens per input. None: nothing is cut. Tasks on one or two entities keep them, see
                       `truncate_around`; otherwise see `truncate`, and `kept` [E] has the indices of the spans left,
                       counting entity_spans, then entity_spans_pair
    max_entity_length  maximum entities per input; used only if max_length is given, as in LUKE
    ValueError that names the text if it, its spans, titles and the task do not fit together.
    """
    columns = _columns(
        texts=texts, text_pairs=text_pairs, entity_spans=entity_spans, entity_spans_pair=entity_spans_pair,
        entities=entities, entities_pair=entities_pair,
    )  # fmt: skip
    _check(entity_vocab, zip(*columns), task, language)
    join, made = partial(_join, *np.array([[tokenizer.bos_id], [tokenizer.eos_id]])), []
    for number, pair in enumerate(_tokenize_pairs(tokenizer, entity_vocab, columns, task, language)):
        try:
            made.append(_fit(join, pair, task, max_length, max_entity_length))
        except ValueError as error:
            raise ValueError(f"text {number}: {error}") from None
    no_spans = [spans is None and spans_pair is None for spans, spans_pair in zip(columns[2], columns[3])]
    return [x._replace(kept=None) if has_none else x for x, has_none in zip(made, no_spans)]


def mention_sequences(
    tokenizer, entity_vocab: EntityVocab, texts: list[str], spans: list[list[CharSpan]], *, task: str, max_length: int,
    first_space: bool,
) -> list[tuple[Sequence | None, bool]]:  # fmt: skip
    """For a task on one or two mentions: each text cut to max_length tokens around them, and whether it was cut.

    first_space: encode the first word as if after a space. A Sequence is None if the mentions alone are too long
    (differs from LUKE, where that ends the run).
    """
    if first_space:
        texts, spans = [" " + text for text in texts], [[(start + 1, end + 1) for start, end in own] for own in spans]
    made = encode_sequences(tokenizer, entity_vocab, texts, entity_spans=spans, task=task)
    return [(truncate_around(sequence, max_length), len(sequence.word_ids) > max_length) for sequence in made]


# --- Hugging Face's names ---------------------------------------------------------------------------------------------


def as_arrays(
    sequences: list[Sequence], mention: int, with_ends: bool = False, with_kept: bool = False
) -> list[dict[str, np.ndarray]]:
    """Each input under Hugging Face's names; mention: columns of entity_position_ids.

    Positions and masks are made for all inputs at once; each input gets views.
    """
    starts, ends = np.concatenate([NOTHING.spans, *(sequence.spans for sequence in sequences)]).T
    runs = sliding_window_view(np.arange(starts.max(initial=0) + mention + 1), mention)  # row s: s, s + 1, s + 2, ...
    positions = runs[starts]  # [entities of all, mention]
    np.putmask(positions, positions >= ends[:, None], -1)
    ones = np.ones(len(positions) + sum(len(sequence.word_ids) for sequence in sequences), np.int64)
    made, n_entities, n_ones = [], 0, 0
    for word_ids, entity_ids, spans, kept in sequences:
        entities, words = slice(n_entities, n_entities + len(spans)), slice(n_ones, n_ones + len(word_ids))
        n_entities, n_ones = entities.stop, words.stop + len(spans)
        arrays = {"input_ids": word_ids, "attention_mask": ones[words]}
        if kept is not None or len(spans):
            arrays["entity_ids"] = entity_ids
            arrays["entity_position_ids"] = positions[entities]
            arrays["entity_attention_mask"] = ones[words.stop : n_ones]
            if with_ends:
                arrays["entity_start_positions"] = spans[:, 0]
                arrays["entity_end_positions"] = spans[:, 1] - 1
            if with_kept:
                arrays["kept_spans"] = kept
        made.append(arrays)
    return made


def encode_batch(
    tokenizer, entity_vocab: EntityVocab, texts: list[str], text_pairs: list[str | None] | None = None, *,
    max_mention_length: int = 30, **arguments,
) -> list[dict[str, np.ndarray]]:  # fmt: skip
    """`encode_sequences` as arrays, with the same arguments; with max_length also "kept_spans".

    max_mention_length: columns of entity_position_ids; tokens of a mention beyond it are not averaged.
    """
    made = encode_sequences(tokenizer, entity_vocab, texts, text_pairs, **arguments)
    is_cut = arguments.get("max_length") is not None
    return as_arrays(made, max_mention_length, with_ends=arguments.get("task") == SPAN, with_kept=is_cut)


def encode(
    tokenizer, entity_vocab: EntityVocab, text: str, text_pair: str | None = None, **arguments
) -> dict[str, np.ndarray]:
    """`encode_batch` for one text: entity_spans is a list of spans, entities a list of titles."""
    lists = {name: [value] if name in PER_TEXT else value for name, value in arguments.items()}
    try:
        return encode_batch(tokenizer, entity_vocab, [text], [text_pair], **lists)[0]
    except ValueError as error:
        raise ValueError(str(error).removeprefix("text 0: ")) from None


def collate(inputs: list[dict[str, np.ndarray]], pad_id: int = 1, entity_pad_id: int = 0) -> dict[str, Tensor]:
    """Padded int64 tensors [batch, ...]: as long as the longest text, or as the largest number of entities.

    Padding: pad_id and entity_pad_id (which the masks hide from the model), positions -1, everything else 0. There are
    entity tensors if at least one text has them; the others then have no entities. "kept_spans" is left out.
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


def pack(inputs: list[dict[str, np.ndarray]], pad_id: int) -> PackedBatch:
    """Packs the arrays of `encode_batch` for our own model, without padding (`packing.pack`)."""
    entity_ids = [x.get("entity_ids", NOTHING.entity_ids) for x in inputs]
    positions = np.concatenate([x["entity_position_ids"] for x in inputs if "entity_ids" in x] or [NOTHING.spans])
    starts, lengths = positions[:, 0], (positions >= 0).sum(axis=1)
    spans = np.split(np.stack([starts, starts + lengths], axis=1), np.cumsum(list(map(len, entity_ids[:-1]))))
    words = (x["input_ids"] for x in inputs)
    return packing.pack(list(map(Sequence, words, entity_ids, spans)), pad_id)

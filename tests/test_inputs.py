"""inputs.py: the released tokenizers' ids and positions, truncation that keeps mentions, batches.

    pytest tests/test_inputs.py
    pytest tests/test_inputs.py --strings 5000      5,000 random span sets for each vocabulary, minutes

Proved with: the worked example of a text with one token a byte, written out by hand; `reference`, the published rules
once more in plain loops, one token at a time, for random texts, spans, tasks and limits; transformers' LukeTokenizer
and MLukeTokenizer where they are installed (they cannot truncate texts with entities, so there the rules stand alone).
"""

import random
from itertools import chain, islice, repeat

import numpy as np
import pytest
import torch
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import random_strings

from luke_mini import inputs, packing, tokenizer_bpe, tokenizer_sentencepiece
from luke_mini.entity_vocab import EntityVocab

ENTITY, PAIR, SPAN = "entity_classification", "entity_pair_classification", "entity_span_classification"
TASKS = (None, ENTITY, PAIR, SPAN)
TITLES = ["[UNK]", "[PAD]", "[MASK]", "[MASK2]", "Bo", "LA"]  # an order of our own: ids are never assumed
VOCAB = EntityVocab.from_titles(TITLES)
M, M2 = VOCAB.mask_id, VOCAB.mask2_id


class Bytes:
    """One token a byte, numbered from 10."""

    bos_id, pad_id, eos_id, ent_id, ent2_id = 0, 1, 2, 3, 4
    names = {0: "<s>", 1: "<pad>", 2: "</s>", 3: "<ent>", 4: "<ent2>"}

    def encode_segments(self, segments):
        parts = [[10 + byte for byte in segment.encode()] for segment in segments]
        return np.array([*chain(*parts)], np.int32), np.array([*map(len, parts)])

    def show(self, ids):
        return " ".join(self.names.get(k) or chr(k - 10).replace(" ", "Ġ") for k in ids)


def plain(made: dict) -> dict:
    return {key: value.tolist() for key, value in made.items()}


def positions(made: dict) -> list[list[int]]:
    return [[k for k in row if k != -1] for row in made["entity_position_ids"].tolist()]


ENGLISH = [
    f"{a} didn't see {b}'s {17 * n} cafés in 東京, nor {c} lowest _house_ (they're  low)."
    for n, (a, b, c) in enumerate(zip("Ada Bo Cleo Dan".split() * 15, "Eva Finn Gro".split() * 20, "aan" * 20))
]

# --- By hand ----------------------------------------------------------------------------------------------------------

TEXT, BO, LA = "Bo in LA.", (0, 2), (6, 8)


def encode(text: str = TEXT, *pair: str, **arguments) -> dict[str, np.ndarray]:
    return inputs.encode(Bytes(), VOCAB, text, *pair, **arguments)


def test_worked_example():
    made = encode(entity_spans=[BO, LA])
    assert Bytes().show(made["input_ids"]) == "<s> B o Ġ i n Ġ L A . </s>"
    assert plain(made) == {
        "input_ids": [0, *(10 + ord(c) for c in TEXT), 2],
        "attention_mask": [1] * 11,
        "entity_ids": [M, M],
        "entity_position_ids": [[1, 2] + [-1] * 28, [6, 7, 8] + [-1] * 27],
        "entity_attention_mask": [1, 1],
    }
    assert all(value.dtype == np.int64 for value in made.values())


TWO_TEXTS = "<s> B o Ġ i n Ġ L A . </s> </s> B o ? </s>"
WORKED = [  # arguments beside TEXT, tokens, positions (half-open), entity ids
    ({"entity_spans": [LA], "task": ENTITY}, "<s> B o Ġ i n <ent> Ġ L A <ent> . </s>", [(6, 11)], [M]),
    ({"entity_spans": [BO, LA], "task": PAIR}, "<s> <ent> B o <ent> Ġ i n <ent2> Ġ L A <ent2> . </s>",
     [(1, 5), (8, 13)], [M, M2]),
    ({"entity_spans": [LA, BO], "task": PAIR}, "<s> <ent2> B o <ent2> Ġ i n <ent> Ġ L A <ent> . </s>",
     [(8, 13), (1, 5)], [M, M2]),
    ({"text_pair": "Bo?", "entity_spans": [LA], "entity_spans_pair": [BO]}, TWO_TEXTS, [(6, 9), (12, 14)], [M, M]),
    # The released tokenizer drops spans that are in the second text only, without a word.
    ({"text_pair": "Bo?", "entity_spans_pair": [BO], "entities_pair": ["Bo"]}, TWO_TEXTS, [(12, 14)], [VOCAB.id("Bo")]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "tokens", "spans", "entity_ids"), WORKED)
def test_worked_examples_of_tasks_and_pairs(arguments, tokens, spans, entity_ids):
    made = encode(**arguments)
    assert Bytes().show(made["input_ids"]) == tokens
    assert positions(made) == [[*range(*span)] for span in spans] and made["entity_ids"].tolist() == entity_ids


def test_worked_example_of_spans_and_padding():
    """[MASK] three times, padded to 14 words and 5 entities by a second text of that size."""
    made = encode(entity_spans=[(0, 2), (0, 5), (6, 8)], task=SPAN)
    other = encode("x" * 12, entity_spans=[(0, 1)] * 5, task=SPAN)
    batch = inputs.collate([made, other], pad_id=1, entity_pad_id=VOCAB.pad_id)
    assert all(value.dtype == torch.int64 for value in batch.values())
    assert batch["attention_mask"].sum(dim=1).tolist() == [11, 14]
    assert batch["entity_position_ids"].shape == (2, 5, 30) and (batch["entity_position_ids"][0, 3:] == -1).all()
    expected = {
        "input_ids": [*made["input_ids"].tolist(), 1, 1, 1],
        "entity_ids": [M, M, M, VOCAB.pad_id, VOCAB.pad_id],
        "entity_attention_mask": [1, 1, 1, 0, 0],
        "entity_start_positions": [1, 1, 6, 0, 0],
        "entity_end_positions": [2, 5, 8, 0, 0],
    }
    assert {key: batch[key][0].tolist() for key in expected} == expected


def test_one_space_moves_and_no_other_white_space():
    """Of two spaces one, of a tab, a line break or a no-break space none."""
    for before, moves in [("a", 0), ("a ", 1), ("a  ", 1), (" ", 1), ("", 0), ("a\t", 0), ("a\n", 0), ("a\u00a0", 0)]:
        text = before + "b."
        (ids,), (spans,) = inputs.token_spans(Bytes(), [text], [[(len(before), len(before) + 1)]])
        end = len(text.encode()) - 1
        assert ids.tolist() == [10 + byte for byte in text.encode()] and spans.tolist() == [[end - 1 - moves, end]]


def test_titles_and_languages():
    made = encode(entity_spans=[BO, LA, LA], entities=["Bo", "Nowhere", "LA"])
    assert made["entity_ids"].tolist() == [4, VOCAB.unk_id, 5]
    many = EntityVocab([[("[PAD]", None)], [("[UNK]", None)], [("[MASK]", None)], [("Oslo", "en"), ("오슬로", "ko")]])
    assert inputs.encode(Bytes(), many, TEXT, entity_spans=[BO], entities=["en:Oslo"])["entity_ids"].tolist() == [3]
    for language, expected in [("en", 3), ("ko", many.unk_id)]:
        made = inputs.encode(Bytes(), many, TEXT, entity_spans=[BO], entities=["Oslo"], language=language)
        assert made["entity_ids"].tolist() == [expected]
    with pytest.raises(ValueError, match="language 'de': the entity vocabulary has en ko"):
        inputs.encode(Bytes(), many, TEXT, entity_spans=[BO], entities=["Oslo"], language="de")


def test_long_mentions_lose_positions_and_keep_their_ends():
    made = encode("x" * 40, entity_spans=[(0, 40)], task=SPAN)
    assert positions(made) == [list(range(1, 31))]
    assert made["entity_start_positions"].tolist() == [1] and made["entity_end_positions"].tolist() == [40]
    assert encode(entity_spans=[BO], max_mention_length=1)["entity_position_ids"].tolist() == [[1]]


def test_no_spans_and_empty_lists():
    assert list(encode()) == ["input_ids", "attention_mask"]
    made = encode(entity_spans=[])
    assert made["entity_ids"].shape == (0,) and made["entity_position_ids"].shape == (0, 30)
    assert inputs.encode_batch(Bytes(), VOCAB, []) == []
    assert plain(encode("")) == {"input_ids": [0, 2], "attention_mask": [1, 1]}


# --- The rules once more ----------------------------------------------------------------------------------------------


def reference_tokens(tokenize, text, spans):
    """Section by section: cut before the space that precedes a border, tokenise, remember where borders fell."""
    ids, at, done = [], {}, 0
    for border in sorted({*chain(*spans)}):
        cut = border - 1 if text[:border].endswith(" ") else border
        if cut > done:
            ids, done = ids + tokenize(text[done:cut]), cut
        at[border] = len(ids)
    return ids + tokenize(text[done:]), [(at[start], at[end]) for start, end in spans]


def insert(ids, spans, markers):
    """Puts the markers in from right to left, as the released tokenizer does, the tail first if it is on the right."""
    spans = list(spans)
    order = sorted(range(len(spans)), key=lambda k: (spans[k], -k), reverse=True)
    for k in order:
        start, end = spans[k]
        ids = ids[:start] + [markers[k]] + ids[start:end] + [markers[k]] + ids[end:]
        spans[k] = (start, end + 2)
        for other in order[: order.index(k)]:
            spans[other] = (spans[other][0] + 2, spans[other][1] + 2)
    return ids, spans


def shorten(first, second, excess):
    """Takes one item away at a time: from the longer one, from the second if both are equal."""
    first, second = list(first), list(second)
    for _ in range(excess):
        (first if len(first) > len(second) else second).pop()
    return first, second


def windows(ids, spans, room):
    """Which tokens stay when the mentions must; None if they cannot."""
    inside = {k for start, end in spans for k in range(start, end)}
    begin, end = min(inside), max(inside) + 1
    if len(ids) <= room or end <= room:
        return range(min(len(ids), room))
    if len(inside) > room:
        return None
    if end - begin <= room:
        found = [k for k in range(len(ids) - room + 1) if k <= begin and end <= k + room]
        best = min(found, key=lambda k: (abs((begin - k) - (k + room - end)), begin - k))
        return range(best, best + room)
    gap = [k for k in range(begin, end) if k not in inside]
    kept = []
    while len(inside) + len(kept) < room:  # in turn from both ends of the gap, the left one first
        kept.append(gap.pop(0 if len(kept) % 2 == 0 else -1))
    return sorted({*inside, *kept})


def reference(
    tokenizer, tokenize, text, text_pair=None, *, entity_spans=None, entity_spans_pair=None, entities=None, task=None,
    max_length=None, max_entity_length=32, max_mention_length=30,
):  # fmt: skip
    """The whole contract for one input, or None where it is impossible."""
    ids, token_spans = reference_tokens(tokenize, text, entity_spans or [])
    ids_pair, token_spans_pair = reference_tokens(tokenize, text_pair or "", entity_spans_pair or [])
    entity_ids = [M] * len(token_spans) if entities is None or task else [VOCAB.id(title) for title in entities]
    numbered = [(*span, entity, k) for k, (span, entity) in enumerate(zip(token_spans, entity_ids))]
    numbered_pair = [(*span, M, len(numbered) + k) for k, span in enumerate(token_spans_pair)]
    special = 2 if text_pair is None else 4
    if task in (ENTITY, PAIR):
        ids, marked = insert(ids, token_spans, [tokenizer.ent_id, tokenizer.ent2_id])
        stay = range(len(ids)) if max_length is None else windows(ids, marked, max_length - special)
        if stay is None:
            return None
        stay = list(stay)
        ids = [ids[k] for k in stay]
        numbered = [(stay.index(s), stay.index(e - 1) + 1, (M, M2)[k], k) for k, (s, e) in enumerate(marked)]
    elif max_length is not None:
        ids, ids_pair = shorten(ids, ids_pair, max(0, len(ids) + len(ids_pair) + special - max_length))
        numbered = [entity for entity in numbered if entity[1] <= len(ids)]
        numbered_pair = [entity for entity in numbered_pair if entity[1] <= len(ids_pair)]
        excess = max(0, len(numbered) + len(numbered_pair) - max_entity_length)
        numbered, numbered_pair = shorten(numbered, numbered_pair, excess)
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    whole = [bos, *ids, eos] + ([] if text_pair is None else [eos, *ids_pair, eos])
    shifted = [(s + 1, e + 1, *rest) for s, e, *rest in numbered]
    shifted += [(s + len(ids) + 3, e + len(ids) + 3, *rest) for s, e, *rest in numbered_pair]
    made = {"input_ids": whole, "attention_mask": [1] * len(whole)}
    if entity_spans is None and entity_spans_pair is None:
        return made
    made["entity_ids"] = [entity for _, _, entity, _ in shifted]
    columns = range(max_mention_length)
    made["entity_position_ids"] = [[s + k if s + k < e else -1 for k in columns] for s, e, _, _ in shifted]
    made["entity_attention_mask"] = [1] * len(shifted)
    if task == SPAN:
        made["entity_start_positions"] = [s for s, *_ in shifted]
        made["entity_end_positions"] = [e - 1 for _, e, *_ in shifted]
    if max_length is not None:
        made["kept_spans"] = [k for *_, k in shifted]
    return made


def draw_span(draw: random.Random, text: str, within=(0, None)) -> tuple[int, int]:
    low, high = within[0], len(text) if within[1] is None else within[1]
    start, end = sorted((draw.randint(low, high), draw.randint(low, high)))
    return start, end if draw.random() < 0.4 else min(high, start + draw.randint(0, 8))


def draw_case(draw: random.Random, texts: list[str], task: str | None) -> dict:
    """Arguments of `encode` that are in order: spans unsorted, nested, repeated, empty, with spaces at the borders."""
    text = draw.choice(texts)
    if task == ENTITY:
        return {"text": text, "entity_spans": [draw_span(draw, text)], "task": task}
    if task == PAIR:
        middle = draw.randint(0, len(text))
        spans = [draw_span(draw, text, (0, middle)), draw_span(draw, text, (middle, None))]
        return {"text": text, "entity_spans": draw.sample(spans, 2), "task": task}
    spans = [draw_span(draw, text) for _ in range(draw.randint(1 if task else 0, 12))]
    spans += draw.sample(spans, min(len(spans), draw.randint(0, 2)))
    if task:
        return {"text": text, "entity_spans": spans, "task": task}
    case = {"text": text, "entity_spans": draw.choice([spans, spans, spans, None])}
    if case["entity_spans"] is not None and draw.random() < 0.5:
        case["entities"] = [draw.choice([*TITLES[4:], "Nowhere"]) for _ in spans]
    if draw.random() < 0.5:
        case["text_pair"] = draw.choice(texts)
        spans = [draw_span(draw, case["text_pair"]) for _ in range(draw.randint(0, 6))]
        case["entity_spans_pair"] = draw.choice([spans, spans, None])
    return case


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=250, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_equal_to_the_rules_with_and_without_truncation(task, seed):
    draw = random.Random(seed)
    case = draw_case(draw, ["", "a", "Bo in LA.", "  two  é spaces ", "abc " * 9, "东京 is Tōkyō " * 3], task)
    limits = {"max_mention_length": draw.choice([1, 5, 30])}
    if draw.random() < 0.75:
        limits |= {"max_length": draw.randint(6, 50), "max_entity_length": draw.choice([0, 1, 3, 32])}
    expected = reference(Bytes(), lambda piece: [10 + byte for byte in piece.encode()], **case, **limits)
    if expected is None:
        with pytest.raises(ValueError, match="tokens including markers, but max_length leaves only"):
            encode(**case, **limits)
        return
    made = plain(encode(**case, **limits))
    assert made == expected
    if "max_length" in limits:
        assert len(made["input_ids"]) <= limits["max_length"]


def truncated(spans, max_length, text="abcdefghijklmnopqrstuvwxyz"):
    made = encode(text, entity_spans=spans, task=TASKS[len(spans)], max_length=max_length)
    marks = {"<ent>": "[", "<ent2>": "{"}
    return "".join(marks.get(token, token) for token in Bytes().show(made["input_ids"][1:-1]).split())


@pytest.mark.parametrize(
    ("spans", "max_length", "expected"),
    [
        ([(3, 5)], 30, "abc[de[fghijklmnopqrstuvwxyz"),  # nothing to do
        ([(3, 5)], 12, "abc[de[fgh"),  # the beginning, as transformers 4
        ([(3, 5)], 9, "abc[de["),  # just so
        ([(3, 5)], 8, "c[de[f"),  # around it
        ([(20, 22)], 11, "st[uv[wxy"),  # one more behind than before
        ([(24, 26)], 10, "uvwx[yz["),  # the text ends too soon
        ([(20, 22)], 6, "[uv["),
        ([(0, 1), (4, 5)], 12, "[a[bcd{e{f"),
        ([(10, 11), (14, 15)], 13, "j[k[lmn{o{p"),  # around both
        ([(10, 11), (24, 25)], 13, "[k[lmnwx{y{"),  # the middle is cut out
        ([(24, 25), (10, 11)], 8, "{k{[y["),  # head on the right
    ],
)
def test_truncation_around_mentions_by_hand(spans, max_length, expected):
    assert truncated(spans, max_length) == expected


def test_mentions_that_cannot_fit():
    with pytest.raises(ValueError, match="mentions take 6 tokens including markers, but max_length leaves only 5"):
        truncated([(10, 11), (24, 25)], 7)
    with pytest.raises(ValueError, match="text 1: mentions take 28 tokens"):
        texts, spans = ["ab", "abcdefghijklmnopqrstuvwxyz"], [[(0, 1)], [(0, 26)]]
        inputs.encode_batch(Bytes(), VOCAB, texts, entity_spans=spans, task=ENTITY, max_length=20)


@pytest.mark.parametrize(("task", "limit"), [(ENTITY, 13), (PAIR, 15)])  # "Bo in LA." just fits
def test_mention_sequences_are_those_of_encode(task, limit):
    """Whole or cut as `encode` cuts; None where it says that the mentions are too long."""
    draw = random.Random(1)
    cases = [draw_case(draw, ["abc de " * 6, "Bo in LA."], task) for _ in range(100)]
    texts, spans = [case["text"] for case in cases], [case["entity_spans"] for case in cases]
    made = inputs.mention_sequences(Bytes(), VOCAB, texts, spans, task=task, max_length=limit, first_space=False)
    for case, (sequence, is_cut) in zip(cases, made, strict=True):
        assert is_cut == (len(encode(**case)["input_ids"]) > limit)
        try:
            expected = plain(encode(**case, max_length=limit, max_mention_length=7))
        except ValueError:
            assert sequence is None
            continue
        del expected["kept_spans"]
        (arrays,) = inputs.as_arrays([sequence], 7)
        assert plain(arrays) == expected and sequence.word_ids.tolist() == expected["input_ids"]
        assert [list(range(*span))[:7] for span in sequence.spans.tolist()] == positions(arrays)
    assert {(sequence is None, is_cut) for sequence, is_cut in made} == {(True, True), (False, True), (False, False)}


def test_longest_first_by_hand():
    """10 and 4 lose 5: the first all of them. 6 and 6 lose 3: the second two. 4 and 10 lose 8: 6, then one each."""
    cases = {(10, 4, 9): (5, 4), (6, 6, 9): (5, 4), (4, 10, 6): (3, 3), (4, 10, 14): (4, 10), (7, 0, 3): (3, 0)}
    assert {case: inputs.longest_first(*case) for case in cases} == cases


def test_truncation_names_the_spans_that_are_left():
    spans = [(6, 8), (0, 2), (3, 5), (0, 5)]
    made = encode(entity_spans=spans, max_length=8)  # "Bo in " stays
    assert made["kept_spans"].tolist() == [1, 2, 3] and positions(made) == [[1, 2], [3, 4, 5], [1, 2, 3, 4, 5]]
    made = encode(entity_spans=spans, max_length=99, max_entity_length=2)
    assert made["kept_spans"].tolist() == [0, 1]
    made = encode(entity_spans=spans, max_entity_length=2)  # as LUKE: no limit without
    assert len(made["entity_ids"]) == 4 and "kept_spans" not in made


# --- Errors -----------------------------------------------------------------------------------------------------------

ERRORS = [
    ({"entity_spans": [(0, 2), (5, 3)]}, r"the span \(5, 3\) ends before it starts"),
    ({"entity_spans": [(0, 2), (6, 10)]}, r"the span \(6, 10\) is outside of the text, which has 9 characters"),
    ({"entity_spans": [(-3, 2)]}, r"the span \(-3, 2\) is outside"),
    ({"entity_spans": (0, 2)}, r"expected a list of spans \(start, end\) in characters, found \(0, 2\)"),
    ({"entity_spans": [(0, 2, 3)]}, "expected a list of spans"),
    ({"entity_spans": [(0, 2, 3), (4,)]}, "expected a list of spans"),
    ({"entity_spans": ["ab"]}, "expected a list of spans"),
    ({"entity_spans": [BO], "entities": ["Bo", "LA"]}, r"expected a title for each of 1 spans, found \['Bo', 'LA'\]"),
    ({"entity_spans": [BO, LA], "entities": "Bo"}, "expected a title for each of 2 spans, found Bo"),
    ({"entities": ["Bo"]}, "titles are given without spans"),
    ({"text_pair": "x", "entity_spans": [BO], "entities_pair": ["Bo"]}, "titles are given without spans"),
    ({"entity_spans_pair": [BO]}, "spans are given for a second text that is not there"),
    ({"text_pair": "x", "entity_spans_pair": [(0, 2)]}, r"the span \(0, 2\) is outside of the text, which has 1 char"),
    ({"entity_spans": [(0, 2**70)]}, "is outside of the text"),
    ({"entity_spans": [(0, None)]}, "expected a list of spans"),
    ({"text_pair": 5}, "expected a text, found 5"),
    ({"task": ENTITY}, "task entity_classification: expected 1 span, found 0"),
    ({"task": ENTITY, "entity_spans": [BO, LA]}, "expected 1 span, found 2"),
    ({"task": PAIR, "entity_spans": [BO]}, r"expected 2 spans \(head, tail\), found 1"),
    ({"task": SPAN, "entity_spans": []}, "expected at least 1 span, found 0"),
    ({"task": ENTITY, "entity_spans": [BO], "text_pair": "x"}, "takes one text, not a pair"),
    ({"task": PAIR, "entity_spans": [(0, 8), LA]}, r"head \(0, 8\) and tail \(6, 8\) overlap"),
    ({"task": PAIR, "entity_spans": [(3, 3), (2, 5)]}, "overlap"),
    ({"task": PAIR, "entity_spans": [(0, 99), LA]}, r"the span \(0, 99\) is outside"),
    ({"task": "typing", "entity_spans": [BO]}, "unknown task 'typing', expected None or entity_classification, "),
    ({"entity_spans": [BO], "max_length": 1}, "max_length is 1, and the special tokens alone are 2"),
    ({"text_pair": "x", "max_length": 3}, "max_length is 3, and the special tokens alone are 4"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=range(len(ERRORS)))
def test_errors_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        encode(**arguments)
    assert "\n" not in str(error.value) and not str(error.value).startswith("text 0")


def test_errors_of_a_batch_name_the_text():
    for arguments, message in (
        ({"entity_spans": [[(0, 3)], None, [(0, 3)]]}, r"^text 2: the span \(0, 3\) is outside"),
        ({"entity_spans": [[(0, 3)], None, None], "task": ENTITY}, f"^text 1: task {ENTITY}: expected 1 span, found 0"),
        ({"entity_spans": [(0, 3)]}, "^entity_spans: expected a list for 3 texts"),
    ):
        with pytest.raises(ValueError, match=message):
            inputs.encode_batch(Bytes(), VOCAB, ["abc", "ab", "ab"], **arguments)


def test_pairs_need_a_second_mask():
    with pytest.raises(ValueError, match=r"lacks \[MASK2\]"):
        inputs.encode(Bytes(), EntityVocab.from_titles(TITLES[:3]), TEXT, entity_spans=[BO, LA], task=PAIR)


# --- Batches ----------------------------------------------------------------------------------------------------------


def draw_batch(seed: int, task: str | None) -> tuple[list[dict], dict[str, list]]:
    """Nine cases for `encode`, and the same as columns for a batch."""
    draw = random.Random(seed)
    cases = [draw_case(draw, [*ENGLISH[:5], *random_strings(20, seed), "", "<pad> é"], task) for _ in range(9)]
    names = {"text": "texts", "text_pair": "text_pairs"}
    keys = ("text", "text_pair", "entity_spans", "entity_spans_pair", "entities")
    return cases, {names.get(key, key): [case.get(key) for case in cases] for key in keys}


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    return tokenizer_bpe.train(ENGLISH, 420, tmp_path_factory.mktemp("bpe"))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("limit", [None, 30])
def test_encode_batch_equals_encode(bpe, task, limit):
    cases, columns = draw_batch(1, task)
    limit = 300 if limit and task in (ENTITY, PAIR) else limit  # so that every mention fits
    expected = [plain(inputs.encode(bpe, VOCAB, **case, max_length=limit)) for case in cases]
    made = inputs.encode_batch(bpe, VOCAB, **columns, task=task, max_length=limit)
    assert list(map(plain, made)) == expected


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_packed_is_padded(bpe, task, seed):
    """The same batch as `packing.from_padded` makes of the padded tensors, "<pad>" in the text included. (That a model
    makes the same of both is in test_model.py.)"""
    cases, columns = draw_batch(seed, task)
    batch = [inputs.encode(bpe, VOCAB, **case) for case in cases]
    padded = inputs.collate(batch, bpe.pad_id, VOCAB.pad_id)
    names = "input_ids attention_mask entity_ids entity_position_ids entity_attention_mask".split()
    expected = packing.from_padded(**{name: padded[name] for name in names}, pad_id=bpe.pad_id)
    sequences = inputs.encode_sequences(bpe, VOCAB, **columns, task=task)
    for made in (inputs.pack(batch, bpe.pad_id), packing.pack(sequences, bpe.pad_id, max_mention=30)):
        for name in "word_ids word_positions entity_ids mention_positions mention_offsets".split():
            assert torch.equal(getattr(made, name), getattr(expected, name)), name
        assert made.word_lengths == expected.word_lengths and made.entity_lengths == expected.entity_lengths


def test_batches_without_entities(bpe):
    batch = inputs.encode_batch(bpe, VOCAB, ["Ada", "Bo in LA"])
    assert list(inputs.collate(batch)) == ["input_ids", "attention_mask"]
    packed = inputs.pack(batch, bpe.pad_id)
    assert packed.n_entities == 0 and packed.mention_offsets.tolist() == [0] and packed.entity_lengths == (0, 0)


# --- transformers -----------------------------------------------------------------------------------------------------


def luke_tokenizers(tokenizer, folder, task):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(folder)
    entity_vocab = {title: k for k, title in enumerate(TITLES)}
    return transformers.LukeTokenizer.from_pretrained(folder, entity_vocab=entity_vocab, task=task)


def spoils_transformers(case: dict) -> bool:
    """What it does otherwise by mistake or design: entity tokens as words, control characters, and see `mark`."""
    texts = case["text"] + case.get("text_pair", "")
    if any(token in texts for token in ("\x1c", "\x1f", "[MASK]", "[UNK]", "[PAD]")):
        return True
    if case.get("entity_spans") is None and case.get("entity_spans_pair") is not None:
        return True
    if case.get("task") != PAIR:
        return False
    head, (start, end) = case["entity_spans"]
    starts_alike = case["text"][head[0] : start].strip(" ") == ""  # perhaps at the same token
    return starts_alike and head[1] <= start


def assert_equal_to_transformers(ours, theirs_of_task: dict, texts: list[str], count: int, spoils) -> None:
    draw = random.Random(1)
    cases = (draw_case(draw, texts, draw.choice(TASKS)) for _ in repeat(None))
    for case in islice((case for case in cases if not spoils(case)), count):
        made = plain(inputs.encode(ours, VOCAB, **case))
        task = case.pop("task", None)
        assert made == dict(theirs_of_task[task](**case)), (task, case)


@pytest.fixture(scope="module")
def count(request) -> int:
    return request.config.getoption("--strings")


def test_equal_to_transformers(bpe, tmp_path, count):
    """Random span sets over sentences and strings from all over Unicode, all tasks, titles, pairs."""
    theirs = {task: luke_tokenizers(bpe, tmp_path, task) for task in TASKS}
    texts = [*ENGLISH, *random_strings(200, seed=7)]
    assert_equal_to_transformers(bpe, theirs, texts, count, spoils_transformers)


def test_equal_to_transformers_with_the_real_vocabulary(real_lines, tmp_path, count):
    ours = tokenizer_bpe.load(shared_data("tokenizers/vocab.json").parent)
    theirs = {task: luke_tokenizers(ours, tmp_path, task) for task in TASKS}
    assert_equal_to_transformers(ours, theirs, [line[:300] for line in real_lines], count, spoils_transformers)


def test_padding_equals_transformers(bpe, tmp_path):
    for task in TASKS:
        theirs = luke_tokenizers(bpe, tmp_path, task)
        draw = random.Random(3)
        cases = [case for case in (draw_case(draw, ENGLISH, task) for _ in range(40)) if "text_pair" not in case]
        cases = [case for case in cases if case["entity_spans"] is not None and not spoils_transformers(case)][:8]
        texts, spans = [case["text"] for case in cases], [case["entity_spans"] for case in cases]
        expected = theirs(texts, entity_spans=spans, padding=True, return_tensors="pt")
        made = inputs.encode_batch(bpe, VOCAB, texts, entity_spans=spans, task=task)
        made = inputs.collate(made, bpe.pad_id, VOCAB.pad_id)
        assert made.keys() == expected.keys()
        assert all(torch.equal(made[key], expected[key]) for key in made), task


# --- mLUKE ------------------------------------------------------------------------------------------------------------

SENTENCES = [f"{a} was born in {b}, near {c}." for a in ("Ada", "Bo") for b in ("Oslo", "東京") for c in ("Mo", "Bodø")]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    return tokenizer_sentencepiece.train(SENTENCES * 3, 100, tmp_path_factory.mktemp("sentencepiece"))


def test_pieces_equal_the_library_by_the_rules(pieces, count):
    """mLUKE as published: every segment goes through SentencePiece by itself, and ids move up by one."""
    model, draw = pieces.processor, random.Random(4)

    def tokenize(piece: str) -> list[int]:
        return [k + 1 if k else 3 for k in model.encode(piece)]

    texts = [*SENTENCES, "  two  spaces ", "unknown ☃ sign", "tab\tand ﬁne ½"]
    for _ in range(count):
        case = draw_case(draw, texts, draw.choice(TASKS))
        limits = draw.choice([{}, {"max_length": 60}])
        assert plain(inputs.encode(pieces, VOCAB, **case, **limits)) == reference(pieces, tokenize, **case, **limits)


def test_equal_to_transformers_mluke(pieces, count):
    """On known characters; spans do not begin or end at a space, as 5.23 keeps lone spaces that SentencePiece drops."""
    transformers = pytest.importorskip("transformers")
    model = pieces.processor
    scored = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    scored += [(model.id_to_piece(k), model.get_score(k)) for k in range(3, model.get_piece_size())]
    entity_vocab = {title: k for k, title in enumerate(TITLES)}
    theirs = {task: transformers.MLukeTokenizer(vocab=scored, entity_vocab=entity_vocab, task=task) for task in TASKS}

    def spoils(case: dict) -> bool:
        borders = [(case["text"], at) for at in chain(*case["entity_spans"] or [])]
        borders += [(case.get("text_pair"), at) for at in chain(*case.get("entity_spans_pair") or [])]
        return spoils_transformers(case) or any(text[at : at + 1] == " " for text, at in borders)

    assert_equal_to_transformers(pieces, theirs, SENTENCES, count, spoils)

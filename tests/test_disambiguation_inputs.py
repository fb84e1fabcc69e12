"""Inputs of entity disambiguation equal a plain transcription of the rules, whatever the document; nothing crashes.

    python -m pytest -q tests/test_disambiguation_inputs.py
"""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini.disambiguation_data import Candidate, Document, Mention
from luke_mini.disambiguation_data import Options, candidate_ids, make_features, pack, padded
from luke_mini.entity_vocab import EntityVocab
from luke_mini.spans import equal_parts

TITLES = [f"T{k}" for k in range(8)]
VOCAB = EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]", *TITLES, "[MASK2]"])
UNK = 1


class LetterTokenizer:
    """One piece a letter, none for a space."""

    bos_id, pad_id, eos_id, unk_id = 0, 1, 2, 3

    def encode_segments(self, segments):
        ids = [[10 + ord(char) % 80 for char in segment if char != " "] for segment in segments]
        return np.array([k for part in ids for k in part], np.int32), np.array([*map(len, ids)])


def mention(start, end, title, *titles) -> Mention:
    return Mention(start, end, title, tuple(Candidate(name, 1 / (k + 1)) for k, name in enumerate(titles)))


def test_candidates_worked_by_hand():
    """X and Y are not in the vocabulary: together one [UNK], whose first number is X's. T0 has the id 3."""
    found = mention(0, 1, "T1", "X", "T0", "Y", "T1", "T2")
    ids, numbers, gold = candidate_ids(found, VOCAB, Options())
    assert ids.tolist() == [UNK, 3, 4, 5] and numbers.tolist() == [0, 1, 3, 4] and gold == 4
    ids, numbers, gold = candidate_ids(found, VOCAB, Options(max_candidates=3))
    assert ids.tolist() == [UNK, 3] and gold == -1  # the title is the fourth
    assert candidate_ids(found._replace(title="X"), VOCAB, Options())[2] == -1
    assert candidate_ids(found._replace(title=None), VOCAB, Options())[2] == -1
    assert candidate_ids(found._replace(title="T5"), VOCAB, Options())[2] == -1
    ids, numbers, gold = candidate_ids(found._replace(candidates=()), VOCAB, Options())
    assert len(ids) == len(numbers) == 0 and gold == -1


def plain_inputs(document: Document, options: Options):
    """[(word ids, [(mention, first, last + 1, is target)])] of one document, piece by piece."""
    before = [sum(char != " " for char in document.text[:k]) for k in range(len(document.text) + 1)]
    ids = [10 + ord(char) % 80 for char in document.text if char != " "]
    n, room, made = len(ids), options.max_seq_length - 2, []
    spans = {k: (before[m.start], before[m.end]) for k, m in enumerate(document.mentions)}
    order = sorted(spans, key=lambda k: document.mentions[k][:2])

    def clipped(k, first, last):
        start, end = spans[k]
        return start - first + 1, min(end, last, start + options.max_mention) - first + 1

    if n > room and options.split == "per_mention":
        for target in order:
            start, end = spans[target]
            end = min(end, start + room)
            left = right = 0
            half = (room - (end - start)) // 2
            if start < n - end:
                left = min(start, half)
                right = min(n - end, room - (end - start) - left)
            else:
                right = min(n - end, half)
                left = min(start, room - (end - start) - right)
            first, last = start - left, end + right
            others = [k for k in order if k != target and first <= spans[k][0] and spans[k][1] <= last]
            chosen = [target, *others[: options.max_entities - 1]]
            made.append((ids[first:last], [(k, *clipped(k, first, last), k == target) for k in chosen]))
    else:
        borders = equal_parts(n, room, np.array([spans[k] for k in order], np.int64).reshape(-1, 2))
        for number, (first, last) in enumerate(zip(borders, borders[1:])):
            is_last = number == len(borders) - 2
            inside = [k for k in order if first <= spans[k][0] and (spans[k][0] < last or is_last)]
            parts = -(-len(inside) // options.max_entities)
            for part in range(parts):  # as equal as can be, the larger ones first
                size = len(inside) // (parts - part) + (len(inside) % (parts - part) > 0)
                chosen, inside = inside[:size], inside[size:]
                made.append((ids[first:last], [(k, *clipped(k, first, last), True) for k in chosen]))
    return made


@st.composite
def documents(draw):
    text = draw(st.text("ab c", max_size=50))
    places = st.tuples(st.integers(0, max(0, len(text) - 1)), st.integers(1, 15))
    found = draw(st.lists(places, max_size=10)) if text else []
    titles = st.lists(st.sampled_from([*TITLES, "X", "Y"]), max_size=5, unique=True)
    title = st.sampled_from([*TITLES, "X", None])
    made = [mention(start, min(start + n, len(text)), draw(title), *draw(titles)) for start, n in found]
    return Document("", text, tuple(made))


@given(
    documents(), st.sampled_from(["simple", "per_mention"]), st.integers(6, 30), st.integers(1, 5), st.integers(1, 6)
)
@settings(max_examples=300, deadline=None)
def test_features_equal_a_plain_transcription(document, split, max_length, max_entities, max_mention):
    options = Options(split=split, max_seq_length=max_length, max_entities=max_entities, max_mention=max_mention)
    features = make_features([document], LetterTokenizer(), VOCAB, (), options)
    found = []
    for feature in features:
        assert feature.word_ids[0] == 0 and feature.word_ids[-1] == 2 and len(feature.word_ids) <= max_length
        rows = zip(feature.mentions.tolist(), *feature.spans.T.tolist(), feature.is_target.tolist())
        found.append((feature.word_ids[1:-1].tolist(), list(rows)))
        for k, ids, numbers, gold in zip(feature.mentions, feature.candidates, feature.numbers, feature.gold):
            expected = candidate_ids(document.mentions[k], VOCAB, options)
            assert (ids.tolist(), numbers.tolist(), gold) == (expected[0].tolist(), expected[1].tolist(), expected[2])
    expected = [(ids, rows) for ids, rows in plain_inputs(document, options) if rows]
    assert found == expected
    decided = Counter(k for _, rows in found for k, _, _, is_target in rows if is_target)
    assert decided == Counter(range(len(document.mentions)))  # every mention once


def test_a_packed_batch_has_the_positions_of_all_pieces():
    """Mentions of 3, 1 and 0 pieces in two inputs; a mention without pieces averages nothing."""
    first = Document("", "abc d", (mention(0, 3, None), mention(4, 5, None)))
    second = Document("", "ab ", (mention(2, 3, None),))
    features = make_features([first, second], LetterTokenizer(), VOCAB)
    packed = pack(features, [np.array([5, 6]), np.array([7])], 1)
    assert packed.entity_ids.tolist() == [5, 6, 7] and packed.mention_offsets.tolist() == [0, 3, 4, 4]
    assert packed.mention_positions.tolist() == [1, 2, 3, 4] and packed.word_lengths == (6, 4)
    assert packed.entity_lengths == (2, 1) and packed.word_positions.tolist() == [2, 3, 4, 5, 6, 7, 2, 3, 4, 5]


def test_padded_candidates():
    rows = [np.array([4, 5]), np.array([], np.int64), np.array([6])]
    assert padded(rows).tolist() == [[4, 5], [-1, -1], [6, -1]] and padded([]).shape == (0, 1)

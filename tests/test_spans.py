"""Characters <-> tokens: the docstring's example by hand, and every span of random tokenisations by brute force.

    pytest tests/test_spans.py
"""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luke_mini.spans import char_span, is_punctuation, token_span

OFFSETS = [(0, 2), (2, 6), (7, 12)]  # "Barack Obama" as ▁Ba rack ▁Obama


@pytest.mark.parametrize(
    ("span", "tokens"),
    [((0, 6), (0, 2)), ((3, 8), (1, 3)), ((7, 12), (2, 3)), ((1, 2), (0, 1)), ((6, 7), (2, 2)), ((12, 15), (3, 3))],
)
def test_worked_example(span, tokens):
    assert token_span(OFFSETS, *span) == tokens


def test_lone_space_marker_comes_along():
    offsets = [(0, 2), (3, 3), (3, 5)]  # "in 東京" as ▁in ▁ 東京
    assert token_span(offsets, 3, 5) == (1, 3)
    assert token_span(offsets, 0, 2) == (0, 1)
    assert token_span(offsets, 4, 5) == (1, 3)  # a part of the token means the token, with its marker


def test_tokens_of_one_character_stay_together():
    assert token_span([(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)], 1, 2) == (1, 4)


def test_char_span_is_the_way_back():
    assert char_span(OFFSETS, 0, 2) == (0, 6)
    assert char_span(OFFSETS, 1, 3) == (2, 12)
    for wrong in [(1, 1), (2, 4), (-1, 2)]:
        with pytest.raises(ValueError, match="token span"):
            char_span(OFFSETS, *wrong)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=8), st.data())
def test_token_span_equals_brute_force(gaps_and_lengths, data):
    offsets, position = [], 0
    for gap, length in gaps_and_lengths:
        offsets.append((position + gap, position + gap + length))
        position += gap + length
    start = data.draw(st.integers(0, position))
    end = data.draw(st.integers(start, position))
    touched = [k for k, (first, last) in enumerate(offsets) if set(range(first, last)) & set(range(start, end))]
    first, last = token_span(offsets, start, end)
    assert list(range(first, last)) == touched


def test_punctuation_is_berts():
    """Against the definition of BERT's tokenizer: four ASCII ranges and Unicode's P categories."""
    for code in range(0x3000):
        bert = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
        assert is_punctuation(chr(code)) == (bert or unicodedata.category(chr(code)).startswith("P")), hex(code)

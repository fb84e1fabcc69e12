"""Parts of long documents against brute force. (`context_window` is worked by hand in test_task_ner.py.)

    python -m pytest -q tests/test_windows.py
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luke_mini.windows import equal_parts


@pytest.mark.parametrize(
    "n, limit, spans, expected",
    [
        (0, 10, [], [0, 0]),
        (10, 10, [], [0, 10]),
        (11, 10, [], [0, 6, 11]),  # two of ceil(11 / 2)
        (11, 10, [(5, 7)], [0, 5, 11]),  # the border at 6 would cut the mention
        (11, 10, [(0, 7)], [0, 6, 11]),  # longer than a part: cut all the same
        (20, 10, [(8, 12), (4, 9)], [0, 4, 14, 20]),  # overlapping mentions: as far left as needed
    ],
)
def test_worked_by_hand(n, limit, spans, expected):
    assert equal_parts(n, limit, np.array(spans, np.int64).reshape(-1, 2)) == expected


@given(st.integers(1, 80), st.integers(1, 20), st.lists(st.tuples(st.integers(0, 79), st.integers(0, 9)), max_size=8))
def test_parts_fit_and_cut_no_mention_that_fits(n, limit, found):
    spans = np.array([(start, min(start + length, n)) for start, length in found if start < n], np.int64).reshape(-1, 2)
    borders = equal_parts(n, limit, spans)
    size = -(-n // -(-n // limit))
    assert borders[0] == 0 and borders[-1] == n
    for first, last in zip(borders, borders[1:]):
        assert 0 < last - first <= size <= limit
        cut = [(s, e) for s, e in spans.tolist() if s < last < e]
        if cut:  # only where no border between `first` and the full size cuts none
            assert last == min(first + size, n)
            assert all(any(s < b < e for s, e in spans.tolist()) for b in range(first + 1, last + 1))
        elif last < min(first + size, n):  # moved no further than needed
            assert all(any(s < b < e for s, e in spans.tolist()) for b in range(last + 1, first + size + 1))

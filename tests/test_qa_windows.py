"""Windows of a context and answers from scores are those of BERT's script for SQuAD: what it said of 80 random
questions, with and without "no answer" and with many equal scores (fixtures/qa_decoding.json, made by the script beside
it); examples by hand; brute force on random inputs. Features as a whole: test_task_qa.py.

    python -m pytest -q tests/test_qa_windows.py
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from luke_mini import task_qa
from luke_mini.spans import best_pairs, best_windows, sliding_windows, squeeze
from luke_mini.task_qa import Options, pool

RECORDED = json.loads((Path(__file__).parent / "fixtures/qa_decoding.json").read_text())

# --- Tokens -----------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.sampled_from("abz. \t\n\u202f\u00a0東"), max_size=30)


@given(TEXTS)
def test_squeezed_text_is_the_words_and_knows_where_they_are_from(text):
    squeezed, source = squeeze(text)
    blanks = " \t\r\n\u202f"
    words = re.split(f"[{blanks}]", text)
    assert squeezed == " ".join(word for word in words if word)
    assert len(source) == len(squeezed)
    for character, place in zip(squeezed, source):
        assert text[place] == character or (character == " " and text[place] in blanks)
    assert list(source) == sorted(set(source))


# --- Windows ----------------------------------------------------------------------------------------------------------


def test_step_and_overlap_by_hand():
    assert sliding_windows(1000, 450, 400) == [(0, 450), (400, 450), (800, 200)]
    assert sliding_windows(578, 450, 128) == [(0, 450), (128, 450)]  # the second reaches the end exactly
    assert sliding_windows(579, 450, 128) == [(0, 450), (128, 450), (256, 323)]
    assert sliding_windows(450, 450, 128) == [(0, 450)]
    # 300 - 128 further each time
    assert sliding_windows(500, 300, 999, overlap=128) == [(0, 300), (172, 300), (344, 156)]
    assert sliding_windows(10, 3, 128) == [(0, 3), (3, 3), (6, 3), (9, 1)]  # a step never skips a token
    assert sliding_windows(0, 9, 3) == [(0, 0)]


def test_the_best_window_of_a_token():
    """By hand: token 7 is as good in both, so the first has it; token 8 has one token on its right in the first, three
    on its left in the second. And as the script recorded, with steps below and above the windows' length."""
    first, second = best_windows([(0, 10), (5, 10)], 15)
    assert first.tolist() == [True] * 8 + [False] * 2 and second.tolist() == [False] * 3 + [True] * 7
    for case in RECORDED:
        found = best_windows(case["windows"], len(case["words"]))
        assert [window.tolist() for window in found] == case["max_context"]


# --- Decoding ---------------------------------------------------------------------------------------------------------


def features_of(case: dict) -> tuple[list[tuple[task_qa.Feature, np.ndarray]], str]:
    """A recorded case as features with logits, one word one token, and the context."""
    words, context = case["words"], " ".join(case["words"])
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    offsets = np.stack([ends - [len(word) for word in words], ends], axis=1).astype(np.int32)
    made = []
    for (start, length), places, logits in zip(case["windows"], case["max_context"], case["logits"]):
        of_window, may_start = offsets[start : start + length], np.array(places, bool)
        feature = task_qa.Feature(0, None, case["first"], of_window, may_start, (0, 0), False)
        made.append((feature, np.array(logits, np.float32)))
    return made, context


@pytest.mark.parametrize("case", RECORDED)
def test_same_answers_as_the_script(case):
    windows_and_logits, context = features_of(case)
    options = Options(n_best_size=case["n_best"], max_answer=case["max_answer"], null_threshold=case["threshold"])
    found = task_qa.decode(windows_and_logits, context, case["with_null"], options)
    for answer in found.answers:
        assert context[answer.start : answer.end] == answer.text
    if any(entry["text"] == "empty" for entry in case["nbest"]):
        # No good start goes with a good end: the script invents an answer, we try all pairs.
        real = [answer for answer in found.answers if answer.text]
        assert real and real[0].text in context
        return
    assert found.text == case["prediction"]
    entries = [(a.text, a.start_logit, a.end_logit) for a in found.answers]
    recorded = [(entry["text"], entry["start_logit"], entry["end_logit"]) for entry in case["nbest"]]
    if case["with_null"] and recorded[-1][0] == "":  # appended without regard to its score: ours is in order
        assert sorted(entries) == sorted(recorded)
    else:
        assert entries == recorded
    probability = {entry["text"]: entry["probability"] for entry in case["nbest"]}
    for answer in found.answers:
        assert answer.probability == pytest.approx(probability[answer.text], rel=1e-6)
    if case["with_null"]:
        assert found.null_odds == pytest.approx(case["odds"])


def test_the_recorded_cases_have_all_kinds():
    kinds = {(case["with_null"], case["prediction"] == "", len(case["windows"]) > 1) for case in RECORDED}
    assert len(kinds) == 6
    assert sum(entry["text"] == "empty" for case in RECORDED for entry in case["nbest"]) < len(RECORDED) / 4


@given(st.data())
def test_pairs_by_brute_force(data):
    """All starts and ends allowed: the best pair of all that are possible."""
    n, first = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 3))
    scores = st.lists(st.integers(-5, 5), min_size=2, max_size=2)
    logits = np.array(data.draw(st.lists(scores, min_size=first + n + 1, max_size=first + n + 1)), np.float32)
    may_start = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    widths = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    max_length = data.draw(st.integers(1, 5))
    ends = np.cumsum(widths)
    offsets = np.stack([ends - widths, ends], axis=1)
    possible = [
        (int(offsets[i, 0]), int(offsets[j, 1]), float(logits[first + i, 0]), float(logits[first + j, 1]))
        for i in range(n)
        for j in range(i, min(n, i + max_length))
        if may_start[i] and offsets[i, 0] < offsets[j, 1]
    ]
    chars, pairs = best_pairs(logits, first, offsets, may_start, 99, max_length)
    assert sorted(zip(*chars.T.tolist(), *pairs.T.tolist())) == sorted(possible)


def test_an_answer_of_two_windows_counts_once_with_its_better_score():
    chars, text = np.array([[0, 3], [4, 7]]), "Ada Bob"
    found = [
        (chars, np.array([[1.0, 1.0], [0.0, 0.0]])),
        (chars, np.array([[0.0, 0.0], [2.0, 1.0]])),
    ]
    assert [(a.text, a.score) for a in pool(found, text, 20)] == [("Bob", 3.0), ("Ada", 2.0)]
    assert [a.text for a in pool(found, text, 1)] == ["Bob"]

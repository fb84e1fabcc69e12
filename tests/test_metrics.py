"""The scorers give the official numbers. Named entities: chunk rules worked by hand, scores against recorded output of
conlleval (Perl, version 2004-01-26) on tag columns that this file makes, and against seqeval where it is installed.

    python -m pytest -q tests/test_metrics.py
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini.metrics import chunks, precision_recall_f1, span_scores, to_tags

# --- Tags and mentions --------------------------------------------------------------------------------------------

HAND_WORKED = [
    # tags, mentions by conlleval's startOfChunk and endOfChunk
    ("", []),
    ("O O", []),
    ("I-PER I-PER O I-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),  # IOB1, IO
    ("I-PER B-PER I-PER", [(0, 1, "PER"), (1, 3, "PER")]),  # IOB1: B only between two of a type
    ("B-PER I-PER B-LOC", [(0, 2, "PER"), (2, 3, "LOC")]),  # IOB2
    ("B-PER I-LOC I-LOC", [(0, 1, "PER"), (1, 3, "LOC")]),  # an I of another type starts a mention
    ("I-PER I-ORG B-ORG", [(0, 1, "PER"), (1, 2, "ORG"), (2, 3, "ORG")]),
    ("S-PER S-PER B-LOC E-LOC", [(0, 1, "PER"), (1, 2, "PER"), (2, 4, "LOC")]),  # IOBES
    ("B-PER I-PER E-PER I-PER", [(0, 3, "PER"), (3, 4, "PER")]),  # nothing goes on after E
    ("S-PER I-PER", [(0, 1, "PER"), (1, 2, "PER")]),
    ("E-PER E-PER", [(0, 1, "PER"), (1, 2, "PER")]),
    ("I-a-b I-a-b I-a-c", [(0, 2, "a-b"), (2, 3, "a-c")]),  # a type may hold hyphens
]


@pytest.mark.parametrize("tags, spans", HAND_WORKED)
def test_chunks_hand_worked(tags, spans):
    assert chunks(tags.split()) == spans


def test_iob1_writes_b_only_after_its_own_type():
    spans = [(0, 1, "PER"), (1, 3, "PER"), (3, 4, "LOC"), (5, 6, "LOC")]
    assert " ".join(to_tags(6, spans, "IOB1")) == "I-PER B-PER I-PER I-LOC O I-LOC"
    assert " ".join(to_tags(6, spans, "IOB2")) == "B-PER B-PER I-PER B-LOC O B-LOC"


@st.composite
def sentences_with_mentions(draw):
    n_words = draw(st.integers(0, 12))
    cuts = sorted(draw(st.sets(st.integers(0, n_words))))
    spans = [(start, end, draw(st.sampled_from(["A", "B-c", None]))) for start, end in zip(cuts, cuts[1:])]
    return n_words, [span for span in spans if span[2] is not None]


@settings(deadline=None)
@given(sentences_with_mentions(), st.sampled_from(["IOB1", "IOB2"]))
def test_tags_and_back(sentence, scheme):
    n_words, spans = sentence
    assert chunks(to_tags(n_words, reversed(spans), scheme)) == spans


# --- Scores ---------------------------------------------------------------------------------------------------------


def test_fractions():
    assert precision_recall_f1(1, 2, 3) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    assert precision_recall_f1(0, 0, 0) == (0.0, 0.0, 0.0)
    assert precision_recall_f1(0, 4, 0) == (0.0, 0.0, 0.0)
    assert precision_recall_f1(0, 0, 4) == (0.0, 0.0, 0.0)


def test_scores_worked_by_hand():
    gold = [[(0, 2, "PER"), (3, 4, "LOC")], [(0, 1, "LOC")], []]
    predicted = [[(0, 2, "PER"), (3, 4, "ORG")], [(0, 2, "LOC")], [(0, 1, "PER"), (0, 1, "PER")]]
    assert span_scores(gold, predicted) == {
        **{"precision": 1 / 4, "recall": 1 / 3, "f1": 2 / 7, "gold": 3, "predicted": 4, "correct": 1},
        **{"LOC_precision": 0, "LOC_recall": 0, "LOC_f1": 0, "LOC_gold": 2, "LOC_predicted": 1, "LOC_correct": 0},
        **{"ORG_precision": 0, "ORG_recall": 0, "ORG_f1": 0, "ORG_gold": 0, "ORG_predicted": 1, "ORG_correct": 0},
        **{"PER_precision": 1 / 2, "PER_recall": 1, "PER_f1": 2 / 3},
        **{"PER_gold": 1, "PER_predicted": 2, "PER_correct": 1},
    }


def test_a_span_counts_in_its_own_sentence_only():
    scores = span_scores([[(0, 1, "PER")], []], [[], [(0, 1, "PER")]])
    assert (scores["gold"], scores["predicted"], scores["correct"]) == (1, 1, 0)


def test_sequences_must_pair_up():
    with pytest.raises(ValueError):
        span_scores([[]], [])


def tag_columns(seed: int, tags: list[str], noise: int) -> list[tuple[list[str], list[str]]]:
    """40 sentences of gold and predicted tags; one tag in `noise` of the prediction is drawn anew."""
    state = seed

    def draw(n: int) -> int:  # no library generator: what it draws may change with its version
        nonlocal state
        state = (state * 1103515245 + 12345) % 2**31
        return (state >> 12) % n

    sentences = []
    for _ in range(40):
        gold = [tags[draw(len(tags))] for _ in range(1 + draw(15))]
        predicted = [tags[draw(len(tags))] if draw(noise) == 0 else tag for tag in gold]
        sentences.append((gold, predicted))
    return sentences


LOOSE = ["O", "O", "B-PER", "I-PER", "I-PER", "B-LOC", "I-LOC", "I-LOC", "I-ORG"]  # any tag after any other
IO = ["O", "O", "O", "I-PER", "I-LOC", "I-LOC", "I-MISC"]
# Seed, tags, noise -> what conlleval printed: phrases, found, correct, then precision, recall, FB1 in percent of all
# and of each type, with the number found.
CONLLEVAL = [
    (
        1,
        LOOSE,
        5,
        (209, 207, 160),
        ("77.29", "76.56", "76.92"),
        {
            "LOC": ("78.12", "78.12", "78.12", 96),
            "ORG": ("73.53", "78.12", "75.76", 34),
            "PER": ("77.92", "74.07", "75.95", 77),
        },
    ),
    (
        2,
        LOOSE,
        2,
        (185, 173, 95),
        ("54.91", "51.35", "53.07"),
        {
            "LOC": ("57.75", "51.25", "54.30", 71),
            "ORG": ("55.17", "51.61", "53.33", 29),
            "PER": ("52.05", "51.35", "51.70", 73),
        },
    ),
    (
        3,
        IO,
        4,
        (126, 125, 88),
        ("70.40", "69.84", "70.12"),
        {
            "LOC": ("70.49", "70.49", "70.49", 61),
            "MISC": ("74.29", "72.22", "73.24", 35),
            "PER": ("65.52", "65.52", "65.52", 29),
        },
    ),
    (
        4,
        IO,
        50,
        (145, 144, 141),
        ("97.92", "97.24", "97.58"),
        {
            "LOC": ("97.14", "95.77", "96.45", 70),
            "MISC": ("100.00", "100.00", "100.00", 35),
            "PER": ("97.44", "97.44", "97.44", 39),
        },
    ),
]


@pytest.mark.parametrize("seed, tags, noise, counts, micro, types", CONLLEVAL)
def test_same_numbers_as_conlleval(seed, tags, noise, counts, micro, types):
    columns = tag_columns(seed, tags, noise)
    scores = span_scores([chunks(gold) for gold, _ in columns], [chunks(predicted) for _, predicted in columns])

    def percent(prefix: str) -> tuple[str, ...]:
        return tuple(f"{100 * scores[prefix + name]:.2f}" for name in ("precision", "recall", "f1"))

    assert (scores["gold"], scores["predicted"], scores["correct"]) == counts
    assert percent("") == micro
    for kind, (*fractions, found) in types.items():
        assert (percent(f"{kind}_"), scores[f"{kind}_predicted"]) == (tuple(fractions), found)
    assert sum(name.endswith("_f1") for name in scores) == len(types)


def test_the_conlleval_test_detects_a_strict_reader():
    """Reading only B as a start, the mistake with IOB1 files, gives other counts on the same columns."""
    columns = tag_columns(1, LOOSE, 5)
    starts = sum(tag[0] == "B" for gold, _ in columns for tag in gold)
    assert starts != CONLLEVAL[0][3][0]


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(*[st.sampled_from(sorted(set(LOOSE)))] * 2), min_size=1, max_size=9), min_size=1))
def test_same_numbers_as_seqeval(sentences):
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval (PyPI) is not installed")
    gold = [[tag for tag, _ in pairs] for pairs in sentences]
    predicted = [[tag for _, tag in pairs] for pairs in sentences]
    ours = span_scores(map(chunks, gold), map(chunks, predicted))
    if ours["gold"] + ours["predicted"] == 0:
        return  # seqeval warns and divides nothing by nothing
    report = seqeval.classification_report(gold, predicted, output_dict=True, zero_division=0)
    rows = {"": report["micro avg"]} | {f"{kind}_": report[kind] for kind in ("PER", "LOC", "ORG") if kind in report}
    for prefix, row in rows.items():
        theirs = (row["precision"], row["recall"], row["f1-score"], row["support"])
        assert tuple(ours[prefix + name] for name in ("precision", "recall", "f1", "gold")) == pytest.approx(theirs)

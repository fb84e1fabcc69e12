"""The scorers give the official numbers. Named entities: chunk rules worked by hand, scores against recorded output of
conlleval (Perl, version 2004-01-26) on tag columns that this file makes, and against seqeval where it is installed.
Relations and types: what the TACRED scorer, the SemEval-2010 task 8 scorer, LUKE's own metric and the ultra-fine typing
scorer said of random answers (fixtures/scorers.json, made by the script beside it), and scikit-learn's counts.
Correlations: scipy, live. Disambiguation and probing: by hand, and against plain counting.

    python -m pytest -q tests/test_metrics.py
"""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini import metrics
from luke_mini.metrics import KBP37_RELATIONS, chunks, directional_scores, disambiguation_scores, relation_scores
from luke_mini.metrics import average_ranks, best_rank, pearson, probing_scores, spearman, to_tags, typing_scores

RECORDED = json.loads((Path(__file__).parent / "fixtures/scorers.json").read_text(encoding="utf-8"))
MICRO = ("precision", "recall", "f1")
MACRO = tuple(f"macro_{name}" for name in MICRO)


def values(scores: dict, names) -> list[float]:
    return [scores[name] for name in names]


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
def test_chunks_by_hand(tags, spans):
    assert chunks(tags.split()) == spans


def test_iob1_writes_b_only_after_its_own_type():
    spans = [(0, 1, "PER"), (1, 3, "PER"), (3, 4, "LOC"), (5, 6, "LOC")]
    assert " ".join(to_tags(6, spans, "IOB1")) == "I-PER B-PER I-PER I-LOC O I-LOC"
    assert " ".join(to_tags(6, spans, "IOB1", {0, 1})) == "I-PER I-PER I-PER I-LOC O I-LOC"  # another sentence
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


@pytest.mark.parametrize("counts, fractions", [
    ((1, 2, 3), (1 / 2, 1 / 3, 2 / 5)), ((0, 0, 0), (0, 0, 0)), ((0, 4, 0), (0, 0, 0)), ((0, 0, 4), (0, 0, 0)),
])  # fmt: skip
def test_fractions(counts, fractions):
    assert metrics.precision_recall_f1(*counts) == pytest.approx(fractions)


def test_scores_by_hand():
    gold = [[(0, 2, "PER"), (3, 4, "LOC")], [(0, 1, "LOC")], []]
    predicted = [[(0, 2, "PER"), (3, 4, "ORG")], [(0, 2, "LOC")], [(0, 1, "PER"), (0, 1, "PER")]]
    scores = metrics.span_scores(gold, predicted)
    names = [*MICRO, "gold", "predicted", "correct"]
    assert list(scores) == [prefix + name for prefix in ("", "LOC_", "ORG_", "PER_") for name in names]
    assert list(scores.values()) == [
        *(1 / 4, 1 / 3, 2 / 7, 3, 4, 1), *(0, 0, 0, 2, 1, 0), *(0, 0, 0, 0, 1, 0), *(1 / 2, 1, 2 / 3, 1, 2, 1),
    ]  # fmt: skip
    scores = metrics.span_scores([[(0, 1, "PER")], []], [[], [(0, 1, "PER")]])  # each in its own sentence only
    assert values(scores, names[3:]) == [1, 1, 0]
    with pytest.raises(ValueError):
        metrics.span_scores([[]], [])


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
    (1, LOOSE, 5, (209, 207, 160), ("77.29", "76.56", "76.92"), {
        "LOC": ("78.12", "78.12", "78.12", 96),
        "ORG": ("73.53", "78.12", "75.76", 34),
        "PER": ("77.92", "74.07", "75.95", 77)}),
    (2, LOOSE, 2, (185, 173, 95), ("54.91", "51.35", "53.07"), {
        "LOC": ("57.75", "51.25", "54.30", 71),
        "ORG": ("55.17", "51.61", "53.33", 29),
        "PER": ("52.05", "51.35", "51.70", 73)}),
    (3, IO, 4, (126, 125, 88), ("70.40", "69.84", "70.12"), {
        "LOC": ("70.49", "70.49", "70.49", 61),
        "MISC": ("74.29", "72.22", "73.24", 35),
        "PER": ("65.52", "65.52", "65.52", 29)}),
    (4, IO, 50, (145, 144, 141), ("97.92", "97.24", "97.58"), {
        "LOC": ("97.14", "95.77", "96.45", 70),
        "MISC": ("100.00", "100.00", "100.00", 35),
        "PER": ("97.44", "97.44", "97.44", 39)}),
]  # fmt: skip


@pytest.mark.parametrize("seed, tags, noise, counts, micro, types", CONLLEVAL)
def test_same_numbers_as_conlleval(seed, tags, noise, counts, micro, types):
    columns = tag_columns(seed, tags, noise)
    scores = metrics.span_scores(*([chunks(pair[side]) for pair in columns] for side in (0, 1)))

    def percent(prefix: str) -> tuple[str, ...]:
        return tuple(f"{100 * scores[prefix + name]:.2f}" for name in MICRO)

    assert (scores["gold"], scores["predicted"], scores["correct"]) == counts and percent("") == micro
    found = {name[:-3]: (*percent(name[:-2]), scores[name[:-2] + "predicted"]) for name in scores if name[-3:] == "_f1"}
    assert found == types


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
    ours = metrics.span_scores(map(chunks, gold), map(chunks, predicted))
    if ours["gold"] + ours["predicted"] == 0:
        return  # seqeval warns and divides nothing by nothing
    report = seqeval.classification_report(gold, predicted, output_dict=True, zero_division=0)
    rows = {"": report["micro avg"]} | {f"{kind}_": report[kind] for kind in ("PER", "LOC", "ORG") if kind in report}
    for prefix, row in rows.items():
        theirs = (row["precision"], row["recall"], row["f1-score"], row["support"])
        assert tuple(ours[prefix + name] for name in ("precision", "recall", "f1", "gold")) == pytest.approx(theirs)


# --- Relations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", RECORDED["tacred"])
def test_same_numbers_as_the_tacred_scorer(case):
    scores = relation_scores(case["gold"], case["predicted"])
    assert values(scores, MICRO) == pytest.approx(case["precision recall f1"])


def test_relations_worked_by_hand():
    scores = relation_scores(["a", "no_relation", "b", "a"], ["a", "b", "no_relation", "a"])
    assert scores == pytest.approx(dict(zip(MICRO, [2 / 3] * 3)) | dict(gold=3, predicted=3, correct=2, accuracy=1 / 2))


def test_gold_without_any_relation_is_refused():
    for score in (relation_scores, directional_scores):
        with pytest.raises(ValueError, match="at least one relation"):
            score(["no_relation"], ["a(e1,e2)"])
        with pytest.raises(ValueError):
            score(["a(e1,e2)"], [])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.sampled_from(["no_relation", "a", "b", "c"])] * 2), min_size=1, max_size=20))
def test_same_numbers_as_scikit_learn(pairs):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn (PyPI) is not installed")
    gold, predicted = zip(*pairs)
    if not {*gold} - {"no_relation"} or not {*predicted} - {"no_relation"}:
        return  # 0 of 0: the recorded cases have it
    wanted = dict(labels=["a", "b", "c"], zero_division=0)
    *theirs, _ = sklearn.precision_recall_fscore_support(gold, predicted, average="micro", **wanted)
    ours = relation_scores(gold, predicted)
    assert values(ours, MICRO) == pytest.approx(theirs)
    assert ours["accuracy"] == pytest.approx(sklearn.accuracy_score(gold, predicted))


@pytest.mark.parametrize("case", RECORDED["directional"])
def test_same_numbers_as_the_semeval_scorer(case):
    scores = directional_scores(case["gold"], case["predicted"])
    for name, percent in case["semeval"]["percent"].items():
        assert f"{100 * scores[name]:.2f}" == percent
    assert values(scores, ("gold", "predicted", "correct")) == case["semeval"]["counts"]
    assert f"{100 * scores['accuracy']:.2f}" == case["semeval"]["accuracy"]


@pytest.mark.parametrize("case", RECORDED["directional"])
def test_same_numbers_as_lukes_directional_metric(case):
    """Its macro is over the labels seen; its micro counts every guessed relation, as ours does with the whole list."""
    labels = {*case["gold"], *case["predicted"]} - {"no_relation"}
    scores = directional_scores(case["gold"], case["predicted"], {metrics.without_direction(label) for label in labels})
    theirs = case["luke"]
    assert values(scores, ("f1", "macro_f1_seen", "macro_f1")) == pytest.approx(
        [theirs["micro_fscore"], theirs["macro_fscore"], theirs["macro_fscore"]]
    )


def test_a_wrong_direction_is_a_false_positive_and_a_false_negative():
    scores = directional_scores(["r(e1,e2)"], ["r(e2,e1)"])
    assert (scores["correct"], scores["predicted"], scores["gold"], scores["macro_f1"]) == (0, 1, 1, 0)
    scores = directional_scores(["r(e1,e2)", "r(e1,e2)", "s(e2,e1)"], ["r(e1,e2)", "r(e2,e1)", "s(e2,e1)"])
    assert values(scores, MACRO) == pytest.approx([(1 / 2 + 1) / 2] * 3)


def test_the_fixed_list_counts_relations_that_the_gold_lacks():
    gold = ["per:title(e1,e2)", "per:origin(e2,e1)", "no_relation"]
    predicted = ["per:title(e1,e2)", "per:spouse(e2,e1)", "per:spouse(e1,e2)"]
    scores = directional_scores(gold, predicted, KBP37_RELATIONS)
    assert len(KBP37_RELATIONS) == len(set(KBP37_RELATIONS)) == 18
    assert scores["macro_f1"] == pytest.approx(1 / 18)
    assert scores["macro_f1_seen"] == pytest.approx(1 / 3)  # title, origin, spouse
    assert values(scores, ("gold", "predicted", "correct")) == [2, 3, 1]
    assert directional_scores(gold, predicted)["macro_f1"] == pytest.approx(1 / 2)  # title, origin
    assert directional_scores(gold, predicted)["predicted"] == 1  # spouse is none of them
    with pytest.raises(ValueError, match="gold relation per:origin"):
        directional_scores(gold, predicted, ["per:title"])


def test_the_fixed_list_is_that_of_the_data():
    names = set()
    for name in ("KBP37_train", "KBP37_dev", "KBP37_test", "RELX_en"):
        lines = shared_data(f"relation/{name}.txt").read_text(encoding="utf-8").splitlines()
        labels = (following.strip() for line, following in zip(lines, lines[1:]) if line[:1].isdigit())
        names |= {metrics.without_direction(label).strip() for label in labels}
    assert names == {*KBP37_RELATIONS, "no_relation"}


# --- Types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", RECORDED["typing"])
def test_same_numbers_as_the_typing_scorer(case):
    scores = typing_scores(case["gold"], case["predicted"])
    assert values(scores, MICRO) == pytest.approx(case["micro"])
    assert values(scores, MACRO) == pytest.approx(case["macro"])
    assert scores["accuracy"] == pytest.approx(case["strict"])


def test_types_worked_by_hand():
    scores = typing_scores([{"a"}, {"b"}, set()], [{"a", "b"}, set(), set()])
    assert values(scores, MICRO) == pytest.approx([1 / 2] * 3)
    assert values(scores, MACRO) == pytest.approx([1 / 2] * 3)  # precision of the first, recall of the first two
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert set(typing_scores([], []).values()) == {0}
    assert typing_scores([["a", "a"]], [["a"]])["f1"] == 1  # sets


# --- Disambiguation -------------------------------------------------------------------------------------------------


def test_disambiguation_worked_by_hand():
    gold = [["Oslo", "Bergen", None], ["Rome", "Rome"], [], [None]]
    predicted = [["Oslo", None, "Oslo"], ["Rome", "Romeo"], [], ["Rome"]]
    assert disambiguation_scores(gold, predicted) == pytest.approx(
        dict(in_kb_accuracy=1 / 2, precision=2 / 3, recall=1 / 2, f1=4 / 7, correct=2, predicted=3, gold=4)
        | dict(macro_accuracy=1 / 2, macro_precision=3 / 4, macro_f1=(2 / 3 + 1 / 2) / 2)
    )
    assert set(disambiguation_scores([], []).values()) == {0}
    with pytest.raises(ValueError):
        disambiguation_scores([["Oslo"]], [[]])


TITLES = st.sampled_from(["a", "b", None])
DOCUMENTS = st.lists(st.lists(st.tuples(TITLES, TITLES), max_size=6), max_size=5)


@given(DOCUMENTS)
def test_one_document_a_mention_makes_macro_equal_micro(documents):
    pairs = [pair for document in documents for pair in document]
    scores = disambiguation_scores([[gold] for gold, _ in pairs], [[guess] for _, guess in pairs])
    macro, micro = ("macro_accuracy", "macro_precision"), ("recall", "precision")
    assert values(scores, macro) == pytest.approx(values(scores, micro))
    whole = disambiguation_scores(*([[pair[i] for pair in document] for document in documents] for i in (0, 1)))
    assert values(whole, MICRO) == values(scores, MICRO)  # micro does not see documents
    if pairs:
        assert whole["correct"] == sum(gold == guess and gold is not None for gold, guess in pairs)


# --- Classification and regression ----------------------------------------------------------------------------------


def test_accuracy():
    assert metrics.accuracy([1, 0, 2, 2], [1, 1, 2, 0]) == 1 / 2
    assert metrics.accuracy(np.array([1, 0]), np.array([1, 0])) == 1
    with pytest.raises(ValueError, match="at least one"):
        metrics.accuracy([], [])
    with pytest.raises(ValueError):
        metrics.accuracy([1], [1, 1])


def test_ties_share_their_ranks():
    assert average_ranks([3, 1, 3]).tolist() == [2.5, 1, 2.5]
    assert average_ranks([]).tolist() == []


NUMBERS = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 5.0]), st.floats(-100, 100).map(lambda x: round(x, 3)))


@settings(deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=30))
def test_same_correlations_as_scipy(pairs):
    scipy = pytest.importorskip("scipy.stats", reason="scipy (PyPI) is not installed")
    gold, predicted = zip(*pairs)
    if len(set(gold)) < 2 or len(set(predicted)) < 2:
        return  # nan there; below
    assert average_ranks(gold).tolist() == scipy.rankdata(gold).tolist()
    assert pearson(gold, predicted) == pytest.approx(scipy.pearsonr(gold, predicted).statistic, abs=1e-9)
    assert spearman(gold, predicted) == pytest.approx(scipy.spearmanr(gold, predicted).statistic, abs=1e-9)


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_correlations_are_never_nan(correlation):
    assert correlation([1, 2, 3], [7, 7, 7]) == 0
    assert correlation([1, 2, 3], [0.1, 0.1, 0.1]) == 0
    assert correlation([1, 2], [1e-300, 3e-300]) == pytest.approx(1)
    for gold, predicted in (([2, 2], [1, 2]), ([1], [1]), ([], []), ([1, 2], [1, np.nan]), ([1, 2], [1, np.inf])):
        with pytest.raises(ValueError, match="expected"):
            correlation(gold, predicted)
    with pytest.raises(ValueError):
        correlation([1, 2, 3], [1, 2])


# --- Probing --------------------------------------------------------------------------------------------------------

SCORES = st.lists(st.sampled_from([None, -1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=12)


@given(SCORES, st.data())
def test_rank_is_one_more_than_the_candidates_before(scores, data):
    gold = data.draw(st.sets(st.integers(0, len(scores) - 1)))

    def is_before(i: int, k: int) -> bool:
        return scores[i] is not None and (scores[i] > scores[k] or scores[i] == scores[k] and i < k)

    places = [1 + sum(is_before(i, k) for i in range(len(scores))) for k in gold if scores[k] is not None]
    assert best_rank(scores, gold) == min(places, default=None)


def test_probing_worked_by_hand():
    ranks = {"P1": [1, 2, 11, None], "P2": [1, 101], "P3": []}
    scores = probing_scores(ranks)
    assert values(scores, ("top1", "top5", "top10", "top100")) == pytest.approx([2 / 6, 3 / 6, 3 / 6, 4 / 6])
    assert values(scores, ("relations_top1", "relations_top5")) == pytest.approx([(1 / 4 + 1 / 2) / 2, 1 / 2])
    assert values(scores, ("coverage", "questions", "relations")) == [5 / 6, 6, 2]
    with pytest.raises(ValueError, match="without any question"):
        probing_scores({"P3": []})

"""Answers that are free text get the official numbers: what the scripts of SQuAD 1.1 and 2.0, MLQA, ReCoRD and JGLUE
said of random questions and answers (fixtures/scorers.json, made by the script beside it) in eight languages, with
articles, punctuation, empty and missing answers, thresholds and ties; examples by hand; the threshold search by brute
force.

    python -m pytest -q tests/test_metrics_qa.py
"""

import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luke_mini.metrics import answer_scores, jsquad_scores, squad2_scores
from luke_mini.metrics import normalize_jsquad, normalize_mlqa, normalize_squad

RECORDED = json.loads((Path(__file__).parent / "fixtures/scorers.json").read_text(encoding="utf-8"))


def normalizer(kind: str):
    name, _, language = kind.partition(" ")
    fixed = {"squad": normalize_squad, "jsquad": normalize_jsquad}
    return fixed.get(name) or partial(normalize_mlqa, language=language)


# --- Normalization ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECORDED["normalization"])
def test_texts_are_normalized_as_by_the_scripts(kind):
    pairs = RECORDED["normalization"][kind]
    assert [normalizer(kind)(text) for text, _ in pairs] == [wanted for _, wanted in pairs]
    assert sum(text != wanted for text, wanted in pairs) > len(pairs) / 2


@pytest.mark.parametrize("kind, text, normalized", [
    ("mlqa zh", "北京 大学。", "北 京 大 学"),
    ("mlqa zh", "iPhone手机 12", "iphone 手 机 12"),
    ("mlqa de", "Der Hund!", "hund"),
    ("mlqa es", "Los Andes", "andes"),
    ("mlqa ar", "في البيت الكبير", "في بيت كبير"),
    ("mlqa fr", "la ville", "la ville"),
    ("mlqa hi", "a the ५०।", "a the ५०"),
    ("jsquad", "A。B。。", "a。b"),
    ("jsquad", "東京。 ", "東京。"),  # the patch strips before it touches white space
    ("jsquad", "(the)　 an", "(the) an"),
])  # fmt: skip
def test_normalized_by_hand(kind, text, normalized):
    assert normalizer(kind)(text) == normalized


# --- SQuAD 1.1, XQuAD, ReCoRD, MLQA, JSQuAD ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", RECORDED["answers"], ids=lambda case: f"{case['scorer']}-{case['language']}")
def test_same_numbers_as_the_scripts(case):
    kind = f"mlqa {case['language']}" if case["scorer"] == "mlqa" else "squad"
    scores = answer_scores(case["gold"], case["predicted"], normalizer(kind))
    assert 100 * scores["exact_match"] == pytest.approx(case["percent"]["exact_match"])
    assert 100 * scores["f1"] == pytest.approx(case["percent"]["f1"])
    assert scores["answered"] == len(case["predicted"].keys() & case["gold"].keys())


@pytest.mark.parametrize("case", RECORDED["jsquad"])
def test_same_numbers_as_jglue(case):
    scores = jsquad_scores(case["gold"], case["predicted"])
    assert {name: scores[name] for name in case["fractions"]} == pytest.approx(case["fractions"])


def one(gold: list[str], predicted: str, score=answer_scores) -> tuple[float, float]:
    scores = score({"q": gold}, {"q": predicted})
    return scores["exact_match"], scores["f1"]


def test_answers_by_hand():
    assert one(["Oslo"], "the Oslo city") == (0, pytest.approx(2 / 3))
    assert one(["oslo"], "The Oslo!") == (1, 1)
    assert one(["Bergen", "Oslo Bergen Narvik"], "Oslo Bergen") == (0, pytest.approx(4 / 5))  # the best answer
    assert one(["a a b"], "a b b") == (0, pytest.approx(2 / 3))  # articles go first: b, and b b
    assert one(["the"], "") == (1, 0)  # in SQuAD 1.1 two empty answers share no token
    assert one(["小笠原諸島"], "小笠原諸島。", jsquad_scores) == (1, 1)
    assert one(["。"], "", jsquad_scores) == (1, 1)
    assert one(["一二 三四"], "三四 五", jsquad_scores) == (0, pytest.approx(2 * 3 / (5 + 4)))  # the space is one


@pytest.mark.parametrize("score", [answer_scores, jsquad_scores])
def test_questions_without_a_prediction_count(score):
    scores = score({"q": ["Oslo"], "r": ["Oslo"]}, {"q": "Oslo", "elsewhere": "Oslo"})
    assert scores == {"exact_match": 0.5, "f1": 0.5, "questions": 2, "answered": 1}
    assert score({"q": ["Oslo"]}, {}) == {"exact_match": 0, "f1": 0, "questions": 1, "answered": 0}
    with pytest.raises(ValueError, match="no questions"):
        score({}, {})
    with pytest.raises(ValueError, match="question r: no accepted answer"):
        score({"q": ["Oslo"], "r": []}, {"q": "Oslo"})


# --- SQuAD 2.0 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", RECORDED["squad2"])
def test_same_numbers_as_squad_2(case):
    scores = squad2_scores(case["gold"], case["predicted"], case["no_answer"], case["threshold"])
    printed = {
        name: value / 100 if name.removeprefix("best_").split("_")[-1] in ("exact", "f1") else value
        for name, value in case["printed"].items()
    }
    assert scores == pytest.approx(printed)
    assert list(scores) == list(printed)


def test_squad_2_by_hand():
    gold = {"q": ["Oslo"], "r": [], "s": ["the"], "t": ["the", "Rome"]}
    predicted = {"q": "Oslo", "r": "Rome", "s": "", "t": ""}
    scores = squad2_scores(gold, predicted)
    assert (scores["HasAns_exact"], scores["NoAns_exact"], scores["exact"]) == (pytest.approx(2 / 3), 0, 1 / 2)
    scores = squad2_scores(gold, predicted, {"q": -3, "r": 2, "s": -2, "t": -1}, threshold=0)
    assert (scores["exact"], scores["best_exact"], scores["best_exact_thresh"]) == (3 / 4, 3 / 4, -2)
    assert "NoAns_exact" not in squad2_scores({"q": ["Oslo"]}, predicted)


def test_squad_2_wants_every_question():
    with pytest.raises(ValueError, match="question r: no prediction"):
        squad2_scores({"q": ["Oslo"], "r": []}, {"q": ""})
    with pytest.raises(ValueError, match="question r: no no-answer score"):
        squad2_scores({"q": ["Oslo"], "r": []}, {"q": "", "r": ""}, {"q": 0.1})
    with pytest.raises(ValueError, match="no questions"):
        squad2_scores({}, {})


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["Oslo", "Oslo Rome", "Rome", ""])), min_size=1, max_size=9))
def test_the_best_threshold_by_brute_force(cases):
    """Without ties, some threshold gives the best score, and no other gives more."""
    gold = {f"q{i}": ["Oslo"] if has_answer else [] for i, (has_answer, _) in enumerate(cases)}
    predicted = {f"q{i}": text for i, (_, text) in enumerate(cases)}
    doubts = {question: (7 * i) % 10 + 1 for i, question in enumerate(gold)}
    scores = squad2_scores(gold, predicted, doubts)
    for name in ("exact", "f1"):
        tried = {cut: squad2_scores(gold, predicted, doubts, cut)[name] for cut in range(11)}
        assert scores[f"best_{name}"] == pytest.approx(max(tried.values()))
        assert tried[scores[f"best_{name}_thresh"]] == pytest.approx(max(tried.values()))

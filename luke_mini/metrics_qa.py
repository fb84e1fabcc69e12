"""The numbers of the official scorers for answers that are free text.

In: question id -> accepted answers, question id -> predicted answer. Out: fractions (never percent) and counts in flat
dicts. An answer is first normalized, then compared: exact match, and F1 over the multiset of its tokens; the best of
the accepted answers counts.

    SQuAD 1.1, XQuAD, ReCoRD   answer_scores(gold, predicted)
    MLQA                       answer_scores(gold, predicted, partial(normalize_mlqa, language="de"))
    SQuAD 2.0                  squad2_scores(gold, predicted, no_answer_scores, threshold)
    JSQuAD                     jsquad_scores(gold, predicted)

Means are over all questions: one without a prediction scores 0 (LUKE's newer code divides by the answered ones only).
Every question needs an accepted answer, save in SQuAD 2.0, where none means that it has no answer.

The scripts: SQuAD evaluate-v1.1 and evaluate-v2.0 (Rajpurkar et al. 2016, 2018), MLQA evaluation v1 (Lewis et al.
2020), ReCoRD evaluation v1.0 (Zhang et al. 2018), JGLUE's patch of transformers (Kurihara et al. 2022). Left out: the
precision-recall curves of the SQuAD 2.0 script.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from luke_mini.spans import is_punctuation

# --- Normalization ----------------------------------------------------------------------------------------------


def _whole_words(words: str) -> re.Pattern:
    return re.compile(rf"\b({'|'.join(words.split())})\b")


ENGLISH_ARTICLES = _whole_words("a an the")
# MLQA, by the language of the answer. Arabic: the two letters go wherever they stand, inside words too; the script's
# pattern has a first alternative for word starts that can never match. Hindi and Chinese: none.
ARTICLES = {
    "en": ENGLISH_ARTICLES,
    "es": _whole_words("un una unos unas el la los las"),
    "de": _whole_words("ein eine einen einem eines einer der die das den dem des"),
    "vi": _whole_words("của là cái chiếc những"),
    "ar": re.compile("ال"),
}
CHINESE = re.compile("[\u4e00-\u9fa5]")  # the script's range, narrower than Unicode's block


def normalize_squad(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and extra white space; XQuAD: in every language."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(ENGLISH_ARTICLES.sub(" ", text).split())


def normalize_mlqa(text: str, language: str) -> str:
    """Lower case, without punctuation of any script and the language's articles; every Chinese character a token.

    A language that MLQA does not have keeps all its words.
    """
    text = "".join(character for character in text.lower() if not is_punctuation(character))
    if language in ARTICLES:
        text = ARTICLES[language].sub(" ", text)
    if language == "zh":
        text = CHINESE.sub(r" \g<0> ", text)
    return " ".join(text.split())


def normalize_jsquad(text: str) -> str:
    """Lower case, without full stops at the very end, white space collapsed; nothing else is removed."""
    return " ".join(text.lower().rstrip("。").split())


# --- One question -----------------------------------------------------------------------------------------------


def token_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """F1 over multisets of tokens; 0 without a common one, so for two empty answers too."""
    common = (Counter(gold) & Counter(predicted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(gold)
    return 2 * precision * recall / (precision + recall)  # rounded as in the scripts: _best_threshold compares sums


def _text_f1(gold: str, predicted: str) -> float:
    return token_f1(gold.split(), predicted.split())


def _text_f1_or_empty(gold: str, predicted: str) -> float:
    """SQuAD 2.0: the empty answer is right where there is none."""
    return _text_f1(gold, predicted) if gold and predicted else float(gold == predicted)


def _character_f1_or_empty(gold: str, predicted: str) -> float:
    """JSQuAD: a token is a character, a space too."""
    return token_f1(gold, predicted) if gold and predicted else float(gold == predicted)


def _best(
    answers: Sequence[str], prediction: str, normalize: Callable[[str], str], f1: Callable[[str, str], float]
) -> tuple[float, float]:
    """Exact match and F1 of a prediction against the accepted answer that suits it best, each by itself."""
    prediction = normalize(prediction)
    answers = [normalize(answer) for answer in answers]
    return float(prediction in answers), max(f1(answer, prediction) for answer in answers)


# --- All questions ----------------------------------------------------------------------------------------------


def answer_scores(
    gold: Mapping[str, Sequence[str]],
    predicted: Mapping[str, str],
    normalize: Callable[[str], str] = normalize_squad,
) -> dict[str, float | int]:
    """SQuAD 1.1, XQuAD, ReCoRD, and with `normalize_mlqa` MLQA. Keys: exact_match, f1, questions, answered.

    `predicted` may hold questions that `gold` lacks: they are not looked at. ValueError for a question without an
    accepted answer, or no question.
    """
    return _plain_scores(gold, predicted, normalize, _text_f1)


def jsquad_scores(gold: Mapping[str, Sequence[str]], predicted: Mapping[str, str]) -> dict[str, float | int]:
    """JSQuAD: F1 over characters. Keys and errors as in `answer_scores`."""
    gold = {question: answers and _with_content(answers, normalize_jsquad) for question, answers in gold.items()}
    return _plain_scores(gold, predicted, normalize_jsquad, _character_f1_or_empty)


def _with_content(answers: Sequence[str], normalize: Callable[[str], str]) -> list[str]:
    """The answers that are not empty once normalized; if none is left, the empty answer alone."""
    return [answer for answer in answers if normalize(answer)] or [""]


def _plain_scores(gold: Mapping, predicted: Mapping, normalize: Callable, f1: Callable) -> dict[str, float | int]:
    if not gold:
        raise ValueError("no questions: expected at least one")
    if bare := [question for question, answers in gold.items() if not answers]:
        raise ValueError(f"question {bare[0]}: no accepted answer: expected at least one")
    asked = [question for question in gold if question in predicted]
    found = [_best(gold[question], predicted[question], normalize, f1) for question in asked]
    exact, overlap = (sum(column) / len(gold) for column in zip(*found or [(0.0, 0.0)]))
    return {"exact_match": exact, "f1": overlap, "questions": len(gold), "answered": len(found)}


def squad2_scores(
    gold: Mapping[str, Sequence[str]],
    predicted: Mapping[str, str],
    no_answer_scores: Mapping[str, float] | None = None,
    threshold: float = math.inf,
) -> dict[str, float | int]:
    """SQuAD 2.0, where a question without accepted answers has "" as its answer.

    `no_answer_scores`: the higher, the likelier there is no answer (probabilities, or LUKE's null odds); a prediction
    whose score is above `threshold` is taken as "". The official script's threshold is 1, made for probabilities;
    ours leaves the predictions as they are.

    Keys, as there: exact, f1, total; HasAns_* and NoAns_* over the questions with and without answers, if there are
    any; with no_answer_scores also best_exact, best_f1 and the thresholds best_exact_thresh and best_f1_thresh that
    give them. ValueError for a question without prediction or score: the script stops there too.
    """
    if not gold:
        raise ValueError("no questions: expected at least one")
    for name, given in (("prediction", predicted), ("no-answer score", no_answer_scores)):
        if given is not None and (missing := [question for question in gold if question not in given]):
            raise ValueError(f"question {missing[0]}: no {name}: expected one for each of the {len(gold)} questions")
    has_answer = {question: bool(answers) for question, answers in gold.items()}
    raw = {}  # question -> exact match, F1 of the prediction as it is
    for question, answers in gold.items():
        answers = _with_content(answers, normalize_squad)
        raw[question] = _best(answers, predicted[question], normalize_squad, _text_f1_or_empty)
    taken = raw
    if no_answer_scores is not None:
        silent = {question for question in gold if no_answer_scores[question] > threshold}
        taken = {q: (float(not has_answer[q]),) * 2 if q in silent else pair for q, pair in raw.items()}
    scores = {}
    for prefix, kept in (
        ("", list(gold)),
        ("HasAns_", [question for question in gold if has_answer[question]]),
        ("NoAns_", [question for question in gold if not has_answer[question]]),
    ):
        if kept:
            exact, f1 = map(fmean, zip(*(taken[question] for question in kept)))
            scores |= {f"{prefix}exact": exact, f"{prefix}f1": f1, f"{prefix}total": len(kept)}
    if no_answer_scores is not None:
        for column, name in enumerate(("exact", "f1")):
            of_question = {question: pair[column] for question, pair in raw.items()}
            best, at = _best_threshold(of_question, predicted, no_answer_scores, has_answer)
            scores |= {f"best_{name}": best, f"best_{name}_thresh": at}
    return scores


def _best_threshold(
    scores: Mapping[str, float],
    predicted: Mapping[str, str],
    no_answer_scores: Mapping[str, float],
    has_answer: Mapping[str, bool],
) -> tuple[float, float]:
    """The best mean score of any threshold, and the lowest threshold that gives it (0 if silence is best).

    From answering nothing, questions are answered one by one in the order of their no-answer score. As in the script,
    equal scores keep the order of `no_answer_scores` and a cut may fall between them, so that with ties its best is
    sometimes a little better than any threshold can be.
    """
    score = best = float(sum(not answerable for answerable in has_answer.values()))
    threshold = 0.0
    for question in sorted(no_answer_scores, key=no_answer_scores.__getitem__):
        if question not in scores:
            continue
        if has_answer[question]:
            score += scores[question]
        elif predicted[question]:
            score -= 1
        if score > best:
            best, threshold = score, no_answer_scores[question]
    return best / len(scores), threshold

"""The numbers of the official scorers.

In: gold and predicted answers as plain Python values. Out: counts and fractions (never percent) in flat dicts whose
keys can be written to a results file as they are. No tensors, no files.

Each score is that of a program or paper, named where it stands: conlleval, the scorers of TACRED, SemEval-2010 task 8
and ultra-fine entity typing, scipy's correlations, LUKE's own counts for entity disambiguation, mLAMA's top-k hits, the
scripts of SQuAD 1.1 and 2.0, MLQA v1, ReCoRD 1.0 and JGLUE. Where such a program would divide by zero or silently leave
out examples, ours raises a ValueError or says in its docstring what it returns.

Left out on purpose: token accuracy of named entities, and any strict reading of a tag scheme: a strict IOB2 reader
silently drops most mentions of an IOB1 file, conlleval reads both. The precision-recall curves of the SQuAD 2.0 script.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from statistics import fmean

import numpy as np

from luke_mini.spans import is_punctuation

Span = tuple[int, int, str]  # start, end (half-open, in words), type


def precision_recall_f1(correct: int, predicted: int, gold: int) -> tuple[float, float, float]:
    """Fractions; whatever would be 0/0 is 0, as in conlleval."""
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    return precision, recall, 2 * correct / (predicted + gold) if correct else 0.0


def _counts(pairs: Iterable[tuple[set, set]], kind: Callable = str) -> dict[str, Counter]:
    """How many answers of each kind are gold, predicted, and both (correct). pairs: the two sets of each example."""
    counts = {"gold": Counter(), "predicted": Counter(), "correct": Counter()}
    for gold, predicted in pairs:
        for count, answers in zip(counts.values(), (gold, predicted, gold & predicted)):
            count.update(map(kind, answers))
    return counts


def _scores(counts: dict[str, Counter], kinds: Iterable | None = None, prefix: str = "") -> dict[str, float | int]:
    """Precision, recall, f1, gold, predicted, correct over these kinds or all, with `prefix` before each name."""
    kinds = counts["gold"] | counts["predicted"] if kinds is None else list(kinds)
    totals = {name: sum(count[kind] for kind in kinds) for name, count in counts.items()}
    fractions = precision_recall_f1(totals["correct"], totals["predicted"], totals["gold"])
    scores = dict(zip(("precision", "recall", "f1"), fractions)) | totals
    return {prefix + name: value for name, value in scores.items()}


# --- Named entities ---------------------------------------------------------------------------------------------
# `chunks` reads tags by the rules of conlleval (Tjong Kim Sang, CoNLL-2000 to 2003), `to_tags` is its inverse. A
# sequence is scored by itself, so that a mention at the end of one sentence never merges with one at the start of the
# next. IOBES is younger than conlleval, which merges E-PER B-PER into one mention; here, as in seqeval, they are two.


def chunks(tags: list[str]) -> list[Span]:
    """Mentions of one sentence from its tags, in order; IOB1, IOB2 and IOBES alike.

    A mention starts at B or S, and at I or E where none is open; it ends before O, B, S or another type, and after E
    or S. So `I-PER I-ORG B-ORG` is three mentions. Tags are `O` or a letter of BIES, a hyphen and a type.
    """
    spans = []
    start = None
    previous = "O"
    for position, tag in enumerate([*tags, "O"]):
        if start is not None and (tag[0] in "OBS" or previous[0] in "ES" or tag[2:] != previous[2:]):
            spans.append((start, position, previous[2:]))
            start = None
        if start is None and tag != "O":
            start = position
        previous = tag
    return spans


def to_tags(
    n_words: int, spans: Iterable[Span], scheme: str = "IOB2", sentence_starts: Collection[int] = (0,)
) -> list[str]:
    """Tags of a text from mentions that do not overlap; scheme "IOB1" or "IOB2".

    IOB2 opens every mention with B; IOB1 only one that directly follows a mention of its own type in its sentence.
    """
    tags = ["O"] * n_words
    for start, end, kind in sorted(spans):
        follows_its_type = start not in sentence_starts and tags[start - 1][2:] == kind
        tags[start:end] = [f"I-{kind}"] * (end - start)
        if scheme == "IOB2" or follows_its_type:
            tags[start] = f"B-{kind}"
    return tags


def span_scores(gold: Iterable[Iterable[Span]], predicted: Iterable[Iterable[Span]]) -> dict[str, float | int]:
    """Micro and per-type scores of exact (start, end, type) matches, sequence by sequence.

    Keys: precision, recall, f1, gold, predicted, correct; and the same six after `LOC_` for each type LOC that occurs
    in either argument, types in alphabetical order. A span given twice counts once.
    """
    counts = _counts(((set(a), set(b)) for a, b in zip(gold, predicted, strict=True)), kind=itemgetter(2))
    scores = _scores(counts)
    for kind in sorted(counts["gold"] | counts["predicted"]):
        scores |= _scores(counts, [kind], f"{kind}_")
    return scores


# --- Relations --------------------------------------------------------------------------------------------------

KBP37_RELATIONS = tuple(  # of RELX too; with two directions each and no_relation these are the 37 labels
    "org:alternate_names org:city_of_headquarters org:country_of_headquarters org:founded org:founded_by org:members "
    "org:stateorprovince_of_headquarters org:subsidiaries org:top_members/employees per:alternate_names "
    "per:cities_of_residence per:countries_of_residence per:country_of_birth per:employee_of per:origin per:spouse "
    "per:stateorprovinces_of_residence per:title".split()
)


def relation_scores(gold: Sequence[str], predicted: Sequence[str], no_relation: str = "no_relation") -> dict:
    """TACRED: micro scores over all examples but those that gold and prediction both call `no_relation`.

    Keys: precision, recall, f1, gold, predicted, correct (these without `no_relation`), and accuracy (with it). As in
    the official scorer, precision is 1 where nothing is predicted (differs from LUKE: 0 there), and f1 0. ValueError
    if no gold label is a relation: recall would be 0 of 0.
    """
    scores = _scores(_relation_counts(gold, predicted, no_relation))
    if not scores["predicted"]:
        scores["precision"] = 1.0
    return scores | {"accuracy": accuracy(gold, predicted)}


def _relation_counts(
    gold: Sequence[str], predicted: Sequence[str], no_relation: str, kind: Callable = str
) -> dict[str, Counter]:
    """Without `no_relation`. ValueError if no gold label is another one."""
    pairs = zip(gold, predicted, strict=True)
    counts = _counts((({label} - {no_relation}, {guess} - {no_relation}) for label, guess in pairs), kind)
    if not counts["gold"]:
        raise ValueError(f"{len(gold)} gold labels, all of them {no_relation}: expected at least one relation")
    return counts


def without_direction(label: str) -> str:
    """`per:title(e2,e1)` -> `per:title`."""
    return re.sub(r"\(e[12],e[12]\)$", "", label)


def directional_scores(
    gold: Sequence[str], predicted: Sequence[str], relations: Collection[str] | None = None,
    no_relation: str = "no_relation",
) -> dict:  # fmt: skip
    """SemEval-2010 task 8, "(9+1)-way evaluation taking directionality into account"; KBP37 and RELX.

    Labels end in (e1,e2) or (e2,e1). A right relation in the wrong direction is no hit: it counts as predicted and as
    gold of that relation, so it costs precision and recall. `macro_*` are unweighted means over `relations` (names
    without direction), of f1 the mean of f1s; 0 for a relation without a hit. Without `relations` they are those of
    the gold labels, as in the official scorer; with a fixed list, such as KBP37_RELATIONS, scores of different files
    are means over the same relations. As in that scorer, a guess outside `relations` counts as `no_relation`.

    Keys: accuracy; precision, recall, f1, gold, predicted, correct (micro, without `no_relation`); macro_precision,
    macro_recall, macro_f1; and macro_f1_seen, LUKE's own mean over all relations in gold or predictions, which rises
    and falls with what a file happens to contain. ValueError for a gold relation outside `relations`, or none at all.
    """
    counts = _relation_counts(gold, predicted, no_relation, without_direction)
    relations = sorted(counts["gold"]) if relations is None else list(dict.fromkeys(relations))
    if unknown := counts["gold"].keys() - set(relations):
        raise ValueError(f"gold relation {min(unknown)}: expected one of the {len(relations)} relations to score")
    scores = {"accuracy": accuracy(gold, predicted)} | _scores(counts, relations)
    for name in ("precision", "recall", "f1"):
        scores[f"macro_{name}"] = fmean(_scores(counts, [relation])[name] for relation in relations)
    seen = counts["gold"] | counts["predicted"]
    return scores | {"macro_f1_seen": fmean(_scores(counts, [relation])["f1"] for relation in seen)}


# --- Entity typing ----------------------------------------------------------------------------------------------


def typing_scores(gold: Iterable[Collection[str]], predicted: Iterable[Collection[str]]) -> dict:
    """Sets of types per mention: loose micro (Open Entity), loose macro (ultra-fine typing), strict accuracy.

    Keys: precision, recall, f1, gold, predicted, correct (micro); macro_precision, the mean over mentions with a
    predicted type; macro_recall, the mean over those with a gold type; macro_f1, the harmonic mean of these two means;
    accuracy, the fraction of mentions with exactly the gold set. Means over nothing are 0.
    """
    pairs = [(set(labels), set(guesses)) for labels, guesses in zip(gold, predicted, strict=True)]
    precision = _mean(len(labels & guesses) / len(guesses) for labels, guesses in pairs if guesses)
    recall = _mean(len(labels & guesses) / len(labels) for labels, guesses in pairs if labels)
    return _scores(_counts(pairs)) | {
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": 2 * precision * recall / (precision + recall) if precision and recall else 0.0,
        "accuracy": _mean(labels == guesses for labels, guesses in pairs),
    }


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fmean(values) if values else 0.0


# --- Entity disambiguation --------------------------------------------------------------------------------------


def disambiguation_scores(
    gold: Iterable[Sequence[str | None]], predicted: Iterable[Sequence[str | None]]
) -> dict[str, float | int]:
    """Titles of the mentions, document by document; a gold None is a mention without a title in the knowledge base.

    Mentions with a gold None are left out, whatever is predicted. A predicted None is no prediction (no candidates):
    it costs recall, not precision. Keys: in_kb_accuracy (correct of all mentions kept, the same as recall), precision,
    recall, f1, gold, predicted, correct over all mentions; macro_accuracy, macro_precision, macro_f1 as means over
    documents: of correct / kept and of f1 over documents with a kept mention, of precision over those with a
    prediction. Means over nothing are 0.
    """
    counts = {"gold": Counter(), "predicted": Counter(), "correct": Counter()}  # document -> mentions
    for document, (titles, guesses) in enumerate(zip(gold, predicted, strict=True)):
        kept = [(title, guess) for title, guess in zip(titles, guesses, strict=True) if title is not None]
        counts["gold"][document] = len(kept)
        counts["predicted"][document] = sum(guess is not None for _, guess in kept)
        counts["correct"][document] = sum(title == guess for title, guess in kept)
    scores, each = _scores(counts), [_scores(counts, [document]) for document in counts["gold"]]
    return {"in_kb_accuracy": scores["recall"]} | scores | {
        "macro_accuracy": _mean(found["recall"] for found in each if found["gold"]),
        "macro_precision": _mean(found["precision"] for found in each if found["predicted"]),
        "macro_f1": _mean(found["f1"] for found in each if found["gold"]),
    }  # fmt: skip


# --- Classification and regression ------------------------------------------------------------------------------


def accuracy(gold: Sequence, predicted: Sequence) -> float:
    """Fraction of equal labels. ValueError without any."""
    if not len(gold):
        raise ValueError("no gold labels: expected at least one")
    return fmean(label == guess for label, guess in zip(gold, predicted, strict=True))


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Correlation in [-1, 1]; 0 for constant predictions, which say nothing about the order.

    scipy returns nan there, with which no best epoch can be chosen. ValueError for constant gold values (no prediction
    could be good or bad), fewer than two, or values that are not finite.
    """
    x, y = _finite_rows(gold, predicted)
    if len(set(x.tolist())) < 2:
        raise ValueError(f"{len(x)} gold values, all equal: expected at least two different ones")
    if (y == y[0]).all():
        return 0.0
    x, y = _direction(x), _direction(y)
    return float(np.clip(x @ y, -1, 1))


def _finite_rows(gold: Sequence[float], predicted: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(gold, np.float64), np.asarray(predicted, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"shapes {x.shape} of gold and {y.shape} of predictions: expected two equal rows of numbers")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("nan or infinity among gold values or predictions: expected finite numbers")
    return x, y


def _direction(values: np.ndarray) -> np.ndarray:
    """The vector from their mean to the values, of length 1."""
    centered = values - values.mean()
    centered /= np.abs(centered).max()  # squares of tiny numbers would vanish
    return centered / np.linalg.norm(centered)


def average_ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1, as float64; equal values share the mean of their ranks: 3 1 3 -> 2.5 1 2.5."""
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson's correlation of the average ranks; constants and errors as there."""
    return pearson(*map(average_ranks, _finite_rows(gold, predicted)))


# --- Probing (mLAMA) --------------------------------------------------------------------------------------------


def best_rank(scores: Sequence[float | None], gold: Collection[int]) -> int | None:
    """Rank, from 1, of the best placed of the `gold` candidates (indices); None if none of them has a score.

    Higher scores first; of equal scores the earlier candidate first, as a stable sort leaves them. A candidate without
    a score (None: its entity is not in the vocabulary) stands behind all others.
    """
    order = sorted((-score, index) for index, score in enumerate(scores) if score is not None)
    return next((rank for rank, (_, index) in enumerate(order, start=1) if index in gold), None)


def probing_scores(ranks: Mapping[str, Sequence[int | None]], ks: Sequence[int] = (1, 5, 10, 100)) -> dict:
    """Fractions of questions whose gold object is among the first k, from relation -> `best_rank` of each question.

    Keys: top1 and so on, the mean over questions; relations_top1 and so on, the mean over relations of their own
    fractions; coverage, the fraction of questions with a rank (one without counts as missed); questions, relations.
    A relation without questions is left out; ValueError if no question is left.
    """
    asked = [list(of_relation) for of_relation in ranks.values() if len(of_relation)]
    if not asked:
        raise ValueError(f"{len(ranks)} relations without any question: expected at least one")
    found = [[rank is not None for rank in of_relation] for of_relation in asked]
    scores = {}
    for k in ks:
        hits = [[rank is not None and rank <= k for rank in of_relation] for of_relation in asked]
        scores[f"top{k}"] = fmean(sum(hits, []))
        scores[f"relations_top{k}"] = fmean(map(fmean, hits))
    return scores | {"coverage": fmean(sum(found, [])), "questions": sum(map(len, asked)), "relations": len(asked)}


# --- Answers that are free text ---------------------------------------------------------------------------------------
# An answer is normalized, then compared with each accepted one, of which the best counts: exact match, and F1 over the
# multiset of tokens.
#
#     SQuAD 1.1, XQuAD, ReCoRD   answer_scores(gold, predicted)
#     MLQA                       answer_scores(gold, predicted, partial(normalize_mlqa, language="de"))
#     SQuAD 2.0                  squad2_scores(gold, predicted, no_answer_scores, threshold)
#     JSQuAD                     jsquad_scores(gold, predicted)
#
# Means are over all questions: one without a prediction scores 0 (LUKE's newer code divides by the answered ones only).
# Every question needs an accepted answer, save in SQuAD 2.0, where none means that it has no answer.


def _whole_words(words: str) -> re.Pattern:
    return re.compile(rf"\b({'|'.join(words.split())})\b")


# MLQA, by the language of the answer. Arabic: the two letters go wherever they stand, inside words too; the script's
# pattern has a first alternative for word starts that can never match. Hindi and Chinese: none.
ARTICLES = {
    "en": _whole_words("a an the"),  # SQuAD's, in every language
    "es": _whole_words("un una unos unas el la los las"),
    "de": _whole_words("ein eine einen einem eines einer der die das den dem des"),
    "vi": _whole_words("của là cái chiếc những"),
    "ar": re.compile("ال"),
}
CHINESE = re.compile("[\u4e00-\u9fa5]")  # the script's range, narrower than Unicode's block


def normalize_squad(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and extra white space; XQuAD: in every language."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(ARTICLES["en"].sub(" ", text).split())


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


def token_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """F1 over multisets of tokens; 0 without a common one, so for two empty answers too."""
    common = (Counter(gold) & Counter(predicted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(gold)
    return 2 * precision * recall / (precision + recall)  # rounded as in the scripts: _best_threshold compares sums


def text_f1(gold: str, predicted: str) -> float:
    return token_f1(gold.split(), predicted.split())


def _or_empty(f1: Callable[[str, str], float]) -> Callable[[str, str], float]:
    """The same, but an empty answer is right where an empty one is accepted."""
    return lambda gold, predicted: f1(gold, predicted) if gold and predicted else float(gold == predicted)


def _best(
    answers: Sequence[str], prediction: str, normalize: Callable[[str], str], f1: Callable[[str, str], float]
) -> tuple[float, float]:
    """Exact match and F1 of a prediction against the accepted answer that suits it best, each by itself."""
    prediction = normalize(prediction)
    answers = [normalize(answer) for answer in answers]
    return float(prediction in answers), max(f1(answer, prediction) for answer in answers)


def _with_content(answers: Sequence[str], normalize: Callable[[str], str]) -> list[str]:
    """The answers that are not empty once normalized; if none is left, the empty answer alone."""
    return [answer for answer in answers if normalize(answer)] or [""]


def answer_scores(
    gold: Mapping[str, Sequence[str]], predicted: Mapping[str, str],
    normalize: Callable[[str], str] = normalize_squad, f1: Callable[[str, str], float] = text_f1,
) -> dict[str, float | int]:  # fmt: skip
    """SQuAD 1.1, XQuAD, ReCoRD, and with `normalize_mlqa` MLQA. Keys: exact_match, f1, questions, answered.

    `predicted` may hold questions that `gold` lacks: they are not looked at. ValueError for a question without an
    accepted answer, or no question.
    """
    if not gold:
        raise ValueError("no questions: expected at least one")
    if bare := [question for question, answers in gold.items() if not answers]:
        raise ValueError(f"question {bare[0]}: no accepted answer: expected at least one")
    found = [_best(gold[name], predicted[name], normalize, f1) for name in gold if name in predicted]
    exact, overlap = (sum(column) / len(gold) for column in zip(*found or [(0.0, 0.0)]))
    return {"exact_match": exact, "f1": overlap, "questions": len(gold), "answered": len(found)}


def jsquad_scores(gold: Mapping[str, Sequence[str]], predicted: Mapping[str, str]) -> dict[str, float | int]:
    """JSQuAD: F1 over characters, a space too. Keys and errors as in `answer_scores`."""
    gold = {question: answers and _with_content(answers, normalize_jsquad) for question, answers in gold.items()}
    return answer_scores(gold, predicted, normalize_jsquad, _or_empty(token_f1))


def squad2_scores(
    gold: Mapping[str, Sequence[str]], predicted: Mapping[str, str],
    no_answer_scores: Mapping[str, float] | None = None, threshold: float = math.inf,
) -> dict[str, float | int]:  # fmt: skip
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
    raw = {  # question -> exact match, F1 of the prediction as it is
        name: _best(_with_content(answers, normalize_squad), predicted[name], normalize_squad, _or_empty(text_f1))
        for name, answers in gold.items()
    }
    taken = dict(raw)
    for question in gold if no_answer_scores else ():
        if no_answer_scores[question] > threshold:
            taken[question] = (float(not has_answer[question]),) * 2
    scores = {}
    for prefix, kinds in (("", (True, False)), ("HasAns_", (True,)), ("NoAns_", (False,))):
        if kept := [pair for question, pair in taken.items() if has_answer[question] in kinds]:
            exact, f1 = map(fmean, zip(*kept))
            scores |= {f"{prefix}exact": exact, f"{prefix}f1": f1, f"{prefix}total": len(kept)}
    for column, name in enumerate(("exact", "f1") if no_answer_scores else ()):
        of_question = {question: pair[column] for question, pair in raw.items()}
        best, at = _best_threshold(of_question, predicted, no_answer_scores, has_answer)
        scores |= {f"best_{name}": best, f"best_{name}_thresh": at}
    return scores


def _best_threshold(
    scores: Mapping[str, float], predicted: Mapping[str, str], no_answer_scores: Mapping[str, float],
    has_answer: Mapping[str, bool],
) -> tuple[float, float]:  # fmt: skip
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

"""The numbers of the official scorers.

In: gold and predicted answers as plain Python values. Out: counts and fractions (never percent) in flat dicts whose
keys can be written to a results file as they are. No tensors, no files.

Each score is that of a program or paper, named where it stands: conlleval (named entities), the TACRED scorer, the
scorer of SemEval-2010 task 8 (KBP37, RELX), the ultra-fine entity typing scorer, scipy's correlations (JSTS), LUKE's
own counts for entity disambiguation, mLAMA's top-k hits; SQuAD evaluate-v1.1 and v2.0, MLQA evaluation v1, ReCoRD
evaluation v1.0 and JGLUE's patch of transformers, see "Answers that are free text". Where such a program would divide
by zero or leave out examples without saying so, ours raises a ValueError or says in its docstring what it returns.

Left out on purpose: token accuracy of named entities, and any strict reading of a tag scheme: a strict IOB2 reader
silently drops most mentions of an IOB1 file, conlleval reads both. The precision-recall curves of the SQuAD 2.0 script.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np

from luke_mini.spans import is_punctuation

Span = tuple[int, int, str]  # start, end (half-open, in words), type


def precision_recall_f1(correct: int, predicted: int, gold: int) -> tuple[float, float, float]:
    """Fractions; whatever would be 0/0 is 0, as in conlleval."""
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    return precision, recall, 2 * correct / (predicted + gold) if correct else 0.0


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
    counts = {"gold": Counter(), "predicted": Counter(), "correct": Counter()}  # type -> mentions
    for gold_spans, predicted_spans in zip(gold, predicted, strict=True):
        gold_set, predicted_set = set(gold_spans), set(predicted_spans)
        for name, spans in (
            ("gold", gold_set),
            ("predicted", predicted_set),
            ("correct", gold_set & predicted_set),
        ):
            counts[name].update(kind for _, _, kind in spans)
    scores = _with_fractions("", {name: by_type.total() for name, by_type in counts.items()})
    for kind in sorted(counts["gold"] | counts["predicted"]):
        scores |= _with_fractions(f"{kind}_", {name: by_type[kind] for name, by_type in counts.items()})
    return scores


def _with_fractions(prefix: str, counts: dict[str, int]) -> dict[str, float | int]:
    """The counts gold, predicted and correct, and what follows from them, with `prefix` before each name."""
    fractions = precision_recall_f1(counts["correct"], counts["predicted"], counts["gold"])
    named = dict(zip(("precision", "recall", "f1"), fractions)) | counts
    return {prefix + name: value for name, value in named.items()}


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
    pairs = list(zip(gold, predicted, strict=True))
    counts = {
        "gold": sum(label != no_relation for label, _ in pairs),
        "predicted": sum(guess != no_relation for _, guess in pairs),
        "correct": sum(label == guess != no_relation for label, guess in pairs),
    }
    if not counts["gold"]:
        raise ValueError(f"{len(pairs)} gold labels, all of them {no_relation}: expected at least one relation")
    scores = _with_fractions("", counts)
    if not counts["predicted"]:
        scores["precision"] = 1.0
    return scores | {"accuracy": accuracy(gold, predicted)}


def without_direction(label: str) -> str:
    """`per:title(e2,e1)` -> `per:title`."""
    return re.sub(r"\(e[12],e[12]\)$", "", label)


def directional_scores(
    gold: Sequence[str],
    predicted: Sequence[str],
    relations: Collection[str] | None = None,
    no_relation: str = "no_relation",
) -> dict:
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
    pairs = list(zip(gold, predicted, strict=True))
    gold_count = Counter(without_direction(label) for label in gold if label != no_relation)
    predicted_count = Counter(without_direction(guess) for guess in predicted if guess != no_relation)
    correct_count = Counter(without_direction(guess) for label, guess in pairs if label == guess != no_relation)
    relations = sorted(gold_count) if relations is None else list(dict.fromkeys(relations))
    if unknown := gold_count.keys() - set(relations):
        raise ValueError(f"gold relation {min(unknown)}: expected one of the {len(relations)} relations to score")
    if not gold_count:
        raise ValueError(f"{len(pairs)} gold labels, all of them {no_relation}: expected at least one relation")

    def fractions(names: Iterable[str]) -> list[tuple[float, float, float]]:
        return [precision_recall_f1(correct_count[name], predicted_count[name], gold_count[name]) for name in names]

    counts = {"gold": gold_count, "predicted": predicted_count, "correct": correct_count}
    micro = {name: sum(count[relation] for relation in relations) for name, count in counts.items()}
    macro = map(fmean, zip(*fractions(relations)))
    scores = {"accuracy": accuracy(gold, predicted)} | _with_fractions("", micro)
    scores |= dict(zip(("macro_precision", "macro_recall", "macro_f1"), macro))
    scores["macro_f1_seen"] = fmean(f1 for _, _, f1 in fractions(gold_count | predicted_count))
    return scores


# --- Entity typing ----------------------------------------------------------------------------------------------


def typing_scores(gold: Iterable[Collection[str]], predicted: Iterable[Collection[str]]) -> dict:
    """Sets of types per mention: loose micro (Open Entity), loose macro (ultra-fine typing), strict accuracy.

    Keys: precision, recall, f1, gold, predicted, correct (micro); macro_precision, the mean over mentions with a
    predicted type; macro_recall, the mean over those with a gold type; macro_f1, the harmonic mean of these two means;
    accuracy, the fraction of mentions with exactly the gold set. Means over nothing are 0.
    """
    pairs = [(set(labels), set(guesses)) for labels, guesses in zip(gold, predicted, strict=True)]
    counts = {
        "gold": sum(len(labels) for labels, _ in pairs),
        "predicted": sum(len(guesses) for _, guesses in pairs),
        "correct": sum(len(labels & guesses) for labels, guesses in pairs),
    }
    precision = _mean(len(labels & guesses) / len(guesses) for labels, guesses in pairs if guesses)
    recall = _mean(len(labels & guesses) / len(labels) for labels, guesses in pairs if labels)
    macro = (precision, recall, _harmonic(precision, recall))
    scores = _with_fractions("", counts) | dict(zip(("macro_precision", "macro_recall", "macro_f1"), macro))
    return scores | {"accuracy": _mean(labels == guesses for labels, guesses in pairs)}


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fmean(values) if values else 0.0


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a and b else 0.0


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
    documents = []  # (correct, predicted, gold)
    for titles, guesses in zip(gold, predicted, strict=True):
        kept = [(title, guess) for title, guess in zip(titles, guesses, strict=True) if title is not None]
        correct = sum(title == guess for title, guess in kept)
        documents.append((correct, sum(guess is not None for _, guess in kept), len(kept)))
    totals = [sum(column) for column in zip(*documents)] or [0, 0, 0]
    scores = _with_fractions("", dict(zip(("correct", "predicted", "gold"), totals)))
    return {"in_kb_accuracy": scores["recall"]} | scores | {
        "macro_accuracy": _mean(correct / kept for correct, _, kept in documents if kept),
        "macro_precision": _mean(correct / guessed for correct, guessed, _ in documents if guessed),
        "macro_f1": _mean(precision_recall_f1(*document)[2] for document in documents if document[2]),
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
    x, y = np.asarray(gold, np.float64), np.asarray(predicted, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"shapes {x.shape} of gold and {y.shape} of predictions: expected two equal rows of numbers")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("nan or infinity among gold values or predictions: expected finite numbers")
    if len(set(x.tolist())) < 2:
        raise ValueError(f"{len(x)} gold values, all equal: expected at least two different ones")
    if (y == y[0]).all():
        return 0.0
    x, y = _direction(x), _direction(y)
    return float(np.clip(x @ y, -1, 1))


def _direction(values: np.ndarray) -> np.ndarray:
    """The vector from their mean to the values, of length 1."""
    centred = values - values.mean()
    centred /= np.abs(centred).max()  # squares of tiny numbers would vanish
    return centred / np.linalg.norm(centred)


def average_ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1, as float64; equal values share the mean of their ranks: 3 1 3 -> 2.5 1 2.5."""
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson's correlation of the average ranks; constants and errors as there."""
    if not np.isfinite([*gold, *predicted]).all():
        raise ValueError("nan or infinity among gold values or predictions: expected finite numbers")
    return pearson(average_ranks(gold), average_ranks(predicted))


# --- Probing (mLAMA) --------------------------------------------------------------------------------------------


def best_rank(scores: Sequence[float | None], gold: Collection[int]) -> int | None:
    """Rank, from 1, of the best placed of the `gold` candidates (indices); None if none of them has a score.

    Higher scores first; of equal scores the earlier candidate first, as a stable sort leaves them. A candidate without
    a score (None: its entity is not in the vocabulary) stands behind all others.
    """
    scored = [index for index in gold if scores[index] is not None]
    if not scored:
        return None
    best = min(scored, key=lambda index: (-scores[index], index))
    return 1 + sum(
        score is not None and (score, -index) > (scores[best], -best) for index, score in enumerate(scores)
    )


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

"""The numbers of the official scorers.

In: gold and predicted answers as plain Python values. Out: counts and fractions (never percent) in flat dicts whose
keys can be written to a results file as they are. No tensors, no files, no text processing of a task.

Named entities: `chunks` reads tags by the rules of conlleval (Tjong Kim Sang, CoNLL-2000 to 2003), `to_tags` is its
inverse, `span_scores` counts exact matches of (start, end, type). A sequence is scored by itself, so that a mention at
the end of one sentence never merges with one at the start of the next.

Left out on purpose: token accuracy, and any strict reading of a tag scheme: a strict IOB2 reader silently drops most
mentions of an IOB1 file, conlleval reads both.
"""

from collections import Counter
from collections.abc import Iterable

Span = tuple[int, int, str]  # start, end (half-open, in words), type


def precision_recall_f1(correct: int, predicted: int, gold: int) -> tuple[float, float, float]:
    """Fractions; whatever would be 0/0 is 0, as in conlleval."""
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    return precision, recall, 2 * correct / (predicted + gold) if correct else 0.0


# --- Named entities ---------------------------------------------------------------------------------------------


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


def to_tags(n_words: int, spans: Iterable[Span], scheme: str = "IOB2") -> list[str]:
    """Tags of one sentence from mentions that do not overlap; scheme "IOB1" or "IOB2".

    IOB2 opens every mention with B; IOB1 only one that directly follows a mention of its own type.
    """
    tags = ["O"] * n_words
    for start, end, kind in sorted(spans):
        follows_its_type = start > 0 and tags[start - 1][2:] == kind
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
    fractions = precision_recall_f1(counts["correct"], counts["predicted"], counts["gold"])
    named = dict(zip(("precision", "recall", "f1"), fractions)) | counts
    return {prefix + name: value for name, value in named.items()}

"""Linking beside its prior, on held-out links: right titles, and links that mean none of their candidates (NIL).

    python tests/bench/bench_linking.py FOLDER MODEL [MODEL ...]

FOLDER is of prepare_wiki.py, made with --held-out-pages N. Every second one of these pages chooses weight and
threshold, the others are the test. MODELs are runs on FOLDER or checkpoints. Links whose surface has candidates count: "known" are
those whose title is one of them, "all" includes NIL, which None answers rightly. "NIL" is the precision of as many of
the least probable links as hold half of NIL; the two alone rank by their own probability, of a lone candidate 1.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import project  # noqa: F401 (finds luke_mini)

from luke_mini import files, inference, task_disambiguation
from luke_mini.disambiguation_data import to_document, with_candidates
from luke_mini.mentions import HELD_OUT, STATISTICS, Mentions


def answers(linker, documents, weight: float, least: float) -> list[tuple[str | None, float]]:
    """(title, probability) of all mentions with candidates."""
    options = replace(linker.options, model_weight=weight, min_probability=least)
    linker.model.options = options
    features = linker.task.make_features(documents, linker.tokenizer, linker.entity_vocab, (), options)
    found = linker.task.predict(linker.model, features, documents)
    return [a[:2] for document, own in zip(documents, found) for m, a in zip(document.mentions, own) if m.candidates]


def precision_at_half_recall(probability, is_nil) -> float:
    hits = np.array(is_nil)[np.argsort(probability, kind="stable")].cumsum()
    n = int(np.searchsorted(hits, hits[-1] / 2)) + 1
    return hits[n - 1] / n


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+", type=Path)
    given = parser.parse_args()
    statistics, records = Mentions.load(given.folder / STATISTICS), list(files.read_json_lines(given.folder / HELD_OUT))
    pages = list(dict.fromkeys(record.values["id"] for record in records))
    choosing, testing = ([r for r in records if r.values["id"] in set(pages[k::2])] for k in (0, 1))
    documents = [with_candidates(to_document(record), statistics, 1.0) for record in testing]
    mentions = [m for document in documents for m in document.mentions if m.candidates]
    gold = [m.title if m.title in [c.title for c in m.candidates] else None for m in mentions]
    known = np.array([title is not None for title in gold])
    for path in given.models:
        linker = inference.load(path, "disambiguation")
        mix = task_disambiguation.choose_mix(linker, statistics, choosing)
        print(f"{path}: {len(pages[1::2])} pages, {known.sum()} known links, {(~known).sum()} NIL; {mix[:6]}")
        ways = {"prior alone": (0.0, 0.0), "model alone": (1.0, 0.0),
                "link": mix[:2],
                f"link --min-probability {mix.nil_probability:.2f}": (mix.model_weight, mix.nil_probability)}  # fmt: skip
        for name, (weight, least) in ways.items():
            titles, probability = zip(*answers(linker, documents, weight, least))
            if name == "prior alone":
                probability = [mention.candidates[0].prior for mention in mentions]
            right = np.array([title == own for title, own in zip(titles, gold)])
            print(f"  {name:27} known {right[known].mean():6.1%} ({right[known].sum()})   all {right.mean():6.1%}   "
                  f"NIL {precision_at_half_recall(probability, ~known):6.1%}   "
                  f"None {titles.count(None)}, rightly {right[~known].sum()}", flush=True)


if __name__ == "__main__":
    main()

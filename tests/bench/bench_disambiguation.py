"""Confidence-order decoding of a batch of documents beside one document at a time, and scores of candidates beside
scores of the whole entity vocabulary, as the published code computes both.

    python tests/bench/bench_disambiguation.py [--size tiny] [--entities N] [--documents N] [--rounds N]

A model with random weights and made-up documents of 128 words with 1 to 16 mentions. Each round does everything once, one
after the other; times are CPU times of one process and one thread. The answers of all three are the same.
"""

import argparse
import random
import statistics
import time
from dataclasses import replace

import numpy as np
import project  # noqa: F401 (finds luke_mini)
import torch

from luke_mini import config, task_disambiguation
from luke_mini.disambiguation_data import Feature, Options
from luke_mini.entity_vocab import EntityVocab
from luke_mini.initialization import initialize
from luke_mini.packing import Sequence
from luke_mini.task_disambiguation import DisambiguationModel


class WholeVocabulary(DisambiguationModel):
    """The same answers from logits of all entities."""

    def scores(self, packed, rows, candidates):
        hidden = self.luke(packed).index_select(0, packed.n_words + rows)
        logits = self.entity_head(hidden, self.luke.entities.entity.weight)
        return logits.gather(1, candidates.clamp(min=0)).masked_fill(candidates < 0, float("-inf"))


def made_up(n_documents: int, n_words: int, n_entities: int) -> list[Feature]:
    draw, features = random.Random(0), []
    for index in range(n_documents):
        n = draw.randint(1, 16)
        starts = np.array(sorted(draw.sample(range(1, 126), n)))
        candidates = [{entity: k for k, entity in enumerate(draw.sample(range(3, n_entities), 30))} for _ in range(n)]
        words = np.array([0, *(draw.randrange(10, n_words) for _ in range(126)), 2])
        sequence = Sequence(words, np.full(n, -1), np.stack([starts, starts + 2], axis=1), np.arange(n))
        features.append(Feature(index, sequence, np.ones(n, bool), candidates))
    return features


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--size", default="tiny", choices=config.SIZES)
    arguments.add_argument("--entities", type=int, default=100_000)
    arguments.add_argument("--documents", type=int, default=16)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    vocab = EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]"])
    shape = replace(config.SIZES[given.size], vocab_size=5000, entity_vocab_size=given.entities)
    model = DisambiguationModel(shape, vocab.mask_id, Options())
    initialize(model, shape, 0)
    whole = WholeVocabulary(shape, vocab.mask_id, Options())
    whole.load_state_dict(model.state_dict())
    features = made_up(given.documents, shape.vocab_size, given.entities)
    forms = {
        "batch, candidates": (model, len(features)),
        "one at a time, candidates": (model, 1),
        "one at a time, whole vocabulary": (whole, 1),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    answers = {}
    for _ in range(given.rounds):
        for name, (form, batch_size) in forms.items():
            began = time.process_time()
            states = task_disambiguation.decode(form, features, "confidence", batch_size)
            times[name].append(time.process_time() - began)
            answers[name] = [state.choice.tolist() for state in states]
    first = statistics.median(times["batch, candidates"])
    for name, found in times.items():
        same = "" if answers[name] == answers["batch, candidates"] else "  other answers"
        print(f"{name:32} {statistics.median(found):8.2f} s  {statistics.median(found) / first:6.2f} x{same}")


if __name__ == "__main__":
    main()

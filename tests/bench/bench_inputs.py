"""Texts per second on one core from characters to model inputs: ours beside transformers' LukeTokenizer.

    python tests/bench/bench_inputs.py [--dump FILE] [--tokenizer FOLDER] [--rounds N]

Sentences of 40 words with 50 spans of 1 to 8 words each, in batches. A round takes the next texts of the dump, unseen
so far, and runs them through each of the ways, so that a busy machine is busy for all of them; which side comes first
changes from round to round. Caches start empty and fill as they would in use: the line "encode_batch" meets unseen
texts, the other lines of ours meet them again, as all do in the column "again". Outputs are compared in every round.

FOLDER holds RoBERTa's vocab.json and merges.txt; without a dump or a folder: ../shared/data beside the repository, else
the built-in encyclopedia and a vocabulary trained on it. Times are CPU times, the table shows medians over the rounds.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import project  # noqa: F401 (finds luke_mini)
import torch
from transformers import LukeTokenizer

from luke_mini import inputs, packing, tokenizer, tokenizer_bpe, toyworld, wiki_dump, wikitext
from luke_mini.entity_vocab import SPECIAL, EntityVocab

SHARED = Path(__file__).parents[3] / "shared" / "data"
WORDS, SPANS = 40, 50

Example = tuple[str, list[tuple[int, int]]]  # text and spans


def examples(dump: Path) -> Iterator[Example]:
    """Passages of 40 words of the articles, end to end."""
    draw, words = random.Random(0), []
    for page in wiki_dump.read_dump(dump):
        for paragraph in [] if page.redirect else wikitext.parse(page.wikitext, page.language):
            words += paragraph.text.split()
        for begin in range(0, len(words) - WORDS + 1, WORDS):
            sentence, spans = words[begin : begin + WORDS], []
            starts = [0]
            for word in sentence:
                starts.append(starts[-1] + len(word) + 1)
            for _ in range(SPANS):
                first = draw.randrange(WORDS)
                spans.append((starts[first], starts[min(first + draw.randint(1, 8), WORDS)] - 1))
            yield " ".join(sentence), spans
        words = words[len(words) // WORDS * WORDS :]


def assert_equal(ours: list[dict], theirs: dict) -> None:
    """Equal up to the padding, which there is none of: neither side was asked for a batch."""
    for number, made in enumerate(ours):
        assert set(made) == set(theirs)
        assert all(made[key].tolist() == theirs[key][number] for key in made), number


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", type=Path, default=SHARED / "wiki" / "enwiki-106-pages.xml.bz2")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "tokenizers")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--texts", type=int, default=640, help="texts a round")
    parser.add_argument("--batch", type=int, default=32, help="texts a call")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if not options.dump.exists():
            options.dump = Path(folder) / "toyworld.xml.bz2"
            toyworld.write_dump(options.dump)
        made = list(examples(options.dump))
        if options.tokenizer.exists():
            ours = tokenizer.load(options.tokenizer)
            ours.save(folder)
        else:
            ours = tokenizer_bpe.train((text for text, _ in made), 5000, folder)
        theirs = LukeTokenizer.from_pretrained(folder, entity_vocab={name: k for k, name in enumerate(SPECIAL)})
    vocab = EntityVocab.from_titles(SPECIAL)
    rounds = min(options.rounds, len(made) // options.texts)
    if not rounds:
        parser.error(f"the dump has {len(made)} texts, a round needs {options.texts}")

    def measure(part: list[Example], ours_first: bool) -> dict[str, float]:
        """CPU seconds of each way over all batches of a round."""
        batches = [part[begin : begin + options.batch] for begin in range(0, len(part), options.batch)]
        batches = [tuple(map(list, zip(*batch))) for batch in batches]  # texts, spans
        made = {}  # what each way made of the last batch

        def encode(texts, spans):
            made["ours"] = inputs.encode_batch(ours, vocab, texts, entity_spans=spans)
            return made["ours"]

        def encode_theirs(texts, spans):
            made["theirs"] = theirs(texts, entity_spans=spans)

        ways = {
            "transformers, lists": encode_theirs,
            "encode_batch": encode,
            "transformers, padded tensors": lambda t, s: theirs(t, entity_spans=s, padding=True, return_tensors="pt"),
            "encode_batch and collate": lambda t, s: inputs.collate(encode(t, s), ours.pad_id),
            "encode_sequences and pack": lambda t, s: packing.pack(
                inputs.encode_sequences(ours, vocab, t, entity_spans=s), ours.pad_id, 30
            ),
            "encode, one text a call": lambda t, s: [
                inputs.encode(ours, vocab, text, entity_spans=spans) for text, spans in zip(t, s)
            ],
        }
        taken = dict.fromkeys(ways, 0.0)
        for name in sorted(ways, key=lambda name: name.startswith("transformers") == ours_first):
            begin = time.process_time()
            for texts, spans in batches:
                ways[name](texts, spans)
            taken[name] = time.process_time() - begin
        assert_equal(made["ours"], made["theirs"])
        return taken

    parts = [made[k * options.texts : (k + 1) * options.texts] for k in range(rounds)]
    measured = [measure(part, ours_first=number % 2 == 0) for number, part in enumerate(parts)]
    again = [measure(parts[-1], ours_first=number % 2 == 0) for number in range(5)]
    print(f"{rounds} rounds of {options.texts} texts in batches of {options.batch}; x: times transformers' rate")
    print(f"{'texts per second':30s}{'first round':>18s}{'median':>18s}{'again':>18s}")
    for name in measured[0]:
        peer = "transformers, padded tensors" if "and" in name else "transformers, lists"
        columns = []
        for times in (measured[:1], measured, again):
            rate, ratio = (
                statistics.median(options.texts / t[name] for t in times),
                statistics.median(t[peer] / t[name] for t in times),
            )
            columns.append(f"{rate:9,.0f} {ratio:5.1f} x")
        print(f"{name:30s}" + "".join(f"{column:>18s}" for column in columns))


if __name__ == "__main__":
    main()

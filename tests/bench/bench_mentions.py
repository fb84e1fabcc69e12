"""What mention statistics cost beside parsing the dump, and the hashed trie beside plain ones, on the same pages.

    python tests/bench/bench_mentions.py DUMP [--pages N] [--rounds N]

Each round does everything once, one after the other, so that a busy machine is busy for all; times are CPU times of one
process. The peers find the same occurrences with the same words: a trie of nested dicts, and a look-up of every run of
up to 20 words in a set. The table shows medians, and how many times as long as parsing the wikitext.
"""

import argparse
import statistics
import time
from collections import Counter

import numpy as np
import project  # noqa: F401 (finds luke_mini)

from luke_mini import mentions, wiki_dump, wikitext


def nested_dicts(names: list[str]) -> dict:
    root: dict = {}
    for name in names:
        node = root
        for word in name.split(" "):
            node = node.setdefault(word, {})
        node[""] = True
    return root


def pages_by_nested_dicts(root: dict, pages: list[list[list[str]]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for paragraphs in pages:
        present = set()
        for words in paragraphs:
            for start in range(len(words)):
                node = root
                for end in range(start, len(words)):
                    if (node := node.get(words[end])) is None:
                        break
                    if "" in node:
                        present.add(" ".join(words[start : end + 1]))
        counts.update(present)
    return counts


def pages_by_set(names: set[str], pages: list[list[list[str]]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for paragraphs in pages:
        runs = (
            " ".join(words[start:end])
            for words in paragraphs
            for start in range(len(words))
            for end in range(start + 1, min(start + mentions.MAX_WORDS, len(words)) + 1)
        )
        counts.update(names.intersection(runs))
    return counts


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("dump")
    arguments.add_argument("--pages", type=int, default=60)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    pages = [page for page in wiki_dump.read_dump(options.dump) if not page.redirect][: options.pages]
    parsed = [wikitext.parse(page.wikitext, page.language) for page in pages]
    texts = [[paragraph.text for paragraph in page] for page in parsed]

    def all_links() -> Counter[tuple[str, str]]:
        links: Counter[tuple[str, str]] = Counter()
        for page in parsed:
            links.update(mentions.count_links(page))
        return links

    table = mentions.from_links(all_links())
    names = table.names()
    root = nested_dicts(names)

    def words() -> list[list[list[str]]]:
        return [[mentions.normalize(text).split(" ") for text in page] for page in texts]

    def in_full() -> np.ndarray:
        counts = np.zeros(len(table), np.int64)
        found, pages = mentions.count_pages(table.trie, texts)
        counts[found] = pages
        return counts

    full = mentions.with_pages(table, in_full())
    wanted = {name: count for name, count in zip(names, in_full().tolist()) if count}
    assert pages_by_nested_dicts(root, words()) == pages_by_set(set(names), words()) == wanted
    work = {
        "wikitext.parse": lambda: [wikitext.parse(page.wikitext, page.language) for page in pages],
        "count_links": all_links,
        "count_pages": in_full,
        "  nested dicts": lambda: pages_by_nested_dicts(root, words()),
        "  set of names": lambda: pages_by_set(set(names), words()),
        "detect": lambda: [full.detect(text) for page in texts for text in page],
    }
    times = {name: [] for name in work}
    for _ in range(options.rounds):
        for name, function in work.items():
            start = time.process_time()
            function()
            times[name].append(time.process_time() - start)
    characters = sum(len(text) for page in texts for text in page) / 1e6
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    print(f"{len(pages)} pages, {characters:.2f} million characters, {len(names):,} names, {len(table.nodes):,} nodes")
    for name, seconds in medians.items():
        ratio = seconds / medians["wikitext.parse"]
        print(f"{name:16s} {characters / seconds:6.2f} million characters/s {ratio:6.2f} x parsing")


if __name__ == "__main__":
    main()

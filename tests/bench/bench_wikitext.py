"""How fast wikitext.parse is beside other parsers, on the same pages, in this process.

    python tests/bench/bench_wikitext.py DUMP [--pages N] [--rounds N] [--language CODE]

Needs no torch. Every parser that can be imported takes part: mwparserfromhell (strip_code), wikipedia2vec (what LUKE's
data were made with; it also pickles and compresses the result), wikitextparser (plain_text), gensim (filter_wiki). Each
round gives every parser all the pages, one after the other, so that a busy machine is busy for all of them; times are
CPU times, of all threads. The table shows medians, and how many times as long as ours; only these ratios carry over to
other machines. Two rows more: the whole way from the beginning of the dump, as many pages, read and parsed.
"""

import argparse
import importlib
import statistics
import time
from functools import partial
from itertools import islice

import project  # noqa: F401 (finds luke_mini)

from luke_mini import wiki_dump, wikitext


def parsers(language: str) -> dict:
    found = {"luke_mini.wikitext": lambda page: wikitext.parse(page.wikitext, page.site._replace(language=language))}
    modules = {}
    names = (
        "mwparserfromhell wikipedia2vec.dump_db wikipedia2vec.utils.wiki_page wikitextparser gensim.corpora.wikicorpus"
    )
    for name in names.split():
        try:
            modules[name] = importlib.import_module(name)
        except ImportError as error:
            print(f"without {name}: {error}")
    if "mwparserfromhell" in modules:
        found["mwparserfromhell"] = lambda page: modules["mwparserfromhell"].parse(page.wikitext).strip_code()
    if "wikipedia2vec.dump_db" in modules:
        wiki_page = modules["wikipedia2vec.utils.wiki_page"].WikiPage
        found["wikipedia2vec"] = lambda page: modules["wikipedia2vec.dump_db"]._parse_page(
            wiki_page(page.title, language, page.wikitext, None), None
        )
    if "wikitextparser" in modules:
        found["wikitextparser"] = lambda page: modules["wikitextparser"].parse(page.wikitext).plain_text()
    if "gensim.corpora.wikicorpus" in modules:
        found["gensim"] = lambda page: modules["gensim.corpora.wikicorpus"].filter_wiki(page.wikitext)
    return found


def whole_ways(dump: str, pages: int, parsers: dict) -> dict:
    """name -> function without arguments that reads and parses the first `pages` articles. wikipedia2vec needs .bz2."""
    ways = {"luke_mini.wikitext": (wiki_dump.read_dump, parsers["luke_mini.wikitext"])}
    if "wikipedia2vec" in parsers and dump.endswith(".bz2"):
        reader = importlib.import_module("wikipedia2vec.utils.wiki_dump_reader").WikiDumpReader
        parse_page = importlib.import_module("wikipedia2vec.dump_db")._parse_page
        ways["wikipedia2vec"] = reader, lambda page: parse_page(page, None)

    def run(read, parse) -> None:
        for page in islice((page for page in read(dump) if not page.redirect), pages):
            parse(page)

    return {name: partial(run, *way) for name, way in ways.items()}


def show(title: str, megabytes: float, times: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    print(title)
    for name, seconds in sorted(medians.items(), key=lambda item: item[1]):
        ratio = seconds / medians["luke_mini.wikitext"]
        print(f"{name:20s} {megabytes / seconds:7.2f} MB/s {ratio:7.1f} x our time")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("dump")
    arguments.add_argument("--pages", type=int, default=40, help="articles, spread evenly over the dump (default 40)")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--language", help="default: the dump's")
    options = arguments.parse_args()
    articles = [page for page in wiki_dump.read_dump(options.dump) if not page.redirect]
    pages = articles[:: max(len(articles) // options.pages, 1)][: options.pages]
    first = articles[: options.pages]
    taking_part = parsers(options.language or pages[0].language)
    whole = whole_ways(options.dump, options.pages, taking_part)
    times = {name: [] for name in taking_part}
    whole_times = {name: [] for name in whole}
    for _ in range(options.rounds):
        for name, parse in taking_part.items():
            start = time.process_time()
            for page in pages:
                parse(page)
            times[name].append(time.process_time() - start)
        for name, run in whole.items():
            start = time.process_time()
            run()
            whole_times[name].append(time.process_time() - start)
    sizes = [sum(len(page.wikitext.encode()) for page in taken) / 1e6 for taken in (pages, first)]
    rounds = f"median of {options.rounds} rounds"
    show(f"{len(pages)} pages, {sizes[0]:.2f} MB of wikitext, {rounds}", sizes[0], times)
    show(f"from dump to paragraphs: the first {len(first)} pages, {sizes[1]:.2f} MB, {rounds}", sizes[1], whole_times)


if __name__ == "__main__":
    main()

"""Makes the pretraining data: a Wikipedia dump -> word vocabulary, entity vocabulary, examples.

    python prepare_wiki.py                                                  the built-in encyclopedia, in a minute
    python prepare_wiki.py --dump enwiki-20261101-pages-articles.xml.bz2    a dump, or all files of one in parts
    python prepare_wiki.py --wiki sw                                        the dump of that language in this folder
    python prepare_wiki.py --jsonl corpus.jsonl                             texts of your own, with links

Dumps come from https://dumps.wikimedia.org. A line of a .jsonl file is a document; links are half-open characters:
    {"title": "Oslo", "paragraphs": [{"text": "In Norway.", "links": [{"title": "Norway", "start": 3, "end": 9}]}]}

The first pass parses the pages, counts links and keeps a sample of the text for the tokenizer; the parsed pages wait in
a temporary file, because reading and parsing again would take longer. The second pass makes the examples. Memory grows
with titles and links, not with the text. DIR then holds, the same for any number of workers,
    manifest.json (written last)  tokenizer/  entity_vocab.jsonl  mentions.safetensors  shard-00000.bin ...
    and of the built-in encyclopedia dump.xml.bz2 and for finetune.py ner/ relation/ typing/ qa/ cloze/ disambiguation/
    classification/ mlama/ with train, dev and test files
"""

import argparse
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from luke_mini import (
    files,
    mentions,
    tokenizer,
    tokenizer_bpe,
    tokenizer_sentencepiece,
    toyworld,
    toyworld_tasks,
)
from luke_mini.documents import NO_ARTICLE, Document, TextSample, find_dump, parse_pages, read_jsonl, unpack
from luke_mini.entity_vocab import EntityVocab, resolve_counts, resolve_redirect
from luke_mini.pretrain_examples import build_examples
from luke_mini.shards import Gathered, ShardWriter, flatten
from luke_mini.wiki_dump import Page, read_dump
from luke_mini.workers import in_order

# Flag: default, default for the built-in encyclopedia (a small world for small models), what it counts.
SIZES = {
    "vocab_size": (32000, 4000, "word pieces, at most"),
    "entity_vocab_size": (500000, 500000, "entities, at most"),
    "max_seq_length": (512, 128, "word pieces of an example, at most, with <s> and </s>"),
}
PAGES_PER_TASK = 16  # what a worker gets at once; fixed, so that what it returns does not depend on --workers
SAMPLE_CHARACTERS = 20_000_000  # of text to train the tokenizer on


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_argument_group("where from (without any of these: the built-in encyclopedia)")
    source = source.add_mutually_exclusive_group()
    source.add_argument("--dump", nargs="+", type=Path, metavar="FILE", help="MediaWiki XML: .xml .xml.bz2 .xml.gz")
    source.add_argument("--wiki", metavar="LANG", help="a language: its newest *-pages-articles*.bz2 in this folder")
    source.add_argument("--jsonl", nargs="+", type=Path, metavar="FILE", help="documents in the format above")
    target = parser.add_argument_group("where to")
    target.add_argument("--out", type=Path, metavar="DIR", help="replaces a result there [data/<name of the source>]")
    sizes = parser.add_argument_group("sizes [default; default for the built-in encyclopedia]")
    for name, (default, built_in, text) in SIZES.items():
        sizes.add_argument(f"--{name}".replace("_", "-"), type=int, metavar="N", help=f"{text} [{default}; {built_in}]")
    sizes.add_argument("--min-count", type=int, default=1, metavar="N", help="links to an entity, at least [1]")
    content = parser.add_argument_group("what goes in")
    content.add_argument("--tokenizer", type=Path, metavar="DIR", help="take this tokenizer instead of training one")
    pieces = ["unigram", "bpe", "byte-bpe"]
    content.add_argument("--pieces", choices=pieces, help="byte-bpe: as LUKE's own [unigram; built-in: bpe]")
    content.add_argument("--language", metavar="CODE", help="of the texts [what the dump says; en for --jsonl]")
    content.add_argument("--abstract-only", action="store_true", help="only what stands before the first heading")
    content.add_argument("--sentences-without-entities", action="store_true", help="keep examples without any entity")
    content.add_argument("--keep-red-links", action="store_true", help="entities need no article: for part of a dump")
    content.add_argument("--max-pages", type=int, metavar="N", help="stop after so many articles [no limit]")
    content.add_argument("--no-mentions", action="store_true", help="no mention statistics (for QA and linking)")
    run = parser.add_argument_group("the run")
    run.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes [%(default)s]")
    run.add_argument("--seed", type=int, default=0, help="of the encyclopedia and of the tokenizer's sample [0]")
    arguments = parser.parse_args(argv)
    for name in [*SIZES, "min_count", "max_pages", "workers"]:
        if (value := getattr(arguments, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value}: expected a positive number")
    return arguments


def prepare_out(arguments: argparse.Namespace) -> None:
    """Settles what depends on the source, and clears DIR. Writes the built-in encyclopedia if no other is given."""
    if arguments.wiki:
        arguments.dump = find_dump(arguments.wiki)
    files = arguments.dump or arguments.jsonl
    for file in files or ():
        file.stat()  # OSError before anything is thrown away
    for name, (default, built_in, _) in SIZES.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default if files else built_in)
    arguments.pieces = arguments.pieces or ("unigram" if files else "bpe")
    source = re.sub(r"\.(xml|jsonl)\b.*", "", files[0].name) if files else "toyworld"
    out = arguments.out = arguments.out or Path("data") / source
    out.mkdir(parents=True, exist_ok=True)
    # first what says that the rest is whole
    for old in [out / "manifest.json", out / mentions.STATISTICS, *sorted(out.glob("shard-*.bin"))]:
        old.unlink(missing_ok=True)
    if not files:
        print("writing the built-in encyclopedia")
        arguments.dump = [out / "dump.xml.bz2"]
        toyworld.write_dump(arguments.dump[0], arguments.seed)
        toyworld.write_ner(out / "ner", arguments.seed)
        toyworld_tasks.write_tasks(out, arguments.seed)


@dataclass
class Survey:
    """What the first pass finds out."""

    sample: TextSample
    language: str | None = None
    titles: set[str] = field(default_factory=set)
    redirects: dict[str, str] = field(default_factory=dict)  # title -> target, not followed any further
    links: Counter[str] = field(default_factory=Counter)  # title as linked -> links
    characters: int = 0  # of text, all paragraphs


def read_pages(arguments: argparse.Namespace, survey: Survey) -> Iterator[Page | Document]:
    """Yields articles and documents, with a progress bar in bytes of the files; redirects go to the survey."""
    files, reader = (arguments.jsonl, read_jsonl) if arguments.jsonl else (arguments.dump, read_dump)
    size = sum(file.stat().st_size for file in files)
    with tqdm(total=size, desc="1/2 pages", unit="B", unit_scale=True, disable=None) as progress:
        for file in files:
            for page in reader(file, progress.update):
                language = getattr(page, "language", survey.language)
                survey.language = survey.language or language
                if language != survey.language and not arguments.language:
                    raise ValueError(f"{file}: language {language}, but {survey.language} in the files before")
                if getattr(page, "redirect", None):
                    survey.redirects[page.title] = page.redirect
                elif not page.title.startswith(NO_ARTICLE):
                    yield page


def first_pass(arguments: argparse.Namespace, store: BinaryIO) -> tuple[Survey, list[int]]:
    """Parses everything into the store; also returns the length of each record there.

    differs from LUKE: pages stay in the order of the dump, there titles are shuffled; `train.py` shuffles examples. And
    --max-pages takes the first N, there N at random while the vocabulary is counted over all.
    """
    language = arguments.language or ("en" if arguments.jsonl else None)
    survey = Survey(TextSample(SAMPLE_CHARACTERS, arguments.seed), language)
    pages = islice(read_pages(arguments, survey), arguments.max_pages)
    lengths = []
    tasks = iter(lambda: list(islice(pages, PAGES_PER_TASK)), [])
    for packed, titles, links, characters in in_order(parse_pages, arguments.language, tasks, arguments.workers):
        lengths.append(store.write(packed))
        survey.titles.update(titles)
        survey.links.update(links)
        survey.characters += characters
        if not arguments.tokenizer and any(map(survey.sample.wants, titles)):
            for document in unpack(packed):
                survey.sample.offer(document)
    if not survey.links and not (survey.titles and arguments.sentences_without_entities):
        files = " ".join(map(str, arguments.jsonl or arguments.dump))
        raise ValueError(f"{files}: {len(survey.titles)} articles without any link: nothing to make examples of")
    return survey, lengths


def make_vocabularies(arguments: argparse.Namespace, word_tokenizer, survey: Survey, links: Counter[str]) -> tuple:
    """The word tokenizer (trained if it is None) and the entity vocabulary, saved in DIR."""
    folder = arguments.out / "tokenizer"
    if word_tokenizer:
        word_tokenizer.save(folder)
    else:
        print(f"training a tokenizer of {arguments.vocab_size:,} word pieces", flush=True)
        texts = survey.sample.texts()
        if arguments.pieces == "byte-bpe":
            word_tokenizer = tokenizer_bpe.train(texts, arguments.vocab_size, folder)
        else:
            word_tokenizer = tokenizer_sentencepiece.train(texts, arguments.vocab_size, folder, arguments.pieces)
    any_title = arguments.jsonl or arguments.keep_red_links  # a corpus need not describe everything that it names
    vocab = EntityVocab.build(
        links,
        arguments.entity_vocab_size,
        language=survey.language,
        page_titles=None if any_title else survey.titles,
        min_count=arguments.min_count,
    )
    vocab.save(arguments.out / "entity_vocab.jsonl")
    return word_tokenizer, vocab


def linked_names(_, packed: bytes) -> Counter[tuple[str, str]]:
    """What a worker does for the mention statistics, first; then the same with pages_with_names."""
    return mentions.count_links(paragraph for _, paragraphs in unpack(packed) for paragraph in paragraphs)


def pages_with_names(trie: mentions.Trie, packed: bytes) -> tuple[np.ndarray, np.ndarray]:
    return mentions.count_pages(trie, [[paragraph.text for paragraph in page] for _, page in unpack(packed)])


def gather_mentions(arguments: argparse.Namespace, store: BinaryIO, lengths: list[int], survey: Survey) -> None:
    """Writes the mention statistics: all names, then the pages with them, in two passes over the store."""
    any_title = arguments.jsonl or arguments.keep_red_links

    def records(what: str) -> Iterator[bytes]:
        store.seek(0)
        return (store.read(length) for length in tqdm(lengths, desc=what, unit=" blocks", disable=None))

    def entity(title: str) -> str | None:
        target = resolve_redirect(title, survey.redirects)
        return target if (any_title or target in survey.titles) and not target.startswith(NO_ARTICLE) else None

    links: Counter[tuple[str, str]] = Counter()
    for names in in_order(linked_names, None, records("mentions: names"), arguments.workers):
        links.update(names)
    table = mentions.from_links(links, entity)
    pages = np.zeros(len(table), np.int64)
    for names, counts in in_order(pages_with_names, table.trie, records("mentions: pages"), arguments.workers):
        pages[names] += counts
    mentions.with_pages(table, pages).save(arguments.out / mentions.STATISTICS)


def make_examples(build: Callable, packed: bytes) -> Gathered:
    """What a worker of the second pass does."""
    return flatten([example for title, paragraphs in unpack(packed) for example in build(paragraphs, title)])


def second_pass(arguments: argparse.Namespace, store: BinaryIO, lengths: list[int], build: Callable) -> ShardWriter:
    """Turns what is in the store into examples, and writes them as shards."""
    writer = ShardWriter(arguments.out, len(build.keywords["tokenizer"]))
    store.seek(0)
    records = (store.read(length) for length in tqdm(lengths, desc="2/2 examples", unit=" blocks", disable=None))
    for block in in_order(make_examples, build, records, arguments.workers):
        writer.write(block)
    writer.close()
    if not writer.examples:
        raise ValueError(f"no example: no sentence of 5 to {arguments.max_seq_length - 2} word pieces with a link")
    return writer


def prepare(arguments: argparse.Namespace, word_tokenizer) -> dict:
    """Everything but the manifest; returns what goes into it."""
    with tempfile.TemporaryFile(dir=arguments.out) as store:  # has no name: it is gone even if we are killed
        survey, lengths = first_pass(arguments, store)
        if not arguments.no_mentions:
            gather_mentions(arguments, store, lengths, survey)
        links = resolve_counts(survey.links, survey.redirects)
        word_tokenizer, vocab = make_vocabularies(arguments, word_tokenizer, survey, links)
        entity_ids = vocab.link_table(survey.redirects, survey.language)
        build = partial(
            build_examples,
            tokenizer=word_tokenizer,
            entity_ids=entity_ids,
            unk_entity_id=vocab.unk_id,
            language=survey.language,
            max_seq_length=arguments.max_seq_length,
            sentences_without_entities=arguments.sentences_without_entities,
            abstract_only=arguments.abstract_only,
        )
        writer = second_pass(arguments, store, lengths, build)
    return {
        "version": 1,  # of this file's form
        "sources": [file.name for file in arguments.jsonl or arguments.dump],
        "language": survey.language,
        "max_seq_length": arguments.max_seq_length,
        "pages": len(survey.titles),
        "redirects": len(survey.redirects),
        "characters": survey.characters,
        "links": links.total(),
        "links_to_known_entities": sum(links[title] for title in entity_ids),
        "word_vocab_size": len(word_tokenizer),
        "entity_vocab_size": len(vocab),
        "shards": writer.shards,
        "examples": writer.examples,
        "words": writer.words,
        "entities": writer.entities,
    }


def print_summary(made: dict, arguments: argparse.Namespace, seconds: float) -> None:
    known = made["links_to_known_entities"] / max(made["links"], 1)
    words, entities = (made[name] / made["examples"] for name in ("words", "entities"))
    fewer = made["word_vocab_size"] < arguments.vocab_size and not arguments.tokenizer
    excerpt = known < 0.5 and not (arguments.jsonl or arguments.keep_red_links)
    print(f"pages       {made['pages']:,} and {made['redirects']:,} redirects; {made['characters']:,} characters")
    print(f"links       {made['links']:,}, {known:.1%} of them to entities of the vocabulary, the others to [UNK]")
    print(f"entities    {made['entity_vocab_size']:,}{', few: for part of a dump there is --keep-red-links' * excerpt}")
    print(f"word pieces {made['word_vocab_size']:,}{', the text is too small for more' * fewer}")
    print(f"examples    {made['examples']:,}, of {words:.1f} word pieces and {entities:.1f} entities on average: "
          f"{made['entities'] / max(made['links'], 1):.1%} of the links")  # fmt: skip
    print(f"written to  {arguments.out} in {seconds:.0f} seconds")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    start = time.monotonic()
    word_tokenizer = tokenizer.load(arguments.tokenizer) if arguments.tokenizer else None
    prepare_out(arguments)
    try:
        made = prepare(arguments, word_tokenizer)
    except OSError as error:
        raise files.with_path(error, arguments.out) from None
    with files.write_file(arguments.out / "manifest.json") as file:
        json.dump(made, file, indent=1, ensure_ascii=False)
    print_summary(made, arguments, time.monotonic() - start)


if __name__ == "__main__":
    files.run(main, "prepare_wiki.py", "the next run starts over")

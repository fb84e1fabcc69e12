"""Makes the pretraining data: a Wikipedia dump -> word vocabulary, entity vocabulary, examples.

    python prepare_wiki.py                                                  the built-in encyclopedia, in a minute
    python prepare_wiki.py --dump enwiki-20261101-pages-articles.xml.bz2    a dump, or all parts of one
    python prepare_wiki.py --wiki sw                                        that language's dump in the current folder
    python prepare_wiki.py --jsonl corpus.jsonl                             your own documents, with links

Dumps come from https://dumps.wikimedia.org. A .jsonl file has one document per line; spans are half-open characters:
    {"title": "Oslo", "paragraphs": [{"text": "In Norway.", "links": [{"title": "Norway", "start": 3, "end": 9}]}]}
Titles are taken as they stand, and may be ids of a knowledge base of your own.

DIR (of --out) then holds, whatever the number of workers,
    manifest.json (written last)  tokenizer/  entity_vocab.jsonl  mentions.safetensors  shard-00000.bin ...
    held_out_links.jsonl (pages kept out of training and statistics, to weigh model and prior in linking)
    and for the built-in encyclopedia dump.xml.bz2 and the files of every task: ner/ relation/ typing/ qa/ cloze/
    disambiguation/ classification/ mlama/
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("prepare_wiki.py: needs Python 3.11 or newer, this is " + sys.version.split()[0])

from luke_mini import config, files

BUILT_IN = {"vocab_size": 4000, "max_seq_length": 128, "pieces": "bpe"}  # defaults for the built-in encyclopedia
SAMPLE_CHARACTERS = 20_000_000  # of text sampled to train the tokenizer


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = config.Parser(description=__doc__)
    source = parser.add_argument_group("where from (default: the built-in encyclopedia)")
    source = source.add_mutually_exclusive_group()
    source.add_argument("--dump", nargs="+", type=Path, metavar="FILE", help="MediaWiki XML: .xml .xml.bz2 .xml.gz")
    source.add_argument("--wiki", metavar="LANG", help="newest *-pages-articles*.bz2 of LANG in the current folder")
    source.add_argument("--jsonl", nargs="+", type=Path, metavar="FILE", help="documents in the format above")
    target = parser.add_argument_group("where to")
    target.add_argument("--out", type=Path, metavar="DIR", help="output; replaces older data [data/<source's name>]")
    sizes = parser.add_argument_group("sizes [default; default for the built-in encyclopedia]")
    sizes.add_argument("--vocab-size", type=int, default=32000, metavar="N", help="word vocabulary size [32000; 4000]")
    sizes.add_argument("--entity-vocab-size", type=int, default=500000, metavar="N", help="maximum entities [500000]")
    sizes.add_argument("--max-seq-length", type=int, default=512, metavar="N",
                       help="maximum tokens per example, including <s> and </s> [512; 128]")  # fmt: skip
    sizes.add_argument("--min-count", type=int, default=1, metavar="N", help="minimum links to an entity [1]")
    content = parser.add_argument_group("what goes in")
    content.add_argument("--tokenizer", type=Path, metavar="DIR", help="use this tokenizer instead of training one")
    entities = content.add_mutually_exclusive_group()
    entities.add_argument("--entity-vocab", type=Path, metavar="FILE", help="use this vocabulary instead of counting")
    entities.add_argument("--titles", type=Path, metavar="FILE", help="titles to keep if linked at all, one per line; "
                          "with a large --min-count only these")  # fmt: skip
    content.add_argument("--pieces", choices=["unigram", "bpe", "byte-bpe"], default="unigram",
                         help="byte-bpe: as LUKE's own [unigram; built-in: bpe]")  # fmt: skip
    content.add_argument("--language", metavar="CODE", help="language of the text [of the dump; en for --jsonl]")
    content.add_argument("--abstract-only", action="store_true", help="only the text before the first heading")
    content.add_argument("--sentences-without-entities", action="store_true", help="keep examples without entities")
    content.add_argument("--keep-red-links", action="store_true", help="for part of a dump: keep links without article")
    content.add_argument("--drop-unknown-links", action="store_true", help="as mLUKE; without it they become [UNK]")
    content.add_argument("--max-pages", type=int, metavar="N", help="stop after N articles [no limit]")
    content.add_argument("--no-mentions", action="store_true", help="no mention statistics (for QA and linking)")
    content.add_argument("--held-out-pages", type=int, metavar="N",
                         help="keep N articles to weigh model and prior in linking [1 in 50, at most 500]")  # fmt: skip
    run = parser.add_argument_group("the run")
    run.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes [%(default)s]")
    run.add_argument("--seed", type=int, default=0, help="seed of the encyclopedia and of the tokenizer's sample [0]")
    arguments = parser.parse_args(argv)
    if not (arguments.dump or arguments.wiki or arguments.jsonl):
        parser.set_defaults(**BUILT_IN)
        arguments = parser.parse_args(argv)
    for name in ("vocab_size", "entity_vocab_size", "max_seq_length", "min_count", "max_pages", "workers"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value}: expected a positive number")
    return arguments


if __name__ == "__main__":
    files.run(parse_arguments, "prepare_wiki.py")  # help and typing errors do not wait for numpy

from tqdm import tqdm

from luke_mini import corpus, examples, tokenizer, tokenizer_bpe, tokenizer_sentencepiece, toyworld, toyworld_tasks
from luke_mini.entity_vocab import EntityVocab, resolve_counts, resolve_redirect
from luke_mini.examples import CHECKED, MANIFEST
from luke_mini.mentions import HELD_OUT, STATISTICS
from luke_mini.wikitext import normalize_title, parse


def open_input(arguments: argparse.Namespace) -> None:
    """Checks and loads the inputs; resolves the defaults that depend on them."""
    if arguments.wiki:
        arguments.dump = corpus.find_dump(arguments.wiki)
    sources = arguments.sources = arguments.dump or arguments.jsonl or []
    for file in sources:
        file.stat()
    arguments.tokenizer = arguments.tokenizer and tokenizer.load(arguments.tokenizer)
    arguments.entity_vocab = arguments.entity_vocab and EntityVocab.load(arguments.entity_vocab)
    titles = files.read_text(arguments.titles).split("\n") if arguments.titles else []
    arguments.titles = [title for title in titles if title.strip()]
    if arguments.jsonl:  # your own documents may link to entities without a document
        arguments.language, arguments.keep_red_links = arguments.language or "en", True
    source = re.sub(r"\.(xml|jsonl)\b.*", "", sources[0].name) if sources else "toyworld"
    arguments.out = arguments.out or Path("data") / source


def clear_out(arguments: argparse.Namespace) -> None:
    """Removes older data from DIR. Writes the built-in encyclopedia if there is no source."""
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    # The manifest first: without it the folder counts as unfinished.
    names = (MANIFEST, CHECKED, STATISTICS, HELD_OUT)
    for old in [*map(out.joinpath, names), *sorted(out.glob("shard-*.bin"))]:
        old.unlink(missing_ok=True)
    if not arguments.sources:
        print("writing the built-in encyclopedia")
        arguments.sources = [out / "dump.xml.bz2"]
        toyworld.write_dump(arguments.sources[0], arguments.seed)
        toyworld_tasks.write_tasks(out, arguments.seed)


@contextmanager
def ticking(title: str) -> Iterator[None]:
    """`with ticking(title):` prints the title, and at a terminal the time that has passed, as its work says nothing."""
    ended, progress = threading.Event(), tqdm(desc=title, bar_format="{desc}: {elapsed}", disable=None)

    def tick() -> None:
        while not ended.wait(1):
            progress.refresh()

    if progress.disable:
        print(title, flush=True)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.close()


def train_tokenizer(arguments: argparse.Namespace, sample: corpus.TextSample):
    given = texts, size, _ = list(sample.texts()), arguments.vocab_size, arguments.out / "tokenizer"
    with ticking(f"training a tokenizer of {size:,} tokens on {sum(map(len, texts)):,} characters"):
        if arguments.pieces == "byte-bpe":
            return tokenizer_bpe.train(*given)
        return tokenizer_sentencepiece.train(*given, arguments.pieces)


def count_entities(arguments: argparse.Namespace, pages: corpus.Corpus, links: Counter[str]) -> EntityVocab:
    written = arguments.titles
    if not arguments.jsonl:
        written = [normalize_title(title, pages.language, pages.case_sensitive) for title in written]
    listed = {resolve_redirect(title.strip(), pages.redirects) for title in written}
    if listed:
        print(f"titles      {sum(links[title] > 0 for title in listed):,} of the {len(listed):,} listed are linked")
    titles, size = None if arguments.keep_red_links else pages.titles, arguments.entity_vocab_size
    return EntityVocab.build(
        links, size, language=pages.language, page_titles=titles, min_count=arguments.min_count, allowlist=listed
    )


def write_held_out(arguments: argparse.Namespace, pages: corpus.Corpus) -> None:
    """Of a dump some pages; of the built-in encyclopedia, which trains on all pages, other articles about the same."""
    built_in = not (arguments.dump or arguments.jsonl)
    pages.hold_out(0 if built_in else arguments.held_out_pages)
    other = toyworld.other_articles(arguments.seed) if built_in else ()
    found = [corpus.Document(title, parse(text)) for title, text in other] or pages.held_out_documents()
    lines = [line for document in found for line in corpus.linked_texts(document, pages.redirects)]
    if lines:
        with files.write_file(arguments.out / HELD_OUT) as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def prepare(arguments: argparse.Namespace) -> dict:
    """Writes everything but the manifest; returns its contents."""
    with tempfile.TemporaryFile(dir=arguments.out) as store:  # has no name, so a killed process leaves nothing behind
        sample = None if arguments.tokenizer else corpus.TextSample(SAMPLE_CHARACTERS, arguments.seed)
        pages = corpus.Corpus(store, arguments.workers, arguments.language, sample)
        reader = corpus.read_jsonl if arguments.jsonl else corpus.read_dump
        pages.parse(arguments.sources, reader, arguments.max_pages)
        if not pages.links and not (pages.titles and arguments.sentences_without_entities):
            where = f"{' '.join(map(str, arguments.sources))}: {len(pages.titles)} articles"
            raise ValueError(f"{where} without any link, expected links to make examples of")
        if not arguments.no_mentions:
            write_held_out(arguments, pages)
            pages.count_mentions(arguments.keep_red_links).save(arguments.out / STATISTICS)
        links = resolve_counts(pages.links, pages.redirects)
        shutil.rmtree(arguments.out / "tokenizer", ignore_errors=True)  # an older one may have other files
        if arguments.tokenizer:
            arguments.tokenizer.save(arguments.out / "tokenizer")
        word_tokenizer = arguments.tokenizer or train_tokenizer(arguments, sample)
        vocab = arguments.entity_vocab or count_entities(arguments, pages, links)
        vocab.save(arguments.out / "entity_vocab.jsonl")
        entity_ids = vocab.link_table(pages.redirects, pages.language)
        written, lost = pages.write_examples(
            arguments.out, word_tokenizer, entity_ids=entity_ids,
            unk_entity_id=None if arguments.drop_unknown_links else vocab.unk_id,
            max_seq_length=arguments.max_seq_length, abstract_only=arguments.abstract_only,
            sentences_without_entities=arguments.sentences_without_entities,
        )  # fmt: skip
    if not written["examples"]:
        raise ValueError(f"no example: no sentence of 5 to {arguments.max_seq_length - 2} tokens with a link")
    return {
        "version": 1,  # of this file's format
        "sources": [file.name for file in arguments.sources], "language": pages.language,
        "max_seq_length": arguments.max_seq_length,
        "pages": len(pages.titles), "held_out_pages": len(pages.held_out), "redirects": len(pages.redirects),
        "characters": pages.characters,
        "links": links.total(), "links_to_known_entities": sum(links[title] for title in entity_ids),
        "links_to_unk": lost.pop("unk", 0), "links_lost": lost,
        "word_vocab_size": len(word_tokenizer), "entity_vocab_size": len(vocab), **written,
    }  # fmt: skip


def print_summary(made: dict, arguments: argparse.Namespace, seconds: float) -> None:
    known = made["links_to_known_entities"] / max(made["links"], 1)
    words, entities = (made[name] / made["examples"] for name in ("words", "entities"))
    fewer = made["word_vocab_size"] < arguments.vocab_size and not arguments.tokenizer
    rest = "dropped" if arguments.drop_unknown_links else "to [UNK]"
    excerpt = known < 0.5 and not arguments.keep_red_links
    print(f"pages       {made['pages']:,} and {made['redirects']:,} redirects; {made['characters']:,} characters")
    print(f"links       {made['links']:,}, {known:.1%} of them to entities of the vocabulary, the rest {rest}")
    print(f"entities    {made['entity_vocab_size']:,}{', few: for part of a dump use --keep-red-links' * excerpt}")
    print(f"vocabulary  {made['word_vocab_size']:,} tokens{', the text is too small for more' * fewer}")
    print(f"examples    {made['examples']:,}, on average {words:.1f} tokens and {entities:.1f} entities: "
          f"{made['entities'] / max(made['links'], 1):.1%} of the links")  # fmt: skip
    lost = made["links_lost"]
    reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in lost.items())
    print(f"lost        {sum(lost.values()):,} links became no entity{reasons and ': '}{reasons}")
    print(f"written to  {arguments.out} in {seconds:.0f} seconds")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    start = time.monotonic()
    open_input(arguments)  # before anything is deleted
    with files.one_writer(arguments.out):
        clear_out(arguments)
        try:
            made = prepare(arguments)
        except OSError as error:
            raise files.with_path(error, arguments.out) from None
        made["files"] = examples.describe_parts(arguments.out)
        with files.write_file(arguments.out / MANIFEST) as file:
            json.dump(made, file, indent=1, ensure_ascii=False)
    print_summary(made, arguments, time.monotonic() - start)


if __name__ == "__main__":
    files.run(main, "prepare_wiki.py", "the next run starts over")

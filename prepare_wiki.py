"""Makes the pretraining data: a Wikipedia dump -> word vocabulary, entity vocabulary, examples.

    python prepare_wiki.py                                                  the built-in encyclopedia, in a minute
    python prepare_wiki.py --dump enwiki-20261101-pages-articles.xml.bz2    a dump, or all parts of one
    python prepare_wiki.py --wiki sw                                        that language's newest dump, downloaded
    python prepare_wiki.py --jsonl corpus.jsonl                             your own documents, with links
    python prepare_wiki.py --wiki de en sw --wikidata latest-all.json.bz2   several languages, entities in common

Dumps come from https://dumps.wikimedia.org. A .jsonl file has one document per line; spans are half-open characters:
    {"title": "Oslo", "paragraphs": [{"text": "In Norway.", "links": [{"title": "Norway", "start": 3, "end": 9}]}]}
Titles are taken as they stand, and may be ids of a knowledge base of your own.

DIR (of --out) then holds, whatever the number of workers,
    manifest.json (written last)  tokenizer/  entity_vocab.jsonl  mentions.safetensors  shard-00000.bin ...
    held_out_links.jsonl (pages kept out of training and statistics, to weigh model and prior in linking)
    titles.txt, redirects.tsv (for `finetune.py disambiguation --titles … --redirects …`)
    and for the built-in encyclopedia dump.xml.bz2 and the files of every task: ner/ relation/ typing/ qa/ cloze/
    disambiguation/ classification/ mlama/

Several languages have a folder each, DIR/de DIR/en DIR/sw, with the same tokenizer/ and entity_vocab.jsonl.

Five stages: pages -> paragraphs with links and counts -> entity vocabulary -> tokenizer -> examples and statistics. What
they make waits in DIR/work until all is done: a killed run goes on where it was, with the same command.
Many machines, one DIR: `--part 1/8` to `8/8` (parse), `--merge` (vocabularies), `--part 1/8` to `8/8` once more (make
examples), `--merge` (the folder): an array job, a job, an array job, a job. The bytes are those of one machine.
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
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

if sys.version_info < (3, 11):
    sys.exit("prepare_wiki.py: needs Python 3.11 or newer, this is " + sys.version.split()[0])

from luke_mini import config, files

DUMPS = Path("dumps")  # what --wiki downloads
MIRROR = "https://dumps.wikimedia.org"
BUILT_IN = {"vocab_size": 4000, "max_seq_length": 128, "pieces": "bpe"}  # defaults for the built-in encyclopedia
WORK = "work"  # folder of the stages in DIR, while it is not finished
SAMPLE_CHARACTERS = 20_000_000  # of text sampled to train the tokenizer
FILE, NUMBER = {"type": Path, "metavar": "FILE"}, {"type": int, "metavar": "N"}


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where from (default: the built-in encyclopedia)")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--dump", nargs="+", **FILE, help="MediaWiki XML: .xml .xml.bz2 .xml.gz")
    source.add_argument("--wiki", nargs="+", metavar="LANG",
                        help="its dump in this folder or in dumps/, otherwise the newest, downloaded")  # fmt: skip
    source.add_argument("--jsonl", nargs="+", **FILE, help="documents in the format above")
    fetching = parser.add_argument_group("downloading, for --wiki")
    fetching.add_argument("--date", metavar="YYYYMMDD", help="the dump of this date [the newest complete one]")
    fetching.add_argument("--mirror", default=MIRROR, metavar="URL", help="where dumps are [%(default)s]")
    target = parser.add_argument_group("where to")
    target.add_argument("--out", type=Path, metavar="DIR", help="output; replaces older data [data/<source's name>]")


def add_content_flags(parser: argparse.ArgumentParser) -> None:
    content = parser.add_argument_group("what goes in")
    content.add_argument("--tokenizer", type=Path, metavar="DIR", help="use this tokenizer instead of training one")
    entities = content.add_mutually_exclusive_group()
    entities.add_argument("--entity-vocab", **FILE, help="use this vocabulary instead of counting")
    entities.add_argument("--entities", nargs="+", **FILE,
                          help="titles to keep if linked at all: one per line (of several languages as en:Oslo), or "
                          "the candidates of a data set of disambiguation")  # fmt: skip
    content.add_argument("--entities-only", action="store_true", help="only those of --entities")
    content.add_argument("--wikidata", **FILE, help="JSON dump, packed or not; an item's titles are one entity")
    content.add_argument("--pieces", choices=["unigram", "bpe", "byte-bpe"], default="unigram",
                         help="byte-bpe: as LUKE's own [unigram; built-in: bpe]")  # fmt: skip
    content.add_argument("--language", nargs="+", metavar="CODE",
                         help="language of the text, or of each file [of the dump; en for --jsonl]")  # fmt: skip
    content.add_argument("--abstract-only", action="store_true", help="only the text before the first heading")
    content.add_argument("--sentences-without-entities", action="store_true", help="keep examples without entities")
    content.add_argument("--keep-red-links", action="store_true", help="for part of a dump: keep links without article")
    content.add_argument("--drop-unknown-links", action="store_true", help="as mLUKE; without it they become [UNK]")
    content.add_argument("--max-pages", **NUMBER, help="stop after N articles [no limit]")
    content.add_argument("--no-mentions", action="store_true", help="no mention statistics (for QA and linking)")
    content.add_argument("--held-out-pages", **NUMBER,
                         help="keep N articles to weigh model and prior in linking [1 in 50, at most 500]")  # fmt: skip


def share(text: str) -> tuple[int, int]:
    """ "3/8" -> (2, 8)"""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text}: expected a part and their number, as 3/8")
    return int(match[1]) - 1, int(match[2])


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = config.Parser(description=__doc__)
    add_source_flags(parser)
    sizes = parser.add_argument_group("sizes [default; default for the built-in encyclopedia]")
    sizes.add_argument("--vocab-size", default=32000, **NUMBER, help="word vocabulary size [32000; 4000]")
    sizes.add_argument("--entity-vocab-size", **NUMBER, help="maximum entities [500000; of several languages 1200000]")
    sizes.add_argument("--max-seq-length", default=512, **NUMBER, help="maximum tokens, with <s> and </s> [512; 128]")
    sizes.add_argument("--min-count", default=1, **NUMBER, help="minimum links to an entity [1]")
    sizes.add_argument("--min-languages", default=3, **NUMBER, help="of several: at least so many link an entity [3]")
    add_content_flags(parser)
    run = parser.add_argument_group("the run")
    run.add_argument("--workers", default=os.cpu_count(), **NUMBER, help="processes [%(default)s]")
    several = run.add_mutually_exclusive_group()
    several.add_argument("--part", type=share, metavar="I/N", help="do the I-th of N parts of what is due, and stop")
    several.add_argument("--merge", action="store_true", help="join what all parts have made, make none")
    run.add_argument("--seed", type=int, default=0, help="seed of the encyclopedia and of the tokenizer's sample [0]")
    arguments = parser.parse_args(argv)
    if not (arguments.dump or arguments.wiki or arguments.jsonl):
        parser.set_defaults(**BUILT_IN)
        arguments = parser.parse_args(argv)
    sizes = "vocab_size entity_vocab_size max_seq_length min_count min_languages max_pages workers"
    for name in sizes.split():
        if (value := getattr(arguments, name)) is not None and value < 1:
            parser.error(f"{config.as_flag(name, value)}: expected a positive number")
    if (arguments.held_out_pages or 0) < 0:
        parser.error(f"--held-out-pages {arguments.held_out_pages}: expected 0 or more")
    if arguments.entities_only and not arguments.entities:
        parser.error("--entities-only: expected --entities FILE, too")
    return arguments


if __name__ == "__main__":
    files.run(parse_arguments, "prepare_wiki.py")  # help and typing errors do not wait for numpy

from tqdm import tqdm

from luke_mini import corpus, download, examples, stages, tokenizer, tokenizer_bpe, tokenizer_sentencepiece
from luke_mini import toyworld, toyworld_tasks, wiki_dump, wikidata
from luke_mini.entity_vocab import EntityVocab, Name, resolve_counts, resolve_redirect
from luke_mini.examples import CHECKED, MANIFEST
from luke_mini.mentions import HELD_OUT, STATISTICS, Mentions, with_items
from luke_mini.stages import Incomplete, Share, Stage
from luke_mini.wikitext import normalize_title, parse


def open_input(arguments: argparse.Namespace) -> None:
    """Checks and loads the inputs; resolves the defaults that depend on them."""
    if arguments.wiki:
        found = [(language, path) for language in arguments.wiki for path in dump_of(language, arguments)]
        arguments.dump = [path for _, path in found]
        if len(arguments.wiki) > 1:
            arguments.language = arguments.language or [language for language, _ in found]
    sources = arguments.dump or arguments.jsonl or []
    for file in [*sources, *([arguments.wikidata] if arguments.wikidata else [])]:
        file.stat()
    arguments.tokenizer = arguments.tokenizer and tokenizer.load(arguments.tokenizer)
    arguments.entity_vocab = arguments.entity_vocab and EntityVocab.load(arguments.entity_vocab)
    arguments.entities = [title for path in arguments.entities or () for title in read_entities(path)]
    if arguments.jsonl:  # your own documents may link to entities without a document
        arguments.language, arguments.keep_red_links = arguments.language or ["en"], True
    arguments.sources = by_language(sources, arguments.language)
    several = len(arguments.sources) > 1
    if several and not (arguments.wikidata or arguments.entity_vocab):
        first, language = [*arguments.sources][:2]
        held = f"{arguments.sources[language][0]}: language {language}, but {first} in the files before"
        raise ValueError(f"{held}; several languages need --wikidata FILE")
    arguments.entity_vocab_size = arguments.entity_vocab_size or (1_200_000 if several else 500_000)
    source = re.sub(r"\.(xml|jsonl)\b.*", "", sources[0].name) if sources else "toyworld"
    arguments.out = arguments.out or Path("data") / ("-".join(arguments.sources) if several else source)


def dump_of(language: str, arguments: argparse.Namespace) -> list[Path]:
    """The dump of a language that is at hand, in the current folder or in dumps/, or else the newest, downloaded."""
    at_hand = [] if arguments.date else download.find(language) or download.find_downloaded(language, DUMPS)
    return at_hand or download.fetch(language, DUMPS, arguments.date, arguments.mirror)


def by_language(sources: list[Path], given: list[str] | None) -> dict[str | None, list[Path]]:
    """The files of each language: of all, as given; of each file, as given or as the dump says; None: see `Corpus`."""
    if len(given or ()) not in (0, 1, len(sources)):
        raise ValueError(f"--language {' '.join(given)}: expected one for all of the {len(sources)} files, or for each")
    if len(sources) < 2 or given and len(given) == 1:
        return {given[0] if given else None: sources}
    found: dict[str | None, list[Path]] = {}
    for path, language in zip(sources, given or map(wiki_dump.language_of, sources)):
        found.setdefault(language or next(iter(found), None), []).append(path)  # a part without pages: as the first
    return found


def read_entities(path: Path) -> list[str]:
    """One title per line; or the candidates of a data set, of mentions without any their titles."""
    if path.suffix not in (".csv", ".xml", ".jsonl"):
        return [title for _, title in files.read_lines(path)]
    from luke_mini import disambiguation_data  # brings torch, which nothing else here needs

    return disambiguation_data.meant_titles(path)


def clear_out(arguments: argparse.Namespace) -> None:
    """Removes older data from DIR, except for the stages. Writes the built-in encyclopedia if there is no source."""
    out, languages = arguments.out, [*arguments.sources]
    arguments.folders = [out] if len(languages) == 1 else [out / language for language in languages]
    for folder in [out, *arguments.folders]:
        folder.mkdir(parents=True, exist_ok=True)
        # The manifest first: without it the folder counts as unfinished.
        written = [folder / name for name in (MANIFEST, CHECKED, STATISTICS, HELD_OUT)]
        for old in [*written, *sorted(folder.glob("shard-*.bin"))]:
            old.unlink(missing_ok=True)
    arguments.made_of = None
    if not any(arguments.sources.values()):
        arguments.sources = {languages[0]: [out / "dump.xml.bz2"]}
        arguments.made_of = {"built-in": arguments.seed}
        Stage(out / WORK, "encyclopedia", arguments.made_of).once(partial(write_encyclopedia, out, arguments.seed))


def write_encyclopedia(out: Path, seed: int, done: Path) -> None:
    print("writing the built-in encyclopedia")
    toyworld.write_dump(out / "dump.xml.bz2", seed)
    toyworld_tasks.write_tasks(out, seed)
    done.touch()


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


def parse_pages(arguments: argparse.Namespace, work: Path) -> list[corpus.Corpus]:
    """Stages 1 and 2, pages -> paragraphs with links and counts: each language in a folder of its own."""
    corpora = []
    for language, paths in arguments.sources.items():
        rules = corpus.Rules(bool(arguments.jsonl), language, arguments.max_pages, not arguments.no_mentions)
        folder = work / language if len(arguments.sources) > 1 else work
        pages = corpus.Corpus(folder, arguments.workers, rules, arguments.share)
        pages.parse(paths, arguments.made_of or {"sources": list(map(stages.describe, paths))})
        corpora.append(pages)
    for pages, paths in zip(corpora, arguments.sources.values()):
        pages.count()
        if not pages.links and not (pages.titles and arguments.sentences_without_entities):
            where = f"{' '.join(map(str, paths))}: {len(pages.titles)} articles"
            raise ValueError(f"{where} without any link, expected links to make examples of")
    return corpora


def make_vocabulary(arguments: argparse.Namespace, work: Path, corpora: list[corpus.Corpus]) -> EntityVocab:
    """Stage 3."""
    if arguments.entity_vocab:
        return arguments.entity_vocab
    options = "entities entities_only entity_vocab_size keep_red_links min_count min_languages".split()
    made_of = {name: getattr(arguments, name) for name in options}
    made_of["wikidata"] = arguments.wikidata and stages.describe(arguments.wikidata)
    stage = Stage(work, "vocabulary", {"pages": [pages.stage.key for pages in corpora], **made_of}, arguments.share)
    return EntityVocab.load(stage.once(lambda path: count_entities(arguments, corpora).save(path)))


def make_tokenizer(arguments: argparse.Namespace, work: Path, corpora: list[corpus.Corpus]):
    """Stage 4."""
    if arguments.tokenizer:
        return arguments.tokenizer
    made_of = {name: getattr(arguments, name) for name in ("vocab_size", "pieces", "seed")}
    stage = Stage(work, "tokenizer", {"pages": [pages.stage.key for pages in corpora], **made_of}, arguments.share)
    return tokenizer.load(stage.once(partial(train_tokenizer, arguments, corpora)))


def train_tokenizer(arguments: argparse.Namespace, corpora: list[corpus.Corpus], folder: Path) -> None:
    characters = SAMPLE_CHARACTERS // len(corpora)  # equal shares for small languages
    texts = [text for pages in corpora for text in pages.sample(characters, arguments.seed)]
    size = arguments.vocab_size
    with ticking(f"training a tokenizer of {size:,} tokens on {sum(map(len, texts)):,} characters"):
        if arguments.pieces == "byte-bpe":
            tokenizer_bpe.train(texts, size, folder)
        else:
            tokenizer_sentencepiece.train(texts, size, folder, arguments.pieces)


def count_entities(arguments: argparse.Namespace, corpora: list[corpus.Corpus]) -> EntityVocab:
    listed = set(listed_names(arguments, corpora))
    counts = {pages.language: count_titles(pages, arguments.keep_red_links, listed) for pages in corpora}
    if listed:
        linked = sum(title in counts[language] for title, language in listed)
        print(f"titles      {linked:,} of the {len(listed):,} listed are linked")
    limits = {
        "min_languages": min(arguments.min_languages, len(counts)),
        "min_count": sys.maxsize if arguments.entities_only else arguments.min_count,
    }
    size = arguments.wikidata.stat().st_size if arguments.wikidata else 0
    with tqdm(total=size, desc="wikidata", unit="B", unit_scale=True, disable=None if size else True) as progress:
        items = wikidata.read_items(arguments.wikidata, [*counts], progress.update) if size else ()
        return EntityVocab.build(counts, arguments.entity_vocab_size, items, allowlist=listed, **limits)


def count_titles(pages: corpus.Corpus, red_links: bool, listed: set[Name]) -> dict[str, int]:
    """How often each article is linked, and each listed title."""
    counts = resolve_counts(pages.links, pages.redirects)
    return {title: count for title, count in counts.items()
            if red_links or title in pages.titles or (title, pages.language) in listed}  # fmt: skip


def listed_names(arguments: argparse.Namespace, corpora: list[corpus.Corpus]) -> Iterator[Name]:
    """The listed titles behind their redirects; of several languages "en:Oslo", or "Oslo" in each of them."""
    for pages in corpora:
        for title in arguments.entities:
            prefix, _, rest = title.partition(":")
            if len(corpora) > 1 and prefix in [other.language for other in corpora]:
                if prefix != pages.language:
                    continue
                title = rest
            title = title.strip() if arguments.jsonl else normalize_title(title, pages.language, pages.case_sensitive)
            yield resolve_redirect(title, pages.redirects), pages.language


def write_titles(pages: corpus.Corpus, folder: Path) -> None:
    with files.write_file(folder / "titles.txt") as file:
        file.writelines(f"{title}\n" for title in sorted(pages.titles))
    with files.write_file(folder / "redirects.tsv") as file:
        file.writelines(f"{title}\t{target}\n" for title, target in sorted(pages.redirects.items()))


def write_held_out(arguments: argparse.Namespace, pages: corpus.Corpus, folder: Path) -> None:
    """Of a dump some pages; of the built-in encyclopedia, which trains on all pages, other articles about the same."""
    other = () if arguments.dump or arguments.jsonl else toyworld.other_articles(arguments.seed)
    found = [corpus.Document(title, parse(text)) for title, text in other] or pages.held_out_documents()
    lines = [line for document in found for line in corpus.linked_texts(document, pages.redirects)]
    if lines:
        with files.write_file(folder / HELD_OUT) as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


class Made(NamedTuple):
    """Stage 5 of a language, in parts."""

    stage: Stage
    names: Mentions | None
    entity_ids: dict[str, int]


def make_parts(arguments: argparse.Namespace, pages: corpus.Corpus, words, vocab: EntityVocab) -> Made:
    """Stage 5: examples, and how many pages contain each name."""
    built_in, names = not (arguments.dump or arguments.jsonl), None
    if not arguments.no_mentions:
        pages.hold_out(0 if built_in else arguments.held_out_pages)
        names = make_names(arguments, pages)
    options = "max_seq_length abstract_only sentences_without_entities".split()
    rules = {name: getattr(arguments, name) for name in options}
    made_of = {"pages": pages.stage.key, "held_out": len(pages.held_out), "vocabularies": hashes(words, vocab), **rules,
               "unk": not arguments.drop_unknown_links, "names": names and arguments.keep_red_links}  # fmt: skip
    stage = Stage(pages.work, "examples", made_of, arguments.share)
    entity_ids = vocab.link_table(pages.redirects, pages.language)
    build = partial(
        examples.build_examples, tokenizer=words, language=pages.language, entity_ids=entity_ids,
        unk_entity_id=None if arguments.drop_unknown_links else vocab.unk_id, **rules,
    )  # fmt: skip
    pages.make_examples(stage, corpus.Making(build, len(words), pages.held_out, names and names.trie))
    return Made(stage, names, entity_ids)


def make_names(arguments: argparse.Namespace, pages: corpus.Corpus) -> Mentions:
    made_of = {"pages": pages.stage.key, "any_title": arguments.keep_red_links, "held_out": len(pages.held_out)}
    stage = Stage(pages.work, "titles", made_of, arguments.share)
    return Mentions.load(stage.once(lambda path: pages.names(arguments.keep_red_links).save(path)))


def hashes(words, vocab: EntityVocab) -> dict[str, str]:
    """Of the files that they are saved as."""
    with tempfile.TemporaryDirectory() as folder:
        words.save(Path(folder) / "tokenizer")
        vocab.save(Path(folder) / "entity_vocab.jsonl")
        return {path.name: files.sha256(path) for path in sorted(Path(folder).rglob("*.*"))}


def write_data(arguments, pages: corpus.Corpus, paths: list[Path], folder: Path, words, vocab, made: Made) -> dict:
    """Writes the folder of a language but its manifest; returns the contents of that."""
    if made.names:
        write_held_out(arguments, pages, folder)
        statistics = pages.join_mentions(made.stage, made.names)
        if arguments.wikidata:
            statistics = with_items(statistics, partial(vocab.item, language=pages.language))
        statistics.save(folder / STATISTICS)
    write_titles(pages, folder)
    shutil.rmtree(folder / "tokenizer", ignore_errors=True)  # an older one may have other files
    words.save(folder / "tokenizer")
    vocab.save(folder / "entity_vocab.jsonl")
    written, lost = pages.join_examples(made.stage, folder, len(words))
    if not written["examples"]:
        raise ValueError(f"no example: no sentence of 5 to {arguments.max_seq_length - 2} tokens with a link")
    links = resolve_counts(pages.links, pages.redirects)
    return {
        "version": 1,  # of this file's format
        "sources": [file.name for file in paths], "language": pages.language,
        "max_seq_length": arguments.max_seq_length,
        "pages": len(pages.titles), "held_out_pages": len(pages.held_out), "redirects": len(pages.redirects),
        "characters": sum(part.made["characters"] for part in pages.parts),
        "links": links.total(), "links_to_known_entities": sum(links[title] for title in made.entity_ids),
        "links_to_unk": lost.pop("unk", 0), "links_lost": lost,
        "word_vocab_size": len(words), "entity_vocab_size": len(vocab), **written,
    }  # fmt: skip


def prepare(arguments: argparse.Namespace) -> list[dict]:
    """All stages; writes everything but the manifests, and returns their contents. None: others have to go on."""
    work = arguments.out / WORK
    corpora = parse_pages(arguments, work)
    vocab = make_vocabulary(arguments, work, corpora)
    words = make_tokenizer(arguments, work, corpora)
    made = [make_parts(arguments, pages, words, vocab) for pages in corpora]
    if arguments.part:
        return []
    for parts, pages in zip(made, corpora):
        parts.stage.require(len(pages.parts))
    folders = zip(corpora, arguments.sources.values(), arguments.folders)
    return [write_data(arguments, *folder, words, vocab, parts) for folder, parts in zip(folders, made)]


def print_summary(made: dict, folder: Path, arguments: argparse.Namespace, seconds: float) -> None:
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
    print(f"written to  {folder} in {seconds:.0f} seconds")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    start = time.monotonic()
    open_input(arguments)  # before anything is deleted
    part = arguments.part
    arguments.share = Share(*part) if part else Share(count=0 if arguments.merge else 1)
    with files.one_writer(arguments.out / WORK / f"part-{part[0] + 1}-of-{part[1]}" if part else arguments.out):
        clear_out(arguments)
        try:
            made = prepare(arguments)
        except Incomplete as missing:
            if not part and not (arguments.merge and missing.stage.name == "examples" and missing.is_untouched):
                raise ValueError(f"{missing}: run all of --part 1/N to N/N, or neither --part nor --merge") from None
            made = []
        except OSError as error:
            raise files.with_path(error, arguments.out) from None
        if not made:
            print(f"{arguments.out / WORK}: parts are made; next, when all are, --merge" if part else
                  f"{arguments.out / WORK}: vocabularies are made; next --part once more, or neither")  # fmt: skip
            return
        for folder, manifest in zip(arguments.folders, made):
            manifest["files"] = examples.describe_parts(folder)
            with files.write_file(folder / MANIFEST) as file:
                json.dump(manifest, file, indent=1, ensure_ascii=False)
            print_summary(manifest, folder, arguments, time.monotonic() - start)
        shutil.rmtree(arguments.out / WORK)


if __name__ == "__main__":
    files.run(main, "prepare_wiki.py", "the same command goes on")

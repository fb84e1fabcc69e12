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
    titles.txt, redirects.tsv (for `finetune.py disambiguation --titles … --redirects …`)  report.html (a look at it all)
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
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
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
OPTIONS = {  # that decide what a stage makes
    "vocabulary": "entities entities_only entity_vocab_size keep_red_links min_count min_languages wikidata",
    "tokenizer": "vocab_size pieces seed", "titles": "keep_red_links",
    "examples": "max_seq_length abstract_only sentences_without_entities drop_unknown_links keep_red_links no_mentions",
}  # fmt: skip
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
    several.add_argument("--dry-run", action="store_true", help="say what it will take, from a sample; make nothing")
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

from luke_mini import corpus, corpus_report, download, examples, forecast, stages
from luke_mini import tokenizer, tokenizer_bpe, tokenizer_sentencepiece, toyworld, toyworld_tasks, wiki_dump, wikidata
from luke_mini.corpus_report import REPORT
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
        if not found:  # --dry-run downloads nothing
            sys.exit()
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
    if at_hand or not arguments.dry_run:
        return at_hand or download.fetch(language, DUMPS, arguments.date, arguments.mirror)
    date, parts = download.newest(language, arguments.date, arguments.mirror)
    size = forecast.amount(sum(part.size for part in parts))
    files.show({"download": f"{language} of {date}, {size} in {len(parts)} files; what the rest takes is known then"})
    return []


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
        written = [folder / name for name in (MANIFEST, CHECKED, STATISTICS, HELD_OUT, REPORT)]
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


def plan(arguments: argparse.Namespace, work: Path) -> list[corpus.Corpus]:
    """Each language in a folder of its own, its files cut into pieces."""
    corpora = []
    for language, paths in arguments.sources.items():
        rules = corpus.Rules(bool(arguments.jsonl), language, arguments.max_pages, not arguments.no_mentions)
        folder = work / language if len(arguments.sources) > 1 else work
        corpora.append(corpus.Corpus(folder, arguments.workers, rules, arguments.share))
        corpora[-1].cut(paths, arguments.made_of or {"sources": list(map(stages.describe, paths))})
    return corpora


def made_of(arguments: argparse.Namespace, stage: str, corpora: list[corpus.Corpus]) -> dict:
    """What the parts of a stage depend on: the pages, and the options given to it."""
    given = {name: getattr(arguments, name) for name in OPTIONS[stage].split()}
    described = {name: stages.describe(value) if isinstance(value, Path) else value for name, value in given.items()}
    return {"pages": [pages.stage.key for pages in corpora]} | described


def parse_pages(arguments: argparse.Namespace, corpora: list[corpus.Corpus]) -> None:
    """Stages 1 and 2, pages -> paragraphs with links and counts."""
    for pages in corpora:
        pages.parse()
    for pages, paths in zip(corpora, arguments.sources.values()):
        pages.count()
        if not pages.links and not (pages.titles and arguments.sentences_without_entities):
            where = f"{' '.join(map(str, paths))}: {len(pages.titles)} articles"
            raise ValueError(f"{where} without any link, expected links to make examples of")


def make_vocabulary(arguments: argparse.Namespace, work: Path, corpora: list[corpus.Corpus]) -> EntityVocab:
    """Stage 3."""
    if arguments.entity_vocab:
        return arguments.entity_vocab
    stage = Stage(work, "vocabulary", made_of(arguments, "vocabulary", corpora), arguments.share)
    vocab = EntityVocab.load(stage.once(lambda path: count_entities(arguments, corpora).save(path)))
    if arguments.wikidata:
        names = [e.names for e in map(vocab.entity, range(len(vocab))) if e.item or len(e.names) > 1]
        languages = {language for joined in names for _, language in joined}
        print(f"wikidata    {sum(map(len, names)):,} titles of {len(languages)} languages are {len(names):,} entities")
    return vocab


def make_tokenizer(arguments: argparse.Namespace, work: Path, corpora: list[corpus.Corpus]):
    """Stage 4."""
    if arguments.tokenizer:
        return arguments.tokenizer
    stage = Stage(work, "tokenizer", made_of(arguments, "tokenizer", corpora), arguments.share)
    return tokenizer.load(stage.once(partial(train_tokenizer, arguments, corpora)))


def train_tokenizer(arguments: argparse.Namespace, corpora: list[corpus.Corpus], folder: Path) -> None:
    characters = SAMPLE_CHARACTERS // len(corpora)  # equal shares for small languages
    texts = [text for pages in corpora for text in pages.sample(characters, arguments.seed)]
    size = arguments.vocab_size
    with stages.ticking(f"training a tokenizer of {size:,} tokens on {sum(map(len, texts)):,} characters"):
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
        file.writelines(f"{title}\t{pages.redirects[title]}\n" for title in sorted(pages.redirects))


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


def make_parts(
    arguments: argparse.Namespace, pages: corpus.Corpus, words, vocab: EntityVocab, hashed: dict[str, str]
) -> Made:
    """Stage 5: examples, and how many pages contain each name. hashed: `hashes` of both vocabularies."""
    built_in, names = not (arguments.dump or arguments.jsonl), None
    if not arguments.no_mentions:
        pages.hold_out(0 if built_in else arguments.held_out_pages)
        names = make_names(arguments, pages)
    more = {"held_out": len(pages.held_out), "vocabularies": hashed}
    stage = Stage(pages.work, "examples", made_of(arguments, "examples", [pages]) | more, arguments.share)
    entity_ids = vocab.link_table(pages.redirects, pages.language)
    build = partial(
        examples.build_examples, tokenizer=words, language=pages.language, entity_ids=entity_ids,
        unk_entity_id=None if arguments.drop_unknown_links else vocab.unk_id, max_seq_length=arguments.max_seq_length,
        sentences_without_entities=arguments.sentences_without_entities, abstract_only=arguments.abstract_only,
    )  # fmt: skip
    pages.make_examples(stage, corpus.Making(build, len(words), pages.held_out, names and names.trie))
    return Made(stage, names, entity_ids)


def make_names(arguments: argparse.Namespace, pages: corpus.Corpus) -> Mentions:
    more = {"held_out": len(pages.held_out)}
    stage = Stage(pages.work, "titles", made_of(arguments, "titles", [pages]) | more, arguments.share)
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
    known = (title for title in pages.links if resolve_redirect(title, pages.redirects) in made.entity_ids)
    loops = sum(resolve_redirect(title, pages.redirects) == title for title in pages.redirects)
    manifest = {
        "version": 1,  # of this file's format
        "sources": [file.name for file in paths], "language": pages.language,
        "max_seq_length": arguments.max_seq_length, "pages": len(pages.titles), "held_out_pages": len(pages.held_out),
        "redirects": len(pages.redirects), "redirect_loops": loops,
        "characters": sum(part.made["characters"] for part in pages.parts),
        "links": pages.links.total(), "links_to_known_entities": sum(map(pages.links.__getitem__, known)),
        "links_to_unk": lost.pop("unk", 0), "links_lost": lost,
        "word_vocab_size": len(words), "entity_vocab_size": len(vocab), **written,
    }  # fmt: skip
    corpus_report.write(folder, manifest, words, vocab)
    return manifest


def prepare(arguments: argparse.Namespace, corpora: list[corpus.Corpus], done=lambda stage: None) -> list[dict]:
    """All stages; writes everything but the manifests, and returns their contents. []: others have to go on."""
    work = arguments.out / WORK
    parse_pages(arguments, corpora)
    done("pages")
    vocab = make_vocabulary(arguments, work, corpora)
    done("vocabulary")
    words = make_tokenizer(arguments, work, corpora)
    done("tokenizer")
    hashed = hashes(words, vocab)
    made = [make_parts(arguments, pages, words, vocab, hashed) for pages in corpora]
    done("examples")
    if arguments.part:
        return []
    for parts, pages in zip(made, corpora):
        parts.stage.require(len(pages.parts))
    folders = zip(corpora, arguments.sources.values(), arguments.folders)
    written = [write_data(arguments, *folder, words, vocab, parts) for folder, parts in zip(folders, made)]
    done("folder")
    return written


def foretell(arguments: argparse.Namespace) -> None:
    """--dry-run: prepares two pieces of each language elsewhere; says what is there, and what the rest takes."""
    out = arguments.out
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(None):
        arguments.out = Path(folder)
        clear_out(arguments)
        corpora, work = plan(arguments, out / WORK), arguments.out / WORK
        small = argparse.Namespace(**vars(arguments) | {"wikidata": None, "min_languages": 1, "workers": 1})
        sampled, sample = plan(small, work), forecast.Sample(work)
        for pages in sampled:
            pages.pieces = pages.pieces[len(pages.pieces) // 4 :: max(1, len(pages.pieces) // 2)][:2]
        prepare(small, sampled, sample.done)

    def parts(stage: str, corpora: list[corpus.Corpus], work: Path) -> int:
        return Stage.most_parts(work, stage, made_of(arguments, stage, corpora))

    pieces = sum(len(pages.pieces) for pages in corpora)
    whole = [k for pages in corpora for k in range(len(pages.pieces)) if pages.stage.record(k) is not None]
    there = {
        "pages": (len(whole), pieces),
        "vocabulary": (parts("vocabulary", corpora, out / WORK), 1),
        "tokenizer": (parts("tokenizer", corpora, out / WORK), 1),
        "examples": (sum(parts("examples", [pages], pages.work) for pages in corpora), pieces),
    }  # fmt: skip
    items = forecast.reading(arguments.wikidata, [pages.language for pages in sampled]) if arguments.wikidata else 0
    files.show(forecast.forecast(out, corpora, sample, sampled, there, SAMPLE_CHARACTERS, items))


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    start = time.monotonic()
    open_input(arguments)  # before anything is deleted
    part = arguments.part
    arguments.share = Share(*part) if part else Share(count=0 if arguments.merge else 1)
    if arguments.dry_run:
        return foretell(arguments)
    with files.one_writer(arguments.out / WORK / f"part-{part[0] + 1}-of-{part[1]}" if part else arguments.out):
        clear_out(arguments)
        try:
            made = prepare(arguments, plan(arguments, arguments.out / WORK))
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
            files.show(corpus_report.summary(manifest) | corpus_report.hints(manifest, arguments))
            print(f"written to  {folder} in {time.monotonic() - start:.0f} seconds; a look at it: {folder / REPORT}")
        shutil.rmtree(arguments.out / WORK)


if __name__ == "__main__":
    files.run(main, "prepare_wiki.py", "the same command goes on")

"""prepare_wiki.py from end to end, on a dump written here, and on a real one where there is one.

    pytest tests/test_prepare_wiki.py
"""

import bz2
import io
import hashlib
import json
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import time
import unicodedata
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from xml.sax.saxutils import escape

import pytest
import torch
from conftest import listed, read_examples, shared_data
from test_commands import as_word_model
from test_pretraining import Page

import finetune
import prepare_wiki
import train
from luke_mini import checkpoint, corpus, disambiguation_data, examples, files, forecast, pieces, stages, tokenizer
from luke_mini import wiki_dump, wikitext
from luke_mini.entity_vocab import EntityVocab
from luke_mini.examples import Shards, build_examples
from luke_mini.mentions import HELD_OUT, Mentions

ROOT = Path(__file__).parent.parent
NAMES = [
    f"{first}{last}" for first in ("Ba", "Do", "Fi", "Gu", "Ka", "Lo") for last in ("len", "mar", "nix", "tor", "vik")
]


def article(k: int) -> str:
    """Two sections; links to the next articles, to a redirect, to a page that does not exist, to a category."""
    name, other, third = NAMES[k], NAMES[(k + 1) % len(NAMES)], NAMES[(k * 7 + 3) % len(NAMES)]
    return (
        f"'''{name}''' is a town on the river [[Uld]], {k + 2} km from [[{other}]]. Its mayor likes "
        f"[[Old {third}|{third}'s]] bread very much.\n\n"
        f"In {1800 + k} the town burnt down (see [[Great fire of {name}]]).\n\n== Sights ==\n"
        f"The market of {name} is older than the one in [[{other}|that town]]. Nobody knows who built it.\n\n"
        f"[[Category:Towns]]"
    )


TOWNS = [(name, article(k), None) for k, name in enumerate(NAMES)]
TOWNS += [("Uld", "The '''Uld''' is a river that nobody has ever seen. It flows to [[Balen]].", None)]
TOWNS += [(f"Old {name}", f"#REDIRECT [[Elder {name}]]", f"Elder {name}") for name in NAMES]
TOWNS += [(f"Elder {name}", f"#REDIRECT [[{name}]]", name) for name in NAMES]


def write_dump(path: Path, *pages: tuple[str, str, str | None], language: str = "en") -> Path:
    body = "".join(
        f"<page><title>{escape(title)}</title><ns>0</ns>"
        + (f'<redirect title="{escape(redirect)}" />' if redirect else "")
        + f"<revision><text>{escape(text)}</text></revision></page>\n"
        for title, text, redirect in pages
    )
    xmlns = "http://www.mediawiki.org/xml/export-0.10/"
    data = f'<mediawiki xmlns="{xmlns}" xml:lang="{language}">\n{body}</mediawiki>\n'.encode()
    path.write_bytes(bz2.compress(data) if path.suffix == ".bz2" else data)
    return path


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    return write_dump(tmp_path_factory.mktemp("dump") / "enwiki-1-pages-articles.xml.bz2", *TOWNS)


def prepare(out: Path, *options) -> Path:
    """Its options as --dump's, or a whole command line as one string. One worker, if no other number is given."""
    options = [part for option in options for part in str(option).split()]
    prepare_wiki.main(["--workers", "1", "--out", str(out), *options])
    return out


@pytest.fixture(scope="module")
def made(dump, tmp_path_factory) -> Path:
    return prepare(tmp_path_factory.mktemp("made"), "--dump", dump, "--workers 2")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def titles(folder: Path) -> list[str]:
    vocab = EntityVocab.load(folder / "entity_vocab.jsonl")
    return [vocab.title(k) for k in range(len(vocab))]


# ---- what is made


def test_folder_and_manifest(made):
    words = [f"tokenizer/{name}" for name in ("sentencepiece.bpe.model", "tokenizer.json", "tokenizer_config.json")]
    assert sorted(contents(made)) == [
        "entity_vocab.jsonl", "manifest.json", "mentions.safetensors", "redirects.tsv", "report.html", "shard-00000.bin",
        "titles.txt", *words]  # fmt: skip
    opened, built = Shards.open(made), read_examples(made)
    texts = [paragraph.text for _, text, target in TOWNS if not target for paragraph in wikitext.parse(text)]
    assert manifest(made) == {
        "version": 1, "sources": ["enwiki-1-pages-articles.xml.bz2"], "language": "en", "max_seq_length": 512,
        "pages": 31, "held_out_pages": 0, "redirects": 60, "redirect_loops": 0, "characters": sum(map(len, texts)),
        "links": 5 * 30 + 1, "links_to_known_entities": 4 * 30 + 1, "entity_vocab_size": 31 + 4,
        "links_to_unk": 30, "links_lost": {},
        "word_vocab_size": len(tokenizer.load(made / "tokenizer")), "shards": 1, "examples": len(opened),
        "words": opened.lengths.sum(), "entities": sum(len(example.entity_ids) for example in built),
        "files": {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                  for name, data in contents(made).items() if name not in ("manifest.json", "report.html")},
    }  # fmt: skip


def test_entity_counts_follow_redirects(made):
    """Every town: two links from its neighbor, one through two redirects; Balen one more, the river from all."""
    lines = [json.loads(line) for line in (made / "entity_vocab.jsonl").read_text().splitlines()]
    expected = {"[PAD]": 0, "[UNK]": 0, "[MASK]": 0, "[MASK2]": 0, "Uld": 30} | {name: 2 for name in NAMES}
    for name in ["Balen", *(NAMES[(k * 7 + 3) % 30] for k in range(30))]:
        expected[name] += 1
    assert {line["entities"][0][0]: line["count"] for line in lines} == expected
    assert [line["entities"][0] for line in lines][3:5] == [["Uld", "en"], ["Balen", "en"]]


def test_mention_statistics(made, dump, tmp_path):
    """Surfaces lead to the pages behind redirects; their links are counted against the pages that say the name."""
    table = Mentions.load(made / "mentions.safetensors")
    texts = ["\n".join(part.text for part in wikitext.parse(text)) for _, text, target in TOWNS if not target]
    for name in NAMES:
        holding = sum(re.search(rf"\b{name}\b", text) is not None for text in texts)
        links = 2 if name == "Balen" else 1  # the river's article names it
        assert table.titles_of(table.names().index(name.lower())) == [(name, links)]
        assert table.detect(name)[0].link_probability == pytest.approx(links / holding) and holding > links
        assert table.candidates(f"{name}'s") == ((name, 1.0),)  # through two redirects
    assert [candidate.title for candidate in table.candidates("THAT TOWN")] == sorted(NAMES)
    assert table.detect("Uld")[0].link_probability == pytest.approx(30 / 31)
    assert table.candidates("Great fire of Balen") == ()  # no such page
    # Also titles that nobody links so: redirects, which no text names.
    assert table.candidates("Elder Balen") == table.candidates("old balen") == (("Balen", 1.0),)
    assert len(table) == 2 * len(NAMES) + 2 + 2 * len(NAMES)
    without = prepare(tmp_path, "--dump", dump, "--no-mentions", "--tokenizer", made / "tokenizer")
    assert contents(made).keys() - contents(without).keys() == {"mentions.safetensors"}


def test_pages_held_out_are_in_nothing_but_their_file(made, dump, tmp_path):
    """Their links lead behind redirects; a dump without them gives the same statistics and examples, words aside."""
    given = ["--tokenizer", made / "tokenizer", "--entity-vocab", made / "entity_vocab.jsonl"]
    folder = prepare(tmp_path / "held", "--dump", dump, *given, "--held-out-pages 4 --workers 2")
    lines = [json.loads(line) for line in (folder / HELD_OUT).read_text().splitlines()]
    held = {line["id"] for line in lines}
    assert len(held) == manifest(folder)["held_out_pages"] == 4 and held < {title for title, *_ in TOWNS}
    expected, named = [], dict((title, target or title) for title, _, target in TOWNS)
    for title, text, target in TOWNS:
        for paragraph in wikitext.parse(text) if title in held else ():
            links = [(link.start, link.end, named.get(named.get(link.title, link.title), link.title))
                     for link in paragraph.links if not link.title.startswith("Category:")]  # fmt: skip
            expected += [(title, paragraph.text, links)] * bool(links)
    assert [(x["id"], x["text"], [tuple(span.values()) for span in x["spans"]]) for x in lines] == expected
    others = prepare(tmp_path / "others", "--jsonl", _documents(tmp_path, held), *given, "--held-out-pages 0")
    assert not (others / HELD_OUT).exists()
    held_titles, other_titles = (Mentions.load(path / "mentions.safetensors") for path in (folder, others))
    redirects = {title.lower() for title, _, target in TOWNS if target}  # names by themselves, which JSON lines lack
    assert set(held_titles.names()) - redirects < set(other_titles.names())  # there, links to missing pages count, too
    for name in set(held_titles.names()) - redirects:
        assert held_titles.candidates(name) == other_titles.candidates(name)
    assert contents(folder)["shard-00000.bin"] == contents(others)["shard-00000.bin"]


def _documents(folder: Path, held: set[str]) -> Path:
    """The articles that are not held out, as JSON lines, links behind redirects."""
    named, lines = dict((title, target or title) for title, _, target in TOWNS), []
    for title, text, target in TOWNS:
        if not target and title not in held:
            paragraphs = [
                {"text": text, "links": [{"title": named.get(named.get(t, t), t), "start": s, "end": e}
                                         for t, s, e in links if not t.startswith("Category:")]}
                for text, links, _ in wikitext.parse(text)
            ]  # fmt: skip
            lines.append(json.dumps({"title": title, "paragraphs": paragraphs}))
    (folder / "others.jsonl").write_text("\n".join(lines))
    return folder / "others.jsonl"


def test_examples_are_those_of_a_plain_loop(made, dump):
    vocab, words = EntityVocab.load(made / "entity_vocab.jsonl"), tokenizer.load(made / "tokenizer")
    table = vocab.link_table({title: target for title, _, target in TOWNS if target})
    pages = [(title, wikitext.parse(text)) for title, text, target in TOWNS if not target]
    alone = [build_examples([page], words, table, unk_entity_id=vocab.unk_id)[0] for page in pages]
    assert read_examples(made) == [example for page in alone for example in listed(page)]


def test_an_example_by_hand(made):
    names, words, first = titles(made), tokenizer.load(made / "tokenizer"), read_examples(made)[0]
    assert names[first.page_id] == "Balen"
    assert words.decode(first.word_ids) == (
        "Balen is a town on the river Uld, 2 km from Bamar. Its mayor likes Bator's bread very much. In 1800 the town "
        "burnt down (see Great fire of Balen). The market of Balen is older than the one in that town. Nobody knows "
        "who built it."
    )
    spelt = [words.decode(first.word_ids[start:end]) for start, end in first.mention_spans]
    assert [(names[k], surface) for k, surface in zip(first.entity_ids, spelt)] == [
        ("Uld", "Uld"),
        ("Bamar", "Bamar"),
        ("Bator", "Bator's"),  # linked as "Old Bator", which redirects to "Elder Bator", which redirects to "Bator"
        ("[UNK]", "Great fire of Balen"),
        ("Bamar", "that town"),
    ]


def test_the_page_of_the_data(made):
    """Its numbers add up, its examples are those of the shards, with titles where the text says something else."""
    html, found = (made / "report.html").read_text(), manifest(made)
    said = " ".join(Page(html).texts)
    for shown in ("31, of them 0 held out", "60, of them 0 in a circle", "151, 80.1%", "Uld 30", "[UNK] 30"):
        assert shown in said
    destinations = re.search(r"Where links went.*?</ol>", html)[0]
    assert sum(map(int, re.findall(r"<span>(\d+)</span>", destinations))) == found["links"]
    articles = re.findall(r"<article><h2.*?>(.*?)</h2><p.*?>(.*?)</p>", html)
    assert len(articles) == 10 and [articles[0][0], articles[9][0]] == ["1: Balen", f"{found['examples']}: Uld"]
    words, first = tokenizer.load(made / "tokenizer"), read_examples(made)[0]
    assert unescape(re.sub("<small>.*?</small>|<.*?>", "", articles[0][1])) == words.decode(first.word_ids)
    assert list(map(unescape, re.findall("<mark>(.*?)</mark>", articles[0][1]))) == [
        "Uld", "Bamar", "Bator's<small>Bator</small>", "Great fire of Balen<small>[UNK]</small>",
        "that town<small>Bamar</small>"]  # fmt: skip


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(made, dump, tmp_path, workers):
    assert contents(prepare(tmp_path, "--dump", dump, f"--workers {workers}")) == contents(made)


def test_parts_of_a_dump_equal_the_whole(made, tmp_path):
    parts = (TOWNS[:20], TOWNS[20:50], TOWNS[50:])
    paths = [write_dump(tmp_path / f"part{k}.xml", *part) for k, part in enumerate(parts)]
    found = contents(prepare(tmp_path / "out", "--dump", *paths))
    assert {name for name, data in contents(made).items() if found[name] != data} == {"manifest.json", "report.html"}


def test_options(dump, made, tmp_path):
    def changed(*options) -> dict:
        return manifest(prepare(tmp_path, "--dump", dump, "--tokenizer", made / "tokenizer", *options))

    plain = changed()
    assert contents(tmp_path) == contents(made)
    assert changed("--max-pages 7")["pages"] == 7
    assert changed("--entity-vocab-size 10")["entity_vocab_size"] == 10
    assert changed("--min-count 4")["entity_vocab_size"] < 35
    assert changed("--keep-red-links")["entity_vocab_size"] == 35 + 30
    assert changed("--abstract-only")["entities"] == plain["entities"] - 30
    shorter = changed("--max-seq-length 40")
    assert shorter["examples"] > plain["examples"] and Shards.open(tmp_path).lengths.max() <= 38
    assert changed("--max-seq-length 40 --sentences-without-entities")["words"] > shorter["words"]


def test_listed_titles(dump, made, tmp_path, capsys):
    """Kept before more frequent ones, redirects followed; with --entities-only nothing else is kept."""
    (tmp_path / "listed.txt").write_text("old_Lovik\n\nUld\nNever linked\nUld#Source\n")
    given = f"--tokenizer {made}/tokenizer --dump {dump} --entities {tmp_path}/listed.txt"

    def kept(options: str = "") -> list[str]:
        return titles(prepare(tmp_path / "out", given, options))[3:-1]

    assert set(kept()) == {"Uld", *NAMES}
    assert "2 of the 3 listed are linked" in capsys.readouterr().out
    assert kept("--entity-vocab-size 7") == ["Uld", "Balen", "Lovik"]
    assert kept("--entities-only") == ["Uld", "Lovik"]
    linked = [example.entity_ids for example in read_examples(tmp_path / "out")]
    assert {entity for entities in linked for entity in entities} == {1, 3, 4}
    kept("--entities-only --drop-unknown-links")
    known = [[entity for entity in entities if entity > 1] for entities in linked]
    found = [example.entity_ids for example in read_examples(tmp_path / "out")]
    assert found == [entities for entities in known if entities]
    assert "the rest dropped" in capsys.readouterr().out


def test_titles_and_redirects(made):
    """What finetune.py disambiguation reads as --titles and --redirects."""
    articles = {title for title, _, target in TOWNS if not target}
    assert disambiguation_data.read_titles(made / "titles.txt") == sorted(articles)
    found = disambiguation_data.read_redirects(made / "redirects.tsv")
    assert found == {title: target for title, _, target in TOWNS if target}


def test_entity_disambiguation_is_pretrained_from_the_commands(dump, tmp_path, capsys):
    """README's commands, small: the candidates of a data set as the only entities, two stages without masked words."""
    candidates = {"Old Lovik": 0.7, "Balen": 0.3, "Nowhere": 0.1}
    spans = [{"start": 0, "end": 5, "title": "Lovik", "candidates": candidates}]
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "Lovik is a town.", "spans": spans}) + "\n")
    data = prepare(tmp_path / "data", "--dump", dump, "--entities", tmp_path / "test.jsonl", "--entities-only")
    assert titles(data)[3:-1] == ["Balen", "Lovik"]
    given = f"--data {data} --steps 2 --global-batch 4 --micro-batch 4"
    train.main(f"{given} --out {tmp_path}/words".split())
    given += " --recipe global-ed"
    as_word_model(checkpoint.find_folder(tmp_path / "words"), tmp_path / "bert")
    train.main(f"{given} --stage 1 --init {tmp_path}/bert --entity-size 32 --out {tmp_path}/1".split())
    train.main(f"{given} --stage 2 --init {tmp_path}/1 --out {tmp_path}/2".split())
    one, two = (checkpoint.read(tmp_path / stage) for stage in "12")
    assert one.config.entity_emb_size == 32 and not one.config.use_entity_aware_attention
    changed = {name for name, tensor in two.weights.items() if not torch.equal(tensor, one.weights[name])}
    assert "luke.layers.0.attention.output.weight" in changed and "luke.entities.entity.weight" in changed
    logs = [json.loads(line) for line in (tmp_path / "2/metrics.jsonl").read_text().splitlines()]
    capsys.readouterr()
    files_of = f"--titles {data}/titles.txt --redirects {data}/redirects.tsv"
    finetune.main(f"disambiguation --checkpoint {tmp_path}/2 --evaluate {tmp_path}/test.jsonl {files_of}".split())
    assert logs and "in-KB accuracy" in capsys.readouterr().out


def test_a_given_entity_vocabulary(dump, made, tmp_path):
    """The ids of another folder, however often a title is linked here; a released vocabulary has its own order."""
    given = f"--tokenizer {made}/tokenizer --dump {dump}"
    prepare(tmp_path, given, "--min-count 9 --entity-vocab", made / "entity_vocab.jsonl")
    assert contents(tmp_path) == contents(made)
    (tmp_path / "given.json").write_text('{"[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "Uld": 3, "[MASK2]": 4}')
    first = read_examples(prepare(tmp_path, given, "--entity-vocab", tmp_path / "given.json"))[0]
    assert first.entity_ids == [3, 1, 1, 1, 1] and first.page_id == -1


def test_the_result_names_its_folder_after_the_source(dump, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "swwiki-1-pages-articles.xml.bz2").write_bytes(dump.read_bytes())
    prepare_wiki.main(["--wiki", "sw", "--tokenizer", str(made / "tokenizer"), "--workers", "1"])
    assert (tmp_path / "data/swwiki-1-pages-articles/manifest.json").is_file()


def test_own_ids(tmp_path):
    """Ids of a knowledge base stay apart, also those listed in --entities."""
    text = "the drug and the gene and the drug"
    links = [{"title": t, "start": s, "end": e} for t, s, e in (("kb#1", 4, 8), ("kb#2", 17, 21), ("kb_2", 30, 34))]
    (tmp_path / "kb.jsonl").write_text(json.dumps({"title": "n#0", "paragraphs": [{"text": text, "links": links}]}))
    (tmp_path / "kept.txt").write_text("kb#2\r\nkb_2\n\n")
    out = prepare(tmp_path, "--jsonl", tmp_path / "kb.jsonl", "--entities", tmp_path / "kept.txt", "--entities-only")
    assert [EntityVocab.load(out / "entity_vocab.jsonl").title(i) for i in (3, 4)] == ["kb#2", "kb_2"]
    (example,) = read_examples(out)
    assert example.entity_ids == [1, 3, 4]


def test_jsonl(tmp_path):
    """The example of --help, often enough to learn a tokenizer from; Norway has no document but becomes an entity."""
    text = "In Norway there is a town."
    links = [{"title": "Norway", "start": 3, "end": 9}]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"title": "Oslo", "paragraphs": [{"text": text, "links": links}] * 5}))
    (example,) = read_examples(prepare(tmp_path, "--jsonl", corpus))
    assert titles(tmp_path) == ["[PAD]", "[UNK]", "[MASK]", "Norway", "[MASK2]"]
    assert example.entity_ids == [3] * 5 and example.page_id == -1
    assert tokenizer.load(tmp_path / "tokenizer").decode(example.word_ids) == " ".join([text] * 5)


def test_byte_level_pieces(dump, tmp_path):
    """A tokenizer as LUKE's own, in two workers, and its examples read as running text."""
    prepare(tmp_path, "--dump", dump, "--pieces byte-bpe --vocab-size 400 --workers 2")
    words, example = tokenizer.load(tmp_path / "tokenizer"), read_examples(tmp_path)[0]
    assert len(words) == 400 and words.unk_id not in example.word_ids
    assert words.encode(words.decode(example.word_ids)).ids == list(example.word_ids)


def test_built_in_encyclopedia(tmp_path, capfd):
    prepare(tmp_path, "--max-pages 300 --keep-red-links --workers 2")
    out, err = capfd.readouterr()
    assert err == "" and all(f"\n{line} " in out for line in (
        "pages", "links", "entities", "vocabulary", "examples", "written to"))  # fmt: skip
    for name in ("dump.xml.bz2", "ner/dev.conll", "relation/test.json", "qa/test-v1.1.json", "mlama/en/objects.json"):
        assert (tmp_path / name).is_file()
    found = manifest(tmp_path)
    assert found["max_seq_length"] == 128 and found["pages"] == 300 and found["word_vocab_size"] == 4000
    assert found["links_to_known_entities"] > 0.9 * found["links"]


@pytest.mark.parametrize("name", ["simplewiki-mini", "kowiki-mini", "zhwiki-mini"])
def test_real_dump_of_one_page(tmp_path, name):
    path = shared_data(f"wiki/{name}.xml.bz2")
    words = tokenizer.load(prepare(tmp_path, "--dump", path) / "tokenizer")
    (page,) = [page for page in wiki_dump.read_dump(path) if not page.redirect]
    text = "".join(paragraph.text for paragraph in wikitext.parse(page.wikitext, page.language))
    for example in read_examples(tmp_path):
        assert len(example.word_ids) <= 510 and example.entity_ids and example.word_ids.count(words.unk_id) < 5
        beginning = words.decode(example.word_ids[:8]).replace(" ", "")
        assert beginning in "".join(unicodedata.normalize("NFKC", text).split())


# ---- what goes wrong


@pytest.fixture
def assert_one_line(tmp_path, capfd):
    def check(options: str, what: str) -> None:
        with pytest.raises(SystemExit) as end:
            files.run(lambda: prepare(tmp_path / "out", options), "prepare_wiki.py")
        error = capfd.readouterr().err
        assert end.value.code == 2 and what in error, error
        assert error.startswith("prepare_wiki.py: error: ") and error.count("\n") == 1, error
        assert not (tmp_path / "out/manifest.json").exists()

    return check


def test_dumps_with_nothing_to_learn_from(tmp_path, assert_one_line):
    assert_one_line(f"--dump {write_dump(tmp_path / 'empty.xml')}", "0 articles without any link")
    only_redirects = write_dump(tmp_path / "redirects.xml", ("A", "#REDIRECT [[B]]", "B"))
    assert_one_line(f"--dump {only_redirects}", "redirects.xml: 0 articles")
    short = write_dump(tmp_path / "short.xml", ("A", "See [[A]].", None))
    assert_one_line(f"--dump {short} --max-seq-length 6", "no example")
    no_link = write_dump(tmp_path / "plain.xml", ("A", "A town that nobody has ever seen or heard of.", None))
    assert_one_line(f"--dump {no_link}", "plain.xml: 1 articles without any link")
    assert manifest(prepare(tmp_path / "out", "--dump", no_link, "--sentences-without-entities"))["examples"] == 1


def test_unusable_input_gives_one_line(dump, tmp_path, monkeypatch, assert_one_line):
    monkeypatch.chdir(tmp_path)
    Path("cut.xml.bz2").write_bytes(dump.read_bytes()[:-200])
    Path("bad.jsonl").write_text('{"title": 3}\n')
    write_dump(Path("de.xml"), *TOWNS[:2], language="de")
    for options, what in {
        "--dump absent.xml": "absent.xml",
        "--dump cut.xml.bz2": "cut.xml.bz2",
        "--jsonl bad.jsonl": "bad.jsonl, line 1: field 'title' is 3",
        "--wiki sw --mirror http://127.0.0.1:9": "download the dump by other means and give its files to --dump",
        f"--dump {dump} --tokenizer {tmp_path}": "no tokenizer here",
        f"--dump {dump} --vocab-size 20": "word vocabulary of 20",
        f"--dump {dump} --entity-vocab-size 3": "entity vocabulary of 3",
        f"--dump {dump} de.xml --workers 2": "de.xml: language de",
    }.items():
        assert_one_line(options, what)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ("--workers 0", "--workers 0: expected a positive number"), ("--max-seq-length x", "invalid int value: 'x'"),
        ("--max-seq-length 0", "--max-seq-length 0: expected a positive number"), ("--nonsense", "--nonsense"),
        ("--dump a --wiki b", "not allowed with"), ("--entities a --entity-vocab b", "not allowed with"),
        ("--entities-only", "--entities-only: expected --entities FILE"),
        ("--part 3/2", "argument --part: 3/2: expected a part and their number, as 3/8"), ("--part 1/2 --merge", "not"),
        ("--held-out-pages -1", "--held-out-pages -1: expected 0 or more"),
        *(("--help", group) for group in ("where from", "where to", "sizes", "what goes in", "the run")),
    ],
)  # fmt: skip
def test_help_and_usage_errors(tmp_path, capsys, wrong, what):
    with pytest.raises(SystemExit, match="0" if wrong == "--help" else "2"):
        prepare(tmp_path / "out", wrong)
    assert what in "".join(capsys.readouterr()) and not (tmp_path / "out").exists()


def test_an_absent_file_does_not_destroy_an_older_result(made, dump, tmp_path):
    prepare(tmp_path, "--dump", dump)
    for wrong in ("", "--tokenizer", "--entity-vocab", "--entities", "--wikidata"):
        with pytest.raises((OSError, ValueError), match="absent"):
            prepare(tmp_path, "--dump", dump, wrong, tmp_path / "absent")
        assert contents(tmp_path) == contents(made)


SCRIPT = "import runpy; runpy.run_path('prepare_wiki.py', run_name='__main__')"


def run(code: str, *arguments, before=None) -> subprocess.CompletedProcess:
    """A process of its own, which may be killed."""
    command = [sys.executable, "-c", code, *map(str, arguments), "--workers", "1"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=before, timeout=120)


@pytest.mark.parametrize("limit", [1000, 20_000])
def test_full_disk(dump, tmp_path, limit):
    """A limit on the size of a file stands in for the full disk: first for the temporary file, then for the results."""

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    full = run(SCRIPT, "--dump", dump, "--out", tmp_path, before=limit_files)
    assert full.returncode == 2 and full.stderr.count("\n") == 1 and "File too large" in full.stderr, full.stderr
    assert "manifest.json" not in contents(tmp_path) and not any(".tmp" in name for name in contents(tmp_path))


KILLED = """
import os, signal, sys
import prepare_wiki
prepare_wiki.{name} = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
prepare_wiki.main(sys.argv[1:])
"""


DONE = ["corpus.parse", "count_entities", "train_tokenizer", "corpus.Corpus.names", "corpus.make_examples"]


@pytest.mark.parametrize(
    ("name", "done"),
    [("make_vocabulary", 1), ("train_tokenizer", 2), ("corpus.Corpus.names", 3), ("corpus.Corpus.make_examples", 4),
     ("corpus.Corpus.join_examples", 5), ("files.show", 5)],
)  # fmt: skip
def test_killed_runs_leave_no_manifest_and_the_next_goes_on(made, dump, tmp_path, monkeypatch, name, done):
    """Killed before each stage and, to show that a run can also end too late, at the very end. What was done before is
    not done again."""
    (tmp_path / "manifest.json").write_text("of an older run")
    (tmp_path / examples.NAME.format(3)).write_text("of an older run with more shards")
    killed = run(KILLED.format(name=name), "--dump", dump, "--out", tmp_path)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "manifest.json").exists() == (name == "files.show")
    for again in DONE[:done]:
        monkeypatch.setattr(f"prepare_wiki.{again}", pytest.fail)
    assert contents(prepare(tmp_path, "--dump", dump)) == contents(made)


IN_PIECES = "from luke_mini import pieces; pieces.SMALLEST = 200; "  # and then SCRIPT


@pytest.fixture(scope="module")
def in_streams(dump, tmp_path_factory) -> Path:
    """The same dump with a stream for every other page, so that it can be cut."""
    path = tmp_path_factory.mktemp("streams") / dump.name
    parts = re.split(rb"(?=<page>)", bz2.decompress(dump.read_bytes()))
    path.write_bytes(b"".join(bz2.compress(b"".join(parts[k : k + 2])) for k in range(0, len(parts), 2)))
    return path


def test_killed_at_any_moment(made, in_streams, tmp_path):
    """Two workers, or one. The second run has other options, the others go on with the work of the first."""
    given = ["--dump", in_streams, "--out", tmp_path]
    for delay, options in (0.7, ["--workers", "2"]), (0.9, ["--abstract-only"]), (1.1, ["--workers", "1"]), (1.3, []):
        command = [sys.executable, "-c", IN_PIECES + SCRIPT, *given, *options]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            time.sleep(delay)
            process.kill()
    finished = run(IN_PIECES + SCRIPT, *given)
    assert finished.returncode == 0 and contents(tmp_path) == contents(made)


@pytest.mark.parametrize("workers", [1, 3])
def test_pieces_change_nothing(made, in_streams, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(pieces, "SMALLEST", 200)
    assert len(pieces.cut([in_streams])) > 10
    assert contents(prepare(tmp_path, "--dump", in_streams, f"--workers {workers}")) == contents(made)


@pytest.mark.parametrize("by_parts_again", [True, False])
def test_parts_on_several_machines_merge_to_the_same_bytes(made, in_streams, tmp_path, monkeypatch, capsys, by_parts_again):
    """Parse by parts, merge, make examples by parts (or all of them at once), merge; too early is an error."""
    monkeypatch.setattr(pieces, "SMALLEST", 200)

    def again(*options) -> str:
        prepare(tmp_path, "--dump", in_streams, *options)
        assert contents(tmp_path).keys() <= contents(made).keys() or (tmp_path / "work").is_dir()
        return capsys.readouterr().out

    assert "parts are made; next, when all are, --merge" in again("--part 2/3")
    with pytest.raises(ValueError, match=r"work/pages-\w+: \d+ of \d+ parts are missing \(00000, 00002, .*--part 1/N"):
        again("--merge")
    again("--part 1/3")
    again("--part 3/3")
    monkeypatch.setattr(prepare_wiki.corpus, "parse", pytest.fail)
    if by_parts_again:
        assert "vocabularies are made; next --part once more, or neither" in again("--merge")
        for part in ("--part 1/2", "--part 2/2"):
            assert "next, when all are, --merge" in again(part) and not (tmp_path / "manifest.json").exists()
        monkeypatch.setattr(prepare_wiki.corpus, "make_examples", pytest.fail)
        again("--merge")
    else:
        again()
    assert contents(tmp_path) == contents(made)


def test_a_dry_run_says_what_is_there_and_writes_nothing(dump, in_streams, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pieces, "SMALLEST", 200)
    due = len(pieces.cut([in_streams]))

    def said(*options) -> dict[str, str]:
        capsys.readouterr()
        prepare(tmp_path / "out", "--dump", in_streams, "--dry-run", *options)
        return {line[:12].strip(): line[12:] for line in capsys.readouterr().out.splitlines()}

    found = said("--wikidata", made_up_items(tmp_path))
    assert [*found] == ["sources", "there", "sample", "time", "disk", "memory"] and not (tmp_path / "out").exists()
    assert found["there"] == f"pages 0 of {due}, vocabulary 0 of 1, tokenizer 0 of 1, examples 0 of {due}"
    assert found["sources"] == f"0 MB in {due} pieces" and f"in {tmp_path}/out, and until" in found["disk"]
    for part in ("1/3", "2/3", "3/3", "--merge", "1/2"):
        prepare(tmp_path / "out", "--dump", in_streams, part if part == "--merge" else f"--part {part}")
    before = contents(tmp_path)
    half = -(-due // 2)
    assert said()["there"] == f"pages {due} of {due}, vocabulary 1 of 1, tokenizer 1 of 1, examples {half} of {due}"
    assert said("--keep-red-links")["there"].endswith(f"vocabulary 0 of 1, tokenizer 1 of 1, examples 0 of {due}")
    assert contents(tmp_path) == before and said("--max-pages 9")["there"].startswith("pages 0 of")


def made_up_items(folder: Path) -> Path:
    (folder / "items.json").write_text('[\n{"sitelinks": {"enwiki": {"title": "Uld"}}, "id": "Q1"}\n]\n')
    return folder / "items.json"


def test_a_forecast_by_hand(tmp_path, monkeypatch):
    """Of 400 bytes in 4 pieces the sample had 100; two of four parts are there. The tokenizer reads all of 250."""
    corpora, sampled = ([SimpleNamespace(
        pieces=[pieces.Piece(Path("x"), 100_000_000)] * n, workers=2, rules=corpus.Rules(False, "en", None, True),
        parts=[SimpleNamespace(made={"pages": 40_000, "redirects": 10_000, "characters": 200})],
    )] for n in (4, 1))  # fmt: skip
    seconds = {"pages": (1, 20), "vocabulary": (5, 0), "tokenizer": (8, 0), "examples": (0, 60), "folder": (2, 0)}
    sample = SimpleNamespace(seconds=seconds, bytes=(3_000_000, 5_000_000), shards=80_000_000,
                             training=100_000_000, memory=[200_000_000, 200_000_000])  # fmt: skip
    there = {"pages": (2, 4), "vocabulary": (0, 1), "tokenizer": (0, 1), "examples": (0, 4)}
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: SimpleNamespace(free=19_000_000))
    found = forecast.forecast(tmp_path / "a/b", corpora, sample, sampled, there, 250, 30)
    assert found == {
        "sources": "400 MB in 4 pieces", "sample": "40,000 articles and 10,000 redirects, 100 MB, in 96 s",
        "there": "pages 2 of 4, vocabulary 0 of 1, tokenizer 0 of 1, examples 0 of 4",
        "time": "about 4 min with 2 processes: pages 22 s, vocabulary 50 s, tokenizer 10 s, examples 2 min, folder 8 s",
        "disk": f"at most 8 MB in {tmp_path}/a/b, and until all is done 12 MB more; 19 MB are free: too little",
        "memory": f"about {100 + (150_000 * forecast.TITLE + forecast.SHARD) / 1e6:.0f} MB in the main process, "
                  "in each worker 200 MB, and what it shares with the main process",
    }  # fmt: skip
    corpora[0].rules = corpus.Rules(False, "en", 60_000, True)
    found = forecast.forecast(tmp_path, corpora, sample, sampled, there | {"vocabulary": (1, 1)}, 250, 30)
    assert "pages 8 s, vocabulary 0 s, tokenizer 10 s, examples 45 s" in found["time"] and "3 MB in" in found["disk"]
    assert f"about {100 + 25_000 * forecast.TITLE / 1e6 + 125:.0f} MB in the main" in found["memory"]


def test_the_size_of_a_sample(tmp_path, monkeypatch):
    """Vocabularies do not grow with the sources. The memory of training is what the tokenizer's stage adds."""
    for name, length in {"shard-0.bin": 7, "work/pages-1/00000": 30, "work/vocabulary-1/00000": 100, "tokenizer/x": 900,
                         "entity_vocab.jsonl": 5000}.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(length))
    peaks = iter([10, 0, 17, 0, 90, 5])
    monkeypatch.setattr(forecast.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=next(peaks)))
    sample = forecast.Sample(tmp_path / "work")
    for stage in ("vocabulary", "tokenizer", "examples"):
        sample.done(stage)
    assert sample.bytes == (30, 37) and sample.shards == 7
    assert sample.training == 7 * 1024 and sample.memory == [90 * 1024, 5 * 1024]


def test_two_at_once_are_never_mixed(made, dump, tmp_path):
    """The second one says whose the folder is, and changes nothing."""
    with files.one_writer(tmp_path):
        second = run(SCRIPT, "--dump", dump, "--out", tmp_path, "--keep-red-links")
        held = f"{tmp_path}: process {os.getpid()} on {platform.node()} is writing there"
        assert second.returncode == 2 and second.stderr.startswith(f"prepare_wiki.py: error: {held}; wait for it")
        assert second.stderr.count("\n") == 1 and [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert contents(prepare(tmp_path, "--dump", dump)) == contents(made)


def test_no_file_of_an_older_tokenizer_stays(made, dump, tmp_path):
    """It would be read in place of the new one's."""
    prepare(tmp_path, "--dump", dump, "--pieces byte-bpe --vocab-size 300")
    assert contents(prepare(tmp_path, "--dump", dump)) == contents(made)


INTERRUPTED = """
import os, signal
from luke_mini.examples import ShardWriter
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
ShardWriter.close = lambda self: os.kill(os.getpid(), signal.SIGINT)
"""  # and then SCRIPT


def test_ctrl_c_says_so_in_one_line(dump, tmp_path):
    result = run(INTERRUPTED + SCRIPT, "--dump", dump, "--out", tmp_path)
    assert result.returncode == 130 and result.stderr == "prepare_wiki.py: interrupted; the same command goes on\n"
    assert "manifest.json" not in contents(tmp_path)


def test_training_a_tokenizer_shows_that_time_passes(monkeypatch, capsys):
    """At a terminal a clock beside the title; elsewhere the title alone."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal := Terminal())
        with stages.ticking("training"):
            time.sleep(1.5)
    assert "\rtraining: 00:00" in terminal.getvalue() and "\rtraining: 00:01" in terminal.getvalue()
    with stages.ticking("training"):
        pass
    assert capsys.readouterr().out == "training\n"

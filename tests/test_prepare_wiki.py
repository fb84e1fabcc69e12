"""prepare_wiki.py from end to end, on a dump written here, and on a real one where there is one.

    pytest tests/test_prepare_wiki.py
"""

import bz2
import json
import re
import resource
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from conftest import read_examples, shared_data

import prepare_wiki
from luke_mini import examples, tokenizer, wiki_dump, wikitext
from luke_mini.entity_vocab import EntityVocab
from luke_mini.mentions import Mentions
from luke_mini.examples import Shards, build_examples

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


def dump_xml(pages: list[tuple[str, str, str | None]], language: str = "en") -> bytes:
    body = "".join(
        f"<page><title>{escape(title)}</title><ns>0</ns>"
        + (f'<redirect title="{escape(redirect)}" />' if redirect else "")
        + f"<revision><text>{escape(text)}</text></revision></page>\n"
        for title, text, redirect in pages
    )
    xmlns = "http://www.mediawiki.org/xml/export-0.10/"
    return f'<mediawiki xmlns="{xmlns}" xml:lang="{language}">\n{body}</mediawiki>\n'.encode()


def town_pages() -> list[tuple[str, str, str | None]]:
    pages = [(name, article(k), None) for k, name in enumerate(NAMES)]
    pages += [("Uld", "The '''Uld''' is a river that nobody has ever seen. It flows to [[Balen]].", None)]
    pages += [(f"Old {name}", f"#REDIRECT [[Elder {name}]]", f"Elder {name}") for name in NAMES]
    pages += [(f"Elder {name}", f"#REDIRECT [[{name}]]", name) for name in NAMES]
    return pages


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("dump") / "enwiki-1-pages-articles.xml.bz2"
    path.write_bytes(bz2.compress(dump_xml(town_pages())))
    return path


@pytest.fixture(scope="module")
def made(dump, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made")
    prepare_wiki.main(["--dump", str(dump), "--out", str(out), "--workers", "2"])
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_a_process(*arguments, before=None) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "prepare_wiki.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=before, timeout=120)


@pytest.fixture
def run(run_script):
    return lambda *arguments: run_script("prepare_wiki.py", *arguments)


def assert_one_line(result: subprocess.CompletedProcess, what: str) -> None:
    assert result.returncode == 2 and what in result.stderr, result.stderr
    assert result.stderr.startswith("prepare_wiki.py: error: ") and result.stderr.count("\n") == 1, result.stderr


# ---- what is made


def test_folder_and_manifest(made):
    assert sorted(contents(made)) == [
        "entity_vocab.jsonl",
        "manifest.json",
        "mentions.safetensors",
        "shard-00000.bin",
        "tokenizer/sentencepiece.bpe.model",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    ]
    manifest, opened = json.loads((made / "manifest.json").read_text()), Shards.open(made)
    assert manifest["sources"] == ["enwiki-1-pages-articles.xml.bz2"] and manifest["language"] == "en"
    assert manifest["pages"] == 31 and manifest["redirects"] == 60
    assert manifest["links"] == 5 * 30 + 1 and manifest["links_to_known_entities"] == 4 * 30 + 1
    assert manifest["examples"] == len(opened) and manifest["words"] == opened.lengths.sum()
    assert manifest["entity_vocab_size"] == 31 + 4
    assert manifest["word_vocab_size"] == len(tokenizer.load(made / "tokenizer"))


def test_entity_counts_follow_redirects(made):
    """Every town: two links from its neighbour, one through two redirects; Balen one more, the river from all."""
    lines = [json.loads(line) for line in (made / "entity_vocab.jsonl").read_text().splitlines()]
    counts = {line["entities"][0][0]: line["count"] for line in lines}
    expected = {name: 2 for name in NAMES} | {"Uld": 30}
    for k in range(30):
        expected[NAMES[(k * 7 + 3) % 30]] += 1
    expected["Balen"] += 1
    assert counts == {"[PAD]": 0, "[UNK]": 0, "[MASK]": 0, "[MASK2]": 0} | expected
    assert [line["entities"][0] for line in lines][3:5] == [["Uld", "en"], ["Balen", "en"]]


def test_mention_statistics(made, dump, tmp_path):
    """Surfaces lead to the pages behind redirects; their links are counted against the pages that say the name."""
    table = Mentions.load(made / "mentions.safetensors")
    texts = [
        "\n".join(text for text, _, _ in wikitext.parse(page.wikitext))
        for page in wiki_dump.read_dump(dump)
        if not page.redirect
    ]
    for name in NAMES:
        holding = sum(re.search(rf"\b{name}\b", text) is not None for text in texts)
        links = 2 if name == "Balen" else 1  # the river's article names it
        assert table.candidates(name) == [(name, links, 1.0)]
        assert table.detect(name)[0].link_probability == pytest.approx(links / holding) and holding > links
        assert table.candidates(f"{name}'s") == [(name, 1, 1.0)]  # through two redirects
    assert [candidate.title for candidate in table.candidates("THAT TOWN")] == sorted(NAMES)
    assert table.detect("Uld")[0].link_probability == pytest.approx(30 / 31)
    assert table.candidates("Great fire of Balen") == []  # no such page
    assert len(table) == 2 * len(NAMES) + 2
    prepare_wiki.main(["--dump", str(dump), "--out", str(tmp_path), "--workers", "1", "--no-mentions"])
    assert not (tmp_path / "mentions.safetensors").exists()


def test_examples_are_those_of_a_plain_loop(made, dump):
    vocab, words = EntityVocab.load(made / "entity_vocab.jsonl"), tokenizer.load(made / "tokenizer")
    pages = list(wiki_dump.read_dump(dump))
    table = vocab.link_table({page.title: page.redirect for page in pages if page.redirect})
    expected = [
        example
        for page in pages
        if not page.redirect
        for example in build_examples(
            wikitext.parse(page.wikitext), page.title, words, table, unk_entity_id=vocab.unk_id
        )
    ]
    assert read_examples(made) == expected


def test_an_example_by_hand(made):
    vocab, words = EntityVocab.load(made / "entity_vocab.jsonl"), tokenizer.load(made / "tokenizer")
    first = read_examples(made)[0]
    assert vocab.title(first.page_id) == "Balen"
    assert words.decode(first.word_ids) == (
        "Balen is a town on the river Uld, 2 km from Bamar. Its mayor likes Bator's bread very much. In 1800 the town "
        "burnt down (see Great fire of Balen). The market of Balen is older than the one in that town. Nobody knows "
        "who built it."
    )
    spelt = [words.decode(first.word_ids[start:end]) for start, end in first.mention_spans]
    assert list(zip(map(vocab.title, first.entity_ids), spelt)) == [
        ("Uld", "Uld"),
        ("Bamar", "Bamar"),
        ("Bator", "Bator's"),  # linked as "Old Bator", which redirects to "Elder Bator", which redirects to "Bator"
        ("[UNK]", "Great fire of Balen"),
        ("Bamar", "that town"),
    ]


@pytest.mark.parametrize("workers", ["1", "3"])
def test_the_number_of_workers_changes_nothing(made, dump, tmp_path, workers):
    prepare_wiki.main(["--dump", str(dump), "--out", str(tmp_path), "--workers", workers])
    assert contents(tmp_path) == contents(made)


def test_parts_of_a_dump_equal_the_whole(made, tmp_path):
    pages = town_pages()
    paths = []
    for k, part in enumerate((pages[:20], pages[20:50], pages[50:])):
        paths.append(tmp_path / f"part{k}.xml")
        paths[-1].write_bytes(dump_xml(part))
    prepare_wiki.main(["--dump", *map(str, paths), "--out", str(tmp_path / "out"), "--workers", "1"])
    for name in ("entity_vocab.jsonl", "shard-00000.bin", "tokenizer/sentencepiece.bpe.model"):
        assert (tmp_path / "out" / name).read_bytes() == (made / name).read_bytes()


def test_options(dump, made, tmp_path):
    given = ["--tokenizer", str(made / "tokenizer"), "--workers", "1", "--out", str(tmp_path), "--dump", str(dump)]

    def manifest(*options) -> dict:
        prepare_wiki.main([*given, *options])
        return json.loads((tmp_path / "manifest.json").read_text())

    plain = manifest()
    assert contents(tmp_path) == contents(made)
    assert manifest("--max-pages", "7")["pages"] == 7
    assert manifest("--entity-vocab-size", "10")["entity_vocab_size"] == 10
    assert manifest("--min-count", "4")["entity_vocab_size"] < 35
    assert manifest("--keep-red-links")["entity_vocab_size"] == 35 + 30
    assert manifest("--abstract-only")["entities"] == plain["entities"] - 30
    assert manifest("--max-seq-length", "40")["examples"] > plain["examples"]
    assert Shards.open(tmp_path).lengths.max() <= 38
    more = manifest("--sentences-without-entities", "--max-seq-length", "40")
    assert more["words"] > manifest("--max-seq-length", "40")["words"]


def test_listed_titles(dump, made, tmp_path, capsys):
    """Kept before more frequent ones, redirects followed; with a large --min-count nothing else is kept."""
    (tmp_path / "titles.txt").write_text("old_Lovik\n\nUld\nNever linked\nUld#Source\n")
    given = f"--tokenizer {made}/tokenizer --workers 1 --out {tmp_path} --dump {dump} --titles {tmp_path}/titles.txt"

    def titles(*options) -> list[str]:
        prepare_wiki.main([*given.split(), *options])
        vocab = EntityVocab.load(tmp_path / "entity_vocab.jsonl")
        return [vocab.title(k) for k in range(3, len(vocab) - 1)]

    assert set(titles()) == {"Uld", *NAMES}
    assert "2 of the 3 listed are linked" in capsys.readouterr().out
    assert titles("--entity-vocab-size", "7") == ["Uld", "Balen", "Lovik"]
    assert titles("--min-count", "999999") == ["Uld", "Lovik"]
    linked = [example.entity_ids for example in read_examples(tmp_path)]
    assert {entity for entities in linked for entity in entities} == {1, 3, 4}
    titles("--min-count", "999999", "--drop-unknown-links")
    known = [[entity for entity in entities if entity > 1] for entities in linked]
    assert [example.entity_ids for example in read_examples(tmp_path)] == [entities for entities in known if entities]
    assert "the rest dropped" in capsys.readouterr().out


def test_a_given_entity_vocabulary(dump, made, tmp_path):
    """The ids of another folder, however often a title is linked here; a released vocabulary has its own order."""
    given = f"--tokenizer {made}/tokenizer --workers 1 --out {tmp_path} --dump {dump}".split()
    prepare_wiki.main([*given, "--min-count", "9", "--entity-vocab", str(made / "entity_vocab.jsonl")])
    assert contents(tmp_path) == contents(made)
    (tmp_path / "given.json").write_text('{"[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "Uld": 3, "[MASK2]": 4}')
    prepare_wiki.main([*given, "--entity-vocab", str(tmp_path / "given.json")])
    first = read_examples(tmp_path)[0]
    assert first.entity_ids == [3, 1, 1, 1, 1] and first.page_id == -1


def test_the_result_names_its_folder_after_the_source(dump, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "swwiki-1-pages-articles.xml.bz2").write_bytes(dump.read_bytes())
    prepare_wiki.main(["--wiki", "sw", "--tokenizer", str(made / "tokenizer"), "--workers", "1"])
    assert (tmp_path / "data/swwiki-1-pages-articles/manifest.json").is_file()


def test_jsonl(tmp_path):
    """The example of --help, often enough to learn a tokenizer from; Norway has no document but becomes an entity."""
    text = "In Norway there is a town."
    links = [{"title": "Norway", "start": 3, "end": 9}]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"title": "Oslo", "paragraphs": [{"text": text, "links": links}] * 5}))
    prepare_wiki.main(["--jsonl", str(corpus), "--out", str(tmp_path), "--workers", "1"])
    vocab, made = EntityVocab.load(tmp_path / "entity_vocab.jsonl"), read_examples(tmp_path)
    assert [vocab.title(k) for k in range(len(vocab))] == ["[PAD]", "[UNK]", "[MASK]", "Norway", "[MASK2]"]
    assert len(made) == 1 and made[0].entity_ids == [3] * 5 and made[0].page_id == -1
    words = tokenizer.load(tmp_path / "tokenizer")
    assert words.decode(made[0].word_ids) == " ".join([text] * 5)


def test_byte_level_pieces(tmp_path):
    """A tokenizer as LUKE's own, in two workers, and its examples read as running text."""
    prepare_wiki.main(f"--out {tmp_path} --max-pages 40 --pieces byte-bpe --vocab-size 600 --workers 2".split())
    words, example = tokenizer.load(tmp_path / "tokenizer"), read_examples(tmp_path)[0]
    assert len(words) == 600 and words.unk_id not in example.word_ids
    assert words.encode(words.decode(example.word_ids)).ids == list(example.word_ids)


def test_built_in_encyclopedia(tmp_path):
    result = in_a_process("--out", tmp_path, "--workers", "2")
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert {"dump.xml.bz2", "manifest.json", "shard-00000.bin"} <= contents(tmp_path).keys()
    assert sorted(path.name for path in (tmp_path / "ner").iterdir()) == ["dev.conll", "test.conll", "train.conll"]
    for name in ("relation/test.json", "qa/test-v1.1.json", "mlama/en/templates.jsonl"):
        assert (tmp_path / name).is_file()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["max_seq_length"] == 128 and manifest["pages"] > 100
    assert manifest["links_to_known_entities"] > 0.9 * manifest["links"]
    for line in ("pages", "links", "entities", "word pieces", "examples", "written to"):
        assert f"\n{line} " in result.stdout


@pytest.mark.parametrize("name", ["simplewiki-mini", "kowiki-mini", "zhwiki-mini"])
def test_real_dump_of_one_page(tmp_path, name):
    path = shared_data(f"wiki/{name}.xml.bz2")
    prepare_wiki.main(["--dump", str(path), "--out", str(tmp_path), "--workers", "1"])
    words = tokenizer.load(tmp_path / "tokenizer")
    (page,) = [page for page in wiki_dump.read_dump(path) if not page.redirect]
    text = "".join(paragraph.text for paragraph in wikitext.parse(page.wikitext, page.language))
    for example in read_examples(tmp_path):
        assert len(example.word_ids) <= 510 and example.entity_ids and example.word_ids.count(words.unk_id) < 5
        beginning = words.decode(example.word_ids[:8]).replace(" ", "")
        assert beginning in "".join(unicodedata.normalize("NFKC", text).split())


# ---- what goes wrong


def write_dump(path: Path, *pages: tuple[str, str, str | None]) -> Path:
    path.write_bytes(dump_xml(list(pages)))
    return path


def test_dumps_with_nothing_to_learn_from(run, tmp_path):
    out = ["--out", tmp_path / "out", "--workers", "1"]
    assert_one_line(run("--dump", write_dump(tmp_path / "empty.xml"), *out), "0 articles without any link")
    only_redirects = write_dump(tmp_path / "redirects.xml", ("A", "#REDIRECT [[B]]", "B"))
    assert_one_line(run("--dump", only_redirects, *out), "redirects.xml: 0 articles")
    no_link = write_dump(tmp_path / "plain.xml", ("A", "A town that nobody has ever seen or heard of.", None))
    assert_one_line(run("--dump", no_link, *out), "plain.xml: 1 articles without any link")
    assert run("--dump", no_link, *out, "--sentences-without-entities").returncode == 0
    short = write_dump(tmp_path / "short.xml", ("A", "See [[A]].", None))
    assert_one_line(run("--dump", short, *out, "--max-seq-length", "6"), "no example")
    assert not (tmp_path / "out/manifest.json").exists()


def test_unusable_input_gives_one_line(run, dump, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = ["--out", tmp_path / "out", "--workers", "2"]
    assert_one_line(run("--dump", tmp_path / "absent.xml", *out), "absent.xml")
    cut = tmp_path / "cut.xml.bz2"
    cut.write_bytes(dump.read_bytes()[:-200])
    assert_one_line(run("--dump", cut, *out), "cut.xml.bz2")
    (tmp_path / "bad.jsonl").write_text('{"title": 3}\n')
    assert_one_line(run("--jsonl", tmp_path / "bad.jsonl", *out), "bad.jsonl, line 1: field 'title' is 3")
    assert_one_line(run("--wiki", "sw", *out), "https://dumps.wikimedia.org/sw")
    assert_one_line(run("--dump", dump, "--tokenizer", tmp_path, *out), "no tokenizer here")
    assert_one_line(run("--dump", dump, "--vocab-size", "20", *out), "word vocabulary of 20")
    assert_one_line(run("--dump", dump, "--entity-vocab-size", "3", *out), "entity vocabulary of 3")
    german = tmp_path / "de.xml"
    german.write_bytes(dump_xml(town_pages()[:2], "de"))
    assert_one_line(run("--dump", dump, german, *out), "de.xml: language de")
    assert not (tmp_path / "out/manifest.json").exists()


def test_usage_errors(run):
    for wrong in (["--workers", "0"], ["--max-seq-length", "x"], ["--dump", "a", "--wiki", "b"], ["--nonsense"],
                  ["--titles", "a", "--entity-vocab", "b"]):  # fmt: skip
        result = run(*wrong)
        assert result.returncode == 2 and "Traceback" not in result.stderr
    text = run("--help").stdout
    assert all(group in text for group in ("where from", "where to", "sizes", "what goes in", "the run"))


def test_an_absent_file_does_not_destroy_an_older_result(run, made, dump, tmp_path):
    prepare_wiki.main(["--dump", str(dump), "--out", str(tmp_path), "--workers", "1"])
    options = ("--tokenizer", "--entity-vocab", "--titles")
    wrongs = [["--dump", dump, option, tmp_path / "absent"] for option in options]
    for wrong in (["--dump", tmp_path / "absent.xml"], *wrongs):
        assert_one_line(run(*wrong, "--out", tmp_path), "absent")
        assert contents(tmp_path) == contents(made)


@pytest.mark.parametrize("limit", [1000, 20_000])
def test_full_disk(dump, made, tmp_path, limit):
    """A limit on the size of a file stands in for the full disk: first for the temporary file, then for the results."""
    full = in_a_process("--dump", dump, "--out", tmp_path, "--workers", "1", before=lambda: _limit_files(limit))
    assert full.returncode == 2 and full.stderr.count("\n") == 1 and "File too large" in full.stderr, full.stderr
    assert "manifest.json" not in contents(tmp_path) and not any(".tmp" in name for name in contents(tmp_path))


def _limit_files(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


KILLED = """
import os, signal, sys
import prepare_wiki
prepare_wiki.{name} = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
prepare_wiki.main(sys.argv[1:])
"""


@pytest.mark.parametrize("name", ["train_tokenizer", "Corpus.write_examples", "print_summary"])
def test_killed_runs_leave_no_manifest_and_the_next_starts_over(made, dump, tmp_path, name):
    """Killed after the first pass, before the second and, to show that a run can also end too late, at the very end."""
    arguments = ["--dump", str(dump), "--out", str(tmp_path), "--workers", "1"]
    (tmp_path / "manifest.json").write_text("of an older run")
    (tmp_path / examples.NAME.format(3)).write_text("of an older run with more shards")
    killed = subprocess.run([sys.executable, "-c", KILLED.format(name=name), *arguments], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "manifest.json").exists() == (name == "print_summary")
    prepare_wiki.main(arguments)
    assert contents(tmp_path) == contents(made)


INTERRUPTED = """
import os, runpy, signal
from luke_mini.examples import ShardWriter
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
ShardWriter.close = lambda self: os.kill(os.getpid(), signal.SIGINT)
runpy.run_path("prepare_wiki.py", run_name="__main__")
"""


def test_ctrl_c_says_so_in_one_line(dump, tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, "--dump", dump, "--out", tmp_path, "--workers", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr == "prepare_wiki.py: interrupted; the next run starts over\n"
    assert "manifest.json" not in contents(tmp_path)

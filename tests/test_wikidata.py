"""Wikidata's dump, the vocabulary that several languages share, and a run over three of them.

    pytest tests/test_wikidata.py

Against a brute force: json.load, nested loops over the links of every page. The run's folder opens in transformers.
"""

import bz2
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import shared_data
from test_prepare_wiki import manifest, prepare, write_dump

import prepare_wiki
import train
from luke_mini import checkpoint, files, inputs, tokenizer_bpe, wiki_dump, wikitext
from luke_mini.entity_vocab import EntityVocab
from luke_mini.mentions import Mentions
from luke_mini.wikidata import Item, read_items

LINES = (
    '{"type":"item","id":"Q64","claims":{"P1":[{"id":"Q9","text":"\\"sitelinks\\":{"}]},"sitelinks":'
    '{"enwiki":{"title":"Berlin","badges":[]},"dewiki":{"title":"Berlin"},"zh_yuewiki":{"title":"柏林"},'
    '"enwikiquote":{"title":"Berlin, quoted"}}},',
    '{"type":"item","id":"Q2","sitelinks":[]},',
    '{"type":"property","id":"P31","datatype":"wikibase-item"},',
    '{"sitelinks": {"dewiki": {"title": "Sch\\u00f6neberg, \\"Insel\\""}}, "id": "Q3"}',
)
ITEMS = [Item("Q64", {"zh-yue": "柏林", "de": "Berlin"}), Item("Q3", {"de": 'Schöneberg, "Insel"'})]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
@pytest.mark.parametrize("end", ["\n]\n", "", "\r\n]"])
def test_items(tmp_path, pack, end):
    data = ("[\n" + "\n".join(LINES) + end).encode()
    (tmp_path / "dump").write_bytes(pack(data))
    read = []
    assert list(read_items(tmp_path / "dump", ["zh-yue", "de"], read.append)) == ITEMS
    assert sum(read) == len(pack(data))
    assert [item.titles for item in read_items(tmp_path / "dump", ["en"])] == [{"en": "Berlin"}]
    assert [item.titles for item in read_items(tmp_path / "dump", ["yue"])] == [{"yue": "柏林"}]
    assert list(read_items(tmp_path / "dump", ["fr"])) == []


def test_lines_longer_than_a_chunk(tmp_path):
    line = LINES[3].replace('"id"', f'"labels": "{"x" * (1 << 19)}", "id"')
    (tmp_path / "dump").write_text(f"[\n{line},\n{line}\n]")
    assert list(read_items(tmp_path / "dump", ["de"])) == ITEMS[1:] * 2


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "the file is empty"),
        ("[\n]\n", "no item with sitelinks, expected a JSON dump of Wikidata"),
        (LINES[0] + "\n" + LINES[3][:40], "line 2: damaged"),
        (LINES[0] + "\n" + LINES[1][:20], "line 2: damaged"),
        (LINES[0] + '\n{"sitelinks":{"enwiki":"Berlin"}}', "line 2: damaged"),
        (LINES[0] + '\n{"sitelinks":{"enwiki":{"title":3}}}', "line 2: damaged"),
        (LINES[0] + '\n{"sitelinks":7}', "line 2: damaged"),
    ],
)
def test_damaged_dumps_give_one_line(tmp_path, content, what):
    (tmp_path / "dump.json").write_text(content)
    with pytest.raises(ValueError, match=f"dump.json.*{what}") as error:
        list(read_items(tmp_path / "dump.json", ["en", "de"]))
    assert "\n" not in str(error.value)


ALL = "en:Berlin de:Berlin ja:ベルリン"
COUNTS = {
    "en": {"Berlin": 5, "Spree": 2, "[MASK]": 9}, "de": {"Berlin": 4, "Spree": 2, "Insel": 9}, "ja": {"ベルリン": 1}
}  # fmt: skip
JOINED = [
    Item("Q64", {"en": "Berlin", "de": "Berlin", "ja": "ベルリン"}), Item("Q1", {"en": "Spree", "de": "Spree (Fluss)"})
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [(ALL, 10), ("de:Insel", 9), ("de:Spree", 2), ("en:Spree", 2)]),
        ({"min_languages": 3}, [(ALL, 10)]),  # Q1 is linked in one language only
        ({"min_languages": 2, "min_count": 11}, []),
        ({"min_languages": 3, "allowlist": {("Spree", "de")}}, [(ALL, 10), ("de:Spree", 2)]),
        ({"size": 6, "allowlist": {("Spree", "en"), ("Spree", "ja")}}, [(ALL, 10), ("en:Spree", 2)]),
        ({"size": 5}, [(ALL, 10)]),
    ],
)
def test_a_shared_vocabulary_by_hand(options, expected):
    vocab = EntityVocab.build(COUNTS, options.pop("size", 100), JOINED, **options)
    found = [vocab.entity(k) for k in range(len(vocab))]
    shown = [(" ".join(f"{language}:{title}" for title, language in e.names), e.count) for e in found]
    assert shown[3:-1] == expected
    assert (vocab.pad_id, vocab.unk_id, vocab.mask_id, vocab.mask2_id) == (0, 1, 2, len(vocab) - 1)
    items = {ALL: "Q64", "en:Spree": "Q1"}
    assert [e.item for e in found] == [items.get(names) for names, _ in shown]


def test_wikidata_ids_are_kept(tmp_path):
    EntityVocab.build(COUNTS, 100, JOINED).save(tmp_path / "vocab.jsonl")
    vocab = EntityVocab.load(tmp_path / "vocab.jsonl")
    assert [vocab.entity(k).item for k in range(3, 8)] == ["Q64", None, None, "Q1", None]
    assert vocab.for_release().entity(3) == vocab.entity(3)


# --- Real dumps -------------------------------------------------------------------------------------------------------

WIKIDATA = "wikidata/wikidata_20180423_sitelinks10.json"
LANGUAGES = "ar de en es fi fr id ja ko sv zh".split()


def prepare_minis(out: Path, languages: list[str], options: str) -> Path:
    dumps = [str(shared_data(f"wiki/{language}wiki-mini.xml.bz2")) for language in languages]
    given = ["--dump", *dumps, "--language", *languages, "--wikidata", str(shared_data(WIKIDATA)), "--keep-red-links"]
    return prepare(out, " ".join([*given, options]))


def by_brute_force(languages: list[str], fewest: int) -> list[tuple[int, set[str]]]:
    """(count, keys) of every entity: all items x all languages x all links of all pages."""
    links: Counter[tuple[str, str]] = Counter()
    for language in languages:
        pages = list(wiki_dump.read_dump(shared_data(f"wiki/{language}wiki-mini.xml.bz2")))
        redirects = {page.title: page.redirect for page in pages if page.redirect}
        for page in pages:
            for paragraph in wikitext.parse(page.wikitext, language) if not page.redirect else ():
                for link in paragraph.links:
                    links[language, redirects.get(link.title, link.title)] += 1
    found = []
    items = [line.strip().rstrip(",") for line in shared_data(WIKIDATA).read_text().splitlines()]
    for item in [json.loads(line) for line in items if line not in "[]"]:
        titles = [(language, item["sitelinks"].get(f"{language}wiki", {}).get("title")) for language in languages]
        linked = [name for name in titles if links[name]]
        if len(linked) >= fewest:
            found.append((sum(links[name] for name in linked), {f"{language}:{title}" for language, title in linked}))
    return found


@pytest.mark.parametrize("fewest", [3, 2])
def test_a_vocabulary_of_eleven_languages(tmp_path, fewest):
    tokenizer_bpe.train(["Berlin"] * 2, 270, tmp_path / "bytes")
    given = f"--min-languages {fewest} --tokenizer {tmp_path}/bytes --abstract-only --no-mentions"
    prepare_minis(tmp_path, LANGUAGES, given)
    files_of = [(tmp_path / language / "entity_vocab.jsonl").read_bytes() for language in LANGUAGES]
    assert len(set(files_of)) == 1
    lines = [json.loads(line) for line in files_of[0].decode().splitlines()]
    assert [(line["id"], line["entities"][0][0]) for line in lines[:3]] == [(0, "[PAD]"), (1, "[UNK]"), (2, "[MASK]")]
    found = [(line["count"], {f"{language}:{title}" for title, language in line["entities"]}) for line in lines[3:-1]]
    expected = by_brute_force(LANGUAGES, fewest)
    assert len(expected) >= 3 and sorted(found, key=str) == sorted(expected, key=str)
    assert [count for count, _ in found] == sorted((count for count, _ in found), reverse=True)
    assert max(len(keys) for _, keys in found) >= 8
    assert [manifest(tmp_path / language)["language"] for language in LANGUAGES] == LANGUAGES


def test_a_run_over_three_languages(tmp_path):
    """100 steps over languages that share tokenizer and entities; transformers reads the folder, with our numbers."""
    transformers = pytest.importorskip("transformers")
    languages = ["es", "fi", "sv"]
    prepare_minis(tmp_path, languages, "--vocab-size 1000 --max-seq-length 32 --no-mentions")
    words = [(tmp_path / language / "tokenizer/sentencepiece.bpe.model").read_bytes() for language in languages]
    assert words[0] == words[1] == words[2]
    data = [str(tmp_path / language) for language in languages]
    train.main(["--data", *data, *f"--out {tmp_path}/run --steps 100 --global-batch 2 --micro-batch 2".split()])
    folder = tmp_path / "run/step-000100"
    vocab, theirs = EntityVocab.load(folder / "entity_vocab.json"), transformers.MLukeTokenizer.from_pretrained(folder)
    assert vocab.languages == languages
    assert vocab.id("Polonia", "es") == vocab.id("Puola", "fi") == vocab.id("Polen", "sv") > 2
    text = "Puola on suuri maa."
    given = theirs(text, entities=["fi:Puola"], entity_spans=[(0, 5)], return_tensors="pt")
    assert given.entity_ids.tolist() == [[vocab.id("Polen", "sv")]]
    scores = transformers.LukeForMaskedLM.from_pretrained(folder).eval()(**given)
    model, words, _ = checkpoint.load(folder)
    batch = inputs.encode_batch(words, vocab, [text], entity_spans=[[(0, 5)]], entities=[["Puola"]], language="fi")
    hidden = model.luke(inputs.pack(batch, words.pad_id))
    ours = model.entity_head(hidden[-1:], model.luke.entities.entity.weight)
    torch.testing.assert_close(ours, scores.entity_logits[0], rtol=1e-4, atol=1e-4)


# --- Command line -----------------------------------------------------------------------------------------------------

PAGES = {
    "de": ("Berlin", "Berlin liegt an der [[Spree]], und [[Berlin|die Stadt]] ist weit von [[Bonn]] entfernt."),
    "en": ("Berlin", "The city of [[Berlin]] lies on the [[Spree]] river, which flows into the Havel there."),
    "sw": ("Berlin", "Mji wa [[Berlin]] uko kando la mto [[Spree]] na ni mji mkubwa katika nchi hiyo."),
}


@pytest.fixture
def dumps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for language, (title, text) in PAGES.items():
        pages = (title, text * 3, None), ("Spree", f"[[{title}]]. " + text, None)
        write_dump(Path(f"{language}wiki-1-pages-articles.xml.bz2"), *pages, language=language)
    sites = {name: {f"{language}wiki": {"title": name} for language in PAGES} for name in ("Berlin", "Spree")}
    lines = [json.dumps({"id": f"Q{k}", "sitelinks": links}) for k, links in enumerate(sites.values(), start=1)]
    Path("wikidata.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    return tmp_path


def test_languages_of_dumps(dumps, capsys):
    """The dumps say which language they are in; DIR is named after them; without --wikidata it is a mistake."""
    command = "--wiki de en sw --wikidata wikidata.json --workers 1 --vocab-size 150"
    prepare_wiki.main(command.split())
    assert sorted(path.name for path in (dumps / "data/de-en-sw").iterdir()) == ["de", "en", "sw"]
    said = capsys.readouterr().out
    assert said.count("written to ") == 3
    assert "wikidata    6 titles of 3 languages are 2 entities\n" in said
    for language in PAGES:
        lines = (dumps / f"data/de-en-sw/{language}/entity_vocab.jsonl").read_text().splitlines()
        found = {line["wikidata"]: line["entities"] for line in map(json.loads, lines) if "wikidata" in line}
        assert found == {item: [[name, of] for of in PAGES] for item, name in (("Q1", "Berlin"), ("Q2", "Spree"))}
    for wrong, what in {
        "--wiki de en": "enwiki-1-pages-articles.xml.bz2: language en, but de in the files before; several .* --wikidata",
        "--wiki de en sw --wikidata wikidata.json --language de en": "--language de en: expected one for all of the 3",
        "--wiki de en --wikidata enwiki-1-pages-articles.xml.bz2": "line 1: damaged",
    }.items():
        with pytest.raises(ValueError, match=what):
            prepare_wiki.main(f"{wrong} --workers 1 --vocab-size 150".split())


def test_parts_of_a_dump_are_one_language(dumps):
    """--language names one for all files, or one for each."""
    paths = "dewiki-1-pages-articles.xml.bz2 enwiki-1-pages-articles.xml.bz2"
    prepare_wiki.main(f"--dump {paths} --language de --out one --workers 1 --vocab-size 150".split())
    assert manifest(Path("one"))["sources"] == paths.split() and manifest(Path("one"))["language"] == "de"
    more = "swwiki-1-pages-articles.xml.bz2 --language de de sw --wikidata wikidata.json --entities listed.txt"
    Path("listed.txt").write_text("de:Bonn\nSpree\nsw:Havel\n")
    given = f"--dump {paths} {more} --entities-only --keep-red-links --out two --workers 1 --vocab-size 150"
    prepare_wiki.main(given.split())
    assert manifest(Path("two/de"))["sources"] == paths.split()
    keys = [line["entities"] for line in map(json.loads, Path("two/sw/entity_vocab.jsonl").read_text().splitlines())]
    assert keys[3:-1] == [[["Spree", "de"], ["Spree", "sw"]], [["Bonn", "de"]]]


def test_a_part_without_pages(dumps):
    """It cannot say its language, and has nothing that would be in another one."""
    write_dump(Path("empty.xml"))
    prepare_wiki.main("--dump dewiki-1-pages-articles.xml.bz2 empty.xml --out one --workers 1 --vocab-size 150".split())
    assert manifest(Path("one"))["language"] == "de"


def test_one_language_gets_wikidata_ids(dumps):
    prepare_wiki.main("--wiki de --wikidata wikidata.json --out one --workers 1 --vocab-size 150".split())
    vocab = EntityVocab.load("one/entity_vocab.jsonl")
    assert [vocab.entity(k) for k in (3, 4)] == [([("Berlin", "de")], 5, "Q1"), ([("Spree", "de")], 4, "Q2")]
    statistics = Mentions.load("one/mentions.safetensors")
    assert statistics.items_of("die Stadt") == {"Berlin": "Q1"} and statistics.items_of("Spree") == {"Spree": "Q2"}


def test_no_traceback(dumps, capfd):
    Path("cut.json").write_text('[\n{"sitelinks":{"dewiki"')
    with pytest.raises(SystemExit):
        files.run(lambda: prepare_wiki.main("--wiki de en --wikidata cut.json --workers 1 --vocab-size 150".split()), "x")
    assert capfd.readouterr().err == ('x: error: cut.json, line 2: damaged, expected an item with "sitelinks": '
                                      '{"enwiki": {"title": "Berlin"}}\n')  # fmt: skip

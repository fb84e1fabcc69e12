"""The built-in encyclopedia: same bytes everywhere, a dump that is a dump, links that resolve, facts that agree, and
NER files that a lookup table cannot solve. The checks read the files with a few regular expressions of their own.

Run: python -m pytest -q tests/test_toyworld.py
"""

import bz2
import hashlib
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from luke_mini import toyworld
from luke_mini.toyworld_facts import KINDS, build_world, read_sections

ROOT = Path(__file__).resolve().parent.parent
XML = "{http://www.mediawiki.org/xml/export-0.11/}"
TYPE_NAMES = {"PER", "LOC", "ORG", "MISC"}


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    path = tmp_path_factory.mktemp("toyworld") / "dump.xml.bz2"
    toyworld.write_dump(path)
    return path


@pytest.fixture(scope="module")
def pages(dump):
    """(namespace, title, redirect or None, wikitext) of every page, read as any XML reader would."""
    root = ElementTree.fromstring(bz2.decompress(dump.read_bytes()))
    out = []
    for page in root.iter(XML + "page"):
        redirect = page.find(XML + "redirect")
        out.append((int(page.find(XML + "ns").text), page.find(XML + "title").text,
                    None if redirect is None else redirect.get("title"), page.find(f"{XML}revision/{XML}text").text))
    return out


@pytest.fixture(scope="module")
def articles(pages):
    return {title: wikitext for namespace, title, redirect, wikitext in pages
            if namespace == 0 and redirect is None and "{{disambiguation}}" not in wikitext}


def running_text(wikitext):
    """Without templates, tables, references, comments, headings, files, categories; links still in brackets."""
    wikitext = re.sub(r"<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>|<references />|\{\|.*?\|\}", "", wikitext, flags=re.S)
    while (shorter := re.sub(r"\{\{[^{}]*\}\}", "", wikitext)) != wikitext:
        wikitext = shorter
    wikitext = re.sub(r"\[\[(File|Category|fr):(\[\[[^\[\]]*\]\]|[^\[\]])*\]\]|^=.*=$", "", wikitext, flags=re.M)
    return re.sub(r"\[https?:\S* ([^\]]*)\]", r"\1", wikitext)


def plain(wikitext):
    text = re.sub(r"\[\[(?:[^|\[\]]*\|)?([^\[\]]*)\]\]", r"\1", running_text(wikitext))
    return text.replace("&nbsp;", " ").replace("&ndash;", "–").replace("'''", "").replace("''", "")


@pytest.fixture(scope="module")
def ner_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ner") / "made"
    toyworld.write_ner(folder)
    return folder


@pytest.fixture(scope="module")
def ner(ner_folder):
    """split -> documents -> sentences -> (word, tag)."""
    folder = ner_folder
    return {split: read_conll(folder / f"{split}.conll") for split in ("train", "dev", "test")}


def read_conll(path):
    documents = []
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n\n") and "\n\n\n" not in text
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        if lines == ["-DOCSTART- -X- O O"]:
            documents.append([])
            continue
        rows = [line.split(" ") for line in lines]
        assert all(len(row) == 4 and all(row) for row in rows), block
        documents[-1].append([(row[0], row[3]) for row in rows])
    return documents


def spans(sentence):
    """{(start, end, type)} by the rule of IOB1: B starts anew, I goes on if the type is the same."""
    out, start, kind = set(), 0, None
    for i, (_, tag) in enumerate([*sentence, ("", "O")]):
        if kind and (tag == "O" or tag[0] == "B" or tag[2:] != kind):
            out.add((start, i, kind))
            kind = None
        if tag != "O" and kind is None:
            start, kind = i, tag[2:]
    return out


def mentions(documents):
    return [(" ".join(word for word, _ in sentence[start:end]), kind)
            for document in documents for sentence in document for start, end, kind in sorted(spans(sentence))]


# ---- same bytes

def write_both(folder, hash_seed, seed):
    """Digest of everything written by a fresh process."""
    code = ("import sys; from luke_mini import toyworld; folder, seed = sys.argv[1], int(sys.argv[2]); "
            "toyworld.write_dump(folder + '/d.xml.bz2', seed, 200); toyworld.write_ner(folder, seed, 200)")
    folder.mkdir()
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(folder), str(seed)], check=True, env=environment)
    assert sorted(path.name for path in folder.iterdir()) == ["d.xml.bz2", "dev.conll", "test.conll", "train.conll"]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]


def test_a_seed_gives_the_same_bytes_in_every_process(tmp_path):
    first = write_both(tmp_path / "a", hash_seed=1, seed=0)
    assert write_both(tmp_path / "b", hash_seed=2, seed=0) == first
    other = write_both(tmp_path / "c", hash_seed=1, seed=1)
    assert all(one != two for one, two in zip(first, other))


def test_the_bytes_are_the_recorded_ones(dump, ner_folder):
    """On every platform and with every Python; whoever changes a sentence records the new digests."""
    files = [bz2.decompress(dump.read_bytes())]
    files.append(b"".join((ner_folder / f"{split}.conll").read_bytes() for split in ("train", "dev", "test")))
    assert [hashlib.sha256(data).hexdigest() for data in files] == [
        "80931ddfef93c541bee5af5c68ab029fcc2db3d40245d701a8edebe20bbefe50",
        "20ebd176b9bba7fa3a9b2350ea7e939b773e48b9726e4e066277ab935d8382ea"]


def test_making_everything_takes_seconds(tmp_path, yardstick):
    start = time.process_time()
    toyworld.write_dump(tmp_path / "dump.xml.bz2", seed=3)
    toyworld.write_ner(tmp_path, seed=3)
    assert time.process_time() - start < 150 * yardstick


@pytest.mark.parametrize("pages", [50, 120])
def test_small_worlds_work_and_too_small_ones_say_so(tmp_path, pages):
    toyworld.write_dump(tmp_path / "dump.xml.bz2", pages=pages)
    toyworld.write_ner(tmp_path, pages=pages)
    assert len(mentions(read_conll(tmp_path / "test.conll"))) > 500
    with pytest.raises(ValueError, match="49.*at least 50"):
        toyworld.write_dump(tmp_path / "none.xml.bz2", pages=49)
    assert not (tmp_path / "none.xml.bz2").exists()


# ---- the dump

def test_the_dump_has_the_frame_of_an_export(dump):
    data = dump.read_bytes()
    streams, rest = 0, data
    while rest:
        decompressor = bz2.BZ2Decompressor()
        decompressor.decompress(rest)
        rest, streams = decompressor.unused_data, streams + 1
    assert streams > 20  # like the multistream dumps
    root = ElementTree.fromstring(bz2.decompress(data))
    assert root.tag == XML + "mediawiki" and root.get("{http://www.w3.org/XML/1998/namespace}lang") == "en"
    site = root.find(XML + "siteinfo")
    assert site.find(XML + "dbname").text == "toywiki"
    names = {(name.get("key"), name.text) for name in site.iter(XML + "namespace")}
    assert names >= {("0", None), ("6", "File"), ("14", "Category")}
    ids = [page.find(XML + "id").text for page in root.iter(XML + "page")]
    assert len(set(ids)) == len(ids)
    for text in root.iter(XML + "text"):
        assert int(text.get("bytes")) == len(text.text.encode())


def test_how_much_there_is(pages, articles):
    assert len({title for _, title, _, _ in pages}) == len(pages)
    kinds = Counter("redirect" if redirect else namespace for namespace, _, redirect, _ in pages)
    assert 2900 <= len(articles) <= 3100
    assert kinds["redirect"] > 1500 and kinds[0] - len(articles) > 300  # the latter: disambiguation pages
    assert kinds[6] and kinds[10] and kinds[14]
    words = sum(len(re.findall(r"\w+", plain(text))) for text in articles.values())
    assert 350_000 <= words <= 450_000


def test_every_link_in_running_text_resolves(pages, articles):
    titles = {title: redirect for namespace, title, redirect, _ in pages if namespace == 0}
    targets = Counter()
    for text in articles.values():
        for link in re.findall(r"\[\[([^|\[\]]*)", running_text(text)):
            title = link.split("#")[0].replace("_", " ")
            title = title[0].upper() + title[1:]
            for _ in range(3):
                title = titles.get(title, "missing") or title
            assert title in articles, link
            targets[title] += 1
    assert len(targets) > 0.95 * len(articles)
    assert sum(count >= 5 for count in targets.values()) > 1500


def test_nothing_of_the_templates_or_of_the_markup_is_left_over(articles):
    for title, text in articles.items():
        assert not re.search(r"[<>|{}\[\]~]", plain(text)), (title, plain(text))
        assert not re.search(r"\b[Aa] (?=[AEIOUaeiou])|None| ,| \.", plain(text)), (title, plain(text))


def test_the_markup_that_a_parser_must_know_is_there(articles):
    everything = "\n".join(articles.values())
    for feature in (r"\{\{Infobox [^{}]*\{\{", r"<ref>\{\{", r"<ref name=[^>]*/>", r"\{\| class", r"\[\[Category:",
                    r"\[\[File:[^\[\]]*\[\[", r"^== .* ==$", r"^\* ", r"<!--", r"&nbsp;", r"&ndash;", r"\[\[[^\[\]]*\|",
                    r"\]\]s\b", r"'''", r"''\[\[", r"\[https://\S+ ", r"\[\[fr:", r"#History\|", r"\[\[\w+_",
                    r"\[\[[a-z]"):
        assert re.search(feature, everything, flags=re.M), feature


def test_facts_agree_wherever_they_are_told(articles):
    """Birthplaces in the sentences of an article against its infobox, and against the other person's page."""
    seen = 0
    for title, text in articles.items():
        box = re.search(r"\| born = \{\{nowrap\|\[\[([^\]]*)", text)
        told = re.search(r"was born in \[\[([^|\]#]*)", running_text(text))
        if box and told:
            seen += 1
            assert told[1].replace("_", " ").split(",")[0] == box[1], title
    assert seen > 300


def test_there_is_variety():
    sections = read_sections()
    for kind in KINDS:
        templates = [line for line in sections[f"article {kind}"] if not line.startswith("==")]
        assert kind == "concept" or len(templates) >= 15, kind


def test_one_name_means_several_things():
    world = build_world()
    types = {surface: {KINDS[entity.kind].ner for entity in owners} for surface, owners in world.senses.items()}
    assert sum(len(found) >= 2 for found in types.values()) >= 200
    assert sum(len(found) >= 3 for found in types.values()) >= 20
    kinds = Counter(entity.kind for entity in world.entities.values())
    assert set(kinds) == set(KINDS)


def test_the_samples_in_the_docstring_are_real(articles, ner_folder):
    samples = [line.strip() for line in toyworld.__doc__.split("\n") if line.startswith("    ")]
    labels = (ner_folder / "test.conll").read_text(encoding="utf-8")
    assert len(samples) == 5
    for sample in samples:
        assert sample.replace(" | ", "\n") in (labels if " | " in sample else articles["Hesknor"]), sample


# ---- named entity recognition

def test_tags_are_legal_and_every_type_is_there(ner):
    for split, wanted in (("train", 350), ("dev", 300), ("test", 600)):
        documents = ner[split]
        assert all(4 <= len(document) <= 8 for document in documents)
        assert wanted <= sum(map(len, documents)) < wanted + 8
        for sentence in (sentence for document in documents for sentence in document):
            previous = "O"
            for _, tag in sentence:
                assert tag == "O" or (tag[1] == "-" and tag[0] in "IB" and tag[2:] in TYPE_NAMES)
                assert tag[0] != "B" or previous[2:] == tag[2:]  # IOB1: B only where I would not separate
                previous = tag
        assert any(tag[0] == "B" for document in documents for sentence in document for _, tag in sentence)
        counts = Counter(kind for _, kind in mentions(documents))
        assert set(counts) == TYPE_NAMES and min(counts.values()) > 0.08 * sum(counts.values())


def test_labels_are_senses_that_the_world_knows(ner):
    world = build_world()
    for surface, kind in mentions(ner["test"]):
        assert kind in {KINDS[entity.kind].ner for entity in world.senses[surface]}


def test_most_of_the_test_is_held_out_but_in_the_encyclopedia(ner, articles):
    known = set(mentions(ner["train"]))
    found = mentions(ner["test"])
    held_out = [mention for mention in found if mention not in known]
    assert len(held_out) >= 0.7 * len(found)
    text = " ".join(plain(wikitext) for wikitext in articles.values())
    assert all(surface in text for surface, _ in held_out)


def lookup_f1(train, test):
    """Memorise the commonest type of each training surface; tag the longest match, left to right."""
    votes = defaultdict(Counter)
    for surface, kind in mentions(train):
        votes[surface][kind] += 1
    gold = right = guessed = 0
    for sentence in (sentence for document in test for sentence in document):
        words, i, answer = [word for word, _ in sentence], 0, set()
        while i < len(words):
            ends = [j for j in range(len(words), i, -1) if " ".join(words[i:j]) in votes]
            if ends:
                answer.add((i, ends[0], votes[" ".join(words[i:ends[0]])].most_common(1)[0][0]))
            i = ends[0] if ends else i + 1
        gold, guessed, right = gold + len(spans(sentence)), guessed + len(answer), right + len(answer & spans(sentence))
    return 2 * right / (gold + guessed)


def test_a_lookup_table_is_not_enough(ner):
    assert lookup_f1(ner["train"], ner["train"]) > 0.8  # the baseline itself works
    assert lookup_f1(ner["train"], ner["test"]) < 0.35


def test_the_same_name_has_several_types_in_the_test_file(ner):
    types = defaultdict(set)
    for surface, kind in mentions(ner["test"]):
        types[surface].add(kind)
    assert sum(len(found) >= 2 for found in types.values()) >= 15

"""The built-in encyclopedia: same bytes everywhere, a dump that is a dump, links that resolve, facts that agree. The
checks read the files with a few regular expressions of their own.

Run: python -m pytest -q tests/test_toyworld.py
"""

import bz2
import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest

from luke_mini import toyworld
from luke_mini.toyworld_facts import KINDS, build_world, read_sections

XML = "{http://www.mediawiki.org/xml/export-0.11/}"


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    path = tmp_path_factory.mktemp("toyworld") / "dump.xml.bz2"
    toyworld.write_dump(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def root(dump):
    return ElementTree.fromstring(bz2.decompress(dump))


@pytest.fixture(scope="module")
def pages(root):
    """(namespace, title, redirect or None, wikitext) of every page, read as any XML reader would."""
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


@pytest.fixture(scope="module")
def running_texts(articles):
    """Without templates, tables, references, comments, headings, files, categories; links still in brackets."""

    def cut(text):
        text = re.sub(r"<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>|<references />|\{\|.*?\|\}", "", text, flags=re.S)
        while (shorter := re.sub(r"\{\{[^{}]*\}\}", "", text)) != text:
            text = shorter
        text = re.sub(r"\[\[(File|Category|fr):(\[\[[^\[\]]*\]\]|[^\[\]])*\]\]|^=.*=$", "", text, flags=re.M)
        return re.sub(r"\[https?:\S* ([^\]]*)\]", r"\1", text)

    return {title: cut(text) for title, text in articles.items()}


@pytest.fixture(scope="module")
def plain_texts(running_texts):
    def plain(text):
        text = re.sub(r"\[\[(?:[^|\[\]]*\|)?([^\[\]]*)\]\]", r"\1", text)
        return text.replace("&nbsp;", " ").replace("&ndash;", "–").replace("'''", "").replace("''", "")

    return {title: plain(text) for title, text in running_texts.items()}


def test_the_bytes_are_the_recorded_ones(dump):
    """On every platform and with every Python; whoever changes a sentence records the new digest."""
    digest = hashlib.sha256(bz2.decompress(dump)).hexdigest()
    assert digest == "80931ddfef93c541bee5af5c68ab029fcc2db3d40245d701a8edebe20bbefe50"


def test_small_worlds_work_and_too_small_ones_say_so(tmp_path):
    path, made = tmp_path / "dump.xml.bz2", []
    for seed in (0, 0, 1):
        toyworld.write_dump(path, seed, 50)
        made.append(path.read_bytes())
    assert made[0] == made[1] != made[2]
    assert bz2.decompress(made[0]).count(b"<page>") > 50
    with pytest.raises(ValueError, match="49.*at least 50"):
        toyworld.write_dump(tmp_path / "none.xml.bz2", pages=49)
    assert [one.name for one in tmp_path.iterdir()] == ["dump.xml.bz2"]


def test_the_dump_has_the_frame_of_an_export(dump, root):
    streams, rest = 0, dump
    while rest:
        decompressor = bz2.BZ2Decompressor()
        decompressor.decompress(rest)
        rest, streams = decompressor.unused_data, streams + 1
    assert streams > 20  # like the multistream dumps
    assert root.tag == XML + "mediawiki" and root.get("{http://www.w3.org/XML/1998/namespace}lang") == "en"
    assert root.find(f"{XML}siteinfo/{XML}dbname").text == "toywiki"
    names = {(name.get("key"), name.text) for name in root.iter(XML + "namespace")}
    assert names >= {("0", None), ("6", "File"), ("14", "Category")}
    ids = [page.find(XML + "id").text for page in root.iter(XML + "page")]
    assert len(set(ids)) == len(ids)
    assert all(int(text.get("bytes")) == len(text.text.encode()) for text in root.iter(XML + "text"))


def test_how_much_there_is(pages, articles, plain_texts):
    assert len({title for _, title, _, _ in pages}) == len(pages)
    kinds = Counter("redirect" if redirect else namespace for namespace, _, redirect, _ in pages)
    assert 2900 <= len(articles) <= 3100
    assert kinds["redirect"] > 1500 and kinds[0] - len(articles) > 300  # the latter: disambiguation pages
    assert kinds[6] and kinds[10] and kinds[14]
    assert 350_000 <= sum(len(re.findall(r"\w+", text)) for text in plain_texts.values()) <= 450_000


def test_every_link_in_running_text_resolves(pages, articles, running_texts):
    titles = {title: redirect for namespace, title, redirect, _ in pages if namespace == 0}
    targets = Counter()
    for link in re.findall(r"\[\[([^|\[\]]*)", "\n".join(running_texts.values())):
        title = link.split("#")[0].replace("_", " ")
        title = title[0].upper() + title[1:]
        for _ in range(3):
            title = titles.get(title, "missing") or title
        assert title in articles, link
        targets[title] += 1
    assert len(targets) > 0.95 * len(articles)
    assert sum(count >= 5 for count in targets.values()) > 1500


def test_nothing_of_the_templates_or_of_the_markup_is_left_over(plain_texts):
    for title, text in plain_texts.items():
        assert not re.search(r"[<>|{}\[\]~]|\b[Aa] (?=[AEIOUaeiou])|None| ,| \.", text), (title, text)


def test_the_markup_that_a_parser_must_know_is_there(articles):
    everything = "\n".join(articles.values())
    for feature in (r"\{\{Infobox [^{}]*\{\{", r"<ref>\{\{", r"<ref name=[^>]*/>", r"\{\| class", r"\[\[Category:",
                    r"\[\[File:[^\[\]]*\[\[", r"^== .* ==$", r"^\* ", r"<!--", r"&nbsp;", r"&ndash;", r"\[\[[^\[\]]*\|",
                    r"\]\]s\b", r"'''", r"''\[\[", r"\[https://\S+ ", r"\[\[fr:", r"#History\|", r"\[\[\w+_",
                    r"\[\[[a-z]"):
        assert re.search(feature, everything, flags=re.M), feature


def test_facts_agree_wherever_they_are_told(articles, running_texts):
    """Birthplaces in the sentences of an article against its infobox."""
    seen = 0
    for title, text in articles.items():
        box = re.search(r"\| born = \{\{nowrap\|\[\[([^\]]*)", text)
        told = re.search(r"was born in \[\[([^|\]#]*)", running_texts[title])
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
    counts = [len({KINDS[entity.kind].ner for entity in owners}) for owners in world.senses.values()]
    assert sum(count >= 2 for count in counts) >= 200 and sum(count >= 3 for count in counts) >= 20
    assert {entity.kind for entity in world.entities.values()} == set(KINDS)


def test_the_sample_in_the_docstring_is_real(articles):
    samples = [line.strip() for line in toyworld.__doc__.split("\n") if line.startswith("    ")]
    assert len(samples) == 3 and all(sample in articles["Hesknor"] for sample in samples)


def test_other_articles_tell_of_the_same_entities_in_other_sentences(articles):
    found = dict(toyworld.other_articles(0))
    assert len(found) == -(-len(build_world(0).entities) // 20) and found.keys() < articles.keys()
    new = 0
    for title, text in found.items():
        linked = set(re.findall(r"\[\[([^\]|#:]*)\]\]", text))
        assert not title.startswith("File:") and text != articles[title]
        new += len(linked)
    assert new > 500
    assert dict(toyworld.other_articles(1)).keys() != found.keys()

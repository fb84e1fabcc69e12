"""Dumps made here, in every packing and state of damage, and real ones against ElementTree and the bz2 module.

pytest tests/test_wiki_dump.py
"""

import bz2
import gc
import gzip
import io
import lzma
import random
import re
import time
import tracemalloc
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini import wiki_dump
from luke_mini.wiki_dump import Page, read_dump
from luke_mini.wikitext import Site, normalize_title

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>dewiki</dbname> <base>https://de.wikipedia.org/wiki/Wikipedia:Hauptseite</base>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">Diskussion</namespace>
    </namespaces>
  </siteinfo>
"""

WIKI = "https://de.wikipedia.org/wiki/"


def page_xml(title: str, text: str, ns: str = "<ns>0</ns>", redirect: str = "") -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return f"""  <page>
    <title>{title.replace("&", "&amp;")}</title>
    {ns}
    <id>7</id>{redirect}
    <revision>
      <id>8</id>
      <contributor><username>text</username><id>9</id></contributor>
      <comment>title</comment>
      <text bytes="9" xml:space="preserve">{text}</text>
    </revision>
  </page>
"""


def dump_xml(*pages: str, head: str = HEAD) -> bytes:
    return (head + "".join(pages) + "</mediawiki>\n").encode()


PAGES = [
    page_xml("Å & B", "A <b>''x''</b> & y\n\nß"),
    page_xml("Diskussion:Å", "talk", "<ns>1</ns>"),
    page_xml("Alt", "#WEITERLEITUNG [[Neu]]", redirect='<redirect title="neu_zwei#Teil &amp;amp; C" />'),
    page_xml("Leer", ""),
]
EXPECTED = [
    Page("Å & B", None, "A <b>''x''</b> & y\n\nß", "de", WIKI),
    Page("Alt", "Neu zwei", "#WEITERLEITUNG [[Neu]]", "de", WIKI),
    Page("Leer", None, "", "de", WIKI),
]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def read(tmp_path: Path, *pages: str, head: str = HEAD) -> list[Page]:
    return list(read_dump(write(tmp_path / "x.xml", dump_xml(*pages, head=head))))


# -------------------------------------------------------------------------------------------------------------- packing


@pytest.mark.parametrize(
    "name, pack",
    [
        ("a.xml", bytes), ("a.xml.gz", gzip.compress), ("a.xml.bz2", bz2.compress),
        ("multistream.xml.bz2", lambda xml: b"".join(bz2.compress(xml[i : i + 100]) for i in range(0, len(xml), 100))),
        ("two-members.xml.gz", lambda xml: gzip.compress(xml[:500]) + gzip.compress(xml[500:])),
        ("wrong-name.xml", bz2.compress), ("wrong-name.bz2", gzip.compress), ("no-name", bytes),
    ],
)  # fmt: skip
def test_every_packing_gives_the_same_pages(tmp_path, monkeypatch, name, pack):
    path = write(tmp_path / name, pack(dump_xml(*PAGES)))
    for threads in (1, 3):
        monkeypatch.setattr(wiki_dump, "_threads", lambda: threads)
        sizes = []
        assert list(read_dump(path, on_bytes=sizes.append)) == list(read_dump(str(path))) == EXPECTED
        assert sum(sizes) == path.stat().st_size


def test_parts_are_several_calls(tmp_path):
    parts = [write(tmp_path / f"part{i}.xml", dump_xml(page)) for i, page in enumerate(PAGES)]
    assert [page for part in parts for page in read_dump(part)] == EXPECTED


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_bzip2_blocks_equal_the_bz2_module(data):
    """Streams of all block sizes, of compressible and of random bytes, empty ones too, however the file is cut."""
    streams = []
    for _ in range(data.draw(st.integers(0, 4))):
        source = random.Random(data.draw(st.integers(0, 1000)))
        length = data.draw(st.sampled_from([0, 1, 100, 99_990, 100_010, 350_000]))
        content = source.randbytes(length) if data.draw(st.booleans()) else source.randbytes(1 + length // 50) * 50
        streams.append(bz2.compress(content, data.draw(st.integers(1, 9))))
    packed = b"".join(streams)
    blocks = list(wiki_dump.bzip2_blocks(io.BytesIO(packed)))
    assert b"".join(map(bz2.decompress, blocks)) == bz2.decompress(packed)


def test_bzip2_blocks_find_marks_wherever_reads_end(monkeypatch):
    """A mark may lie across two reads: read in pieces of 1 to 40 bytes."""
    packed = b"".join(bz2.compress(random.Random(i).randbytes(i)) for i in range(40))
    expected = bz2.decompress(packed)
    for size in range(1, 41):
        monkeypatch.setattr(wiki_dump, "CHUNK", size)
        blocks = list(wiki_dump.bzip2_blocks(io.BytesIO(packed)))
        assert b"".join(map(bz2.decompress, blocks)) == expected
        assert len(blocks) == 39  # the stream of nothing has no block


# --------------------------------------------------------------------------------------------------------- what is read


def test_old_dumps_without_ns_are_judged_by_their_titles(tmp_path):
    titles = ("Diskussion:A", "Template:A", "Help talk:A", "2001: A", "Re:Zero", "Help")
    found = read(tmp_path, *(page_xml(title, "x", ns="") for title in titles))
    assert [page.title for page in found] == ["2001: A", "Re:Zero", "Help"]


def test_old_redirects_take_their_target_from_the_text(tmp_path):
    texts = ("#redirect: [[d|e]]", "# [[f]] is a list item", "#REDIRECT [[#h]]")
    untagged = [page_xml(title, text) for title, text in zip("CEG", texts)]
    found = read(tmp_path, page_xml("A", "#WEITERLEITUNG [[b#c]]", redirect="<redirect />"), *untagged)
    assert [page.redirect for page in found] == ["B", "D", None, "G"]


@pytest.mark.parametrize(
    "head, language",
    [
        ('<mediawiki xml:lang="zh-yue">', "zh-yue"), ("<mediawiki>", "en"),
        ("<mediawiki><siteinfo><dbname>zh_yuewiki</dbname></siteinfo>", "zh-yue"),
        ('<mediawiki xml:lang="ja"><siteinfo><dbname>enwiki</dbname></siteinfo>', "ja"),
    ],
)  # fmt: skip
def test_language_from_root_or_from_database_name(tmp_path, head, language):
    assert read(tmp_path, PAGES[0], head=head)[0].language == language


@pytest.mark.parametrize(
    "case, attribute, expected",
    [("case-sensitive", "", True), ("first-letter", "", False), ("", "", False),
     ("first-letter", 'case="case-sensitive"', True), ("case-sensitive", 'case="first-letter"', False)],
)  # fmt: skip
def test_the_header_becomes_the_rules_of_the_wiki(tmp_path, case, attribute, expected):
    """Articles have a case of their own; in a wiki that keeps case, redirects keep it too."""
    names = f'<namespace key="6">Mynd</namespace><namespace key="0" {attribute}/><namespace key="14">A&amp;B'
    names += "</namespace>"
    head = f'<mediawiki xml:lang="is"><siteinfo><case>{case}</case><namespaces>{names}</namespaces></siteinfo>'
    redirect = page_xml("a", "", redirect='<redirect title="b#c" />')
    found = read(tmp_path, redirect, page_xml("Mynd:d", "", ns=""), head=head)
    assert [(page.title, page.redirect, page.language) for page in found] == [("a", "b" if expected else "B", "is")]
    assert found[0].site == Site("is", ((6, "Mynd"), (0, ""), (14, "A&B")), expected)


def test_of_several_slots_the_main_one(tmp_path):
    def slot(role: str, text: str) -> str:
        return f"<content><role>{role}</role><origin>1</origin><model>x</model><text>{text}</text></content>"

    plain = PAGES[3].replace("</revision>", slot("mediainfo", "{}") + "</revision>")
    first = PAGES[0].replace("<revision>", "<revision>" + slot("mediainfo", "{}"))
    named = re.sub("<text.*</text>", slot("other", "{}") + slot("main", "y") + slot("z", "{}"), PAGES[3])
    assert [page.wikitext for page in read(tmp_path, plain, first, named)] == ["", EXPECTED[0].wikitext, "y"]


@pytest.mark.parametrize("namespace", ['xmlns="http://www.mediawiki.org/xml/export-0.3/"', "", 'xmlns:mw="urn:x"'])
def test_any_xml_namespace(tmp_path, namespace):
    xml = dump_xml(*PAGES, head=f'<mediawiki {namespace} xml:lang="de">').decode()
    if "mw" in namespace:
        names = "mediawiki|page|title|ns|id|redirect|revision|contributor|username|comment|text"
        xml = re.sub(f"<(/?)(?=(?:{names})\\b)", r"<\1mw:", xml)
    found = list(read_dump(write(tmp_path / "x.xml", xml.encode())))
    assert found == [replace(page, wiki="") for page in EXPECTED]  # no <base>, no address


def test_of_several_revisions_the_last(tmp_path):
    page = PAGES[0].replace("</page>", "<revision><text>new</text></revision></page>")
    assert [found.wikitext for found in read(tmp_path, page)] == ["new"]


SHAPES = [
    page_xml("Å &lt; B", "x > y &amp;lt;"), page_xml("A", "b", redirect='<redirect title="O&#039;C" />'),
    PAGES[0].replace("<comment>title</comment>", '<minor /><comment deleted="deleted" />'),
    PAGES[0].replace("<id>7</id>", "<id>7</id><restrictions>move=sysop</restrictions>"),
    PAGES[0].replace("<username>text</username><id>9</id>", "<ip>::1</ip>"), PAGES[0].replace("\n", "\r\n"),
    PAGES[0].replace("<text", "<!-- <page> </page> --><text"), PAGES[0].replace("</text>", "<![CDATA[</page>]]></text>"),
    PAGES[3].replace("></text>", " />"), PAGES[1].replace("talk", "<page></page>"), *PAGES,
]  # fmt: skip
CHANGES = [*"<>&\"'/\r\t\0\x0b\ufffe\uffff a", "&lt;", "&#9;", "&nbsp;", "]]>", "</page>", "<page>", "</text>", "<!--", "-->"]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=5), st.data())
def test_pages_of_the_usual_shape_are_what_expat_makes_of_them(pages, data):
    """However the XML is cut, also where a character of it is lost, doubled or another."""
    xml = dump_xml(PAGES[3], *pages).decode()
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(xml)))
        xml = xml[:at] + data.draw(st.sampled_from(["", *CHANGES])) + xml[at + data.draw(st.integers(0, 1)) :]
    found, size = [], data.draw(st.sampled_from([1, 7, 100, 1000, 10_000]))
    for is_utf8 in (True, False):
        handler, pages = wiki_dump._Handler("x"), []
        handler.parser.XmlDeclHandler, handler.is_utf8 = None, is_utf8
        encoded = xml.encode()
        try:
            for start in range(0, len(encoded), size):
                pages += handler.feed(encoded[start : start + size])
            pages += handler.feed(b"", is_last=True)
            found.append((pages, ""))
        except ValueError as error:
            found.append((pages + handler.pages, str(error)))
    (ours, problem), (expected, expected_problem) = found
    if "<ns>1</ns>" in xml and problem != expected_problem:  # damage inside a page that is skipped
        assert expected_problem and ours[: len(expected)] == expected
    else:
        assert (ours, problem) == (expected, expected_problem)


def test_a_dump_without_pages_yields_nothing(tmp_path):
    assert read(tmp_path) == []


# --------------------------------------------------------------------------------------------------------------- errors

XML = dump_xml(*PAGES)
PACKED = bz2.compress(XML)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "is empty"), (b"Just a text.\n", "not a MediaWiki XML dump"),
        (b"<html><body/></html>", "root element is <html>"),
        (b"<pages><page></page></pages>", "root element is <pages>"), (b'{"title": "A"}', "not a MediaWiki XML dump"),
        (bytes(range(256)), "not a MediaWiki XML dump"), (b"BZh", "bzip2 data end early"),
        (b"BZhello, world, hello", r"bzip2 data are damaged \(no stream begins where it should"),
        (bz2.compress(b""), "not a MediaWiki XML dump"),
        (XML[: XML.index(b"Leer")], "the XML ends early, the file is truncated"),
        (XML[: XML.index(b"</mediawiki>")], "the XML ends early"),
        (XML[: XML.index("ß".encode()) + 1], "the XML ends early"), (bz2.compress(XML[:900]), "the XML ends early"),
        (XML.replace(b"</title>", b"", 1), r"the XML is damaged \(mismatched tag at line 22\)"),
        (PACKED[:-20], "bzip2 data end early, the file is truncated"),
        (PACKED[: len(PACKED) // 2], "bzip2 data end early"), (PACKED[:-4], "bzip2 data end early"),
        (PACKED[:200] + bytes([PACKED[200] ^ 4]) + PACKED[201:], "bzip2 data are damaged"),
        (gzip.compress(XML)[:-20], "gzip data end early, the file is truncated"),
        (gzip.compress(XML)[:100] + b"\0\0\0" + gzip.compress(XML)[103:], "gzip data are damaged"),
        # What else one may take for a dump.
        (lzma.compress(XML), r"an \.xz file, expected \.xml, \.xml\.bz2 or \.xml\.gz: unpack it first"),
        (b"7z\xbc\xaf\x27\x1c\0\4", r"a \.7z archive, expected"),
        (b"PK\x03\x04\x14\0\0\0", r"a \.zip archive, expected"),
        (b"616:10:AccessibleComputing\n", "the index of a multistream dump, expected the dump itself"),
        (bz2.compress(b"616:12:Anarchism\n616:25:Autism\n"), "the index of a multistream dump"),
        *((XML.replace(b"<mediawiki", b'<?xml version="1.0" encoding="%s"?><mediawiki' % encoding, 1),
           f"{encoding.decode()}|multi-byte encodings") for encoding in (b"nonsense", b"rot13", b"euc_jp")),
        # Longer than anything in a dump.
        (b"<mediawiki><x y='" + b" " * 6_000_000, "a tag of over 4 MB"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_that_names_the_file(tmp_path, monkeypatch, data, message):
    path, said = write(tmp_path / "some.xml", data), set()
    for threads in (1, 3):
        monkeypatch.setattr(wiki_dump, "_threads", lambda: threads)
        with pytest.raises(ValueError, match=message) as caught:
            list(read_dump(path))
        said.add(str(caught.value))
    (said,) = said
    assert said.startswith(f"{path}: ") and "\n" not in said


@pytest.mark.parametrize("pieces", [1, 3, 40])
def test_every_flipped_bit_of_a_bzip2_file_is_seen(tmp_path, pieces):
    """Or changes nothing: the digit of a stream's size, and the bits that fill up its last byte."""
    size = -(-len(XML) // pieces)
    packed = b"".join(bz2.compress(XML[i : i + size]) for i in range(0, len(XML), size))
    source, silent = random.Random(pieces), 0
    for bit in [*range(80), *source.sample(range(80, len(packed) * 8), 500)]:
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert list(read_dump(write(tmp_path / "x.xml.bz2", damaged))) == EXPECTED
            silent += 1
        except ValueError as error:
            assert "x.xml.bz2" in str(error) and "\n" not in str(error)
    assert silent < 580 * 0.05


def test_every_lost_or_doubled_stream_border_is_seen(tmp_path):
    """The mark that opens a stream, its header, bytes between two streams, a block taken out of its stream."""
    streams = [bz2.compress(XML[i : i + 700]) for i in range(0, len(XML), 700)]
    other_mark, other_header = (lambda s: b"BZh9" + bytes(6) + s[10:]), (lambda s: bytes(4) + s[4:])
    for damage in (other_mark, other_header, lambda s: b"\0" + s, lambda s: bytes(99) + s):
        for k in range(1, len(streams)):
            path = write(tmp_path / "x", b"".join([*streams[:k], damage(streams[k]), *streams[k + 1 :]]))
            with pytest.raises(ValueError, match="bzip2 data are damaged"):
                list(read_dump(path))
    for tail in (b"\0", b"\0" * 5000, b"BZ", b"BZh9", b"BZh91AY&SY", b"text"):
        with pytest.raises(ValueError, match="bzip2 data (end early|are damaged)"):
            list(read_dump(write(tmp_path / "x", b"".join(streams) + tail)))
    text = random.Random(0).randbytes(250_000)  # three blocks
    packed = bz2.compress(text, 1)
    marks = [bit for bit, mark, _ in wiki_dump._find_marks(packed + b"\0", 0)]
    bits = f"{int.from_bytes(packed):0{len(packed) * 8}b}"
    without = bits[: marks[1]] + bits[marks[2] :]
    without = int(without + "0" * (-len(without) % 8), 2).to_bytes(-(-len(without) // 8))
    with pytest.raises(ValueError, match="a block is missing"):
        list(wiki_dump.bzip2_blocks(io.BytesIO(without)))


def test_a_block_that_repeats_itself_comes_in_pieces():
    packed = bz2.compress(b" " * (5 << 20))
    chunks = list(wiki_dump.decompressed(io.BufferedReader(io.BytesIO(packed)), "a"))
    assert len(packed) < 100 and b"".join(chunks) == b" " * (5 << 20) and max(map(len, chunks)) <= 1 << 20


@pytest.mark.parametrize("kind", ["zeros behind half a block", "a comment", "a comment of >"])
def test_bombs_take_linear_time(tmp_path, kind):
    def seconds(megabytes: int) -> float:
        if kind == "zeros behind half a block":
            packed = bz2.compress(random.Random(0).randbytes(400_000).hex().encode())
            data = packed[: len(packed) // 2] + bytes(megabytes << 20)
        else:
            unit = b"   " if kind == "a comment" else b" >-"
            filler = unit * ((megabytes << 20) // 3)
            data = HEAD.encode() + b"<!--" + filler + b" -->" + PAGES[0].encode() + b"<!-- --></mediawiki>"
        path, start = write(tmp_path / "x", data), time.process_time()
        try:
            assert list(read_dump(path)) == EXPECTED[:1]
        except ValueError as error:
            assert "no end of a block for 2 MB" in str(error)
        return time.process_time() - start

    assert seconds(48) < max(6 * seconds(12), 0.3)


def test_an_endless_text_is_an_error(tmp_path, monkeypatch):
    """Its page is named. Many long pages are none."""
    monkeypatch.setattr(wiki_dump, "MAX_ELEMENT", 1 << 20)
    long = [page_xml(f"P{k}", "x" * 900_000) for k in range(4)]
    assert len(read(tmp_path, *long)) == 4
    with pytest.raises(ValueError, match="x.xml: .*a text of over 1 MB, after the title 'Endless'"):
        read(tmp_path, *long, page_xml("Endless", "x " * 900_000))


def test_pages_before_the_damage_are_read(tmp_path):
    path = write(tmp_path / "some.xml", XML[: XML.index(b"Leer")])
    pages = []
    with pytest.raises(ValueError):
        pages.extend(read_dump(path))
    assert pages == EXPECTED[:2]


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_dump(tmp_path / "none.xml.bz2"))
    with pytest.raises(IsADirectoryError):
        list(read_dump(tmp_path))


@pytest.mark.parametrize("pack, megabytes", [(bytes, 24), (gzip.compress, 24), (bz2.compress, 8)])
def test_memory_stays_bounded(tmp_path, monkeypatch, pack, megabytes):
    """Beside the biggest page, of 2 MB, a few MB are in use at any time; no more for the whole than for half of it."""

    def peak(number_of_pages: int) -> int:
        text = random.Random(1).randbytes(500).hex() * 30
        pages = [page_xml(f"P{i}", text) for i in range(number_of_pages)]
        pages[3] = page_xml("Big", "x" * 2_000_000)
        path = write(tmp_path / "big", pack(dump_xml(*pages)))
        del pages
        gc.collect()
        tracemalloc.start()
        count = sum(1 for _ in read_dump(path))
        in_use = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == number_of_pages
        return in_use

    monkeypatch.setattr(wiki_dump, "MAX_THREADS", 2)
    half, whole = peak(megabytes * 500 // 30), peak(megabytes * 1000 // 30)
    # The big page counts twice while its pieces are joined; bzip2 holds some blocks of 900,000 bytes.
    assert whole < 2 * 2_000_000 + (10_000_000 if pack is bz2.compress else 4_000_000)
    assert whole < 1.2 * half


# ----------------------------------------------------------------------------------------------------------- real dumps


@pytest.mark.parametrize("name", ["enwiki-106-pages", "jawiki-2023", "dewiki-mini", "zhwiki-mini"])
def test_real_dumps_equal_elementtree(name):
    path = shared_data(f"wiki/{name}.xml.bz2")
    root = ElementTree.fromstring(bz2.decompress(path.read_bytes()))
    schema = root.tag.removesuffix("mediawiki")
    expected = []
    for page in root.iter(schema + "page"):
        redirect = page.find(schema + "redirect")
        target = None if redirect is None else normalize_title(redirect.get("title"))
        text = page.find(f"{schema}revision/{schema}text").text or ""
        if page.find(schema + "ns").text == "0":
            expected.append((page.find(schema + "title").text, target, text))
    pages = list(read_dump(path))
    assert [(page.title, page.redirect, page.wikitext) for page in pages] == expected
    assert {page.language for page in pages} == {root.get("{http://www.w3.org/XML/1998/namespace}lang")}

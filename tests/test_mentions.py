"""Mention statistics: names by hand in several scripts; counts, probabilities and detection against brute force on
strings without any trie or hash; files; and a real dump where there is one. Listed mentions, by hand and by brute
force.

    python -m pytest -q tests/test_mentions.py
"""

import json
import re
import unicodedata
from collections import Counter
from itertools import chain, islice, pairwise

import numpy as np
import pytest
import safetensors.numpy
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini import mentions, wiki_dump, wikitext
from luke_mini.mentions import Mention, Mentions, count_links, count_pages, from_links, make_trie, with_pages
from luke_mini.mentions import find_listed, list_detector, list_mentions, no_detector, statistics_detector
from luke_mini.mentions import normalize, normalize_word, word_spans
from luke_mini.wikitext import Link, Paragraph

# --- Names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "surface, name",
    [
        ("New  York\n", "new york"),
        ("Zoë's ÉLAN", "zoe ' s elan"),
        ("U.S.-led", "u . s . - led"),
        ("3 €", "3 €"),  # a symbol outside ASCII is a letter among others, as in BERT
        ("東京 23区", "東 京 23 区"),
        ("iPhone手机", "iphone 手 机"),
        ("がかガ、", "が か ガ 、"),
        ("ประเทศไทย", "ป ร ะ เ ท ศ ไ ท ย"),
        ("นี้", "นี้"),  # a consonant with its two marks
        ("हिन्दी की", "हिन्दी की"),
        ("Ελλάδα Й", "ελλαδα и"),
        ("서울은", "서울은"),
        ("_", "_"),
        (" ", ""),
    ],
)
def test_names_by_hand(surface, name):
    assert normalize(surface) == unicodedata.normalize("NFC", name)


@given(st.text(max_size=12))
def test_a_name_is_its_own_words(text):
    """Normalizing a word again changes nothing: the trie hashes names, a text its words."""
    words = normalize(text).split(" ")
    assert [normalize_word(word) for word in words] == words
    assert normalize(text.replace(" ", "\n")) == normalize(text)


# --- Brute force --------------------------------------------------------------------------------------------------

WORDS = ["a", "B", "b", "cé", "-", "東", "京"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=10).map(" ".join)


@st.composite
def corpora(draw):
    """Pages of paragraphs, some of their words linked."""
    pages = []
    for _ in range(draw(st.integers(1, 4))):
        paragraphs = []
        for text in draw(st.lists(TEXTS, min_size=1, max_size=3)):
            spans = [match.span() for match in re.finditer(r"\S+", text)]
            cuts = sorted(draw(st.sets(st.integers(0, len(spans)))))
            links = [
                Link(draw(st.sampled_from("XYZ")), spans[i][0], spans[j - 1][1])
                for i, j in zip(cuts, cuts[1:])
                if draw(st.booleans())
            ]
            paragraphs.append(Paragraph(text, links, False))
        pages.append(paragraphs)
    return pages


def plain(text: str) -> str:
    return text.lower().replace("é", "e")


def gather(pages, resolve=lambda title: title) -> Mentions:
    counted = sum((count_links(page) for page in pages), Counter())
    table = from_links(counted, resolve)
    names, counts = count_pages(table.trie, [[paragraph.text for paragraph in page] for page in pages])
    in_pages = np.zeros(len(table), np.int64)
    in_pages[names] = counts
    return with_pages(table, in_pages)


def link_probability(table: Mentions, surface: str) -> float:
    """That of the mention which is all of the text, 0 if there is none."""
    found = table.detect(surface, min_link_probability=0.0)
    return next((mention.link_probability for mention in found if mention[:2] == (0, len(surface))), 0.0)


@settings(deadline=None)
@given(corpora())
def test_counts_and_probabilities_by_brute_force(pages):
    resolved = {"X": "X", "Y": "X", "Z": None}  # a redirect, and a title that means no entity
    linked = Counter(
        (plain(paragraph.text[link.start : link.end]), resolved[link.title])
        for page in pages
        for paragraph in page
        for link in paragraph.links
    )
    table = gather(pages, resolved.get)
    wanted = {name for name, title in linked if title}
    assert set(table.names()) == wanted
    for name in wanted:
        links = linked[name, "X"]
        holding = sum(any(f" {name} " in f" {plain(paragraph.text)} " for paragraph in page) for page in pages)
        assert table.candidates(name) == (("X", 1.0),) and table.titles_of(table.names().index(name)) == [("X", links)]
        assert link_probability(table, name) == pytest.approx(min(1, links / holding))


@settings(deadline=None)
@given(st.sets(TEXTS.filter(bool).map(plain), max_size=8), TEXTS)
def test_detection_by_brute_force(names, text):
    table = from_links({(name, name.upper()): 1 for name in names})
    words, found, position = text.split(), [], 0
    while position < len(words):
        for end in range(len(words), position, -1):
            if plain(" ".join(words[position:end])) in names:
                found.append((position, end))
                break
        position = found[-1][1] if found and found[-1][0] == position else position + 1
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    wanted = [(spans[i][0], spans[j - 1][1], plain(text[spans[i][0] : spans[j - 1][1]]).upper()) for i, j in found]
    assert [(m.start, m.end, m.candidates[0].title) for m in table.detect(text)] == wanted


# --- By hand ------------------------------------------------------------------------------------------------------


def found(table: Mentions, text: str, **options) -> list[str]:
    return [text[m.start : m.end] for m in table.detect(text, **options)]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Yorkshire, newyork, NEW YORK's York", ["NEW YORK", "York"]),
        ("東京都に京都", ["東京", "京都"]),
        ("ประเทศไทย", ["ไทย"]),
        ("कीमत की", ["की"]),
    ],
)
def test_word_borders_where_words_are_spaced(text, expected):
    table = from_links({(normalize(name), name): 1 for name in ["York", "New York", "東京", "京都", "ไทย", "की"]})
    assert found(table, text) == expected


def test_a_rare_link_gives_way_to_a_shorter_mention():
    table = from_links({("new york", "City"): 2, ("york", "Town"): 9, ("new", "Novelty"): 1})
    assert table.names() == ["new", "new york", "york"]
    table = with_pages(table, np.array([2, 20, 10]))
    assert [link_probability(table, name) for name in table.names()] == [0.5, 0.1, 0.9]
    assert found(table, "New York") == ["New York"]
    assert found(table, "New York", min_link_probability=0.2) == ["New", "York"]
    assert found(table, "New York", min_link_probability=0.9) == ["York"]
    assert found(table, "New York", min_link_probability=0.95) == []


def test_titles_are_ranked_and_cut():
    links = {("a", f"T{k:03}"): 1 + (k == 7) for k in range(150)} | {("b", "T000"): 1}
    table = from_links(links)
    candidates = table.candidates("A")
    # Of all links, also of those cut off.
    assert candidates[:3] == (("T007", 2 / 151), ("T000", 1 / 151), ("T001", 1 / 151))
    assert len(candidates) == mentions.MAX_TITLES
    assert table.candidates("c") == () and link_probability(table, "c") == 0 and table.candidates("") == ()


def test_long_and_empty_names_are_left_out():
    text = "w " * 21 + "."
    links = [Link("T", 0, 41), Link("U", 0, 39), Link("V", 1, 2)]  # 21 words, 20 words, a space
    assert count_links([Paragraph(text, links, False)]) == {("w " * 19 + "w", "U"): 1}


def test_rare_names_are_not_detected_but_known():
    table = with_pages(from_links({("a", "A"): 1, ("b", "B"): 1, ("c", "C"): 1}), np.array([100, 101, 0]))
    assert found(table, "a b c") == ["a", "c"] and table.candidates("B") == (("B", 1.0),)


def test_titles_are_names_that_links_outweigh():
    """Mercury has a page by that title, two with brackets, and one link to something else."""
    titles = ["Mercury", "Mercury (planet)", "IBM", "The", "Old IBM"]
    links = dict.fromkeys(chain.from_iterable(map(mentions.title_names, titles)), 0)
    links |= {("mercury", "Hermes"): 1, ("the", "Article"): 1, ("planet", "Planet"): 1}
    table = from_links(links, lambda title: {"Old IBM": "IBM"}.get(title, title))
    assert table.names() == ["ibm", "mercury", "mercury ( planet )", "old ibm", "planet", "the"]
    table = with_pages(table, np.array([3, 2, 0, 0, 1, 500]))
    assert table.candidates("Mercury") == (("Hermes", 0.5), ("Mercury", 0.25), ("Mercury (planet)", 0.25))
    assert table.candidates("Mercury (planet)") == (("Mercury (planet)", 1.0),)
    assert table.candidates("ibm") == table.candidates("old IBM") == (("IBM", 1.0),)
    assert table.candidates("the") == (("Article", 2 / 3), ("The", 1 / 3))
    assert found(table, "The IBM planet, Mercury") == ["IBM", "planet", "Mercury"]
    assert link_probability(table, "IBM") == pytest.approx(0.5 / 3) and link_probability(table, "the") == 1 / 500
    assert mentions.title_names("(x)") == [("( x )", "(x)")] and mentions.title_names("?" * 21) == []
    assert [name for name, _ in mentions.title_names("東京（b）")] == ["東 京", "東 京 （ b ）"]


def test_names_do_not_span_paragraphs():
    trie = make_trie(["a b"])
    assert count_pages(trie, [["a", "b"], ["a b", "a b"]])[1].tolist() == [1]
    assert count_pages(trie, [])[0].tolist() == []
    assert count_pages(make_trie([]), [["a"]])[0].tolist() == []
    with pytest.raises(ValueError, match="expected different names"):
        make_trie(["a", "a"])


# --- Files --------------------------------------------------------------------------------------------------------


def test_save_and_load(tmp_path):
    table = gather([[Paragraph("Zoë met Bo in 東京.", [Link("Zoë", 0, 3), Link("Tokyo", 14, 16)], True)]])
    table.save(tmp_path / "mentions.safetensors")
    again = Mentions.load(tmp_path / "mentions.safetensors")
    assert again.names() == table.names() == ["zoe", "東 京"]
    zoe, tokyo = (("Zoë", 1.0),), (("Tokyo", 1.0),)
    assert again.detect("zoe, 東京") == [Mention(0, 3, None, zoe, 1.0, 0.5), Mention(5, 7, None, tokyo, 1.0, 0.5)]
    empty = from_links({})
    empty.save(tmp_path / "empty.safetensors")
    assert Mentions.load(tmp_path / "empty.safetensors").detect("zoe") == []


def test_a_file_of_something_else_is_named(tmp_path):
    (tmp_path / "text").write_text("nothing")
    with pytest.raises(ValueError, match="text: not a file of mention statistics"):
        Mentions.load(tmp_path / "text")


def test_what_statistics_may_not_hold(tmp_path):
    """Bytes that were changed: a line that names the file and what cannot be, not an error when it is used."""
    from_links({("Zoë", "Zoë"): 2, ("oslo", "Oslo"): 1, ("東京", "Tokyo"): 1}).save(tmp_path / "good")
    good = safetensors.numpy.load_file(tmp_path / "good")
    for name, index, value in (
        ("name_ends", 0, -1), ("name_ends", 0, 100), ("name_ends", -1, 0), ("title_ends", 1, 12), ("links", 0, -1),
        ("links", 0, 1), ("pages", 0, 2**60), ("first", 0, 1), ("first", 1, 3), ("first", -1, 2), ("titles", 0, 3),
        ("titles", 0, -1), ("counts", 0, -1), ("node_names", 0, 3), ("node_names", 0, -2), ("name_text", 0, 0xFF),
        ("title_text", -1, 0xC3),
    ):  # fmt: skip
        bad = {key: array.copy() for key, array in good.items()}
        bad[name][index] = value
        safetensors.numpy.save_file(bad, tmp_path / "bad")
        with pytest.raises(ValueError, match=rf"^{tmp_path}/bad: not a file of mention statistics \((?!$)") as error:
            Mentions.load(tmp_path / "bad")
        assert "\n" not in str(error.value)
    for name, array in good.items():
        for other in (array[:-1], array.astype(np.float32), array[None], np.concatenate([array, array])):
            safetensors.numpy.save_file(good | {name: np.ascontiguousarray(other)}, tmp_path / "bad")
            if name not in ("wiki", "items") or other.dtype == np.float32 or other.ndim == 2:
                with pytest.raises(ValueError, match=f"^{tmp_path}/bad: not a file of mention statistics"):
                    Mentions.load(tmp_path / "bad")
    safetensors.numpy.save_file(good | {"items": np.array([64])}, tmp_path / "bad")
    with pytest.raises(ValueError, match="items"):
        Mentions.load(tmp_path / "bad")
    assert Mentions.load(tmp_path / "good").candidates("Zoe")


def test_statistics_are_looked_for_in_a_folder_and_three_above_it(tmp_path):
    deep, path = tmp_path / "a/b/c/d", tmp_path / "a" / mentions.STATISTICS
    assert mentions.find_statistics([deep]) is None
    path.parent.mkdir()
    path.touch()
    assert mentions.find_statistics([deep / "e"]) is None
    assert mentions.find_statistics([deep / "e", deep]) == mentions.find_statistics([path.parent]) == path


def test_a_real_dump():
    """Every name that links give is found by detection at its own link, unless a longer or earlier one covers it."""
    dump = wiki_dump.read_dump(shared_data("wiki/enwiki-wp2txt.xml.bz2"))
    pages = [wikitext.parse(page.wikitext) for page in islice((page for page in dump if not page.redirect), 25)]
    table, checked = gather(pages), 0
    assert len(table) > 500
    for paragraph in chain.from_iterable(pages[:5]):
        spans = [mention[:2] for mention in table.detect(paragraph.text)]
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        for link in paragraph.links:
            if table.candidates(paragraph.text[link.start : link.end]):
                checked += 1
                assert any(start < link.end and link.start < end for start, end in spans)
    assert checked > 100


# --- Detectors --------------------------------------------------------------------------------------------------------

CITIES = ["New York", "New York Times", "York", "Times Square"]


@pytest.mark.parametrize(
    "titles, text, expected",
    [
        (CITIES, "In New York Times Square.", ["New York Times"]),  # the longest, from left to right
        (CITIES, "York, New York", ["York", "New York"]),
        (CITIES, "new york", []),  # case counts
        (CITIES, "New\n  York", ["New\n  York"]),  # blanks do not
        (["Oslo"], "Oslofjord, NewOslo, Oslo2", []),  # mentions end where words end
        (["Oslo", "Zoë"], "(Oslo) North-Oslo Oslo's Zoë", ["Oslo", "Oslo", "Oslo", "Zoë"]),
        (["U.S."], "the U.S. army", ["U.S."]),
        (["서울"], "서울은", []),  # Korean has spaces, and particles
        (["서울"], "서울 은", ["서울"]),
        (["東京", "京都", "iPhone"], "東京都と京都のiPhone", ["東京", "京都", "iPhone"]),  # no borders of words
        (["ไทย"], "ประเทศไทยนี้", ["ไทย"]),
    ],
)
def test_listed_mentions_by_hand(titles, text, expected):
    found = find_listed(text, list_mentions({title: title.upper() for title in titles}))
    assert [text[start:end] for start, end, _ in found] == expected
    assert [title for *_, title in found] == [" ".join(name.split()).upper() for name in expected]


STRETCHES = st.lists(st.sampled_from(["Ada", "Bo", "ada", "-", "東", "京", " "]), max_size=9).map("".join)


@given(STRETCHES, st.dictionaries(STRETCHES, st.sampled_from("XYZ"), max_size=5))
def test_listed_mentions_by_brute_force(text, titles):
    """All stretches between word borders, as words, the longest at each place first."""
    def words(stretch: str) -> list[str]:
        return [stretch[start:end] for start, end in word_spans(stretch)]

    spans, place, expected = word_spans(text), 0, []
    known = {}
    for mention, title in titles.items():
        known.setdefault(tuple(words(mention)), title)
    while place < len(spans):
        for end in range(len(spans), place, -1):
            title = known.get(tuple(words(text[spans[place][0] : spans[end - 1][1]])))
            if title:
                expected.append((spans[place][0], spans[end - 1][1], title))
                place = end - 1
                break
        place += 1
    assert find_listed(text, list_mentions(titles)) == expected


def test_a_candidate_file(tmp_path):
    """With ignore_case, as in LUKE's own code, a mention that then means two entities means none."""
    path = tmp_path / "en-en.json"
    pages = {"Oslo": {"The Fjord": "Oslofjord", "Us": "We", "US": "U.S."}, "Rome": {"US": "Umbria"}}
    path.write_text(json.dumps(pages))
    find, without_case = (list_detector(str(path), ignore_case) for ignore_case in (False, True))
    text = "The fjord and The Fjord, US"
    assert find(text, "Oslo") == [(14, 23, "Oslofjord"), (25, 27, "U.S.")]
    assert find(text, "Rome") == [(25, 27, "Umbria")]
    assert find(text, "Nowhere") == [] == no_detector(text, "Oslo")  # a page that the file lacks is no error
    assert without_case(text, "Oslo") == [(0, 9, "Oslofjord"), (14, 23, "Oslofjord")]


@pytest.mark.parametrize(
    "value, fault",
    [
        ([1], "expected an object"),
        ([], "expected an object"),
        ({"Oslo": ["Norway"]}, "page 'Oslo' is [\"Norway\"], expected an object"),
        ({"Oslo": {"Norway": 3}}, "page 'Oslo', mention 'Norway' is 3, expected a string"),
    ],
)
def test_faults_of_candidate_files(tmp_path, value, fault):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError) as caught:
        list_detector(str(path), True)
    assert str(path) in str(caught.value) and fault in str(caught.value)


def test_detection_from_a_file_of_statistics(tmp_path):
    links = {("oslo", "Oslo"): 3, ("oslo", "Oslo, Minnesota"): 1, ("the", "Definite article"): 1, ("rome", "Rome"): 2}
    found = from_links(links)  # of the names "oslo", "rome", "the"
    found = with_pages(found, np.array([4, 2, 20]))
    path = str(tmp_path / "mentions.safetensors")
    found.save(path)
    text = "The town of OSLO, the Rome"
    assert statistics_detector(path, 0.1)(text, "any") == [(12, 16, "Oslo"), (22, 26, "Rome")]
    everything = statistics_detector(path, 0.01)(text, "any")
    assert [title for *_, title in everything] == ["Definite article", "Oslo", "Definite article", "Rome"]

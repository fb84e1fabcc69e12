"""Mentions in a text are what brute force over all stretches finds, by hand what the specification asks for, and, from
mention statistics, what those detect.

    python -m pytest -q tests/test_qa_entities.py
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luke_mini import mentions
from luke_mini.mentions import word_spans
from luke_mini.qa_entities import by_first_word, detect, from_candidates, from_mentions, nothing


def found(text: str, titles: dict[str, str]) -> list[tuple[str, str]]:
    return [(text[start:end], title) for start, end, title in detect(text, by_first_word(titles))]


def test_the_longest_from_left_to_right():
    titles = {"New York": "New York City", "New York Times": "The New York Times", "York": "York", "Times Square": "T"}
    assert found("In New York Times Square.", titles) == [("New York Times", "The New York Times")]
    assert found("York, New York", titles) == [("York", "York"), ("New York", "New York City")]
    assert found("new york", titles) == []  # case counts
    assert found("New\n  York", titles) == [("New\n  York", "New York City")]  # blanks do not


def test_mentions_end_where_words_end():
    titles = {"Oslo": "Oslo", "U.S.": "United States", "Zoë": "Zoë"}
    assert found("Oslofjord, NewOslo, Oslo2", titles) == []
    assert [text for text, _ in found("(Oslo) North-Oslo Oslo's Zoë", titles)] == ["Oslo", "Oslo", "Oslo", "Zoë"]
    assert found("the U.S. army", titles) == [("U.S.", "United States")]
    assert found("서울은", {"서울": "Seoul"}) == []  # Korean has spaces, and particles
    assert found("서울 은", {"서울": "Seoul"}) == [("서울", "Seoul")]


def test_scripts_without_spaces_have_no_word_borders():
    titles = {"東京": "東京", "京都": "京都", "iPhone": "iPhone", "ไทย": "ประเทศไทย"}
    assert [text for text, _ in found("東京都と京都のiPhone", titles)] == ["東京", "京都", "iPhone"]
    assert [text for text, _ in found("ประเทศไทยนี้", titles)] == ["ไทย"]


WORDS = st.lists(st.sampled_from(["Ada", "Bo", "ada", "-", "東", "京", " "]), max_size=9).map("".join)


@given(WORDS, st.dictionaries(WORDS, st.sampled_from("XYZ"), max_size=5))
def test_by_brute_force(text, titles):
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
    assert detect(text, by_first_word(titles)) == expected


def test_a_candidate_file(tmp_path):
    path = tmp_path / "en-en.json"
    path.write_text(json.dumps({"Oslo": {"Norway": "Norway", "the fjord": "Oslofjord"}, "Rome": {"Italy": "Italy"}}))
    find = from_candidates(str(path), False)
    text = "Norway and Italy share the fjord"
    assert find(text, "Oslo") == [(0, 6, "Norway"), (23, 32, "Oslofjord")]
    assert find(text, "Rome") == [(11, 16, "Italy")]
    assert find(text, "Nowhere") == [] == nothing(text, "Oslo")  # a page that the file lacks is no error


def test_a_candidate_file_without_case(tmp_path):
    """LUKE's own code lowers both sides; a mention that then means two entities means none."""
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"Oslo": {"The Fjord": "Oslofjord", "Us": "We", "US": "United States"}}))
    with_case, without = (from_candidates(str(path), ignore_case) for ignore_case in (False, True))
    text = "The fjord and the FJORD, US"
    assert with_case(text, "Oslo") == [(25, 27, "United States")]
    assert without(text, "Oslo") == [(0, 9, "Oslofjord"), (14, 23, "Oslofjord")]


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
        from_candidates(str(path), True)
    assert str(path) in str(caught.value) and fault in str(caught.value)


def test_mention_statistics(tmp_path):
    links = {("oslo", "Oslo"): 3, ("oslo", "Oslo, Minnesota"): 1, ("the", "Definite article"): 1, ("rome", "Rome"): 2}
    found = mentions.from_links(links)
    pages = {"oslo": 4, "rome": 2, "the": 20}
    found = mentions.with_pages(found, mentions.np.array([pages[name] for name in found.names()]))
    path = str(tmp_path / "mentions.safetensors")
    found.save(path)
    text = "The town of OSLO, the Rome"
    assert from_mentions(path, 0.1)(text, "any") == [(12, 16, "Oslo"), (22, 26, "Rome")]
    everything = from_mentions(path, 0.01)(text, "any")
    assert [title for *_, title in everything] == ["Definite article", "Oslo", "Definite article", "Rome"]

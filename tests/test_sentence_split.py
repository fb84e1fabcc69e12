"""Sentence spans: expected sentences per language, and what must hold for any text.

    pytest tests/test_sentence_split.py
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luke_mini.sentence_split import split

# Each expected list joined by its spaces is the text.
CASES = [
    ("en", ["Mr. Obama lives in the U.S.", "He was its president."]),
    ("en", ["J. R. R. Tolkien wrote for the U.S. Army.", "The end."]),
    ("en", ["It is 3.14 cm long, see www.example.org for No. 7, p. 5 and fig. 3.", "Why?", "Nobody knows..."]),
    ("en", ['"Why?" she asked.', '"Go home."', "(He left.)", "Nothing!", "Yahoo! is a firm."]),
    ("en", ["Smith et al. (1999) met Dr. Jones on Jan. 5 at St. Mary's.", "Vitamin C.", "It helps."]),
    ("en", ["He said no.", "Then he went to Acme Inc.", "The firm was his."]),
    ("en", ["Who is it?!", "[1] A footnote.", "2001 was a year."]),
    (
        "de",
        ["Am 3. Oktober 1990 fuhr z. B. Prof. Meier ab.", "Im 19. Jahrhundert nicht.", "Das war 1990.", "Er kam an."],
    ),
    ("de", ["Er rief: »Ja.«", "»Nein!« rief sie."]),
    ("fr", ["M. Dupont est arrivé.", "« Pourquoi ? »", "Il ne sait pas."]),
    ("es", ["El Sr. Pérez vive aquí.", "¿Por qué?", "¡Nadie lo sabe!"]),
    ("ru", ["Он родился в 1799 г. в Москве.", "Потом уехал."]),
    ("hi", ["यह दिल्ली है।", "वह भारत की राजधानी है।"]),
    ("bn", ["ঢাকা একটি শহর।", "এটি বড়।"]),
    ("ar", ["هل هذا صحيح؟", "نعم.", "هذا صحيح."]),
    ("ko", ["서울은 수도이다.", "크다."]),
]


@pytest.mark.parametrize(("language", "sentences"), CASES)
def test_sentences(language, sentences):
    text = " ".join(sentences)
    assert [text[start:end] for start, end in split(text, language)] == sentences


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("ja", ["東京は日本の首都。", "「大きい。」", "１９９０年には３．１４倍！", "そう"]),
        ("zh", ["北京是首都。", "人口很多？", "是。"]),
    ],
)
def test_scripts_without_spaces(language, sentences):
    text = "".join(sentences).replace("３．１４", "3.14")
    assert [text[start:end] for start, end in split(text, language)] == [
        s.replace("３．１４", "3.14") for s in sentences
    ]


def test_thai_breaks_at_spaces_of_long_sentences_only():
    clause = "กรุงเทพมหานครเป็นเมืองหลวง"  # 26 characters
    text = " ".join([clause] * 6)
    assert [text[start:end] for start, end in split(text, "th")] == [" ".join([clause] * 3)] * 2
    assert split(text, "en") == [(0, len(text))]


def test_lines_and_white_space():
    assert split("  One line\n another one \n\n", "en") == [(2, 10), (12, 23)]
    assert split("", "en") == split(" \n\t ", "en") == []
    assert split("No stop", "en") == [(0, 7)]


@given(
    st.text(alphabet=st.sampled_from('aB. !?。」"(\n1ก\u00a0é।'), max_size=60),
    st.sampled_from(["en", "de", "th", "xx"]),
)
def test_every_character_is_in_exactly_one_sentence(text, language):
    spans = split(text, language)
    covered = [k for start, end in spans for k in range(start, end)]
    assert covered == sorted(set(covered))  # in order, no overlap
    assert all(text[k].isspace() for k in set(range(len(text))) - set(covered))
    for start, end in spans:
        assert start < end and not text[start].isspace() and not text[end - 1].isspace()


@given(st.text(max_size=40))
def test_any_text(text):
    spans = split(text)
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())

"""Characters -> tokens: the docstring's example by hand, and every span of random tokenizations by brute force.
Sentences and words: expected ones, and what must hold for any text. Parts of long documents against brute force.

    pytest tests/test_spans.py
"""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini.spans import (
    context_window,
    equal_parts,
    is_punctuation,
    split_sentences,
    split_words,
    token_span,
    without_space,
)

# --- Tokens and characters --------------------------------------------------------------------------------------------

OFFSETS = [(0, 2), (2, 6), (7, 12)]  # "Barack Obama" as ▁Ba rack ▁Obama


@pytest.mark.parametrize(
    ("span", "tokens"),
    [((0, 6), (0, 2)), ((3, 8), (1, 3)), ((7, 12), (2, 3)), ((1, 2), (0, 1)), ((6, 7), (2, 2)), ((12, 15), (3, 3))],
)
def test_worked_example(span, tokens):
    assert token_span(OFFSETS, *span) == tokens


@pytest.mark.parametrize(
    ("offsets", "span", "tokens"),
    [
        ([(0, 2), (3, 3), (3, 5)], (3, 5), (1, 3)),  # "in 東京" as ▁in ▁ 東京: the lone space marker comes along
        ([(0, 2), (3, 3), (3, 5)], (0, 2), (0, 1)),
        ([(0, 2), (3, 3), (3, 5)], (4, 5), (1, 3)),  # a part of the token means the token, with its marker
        ([(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)], (1, 2), (1, 4)),  # tokens of one character stay together
    ],
)
def test_lone_markers_and_parts_of_characters(offsets, span, tokens):
    assert token_span(offsets, *span) == tokens


@given(st.text(alphabet=st.sampled_from("ab \t\u3000"), max_size=7))
def test_white_space_goes_from_both_ends(text):
    for end in range(len(text) + 1):
        for start in range(-1, end + 1):
            kept = [k for k in range(max(start, 0), end) if not text[k].isspace()] or [end, end - 1]
            assert without_space(text, start, end) == (kept[0], kept[-1] + 1)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=8), st.data())
def test_token_span_equals_brute_force(gaps_and_lengths, data):
    offsets, position = [], 0
    for gap, length in gaps_and_lengths:
        offsets.append((position + gap, position + gap + length))
        position += gap + length
    start = data.draw(st.integers(0, position))
    end = data.draw(st.integers(start, position))
    touched = [k for k, (first, last) in enumerate(offsets) if set(range(first, last)) & set(range(start, end))]
    first, last = token_span(offsets, start, end)
    assert list(range(first, last)) == touched


def test_punctuation_is_berts():
    """Against the definition of BERT's tokenizer: four ASCII ranges and Unicode's P categories."""
    for code in range(0x3000):
        bert = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
        assert is_punctuation(chr(code)) == (bert or unicodedata.category(chr(code)).startswith("P")), hex(code)


# --- Sentences --------------------------------------------------------------------------------------------------------

# Each expected list joined by its spaces is the text.
CASES = [
    ("en", ["Mr. Obama lives in the U.S.", "He was its president."]),
    ("en", ["J. R. R. Tolkien wrote for the U.S. Army.", "The end."]),
    ("en", ["It is 3.14 cm long, see www.example.org for No. 7, p. 5 and fig. 3.", "Why?", "Nobody knows..."]),
    ("en", ['"Why?" she asked.', '"Go home."', "(He left.)", "Nothing!", "Yahoo! is a firm."]),
    ("en", ["Smith et al. (1999) met Dr. Jones on Jan. 5 at St. Mary's.", "Vitamin C.", "It helps."]),
    ("en", ["He said no.", "Then he went to Acme Inc.", "The firm was his."]),
    ("en", ["They sell tea, salt, etc.", "Prices rose.", "It was sold to Foo Ltd.", "Bo Berg was its head."]),
    ("en", ["Foo Inc. was small.", "Bo joined Foo (once Bar Inc.) Berg's firm.", "He sold (tea etc.) Berg's way."]),
    ("en", ["Towns (Mt. Foo and St. Bar) [ca. 3, pp. 5] are old (see Prof.) Dr. Berg left.", "(Is it so?)", "Yes."]),
    ("en", ["He said “no.”", "“Go!”", "“Why?”", "It was ‘old.’", "Ada left."]),
    ("en", ["Who is it?!", "[1] A footnote.", "2001 was a year."]),
    (
        "de",
        ["Am 3. Oktober 1990 fuhr z. B. Prof. Meier ab.", "Im 19. Jahrhundert nicht.", "Das war 1990.", "Er kam an."],
    ),
    ("de", ["Er rief: „Ja.“", "„Warum?“", "Niemand sagte: ‚Weil.‘", "(„So.“)", "Alle aßen Salz usw.", "Alles da."]),
    ("de", ["Er (geb. 1950 als Sohn des Prof.) Meier kam.", "Sie nannte es „groß“ und ging.", "„Gut“ fand er es."]),
    ("cs", ["Řekl: „Ano.“", "„Proč?“", "„Nevím!“", "Pak odešel."]),
    ("bg", ["Той каза: „Да.“", "После тръгна."]),
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
    assert [text[start:end] for start, end in split_sentences(text, language)] == sentences


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("ja", ["東京は日本の首都。", "「大きい。」", "１９９０年には3.14倍！", "そう"]),
        ("ja", ["彼は「雨だ。」と言った。", "「何？」って聞いた。", "『行け！』、と叫ぶ。", "「山。」", "「川。」など多い。"]),
        ("zh", ["北京是首都。", "人口很多？", "是。"]),
    ],
)
def test_scripts_without_spaces(language, sentences):
    text = "".join(sentences)
    assert [text[start:end] for start, end in split_sentences(text, language)] == sentences


CLAUSE = "กรุงเทพมหานครเป็นเมืองหลวง"  # Bangkok is the capital; 26 characters


def test_thai_breaks_at_spaces_of_long_sentences_only():
    text = " ".join([CLAUSE] * 6)
    assert [text[start:end] for start, end in split_sentences(text, "th")] == [" ".join([CLAUSE] * 2)] * 3
    assert split_sentences(text, "en") == [(0, len(text))]


@pytest.mark.parametrize("rest", [
    "ๆ", "๕ คน", "5 คน", "(เมืองใหญ่)", "[๑]", "Bangkok", "ฯลฯ",  # not the beginning of a word of Thai letters
    "และมีคนมาก", "ซึ่งมีคนมาก", "“และมีคนมาก",  # goes on
])  # fmt: skip
def test_thai_goes_on(rest):
    text = f"{CLAUSE}{CLAUSE} {rest}"
    assert split_sentences(text, "th") == [(0, len(text))]


@pytest.mark.parametrize("word", ["ค.ศ. 1990", "ดร. สมชาย", "เวลา 23.45 น. วันนี้", "ที่ กรุงเทพ"])
def test_thai_abbreviations_and_words_that_need_another(word):
    """Nothing is cut inside; the sentence after it is."""
    text = f"{CLAUSE}{word}{CLAUSE} เขาไปเที่ยว"
    first, second = split_sentences(text, "th")
    assert text[slice(*second)] == "เขาไปเที่ยว" and text[slice(*first)] == f"{CLAUSE}{word}{CLAUSE}"


def test_thai_sentences_may_be_short_before_words_that_begin_one():
    for sentences in (["วันนี้ฝนตกหนักมากจริงๆเลย", "เขาอยู่บ้าน"], ["วันนี้ฝนตกหนักมากจริงๆนะ", "“เราไปกัน”"]):
        text = " ".join(sentences)
        assert [text[start:end] for start, end in split_sentences(text, "th")] == sentences
    assert len(split_sentences("วันนี้ฝนตก เขาอยู่บ้าน", "th")) == 1  # too short


def test_lines_and_white_space():
    assert split_sentences("  One line\n another one \n\n", "en") == [(2, 10), (12, 23)]
    assert split_sentences("", "en") == split_sentences(" \n\t ", "en") == []
    assert split_sentences("No stop", "en") == [(0, 7)]


@given(
    st.text(alphabet=st.sampled_from('aB. !?。」"(\n1ก\u00a0é।'), max_size=60) | st.text(max_size=40),
    st.sampled_from(["en", "de", "th", "xx"]),
)
def test_every_character_is_in_exactly_one_sentence(text, language):
    spans = split_sentences(text, language)
    covered = [k for start, end in spans for k in range(start, end)]
    assert covered == sorted(set(covered))  # in order, no overlap
    assert all(text[k].isspace() for k in set(range(len(text))) - set(covered))
    for start, end in spans:
        assert text[start:end].strip() == text[start:end] != ""


# --- Words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, words", [
    ("Ada visited Oslo.", "Ada|visited|Oslo|."),
    ("(\"Bo's\" 1,000.5 AT&T-men)", "(|\"|Bo|'s|\"|1|,|000.5|AT&T-men|)"),
    ("don't they're I'm", "don|'t|they|'re|I|'m"),
    ("l'Italie, O’Brien’s", "l'|Italie|,|O’|Brien|’s"),
    ("the 'quoted' dogs' den", "the|'|quoted|'|dogs|'|den"),
    ("U.S. ...", "U.S|.|.|.|."),
    ("東京とOslo。", "東|京|と|Oslo|。"),
    ("हिन्दी भाषा", "हिन्दी|भाषा"),
    ("بَيْت في", "بَيْت|في"),
    ("a\u00a0b\tc  d", "a|b|c|d"),
    ("", ""),
    (" \t ", ""),
])  # fmt: skip
def test_words(text, words):
    assert "|".join(text[start:end] for start, end in split_words(text)) == words


@settings(deadline=None)
@given(st.text(alphabet="ab 1'.,-&’\t東か हि\u0301\u00a0(é", max_size=40) | st.text(max_size=40))
def test_words_cover_all_but_white_space(text):
    spans = split_words(text)
    covered = [i for start, end in spans for i in range(start, end)]
    assert covered == [i for i, char in enumerate(text) if not char.isspace()]
    assert all(start < end for start, end in spans)


# --- Windows ----------------------------------------------------------------------------------------------------------


def test_context_by_hand():
    """The docstring's sentences of 100, 300, 200 and 250 tokens; an odd token of the room goes to the right."""
    n, limit = np.array([100, 300, 200, 250, 7]), 510
    before, after = np.array([0, 100, 400, 600, 300]), np.array([750, 450, 250, 0, 300])
    left, right = context_window(n, before, after, limit)
    assert list(zip(left.tolist(), right.tolist())) == [(0, 410), (100, 110), (155, 155), (260, 0), (252, 251)]


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 100), st.integers(0, 100))
def test_window_is_as_large_and_as_central_as_possible(n, before, after):
    limit = 60
    left, right = (int(side) for side in context_window(n, before, after, limit))
    assert 0 <= left <= before and 0 <= right <= after
    assert left + n + right == min(limit, before + n + after)
    if abs(left - right) > 1:  # lopsided only where the document ends
        assert left == before if left < right else right == after


@pytest.mark.parametrize(
    "n, limit, spans, expected",
    [
        (0, 10, [], [0, 0]),
        (10, 10, [], [0, 10]),
        (11, 10, [], [0, 6, 11]),  # two of ceil(11 / 2)
        (11, 10, [(5, 7)], [0, 5, 11]),  # the border at 6 would cut the mention
        (11, 10, [(0, 7)], [0, 6, 11]),  # longer than a part: cut all the same
        (20, 10, [(8, 12), (4, 9)], [0, 4, 14, 20]),  # overlapping mentions: as far left as needed
    ],
)
def test_parts_by_hand(n, limit, spans, expected):
    assert equal_parts(n, limit, np.array(spans, np.int64).reshape(-1, 2)) == expected


@given(st.integers(1, 80), st.integers(1, 20), st.lists(st.tuples(st.integers(0, 79), st.integers(0, 9)), max_size=8))
def test_parts_fit_and_cut_no_mention_that_fits(n, limit, found):
    spans = np.array([(start, min(start + length, n)) for start, length in found if start < n], np.int64).reshape(-1, 2)
    borders = equal_parts(n, limit, spans)
    size = -(-n // -(-n // limit))
    assert borders[0] == 0 and borders[-1] == n
    for first, last in zip(borders, borders[1:]):
        assert 0 < last - first <= size <= limit
        cut = [(s, e) for s, e in spans.tolist() if s < last < e]
        if cut:  # only where no border between `first` and the full size cuts none
            assert last == min(first + size, n)
            assert all(any(s < b < e for s, e in spans.tolist()) for b in range(first + 1, last + 1))
        elif last < min(first + size, n):  # moved no further than needed
            assert all(any(s < b < e for s, e in spans.tolist()) for b in range(last + 1, first + size + 1))

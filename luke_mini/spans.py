"""Spans of a text: its sentences, words and tokens, the characters they come from, the window of it that an input sees.

All spans are half-open (start, end). Offsets are what a tokenizer gives: the characters that each token comes from.

    text      B a r a c k _ O b a m a      characters 0..11, _ is a space
    tokens    ▁Ba  rack   ▁Obama
    offsets   (0,2)(2,6)  (7,12)           white space belongs to no token

    token_span(offsets, 0, 6)  -> (0, 2)
    token_span(offsets, 3, 8)  -> (1, 3)   a token counts when it shares at least one character with the span

LUKE itself needs no offsets while it pretrains or reads a span given with the text: there, the text is cut at the
span's borders and each part tokenized by itself, so that a mention's tokens are exact. Offsets are for the way back,
from predictions to the user's characters, and for labels that come with whole texts.

    split_sentences("Mr. Obama lives in the U.S. He was its president.")  ->  [(0, 27), (28, 49)]

White space between sentences belongs to none, every other character to exactly one. A regular expression finds the
stops, a few rules judge each. Stops of scripts without spaces (。！？) always end a sentence; others do if white space
follows, and then something that can begin a sentence. If the word before a full stop is an abbreviation, an initial, an
acronym or, in German and similar languages, an ordinal number, the sentence goes on, unless the next word is one that
nearly always begins a sentence (The, Der, Il, ...), or the word is one that often ends one (etc, Inc) and a capital
follows. Thai has no stops: there, a space ends a sentence that is long enough, unless a word beside it says that it
goes on, or what follows is no word of Thai letters (ๆ, a digit, a bracket).

differs from LUKE: it uses OpenNLP's trained splitter for English and ICU's rules for the rest; both need Java or a C++
library. A wrong split costs little here: sentences are packed back into sequences, only links across a split are lost.

Of a long document, an input sees a part: `context_window`, one span in the middle with as much around it as fits, or
`equal_parts`, the whole document in parts of one size that cut no mention, or `sliding_windows`, which overlap.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

# --- Tokens and characters --------------------------------------------------------------------------------------------

WHITE_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's; `re` adds \x1c to \x1f
_OTHER_SPACE = re.compile(r"[^\S ]")
BLANKS = " \t\r\n\u202f"  # as LUKE in question answering: other white space is left to the tokenizer


class Encoding(NamedTuple):
    """Token ids of a text and where each comes from.

    `offsets[k]` are characters of the text as it was given, without the white space around them. Starts and ends never
    decrease. Tokens made from one character (½ -> 1 ⁄ 2) all have that character's offsets. A token that is
    nothing but a space marker has the empty span (s, s) where the next token starts.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


def is_squeezed(text: str) -> bool:
    """Whether single spaces are the only white space; spaces at its ends count, too."""
    return "  " not in text and (text.isprintable() or not _OTHER_SPACE.search(text))


def is_punctuation(character: str) -> bool:
    """BERT's rule: every ASCII symbol ($ + < ~ too), and Unicode's categories P*. Punctuation always starts a word."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P")


def without_space(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space around it; one of white space alone becomes (end, end)."""
    start = max(start, 0)
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def token_span(offsets: list[tuple[int, int]], char_start: int, char_end: int) -> tuple[int, int]:
    """The tokens that share a character with text[char_start:char_end]; (k, k) if there is none.

    A lone space marker right before the first of them comes along, as it does when a mention is tokenized by itself.
    """
    first = bisect_right(offsets, char_start, key=lambda span: span[1])
    last = bisect_left(offsets, char_end, key=lambda span: span[0])
    if char_start >= char_end or first >= last:
        return first, first
    while first > 0 and offsets[first - 1] == (offsets[first][0], offsets[first][0]):
        first -= 1
    return first, last


def squeeze(text: str) -> tuple[str, Sequence[int]]:
    """The text with one space between words and none around, and for each of its characters where it comes from.

    differs from LUKE: there, blanks at the end of a question are a token of their own (12 of 400 questions of XQuAD).
    """
    words = [match.span() for match in re.finditer(f"[^{BLANKS}]+", text)]
    squeezed = " ".join(text[start:end] for start, end in words)
    if squeezed == text:
        return text, range(len(text))
    source = [i for start, end in words for i in range(start - 1, end)]  # with the blank before each word
    return squeezed, source[1:]


def encode_words(tokenizer, text: str) -> Encoding:
    """The tokens of a text, every word as if after a space, the first one too; blanks are no tokens."""
    squeezed, source = squeeze(text)
    ids, offsets = tokenizer.encode(squeezed, prefix_space=True)
    if squeezed != text:
        source = [*source, len(text)]
        offsets = [(source[start], source[end - 1] + 1 if start < end else source[start]) for start, end in offsets]
    return Encoding(ids, offsets)


# --- Sentences --------------------------------------------------------------------------------------------------------

_FULL_STOPS = frozenset("。！？｡．")  # Chinese, Japanese: no space follows
_STOPS = ".!?…‽।॥؟۔։።၊။᙮᠃๚๛\n"  # ... Devanagari, Arabic, Armenian, Ethiopic, Burmese, Mongolian, Thai; end of line
_ANY_STOP = _STOPS + "".join(sorted(_FULL_STOPS))
# Quotes that close: German »Ja.« and „Ja.“ (before a space; elsewhere “ opens), French « Oui. »
_CLOSERS = r"(?:[\"'”’»›«‹)\]}」』）】》〉]|[“‘](?=[\s“‘)\]]|$))*(?:\s»(?=\s|$))?"
# The set stands twice because `re` skips quickly to the first character of a pattern only if that is a plain set.
_CANDIDATE = re.compile(f"[{_ANY_STOP}][{_ANY_STOP}]*{_CLOSERS}")
_THAI_CANDIDATE = re.compile(f"{_CANDIDATE.pattern}|(?<=[ก-๎]) (?=[“‘\"]?[ก-ฮเ-ไ])")
MIN_THAI_SENTENCE, MIN_BEFORE_STARTER = 30, 15  # characters; Thai writes spaces between clauses, too
_THAI_STARTER = re.compile(  # words with which sentences begin
    "[“‘\"]?(?:เขา|เธอ|ฉัน|ผม|เรา|มัน|พวก|ใน|เมื่อ|แต่|แม้|ถ้า|หาก|ส่วน|บาง|สำหรับ|สิ่ง|นอกจาก|หลัง|ขณะ|อย่างไร)"
)
_THAI_LINK = re.compile(  # words with which they go on
    "[“‘\"]?(?:และ|หรือ|ซึ่ง|โดย|เพื่อ|ของ|คือ|ก็|ได้|ที่|เช่น|ยัง|จะ|จน|จึง|เกิด|ค.ศ.|พ.ศ.|ล้าน|ปี|แห่ง|เป็น|ถึง|กับ)"
)
_THAI_OPEN = tuple("ว่า คือ ที่ เช่น ถึง และ ประมาณ ราว ปี ๆ นั้น เป็น".split())  # words with which none ends

_NEXT_WORD = re.compile(r"[\s\"'“”„‘«»‹›(\[{「『（【《〈¿¡*–—-]*(\w*)(\.?)")
_LAST_WORD = re.compile(r"[^\s([{\"“”„«»‹›/–—]*$")
_QUOTED = re.compile("と|って|など|を|、")  # behind a Japanese quotation, of what goes on: 「…。」と言った
_ACRONYM = re.compile(r"[^\W\d_]|[^\W\d_]{1,3}(?:\.-?[^\W\d_]{1,3})+")  # no last stop: J  J.-P  U.S  z.B  Ph.D
_ORDINAL = re.compile(r"\d{1,2}|[IVX]+")
_ORDINAL_LANGUAGES = frozenset("cs da de et fi hr hu lv nb nn no pl sk sl sr tr".split())
LONGEST_ABBREVIATION = 12  # characters looked at before a full stop

# Without the last stop, as they are written within a sentence. Acronyms (e.g, z.B, t.ex) have their own rule.
_ABBREVIATIONS = {
    "en": "Mr Mrs Ms Messrs Dr Prof St Ste Mt Ft Gen Col Lt Sgt Capt Maj Cmdr Adm Rev Hon Gov Sen Rep Pres Fr Sr Jr"
    " Bros Inc Ltd Co Corp vs cf ca approx fig figs eq vol vols No Nos pp ch sec ed eds al est etc esp incl lit viz"
    " trans dept univ Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec",
    "de": "bzw ca Dr evtl geb gest ggf Hl Hrsg inkl Jh Jhd kgl lat max mind min Mio Mrd Nr Prof sog Str usw vgl bd Bd"
    " Abt Art griech engl franz ehem dt amtl eigtl urspr chr Chr",
    "fr": "MM Mme Mlle Mgr Dr Pr St Ste av apr env pp vol chap art fig éd ex cf no boul",
    "es": "Sr Sra Srta Dr Dra Dña Ud Uds Avda pág págs vol núm cap art ed fig gral ca",
    "it": "sig Sig dott Dott ing avv prof Prof pag pagg vol cap art ca ecc ed fig",
    "pt": "Sr Sra Dr Dra Prof Profa St av pág vol art ed ca",
    "nl": "dhr mevr mw dr drs ir ing prof St nr blz pag ca bijv bv ed resp jl Chr",
    "sv": "dr prof St nr ca kl fl Kr",
    "fi": "esim mm ks ns mr eaa jaa tri prof",
    "pl": "np ul tzw im św ks prof dr nr tj wg ok gen płk por zob",
    "ru": "гг др им см напр ул пр рис стр род акад проф св оз км млн млрд тыс лат англ",
    "tr": "dr prof doç Dr Prof Doç av vb yy bkz hz cad sok",
    "id": "dr prof Dr Prof Ir Drs Hj no No hlm jl Jl tgl",
    "vi": "Tp tp ts gs pgs ths tr TS GS",
    "sw": "Dkt Prof Bw Bi",
}
_FINAL = frozenset("etc usw ecc Inc Ltd Corp".split())  # ... which end a sentence if a capital follows
_ENGLISH = frozenset(_ABBREVIATIONS["en"].split())
_BY_LANGUAGE = {language: _ENGLISH | set(words.split()) for language, words in _ABBREVIATIONS.items()}
_STARTERS = frozenset(
    "The A An In On At It He She They We I This That These Those His Her Its Their But And As For From After Before"
    " When While Although However If There Some Many Most Der Die Das Ein Eine Er Sie Es Im Am Le La Les Il Elle Un Une"
    " El Los Las En Se De Het Een Den Det В На Он Она Это".split()
)


def _continues(word: str, language: str) -> bool:
    """Whether a full stop after this word usually does not end a sentence."""
    known = _BY_LANGUAGE.get(language, _ENGLISH)
    if word in known or word[:1].lower() + word[1:] in known and len(word) > 1:
        return True
    return bool(_ACRONYM.fullmatch(word) or language in _ORDINAL_LANGUAGES and _ORDINAL.fullmatch(word))


def _ends_sentence(text: str, stop: str, begin: int, end: int, language: str) -> bool:
    """Whether the candidate text[begin:end], a stop with the quotes that close after it, ends a sentence."""
    if end == len(text) or "\n" in stop:
        return True
    if not _FULL_STOPS.isdisjoint(stop):
        return not (stop[-1] in "」』”’" and _QUOTED.match(text, end))
    if not text[end].isspace():
        return False  # 3.14, example.org
    following = _NEXT_WORD.match(text, end)
    if following[1][:1].islower() or not following[1][:1].isalnum():
        return following.end() == len(text)
    in_brackets = stop[:2] in (".)", ".]", ".}")
    if stop != "." and not in_brackets:
        return True
    if language == "th" and "ก" <= text[begin - 1 : begin] <= "ฮ":
        return False  # ค.ศ. 1990, ดร. สมชาย: a full stop is of an abbreviation there
    word = _LAST_WORD.search(text, max(0, begin - LONGEST_ABBREVIATION), begin)[0].lstrip("'‘’")
    if word in _FINAL and not in_brackets and following[1][:1].isupper():
        return True
    return not _continues(word, language) or following[1] in _STARTERS and not following[2]


def _ends_thai_sentence(text: str, start: int, end: int) -> bool:
    """Whether the space at `end` ends the sentence that began at `start`."""
    least = MIN_BEFORE_STARTER if _THAI_STARTER.match(text, end + 1) else MIN_THAI_SENTENCE
    return end - start >= least and not _THAI_LINK.match(text, end + 1) and not text.endswith(_THAI_OPEN, start, end)


def split_sentences(text: str, language: str = "en") -> list[tuple[int, int]]:
    """The sentences of a text, in order. A language without abbreviations of its own gets the English ones."""
    borders = [0]
    for match in (_THAI_CANDIDATE if language == "th" else _CANDIDATE).finditer(text):
        begin, end = match.span()
        if match[0] == " ":
            ends = _ends_thai_sentence(text, borders[-1], begin)
        else:
            ends = _ends_sentence(text, match[0], begin, end, language)
        if ends:
            borders.append(end)
    if borders[-1] < len(text):
        borders.append(len(text))
    sentences = (without_space(text, start, end) for start, end in pairwise(borders))
    return [(start, end) for start, end in sentences if start < end]


# --- Words ------------------------------------------------------------------------------------------------------------

# Over one letter per character, see `_kind`: an English clitic ('s, 're), a word, or any other single character. A word
# keeps hyphens and dots inside (U.S, AT&T, Smith-Jones) and an elided article's apostrophe (l' + Italie). Left out: the
# words of scripts that are written without spaces.
_WORD = re.compile(r"(?<=w)aw{1,2}(?!w)|w+(?:\.w+)*(?:a(?=www))?|[^ ]")
_GIVEN_WORD, _GIVEN_SENTENCE = re.compile("[^ \n]+"), re.compile("[^ \n]+(?: +[^ \n]+)*")


@cache
def _kind(character: str) -> str:
    if character.isspace():
        return " "
    if "\u3040" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff":
        return "c"  # kana and Chinese characters: each is a word
    if character in ".&-":
        return "."
    if character in "'\u2019":
        return "a"
    # Vowel signs and other combining marks (Devanagari, Arabic) are no letters to Python, but parts of words.
    return "w" if character.isalnum() or unicodedata.category(character)[0] == "M" else "p"


def split_words(text: str) -> list[tuple[int, int]]:
    """Words and punctuation marks; all characters but white space are covered."""
    return _matches(_WORD, "".join(map(_kind, text)))


def split_text(
    text: str, language: str, is_split: bool = False, borders: Collection[int] = ()
) -> tuple[list[tuple[int, int]], list[int]]:
    """The words of a text, none across one of the borders, and the ends of its sentences, all in characters.

    is_split: words and sentences are given, with spaces between words and line ends between sentences.
    """
    sentences = _matches(_GIVEN_SENTENCE, text) if is_split else split_sentences(text, language)
    split = partial(_matches, _GIVEN_WORD) if is_split else split_words
    ends = [end for _, end in sentences]
    cuts = sorted({0, len(text), *ends, *borders})
    return [(cut + start, cut + end) for cut, stop in pairwise(cuts) for start, end in split(text[cut:stop])], ends


def _matches(pattern: re.Pattern, text: str) -> list[tuple[int, int]]:
    return [match.span() for match in pattern.finditer(text)]


# --- Windows ----------------------------------------------------------------------------------------------------------


def context_window(n: np.ndarray, before: np.ndarray, after: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of context to take on the left and on the right of a span.

    n tokens in the span, `before` and `after` around it in the document. Each side gets half of the room; what the
    shorter side leaves goes to the other. Sentences of 100, 300, 200, 250 tokens and a limit of 510 take (0, 410),
    (100, 110), (155, 155), (260, 0). Context may cut words and cross sentences, never documents.
    """
    half = (limit - n) // 2
    left, right = np.minimum(before, half), np.minimum(after, half)
    left_is_shorter = before < after
    return (
        np.where(left_is_shorter, left, np.minimum(before, limit - n - right)),
        np.where(left_is_shorter, np.minimum(after, limit - n - left), right),
    )


def equal_parts(n: int, limit: int, spans: np.ndarray) -> list[int]:
    """Borders 0, ..., n of parts of at most `limit` tokens: ceil(n / limit) of one size, if no border has to move.

    spans [mentions, 2]: a border inside of one moves to its start. It stays inside of a mention that is longer than a
    part.
    """
    if n == 0:
        return [0, 0]
    n_parts = -(-n // limit)
    size = -(-n // n_parts)
    borders = [0]
    while borders[-1] < n:
        border = full = min(borders[-1] + size, n)
        # differs from LUKE: also in training, and for the first mention of a document, too; there, mentions may be cut
        while (inside := (spans[:, 0] < border) & (border < spans[:, 1])).any():
            border = int(spans[inside, 0].min())
        borders.append(border if border > borders[-1] else full)
    return borders


def sliding_windows(n: int, room: int, step: int, overlap: int = 0) -> list[tuple[int, int]]:
    """(start, length) of windows of at most `room` tokens over n; each begins `step` after the last, or shares
    `overlap` tokens with it if that is given.

    (1000, 450, 400) -> (0, 450), (400, 450), (800, 200). No tokens: one empty window, for the question has to be asked.
    """
    found = [(0, min(n, room))]
    # as LUKE: "stride" is the step in the paper's code, and the overlap in mLUKE's
    step = max(1, room - overlap) if overlap else min(step, room)
    while sum(found[-1]) < n:
        start = found[-1][0] + step
        found.append((start, min(n - start, room)))
    return found


def best_windows(found: Sequence[tuple[int, int]], n: int) -> list[np.ndarray]:
    """For each window: which of its tokens have their best place there, bool [length].

    A place is as good as the context on its poorer side, plus 0.01 of the window's length; the first window wins ties.
    Every token has exactly one best place.
    """
    best, owner = np.full(n, -1.0), np.zeros(n, dtype=np.int64)
    for index, (start, length) in enumerate(found):
        left = np.arange(length)
        score = np.minimum(left, left[::-1]) + 0.01 * length
        inside = slice(start, start + length)
        better = score > best[inside]
        best[inside][better] = score[better]
        owner[inside][better] = index
    return [owner[start : start + length] == index for index, (start, length) in enumerate(found)]


# --- Answers ----------------------------------------------------------------------------------------------------------


def best_pairs(
    logits: np.ndarray, first: int, offsets: np.ndarray, may_start: np.ndarray, n_best: int, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Answers in a window: the pairs of one of the n_best starts and one of the n_best ends that can be one, K of them.

    logits [W, 2], start and end, of all its tokens; its n tokens of the context are those from `first` on, with
    offsets [n, 2] and may_start bool [n]. As LUKE: the question's tokens take part in the choice of the n_best.
    Returns half-open characters int [K, 2], and logits float64 [K, 2]; their order matters for ties only.
    """
    start, end = (np.argsort(-column, kind="stable")[:n_best] - first for column in logits.T.astype(np.float64))
    start, end = np.repeat(start, len(end)), np.tile(end, len(start))  # the best start with all ends, then the next
    n = len(offsets)
    possible = (0 <= start) & (start <= end) & (end < n) & (end - start < max_length)
    start, end = start[possible], end[possible]
    chars = np.stack([offsets[start, 0], offsets[end, 1]], axis=1)
    # differs from LUKE: a piece that is nothing but the mark of a space is no answer
    kept = may_start[start] & (chars[:, 0] < chars[:, 1])
    start, end, chars = start[kept], end[kept], chars[kept]
    pairs = np.stack([logits[first + start, 0], logits[first + end, 1]], axis=1)
    return chars, pairs.astype(np.float64)

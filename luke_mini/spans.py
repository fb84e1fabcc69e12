"""Tokens and the characters they come from: one type, and one decision about what "the tokens of a span" means.

In: the offsets that a tokenizer gives. Out: character span -> token span, and back. Spans are half-open (start, end).

    text      B a r a c k _ O b a m a      characters 0..11, _ is a space
    tokens    ▁Ba  rack   ▁Obama
    offsets   (0,2)(2,6)  (7,12)           white space belongs to no token

    token_span(offsets, 0, 6)  -> (0, 2)
    token_span(offsets, 3, 8)  -> (1, 3)   a token counts when it shares at least one character with the span
    char_span(offsets, 0, 2)   -> (0, 6)

LUKE itself never asks this question while it pretrains or reads a span given with the text: there, the text is cut at
the span's borders and tokenised piece by piece, so that a mention's tokens are exact. Offsets are for the way back,
from predictions to the user's characters, and for labels that come with whole texts.
"""

import unicodedata
from bisect import bisect_left, bisect_right
from typing import NamedTuple

WHITE_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's; `re` adds \x1c to \x1f

class Encoding(NamedTuple):
    """Token ids of a text and where each comes from.

    `offsets[k]` are half-open characters of the text as it was given, without the white space around them. Starts and
    ends never decrease. Tokens made from one character (½ -> 1 ⁄ 2) all have that character's offsets. A token that is
    nothing but a space marker has the empty span (s, s) where the next token starts.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


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

    A lone space marker right before the first of them comes along, as it does when a mention is tokenised by itself.
    """
    first = bisect_right(offsets, char_start, key=lambda span: span[1])
    last = bisect_left(offsets, char_end, key=lambda span: span[0])
    if char_start >= char_end or first >= last:
        return first, first
    while first > 0 and offsets[first - 1] == (offsets[first][0], offsets[first][0]):
        first -= 1
    return first, last


def char_span(offsets: list[tuple[int, int]], token_start: int, token_end: int) -> tuple[int, int]:
    """The characters from the first to the last of tokens [token_start, token_end). At least one token."""
    if not 0 <= token_start < token_end <= len(offsets):
        raise ValueError(f"token span ({token_start}, {token_end}) is empty or outside of {len(offsets)} tokens")
    return offsets[token_start][0], offsets[token_end - 1][1]

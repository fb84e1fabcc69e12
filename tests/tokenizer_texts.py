"""What the tokenizers' tests share: lines of real articles in 14 languages, strings that nobody wrote, and checks."""

import random
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from luke_mini import tokenizer, wiki_dump, wikitext

ROLES = ("bos", "pad", "eos", "unk", "mask", "ent", "ent2")

# What tokenizers trip over: white space of all kinds, joiners, combining marks, contractions, tokens written out.
SNIPPETS = (
    " |  |   |\t|\n|\r\n|\u00a0|\u3000|\u200b|\u200d|\u2028|\x85|\x1c|\x1f|\x00|\x7f|\ufeff|\ufffd|\u180e|\u00ad|"
    "'s|'S|'ll|'re|'t|'x|\u2019s|''|``|_|__|##|-|--|...|!?|$|%|<|>|<s>|</s>|<pad>|<unk>| <mask>|  <mask> |<ent>|<ent2>|"
    "a|b|A|the| the|of| and|hello|Hello|WORLD|don|I|1|12|1999|3.14|½|Ⅷ|²|٣|६|一|〇|"
    "é|e\u0301|ñ|ß|İ|ı|Σ|ς|ﬁ|Å|\u0301|\u0345|\u064b|ﷺ|가|각|\u1100\u1161|が|か\u3099|"
    "東|京|都|は|。|、|中国|𠀀|Привет| мир|العربية|বাংলা|हिन्दी|ไทย|"
    "😀|👩\u200d👩\u200d👧|🏳\ufe0f\u200d🌈|👍🏽|🇳🇴|☃|\U0001d400|\U000e0041|\U0010ffff|\ue000|\u0378|"
    "\\ud83d|\\ud83d\\ude00|[CLS]|[MASK]|[UNK]|▁|▁a|Ġ|Ã©"
).split("|")
ALPHABETS = [(0x20, 0x7F), (0x20, 0x250), (0x250, 0x3000), (0x3000, 0xD800), (0xE000, 0x10000), (0x10000, 0x30000)]


def random_strings(count: int, seed: int = 0) -> list[str]:
    """Snippets, and code points from all over Unicode, unassigned ones too; no surrogates, which no peer takes."""
    draw = random.Random(seed)
    strings = []
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(1, 12)):
            if draw.random() < 0.7:
                parts.append(draw.choice(SNIPPETS))
            else:
                low, high = draw.choice(ALPHABETS)
                parts += [chr(draw.randrange(low, high)) for _ in range(draw.randint(1, 4))]
        strings.append("".join(parts))
    return strings


def wiki_lines(folder: Path, count: int) -> list[str]:
    """Paragraphs of the articles in a folder of dumps, the same number of each dump as long as it has any."""
    dumps = [_paragraphs(path) for path in sorted(folder.glob("*.xml.bz2"))]
    lines = []
    while dumps and len(lines) < count:
        for dump in list(dumps):
            if line := next(dump, None):
                lines.append(line)
            else:
                dumps.remove(dump)
    return lines[:count]


def _paragraphs(path: Path) -> Iterator[str]:
    for page in wiki_dump.read_dump(path):
        if not page.redirect:
            yield from (p.text for p in wikitext.parse(page.wikitext, page.language) if p.text)


def random_cuts(text: str, draw: random.Random) -> list[int]:
    """Sorted, distinct positions from 0 to len(text): anywhere, or at and before spaces as the borders of mentions."""
    places = range(len(text) + 1)
    if draw.random() < 0.5:
        places = [k for k in places if " " in text[max(k - 1, 0) : k + 1]] or places
    return sorted(draw.sample(places, draw.randint(0, min(len(places), 12))))


def encode_cut(words, text: str, cuts: list[int]) -> tuple[list[int], list[int]]:
    """Ids of the segments between the cuts, and for each cut the number of ids before it."""
    ids, counts = words.encode_segments([text[start:end] for start, end in zip([0, *cuts], [*cuts, None])])
    return ids.tolist(), np.cumsum(counts).tolist()[:-1]


def assert_cuts_as(words, ids_of: Callable[[str], list[int]], texts: list[str], seed: int) -> None:
    """Texts that are cut at random places; ids_of: the ids of a segment by the oracle."""
    draw = random.Random(seed)
    for text in texts:
        cuts = random_cuts(text, draw)
        parts = [ids_of(text[start:end]) for start, end in zip([0, *cuts], [*cuts, None])]
        before = np.cumsum([*map(len, parts)]).tolist()[:-1]
        assert encode_cut(words, text, cuts) == ([*chain(*parts)], before), (text, cuts)


def assert_in_order(text: str, ids: list[int], offsets: list[tuple[int, int]]) -> None:
    """Starts and ends never decrease, stay inside of the text, and have no white space at their borders."""
    assert len(ids) == len(offsets)
    for (last_start, last_end), (start, end) in zip([(0, 0), *offsets], offsets):
        assert last_start <= start <= end <= len(text) and last_end <= end, text
        assert text[start:end] == text[start:end].strip(), text


def assert_contract(words, texts: list[str], folder: Path) -> None:
    """What every kind owes: files that come back, pieces as `encode` has them, special tokens in a text as text."""
    special = [getattr(words, f"{role}_id") for role in ROLES]
    assert sorted(set(special)) == sorted(special) and words.starts_word[special].all()
    assert words.starts_word.shape == (len(words),) and words.starts_word.dtype == np.bool_
    for number in {*special} - {words.unk_id}:
        text = f"a {words.pieces([number])[0]} b"
        assert number in encode_cut(words, text, [])[0]
        assert number not in words.encode(text).ids + words.encode_pieces([text], [False])[0]

    words.save(folder / "a")
    again = tokenizer.load(folder / "a")
    again.save(folder / "b")
    first, second = ({path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in "ab")
    assert first == second and "tokenizer_config.json" in first and type(again) is type(words)

    prefix_spaces = [k % 3 == 0 for k in range(len(texts))]
    encodings = [words.encode(text, prefix_space) for text, prefix_space in zip(texts, prefix_spaces)]
    assert [again.encode(text, prefix_space) for text, prefix_space in zip(texts, prefix_spaces)] == encodings
    assert words.encode_pieces(texts, prefix_spaces) == [encoding.ids for encoding in encodings]
    alone = [words.encode(text, prefix_space=False).ids for text in texts]
    ids, counts = words.encode_parts(texts)
    assert ids.tolist() == [*chain(*alone)] and counts.tolist() == [*map(len, alone)] and ids.dtype == np.int32
    first, last = (words.encode(text, prefix_space=False).ids for text in ("of", " a b"))
    for text, found in zip(texts, alone):  # without odd ones beside it
        assert words.encode_parts(["of", text, "", " a b"])[0].tolist() == [*first, *found, *last], text
    each = [encode_cut(words, text, [])[0] for text in texts]
    assert [encode_cut(again, text, [])[0] for text in texts] == each
    ids, counts = words.encode_segments(iter(texts))
    assert ids.tolist() == [*chain(*each)] and counts.tolist() == [*map(len, each)] and ids.dtype == np.int32
    for text, encoding in zip(texts, encodings):
        assert_in_order(text, *encoding)
    assert words.encode_parts([])[0].shape == words.encode_parts([])[1].shape == (0,)
    assert words.encode_pieces([], []) == [] == words.encode("").ids and words.encode_segments([])[0].shape == (0,)


def all_pieces(words) -> list[str]:
    """The vocabulary, in the order of its ids."""
    return words.pieces(range(len(words)))


def english() -> list[str]:
    """300 lines with words that share parts, contractions, numbers, accents."""
    names = "Ada Bo Cleo Dan Eva Finn Gro Hal".split()
    draw = random.Random(1)
    return [
        f"{draw.choice(names)} didn't see {draw.choice(names)}'s {draw.randint(2, 4000)} cafés in 東京, "
        f"nor {draw.choice(['the', 'a', 'no'])} {draw.choice(['newest', 'lowest', 'widest'])} _house_ (they're low)."
        for _ in range(300)
    ]

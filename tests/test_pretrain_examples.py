"""The builder of pretraining examples: by hand, and against a slow transcription of the rules.

    pytest tests/test_pretrain_examples.py

A toy tokenizer whose tokens can be read (words, and single characters of words it does not know) makes expectations
writable; the transcription works one sentence and one segment at a time, without the builder's batching.
"""

import re
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini import tokenizer_sentencepiece
from luke_mini.pretrain_examples import build_examples
from luke_mini.shards import Example
from luke_mini.spans import split_sentences

ENTITIES = {"Oslo": 3, "Norway": 4, "Kristiania": 3, "Ada": 5}
UNK = 1


class ToyTokenizer:
    """One token per word or sign; ids count up as tokens are met. A leading space is written as ▁."""

    def __init__(self):
        self.vocab: list[str] = []

    def encode_pieces(self, texts, prefix_spaces):
        result = []
        for text, prefix in zip(texts, prefix_spaces):
            assert text == re.sub(r"\s+", " ", text).rstrip(
                " "
            )  # white space is collapsed before the tokenizer sees it
            marked = ("▁" if prefix or text.startswith(" ") else "") + text.strip().replace(" ", "▁")
            tokens = re.findall(r"▁?\w+|▁?[^\w▁]", marked)
            for token in tokens:
                if token not in self.vocab:
                    self.vocab.append(token)
            result.append([self.vocab.index(token) for token in tokens])
        return result


def paragraph(marked: str, is_abstract: bool = False) -> SimpleNamespace:
    """ "In [[Oslo]] and [[Norway|it]]" -> a paragraph with two links."""
    text, links = "", []
    for plain, title, surface in re.findall(r"(.*?)(?:\[\[([^]|]*)(?:\|([^]]*))?\]\]|$)", marked, re.DOTALL):
        text += plain
        if title:
            surface = surface or title
            links.append(SimpleNamespace(title=title, start=len(text), end=len(text) + len(surface)))
            text += surface
    return SimpleNamespace(text=text, links=links, is_abstract=is_abstract)


def build(paragraphs, tokenizer=None, title="Ada", **options) -> list[tuple]:
    """Examples in readable form: (page id, text of the tokens, [(entity id, tokens of the mention)])."""
    tokenizer = tokenizer or ToyTokenizer()
    options = {"unk_entity_id": UNK, "min_sentence_length": 1, **options}
    readable = []
    for example in build_examples(paragraphs, title, tokenizer, ENTITIES, **options):
        words = [tokenizer.vocab[k] for k in example.word_ids]
        mentions = [
            (e, " ".join(words[a:b])) for e, (a, b) in zip(example.entity_ids, example.mention_spans, strict=True)
        ]
        readable.append((example.page_id, " ".join(words), mentions))
    return readable


def test_worked_example():
    text = "Oslo is in [[Norway]]. [[Ada]] moved there."
    assert build([paragraph(text)]) == [
        (5, "▁Oslo ▁is ▁in ▁Norway . ▁Ada ▁moved ▁there .", [(4, "▁Norway"), (5, "▁Ada")])
    ]


def test_no_space_marker_in_mid_word():
    """ "pre-[[Norway]]'s" and "([[Oslo]])": the mention and what follows it get ▁ only after a space."""
    assert build([paragraph("a pre-[[Norway]]'s ([[Oslo]]) [[Ada|Ada's]]b")])[0][1:] == (
        "▁a ▁pre - Norway ' s ▁( Oslo ) ▁Ada ' s b",
        [(4, "Norway"), (3, "Oslo"), (5, "▁Ada ' s")],
    )


def test_unknown_titles_redirects_and_page_ids():
    page = [paragraph("[[Kristiania]] and [[Atlantis]].")]
    assert build(page)[0] == (5, "▁Kristiania ▁and ▁Atlantis .", [(3, "▁Kristiania"), (UNK, "▁Atlantis")])
    assert build(page, unk_entity_id=None)[0][2] == [(3, "▁Kristiania")]
    assert build(page, title="Nobody")[0][0] == -1
    assert build(page, title="Nobody", predefined_entities_only=True) == []
    assert len(build(page, predefined_entities_only=True)) == 1


def test_links_across_sentences_are_dropped_and_words_stay():
    (example,) = build([paragraph("He left [[Oslo|Oslo. Then]] he saw [[Ada]].")])
    assert example[1:] == ("▁He ▁left ▁Oslo . ▁Then ▁he ▁saw ▁Ada .", [(5, "▁Ada")])


def test_packing():
    """Sentences of 4 tokens; 10 fit, so two a time; the third example holds no entity and is left out."""
    page = [
        paragraph("Aa bb [[Oslo]]. Cc dd ee. Ff gg [[Ada]]."),
        paragraph("Hh ii jj. Kk ll mm. Nn oo ww. Qq rr [[Norway]]."),
    ]
    assert [words for _, words, _ in build(page, max_seq_length=12)] == [
        "▁Aa ▁bb ▁Oslo . ▁Cc ▁dd ▁ee .",
        "▁Ff ▁gg ▁Ada . ▁Hh ▁ii ▁jj .",
        "▁Qq ▁rr ▁Norway .",
    ]
    everything = build(page, max_seq_length=12, sentences_without_entities=True)
    assert [words for _, words, _ in everything][2:] == ["▁Kk ▁ll ▁mm . ▁Nn ▁oo ▁ww .", "▁Qq ▁rr ▁Norway ."]
    assert [mentions for _, _, mentions in everything][2] == []


def test_sentence_lengths():
    """Sentences of 3, 5 and 11 tokens."""
    page = [paragraph("[[Oslo]] aa. [[Oslo]] aa bb cc. [[Oslo]] aa b c d e f g h ii.")]
    kept = build(page, min_sentence_length=4, max_seq_length=12)
    assert [words for _, words, _ in kept] == ["▁Oslo ▁aa ▁bb ▁cc ."]
    assert [words.count("▁Oslo") for _, words, _ in build(page, max_seq_length=13)] == [2, 1]


def test_at_most_so_many_entities_and_positions():
    (example,) = build([paragraph("[[Oslo|a b c d e]] [[Ada]] [[Norway]].")], max_mention_length=3, max_entity_length=2)
    assert example[1:] == ("▁a ▁b ▁c ▁d ▁e ▁Ada ▁Norway .", [(3, "▁a ▁b ▁c"), (5, "▁Ada")])


def test_abstract_only():
    page = [paragraph("In [[Oslo]].", is_abstract=True), paragraph("In [[Norway]].")]
    assert [words for _, words, _ in build(page, abstract_only=True)] == ["▁In ▁Oslo ."]


def test_white_space_and_empty_mentions():
    (example,) = build([paragraph("A\u00a0 b  [[Oslo| \t ]] [[Ada| Ada\u3000]]c.  ")])
    assert example[1:] == ("▁A ▁b ▁Ada ▁c .", [(5, "▁Ada")])


def test_pages_without_text():
    assert build([]) == build([paragraph("")]) == build([paragraph(" \n")]) == []


def test_long_sequences_of_paragraphs_are_not_mixed_up():
    page = [paragraph(f"Word{k} [[Oslo]] x. [[Ada|y{k}]] z.") for k in range(50)]
    words = " ".join(words for _, words, _ in build(page, max_seq_length=30)).split()
    assert words == " ".join(f"▁Word{k} ▁Oslo ▁x . ▁y{k} ▁z ." for k in range(50)).split()


# --------------------------------------------------------------------------------------------------------------------
# The rules again, slowly: one encode call per segment, positions counted token by token.


def slow(paragraphs, title, tokenizer, unk, max_words, min_sentence, max_entities, max_mention, keep_empty):
    def tokenize(text: str, start: int, end: int) -> list[int]:
        piece = re.sub(r"\s+", " ", text[start:end]).rstrip(" ")
        marked = start == 0 or text[start - 1].isspace()
        return tokenizer.encode(piece, prefix_space=marked).ids if piece else []

    sentences = []
    for item in paragraphs:
        for sentence_start, sentence_end in split_sentences(item.text):
            tokens, mentions, position = [], [], sentence_start
            for link in item.links:
                inside = sentence_start <= link.start and link.end <= sentence_end
                entity = ENTITIES.get(link.title, unk)
                if inside and entity is not None:
                    tokens = tokens + tokenize(item.text, position, link.start)
                    mention = tokenize(item.text, link.start, link.end)
                    if mention:
                        mentions.append((entity, len(tokens), len(tokens) + len(mention)))
                    tokens = tokens + mention
                    position = link.end
            tokens = tokens + tokenize(item.text, position, sentence_end)
            if min_sentence <= len(tokens) <= max_words:
                sentences.append((tokens, mentions))
    groups = []
    for tokens, mentions in sentences:
        if not groups or sum(len(t) for t, _ in groups[-1]) + len(tokens) > max_words:
            groups.append([])
        groups[-1].append((tokens, mentions))
    examples = []
    for group in groups:
        words, entities, spans = [], [], []
        for tokens, mentions in group:
            for entity, start, end in mentions:
                entities.append(entity)
                spans.append((len(words) + start, len(words) + min(end, start + max_mention)))
            words = words + tokens
        if entities or keep_empty:
            examples.append(Example(ENTITIES.get(title, -1), words, entities[:max_entities], spans[:max_entities]))
    return examples


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    corpus = ["Ada lives in Oslo, Norway. She (Ada) is from Bergen's coast. Why? Nobody knows."] * 20
    return tokenizer_sentencepiece.train(corpus, 80, tmp_path_factory.mktemp("tokenizer"))


WORDS = st.sampled_from(
    ["Ada", "is", "in", "Oslo", ".", ". ", "? ", "! ", " ", " ", "  ", "\u00a0", "(", "'s", "☃", "½", "\t"]
)
PLAIN = st.lists(WORDS, max_size=8).map("".join)
LINKS = st.tuples(PLAIN, st.sampled_from([*ENTITIES, "Atlantis"]))


@st.composite
def paragraphs_strategy(draw):
    result = []
    for _ in range(draw(st.integers(0, 4))):
        text, links = draw(PLAIN), []
        for surface, title in draw(st.lists(LINKS, max_size=5)):
            links.append(SimpleNamespace(title=title, start=len(text), end=len(text) + len(surface)))
            text += surface + draw(PLAIN)
        result.append(SimpleNamespace(text=text, links=links, is_abstract=False))
    return result


@settings(max_examples=300, deadline=None)
@given(
    paragraphs_strategy(),
    st.sampled_from(["Ada", "Nobody"]),
    st.sampled_from([UNK, None]),
    st.integers(5, 40),
    st.integers(0, 6),
    st.integers(1, 5),
    st.integers(1, 4),
    st.booleans(),
)
def test_equals_the_slow_transcription(
    trained, paragraphs, title, unk, max_words, minimum, entities, mention, keep_empty
):
    built = build_examples(
        paragraphs, title, trained, ENTITIES, unk_entity_id=unk, max_seq_length=max_words + 2,
        min_sentence_length=max(minimum, 1), max_entity_length=entities, max_mention_length=mention,
        sentences_without_entities=keep_empty,
    )  # fmt: skip
    assert list(built) == slow(
        paragraphs, title, trained, unk, max_words, max(minimum, 1), entities, mention, keep_empty
    )


@settings(max_examples=200, deadline=None)
@given(paragraphs_strategy())
def test_mentions_spell_their_surfaces(trained, paragraphs):
    """What the words of a span decode to is the surface of a link, as far as the tokenizer keeps it."""

    def spelling(text: str) -> str:
        return trained.decode(trained.encode(text).ids).replace(" ", "")

    surfaces = {(ENTITIES.get(l.title, UNK), spelling(p.text[l.start : l.end])) for p in paragraphs for l in p.links}
    for example in build_examples(paragraphs, "Ada", trained, ENTITIES, unk_entity_id=UNK, min_sentence_length=1):
        for entity, (start, end) in zip(example.entity_ids, example.mention_spans, strict=True):
            found = trained.decode(example.word_ids[start:end]).replace(" ", "")
            assert end > start and (entity, found) in surfaces

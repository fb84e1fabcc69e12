"""A parsed page -> pretraining examples: word ids with the spans that mention entities (LUKE, section 3.3).

In: the paragraphs of one page (text, links). Out: `Example`s of up to 510 words; <s> and </s> come in with the batch.

    paragraph   "Oslo is in Norway. Ada moved there."      links: Norway (11, 17) and Ada (19, 22)
    sentences   "Oslo is in Norway."   "Ada moved there."
    segments    "Oslo is in " "Norway" "."   "Ada" " moved there."      cut at the borders of links
    example     ▁Oslo ▁is ▁in ▁Norway . ▁Ada ▁moved ▁there .   entities Norway, Ada; mention spans (3, 4), (5, 6)

Segments are tokenised one by one, so that a mention's tokens are exact. A segment begins with a space marker if a space
stands before it or it begins the paragraph, as in running text. Consecutive sentences are then packed until the next
does not fit. All segments of a page go to the tokenizer in one call: half of the builder's speed is there.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from luke_mini.shards import Example
from luke_mini.spans import split_sentences

_WHITE_SPACE = re.compile(r"\s+")


class Mention(NamedTuple):
    entity_id: int
    start: int  # half-open; characters of the paragraph, later tokens of the sentence
    end: int


class Segments:
    """The pieces of text of one page that will be tokenised, with the rule for their space markers."""

    def __init__(self):
        self.texts: list[str] = []
        self.prefix_spaces: list[bool] = []

    def add(self, text: str, start: int, end: int) -> None:
        segment = text[start:end].rstrip()
        if "  " in segment or not segment.isprintable():  # quick: the only printable white space is " "
            segment = _WHITE_SPACE.sub(" ", segment)
        self.texts.append(segment)
        self.prefix_spaces.append(start == 0 or text[start - 1].isspace())


def _link_mentions(paragraph, entity_ids: Mapping[str, int], unk_entity_id: int | None) -> list[Mention]:
    """The paragraph's links as entity ids and characters; unknown ones become [UNK], or are dropped if that is None.

    differs from mLUKE, which drops them: prepare_wiki.py always keeps them, as LUKE does, since a model that has to
    say "none that I know" learns something from them.
    """
    found = ((entity_ids.get(link.title, unk_entity_id), link.start, link.end) for link in paragraph.links)
    return [Mention(*mention) for mention in found if mention[0] is not None]


def _cut_sentence(text: str, start: int, end: int, mentions: list[Mention], segments: Segments) -> None:
    """Adds text[start:end] to the segments: what stands before a mention, the mention, and so on, then the tail."""
    for mention in mentions:
        # differs from LUKE: nothing between two mentions ([[Li]][[F]]) is no token; there it becomes a space
        segments.add(text, start, mention.start)
        segments.add(text, mention.start, mention.end)
        start = mention.end
    segments.add(text, start, end)


def _cut_paragraph(text: str, mentions: list[Mention], language: str, segments: Segments) -> Iterator[list[Mention]]:
    """Cuts a paragraph into segments; yields the mentions of each sentence."""
    position = 0
    for start, end in split_sentences(text, language):
        inside = []
        while position < len(mentions) and mentions[position].start < end:  # both are in text order: one walk for all
            mention = mentions[position]
            if start <= mention.start and mention.end <= end:  # else it crosses the end of a sentence: dropped
                inside.append(mention)
            position += 1
        _cut_sentence(text, start, end, inside, segments)
        yield inside


def _join_segments(mentions: list[Mention], ids: Iterator[list[int]]) -> tuple[list[int], list[Mention]]:
    """Takes a sentence's segments from `ids`: its words, and its mentions with spans in words."""
    words, found = list(next(ids)), []
    for mention in mentions:
        start = len(words)
        words += next(ids)
        # differs from LUKE: a mention without tokens (a surface of control characters) is dropped, not kept empty
        if len(words) > start:
            found.append(Mention(mention.entity_id, start, len(words)))
        words += next(ids)
    return words, found


def _pack(
    sentences: Iterable[tuple[list[int], list[Mention]]], max_words: int
) -> Iterator[tuple[list[int], list[Mention]]]:
    """Joins consecutive sentences as long as they hold at most max_words words together.

    As LUKE: across paragraphs and sections, and over sentences that were left out; only a page is a border.
    """
    words: list[int] = []
    mentions: list[Mention] = []
    for sentence_words, sentence_mentions in sentences:
        if words and len(words) + len(sentence_words) > max_words:
            yield words, mentions
            words, mentions = [], []
        shift = len(words)
        mentions += [Mention(entity_id, start + shift, end + shift) for entity_id, start, end in sentence_mentions]
        words += sentence_words
    if words:
        yield words, mentions


def build_examples(
    paragraphs: Iterable,
    page_title: str,
    tokenizer,
    entity_ids: Mapping[str, int],
    *,
    unk_entity_id: int | None,
    language: str = "en",
    max_seq_length: int = 512,
    max_entity_length: int = 128,
    max_mention_length: int = 30,
    min_sentence_length: int = 5,
    sentences_without_entities: bool = False,
    abstract_only: bool = False,
    predefined_entities_only: bool = False,
) -> Iterator[Example]:
    """Yields the examples of one page.

    paragraphs: with .text, .is_abstract and .links; a link has .title and half-open characters .start, .end; links in
    text order, not overlapping. entity_ids: title -> id, redirects included (`EntityVocab.link_table`). unk_entity_id:
    of links to other titles (LUKE: [UNK]); None drops them. predefined_entities_only: only pages with an id.
    Left out are sentences of fewer than min_sentence_length or more than max_seq_length - 2 tokens. An example has at
    most max_entity_length mentions, at least one unless sentences_without_entities; a mention has at most
    max_mention_length tokens, its first ones."""
    page_id = entity_ids.get(page_title, -1)
    if predefined_entities_only and page_id < 0:
        return
    segments, cut = Segments(), []
    for paragraph in paragraphs:
        if paragraph.is_abstract or not abstract_only:
            mentions = _link_mentions(paragraph, entity_ids, unk_entity_id)
            cut.extend(_cut_paragraph(paragraph.text, mentions, language, segments))
    max_words = max_seq_length - 2
    ids = iter(tokenizer.encode_pieces(segments.texts, segments.prefix_spaces))
    sentences = (_join_segments(mentions, ids) for mentions in cut)
    kept = (sentence for sentence in sentences if min_sentence_length <= len(sentence[0]) <= max_words)
    for words, mentions in _pack(kept, max_words):
        if mentions or sentences_without_entities:
            known = mentions[:max_entity_length]  # the words of the others stay
            spans = [(start, min(end, start + max_mention_length)) for _, start, end in known]
            yield Example(page_id, words, [mention.entity_id for mention in known], spans)

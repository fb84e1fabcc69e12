"""What prepare_wiki.py has made: as lines for the terminal, and as a page, DIR/report.html.

In: the contents of the manifest, and what is in the folder. The same data give the same page.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from luke_mini import report
from luke_mini.entity_vocab import SPECIAL, EntityVocab
from luke_mini.examples import Shards
from luke_mini.report import text

REPORT = "report.html"
SHOWN_EXAMPLES, SHOWN_ENTITIES = 10, 20


def summary(made: dict) -> dict[str, str]:
    """Names and values. made: the contents of the manifest."""
    known = made["links_to_known_entities"] / max(made["links"], 1)
    words, entities = (made[name] / made["examples"] for name in ("words", "entities"))
    lost = made["links_lost"]
    reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in lost.items())
    return {
        "pages": f"{made['pages']:,}, of them {made['held_out_pages']:,} held out; {made['characters']:,} characters",
        "redirects": f"{made['redirects']:,}, of them {made['redirect_loops']:,} in a circle",
        "links": f"{made['links']:,}, {known:.1%} of them to entities of the vocabulary",
        "entities": f"{made['entity_vocab_size']:,}",
        "vocabulary": f"{made['word_vocab_size']:,} tokens",
        "examples": f"{made['examples']:,}, on average {words:.1f} tokens and {entities:.1f} entities: "
                    f"{made['entities'] / max(made['links'], 1):.1%} of the links",
        "lost": f"{sum(lost.values()):,} links became no entity{reasons and ': '}{reasons}",
    }  # fmt: skip


def hints(made: dict, asked) -> dict[str, str]:
    """Some of the summary, with what can be done about it. asked: the options of prepare_wiki.py."""
    few = made["links_to_known_entities"] < 0.5 * made["links"] and not asked.keep_red_links
    short = made["word_vocab_size"] < asked.vocab_size and not asked.tokenizer
    more = {
        "links": ", the rest dropped" if asked.drop_unknown_links else ", the rest to [UNK]",
        "entities": ", few: for part of a dump use --keep-red-links" * few,
        "vocabulary": ", the text is too small for more" * short,
    }  # fmt: skip
    return {name: summary(made)[name] + hint for name, hint in more.items()}


def write(folder: Path, made: dict, words, vocab: EntityVocab) -> None:
    """words: the tokenizer."""
    shards = Shards.open(folder)
    page = [
        report.table(summary(made)),
        report.grid([
            report.histogram("Tokens of an example", shards.lengths),
            report.histogram("Entities of an example", shards.entity_counts),
            f"<figure><figcaption>Where links went</figcaption>{report.bars(destinations(made).items())}</figure>",
            f"<figure><figcaption>The most frequent entities, by links</figcaption>{report.bars(head(vocab))}</figure>",
        ]),
        "<h2>Examples</h2>", *examples(shards, words, vocab, made["language"]),
    ]  # fmt: skip
    report.write(folder / REPORT, f"Data from {', '.join(made['sources'])}", page)


def destinations(made: dict) -> dict[str, int]:
    """How many links became entities of the vocabulary, [UNK], or nothing, and why."""
    lost = {f"lost: {reason.replace('_', ' ')}": count for reason, count in made["links_lost"].items()}
    kept = {"entities of the vocabulary": made["entities"] - made["links_to_unk"], "[UNK]": made["links_to_unk"]}
    held_out = made["links"] - made["entities"] - sum(lost.values())
    return kept | lost | ({"on pages held out": held_out} if held_out else {})


def head(vocab: EntityVocab) -> Iterator[tuple[str, int]]:
    """The first titles of a vocabulary, and their links."""
    entities = (vocab.entity(k) for k in range(len(vocab)))
    shown = ((entity.names[0][0], entity.count) for entity in entities)
    return islice((pair for pair in shown if pair[0] not in SPECIAL), SHOWN_ENTITIES)


def examples(shards: Shards, words, vocab: EntityVocab, language: str) -> Iterator[str]:
    """Some, evenly spaced: the text with its mentions marked, and their titles where those differ."""
    for index in np.unique(np.linspace(0, len(shards) - 1, SHOWN_EXAMPLES).astype(np.int64)):
        example, parts, written = shards.gather(np.array([index])), [], 0
        ids, page = example.word_ids.tolist(), int(example.page_ids[0])
        whole = words.decode(ids)
        for entity, span in zip(example.entity_ids.tolist(), example.mention_spans.tolist()):
            start, end = (len(words.decode(ids[:border])) for border in span)
            start += len(whole[start:end]) - len(whole[start:end].lstrip())
            mention, title = whole[start:end], vocab.title(entity, language)
            note = f"<small>{text(title)}</small>" if title.lower() != mention.lower() else ""
            parts.append(f"{text(whole[written:start])}<mark>{text(mention)}{note}</mark>")
            written = end
        heading = vocab.title(page, language) if page >= 0 else "a page that is no entity"
        passage = f'<p dir="auto">{"".join(parts)}{text(whole[written:])}</p>'
        yield f'<article><h2 dir="auto">{index + 1:,}: {text(heading)}</h2>{passage}</article>'

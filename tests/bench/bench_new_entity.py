"""New entities from ten sentences: how well does the masked-entity head find what pretraining never saw?

    python tests/bench/bench_new_entity.py --out runs/new-entities

Holds 20 entities of the built-in encyclopedia out: their articles and every paragraph that names them. Pretrains on the
rest as train.py does by default, adds each entity from ten sentences (`entity_tools.add`), and asks for masked
mentions of it in the other sentences that link it: the rank of the right entity among all of the vocabulary.
"""

import argparse
import json
import random
from pathlib import Path

import project  # noqa: F401 (finds luke_mini)
import torch

import prepare_wiki
import train
from luke_mini import checkpoint, entity_tools, toyworld, wiki_dump, wikitext
from luke_mini.entity_vocab import Entity, resolve_redirect
from luke_mini.spans import split_sentences

FEWEST, CONTEXTS = 30, 10  # linking sentences of a held-out entity; those that it is made of


def read_world(folder: Path):
    """(titles and paragraphs of the articles, redirects) of the built-in encyclopedia."""
    path = folder / "dump.xml.bz2"
    toyworld.write_dump(path, 0)
    pages = list(wiki_dump.read_dump(path))
    redirects = {page.title: page.redirect for page in pages if page.redirect}
    return [(page.title, wikitext.parse(page.wikitext)) for page in pages if not page.redirect], redirects


def linking_sentences(articles, redirects) -> dict[str, list[tuple[str, int, int]]]:
    """Title -> sentences that link to it, each with the span of the link."""
    found: dict[str, list[tuple[str, int, int]]] = {}
    for _, paragraphs in articles:
        for text, links, _ in paragraphs:
            for start, end in split_sentences(text, "en"):
                for link in links:
                    if start <= link.start and link.end <= end:
                        place = text[start:end], link.start - start, link.end - start
                        found.setdefault(resolve_redirect(link.title, redirects), []).append(place)
    return found


def write_rest(articles, redirects, held_out: set[str], path: Path) -> int:
    """Writes the paragraphs that have nothing of the held-out entities; returns how many were left out."""
    names = held_out | {title for title in redirects if resolve_redirect(title, redirects) in held_out}
    left_out = 0
    with open(path, "w", encoding="utf-8") as file:
        for title, paragraphs in articles:
            kept = []
            for text, links, is_abstract in paragraphs:
                resolved = [resolve_redirect(link.title, redirects) for link in links]
                if title in held_out or held_out & set(resolved) or any(name in text for name in names):
                    left_out += 1
                    continue
                linked = [{"title": to, "start": x.start, "end": x.end} for to, x in zip(resolved, links)]
                kept.append({"text": text, "links": linked, "is_abstract": is_abstract})
            if kept:
                file.write(json.dumps({"title": title, "paragraphs": kept}) + "\n")
    return left_out


def ranks(found, contexts, numbers) -> torch.Tensor:
    """The rank of an entity for each masked mention, 1 = first. numbers: the right entities' ids."""
    states = entity_tools.masked_states(found, contexts)
    scores = states @ found.weights[entity_tools.TABLE].T + found.weights[entity_tools.BIAS]
    right = scores[torch.arange(len(contexts)), torch.as_tensor(numbers)]
    return (scores > right[:, None]).sum(1) + 1


def show(name: str, found: torch.Tensor) -> None:
    found = found.float()
    top = ", ".join(f"first {k}: {(found <= k).float().mean():.1%}" for k in (1, 10, 100))
    print(f"{name:30} {len(found):6,} mentions, median rank {found.median():.0f}, {top}", flush=True)


def unnamed(contexts):
    """The same with <mask> in place of the mention's words: what is around it has to tell."""
    return [(f"{text[:start]}<mask>{text[end:]}", (start, start + len("<mask>"))) for text, (start, end) in contexts]


def measure(found, sentences, held_out: list[str]) -> None:
    known = [(text, (start, end), title) for title in sorted(sentences) for text, start, end in sentences[title]
             if found.entity_vocab.get(title) is not None and not any(name in text for name in held_out)]  # fmt: skip
    known = random.Random(1).sample(known, 2000)
    contexts = [context for *context, _ in known]
    numbers = [found.entity_vocab.id(title) for *_, title in known]
    before, larger, others = ranks(found, contexts, numbers), found, []
    print(f"vocabulary of {len(found.entity_vocab):,}; {len(held_out)} new entities from {CONTEXTS} sentences each")
    for title in held_out:
        random.Random(title).shuffle(sentences[title])
        places = [(text, (start, end)) for text, start, end in sentences[title]]
        row, bias = entity_tools.row_from_contexts(found, places[:CONTEXTS])
        larger = entity_tools.add(larger, Entity([(title, None)]), row, bias)
        others.append(places[CONTEXTS:])
    places = [place for found in others for place in found]
    right = [larger.entity_vocab.id(title) for title, found in zip(held_out, others) for _ in found]
    show("new entities", ranks(larger, places, right))
    show("known entities, before", before)
    show("known entities, after", ranks(larger, contexts, numbers))
    show("new entities, unnamed", ranks(larger, unnamed(places), right))
    show("known entities, unnamed", ranks(larger, unnamed(contexts), numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="data and run; a run there is used again")
    parser.add_argument("--entities", type=int, default=20, metavar="N", help="entities to hold out [20]")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="of pretraining [as train.py]")
    arguments = parser.parse_args()
    data, run = arguments.out / "data", arguments.out / "run"
    arguments.out.mkdir(parents=True, exist_ok=True)
    articles, redirects = read_world(arguments.out)
    sentences = linking_sentences(articles, redirects)
    titles = sorted(title for title, found in sentences.items() if len(found) >= FEWEST)
    held_out = random.Random(0).sample(titles, arguments.entities)
    if not (run / "metrics.jsonl").exists():
        left_out = write_rest(articles, redirects, set(held_out), arguments.out / "rest.jsonl")
        print(f"held out    {len(held_out)} entities, {left_out} paragraphs")
        shape = "--vocab-size 4000 --max-seq-length 128 --pieces bpe --no-mentions --workers 1"
        prepare_wiki.main(f"--jsonl {arguments.out}/rest.jsonl --out {data} {shape}".split())
        train.main(f"--data {data} --out {run} --steps {arguments.steps}".split())
    measure(checkpoint.read(run), sentences, held_out)


if __name__ == "__main__":
    main()

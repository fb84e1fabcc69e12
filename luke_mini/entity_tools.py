"""Questions to an entity vocabulary, and new entities for a trained model.

    python -m luke_mini.entity_vocab lookup runs/toyworld Tamovland 17        title <-> id <-> Wikidata's id
    python -m luke_mini.entity_vocab neighbours runs/toyworld Tamovland      whose embeddings are nearest
    python -m luke_mini.entity_vocab add runs/toyworld Zorvik --texts zorvik.txt --out runs/zorvik
    python -m luke_mini.entity_vocab add runs/toyworld Zorvik --like Tamovland 17 --out runs/zorvik-2

In: a model folder, a run, or (for lookup, which then knows counts, redirects and Wikidata's ids) a data folder of
prepare_wiki.py. lookup and neighbours print a JSON object per answer.

The texts are a sentence a line that mentions the new entity, marked: `She moved to <e>Zorvik</e> in May.`, or as JSON,
{"text": "She moved to Zorvik in May.", "spans": [{"start": 13, "end": 19}]}. Nothing is trained: the model reads each
mention as [MASK], and what its masked-entity head compares with the entity table (the transformed state of the mention)
is what the entity should have been. The mean over at most 128 mentions, scaled to the mean length of the table's rows,
becomes the new row; its bias is the mean of the others. --like copies the mean row and bias of entities that are known.
--out is a model folder with one entity more, the last one; all that it had keeps its id and its numbers.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from luke_mini import checkpoint, disambiguation_data, files, formats, inputs, packing, trainer
from luke_mini.checkpoint import Checkpoint
from luke_mini.entity_vocab import SPECIAL, Entity, EntityVocab, resolve_redirect
from luke_mini.inputs import CharSpan

TABLE, BIAS = "luke.entities.entity.weight", "entity_head.bias"
MAX_CONTEXTS = 128
Context = tuple[str, CharSpan]  # a text and where it mentions the entity


# --- Questions --------------------------------------------------------------------------------------------------------


def read_vocabulary(folder: Path) -> tuple[EntityVocab, dict[str, str]]:
    """The vocabulary of a data folder with its redirects, or of a model folder without."""
    if (folder / "entity_vocab.jsonl").is_file():
        redirects = folder / "redirects.tsv"
        known = disambiguation_data.read_redirects(redirects) if redirects.is_file() else {}
        return EntityVocab.load(folder / "entity_vocab.jsonl"), dict(known)
    vocab = EntityVocab.of_folder(checkpoint.find_folder(folder))
    if vocab is None:
        raise ValueError(f"{folder}: no entity_vocab.jsonl, no entity_vocab.json")
    return vocab, {}


def find(vocab: EntityVocab, name: str, redirects: dict[str, str], language: str | None = None) -> list[int]:
    """All that a name can mean: a title or a redirect to one, in one language or in several; Wikidata's id; an id."""
    title = resolve_redirect(name, redirects)
    found = [vocab.get(title, known) for known in ([language] if language else [None, *vocab.languages])]
    found += [number for number in range(len(vocab)) if name == vocab.entity(number).item]
    if name.isdecimal() and int(name) < len(vocab):
        found.append(int(name))
    return sorted({number for number in found if number is not None})


def find_one(vocab: EntityVocab, name: str, language: str | None = None) -> int:
    found = find(vocab, name, {}, language)
    if len(found) != 1:
        meant = ", ".join(f"{number} ({vocab.title(number)})" for number in found) or "no entity"
        raise ValueError(f"{name!r} names {meant} of the {len(vocab):,}, expected one: a title, en:Title, or an id")
    return found[0]


def describe(vocab: EntityVocab, number: int, redirects: dict[str, str]) -> dict:
    names, count, item = vocab.entity(number)
    known = {title for title, _ in names}
    sources = sorted(source for source in redirects if resolve_redirect(source, redirects) in known)
    titles = [f"{language}:{title}" if language else title for title, language in names]
    more = {"count": count, "wikidata": item, "redirects": sources}
    return {"id": number, "titles": titles} | {key: value for key, value in more.items() if value}


def neighbours(vocab: EntityVocab, table: Tensor, number: int, top: int) -> list[tuple[int, float]]:
    """The entities whose rows have the largest cosine with that of an entity, special ones and itself left out."""
    cosines = F.cosine_similarity(table[: len(vocab)].float(), table[number].float(), dim=1)
    cosines[[number, *(vocab.get(name) for name in SPECIAL if vocab.get(name) is not None)]] = -2
    values, rows = cosines.topk(min(top, len(vocab)))
    return [(row, value) for row, value in zip(rows.tolist(), values.tolist()) if value > -2]


# --- A new entity -----------------------------------------------------------------------------------------------------


def read_contexts(path: Path) -> list[Context]:
    """The texts of a file with each mention that is marked in them."""
    records = [files.line_record(line, where, formats.unmark) for where, line in files.read_lines(path)]
    found = [(record.get("text", str), span.span(record.get("text", str)))
             for record in records for span in record.list("spans")]  # fmt: skip
    if not found:
        raise ValueError(f"{path}: no mention, expected lines such as: She moved to <e>Zorvik</e> in May.")
    return found


def masked_sequences(found: Checkpoint, contexts: Sequence[Context]) -> list[packing.Sequence]:
    """Each mention as the one entity of its text, [MASK]; a long text is cut around it."""
    words, vocab = found.tokenizer, found.entity_vocab
    texts, spans = [text for text, _ in contexts], [[span] for _, span in contexts]
    sequences = []
    for ids, places in zip(*inputs.token_spans(words, texts, spans)):
        word_ids = np.array([words.bos_id, *ids, words.eos_id], np.int64)
        sequence = packing.Sequence(word_ids, np.array([vocab.mask_id]), places + 1, np.arange(1))
        sequences.append(inputs.truncate_around(sequence, found.config.longest_input))
    return [sequence for sequence in sequences if sequence]


@torch.no_grad()
def masked_states(found: Checkpoint, contexts: Sequence[Context]) -> Tensor:
    """What the masked-entity head compares with the entity table, [contexts, entity size]."""
    model = checkpoint.build(replace(found, settings={"architectures": ["LukeForMaskedLM"]}))
    sequences, states = masked_sequences(found, contexts), []
    with trainer.predicting(model):
        for begin in range(0, len(sequences), 32):
            packed = packing.pack(sequences[begin : begin + 32], found.config.pad_token_id, max_mention=30)
            states.append(model.entity_head.transform(model.luke(packed)[packed.n_words :]))
    return torch.cat(states).float()


def row_from_contexts(found: Checkpoint, contexts: Sequence[Context]) -> tuple[Tensor, Tensor]:
    """(row of the entity table, bias)"""
    if BIAS not in found.weights:
        raise ValueError("the model has no masked-entity head (entity_predictions.*): expected --like, not --texts")
    mean = masked_states(found, contexts[:MAX_CONTEXTS]).mean(0)
    table, bias = (found.weights[name].float() for name in (TABLE, BIAS))
    ordinary = [number for number in range(len(found.entity_vocab)) if found.entity_vocab.title(number) not in SPECIAL]
    if not ordinary:
        return mean, bias.mean()
    return mean * table[ordinary].norm(dim=1).mean() / mean.norm(), bias[ordinary].mean()


def row_like(found: Checkpoint, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    bias = found.weights.get(BIAS, torch.zeros(found.config.entity_vocab_size))
    return found.weights[TABLE][list(numbers)].float().mean(0), bias[list(numbers)].float().mean()


def add(found: Checkpoint, entity: Entity, row: Tensor, bias: Tensor) -> Checkpoint:
    """The checkpoint with one more entity at the end. Rows beyond the vocabulary, which have no title, are dropped."""
    vocab, weights = found.entity_vocab.extended_by(entity), dict(found.weights)
    for name, new in ((TABLE, row), (BIAS, bias)):
        if name in weights:
            old = weights[name][: len(vocab) - 1]
            weights[name] = torch.cat([old, new[None].to(old.dtype)])
    config = replace(found.config, entity_vocab_size=len(vocab))
    return replace(found, config=config, weights=weights, entity_vocab=vocab)


# --- Command line -----------------------------------------------------------------------------------------------------


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m luke_mini.entity_vocab", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "lookup": "print what is known of entities",
        "neighbours": "print the entities with the nearest embeddings",
        "add": "write the model again with a new entity",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("folder", type=Path, metavar="DIR", help="model folder or run; for lookup also of data")
        command.add_argument("names", nargs=1 if name == "add" else "+", metavar="NAME", help="title, en:Title, or id")
        command.add_argument("--language", metavar="CODE", help="of the titles, if the vocabulary has several")
    command.add_argument("--out", type=Path, required=True, metavar="OUT", help="the folder to write; must not exist")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--texts", type=Path, metavar="FILE", help="sentences such as: <e>Zorvik</e> is a town.")
    source.add_argument("--like", nargs="+", metavar="NAME", help="entities whose mean it becomes")
    commands.choices["neighbours"].add_argument("--top", type=int, default=10, metavar="N", help="how many [10]")
    return parser.parse_args(argv)


def answers(arguments: argparse.Namespace) -> Iterator[dict]:
    """Of lookup and neighbours. ValueError for a name that is not known, after the answers to those before it."""
    if arguments.command == "lookup":
        vocab, redirects = read_vocabulary(arguments.folder)
        for name in arguments.names:
            found = find(vocab, name, redirects, arguments.language)
            if not found:
                raise ValueError(f"{arguments.folder}: {name!r} is none of its {len(vocab):,} entities")
            yield from (describe(vocab, number, redirects) for number in found)
        return
    found = checkpoint.read(arguments.folder)
    for name in arguments.names:
        number = find_one(found.entity_vocab, name, arguments.language)
        for row, cosine in neighbours(found.entity_vocab, found.weights[TABLE], number, arguments.top):
            yield describe(found.entity_vocab, row, {}) | {"cosine": round(cosine, 4)}


def write_added(arguments: argparse.Namespace) -> None:
    if arguments.out.exists():
        raise ValueError(f"{arguments.out}: exists already")
    found = checkpoint.read(arguments.folder)
    vocab, (title,) = found.entity_vocab, arguments.names
    language = arguments.language or (vocab.languages[0] if len(vocab.languages) == 1 else None)
    if vocab.languages and language not in vocab.languages:
        raise ValueError(f"--language {language}: expected one of {' '.join(vocab.languages)}")
    if (known := vocab.get(title, language)) is not None:
        raise ValueError(f"{arguments.folder}: {title!r} is there already, with the id {known}")
    if arguments.texts:
        contexts = read_contexts(arguments.texts)
        row, bias = row_from_contexts(found, contexts)
    else:
        row, bias = row_like(found, [find_one(vocab, name, arguments.language) for name in arguments.like])
    made = add(found, Entity([(title, language)]), row, bias)
    with files.write_folder(arguments.out) as folder:
        checkpoint.write_files(folder, made)
    used = f"{min(len(contexts), MAX_CONTEXTS)} of {len(contexts)} mentions" if arguments.texts else "known entities"
    print(f"{arguments.out}: {title} has the id {len(vocab)}, from {used}")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    if arguments.command == "add":
        write_added(arguments)
        return
    for shown in answers(arguments):
        print(json.dumps(shown, ensure_ascii=False))

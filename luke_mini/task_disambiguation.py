"""Entity disambiguation: which entity does each mention mean? Decided for all mentions of a document together.

Yamada et al. 2022, "Global entity disambiguation with BERT": the model that was pretrained to predict masked entities
is asked for them. Every mention is an entity of the input, at first [MASK]; the one that the model is surest about gets
its entity put in, and the next is decided with that knowledge.

    read_examples   AIDA-CoNLL, WNED or your own file (`disambiguation_data.py`) -> documents, mentions with candidates
    from_record     the same from a line of text or JSON; `finetune.py link` goes on from here, too
    make_features   -> one input for a document; several for a long one (`disambiguation_data.py`)
    DisambiguationModel   LukeForPretraining as it is: the score of a candidate is that of the masked-entity head
    decode          one forward for each mention of the longest document, for a whole batch of documents
    evaluate        -> precision, recall = in-KB accuracy, F1 over mentions that have a title
    choose_mix      for own text: how much the model counts beside the prior, and from which probability on
What every task module offers: `finetuning.py`.

In training nine of ten mentions are masked, the others keep their entity. The entity table stays as it was pretrained,
so that entities which the training data lacks do not fall behind; [MASK] gets an embedding of its own, which trains.
A score is computed for candidates only, 30 a mention, never for all entities of the vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from luke_mini import disambiguation_data as data
from luke_mini import ops_cpu, packing, tasks, trainer
from luke_mini.checkpoint import Checkpoint
from luke_mini.config import ModelConfig
from luke_mini.disambiguation_data import Document, Feature, make_features
from luke_mini.entity_vocab import resolve_redirect
from luke_mini.files import Record
from luke_mini.mentions import Mention, Mentions, address, find_statistics
from luke_mini.metrics import disambiguation_scores
from luke_mini.model import LukeForPretraining
from luke_mini.packing import PackedBatch

NAME, TITLE, _, FILES, FORMAT, Options, ALL_ENTITIES, _, TRAINS = tasks.DISAMBIGUATION
SCORES = ("precision", "f1", "in_kb_accuracy")
ARCHITECTURE = "LukeForMaskedLM"
SHOWN_CANDIDATES = 5  # of a mention in own text
TINIEST = 1e-9  # a candidate that model or prior rules out is not impossible
WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8)  # of the model, to choose from
MOST_LINKS = 1500  # held out, to choose by


# --- Reading ----------------------------------------------------------------------------------------------------------


def records(path: str | Path, options: Options = Options()) -> list[Record]:
    return list(data.records(path, options.mentions_alone))


def unmark(line: str, where: str) -> Record:
    """Plain text, in which nobody looked for mentions yet."""
    return Record(where, {"text": line, "spans": None})


def from_record(
    record: Record, options: Options = Options(), labels: Sequence[str] | None = None
) -> list[Document]:
    """Its document. Of a line of --predict it is complete; that of a file may lack candidates, see `read_examples`."""
    document = data.to_document(record)
    return [document] if labels is None else _with_candidates([document], options, Path())


def read_examples(path: str | Path, options: Options = Options()) -> list[Document]:
    """The documents of a file; every mention has candidates, best prior first, perhaps none."""
    documents = [document for record in records(path, options) for document in from_record(record, options)]
    documents = _with_candidates(documents, options, Path(path).parent)
    if options.persons:
        persons = frozenset(data.read_titles(options.persons))
        documents = [data.with_persons(document, persons) for document in documents]
    if options.pprforned:
        documents = [data.with_pprforned(document, options.pprforned) for document in documents]
    if not (options.redirects or options.titles):
        return documents
    # differs from LUKE: redirects are followed to the end, not one step
    redirects = data.read_redirects(options.redirects) if options.redirects else {}
    valid = frozenset(data.read_titles(options.titles)) if options.titles else None
    return [data.with_titles(document, lambda title: resolve_redirect(title, redirects), valid)
            for document in documents]  # fmt: skip


def _with_candidates(documents: list[Document], options: Options, folder: Path) -> list[Document]:
    """With what is still missing, from --mentions or the statistics in the folder or one of the three above it."""
    if all(d.mentions is not None and all(m.candidates is not None for m in d.mentions) for d in documents):
        return documents
    found = options.mentions or find_statistics([folder])
    if not found:
        raise ValueError(f"{folder}: mentions have no candidates, expected --mentions FILE, written by prepare_wiki.py")
    statistics = _load_statistics(Path(found))
    return [data.with_candidates(document, statistics, options.min_link_probability) for document in documents]


@lru_cache(4)
def _load_statistics(path: Path) -> Mentions:
    return Mentions.load(path)


def _titled(documents: Sequence[Document]) -> list[Mention]:
    return [mention for document in documents for mention in document.mentions if mention.title is not None]


def describe(documents: Sequence[Document]) -> str:
    mentions = _titled(documents)
    best = sum(bool(m.candidates) and m.candidates[0].title == m.title for m in mentions)
    share = f", the best prior is right for {best / len(mentions):.1%}" if mentions else ""
    return f"{len(mentions)} mentions with a title{share}"


def scoring_options(options: Options) -> Options:
    """Files that are scored are split in another way than the training file."""
    return replace(options, split=options.scored_split)


# --- What cannot be learned -------------------------------------------------------------------------------------------


def skipped(documents: Sequence[Document], features: Sequence[Feature]) -> dict[str, int]:
    """Of the mentions with a title: what decoding can get right by chance at most, and training has no use for."""
    titled = _titled(documents)
    bare = sum(not mention.candidates for mention in titled)
    unlisted = sum(mention.title not in [c.title for c in mention.candidates] for mention in titled) - bare
    known = {(f.document, k) for f in features for k in f.sequence.kept[f.sequence.entity_ids >= 0].tolist()}
    return {
        "mentions without candidates": bare,
        "titles that are no candidate": unlisted,
        "titles outside of the vocabulary or beyond --max-candidates": len(titled) - bare - unlisted - len(known),
        "mentions left out, as their title is no article": sum(document.skipped for document in documents),
    }


# --- Batches and model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DisambiguationBatch(packing.MicroBatch):
    """E mentions, of which each input's share is masked in training. packed.entity_ids: the gold ones."""

    candidates: Tensor  # int64 [E, most candidates of a mention], -1 behind the last
    labels: Tensor  # int64 [E], which candidate is the gold entity
    n_masked: tuple[int, ...]  # of each input

    @property
    def counts(self) -> dict[str, int]:
        return {"entity": sum(self.n_masked)}


class DisambiguationModel(LukeForPretraining):
    """The pretrained model, and nothing new; but its [MASK] may have an embedding of its own, see `prepare`."""

    def __init__(self, config: ModelConfig, mask_entity_id: int, options: Options):
        super().__init__(config)
        self.mask_entity_id, self.options = mask_entity_id, options

    def collate(self, features: Sequence[Feature]) -> DisambiguationBatch:
        """For training: mentions whose gold entity is no candidate are left out, as if they were ordinary words."""
        sequences, candidates = [], []
        for feature in features:
            word_ids, *of_mentions = feature.sequence
            known = np.flatnonzero(feature.sequence.entity_ids >= 0)
            sequences.append(packing.Sequence(word_ids, *(part[known] for part in of_mentions)))
            candidates += [feature.candidates[k] for k in known]
        packed, candidates = packing.pack(sequences, self.config.pad_token_id), padded(candidates)
        labels = (candidates == packed.entity_ids[:, None]).int().argmax(dim=1)
        n_masked = tuple(number_to_mask(n, self.options.mask_share) for n in packed.entity_lengths)
        return DisambiguationBatch(packed, candidates, labels, n_masked)

    def scores(self, packed: PackedBatch, rows: Tensor, candidates: Tensor) -> Tensor:
        """Scores [n, most candidates] of the masked-entity head for entities `rows` (int64 [n]); -inf behind the last.

        candidates: int64 [n, most candidates], -1 is none.
        """
        hidden = self.luke(packed).index_select(0, packed.n_words + rows)
        seen = self.entity_head.transform(hidden).float()
        known = candidates.clamp(min=0)
        table = F.embedding(known, self.luke.entities.entity.weight)  # [n, most candidates, table size]
        scores = (table * seen[:, None]).sum(dim=2) + self.entity_head.bias[known]
        return scores.masked_fill(candidates < 0, float("-inf"))

    def forward(self, batch: DisambiguationBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """What `trainer` asks for. Which mentions are masked is drawn here, from the generator seeded for the step."""
        masked = draw_masked(batch.packed.entity_lengths, batch.n_masked, batch.labels.device)
        entity_ids = batch.packed.entity_ids.masked_fill(masked, self.mask_entity_id)
        rows = masked.nonzero().squeeze(1)
        scores = self.scores(replace(batch.packed, entity_ids=entity_ids), rows, batch.candidates[rows])
        labels = batch.labels[rows]
        # differs from LUKE: there, padding takes part in the mean, which makes the steps of small documents smaller
        loss = F.cross_entropy(scores, labels, reduction="sum")
        return {"entity": (loss, (scores.argmax(dim=1) == labels).sum())}


def padded(rows: Sequence[Collection], dtype: torch.dtype = torch.int64) -> Tensor:
    """The candidates of several mentions, [mentions, most], or numbers of each; -1 behind the last of each."""
    table = torch.full((len(rows), max(1, max(map(len, rows), default=1))), -1, dtype=dtype)
    for row, ids in zip(table, rows):
        row[: len(ids)] = torch.tensor([*ids], dtype=dtype)
    return table


def number_to_mask(n: int, share: float) -> int:
    """Of n mentions; 0.9 of 1, 2, 5, 15 are 1, 2, 4, 14: halves are rounded to the even number, as Python does."""
    return min(n, max(1, round(share * n)))


def draw_masked(lengths: Sequence[int], n_masked: Sequence[int], device) -> Tensor:
    """bool [sum(lengths)]: n_masked[i] of the lengths[i] mentions of input i, each set of them equally likely."""
    of_input = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    first = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths)
    chosen = torch.arange(len(of_input)) - first[of_input] < torch.tensor(n_masked)[of_input]  # the first few of each,
    noise = torch.rand(len(of_input), dtype=torch.float64, device=device, generator=ops_cpu.generator())
    order = torch.argsort(of_input.to(device) + noise)  # shuffled within each input
    return torch.zeros_like(noise, dtype=torch.bool).index_put((order,), chosen.to(device))


def prepare(start: Checkpoint) -> Checkpoint:
    """The checkpoint with an embedding of [MASK] beside the entity table: its row, if there is none yet."""
    vocab, weights = start.entity_vocab, dict(start.weights)
    if len(vocab) <= 4:
        raise ValueError(f"a checkpoint of {len(vocab)} entities (a lite one) knows no titles to choose from")
    if start.config.mask_entity_id is None:
        weights["luke.entities.mask"] = weights["luke.entities.entity.weight"][vocab.mask_id].clone()
    return replace(start, config=replace(start.config, mask_entity_id=vocab.mask_id), weights=weights)


def build_model(
    config: ModelConfig, entity_vocab, labels: Sequence[str] = (), options: Options = Options()
) -> DisambiguationModel:
    """The model with weights yet to be filled in. The entity table, which the scores share, and its bias are frozen."""
    model = DisambiguationModel(config, entity_vocab.mask_id, options)
    for part in (model.luke.pooler, model.luke.entities.entity, model.word_head):
        part.requires_grad_(False)
    model.entity_head.bias.requires_grad_(False)
    return model


# --- Decoding ---------------------------------------------------------------------------------------------------------


class State:
    """What is decided in one input so far."""

    def __init__(self, feature: Feature, mask_entity_id: int):
        n = len(feature.candidates)
        self.feature = feature
        self.entity_ids = np.full(n, mask_entity_id)
        self.open = [k for k, ids in enumerate(feature.candidates) if ids]  # those without candidates stay masked
        self.choice = np.full(n, -1)  # number of the mention's candidate
        self.probability = np.zeros(n)
        self.model = [np.empty(0)] * n  # the model's probability of each candidate, when it was decided

    def decide(self, best: np.ndarray, probability: np.ndarray, model: np.ndarray, order: str) -> None:
        """best, probability: of each open mention its best candidate. Puts in one of them, or all if local."""
        surest = 0 if order == "natural" else int(probability.argmax())  # of equal ones the first
        for i in range(len(self.open)) if order == "local" else [surest]:
            k = self.open[i]
            self.entity_ids[k], self.choice[k] = [*self.feature.candidates[k].items()][best[i]]
            self.probability[k], self.model[k] = probability[i], model[i]
        self.open = [] if order == "local" else self.open[:surest] + self.open[surest + 1 :]


def decode(model: DisambiguationModel, features: Sequence[Feature], order: str, batch_size: int = 32) -> list[State]:
    """Decides about every mention with candidates: one forward for each decision of the input with most of them.

    In every forward the inputs of a batch that still have open mentions take part, and only those.
    """
    states = [State(feature, model.mask_entity_id) for feature in features]
    # Inputs with as many decisions leave together, and long ones are with long ones.
    by_size = sorted(states, key=lambda state: (-len(state.open), -len(state.feature.sequence.word_ids)))
    with trainer.predicting(model):
        for begin in range(0, len(by_size), batch_size):
            active = [state for state in by_size[begin : begin + batch_size] if state.open]
            while active:
                _decide_once(model, active, order)
                active = [state for state in active if state.open]
    return states


def _decide_once(model: DisambiguationModel, states: Sequence[State], order: str) -> None:
    """One forward, one decision in each input (local: all of them)."""
    device = model.entity_head.bias.device
    sequences = [state.feature.sequence._replace(entity_ids=state.entity_ids) for state in states]
    packed = packing.pack(sequences, model.config.pad_token_id).to(device)
    first = np.cumsum([0, *packed.entity_lengths])
    rows = np.concatenate([begin + np.array(state.open) for begin, state in zip(first, states)])
    candidates = padded([state.feature.candidates[k] for state in states for k in state.open])
    scores = model.scores(packed, torch.from_numpy(rows).to(device), candidates.to(device))
    by_model = mixed = scores.softmax(dim=1)
    if model.options.model_weight < 1:
        priors = [state.feature.priors[k] for state in states for k in state.open]
        mixed = mix(by_model, padded(priors, torch.float32).to(device), model.options.model_weight)
    borders = np.cumsum([len(state.open) for state in states])[:-1]
    parts = [np.split(part.cpu().numpy(), borders) for part in (*mixed.max(dim=1), by_model)]
    for state, probability, best, own in zip(states, *parts):
        state.decide(best, probability, own, order)


def mix(by_model: Tensor, priors: Tensor, weight: float) -> Tensor:
    """Probabilities ~ model ** weight * prior ** (1 - weight) of candidates [n, most]; a prior of -1: no candidate."""
    logs = weight * by_model.clamp(min=TINIEST).log() + (1 - weight) * priors.clamp(min=TINIEST).log()
    return logs.masked_fill(priors < 0, float("-inf")).softmax(dim=1)


# --- Prediction and scores --------------------------------------------------------------------------------------------

class Answer(NamedTuple):
    title: str | None  # None: no candidate is probable enough
    probability: float  # of the best candidate when it was decided
    by_model: dict[int, float] = {}  # number of a candidate -> the model's probability of it among all


def predict(
    model: DisambiguationModel, features: Sequence[Feature], documents: Sequence[Document], batch_size: int = 32
) -> list[list[Answer]]:
    """What each mention of each document means."""
    answers = [[Answer(None, 0.0)] * len(document.mentions) for document in documents]
    for state in decode(model, features, model.options.order, batch_size):
        feature = state.feature
        for k in np.flatnonzero(feature.is_target & (state.choice >= 0)):
            index = feature.sequence.kept[k]
            mention = documents[feature.document].mentions[index]
            probability = float(state.probability[k]) * (mention.certainty if model.options.model_weight < 1 else 1.0)
            title = mention.candidates[state.choice[k]].title
            by_model = dict(zip(feature.candidates[k].values(), state.model[k].tolist()))
            answers[feature.document][index] = Answer(
                title if probability >= model.options.min_probability else None, probability, by_model
            )
    return answers


def evaluate(
    documents: Sequence[Document], predictions: Sequence[Sequence[Answer]], features: Sequence[Feature]
) -> dict[str, float | int]:
    """`metrics.disambiguation_scores`; mentions without candidates are no prediction, so they cost recall."""
    gold = [[mention.title for mention in document.mentions] for document in documents]
    return disambiguation_scores(gold, [[found.title for found in answers] for answers in predictions])


def answer(documents: Sequence[Document], predictions: Sequence[Sequence[Answer]]) -> dict:
    """What --predict prints for a text: its mentions with their titles, and the first candidates by prior."""
    (document,), (answers,) = documents, predictions
    mentions = []
    for shown, mention, found in zip(_shown(document, answers), document.mentions, answers):
        if mention.link_probability is not None:
            shown["link_probability"] = round(mention.link_probability, 4)
        if found.title and document.wiki:
            shown["address"] = address(document.wiki, found.title)
        if found.title in document.items:
            shown["wikidata"] = document.items[found.title]
        shown["candidates"] = [
            {"title": title, "prior": round(prior, 4)}
            | ({"model": round(found.by_model[number], 4)} if number in found.by_model else {})
            for number, (title, prior) in enumerate(mention.candidates[:SHOWN_CANDIDATES])
        ]
        mentions.append(shown)
    return {"text": document.text, "mentions": mentions}


def _shown(document: Document, answers: Sequence[Answer]) -> list[dict]:
    return [
        {"text": document.text[m.start : m.end], "start": m.start, "end": m.end, "title": found.title,
         "probability": round(found.probability, 4)}
        for m, found in zip(document.mentions, answers)
    ]  # fmt: skip


def prediction_files(documents: Sequence[Document], predictions: Sequence[Sequence[Answer]]) -> dict[str, list]:
    """A document a line: {"id", "mentions": [{"text", "start", "end", "title", "probability", "gold"}]}."""
    lines = []
    for document, answers in zip(documents, predictions):
        golden = [
            shown | {"gold": mention.title} for shown, mention in zip(_shown(document, answers), document.mentions)
        ]
        lines.append({"id": document.id, "mentions": golden})
    return {"predictions.jsonl": lines}


# --- Model and prior --------------------------------------------------------------------------------------------------


class Mix(NamedTuple):
    """How answers for own text are made; kept as linking.json in the model's folder."""

    model_weight: float
    min_probability: float  # of an answer; costs no more right titles than the model gains beyond chance
    nil_probability: float = 0.0  # the same if no title is as right an answer as a title
    links: int = 0  # held-out links with candidates, by which these were chosen
    prior_right: int = 0  # of them the prior alone finds
    right: int = 0  # and both together
    data: str = ""  # of which statistics and held-out links


def choose_mix(linker: NamedTuple, statistics: Mentions, records: Sequence[Record]) -> Mix:
    """By held-out texts, whose spans are links with titles. linker: `inference.Predictor`.

    A weight must find more links than the prior alone by more than chance: by the root of the number of those that it
    decides otherwise. A link whose title is no candidate of its surface should get none: these are the negatives.
    (Names without a link are not: many do mean their article, which is linked once or is too common to be linked.)
    """
    _, model, tokenizer, entity_vocab, options = linker
    documents = [data.with_candidates(data.to_document(r), statistics, 1.0) for r in records]
    documents.sort(key=lambda document: crc32(document.text.encode()))
    ends = np.cumsum([sum(bool(m.candidates) for m in document.mentions) for document in documents])
    documents = documents[: np.searchsorted(ends, MOST_LINKS) + 1]
    features = make_features(documents, tokenizer, entity_vocab, (), options)
    mentions = [mention for document in documents for mention in document.mentions]
    known = np.array([m.title in [c.title for c in m.candidates] for m in mentions], bool)
    right, probability = {}, {}
    for weight in WEIGHTS:
        model.options = replace(options, model_weight=weight, min_probability=0.0, order="local")
        found = [answer for answers in predict(model, features, documents) for answer in answers]
        right[weight] = np.array([a.title == m.title for a, m in zip(found, mentions)], bool)
        probability[weight] = np.array([a.probability for a in found])
    model.options = options
    gain = {w: int(own.sum()) - int(right[0.0].sum()) for w, own in right.items()}
    sure = [w for w in WEIGHTS if gain[w] > np.sqrt((right[w] != right[0.0]).sum())]
    weight = max(sure, key=gain.get, default=0.0)
    chance = np.sqrt((right[weight] != right[0.0]).sum())
    by_title, any_answer = (
        best_threshold(probability[weight], right[weight], ~known, n) for n in (right[0.0].sum() + max(chance, 1), 0)
    )
    n_links = sum(bool(mention.candidates) for mention in mentions)
    return Mix(weight, by_title, any_answer, n_links, int(right[0.0].sum()), int(right[weight].sum()))


def best_threshold(probability: np.ndarray, right: np.ndarray, none: np.ndarray, n_right: float) -> float:
    """The probability below which mentions best have no title: most are right, n_right with a title. 0 if none is.

    none: bool, mentions that mean no candidate.
    """
    borders = np.unique([0.0, *probability])
    borders[1:] = (borders[1:] + borders[:-1]) / 2
    answered = probability >= borders[:, None]  # [thresholds, mentions]
    titles, no_titles = (answered & right).sum(axis=1), (~answered & none).sum(axis=1)
    return float(borders[np.where(titles >= n_right, titles + no_titles, -1).argmax()])

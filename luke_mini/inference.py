"""Predictions of a fine-tuned model for your own text, one per line; entity linking from plain text to titles.

    from luke_mini import inference
    luke = inference.load("runs/toyworld-ner")
    luke("Ada met Bo in Oslo.")["mentions"]   # [{"text": "Ada", "type": "PER", "start": 0, "end": 3, ...}, ...]

In: the OUT folder of a `finetune.py` run, or a released fine-tuned folder, and texts in the form that `--describe`
shows: for most tasks plain text. Out: a dict for each text, with half-open character offsets; `views.py` renders them.

Linking has three steps, and your own dump is enough for all of them:

    mentions         by a NER model, or the names that are links often enough in the dump (`mentions.py`)
    candidates       the titles that links with the same words lead to; each with its prior, its share of these links
    disambiguation   all mentions of a text together (`task_disambiguation.py`), by the priors and by a model: one that
                     was fine-tuned for it, or a pretrained one with its masked-entity head
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from torch import nn

from luke_mini import checkpoint, config, distributed, files, finetuning
from luke_mini import task_classification, task_cloze, task_disambiguation, task_mlama
from luke_mini import task_ner, task_qa, task_relation, task_typing
from luke_mini.disambiguation_data import Document, with_candidates
from luke_mini.distributed import Rank
from luke_mini.mentions import HELD_OUT, STATISTICS, Mention, Mentions, find_statistics

TASKS = {
    task.NAME: task
    for task in (
        task_ner, task_relation, task_typing, task_qa, task_cloze, task_disambiguation, task_classification, task_mlama
    )
}  # fmt: skip
MIX = "linking.json"  # in a model's folder: how its scores and the prior are mixed


class Predictor(NamedTuple):
    """A fine-tuned model. Called with a text, it returns an answer; with several, a list of them."""

    task: ModuleType
    model: nn.Module
    tokenizer: object
    entity_vocab: object
    options: object  # the task's Options

    def __call__(self, texts: str | Sequence[str]) -> dict | list[dict]:
        found = list(answer(self, [texts] if isinstance(texts, str) else texts))
        return found[0] if isinstance(texts, str) else found


def open_checkpoint(folder: str | Path, task: ModuleType | None = None) -> checkpoint.Checkpoint:
    """Reads a checkpoint, a pretraining run or the OUT of a fine-tuning run; drops unused entities."""
    folder = Path(folder)
    found = checkpoint.read(checkpoint.model_folder(folder))
    return found if task is None or task.ALL_ENTITIES else checkpoint.lite(found)


def task_of(settings: Mapping) -> ModuleType:
    """The task that a model was fine-tuned for: as named in config.json, else the only task with its architecture."""
    name = str((settings.get("luke_mini") or {}).get("task"))
    architecture = (settings.get("architectures") or [None])[0]
    fits = [task for task in TASKS.values() if architecture in finetuning.architectures(task)]
    if name not in TASKS and len(fits) != 1:
        names = " or ".join(repr(task.NAME) for task in fits)
        hint = f"name it: {names}" if fits else "expected a fine-tuned model"
        raise ValueError(f"cannot infer the task from the architecture {architecture}, {hint}")
    return TASKS[name] if name in TASKS else fits[0]


def load(
    folder: str | Path, task_name: str | None = None, changes: Mapping[str, object] | None = None, device: str = "cpu",
    all_entities: bool = False,
) -> Predictor:  # fmt: skip
    """Reads a fine-tuned folder.

    task_name: if it cannot be inferred, as for a pretrained checkpoint in "disambiguation" or "mlama". changes: task
    options that differ from training. all_entities: keep the whole entity table, and so the folder's entity ids.
    ValueError if the folder is for another task.
    """
    start = open_checkpoint(folder)
    checkpoint.warn_of_unread(folder, start)
    settings = start.settings
    with files.naming(folder):
        task = TASKS[task_name] if task_name else task_of(settings)
    if (settings.get("architectures") or [None])[0] not in finetuning.architectures(task):
        text = f"not fine-tuned for {task.NAME}; give the OUT of a `finetune.py {task.NAME}` run as --checkpoint"
        text = text if task.TRAINS else "fine-tuned, expected a checkpoint with its pretraining heads"
        raise ValueError(f"{folder}: {text}")
    with files.naming(folder):
        start = start if all_entities or task.ALL_ENTITIES else checkpoint.lite(start)
    # A released checkpoint has no settings of ours: the paper's are the defaults, as far as it has positions, except
    # where its config.json has an entry of the same name (classifier_bias).
    options = {"max_seq_length": min(task.Options().max_seq_length, start.config.longest_input)}
    named = {item.name: settings[item.name] for item in fields(task.Options) if item.name in settings}
    released = task.released_options(start) if hasattr(task, "released_options") else {}
    ours = settings.get("luke_mini") or {}
    saved = files.Record(str(folder), ours).get("options", dict, {}) if ours.get("task") == task.NAME else {}
    if unknown := saved.keys() - {item.name for item in fields(task.Options)}:
        raise ValueError(f"{folder}: its config.json has options that {task.NAME} does not know: {', '.join(unknown)}")
    with files.naming(folder):
        config.check_fields(task.Options, named | saved)
        options = task.Options(**(options | named | released | saved | dict(changes or {})))
    finetuning.check_positions(start.config, options)
    with files.naming(folder):
        model = task.build_model(start.config, start.entity_vocab, checkpoint.class_names(start), options)
        checkpoint.fill(model, start.weights)
    return Predictor(task, model.eval().to(device), start.tokenizer, start.entity_vocab, options)


def answer(predictor: Predictor, lines: Sequence[str]) -> Iterator[dict]:
    """One answer per line. ValueError: "line 2: ...", what is wrong with the second one."""
    return answer_records(predictor, files.line_records(lines, predictor.task.unmark))


def answer_records(predictor: Predictor, records: Sequence[files.Record]) -> Iterator[dict]:
    """One answer per record of the task's JSON lines; their labels are ignored."""
    task, module, tokenizer, entity_vocab, options = predictor
    labels = getattr(module, "labels", ())
    of_line = [task.from_record(record, options, labels) for record in records]
    examples = [example for group in of_line for example in group]
    features = task.make_features(examples, tokenizer, entity_vocab, labels, options)
    predictions = iter(task.predict(module, features, examples))
    return (task.answer(group, [next(predictions) for _ in group]) for group in of_line)


def evaluate(
    predictor: Predictor, source: Path, paths: Mapping[str, Path], limit: int | None, rank: Rank, out: Path
) -> None:
    """Scores a model on named files without training; writes predictions and results.json into OUT, prints scores.

    source: the model's folder. limit: number of examples used per file, from its beginning. An older evaluation in OUT
    is replaced when all of the new one is written.
    """
    task, model, tokenizer, entity_vocab, options = predictor
    if hasattr(task, "with_entities"):
        options = task.with_entities(options, [*(path.parent for path in paths.values()), source], entity_vocab)
    examples = finetuning.read_splits(task, paths, options, {"test": limit})
    labels = getattr(model, "labels", ())
    features = {
        name: finetuning.make_features(task, options, tokenizer, entity_vocab, labels, name, found)
        for name, found in examples.items()
    }
    job = finetuning.Job(task, options, None, labels, examples, features, rank, "fp32", out)
    report: dict = {"checkpoint": str(source), "seeds": [0]}
    together = files.write_together(out, "results.json") if rank.is_first else nullcontext(out)
    with distributed.one_writer(out, rank), together as new:
        job = replace(job, out=new)
        finetuning.score_files(job, model, 0, report)
        if rank.is_first:
            finetuning.save_results(job, {"evaluated": report}, paths)
    if rank.is_first:
        finetuning.print_results(replace(job, out=out), {"evaluated": report})


# --- Entity linking ---------------------------------------------------------------------------------------------------


def load_linker(
    folder: str | Path, mentions: str | Path | None = None, changes: Mapping[str, object] | None = None,
    device: str = "cpu",
) -> tuple[Predictor, Mentions]:  # fmt: skip
    """A model for own text, pretrained or fine-tuned for "disambiguation", and the mention statistics.

    mentions: file of the statistics, else those in the model's folder or near it. Model and prior are mixed as the
    held-out links beside the statistics suggest, which linking.json in the model's folder keeps; without such links
    they count alike. changes: task options that replace these; with a model_weight nothing is chosen.
    """
    path = Path(mentions or own_statistics(folder))
    linker = load(folder, task_disambiguation.NAME, changes, device)
    if len(linker.entity_vocab) <= 4:
        raise ValueError("the linking model is a lite one: its entity vocabulary has no titles to choose from")
    statistics, changes = Mentions.load(path), dict(changes or {})
    warn_of_others(path, statistics, linker)
    if "model_weight" not in changes:  # a threshold fits the mix that it was chosen for, and no other
        found = find_mix(Path(folder), path, statistics, linker)
        changes = {"model_weight": found.model_weight, "min_probability": found.min_probability} | changes
    linker = linker._replace(options=replace(linker.options, **changes | {"mentions": str(path)}))
    linker.model.options = linker.options  # for its `predict`
    return linker, statistics


def own_statistics(folder: str | Path) -> Path:
    found = find_statistics([Path(folder)]) or Path("data/toyworld") / STATISTICS
    if not found.is_file():
        raise ValueError(f"{folder}: no {STATISTICS} there or above, expected --mentions FILE of prepare_wiki.py")
    return found


def warn_of_others(path: Path, statistics: Mentions, linker: Predictor) -> None:
    """One line if most links of the statistics lead to titles that the model's vocabulary lacks."""
    titles = statistics.sample_titles(2000)
    known = sum(linker.entity_vocab.get(title, linker.options.language or None) is not None for title in titles)
    if 2 * known < len(titles):
        share = f"{known / len(titles):.0%} of its titles are in the model's entity vocabulary"
        print(f"{path}: {share}: statistics of other data, or --language is missing", file=sys.stderr)


def find_mix(folder: Path, path: Path, statistics: Mentions, linker: Predictor) -> task_disambiguation.Mix:
    """The mix in the model's folder if it was chosen for these statistics, else a new one."""
    Mix, held_out = task_disambiguation.Mix, path.parent / HELD_OUT
    place = checkpoint.find_folder(checkpoint.model_folder(folder)) / MIX
    if not held_out.is_file():
        print(f"{held_out}: no such file, so model and prior count alike; prepare_wiki.py writes it", file=sys.stderr)
        return Mix(0.5, 0.0)
    data = f"{len(statistics)} names, {statistics.links.sum()} links, {held_out.stat().st_size} bytes held out"
    known = files.read_object(place) if place.is_file() else {}
    if known.get("data") == data and known.keys() == set(Mix._fields):
        return Mix(**known)
    records = list(files.read_json_lines(held_out))
    found = task_disambiguation.choose_mix(linker, statistics, records)._replace(data=data)
    kept = f"written to {place}"
    try:
        with files.write_file(place) as file:
            json.dump(found._asdict(), file, indent=1)
    except OSError as error:  # a full disk, or a folder of somebody else's: chosen again next time
        kept = f"not kept: {error}"
    threshold = f"--min-probability {found.nil_probability:.2g} leaves out best what means something else; "
    print(f"model and prior weighed by {found.links} held-out links: the prior finds {found.prior_right}, "
          f"with {found.model_weight:g} of the model {found.right}; {threshold * (found.nil_probability > 0)}{kept}",
          file=sys.stderr)  # fmt: skip
    return found


def link(linker: Predictor, statistics: Mentions, lines: Sequence[str], ner: Predictor | None = None) -> Iterator[dict]:
    """For each line what `task_disambiguation.answer` gives. linker, statistics: of `load_linker`.

    ner: a NER model, whose mentions keep their "type"; without one, mentions are the names that are links on at least a
    share min_link_probability of the pages that contain them. A mention without a probable candidate has the title
    None.
    """
    task, model, tokenizer, entity_vocab, options = linker
    files.check_text(lines)
    named = [None] * len(lines)
    if ner:
        records = [task_ner.unmark(line, f"line {i}") for i, line in enumerate(lines, start=1)]  # {...} is text as well
        named = [found["mentions"] for found in answer_records(ner, records)]
    documents = []
    for number, (line, found) in enumerate(zip(lines, named), start=1):
        mentions = None if found is None else tuple(Mention(m["start"], m["end"]) for m in found)
        document = Document(f"line {number}", line, mentions)
        documents.append(with_candidates(document, statistics, options.min_link_probability))
    features = task.make_features(documents, tokenizer, entity_vocab, (), options)
    for document, own, found in zip(documents, named, task.predict(model, features, documents)):
        answer = task.answer([document], [found])
        for mention, typed in zip(answer["mentions"], own or ()):
            mention["type"] = typed["type"]
        yield answer

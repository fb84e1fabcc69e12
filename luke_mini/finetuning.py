"""Fine-tuning, the same for every task: read, train, choose, score, save.

In: a checkpoint and a task's files. Out: OUT/model (a checkpoint folder), results.json, metrics.jsonl, predictions, and
of a single run state/, its last saved step, to resume or extend it from.

A task is a module `task_<name>.py`, `task_ner.py` for example. There is no base class: this text is the interface, and
`finetune.py` picks the module by its name. What a module must define (E: the task's own example type; there is one
prediction for each E):

    NAME, TITLE, FILES, FORMAT, Options, ALL_ENTITIES, TRAINS      from its `tasks.Task`: what the command line shows
    SCORES                        the entries of `evaluate` to print, if present; the last one, larger is better,
                                  selects epoch, seed and recipe
    ARCHITECTURE                  the Hugging Face class that opens the fine-tuned folder; if a task has several, a
                                  tuple, and the model's .architecture is one of them
    from_record(record, options, labels=None)   list of E in a record of the task's JSON lines, mostly one. labels: None
                                  for a record of a file; the model's for a line of --predict, which has no gold
                                  answer. ValueError names the file, the line, the field and what was expected
    describe(examples)            a short summary for the log
    make_features(examples, tokenizer, entity_vocab, labels, options)         list of model inputs
    skipped(examples, features)   {reason: count} of what cannot be learned or predicted from these features
    build_model(config, entity_vocab, labels, options)                        the nn.Module; its encoder is `.luke`
        model.collate(features)   a batch with .counts, .n_tokens and .to(device)
        model(batch)              {term: (summed loss, hits)}, as `trainer` takes it
    predict(model, features, examples)                                        list of E predictions
    evaluate(examples, predictions, features)                                 flat dict of scores, as fractions
    prediction_files(examples, predictions)     {"predictions.json": ...}, in the shape of the official files: a string
                                  is the file's text, a list is written as JSON lines, a dict as one JSON object
    unmark(line, where)           for --predict: the record of a line that is not JSON; `files.parse_record` if all are
    answer(examples, predictions) for --predict: the dict printed for a record with these examples, in one of the forms
                                  that views.py renders

Optional:

    prepare(checkpoint)           the checkpoint with what training adds to it: further tokens, or a separate embedding
                                  for [MASK]. A fine-tuned model has them already, so --predict does not call it
    records(path, options)        a file's examples as records of our own JSON lines, also for --to-jsonl: see `formats`
    read_examples(path, options)  list of E in a file, if that takes more than `records` and `from_record`
    label_list(examples)          names of the classes, from the training examples
    recipe_name(files, examples, checkpoint)    the recipe to use; without this function the task's first one
    settled(options, examples)    the options that a model trained on these examples is saved with
    count(examples), first(examples, n)         number of sentences, and the first n of them, if an E has several
    released_options(checkpoint)  options that a released fine-tuned folder implies
    scoring_options(options)      options for scoring, if they differ from those for training
    with_entities(options, folders, entity_vocab)   the options, with mention statistics found in the folders
"""

import hashlib
import json
import math
import platform
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from luke_mini import checkpoint, config, recipes, saves, trainer
from luke_mini.files import remove_folder, write_file
from luke_mini.config import FinetuneConfig
from luke_mini.distributed import Rank
from luke_mini.initialization import initialize
from luke_mini.report import number
from luke_mini.weights import save_tensors


@dataclass(frozen=True)
class Job:
    """What all runs of a grid share."""

    task: ModuleType
    options: object
    start: checkpoint.Checkpoint
    labels: tuple[str, ...]
    examples: dict[str, list]  # "train", "dev", and the test sets by name
    features: dict[str, list]  # of each of them
    rank: Rank
    precision: str
    out: Path
    resume: bool = False  # continue from the saved state in OUT/state
    origin: dict = field(default_factory=dict)  # what a run depends on beside its recipe
    save_minutes: float = 10.0  # minutes between saved states; the last step is saved anyway

    @property
    def metric(self) -> str:
        return self.task.SCORES[-1]


def architectures(task: ModuleType) -> tuple[str, ...]:
    return task.ARCHITECTURE if isinstance(task.ARCHITECTURE, tuple) else (task.ARCHITECTURE,)


# --- Reading --------------------------------------------------------------------------------------------------------


def find_files(task: ModuleType, folder: Path | None, given: dict[str, list[Path]]) -> dict[str, Path]:
    """Split -> file: those given explicitly, else those of the first data set in FILES that the folder has.

    Several test files are named by `short_names`. ValueError if there is nothing to train on or to score.
    """
    splits = list(task.FILES[0])  # "train" is the first of them, if the task trains
    present = [{split: in_folder(folder, names) for split, names in one.items()} for one in task.FILES if folder]
    data_set = max(present, key=lambda one: bool(one[splits[0]]), default={})
    found = {split: given.get(split) or data_set.get(split, []) for split in splits}
    if not found[splits[0]]:
        names = " or ".join(dict.fromkeys(" ".join(one[splits[0]] for one in task.FILES).split()))
        raise ValueError(f"{folder}: expected {names} there, or --{splits[0]} FILE")
    tests = found.pop("test")
    files = {split: paths[0] for split, paths in found.items() if paths}
    return files | name_tests(tests)


def in_folder(folder: Path, names: str) -> list[Path]:
    """The first of the names that the folder has, if any."""
    return [folder / name for name in names.split() if (folder / name).exists()][:1]


def name_tests(paths: list[Path]) -> dict[str, Path]:
    return dict(zip(["test"] if len(paths) == 1 else short_names(paths), paths))


def short_names(paths: list[Path]) -> list[str]:
    """The shortest parts of the paths that tell files apart: `xquad.de`, or `a` and `b` for a/test.json b/test.json.

    None is "train" or "dev", whatever the files are called.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"--test {' '.join(map(str, paths))}: expected each file once")
    parts = ([path.stem, path.name, *path.resolve().parts[-2::-1]] for path in paths)
    for column in zip_longest(*parts, fillvalue=""):
        if len({"train", "dev", "", *column}) == 3 + len(paths):
            return list(column)
    return ["-".join(path.resolve().parts[1:]) for path in paths]


def header(
    source: Path, start: checkpoint.Checkpoint, shape: config.ModelConfig, name: str, recipe: recipes.Recipe, options,
    device: str,
) -> list[str]:  # fmt: skip
    """Lines that describe a run, for its log. shape: the trained model's configuration; name: the recipe's."""
    aware = "ordinary, one query per token"
    if shape.use_entity_aware_attention:
        added = "" if start.config.use_entity_aware_attention else ": w2e, e2w, e2e start as copies of w2w"
        aware = f"entity-aware, four query matrices{added}"
    layers = shape.num_hidden_layers
    numbers, weights = {"training": recipe.training, "options": options}, sum(w.numel() for w in start.weights.values())
    return [
        *([f"ignored     {start.ignored}"] if start.ignored else ()),
        f"device      {device}",
        f"checkpoint  {source}: {number(weights)} weights, {layers} layers of {shape.hidden_size}",
        f"attention   {aware}",
        f"recipe      {name}: {recipe.data} ({recipe.source})",
        *(f"{title:12}{'  '.join(recipes.settings(made))}" for title, made in numbers.items()),
    ]


def read_examples(task: ModuleType, path: Path, options) -> list:
    if hasattr(task, "read_examples"):
        return task.read_examples(path, options)
    return [example for record in task.records(path, options) for example in task.from_record(record, options)]


def hold_out(examples: dict[str, list], share: float) -> None:
    """Makes a part of the training examples, drawn at random, the dev set."""
    if "dev" in examples or not 0 < share < 1:
        raise ValueError(f"--dev-share {share}: expected a number between 0 and 1, and no dev file")
    train = examples["train"]
    chosen = set(np.random.default_rng(0).permutation(len(train))[: round(share * len(train))].tolist())
    examples["dev"] = [example for i, example in enumerate(train) if i in chosen]
    examples["train"] = [example for i, example in enumerate(train) if i not in chosen]
    if not all(examples.values()):
        raise ValueError(f"--dev-share {share} of {len(train)} examples: nothing is left for one of the two parts")
    n_dev, n_train = len(examples["dev"]), len(examples["train"])
    print(f"dev   {n_dev} of the {len(train)} training examples, {n_train} are left to train")


def read_splits(task: ModuleType, files: dict[str, Path], options, limits: dict[str, int | None]) -> dict[str, list]:
    """The first `limits[split]` examples of every file, or all; prints their number.

    What the training file, the first one, settles is settled for all: `--evaluate` will read them in the same way.
    """
    examples = {}
    for name, path in files.items():
        found, limit = read_examples(task, path, options), limits.get(name, limits.get("test"))
        if name == "train" and hasattr(task, "settled"):
            options = task.settled(options, found)
        if limit is not None:
            found = task.first(found, limit) if hasattr(task, "first") else found[:limit]
        if not found:
            raise ValueError(f"{path}: no example")
        kind = "sentences" if hasattr(task, "count") else "examples"
        print(f"{name:5} {path}: {count(task, found)} {kind}; {task.describe(found)}", flush=True)
        examples[name] = found
    return examples


def count(task: ModuleType, examples: list) -> int:
    return task.count(examples) if hasattr(task, "count") else len(examples)


def make_job(
    task: ModuleType, options, start: checkpoint.Checkpoint, examples: dict[str, list], rank: Rank, precision: str,
    out: Path, resume: bool, save_minutes: float,
) -> Job:  # fmt: skip
    """Makes the features of all examples; prints the classes, and what is skipped and why."""
    check_positions(start.config, options)
    labels = task.label_list(examples["train"]) if hasattr(task, "label_list") and task.TRAINS else ()
    features = {
        name: make_features(task, options, start.tokenizer, start.entity_vocab, labels, name, split)
        for name, split in examples.items()
    }
    if labels:
        shown = " ".join(labels[:20]) + (f" ... {len(labels)} in all" if len(labels) > 20 else "")
        print(f"labels {shown}", flush=True)
    origin = {
        "task": task.NAME, "precision": precision, "options": config.as_dict(options), "labels": list(labels),
        "checkpoint": saves.fingerprint(start.weights, start.config) if task.TRAINS else "",
        "data": {name: saves.fingerprint(features[name]) for name in ("train", "dev") if name in features},
    }  # fmt: skip
    return Job(task, options, start, labels, examples, features, rank, precision, out, resume, origin, save_minutes)


def check_positions(shape: config.ModelConfig, options) -> None:
    """ValueError if inputs may be longer than the model has positions."""
    if options.max_seq_length > shape.longest_input:
        held = f"--max-seq-length {options.max_seq_length}"
        raise ValueError(f"{held}: expected at most the checkpoint's {shape.longest_input} positions")


def make_features(task: ModuleType, options, tokenizer, entity_vocab, labels, name: str, examples: list) -> list:
    """The inputs of one file; prints their number, and what is skipped and why."""
    if name != "train" and hasattr(task, "scoring_options"):
        options = task.scoring_options(options)
    features = task.make_features(examples, tokenizer, entity_vocab, labels, options)
    skipped = [f"{count} {reason}" for reason, count in task.skipped(examples, features).items() if count]
    print(f"{name:5} {len(features)} inputs{'; skipped: ' if skipped else ''}{', '.join(skipped)}", flush=True)
    return features


# --- One run --------------------------------------------------------------------------------------------------------


def build(job: Job, recipe: FinetuneConfig, random_weights: bool) -> nn.Module:
    """The task's model: the checkpoint's encoder, or one of its shape with random weights, under a new head.

    A checkpoint that was fine-tuned for the same task with the same labels keeps its head.
    """
    shape = replace(
        job.start.config, hidden_dropout_prob=recipe.dropout, attention_probs_dropout_prob=recipe.dropout
    )
    model = job.task.build_model(shape, job.start.entity_vocab, job.labels, job.options)
    initialize(model, shape, recipe.seed)
    for name, head in model.named_children():
        if name != "luke":  # a head starts from the same numbers, whatever the encoder
            initialize(head, shape, recipe.seed)
    if not random_weights:
        heads = {n: w for n, w in model.state_dict().items() if not n.startswith("luke.")}
        kept = job.start.weights
        if not keeps_head(job, heads):
            kept = {n: w for n, w in kept.items() if not n.startswith("classifier.")}
        checkpoint.fill(model, kept, fresh=tuple(heads) if job.task.TRAINS else ())
    return model.to(job.rank.device)


def keeps_head(job: Job, head: dict[str, torch.Tensor]) -> bool:
    """Whether the checkpoint has a classifier for this task, of this shape and with these labels."""
    settings, weights = job.start.settings, job.start.weights
    names = settings.get("id2label", {})
    return (
        (settings.get("architectures") or [None])[0] in architectures(job.task)
        and tuple(names[key] for key in sorted(names, key=int)) == job.labels
        and all(name in weights and weights[name].shape == own.shape for name, own in head.items())
    )


def steps_of(
    job: Job, model: nn.Module, recipe: FinetuneConfig, start_step: int, total_steps: int, lanes: int = 1
) -> Iterator[list]:
    """Yields this process's micro-batches for each optimizer step, at least `lanes` of them.

    The examples form an endless stream of epochs, each in an order drawn from (seed, epoch); a step takes the next
    `batch` examples. differs from LUKE: no short batch at an epoch's end, and no gradient carried over from it.
    """
    features, rank = job.features["train"], job.rank
    first, last = (index * recipe.batch // rank.world_size for index in (rank.index, rank.index + 1))

    @lru_cache(1)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([recipe.seed, epoch]).permutation(len(features))

    for step in range(start_step, total_steps):
        positions = (divmod(step * recipe.batch + i, len(features)) for i in range(first, last))
        own = [features[order(epoch)[index]] for epoch, index in positions]
        size = min(recipe.micro_batch, math.ceil(len(own) / lanes))
        yield [model.collate(own[i : i + size]) for i in range(0, len(own), size)]


def score(job: Job, model: nn.Module, name: str) -> tuple[dict, list]:
    """Scores and predictions on one of the files. Every process scores the whole file, with the same model."""
    examples, features = job.examples[name], job.features[name]
    predictions = job.task.predict(model, features, examples)
    return job.task.evaluate(examples, predictions, features), predictions


def fit(job: Job, model: nn.Module, recipe: FinetuneConfig, folder: Path, title: str) -> dict[str, float]:
    """Trains the model, which keeps its last weights, or those of the epoch that is best on dev if the recipe selects.

    Returns the dev scores of these weights, {} without a dev file. folder: holds the saved state of the run.
    """
    n = len(job.features["train"])
    recipe = replace(recipe, epochs=max(recipe.epochs, recipe.min_steps * recipe.batch / n))
    total_steps = math.ceil(n * recipe.epochs / recipe.batch)
    print(f"{title}: {total_steps:,} steps of {recipe.batch} inputs, {recipe.epochs:g} epochs of {n:,}", flush=True)
    scored = {min(total_steps, math.ceil(n * (i + 1) / recipe.batch)) for i in range(math.ceil(recipe.epochs))}

    def validate(step: int) -> dict | None:
        if "dev" not in job.examples or step not in scored:
            return None
        found, _ = score(job, model, "dev")
        if recipe.select == "loss":
            found["loss"] = mean_loss(job, model, "dev", recipe)
        if job.rank.is_first:
            tqdm.write(f"epoch {min(step * recipe.batch / n, recipe.epochs):.2g}, dev: {show(job, found)}")
        return found if recipe.select != "last" or step == total_steps else None

    saving = saves.Saving(
        folder, job.out / "metrics.jsonl", {"recipe": config.as_dict(recipe), **job.origin},
        lambda into, weights, step: save_tensors(weights, into / "weights.safetensors"),
        lambda saved: model.load_state_dict(saves.read_state(saved / "weights.safetensors", model.state_dict())),
        job.resume, kept=1, every_minutes=job.save_minutes,
    )  # fmt: skip
    return trainer.fit(
        model, lambda start_step, lanes: steps_of(job, model, recipe, start_step, total_steps, lanes), recipe=recipe,
        rank=job.rank, precision=job.precision, total_steps=total_steps,
        warmup_steps=int(recipe.warmup_ratio * total_steps), saving=saving, log_every=10, title=title,
        validate=validate, is_better=lambda found, best: recipe.select == "last" or is_better(found, best, job.metric),
    )  # fmt: skip


def is_better(found: dict, best: dict, metric: str) -> bool:
    return found["loss"] < best["loss"] if "loss" in found else found[metric] > best[metric]


def mean_loss(job: Job, model: nn.Module, name: str, recipe: FinetuneConfig) -> float:
    """The training loss of a file, without dropout: for each term the mean over its predictions, summed."""
    features, sums, counts = job.features[name], Counter(), Counter()
    with trainer.predicting(model):
        for begin in range(0, len(features), recipe.micro_batch):
            batch = model.collate(features[begin : begin + recipe.micro_batch]).to(job.rank.device)
            counts.update(batch.counts)
            sums.update({term: loss.item() for term, (loss, _) in model(batch).items()})
    return sum(sums[term] / max(1, counts[term]) for term in sums)


# --- A grid of runs -------------------------------------------------------------------------------------------------


def run_grid(job: Job, recipes: list[FinetuneConfig], seeds: list[int], random_weights: bool, keep: bool) -> dict:
    """Trains every recipe with every seed; only the recipe with the best mean on dev is scored on the test files.

    Returns the report. keep: that recipe's model with the best seed on dev goes into OUT, before anything is scored:
    what goes wrong then must not cost the model.
    """
    kind = "random weights" if random_weights else "pretrained"
    runs, best, kept = [], None, []
    for recipe in recipes:
        scores, weights = [], []
        for seed in seeds:
            began = time.perf_counter()
            seeded = replace(recipe, seed=seed)
            model = build(job, seeded, random_weights)
            folder = job.out / "state" / f"{kind.split()[0]}-{recipe.learning_rate:g}-{seed}"
            found = fit(job, model, seeded, folder, f"{job.task.NAME}, {kind}, seed {seed}")
            runs.append({"learning_rate": recipe.learning_rate, "seed": seed, "dev": found})
            shown = f"dev {show(job, found)}, " if found else ""
            print(f"{kind}, seed {seed}, learning rate {recipe.learning_rate:g}: {shown}"
                  f"{time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
            scores.append(found.get(job.metric, 0.0))
            weights.append(saves.copy_weights(model))
        if best is None or statistics.mean(scores) > statistics.mean(best[1]):
            best, kept = (recipe, scores), weights
    recipe, scores = best
    report = {"recipe": config.as_dict(recipe), "runs": runs, "seeds": seeds, "dev": scores}
    winner = scores.index(max(scores))
    if keep and job.rank.is_first:
        model.load_state_dict(kept[winner])
        save_model(job, model)
    for index in [i for i in range(len(seeds)) if i != winner] + [winner]:  # the winner last: its files remain
        model.load_state_dict(kept[index])
        score_files(job, model, seeds[index], report)
    return report


def score_files(job: Job, model: nn.Module, seed: int, report: dict) -> None:
    """Scores of the test files, or of the dev file where there is none, into the report; predictions into OUT."""
    unfinish(job)
    tests = [name for name in job.examples if name not in ("train", "dev")]
    for name in tests or ["dev"] * ("dev" in job.examples):
        found, predictions = score(job, model, name)
        report.setdefault("scores", {}).setdefault(name, {})[str(seed)] = found
        if job.rank.is_first:
            write_predictions(job, name, predictions)


def write_predictions(job: Job, name: str, predictions: list) -> None:
    """Writes OUT/<name>_predictions.json and the like, in the format of the official scorers."""
    for kind, content in job.task.prediction_files(job.examples[name], predictions).items():
        with write_file(job.out / f"{name}_{kind}") as file:
            if isinstance(content, str):
                file.write(content)
            elif isinstance(content, dict):
                json.dump(content, file, ensure_ascii=False, indent=1)
            else:
                file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in content)


def show(job: Job, scores: dict) -> str:
    return "  ".join(f"{name} {100 * scores[name]:.2f}" for name in job.task.SCORES if name in scores)


def by_label(scores: dict) -> str:
    """A table of the labels that were scored one by one, if any; support: mentions of the label in the file."""
    labels = [key.removesuffix("_gold") for key in scores if key.endswith("_gold")]
    width = max(map(len, labels), default=0)
    table = f"{'':{width}}  precision    recall        f1   support\n" if labels else ""
    for label in labels:
        fractions = (f"{100 * scores[f'{label}_{name}']:9.2f}" for name in ("precision", "recall", "f1"))
        table += f"{label:{width}}  {' '.join(fractions)} {scores[f'{label}_gold']:9}\n"
    return table


def mean_and_spread(report: dict, name: str, metric: str) -> tuple[float, float]:
    """Mean and sample standard deviation over the seeds, in percent; 0 for a single seed."""
    values = [100 * found[metric] for found in report["scores"][name].values()]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def score_untrained(job: Job, seeds: list[int], random_weights: bool) -> dict:
    """The report of a task without training: the checkpoint with its own heads, or random weights for each seed."""
    report = {"seeds": seeds if random_weights else seeds[:1]}
    for seed in report["seeds"]:
        score_files(job, build(job, FinetuneConfig(seed=seed), random_weights), seed, report)
    return report


def run(job: Job, recipes: list[FinetuneConfig], seeds: list[int], kinds: list[bool], files: dict[str, Path]) -> None:
    """Runs the grid for each kind of initial weights (True: random); writes and prints the results.

    The model and predictions in OUT are those of the last kind. results.json is written last, and an older one removed
    first: a folder without it is unfinished.
    """
    if len(recipes) > 1 and "dev" not in job.examples:
        raise ValueError("several learning rates need a dev file to choose by: --dev FILE")
    if job.rank.is_first and not job.resume:
        unfinish(job)
        for old in ("state", "model"):
            remove_folder(job.out / old)
    reports = {}
    for random_weights in kinds:
        kind = "random weights" if random_weights else "pretrained"
        if job.task.TRAINS:
            reports[kind] = run_grid(job, recipes, seeds, random_weights, keep=random_weights == kinds[-1])
        else:
            reports[kind] = score_untrained(job, seeds, random_weights)
    if job.rank.is_first:
        save_results(job, reports, files)
        if len(recipes) * len(seeds) > 1:  # of a grid too much to keep; a single run can be made longer
            remove_folder(job.out / "state")
        print_results(job, reports)


def unfinish(job: Job) -> None:
    """Removes results.json, before anything else in OUT is replaced."""
    if job.rank.is_first:
        (job.out / "results.json").unlink(missing_ok=True)


def save_model(job: Job, model: nn.Module) -> None:
    unfinish(job)
    settings = {
        "architectures": [getattr(model, "architecture", job.task.ARCHITECTURE)],
        "luke_mini": {"task": job.task.NAME, "options": config.as_dict(job.options)},
    }
    if job.labels:
        settings["id2label"] = {str(i): label for i, label in enumerate(job.labels)}
        settings["label2id"] = {label: i for i, label in enumerate(job.labels)}
    checkpoint.save(job.out / "model", model, job.start.tokenizer, job.start.entity_vocab, settings)


def save_results(job: Job, reports: dict, files: dict[str, Path]) -> None:
    made = {
        "task": job.task.NAME,
        "options": config.as_dict(job.options),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "precision": job.precision,
        "data": {name: describe_file(path, count(job.task, job.examples[name])) for name, path in files.items()},
        "results": reports,
    }
    with write_file(job.out / "results.json") as file:
        json.dump(made, file, indent=1, allow_nan=False)


def describe_file(path: Path, n_examples: int) -> dict:
    """Name, hash and size of a data file; a folder is hashed as the concatenation of its files, by name."""
    parts = sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]
    data = hashlib.sha256()
    for part in parts:  # one in memory at a time
        data.update(part.read_bytes())
    return {"file": path.name, "sha256": data.hexdigest(), "examples": n_examples}


def print_results(job: Job, reports: dict) -> None:
    """The last lines of a run: the score on each test file, beside that from random weights if both were trained."""
    print(f"results in {job.out}")
    if not any("scores" in report for report in reports.values()):
        print("nothing was scored: no dev file, no test file; --dev-share 0.1 holds out a part of the training file")
    for name in next(iter(reports.values())).get("scores", ()):
        shown = {}
        for kind, report in reports.items():
            for seed, found in report["scores"][name].items():
                print(f"{kind}, seed {seed}, {name}: {show(job, found)}")
            print(by_label(found), end="")  # of the last seed, whose predictions are in OUT
            mean, spread = mean_and_spread(report, name, job.metric)
            shown[kind] = mean, f"{mean:.2f}" + (f" ± {spread:.2f}" if len(report["seeds"]) > 1 else "")
        title = f"{job.task.TITLE} on {name}"
        if len(shown) == 1:
            print(f"{title}: {next(iter(shown.values()))[1]}")
            continue
        (random, random_text), (pretrained, text) = shown["random weights"], shown["pretrained"]
        print(f"{title}: {text} with pretraining, {random_text} from random weights ({pretrained - random:+.2f})")

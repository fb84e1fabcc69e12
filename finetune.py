"""Fine-tunes a pretrained LUKE on a task, scores it, and predicts on a user's own text.

    python finetune.py ner                                            the built-in encyclopedia's files and checkpoint
    python finetune.py ner --checkpoint runs/stage2 --data conll2003 --out runs/ner
    python finetune.py ner --checkpoint runs/ner --predict sentences.txt

DIR of --data holds train.conll, dev.conll and test.conll, or CoNLL's own eng.train, eng.testa and eng.testb. OUT then
holds model/ (a checkpoint folder), results.json, metrics.jsonl and the predictions on each file. With --predict nothing
is trained: every line of FILE (`-`: standard input) is a document, and one line of JSON comes out for each.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from luke_mini import checkpoint, config, distributed, optim, task_ner, trainer
from luke_mini.atomic import write_file
from luke_mini.model import LukeModel, initialize

CONLL_NAMES = {
    "train": ("train.conll", "eng.train"),
    "dev": ("dev.conll", "eng.testa"),
    "test": ("test.conll", "eng.testb"),
}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["ner"])
    run = parser.add_argument_group("the run")
    start, data = Path("runs/toyworld"), Path("data/toyworld/ner")
    run.add_argument("--checkpoint", type=Path, default=start, metavar="DIR", help="checkpoint or run [%(default)s]")
    run.add_argument("--data", type=Path, default=data, metavar="DIR", help="folder of the files below [%(default)s]")
    for name, choices in CONLL_NAMES.items():
        run.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"instead of DIR/{' or DIR/'.join(choices)}")
        run.add_argument(f"--{name}-documents", type=int, metavar="N", help="use only the first N of that file")
    run.add_argument("--out", type=Path, metavar="DIR", help="where the results go [runs/<checkpoint's name>-TASK]")
    run.add_argument(
        "--predict", type=Path, metavar="FILE", help="lines of text to find mentions in; - is standard input"
    )
    run.add_argument("--random-weights", action="store_true", help="start from random weights, not the checkpoint's")
    run.add_argument("--compare-random", action="store_true", help="train from random weights too, print both scores")
    run.add_argument("--precision", choices=["fp32", "bf16"], help="of the products [bf16 where the hardware has it]")
    config.add_flags(parser, config.FinetuneConfig, "the recipe (shown: the paper's; small models take larger steps)")
    config.add_flags(parser, task_ner.NerOptions, "candidates and head")
    return parser.parse_args(argv)


def find_files(arguments) -> dict[str, Path]:
    """Train, dev and test file; dev and test may be absent, train may not."""
    files = {}
    for name, choices in CONLL_NAMES.items():
        given = getattr(arguments, name)
        found = [given] if given else [arguments.data / n for n in choices if (arguments.data / n).is_file()]
        if found:
            files[name] = found[0]
    if "train" not in files:
        raise ValueError(f"{arguments.data}: expected {' or '.join(CONLL_NAMES['train'])} there, or --train FILE")
    return files


def build_model(start: checkpoint.Checkpoint, labels, head: str, recipe, random_weights: bool) -> task_ner.NerModel:
    """The checkpoint's encoder (or one of the same shape with random weights) under a fresh NER head."""
    shape = replace(start.config, hidden_dropout_prob=recipe.dropout, attention_probs_dropout_prob=recipe.dropout)
    encoder = LukeModel(shape)
    initialize(encoder, shape, recipe.seed)
    model = task_ner.build_model(encoder, shape, labels, start.entity_vocab.mask_id, head, recipe.seed)
    if not random_weights:
        checkpoint.fill(model, start.weights, fresh=("classifier.",))
    model.luke.pooler.requires_grad_(False)  # it has no part in this task
    return model


def steps_of(features: list, model, recipe, total_steps: int) -> Iterator[list]:
    """For each optimiser step its micro-batches: every feature once an epoch, in an order drawn from (seed, epoch)."""
    per_epoch = math.ceil(len(features) / recipe.batch)
    for step in range(total_steps):
        epoch, index = divmod(step, per_epoch)
        if index == 0:
            order = np.random.default_rng([recipe.seed, epoch]).permutation(len(features))
        chosen = order[index * recipe.batch : (index + 1) * recipe.batch]
        parts = [chosen[i : i + recipe.micro_batch] for i in range(0, len(chosen), recipe.micro_batch)]
        yield [model.collate([features[i] for i in part]) for part in parts]


def fit(model, features: list, recipe, place, precision: str, metrics: Path, title: str) -> None:
    total_steps = math.ceil(math.ceil(len(features) / recipe.batch) * recipe.epochs)
    warmup = int(recipe.warmup_ratio * total_steps)
    optimizer = optim.AdamW.of(model, recipe)

    def learning_rate(step: int) -> float:
        return optim.linear_schedule(step, total_steps, warmup, recipe.learning_rate)

    metrics.unlink(missing_ok=True)
    progress = trainer.Progress(place, total_steps, 0, 10, metrics, title)
    steps = steps_of(features, model, recipe, total_steps)
    for step, sums in trainer.train(
        model, optimizer, steps, recipe=recipe, place=place, precision=precision, learning_rate=learning_rate
    ):
        progress.update(step, sums, learning_rate(step - 1))
    progress.close()


def score(model, documents: dict, tokenizer, options, out: Path) -> dict:
    """Scores every file but the training one; writes `word gold predicted` lines beside them."""
    results = {}
    for name in ("dev", "test"):
        if name in documents:
            features = task_ner.make_features(documents[name], tokenizer, model.labels, options)
            predictions = task_ner.predict(model, features, documents[name])
            results[name] = task_ner.evaluate(documents[name], predictions, features)
            task_ner.write_predictions(out / f"{name}_predictions.txt", documents[name], predictions)
    return results


def read_documents(arguments) -> dict[str, list[task_ner.Document]]:
    """The documents of each file; says what was found in it."""
    documents = {}
    for name, path in find_files(arguments).items():
        found = task_ner.read_examples(path)[: getattr(arguments, f"{name}_documents")]
        mentions = sum(len(document.spans) for document in found)
        kind = f", {found[0].scheme}, {found[0].encoding}" if found else ""
        print(f"{name:6}{path}: {len(found)} documents, {mentions} mentions{kind}", flush=True)
        documents[name] = found
    return documents


def save_ner(out: Path, model, start: checkpoint.Checkpoint, options, recipe, results: dict) -> None:
    settings = {
        "architectures": ["LukeForEntitySpanClassification"],
        "id2label": {str(i): label for i, label in enumerate(model.labels)},
        "label2id": {label: i for i, label in enumerate(model.labels)},
        "luke_mini": {"task": "ner", "options": config.as_dict(options)},
    }
    checkpoint.save(out / "model", model, start.tokenizer, start.entity_vocab, settings)
    with write_file(out / "results.json") as file:
        made = {"recipe": config.as_dict(recipe), "options": config.as_dict(options), "results": results}
        json.dump(made, file, indent=1)
    print(f"model and results in {out}")


def train_ner(arguments, place, precision: str) -> None:
    options = config.from_flags(task_ner.NerOptions(), arguments)
    start = checkpoint.lite(checkpoint.read(arguments.checkpoint))  # this task needs no entity but [MASK]
    small = start.config.hidden_size <= config.MINI.hidden_size
    recipe = config.from_flags(config.NER_TINY if small else config.NER_CONLL, arguments)
    documents = read_documents(arguments)
    labels = task_ner.label_list(documents["train"])
    features = task_ner.make_features(documents["train"], start.tokenizer, labels, options)
    lost = task_ner.unreachable_gold(documents["train"], features)
    print(
        f"labels {' '.join(labels)}; {len(features)} training inputs; {lost} mentions too long to be learned",
        flush=True,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)

    results = {}
    starts = ["random weights"] * (arguments.random_weights or arguments.compare_random)
    starts += ["pretrained"] * (not arguments.random_weights)  # last, so that its files stay
    for kind in starts:
        began = time.perf_counter()
        model = build_model(start, labels, options.head, recipe, kind == "random weights").to(place.device)
        fit(model, features, recipe, place, precision, arguments.out / "metrics.jsonl", f"ner, {kind}")
        results[kind] = score(model, documents, start.tokenizer, options, arguments.out)
        print(f"{kind}: {time.perf_counter() - began:.0f} s")
        for name, found in results[kind].items():
            print(f"  {name:5} precision {found['precision']:.2%}  recall {found['recall']:.2%}  F1 {found['f1']:.2%}")
    save_ner(arguments.out, model, start, options, recipe, results)
    name = "test" if "test" in documents else "dev"
    if len(starts) == 2 and name in documents:
        random, pretrained = (100 * results[kind][name]["f1"] for kind in starts)
        gain = f"{pretrained:.2f} with pretraining, {random:.2f} from random weights ({pretrained - random:+.2f})"
        print(f"NER F1 on {name}: {gain}")


def predict_ner(arguments, place) -> None:
    """Mentions in lines of text, as JSON lines with character offsets."""
    folder = arguments.checkpoint / "model" if (arguments.checkpoint / "model").is_dir() else arguments.checkpoint
    start = checkpoint.read(folder)
    if "classifier.weight" not in start.weights or "id2label" not in start.settings:
        raise ValueError(f"{folder}: not fine-tuned for NER; give the OUT of a `finetune.py ner` run as --checkpoint")
    # A released checkpoint has no settings of ours: the paper's are the defaults.
    options = task_ner.NerOptions(**start.settings.get("luke_mini", {}).get("options", {}))
    labels = [start.settings["id2label"][str(i)] for i in range(len(start.settings["id2label"]))]
    model = task_ner.NerModel(LukeModel(start.config), start.config, labels, start.entity_vocab.mask_id, options.head)
    checkpoint.fill(model, start.weights)
    text = sys.stdin.read() if str(arguments.predict) == "-" else arguments.predict.read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line.strip()]
    for line, mentions in zip(lines, task_ner.predict_text(model.to(place.device), lines, start.tokenizer, options)):
        found = [mention._asdict() | {"probability": round(mention.probability, 4)} for mention in mentions]
        print(json.dumps({"text": line, "mentions": found}, ensure_ascii=False))


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    place = distributed.join()
    precision = arguments.precision or trainer.default_precision(place.device)
    if arguments.predict:
        predict_ner(arguments, place)
    else:
        arguments.out = arguments.out or Path("runs") / f"{arguments.checkpoint.name}-{arguments.task}"
        train_ner(arguments, place, precision)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"finetune.py: error: {error}", file=sys.stderr)
        sys.exit(2)

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
import torch

from luke_mini import checkpoint, config, distributed, optim, task_ner, trainer
from luke_mini.atomic import write_file
from luke_mini.model import LukeModel, initialize

CONLL_NAMES = {"train": ("train.conll", "eng.train"), "dev": ("dev.conll", "eng.testa"), "test": ("test.conll", "eng.testb")}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["ner"])
    run = parser.add_argument_group("the run")
    run.add_argument("--checkpoint", type=Path, default=Path("runs/toyworld"), metavar="DIR", help="checkpoint or run folder [%(default)s]")
    run.add_argument("--data", type=Path, default=Path("data/toyworld/ner"), metavar="DIR", help="folder of the files below [%(default)s]")
    for name, choices in CONLL_NAMES.items():
        run.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"instead of DIR/{' or DIR/'.join(choices)}")
    run.add_argument("--out", type=Path, metavar="DIR", help="where the results go [runs/<name of the checkpoint>-TASK]")
    run.add_argument("--predict", type=Path, metavar="FILE", help="lines of text to find mentions in; - is standard input")
    run.add_argument("--random-weights", action="store_true", help="start from random weights instead of the checkpoint's")
    run.add_argument("--compare-random", action="store_true", help="train a second time from random weights, print both scores")
    for name in CONLL_NAMES:
        run.add_argument(f"--{name}-documents", type=int, metavar="N", help="use only the first N of the file")
    run.add_argument("--precision", choices=["fp32", "bf16"], help="of the products [bf16 where the hardware has it, else fp32]")
    config.add_flags(parser, config.FinetuneConfig, "the recipe (shown: CoNLL-2003 of the paper; small models have larger steps)")
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
    shape = replace(
        start.config, hidden_dropout_prob=recipe.dropout, attention_probs_dropout_prob=recipe.dropout
    )
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
    optimizer = optim.AdamW(
        model, beta1=recipe.beta1, beta2=recipe.beta2, eps=recipe.eps, weight_decay=recipe.weight_decay
    )

    def learning_rate(step: int) -> float:
        return optim.linear_schedule(step, total_steps, warmup, recipe.learning_rate)

    metrics.unlink(missing_ok=True)
    progress = trainer.Progress(place, total_steps, 0, 10, metrics, title)
    for step, sums in trainer.train(
        model, optimizer, steps_of(features, model, recipe, total_steps), place=place, precision=precision,
        learning_rate=learning_rate, max_grad_norm=recipe.max_grad_norm, seed=recipe.seed,
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


def train_ner(arguments, place, precision: str) -> None:
    options = config.from_flags(task_ner.NerOptions(), arguments)
    start = checkpoint.lite(checkpoint.read(arguments.checkpoint))
    small = start.config.hidden_size <= config.MINI.hidden_size
    recipe = config.from_flags(config.NER_TINY if small else config.NER_CONLL, arguments)
    documents = {name: task_ner.read_examples(path) for name, path in find_files(arguments).items()}
    documents = {name: found[: getattr(arguments, f"{name}_documents")] for name, found in documents.items()}
    labels = task_ner.label_list(documents["train"])
    features = task_ner.make_features(documents["train"], start.tokenizer, labels, options)
    for name, path in find_files(arguments).items():
        mentions, first = sum(len(d.spans) for d in documents[name]), documents[name][0]
        print(f"{name:6}{path}: {len(documents[name])} documents, {mentions} mentions, {first.scheme}, {first.encoding}")
    lost = task_ner.unreachable_gold(documents["train"], features)
    print(f"labels {' '.join(labels)}; {len(features)} training inputs; {lost} mentions too long to be learned", flush=True)
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
        for name, scores in results[kind].items():
            print(f"  {name:5} precision {scores['precision']:.2%}  recall {scores['recall']:.2%}  F1 {scores['f1']:.2%}")
    settings = {
        "architectures": ["LukeForEntitySpanClassification"],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "luke_mini": {"task": "ner", "options": config.as_dict(options)},
    }
    checkpoint.save(arguments.out / "model", model, start.tokenizer, start.entity_vocab, settings)
    with write_file(arguments.out / "results.json") as file:
        json.dump({"recipe": config.as_dict(recipe), "options": config.as_dict(options), "results": results}, file, indent=1)
    print(f"model and results in {arguments.out}")
    if len(starts) == 2:
        name = "test" if "test" in documents else "dev"
        random, pretrained = (100 * results[kind][name]["f1"] for kind in starts)
        print(f"NER F1 on {name}: {pretrained:.2f} with pretraining, {random:.2f} from random weights ({pretrained - random:+.2f})")


def predict_ner(arguments, place) -> None:
    """Mentions in lines of text, as JSON lines with character offsets."""
    folder = arguments.checkpoint / "model" if (arguments.checkpoint / "model").is_dir() else arguments.checkpoint
    start = checkpoint.read(folder)
    if start.settings.get("luke_mini", {}).get("task") != "ner":
        raise ValueError(f"{folder}: not fine-tuned for NER; give the OUT of a `finetune.py ner` run as --checkpoint")
    options = task_ner.NerOptions(**start.settings["luke_mini"]["options"])
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

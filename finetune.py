"""Fine-tunes a pretrained LUKE on a task, scores it, and predicts on a user's own text.

    python finetune.py ner                                            the built-in encyclopedia's files and checkpoint
    python finetune.py ner --checkpoint runs/stage2 --data conll2003 --out runs/ner
    python finetune.py ner --describe                                 the format of the files, with an example
    python finetune.py ner --checkpoint runs/ner --predict sentences.txt
    python finetune.py mlama --checkpoint runs/stage2 --data mlama1.1 what the pretrained heads know; nothing is trained
    python finetune.py ner ... --seeds 1,2,3 --lr 1e-5,2e-5           a grid: chosen on dev, scored once on test

OUT then holds model/ (a checkpoint folder), results.json, metrics.jsonl and the predictions. With --predict nothing is
trained: every line of FILE (`-`: standard input) is a text, in some tasks with marks around its mentions (--describe
shows them), and one line of JSON comes out for each.
"""

import argparse
import json
import sys
from dataclasses import fields, replace
from pathlib import Path

from luke_mini import checkpoint, config, distributed, finetuning, trainer
from luke_mini import task_classification, task_cloze, task_disambiguation, task_mlama
from luke_mini import task_ner, task_qa, task_relation, task_typing

TASKS = (
    task_ner, task_relation, task_typing, task_qa, task_cloze, task_disambiguation, task_classification, task_mlama
)  # fmt: skip
TASKS = {module.NAME: module for module in TASKS}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK", title="tasks")
    for name, task in TASKS.items():
        summary = task.__doc__.split("\n")[0]
        task_parser = tasks.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        add_task_flags(task_parser, name, task)
    return parser.parse_args(argv)


def add_task_flags(parser: argparse.ArgumentParser, name: str, task) -> None:
    run = parser.add_argument_group("the run")
    start, data = Path("runs/toyworld"), Path("data/toyworld") / name
    run.add_argument("--checkpoint", type=Path, default=start, metavar="DIR", help="checkpoint or run")
    run.add_argument("--data", type=Path, default=data, metavar="DIR", help="folder of the files below")
    for split, names in task.FILES.items():
        text = f"instead of DIR/{' or DIR/'.join(names)}"
        run.add_argument(f"--{split}", type=Path, nargs="+" if split == "test" else 1, metavar="FILE", help=text)
        run.add_argument(f"--{split}-examples", type=int, metavar="N", help=f"use only the first N of the {split} file")
    run.add_argument("--out", type=Path, metavar="DIR", help="where the results go: runs/<checkpoint's name>-TASK")
    run.add_argument("--predict", type=Path, metavar="FILE", help="lines of text to answer for; - is standard input")
    run.add_argument("--describe", action="store_true", help="print the formats of the files and stop")
    run.add_argument("--random-weights", action="store_true", help="start from random weights, not the checkpoint's")
    run.add_argument("--compare-random", action="store_true", help="random weights too, print both scores")
    run.add_argument("--seeds", type=numbers(int), metavar="N,N,...", help="one run each; mean ± standard deviation")
    config.add_flags(parser, task.Options, "the task")
    if not finetuning.trains(task):
        return
    run.add_argument("--lr", type=numbers(float), metavar="X,X,...", help="peak learning rates to choose from on dev")
    run.add_argument("--resume", action="store_true", help="go on where a killed run of the same command stopped")
    run.add_argument("--save-minutes", type=float, default=10.0, metavar="N", help="between saves of a run's state")
    run.add_argument("--precision", choices=["fp32", "bf16"], help="of the products; bf16 where the hardware has it")
    config.add_flags(parser, config.FinetuneConfig, "the recipe (shown: NER's; each task and size has its own)")


def numbers(kind: type):
    """An argparse type: `1,2,3` -> [1, 2, 3]."""

    def parse(text: str) -> list:
        return [kind(part) for part in text.split(",")]

    parse.__name__ = f"comma-separated {kind.__name__}"
    return parse


def train(task, arguments, place) -> None:
    options = config.from_flags(task.Options(), arguments)
    start = open_checkpoint(arguments.checkpoint, task)
    if hasattr(task, "prepare"):
        start = task.prepare(start)
    given = {split: getattr(arguments, split) for split in task.FILES}
    files = finetuning.find_files(task, arguments.data, given)
    limits = {split: getattr(arguments, f"{split}_examples") for split in task.FILES}
    examples = finetuning.read_splits(task, files, options, limits)
    out = arguments.out or Path("runs") / f"{arguments.checkpoint.name}-{task.NAME}"
    kinds = [True] * (arguments.random_weights or arguments.compare_random)
    kinds += [False] * (not arguments.random_weights)  # the pretrained model last, so that its files stay
    if not finetuning.trains(task):
        job = finetuning.make_job(task, options, start, examples, place, "fp32", out, False, 0.0)
        finetuning.run(job, [], arguments.seeds or [0], kinds, files)
        return
    precision = arguments.precision or trainer.default_precision(place.device)
    job = finetuning.make_job(
        task, options, start, examples, place, precision, out, arguments.resume, arguments.save_minutes
    )
    name = task.recipe_name(examples["train"]) if hasattr(task, "recipe_name") else task.NAME
    recipe = config.from_flags(config.finetune_recipe(name, start.config), arguments)
    recipes = [replace(recipe, learning_rate=rate) for rate in arguments.lr or [recipe.learning_rate]]
    finetuning.run(job, recipes, arguments.seeds or [recipe.seed], kinds, files)


def open_checkpoint(folder: Path, task) -> checkpoint.Checkpoint:
    """A checkpoint, a pretraining run or the OUT of a fine-tuning run; without entities that the task has no use for."""
    found = checkpoint.read(folder / "model" if (folder / "model").is_dir() else folder)
    return found if task.ALL_ENTITIES else checkpoint.lite(found)


def predict(task, arguments, place) -> None:
    """Answers for lines of text, as JSON lines."""
    start = open_checkpoint(arguments.checkpoint, task)
    expected = task.ARCHITECTURE if isinstance(task.ARCHITECTURE, tuple) else (task.ARCHITECTURE,)
    if start.settings.get("architectures", [None])[0] not in expected:
        text = f"not fine-tuned for {task.NAME}; give the OUT of a `finetune.py {task.NAME}` run as --checkpoint"
        text = text if finetuning.trains(task) else "fine-tuned, expected a checkpoint with its pretraining heads"
        raise ValueError(f"{arguments.checkpoint}: {text}")
    # A released checkpoint has no settings of ours: the paper's are the defaults, except where its config.json has an
    # entry of the same name (classifier_bias).
    known = {item.name: start.settings[item.name] for item in fields(task.Options) if item.name in start.settings}
    options = task.Options(**(known | start.settings.get("luke_mini", {}).get("options", {})))
    options = config.from_flags(options, arguments)
    names = start.settings.get("id2label", {})
    labels = tuple(names[str(i)] for i in range(len(names)))
    model = task.build_model(start.config, start.entity_vocab, labels, options)
    checkpoint.fill(model, start.weights)
    text = sys.stdin.read() if str(arguments.predict) == "-" else arguments.predict.read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line.strip()]
    for answer in task.predict_lines(model.to(place.device), lines, start.tokenizer, start.entity_vocab, options):
        print(json.dumps(answer, ensure_ascii=False))


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    task = TASKS[arguments.task]
    if arguments.describe:
        print(task.FORMAT)
        return
    place = distributed.join()
    try:
        if arguments.predict:
            predict(task, arguments, place)
        else:
            train(task, arguments, place)
    finally:
        distributed.leave()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"finetune.py: error: {error}", file=sys.stderr)
        sys.exit(2)

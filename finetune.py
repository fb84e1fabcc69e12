"""Fine-tunes a pretrained LUKE on a task, scores it, and predicts for your own text.

    python finetune.py ner                                            the built-in encyclopedia's files and checkpoint
    python finetune.py ner --checkpoint runs/stage2 --data conll2003 --out runs/ner
    python finetune.py ner --describe                                 the format of the files, with an example
    python finetune.py ner --checkpoint runs/ner --evaluate de.conll  scores a model without training
    python finetune.py ner --checkpoint runs/ner --predict sentences.txt   (or - to type them, or --text "Ada met Bo.")
    python finetune.py ner --checkpoint runs/ner --predict sentences.txt --html page.html
    python finetune.py link --checkpoint runs/stage2 --mentions data/mentions.safetensors --ner runs/ner < texts.txt
    python finetune.py mlama --checkpoint runs/stage2 --data mlama1.1  scores the pretrained heads
    python finetune.py ner ... --seeds 1,2,3 --lr 1e-5,2e-5           a grid: chosen on dev, scored once on test
    python finetune.py ner --init roberta-base --data conll2003       from a word model, without LUKE
    torchrun --nproc_per_node 8 finetune.py ner ...                   the same batches, shared by eight GPUs

OUT then holds model/ (a checkpoint folder), results.json, metrics.jsonl, the predictions, and state/ for --resume. The
recipe is the one that was published for the data set (`recipes.py`), and fine-tuning uses entity-aware attention, as in
the paper. --predict trains nothing: every line of FILE (`-`: standard input) is a text, in some tasks with marks around
its mentions (--describe shows them), and its answer is one line of JSON; --view and --html render the answers instead.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("finetune.py: needs Python 3.11 or newer, this is " + sys.version.split()[0])

from luke_mini import config, files, recipes, views
from luke_mini.tasks import DISAMBIGUATION, TASKS, Task

BUILT_IN = Path("runs/toyworld")  # what `train.py` makes of the built-in encyclopedia


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = config.Parser(description=__doc__, usage="%(prog)s TASK [OPTION ...]")
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK", title="tasks", prog=parser.prog)
    for name, task in TASKS.items():
        overview = ["recipes, chosen by the files:", *recipes.overview(task)] if task.trains else []
        epilog = "\n".join(overview)
        add_task_flags(tasks.add_parser(name, help=task.summary, description=task.summary, epilog=epilog), task)
    summary = "Plain text to the titles of the entities in it."
    add_link_flags(tasks.add_parser("link", help=summary, description=summary))
    absent = "dev_share resume to_jsonl evaluate export init".split()  # flags that some tasks lack
    return parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(absent)))


def add_task_flags(parser: argparse.ArgumentParser, task: Task) -> None:
    run = parser.add_argument_group("the run")
    start = f"{BUILT_IN}; to evaluate, predict or export {BUILT_IN}-{task.name}" if task.trains else BUILT_IN
    run.add_argument("--checkpoint", type=Path, metavar="DIR", help=f"checkpoint or run [{start}]")
    run.add_argument("--data", type=Path, metavar="DIR", help=f"folder with the files below [for {BUILT_IN}: its own]")
    for split in task.files[0]:
        text = f"instead of the one in --data: {', '.join(' '.join(one[split] for one in task.files).split())}"
        run.add_argument(f"--{split}", type=Path, nargs="+" if split == "test" else 1, metavar="FILE", help=text)
        run.add_argument(f"--{split}-examples", type=int, metavar="N", help=f"use only the first N of the {split} file")
    run.add_argument("--out", type=Path, metavar="DIR", help="where the results go [runs/<checkpoint's name>-TASK]")
    run.add_argument("--overwrite", action="store_true", help="replace a run that OUT holds")
    run.add_argument("--evaluate", type=Path, nargs="+", metavar="FILE", help="score on these files, without training")
    run.add_argument("--predict", type=Path, metavar="FILE", help="lines of text to predict for; - is standard input")
    add_answer_flags(run)
    if task.exports:
        run.add_argument("--export", type=Path, metavar="FILE.pt2", help="write the fine-tuned model for torch.export")
    describe = "print the formats of the files and stop"
    run.add_argument("--describe", action="version", version=task.format, help=describe)
    run.add_argument("--to-jsonl", type=Path, metavar="FILE", help="print a published file as JSON lines and stop")
    run.add_argument("--random-weights", action="store_true", help="start from random weights, not the checkpoint's")
    run.add_argument("--compare-random", action="store_true", help="also run from random weights; print both scores")
    run.add_argument("--seeds", type=numbers(int), metavar="N,N,...", help="one run each; mean ± standard deviation")
    if not task.trains:
        config.add_flags(parser, task.options(), "the task")
        return
    default, *_ = found = recipes.of_task(task.name)
    config.add_flags(parser, task.options(**found[default].options), f"the task [{default}]")
    run.add_argument("--recipe", choices=list(found), help="instead of the one for the data set; see below")
    if not task.all_entities:
        run.add_argument("--init", type=Path, metavar="DIR", help="start from a RoBERTa, XLM-R or BERT folder")
    run.add_argument("--dev-share", type=float, metavar="X", help="hold out this share of the training file as dev set")
    run.add_argument("--lr", type=numbers(float), metavar="X,X,...", help="peak learning rates to choose from on dev")
    run.add_argument("--resume", action="store_true", help="go on with a stopped run; more --epochs extend a run")
    run.add_argument("--save-minutes", type=float, default=10.0, metavar="N", help="minutes between saves")
    run.add_argument("--entity-aware", action=argparse.BooleanOptionalAction, default=None,
                     help="attention with w2e, e2w and e2e, copies of w2w where the checkpoint lacks them [on, "
                          "unless the recipe leaves attention as it is]")  # fmt: skip
    run.add_argument("--precision", choices=["fp32", "bf16"], help="compute precision [bf16 where it is faster]")
    config.add_flags(parser, found[default].training, f"the training [{default}]")


def add_answer_flags(parser) -> None:
    parser.add_argument("--text", nargs="+", metavar="TEXT", help="texts to predict for, instead of a file's lines")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--view", action="store_true", help="answers in color, not as lines of JSON")
    group.add_argument("--html", type=Path, metavar="FILE", help="answers as a page, not as lines of JSON")


def add_link_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, default=BUILT_IN, metavar="DIR",
                        help="pretraining run or OUT of `finetune.py disambiguation` [%(default)s]")  # fmt: skip
    parser.add_argument("--mentions", type=Path, metavar="FILE",
                        help="the mention statistics that prepare_wiki.py writes [the run's own]")  # fmt: skip
    parser.add_argument("--ner", type=Path, metavar="DIR", help="OUT of `finetune.py ner`, to find the mentions [none]")
    parser.add_argument("--min-link-probability", type=float, metavar="X",
                        help="without --ner: how often a name must be a link "
                        f"[{DISAMBIGUATION.options().min_link_probability}]")  # fmt: skip
    parser.add_argument("--min-probability", type=float, metavar="X",
                        help="no title for mentions that are less probable "
                        "[chosen by held-out links; with --model-weight 0]")  # fmt: skip
    parser.add_argument("--model-weight", type=float, metavar="X",
                        help="of the model, the rest is the prior's; 1: the model alone [by held-out links]")  # fmt: skip
    parser.add_argument("--order", choices=["confidence", "natural", "local"],
                        help="order of linking; local: all mentions at once")  # fmt: skip
    parser.add_argument("--language", metavar="LANG", help="language of the titles, if the vocabulary has several")
    parser.add_argument("--predict", type=Path, default=Path("-"), metavar="FILE",
                        help="lines of text; - is standard input [-]")  # fmt: skip
    add_answer_flags(parser)


def numbers(kind: type):
    """Makes an argparse type that parses `1,2,3` to [1, 2, 3]."""

    def parse(text: str) -> list:
        return [kind(part) for part in text.split(",")]

    parse.__name__ = f"comma-separated {kind.__name__}"
    return parse


if __name__ == "__main__":
    files.run(parse_arguments, "finetune.py")  # help, --describe and typing errors do not wait for torch

from luke_mini import checkpoint, distributed, export, finetuning, inference, saves, trainer
from luke_mini.mentions import find_statistics


def train(task, arguments, rank) -> None:
    source = arguments.init or arguments.checkpoint or BUILT_IN
    out = arguments.out or Path("runs") / f"{source.name}-{task.NAME}"
    with distributed.one_writer(out, rank):
        saves.refuse_used(out, arguments.resume or arguments.overwrite)
        _train(task, arguments, rank, source, out)


def _train(task, arguments, rank, source: Path, out: Path) -> None:
    checkpoint.check_exists(source)  # before its data: a name of a released model gets the command to download it
    files = find_files(task, arguments, source)
    start = checkpoint.start_from_words(source) if arguments.init else inference.open_checkpoint(source, task)
    if hasattr(task, "prepare"):
        start = task.prepare(start)
    limits = {split: getattr(arguments, f"{split}_examples") for split in task.FILES[0]}
    options = config.from_flags(task.Options(), arguments)
    examples = finetuning.read_splits(task, files, options, limits)
    if arguments.dev_share:
        finetuning.hold_out(examples, arguments.dev_share)
    kinds = [True] * (arguments.random_weights or arguments.compare_random)
    kinds += [False] * (not arguments.random_weights)  # the pretrained model last, so that its files stay
    if not task.TRAINS:
        job = finetuning.make_job(task, options, start, examples, rank, "fp32", out, False, 0.0)
        finetuning.run(job, [], arguments.seeds or [0], kinds, files)
        return
    name, recipe = choose_recipe(task, arguments, files, examples, start)
    aware = start.config.use_entity_aware_attention or recipe.entity_aware
    aware = aware if arguments.entity_aware is None else arguments.entity_aware
    options = config.from_flags(task.Options(**recipe.options), arguments)
    options = task.settled(options, examples["train"]) if hasattr(task, "settled") else options
    shape = replace(start.config, use_entity_aware_attention=aware)
    precision = arguments.precision or trainer.default_precision(rank.device, start.config.hidden_size)
    device = trainer.device_text(rank, precision)
    print("\n".join(finetuning.header(source, start, shape, name, recipe, options, device)), flush=True)
    if hasattr(task, "with_entities"):
        options = task.with_entities(options, [*(path.parent for path in files.values()), source], start.entity_vocab)
    start = checkpoint.with_attention(start, aware)
    job = finetuning.make_job(
        task, options, start, examples, rank, precision, out, arguments.resume, arguments.save_minutes
    )
    rates = arguments.lr or [recipe.training.learning_rate]
    training = [replace(recipe.training, learning_rate=rate) for rate in rates]
    finetuning.run(job, training, arguments.seeds or [recipe.training.seed], kinds, files)


def find_files(task, arguments, source: Path) -> dict[str, Path]:
    """The files of a run. The built-in encyclopedia's are the default only for its own checkpoint."""
    given = {split: getattr(arguments, split) for split in task.FILES[0]}
    folder, first = arguments.data, next(iter(given))
    if not folder and not given[first]:
        if source.resolve() != BUILT_IN.resolve():
            raise ValueError(f"{source}: expected --data DIR or --{first} FILE; only {BUILT_IN} has default files")
        folder = Path("data/toyworld") / task.NAME
    return finetuning.find_files(task, folder, given)


def choose_recipe(task, arguments, files, examples, start) -> tuple[str, recipes.Recipe]:
    """The recipe's name; the recipe for the checkpoint's size, updated from the command line."""
    find = getattr(task, "recipe_name", lambda *_: next(iter(recipes.of_task(task.NAME))))
    name = arguments.recipe or find(files, examples, start)
    recipe = recipes.for_encoder(recipes.RECIPES[name], start.config, words_only=arguments.init is not None)
    training = replace(recipe.training, min_steps=0) if arguments.epochs else recipe.training
    return name, recipe._replace(training=config.from_flags(training, arguments))


def open_model(task, arguments, device="cpu", all_entities: bool = False) -> tuple[Path, inference.Predictor]:
    """The folder for --predict, --evaluate or --export, and its model with the options of the command line."""
    folder = arguments.checkpoint or (Path(f"{BUILT_IN}-{task.NAME}") if task.TRAINS else BUILT_IN)
    changes = given_options(task.Options, arguments)
    return folder, inference.load(folder, task.NAME, changes, device, all_entities)


def evaluate(task, arguments, rank) -> None:
    source, opened = open_model(task, arguments, rank.device)
    files = finetuning.name_tests(arguments.evaluate)
    out = arguments.out or Path("runs") / f"{source.name}-evaluated"
    inference.evaluate(opened, source, files, arguments.test_examples, rank, out)


def predict(task, arguments, rank) -> None:
    folder, predictor = open_model(task, arguments, rank.device)
    if task.NAME == DISAMBIGUATION.name and (found := arguments.mentions or find_statistics([folder])):
        predictor, _ = inference.load_linker(folder, found, given_options(task.Options, arguments), rank.device)
    write_answers(partial(inference.answer, predictor), arguments)


def link(arguments, rank) -> None:
    changes = given_options(DISAMBIGUATION.options, arguments, exclude="mentions")
    linker, statistics = inference.load_linker(arguments.checkpoint, arguments.mentions, changes, rank.device)
    ner = arguments.ner and inference.load(arguments.ner, "ner", device=rank.device)
    write_answers(lambda lines: inference.link(linker, statistics, lines, ner), arguments)


def given_options(options: type, arguments, exclude: str = "") -> dict[str, object]:
    """The task's options given on the command line; exclude: a flag that only shares an option's name."""
    values = {item.name: getattr(arguments, item.name, None) for item in fields(options) if item.name != exclude}
    return {name: value for name, value in values.items() if value is not None}


def read_lines(arguments) -> Iterator[list[tuple[str, str]]]:
    """Lines with the place where each stands, blank ones left out: all of a file, or one by one as they are typed."""
    path = arguments.predict
    if arguments.text or (not path.exists() and " " in str(path)):
        yield [(f"text {i}", text) for i, text in enumerate(arguments.text or [str(path)], start=1) if text.strip()]
    elif str(path) != "-":
        yield list(files.read_lines(path))
    else:
        yield from ([(f"standard input, line {i}", line)] for i, line in enumerate(typed(), start=1) if line.strip())


def typed() -> Iterator[str]:
    """The lines of standard input, as they come."""
    prompt = "> " * sys.stdin.isatty()
    if prompt:
        print("A text per line; Ctrl-D ends.", file=sys.stderr)
    while True:
        print(prompt, end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            return
        yield line.rstrip("\r\n")


def answers_to(lines: list[tuple[str, str]], answer: Callable, faults: list[str]) -> Iterator[dict]:
    """The answers; a line that cannot be read has none, but is named on standard error and in `faults`."""
    while lines:
        try:
            yield from list(answer([line for _, line in lines]))
            return
        except ValueError as error:
            if not (found := re.match(r"line (\d+)", str(error))):
                raise
            first, reason = int(found[1]) - 1, str(error)[found.end() :]
        yield from answers_to(lines[:first], answer, faults)
        faults.append(lines[first][0])
        print(f"finetune.py: error: {faults[-1]}{files.one_line(reason)}", file=sys.stderr)
        lines = lines[first + 1 :]


def write_answers(answer: Callable, arguments) -> None:
    """Writes lines of JSON, or with --view colored text (plain if not a terminal), or with --html a page."""
    faults: list[str] = []
    answers = (found for lines in read_lines(arguments) for found in answers_to(lines, answer, faults))
    if arguments.html:
        name = "lines" if arguments.text or str(arguments.predict) == "-" else arguments.predict.name
        views.write_html(arguments.html, map(views.show, answers), f"{arguments.task}: {name}")
    for found in () if arguments.html else answers:
        if arguments.view:
            views.print_answer(views.show(found))
        else:
            print(json.dumps(found, ensure_ascii=False), flush=True)
    if faults:
        sys.exit(2)


def to_jsonl(task, arguments) -> None:
    """Prints every example of a published file as our own JSON lines (see --describe)."""
    with redirect_stdout(sys.stderr):  # messages about the file
        records = list(task.records(arguments.to_jsonl, config.from_flags(task.Options(), arguments)))
    for record in records:
        print(json.dumps(record.values, ensure_ascii=False))


def export_model(task, arguments) -> None:
    _, opened = open_model(task, arguments, all_entities=True)
    difference = export.save(opened.model, task.NAME, arguments.export)
    names = " ".join(export.INPUTS[task.NAME])
    print(f"{arguments.export}: takes {names}; largest difference from the model's scores {difference:.1e}")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    task = inference.TASKS.get(arguments.task)
    if arguments.to_jsonl:
        to_jsonl(task, arguments)
        return
    with distributed.process() as rank:
        if not task:
            link(arguments, rank)
        elif arguments.predict or arguments.text:
            predict(task, arguments, rank)
        elif arguments.evaluate:
            evaluate(task, arguments, rank)
        elif arguments.export:
            export_model(task, arguments)
        else:
            try:
                train(task, arguments, rank)
            except KeyboardInterrupt:
                stays = "--resume goes on from the last saved step, if there is one" * task.TRAINS
                raise KeyboardInterrupt(stays) from None


if __name__ == "__main__":
    files.run(main, "finetune.py")

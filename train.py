"""Pretrains LUKE on a folder written by prepare_wiki.py.

    python train.py                                            the built-in encyclopedia, recipe scratch-tiny
    torchrun --nproc_per_node 8 train.py --data data/en --recipe luke-base --stage 1 --init roberta-base --out runs/1
    torchrun --nproc_per_node 8 train.py --data data/en --recipe luke-base --stage 2 --init runs/1 --out runs/2

Stage 1 of the published recipes trains the entity side of a model whose word side is pretrained, stage 2 everything.
Those named scratch train everything from random weights, in one stage. The shape of the network is that of --init, or
the recipe's. Several --data folders (languages, with one tokenizer and one entity vocabulary) are mixed by
--sampling-exponent. OUT then holds step-NNNNNN folders (the newest is the model), metrics.jsonl, report.html (refreshed
at each save) and mention statistics from the first --data folder.
"""

import argparse
import sys
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("train.py: needs Python 3.11 or newer, this is " + sys.version.split()[0])

from luke_mini import config, files, recipes


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; `.training` is the stage of the recipe, updated with the flags given."""
    kind = argparse.ArgumentParser(add_help=False)  # parsed first: they select the numbers that the help shows
    kind.add_argument("--recipe", choices=list(recipes.PRETRAINING), default="scratch-tiny",
                      help="what to train, and how [%(default)s]")  # fmt: skip
    kind.add_argument("--stage", type=int, choices=[1, 2], help="of a recipe that has two")
    known, _ = kind.parse_known_args(argv)
    recipe = recipes.PRETRAINING[known.recipe]
    stages, stage = len(recipe.stages), known.stage or 1
    planned = recipe.stages[min(stage, stages) - 1]
    parser = config.Parser(description=__doc__, parents=[kind])
    run = parser.add_argument_group("the run")
    data, folder, steps = Path("data/toyworld"), {"type": Path, "metavar": "DIR"}, {"type": int, "metavar": "STEPS"}
    run.add_argument("--data", nargs="+", default=[data], help=f"written by prepare_wiki.py [{data}]", **folder)
    run.add_argument("--out", help="where the run goes [runs/<name of the data folder>]", **folder)
    run.add_argument("--init", help="initialize from a LUKE, a run, RoBERTa, XLM-R or BERT", **folder)
    run.add_argument("--entity-size", type=int, metavar="N", help="size of entity embeddings [of the recipe or --init]")
    run.add_argument("--dry-run", action="store_true", help="print steps, tokens, memory and time, and stop")
    run.add_argument("--resume", action="store_true", help="go on with a stopped run; more --steps extend a run")
    run.add_argument("--overwrite", action="store_true", help="start over even if OUT holds saved steps")
    run.add_argument("--precision", choices=["fp32", "bf16"], help="compute precision [bf16 where it is faster]")
    run.add_argument("--shard", action="store_true",
                     help="spread weights and optimizer over the processes, for models that one GPU cannot hold")
    run.add_argument("--recompute", action="store_true",
                     help="keep the input of each layer alone and compute the rest again for the gradients: the same "
                          "numbers, less memory; a step takes a third longer, or half")  # fmt: skip
    run.add_argument("--compile", action="store_true",
                     help="torch.compile the layers, 20 s at the start; meant for GPUs, not measured on one; on a CPU "
                          "a step then takes 1.0 to 1.1 times as long")  # fmt: skip
    run.add_argument("--price", type=float, default=0.0, metavar="X",
                     help="of an hour of one process (one GPU): estimates say what the run costs, too")
    run.add_argument("--save-every", default=1000, help="steps between saves, with validation [%(default)s]", **steps)
    run.add_argument("--keep", default=2, help="saved steps that stay on disk [%(default)s]", **steps)
    run.add_argument("--keep-epochs", action="store_true", help="also save the end of every epoch, for good")
    run.add_argument("--log-every", default=10, help="steps between lines of the log [%(default)s]", **steps)
    of = f" --stage {stage}" * (stages > 1)
    config.add_flags(parser, planned, f"the recipe [--recipe {known.recipe}{of}]")
    arguments = parser.parse_args(argv)
    if stages > 1 and arguments.stage is None:
        parser.error(f"--recipe {known.recipe} has two stages: give --stage 1 or --stage 2")
    if stages == 1 and arguments.stage:
        two = ", ".join(name for name, other in recipes.PRETRAINING.items() if len(other.stages) > 1)
        parser.error(f"--stage {stage}: {known.recipe} has one stage; two have --recipe {two}")
    if recipe.words and arguments.init is None:
        start = recipe.words if stage == 1 else "a run of stage 1"
        parser.error(f"--recipe {known.recipe} --stage {stage} starts from {start}: give --init DIR")
    for name in ("save_every", "keep", "log_every"):
        if (value := getattr(arguments, name)) < 1:
            parser.error(f"{config.as_flag(name, value)}: expected at least 1")
    arguments.out = arguments.out or Path("runs") / arguments.data[0].name
    arguments.training = config.from_flags(planned, arguments)
    return arguments


if __name__ == "__main__":
    files.run(parse_arguments, "train.py")  # help and typing errors do not wait for torch

from luke_mini import distributed, pretraining


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    if arguments.dry_run:
        pretraining.foretell(arguments)
        return
    with distributed.process() as rank, distributed.one_writer(arguments.out, rank):
        pretraining.pretrain(arguments, rank)


if __name__ == "__main__":
    files.run(main, "train.py", "--resume goes on from the last saved step, if there is one")

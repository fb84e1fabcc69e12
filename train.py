"""Pretrains LUKE on a folder written by prepare_wiki.py.

    python train.py                                                   the built-in encyclopedia, size tiny, from scratch
    torchrun --nproc_per_node 8 train.py --data data/enwiki --size base --stage 1 --init roberta-base --out runs/stage1
    torchrun --nproc_per_node 8 train.py --data data/enwiki --size base --stage 2 --init runs/stage1 --out runs/stage2

Stage 1 trains the entity side of a model whose word side is pretrained, stage 2 trains everything; `scratch` trains
everything from random weights. Several --data folders (languages, with one tokenizer and one entity vocabulary) are
mixed by --sampling-exponent. OUT then holds step-NNNNNN folders (the newest is the model), metrics.jsonl and the first
folder's mention statistics.
"""

import argparse
import filecmp
import io
import platform
import shutil
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy
import torch

from luke_mini import batching, checkpoint, config, distributed, files, initialization, ops
from luke_mini import optim, tokenizer, trainer
from luke_mini.entity_vocab import EntityVocab
from luke_mini.examples import Shards
from luke_mini.mentions import STATISTICS
from luke_mini.model import LukeForPretraining

FREQUENCY_SAMPLE = 20_000  # examples whose words and entities are counted for a start from random weights


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    kind = argparse.ArgumentParser(add_help=False)  # read first: the help shows the numbers that belong to it
    kind.add_argument("--size", choices=list(config.SIZES), default="tiny", help="shape of the network [%(default)s]")
    kind.add_argument("--stage", choices=["1", "2", "scratch"], default="scratch", help="training stage [%(default)s]")
    known, _ = kind.parse_known_args(argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[kind]
    )
    run = parser.add_argument_group("the run")
    data = Path("data/toyworld")
    run.add_argument(
        "--data", nargs="+", type=Path, default=[data], metavar="DIR", help=f"written by prepare_wiki.py [{data}]"
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="where the run goes [runs/<name of the data folder>]")
    run.add_argument("--init", type=Path, metavar="DIR", help="initialize from a LUKE, a run, RoBERTa, XLM-R or BERT")
    run.add_argument("--resume", action="store_true", help="resume from the latest saved step in OUT, if any")
    run.add_argument("--overwrite", action="store_true", help="start over even if OUT holds saved steps")
    run.add_argument("--precision", choices=["fp32", "bf16"], help="compute precision [bf16 where it is faster]")
    run.add_argument("--save-every", type=int, default=1000, metavar="STEPS", help="steps between saves [%(default)s]")
    run.add_argument(
        "--log-every", type=int, default=10, metavar="STEPS", help="steps between lines of the log [%(default)s]"
    )
    recipe = config.pretrain_recipe(known.stage, known.size)
    config.add_flags(parser, recipe, f"the recipe [--stage {known.stage} --size {known.size}]")
    arguments = parser.parse_args(argv)
    if arguments.stage != "scratch" and arguments.init is None:
        parser.error(f"--stage {arguments.stage} starts from pretrained weights: give --init DIR, or --stage scratch")
    for name in ("save_every", "log_every"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(arguments, name)}: expected at least 1")
    return arguments


def open_data(folders: list[Path], shape: config.ModelConfig) -> Shards:
    """The examples of the data folders, which must have the same tokenizer and entity vocabulary."""
    manifests = [read_manifest(folder, shape) for folder in folders]
    for folder in folders[1:]:
        check_same_vocabularies(folder, folders[0])
    shards = Shards.open(*folders)
    for folder, size, manifest in zip(folders, shards.sizes, manifests):
        if size != manifest["examples"]:
            raise ValueError(f"{folder}: {size} examples, but its manifest.json promises {manifest['examples']}")
    return shards


def read_manifest(folder: Path, shape: config.ModelConfig) -> dict:
    """ValueError if prepare_wiki.py did not finish this folder or its sequences are too long."""
    if not (folder / "manifest.json").is_file():
        raise ValueError(f"{folder}: no manifest.json, so prepare_wiki.py has not finished; run it with --out {folder}")
    manifest = files.read_object(folder / "manifest.json")
    room = shape.max_position_embeddings - shape.pad_token_id - 1
    if manifest["max_seq_length"] > room:
        raise ValueError(
            f"{folder}: sequences of up to {manifest['max_seq_length']} word pieces, the model takes {room}"
        )
    return manifest


def check_same_vocabularies(folder: Path, first: Path) -> None:
    for path in [*sorted((first / "tokenizer").iterdir()), first / "entity_vocab.jsonl"]:
        other = folder / path.relative_to(first)
        if not other.is_file() or not filecmp.cmp(path, other, shallow=False):
            options = f"--tokenizer {first}/tokenizer --entity-vocab {first}/entity_vocab.jsonl"
            raise ValueError(f"{other} differs from {path}: make this folder with prepare_wiki.py {options}")


def base_shape(arguments) -> config.ModelConfig:
    """The shape of --size; of a word model that --init names, everything that its config.json settles."""
    shape = config.SIZES[arguments.size]
    if arguments.init is None or not initialization.is_word_model(arguments.init):
        return shape
    found = replace(shape, **initialization.word_model_shape(arguments.init))
    if (found.hidden_size, found.num_hidden_layers) != (shape.hidden_size, shape.num_hidden_layers):
        held = f"{found.num_hidden_layers} layers of {found.hidden_size}"
        raise ValueError(f"--init {arguments.init} has {held}, which is not --size {arguments.size}")
    return found


def model_config(arguments, recipe: config.PretrainConfig, word_tokenizer, entity_vocab) -> config.ModelConfig:
    return replace(
        base_shape(arguments),
        vocab_size=len(word_tokenizer),
        entity_vocab_size=len(entity_vocab),
        hidden_dropout_prob=recipe.dropout,
        attention_probs_dropout_prob=recipe.dropout,
        use_entity_aware_attention=recipe.entity_aware,
        pad_token_id=word_tokenizer.pad_id,
        bos_token_id=word_tokenizer.bos_id,
        eos_token_id=word_tokenizer.eos_id,
    )


def build_model(arguments, recipe, word_tokenizer, entity_vocab, shards: Shards) -> LukeForPretraining:
    """The model at its starting weights, with the parameters that the stage trains switched on."""
    shape = model_config(arguments, recipe, word_tokenizer, entity_vocab)
    model = LukeForPretraining(shape)
    initialization.initialize(model, shape, recipe.seed)
    if arguments.init is None:
        give_head_start(model, recipe, word_tokenizer, entity_vocab, shards)
    elif initialization.is_word_model(arguments.init):
        weights = initialization.read_word_model(arguments.init, shape, word_tokenizer)
        checkpoint.fill(model, weights, fresh=("word_head.", "entity_head.", "luke.entities.", "luke.pooler."))
        # differs from LUKE: there, the entities' positions start at random, N(0, 0.02). Copies cost nothing, and let a
        # mention find its words from the first step on.
        initialization.copy_word_positions(model.luke)
    else:
        start = checkpoint.read(arguments.init, entity_aware=recipe.entity_aware)
        try:
            checkpoint.fill(model, start.weights, fresh=("word_head.", "entity_head."))
        except ValueError as error:
            raise ValueError(f"--init {arguments.init} does not fit this size and this data: {error}") from None
        if start.ignored:
            print(f"ignored     {start.ignored}", flush=True)
    optim.select_trainable(model, recipe.train_words)
    return model


def give_head_start(model: LukeForPretraining, recipe, word_tokenizer, entity_vocab, shards: Shards) -> None:
    """What the recipe gives to a model from random weights; see `initialization.py`."""
    if recipe.frequency_start:
        sample = shards.gather(numpy.arange(min(len(shards), FREQUENCY_SAMPLE)))
        words = numpy.bincount(sample.word_ids, minlength=model.config.vocab_size)
        entities = numpy.bincount(sample.entity_ids, minlength=model.config.entity_vocab_size)
        initialization.start_at_frequencies(model, torch.from_numpy(words), torch.from_numpy(entities))
    if recipe.title_start:
        titles = [entity_vocab.title(i) for i in range(len(entity_vocab))]
        initialization.start_at_titles(model, word_tokenizer.encode_pieces(titles, [True] * len(titles)), recipe.seed)


def describe(arguments, recipe, model, shards: Shards) -> dict:
    """All that a run depends on; saved with every step, and compared when a run is resumed."""
    return {
        "stage": arguments.stage,
        "size": arguments.size,
        "recipe": config.as_dict(recipe),
        "model": config.as_dict(model.config),
        "examples": len(shards),
        "words": int(shards.lengths.sum()),
    }


def print_header(rank, arguments, recipe, model, total_steps: int, precision: str) -> None:
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"command     {' '.join(sys.argv)}")
    print(f"versions    python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}")
    print(f"device      {rank.device} x {rank.world_size}, {torch.get_num_threads()} threads each, {precision}")
    print(f"kernels     {ops.backend_for(rank.device)}")
    print(f"model       {arguments.size}: {weights:,} weights, {trained:,} of them trained; {model.config}")
    print(f"recipe      stage {arguments.stage}, {total_steps:,} steps; {recipe}", flush=True)


def prepare_out(arguments, rank) -> None:
    """Clears OUT for a fresh start. ValueError if it holds saved steps and nothing says what to do with them."""
    steps = trainer.saved_steps(arguments.out)
    if steps and arguments.resume:
        return
    if steps and not arguments.overwrite:
        held = f"{arguments.out} holds {steps[-1].name} already"
        raise ValueError(f"{held}: --resume continues from it, --overwrite starts over")
    if rank.is_first:
        for folder in steps:
            shutil.rmtree(folder)
        arguments.out.mkdir(parents=True, exist_ok=True)
        keep_statistics(arguments.data[0] / STATISTICS, arguments.out / STATISTICS)
    distributed.barrier()


def keep_statistics(source: Path, target: Path) -> None:
    """The mention statistics of the data, if it has any, beside the model: question answering and linking need both."""
    target.unlink(missing_ok=True)
    if source.is_file():
        try:
            target.hardlink_to(source)
        except OSError:  # another disk
            shutil.copy(source, target)


def pretrain(arguments, recipe: config.PretrainConfig, rank: distributed.Rank) -> None:
    hidden_size = config.SIZES[arguments.size].hidden_size
    precision = arguments.precision or trainer.default_precision(rank.device, hidden_size)
    shards = open_data(arguments.data, base_shape(arguments))
    word_tokenizer = tokenizer.load(arguments.data[0] / "tokenizer")
    entity_vocab = EntityVocab.load(arguments.data[0] / "entity_vocab.jsonl")
    total_steps = recipe.steps or batching.steps_for(len(shards), recipe.global_batch, recipe.epochs)
    model = build_model(arguments, recipe, word_tokenizer, entity_vocab, shards).to(rank.device)
    prepare_out(arguments, rank)
    if rank.is_first:
        print_header(rank, arguments, recipe, model, total_steps, precision)

    def batches(start_step: int):
        return batching.training_steps(shards, word_tokenizer, entity_vocab, recipe, rank, start_step, total_steps)

    def write_model(folder: Path) -> None:
        checkpoint.write(folder, model, word_tokenizer, entity_vocab, {"luke_mini": {"stage": arguments.stage}})

    def read_model(folder: Path) -> None:
        checkpoint.fill(model, checkpoint.read(folder).weights)

    def add_markers(step: int) -> None:  # the last step is what downstream tasks start from
        if step == total_steps:
            initialization.copy_marker_rows(model.state_dict(), word_tokenizer, entity_vocab)

    saving = trainer.Saving(
        arguments.out, arguments.out / "metrics.jsonl", describe(arguments, recipe, model, shards),
        write_model, read_model, arguments.resume, every_steps=arguments.save_every,
    )  # fmt: skip
    trainer.fit(
        model, batches, recipe=recipe, rank=rank, precision=precision, total_steps=total_steps,
        warmup_steps=recipe.warmup_steps, saving=saving, log_every=arguments.log_every, title="pretrain",
        validate=add_markers,
    )  # fmt: skip
    if rank.is_first:
        print(f"model in    {trainer.saved_steps(arguments.out)[-1]}")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    arguments.out = arguments.out or Path("runs") / arguments.data[0].name
    recipe = config.from_flags(config.pretrain_recipe(arguments.stage, arguments.size), arguments)
    rank = distributed.setup()
    output = nullcontext() if rank.is_first else redirect_stdout(io.StringIO())  # once for all processes
    try:
        with output:
            pretrain(arguments, recipe, rank)
    finally:
        distributed.cleanup()


if __name__ == "__main__":
    files.run(main, "train.py", "--resume goes on from the last saved step")

"""Pretrains LUKE on a folder written by prepare_wiki.py.

    python train.py                                                   the built-in encyclopedia, size tiny, from scratch
    torchrun --nproc_per_node 8 train.py --data data/enwiki --size base --stage 1 --init roberta-base --out runs/stage1
    torchrun --nproc_per_node 8 train.py --data data/enwiki --size base --stage 2 --init runs/stage1 --out runs/stage2

Stage 1 trains the entity side of a model whose word side is pretrained. Stage 2 trains everything. `scratch` trains
everything from random weights. Several --data folders (languages, with one tokenizer and one entity vocabulary) are
mixed by --sampling-exponent. OUT then holds step-NNNNNN folders (the newest is the model), metrics.jsonl and mention
statistics from the first --data folder.
"""

import argparse
import platform
import shutil
import sys
from dataclasses import replace
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("train.py: needs Python 3.11 or newer, this is " + sys.version.split()[0])

from luke_mini import config, files

FREQUENCY_SAMPLE = 20_000  # examples in which words and entities are counted for --frequency-start


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; `.recipe` is the recipe of --stage and --size, updated with the flags given."""
    kind = argparse.ArgumentParser(add_help=False)  # parsed first: they select the recipe whose numbers the help shows
    kind.add_argument("--size", choices=list(config.SIZES), help="shape of the network [of --init, or tiny]")
    kind.add_argument("--stage", choices=["1", "2", "scratch"], default="scratch", help="training stage [%(default)s]")
    known, _ = kind.parse_known_args(argv)
    size = known.size or "tiny"
    recipe = config.pretrain_recipe(known.stage, size)
    parser = config.Parser(description=__doc__, parents=[kind])
    run = parser.add_argument_group("the run")
    data, folder, steps = Path("data/toyworld"), {"type": Path, "metavar": "DIR"}, {"type": int, "metavar": "STEPS"}
    run.add_argument("--data", nargs="+", default=[data], help=f"written by prepare_wiki.py [{data}]", **folder)
    run.add_argument("--out", help="where the run goes [runs/<name of the data folder>]", **folder)
    run.add_argument("--init", help="initialize from a LUKE, a run, RoBERTa, XLM-R or BERT", **folder)
    run.add_argument("--entity-size", type=int, metavar="N", help="size of entity embeddings [of --size or --init]")
    run.add_argument("--resume", action="store_true", help="go on with a stopped run; more --steps extend a run")
    run.add_argument("--overwrite", action="store_true", help="start over even if OUT holds saved steps")
    run.add_argument("--precision", choices=["fp32", "bf16"], help="compute precision [bf16 where it is faster]")
    run.add_argument("--save-every", default=1000, help="steps between saves [%(default)s]", **steps)
    run.add_argument("--keep", default=2, help="saved steps that stay on disk [%(default)s]", **steps)
    run.add_argument("--log-every", default=10, help="steps between lines of the log [%(default)s]", **steps)
    config.add_flags(parser, recipe, f"the recipe [--stage {known.stage} --size {size}]")
    arguments = parser.parse_args(argv)
    if arguments.stage != "scratch" and arguments.init is None:
        parser.error(f"--stage {arguments.stage} starts from pretrained weights: give --init DIR, or --stage scratch")
    for name in ("save_every", "keep", "log_every"):
        if (value := getattr(arguments, name)) < 1:
            parser.error(f"{config.as_flag(name, value)}: expected at least 1")
    arguments.out = arguments.out or Path("runs") / arguments.data[0].name
    arguments.size = known.size or ("as --init" if arguments.init else size)
    arguments.recipe = config.from_flags(recipe, arguments)
    return arguments


if __name__ == "__main__":
    files.run(parse_arguments, "train.py")  # help and typing errors do not wait for torch

import numpy
import torch

from luke_mini import batching, checkpoint, distributed, initialization, ops
from luke_mini import optim, recipes, tokenizer, trainer
from luke_mini.entity_vocab import EntityVocab
from luke_mini.examples import Shards, open_folders, part_hashes
from luke_mini.mentions import HELD_OUT, STATISTICS
from luke_mini.model import LukeForPretraining


def base_shape(arguments) -> config.ModelConfig:
    """The shape of --size, or that of --init; a word model's entity embeddings have the size usual beside its words."""
    shape = config.SIZES.get(arguments.size)
    if arguments.init is None:
        return shape
    checkpoint.check_exists(arguments.init)
    if initialization.is_word_model(arguments.init):
        words = initialization.word_model_shape(arguments.init)
        usual = min(config.SIZES.values(), key=lambda known: abs(known.hidden_size - words["hidden_size"]))
        found = replace(usual, **words)
    else:
        settings = checkpoint.read_settings(checkpoint.find_folder(arguments.init) / "config.json")
        found = checkpoint.model_config(settings)
    if shape and (found.hidden_size, found.num_hidden_layers) != (shape.hidden_size, shape.num_hidden_layers):
        held = f"{found.num_hidden_layers} layers of {found.hidden_size}"
        raise ValueError(f"--init {arguments.init} has {held}, which is not --size {arguments.size}")
    return found


def build_model(arguments, shape, word_tokenizer, entity_vocab, shards: Shards) -> LukeForPretraining:
    """The model with its initial weights; only the parameters that the stage trains require gradients."""
    recipe = arguments.recipe
    shape = replace(
        shape, vocab_size=len(word_tokenizer), entity_vocab_size=len(entity_vocab),
        hidden_dropout_prob=recipe.dropout, attention_probs_dropout_prob=recipe.dropout,
        use_entity_aware_attention=recipe.entity_aware, pad_token_id=word_tokenizer.pad_id,
        bos_token_id=word_tokenizer.bos_id, eos_token_id=word_tokenizer.eos_id,
    )  # fmt: skip
    model = LukeForPretraining(shape)
    initialization.initialize(model, shape, recipe.seed)
    if arguments.init is None:
        improve_random_weights(model, recipe, word_tokenizer, entity_vocab, shards)
    elif initialization.is_word_model(arguments.init):
        weights = initialization.read_word_model(arguments.init, shape, word_tokenizer)
        checkpoint.fill(model, weights, fresh=("word_head.", "entity_head.", "luke.entities.", "luke.pooler."))
        # differs from LUKE, whose entity position embeddings start at random, N(0, 0.02). Copies cost nothing, and let
        # a mention find its words from the first step on.
        initialization.copy_word_positions(model.luke)
    else:
        start = checkpoint.read(arguments.init, entity_aware=recipe.entity_aware)
        try:
            checkpoint.fill(model, start.weights, fresh=("word_head.", "entity_head."))
        except ValueError as error:
            raise ValueError(f"--init {arguments.init} does not fit this data: {error}") from None
        if start.ignored:
            print(f"ignored     {start.ignored}", flush=True)
    optim.select_trainable(model, recipe.train_words)
    return model


def improve_random_weights(model: LukeForPretraining, recipe, word_tokenizer, entity_vocab, shards: Shards) -> None:
    """Applies --frequency-start and --title-start, if the recipe has them; see `initialization.py`."""
    if recipe.frequency_start:
        sample = shards.gather(numpy.arange(min(len(shards), FREQUENCY_SAMPLE)))
        words = numpy.bincount(sample.word_ids, minlength=model.config.vocab_size)
        entities = numpy.bincount(sample.entity_ids, minlength=model.config.entity_vocab_size)
        initialization.start_at_frequencies(model, torch.from_numpy(words), torch.from_numpy(entities))
    if recipe.title_start:
        titles = [entity_vocab.title(i) for i in range(len(entity_vocab))]
        initialization.start_at_titles(model, word_tokenizer.encode_pieces(titles, [True] * len(titles)), recipe.seed)


def print_header(rank, arguments, model, shards: Shards, total_steps: int, precision: str) -> None:
    recipe, shape, n, words = arguments.recipe, model.config, len(shards), int(shards.lengths.sum())
    weights = trainer.short(sum(p.numel() for p in model.parameters()))
    trained = trainer.short(sum(p.numel() for p in model.parameters() if p.requires_grad))
    layers, batch = shape.num_hidden_layers, recipe.global_batch
    epochs = total_steps * batch / n
    print(f"command     {' '.join(sys.argv)}")
    print(f"versions    python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    print(f"device      {trainer.device_text(rank, precision)}; kernels: {ops.backend_for(rank.device, dtype)}")
    print(f"data        {' '.join(map(str, arguments.data))}: {n:,} examples, {trainer.short(words)} tokens")
    print(f"model       {arguments.size}: {weights} weights, {trained} of them trained; {layers} layers of "
          f"{shape.hidden_size}, {shape.vocab_size:,} tokens, {shape.entity_vocab_size:,} entities")  # fmt: skip
    print(f"training    stage {arguments.stage}: {total_steps:,} steps of {batch} examples, {epochs:.3g} epochs")
    print(f"recipe      {'  '.join(recipes.settings(recipe))}")
    print(f"saved       every {arguments.save_every:,} steps, the latest {arguments.keep} are kept", flush=True)


def prepare_out(arguments, rank) -> None:
    """Clears OUT for a fresh start."""
    steps = trainer.agreed_steps(arguments.out)
    if steps and arguments.resume:
        return
    if rank.is_first:
        for folder in steps:
            files.remove_folder(folder)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name in (STATISTICS, HELD_OUT):  # copied beside the model: question answering and linking need them
            (arguments.out / name).unlink(missing_ok=True)
            if (source := arguments.data[0] / name).is_file():
                with open(source, "rb") as old, files.write_file(arguments.out / name, "wb") as new:
                    shutil.copyfileobj(old, new)
    distributed.barrier()


def pretrain(arguments, rank: distributed.Rank) -> None:
    trainer.refuse_used(arguments.out, arguments.resume or arguments.overwrite)
    recipe, first, shape = arguments.recipe, arguments.data[0], base_shape(arguments)
    shape = replace(shape, entity_emb_size=arguments.entity_size or shape.entity_emb_size)
    precision = arguments.precision or trainer.default_precision(rank.device, shape.hidden_size)
    shards = open_folders(arguments.data, shape.longest_input)
    word_tokenizer = tokenizer.load(first / "tokenizer")
    entity_vocab = EntityVocab.load(first / "entity_vocab.jsonl")
    total_steps = recipe.steps or batching.steps_for(len(shards), recipe.global_batch, recipe.epochs)
    model = build_model(arguments, shape, word_tokenizer, entity_vocab, shards).to(rank.device)
    prepare_out(arguments, rank)
    if rank.is_first:
        print_header(rank, arguments, model, shards, total_steps, precision)
    info = {  # all that the run depends on; compared when it is resumed
        "stage": arguments.stage, "size": arguments.size, "precision": precision, "recipe": config.as_dict(recipe),
        "data": {str(i): part_hashes(folder) for i, folder in enumerate(arguments.data, start=1)},
        "model": config.as_dict(model.config), "examples": len(shards), "words": int(shards.lengths.sum()),
    }  # fmt: skip
    settings = {"luke_mini": {"stage": arguments.stage}}

    def add_markers(step: int) -> None:  # the last step is what downstream tasks start from
        if step == total_steps:
            initialization.copy_marker_rows(model.state_dict(), word_tokenizer, entity_vocab)

    saving = trainer.Saving(
        arguments.out, arguments.out / "metrics.jsonl", info,
        lambda folder: checkpoint.write(folder, model, word_tokenizer, entity_vocab, settings),
        lambda folder: checkpoint.fill(model, checkpoint.read(folder).weights),
        arguments.resume, kept=arguments.keep, every_steps=arguments.save_every,
    )  # fmt: skip
    trainer.fit(
        model,
        lambda start: batching.training_steps(shards, word_tokenizer, entity_vocab, recipe, rank, start, total_steps),
        recipe=recipe, rank=rank, precision=precision, total_steps=total_steps, warmup_steps=recipe.warmup_steps,
        saving=saving, log_every=arguments.log_every, title="pretrain", validate=add_markers,
    )  # fmt: skip
    if rank.is_first:
        print(f"model in    {trainer.saved_steps(arguments.out)[-1]}")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    with distributed.process() as rank, distributed.one_writer(arguments.out, rank):
        pretrain(arguments, rank)


if __name__ == "__main__":
    files.run(main, "train.py", "--resume goes on from the last saved step, if there is one")

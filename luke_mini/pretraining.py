"""Pretraining: what `train.py` runs. Builds the model, trains it, validates it, and keeps a page about the run.

In: data folders of prepare_wiki.py, a recipe. Out: saved steps, metrics.jsonl and report.html in OUT; or, for
--dry-run, what all of that will cost.

Validation reads the texts of pages that prepare_wiki.py held out (held_out_links.jsonl), masked in the same way every
time, before each save. All processes compute all of it, because parts of a model can be on any of them.
"""

import json
import math
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from luke_mini import batching, checkpoint, config, cost, distributed, examples, files, initialization, masking, ops
from luke_mini import optim, progress, recipes, report, saves, tokenizer, trainer
from luke_mini.batching import BatchRules, PretrainBatch
from luke_mini.entity_vocab import EntityVocab
from luke_mini.mentions import HELD_OUT, STATISTICS
from luke_mini.model import LukeForPretraining
from luke_mini.wikitext import Link, Paragraph

FREQUENCY_SAMPLE = 20_000  # examples in which words and entities are counted for --frequency-start
HELD_OUT_EXAMPLES = 128  # that validation reads, about a percent of a short run's time
SHOWN, GUESSES, AROUND = 12, 5, 16  # masked mentions on the page, guesses for each, tokens on both sides
USUAL_SHARE = 0.5  # of the product rate, to foretell a time


# --- The model --------------------------------------------------------------------------------------------------------


def base_shape(arguments) -> config.ModelConfig:
    """The shape of the recipe, or that of --init; a word model's entities have the size usual beside its words."""
    recipe = recipes.PRETRAINING[arguments.recipe]
    shape = init_shape(arguments.init, recipe) if arguments.init else config.SIZES[recipe.size]
    has_entities = arguments.init and not initialization.is_word_model(arguments.init)
    size = arguments.entity_size or (None if has_entities else recipe.entity_size)
    return replace(shape, entity_emb_size=size) if size else shape


def init_shape(folder: Path, recipe: recipes.Pretraining) -> config.ModelConfig:
    """ValueError if it is that of another model of the same paper: some numbers of the recipe would be that one's."""
    checkpoint.check_exists(folder)
    if initialization.is_word_model(folder):
        words = initialization.word_model_shape(folder)
        usual = min(config.SIZES.values(), key=lambda known: abs(known.hidden_size - words["hidden_size"]))
        found = replace(usual, **words)
    else:
        settings = checkpoint.read_settings(checkpoint.find_folder(folder) / "config.json")
        found = checkpoint.model_config(settings)
    layers, hidden = found.num_hidden_layers, found.hidden_size
    for name, other in recipes.PRETRAINING.items():
        shape = config.SIZES[other.size]
        same = other.source == recipe.source and (shape.num_hidden_layers, shape.hidden_size) == (layers, hidden)
        if same and other.size != recipe.size:
            raise ValueError(f"--init {folder} has {layers} layers of {hidden}: expected --recipe {name}")
    return found


def adapt_shape(shape: config.ModelConfig, training: config.PretrainConfig, words, entities) -> config.ModelConfig:
    """The shape for a tokenizer, an entity vocabulary and a recipe."""
    return replace(
        shape, vocab_size=len(words), entity_vocab_size=len(entities), hidden_dropout_prob=training.dropout,
        attention_probs_dropout_prob=training.dropout, use_entity_aware_attention=training.entity_aware,
        cls_entity_prediction=training.predict_page, pad_token_id=words.pad_id, bos_token_id=words.bos_id,
        eos_token_id=words.eos_id,
    )  # fmt: skip


def build_model(arguments, shape, word_tokenizer, entity_vocab, shards: examples.Shards) -> LukeForPretraining:
    """The model with its initial weights; only the parameters that the stage trains require gradients."""
    training, heads = arguments.training, ("word_head.", "entity_head.", "page_head.")
    model = LukeForPretraining(shape)
    initialization.initialize(model, shape, training.seed)
    if arguments.init is None:
        improve_random_weights(model, training, word_tokenizer, entity_vocab, shards)
    elif initialization.is_word_model(arguments.init):
        weights = initialization.read_word_model(arguments.init, shape, word_tokenizer)
        checkpoint.fill(model, weights, fresh=(*heads, "luke.entities.", "luke.pooler."))
        # differs from LUKE, whose entity position embeddings start at random, N(0, 0.02). Copies cost nothing, and let
        # a mention find its words from the first step on.
        initialization.copy_word_positions(model.luke)
    else:
        start = checkpoint.read(arguments.init, entity_aware=training.entity_aware)
        try:
            checkpoint.fill(model, start.weights, fresh=heads)
        except ValueError as error:
            raise ValueError(f"--init {arguments.init} does not fit this data: {error}") from None
        if start.ignored:
            print(f"ignored     {start.ignored}", flush=True)
    optim.select_trainable(model, training)
    return model


def improve_random_weights(model: LukeForPretraining, training, word_tokenizer, entity_vocab, shards) -> None:
    """Applies --frequency-start and --title-start, if the recipe has them; see `initialization.py`."""
    if training.frequency_start:
        sample = shards.gather(np.arange(min(len(shards), FREQUENCY_SAMPLE)))
        words = np.bincount(sample.word_ids, minlength=model.config.vocab_size)
        entities = np.bincount(sample.entity_ids, minlength=model.config.entity_vocab_size)
        initialization.start_at_frequencies(model, torch.from_numpy(words), torch.from_numpy(entities))
    if training.title_start:
        titles = [entity_vocab.title(i) for i in range(len(entity_vocab))]
        initialization.start_at_titles(model, word_tokenizer.encode_pieces(titles, [True] * len(titles)), training.seed)


# --- Validation -------------------------------------------------------------------------------------------------------


class Guess(NamedTuple):
    """A masked mention that the model was asked about."""

    before: str  # what the model sees, its masks as ▢
    mention: str
    after: str
    title: str  # the right one
    guesses: list[tuple[str, float]]  # titles and probabilities, the best first


def held_out_examples(folder: Path, words, vocab: EntityVocab, most: int) -> examples.Examples:
    """From pages spread over those that prepare_wiki.py held out, if it did."""
    path, manifest = folder / HELD_OUT, files.read_object(folder / examples.MANIFEST)
    records = files.read_json_lines(path) if path.is_file() else ()
    pages = [list(found) for _, found in groupby(records, key=lambda record: record.get("id", str))]
    table = vocab.link_table({}, manifest.get("language"))
    unknown = vocab.unk_id if manifest.get("links_to_unk", 1) else None
    spread = [
        (page[0].get("id", str), [Paragraph(record.get("text", str), links_of(record), False) for record in page])
        for page in pages[:: max(1, math.ceil(len(pages) / most))]
    ]
    made, _ = examples.build_examples(
        spread, words, table, unk_entity_id=unknown, language=manifest.get("language", "en"),
        max_seq_length=manifest["max_seq_length"],
    )  # fmt: skip
    return examples.select(made, np.arange(len(made.page_ids)) < most)


def links_of(record: files.Record) -> list[Link]:
    text = record.get("text", str)
    return [Link(span.get("title", str), *span.span(text)) for span in record.list("spans")]


def hold_out(folders: list[Path], words, vocab: EntityVocab, rules: BatchRules, size: int) -> list[PretrainBatch]:
    """The masked batches, of `size` examples each, that validation reads; [] if no page was held out."""
    share = math.ceil(HELD_OUT_EXAMPLES / len(folders))
    found = [held_out_examples(folder, words, vocab, share) for folder in folders]
    found = examples.Examples(*(np.concatenate(arrays).astype(np.int64) for arrays in zip(*found)))
    number, batches = np.arange(len(found.page_ids)), []
    for start in range(0, len(number), size):
        flat = examples.select(found, number // size == start // size)
        keys = masking.derive(rules.seed, batching.MASKS, 0, start + np.arange(len(flat.word_lengths)))
        batches.append(batching.make_batch(flat, keys, rules))
    return batches


class Validation:
    """What the model makes of the held-out batches, now."""

    def __init__(self, model: LukeForPretraining, batches: list[PretrainBatch], words, vocab: EntityVocab):
        self.model, self.batches, self.words, self.vocab = model, batches, words, vocab
        self.guesses: list[Guess] = []  # of the latest validation

    def measure(self, whole: bool) -> dict[str, float]:
        """Losses and accuracies. whole: also those of a constant guess, and of the model without entities as inputs."""
        found = {f"held_out_{name}": value for name, value in self.scores(self.batches).items()}
        self.guesses = []
        for batch in self.batches:
            if missing := SHOWN - len(self.guesses):
                self.guesses += self.guess(batch, first_of_each(batch)[:missing])
        if whole and found:
            labels = Counter(label for batch in self.batches for label in batch.masked_entity_labels.tolist())
            hidden = [without_entities(batch, self.vocab.mask_id) for batch in self.batches]
            found["held_out_entity_accuracy_of_a_constant"] = max(labels.values(), default=0) / max(1, labels.total())
            for name, value in self.scores(hidden).items():
                found[f"held_out_{name}_from_words_alone"] = value
        return found

    def scores(self, batches: list[PretrainBatch]) -> dict[str, float]:
        sums, counts, device = Counter(), Counter(), next(self.model.parameters()).device
        with trainer.predicting(self.model):
            for batch in batches:
                counts.update(batch.counts)
                for name, (loss, hits) in self.model(batch.to(device)).items():
                    sums.update({f"{name}_loss": loss.item(), f"{name}_accuracy": hits.item()})
        return {name: value / counts[name.split("_")[0]] for name, value in sums.items()
                if counts[name.split("_")[0]] and name.removesuffix("_accuracy") not in progress.DISTANCES}  # fmt: skip

    def guess(self, batch: PretrainBatch, rows: list[int]) -> list[Guess]:
        """The best guesses for some masked mentions of a batch."""
        device = next(self.model.parameters()).device
        with trainer.predicting(self.model), distributed.together(self.model):
            states = self.model.luke(batch.packed.to(device))[batch.packed.n_words + batch.masked_entity_rows[rows]]
            scores = self.model.entity_head(states, self.model.luke.entities.entity.weight).float().softmax(1)
        best, titles = scores.topk(min(GUESSES, scores.shape[1])), self.vocab.title
        return [self._shown(batch, row, [(titles(i), p) for i, p in zip(ids.tolist(), shares.tolist())])
                for row, shares, ids in zip(rows, best.values.cpu(), best.indices.cpu())]  # fmt: skip

    def _shown(self, batch: PretrainBatch, row: int, guesses: list[tuple[str, float]]) -> Guess:
        packed, entity = batch.packed, int(batch.masked_entity_rows[row])
        sequence = int(np.searchsorted(np.cumsum(packed.entity_lengths), entity, side="right"))
        begin = sum(packed.word_lengths[:sequence])
        ids = packed.word_ids[begin + 1 : begin + packed.word_lengths[sequence] - 1].tolist()
        places = packed.mention_positions[packed.mention_offsets[entity] : packed.mention_offsets[entity + 1]] - 1
        start, end = int(places[0]), int(places[-1]) + 1
        parts = ids[max(0, start - AROUND) : start], ids[start:end], ids[end : end + AROUND]
        mask = self.words.pieces([self.words.mask_id])[0]
        before, mention, after = (self.words.decode(part).replace(mask, " ▢") for part in parts)
        return Guess(before, mention, after, self.vocab.title(int(batch.masked_entity_labels[row])), guesses)


def without_entities(batch: PretrainBatch, mask_id: int) -> PretrainBatch:
    """The same predictions, but all entities of the input are [MASK]."""
    return replace(batch, packed=replace(batch.packed, entity_ids=torch.full_like(batch.packed.entity_ids, mask_id)))


def first_of_each(batch: PretrainBatch) -> list[int]:
    """Indices of masked entities, the first of each sequence that has one."""
    sequence = np.repeat(np.arange(len(batch.packed.entity_lengths)), batch.packed.entity_lengths)
    _, first = np.unique(sequence[batch.masked_entity_rows.numpy()], return_index=True)
    return first.tolist()


# --- The page ---------------------------------------------------------------------------------------------------------


def write_report(out: Path, facts: dict[str, str], guesses: Iterable[Guess]) -> None:
    """OUT/report.html, from metrics.jsonl and the latest guesses."""
    path = out / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    last = lines[-1] if lines else {}
    now = {name.replace("_", " "): f"{value:.4g}" for name, value in last.items() if isinstance(value, (int, float))
           and not name.startswith("held_out_")}  # fmt: skip
    shown = [guess_html(guess) for guess in guesses]
    parts = [report.grid(curves(lines)), *held_out_table(lines), "<h2>The latest numbers</h2>", report.table(now)]
    parts += ["<h2>Masked mentions of held-out pages, and the best guesses</h2>", report.grid(shown)] if shown else []
    report.write(out / "report.html", f"Pretraining, {out}", [*parts, "<h2>The run</h2>", report.table(facts)])


def held_out_table(lines: list[dict]) -> Iterator[str]:
    """What the latest validation found, in words."""
    found = next((line for line in reversed(lines) if "held_out_word_accuracy" in line), {})
    endings = {"": "found", "_from_words_alone": "found with all entities of the input masked",
               "_of_a_constant": "found by always guessing the most frequent one"}  # fmt: skip
    rows = {f"masked {label} {words}": f"{100 * found[name]:.1f} %"
            for term, label in (("word", "words"), ("entity", "entities")) for ending, words in endings.items()
            if found.get(name := f"held_out_{term}_accuracy{ending}") is not None}  # fmt: skip
    if rows:
        yield f"<h2>On pages that were held out, after step {found['step']:,}</h2>{report.table(rows)}"


def curves(lines: list[dict]) -> Iterator[str]:
    def points(name: str, scale: float = 1.0) -> list[tuple[float, float]]:
        return [(line["step"], scale * line[name]) for line in lines if line.get(name) is not None]

    for kind, scale, title in (("loss", 1.0, "Loss"), ("accuracy", 100.0, "Masked ones found, per cent")):
        names = [(f"{prefix}{term}_{kind}", f"{label}{where}")
                 for term, label in (("word", "words"), ("entity", "entities"))
                 for prefix, where in (("", ""), ("held_out_", ", held out"))]  # fmt: skip
        yield report.chart(title, {label: points(name, scale) for name, label in names}, from_zero=kind == "accuracy")
    spikes = [(step, norm) for line in lines for step, norm in line.get("spikes", ())]
    yield report.chart("Norm of the gradient; dots: spikes", {"mean": points("gradient_norm")}, spikes, from_zero=True)
    yield report.chart("Learning rate", {"rate": points("learning_rate")}, from_zero=True)
    yield report.chart("A second", {"tokens": points("tokens_per_second")}, from_zero=True)
    shares = {"of the product rate": "share_of_peak", "of the time waiting for batches": "loader_share"}
    yield report.chart("Shares, per cent", {label: points(name, 100) for label, name in shares.items()}, from_zero=True)


def guess_html(guess: Guess) -> str:
    text = report.text
    marked = f"{text(guess.before)} <mark>{text(guess.mention)}</mark> {text(guess.after)}"
    rows = report.bars(guess.guesses, "{:.1%}", whole=1, right=guess.title)
    return f'<article><p dir="auto">{marked}</p><p class="soft">right: {text(guess.title)}</p>{rows}</article>'


# --- The run ----------------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """A run before it begins."""

    shape: config.ModelConfig
    precision: str
    shards: examples.Shards
    words: object  # the tokenizer
    entities: EntityVocab
    total_steps: int


def make_plan(arguments, device: torch.device) -> Plan:
    training, first, shape = arguments.training, arguments.data[0], base_shape(arguments)
    precision = arguments.precision or trainer.default_precision(device, shape.hidden_size)
    shards = examples.open_folders(arguments.data, shape.longest_input)
    words, entities = tokenizer.load(first / "tokenizer"), EntityVocab.load(first / "entity_vocab.jsonl")
    total_steps = training.steps or batching.steps_for(len(shards), training.global_batch, training.epochs)
    return Plan(adapt_shape(shape, training, words, entities), precision, shards, words, entities, total_steps)


def header(rank, arguments, model, plan: Plan) -> dict[str, str]:
    """What a run is: names and values, for its log and its page."""
    training, shape, n = arguments.training, model.config, len(plan.shards)
    recipe, stage = recipes.PRETRAINING[arguments.recipe], arguments.stage or 1
    weights = report.number(sum(p.numel() for p in model.parameters()))
    trained = report.number(sum(p.numel() for p in model.parameters() if p.requires_grad))
    dtype = torch.bfloat16 if plan.precision == "bf16" else torch.float32
    epochs, published = plan.total_steps * training.global_batch / n, recipe.steps[stage - 1]
    data = f"; data: prepare_wiki.py --tokenizer {recipe.words} {recipe.data}".rstrip() if recipe.words else ""
    of = f"stage {stage} of {len(recipe.stages)}" if len(recipe.stages) > 1 else "one stage"
    found = {
        "command": " ".join(sys.argv),
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
        "device": f"{trainer.device_text(rank, plan.precision)}; kernels: {ops.backend_for(rank.device, dtype)}",
        "data": f"{' '.join(map(str, arguments.data))}: {n:,} examples, "
                f"{report.number(int(plan.shards.lengths.sum()))} tokens",
        "model": f"{weights} weights, {trained} of them trained; {shape.num_hidden_layers} layers of "
                 f"{shape.hidden_size}, {shape.vocab_size:,} tokens, {shape.entity_vocab_size:,} entities",
        "training": f"{plan.total_steps:,} steps of {training.global_batch} examples, {epochs:.3g} epochs"
                    + f" (published: {published:,} steps)" * (published > 0),
        "recipe": f"{arguments.recipe} ({recipe.source}), {of}{data}\n" + "\n".join(
            f"{source}: {'  '.join(numbers)}" for source, numbers in recipes.by_source(recipe, stage, training).items()
        ),
        "saved": f"every {arguments.save_every:,} steps, the latest {arguments.keep} are kept"
                 f"{', and every epoch' * arguments.keep_epochs}",
    }  # fmt: skip
    return found


def foretell(arguments) -> None:
    """--dry-run: what the run will take, as far as that is known before it. Writes nothing."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan, training, rank = make_plan(arguments, device), arguments.training, distributed.Rank(0, 1, device)
    with torch.device("meta"):
        model = LukeForPretraining(plan.shape)
    optim.select_trainable(model, training)
    files.show(header(rank, arguments, model, plan))
    n_lanes = trainer.lanes(model, rank) if can_be_side_by_side(arguments) else 1
    (step,) = batching.training_steps(plan.shards, plan.words, plan.entities, training, rank, 0, 1, n_lanes)
    rows = sum(sorted(part.n_tokens for part in step)[-n_lanes:])
    # Python's own, too:
    bytes_needed = progress.peak_memory(device) + cost.memory(model, rows, arguments.recompute, n_lanes)
    tokens, flop = sum(part.n_tokens for part in step), sum(cost.step_flops(model, part) for part in step)
    peak = cost.peak_rate(device, plan.precision)
    seconds = plan.total_steps * flop / (USUAL_SHARE * peak)
    price = f", for {seconds / 3600 * arguments.price:,.2f}" * (arguments.price > 0)
    files.show({
        "tokens": f"{report.number(plan.total_steps * tokens)}, {tokens:,} in the first step",
        "work": f"{plan.total_steps * flop:.3g} floating-point operations; this machine does {peak:.3g} a second",
        "memory": f"about {bytes_needed / 1e9:.2g} GB in each process",
        "time": f"about {files.duration(seconds)}{price} on this machine, if a run reaches half of that rate; "
                f"a run says after {progress.CALM} steps how long it takes",
    })  # fmt: skip


def can_be_side_by_side(arguments) -> bool:
    """Micro-batches, see `trainer.lanes`: layers computed again, or compiled, use torch's own random numbers."""
    return not (arguments.recompute or arguments.compile)


def prepare_out(arguments, rank) -> None:
    """Clears OUT for a fresh start."""
    steps = saves.agreed_steps(arguments.out)
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
    saves.refuse_used(arguments.out, arguments.resume or arguments.overwrite)
    plan, training = make_plan(arguments, rank.device), arguments.training
    words, entities, total_steps = plan.words, plan.entities, plan.total_steps
    model = build_model(arguments, plan.shape, words, entities, plan.shards).to(rank.device)
    for layer in model.luke.layers:
        layer.recompute = arguments.recompute
        if arguments.compile:  # one program for all layers, and any number of rows
            layer.compute = torch.compile(layer.compute, dynamic=True)
    prepare_out(arguments, rank)
    facts = header(rank, arguments, model, plan)
    files.show(facts)
    rules = batching.batch_rules(words, entities, training)
    held_out = hold_out(arguments.data, words, entities, rules, training.micro_batch)
    validation = Validation(model, held_out, words, entities)
    epoch_ends = range(1, int(total_steps * training.global_batch / len(plan.shards)) + 1)
    milestones = {batching.steps_for(len(plan.shards), training.global_batch, epoch) for epoch in epoch_ends}
    info = {  # all that the run depends on; compared when it is resumed
        "stage": arguments.stage, "precision": plan.precision, "recipe": config.as_dict(training),
        "data": {str(i): examples.part_hashes(folder) for i, folder in enumerate(arguments.data, start=1)},
        "model": config.as_dict(model.config), "examples": len(plan.shards), "words": int(plan.shards.lengths.sum()),
    }  # fmt: skip
    settings = {"luke_mini": {"recipe": arguments.recipe, "stage": arguments.stage}}

    def write_model(folder: Path, weights: dict[str, torch.Tensor], step: int) -> None:
        if step == total_steps:  # what downstream tasks start from
            initialization.copy_marker_rows(weights, words, entities)
        checkpoint.write(folder, model, words, entities, settings, weights)

    saving = saves.Saving(
        arguments.out, arguments.out / "metrics.jsonl", info, write_model,
        lambda folder: checkpoint.fill(model, checkpoint.read(folder).weights),
        arguments.resume, kept=arguments.keep, every_steps=arguments.save_every,
        milestones=frozenset(milestones if arguments.keep_epochs else ()),
        report=lambda: write_report(arguments.out, facts, validation.guesses),
    )  # fmt: skip

    def measure(step: int) -> dict[str, float]:
        return validation.measure(step == total_steps) if saving.is_due(step, total_steps, math.inf) else {}

    def micro_batches(start: int, lanes: int) -> Iterator[list[PretrainBatch]]:
        return batching.training_steps(plan.shards, words, entities, training, rank, start, total_steps, lanes)

    trainer.fit(
        model, micro_batches, recipe=training, rank=rank, precision=plan.precision, total_steps=total_steps,
        warmup_steps=training.warmup_steps, saving=saving, log_every=arguments.log_every, title="pretrain",
        measure=measure, work=lambda batch: cost.step_flops(model, batch),
        peak=cost.peak_rate(rank.device, plan.precision) * rank.world_size, sharded=arguments.shard,
        side_by_side=can_be_side_by_side(arguments), price=arguments.price,
    )  # fmt: skip
    if rank.is_first:
        print(f"model in    {saves.saved_steps(arguments.out)[-1]}; how it went: {arguments.out / 'report.html'}")

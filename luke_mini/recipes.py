"""The recipes: how the published models were pretrained, stage by stage, and fine-tuned, data set by data set.

Pretraining: `PRETRAINING` by name, for `train.py --recipe NAME`. A `Pretraining` has one or two stages, each a
`PretrainConfig`. The run prints every number with its source.

Fine-tuning: `RECIPES` by name, for `finetune.py TASK --recipe NAME`. A `Recipe` has the numbers of the optimizer, and
the options of the task (reader, head, decoding) that belong to them. Without the flag, the task's module chooses one by
the run's files (`recipe_name`). The first recipe of a task is the default for anybody's own data. `for_encoder` adapts
it to encoders smaller than base size. The run prints what it takes, and each number is a flag.

Sources: LUKE, Yamada et al. 2020 (arXiv 2010.01057), appendix A and the authors' notes; mLUKE, Ri et al. 2022 (arXiv
2110.08151) and the configurations published with it; Global ED, Yamada et al. 2022 (arXiv 1909.00426), recipe for AIDA;
JGLUE's fine-tuning notes (yahoojapan/JGLUE), whose unnamed settings are the defaults of Hugging Face's trainer.
All of them are for encoders of base and large size. What smaller ones take was measured here: see `SCRATCH`, `SMALLER`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import NamedTuple

from luke_mini.config import SIZES, FinetuneConfig, ModelConfig, PretrainConfig, as_flag
from luke_mini.tasks import Task

# --- Pretraining ------------------------------------------------------------------------------------------------------

# Sources of a number, in the papers and in the repository studio-ousia/luke:
CONFIGURATION = "configuration"  # pretraining_config/*_stage*.json; examples/entity_disambiguation/deepspeed_config/*
SCRIPT = "script"  # luke/pretraining/train.py, its defaults, and how pretraining.md and the notes of Global ED call it
PAPER = "paper"  # LUKE, section 3 (attention), appendix A (dropout)
OURS, GIVEN = "ours", "command line"

STAGES = ("luke 1", "luke 2", "mluke 1", "mluke-base 2", "mluke-large 2", "global-ed 1", "global-ed 2")
# Where paper and configuration differ, as in beta2 (paper: 0.98), we take the configuration: it made the models that
# one can download. Without bias correction 0.999 makes early steps up to 6.6 times torch's; warm-up damps this.
# Steps are those of the published data; a run on other data computes its own from the epochs. Norm 0 does not clip.
PUBLISHED = {
    #                            LUKE            mLUKE                      Global ED       source
    # stage                      1       2       1       2 base   2 large   1       2
    "steps":                     (98168,  98168,  540326, 540326,  540326,   4866,   29196,  CONFIGURATION),
    "epochs":                    (20.0,   20.0,   20.0,   20.0,    20.0,     1.0,    6.0,    SCRIPT),
    "global_batch":              (2048,   2048,   2048,   2048,    2048,     2048,   2048,   CONFIGURATION),
    "learning_rate":             (5e-4,   1e-5,   5e-4,   1e-4,    5e-5,     5e-4,   5e-5,   CONFIGURATION),
    "warmup_steps":              (2500,   2500,   2500,   2500,    2500,     1000,   1000,   CONFIGURATION),
    "weight_decay":              (0.01,   0.01,   0.01,   0.01,    0.01,     0.01,   0.01,   CONFIGURATION),
    "beta1":                     (0.9,    0.9,    0.9,    0.9,     0.9,      0.9,    0.9,    CONFIGURATION),
    "beta2":                     (0.999,  0.999,  0.999,  0.999,   0.999,    0.999,  0.999,  CONFIGURATION),
    "eps":                       (1e-6,   1e-6,   1e-6,   1e-6,    1e-6,     1e-6,   1e-6,   CONFIGURATION),
    "max_grad_norm":             (0.0,    0.0,    0.0,    0.0,     0.0,      1.0,    1.0,    CONFIGURATION),  # 1e4
    "dropout":                   (0.1,    0.1,    0.1,    0.1,     0.1,      0.1,    0.1,    PAPER),
    "masked_word_prob":          (0.15,   0.15,   0.15,   0.15,    0.15,     0.0,    0.0,    SCRIPT),
    "random_word_prob":          (0.1,    0.1,    0.1,    0.1,     0.1,      0.1,    0.1,    SCRIPT),
    "unmasked_word_prob":        (0.1,    0.1,    0.1,    0.1,     0.1,      0.1,    0.1,    SCRIPT),
    "masked_entity_prob":        (0.15,   0.15,   0.15,   0.15,    0.15,     0.3,    0.3,    SCRIPT),
    "random_entity_prob":        (0.0,    0.0,    0.0,    0.0,     0.0,      0.0,    0.0,    SCRIPT),
    "unmasked_entity_prob":      (0.0,    0.0,    0.0,    0.0,     0.0,      0.0,    0.0,    SCRIPT),
    "whole_word_masking":        (True,   True,   False,  False,   False,    True,   True,   SCRIPT),
    "mask_words_in_entity_span": (False,  False,  False,  False,   False,    False,  False,  SCRIPT),
    "train_words":               (False,  True,   False,  True,    True,     False,  True,   SCRIPT),
    "words_only":                (False,  False,  False,  False,   False,    False,  False,  SCRIPT),
    "freeze_entities":           (False,  False,  False,  False,   False,    False,  False,  SCRIPT),
    "entity_bias":               (True,   True,   True,   True,    True,     True,   True,   SCRIPT),
    "predict_page":              (False,  False,  False,  False,   False,    False,  False,  SCRIPT),
    "sampling_exponent":         (0.7,    0.7,    0.7,    0.7,     0.7,      0.7,    0.7,    SCRIPT),
    "entity_aware":              (False,  False,  False,  False,   False,    False,  False,  PAPER),
}  # fmt: skip
# From random weights, in one stage: LUKE's second one but for these numbers of ours. Larger models need a lower rate.
SCRATCH = {
    "tiny": {
        "epochs": 4.5, "global_batch": 16, "micro_batch": 16, "learning_rate": 2e-3, "warmup_steps": 100,
        "beta2": 0.98, "max_grad_norm": 1.0,
        "masked_word_prob": 0.3, "masked_entity_prob": 0.7,  # few steps fit into a few minutes: more predictions a step
        "whole_word_masking": False,  # easier: the other tokens of a word help to predict the masked one
        "dropout": 0.0,  # the model underfits: dropout would only slow it
        "title_start": True, "entity_aware": True,
    },
    "base": {"learning_rate": 4e-4, "warmup_steps": 10000, "beta2": 0.98},
    "large": {"learning_rate": 2e-4, "warmup_steps": 20000, "beta2": 0.98},
}  # fmt: skip
SCRATCH["mini"] = SCRATCH["tiny"] | {"learning_rate": 1e-3}


class Pretraining(NamedTuple):
    """How a model is pretrained."""

    size: str  # one of `config.SIZES`, unless --init is of another shape
    source: str
    stages: tuple[PretrainConfig, ...]
    words: str = ""  # the word model to begin with, whose tokenizer the data must have; "": random weights
    data: str = ""  # options of prepare_wiki.py for this model
    entity_size: int | None = None  # of the entity embeddings, where it is not that of the size
    steps: tuple[int, ...] = (0, 0)  # as published, stage by stage


def published(stage: str) -> PretrainConfig:
    """A column of the table. Its steps are for the published data: here they follow from the epochs."""
    column = STAGES.index(stage)
    return PretrainConfig(**{name: row[column] for name, row in PUBLISHED.items()} | {"steps": 0})


def two_stages(size: str, source: str, one: str, two: str, **more) -> Pretraining:
    steps = tuple(PUBLISHED["steps"][STAGES.index(stage)] for stage in (one, two))
    return Pretraining(size, source, (published(one), published(two)), steps=steps, **more)


PRETRAINING = {
    **{f"luke-{size}": two_stages(size, "LUKE", "luke 1", "luke 2", words=f"roberta-{size}")
       for size in ("base", "large")},
    **{f"mluke-{size}": two_stages(size, "mLUKE", "mluke 1", f"mluke-{size} 2", words=f"xlm-roberta-{size}",
                                   data="--wikidata FILE --drop-unknown-links")
       for size in ("base", "large")},
    "global-ed": two_stages("base", "Global ED", "global-ed 1", "global-ed 2", words="bert-base-uncased",
                            data="--entities FILE --entities-only", entity_size=768),
    **{f"scratch-{size}": Pretraining(size, "from random weights", (replace(published("luke 2"), **SCRATCH[size]),))
       for size in SIZES},
}  # fmt: skip


def by_source(recipe: Pretraining, stage: int, training: PretrainConfig) -> dict[str, list[str]]:
    """Source -> the numbers of a run that come from it, as on the command line.

    training: the recipe's stage, changed by the command line.
    """
    planned, found = recipe.stages[stage - 1], {}
    known = planned if recipe.words else published("luke 2")
    for item in fields(training):
        value, source = getattr(training, item.name), OURS
        if value != getattr(planned, item.name):
            source = GIVEN
        elif item.name in PUBLISHED and value == getattr(known, item.name):
            source = PUBLISHED[item.name][-1]
        if item.name != "steps" or value:
            found.setdefault(source, []).append(as_flag(item.name, value))
    return found


# --- Fine-tuning ------------------------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """How a model is fine-tuned on a data set."""

    task: str
    data: str  # what it is for
    source: str
    training: FinetuneConfig
    options: Mapping[str, object] = {}  # of the task, where they differ from the defaults of its Options
    entity_aware: bool = True  # a checkpoint without w2e, e2w and e2e gets them; False: attention stays as it is


LUKE = FinetuneConfig()
# torch's AdamW. differs from mLUKE: no early stopping (its patience of 3 epochs); the best of them is kept anyway.
MLUKE = replace(LUKE, beta2=0.999, eps=1e-8, max_grad_norm=5.0, bias_correction=True, select="score", seed=0)
# Of the learning rates and epochs that JGLUE tried, the middle one and the larger.
JGLUE = replace(
    LUKE, epochs=4.0, batch=32, micro_batch=8, learning_rate=3e-5, warmup_ratio=0.1, weight_decay=0.0, beta2=0.999,
    eps=1e-8, max_grad_norm=1.0, bias_correction=True, select="score", seed=42,
)  # fmt: skip
RECIPES = {
    "conll2003": Recipe("ner", "CoNLL-2003, English", "LUKE", LUKE),
    "conll-multilingual": Recipe(
        "ner", "CoNLL-2002 and 2003 in four languages", "mLUKE", MLUKE, {"space_before_all": True},
        entity_aware=False,
    ),
    "tacred": Recipe("relation", "TACRED", "LUKE", replace(LUKE, batch=32, micro_batch=4, select="score", seed=42)),
    "kbp37": Recipe(
        "relation", "KBP37 and RELX", "mLUKE", replace(MLUKE, batch=32, micro_batch=4, max_grad_norm=0.0),
        {"classifier_bias": True, "max_mention": 512}, entity_aware=False,
    ),
    "open-entity": Recipe("typing", "Open Entity", "LUKE", replace(LUKE, epochs=3.0, batch=4, select="score", seed=12)),
    "squad": Recipe(
        "qa", "SQuAD 1.1", "LUKE", replace(LUKE, epochs=2.0, batch=48, learning_rate=1.5e-5, seed=14)
    ),
    "xquad": Recipe(
        "qa", "SQuAD 1.1 for XQuAD and MLQA", "mLUKE",
        replace(MLUKE, epochs=2.0, batch=32, learning_rate=2e-5, select="loss"),
        {"max_seq_length": 384, "overlap": 128, "ignore_case": False}, entity_aware=False,
    ),
    "jsquad": Recipe("qa", "JSQuAD", "JGLUE", JGLUE, {"max_seq_length": 384}),
    "record": Recipe(
        "cloze", "ReCoRD", "LUKE", replace(LUKE, epochs=2.0, batch=32, micro_batch=4, select="score", seed=4)
    ),
    "aida": Recipe(  # the seed is ours: none is published
        "disambiguation", "AIDA-CoNLL", "Global ED",
        replace(LUKE, epochs=2.0, batch=16, micro_batch=4, learning_rate=2e-5, warmup_ratio=0.1, beta2=0.999,
                max_grad_norm=1.0, seed=0),
        entity_aware=False,
    ),
    "marc-ja": Recipe("classification", "MARC-ja, one text", "JGLUE", JGLUE),
    "jnli": Recipe("classification", "JNLI, two texts", "JGLUE", JGLUE, {"max_seq_length": 128}),
    "jsts": Recipe("classification", "JSTS, numbers", "JGLUE", JGLUE, {"max_seq_length": 128}),
    "jcommonsenseqa": Recipe(
        "classification", "JCommonsenseQA, choices", "JGLUE", replace(JGLUE, batch=64, micro_batch=4),
        {"max_seq_length": 64},
    ),
}  # fmt: skip


class Smaller(NamedTuple):
    """What encoders below base size change in every recipe: larger steps, and more of them."""

    up_to: int  # hidden size
    what: str
    training: Mapping[str, Mapping[str, object]]  # task, or "" for all others -> settings
    options: Mapping[str, Mapping[str, object]]  # task -> options


# Measured on the built-in encyclopedia (tiny, 2 million weights) and on CoNLL-2003 (MiniLM, 22 million).
SMALLER = (
    Smaller(
        256, "tiny and mini",
        {
            "": {"epochs": 8.0, "learning_rate": 1e-3, "warmup_ratio": 0.1},
            "ner": {"epochs": 16.0, "min_steps": 300, "learning_rate": 5e-4, "warmup_ratio": 0.1},
            "disambiguation": {"epochs": 8.0, "learning_rate": 1e-4, "warmup_ratio": 0.1},  # keeps what the head knows
        },
        {"ner": {"max_seq_length": 64}},  # of context more costs time alone: F1 60.0 with 64 tokens, 59.5 with 128
    ),
    Smaller(
        512, "MiniLM and its like",
        {
            "": {"epochs": 2.0, "learning_rate": 3e-4, "warmup_ratio": 0.1},
            "ner": {"epochs": 2.0, "min_steps": 300, "batch": 16, "learning_rate": 3e-4, "warmup_ratio": 0.1},
        },
        {"ner": {"max_seq_length": 64, "max_mention": 8}},
    ),
)  # fmt: skip
WORDS_ONLY = 2  # times as many epochs for a small encoder that has met no entity yet


def of_task(task: str) -> dict[str, Recipe]:
    """The recipes of a task by name, its default first."""
    return {name: recipe for name, recipe in RECIPES.items() if recipe.task == task}


def for_encoder(recipe: Recipe, shape: ModelConfig, words_only: bool = False) -> Recipe:
    """The recipe as published for an encoder of base size or more; with larger steps and more of them for less.

    words_only: the encoder is a word model, whose entities are new.
    """
    found = next((one for one in SMALLER if shape.hidden_size <= one.up_to), None)
    return adapt(recipe, found, words_only) if found else recipe


def adapt(recipe: Recipe, encoder: Smaller, words_only: bool = False) -> Recipe:
    changes = encoder.training.get(recipe.task, encoder.training[""])
    training = replace(recipe.training, **changes)
    training = replace(training, micro_batch=training.batch, epochs=training.epochs * (WORDS_ONLY if words_only else 1))
    return recipe._replace(training=training, options={**recipe.options, **encoder.options.get(recipe.task, {})})


def settings(made) -> list[str]:
    """["--epochs 5", "--no-bias-correction", ...]: what a dataclass of options holds, as on the command line."""
    values = ((item.name, getattr(made, item.name)) for item in fields(made))
    return [as_flag(name, value) for name, value in values if value != ""]


def differences(recipe: Recipe, other: Recipe, options: type) -> str:
    """The settings of a recipe that another one has otherwise. options: the task's Options."""
    mine, others = (settings(r.training) + settings(options(**r.options)) for r in (recipe, other))
    return "  ".join(shown for shown in mine if shown not in others)


def overview(task: Task) -> Iterator[str]:
    """Lines for --help: every recipe of a task, as differences from its default, and what smaller encoders change."""
    found, options = of_task(task.name), task.options
    default, *_ = found.values()
    for name, recipe in found.items():
        attention = "" if recipe.entity_aware else "; attention as in the checkpoint"
        yield f"  {name}: {recipe.data} ({recipe.source}{attention})"
        yield f"      {differences(recipe, default, options) or 'the numbers above'}"
    for encoder in SMALLER:
        by_difference: dict[str, list[str]] = {}
        for name, recipe in found.items():
            by_difference.setdefault(differences(adapt(recipe, encoder), recipe, options), []).append(name)
        for changes, names in by_difference.items():
            longer = adapt(RECIPES[names[0]], encoder, words_only=True).training.epochs
            yield f"  {', '.join(names)}, up to a hidden size of {encoder.up_to} ({encoder.what})"
            yield f"      {changes}" + ("" if task.all_entities else f"  (with --init: {as_flag('epochs', longer)})")

"""Every named setting of luke-mini: model sizes, and the form of the recipes, whose numbers are in `recipes.py`.

On a first reading: `ModelConfig`, `PretrainConfig` and `FinetuneConfig`, frozen dataclasses. What stands around them
checks the ranges of their fields and makes the command-line flags, so that a default is written down once.

Sources: LUKE, Yamada et al. 2020 (arXiv 2010.01057), section 3, appendix A; mLUKE, Ri et al. 2022 (arXiv 2110.08151);
RoBERTa, Liu et al. 2019 (arXiv 1907.11692) for the word side. Field names of `ModelConfig` are those of the released
`config.json` files, so those files need no translation.
"""

import argparse
import dataclasses
import difflib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import get_args


# --- Fields with a range ----------------------------------------------------------------------------------------------

REQUIRED = dataclasses.MISSING  # a field without a default
KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", type(None): "null"}


def ranged(default, low: float = -math.inf, high: float = math.inf, **more):
    """A dataclass field with its range, low <= value < high; NaN and infinity are in none."""
    return field(default=default, metadata={"low": low, "high": high, **more})


def option(default, help: str, choices: tuple | None = None, **limits):
    """A field that also becomes the command-line flag --its-name. limits: low and high, see `ranged`."""
    return ranged(default, help=help, choices=choices, **limits)


def check_fields(form: type, values: Mapping) -> None:
    """ValueError naming the first value that is of the wrong type or out of the range of a dataclass's field."""
    for item in (item for item in fields(form) if item.name in values):
        value, kinds, choices = values[item.name], get_args(item.type) or (item.type,), item.metadata.get("choices")
        low, high = (item.metadata.get(name, infinite) for name, infinite in (("low", -math.inf), ("high", math.inf)))
        kind = float if type(value) is int and int not in kinds else type(value)  # a whole number is a number, too
        if kind in kinds and (value in choices if choices else kind not in (int, float) or low <= value < high):
            continue
        expected = " or ".join(map(str, choices) if choices else (KINDS[kind] for kind in kinds))
        expected += f", {low:g} or more" * (low > -math.inf)
        expected += f", below {high:g}" * (high < math.inf)
        if "help" in item.metadata:
            raise ValueError(f"{as_flag(item.name, value)}: expected {expected}")
        raise ValueError(f"{item.name} is {json.dumps(value)[:60]}, expected {expected}")


# --- Models -----------------------------------------------------------------------------------------------------------

COUNT = 1 << 31  # words or entities, at most
# Fields that are a row of a table, and the field with the number of its rows.
ROWS = [("pad_token_id", "vocab_size"), ("bos_token_id", "vocab_size"), ("eos_token_id", "vocab_size"),
        ("pad_token_id", "max_position_embeddings"), ("mask_entity_id", "entity_vocab_size")]  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the network. Defaults: luke-base (paper, section 3.4: RoBERTa's shape, entity embeddings of 256)."""

    vocab_size: int = ranged(50267, 1, COUNT)  # tokens, special ones included
    entity_vocab_size: int = ranged(500000, 1, COUNT)  # entities, [PAD] [UNK] [MASK] [MASK2] included
    hidden_size: int = ranged(768, 1, 1 << 16)
    num_hidden_layers: int = ranged(12, 1, 257)
    num_attention_heads: int = ranged(12, 1, 1 << 16)
    intermediate_size: int = ranged(3072, 1, 1 << 20)
    # Factorized: entity table [entities, 256], then a projection to hidden_size.
    entity_emb_size: int = ranged(256, 1, 1 << 16)
    max_position_embeddings: int = ranged(514, 3, 1 << 20)  # 512 words + RoBERTa's two unused rows
    type_vocab_size: int = ranged(1, 1, 1 << 16)
    layer_norm_eps: float = ranged(1e-5, 0, 1)  # `transformers` defaults to 1e-12, every released file says 1e-5
    hidden_dropout_prob: float = ranged(0.1, 0, 1)
    attention_probs_dropout_prob: float = ranged(0.1, 0, 1)
    initializer_range: float = ranged(0.02, 0, 100)
    use_entity_aware_attention: bool = True
    pad_token_id: int = ranged(1, 0, COUNT)
    bos_token_id: int = ranged(0, 0, COUNT)
    eos_token_id: int = ranged(2, 0, COUNT)
    hidden_act: str = "gelu"  # the exact one, with erf
    # In sequence, token and choice heads; None: hidden_dropout_prob.
    classifier_dropout: float | None = ranged(None, 0, 1)
    # None: [MASK] is an ordinary row of the entity table. Otherwise its id, and its input embedding is a parameter of
    # its own, which trains while the table stays frozen (entity disambiguation).
    mask_entity_id: int | None = ranged(None, 0, COUNT)
    # transformers sets padding_idx=0 in the entity table, so row 0 gets no gradient as an input. Here no row is padding
    # by default: padding never enters a packed batch, and row 0 of a lite model is [MASK], which must learn.
    freeze_entity_row0: bool = False
    cls_entity_prediction: bool = False  # a third head: from `<s>` to the embedding of the page's own entity

    def __post_init__(self):
        check_fields(type(self), vars(self))
        for name, rows in ROWS:
            if (row := getattr(self, name)) is not None and row >= getattr(self, rows):
                raise ValueError(f"{name} is {row}, but {rows} only {getattr(self, rows)}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}"
            )
        if self.hidden_act != "gelu":
            raise ValueError(f"hidden_act {self.hidden_act!r}: only 'gelu' is supported, as in every released LUKE")

    @property
    def longest_input(self) -> int:
        """In tokens: the first of them has the row pad_token_id + 1 of the table of positions, as in RoBERTa."""
        return self.max_position_embeddings - self.pad_token_id - 1


LUKE_BASE = ModelConfig()
LUKE_LARGE = replace(LUKE_BASE, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
# Ours, for laptops and tests. `tiny` learns the built-in encyclopedia in minutes on two cores.
MINI = replace(
    LUKE_BASE, hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024,
    entity_emb_size=128, initializer_range=0.035,
)  # fmt: skip
TINY = replace(
    LUKE_BASE, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512,
    entity_emb_size=64, initializer_range=0.05,  # 0.02 at 768 features scales a layer as 0.05 does at 128
)  # fmt: skip
SIZES = {"tiny": TINY, "mini": MINI, "base": LUKE_BASE, "large": LUKE_LARGE}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One stage of pretraining. The published numbers, which have no default here, are a table in `recipes.py`."""

    steps: int = option(0, "optimizer steps; 0 = computed from --epochs", low=0)
    epochs: float = option(REQUIRED, "passes over the data", low=0)
    global_batch: int = option(REQUIRED, "sequences per optimizer step, across all processes", low=1)
    micro_batch: int = option(32, "sequences per forward pass of one process; gradients are accumulated", low=1)
    learning_rate: float = option(REQUIRED, "peak learning rate", low=0)
    warmup_steps: int = option(REQUIRED, "steps of linear warm-up, then linear decay to 0", low=0)
    weight_decay: float = option(REQUIRED, "decoupled; none for biases and LayerNorm", low=0)
    beta1: float = option(REQUIRED, "Adam's first decay rate", low=0, high=1)
    beta2: float = option(REQUIRED, "Adam's second decay rate", low=0, high=1)
    eps: float = option(REQUIRED, "Adam's epsilon", low=0)
    max_grad_norm: float = option(REQUIRED, "clip the gradient norm; 0 = off", low=0)
    dropout: float = option(REQUIRED, "on hidden states and attention probabilities", low=0, high=1)
    masked_word_prob: float = option(REQUIRED, "fraction of tokens to predict", low=0, high=1)
    random_word_prob: float = option(REQUIRED, "fraction of these that a random token replaces", low=0, high=1)
    unmasked_word_prob: float = option(REQUIRED, "fraction of these that stay; the rest is masked", low=0, high=1)
    masked_entity_prob: float = option(REQUIRED, "fraction of entities to predict", low=0, high=1)
    random_entity_prob: float = option(REQUIRED, "fraction of these that a random entity replaces", low=0, high=1)
    unmasked_entity_prob: float = option(REQUIRED, "fraction of these that stay; the rest is masked", low=0, high=1)
    whole_word_masking: bool = option(REQUIRED, "mask all tokens of a word together")
    mask_words_in_entity_span: bool = option(REQUIRED, "mask all words of a mention whose entity is masked")
    train_words: bool = option(REQUIRED, "off: train only the entity side (stage 1)")
    words_only: bool = option(REQUIRED, "no entities: train the words alone")
    freeze_entities: bool = option(REQUIRED, "leave the table of entity embeddings as it is")
    entity_bias: bool = option(REQUIRED, "a bias for each entity in the masked-entity head")
    predict_page: bool = option(REQUIRED, "also predict the embedding of the page's own entity, from <s>")
    entity_aware: bool = option(REQUIRED, "four query matrices in pretraining, too")
    sampling_exponent: float = option(REQUIRED, "several folders: sample proportionally to size ** X")
    frequency_start: bool = option(False, "random weights: start the heads' biases at log frequencies")
    title_start: bool = option(False, "random weights: start entities as their titles' word embeddings")
    seed: int = option(0, "random seed of initialization, order, masks and dropout", low=0, high=COUNT)

    def __post_init__(self):
        check_fields(type(self), vars(self))
        if not 0 <= self.sampling_exponent <= 1:
            raise ValueError(f"--sampling-exponent {self.sampling_exponent} must lie in [0, 1]")
        for kind in ("word", "entity"):
            random, unmasked = (getattr(self, f"{name}_{kind}_prob") for name in ("random", "unmasked"))
            if random + unmasked > 1:
                raise ValueError(f"--random-{kind}-prob {random} and --unmasked-{kind}-prob {unmasked}: more than all")
        if self.title_start and not self.entity_aware:
            raise ValueError("--title-start sets the e2w query, so it needs --entity-aware")
        if self.words_only and (self.predict_page or not self.train_words):
            raise ValueError("--words-only: nothing of the entity side is left to train or to predict")


@dataclass(frozen=True)
class FinetuneConfig:
    """One fine-tuning run. Defaults: CoNLL-2003 in the LUKE paper; `recipes.py` has every published one."""

    epochs: float = option(5.0, "passes over the training file", low=0)
    min_steps: int = option(0, "optimizer steps at least: more epochs for few examples; none with --epochs", low=0)
    batch: int = option(8, "sequences per optimizer step, across all processes", low=1)
    micro_batch: int = option(2, "sequences per forward pass of one process; gradients are accumulated", low=1)
    learning_rate: float = option(1e-5, "peak learning rate", low=0)
    warmup_ratio: float = option(0.06, "fraction of the steps for linear warm-up; then linear decay to 0", low=0)
    weight_decay: float = option(0.01, "decoupled; none for biases and LayerNorm", low=0)
    beta1: float = option(0.9, "Adam's first decay rate", low=0, high=1)
    beta2: float = option(0.98, "Adam's second decay rate", low=0, high=1)
    eps: float = option(1e-6, "Adam's epsilon", low=0)
    max_grad_norm: float = option(0.0, "clip the gradient norm; 0 = off", low=0)
    bias_correction: bool = option(False, "Adam's bias correction, as in torch; off: as LUKE was trained")
    select: str = option("last", "epoch to keep: the last one, or the best on dev", ("last", "score", "loss"))
    dropout: float = option(0.1, "on hidden states, attention probabilities and the head's input", low=0, high=1)
    seed: int = option(35, "random seed of initialization, order and dropout", low=0, high=COUNT)

    def __post_init__(self):
        check_fields(type(self), vars(self))


def as_text(value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def as_flag(name: str, value=None) -> str:
    """A setting as a command-line flag: --epochs 5, --no-bias-correction; without a value only the flag's name."""
    name = name.replace("_", "-")
    if value is None or isinstance(value, bool):
        return f"--no-{name}" if value is False else f"--{name}"
    return f"--{name} {as_text(value)}"


class Parser(argparse.ArgumentParser):
    """argparse's, with a short usage line and, for a mistyped task or option, the one that was meant."""

    def __init__(self, *, usage: str = "%(prog)s [OPTION ...]", **settings):
        super().__init__(usage=usage, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def parse_known_args(self, args=None, namespace=None):
        """Unknown options are an error already here, in the parser of the task, so that the usage line names it."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str):
        typed = re.search(r"(?:unrecognized arguments: .*?|invalid choice: ')(--)?([^ =']+)", message)
        choices = (str(choice) for action in self._actions for choice in action.choices or ())
        known = [name[2:] for name in self._option_string_actions] if typed and typed[1] else choices
        near = difflib.get_close_matches(typed[2], known, 1, cutoff=0.5) if typed else []
        super().error(f"{message}; did you mean {typed[1] or ''}{near[0]}?" if near else message)


def add_flags(parser: argparse.ArgumentParser, recipe, title: str) -> None:
    """One flag for each `option` field of a dataclass instance, which holds the defaults that the help shows.

    A flag that is not given parses to None and leaves the recipe's value.
    """
    group = parser.add_argument_group(title)
    for item in fields(recipe):
        choices, value = item.metadata["choices"], getattr(recipe, item.name)
        help = f"{item.metadata['help']} [{as_text(value)}]" if value != "" else item.metadata["help"]
        if item.type is bool:
            group.add_argument(as_flag(item.name), action=argparse.BooleanOptionalAction, default=None, help=help)
        else:
            metavar = {} if choices else {"metavar": {str: "TEXT", int: "N"}.get(item.type, "X")}
            group.add_argument(as_flag(item.name), type=item.type, choices=choices, help=help, **metavar)


def from_flags(recipe, arguments: argparse.Namespace):
    """The recipe, updated with the flags that were given."""
    given = {item.name: getattr(arguments, item.name) for item in fields(recipe)}
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})


def as_dict(config) -> dict:
    return dataclasses.asdict(config)

"""One pretraining step, forward and backward: luke-mini's packed batch against transformers' LukeForMaskedLM.

    python tests/bench/bench_training_step.py [--size base] [--texts long] [--precision fp32 bf16] [--rounds 7] [--busy]
    python tests/bench/bench_training_step.py --optimizer --entities 500000

Both models hold the same weights and see the same sequences: long, four of lengths that prepare_wiki.py makes from
English Wikipedia, or short, 16 of 50 to 110 words with the built-in encyclopedia's vocabularies and masks. Both compute
the same loss and gradients (checked) without dropout, and both keep freed memory, as training does; ours has as many
micro-batches side by side as in training. Steps alternate and medians are printed. Two numbers are what to quote,
because the machine's own speed drops out of them: the ratio of the two, and the share of the machine's product rate,

    operations of the step's matrix products, as `cost.step_flops` has them / (seconds x rate of a large product)

--busy: another process computes meanwhile. --optimizer: instead, one update of AdamW, beside the time that reading and
writing its bytes once takes. Needs transformers (tests/requirements.txt).
"""

import argparse
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import project  # noqa: F401 (finds luke_mini)
import torch

from luke_mini import checkpoint, config, cost, ops, ops_cpu, optim, packing, recipes, trainer
from luke_mini.batching import PretrainBatch, deal
from luke_mini.distributed import Rank
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining

TEXTS = {  # words and entities of each sequence
    "long": ((498, 500, 507, 412), (8, 10, 30, 21)),
    "short": ((50, 110, 87, 63, 94, 72, 58, 103, 79, 91, 66, 54, 107, 83, 98, 75),
              (6, 14, 10, 8, 12, 8, 6, 15, 9, 11, 8, 5, 14, 9, 11, 8)),
}  # fmt: skip


MASKED = {"long": (0.15, 0.15), "short": (0.3, 0.7)}  # of words and entities, to predict
SHORT_SHAPE = {"vocab_size": 4000, "entity_vocab_size": 3022}


def make_batch(shape: config.ModelConfig, texts: str, seed: int = 0) -> dict:
    """Padded tensors as transformers takes them."""
    generator = torch.Generator().manual_seed(seed)
    n_word, n_entity = (torch.tensor(lengths) for lengths in TEXTS[texts])
    word_mask = torch.arange(n_word.max()) < n_word[:, None]
    entity_mask = torch.arange(n_entity.max()) < n_entity[:, None]
    input_ids = torch.randint(4, shape.vocab_size, word_mask.shape, generator=generator).where(
        word_mask, torch.tensor(1)
    )
    entity_ids = torch.randint(4, shape.entity_vocab_size, entity_mask.shape, generator=generator).where(
        entity_mask, torch.tensor(0)
    )
    starts = torch.randint(1, int(n_word.min()) - 4, (*entity_mask.shape, 1), generator=generator)
    positions = (starts + torch.arange(3)).where(entity_mask[:, :, None], torch.tensor(-1))
    chosen_words = (torch.rand(word_mask.shape, generator=generator) < MASKED[texts][0]) & word_mask
    chosen_entities = (torch.rand(entity_mask.shape, generator=generator) < MASKED[texts][1]) & entity_mask
    return {
        "input_ids": input_ids,
        "attention_mask": word_mask.long(),
        "entity_ids": entity_ids,
        "entity_attention_mask": entity_mask.long(),
        "entity_position_ids": positions,
        "labels": input_ids.where(chosen_words, torch.tensor(-100)),
        "entity_labels": entity_ids.where(chosen_entities, torch.tensor(-100)),
    }


def micro_batches(batch: dict, count: int) -> list[PretrainBatch]:
    """The sequences, dealt out as in training."""
    lengths = (batch["attention_mask"].sum(1) + batch["entity_attention_mask"].sum(1)).numpy()
    return [ours({name: rows[own] for name, rows in batch.items()}) for own in deal(lengths, count)]


def ours(batch: dict) -> PretrainBatch:
    inputs = packing.from_padded(
        batch["input_ids"],
        batch["attention_mask"],
        batch["entity_ids"],
        batch["entity_position_ids"],
        batch["entity_attention_mask"],
        pad_id=1,
    )
    words = batch["labels"][batch["attention_mask"].bool()]
    entities = batch["entity_labels"][batch["entity_attention_mask"].bool()]
    rows, entity_rows = (words >= 0).nonzero()[:, 0], (entities >= 0).nonzero()[:, 0]
    return PretrainBatch(inputs, rows, words[rows], entity_rows, entities[entity_rows])


def their_model(model: LukeForPretraining, shape: config.ModelConfig):
    import transformers

    names = [name for name in config.as_dict(shape) if name not in ("bos_token_id", "eos_token_id")]
    theirs = transformers.LukeForMaskedLM(transformers.LukeConfig(**{name: getattr(shape, name) for name in names}))
    theirs.load_state_dict(checkpoint.to_released(model.state_dict(), shape), strict=False)
    theirs.lm_head.decoder.weight = theirs.luke.embeddings.word_embeddings.weight
    theirs.lm_head.decoder.bias = theirs.lm_head.bias
    theirs.entity_predictions.decoder.weight = theirs.luke.entity_embeddings.entity_embeddings.weight
    return theirs.train()


def product_rate(precision: str, size: int = 3072) -> float:
    """Operations a second of one large product, by the better of the two libraries that torch has on a CPU."""
    a, b = (torch.randn(size, size).to(torch.bfloat16 if precision == "bf16" else torch.float32) for _ in range(2))
    with torch.autocast("cpu", enabled=False):
        return 2 * size**3 / min(seconds(lambda: a @ b), seconds(lambda: ops.linear(a, b)))


def seconds(function) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


@contextmanager
def competitor(wanted: bool):
    """Another process that computes all the time."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if other:
            other.kill()


def check_gradients(model, peer, shape, tolerance: float) -> None:
    """All of them, under the released names, against transformers'. Some are 0 but for rounding, as the key's bias."""
    own = checkpoint.to_released({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, shape)
    theirs = {name: p.grad for name, p in peer.named_parameters() if p.grad is not None}
    total = torch.nn.utils.get_total_norm(theirs.values())
    for name, gradient in theirs.items():
        error = (own[name] - gradient).norm() / torch.maximum(gradient.norm(), total / 100)
        assert error < tolerance, (name, float(error))


def time_optimizer(shape: config.ModelConfig, rounds: int) -> None:
    model = LukeForPretraining(shape)
    optimizer = optim.AdamW.of(model, recipes.published("luke 2"))
    optimizer.set_learning_rate(1e-4)
    for p in model.parameters():
        p.grad = torch.full_like(p, 1e-3)
    weights, moments = [p.data for p in model.parameters()], list(optimizer.moments().values())

    def read_and_write() -> None:
        torch._foreach_mul_([*weights, *moments], 1.0)
        for p in model.parameters():
            p.grad.sum()

    found = [(seconds(optimizer.step), seconds(read_and_write)) for _ in range(rounds + 1)][1:]
    update, once = map(statistics.median, zip(*found))
    count = sum(p.numel() for p in weights)
    print(f"AdamW, {count / 1e6:.0f} million weights: {update:.3f} s, its bytes once {once:.3f} s, "
          f"ratio {update / once:.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(config.SIZES), default="base")
    parser.add_argument("--texts", choices=list(TEXTS), help="[long; short for the sizes tiny and mini]")
    parser.add_argument("--entities", type=int, help="rows of the entity table [100000; 3022 for short texts]")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--optimizer", action="store_true", help="time AdamW alone")
    parser.add_argument("--busy", action="store_true", help="beside a process that computes, too")
    arguments = parser.parse_args()
    texts = arguments.texts or ("short" if arguments.size in ("tiny", "mini") else "long")
    shape = replace(
        config.SIZES[arguments.size], **{"entity_vocab_size": 100_000} | (SHORT_SHAPE if texts == "short" else {}),
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    if arguments.entities:
        shape = replace(shape, entity_vocab_size=arguments.entities)
    ops_cpu.keep_memory()
    if arguments.optimizer:
        return time_optimizer(shape, arguments.rounds)
    model = LukeForPretraining(shape).train()
    initialize(model, shape, 0)
    peer, padded = their_model(model, shape), make_batch(shape, texts)
    rank = Rank(0, 1, torch.device("cpu"))
    lanes = trainer.lanes(model, rank)
    packed = micro_batches(padded, lanes)

    def our_step() -> float:
        model.zero_grad(set_to_none=True)
        with ops_cpu.side_by_side(lanes) as each:
            sums = trainer.accumulate_gradients(model, packed, rank, precision, each=each)
        return sum(float(sums[name][0] / sums[name][2]) for name in ("word", "entity"))

    def their_step() -> float:
        peer.zero_grad(set_to_none=True)
        loss = peer(**padded).loss
        loss.backward()
        return float(loss.detach())

    (words, entities), threads = map(sum, TEXTS[texts]), torch.get_num_threads()
    flops = sum(cost.step_flops(model, part) for part in packed)
    print(f"{arguments.size}, {words} words and {entities} entities, {flops / 1e9:.1f} GFLOP, {threads} threads, "
          f"torch {torch.__version__}{', a busy machine' if arguments.busy else ''}")  # fmt: skip
    for precision in arguments.precision:
        tolerance = 1e-4 if precision == "fp32" else 3e-2
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"), competitor(arguments.busy):
            losses = our_step(), their_step()  # warm-up
            assert abs(losses[0] - losses[1]) < tolerance * losses[1], losses
            check_gradients(model, peer, shape, tolerance)
            rounds = [
                (seconds(our_step), seconds(their_step), product_rate(precision)) for _ in range(arguments.rounds)
            ]
        mine, other, rate = map(statistics.median, zip(*rounds))
        print(f"{precision}: luke-mini {mine:.3f} s, {flops / mine / rate:.0%} of {rate / 1e9:.0f} GFLOP/s; "
              f"transformers {other:.3f} s, ratio {other / mine:.2f} "
              f"(losses {losses[0]:.4f} {losses[1]:.4f})")  # fmt: skip


if __name__ == "__main__":
    main()

"""One pretraining step, forward and backward: luke-mini's packed batch against transformers' LukeForMaskedLM.

    python tests/bench/bench_training_step.py [--size base] [--precision fp32 bf16] [--rounds 7]

Both models hold the same weights and see the same four sequences, of lengths that prepare_wiki.py makes from English
Wikipedia; both compute the same loss (checked) without dropout. Steps alternate, medians are printed, their ratio is
what to quote: the machine's own speed drops out of it. Needs transformers (tests/requirements.txt).
"""

import argparse
import statistics
import time
from dataclasses import replace

import project  # noqa: F401 (finds luke_mini)
import torch

from luke_mini import checkpoint, config, packing
from luke_mini.batching import PretrainBatch
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining

WORDS, ENTITIES = (498, 500, 507, 412), (8, 10, 30, 21)


def make_batch(shape: config.ModelConfig, seed: int = 0) -> dict:
    """Padded tensors as transformers takes them, 15 % of words and entities to predict."""
    generator = torch.Generator().manual_seed(seed)
    word_mask = torch.arange(max(WORDS)) < torch.tensor(WORDS)[:, None]
    entity_mask = torch.arange(max(ENTITIES)) < torch.tensor(ENTITIES)[:, None]
    input_ids = torch.randint(4, shape.vocab_size, word_mask.shape, generator=generator).where(
        word_mask, torch.tensor(1)
    )
    entity_ids = torch.randint(4, shape.entity_vocab_size, entity_mask.shape, generator=generator).where(
        entity_mask, torch.tensor(0)
    )
    starts = torch.randint(1, 400, (*entity_mask.shape, 1), generator=generator)
    positions = (starts + torch.arange(3)).where(entity_mask[:, :, None], torch.tensor(-1))
    chosen_words = (torch.rand(word_mask.shape, generator=generator) < 0.15) & word_mask
    chosen_entities = (torch.rand(entity_mask.shape, generator=generator) < 0.15) & entity_mask
    return {
        "input_ids": input_ids,
        "attention_mask": word_mask.long(),
        "entity_ids": entity_ids,
        "entity_attention_mask": entity_mask.long(),
        "entity_position_ids": positions,
        "labels": input_ids.where(chosen_words, torch.tensor(-100)),
        "entity_labels": entity_ids.where(chosen_entities, torch.tensor(-100)),
    }


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(config.SIZES), default="base")
    parser.add_argument("--entities", type=int, default=100_000, help="rows of the entity table [%(default)s]")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    shape = replace(
        config.SIZES[arguments.size],
        entity_vocab_size=arguments.entities,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = LukeForPretraining(shape).train()
    initialize(model, shape, 0)
    peer, padded = their_model(model, shape), make_batch(shape)
    packed = ours(padded)

    def our_step() -> float:
        terms = model(packed)
        loss = sum(terms[name][0] / packed.counts[name] for name in terms)
        loss.backward()
        model.zero_grad(set_to_none=True)
        return float(loss.detach())

    def their_step() -> float:
        loss = peer(**padded).loss
        loss.backward()
        peer.zero_grad(set_to_none=True)
        return float(loss.detach())

    print(
        f"{arguments.size}, {sum(WORDS)} words and {sum(ENTITIES)} entities, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )
    for precision in arguments.precision:
        times = {our_step: [], their_step: []}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            losses = [step() for step in times]  # warm-up
            assert abs(losses[0] - losses[1]) < (1e-4 if precision == "fp32" else 3e-2), losses
            for _ in range(arguments.rounds):
                for step, seconds in times.items():
                    began = time.perf_counter()
                    step()
                    seconds.append(time.perf_counter() - began)
        mine, other = (statistics.median(seconds) for seconds in times.values())
        print(
            f"{precision}: luke-mini {mine:.2f} s, transformers {other:.2f} s, ratio {other / mine:.2f} "
            f"(losses {losses[0]:.4f} {losses[1]:.4f})"
        )


if __name__ == "__main__":
    main()

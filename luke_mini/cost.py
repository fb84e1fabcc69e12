"""What pretraining costs: useful floating-point operations, the machine's rate, memory. In closed form, before it runs.

Only matrix products count, a multiplication with its addition as two, as `torch.utils.flop_counter` counts the plain
equations. A product y = x W forward is a product for the gradient of x and one for that of W, so training costs three
times the forward pass; less where W is frozen. Recomputed and padded rows would count nothing: they are not useful.
Left out: LayerNorm, softmax, dropout, AdamW, a few percent of the time of large models.
"""

import time
from itertools import chain, repeat

import torch
from torch import nn


SIDE = 1024  # of the matrices whose product measures the machine on a CPU; a GPU needs larger ones
GPU_SIDE = 8192
PATIENCE = 0.25  # seconds of products, after which no other one begins
HELD = 24  # numbers of hidden size that a layer keeps for each row until the backward pass, about


def product(model: nn.Module, name: str, size: float) -> float:
    """Operations of forward and backward pass of a layer that costs `size` multiplications; name: of its weight."""
    return 2 * size * (2 + model.get_parameter(name).requires_grad)


def step_flops(model: nn.Module, batch) -> float:
    """Of a micro-batch of `LukeForPretraining`, forward and backward; batch: `batching.PretrainBatch`."""
    shape, packed = model.config, batch.packed
    hidden, rows, entities = shape.hidden_size, batch.n_tokens, packed.n_entities
    pairs = sum((n + m) ** 2 for n, m in zip(packed.word_lengths, packed.entity_lengths))
    layer, aware = "luke.layers.0.", shape.use_entity_aware_attention
    square = hidden * hidden
    total = product(model, layer + "attention.w2w_w2e.weight", (1 + aware) * rows * square)
    total += product(model, layer + "attention.key_value.weight", 2 * rows * square)
    total += product(model, layer + "attention.output.weight", rows * square)
    total += 2 * product(model, layer + "feed_forward.up.weight", rows * hidden * shape.intermediate_size)
    total += 2 * 2 * 3 * pairs * hidden  # scores, and sums of values: both sides have gradients
    total *= shape.num_hidden_layers
    if model.luke.entities.projection is not None and entities:
        name = "luke.entities.projection.weight"
        size = entities * shape.entity_emb_size * hidden
        total += product(model, name, size)
        total -= 2 * size * (not model.luke.entities.entity.weight.requires_grad)  # nor do the looked-up rows have one
    word = "luke.words.token.weight", len(batch.masked_word_rows), hidden
    entity = "luke.entities.entity.weight", len(batch.masked_entity_rows), shape.entity_emb_size
    for head, (table, predictions, size) in (("word", word), ("entity", entity)):
        total += product(model, f"{head}_head.dense.weight", predictions * hidden * size)
        total += product(model, table, predictions * size * len(model.get_parameter(table)))
    if batch.page_rows is not None:
        total += product(model, "page_head.weight", len(batch.page_rows) * hidden * shape.entity_emb_size)
    return total


def memory(model: nn.Module, rows: int, recompute: bool = False, lanes: int = 1) -> float:
    """Bytes of tensors in one process, about: weights, gradients, AdamW, and what the backward pass of `rows` tokens
    needs. recompute: whether layers keep their input only, see `model.Layer`. lanes: micro-batches side by side, each
    with gradients of its own; `rows` are of all."""
    shape, parameters = model.config, list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    layers = shape.num_hidden_layers
    kept = rows * shape.hidden_size * (layers + HELD if recompute else layers * HELD)
    return 4.0 * (sum(p.numel() for p in parameters) + (3 + lanes * (lanes > 1)) * trained + kept)


def peak_rate(device: torch.device, precision: str) -> float:
    """Operations a second of one large matrix product, here and now, the best of a quarter of a second.

    One of half the size is first. Where that takes long, as in bf16 that a processor only emulates, it is all.
    """
    large, rate, spent = GPU_SIDE if device.type == "cuda" else SIDE, 0.0, 0.0
    for side in chain([large // 2], repeat(large)):
        a = torch.ones(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        seconds = time.perf_counter() - began
        rate, spent = max(rate, 2 * side**3 / seconds), spent + seconds
        if spent > PATIENCE:
            return rate

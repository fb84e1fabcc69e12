"""The operations worth fusing: what they compute, and which backend computes it.

Entity-aware self-attention (LUKE, section 3). Every token i has two queries, one for keys of words and one for keys of
entities; which matrices make them depends on what i itself is:

    of token i, a ...    q2w_i, for word keys    q2e_i, for entity keys
    word                 Q_w2w x_i               Q_w2e x_i
    entity               Q_e2w x_i               Q_e2e x_i

    score(i, j) = k_j . q2w_i / sqrt(d) if j is a word, k_j . q2e_i / sqrt(d) if it is an entity
    out_i = sum_j softmax_j(score(i, :))_j v_j      over the words and the entities of i's sequence together

Keys and values are shared. Ordinary attention is the case q2e = q2w, written q2e=None. `entity_attention_equations` is
the specification: these equations for one sequence at a time, differentiated by autograd. `entity_attention` is what
the model calls: the same numbers from Triton kernels on a GPU (`kernels/`, which say q_word and q_entity), from plain
PyTorch elsewhere (`ops_cpu.py`). On a first reading, these two are enough.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from luke_mini import ops_cpu
from luke_mini.packing import PackedBatch

# --- Attention --------------------------------------------------------------------------------------------------------


def sequence_rows(batch: PackedBatch) -> list[tuple[slice, slice]]:
    """For every sequence of a packed batch, the slice of its word rows and the slice of its entity rows."""
    rows, word, entity = [], 0, batch.n_words
    for n_word, n_entity in zip(batch.word_lengths, batch.entity_lengths):
        rows.append((slice(word, word + n_word), slice(entity, entity + n_entity)))
        word, entity = word + n_word, entity + n_entity
    return rows


def entity_attention_equations(
    q2w: Tensor, q2e: Tensor | None, key: Tensor, value: Tensor, batch: PackedBatch
) -> Tensor:
    """The specification: the equations above, transcribed. Arguments and result as in `entity_attention`."""
    q2e = q2w if q2e is None else q2e
    out = torch.zeros_like(value)
    for words, entities in sequence_rows(batch):
        w2w = torch.einsum("ihd,jhd->hij", q2w[words], key[words])
        w2e = torch.einsum("ihd,jhd->hij", q2e[words], key[entities])
        e2w = torch.einsum("ihd,jhd->hij", q2w[entities], key[words])
        e2e = torch.einsum("ihd,jhd->hij", q2e[entities], key[entities])
        scores = torch.cat([torch.cat([w2w, w2e], dim=2), torch.cat([e2w, e2e], dim=2)], dim=1)
        probs = torch.softmax(scores / math.sqrt(key.shape[2]), dim=2)
        mixed = torch.einsum("hij,jhd->ihd", probs, torch.cat([value[words], value[entities]]))
        rows = torch.cat([torch.arange(span.start, span.stop, device=key.device) for span in (words, entities)])
        out = out.index_copy(0, rows, mixed)
    return out


def entity_attention(
    q2w: Tensor,
    q2e: Tensor | None,
    key: Tensor,
    value: Tensor,
    batch: PackedBatch,
    dropout: float = 0.0,
) -> Tensor:
    """Entity-aware attention on a packed batch.

    q2w, q2e, key, value [rows, head, head_dim]: all words of the batch, sequence after sequence, then all
    entities. q2e=None is ordinary attention. dropout: probability of dropping an attention weight (0 when not
    training). Returns [rows, head, head_dim]; a row attends only to rows of its own sequence.
    """
    if backend_for(key.device) == "triton":
        from kernels import entity_attention as fused  # imported here: a CPU needs no Triton

        seed = int(torch.randint(2**62, ())) if dropout else 0  # torch.manual_seed controls dropout
        layout = fused.Packing(batch.segments, max(batch.word_lengths), max(batch.entity_lengths))
        return fused.entity_attention(q2w, q2e, key, value, layout, dropout, seed)
    return ops_cpu.PackedAttention.apply(q2w, q2e, key, value, batch, dropout)


# --- Which backend computes it; skip at first -------------------------------------------------------------------------

_backend = "auto"


def use_backend(name: str) -> None:
    """Select the backend: "triton", "torch", or "auto" (default), which is Triton on a GPU and torch elsewhere."""
    global _backend
    if name not in ("auto", "triton", "torch"):
        raise ValueError(f"use_backend({name!r}): expected auto, triton or torch")
    _backend = name


def backend_for(device: torch.device) -> str:
    """What attention and cross-entropy run on for a device: "triton" or "torch"."""
    return _backend if _backend != "auto" else "triton" if device.type == "cuda" else "torch"


# --- Smaller ones -----------------------------------------------------------------------------------------------------


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout as `torch.nn.functional.dropout`, with the faster mask on a CPU."""
    if not training or p == 0:
        return x
    return F.dropout(x, p) if x.device.type != "cpu" else x * ops_cpu.dropout_mask(x, p)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a linear classifier.

    hidden [rows, features], weight [classes, features], bias [classes], target int64 [rows].
    Returns the loss of every row (float32 [rows]) and whether the top class is the target, a hit (bool [rows]).
    """
    backend = ops_cpu
    if backend_for(hidden.device) == "triton":
        from kernels import linear_cross_entropy as backend
    loss, hit, _ = backend.linear_cross_entropy(hidden, weight, bias, target)
    return loss, hit


def mean_of_rows(table: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
    """Means of ragged groups of table rows: group k averages table[indices[offsets[k]:offsets[k + 1]]].

    table [n, features], indices int64 [P], offsets int64 [groups + 1] -> [groups, features]. Empty group: zeros.
    """
    return F.embedding_bag(indices, table, offsets, mode="mean", include_last_offset=True)

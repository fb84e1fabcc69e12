"""The operations worth fusing: what they compute, and which backend computes it.

Entity-aware self-attention (LUKE, section 3). Every row i, a word or an entity, has two queries: one for keys of words
and one for keys of entities. Which matrices make them depends on what i itself is:

    row i is a ...       q2w_i, for word keys    q2e_i, for entity keys
    word                 Q_w2w x_i               Q_w2e x_i
    entity               Q_e2w x_i               Q_e2e x_i

    score(i, j) = k_j . q2w_i / sqrt(d) if j is a word, k_j . q2e_i / sqrt(d) if it is an entity
    out_i = sum_j softmax_j(score(i, :))_j v_j      over the words and the entities of i's sequence together

Keys and values are shared. Ordinary attention is the case q2e = q2w, one query. On a first reading, two functions are
enough:

- `entity_attention_equations` is the specification: these equations for one sequence at a time, differentiated by
  autograd.
- `entity_attention` is what the model calls, for the same numbers: Triton kernels on GPUs where these work (`kernels/`,
  which say q_word and q_entity), cache-sized pieces on a CPU (`ops_cpu.py`), few large operations on any other device.
"""

import importlib.util
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
    """The specification: the equations above, transcribed. All [rows, head, head_dim], see `entity_attention`."""
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


def entity_attention(queries: Tensor, key_value: Tensor, batch: PackedBatch, dropout: float = 0.0) -> Tensor:
    """Entity-aware attention on a packed batch.

    Rows are all words of the batch, sequence after sequence, then all entities. queries [rows, 2, head, head_dim]: q2w
    and q2e of each, or [rows, 1, ...], one for both, which is ordinary attention. key_value [rows, 2, head, head_dim].
    dropout: probability of dropping an attention weight (0 when not training). Returns [rows, head, head_dim]; a row
    attends only to rows of its own sequence.
    """
    if backend_for(queries.device, gpu_dtype(queries), queries.shape[3]) == "triton":
        from kernels import entity_attention as fused  # imported here: a CPU needs no Triton

        # On the device: torch.manual_seed controls dropout, and a replayed CUDA graph drops differently every time.
        seed = torch.randint(2**62, (1,), device=queries.device) if dropout else None
        segments = batch.segments, batch.max_words, batch.max_entities
        q2e = queries[:, 1] if queries.shape[1] == 2 else None
        return fused.entity_attention(queries[:, 0], q2e, *key_value.unbind(1), *segments, dropout, seed)
    if queries.device.type == "cpu":
        return ops_cpu.packed_attention(queries, key_value, batch.segments, dropout)
    return padded_attention(queries, key_value, batch, dropout)


def padded_attention(queries: Tensor, key_value: Tensor, batch: PackedBatch, dropout: float = 0.0) -> Tensor:
    """`entity_attention` by PyTorch's own, on padded rows: the query [q2w, q2e] meets a word's key [k, 0] or an
    entity's [0, k]. For devices that have no better form; the device is never waited for."""
    (total, _, _, head_dim), (key, value) = queries.shape, key_value.unbind(1)
    place = torch.arange(batch.max_words + batch.max_entities, device=key.device)
    is_word, number = place < batch.max_words, place - batch.max_words * (place >= batch.max_words)
    first_word, n_words, first_entity, n_entities = batch.segments.long().T[:, :, None]
    exists = number < torch.where(is_word, n_words, n_entities)  # [batch, places]
    rows = torch.where(exists, torch.where(is_word, first_word, first_entity) + number, total)  # of padding: one more
    query = torch.cat([queries[:, 0], queries[:, -1]], dim=2)
    words, entities = key.split([batch.n_words, batch.n_entities])
    wide_key = torch.cat([F.pad(words, (0, head_dim)), F.pad(entities, (head_dim, 0))])
    padded = [F.pad(x, (0, 0, 0, 0, 0, 1))[rows].transpose(1, 2) for x in (query, wide_key, value)]
    out = F.scaled_dot_product_attention(*padded, exists[:, None, None], dropout, scale=head_dim**-0.5)
    places = rows.new_empty(total + 1).scatter(0, rows.flatten(), torch.arange(rows.numel(), device=key.device))
    return out.transpose(1, 2).flatten(0, 1)[places[:total]]


# --- Which backend computes it; skip at first -------------------------------------------------------------------------

HAS_TRITON = importlib.util.find_spec("triton") is not None
_backend = "auto"


def use_backend(name: str) -> None:
    """Select the backend: "triton", "torch" (plain PyTorch), or "auto" (default), see `backend_for`."""
    global _backend
    if name not in ("auto", "triton", "torch"):
        raise ValueError(f"use_backend({name!r}): expected auto, triton or torch")
    _backend = name


def backend_for(device: torch.device, dtype: torch.dtype = torch.bfloat16, head_dim: int = 64) -> str:
    """What attention and cross-entropy run on: "triton" or "torch".

    Triton on NVIDIA's GPUs from compute capability 8 on, for half precision and heads of 32 or 64. In float32 the
    kernels are exact, without tensor cores, for checks. An AMD GPU is a "cuda" device, too, but tiles and descriptors
    are chosen for NVIDIA's.
    """
    if _backend != "auto":
        return _backend
    works = HAS_TRITON and dtype in (torch.float16, torch.bfloat16) and head_dim in (32, 64)
    return "triton" if device.type == "cuda" and works and _is_recent(device) else "torch"


@torch.compiler.assume_constant_result
def _is_recent(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def gpu_dtype(x: Tensor) -> torch.dtype:
    """The type of a GPU's products of x: its own, or autocast's."""
    return torch.get_autocast_dtype("cuda") if x.is_cuda and torch.is_autocast_enabled("cuda") else x.dtype


# --- Smaller ones -----------------------------------------------------------------------------------------------------


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout as `torch.nn.functional.dropout`, with the faster mask on a CPU."""
    if not training or p == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    return x * ops_cpu.dropout_mask(x, p)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, with the faster products on a CPU."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    return ops_cpu.linear(x, weight, bias)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a linear classifier.

    hidden [rows, features], weight [classes, features], bias [classes], target int64 [rows].
    Returns the loss of every row (float32 [rows]) and whether the top class is the target, a hit (bool [rows]).
    """
    if backend_for(hidden.device, gpu_dtype(hidden)) == "triton" and hidden.shape[1] % 16 == 0:
        from kernels.linear_cross_entropy import linear_cross_entropy as fused

        return fused(hidden, weight, bias, target)[:2]
    if hidden.device.type == "cpu":
        return ops_cpu.linear_cross_entropy(hidden, weight, bias, target)[:2]
    return full_cross_entropy(hidden, weight, bias, target)


def full_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """`linear_cross_entropy` by PyTorch's own, all scores in memory."""
    scores = F.linear(hidden, weight, bias)
    return F.cross_entropy(scores.float(), target, reduction="none"), scores.argmax(1) == target


def mean_of_rows(table: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
    """Means of ragged groups of table rows: group k averages table[indices[offsets[k]:offsets[k + 1]]].

    table [n, features], indices int64 [P], offsets int64 [groups + 1] -> [groups, features]. Empty group: zeros.
    """
    return F.embedding_bag(indices, table, offsets, mode="mean", include_last_offset=True)

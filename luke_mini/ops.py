"""The operations worth fusing, as plain PyTorch that runs everywhere; on a GPU, the Triton kernels that do the same.

`entity_attention_equations` is the specification: the paper's equations, one sequence and one pair of kinds at a time,
differentiated by autograd. `entity_attention` is what the model calls: the same numbers, a few heads at a time so that
scores stay in the cache, short sequences side by side, and a backward pass written by hand.

Entity-aware self-attention (LUKE, section 3.3): a token i gives a different query to words and to entities,

    score(i, j) = k_j . q_i / sqrt(d),   q_i = Q_w2w x_i   i word,   j word          "query against word keys"
                                               Q_w2e x_i   i word,   j entity        "query against entity keys"
                                               Q_e2w x_i   i entity, j word
                                               Q_e2e x_i   i entity, j entity
    out_i = sum_j softmax_j(score(i, :))_j v_j            over the words and the entities of i's sequence together

so every row carries two queries, `q_word` for word keys (w2w or e2w) and `q_entity` for entity keys (w2e or e2e), and
keys and values are shared. Ordinary attention is the case q_entity = q_word, written q_entity=None.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from luke_mini import ops_cross_entropy
from luke_mini.packing import Group, PackedBatch

PART_BYTES = 5 << 18  # float32 scores that plain attention works on at a time: two such buffers fit a core's cache
KEPT_SIZE = 256  # rows of a sequence up to which its probabilities are kept for the backward pass
_choice = "auto"


def use_kernels(choice: str) -> None:
    """From now on: "triton" or "plain" everywhere, or "auto", as at the start: Triton on a GPU, plain elsewhere."""
    global _choice
    if choice not in ("auto", "triton", "plain"):
        raise ValueError(f"use_kernels({choice!r}): expected auto, triton or plain")
    _choice = choice


def form_on(device: torch.device) -> str:
    """What attention and cross-entropy run as on a device: "triton" or "plain"."""
    return _choice if _choice != "auto" else "triton" if device.type == "cuda" else "plain"


def sequence_rows(batch: PackedBatch) -> list[tuple[slice, slice]]:
    """For every sequence of a packed batch, the slice of its word rows and the slice of its entity rows."""
    rows, word, entity = [], 0, batch.n_words
    for n_word, n_entity in zip(batch.word_lengths, batch.entity_lengths):
        rows.append((slice(word, word + n_word), slice(entity, entity + n_entity)))
        word, entity = word + n_word, entity + n_entity
    return rows


def entity_attention_equations(
    q_word: Tensor, q_entity: Tensor | None, key: Tensor, value: Tensor, batch: PackedBatch
) -> Tensor:
    """The specification: the equations above, transcribed. Arguments and result as in `entity_attention`."""
    q_entity = q_word if q_entity is None else q_entity
    out = torch.zeros_like(value)
    for words, entities in sequence_rows(batch):
        w2w = torch.einsum("ihd,jhd->hij", q_word[words], key[words])
        w2e = torch.einsum("ihd,jhd->hij", q_entity[words], key[entities])
        e2w = torch.einsum("ihd,jhd->hij", q_word[entities], key[words])
        e2e = torch.einsum("ihd,jhd->hij", q_entity[entities], key[entities])
        scores = torch.cat([torch.cat([w2w, w2e], dim=2), torch.cat([e2w, e2e], dim=2)], dim=1)
        probs = torch.softmax(scores / math.sqrt(key.shape[2]), dim=2)
        mixed = torch.einsum("hij,jhd->ihd", probs, torch.cat([value[words], value[entities]]))
        rows = torch.cat([torch.arange(span.start, span.stop, device=key.device) for span in (words, entities)])
        out = out.index_copy(0, rows, mixed)
    return out


def entity_attention(
    q_word: Tensor,
    q_entity: Tensor | None,
    key: Tensor,
    value: Tensor,
    batch: PackedBatch,
    dropout: float = 0.0,
) -> Tensor:
    """Entity-aware attention on a packed batch.

    q_word, q_entity, key, value [rows, head, head_dim]: all words of the batch, sequence after sequence, then all
    entities. q_entity=None is ordinary attention. dropout: probability of dropping an attention weight (0 when not
    training). Returns [rows, head, head_dim]; a row only ever sees the rows of its own sequence.
    """
    if form_on(key.device) == "triton":
        from kernels import entity_attention as fused  # here: a CPU does without Triton

        seed = int(torch.randint(2**62, ())) if dropout else 0  # so that torch.manual_seed rules
        layout = fused.Packing(batch.segments, max(batch.word_lengths), max(batch.entity_lengths))
        return fused.entity_attention(q_word, q_entity, key, value, layout, dropout, seed)
    return PackedAttention.apply(q_word, q_entity, key, value, batch, dropout)


class PackedAttention(torch.autograd.Function):
    """Plain attention, one group of similar sequences at a time, and of a group as many (sequence, head) pairs together
    as have scores that fit a core's cache. Of long sequences nothing is kept of the scores: to compute them again costs
    less than to write them to memory and read them back. Of short ones, P is small and is kept.

    Backward, with S the scaled scores, P = softmax(S), M the dropout mask already divided by the keep probability, G
    the gradient of the output O (letters as in FlashAttention's appendix):

        dV = (P M)^T G        dP = (G V^T) M        delta_i = sum_j P_ij dP_ij
        dS = P (dP - delta)   dQ = dS K / sqrt(d)   dK = dS^T Q / sqrt(d)

    where word columns of dS meet q_word and entity columns meet q_entity. delta is also G_i . O_i, which needs no pass
    over P. But where a weight is nearly 1, dP - delta cancels, and only of the same dP do the rounding errors cancel,
    too: with G_i . O_i, gradients of queries and keys lost up to 17 times as much in float32.
    """

    @staticmethod
    def forward(ctx, q_word, q_entity, key, value, batch, dropout):
        out = torch.empty_like(value, memory_format=torch.contiguous_format)
        seed, kept = int(torch.randint(2**62, ())) if dropout else 0, []
        memory = _memory(5, batch, key)
        for number, group in enumerate(batch.groups):
            qw, qe, k, v = (_take(x, group, m) for x, m in zip((q_word, q_entity, key, value), memory))
            mixed = memory[4][: v.numel()].view_as(v)
            keep = group.size <= KEPT_SIZE
            space = k.new_empty(len(k), group.size, group.size) if keep else _buffer(group, k)
            for part, hidden in _parts(group, k):
                p = space[part] if keep else space[: part.stop - part.start]
                _probabilities(qw[part], None if qe is None else qe[part], k[part], group.n_word, hidden, p)
                if dropout:
                    p = p * dropout_mask(p, dropout, hash((seed, number, part.start)))
                torch.bmm(p, v[part], out=mixed[part])
            _put(out, mixed, group)
            kept += [space] if keep else []
        ctx.save_for_backward(q_word, q_entity, key, value, *kept)
        ctx.batch, ctx.dropout, ctx.seed = batch, dropout, seed
        return out

    @staticmethod
    def backward(ctx, grad):
        q_word, q_entity, key, value, *kept = ctx.saved_tensors
        kept = iter(kept)
        scale = key.shape[2] ** -0.5
        dq_word, dq_entity, dk, dv = (
            None if x is None else torch.empty_like(x, memory_format=torch.contiguous_format)
            for x in (q_word, q_entity, key, value)
        )
        memory = _memory(9, ctx.batch, key)
        for number, group in enumerate(ctx.batch.groups):
            qw, qe, k, v, g = (_take(x, group, m) for x, m in zip((q_word, q_entity, key, value, grad), memory))
            if group.is_row is not None:  # places of padding repeat some row: they must not count a second time
                g *= group.is_row.repeat_interleave(key.shape[1], 0)[:, :, None]
            n_word = group.size if qe is None else group.n_word
            grad_qw, grad_qe, grad_k, grad_v = (m[: k.numel()].view_as(k) for m in memory[5:])
            is_kept = group.size <= KEPT_SIZE
            space, buffer = next(kept) if is_kept else _buffer(group, k), _buffer(group, k)
            for part, hidden in _parts(group, k):
                p = space[part] if is_kept else space[: part.stop - part.start]
                if not is_kept:
                    _probabilities(qw[part], None if qe is None else qe[part], k[part], group.n_word, hidden, p)
                ds = torch.bmm(g[part], v[part].mT, out=buffer[: len(p)])  # dP, turned into dS in place
                if ctx.dropout:
                    mask = dropout_mask(p, ctx.dropout, hash((ctx.seed, number, part.start)))
                    ds.mul_(mask)
                    torch.bmm((p * mask).mT, g[part], out=grad_v[part])
                else:
                    torch.bmm(p.mT, g[part], out=grad_v[part])
                torch._softmax_backward_data(ds, p, 2, p.dtype, grad_input=ds)  # P (dP - delta)
                scaled_product(ds[:, :, :n_word], k[part, :n_word], scale, grad_qw[part])
                scaled_product(ds[:, :, :n_word].mT, qw[part], scale, grad_k[part, :n_word])
                if qe is not None:
                    scaled_product(ds[:, :, n_word:], k[part, n_word:], scale, grad_qe[part])
                    scaled_product(ds[:, :, n_word:].mT, qe[part], scale, grad_k[part, n_word:])
            for whole, rows in ((dq_word, grad_qw), (dq_entity, grad_qe), (dk, grad_k), (dv, grad_v)):
                if whole is not None:
                    _put(whole, rows, group)
        return dq_word, dq_entity, dk, dv, None, None


def _parts(group: Group, key: Tensor) -> list[tuple[slice, Tensor | None]]:
    """The (sequence, head) pairs of a group whose scores stay in a core's cache together, and which of their keys are
    padding (bool, to broadcast over the scores; None: no padding)."""
    step = len(_buffer(group, key))
    parts = [slice(i, min(i + step, len(key))) for i in range(0, len(key), step)]
    if group.is_row is None:
        return [(part, None) for part in parts]
    hidden = ~group.is_row.repeat_interleave(len(key) // len(group.is_row), 0)[:, None, :]
    return [(part, hidden[part]) for part in parts]


def _buffer(group: Group, key: Tensor) -> Tensor:
    """Memory for the scores of one part and then of the next: new memory costs more than the product that fills it."""
    pairs = torch.get_num_threads() * PART_BYTES // (4 * group.size**2)  # each thread has a cache of its own
    return key.new_empty(min(len(key), max(1, pairs)), group.size, group.size)


def _probabilities(qw, qe, k: Tensor, n_word: int, hidden: Tensor | None, scores: Tensor) -> None:
    """Fills `scores` with P [pairs, size, size]."""
    scale = k.shape[2] ** -0.5
    # All keys are scored with the word query in one product; the few entity columns are then overwritten.
    scaled_product(qw, k.mT, scale, scores)
    if qe is not None and n_word < k.shape[1]:
        scaled_product(qe, k[:, n_word:].mT, scale, scores[:, :, n_word:])
    if hidden is not None:
        scores.masked_fill_(hidden, -math.inf)
    torch.softmax(scores, dim=2, out=scores)


def scaled_product(a: Tensor, b: Tensor, scale: float, out: Tensor) -> None:
    """out = scale * a b, batch by batch; the scale costs nothing inside of the product."""
    torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)


def _memory(pieces: int, batch: PackedBatch, key: Tensor) -> Tensor:
    """Memory for the rows of any one group, in some pieces. Groups take turns: new memory costs more than a copy."""
    _, heads, head_dim = key.shape
    return key.new_empty(pieces, max(len(group.rows) for group in batch.groups) * heads * head_dim)


def _take(x: Tensor | None, group: Group, memory: Tensor) -> Tensor | None:
    """The rows of a group's sequences, copied: [rows, head, head_dim] -> [G * head, size, head_dim], contiguous."""
    if x is None:
        return None
    _, heads, head_dim = x.shape
    shape = len(group.rows) // group.size * heads, group.size, head_dim
    taken = memory[: math.prod(shape)].view(shape)
    if len(group.rows) == group.size:  # one sequence: two runs of rows, each copied at once
        for places, rows in _runs(group):
            taken[:, places] = x[rows].transpose(0, 1)
    else:
        rows = x.index_select(0, group.rows).view(-1, group.size, heads, head_dim)
        taken.view(-1, heads, group.size, head_dim).copy_(rows.transpose(1, 2))
    return taken


def _put(whole: Tensor, part: Tensor, group: Group) -> None:
    """The inverse of `_take`, into the rows of `whole`; places of padding are dropped."""
    _, heads, head_dim = whole.shape
    if len(group.rows) == group.size:
        for places, rows in _runs(group):
            whole[rows] = part[:, places].transpose(0, 1)
        return
    rows = part.view(-1, heads, group.size, head_dim).transpose(1, 2)
    if group.is_row is None:
        whole.index_copy_(0, group.rows, rows.reshape(-1, heads, head_dim))
    else:
        whole[group.rows[group.is_row.view(-1)]] = rows[group.is_row]


def _runs(group: Group) -> list[tuple[slice, slice]]:
    """For a group of one sequence, the places and the packed rows of its words and of its entities."""
    places = slice(0, group.n_word), slice(group.n_word, group.size)
    firsts = [int(group.rows[span.start]) for span in places if span.start < span.stop]
    return [(span, slice(first, first + span.stop - span.start)) for span, first in zip(places, firsts)]


def dropout_mask(like: Tensor, p: float, seed: int | None = None) -> Tensor:
    """0 with probability p, else 1 / (1 - p), in the shape and type of `like`; a function of the seed, drawn if not
    given from torch's generator, so that `torch.manual_seed` rules.

    On a CPU 16 random bits an element decide (p is met to 1 in 65536), which is several times faster than `bernoulli_`.
    """
    seed = int(torch.randint(2**62, ())) if seed is None else seed % 2**62
    if like.device.type != "cpu":
        generator = torch.Generator(like.device).manual_seed(seed)
        return torch.empty_like(like).bernoulli_(1 - p, generator=generator).div_(1 - p)
    bits = np.frombuffer(np.random.Generator(np.random.SFC64(seed)).bytes(2 * like.numel()), dtype=np.uint16)
    keep = torch.from_numpy(bits >= round(p * 65536)).view(like.shape)
    return keep.to(like.dtype).mul_(1 / (1 - p))


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout as `torch.nn.functional.dropout`, with the faster mask on a CPU."""
    if not training or p == 0:
        return x
    return F.dropout(x, p) if x.device.type != "cpu" else x * dropout_mask(x, p)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a linear classifier on selected rows.

    hidden [rows, features], weight [classes, features], bias [classes], target int64 [rows].
    Returns the loss of every row (float32 [rows]) and whether the best class is the target (bool [rows]).
    """
    form = ops_cross_entropy
    if form_on(hidden.device) == "triton":
        from kernels import linear_cross_entropy as form
    loss, hit, _ = form.linear_cross_entropy(hidden, weight, bias, target)
    return loss, hit


def mean_of_rows(table: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
    """Means of ragged groups of table rows: group k averages table[indices[offsets[k]:offsets[k + 1]]].

    table [n, features], indices int64 [P], offsets int64 [groups + 1] -> [groups, features]. An empty group: zeros.
    """
    return F.embedding_bag(indices, table, offsets, mode="mean", include_last_offset=True)

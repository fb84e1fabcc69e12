"""The operations worth fusing, as plain PyTorch that runs everywhere; on a GPU, the Triton kernels that do the same.

`entity_attention_equations` is the specification: the paper's equations, one sequence and one pair of kinds at a time,
differentiated by autograd. `entity_attention` is what the model calls: the same numbers, with the probabilities as the
only large buffer, short sequences side by side and a backward pass written by hand.

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
    """Plain attention, one group of similar sequences at a time, saving the probabilities and nothing else that large.

    Backward, with P the probabilities, M the dropout mask already divided by the keep probability, G the gradient of
    the output, S the scaled scores (letters as in FlashAttention's appendix):

        dV = (P M)^T G        dP = (G V^T) M        delta_i = sum_j P_ij dP_ij = G_i . O_i
        dS = P (dP - delta)   dQ = dS K / sqrt(d)   dK = dS^T Q / sqrt(d)

    where word columns of dS meet q_word and entity columns meet q_entity. delta needs no pass over P: dP_ij carries M,
    hence sum_j P_ij dP_ij = G_i . sum_j (P M)_ij v_j = G_i . O_i.
    """

    @staticmethod
    def forward(ctx, q_word, q_entity, key, value, batch, dropout):
        out = torch.empty_like(value, memory_format=torch.contiguous_format)
        saved = []
        for group in batch.groups:
            qw, k, v = (_take(x, group) for x in (q_word, key, value))  # [G * head, size, head_dim]
            # All keys are scored with the word query in one product; the few entity columns are then overwritten.
            probs = torch.bmm(qw, k.mT)  # [G * head, size, size]
            if q_entity is not None and group.n_word < group.size:
                probs[:, :, group.n_word :] = torch.bmm(_take(q_entity, group), k[:, group.n_word :].mT)
            probs.mul_(1 / math.sqrt(k.shape[2]))
            if group.is_row is not None:
                by_sequence = probs.view(len(group.is_row), -1, group.size)
                by_sequence.masked_fill_(~group.is_row[:, None, :], -math.inf)
            torch.softmax(probs, dim=2, out=probs)
            mask = dropout_mask(probs, dropout) if dropout else None
            _put(out, torch.bmm(probs if mask is None else probs * mask, v), group)
            saved += [probs] if mask is None else [probs, mask]
        ctx.save_for_backward(q_word, q_entity, key, value, out, *saved)
        ctx.batch, ctx.dropout = batch, dropout
        return out

    @staticmethod
    def backward(ctx, grad):
        q_word, q_entity, key, value, out, *saved = ctx.saved_tensors
        saved = iter(saved)
        dq_word, dk, dv = torch.empty_like(out), torch.empty_like(out), torch.empty_like(out)
        dq_entity = None if q_entity is None else torch.zeros_like(out)
        for group in ctx.batch.groups:
            n_word = group.n_word
            probs = next(saved)
            mask = next(saved) if ctx.dropout else None
            qw, k, v, g, o = (_take(x, group) for x in (q_word, key, value, grad, out))
            if group.is_row is not None:  # places of padding repeat some row: they must not count a second time
                g = g.view(len(group.is_row), -1, group.size, g.shape[2]) * group.is_row[:, None, :, None]
                g = g.view_as(o)
            grad_v = torch.bmm((probs if mask is None else probs * mask).mT, g)
            scores = torch.bmm(g, v.mT)  # dP, turned into dS in place
            if mask is not None:
                scores.mul_(mask)
            scores.sub_((g * o).sum(dim=2, keepdim=True)).mul_(probs).mul_(1 / math.sqrt(k.shape[2]))
            if q_entity is None:
                grad_qw, grad_k = torch.bmm(scores, k), torch.bmm(scores.mT, qw)
            else:
                qe = _take(q_entity, group)
                word_scores, entity_scores = scores[:, :, :n_word], scores[:, :, n_word:]
                grad_qw = torch.bmm(word_scores, k[:, :n_word])
                grad_k = torch.cat([torch.bmm(word_scores.mT, qw), torch.bmm(entity_scores.mT, qe)], dim=1)
                _put(dq_entity, torch.bmm(entity_scores, k[:, n_word:]), group)
            for whole, part in ((dq_word, grad_qw), (dk, grad_k), (dv, grad_v)):
                _put(whole, part, group)
        return dq_word, dq_entity, dk, dv, None, None


def _take(x: Tensor, group: Group) -> Tensor:
    """The rows of a group's sequences: [rows, head, head_dim] -> [G * head, size, head_dim], contiguous."""
    _, heads, head_dim = x.shape
    taken = x.index_select(0, group.rows).view(-1, group.size, heads, head_dim)
    return taken.transpose(1, 2).reshape(-1, group.size, head_dim)


def _put(whole: Tensor, part: Tensor, group: Group) -> None:
    """The inverse of `_take`, into the rows of `whole`; places of padding are dropped."""
    _, heads, head_dim = whole.shape
    rows = part.view(-1, heads, group.size, head_dim).transpose(1, 2)
    if group.is_row is None:
        whole.index_copy_(0, group.rows, rows.reshape(-1, heads, head_dim))
    else:
        whole[group.rows[group.is_row.view(-1)]] = rows[group.is_row]


def dropout_mask(like: Tensor, p: float) -> Tensor:
    """0 with probability p, else 1 / (1 - p), in the shape and type of `like`; drawn from torch's generator.

    On a CPU 16 random bits an element decide (p is met to 1 in 65536), which is several times faster than
    `bernoulli_`: one draw from torch's generator seeds a stream of bytes, so `torch.manual_seed` still rules.
    """
    if like.device.type != "cpu":
        return torch.empty_like(like).bernoulli_(1 - p).div_(1 - p)
    seed = int(torch.randint(2**62, ()))
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

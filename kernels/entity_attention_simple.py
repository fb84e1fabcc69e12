"""Entity-aware attention, first rung: the whole idea in three short kernels. `entity_attention.py` is the fast form.

LUKE gives every row (a word or an entity) two queries, one for word keys and one for entity keys: w2w and w2e if the
row is a word, e2w and e2e if it is an entity (Yamada et al. 2020, section 3). Keys and values are shared. A program of
the forward kernel owns a strip of rows and walks the keys from left to right:

                      word keys           entity keys
                    .-------------------.-------------.
      word rows     |  q_word (w2w)     |  q_entity   |      first loop with q_word, second loop with q_entity; maximum,
                    |                   |   (w2e)     |      sum and output go through both: one softmax over all keys.
      entity rows   |  q_word (e2w)     |   (e2e)     |      A strip may hold words and entities, as each row brings
                    '-------------------'-------------'      its own two queries; a tile of keys has one kind.

Only one tile of scores exists at a time. Of a row and head, memory gets the output o and one number, lse:

    s_ij = scale * q_i . k_j       q_i = q_word_i if j is a word, q_entity_i if j is an entity; scale = 1/sqrt(head_dim)
    p_ij = exp(s_ij - lse_i)       lse_i = log sum_j exp(s_ij)
    o_i  = sum_j p_ij v_j          j over all rows of the row's own sequence

*Backward*, from o and its gradient do; p is computed again, from lse:

    dv_j    = sum_i p_ij do_i
    dp_ij   = do_i . v_j
    delta_i = sum_j p_ij dp_ij = do_i . o_i                             the softmax's correction, from o and do alone
    ds_ij   = p_ij (dp_ij - delta_i)
    dq_word_i = scale * sum over words j of ds_ij k_j                   dq_entity_i: the same over entities j
    dk_j    = scale * sum_i ds_ij q_i                                   q_i: the query used with key j

`query_gradient_kernel` (strips of rows) writes delta and both dq; then `key_gradient_kernel` (strips of keys) reads
delta and writes dk and dv. One program writes each number: no atomic additions, every run is bit-equal.

*Triton in ten lines.* A kernel is what one program does, a function marked `@triton.jit`; it may call others so marked.
`kernel[grid](...)` starts a program for every point of the grid, in any order, and `tl.program_id` says which one this
is: here strip, head, sequence. A program computes with whole tiles: `tl.arange(0, 64)` is a vector of 64 numbers,
`x[:, None]` broadcasts as in NumPy, `tl.dot` is a matmul of two tiles on the tensor cores ("ieee": float32 unrounded).
The sides of a tile are powers of two that the compiler knows, `tl.constexpr`. Threads (num_warps * 32) and on-chip
memory behind a tile are the compiler's business, also to load ahead in a loop (num_stages). A tensor comes as a pointer
to its first number; a pointer plus a tile of offsets is a tile of addresses, for `tl.load` and `tl.store`. Where a mask
is False nothing is read or written, and a load gives `other`. Offsets that may pass 2**31 are int64. Loops run on the
GPU, sums in registers; only `tl.static_range` is written out by the compiler, its variable a constant in every copy.
With TRITON_INTERPRET=1 the same kernel runs on a CPU, in NumPy, and one may print in it.

*Shapes*: segments int32 [batch, 4]: a sequence's first word row, words, first entity row, entities. q_word, q_entity,
key, value, out and gradients [rows, heads, HEAD_DIM], contiguous: `stride` = heads * HEAD_DIM, of which a program sees
the columns of its head, `channel`. lse (base 2: a GPU has exp2, not exp) and delta [heads, rows]. The grid is made for
the longest sequence; a program that lies behind its sequence's end returns. *Relative error* as the fast form's.
"""

import torch
import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
TILE = dict(BLOCK_M=64, BLOCK_N=64, num_warps=4, num_stages=2)  # rows of a strip, keys of a tile


@triton.jit
def _segment(segments, sequence):
    row = segments + 4 * sequence
    return tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)


@triton.jit
def _rows(segment, start, BLOCK: tl.constexpr):
    """BLOCK rows of a sequence from its row number `start` on, words before entities, and which of them exist."""
    word_first, n_words, entity_first, n_entities = segment
    number = start + tl.arange(0, BLOCK)
    row = tl.where(number < n_words, word_first + number, entity_first + number - n_words)
    return row.to(tl.int64), number < n_words + n_entities


@triton.jit
def _keys(first, start, count, BLOCK: tl.constexpr):
    """The same of a run of `count` keys of one kind that begins at row `first`."""
    number = start + tl.arange(0, BLOCK)
    return (first + number).to(tl.int64), number < count


@triton.jit
def load(tensor, row, exists, stride, channel):
    return tl.load(tensor + row[:, None] * stride + channel[None, :], mask=exists[:, None], other=0.0)


@triton.jit
def store(tensor, row, exists, stride, channel, tile):
    addresses = tensor + row[:, None] * stride + channel[None, :]
    tl.store(addresses, tile.to(tensor.dtype.element_ty), mask=exists[:, None])


@triton.jit
def forward_kernel(q_word, q_entity, key, value, out, lse, segments, stride, n_rows, scale,
                   HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """out and lse of BLOCK_M rows of one sequence and head: a running softmax. acc = sum of p v, row_sum = sum of p, of
    the keys so far and relative to their maximum."""
    start, head, segment = tl.program_id(0) * BLOCK_M, tl.program_id(1), _segment(segments, tl.program_id(2))
    word_first, n_words, entity_first, n_entities = segment
    if start >= n_words + n_entities:
        return
    row, exists = _rows(segment, start, BLOCK_M)
    channel = head * HEAD_DIM + tl.arange(0, HEAD_DIM)
    acc, row_sum = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32), tl.zeros([BLOCK_M], tl.float32)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    for ENTITIES in tl.static_range(2):  # first the words as keys, then the entities
        q = load(q_entity if ENTITIES else q_word, row, exists, stride, channel)
        first, count = (entity_first, n_entities) if ENTITIES else (word_first, n_words)
        for number in range(0, count, BLOCK_N):
            key_row, key_exists = _keys(first, number, count, BLOCK_N)
            k, v = load(key, key_row, key_exists, stride, channel), load(value, key_row, key_exists, stride, channel)
            s = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2_E)  # exp(x) = exp2(x log2 e)
            s = tl.where(key_exists[None, :], s, float("-inf"))
            new_max = tl.maximum(row_max, tl.max(s, 1))
            p = tl.exp2(s - new_max[:, None])
            rescale = tl.exp2(row_max - new_max)  # the sums so far were relative to the old maximum; 0 at first
            row_sum = row_sum * rescale + tl.sum(p, 1)
            acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None], input_precision="ieee")
            row_max = new_max
    store(out, row, exists, stride, channel, acc / row_sum[:, None])
    tl.store(lse + head.to(tl.int64) * n_rows + row, row_max + tl.log2(row_sum), mask=exists)


@triton.jit
def query_gradient_kernel(q_word, q_entity, key, value, out, d_out, lse, delta, dq_word, dq_entity, segments, stride,
                          n_rows, scale, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """delta, dq_word and dq_entity of BLOCK_M rows of one sequence and head."""
    start, head, segment = tl.program_id(0) * BLOCK_M, tl.program_id(1), _segment(segments, tl.program_id(2))
    word_first, n_words, entity_first, n_entities = segment
    if start >= n_words + n_entities:
        return
    row, exists = _rows(segment, start, BLOCK_M)
    channel, statistics = head * HEAD_DIM + tl.arange(0, HEAD_DIM), head.to(tl.int64) * n_rows + row
    o, do = load(out, row, exists, stride, channel), load(d_out, row, exists, stride, channel)
    row_delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    tl.store(delta + statistics, row_delta, mask=exists)
    row_lse = tl.load(lse + statistics, mask=exists, other=float("inf"))
    for ENTITIES in tl.static_range(2):
        q = load(q_entity if ENTITIES else q_word, row, exists, stride, channel)
        first, count = (entity_first, n_entities) if ENTITIES else (word_first, n_words)
        dq = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
        for number in range(0, count, BLOCK_N):
            key_row, key_exists = _keys(first, number, count, BLOCK_N)
            k, v = load(key, key_row, key_exists, stride, channel), load(value, key_row, key_exists, stride, channel)
            p = tl.exp2(tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2_E) - row_lse[:, None])
            dp = tl.dot(do, tl.trans(v), input_precision="ieee")
            ds = tl.where(key_exists[None, :], p * (dp - row_delta[:, None]), 0.0)  # a missing key: p may be infinite
            dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
        store(dq_entity if ENTITIES else dq_word, row, exists, stride, channel, dq * scale)


@triton.jit
def key_gradient_kernel(q_word, q_entity, key, value, d_out, lse, delta, dk, dv, segments, stride, n_rows, scale,
                        HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """dk and dv of BLOCK_N words or BLOCK_N entities of one sequence and head; scores are transposed, [keys, rows]."""
    start, head, segment = tl.program_id(0) * BLOCK_N, tl.program_id(1), _segment(segments, tl.program_id(2))
    word_first, n_words, entity_first, n_entities = segment
    query, first, count, entity_start = q_word, word_first, n_words, tl.cdiv(n_words, BLOCK_N) * BLOCK_N
    if start >= entity_start:  # behind the strips of words follow those of entities
        query, first, count, start = q_entity, entity_first, n_entities, start - entity_start
    if start >= count:
        return
    key_row, key_exists = _keys(first, start, count, BLOCK_N)
    channel, statistics = head * HEAD_DIM + tl.arange(0, HEAD_DIM), head.to(tl.int64) * n_rows
    k, v = load(key, key_row, key_exists, stride, channel), load(value, key_row, key_exists, stride, channel)
    sum_dk, sum_dv = tl.zeros([BLOCK_N, HEAD_DIM], tl.float32), tl.zeros([BLOCK_N, HEAD_DIM], tl.float32)
    for number in range(0, n_words + n_entities, BLOCK_M):
        row, exists = _rows(segment, number, BLOCK_M)
        q, do = load(query, row, exists, stride, channel), load(d_out, row, exists, stride, channel)
        row_lse = tl.load(lse + statistics + row, mask=exists, other=float("inf"))  # a missing row: exp2(s - inf) = 0
        row_delta = tl.load(delta + statistics + row, mask=exists, other=0.0)
        p = tl.exp2(tl.dot(k, tl.trans(q), input_precision="ieee") * (scale * LOG2_E) - row_lse[None, :])
        sum_dv = tl.dot(p.to(do.dtype), do, sum_dv, input_precision="ieee")
        ds = p * (tl.dot(v, tl.trans(do), input_precision="ieee") - row_delta[None, :])
        sum_dk = tl.dot(ds.to(q.dtype), q, sum_dk, input_precision="ieee")
    store(dk, key_row, key_exists, stride, channel, sum_dk * scale)
    store(dv, key_row, key_exists, stride, channel, sum_dv)


class SimpleAttention(torch.autograd.Function):
    """`SimpleAttention.apply(q_word, q_entity, key, value, segments)`; segments are on the same device."""

    @staticmethod
    def forward(ctx, q_word, q_entity, key, value, segments):
        (n_rows, heads, head_dim), longest = q_word.shape, int((segments[:, 1] + segments[:, 3]).max())
        tensors = [x.contiguous() for x in (q_word, q_entity, key, value)]
        out, lse = torch.empty_like(tensors[0]), q_word.new_empty(heads, n_rows, dtype=torch.float32)
        ctx.sizes = segments, heads * head_dim, n_rows, head_dim**-0.5, head_dim
        ctx.save_for_backward(*tensors, out, lse)
        ctx.grid = triton.cdiv(longest, TILE["BLOCK_M"]), heads, len(segments)
        forward_kernel[ctx.grid](*tensors, out, lse, *ctx.sizes, **TILE)
        return out

    @staticmethod
    def backward(ctx, d_out):
        *tensors, out, lse = ctx.saved_tensors
        delta, d_out = torch.empty_like(lse), d_out.contiguous()
        dq_word, dq_entity, dk, dv = (torch.empty_like(x) for x in tensors)
        inputs = *tensors, out, d_out, lse, delta, dq_word, dq_entity
        query_gradient_kernel[ctx.grid](*inputs, *ctx.sizes, **TILE)
        grid = ctx.grid[0] + 1, *ctx.grid[1:]  # the words' last tile may be cut, and then the entities' as well
        key_gradient_kernel[grid](*tensors, d_out, lse, delta, dk, dv, *ctx.sizes, **TILE)
        return dq_word, dq_entity, dk, dv, None

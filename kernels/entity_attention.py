"""Entity-aware attention, the fast form. Picture, equations and kernels are those of `entity_attention_simple.py`, to
be read first; here is what this file adds.

*Three parts*. A loop over keys, or over rows, has three parts: full tiles of words; the rest of the words; entities.
Full tiles need no mask; on sm_90 and newer a tensor descriptor fetches them: one thread asks the copy engine for the
whole tile. The others are masked, read by pointers, and of keys the tiles are smaller. Rows of another sequence are
never read, a NaN there does not spread.

*Dropout*. With z_ij a random 0 or 1 and c = 1 / (share of ones):

    o_i = c * sum_j z_ij p_ij v_j       dv_j = c * sum_i z_ij p_ij do_i       dp_ij = c * z_ij (do_i . v_j)

c is constant and stays outside the loops: they compute ds / c = p (z (do . v) - delta / c); the result is multiplied
by c at the end. z is Philox2x32 with 7 rounds; its counter is the pair's position and (sequence, head), each xor one
half of the seed. One call makes 64 bits, four draws of 16, for the pairs (r, c), (r, c+8), (r+8, c), (r+8, c+8): in a
tensor-core result, and in its transpose, one thread has these four in its registers. So making the mask moves no data
and does not depend on the tile size, and the backward pass makes the same mask again. Positions within a sequence count
words from 0, entities from the number of words rounded up to 16, so that no block of 16 covers both. With 37 words, 5
entities:

      position    0 ............ 36     37 .. 47    48 ............. 52
      row         word_first + 0..36    no row      entity_first + 0..4

*What each addition buys* on sm_90 (`bench_kernels.py --rungs`). Instructions per score of the forward kernel, of the
queries' and of the keys' gradient; programs that a processor holds; bytes asked for, in minima, forward and backward:

      first rung             13.4  12.6  12.9     3 3 2     4.2  4.6
      full tiles unmasked     9.4   7.9   9.5     3 3 2     4.2  4.6
      tensor descriptors      8.8   7.3   9.5     3 3 2     4.2  4.6
      each kernel's tile      6.6   6.2   9.5     2 2 2     2.6  4.6
      loads further ahead     6.6   6.2   9.8     2 2 2     2.6  4.6     asked for a pass before, in dk two passes

*Tried, but costly* (instructions per score): tl.rand for dropout: 62 to 66 in all (forward) instead of 17 to 20; making
the mask with tl.join: +11 (dk) on sm_80, where the compiler mistakes a join before a matmul for the unpacking of 4-bit
numbers, and shuffles; the seed as Philox's key: spills on sm_90; the words' rest in one tile: spills on sm_100.

*Limits*: head_dim 32, 64; 131,072 positions per sequence (dropout's counter); differentiable once. *Relative error*
against float64 on the same inputs: in float32 that of plain PyTorch (2e-7); in float16 (3e-4) and bfloat16 (3e-3) less
than one rounding of the type. If a row has nearly all its weight on one key, dp - delta nearly cancels, and delta from
o loses float32's last digits; `ops_cpu.py`, which has p, sums over it instead. *Tested with* triton 3.7.1 in the
interpreter and as machine code for sm_80, sm_90, sm_100; not yet run on a GPU. For 512 words and 64
entities, the layer in transformers moves 30 times the bytes forward, 15 times backward.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.target_info import cuda_capability_geq
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.entity_attention_simple import LOG2_E, load, store


@triton.jit
def _load_rows(source, first, start, count, column, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, MASKED: tl.constexpr,
               TMA: tl.constexpr):
    """[ROWS, HEAD_DIM] of the run of `count` rows that begins at row `first`, from its row number `start` on. source: a
    pointer to the head's first column, a descriptor, a stride. MASKED: rows past the end are zero and not read."""
    pointer, tiles, stride = source
    if TMA and not MASKED:
        return tiles.load([first + start, column])
    lanes = tl.arange(0, ROWS)
    base = pointer + (first + start).to(tl.int64) * stride
    offsets = lanes[:, None] * stride + tl.arange(0, HEAD_DIM)[None, :]
    if MASKED:
        return tl.load(base + offsets, mask=(lanes < count - start)[:, None], other=0.0)
    return tl.load(base + offsets)


@triton.jit
def _segment(segments, sequence):
    """Of a sequence: first word row, number of words, first entity row, number of entities, position of the first."""
    row = segments + 4 * sequence
    n_words = tl.load(row + 1)
    return tl.load(row), n_words, tl.load(row + 2), tl.load(row + 3), (n_words + 15) // 16 * 16


@triton.jit
def _rows(segment, position, BLOCK_M: tl.constexpr):
    """The rows [BLOCK_M] (int64) at positions position, position + 1, ..., and which of these have a row."""
    word_first, n_words, entity_first, n_entities, entity_position = segment
    position += tl.arange(0, BLOCK_M)
    is_word = position < n_words
    row = tl.where(is_word, word_first + position, entity_first + position - entity_position)
    exists = is_word | ((position >= entity_position) & (position < entity_position + n_entities))
    return row.to(tl.int64), exists


@triton.jit
def _part(segment, PART: tl.constexpr, BLOCK: tl.constexpr):
    """Part of a sequence, a piece of its run of words or entities: numbers, in the run, of its first row and of the one
    behind its last; the run's first row, number of rows, first position."""
    word_first, n_words, entity_first, n_entities, entity_position = segment
    begin, end, first, count, position = 0, n_words // BLOCK * BLOCK, word_first, n_words, 0
    if PART == 1:
        begin, end = end, n_words
    if PART == 2:
        end, first, count, position = n_entities, entity_first, n_entities, entity_position
    return begin, end, first, count, position


@triton.jit
def _random(seed, sequence, head, keep):
    """Two words for dropout's counter, and `keep`. An odd factor tells neighbouring seeds apart in both words."""
    start = tl.load(seed).to(tl.uint64) * 0x9E3779B97F4A7C15
    stream = sequence * tl.num_programs(1) + head
    return start.to(tl.uint32), (start >> 32).to(tl.uint32) ^ stream.to(tl.uint32), keep


@triton.jit
def _kept(random, first, second, FIRST: tl.constexpr, SECOND: tl.constexpr, FIRST_IS_QUERY: tl.constexpr):
    """Dropout: which scores of the tile [FIRST, SECOND] at positions (first, second), multiples of 16, are kept.
    Of the six axes below, 1 and 4 are the pairs (r, r + 8) and (c, c + 8), which share one call of the generator."""
    low_start, high_start, keep = random
    a = tl.reshape((first // 2 + tl.arange(0, FIRST // 2)).to(tl.uint32), [FIRST // 16, 1, 8, 1, 1, 1])
    b = tl.reshape((second // 2 + tl.arange(0, SECOND // 2)).to(tl.uint32), [1, 1, 1, SECOND // 16, 1, 8])
    upper_a = tl.reshape(tl.arange(0, 2) == 1, [1, 2, 1, 1, 1, 1])
    upper_b = tl.reshape(tl.arange(0, 2) == 1, [1, 1, 1, 1, 2, 1])
    if FIRST_IS_QUERY:
        low, upper_row, upper_column = (a << 16) ^ low_start ^ b, upper_a, upper_b
    else:
        low, upper_row, upper_column = (b << 16) ^ low_start ^ a, upper_b, upper_a
    high = tl.zeros_like(low) + high_start
    key = keep.to(tl.uint32)  # any number would do; this one needs no register of a thread, being a kernel's argument
    for _ in tl.static_range(7):
        if cuda_capability_geq(10):  # one 32 x 32 -> 64 bit product: dk in 25 instead of 31 a score; spills on sm_90
            product = low.to(tl.uint64) * 0xD256D193
            low, high = (product >> 32).to(tl.uint32) ^ key ^ high, product.to(tl.uint32)
        else:
            low, high = tl.umulhi(low, 0xD256D193) ^ key ^ high, low * 0xD256D193
        key += 0x9E3779B9
    word = tl.where(upper_row, high, low)
    draw = tl.where(upper_column, word, word << 16)
    return tl.reshape(draw < (keep.to(tl.uint32) << 16), [FIRST, SECOND])


# ---------------------------------------------------------------- the three kernels


@triton.jit(do_not_specialize=["n_rows", "max_words", "max_entities", "keep"])
def forward_kernel(q_word, q_entity, key, value, key_tiles, value_tiles, out, lse, segments, seed,
                   stride_q_word, stride_q_entity, stride_key, stride_value, stride_out,
                   n_rows, max_words, max_entities, scale, keep,
                   HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, TWO_QUERIES: tl.constexpr,
                   DROPOUT: tl.constexpr, TMA: tl.constexpr):
    """out and lse of BLOCK_M rows of one sequence and head. *_tiles: descriptors of the same tensors, if TMA."""
    position, head, sequence = tl.program_id(0) * BLOCK_M, tl.program_id(1), tl.program_id(2)
    segment = _segment(segments, sequence)
    word_first, n_words, entity_first, n_entities, entity_position = segment
    if position >= entity_position + n_entities:
        return
    row, exists = _rows(segment, position, BLOCK_M)
    random, column = _random(seed, sequence, head, keep), head * HEAD_DIM
    keys, values = (key + column, key_tiles, stride_key), (value + column, value_tiles, stride_value)
    channel = column + tl.arange(0, HEAD_DIM)
    scale_log2 = scale * LOG2_E
    acc, row_sum = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32), tl.zeros([BLOCK_M], tl.float32)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    q = load(q_word, row, exists, stride_q_word, channel)
    for PART in tl.static_range(3):
        if PART == 2 and TWO_QUERIES:
            q = load(q_entity, row, exists, stride_q_entity, channel)
        begin, end, first, count, key_position = _part(segment, PART, BLOCK_N[0])
        for start in range(begin, end, BLOCK_N[PART]):
            k = _load_rows(keys, first, start, count, column, BLOCK_N[PART], HEAD_DIM, PART > 0, TMA)
            v = _load_rows(values, first, start, count, column, BLOCK_N[PART], HEAD_DIM, PART > 0, TMA)
            s = tl.dot(q, tl.trans(k), input_precision="ieee")
            if PART > 0:
                s = tl.where((tl.arange(0, BLOCK_N[PART]) < count - start)[None, :], s, float("-inf"))
            new_max = tl.maximum(row_max, tl.max(s, 1) * scale_log2)
            p = tl.exp2(s * scale_log2 - new_max[:, None])
            rescale = tl.exp2(row_max - new_max)
            row_sum = row_sum * rescale + tl.sum(p, 1)
            acc = acc * rescale[:, None]
            if DROPOUT:
                kept = _kept(random, position, key_position + start, BLOCK_M, BLOCK_N[PART], True)
                p = tl.where(kept, p, 0.0)  # after row_sum: dropout does not change the softmax's sum
            acc = tl.dot(p.to(v.dtype), v, acc, input_precision="ieee")
            row_max = new_max
    fits = (n_words <= max_words) & (n_entities <= max_entities)  # else there are too few programs: not in silence
    acc = acc * (tl.where(fits, 65536.0 / keep, float("nan")) / row_sum)[:, None]
    store(out, row, exists, stride_out, channel, acc)
    tl.store(lse + head.to(tl.int64) * n_rows + row, row_max + tl.log2(row_sum), mask=exists)


@triton.jit(do_not_specialize=["n_rows", "keep"])
def query_gradient_kernel(q_word, q_entity, key, value, key_tiles, value_tiles, out, d_out, lse, delta, dq_word,
                          dq_entity, segments, seed,
                          stride_q_word, stride_q_entity, stride_key, stride_value, stride_out, stride_d_out,
                          n_rows, scale, keep,
                          HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                          TWO_QUERIES: tl.constexpr, DROPOUT: tl.constexpr, TMA: tl.constexpr):
    """delta, dq_word and dq_entity of BLOCK_M rows of one sequence and head."""
    position, head, sequence = tl.program_id(0) * BLOCK_M, tl.program_id(1), tl.program_id(2)
    segment = _segment(segments, sequence)
    word_first, n_words, entity_first, n_entities, entity_position = segment
    if position >= entity_position + n_entities:
        return
    row, exists = _rows(segment, position, BLOCK_M)
    random, column = _random(seed, sequence, head, keep), head * HEAD_DIM
    keys, values = (key + column, key_tiles, stride_key), (value + column, value_tiles, stride_value)
    channel = column + tl.arange(0, HEAD_DIM)
    o, do = load(out, row, exists, stride_out, channel), load(d_out, row, exists, stride_d_out, channel)
    statistics = head.to(tl.int64) * n_rows + row
    row_delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1) * (keep / 65536.0)  # delta / c
    tl.store(delta + statistics, row_delta, mask=exists)
    row_lse = tl.load(lse + statistics, mask=exists, other=float("inf"))
    scale_log2, final_scale, dq_out = scale * LOG2_E, scale * 65536.0 / keep, dq_word
    dq = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    q = load(q_word, row, exists, stride_q_word, channel)
    for PART in tl.static_range(3):
        if PART == 2 and TWO_QUERIES:  # dq_entity is a separate sum
            store(dq_word, row, exists, stride_out, channel, dq * final_scale)
            dq_out = dq_entity
            dq = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
            q = load(q_entity, row, exists, stride_q_entity, channel)
        begin, end, first, count, key_position = _part(segment, PART, BLOCK_N[0])
        for start in range(begin, end, BLOCK_N[PART]):
            k = _load_rows(keys, first, start, count, column, BLOCK_N[PART], HEAD_DIM, PART > 0, TMA)
            v = _load_rows(values, first, start, count, column, BLOCK_N[PART], HEAD_DIM, PART > 0, TMA)
            s = tl.dot(q, tl.trans(k), input_precision="ieee")
            p = tl.exp2(s * scale_log2 - row_lse[:, None])
            if PART > 0:
                p = tl.where((tl.arange(0, BLOCK_N[PART]) < count - start)[None, :], p, 0.0)
            if DROPOUT or TMA:
                dp = tl.dot(do, tl.trans(v), input_precision="ieee")
                if DROPOUT:
                    kept = _kept(random, position, key_position + start, BLOCK_M, BLOCK_N[PART], True)
                    dp = tl.where(kept, dp, 0.0)
                ds = p * (dp - row_delta[:, None])
            else:  # on sm_80 a matmul can start from any accumulator for free; newer ones would have to write it first
                minus_delta = tl.zeros_like(s) - row_delta[:, None]
                ds = p * tl.dot(do, tl.trans(v), minus_delta, input_precision="ieee")
            dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    store(dq_out, row, exists, stride_out, channel, dq * final_scale)  # which has the layout of `out`


@triton.jit
def _key_gradient(keys, values, dk_out, dv_out, stride_dk, queries, d_outs, lse, delta, segment, first, start, count,
                  key_position, column, scale, random, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr,
                  BLOCK_N: tl.constexpr, DROPOUT: tl.constexpr, TMA: tl.constexpr):
    """dk and dv of the keys start, start + 1, ... of a run of keys: all words or all entities of a sequence. Scores are
    transposed, [keys, rows], so that p and ds are the left operand of a matmul directly from registers."""
    k = _load_rows(keys, first, start, count, column, BLOCK_N, HEAD_DIM, True, False)
    v = _load_rows(values, first, start, count, column, BLOCK_N, HEAD_DIM, True, False)
    dk, dv = tl.zeros([BLOCK_N, HEAD_DIM], tl.float32), tl.zeros([BLOCK_N, HEAD_DIM], tl.float32)
    scale_log2, lanes = scale * LOG2_E, tl.arange(0, BLOCK_M)
    for PART in tl.static_range(3):
        begin, end, row_first, n_rows, row_position = _part(segment, PART, BLOCK_M)
        for row in tl.range(begin, end, BLOCK_M, num_stages=1 if PART > 0 else None):
            q = _load_rows(queries, row_first, row, n_rows, column, BLOCK_M, HEAD_DIM, PART > 0, TMA)
            do = _load_rows(d_outs, row_first, row, n_rows, column, BLOCK_M, HEAD_DIM, PART > 0, TMA)
            statistics = row_first + row + lanes
            if PART == 0:
                row_lse, row_delta = tl.load(lse + statistics), tl.load(delta + statistics)
            else:  # a row that does not exist: p = exp2(s - inf) = 0
                row_lse = tl.load(lse + statistics, mask=lanes < n_rows - row, other=float("inf"))
                row_delta = tl.load(delta + statistics, mask=lanes < n_rows - row, other=0.0)
            p = tl.exp2(tl.dot(k, tl.trans(q), input_precision="ieee") * scale_log2 - row_lse[None, :])
            dp = tl.dot(v, tl.trans(do), input_precision="ieee")
            if DROPOUT:
                kept = _kept(random, key_position, row_position + row, BLOCK_N, BLOCK_M, False)
                dv = tl.dot(tl.where(kept, p, 0.0).to(do.dtype), do, dv, input_precision="ieee")
                dp = tl.where(kept, dp, 0.0)
            else:
                dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
            ds = p * (dp - row_delta[None, :])
            dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    number, inverse_keep = start + tl.arange(0, BLOCK_N), 65536.0 / random[2]
    row, exists, channel = (first + number).to(tl.int64), number < count, column + tl.arange(0, HEAD_DIM)
    store(dk_out, row, exists, stride_dk, channel, dk * (scale * inverse_keep))
    store(dv_out, row, exists, stride_dk, channel, dv * inverse_keep)


@triton.jit(do_not_specialize=["n_rows", "keep"])
def key_gradient_kernel(q_word, q_entity, q_word_tiles, q_entity_tiles, key, value, d_out, d_out_tiles, lse, delta,
                        dk, dv, segments, seed,
                        stride_q_word, stride_q_entity, stride_key, stride_value, stride_d_out, stride_dk,
                        n_rows, scale, keep,
                        HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, DROPOUT: tl.constexpr,
                        TMA: tl.constexpr):
    """dk and dv of BLOCK_N words or entities of one sequence and head."""
    tile, head, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    segment = _segment(segments, sequence)
    word_first, n_words, entity_first, n_entities, entity_position = segment
    random, column, statistics = _random(seed, sequence, head, keep), head * HEAD_DIM, head.to(tl.int64) * n_rows
    keys, values = (key + column, key, stride_key), (value + column, value, stride_value)
    d_outs = (d_out + column, d_out_tiles, stride_d_out)
    n_word_tiles = tl.cdiv(n_words, BLOCK_N[0])
    start = (tile - n_word_tiles) * BLOCK_N[2]
    if tile < n_word_tiles:
        start = tile * BLOCK_N[0]
        _key_gradient(keys, values, dk, dv, stride_dk, (q_word + column, q_word_tiles, stride_q_word), d_outs,
                      lse + statistics, delta + statistics, segment, word_first, start, n_words, start, column, scale,
                      random, HEAD_DIM, BLOCK_M, BLOCK_N[0], DROPOUT, TMA)
    elif start < n_entities:
        _key_gradient(keys, values, dk, dv, stride_dk, (q_entity + column, q_entity_tiles, stride_q_entity), d_outs,
                      lse + statistics, delta + statistics, segment, entity_first, start, n_entities,
                      entity_position + start, column, scale, random, HEAD_DIM, BLOCK_M, BLOCK_N[2], DROPOUT, TMA)


# ---------------------------------------------------------------- launching


class Tile(NamedTuple):
    """Tile sizes. A program of the forward kernel or the queries' gradient owns block_m rows and walks full tiles of
    block_n words, then the rest and the entities block_e at a time; one of the keys' gradient owns block_n words or
    block_e entities and walks the rows block_m at a time."""

    block_m: int
    block_n: int
    block_e: int
    num_warps: int
    num_stages: int  # depth of the load pipeline
    tma: bool  # full tiles come by tensor descriptors (sm_90 and newer)


# (kernel, architecture): tile without dropout, tile with dropout. Chosen by `bench_kernels.py --static`: no spills, few
# instructions per score, block_m or block_n of 128 where that halves the reads of the other side, and on sm_90 two
# programs a processor and loads that run a whole pass ahead (three stages; with two they are asked for too late).
TILES = {
    ("forward", 80): (Tile(128, 128, 32, 8, 2, False),) * 2,
    ("forward", 90): (Tile(128, 128, 32, 4, 3, True), Tile(64, 128, 32, 4, 3, True)),
    ("forward", 100): (Tile(128, 128, 32, 8, 2, True),) * 2,
    ("query_gradient", 80): (Tile(64, 64, 32, 4, 2, False),) * 2,
    ("query_gradient", 90): (Tile(64, 128, 32, 4, 3, True),) * 2,
    ("query_gradient", 100): (Tile(128, 64, 64, 4, 2, True), Tile(128, 64, 64, 8, 2, True)),
    ("key_gradient", 80): (Tile(64, 128, 64, 8, 2, False), Tile(32, 128, 64, 8, 2, False)),
    ("key_gradient", 90): (Tile(64, 64, 64, 4, 4, True), Tile(64, 64, 64, 4, 3, True)),
    ("key_gradient", 100): (Tile(64, 128, 64, 4, 2, True), Tile(64, 128, 64, 8, 2, True)),
}
FLOAT32_TILE = Tile(32, 32, 16, 4, 1, False)  # for checks: exact float32 matmuls do not run on tensor cores


def choose_tile(kernel, arch, dtype, dropout):
    """The tile of a kernel ("forward", "query_gradient", "key_gradient") on an architecture (80, 90, 100)."""
    return FLOAT32_TILE if dtype == torch.float32 else TILES[kernel, arch][dropout > 0]


def _launch_options(tile, head_dim, keep):
    """The constexpr and compile options of a launch. BLOCK_N: keys of a tile in each of the three parts."""
    return dict(HEAD_DIM=head_dim, BLOCK_M=tile.block_m, BLOCK_N=(tile.block_n, tile.block_e, tile.block_e),
                DROPOUT=keep < 65536, TMA=tile.tma, num_warps=tile.num_warps, num_stages=tile.num_stages)  # fmt: skip


def architecture(device):
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 8  # no GPU: the interpreter
    return {9: 90, 10: 100}.get(major, 80)


def readable(tensor):
    """The tensor itself where kernels can read it, else a copy: the numbers of a row lie side by side, and every row
    begins behind the one before, at a multiple of 16 bytes."""
    aligned = tensor.stride(0) * tensor.element_size() % 16 == 0 and tensor.data_ptr() % 16 == 0
    apart = tensor.stride(0) >= math.prod(tensor.shape[1:])
    return tensor if aligned and apart and tensor[:1].is_contiguous() else tensor.contiguous()


def _tiles_of(tile, rows, *tensors):
    """Tensor descriptors for fetching [rows, head_dim]; if the tile uses none, the tensors themselves, unused."""
    if not tile.tma:
        return tensors
    n_rows, heads, head_dim = tensors[0].shape
    size, block = [n_rows, heads * head_dim], [rows, head_dim]
    return [TensorDescriptor(x, size, [x.stride(0), 1], block) for x in tensors]


def _kept_of_65536(dropout):
    """Of 65,536 scores, how many dropout keeps: all if it rounds to none dropped, but at least one."""
    return max(1, round((1.0 - dropout) * 65536))


def _row_grid(segments, max_words, max_entities, heads, tile):
    return triton.cdiv(max_words + 15 + max_entities, tile.block_m), heads, segments.shape[0]


@torch.library.custom_op("luke_mini::entity_attention", mutates_args=())
def _attention(q_word: Tensor, q_entity: Tensor | None, key: Tensor, value: Tensor, segments: Tensor, max_words: int,
               max_entities: int, dropout: float, seed: Tensor | None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """out and lse [heads, rows] (base 2)."""
    n_rows, heads, head_dim = q_word.shape
    two_queries, segments, keep = q_entity is not None, segments.contiguous(), _kept_of_65536(dropout)
    q_word, q_entity, key, value = map(readable, (q_word, q_entity if two_queries else q_word, key, value))
    out, lse = q_word.new_empty(q_word.shape), q_word.new_empty(heads, n_rows, dtype=torch.float32)
    tile = choose_tile("forward", architecture(out.device), out.dtype, dropout)
    with torch.cuda.device_of(out):
        forward_kernel[_row_grid(segments, max_words, max_entities, heads, tile)](
            q_word, q_entity, key, value, *_tiles_of(tile, tile.block_n, key, value), out, lse,
            segments, segments if seed is None else seed, *[x.stride(0) for x in (q_word, q_entity, key, value, out)],
            n_rows, max_words, max_entities, head_dim**-0.5, keep,
            TWO_QUERIES=two_queries, **_launch_options(tile, head_dim, keep),
        )  # fmt: skip
    return out, lse


@torch.library.custom_op("luke_mini::entity_attention_backward", mutates_args=())
def _attention_backward(d_out: Tensor, q_word: Tensor, q_entity: Tensor | None, key: Tensor, value: Tensor, out: Tensor,
                        lse: Tensor, segments: Tensor, max_words: int, max_entities: int, dropout: float,
                        seed: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q_word, q_entity (empty if there is none), key, value."""
    n_rows, heads, head_dim = q_word.shape
    two_queries, segments, keep = q_entity is not None, segments.contiguous(), _kept_of_65536(dropout)
    q_word, q_entity, key, value, d_out = map(
        readable, (q_word, q_entity if two_queries else q_word, key, value, d_out))
    dq_word, dk, dv, delta = (torch.empty_like(x) for x in (out, out, out, lse))
    dq_entity = torch.empty_like(out) if two_queries else out.new_empty(0)
    seed, numbers = segments if seed is None else seed, (n_rows, head_dim**-0.5, keep)
    tile = choose_tile("query_gradient", architecture(out.device), out.dtype, dropout)
    with torch.cuda.device_of(out):
        query_gradient_kernel[_row_grid(segments, max_words, max_entities, heads, tile)](
            q_word, q_entity, key, value, *_tiles_of(tile, tile.block_n, key, value), out, d_out, lse, delta, dq_word,
            dq_entity, segments, seed, *[x.stride(0) for x in (q_word, q_entity, key, value, out, d_out)],
            *numbers, TWO_QUERIES=two_queries, **_launch_options(tile, head_dim, keep),
        )  # fmt: skip
        tile = choose_tile("key_gradient", architecture(out.device), out.dtype, dropout)
        n_tiles = triton.cdiv(max_words, tile.block_n) + triton.cdiv(max_entities, tile.block_e)
        q_word_tiles, q_entity_tiles, d_out_tiles = _tiles_of(tile, tile.block_m, q_word, q_entity, d_out)
        key_gradient_kernel[n_tiles, heads, segments.shape[0]](
            q_word, q_entity, q_word_tiles, q_entity_tiles, key, value, d_out, d_out_tiles, lse, delta, dk, dv,
            segments, seed, *[x.stride(0) for x in (q_word, q_entity, key, value, d_out, dk)], *numbers,
            **_launch_options(tile, head_dim, keep),
        )  # fmt: skip
    return dq_word, dq_entity, dk, dv


@_attention.register_fake
def _(q_word, q_entity, key, value, segments, max_words, max_entities, dropout, seed):
    n_rows, heads, head_dim = q_word.shape
    return q_word.new_empty(n_rows, heads, head_dim), q_word.new_empty(heads, n_rows, dtype=torch.float32)


@_attention_backward.register_fake
def _(d_out, q_word, q_entity, key, value, out, lse, segments, max_words, max_entities, dropout, seed):
    return tuple(torch.empty_like(out) if i != 1 or q_entity is not None else out.new_empty(0) for i in range(4))


def _remember(ctx, inputs, output):
    *tensors, segments, max_words, max_entities, dropout, seed = inputs
    ctx.save_for_backward(*tensors, *output, segments, seed)
    ctx.settings = max_words, max_entities, dropout
    ctx.set_materialize_grads(False)  # lse has no gradient


def _gradients(ctx, d_out, _):
    *saved, seed = ctx.saved_tensors
    dq_word, dq_entity, dk, dv = _attention_backward(d_out, *saved, *ctx.settings, seed)
    return dq_word, None if saved[1] is None else dq_entity, dk, dv, *[None] * 5


_attention.register_autograd(_gradients, setup_context=_remember)


# ---------------------------------------------------------------- the public side


def entity_attention(q_word: Tensor, q_entity: Tensor | None, key: Tensor, value: Tensor, segments: Tensor,
                     max_words: int, max_entities: int, dropout: float = 0.0, seed: Tensor | None = None
                     ) -> Tensor:  # fmt: skip
    """Attention of every word and entity to all words and entities of its sequence.

    q_word    [rows, heads, head_dim]: a row's query against word keys (w2w for a word, e2w for an entity)
    q_entity  the same against entity keys (w2e, e2e); None: q_word serves for both, which is ordinary attention
    key, value  [rows, heads, head_dim]
    segments  int32 [batch, 4]: first word row, words, first entity row, entities of each sequence. Together they cover
              every row once; this is not checked, as it would stop the GPU
    max_words, max_entities  of any sequence, at least; one that is longer comes out as NaN
    dropout   probability in [0, 1) of dropping an attention weight, rounded to a multiple of 1/65536 below 1
    seed      with dropout: int64, one number on the device; another one for every call that should drop differently

    Returns [rows, heads, head_dim]. float16, bfloat16 or float32, head_dim 32 or 64; all tensors alike (under autocast
    they are converted). Any row stride works without a copy if a row's heads are contiguous, as in slices of one wide
    matmul. Differentiable once, with respect to the first four arguments.
    """
    if torch.is_autocast_enabled(q_word.device.type):
        dtype = torch.get_autocast_dtype(q_word.device.type)
        q_word, key, value = q_word.to(dtype), key.to(dtype), value.to(dtype)
        q_entity = None if q_entity is None else q_entity.to(dtype)
    _check(q_word, q_entity, key, value, segments, dropout, seed)
    return _attention(q_word, q_entity, key, value, segments, max_words, max_entities, dropout, seed)[0]


def _check(q_word, q_entity, key, value, segments, dropout, seed):
    for name, tensor in (("q_entity", q_entity), ("key", key), ("value", value)):
        if tensor is not None and (tensor.shape, tensor.dtype) != (q_word.shape, q_word.dtype):
            raise ValueError(f"entity_attention: {name} is {tensor.dtype} {tuple(tensor.shape)}, "
                             f"expected {q_word.dtype} {tuple(q_word.shape)} as q_word")  # fmt: skip
    if q_word.dim() != 3 or q_word.shape[2] not in (32, 64):
        raise ValueError(f"entity_attention: q_word is {tuple(q_word.shape)}, expected [rows, heads, 32 or 64]")
    if q_word.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise ValueError(f"entity_attention: {q_word.dtype}, expected float16, bfloat16 or float32")
    if segments.dtype != torch.int32 or segments.dim() != 2 or segments.shape[1] != 4:
        raise ValueError("entity_attention: segments must be int32 [batch, 4]")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"entity_attention: dropout is {dropout}, expected 0 <= dropout < 1")
    if dropout and (seed is None or seed.dtype != torch.int64 or seed.numel() != 1 or seed.device != q_word.device):
        raise ValueError("entity_attention: dropout needs a seed, one int64 number on the tensors' device")

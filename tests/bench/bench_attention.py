"""Entity-aware attention on a CPU, forward and backward: ours against transformers' form, projections left out.

    python tests/bench/bench_attention.py [--rounds 15] [--heads 12] [--precision fp32]

Four sequences of lengths that prepare_wiki.py makes from English Wikipedia. Transformers' form: padded to the longest,
heads in front, four products for the four kinds of pairs, three concatenations, a mask added, one softmax, one product,
differentiated by autograd; as in its LukeSelfAttention, with which it is compared where transformers is installed. Both
see tensors of equal contents, outputs are compared, methods take turns, medians are printed. The allocator is the
environment's, named in the first line, the same for both.
"""

import argparse
import os
import statistics
import time

import project  # noqa: F401 (finds luke_mini)
import torch

from luke_mini import ops
from luke_mini.packing import PackedBatch

WORDS, ENTITIES, HEAD_DIM = (498, 500, 507, 412), (8, 10, 30, 21), 64


def concatenated(w2w, w2e, e2w, e2e, key, value, n_word: int, mask):
    """Transformers' form. All [batch, heads, rows, head_dim]; queries of words or entities, keys and values of both."""
    key_word, key_entity = key[:, :, :n_word], key[:, :, n_word:]
    to_words = torch.cat([w2w @ key_word.transpose(2, 3), e2w @ key_word.transpose(2, 3)], dim=2)
    to_entities = torch.cat([w2e @ key_entity.transpose(2, 3), e2e @ key_entity.transpose(2, 3)], dim=2)
    scores = torch.cat([to_words, to_entities], dim=3) / HEAD_DIM**0.5 + mask
    return (torch.softmax(scores, dim=3) @ value).permute(0, 2, 1, 3).contiguous()


def packed_batch() -> PackedBatch:
    words, entities = (torch.zeros(sum(n), dtype=torch.long) for n in (WORDS, ENTITIES))
    return PackedBatch(words, words, entities, entities, torch.arange(len(entities) + 1), WORDS, ENTITIES)


def pad(rows, batch: PackedBatch, heads: int):
    """Packed [rows, heads, head_dim] as [batch, longest words + most entities, heads * head_dim], and its mask."""
    n_word, n_entity = max(WORDS), max(ENTITIES)
    padded = rows.new_zeros(len(WORDS), n_word + n_entity, heads * HEAD_DIM)
    mask = torch.full((len(WORDS), 1, 1, n_word + n_entity), torch.finfo(torch.float32).min)
    for b, (words, entities) in enumerate(ops.sequence_rows(batch)):
        for start, span in ((0, words), (n_word, entities)):
            n = span.stop - span.start
            padded[b, start : start + n] = rows[span].reshape(n, -1)
            mask[b, 0, 0, start : start + n] = 0
    return padded, mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--cpu-time", action="store_true", help="count this process's time alone, on a busy machine")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    heads, batch = arguments.heads, packed_batch()
    dtype = torch.float32 if arguments.precision == "fp32" else torch.bfloat16
    generator = torch.Generator().manual_seed(0)
    rows = sum(WORDS) + sum(ENTITIES)
    tensors = [torch.randn(rows, heads, HEAD_DIM, generator=generator).to(dtype) for _ in range(5)]
    ours = [torch.stack(tensors[i : i + 2], 1).requires_grad_() for i in (0, 2)]  # both queries; key and value
    padded = [pad(x, batch, heads)[0] for x in tensors]
    mask, n_word = pad(tensors[0], batch, heads)[1].to(dtype), max(WORDS)
    word_parts = [x[:, :n_word].clone().requires_grad_() for x in padded[:2]]
    entity_parts = [x[:, n_word:].clone().requires_grad_() for x in padded[:2]]
    theirs = [*word_parts, *entity_parts, *(x.clone().requires_grad_() for x in padded[2:4])]
    d_ours, d_theirs = tensors[4], padded[4].view(len(WORDS), -1, heads, HEAD_DIM)

    def our_step():
        out = ops.entity_attention(*ours, batch)
        return out, torch.autograd.grad(out, ours, d_ours)

    def their_step():
        in_front = [x.view(len(WORDS), -1, heads, HEAD_DIM).permute(0, 2, 1, 3) for x in theirs]
        out = concatenated(*in_front, n_word, mask)
        return out, torch.autograd.grad(out, theirs, d_theirs)

    out, gradients = our_step()
    their_out, their_gradients = their_step()
    is_row = pad(torch.ones_like(tensors[0]), batch, heads)[0]
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    d_key, d_value = gradients[1].unbind(1)
    pairs = (out, their_out.flatten(2)), (d_key, their_gradients[4]), (d_value, their_gradients[5])
    for mine, other in pairs:
        mine = pad(mine.detach(), batch, heads)[0]
        assert (mine - other * is_row).norm() < tolerance * mine.norm()
    seconds = {our_step: [], their_step: []}
    for _ in range(arguments.rounds):
        for step, times in seconds.items():
            began = clock()
            step()
            times.append(clock() - began)
    mine, other = (statistics.median(times) * 1e3 for times in seconds.values())
    allocator = {k: v for k, v in os.environ.items() if k.startswith(("MALLOC_", "LD_PRELOAD"))} or "default allocator"
    print(f"{rows} rows, {heads} heads, {arguments.precision}, {torch.get_num_threads()} threads, {allocator}")
    print(f"luke-mini {mine:.0f} ms, transformers' form {other:.0f} ms, ratio {other / mine:.2f}")


if __name__ == "__main__":
    main()

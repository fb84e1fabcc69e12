"""What is proved: the random numbers are SplitMix64 and behave; the vectorised masking equals the rule in plain loops;
shares are 15 % and 80/10/10; masks do not depend on the rest of the batch.

    PYTHONPATH=. python -m pytest -q tests/test_masking.py
"""

from functools import reduce

import numpy as np
import pytest
from closeness import seeded

from luke_mini.masking import ACTION, ENTITIES, FALLBACK, ORDER, REPLACEMENT, WORDS
from luke_mini.masking import Scheme, derive, draw, mask_entities, mask_words, ordinary_ids, uniform

VOCAB, MASK = 1000, 999
SPECIAL = (0, 1, 2, 3)
SCHEME = Scheme(MASK, VOCAB, SPECIAL)
ENTITY_SCHEME = Scheme(2, 500, (0, 1, 2), random=0.0, unmasked=0.0)
EVERY_PIECE_A_WORD = np.ones(VOCAB, dtype=bool)
M64 = (1 << 64) - 1


# --- The rule in plain loops, with Python's integers: an independent second implementation ----------------------------


def plain_draw(key, counter):
    """SplitMix64 as its authors write it: advance the state counter + 1 times, then finalise."""
    x = (key + (counter + 1) * 0x9E3779B97F4A7C15) & M64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M64
    return x ^ (x >> 31)


def plain_ordinary_id(share, scheme):
    special = set(scheme.special_ids) | {scheme.mask_id}
    ordinary = [i for i in range(scheme.vocab_size) if i not in special]
    return ordinary[int(share * len(ordinary))]


def plain_mask(ids, key, scheme, begins, spans=()):
    """One sequence. begins: does a word begin at this piece? spans: masked mentions. -> (seen, rows, labels)"""
    seen, rows = list(ids), []
    if not ids or scheme.probability == 0:
        return seen, [], []
    words = []
    for i in range(len(ids)):
        if begins[i] or not words:
            words.append([i])
        else:
            words[-1].append(i)

    def act(pieces, draw_at):
        action = (plain_draw(plain_draw(key, ACTION), draw_at) >> 11) / 2**53
        for i in pieces:
            rows.append(i)
            if action < 1 - scheme.random - scheme.unmasked:
                seen[i] = scheme.mask_id
            elif action < 1 - scheme.unmasked:
                share = (plain_draw(plain_draw(key, REPLACEMENT), i) >> 11) / 2**53
                seen[i] = plain_ordinary_id(share, scheme)

    left = max(1, round(len(ids) * scheme.probability))
    covered = {i for start, end in spans for i in range(start, end)}
    for i in sorted(covered):  # where mentions overlap, the one that begins last has the say
        act([i], max(start for start, end in spans if start <= i and start < end))
    left -= len(covered)
    words = [word for word in words if not covered & set(word)]
    words.sort(key=lambda word: (plain_draw(plain_draw(key, ORDER), word[0]) >> 32, word[0]))
    for word in words:
        if len(word) <= left:
            act(word, word[0])
            left -= len(word)
    if not rows:
        share = (plain_draw(key, FALLBACK) >> 11) / 2**53
        rows.append(int(share * len(ids)))
        seen[rows[0]] = scheme.mask_id
    return seen, sorted(rows), [ids[i] for i in sorted(rows)]


def plain_batch(ids, lengths, keys, scheme, kind, begins, spans=()):
    seen, rows, labels, first = [], [], [], 0
    for length, key in zip(lengths.tolist(), keys.tolist()):
        own = [(start - first, end - first) for start, end in spans if first <= start < first + length]
        part = slice(first, first + length)
        own_seen, own_rows, own_labels = plain_mask(
            ids[part].tolist(), plain_draw(key, kind), scheme, begins[part].tolist(), own
        )
        seen, rows, labels = seen + own_seen, rows + [first + i for i in own_rows], labels + own_labels
        first += length
    return seen, rows, labels


def assert_same(masked, expected):
    assert tuple(part.tolist() for part in masked) == expected


def random_batch(rng, sequences=6, longest=60, vocab=VOCAB):
    lengths = rng.integers(0, longest, sequences)
    return rng.integers(4, vocab - 1, lengths.sum()), lengths, rng.integers(0, 1 << 63, sequences).astype(np.uint64)


# --- Random numbers ---------------------------------------------------------------------------------------------------


def test_draw_gives_the_published_outputs_of_splitmix64():
    # Seed 1234567, the vector that implementations in other languages are checked with.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert draw(np.array([1234567], dtype=np.uint64), np.arange(4)).tolist() == expected
    assert [plain_draw(1234567, n) for n in range(4)] == expected


def test_derive_is_a_path_and_arrays_broadcast():
    assert derive(7, 3, np.array([5, 6])).tolist() == [plain_draw(plain_draw(7, 3), n) for n in (5, 6)]
    epochs, examples = np.array([0, 1, 1]), np.array([9, 9, 10])
    assert derive(7, epochs, examples).tolist() == [
        plain_draw(plain_draw(7, epoch), example) for epoch, example in zip(epochs.tolist(), examples.tolist())
    ]
    with pytest.raises(ValueError, match="seed -1"):
        derive(-1)


def chi_square_z(counts):
    """How many standard deviations the chi-square statistic of equally likely bins lies above its mean."""
    expected = counts.sum() / len(counts)
    freedom = len(counts) - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


def neighbours(numbers):
    """Joint histogram of consecutive numbers, 16 x 16 bins, for 64-bit numbers."""
    bins = (numbers >> np.uint64(60)).astype(np.int64)
    return np.bincount(bins[:-1] * 16 + bins[1:], minlength=256)


def streams():
    """The axes along which numbers are drawn; 200,000 each, all of them counters that differ by little."""
    n = np.arange(200_000)
    return {
        "position": draw(derive(0, 0, 5, WORDS, ORDER), n),
        "example": draw(derive(0, 0, n), 3),
        "epoch": draw(derive(0, n, 5), 3),
        "purpose": draw(derive(0, 0, n // 4), n % 4),
        "seed": draw(draw(n.astype(np.uint64), 0), 0),
    }


@pytest.mark.parametrize("axis", ["position", "example", "epoch", "purpose", "seed"])
def test_numbers_are_uniform_and_neighbours_independent(axis):
    numbers = streams()[axis]
    for shift in (0, 8, 24, 32, 48, 56):  # the order uses the upper 32 bits, `uniform` the upper 53
        byte = ((numbers >> np.uint64(shift)) & np.uint64(255)).astype(np.int64)
        assert abs(chi_square_z(np.bincount(byte, minlength=256))) < 5
    assert abs(chi_square_z(neighbours(numbers))) < 5
    x = uniform(numbers)
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 5 / np.sqrt(len(x))
    assert 0 <= x.min() and x.max() < 1 and abs(x.mean() - 0.5) < 5 * np.sqrt(1 / 12 / len(x))


def test_the_checks_above_detect_a_weak_generator():
    unmixed = np.arange(200_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert abs(chi_square_z(neighbours(unmixed))) > 100


def test_every_bit_of_every_input_changes_half_of_the_output_bits():
    rng = np.random.default_rng(seeded(1))
    for changed in range(4):  # seed, epoch, example, position
        path = rng.integers(0, 1 << 20, (2000, 4))
        other = path.copy()
        other[:, changed] ^= 1 << rng.integers(0, 20, 2000)
        a, b = ([reduce(plain_draw, row) for row in rows.tolist()] for rows in (path, other))
        flipped = np.array([(x ^ y).bit_count() for x, y in zip(a, b)])
        assert abs(flipped.mean() - 32) < 5 * 4 / np.sqrt(2000)  # binomial(64, 1/2): deviation 4


def test_different_examples_do_not_share_random_numbers():
    """Same purpose and position, neighbouring examples and epochs: correlation of the draws is noise."""
    positions = np.arange(500)
    table = np.stack([uniform(draw(derive(0, epoch, ex), positions)) for epoch in range(4) for ex in range(25)])
    correlations = np.corrcoef(table)[np.triu_indices(100, 1)]
    assert np.abs(correlations).max() < 6 / np.sqrt(500)
    assert abs(correlations.mean()) < 5 / np.sqrt(500 * len(correlations))


def test_numbers_of_one_key_never_repeat():
    assert (np.diff(np.sort(draw(derive(3), np.arange(1_000_000)))) > 0).all()


# --- The rule ---------------------------------------------------------------------------------------------------------


def test_hand_worked_example():
    """Six words of sizes 1 2 3 1 2 1 (10 pieces), share 0.4: budget 4. The order of trial is read off the numbers."""
    begins = np.array([1, 1, 0, 1, 0, 0, 1, 1, 0, 1], dtype=bool)
    ids = np.arange(10, 20)
    table = np.zeros(VOCAB, dtype=bool)
    table[ids[begins]] = True
    scheme = Scheme(MASK, VOCAB, SPECIAL, probability=0.4, random=0.0, unmasked=0.0)
    firsts = [0, 1, 3, 6, 7, 9]
    seen_orders = set()
    for example in range(40):
        key = derive(0, example)
        numbers = draw(draw(draw(key, WORDS), ORDER), np.array(firsts))
        order = [firsts[i] for i in np.argsort(numbers)]
        left, expected = 4, []
        for first in order:
            size = {0: 1, 1: 2, 3: 3, 6: 1, 7: 2, 9: 1}[first]
            if size <= left:
                left -= size
                expected += range(first, first + size)
        masked = mask_words(ids, np.array([10]), key, scheme, table)
        assert masked.rows.tolist() == sorted(expected)
        assert masked.labels.tolist() == [10 + i for i in sorted(expected)]
        assert masked.ids.tolist() == [MASK if i in expected else 10 + i for i in range(10)]
        seen_orders.add(tuple(sorted(expected)))
    # Skipping works: the three-piece word goes with one of the single pieces, never with another long one.
    assert any({3, 4, 5} <= set(rows) and len(rows) == 4 for rows in seen_orders) and len(seen_orders) > 5


@pytest.mark.parametrize("share", [0.0, 0.05, 0.15, 0.5, 1.0])
@pytest.mark.parametrize("begin_share", [0.1, 0.5, 0.8, 1.0])
def test_whole_words_equal_plain_loops(share, begin_share):
    rng = np.random.default_rng([int(share * 100), int(begin_share * 10), seeded()])
    scheme = Scheme(MASK, VOCAB, SPECIAL, probability=share, random=0.2, unmasked=0.3)
    for _ in range(25):
        table = rng.random(VOCAB) < begin_share
        ids, lengths, keys = random_batch(rng)
        expected = plain_batch(ids, lengths, keys, scheme, WORDS, table[ids])
        assert_same(mask_words(ids, lengths, keys, scheme, table), expected)


def test_long_sequences_equal_plain_loops():
    rng = np.random.default_rng(seeded(2))
    table = rng.random(VOCAB) < 0.75
    ids, lengths, keys = random_batch(rng, sequences=20, longest=510)
    expected = plain_batch(ids, lengths, keys, SCHEME, WORDS, table[ids])
    assert_same(mask_words(ids, lengths, keys, SCHEME, table), expected)


def test_pieces_and_entities_equal_plain_loops():
    rng = np.random.default_rng(seeded(3))
    for _ in range(50):
        ids, lengths, keys = random_batch(rng)
        expected = plain_batch(ids, lengths, keys, SCHEME, WORDS, np.ones(len(ids), dtype=bool))
        assert_same(mask_words(ids, lengths, keys, SCHEME), expected)
        ids, lengths, keys = random_batch(rng, longest=20, vocab=500)
        scheme = Scheme(2, 500, (0, 1, 2), random=0.3, unmasked=0.2)
        expected = plain_batch(ids, lengths, keys, scheme, ENTITIES, np.ones(len(ids), dtype=bool))
        assert_same(mask_entities(ids, lengths, keys, scheme), expected)


def test_words_under_masked_mentions_equal_plain_loops():
    rng = np.random.default_rng(seeded(4))
    for _ in range(150):
        table = rng.random(VOCAB) < 0.6
        ids, lengths, keys = random_batch(rng)
        spans = []  # 0 to 3 mentions a sequence, they may overlap, touch or be empty
        for first, length in zip(np.cumsum(lengths) - lengths, lengths):
            for _ in range(rng.integers(0, 4) if length else 0):
                start = rng.integers(0, length)
                spans.append((int(first + start), int(min(first + start + rng.integers(0, 6), first + length))))
        masked = mask_words(ids, lengths, keys, SCHEME, table, np.array(spans, dtype=np.int64).reshape(-1, 2))
        assert_same(masked, plain_batch(ids, lengths, keys, SCHEME, WORDS, table[ids], spans))
        under = {row for start, end in spans for row in range(start, end)}
        assert under <= set(masked.rows.tolist())


def test_the_rest_of_a_word_that_a_mention_touches_is_left_alone():
    """`[[America]]ns`: the mention is the first piece of a word of two. All fits the budget, but not that rest."""
    scheme = Scheme(MASK, VOCAB, SPECIAL, probability=1.0, random=0.0, unmasked=0.0)
    table = np.zeros(VOCAB, dtype=bool)
    table[[10, 11, 13]] = True
    masked = mask_words(np.array([10, 11, 12, 13]), np.array([4]), derive(0), scheme, table, np.array([[1, 2]]))
    assert masked.rows.tolist() == [0, 1, 3]


def test_budgets_round_as_python_rounds():
    lengths = np.arange(1, 400)
    ids = np.full(lengths.sum(), 7)
    keys = derive(0, np.arange(len(lengths)))
    rows = mask_words(ids, lengths, keys, SCHEME).rows
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    counts = np.bincount(sequence[rows], minlength=len(lengths)).tolist()
    assert counts == [max(1, round(n * 0.15)) for n in lengths.tolist()]
    assert counts[9] == 2 and counts[29] == 4  # 1.5 -> 2 and 4.5 -> 4: half to even


# --- Short, empty and odd input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_sequences_lose_one_piece_and_each_piece_can_be_it(length):
    """A word of all pieces is larger than the budget of 1 (from two pieces on): the fallback masks one of them."""
    table = np.zeros(VOCAB, dtype=bool)  # no piece begins a word, so that the first one has to be made to
    keys = derive(5, np.arange(300))
    ids = np.tile(np.arange(10, 10 + length), 300)
    masked = mask_words(ids, np.full(300, length), keys, SCHEME, table)
    assert len(masked.rows) == 300
    assert set((masked.rows % length).tolist()) == set(range(length))
    if length > 1:
        assert (masked.ids[masked.rows] == MASK).all()


def test_empty_input():
    none = np.zeros(0, dtype=np.int64)
    for masked in (
        mask_words(none, none, none.astype(np.uint64), SCHEME, EVERY_PIECE_A_WORD),
        mask_entities(none, np.zeros(3, dtype=np.int64), derive(0, np.arange(3)), ENTITY_SCHEME),
        mask_words(none, np.zeros(2, np.int64), derive(0, np.arange(2)), SCHEME, None, np.zeros((0, 2), np.int64)),
    ):
        assert [len(part) for part in masked] == [0, 0, 0]
    ids = np.arange(10, 15)
    masked = mask_entities(ids, np.array([0, 2, 0, 3, 0]), derive(0, np.arange(5)), ENTITY_SCHEME)
    assert len(masked.rows) == 2 and masked.rows[0] < 2 <= masked.rows[1]


def test_arguments_are_not_changed_and_types_are_int64():
    for dtype in (np.int64, np.int32, np.uint16):
        ids = np.arange(10, 60, dtype=dtype)
        ids.setflags(write=False)
        lengths = np.array([20, 30], dtype=np.int32)
        masked = mask_words(ids, lengths, derive(0, np.arange(2)), SCHEME, EVERY_PIECE_A_WORD)
        assert ids.tolist() == list(range(10, 60))
        assert all(part.dtype == np.int64 for part in masked)


def test_bad_settings_and_sizes():
    for change in ({"probability": 1.5}, {"random": 0.6, "unmasked": 0.6}, {"unmasked": -0.1}):
        with pytest.raises(ValueError, match="shares"):
            Scheme(MASK, VOCAB, SPECIAL, **change)
    for ids in ((0, VOCAB), (-1,), tuple(range(VOCAB))):
        with pytest.raises(ValueError, match="special ids"):
            Scheme(MASK, VOCAB, ids)
    with pytest.raises(ValueError, match="65536"):
        mask_words(np.full(70_000, 5), np.array([70_000]), derive(0), SCHEME)


# --- What the numbers must look like over many sequences --------------------------------------------------------------


def many(sequences=600, seed=0):
    """280,000 pieces of a vocabulary where three in four begin a word; whole words of 1 to 10 and more pieces."""
    rng = np.random.default_rng(seeded(seed))
    lengths = rng.integers(420, 511, sequences)
    table = rng.random(VOCAB) < 0.75
    return rng.integers(4, VOCAB - 1, lengths.sum()), lengths, derive(seeded(seed), np.arange(sequences)), table


def unit_actions(ids, masked, begins, lengths):
    """For each selected word: was it masked, replaced, or left? Counts of the three."""
    begins = begins.copy()
    begins[np.cumsum(lengths) - lengths] = True
    word = (np.cumsum(begins) - 1)[masked.rows]
    seen = masked.ids[masked.rows]
    n = len(np.unique(word))
    masked_words = len(np.unique(word[seen == MASK]))
    changed = len(np.unique(word[(seen != MASK) & (seen != masked.labels)]))
    return n, masked_words, changed, n - masked_words - changed


def binomial_z(hits, n, p):
    return (hits - n * p) / np.sqrt(n * p * (1 - p))


def test_shares_are_15_and_80_10_10():
    ids, lengths, keys, table = many()
    masked = mask_words(ids, lengths, keys, SCHEME, table)
    budget = sum(max(1, round(n * 0.15)) for n in lengths.tolist())
    assert len(ids) > 250_000 and 0.999 * budget < len(masked.rows) <= budget
    n, hidden, replaced, left = unit_actions(ids, masked, table[ids], lengths)
    assert n > 25_000
    for hits, share in ((hidden, 0.8), (replaced, 0.1), (left, 0.1)):
        assert abs(binomial_z(hits, n, share)) < 5


def test_the_share_check_detects_75_15_10():
    ids, lengths, keys, table = many()
    masked = mask_words(ids, lengths, keys, Scheme(MASK, VOCAB, SPECIAL, random=0.15), table)
    n, hidden, replaced, left = unit_actions(ids, masked, table[ids], lengths)
    assert abs(binomial_z(hidden, n, 0.8)) > 10 and abs(binomial_z(replaced, n, 0.1)) > 10


def test_whole_words_go_together():
    ids, lengths, keys, table = many()
    masked = mask_words(ids, lengths, keys, Scheme(MASK, VOCAB, SPECIAL, random=0.0, unmasked=0.0), table)
    begins = table[ids]
    begins[np.cumsum(lengths) - lengths] = True
    word = np.cumsum(begins) - 1
    assert (np.bincount(word[masked.rows], minlength=word[-1] + 1) % np.bincount(word) == 0).all()
    assert np.bincount(word).max() >= 5 and (masked.ids[masked.rows] == MASK).all()


def test_every_place_is_as_likely_piece_by_piece():
    """Without whole words the selection is a simple random sample: 6,000 sequences of 100 pieces, 15 of each."""
    keys = derive(8, np.arange(6000))
    rows = mask_words(np.full(600_000, 7), np.full(6000, 100), keys, SCHEME).rows
    hits = np.bincount(rows % 100, minlength=100)
    assert len(rows) == 90_000 and np.abs(binomial_z(hits, 6000, 0.15)).max() < 5
    pairs = np.zeros((6000, 100), dtype=bool)
    pairs.reshape(-1)[rows] = True
    together = (pairs[:, :-1] & pairs[:, 1:]).sum()  # neighbours: 15/100 * 14/99
    assert abs(binomial_z(together, 6000 * 99, 0.15 * 14 / 99)) < 5


def test_replacements_are_even_ordinary_and_differ_within_a_word():
    ids, lengths, keys, table = many(2000, seed=1)
    masked = mask_words(ids, lengths, keys, Scheme(MASK, VOCAB, SPECIAL, random=1.0, unmasked=0.0), table)
    replaced = masked.ids[masked.rows]
    counts = np.bincount(replaced, minlength=VOCAB)
    assert counts[[0, 1, 2, 3, MASK]].sum() == 0
    assert abs(chi_square_z(counts[4:MASK])) < 5 and len(replaced) > 100_000
    same_word = (np.diff(masked.rows) == 1) & ~table[ids[masked.rows[1:]]]
    equal = (replaced[:-1] == replaced[1:])[same_word]
    assert same_word.sum() > 5_000 and equal.mean() < 5 / VOCAB


def test_ordinary_ids_skip_special_ids_anywhere():
    scheme = Scheme(5, 10, (0, 4, 9))
    ids = ordinary_ids((np.arange(6) + 0.5) / 6, scheme)
    assert ids.tolist() == [1, 2, 3, 6, 7, 8]
    assert ordinary_ids(np.array([0.0, 1 - 2**-53]), scheme).tolist() == [1, 8]


def test_entities_are_always_hidden_by_default_and_unk_is_an_entry_like_others():
    lengths = np.full(3000, 20)
    ids = np.ones(60_000, dtype=np.int64)  # [UNK] everywhere
    masked = mask_entities(ids, lengths, derive(0, np.arange(3000)), ENTITY_SCHEME)
    assert len(masked.rows) == 9000 and (masked.labels == 1).all() and (masked.ids[masked.rows] == 2).all()
    scheme = Scheme(2, 500, (0, 1, 2), random=0.3, unmasked=0.1)
    seen = mask_entities(ids, lengths, derive(0, np.arange(3000)), scheme).ids[masked.rows]
    for hits, share in (((seen == 2).sum(), 0.6), ((seen > 2).sum(), 0.3), ((seen == 1).sum(), 0.1)):
        assert abs(binomial_z(hits, 9000, share)) < 5


# --- Independence from the rest of the batch --------------------------------------------------------------------------


def test_a_sequence_is_masked_alike_alone_and_in_any_company():
    ids, lengths, keys, table = many(40, seed=2)
    lengths[7], ids = 3, ids[: lengths.sum() - lengths[7] + 3]
    together = mask_words(ids, lengths, keys, SCHEME, table)
    first = np.cumsum(lengths) - lengths
    order = np.random.default_rng(seeded()).permutation(40)
    shuffled_ids = np.concatenate([ids[first[i] : first[i] + lengths[i]] for i in order])
    shuffled = mask_words(shuffled_ids, lengths[order], keys[order], SCHEME, table)
    place = np.cumsum(lengths[order]) - lengths[order]
    for k, i in enumerate(order):
        part = slice(first[i], first[i] + lengths[i])
        alone = mask_words(ids[part], lengths[i : i + 1], keys[i : i + 1], SCHEME, table)
        assert alone.ids.tolist() == together.ids[part].tolist()
        assert alone.ids.tolist() == shuffled.ids[place[k] : place[k] + lengths[i]].tolist()


def test_as_many_sequences_as_fit_into_the_sort():
    keys = derive(0, np.arange(65_536))
    ids, lengths = np.arange(3 * 65_536) % 500 + 4, np.full(65_536, 3)
    rows = mask_words(ids, lengths, keys, SCHEME).rows
    assert (rows // 3 == np.arange(65_536)).all()
    last = mask_words(ids[-30:], lengths[-10:], keys[-10:], SCHEME).rows
    assert (last == rows[-10:] - 3 * 65_526).all()


def test_masks_change_with_seed_epoch_and_example_and_kinds_are_independent():
    ids, lengths = np.full(500, 7), np.array([500])
    rows = {
        path: frozenset(mask_words(ids, lengths, derive(*path), SCHEME).rows.tolist())
        for path in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]
    }
    rows["entities"] = frozenset(mask_entities(ids, lengths, derive(0, 0, 0), SCHEME).rows.tolist())
    overlaps = [len(a & b) for i, a in enumerate(rows.values()) for b in list(rows.values())[:i]]
    # Two independent samples of 75 out of 500 share 11.25 on average, deviation 2.9.
    assert len(overlaps) == 15 and max(overlaps) < 11.25 + 5 * 2.9 and np.mean(overlaps) > 11.25 - 5 * 2.9 / np.sqrt(15)

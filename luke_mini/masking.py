"""Masking: which words and entities the model predicts, and what it sees in their place (LUKE, section 3.3).

In: the token ids of a batch as one flat array, the length of each sequence, one 64-bit key per sequence. Out: the ids
that the model sees, the rows to predict and their original ids (`Masked`). All functions are pure.

A *piece* is what other files call a word or token; a *word* here is a whole word, of one or more pieces. Each sequence
has a *budget*: the share of its pieces to predict, rounded to a number of pieces.

    ids        The  Syd  ney  op  era  house  .      7 pieces, 5 words: "Sydney" and "opera" have two pieces each
    budget     share 0.3: round(0.3 * 7) = 2 pieces, so "Sydney" fits; share 0.15: 1, only one-piece words fit
    seen       The  M    M    op  era  house  .      M is <mask>
    rows            1    2                           labels: Syd, ney

Words are tried in random order: one that fits what is left of the budget is selected, a longer one is skipped. An
entity is a word of one piece, so both share the code.

Random numbers: **no generator state; every number is a function of (seed, epoch, example, purpose, position)**. So a
batch does not depend on the number of processes, on the micro-batch size or on where a run was resumed. SplitMix64
makes this possible: output n of a generator with state `key` is mix(key + (n + 1) * GAMMA), so any output can be
computed alone; and an output is itself a good state, which makes a tree of generators: the seed's output number 3 is
the generator of epoch 3, whose output number 8 is the generator of example 8, and so on.

Left out on purpose: n-gram and span masking, static masks (BERT), dynamic budgets.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, made odd: consecutive states spread evenly over the 64 bits
WORDS, ENTITIES = 0, 1  # branches of an example's key
ORDER, ACTION, REPLACEMENT, FALLBACK = range(4)  # purposes: branches of the two
MAX_LENGTH = MAX_SEQUENCES = 1 << 16  # what `_in_random_order` can pack into 64 bits


@dataclass(frozen=True)
class Scheme:
    """How one vocabulary (words or entities) is masked. Shares are probabilities in [0, 1]."""

    mask_id: int
    vocab_size: int
    special_ids: tuple[int, ...]  # never a random replacement
    probability: float = 0.15  # share of each sequence's pieces to predict; 0: no masking
    random: float = 0.10  # share of those that becomes a random id
    unmasked: float = 0.10  # share of those that stays unchanged. LUKE's entities: both 0

    def __post_init__(self):
        shares = (self.probability, self.random, self.unmasked, self.random + self.unmasked)
        if min(shares) < 0 or max(shares) > 1:
            raise ValueError(f"masking shares must lie in [0, 1], and so must random + unmasked: {self}")
        special = set(self.special_ids) | {self.mask_id}
        if min(special) < 0 or max(special) >= self.vocab_size or len(special) == self.vocab_size:
            raise ValueError(f"special ids {sorted(special)} leave no ordinary id in a vocabulary of {self.vocab_size}")


class Masked(NamedTuple):
    """N tokens of a batch after masking, K of them selected."""

    ids: np.ndarray  # int64 [N], what the model sees
    rows: np.ndarray  # int64 [K], ascending indices into the N tokens
    labels: np.ndarray  # int64 [K], the original ids at those rows


def draw(keys: np.ndarray, counters) -> np.ndarray:
    """Output number `counters` (integers >= 0) of the SplitMix64 generators `keys` (uint64), broadcast; uint64.

    For one key different counters never give equal outputs: GAMMA is odd and each line below can be undone.
    """
    x = np.asarray(counters).astype(np.uint64).reshape(-1) * GAMMA  # uint64 arithmetic is modulo 2^64
    x = x + (keys + GAMMA)
    x ^= x >> 30
    x *= 0xBF58476D1CE4E5B9
    x ^= x >> 27
    x *= 0x94D049BB133111EB
    x ^= x >> 31
    return x


def derive(seed: int, *path) -> np.ndarray:
    """The key at the end of a path through the tree of generators: derive(seed, a, b) = draw(draw([seed], a), b).

    A step is an integer or an array of them; arrays [B] give B keys. uint64 [B] ([1] with integers only).
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed {seed} must lie in [0, 2^64)")
    keys = np.array([seed], dtype=np.uint64)
    for step in path:
        keys = draw(keys, step)
    return keys


def uniform(bits: np.ndarray) -> np.ndarray:
    """Random 64 bits -> float64 in [0, 1): the upper 53 bits, which a float64 holds exactly."""
    return (bits >> 11) * 2.0**-53


def ordinary_ids(shares: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Numbers in [0, 1) -> ids, uniform over the vocabulary without the special ones."""
    special = sorted({*scheme.special_ids, scheme.mask_id})
    ids = (shares * (scheme.vocab_size - len(special))).astype(np.int64)
    for special_id in special:  # ascending: each shifts the ids at and above it up by 1
        ids += ids >= special_id
    return ids


def _in_random_order(rows, sequence, position, random):
    """The rows sorted by sequence and, within a sequence, by their random numbers (uint64 below 2^32).

    One sort of integers: 16 bits sequence, 32 random bits, 16 bits position, which breaks ties.

        rows      0 2 3 4     two sequences, of which the second begins at row 3
        sequence  0 0 1 1     of each row, looked up by it (as position)
        position  0 2 0 1
        random    9 4 1 7     -> 2 0 3 4
    """
    packed = (sequence[rows] << 48 | position[rows]).astype(np.uint64) | random << 16
    packed.sort()
    # Every sequence keeps its number of rows, so `rows - position`, its first row, need not be sorted.
    return (rows - position[rows]) + (packed & (MAX_LENGTH - 1)).astype(np.int64)


def _fill_budgets(sizes, sequence, left):
    """Selects words one after the other if they still fit into their sequence's budget; bool [words].

    sizes, sequence [words]: pieces and sequence of each word, in the order of trial, sequences ascending;
    left [sequences]: the budgets, reduced in place.
    The rule is sequential but needs few passes: in each pass every sequence takes the longest run of words that fits;
    then words larger than what is left of the budget drop out, and the others try again.

        sizes 2 3 1 1, left 4     pass 1: 2 fits, 2 + 3 does not; left 2, so the 3 drops out
                                  pass 2: 1 fits, 1 + 1 as well; left 0             -> taken 1 0 1 1
    """
    taken = np.zeros(len(sizes), dtype=bool)
    trying = np.flatnonzero(sizes <= left[sequence])
    while len(trying):
        size, owner = sizes[trying], sequence[trying]
        total = np.concatenate([[0], np.cumsum(size)])
        begin = np.searchsorted(owner, np.arange(len(left)))  # each sequence's first candidate
        fits = total[1:] - total[begin][owner] <= left[owner]  # true until the first overshoot
        taken[trying[fits]] = True
        left -= np.bincount(owner[fits], weights=size[fits], minlength=len(left)).astype(np.int64)
        trying = trying[~fits]
        trying = trying[sizes[trying] <= left[sequence[trying]]]
    return taken


def _select_units(candidates, sizes, sequence, position, keys, budgets, probability):
    """First rows of the selected units. candidates: first rows that may be selected; sizes: pieces, by first row."""
    owner = sequence[candidates]
    random = draw(draw(keys, ORDER)[owner], position[candidates]) >> 32
    # Trial is by ascending random number. Words below a bound fill nearly every budget, so they are sorted and tried
    # first, and the rest only if needed: the same selection in half the time.
    early = random < int(min(2 * probability, 1) * 2**32)
    left, selected = budgets.copy(), []
    for turn in (early, ~early):
        chosen = np.flatnonzero(turn & (left > 0)[owner])
        order = _in_random_order(candidates[chosen], sequence, position, random[chosen])
        selected.append(order[_fill_budgets(sizes[order], owner[chosen], left)])
    return np.concatenate(selected)


def _under_mentions(starts, spans):
    """Makes each masked mention one unit, so that its tokens share one draw; a unit is a word or such a mention.

    starts bool [N]: a word begins here; spans int64 [M, 2]: rows under the mentions, half-open.
    -> (starts of units, covered by a mention, barred) bool [N]. Barred, never selected: tokens outside of a mention
    whose word is partly inside.

                     The  Syd  ney  op  era  house  .
        starts        1    1    0   1    0     1    1      and a mention over "Syd ney op", [1, 4)
        covered       0    1    1   1    0     0    0
        barred        0    0    0   0    1     0    0
        -> starts     1    1    0   0    1     1    1
    """
    spans = spans[spans[:, 1] > spans[:, 0]]
    depth = np.zeros(len(starts) + 1, dtype=np.int64)  # open mentions, which may overlap
    np.add.at(depth, spans[:, 0], 1)
    np.add.at(depth, spans[:, 1], -1)
    covered = np.cumsum(depth)[:-1] > 0
    word = np.cumsum(starts) - 1
    barred = np.isin(word, word[covered]) & ~covered
    starts = (starts & ~covered) | barred
    starts[spans[:, 0]] = True
    return starts, covered, barred


def _select(lengths, sequence, position, starts, keys, probability, spans):
    """-> (rows to predict; the first row of each one's unit; single rows selected as fallback), see `_mask`.

                     The  Syd  ney  op  era  house  .
        starts        1    1    0   1    0     1    1
        unit          0    1    1   3    3     5    6
        sizes         1    2    0   2    0     1    1      at first rows; other rows are never asked for
        taken              1                               -> rows 1 2, the unit of both is 1
    """
    budgets = np.where(lengths > 0, np.maximum(1, np.rint(lengths * probability)), 0).astype(np.int64)
    selected = np.zeros(len(starts), dtype=bool)
    candidates = starts
    if spans is not None:
        starts, selected, barred = _under_mentions(starts, spans)
        budgets -= np.bincount(sequence[selected], minlength=len(lengths))  # below 0: nothing else fits
        candidates = starts & ~selected & ~barred
    unit = np.flatnonzero(starts)[np.cumsum(starts) - 1]  # first row of each token's unit
    sizes = np.bincount(unit, minlength=len(starts))
    taken = _select_units(np.flatnonzero(candidates), sizes, sequence, position, keys, budgets, probability)
    selected[taken] = True
    selected = selected[unit]
    # If every word is larger than the budget, as in short sequences, one piece is selected.
    # differs from LUKE: any piece; LUKE never selects the last two and fails on two pieces or fewer.
    nothing = np.flatnonzero((np.bincount(sequence[selected], minlength=len(lengths)) == 0) & (lengths > 0))
    share = uniform(draw(keys[nothing], FALLBACK))
    fallback = (np.cumsum(lengths) - lengths)[nothing] + (share * lengths[nothing]).astype(np.int64)
    selected[fallback] = True
    rows = np.flatnonzero(selected)
    return rows, unit[rows], fallback


def _mask(ids, lengths, keys, scheme, starts, spans=None) -> Masked:
    """starts bool [N]: a unit (word) starts here. The first token of a sequence always starts one."""
    ids, lengths = np.asarray(ids, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    if len(lengths) > MAX_SEQUENCES or (len(lengths) and lengths.max() > MAX_LENGTH):
        raise ValueError(f"at most {MAX_SEQUENCES} sequences of at most {MAX_LENGTH} tokens can be masked in one call")
    if scheme.probability == 0 or len(ids) == 0:
        return Masked(ids.copy(), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    begin = np.cumsum(lengths) - lengths
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(ids)) - begin[sequence]
    starts = starts.copy()
    starts[begin[lengths > 0]] = True
    rows, unit, fallback = _select(lengths, sequence, position, starts, keys, scheme.probability, spans)
    # One draw per unit: all pieces of a word use the number at its first piece.
    action = uniform(draw(draw(keys, ACTION)[sequence[rows]], position[unit]))
    seen = ids.copy()
    seen[rows[action < 1 - scheme.random - scheme.unmasked]] = scheme.mask_id
    replaced = rows[(action >= 1 - scheme.random - scheme.unmasked) & (action < 1 - scheme.unmasked)]
    share = uniform(draw(draw(keys, REPLACEMENT)[sequence[replaced]], position[replaced]))
    # differs from LUKE: special ids are never replacements; in LUKE `<unk>`, `</s>` and `<mask>` can be.
    seen[replaced] = ordinary_ids(share, scheme)
    seen[fallback] = scheme.mask_id
    return Masked(seen, rows, ids[rows])


def mask_words(
    word_ids: np.ndarray,
    word_lengths: np.ndarray,
    keys: np.ndarray,
    scheme: Scheme,
    starts_word: np.ndarray | None = None,
    spans: np.ndarray | None = None,
) -> Masked:
    """Masks the words of a batch.

    word_ids      int [W], pieces of B sequences one after the other, without `<s>` and `</s>`
    word_lengths  int [B], pieces of each sequence; may be 0
    keys          uint64 [B], one per example and epoch, from `derive`
    starts_word   bool [vocabulary], True for pieces that start a word: whole-word masking as in LUKE.
                  None: each piece is a word of its own, as in mLUKE
    spans         int [M, 2], half-open rows under masked mentions: all are predicted and count towards the budget
                  (the option mask_words_in_entity_span). None: words are masked independently of entities

    Each sequence has a budget of max(1, round(probability * pieces)) pieces, rounded as Python rounds (half to even).
    """
    starts = np.ones(len(word_ids), dtype=bool) if starts_word is None else starts_word[word_ids]
    return _mask(word_ids, word_lengths, draw(keys, WORDS), scheme, starts, spans)


def mask_entities(entity_ids: np.ndarray, entity_lengths: np.ndarray, keys: np.ndarray, scheme: Scheme) -> Masked:
    """Masks the entities of a batch; arguments as in `mask_words`, the same keys may be used.

    Selects max(1, round(probability * entities)) of each sequence that has any. As in LUKE, `[UNK]` (a link to a title
    outside the vocabulary) can be selected like any other entity.
    """
    starts = np.ones(len(entity_ids), dtype=bool)
    return _mask(entity_ids, entity_lengths, draw(keys, ENTITIES), scheme, starts)

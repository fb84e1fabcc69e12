"""What is proved: batches hold what the shards hold, packed as `packing.from_padded` packs it; every example comes once
an epoch; ranks, micro-batches, accumulation and resuming change nothing; several folders keep their quotas and passes.

    PYTHONPATH=. python -m pytest -q tests/test_batching.py
"""

from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import Example, flatten

from luke_mini import batching, masking, recipes
from luke_mini.batching import BatchRules, batches, epoch_order, epoch_plan, make_batch, quotas
from luke_mini.examples import Shards, write_shard
from luke_mini.packing import from_padded

VOCAB, ENTITIES = 600, 300
FIRST = 5  # the first ordinary word
WORD_MASK, ENTITY_MASK = 4, 2
STARTS_WORD = np.random.default_rng(0).random(VOCAB) < 0.7
RULES = BatchRules(
    bos_id=0, pad_id=1, eos_id=2,
    words=masking.Scheme(WORD_MASK, VOCAB, (0, 1, 2, 3)),
    entities=masking.Scheme(ENTITY_MASK, ENTITIES, (0, 1, 2, 299), random=0.0, unmasked=0.0),
    starts_word=STARTS_WORD,
)  # fmt: skip
UNMASKED = replace(
    RULES, words=replace(RULES.words, probability=0.0), entities=replace(RULES.entities, probability=0.0)
)


def make_examples(n, seed=0, longest=40, first_page=0):
    """Random examples whose first word is FIRST + their number, so that a batch tells which ones it holds."""
    rng = np.random.default_rng(seed)
    examples = []
    for page in range(first_page, first_page + n):
        length = int(rng.integers(1, longest))
        starts = np.sort(rng.integers(0, length, rng.integers(0, 6)))
        spans = [(int(start), int(min(start + rng.integers(0, 4), length))) for start in starts]
        words, entities = rng.integers(FIRST, VOCAB, length).tolist(), rng.integers(3, 299, len(spans)).tolist()
        examples.append(Example(-1, [FIRST + page, *words[1:]], entities, spans))
    return examples


def write_shards(folder, examples, per_shard=1000):
    folder.mkdir()
    for number, first in enumerate(range(0, len(examples), per_shard)):
        write_shard(folder / f"shard-{number:05d}.bin", [flatten(examples[first : first + per_shard])], VOCAB)
    return folder


@pytest.fixture
def shards(tmp_path):
    return Shards.open(write_shards(tmp_path / "data", make_examples(50), per_shard=20))


def sequences(batch):
    """A batch taken apart: one tuple of plain lists per sequence, with everything that belongs to it. First its number,
    from its first word as it was before masking."""
    result, word, entity = [], 0, 0
    inputs = batch.packed
    word_labels = dict(zip(batch.masked_word_rows.tolist(), batch.masked_word_labels.tolist(), strict=True))
    entity_labels = dict(zip(batch.masked_entity_rows.tolist(), batch.masked_entity_labels.tolist(), strict=True))
    offsets, positions = inputs.mention_offsets.tolist(), inputs.mention_positions.tolist()
    for n_words, n_entities in zip(inputs.word_lengths, inputs.entity_lengths, strict=True):
        words, entities = range(word, word + n_words), range(entity, entity + n_entities)
        result.append(
            (
                word_labels.get(word + 1, inputs.word_ids[word + 1].item()) - FIRST,
                inputs.word_ids[word : word + n_words].tolist(),
                inputs.word_positions[word : word + n_words].tolist(),
                inputs.entity_ids[entity : entity + n_entities].tolist(),
                [positions[offsets[k] : offsets[k + 1]] for k in entities],
                [(row - word, word_labels[row]) for row in words if row in word_labels],
                [(row - entity, entity_labels[row]) for row in entities if row in entity_labels],
            )
        )
        word, entity = word + n_words, entity + n_entities
    assert word == len(inputs.word_ids) and entity == len(inputs.entity_ids) and offsets[-1] == len(positions)
    assert sum(len(one[5]) for one in result) == len(word_labels)
    assert sum(len(one[6]) for one in result) == len(entity_labels)
    return result


def stream(shards, n_steps, *, world_size=1, rules=RULES, start_step=0, order=list, **sizes):
    """The steps of a run of `world_size` processes; a step is its sequences, in order, or sorted."""
    runs = [
        islice(batches(shards, rules, rank=rank, world_size=world_size, start_step=start_step, **sizes), n_steps)
        for rank in range(world_size)
    ]
    return [order(one for step in ranks for batch in step for one in sequences(batch)) for ranks in zip(*runs)]


def pages(steps):
    return [one[0] for step in steps for one in step]


# --- One batch --------------------------------------------------------------------------------------------------------


def test_hand_worked_batch():
    """Two sequences: `Ada in Oslo` with two mentions, `Rain` with none; `<s>` moves mention positions by one."""
    gathered = flatten([Example(7, [10, 11, 12], [20, 21], [(0, 1), (1, 3)]), Example(-1, [13], [], [])])
    batch = make_batch(gathered, masking.derive(0, np.arange(2)), UNMASKED)
    inputs = batch.packed
    assert inputs.word_ids.tolist() == [0, 10, 11, 12, 2, 0, 13, 2]
    assert inputs.word_positions.tolist() == [2, 3, 4, 5, 6, 2, 3, 4]  # pad_id + 1 = 2
    assert inputs.entity_ids.tolist() == [20, 21]
    assert inputs.mention_positions.tolist() == [1, 2, 3] and inputs.mention_offsets.tolist() == [0, 1, 3]
    assert inputs.word_lengths == (5, 3) and inputs.entity_lengths == (2, 0)
    assert batch.counts == {"word": 0, "entity": 0} and batch.n_tokens == 10

    masked = make_batch(gathered, masking.derive(0, np.arange(2)), RULES)
    first, second = masked.masked_word_rows.tolist()  # budgets are max(1, round(0.45)) and 1
    assert 1 <= first <= 3 and second == 6
    assert masked.masked_word_labels.tolist() == [[10, 11, 12][first - 1], 13]
    (row,) = masked.masked_entity_rows.tolist()
    assert masked.masked_entity_labels.tolist() == [[20, 21][row]] and masked.packed.entity_ids[row] == ENTITY_MASK
    assert masked.counts == {"word": 2, "entity": 1}


def test_packed_as_from_padded_packs(shards):
    """The same examples written as padded tensors and packed by packing.py."""
    examples = make_examples(50)
    batch = make_batch(shards.gather(np.arange(len(shards))), masking.derive(0, np.arange(len(shards))), UNMASKED)
    words = max(len(example.word_ids) for example in examples) + 2
    input_ids, mask = torch.ones(len(examples), words, dtype=torch.long), torch.zeros(len(examples), words)
    entity_ids, entity_mask = torch.zeros(len(examples), 6, dtype=torch.long), torch.zeros(len(examples), 6)
    positions = torch.full((len(examples), 6, 30), -1)
    for i, example in enumerate(examples):
        ids = [0, *example.word_ids, 2]
        input_ids[i, : len(ids)], mask[i, : len(ids)] = torch.tensor(ids), 1
        for k, (entity, (start, end)) in enumerate(zip(example.entity_ids, example.mention_spans)):
            entity_ids[i, k], entity_mask[i, k] = entity, 1
            positions[i, k, : end - start] = torch.arange(start + 1, end + 1)
    expected = from_padded(input_ids, mask, entity_ids, positions, entity_mask, pad_id=1)
    for name in ("word_ids", "word_positions", "entity_ids", "mention_positions", "mention_offsets"):
        ours, theirs = getattr(batch.packed, name), getattr(expected, name)
        assert ours.dtype == torch.int64 and torch.equal(ours, theirs), name
    assert batch.packed.word_lengths == expected.word_lengths
    assert batch.packed.entity_lengths == expected.entity_lengths


@pytest.mark.parametrize("rules", [RULES, replace(RULES, starts_word=None, mask_words_in_entity_span=True)])
def test_labels_are_the_original_ids_at_the_selected_rows(shards, rules):
    """Putting the labels back gives the example; nothing else was touched; <s> and </s> are never selected."""
    batch = make_batch(shards.gather(np.arange(50)), masking.derive(0, np.arange(50)), rules)
    for tensor in (batch.masked_word_rows, batch.masked_entity_rows):
        assert (tensor.diff() > 0).all()
    examples = make_examples(50)
    for page, words, _, entities, _, word_labels, entity_labels in sequences(batch):
        example = examples[page]
        for row, label in word_labels:
            words[row] = label
        for row, label in entity_labels:
            assert entities[row] == ENTITY_MASK
            entities[row] = label
        assert words == [0, *example.word_ids, 2] and entities == example.entity_ids
        assert len(entity_labels) == (max(1, round(0.15 * len(entities))) if entities else 0)
        assert 1 <= len(word_labels) and 0 < word_labels[0][0] and word_labels[-1][0] < len(words) - 1
        if rules.mask_words_in_entity_span:
            under = {i + 1 for k, _ in entity_labels for i in range(*example.mention_spans[k])}
            assert under <= {row for row, _ in word_labels}
        else:
            assert len(word_labels) <= max(1, round(0.15 * len(example.word_ids)))


def test_extreme_examples():
    """1, 2 and 3 words, no words, no entities, 128 entities, a mention of 30 words, an empty mention."""
    long = list(range(100, 160))
    examples = [
        Example(0, [10], [], []),
        Example(1, [10, 11], [20], [(0, 2)]),
        Example(2, [10, 11, 12], [20], [(1, 1)]),
        Example(3, [], [], []),
        Example(4, long, list(range(100, 228)), [(i % 60, i % 60 + 1) for i in range(128)]),
        Example(5, long, [20, 21], [(10, 40), (55, 60)]),
    ]
    batch = make_batch(flatten(examples), masking.derive(0, np.arange(6)), RULES)
    assert batch.packed.word_lengths == (3, 4, 5, 2, 62, 62)
    assert batch.packed.entity_lengths == (0, 1, 1, 0, 128, 2)
    parts = sequences(batch)
    assert parts[1][4] == [[1, 2]] and parts[2][4] == [[]] and parts[3][1] == [0, 2]
    assert parts[4][4] == [[i % 60 + 1] for i in range(128)] and len(parts[4][6]) == round(0.15 * 128)
    assert parts[5][4] == [list(range(11, 41)), [56, 57, 58, 59, 60]]
    n_labels = [len(part[5]) for part in parts]
    assert n_labels[:4] == [1, 1, 1, 0] and all(1 <= n <= round(0.15 * 60) for n in n_labels[4:])
    alone = make_batch(flatten(examples[3:4]), masking.derive(0, 0), RULES)
    assert alone.packed.word_ids.tolist() == [0, 2] and alone.n_tokens == 2


def test_words_under_a_masked_mention_are_all_predicted():
    example = Example(0, list(range(100, 160)), [20], [(10, 40)])
    rules = replace(RULES, mask_words_in_entity_span=True)
    batch = make_batch(flatten([example]), masking.derive(0, 0), rules)
    assert batch.masked_word_rows.tolist() == list(range(11, 41))  # more than the budget of 9, so nothing else


def test_words_only_is_the_same_without_entities(shards):
    """The words are masked as before, and nothing else is left."""
    found, whole = (next(batches(shards, replace(RULES, words_only=only), global_batch=9, micro_batch=9))[0]
                    for only in (True, False))  # fmt: skip
    assert found.packed.n_entities == len(found.masked_entity_rows) == len(found.packed.mention_positions) == 0
    assert whole.packed.n_entities > 9 and found.packed.word_lengths == whole.packed.word_lengths
    assert torch.equal(found.packed.word_ids, whole.packed.word_ids)
    assert torch.equal(found.masked_word_labels, whole.masked_word_labels)


def test_pages_are_predicted_from_the_first_token():
    """Of sequences whose page is an entity."""
    made = [example._replace(page_id=page) for example, page in zip(make_examples(4), (7, -1, 299, 0))]
    keys = masking.derive(0, np.arange(4))
    batch = make_batch(flatten(made), keys, replace(RULES, predict_page=True))
    starts = np.cumsum([0, *batch.packed.word_lengths])
    assert batch.page_rows.tolist() == [starts[0], starts[2], starts[3]] and batch.page_labels.tolist() == [7, 299, 0]
    assert batch.packed.word_ids[batch.page_rows].tolist() == [RULES.bos_id] * 3 and batch.counts["page"] == 3
    assert "page" not in make_batch(flatten(made), keys, RULES).counts


def test_batch_moves_to_a_device_whole(shards):
    batch = next(batches(shards, RULES, global_batch=4, micro_batch=4))[0]
    moved = batch.to("meta")
    tensors = [value for value in (*vars(moved).values(), *vars(moved.packed).values()) if torch.is_tensor(value)]
    assert len(tensors) == 10 and all(tensor.device.type == "meta" for tensor in tensors)
    assert moved.counts == batch.counts and moved.n_tokens == batch.n_tokens


# --- The stream -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_epoch_order_is_a_permutation_that_changes_with_seed_epoch_and_folder(n):
    orders = [epoch_order(0, 0, n), epoch_order(1, 0, n), epoch_order(0, 1, n), epoch_order(0, 0, n, folder=1)]
    assert all(sorted(order.tolist()) == list(range(n)) for order in orders)
    if n == 1000:
        assert len({tuple(order) for order in orders}) == 4
        assert max(abs(np.corrcoef(orders[0], order)[0, 1]) for order in [*orders[1:], np.arange(n)]) < 5 / np.sqrt(n)


def test_all_orders_of_four_examples_are_equally_likely():
    counts = {}
    for epoch in range(4800):
        order = tuple(epoch_order(3, epoch, 4).tolist())
        counts[order] = counts.get(order, 0) + 1
    hits = np.array(list(counts.values()))
    assert len(hits) == 24 and abs(hits - 200).max() < 5 * np.sqrt(200)


@pytest.mark.parametrize("global_batch", [7, 10, 50, 64, 130])
def test_every_example_once_an_epoch_whatever_the_batch(shards, global_batch):
    """Also where a batch crosses the end of an epoch (7, 64) or holds several (130)."""
    n_steps = -(-150 // global_batch)
    seen = pages(stream(shards, n_steps, global_batch=global_batch, micro_batch=global_batch))
    epochs = [seen[first : first + 50] for first in (0, 50, 100)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


SPLITS = [(1, 16), (1, 8), (1, 5), (1, 1), (2, 8), (2, 3), (4, 4), (4, 1), (8, 2), (16, 1)]


@pytest.mark.parametrize("world_size, micro_batch", SPLITS)
def test_ranks_micro_batches_and_accumulation_change_nothing(shards, world_size, micro_batch):
    """The same sequences with the same masks. 8 steps of 16 cross two ends of epochs."""
    expected = stream(shards, 8, global_batch=16, micro_batch=16, order=sorted)
    found = stream(shards, 8, global_batch=16, micro_batch=micro_batch, world_size=world_size, order=sorted)
    assert found == expected


def test_the_same_order_in_other_batch_sizes(shards):
    one_by_one = pages(stream(shards, 120, global_batch=1, micro_batch=1))
    assert pages(stream(shards, 5, global_batch=24, micro_batch=24))  == one_by_one


@pytest.mark.parametrize("step", [1, 3, 9])
def test_resuming_gives_what_going_on_would_have_given(shards, step):
    whole = stream(shards, 12, global_batch=12, micro_batch=5)
    assert stream(shards, 12 - step, global_batch=12, micro_batch=5, start_step=step) == whole[step:]
    # … also if the run goes on with other processes and micro-batches
    other = stream(shards, 12 - step, global_batch=12, micro_batch=2, world_size=3, start_step=step, order=sorted)
    assert other == list(map(sorted, whole[step:]))


def test_epochs_mask_differently_and_seeds_too(shards):
    one, two = (dict((one[0], one[5:]) for one in step) for step in stream(shards, 2, global_batch=50, micro_batch=50))
    assert one.keys() == two.keys() and sum(one[page] == two[page] for page in one) < 25
    other = stream(shards, 1, rules=replace(RULES, seed=1), global_batch=50, micro_batch=50)[0]
    assert [part[0] for part in other] != list(one) and sum(part[5:] == one[part[0]] for part in other) < 25


def test_micro_batches_are_even_and_as_many_on_each_rank(shards):
    sizes, words = [], []
    for rank in range(3):
        step = next(batches(shards, RULES, global_batch=30, micro_batch=4, rank=rank, world_size=3))
        sizes.append([len(batch.packed.word_lengths) for batch in step])
        words += [batch.packed.n_words for batch in step]
    assert sorted(size for step in sizes for size in step) == [3, 3, 3, 3, 3, 3, 4, 4, 4] and {*map(len, sizes)} == {3}
    assert max(words) - min(words) <= 0.2 * max(words)  # in order: 0.67


@pytest.mark.parametrize("n, hands, more", [(64, 4, 0.01), (2048, 64, 0.01), (2048, 256, 0.03), (7, 3, 1), (3, 8, 9)])
def test_hands_are_even(n, hands, more):
    """Every sequence once, in order; as many for each, and as many tokens: lengths as those of a Wikipedia. Cut as they
    come, the largest hand has 9, 8 and 15 % more than the mean."""
    lengths = np.clip(510 - np.random.default_rng(n).exponential(90, n), 20, 510).astype(int)
    dealt = batching.deal(lengths, hands)
    assert sorted(np.concatenate(dealt)) == list(range(n)) and all(np.all(np.diff(hand) > 0) for hand in dealt)
    assert {len(hand) for hand in dealt} <= {n // hands, -(-n // hands)}
    tokens = [lengths[hand].sum() for hand in dealt]
    assert max(tokens) <= (1 + more) * sum(tokens) / hands
    assert [hand.tolist() for hand in batching.deal(np.array([5, 1, 9, 4]), 2)] == [[1, 2], [0, 3]]


# --- Several folders --------------------------------------------------------------------------------------------------


def test_quotas():
    assert quotas([80, 20], 0.7) == [73, 27]  # 80^.7 : 20^.7 = 21.49 : 8.14, that is 72.53 and 27.47 of 100
    assert quotas([80, 20], 1.0) == [80, 20] and quotas([80, 20], 0.0) == [50, 50]
    assert quotas([5], 0.7) == [5] and quotas([0, 5, 0], 0.7) == [0, 5, 0]
    sizes = [11_000_000, 1_234_567, 98_765, 4321]
    shares = np.array(sizes) ** 0.7 / (np.array(sizes) ** 0.7).sum()
    assert sum(quotas(sizes, 0.7)) == sum(sizes)
    assert np.abs(np.array(quotas(sizes, 0.7)) - shares * sum(sizes)).max() < 1


def test_one_folder_is_the_plain_case():
    for epoch in (0, 3):
        examples, passes = epoch_plan(5, epoch, [30], 0.7)
        assert examples.tolist() == epoch_order(5, epoch, 30).tolist() and passes.tolist() == [epoch] * 30


def test_several_folders_keep_quotas_and_read_each_pass_completely():
    """Sizes 80, 20, 3 over 12 epochs: a pass of a folder holds each of its examples once, and passes follow in turn."""
    sizes = [80, 20, 3]
    wanted = quotas(sizes, 0.7)
    base = [0, 80, 100]
    read = [[], [], []]
    for epoch in range(12):
        examples, passes = epoch_plan(1, epoch, sizes, 0.7)
        folder = np.searchsorted([80, 100], examples, side="right")
        assert np.bincount(folder, minlength=3).tolist() == wanted and len(examples) == 103
        for k in range(3):
            read[k] += zip(passes[folder == k].tolist(), (examples[folder == k] - base[k]).tolist())
    for size, quota, pairs in zip(sizes, wanted, read):
        assert len(pairs) == 12 * quota and len(set(pairs)) == len(pairs)
        full = 12 * quota // size
        for number in range(full):
            assert sorted(example for round_, example in pairs if round_ == number) == list(range(size))
        assert {round_ for round_, _ in pairs} == set(range(-(-12 * quota // size)))


def test_folders_are_mixed_evenly_through_an_epoch():
    """In each tenth of an epoch: hypergeometric numbers of places of the small folder."""
    sizes, tenth = [4000, 1000], 500
    share = quotas(sizes, 0.7)[1] / 5000
    deviation = np.sqrt(tenth * share * (1 - share) * (5000 - tenth) / 4999)
    for epoch in (0, 1):
        is_small = epoch_plan(2, epoch, sizes, 0.7)[0] >= 4000
        assert abs(is_small.reshape(10, tenth).sum(axis=1) - tenth * share).max() < 5 * deviation


def test_gather_over_folders_keeps_the_order(tmp_path):
    examples = make_examples(30)
    parts = Shards.open(write_shards(tmp_path / "a", examples[:18], 5), write_shards(tmp_path / "b", examples[18:]))
    assert parts.sizes == [18, 12] and len(parts) == 30
    wanted = np.random.default_rng(0).integers(0, 30, 200)
    for indices in (wanted, np.array([29, 0]), np.array([3, 4]), np.array([20])):
        for ours, expected in zip(parts.gather(indices)[:-1], flatten([examples[k] for k in indices])):
            assert np.array_equal(ours, expected)


def test_several_folders_split_and_resume_alike(tmp_path):
    small = make_examples(5, seed=1, first_page=100)
    folders = Shards.open(write_shards(tmp_path / "big", make_examples(40)), write_shards(tmp_path / "small", small))
    expected = stream(folders, 12, global_batch=12, micro_batch=12, order=sorted)
    assert stream(folders, 12, global_batch=12, micro_batch=2, world_size=3, order=sorted) == expected
    assert stream(folders, 5, global_batch=12, micro_batch=5, start_step=7, order=sorted) == expected[7:]
    # The small folder is read several times, each time with other masks.
    again = [part for step in expected for part in step if part[0] == 102]
    assert len(again) >= 3 and len({str(part[5:]) for part in again}) > 1


def test_an_empty_folder_is_no_obstacle(tmp_path):
    examples = make_examples(10)
    empty = write_shards(tmp_path / "empty", [])
    write_shard(empty / "shard-00000.bin", [flatten([])], VOCAB)
    folders = Shards.open(empty, write_shards(tmp_path / "full", examples), empty)
    assert folders.sizes == [0, 10, 0]
    assert sorted(pages(stream(folders, 5, global_batch=2, micro_batch=2))) == list(range(10))
    with pytest.raises(ValueError, match="no examples"):
        batches(Shards.open(empty), RULES, global_batch=2, micro_batch=2)


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ({"world_size": 3}, "evenly over 3"),
        ({"micro_batch": 0}, "micro-batch 0"),
        ({"global_batch": 0}, "global batch 0"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"start_step": -1}, "step -1"),
    ],
)
def test_bad_sizes_are_refused_before_the_first_batch(shards, change, message):
    with pytest.raises(ValueError, match=message) as error:
        batches(shards, RULES, **{"global_batch": 16, "micro_batch": 4, **change})
    assert "\n" not in str(error.value)


def test_training_steps_reads_the_recipe_and_stops(shards):
    tokenizer = SimpleNamespace(
        bos_id=0, pad_id=1, eos_id=2, unk_id=3, mask_id=4, ent_id=598, ent2_id=None, starts_word=STARTS_WORD
    )
    tokenizer = type("Tokenizer", (), {"__len__": lambda self: VOCAB, **vars(tokenizer)})()
    entity_vocab = type(
        "Vocab", (), {"__len__": lambda self: ENTITIES, "pad_id": 0, "unk_id": 1, "mask_id": 2, "mask2_id": 299}
    )()
    recipe = replace(recipes.published("luke 2"), global_batch=16, micro_batch=4, seed=3)
    rank, other = (SimpleNamespace(index=index, world_size=2) for index in (1, 0))
    steps = list(batching.training_steps(shards, tokenizer, entity_vocab, recipe, rank, 2, 6))
    others = list(batching.training_steps(shards, tokenizer, entity_vocab, recipe, other, 2, 6))
    rules = batching.batch_rules(tokenizer, entity_vocab, recipe)
    assert rules.words.special_ids == (0, 1, 2, 3, 4, 598) and rules.entities.special_ids == (0, 1, 2, 299)
    assert (rules.sampling_exponent, rules.mask_words_in_entity_span) == (0.7, False)
    assert rules.words.random == rules.words.unmasked == 0.1 and rules.entities.random == rules.entities.unmasked == 0
    expected = stream(shards, 4, rules=rules, global_batch=16, micro_batch=16, start_step=2, order=sorted)
    parts = [[one for batch in [*step, *rest] for one in sequences(batch)] for step, rest in zip(steps, others)]
    assert list(map(sorted, parts)) == expected and {len(step) for step in [*steps, *others]} == {2}
    again = batching.training_steps(shards, tokenizer, entity_vocab, recipe, rank, 6, 6)
    assert list(again) == []
    other = replace(recipe, whole_word_masking=False, sampling_exponent=0.3, mask_words_in_entity_span=True)
    rules = batching.batch_rules(tokenizer, entity_vocab, other)
    assert rules.starts_word is None and rules.sampling_exponent == 0.3 and rules.mask_words_in_entity_span
    shares = dict(random_word_prob=0.2, unmasked_word_prob=0.3, random_entity_prob=0.4, unmasked_entity_prob=0.5)
    rules = batching.batch_rules(tokenizer, entity_vocab, replace(recipe, **shares, words_only=True))
    found = (rules.words.random, rules.words.unmasked, rules.entities.random, rules.entities.unmasked)
    assert found == (0.2, 0.3, 0.4, 0.5)
    assert rules.words_only and not rules.predict_page
    assert batching.batch_rules(tokenizer, entity_vocab, replace(recipe, predict_page=True)).predict_page
    with pytest.raises(ValueError, match="--sampling-exponent 1.5 must lie in"):
        replace(recipe, sampling_exponent=1.5)


def test_steps_for():
    assert [batching.steps_for(n, 16, epochs) for n, epochs in [(50, 1), (48, 1), (50, 0.5), (1, 3)]] == [4, 3, 2, 1]
    assert batching.steps_for(10_052_402, 2048, 20) == 98_168  # a stage of LUKE: 20 epochs of about 10 M examples

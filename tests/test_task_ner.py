"""The NER task equals its specification: windows worked by hand, features against a plain transcription of the rules,
scores of the head against transformers, decoding against brute force, and a tiny model that learns 20 sentences.

    python -m pytest -q tests/test_task_ner.py
"""

import random
import string
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_rounded, assert_same, generator, seeded
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini import checkpoint, optim, task_ner
from luke_mini.config import ModelConfig
from luke_mini.conll import Document, read_examples
from luke_mini.heads import TaskModel
from luke_mini.metrics import chunks
from luke_mini.initialization import initialize
from luke_mini.task_ner import CONLL_LABELS, Mention, Options

SMALL = ModelConfig(
    vocab_size=300,
    entity_vocab_size=7,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    entity_emb_size=12,
    max_position_embeddings=70,
)
MASK_ENTITY = 3  # neither a released model's id nor a neighbour of the padding


class WordTokenizer:
    """One piece a word, numbered as they come."""

    bos_id, pad_id, eos_id, unk_id = 0, 1, 2, 3

    def __init__(self):
        self.words = {}

    def encode_pieces(self, texts, prefix_spaces):
        return [[self.words.setdefault(text, 10 + len(self.words))] for text in texts]


class LetterTokenizer:
    """One piece a letter, one more where there is a space before; U+200B has none. Counts what it is asked for."""

    bos_id, pad_id, eos_id, unk_id = 0, 1, 2, 3

    def __init__(self):
        self.calls = 0

    def encode(self, text, prefix_space):
        letters = [10 + ord(char) % 280 for char in text if char != "\u200b"]
        return [4] * (prefix_space and text != "\u200b") + letters

    def encode_pieces(self, texts, prefix_spaces):
        self.calls += len(texts)
        return [self.encode(text, prefix_space) for text, prefix_space in zip(texts, prefix_spaces)]


# --- Windows --------------------------------------------------------------------------------------------------------


def test_window_hand_worked():
    """Sentences of 100, 300, 200, 250 pieces in one document, 510 pieces fit.

    First: half of the room is 205; nothing on the left, so the right gets all 410. Second: half 105; the left has only
    100, the right takes 110. Third: half 155 on both sides. Fourth: nothing on the right, the left gets 260.
    """
    n = np.array([100, 300, 200, 250])
    before = np.array([0, 100, 400, 600])
    left, right = task_ner.context_window(n, before, 850 - before - n, 510)
    assert list(zip(left.tolist(), right.tolist())) == [(0, 410), (100, 110), (155, 155), (260, 0)]


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 100), st.integers(0, 100))
def test_window_is_as_large_and_as_central_as_possible(n, before, after):
    limit = 60
    left, right = (int(side) for side in task_ner.context_window(n, before, after, limit))
    assert 0 <= left <= before and 0 <= right <= after
    assert left + n + right == min(limit, before + n + after)
    if abs(left - right) > 1:  # lopsided only where the document ends
        assert left == before if left < right else right == after


# --- Features -------------------------------------------------------------------------------------------------------


def by_the_book(document, tokenizer, labels, options):
    """Features of one document by the rules: (sentence, word_ids, token_spans, word_spans, labels)."""
    pieces = []
    for word in document.words:
        glued = word[0] == "'" or len(word) == 1 and word in string.punctuation + "…»"
        ids = tokenizer.encode(word, prefix_space=options.space_before_all or not glued)
        pieces.append(ids[: (options.max_seq_length - 2)] if ids else [tokenizer.unk_id])
    all_ids = [piece for ids in pieces for piece in ids]
    parts = []  # a sentence with too many pieces becomes several
    for sentence, (begin, end) in enumerate(zip(document.sentences, document.sentences[1:])):
        room = 0
        for word in range(begin, end):
            if len(pieces[word]) > room or word == begin:
                parts.append([sentence, word, word])
                room = (options.max_seq_length - 2)
            room -= len(pieces[word])
            parts[-1][2] = word + 1
    gold = {(start, end): labels.index(kind) for start, end, kind in document.spans if kind in labels}
    features = []
    for sentence, begin, end in parts:
        l = sum(len(ids) for ids in pieces[:begin])
        n = sum(len(ids) for ids in pieces[begin:end])
        r = len(all_ids) - l - n
        half = ((options.max_seq_length - 2) - n) // 2
        if l < r:
            left = min(l, half)
            right = min(r, (options.max_seq_length - 2) - left - n)
        else:
            right = min(r, half)
            left = min(l, (options.max_seq_length - 2) - right - n)
        word_ids = [tokenizer.bos_id] + all_ids[l - left : l + n + right] + [tokenizer.eos_id]
        candidates = []
        for i in range(begin, end):
            for j in range(i + 1, end + 1):
                length = sum(len(ids) for ids in pieces[i:j])
                if length <= options.max_mention:
                    first = 1 + left + sum(len(ids) for ids in pieces[begin:i])
                    candidates.append(((first, first + length), (i, j), gold.get((i, j), 0)))
        if candidates:
            inputs = -(-len(candidates) // options.max_candidates)
            size = -(-len(candidates) // inputs)
            for i in range(0, len(candidates), size):
                features.append((sentence, word_ids, *map(list, zip(*candidates[i : i + size]))))
    return features


@st.composite
def documents_and_options(draw):
    words = st.text(alphabet="ab'.…\u200b", min_size=1, max_size=9)
    document = Document([], [], [0])
    for _ in range(draw(st.integers(0, 5))):
        pairs = draw(st.lists(st.tuples(words, st.sampled_from("O O I-A B-A I-B I-C".split())), min_size=1, max_size=9))
        offset = len(document.words)
        document.words += [word for word, _ in pairs]
        document.spans += [(offset + s, offset + e, kind) for s, e, kind in chunks([tag for _, tag in pairs])]
        document.sentences.append(len(document.words))
    max_pieces = draw(st.integers(1, 30))
    max_mention = draw(st.integers(1, min(max_pieces, 12)))
    options = Options("token", max_pieces + 2, max_mention, draw(st.integers(1, 9)), space_before_all=draw(st.booleans()))
    return document, options


@settings(deadline=None, max_examples=300)
@given(documents_and_options())
def test_features_are_those_of_the_rules(case):
    document, options = case
    labels = ("NIL", "A", "B")  # C is a type that the model does not know
    other = Document(["ab"], [(0, 1, "A")], [0, 1])
    features = task_ner.make_features([other, document], LetterTokenizer(), None, labels, options)
    expected = by_the_book(document, LetterTokenizer(), labels, options)
    ours = [feature for feature in features if feature.document == 1]
    assert [(f.sentence, f.word_ids.tolist(), f.labels.tolist()) for f in ours] == [
        (sentence, word_ids, label_ids) for sentence, word_ids, _, _, label_ids in expected
    ]
    for feature, (_, _, token_spans, word_spans, _) in zip(ours, expected):
        assert list(map(tuple, feature.token_spans.tolist())) == token_spans
        assert list(map(tuple, feature.word_spans.tolist())) == word_spans
    found = sum(label > 0 for *_, label_ids in expected for label in label_ids)
    assert task_ner.unreachable_gold([document], ours) == len(document.spans) - found


def test_space_before_a_word():
    glued = ["'s", "'", "'tis", ".", ",", "(", "$", "<", "~", "-", "»", "…", "。", "—"]
    spaced = ["Oslo", "s", "I", "7", "...", "--", "n't", "€", "`a", "é", "日", "U.S."]
    assert [word for word in glued + spaced if not task_ner.takes_space(word)] == glued


def test_129_candidates_become_65_and_64():
    """44 words of two pieces (space and letter), at most three in a candidate: 42 * 3 + 2 + 1 = 129."""
    document = Document(["a"] * 44, [], [0, 44])
    features = task_ner.make_features([document], LetterTokenizer(), None, ("NIL", "A"), Options(max_mention=3 * 2))
    assert [len(feature.labels) for feature in features] == [65, 64]
    assert features[0].word_ids is features[1].word_ids  # one copy of the words


def test_each_distinct_word_is_tokenized_once():
    tokenizer = LetterTokenizer()
    document = Document(["a", "b", "a"] * 50, [], [0, 75, 150])
    task_ner.make_features([document, document], tokenizer, None, CONLL_LABELS)
    assert tokenizer.calls == 2


def test_a_new_head_depends_on_its_seed_only():
    first, again, other = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.classifier.weight.std().item() == pytest.approx(SMALL.initializer_range, rel=0.1)
    assert not first.classifier.bias.any()


def test_labels():
    def documents(*kinds):
        return [Document(["w"] * len(kinds), [(i, i + 1, kind) for i, kind in enumerate(kinds)], [0, len(kinds)])]

    assert task_ner.label_list(documents("LOC", "PER", "MISC", "ORG", "PER")) == ("NIL", "MISC", "PER", "ORG", "LOC")
    assert task_ner.label_list(documents("river", "city", "river")) == ("NIL", "city", "river")
    assert task_ner.label_list(documents("PER", "LOC")) == ("NIL", "LOC", "PER")
    with pytest.raises(ValueError, match="no mention"):
        task_ner.label_list(documents())


@pytest.mark.parametrize("wrong", [{"max_mention": 511}, {"max_mention": 0}, {"max_candidates": 0}])
def test_impossible_options(wrong):
    with pytest.raises(ValueError, match="--max-mention"):
        Options(**wrong)


# Gold mentions of more than 16 pieces, or cut in a sentence of more than 510, with RoBERTa's tokenizer: a handful.
@pytest.mark.parametrize("name", ["eng.testa", "deu.testa", "esp.testa", "ned.testa"])
def test_real_files_fit_the_model(name):
    documents = read_examples(shared_data(f"ner/{name}"))
    features = task_ner.make_features(documents, LetterTokenizer(), None, CONLL_LABELS)
    assert max(len(feature.word_ids) for feature in features) <= 512
    assert max(len(feature.labels) for feature in features) <= 128
    spans = np.concatenate([feature.token_spans for feature in features])
    assert (spans[:, 0] >= 1).all() and (spans[:, 1] - spans[:, 0]).max() == 16
    reachable = {(feature.document, *span) for feature in features for span in feature.word_spans.tolist()}
    gold = [(index, start, end) for index, document in enumerate(documents) for start, end, _ in document.spans]
    assert task_ner.unreachable_gold(documents, features) == sum(span not in reachable for span in gold)


# --- Batches and model ------------------------------------------------------------------------------------------------

TEXT = Document("Ada of Oslo 's club . It rained".split(), [(0, 1, "PER"), (2, 5, "ORG")], [0, 6, 8])
OPTIONS = Options(max_seq_length=42, max_candidates=10)


def build(labels=CONLL_LABELS, head="token+entity", seed=0):
    model = task_ner.build_model(SMALL, SimpleNamespace(mask_id=MASK_ENTITY), labels, Options(head))
    initialize(model, SMALL, seed)
    return model


def features_of(*documents, options=OPTIONS, labels=CONLL_LABELS):
    return task_ner.make_features(documents, LetterTokenizer(), None, labels, options)


class Echo(torch.nn.Module):
    """A stand-in for the encoder whose hidden states say which row they are: [kind, sequence, id, positions ...]."""

    def forward(self, packed):
        sequences = torch.arange(len(packed.word_lengths))
        words = torch.stack(
            [
                torch.zeros(packed.n_words),
                sequences.repeat_interleave(torch.tensor(packed.word_lengths)).float(),
                packed.word_ids.float(),
                packed.word_positions.float(),
            ],
            dim=1,
        )
        first = packed.mention_positions[packed.mention_offsets[:-1]]
        entities = torch.stack(
            [
                torch.ones(packed.n_entities),
                sequences.repeat_interleave(torch.tensor(packed.entity_lengths)).float(),
                packed.entity_ids.float(),
                first.float(),
            ],
            dim=1,
        )
        return torch.cat([words, entities])


@pytest.mark.parametrize("head", task_ner.HEAD_INPUTS)
def test_the_head_sees_start_end_and_entity_of_its_own_candidate(head):
    features = features_of(TEXT, TEXT)
    model = task_ner.build_model(SMALL, SimpleNamespace(mask_id=MASK_ENTITY), CONLL_LABELS, Options(head=head))
    model.luke = Echo()
    seen = []
    model.classifier.forward = lambda *states: torch.cat(states, dim=1)
    model.eval()
    out = model.logits(model.collate(features)).reshape(-1, task_ner.HEAD_INPUTS[head], 4).tolist()
    for sequence, feature in enumerate(features):
        for start, end in feature.token_spans.tolist():
            words = [[0, sequence, feature.word_ids[i], i + SMALL.pad_token_id + 1] for i in (start, end - 1)]
            entity = [1, sequence, MASK_ENTITY, start]
            seen.append({"token+entity": [*words, entity], "token": words, "entity": [entity]}[head])
    assert out == seen


def test_an_entity_covers_all_pieces_of_its_candidate():
    features = features_of(TEXT)
    packed = task_ner.collate(features, MASK_ENTITY, pad_word_id=1).packed
    spans = [span for feature in features for span in feature.token_spans.tolist()]
    offsets = packed.mention_offsets.tolist()
    mentions = [packed.mention_positions[begin:end].tolist() for begin, end in zip(offsets, offsets[1:])]
    assert mentions == [list(range(start, end)) for start, end in spans]
    assert packed.entity_lengths == tuple(len(feature.labels) for feature in features)
    assert packed.word_positions[: packed.word_lengths[0]].tolist() == list(range(2, 2 + packed.word_lengths[0]))


def test_words_only_has_no_entities():
    features = features_of(TEXT)
    batch = task_ner.collate(features, MASK_ENTITY, 1, head="token")
    assert batch.packed.n_entities == len(batch.packed.mention_positions) == 0 and len(batch.rows) == 2
    assert batch.packed.mention_offsets.tolist() == [0] and batch.packed.entity_lengths == (0,) * len(features)
    assert batch.counts == {"label": sum(len(feature.labels) for feature in features)}
    assert batch.n_tokens == sum(len(feature.word_ids) for feature in features)


@pytest.mark.parametrize("head", task_ner.HEAD_INPUTS)
def test_loss_is_the_cross_entropy_of_all_candidates(head):
    model = build(head=head, seed=seeded(3)).eval().double()
    batch = model.collate(features_of(TEXT))
    logits = model.logits(batch)
    loss, hits = model(batch)["label"]
    log_probability = torch.log(torch.softmax(logits, dim=1)).tolist()
    expected = -sum(log_probability[i][k] for i, k in enumerate(batch.labels.tolist()))
    assert_rounded(loss, expected)
    assert hits.item() == sum(int(row.argmax()) == k for row, k in zip(logits, batch.labels.tolist()))
    assert batch.labels.sum() > 0


def test_same_logits_as_transformers():
    """A random LukeForEntitySpanClassification, weights through the checkpoint's name table, its own padded inputs."""
    transformers = pytest.importorskip("transformers")
    settings = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    torch.manual_seed(seeded())
    theirs = transformers.LukeForEntitySpanClassification(
        transformers.LukeConfig(**settings, num_labels=len(CONLL_LABELS), attn_implementation="eager")
    ).eval()
    with torch.no_grad():  # biases and norms away from 0 and 1, entity queries away from the word query
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    model = build().eval()
    weights = checkpoint.from_released(dict(theirs.state_dict()), SMALL)
    checkpoint.fill(model, weights)
    theirs, model = theirs.double(), model.double()

    features = features_of(TEXT, Document(["Bo"], [], [0, 1]))
    n_words = max(len(feature.word_ids) for feature in features)
    n_entities = max(len(feature.labels) for feature in features)
    shape = (len(features), n_words)
    input_ids, attention_mask = torch.full(shape, 1), torch.zeros(shape, dtype=torch.long)
    no_entity = torch.zeros(len(features), n_entities, dtype=torch.long)
    entity = {name: no_entity.clone() for name in ("ids", "mask", "start", "end")}
    positions = torch.full((len(features), n_entities, 16), -1)
    for i, feature in enumerate(features):
        input_ids[i, : len(feature.word_ids)] = torch.from_numpy(feature.word_ids)
        attention_mask[i, : len(feature.word_ids)] = 1
        for k, (start, end) in enumerate(feature.token_spans.tolist()):
            entity["ids"][i, k], entity["mask"][i, k] = MASK_ENTITY, 1
            entity["start"][i, k], entity["end"][i, k] = start, end - 1
            positions[i, k, : end - start] = torch.arange(start, end)
    with torch.no_grad():
        expected = theirs(
            input_ids=input_ids,
            attention_mask=attention_mask,
            entity_ids=entity["ids"],
            entity_attention_mask=entity["mask"],
            entity_position_ids=positions,
            entity_start_positions=entity["start"],
            entity_end_positions=entity["end"],
        ).logits[entity["mask"].bool()]
        ours = model.logits(model.collate(features))
    assert len(features) == 4 and expected.std() > 0.1
    assert_same(ours, expected)


# --- Decoding -------------------------------------------------------------------------------------------------------


def decode(spans, logits, n_words=20):
    accepted = task_ner.greedy_decode(np.array(spans).reshape(-1, 2), np.array(logits, dtype=np.float32), n_words)
    return [tuple(spans[i]) for i in accepted]


def test_decode_golden():
    """(0,2): 3.0, (1,3): 2.9, (2,4): 2.5 -> (0,2) wins against (1,3), which frees (2,4)."""
    spans = [(0, 2), (1, 3), (2, 4)]
    logits = [[0, 0, 3.0, 0, 0], [0, 0, 0, 0, 2.9], [0, 0, 0, 2.5, 0]]
    assert decode(spans, logits) == [(0, 2), (2, 4)]


def test_decode_ties_keep_the_order_of_the_candidates():
    spans = [(0, 1), (0, 2), (1, 2), (1, 3)]
    assert decode(spans, [[0, 1]] * 4) == [(0, 1), (1, 2)]
    assert decode(spans, [[1, 1]] * 4) == []  # as good as NIL is NIL
    assert decode(spans, [[2, 1]] * 4) == []
    assert decode([], np.zeros((0, 3))) == []


def test_decode_compares_logits_not_probabilities():
    """The second has the higher probability, the first the higher logit."""
    assert decode([(0, 2), (1, 3)], [[2.9, 3.0], [-9.0, 2.0]]) == [(0, 2)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.lists(st.integers(-2, 2), min_size=3, max_size=3))))
def test_decode_against_brute_force(candidates):
    spans = [(start, start + length) for start, length, _ in candidates]
    logits = [scores for _, _, scores in candidates]
    best = sorted(range(len(spans)), key=lambda i: (-max(logits[i]), i))
    expected = []
    for i in best:
        overlaps = any(spans[i][0] < end and start < spans[i][1] for start, end in expected)
        if max(logits[i]) > logits[i][0] and not overlaps:
            expected.append(spans[i])
    assert decode(spans, np.array(logits).reshape(-1, 3)) == expected


def test_decode_takes_linear_time():
    """Executed lines, not seconds: four times the candidates, at most 4.1 times the lines, of which few a candidate."""

    def lines(n):
        counted = 0

        def trace(frame, event, _):
            nonlocal counted
            counted += event == "line"
            return trace

        generator = np.random.default_rng(0)
        spans = generator.integers(0, n, (n, 1)) + np.array([[0, 3]])
        logits = generator.normal(size=(n, 5)).astype(np.float32)
        sys.settrace(trace)
        try:
            task_ner.greedy_decode(spans, logits, n + 3)
        finally:
            sys.settrace(None)
        return counted

    assert 1000 < lines(2500) * 3.9 < lines(10000) < lines(2500) * 4.1
    assert lines(10000) < 4 * 10000


# --- Prediction and scores --------------------------------------------------------------------------------------------


class Oracle(TaskModel):
    """Knows the gold labels; names the batches' sizes."""

    def __init__(self, sure: float = 4.0):
        luke = torch.nn.Identity()
        luke.config = SMALL
        collate = partial(task_ner.collate, mask_entity_id=MASK_ENTITY, pad_word_id=SMALL.pad_token_id)
        super().__init__(luke, CONLL_LABELS, "token+entity", 3, collate)
        self.sure, self.sizes = sure, []

    def logits(self, batch):
        assert not self.training and torch.is_inference_mode_enabled()
        self.sizes.append(batch.packed.word_lengths)
        return F.one_hot(batch.labels, len(CONLL_LABELS)).bfloat16() * self.sure


DOCUMENTS = [
    TEXT,
    Document([], [], [0]),
    Document(
        ["x" * 40, "Bo", "y" * 15, "Oslo"],
        [(0, 1, "MISC"), (1, 2, "PER"), (2, 3, "LOC"), (3, 4, "XYZ")],
        [0, 1, 4],
    ),
]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_predictions_come_back_in_order(batch_size):
    features = features_of(*DOCUMENTS)
    model = Oracle().train()
    predictions = task_ner.predict(model, features, DOCUMENTS, batch_size)
    probability = pytest.approx(np.exp(4) / (np.exp(4) + 4))
    assert predictions == [
        [Mention(0, 1, "PER", probability), Mention(2, 5, "ORG", probability)],
        [],
        [Mention(1, 2, "PER", probability), Mention(2, 3, "LOC", probability)],
    ]
    assert model.training
    lengths = [length for batch in model.sizes for length in batch]
    assert lengths == sorted(lengths, reverse=True) or batch_size > 1
    assert max(map(len, model.sizes)) <= batch_size


def test_gold_out_of_reach_counts_against_recall():
    """Of six gold mentions one is longer than 16 pieces and one of a type that the model does not know."""
    features = features_of(*DOCUMENTS)
    scores = task_ner.evaluate(DOCUMENTS, task_ner.predict(Oracle(), features, DOCUMENTS), features)
    assert (scores["gold"], scores["predicted"], scores["correct"], scores["unreachable"]) == (6, 4, 4, 2)
    assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((1, 4 / 6, 8 / 10))
    assert (scores["MISC_recall"], scores["XYZ_gold"], scores["ORG_f1"]) == (0, 1, 1)


def test_nothing_predicted():
    features = features_of(TEXT)
    predictions = task_ner.predict(Oracle(sure=0.0), features, [TEXT])
    assert predictions == [[]]
    assert task_ner.evaluate([TEXT], predictions, features)["f1"] == 0


def test_a_real_model_predicts_the_same_in_any_batch():
    documents = [TEXT, Document("Bo saw Ada in Rome".split(), [], [0, 2, 5])]
    features = features_of(*documents)
    model = build(seed=seeded(1))
    torch.nn.init.normal_(model.classifier.weight, std=3.0, generator=generator(2))
    model = model.double()
    one, all_at_once = (task_ner.predict(model, features, documents, size) for size in (1, 99))
    assert [[m[:3] for m in mentions] for mentions in one] == [[m[:3] for m in mentions] for mentions in all_at_once]
    assert sum(map(len, one)) > 2
    for document, mentions in zip(documents, one):
        words = [word for mention in mentions for word in range(mention.start, mention.end)]
        assert len(words) == len(set(words)) and max(words) < len(document.words)


# --- From a file to mentions in raw text ------------------------------------------------------------------------------

PEOPLE, CITIES, CLUBS = ["Ada", "Bo", "Eve", "Max Lund"], ["Oslo", "Rome", "New Elm"], ["Elm United", "FC Oslo"]
PATTERNS = ["{P} went to {C} .", "{P} plays for {O} .", "In {C} it rained on {P} .", "{O} of {C} met {P} ."]


def training_sentences(n: int) -> str:
    """A CoNLL file of n made-up sentences, five to a document."""
    generator = random.Random(1)
    blocks = []
    for i in range(n):
        lines = ["-DOCSTART- O\n"] if i % 5 == 0 else []
        for word in PATTERNS[i % len(PATTERNS)].split():
            kind = {"{P}": "PER", "{C}": "LOC", "{O}": "ORG"}.get(word)
            names = {"PER": PEOPLE, "LOC": CITIES, "ORG": CLUBS}.get(kind, [word])
            for position, part in enumerate(generator.choice(names).split()):
                lines.append(f"{part} {'O' if kind is None else 'BI'[position > 0] + '-' + kind}\n")
        blocks.append("".join(lines))
    return "\n".join(blocks)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("ner") / "train.conll"
    path.write_text(training_sentences(20))
    documents = read_examples(path)
    labels = task_ner.label_list(documents)
    tokenizer = WordTokenizer()
    features = task_ner.make_features(documents, tokenizer, None, labels, Options(max_seq_length=66, max_mention=4))
    model = build(labels)
    optimizer = optim.AdamW(model, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.01)
    torch.manual_seed(0)
    for _ in range(25):
        for begin in range(0, len(features), 5):
            batch = model.collate(features[begin : begin + 5])
            loss, _ = model(batch)["label"]
            (loss / batch.counts["label"]).backward()
            optimizer.set_learning_rate(5e-3)
            optimizer.step()
            optimizer.zero_grad()
    return documents, features, model, tokenizer


def test_a_tiny_model_learns_twenty_sentences(trained):
    documents, features, model, _ = trained
    scores = task_ner.evaluate(documents, task_ner.predict(model, features, documents), features)
    assert scores["gold"] >= 40 and scores["unreachable"] == 0
    assert scores["f1"] > 0.9


def test_raw_text_to_characters(trained):
    _, _, model, tokenizer = trained
    lines = ["  Ada went to Oslo. Eve plays for FC Oslo.\n", "", "It rained."]
    options = Options(max_seq_length=66, max_mention=4)
    answers = list(task_ner.predict_lines(model, lines, tokenizer, None, options))
    assert [answer["text"] for answer in answers] == lines
    found = [answer["mentions"] for answer in answers]
    assert [(m["text"], m["type"]) for m in found[0]] == [("Ada", "PER"), ("Oslo", "LOC"), ("Eve", "PER"), ("FC Oslo", "ORG")]
    assert found[1] == []
    for line, mentions in zip(lines, found):
        for mention in mentions:
            assert line[mention["start"] : mention["end"]] == mention["text"]
            assert 0.2 < mention["probability"] <= 1


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_tags_words(seed):
    """LukeForTokenClassification: the tag of a word is that of its first piece; mentions as seqeval reads the tags."""
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="the oracle `seqeval` is not installed")
    labels, options = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG"), Options(head=task_ner.TAGS, max_seq_length=18)
    documents = [TEXT, Document("Bo ran to Acme".split(), [], [0, 2, 4])]
    features = task_ner.make_features(documents, LetterTokenizer(), None, labels, options)
    model = build(labels, task_ner.TAGS, seed).eval()
    predicted = task_ner.predict(model, features, documents)
    tags = [[""] * len(document.words) for document in documents]
    with torch.no_grad():
        for feature in features:  # each alone
            hidden = model.luke(model.collate([feature]).packed)
            for (word, _), (piece, _) in zip(feature.word_spans.tolist(), feature.token_spans.tolist()):
                tags[feature.document][word] = labels[int(model.classifier(hidden[piece : piece + 1]).argmax())]
    assert all(tag for row in tags for tag in row)
    for document, row, mentions in zip(documents, tags, predicted):
        wanted = []
        for begin, end in zip(document.sentences, document.sentences[1:]):
            found = seqeval.get_entities(row[begin:end])
            wanted += [(begin + start, begin + stop + 1, kind) for kind, start, stop in found]
        assert [mention[:3] for mention in mentions] == wanted
        assert all(0 < mention.probability <= 1 for mention in mentions)
    assert any(predicted)

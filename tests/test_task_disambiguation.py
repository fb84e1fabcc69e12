"""Entity disambiguation equals its specification: decoding against a slow transcription that takes one document at a
time, the loss against a softmax over the whole vocabulary, masking by its statistics, and a tiny model that learns.

    python -m pytest -q tests/test_task_disambiguation.py
"""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_rounded, seeded
from conftest import shared_data

import finetune
from luke_mini import checkpoint, inference, ops_cpu, optim, task_disambiguation, tokenizer
from luke_mini.config import ModelConfig
from luke_mini.disambiguation_data import Document, Options
from luke_mini.entity_vocab import EntityVocab
from luke_mini.initialization import initialize
from luke_mini.mentions import Candidate, Mention, from_links
from luke_mini.model import LukeForPretraining

TITLES = [f"T{k}" for k in range(15)]
VOCAB = EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]", *TITLES, "[MASK2]"])
ROBERTA = ModelConfig(
    vocab_size=110, entity_vocab_size=len(VOCAB), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=48, entity_emb_size=16, max_position_embeddings=130, initializer_range=0.2, mask_entity_id=2,
)  # fmt: skip
BERT = replace(  # as published for this task: one query, no projection, two token types, padding is id 0
    ROBERTA, entity_emb_size=32, use_entity_aware_attention=False, type_vocab_size=2, pad_token_id=0,
    max_position_embeddings=131, layer_norm_eps=1e-12,
)  # fmt: skip
CONFIGS = {"roberta": ROBERTA, "bert": BERT, "without its own [MASK]": replace(ROBERTA, mask_entity_id=None)}


class LetterTokenizer:
    """One piece a letter, none for a space."""

    bos_id, unk_id, eos_id = 101, 3, 102

    def encode_segments(self, segments):
        ids = [[4 + ord(char) % 90 for char in segment if char != " "] for segment in segments]
        return np.array([k for part in ids for k in part], np.int32), np.array([*map(len, ids)])


LETTERS = LetterTokenizer()


def build(config=ROBERTA, seed=0, **options) -> task_disambiguation.DisambiguationModel:
    """Biases and norms away from 0 and 1, [MASK]'s own embedding away from its row."""
    model = task_disambiguation.build_model(config, VOCAB, (), Options(**options))
    initialize(model, config, seed)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or ".norm." in name or name.endswith("mask"):
                parameter.normal_(0.3, 0.3, generator=draws)
    return model.eval()


def make_features(documents, options=Options()):
    return task_disambiguation.make_features(documents, LETTERS, VOCAB, (), options)


def answers_of(model, documents, **options) -> list[list[tuple[str | None, float]]]:
    answers = task_disambiguation.predict(model, make_features(documents, model.options), documents, **options)
    return [[answer[:2] for answer in found] for found in answers]


def titles_of(answers) -> list[list[str | None]]:
    return [[title for title, _ in found] for found in answers]


def random_documents(seed: int, n: int, most: int = 6) -> list[Document]:
    draw = random.Random(seed)
    documents = []
    for index in range(n):
        words = ["".join(draw.choices("abcdefgh", k=draw.randint(1, 6))) for _ in range(draw.randint(1, 14))]
        text, mentions = " ".join(words), []
        for _ in range(draw.randint(0, most)):
            start = draw.randrange(len(text))
            titles = draw.sample([*TITLES, "X", "Y"], draw.randint(0, 5))
            title = draw.choice([*titles, "T0", None])
            candidates = tuple(Candidate(t, 1 / (k + 1)) for k, t in enumerate(titles))
            mentions.append(Mention(start, min(len(text), start + draw.randint(1, 8)), title, candidates))
        documents.append(Document(str(index), text, tuple(mentions)))
    return documents


def count_forwards(model, monkeypatch) -> list[int]:
    """Grows by the number of sequences of every forward of the encoder."""
    seen, encode = [], model.luke.encode
    monkeypatch.setattr(model.luke, "encode", lambda batch: seen.append(len(batch.word_lengths)) or encode(batch))
    return seen


# --- Decoding ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def slow_answers(model, document: Document, order: str) -> list[tuple[str | None, float]]:
    """One document, padded tensors, logits over the whole vocabulary with -1e32 outside of the candidates."""
    before = [sum(char != " " for char in document.text[:k]) for k in range(len(document.text) + 1)]
    ids = [101, *(4 + ord(char) % 90 for char in document.text if char != " "), 102]
    in_order = sorted(range(len(document.mentions)), key=lambda k: document.mentions[k][:2])
    mentions = [document.mentions[k] for k in in_order]
    positions = torch.full((1, len(mentions), 30), -1)
    for row, m in enumerate(mentions):
        places = [p + 1 for p in range(before[m.start], before[m.end])][:30]
        positions[0, row, : len(places)] = torch.tensor(places)
    entity_ids = torch.full((1, len(mentions)), VOCAB.mask_id)
    answers = [(None, 0.0)] * len(mentions)
    unresolved = [row for row, m in enumerate(mentions) if m.candidates]
    while unresolved:
        _, hidden = model.luke(input_ids=torch.tensor([ids]), entity_ids=entity_ids, entity_position_ids=positions)
        seen = model.entity_head.transform(hidden[0]).float()  # so that no choice hangs on this rounding
        logits = F.linear(seen.double(), model.luke.entities.entity.weight, model.entity_head.bias)
        best = {}
        for row in unresolved:
            candidates = [VOCAB.id(c.title) for c in mentions[row].candidates[:30]]
            outside = torch.ones(len(VOCAB), dtype=torch.bool)
            outside[candidates] = False
            probability = logits[row].masked_fill(outside, -1e32).softmax(dim=0)
            entity = max(candidates, key=lambda k: probability[k])
            title = mentions[row].candidates[candidates.index(entity)].title
            best[row] = float(probability[entity]), entity, title
        chosen = unresolved
        if order == "natural":
            chosen = unresolved[:1]
        elif order == "confidence":
            chosen = [max(unresolved, key=lambda row: (best[row][0], -row))]
        for row in chosen:
            probability, entity_ids[0, row], title = best[row]
            answers[row] = title, probability
        unresolved = [row for row in unresolved if row not in chosen]
    found = dict(zip(in_order, answers))
    return [found[k] for k in range(len(mentions))]


@pytest.mark.parametrize("order", ["confidence", "natural", "local"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_decoding_equals_a_slow_transcription(config, order, monkeypatch):
    model = build(config, 2, order=order).double()
    documents = random_documents(7, 30, 8)
    expected = [slow_answers(model, document, order) for document in documents]
    seen = count_forwards(model, monkeypatch)
    answers = answers_of(model, documents)
    assert titles_of(answers) == titles_of(expected)
    assert_rounded(*([probability for found in each for _, probability in found] for each in (answers, expected)))
    # One forward for each decision of the largest document; those that have none left are in no further forward.
    decisions = [sum(bool(m.candidates) for m in document.mentions) for document in documents]
    if order == "local":
        assert seen == [sum(n > 0 for n in decisions)]
    else:
        assert seen == [sum(n > k for n in decisions) for k in range(max(decisions))]
    assert max(decisions) > 3


def test_the_order_of_decisions_makes_a_difference():
    """Else the test above would prove little."""
    documents = random_documents(7, 30, 8)
    confidence, natural, local = (
        titles_of(answers_of(build(ROBERTA, 2, order=order), documents)) for order in ("confidence", "natural", "local")
    )
    assert confidence != natural and confidence != local


def test_equal_probabilities_go_to_the_first(monkeypatch):
    """A model of zeros: every candidate has the same probability, so the fewest candidates, then the first mention."""
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    titles = [("T5", "T6", "T7"), ("T1", "T2"), ("T3", "T4")]
    mentions = (Mention(k, k + 1, None, tuple(Candidate(t, 0.5) for t in row)) for k, row in enumerate(titles))
    document, order = Document("", "abc", tuple(mentions)), []
    decide = task_disambiguation.State.decide

    def watched(state, *arguments):
        before = list(state.open)
        decide(state, *arguments)
        order.extend(set(before) - set(state.open))

    monkeypatch.setattr(task_disambiguation.State, "decide", watched)
    (answers,) = answers_of(model, [document])
    assert order == [1, 2, 0] and titles_of([answers]) == [["T5", "T1", "T3"]]
    assert_rounded([probability for _, probability in answers], [1 / 3, 1 / 2, 1 / 2])


@pytest.mark.parametrize("split", ["simple", "per_mention"])
def test_long_documents_with_many_long_mentions(split):
    """300 pieces where 60 fit, 150 mentions where 16 fit, one mention longer than an input: all are answered."""
    text = "ab cdef " * 50
    mentions = [Mention(2 * k, 2 * k + 3, "T1", (Candidate("T1", 0.6), Candidate("T2", 0.4))) for k in range(150)]
    mentions.append(Mention(0, 200, "T1", (Candidate("T1", 1.0),)))
    document = Document("", text, tuple(mentions))
    model = build(ROBERTA, split=split, max_seq_length=60, max_entities=16, order="local")
    features = make_features([document], model.options)
    (answers,) = task_disambiguation.predict(model, features, [document])
    assert len(answers) == 151 and {answer.title for answer in answers} <= {"T1", "T2"}
    assert max(len(feature.sequence.word_ids) for feature in features) <= 60
    assert max(len(feature.candidates) for feature in features) <= 16
    batch = model.collate(features[:8])
    model(batch)["entity"][0].backward()


# --- Training ---------------------------------------------------------------------------------------------------------


def test_masks_are_drawn_evenly_within_each_input():
    """Inputs of 1, 5, 0 and 10 mentions, 1, 4, 0 and 9 of them masked; over 1,000 draws each mention as often."""
    assert [task_disambiguation.number_to_mask(k, 0.9) for k in (0, 1, 2, 5, 15)] == [0, 1, 2, 4, 14]
    lengths, n_masked = (1, 5, 0, 10), (1, 4, 0, 9)
    torch.manual_seed(seeded())
    draws = torch.stack([task_disambiguation.draw_masked(lengths, n_masked, "cpu") for _ in range(1000)])
    for part, n in zip(draws.split(lengths, dim=1), n_masked):
        assert (part.sum(dim=1) == n).all()
        share = n / max(1, part.shape[1])
        assert ((part.double().mean(dim=0) - share).abs() <= 4 * math.sqrt(share * (1 - share) / 1000)).all()
    torch.manual_seed(seeded())
    assert torch.equal(task_disambiguation.draw_masked(lengths, n_masked, "cpu"), draws[0])
    with ops_cpu.side_by_side(2) as each:
        before = torch.get_rng_state()  # drawn from once, for both; the lanes have generators of their own
        found = list(each(lambda _: task_disambiguation.draw_masked(lengths, n_masked, "cpu"), range(2)))
        torch.set_rng_state(before)
        again = each(lambda _: (torch.rand(9), task_disambiguation.draw_masked(lengths, n_masked, "cpu"))[1], range(2))
        assert all(torch.equal(a, b) for a, b in zip(found, again))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_loss_equals_a_softmax_over_the_whole_vocabulary(config, monkeypatch):
    """Padding has no part in it; mentions without a gold candidate are not in the input; the others keep their gold."""
    model, documents = build(config, seeded(4)).double(), random_documents(seeded(11), 24)
    features = make_features(documents, model.options)
    batch = model.collate(features)
    drawn = []
    draw = task_disambiguation.draw_masked
    monkeypatch.setattr(task_disambiguation, "draw_masked", lambda *a: drawn.append(draw(*a)) or drawn[0])
    loss, hits = model(batch)["entity"]
    loss.backward()
    masked, expected, largest, right, at, n = drawn[0].tolist(), 0.0, 1.0, 0, 0, 0
    for _, (word_ids, gold, spans, _), _, candidates, _ in features:
        kept = [k for k, entity in enumerate(gold) if entity >= 0]
        n += task_disambiguation.number_to_mask(len(kept), 0.9)
        if not kept:
            continue
        own, at = masked[at : at + len(kept)], at + len(kept)
        entity_ids = torch.tensor([[VOCAB.mask_id if m else int(gold[k]) for k, m in zip(kept, own)]])
        positions = torch.full((1, len(kept), 30), -1)
        for row, (start, end) in enumerate(spans[kept].tolist()):
            positions[0, row, : end - start] = torch.arange(start, end)
        word_ids = torch.from_numpy(word_ids)[None]
        with torch.no_grad():
            _, hidden = model.luke(input_ids=word_ids, entity_ids=entity_ids, entity_position_ids=positions)
            logits = model.entity_head(hidden[0], model.luke.entities.entity.weight)
        for row in np.flatnonzero(own):
            outside = torch.ones(len(VOCAB), dtype=torch.bool)
            outside[list(candidates[kept[row]])] = False
            scores, largest = logits[row].masked_fill(outside, -1e32), max(largest, float(logits[row].abs().max()))
            expected += float(F.cross_entropy(scores[None], torch.tensor([gold[kept[row]]])))
            right += int(scores.argmax() == gold[kept[row]])
    assert batch.counts == {"entity": n} and n == sum(masked) > 10
    assert_rounded(loss.detach(), expected, exponent=largest)
    assert int(hits) == right
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    for frozen in ("luke.entities.entity.weight", "entity_head.bias", "luke.pooler.weight", "word_head.dense.weight"):
        assert frozen not in trained and not dict(model.named_parameters())[frozen].requires_grad
    assert {"luke.words.token.weight", "entity_head.dense.weight"} <= trained
    assert ("luke.entities.mask" in trained) == (config.mask_entity_id is not None)


def test_a_batch_with_nothing_to_learn_has_no_loss():
    document = Document("", "ab", (Mention(0, 1, "X", (Candidate("X", 1.0),)), Mention(1, 2, None, ())))
    model = build()
    batch = model.collate(make_features([document]))
    loss, hits = model(batch)["entity"]
    assert batch.counts == {"entity": 0} and loss == 0 and hits == 0
    loss.backward()


def test_a_tiny_model_learns_with_its_table_frozen():
    """The letter before "q" tells which of two entities the "q" is: accuracy 1, chance would be a half."""
    documents = [
        Document("", before + letter + "q", (Mention(2, 3, title, (Candidate("T3", 0.5), Candidate("T9", 0.5))),))
        for before in "xyz"
        for letter, title in (("a", "T3"), ("b", "T9"))
    ]
    model = build(BERT, 5)
    table = model.luke.entities.entity.weight.clone()
    features = make_features(documents)
    optimizer = optim.AdamW(model, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.01)
    for _ in range(40):
        (model(model.collate(features))["entity"][0] / len(documents)).backward()
        optimizer.set_learning_rate(1e-3)
        optimizer.step()
        optimizer.zero_grad()
    predictions = task_disambiguation.predict(model, features, documents)
    assert task_disambiguation.evaluate(documents, predictions, features)["in_kb_accuracy"] == 1.0
    assert torch.equal(model.luke.entities.entity.weight, table)


# --- Scores -----------------------------------------------------------------------------------------------------------


def test_scores_and_losses_worked_by_hand():
    """Five mentions with a title: right, wrong, without candidates, not a candidate, not in the vocabulary (a guess
    that happens to be right). P = 2/4, R = 2/5. The sixth has no title: it is answered and not counted."""
    known = (Candidate("T1", 0.6), Candidate("T2", 0.4))
    titles = [("T1", known), ("T2", known), ("T3", ()), ("T3", known), ("X", (Candidate("X", 1.0),)), (None, known)]
    document = Document("", "abcdef", tuple(Mention(k, k + 1, t, c) for k, (t, c) in enumerate(titles)), skipped=2)
    features = make_features([document])
    assert task_disambiguation.skipped([document], features) == {
        "mentions without candidates": 1, "titles that are no candidate": 1,
        "titles outside of the vocabulary or beyond --max-candidates": 1,
        "mentions left out, as their title is no article": 2,
    }  # fmt: skip
    answers = [task_disambiguation.Answer(title, 0.9) for title in ("T1", "T1", None, "T1", "X", "T1")]
    scores = task_disambiguation.evaluate([document], [answers], features)
    assert (scores["precision"], scores["in_kb_accuracy"]) == (0.5, 0.4)
    assert scores["f1"] == pytest.approx(2 * 0.5 * 0.4 / 0.9)
    assert "best prior is right for 40.0%" in task_disambiguation.describe([document])  # T1 and X


def test_candidates_outside_of_the_vocabulary_share_a_row_and_the_first_of_them_is_the_answer():
    mentions = Mention(0, 1, None, (Candidate("X", 0.8), Candidate("Y", 0.2))), Mention(1, 2, None, ())
    assert titles_of(answers_of(build(), [Document("", "ab", mentions)])) == [["X", None]]


def test_the_mix_by_hand():
    """Products of powers, and sums of one; the prior alone is the prior, whatever the model; -1 is no candidate."""
    by_model = torch.tensor([[0.8, 0.2, 0.0], [0.5, 0.3, 0.2]])
    priors = torch.tensor([[0.1, 0.9, -1.0], [0.6, 0.2, 0.2]])
    for weight in (0.0, 0.25, 0.7):
        power = by_model.double() ** weight * priors.double().clamp(min=0) ** (1 - weight)
        power[0, 2] = 0
        found = task_disambiguation.mix(by_model, priors, weight)
        torch.testing.assert_close(found.double(), power / power.sum(dim=1, keepdim=True), rtol=1e-5, atol=1e-7)
    assert task_disambiguation.mix(torch.zeros(1, 2), torch.tensor([[0.0, 0.0]]), 0.5).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("order", ["confidence", "natural", "local"])
def test_the_prior_alone_decides_as_the_first_candidates_say(order):
    documents = [d._replace(mentions=tuple(m._replace(certainty=0.5) for m in d.mentions))
                 for d in random_documents(seeded(5), 8)]  # fmt: skip
    for document, found in zip(documents, answers_of(build(model_weight=0.0, order=order), documents)):
        for mention, (title, probability) in zip(document.mentions, found):
            first = mention.candidates[0] if mention.candidates else None
            assert title == (first and first.title)
            assert 0 <= probability <= 0.5 and (first is None or len(mention.candidates) > 1 or probability == 0.5)
    doubtful = build(model_weight=0.0, order=order, min_probability=0.51)
    assert all(title is None for found in answers_of(doubtful, documents) for title, _ in found)
    published = answers_of(build(order=order), documents)  # whose probabilities are the model's among the candidates
    answered = [pair for d, found in zip(documents, published) for pair in zip(d.mentions, found)]
    assert {probability for m, (_, probability) in answered if len(m.candidates) == 1} == {1.0}


def test_the_threshold_by_brute_force():
    draw = random.Random(seeded(3))
    for _ in range(50):
        kinds = draw.choices(["right", "wrong", "none"], k=draw.randint(1, 9))
        rows = [(draw.choice([0.1, 0.2, 0.5, 0.7]), kind) for kind in kinds]
        probability = np.array([p for p, _ in rows])
        n_right = draw.randint(0, kinds.count("right"))

        def score(least):
            titles = sum(kind == "right" and p >= least for p, kind in rows)
            return (titles >= n_right) * (1 + titles + sum(kind == "none" and p < least for p, kind in rows))

        least = task_disambiguation.best_threshold(
            probability, np.array([k == "right" for k in kinds]), np.array([k == "none" for k in kinds]), n_right
        )  # fmt: skip
        assert score(least) == max(map(score, [0.0, *probability]))
        assert n_right or least == 0 or score(least) > score(0.0)


def test_plain_lines_and_given_mentions_get_the_same_answers(tmp_path):
    model, path = build(), tmp_path / "mentions.safetensors"
    from_links({("ab", "T1"): 2, ("ab", "T2"): 1, ("cd", "T3"): 1}).save(path)
    lines = ["Ab met cd.", '{"text": "Ab met cd.", "spans": [{"start": 7, "end": 9}, {"start": 0, "end": 2}]}']
    opened = inference.Predictor(task_disambiguation, model, LETTERS, VOCAB, Options(mentions=str(path)))
    plain, given = inference.answer(opened, lines)
    assert [(m["start"], m["end"], m["text"]) for m in plain["mentions"]] == [(0, 2, "Ab"), (7, 9, "cd")]
    assert [m.pop("link_probability") for m in plain["mentions"]] == [1.0, 1.0]  # of detected ones
    assert plain["mentions"] == given["mentions"][::-1]
    mentions = (Mention(0, 2, None, (Candidate("T1", 2 / 3), Candidate("T2", 1 / 3))),
                Mention(7, 9, None, (Candidate("T3", 1.0),)))  # fmt: skip
    (titles,) = titles_of(answers_of(model, [Document("", "Ab met cd.", mentions)]))
    assert titles == [m["title"] for m in plain["mentions"]]
    picky = opened._replace(options=Options(mentions=str(path), min_link_probability=1.5))
    assert [len(answer["mentions"]) for answer in inference.answer(picky, lines)] == [0, 2]


# --- From the command line --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(toy_data, tmp_path_factory):
    """A checkpoint with random weights and the vocabularies of the built-in encyclopedia."""
    folder = tmp_path_factory.mktemp("random") / "model"
    words, vocab = tokenizer.load(toy_data / "tokenizer"), EntityVocab.load(toy_data / "entity_vocab.jsonl")
    config = replace(
        ROBERTA, vocab_size=len(words), entity_vocab_size=len(vocab), max_position_embeddings=514, mask_entity_id=None
    )
    model = LukeForPretraining(config)
    initialize(model, config, 0)
    checkpoint.save(folder, model, words, vocab)
    return folder


def test_mask_gets_an_embedding_of_its_own_and_a_lite_checkpoint_is_refused(pretrained):
    start = checkpoint.read(pretrained)
    made = task_disambiguation.prepare(start)
    row = start.weights["luke.entities.entity.weight"][start.entity_vocab.mask_id]
    assert torch.equal(made.weights["luke.entities.mask"], row)
    assert made.config.mask_entity_id == start.entity_vocab.mask_id
    assert start.config.mask_entity_id is None
    own = replace(made, weights=made.weights | {"luke.entities.mask": row + 1})
    assert torch.equal(task_disambiguation.prepare(own).weights["luke.entities.mask"], row + 1)  # not again
    with pytest.raises(ValueError, match="lite"):
        task_disambiguation.prepare(checkpoint.lite(start))


def test_a_run_leaves_predictions_and_a_model_that_opens(pretrained, toy_data, tmp_path):
    finetune.main(f"disambiguation --checkpoint {pretrained} --data {toy_data}/disambiguation --out {tmp_path} "
                  "--epochs 1 --train-examples 5 --dev-examples 3 --test-examples 4".split())  # fmt: skip
    lines = (tmp_path / "test_predictions.jsonl").read_text().splitlines()
    documents = task_disambiguation.read_examples(toy_data / "disambiguation/test/test.xml")[:4]
    for line, document in zip(map(json.loads, lines), documents, strict=True):
        found = [(m["start"], m["end"], m["gold"]) for m in line["mentions"]]
        assert line["id"] == document.id and found == [m[:3] for m in document.mentions]
        for shown, mention in zip(line["mentions"], document.mentions):
            assert shown["title"] in [c.title for c in mention.candidates] or not mention.candidates
    model, _, vocab = checkpoint.load(tmp_path / "model")
    before, mask = checkpoint.read(pretrained).weights["luke.entities.entity.weight"], model.luke.entities.mask
    assert isinstance(model, LukeForPretraining) and not torch.equal(mask, before[vocab.mask_id])  # it has trained
    before[vocab.mask_id] = mask  # where transformers looks for it; the rest of the table is frozen
    assert torch.equal(model.luke.entities.entity.weight, before)


@pytest.mark.parametrize("name", ["msnbc", "aquaint"])
def test_published_sets(name, pretrained, toy_data):
    """A model that knows nothing of them answers every mention that has candidates."""
    path = shared_data(f"disambiguation/{name}/{name}.xml")
    options = Options(mentions=str(toy_data / "mentions.safetensors"), order="local")
    documents = task_disambiguation.read_examples(path, options)
    documents = [d._replace(mentions=tuple(m._replace(candidates=(Candidate(m.title, 1.0),)) for m in d.mentions))
                 for d in documents]  # fmt: skip
    found = checkpoint.read(pretrained)
    model = task_disambiguation.build_model(found.config, found.entity_vocab, (), options)
    checkpoint.fill(model, found.weights)
    features = task_disambiguation.make_features(documents, found.tokenizer, found.entity_vocab, (), options)
    assert max(len(feature.sequence.word_ids) for feature in features) <= 512 and len(features) >= len(documents)
    predictions = task_disambiguation.predict(model, features, documents)
    assert task_disambiguation.evaluate(documents, predictions, features)["in_kb_accuracy"] == 1.0

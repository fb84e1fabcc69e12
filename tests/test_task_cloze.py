"""Cloze questions equal their specification: three formats read alike, features against a plain transcription of the
rules, scores against transformers' encoder, the official scorer's numbers worked by hand, and a tiny model that learns.

    python -m pytest -q tests/test_task_cloze.py
"""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_rounded, assert_same, generator, seeded
from conftest import arrays_of, shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

import finetune
from luke_mini import checkpoint, finetuning, optim, task_cloze, tokenizer, trainer
from luke_mini.config import ModelConfig
from luke_mini.entity_vocab import EntityVocab
from luke_mini.heads import TaskModel
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining
from luke_mini.task_cloze import Options, Question

CONFIG = ModelConfig(
    vocab_size=103, entity_vocab_size=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=48, entity_emb_size=16, max_position_embeddings=90, initializer_range=0.1,
)  # fmt: skip
VOCAB = EntityVocab.from_titles(["[UNK]", "[PAD]", "[MASK]", "[MASK2]"])
MASK_ENTITY = 2


class LetterTokenizer:
    """One piece a letter, and 4 where a space is in front, asked for or written. 100 pieces."""

    bos_id, pad_id, eos_id, unk_id = 0, 1, 2, 3

    def __len__(self):
        return 100

    def encode_pieces(self, texts, prefix_spaces):
        return [self.one(text, space) for text, space in zip(texts, prefix_spaces, strict=True)]

    def one(self, text, space):
        text = " " + text if space and text and not text[0].isspace() else text
        return [4 if char.isspace() else 10 + ord(char) % 90 for char in text]


LETTERS = LetterTokenizer()
HIGHLIGHT, PLACEHOLDER, ENTITY = 100, 101, 102
RECORD = {
    "id": "p1",
    "passage": {"text": "Ada met Bo in Oslo.\n@highlight\nBo was happy",
                "entities": [{"start": s, "end": e} for s, e in ((31, 32), (0, 2), (8, 9), (14, 17))]},
    "qas": [{"id": "q1", "query": "Later @placeholder left with Ada",
             "answers": [{"start": 8, "end": 9, "text": "Bo"}, {"start": 31, "end": 32, "text": "Bo"}]}],
}  # fmt: skip
OWN = {
    "id": "q1", "text": RECORD["passage"]["text"], "query": "Later @placeholder left with Ada", "answers": ["Bo"],
    "spans": [{"start": s, "end": e} for s, e in ((8, 10), (0, 3), (31, 33), (14, 18))],
}  # fmt: skip
QUESTION = Question(
    "q1", "Ada met Bo in Oslo. @highlight Bo was happy", ((0, 3), (8, 10), (14, 18), (31, 33)),
    "Later @placeholder left with Ada", ("Bo",), frozenset({1, 3}),
)  # fmt: skip


def read_examples(path):
    return finetuning.read_examples(task_cloze, path, Options())


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_three_formats_say_the_same(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps({"version": "1.0", "data": [RECORD]}, indent=1))
    (tmp_path / "super.jsonl").write_text(json.dumps(RECORD) + "\n\n" + json.dumps(RECORD) + "\n")
    (tmp_path / "own.jsonl").write_text(json.dumps(OWN) + "\n")
    for name, n in (("record.json", 1), ("super.jsonl", 2), ("own.jsonl", 1)):
        for _ in range(2):  # the ends do not move when a file is read again
            assert read_examples(tmp_path / name) == [QUESTION] * n


def broken(change) -> dict:
    record = json.loads(json.dumps(RECORD))
    change(record)
    return record


FAULTS = [
    (broken(lambda r: r["qas"][0].pop("query")), "field 'query' is missing"),
    (broken(lambda r: r["qas"][0].update(query="nothing")), "'@placeholder' 0 times"),
    (broken(lambda r: r["qas"][0].update(query="@placeholder @placeholder")), "'@placeholder' 2 times"),
    (broken(lambda r: r["qas"][0].update(answers=[])), "field 'answers' is empty"),
    (broken(lambda r: r["passage"]["entities"].append({"start": 1, "end": 4})), "entities 5: expected mentions"),
    (broken(lambda r: r["passage"]["entities"].append({"start": 40, "end": 43})), "entities 5: fields 'start'"),
    (broken(lambda r: r["passage"]["entities"][0].update(start="x")), "entities 1: field 'start' is \"x\""),
    (broken(lambda r: r.update(passage=[])), "field 'passage' is [], expected an object"),
    ({**OWN, "answers": []}, "field 'answers' is empty"),
    ({**OWN, "spans": [{"start": 3}]}, "spans 1: field 'end' is missing"),
    ({"query": "@placeholder"}, "field 'text' is missing"),
]


@pytest.mark.parametrize("record, message", FAULTS, ids=[message for _, message in FAULTS])
def test_a_fault_is_named_with_its_line(record, message, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(OWN) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(ValueError) as error:
        read_examples(path)
    assert str(error.value).startswith(f"{path}, line 2") and message in str(error.value)
    assert "\n" not in str(error.value)


# --- Features ---------------------------------------------------------------------------------------------------------


def test_features_worked_by_hand():
    """Pieces are letters: "Ada" after a space has 4, with its two markers 6; "@highlight" is one."""
    (feature,) = task_cloze.make_features([QUESTION], LETTERS, VOCAB)
    query = [*LETTERS.one("Later", True), PLACEHOLDER, *LETTERS.one(" left with Ada", False)]
    passage, first = [], len(query) + 3
    for part in ("Ada", " met", "Bo", " in", "Oslo", ".", HIGHLIGHT, "Bo", " was happy"):
        ids = [part] if part == HIGHLIGHT else LETTERS.one(part, part != ".")
        passage += [ENTITY, *ids, ENTITY] if part in ("Ada", "Bo", "Oslo") else ids
    assert feature.sequence.word_ids.tolist() == [0, *query, 2, 2, *passage, 2]
    assert feature.sequence.entity_ids.tolist() == [MASK_ENTITY] * 5
    assert feature.sequence.spans[0].tolist() == [7, 8]  # <s>, 6 pieces of " Later"
    assert feature.sequence.spans[1:3].tolist() == [[first, first + 6], [first + 10, first + 15]]
    assert feature.mentions.tolist() == [0, 1, 2, 3] and feature.labels.tolist() == [0, 1, 0, 1]


def plain_passage(text, mentions):
    """Section 10.2 of the specification, a character at a time."""
    ids, spans, piece = [], {}, ""

    def flush(at):
        nonlocal piece
        start = at - len(piece)
        if piece.strip():
            space = start == 0 or piece[0] == " " or text[start - 1] == " "
            ids.extend(LETTERS.one(piece.rstrip(), space))
        piece = ""

    opens = {start: k for k, (start, _) in enumerate(mentions)}
    closes = {end: k for k, (_, end) in enumerate(mentions)}
    at = 0
    while at <= len(text):
        if at in closes:
            flush(at)
            ids.append(ENTITY)
            spans[closes[at]] = (spans[closes[at]], len(ids))
        if at in opens:
            flush(at)
            spans[opens[at]] = len(ids)
            ids.append(ENTITY)
        border = min([b for b in [*opens, *closes, len(text)] if b > at], default=len(text))
        if text[at:border].startswith("@highlight"):
            flush(at)
            ids.append(HIGHLIGHT)
            at += len("@highlight")
            continue
        if at < len(text):
            piece += text[at]
        else:
            flush(at)
        at += 1
    return ids, [spans[k] for k in range(len(mentions))]


def plain_features(question, options):
    left, right = question.query.split("@placeholder")
    left = LETTERS.one(left.rstrip(), True) if left.strip() else []
    query = [*left, PLACEHOLDER, *(LETTERS.one(right.rstrip(), right[0] == " ") if right.strip() else [])]
    place = len(left)
    while len(query) > options.max_query_length:  # as much as fits from the start, else the placeholder in the middle
        if place < options.max_query_length:
            query = query[: options.max_query_length]
        else:
            start = min(place - options.max_query_length // 2, len(query) - options.max_query_length)
            query, place = query[start : start + options.max_query_length], place - start
    ids, spans = plain_passage(question.text, question.mentions)
    room, start, found = options.max_seq_length - len(query) - 4, 0, []
    while ids:
        window = ids[start : start + room]
        inside = [k for k, (s, e) in enumerate(spans) if start <= s and e <= start + len(window)]
        if inside:
            rows = [[place + 1]]
            for k in inside:
                row = [spans[k][0] + i - start + len(query) + 3 for i in range(spans[k][1] - spans[k][0])]
                rows.append(row[: options.max_mention])
            found.append(([0, *query, 2, 2, *window, 2], rows, inside))
        if start + len(window) >= len(ids):
            break
        start += min(len(window), options.doc_stride)
    return found


words = st.lists(st.sampled_from(["Ada", "x", "@highlight", "long-word", ",", "Bo", " "]), max_size=12)


@given(words, st.lists(st.integers(0, 60), max_size=8), words, words, st.integers(1, 12), st.integers(1, 30))
@settings(max_examples=150, deadline=None)
def test_features_equal_a_plain_transcription(passage, cuts, left, right, max_query, step):
    text = " ".join(passage)
    borders = sorted({cut for cut in cuts if cut <= len(text)})
    mentions = tuple(zip(borders[::2], borders[1::2]))
    query = " ".join(left).replace("@highlight", "y") + "@placeholder" + " ".join(right).replace("@highlight", "y")
    question = Question("", text, mentions, query, ("x",), frozenset({0}))
    options = Options(max_seq_length=30, max_query_length=max_query, doc_stride=step, max_mention=5)
    found = task_cloze.make_features([question], LETTERS, VOCAB, (), options)
    expected = plain_features(question, options)
    assert len(found) == len(expected)
    for feature, (ids, rows, inside) in zip(found, expected):
        assert arrays_of(feature)["input_ids"].tolist() == ids and len(ids) <= 30
        shown = [[p for p in row if p >= 0] for row in arrays_of(feature, 5)["entity_position_ids"].tolist()]
        assert shown == rows and ids[rows[0][0]] == PLACEHOLDER  # never lost
        assert feature.mentions.tolist() == inside
        assert feature.labels.tolist() == [float(k == 0) for k in inside]
    lost = task_cloze.skipped([question], found)
    reached = {k for _, _, inside in expected for k in inside}
    assert lost["mentions longer than a window"] == len(mentions) - len(reached)
    assert lost["questions whose answer is no candidate"] == int(0 not in reached)


# --- Model ------------------------------------------------------------------------------------------------------------


def build(seed=0) -> TaskModel:
    model = task_cloze.build_model(CONFIG, VOCAB)
    initialize(model, CONFIG, seed)
    return model


def long_question() -> Question:
    return QUESTION._replace(text=QUESTION.text + " and so on, and so on", query="Who, if not @placeholder?")


def test_scores_and_loss_equal_transformers_encoder(tmp_path):
    """The saved folder in transformers, padded inputs, the layer by hand; the loss is the mean over real candidates."""
    transformers = pytest.importorskip("transformers")
    model, draws = build().eval(), generator()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2, generator=draws)
    checkpoint.save(tmp_path / "model", model, NoTokenizer(), VOCAB, {"architectures": [task_cloze.ARCHITECTURE]})
    theirs = transformers.LukeModel.from_pretrained(tmp_path / "model", attn_implementation="eager").eval().double()
    model = model.double()
    options = Options(max_seq_length=65, max_query_length=40, doc_stride=20)
    features = task_cloze.make_features([QUESTION, long_question()], LETTERS, VOCAB, (), options)
    assert len(features) > 2
    scores, labels = [], []
    for feature in features:
        arrays = {name: torch.from_numpy(array)[None] for name, array in arrays_of(feature).items()}
        with torch.no_grad():
            entities = theirs(**arrays).entity_last_hidden_state[0]
        pairs = torch.cat([entities[:1].expand(len(entities) - 1, -1), entities[1:]], dim=1)
        scores += (pairs @ model.classifier.weight[0] + model.classifier.bias).tolist()
        labels += feature.labels.tolist()
    batch = model.collate(features)
    assert_same(model.logits(batch).flatten(), scores)
    loss, hits = model(batch)["label"]
    scores, labels = torch.tensor(scores, dtype=torch.float64), torch.tensor(labels, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(scores, labels) * batch.counts["label"]
    assert_rounded(loss, expected, exponent=float(scores.abs().max()))
    assert hits == ((scores > 0) == (labels > 0)).sum()


class NoTokenizer:
    def save(self, folder):
        pass


def test_the_best_mention_of_all_windows_wins_and_of_equal_ones_the_later(monkeypatch):
    options = Options(max_seq_length=65, max_query_length=40, doc_stride=10)
    features = task_cloze.make_features([QUESTION] * 3, LETTERS, VOCAB, (), options)
    features = [feature for feature in features if feature.example < 2]
    seen = {}

    def scores(model, found, sizes, batch_size):
        made = []
        for feature in found:
            fixed = {0: {0: 1.0, 1: 3.0, 2: 3.0, 3: -1.0}, 1: {0: 2.0, 1: -1.0, 2: 0.0, 3: 0.0}}[feature.example]
            # the second time that a mention is seen, it has one point more
            points = [fixed[k] + seen.setdefault((feature.example, k), 0) for k in feature.mentions.tolist()]
            made.append(torch.tensor(points))
            for k in feature.mentions.tolist():
                seen[feature.example, k] = 1.0 * (feature.example == 1)
        return made

    monkeypatch.setattr(trainer, "predict_logits", scores)
    predictions = task_cloze.predict(None, features, [QUESTION] * 3)
    assert [text for text, _ in predictions] == ["Oslo", "Ada", ""]
    assert predictions[0][1] == {0: 1.0, 1: 3.0, 2: 3.0, 3: -1.0}


def test_scores_are_those_of_the_official_script():
    """"the Bo!" is Bo after normalisation: EM 1; "Ada Bo" shares one of two words: F1 2/3; no answer: 0."""
    questions = [QUESTION, QUESTION, QUESTION]  # one name thrice: questions are told apart by their place
    made = [(text, {}) for text in ("the Bo!", "Ada Bo", "")]
    scores = task_cloze.evaluate(questions, made, [])
    assert scores["em"] == pytest.approx(1 / 3) and scores["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_results_do_not_depend_on_the_batch():
    model = build(seeded(3)).double()
    questions = [QUESTION, long_question(), QUESTION._replace(mentions=((0, 3),)), long_question()]
    options = Options(max_seq_length=65, max_query_length=40, doc_stride=20)
    features = task_cloze.make_features(questions, LETTERS, VOCAB, (), options)
    one, many = (task_cloze.predict(model, features, questions, batch_size=n) for n in (1, 7))
    for (text, scores), (again, others) in zip(one, many):
        assert text == again and scores.keys() == others.keys()
        assert_rounded(list(scores.values()), list(others.values()))


def test_a_tiny_model_learns():
    """In each text one name comes after the sign of the query's word: "red Ada blue Bo" and "was blue": Bo."""
    draw, questions = random.Random(0), []
    for index in range(24):
        names, colours = draw.sample(["Ada", "Bo", "Cy", "Di"], 2), draw.sample(["red", "odd", "big"], 2)
        text = f"{colours[0]} {names[0]} {colours[1]} {names[1]}"
        spans = tuple((text.index(name), text.index(name) + len(name)) for name in names)
        right, query = index % 2, f"@placeholder was {colours[index % 2]}"
        questions.append(Question(str(index), text, spans, query, (names[right],), frozenset({right})))
    model = build(1)
    features = task_cloze.make_features(questions, LETTERS, VOCAB)
    optimizer = optim.AdamW(model, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.0, bias_correction=True)
    model.config = replace(CONFIG, hidden_dropout_prob=0.0)
    for _ in range(150):
        (model(model.collate(features))["label"][0] / len(features)).backward()
        optimizer.set_learning_rate(3e-3)
        optimizer.step()
        optimizer.zero_grad()
    predictions = task_cloze.predict(model, features, questions)
    assert task_cloze.evaluate(questions, predictions, features)["em"] == 1.0


# --- With a real tokenizer --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(toy_data, tmp_path_factory):
    """A checkpoint with random weights and the tokenizer of the built-in encyclopedia."""
    folder = tmp_path_factory.mktemp("random") / "model"
    words, vocab = tokenizer.load(toy_data / "tokenizer"), EntityVocab.load(toy_data / "entity_vocab.jsonl")
    config = replace(CONFIG, vocab_size=len(words), entity_vocab_size=len(vocab), max_position_embeddings=514)
    model = LukeForPretraining(config)
    initialize(model, config, 0)
    checkpoint.save(folder, model, words, vocab)
    return folder


def test_the_markers_start_from_other_pieces_once(pretrained):
    start = checkpoint.read(pretrained)
    name, n = "luke.words.token.weight", len(start.tokenizer)
    made = task_cloze.prepare(start)
    assert made.config.vocab_size == n + 3 and torch.equal(made.weights[name][:n], start.weights[name])
    for row, sign in zip(task_cloze.marker_ids(start.tokenizer), "@#*"):
        source = start.tokenizer.encode(sign, prefix_space=False).ids[-1]
        assert torch.equal(made.weights[name][row], start.weights[name][source])
    assert start.config.vocab_size == n  # the checkpoint itself is as it was
    tuned = replace(made, settings={"luke_mini": {"task": "cloze"}})
    assert task_cloze.prepare(tuned) is tuned


def test_from_the_command_line(pretrained, toy_data, tmp_path, capsys):
    out = tmp_path / "out"
    finetune.main(
        f"cloze --checkpoint {pretrained} --data {toy_data}/cloze --out {out} --epochs 1 --train-examples 8 "
        "--dev-examples 4 --test-examples 5".split()
    )
    predictions = json.loads((out / "test_predictions.json").read_text())
    questions = read_examples(toy_data / "cloze/test.json")[:5]
    assert list(predictions) == [question.id for question in questions]
    for question in questions:
        assert predictions[question.id] in [question.text[start:end] for start, end in question.mentions]
    (tmp_path / "lines.jsonl").write_text(json.dumps({k: v for k, v in OWN.items() if k != "answers"}) + "\n")
    capsys.readouterr()
    finetune.main(f"cloze --checkpoint {out} --predict {tmp_path}/lines.jsonl".split())
    (answer,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert answer["id"] == "q1" and answer["answer"] == answer["mentions"][0]["text"]
    assert sorted((m["start"], m["end"]) for m in answer["mentions"]) == list(QUESTION.mentions)
    probabilities = [m["probability"] for m in answer["mentions"]]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize("name", ["fewglue_train32.jsonl", "fewglue_dev32.jsonl", "allennlp_fixture_record.json"])
def test_published_samples(name, pretrained):
    """Every answer is the text of a mention, and every question of the samples has its answer in a window."""
    path = shared_data(f"cloze/{name}")
    questions = read_examples(path)
    assert len(questions) == (32 if "fewglue" in name else 2)
    for question in questions:
        assert {question.text[slice(*question.mentions[k])] for k in question.gold} == set(question.answers)
    words = tokenizer.load(pretrained)
    features = task_cloze.make_features(questions, words, VOCAB)
    assert max(len(arrays_of(feature)["input_ids"]) for feature in features) <= 512
    assert task_cloze.skipped(questions, features)["questions whose answer is no candidate"] == 0
    assert all(np.isin(arrays_of(feature)["input_ids"], len(words) + 1).sum() == 1 for feature in features)

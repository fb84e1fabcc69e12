"""Text classification equals its specification: files in JGLUE's format, inputs against a plain transcription of
`<s> A </s></s> B </s>` cut longest first, scores and losses against transformers, questions with different numbers of
choices, and a tiny model that learns each form from the command line.

    python -m pytest -q tests/test_task_classification.py
"""

import json
import math
from dataclasses import replace

import pytest
import torch
from closeness import assert_rounded, generator, seeded
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

import finetune
from luke_mini import files, finetuning, inputs, task_classification
from luke_mini.distributed import Rank
from luke_mini.heads import IGNORED
from luke_mini.initialization import initialize
from luke_mini.task_classification import NUMBER, Example, Options, make_features, read_examples

ONE = {"review_id": "7", "sentence": "Ada is fine.", "label": "positive"}
TWO = {"sentence_pair_id": "0", "sentence1": "Ada met Bo.", "sentence2": "Bo met Ada.", "label": "entailment"}
CHOICE = {"q_id": 1, "question": "Who?", "choice0": "Ada", "choice1": "Bo", "choice2": "Berg", "label": 2}
SINGLE = Example(("Ada is fine.",), "positive")


def write(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


# --- Reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row, expected",
    [
        (ONE, SINGLE),
        ({"text": "Ada is fine.", "label": "positive"}, SINGLE),
        (TWO, Example(("Ada met Bo.", "Bo met Ada."), "entailment")),
        ({"text": "Ada", "text_pair": "", "label": "x"}, Example(("Ada", ""), "x")),
        (TWO | {"label": 3}, Example(("Ada met Bo.", "Bo met Ada."), 3.0)),
        (ONE | {"label": 1.5}, SINGLE._replace(label=1.5)),
        (CHOICE, Example(("Who?", "Ada", "Bo", "Berg"), 2)),
        ({"question": "Who?", "choices": ["Ada", "Bo"], "label": 0}, Example(("Who?", "Ada", "Bo"), 0)),
    ],
)
def test_reading(tmp_path, row, expected):
    (found,) = read_examples(write(tmp_path / "train.json", row))
    assert found == expected and type(found.label) is type(expected.label)
    (tmp_path / "list.json").write_text(json.dumps([row, row]))
    assert read_examples(tmp_path / "list.json") == [expected] * 2


def test_numbers_as_classes(tmp_path):
    path = write(tmp_path / "a.jsonl", *(ONE | {"label": label} for label in (1, 0, 1.0, 2.5)))
    assert [example.label for example in read_examples(path, Options(numbers="classes"))] == ["1", "0", "1", "2.5"]


@pytest.mark.parametrize(
    "rows, message",
    [
        ([ONE, {"sentence": "a"}], "line 2: field 'label' is missing"),
        ([{"label": "x"}], "line 1: field 'sentence' is missing, expected a string"),
        ([{"sentence": 3, "label": "x"}], "line 1: field 'sentence' is 3, expected a string"),
        ([{"sentence2": "a", "label": "x"}], "line 1: field 'sentence1' is missing"),
        ([ONE | {"label": None}], "line 1: field 'label' is null, expected a number"),
        ([ONE | {"label": math.inf}], "line 1: field 'label' is inf, expected a finite number"),
        ([CHOICE | {"label": 3}], "line 1: field 'label' is 3, expected a choice from 0 to 2"),
        ([CHOICE | {"label": -1}], "line 1: field 'label' is -1"),
        ([CHOICE | {"label": "2"}], "line 1: field 'label' is \"2\", expected an integer"),
        ([{"question": "?", "choice0": "a", "choice2": "b", "label": 0}], "line 1: field 'choice1' is missing"),
        ([{"question": "?", "choice0": "a", "label": 0}], "line 1: 1 choices, expected at least 2"),
        ([{"question": "?", "choices": ["a", 3], "label": 0}], "line 1: choices 2 is 3, expected a string"),
        ([{"question": "?", "label": 0}], "line 1: field 'choice0' is missing"),
        ([{"choices": ["a", "b"], "label": 0}], "line 1: field 'question' is missing"),
        ([ONE, TWO], "line 2: two texts with a class, expected one text with a class like the file's first"),
        ([ONE, ONE | {"label": 3}], "line 2: one text with a number, expected one text with a class"),
        ([TWO, CHOICE], "line 2: a question with choices, expected two texts"),
        ([3], "line 1 is 3, expected an object"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=f"train.jsonl, {message}"):
        read_examples(write(tmp_path / "train.jsonl", *rows))


def test_labels_and_what_is_said_of_a_file():
    def of(*labels, texts="ab"):
        return [Example(tuple(texts), label) for label in labels]

    label_list, describe = task_classification.label_list, task_classification.describe
    assert label_list(of("neutral", "entailment", "contradiction", "neutral")) == (
        "contradiction", "entailment", "neutral")  # fmt: skip
    assert label_list(of(1.5, 3.0)) == NUMBER and len(NUMBER) == 1
    assert label_list(of(1, 0, texts="abc")) == ()
    assert describe(of("b", "a", "b")) == "each two texts with a class; 2 classes, 66.7% b"
    assert describe(of(0.0, 5.0)) == "each two texts with a number, from 0 to 5, on average 2.50"
    few = Example(("a", "b", "c", "d"), 0)
    assert describe(of(0, 1, texts="abc")) == "each a question with choices, 2 of them"
    assert describe([*of(0, texts="abc"), few]) == "each a question with choices, 2 to 3 of them"
    with pytest.raises(ValueError, match="all 2 training examples are 'a'"):
        label_list(of("a", "a"))


def test_the_recipe_of_each_form():
    def name(example: Example) -> str:
        return task_classification.recipe_name({}, {"train": [example]}, None)

    found = [name(SINGLE._replace(texts=tuple(texts))) for texts in ("a", "ab", "abc", "abcdef")]
    assert found == ["marc-ja", "jnli", "jcommonsenseqa", "jcommonsenseqa"]
    assert name(SINGLE._replace(label=2.5)) == name(Example(("a", "b"), 2.5)) == "jsts"


@pytest.mark.parametrize(
    "name, size, n_texts, labels",
    [
        ("jsts-train", 12451, 2, NUMBER),
        ("jsts-valid", 1457, 2, NUMBER),
        ("jnli-valid", 2434, 2, ("contradiction", "entailment", "neutral")),
        ("jcommonsenseqa-train", 8939, 6, ()),
        ("jcommonsenseqa-valid", 1119, 6, ()),
    ],
)
def test_the_published_sizes(name, size, n_texts, labels):
    """JGLUE (Kurihara et al. 2022), table 1, and what it says of the labels."""
    examples = read_examples(shared_data(f"jglue/{name}.json"))
    assert len(examples) == size and {len(example.texts) for example in examples} == {n_texts}
    assert task_classification.label_list(examples) == labels
    if labels == NUMBER:
        assert {example.label for example in examples} <= {k / 10 for k in range(51)}


# --- Features ---------------------------------------------------------------------------------------------------------


def by_the_book(first, second, tokenizer, max_length):
    """One token at a time goes, from the longer text, from the second if both are as long."""
    first, second = (tokenizer.encode_segments([text])[0].tolist() for text in (first, second or ""))
    while len(first) + len(second) + (2 if second == [] else 4) > max_length:
        (first if len(first) > len(second) else second).pop()
    end = tokenizer.eos_id
    return [tokenizer.bos_id, *first, end, *((end, *second, end) if second else ())]


TEXT = st.lists(st.sampled_from("Ada met Bo Berg , ( chemist's naïve Oslo 漢字".split()), min_size=1).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(TEXT, st.one_of(st.none(), TEXT), st.integers(8, 40))
def test_inputs_are_those_of_the_rules(tiny, first, second, max_length):
    example = Example((first,), "a") if second is None else Example((first, second), "a")
    (feature,) = make_features([example], tiny.tokenizer, tiny.entity_vocab, "ab", Options(max_seq_length=max_length))
    expected = by_the_book(first, second, tiny.tokenizer, max_length)
    (sequence,) = feature.sequences
    assert sequence.word_ids.tolist() == expected and not len(sequence.entity_ids)
    assert feature.is_cut == (len(expected) < len(by_the_book(first, second, tiny.tokenizer, 9999)))


def test_as_transformers_has_it(tiny, tiny_checkpoint):
    """One text, two, and a question with each of its choices."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LukeTokenizer.from_pretrained(tiny_checkpoint)
    for texts in (("Ada met Bo.",), ("Ada met Bo.", "Bo is a chemist ."), ("Oslo", " Norway", "Bo", "he")):
        labels, label = ((), 2) if len(texts) > 2 else (("a", "b"), "b")
        (feature,) = make_features([Example(texts, label)], tiny.tokenizer, tiny.entity_vocab, labels)
        expected = [theirs(*pair)["input_ids"] for pair in ([(texts[0], x) for x in texts[1:]] or [texts])]
        assert [sequence.word_ids.tolist() for sequence in feature.sequences] == expected
        assert (feature.label, feature.is_cut) == (2 if len(texts) > 2 else 1, False)


def test_lengths_of_the_forms_and_what_is_lost(tiny):
    long = "Oslo " * 900
    for limit, texts in ((40, (long,)), (30, (long, "Ada")), (20, ("Ada", long, "Bo"))):
        labels, label = ((), 0) if len(texts) > 2 else (("a", "b"), "unheard")
        examples = [Example(texts, label), Example(texts[-1:] * len(texts), label)]
        options = Options(max_seq_length=limit)
        features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, labels, options)
        assert max(len(sequence.word_ids) for x in features for sequence in x.sequences) == limit
        cut = 2 if len(texts) == 1 else 1
        assert list(task_classification.skipped(examples, features).values()) == [2 * bool(labels), cut]
    with pytest.raises(ValueError, match="--max-seq-length"):
        Options(max_seq_length=3)


@pytest.mark.parametrize(
    "example, labels, wanted",
    [
        (SINGLE, (), "questions with choices"),
        (SINGLE, NUMBER, "numbers as labels"),
        (SINGLE._replace(label=1.0), ("a", "b"), "classes as labels"),
        (Example(("a", "b", "c"), 0), ("a", "b"), "classes as labels"),
    ],
)
def test_another_form_than_the_training_file_is_an_error(tiny, example, labels, wanted):
    with pytest.raises(ValueError, match=f"the model is trained for {wanted}"):
        make_features([example], tiny.tokenizer, tiny.entity_vocab, labels)


def arrays_of(features):
    return inputs.as_arrays([sequence for x in features for sequence in x.sequences], 30)


# --- Model ------------------------------------------------------------------------------------------------------------


def build(tiny, labels, seed=0):
    shape = replace(tiny.config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = task_classification.build_model(shape, tiny.entity_vocab, labels)
    initialize(model, shape, seeded(seed))
    draws = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms away from 0 and 1
            parameter.normal_(std=1.0 if parameter.dim() == 1 else 0.3, generator=draws)
    return model.eval().double()


PAIRS = [("Ada met Bo", "Bo met Ada in Oslo"), ("Oslo", "Norway"), ("He is a chemist", "he"), ("Bergen", "Acme, Oslo")]


@pytest.mark.parametrize(
    "labels, gold", [(("a", "b", "c"), "cabc"), (NUMBER, (0.5, 4.0, 2.5, 0.0)), ((), (1, 0, 1, 0))]
)
def test_same_scores_and_loss_as_transformers(tiny, tmp_path, labels, gold):
    """Saved by us, opened by transformers, run on its own padded tensors: classes, numbers and choices."""
    transformers = pytest.importorskip("transformers")
    model = build(tiny, labels)
    job = finetuning.Job(task_classification, Options(), tiny, labels, {}, {}, Rank(0, 1, None), "fp32", tmp_path)
    finetuning.save_model(job, model)
    theirs = getattr(transformers, model.architecture).from_pretrained(tmp_path / "model", attn_implementation="eager")
    assert theirs.config.num_labels == len(labels) or not labels
    others = () if labels else ("he", "Berg of Acme")
    examples = [Example((*texts, *others), label) for texts, label in zip(PAIRS, gold)]
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, labels)
    batch, padded = model.collate(features), inputs.collate(arrays_of(features))
    if not labels:
        padded = {name: values.view(4, 3, -1) for name, values in padded.items()}
    with torch.no_grad():
        expected = theirs.eval().double()(**padded, labels=batch.labels)
        loss, hits = model(batch)["text"]
        ours = model.logits(batch).reshape(4, -1)
    assert_rounded(ours, expected.logits)
    assert_rounded(loss / 4, expected.loss, exponent=float(ours.abs().max()))
    near = (ours[:, 0] - batch.labels).abs() < 0.5 if labels == NUMBER else ours.argmax(1) == batch.labels
    assert batch.counts == {"text": 4} and hits == near.sum()


def test_questions_may_have_different_numbers_of_choices(tiny):
    """Scores of a mixed batch are those of each question alone; a choice that is not there has no share in the loss."""
    model = build(tiny, ())
    words = ("Ada", "Bo", "Berg", "Oslo", "Acme")
    examples = [Example(("Who?", *words[:n]), n - 1) for n in (3, 2, 5, 4)]
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, ())
    with torch.no_grad():
        together = model.logits(model.collate(features))
        loss, hits = model(model.collate(features))["text"]
        expected = right = 0.0
        for row, feature, example in zip(together, features, examples):
            n = len(example.texts) - 1
            alone = model.logits(model.collate([feature]))[0]
            assert_rounded(row[:n], alone)
            assert alone.shape == (n,) and (row[n:] == -math.inf).all()
            expected -= alone.double().log_softmax(0)[example.label].item()
            right += int(alone.argmax()) == example.label
    largest = float(together[together.isfinite()].abs().max())
    assert_rounded(loss, expected, largest)
    assert hits == right
    predictions = task_classification.predict(model, features, examples)
    assert [label for label, _ in predictions] == together.argmax(1).tolist()
    assert_rounded([probability for _, probability in predictions], together.double().softmax(1).amax(1), largest)


@pytest.mark.parametrize("labels", [("a", "b"), NUMBER, ()])
def test_predictions_do_not_depend_on_the_batch(tiny, labels):
    model = build(tiny, labels)
    examples = [Example((a, b) if labels else (a, b, "he"), None) for a, b in PAIRS]
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, labels)
    alone, together = (task_classification.predict(model, features, examples, size) for size in (1, 4))
    if labels == NUMBER:
        assert_rounded([number for number, _ in alone], [number for number, _ in together])
    else:
        assert [label for label, _ in alone] == [label for label, _ in together]
        assert_rounded([probability for _, probability in alone], [probability for _, probability in together])
    assert len({probability or label for label, probability in together}) == 4  # different texts, different answers


@pytest.mark.parametrize("labels", [("a", "b"), NUMBER, ()])
def test_every_weight_that_trains_has_a_gradient(tiny, labels):
    """Or processes that share a batch would wait for one another; what has no gradient is frozen."""
    model = build(tiny, labels)
    gold = {0: 1, 1: 2.5, 2: "b"}[len(labels)]
    example = Example(PAIRS[0], gold) if labels else Example(("Who", "Ada", "Bo"), gold)
    model(model.collate(make_features([example], tiny.tokenizer, tiny.entity_vocab, labels)))["text"][0].backward()
    parameters = dict(model.named_parameters())
    frozen = {name for name in parameters if not parameters[name].requires_grad}
    assert {name for name in parameters if parameters[name].grad is None} == frozen
    assert frozen and all("entit" in name or "e2w_e2e" in name for name in frozen) and not any("pooler" in name for name in frozen)


def test_a_label_that_training_lacks_counts_as_wrong_and_not_in_the_loss(tiny):
    examples = [Example((text,), label) for text, label in (("Ada", "a"), ("Bo", "x"), ("Oslo", "b"))]
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, ("a", "b"))
    model = build(tiny, ("a", "b"))
    batch, rest = model.collate(features), model.collate([features[0], features[2]])
    assert batch.labels.tolist() == [0, IGNORED, 1] and batch.counts == {"text": 2}
    with torch.no_grad():
        assert_rounded(model(batch)["text"][0], model(rest)["text"][0])
    scores = task_classification.evaluate(examples, [(label, 1.0) for label in "aab"], features)
    assert scores == {"accuracy": pytest.approx(2 / 3), "score": pytest.approx(2 / 3)}


def test_a_number_may_be_any(tiny):
    """-100, which as a class would stand for none, is a label like another."""
    examples = [Example((text,), float(label)) for text, label in (("Ada", -100), ("Bo", 3))]
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, NUMBER)
    model = build(tiny, NUMBER)
    batch = model.collate(features)
    with torch.no_grad():
        expected = (model.logits(batch).double() - torch.tensor([-100.0, 3.0])).square().sum().item()
        assert_rounded(model(batch)["text"][0], expected)
    assert expected > 5000
    assert batch.counts == {"text": 2} and not any(task_classification.skipped(examples, features).values())


def test_correlations():
    """Gold 1 2 3 4, found 1 2 2 9: ranks 1 2.5 2.5 4; worked by hand."""
    examples = [Example(("a", "b"), float(k)) for k in (1, 2, 3, 4)]
    scores = task_classification.evaluate(examples, [(x, None) for x in (1.0, 2.0, 2.0, 9.0)], [])
    assert scores["spearman"] == pytest.approx(4.5 / math.sqrt(5 * 4.5))
    assert scores["pearson"] == pytest.approx(12 / math.sqrt(5 * 41)) and scores["score"] == scores["pearson"]


# --- From the command line --------------------------------------------------------------------------------------------

PEOPLE, PLACES = ("Ada", "Bo", "Berg", "He", "she"), ("Oslo", "Bergen", "Norway", "Acme")


def rows_of(form):
    """What a tiny model can tell: a person from a place."""
    mixed = [(one, other) for person in PEOPLE for place in PLACES for one, other in ((person, place), (place, person))]
    if form == "single":
        return [{"sentence": f"the {name} is", "label": "person" if name in PEOPLE else "place"}
                for name in PEOPLE + PLACES] * 4  # fmt: skip
    if form == "pair":
        return [{"sentence1": a, "sentence2": b, "label": "yes" if a in PEOPLE else "no"} for a, b in mixed]
    if form == "regression":
        return [{"sentence1": a, "sentence2": b, "label": 4.0 if a in PEOPLE else 1.5} for a, b in mixed]
    return [{"question": "Who?", "choices": [a, b] + ["Oslo"] * (i % 2), "label": int(b in PEOPLE)}
            for i, (a, b) in enumerate(mixed)]  # fmt: skip


@pytest.mark.parametrize("form", ["single", "pair", "regression", "choice"])
def test_a_tiny_model_learns_from_the_command_line(tiny_checkpoint, tmp_path, capsys, form):
    write(tmp_path / "train.json", *rows_of(form))
    finetune.main(
        f"classification --checkpoint {tiny_checkpoint} --data {tmp_path} --dev {tmp_path}/train.json "
        f"--epochs {50 if form == 'regression' else 25} --batch 8 --micro-batch 8 --lr 3e-3 --dropout 0 "
        f"--out {tmp_path}/out --precision fp32 --select last".split()
    )
    results = json.loads((tmp_path / "out/results.json").read_text())["results"]["pretrained"]
    assert results["scores"]["dev"]["42"]["score"] > 0.8
    shown = "pearson " if form == "regression" else "accuracy "
    assert f"seed 42, dev: {shown}" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "out/dev_predictions.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines] == [row["label"] for row in rows_of(form)]
    text = {"single": "the Ada is\n" + json.dumps({"text": "the Oslo is"})}.get(
        form, "Ada\tOslo\n" + json.dumps({"sentence1": "Oslo", "sentence2": "Ada"}))  # fmt: skip
    if form == "choice":
        text = "Who?\tAda\tOslo\n" + json.dumps({"question": "Who?", "choice0": "Acme", "choice1": "Bo"})
    (tmp_path / "text").write_text(text + "\n")
    finetune.main(f"classification --checkpoint {tmp_path}/out --predict {tmp_path}/text".split())
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["texts"] == text.split("\n")[0].split("\t")
    if form == "regression":
        assert first["label"] > second["label"] + 1 and set(first) == {"texts", "label"}
    else:
        found = {"single": ("person", "place"), "pair": ("yes", "no"), "choice": (0, 1)}[form]
        assert (first["label"], second["label"]) == found and 0.5 < first["probability"] <= 1


@pytest.mark.parametrize("labels, line, message", [
    (("a", "b"), "a\tb\tc", "3 texts between tabs, expected one text or two"),
    ((), "a\tb", "2 texts between tabs, expected a question and at least 2 choices"),
    (("a", "b"), '{"question": "a", "choices": ["b", "c"]}', "the examples are a question with choices each, "),
    ((), '{"sentence": "a"}', "the examples are one text with a class each, the model is trained for questions"),
    (("a", "b"), '{"text": 3}', "field 'text' is 3"),
])  # fmt: skip
def test_a_line_that_the_model_is_not_for(labels, line, message):
    (record,) = files.line_records([line], task_classification.unmark)
    with pytest.raises(ValueError, match=f"line 1: {message}"):
        task_classification.from_record(record, Options(), labels)


@pytest.mark.parametrize("train, dev", [("jsts-train", "jsts-valid"), ("jnli-valid", "jnli-valid"),
                                        ("jcommonsenseqa-train", "jcommonsenseqa-valid")])  # fmt: skip
def test_real_files_from_the_command_line(tiny_checkpoint, tmp_path, train, dev):
    train, dev = shared_data(f"jglue/{train}.json"), shared_data(f"jglue/{dev}.json")
    finetune.main(
        f"classification --checkpoint {tiny_checkpoint} --train {train} --dev {dev} --epochs 1 --out {tmp_path} "
        "--train-examples 16 --dev-examples 12".split()
    )
    results = json.loads((tmp_path / "results.json").read_text())["results"]["pretrained"]
    assert results["recipe"]["batch"] == (64 if "common" in dev.name else 32)
    (scores,) = results["scores"]["dev"].values()
    assert -1 <= scores["score"] <= 1

"""Entity typing equals its specification: both published formats worked by hand, the published size of Open Entity, and
a tiny model that learns a dozen sentences from the command line. The rest, which it shares with relation
classification: test_marked_mentions.py.

    python -m pytest -q tests/test_task_typing.py
"""

import json
from dataclasses import replace

import pytest
import torch
from closeness import assert_rounded
from conftest import arrays_of, shared_data, spelled, task_model

import finetune
from luke_mini import checkpoint, finetuning, formats, task_typing, views
from luke_mini.files import Record
from luke_mini.task_typing import OPEN_ENTITY, Example, Options, make_features

LUKE = {"sent": "Ada met -LRB- briefly -RSB- the mayor .", "start": 28, "end": 37, "labels": ["person"]}
CROWD = {
    "y_str": ["time", "date", "time"], "annot_id": "x1", "left_context_token": ["On", "-LCB-"],
    "mention_span": "late Monday", "right_context_token": [",", "it", "rained", "-RRB-"],
}  # fmt: skip
OWN = {
    "text": "Ada met Bo-LRB-.",
    "spans": [{"start": 0, "end": 3, "labels": ["a", "b", "a"]}, {"start": 8, "end": 10, "labels": []}],
}
ADA = Example("Ada is a chemist .", (0, 3), ("person",))


def read_examples(path, options=Options()):
    return finetuning.read_examples(task_typing, path, options)


# --- Reading ----------------------------------------------------------------------------------------------------------


def read(path, *objects, one_a_line=True, **options):
    path.write_text("\n".join(map(json.dumps, objects)) if one_a_line else json.dumps(objects))
    return read_examples(path, Options(**options))


def test_the_papers_format(tmp_path):
    """Brackets get their signs, which moves the mention 8 characters to the left."""
    (example,) = read(tmp_path / "train.json", LUKE, one_a_line=False)
    assert example == Example("Ada met ( briefly ) the mayor .", (20, 29), ("person",))
    wide = LUKE | {"start": 28, "end": 38}  # with the space behind it
    assert read(tmp_path / "train.json", wide, one_a_line=False) == [example]


def test_as_published_and_own_lines(tmp_path):
    records = CROWD, CROWD | {"left_context_token": [], "y_str": ["date"]}, OWN
    text, own = "On ( late Monday , it rained )", "Ada met Bo-LRB-."  # own texts stay as they are
    assert read(tmp_path / "train.jsonl", *records) == [
        Example(text, (5, 16), ("time",)),
        Example(text[5:], (0, 11), ()),  # nothing is left of its types: it stays
        Example(own, (0, 3), ("a", "b")),
        Example(own, (8, 10), ()),
    ]
    found = read(tmp_path / "train.jsonl", *records, types="all")
    assert [example.types for example in found] == [("time", "date"), ("date",), ("a", "b"), ()]


@pytest.mark.parametrize(
    "record, message",
    [
        (LUKE | {"end": 99}, "fields 'start' and 'end' are 28 and 99, expected a span inside the text of 39"),
        (LUKE | {"start": "0"}, "field 'start' is \"0\", expected an integer"),
        (LUKE | {"labels": "person"}, "field 'labels' is \"person\", expected a list"),
        (CROWD | {"mention_span": None}, "field 'mention_span' is null, expected a string"),
        (CROWD | {"left_context_token": [1]}, "left_context_token 1 is 1, expected a string"),
        ({"y_str": []}, "field 'left_context_token' is missing, expected a list"),
        (OWN | {"spans": [3]}, "spans 1 is 3, expected an object"),
        (OWN | {"spans": [{"start": 2, "end": 2, "labels": []}]}, "spans 1: fields 'start' and 'end' are 2 and 2"),
        (OWN | {"spans": [{"start": 0, "end": 2}]}, "spans 1: field 'labels' is missing"),
        ({"words": "Ada"}, "field 'text' is missing, expected a string"),
    ],
)
def test_a_malformed_record_is_named(tmp_path, record, message):
    with pytest.raises(ValueError) as error:
        read(tmp_path / "dev.jsonl", OWN, record)
    assert f"dev.jsonl, line 2: {message}" in str(error.value) or f"dev.jsonl, line 2, {message}" in str(error.value)


def test_labels():
    def labels(*names):
        return task_typing.label_list([ADA._replace(types=names), ADA._replace(types=())])

    assert labels("b", "a", "person") == ("a", "b", "person")
    assert labels("place", "person") == ("person", "place")  # own labels
    assert labels(*OPEN_ENTITY[1:]) == labels(*OPEN_ENTITY) == OPEN_ENTITY
    assert labels(*OPEN_ENTITY[1:], "city") == tuple(sorted([*OPEN_ENTITY[1:], "city"]))
    with pytest.raises(ValueError, match="2 mentions, all of them without a type"):
        task_typing.describe([ADA._replace(types=())] * 2)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_open_entity_as_published(split):
    """1,998 examples a split; with all types more than a thousand different ones, with the general ones nine."""
    path = shared_data(f"typing/open_entity_{split}.jsonl")
    general, fine = read_examples(path), read_examples(path, Options(types="all"))
    assert len(general) == len(fine) == 1998
    assert task_typing.label_list(general) == OPEN_ENTITY and len(task_typing.label_list(fine)) > 1000
    for record, a, b in zip(map(json.loads, path.read_text().splitlines()), general, fine, strict=True):
        assert a[:2] == b[:2] and set(a.types) == set(b.types) & set(OPEN_ENTITY)
        assert "-LRB-" not in a.text and "  " not in a.text
        around = len(record["left_context_token"]) + len(record["right_context_token"])
        assert len(a.text.split(" ")) == around + len(record["mention_span"].split(" "))


# --- Features ---------------------------------------------------------------------------------------------------------


def test_an_input_by_hand(tiny):
    (feature,) = make_features([ADA], tiny.tokenizer, tiny.entity_vocab, ["other", "person"])
    assert spelled(tiny, feature) == "<s> <ent> _Ada <ent> _is _a _chemist _ . </s>"
    assert arrays_of(feature)["entity_ids"].tolist() == [tiny.entity_vocab.mask_id]
    assert arrays_of(feature)["entity_position_ids"].tolist() == [[1, 2, 3] + [-1] * 27]
    assert feature.label == [1] and not feature.is_cut


def test_what_cannot_be_an_input_is_counted_and_answered(tiny):
    long = " ".join(["Oslo"] * 300)
    examples = [
        ADA,
        Example(f"Ada {long}", (4, 4 + len(long)), ("person",)),  # the mention alone is too long
        Example(f"{long} Ada met Bo.", (len(long) + 1, len(long) + 4), ("unheard", "person")),
        Example("<ent> Ada", (6, 9), ()),  # written out in the text
    ]
    options = Options(max_seq_length=64)
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, ["person"], options)
    assert [(feature.example, feature.label) for feature in features] == [(0, [0]), (2, [0]), (3, [])]
    assert list(task_typing.skipped(examples, features).values()) == [1, 1, 1]
    assert len(arrays_of(features[1])["input_ids"]) == 64 and "<ent> _Ada <ent> _met" in spelled(tiny, features[1])
    model = task_model(tiny, task_typing, ["person"], options)
    torch.nn.init.constant_(model.classifier.bias, 50.0)  # everything is a person
    predictions = task_typing.predict(model, features, examples)
    assert [[name for name, _ in types] for types in predictions] == [["person"], [], ["person"], ["person"]]
    scores = task_typing.evaluate(examples, predictions, features)
    assert (scores["gold"], scores["predicted"], scores["correct"]) == (4, 3, 2)
    batch = task_model(tiny, task_typing, ["person"], replace(options, head="token")).collate(features)
    assert (batch.packed.word_ids[batch.rows[0]] == tiny.tokenizer.ent_id).all() and len(batch.rows) == 1


# --- Predictions and scores -------------------------------------------------------------------------------------------


def test_predictions_are_the_positive_logits_in_any_batch(tiny):
    labels, text = ("a", "b", "c"), "Ada met Bo Berg in Oslo"
    examples = [Example(text[:end], (0, 3), ()) for end in (10, 15, 23, 12)]
    model = task_model(tiny, task_typing, labels, seed=4).double()
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, labels)
    with torch.no_grad():
        model.classifier.bias -= model.logits(model.collate(features)).mean(dim=0)
        logits = model.logits(model.collate(features))
    expected = [[label for label, score in zip(labels, row) if score > 0] for row in logits.tolist()]
    assert 0 < sum(map(len, expected)) < 12
    for size in (1, 3, 4):
        predictions = task_typing.predict(model, features, examples, batch_size=size)
        assert [[name for name, _ in types] for types in predictions] == expected
        found = [probability for types in predictions for _, probability in types]
        assert_rounded(found, logits[logits > 0].sigmoid())


def test_a_logit_of_zero_is_a_no(tiny):
    model = task_model(tiny, task_typing, ["a"])
    torch.nn.init.zeros_(model.classifier.weight)
    features = make_features([ADA], tiny.tokenizer, tiny.entity_vocab, ["a"])
    assert task_typing.predict(model, features, [ADA]) == [[]]


def test_loose_micro_scores():
    """Gold {a}, {b}, {}; predicted {a, b}, {}, {}: one hit of two guesses and of two types."""
    examples = [ADA._replace(types=types) for types in (("a",), ("b",), ())]
    scores = task_typing.evaluate(examples, [[("a", 0.9), ("b", 0.6)], [], []], [])
    assert [scores[f"{kind}{name}"] for kind in ("", "macro_") for name in ("precision", "recall", "f1")] == [0.5] * 6


def test_prediction_files():
    found = [[("person", 0.9), ("æ", 0.6)], []]
    made = task_typing.prediction_files([ADA, ADA], found)
    assert made == {"predictions.jsonl": [
        {"predictions": names, "labels": ["person"], **task_typing.answer([ADA], [types])}
        for names, types in ((["person", "æ"], found[0]), ([], []))
    ]}  # fmt: skip
    shown = [views.to_terminal(views.show(line), color=False) for line in made["predictions.jsonl"]]
    assert shown == ["[Ada|person, æ] is a chemist .", "[Ada] is a chemist ."]


# --- From the command line --------------------------------------------------------------------------------------------


def test_a_tiny_model_learns_from_the_command_line(tiny_checkpoint, tmp_path, capsys):
    with open(tmp_path / "train.jsonl", "w") as file:
        for person in ("Ada", "Bo", "Berg", "He"):
            for place in ("Oslo", "Bergen", "Norway"):
                text = f"{person} was born in {place}."
                spans = [{"start": 0, "end": len(person), "labels": ["person", "chemist"][: 1 + (person != "He")]},
                         {"start": text.index(place), "end": len(text) - 1, "labels": ["place"]},
                         {"start": len(person) + 1, "end": len(person) + 4, "labels": []}]  # fmt: skip
                file.write(json.dumps({"text": text, "spans": spans}) + "\n")
    finetune.main(
        f"typing --checkpoint {tiny_checkpoint} --data {tmp_path} --dev {tmp_path}/train.jsonl --epochs 12 "
        f"--batch 8 --lr 5e-3 --out {tmp_path}/out --precision fp32".split()
    )
    assert "typing F1 on dev: 100.00" in capsys.readouterr().out
    saved = checkpoint.read(tmp_path / "out/model")
    assert list(saved.settings["id2label"].values()) == ["chemist", "person", "place"]

    own = {"text": "He was born in Oslo.", "spans": [{"start": 15, "end": 19}]}
    (tmp_path / "text").write_text("<e>Ada</e> was <e>born</e> in Bergen.\n" + json.dumps(own))
    finetune.main(f"typing --checkpoint {tmp_path}/out --predict {tmp_path}/text".split())
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    (ada, born), (oslo,) = first["mentions"], second["mentions"]
    assert first["text"] == "Ada was born in Bergen." and {t["type"] for t in ada["types"]} == {"person", "chemist"}
    assert born == {"text": "born", "start": 8, "end": 12, "types": born["types"]}
    assert (oslo["text"], [t["type"] for t in oslo["types"]]) == ("Oslo", ["place"])
    assert 0.5 < oslo["types"][0]["probability"] <= 1


@pytest.mark.parametrize("text", ["Ada met Bo.", "<e>Ada met Bo.", "<e>Ada</e> met </e>Bo<e>.", "<e>A<e>da</e></e>"])
def test_marks_that_do_not_fit(text):
    with pytest.raises(ValueError, match="text 3: the marks are .*, expected <e> </e> around each mention"):
        formats.unmark(text, "text 3")


def test_mentions_of_a_line():
    record = formats.unmark("<e>Ada</e> met <e>Bo</e><e></e>", "text 1")
    assert task_typing.from_record(record, Options(), ()) == [
        Example("Ada met Bo", span, ()) for span in ((0, 3), (8, 10), (10, 10))
    ]
    with pytest.raises(ValueError, match="text 3: field 'spans' is empty"):
        task_typing.from_record(Record("text 3", {"text": "Ada met Bo.", "spans": []}), Options(), ())

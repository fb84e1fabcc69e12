"""Relation classification equals its specification: files worked by hand, the published sizes of KBP37 and RELX, and a
tiny model that learns a dozen sentences from the command line. The rest, which it shares with entity typing:
test_marked_mentions.py.

    python -m pytest -q tests/test_task_relation.py
"""

import json
from dataclasses import replace

import pytest
import torch
from closeness import assert_rounded
from conftest import arrays_of, shared_data, spelled, task_model

import finetune
from luke_mini import checkpoint, finetuning, task_relation, views
from luke_mini.heads import IGNORED
from luke_mini.task_relation import KBP37_LABELS, Example, Options, make_features

TACRED = {
    "id": "e1", "relation": "per:title", "token": ["Ada", "is", "a", "chemist", "."],
    "subj_start": 0, "subj_end": 0, "obj_start": 2, "obj_end": 3, "subj_type": "PERSON", "obj_type": "TITLE",
}  # fmt: skip
OWN = {"text": "Bo met Ada.", "head": {"start": 7, "end": 10}, "tail": {"start": 0, "end": 2}, "label": "knows"}
BLOCKS = '1\t" <e1> Ada </e1> works for <e2> Acme </e2> . "\nper:employee_of(e1,e2)\n\n'
ADA = Example("e1", "Ada is a chemist .", (0, 3), (7, 16), "per:title")


def read_examples(path, options=Options()):
    return finetuning.read_examples(task_relation, path, options)


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_tacred_and_own_lines(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([TACRED, TACRED | {"relation": "no_relation"}]))
    assert read_examples(tmp_path / "train.json") == [ADA, ADA._replace(label="no_relation")]
    (tmp_path / "train.jsonl").write_text(json.dumps(OWN) + "\n\n")
    assert read_examples(tmp_path / "train.jsonl") == [Example("", "Bo met Ada.", (7, 10), (0, 2), "knows")]


@pytest.mark.parametrize(
    "sentence, text, head, tail",
    [
        ('" <e1> Ada </e1> works for <e2> Acme </e2> . "', "Ada works for Acme.", "Ada", "Acme"),
        ('"Then <e2> Bo Berg </e2> met <e1> Ada </e1>."', "Then Bo Berg met Ada.", "Ada", "Bo Berg"),
        ("( <e2> CT </e2> ), (<e1> X </e1>)", "( CT ), (X)", "X", "CT"),
        ('" in <e1> 2005 </e1> <e2> </e2> was "', "in 2005 was", "2005", ""),
        ('" <e1> </e1> of <e2> Acme </e2> "', "of Acme", "", "Acme"),
        ("by <e1> </e1> <e2> </e2>", "by ", "", ""),
    ],
)
def test_marks(tmp_path, sentence, text, head, tail):
    (tmp_path / "KBP37_train.txt").write_text(f"\n7\t{sentence}\nper:title(e2,e1)\n\n\n{BLOCKS}", encoding="utf-8")
    example, second = read_examples(tmp_path / "KBP37_train.txt")
    assert (example.id, example.text, example.label) == ("7", text, "per:title(e2,e1)")
    assert (text[slice(*example.head)], text[slice(*example.tail)]) == (head, tail)
    assert second == Example("1", "Ada works for Acme.", (0, 3), (14, 18), "per:employee_of(e1,e2)")


def test_semeval(tmp_path):
    """Blocks of SemEval-2010 have a comment, which may be empty; any other third line is an error."""
    blocks = """8001\t"The <e1>valve</e1> of the <e2>pump</e2> broke."
Component-Whole(e1,e2)
Comment: one of its parts, not a collection

8002\t"<e1>Rain</e1> fell on the <e2>roof</e2>."
Other
Comment:

8003\t"A <e1>cook</e1> with a <e2>pan</e2>."
Instrument-Agency(e2,e1)
"""
    (tmp_path / "TRAIN_FILE.TXT").write_text(blocks, encoding="utf-8")
    found = read_examples(tmp_path / "TRAIN_FILE.TXT")
    assert [(one.id, one.label) for one in found] == [
        ("8001", "Component-Whole(e1,e2)"), ("8002", "Other"), ("8003", "Instrument-Agency(e2,e1)")]  # fmt: skip
    assert found[0].text == "The valve of the pump broke." and found[0].text[slice(*found[0].tail)] == "pump"
    (tmp_path / "x.txt").write_text(blocks.replace("Comment:\n", "Remark: none\n"), encoding="utf-8")
    with pytest.raises(ValueError, match="x.txt, line 5: 2 lines after the sentence, expected one"):
        read_examples(tmp_path / "x.txt")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.json", [TACRED | {"obj_end": 5}], "record 1: fields 'obj_start' and 'obj_end' are 2 and 5, expected .* 5"),
        ("a.json", [TACRED, TACRED | {"subj_end": -1}], "record 2: fields 'subj_start' and 'subj_end' are 0 and -1"),
        ("a.json", [{"token": []}], "record 1: field 'relation' is missing|'subj_start' is missing"),
        ("a.json", [TACRED | {"token": ["Ada", 3]}], "record 1: token 2 is 3, expected a string"),
        ("a.json", [TACRED | {"relation": 3}], "record 1: field 'relation' is 3, expected a string"),
        ("a.json", [3], "record 1 is 3, expected an object"),
        ("a.jsonl", OWN | {"head": 0}, "line 1: field 'head' is 0, expected an object"),
        ("a.jsonl", OWN | {"tail": {"start": 9, "end": 12}}, "line 1, tail: fields 'start' and 'end' are 9 and 12"),
        ("a.jsonl", {"text": "x"}, "line 1: field 'head' is missing"),
        ("a.txt", "\n1 no tab\nx\n", "line 2: no tab, expected an id, a tab and a sentence"),
        ("a.txt", BLOCKS + "2\t<e1> a </e1> <e2> b </e2>", "line 4: 0 lines after the sentence, expected one"),
        ("a.txt", BLOCKS.strip() + "\n" + BLOCKS, "line 1: 3 lines after the sentence"),
        ("a.txt", "1\t<e1> a </e1> b\nx", "line 1: the marks are <e1> </e1>, expected <e1> ... </e1> and <e2>"),
        ("a.txt", "1\t<e1> a <e2> b </e1> c </e2>\nx", "line 1: the marks are <e1> <e2> </e1> </e2>"),
        ("a.txt", b"1\t\xff", "not UTF-8 text"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, name, content, message):
    content = json.dumps(content) if isinstance(content, (list, dict)) else content
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"{name}.*({message})"):
        read_examples(tmp_path / name)


def test_labels():
    def labels(*names):
        return task_relation.label_list([ADA._replace(label=name) for name in names])

    assert labels("b", "no_relation", "a", "b") == ("no_relation", "a", "b")
    assert labels("b", "a") == ("a", "b")  # own labels without no_relation
    assert labels("per:title(e2,e1)") == KBP37_LABELS
    assert labels("made(e2,e1)", "made(e1,e2)") == ("made(e1,e2)", "made(e2,e1)")
    assert labels("per:title") == ("per:title",)  # TACRED's names, some of which are KBP37's without a direction
    assert len(set(KBP37_LABELS)) == 37 and KBP37_LABELS[0] == "no_relation"
    with pytest.raises(ValueError, match="3 examples, all of them no_relation"):
        task_relation.describe([ADA._replace(label="no_relation")] * 3)


@pytest.mark.parametrize(
    "name, size", [("KBP37_train", 15917), ("KBP37_dev", 1724), ("KBP37_test", 3405), ("RELX_en", 502)]
)
def test_the_published_sizes(name, size):
    """KBP37 (Zhang and Wang 2015) and RELX (Köksal and Özgür 2020): examples, all 37 labels in each file."""
    examples = read_examples(shared_data(f"relation/{name}.txt"))
    assert len(examples) == size and {example.label for example in examples} == set(KBP37_LABELS)
    assert not any("  " in example.text or "<e" in example.text for example in examples)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_real_tacred_records(split):
    path = shared_data(f"relation/tacred_sample_{split}.json")
    for record, example in zip(json.loads(path.read_text()), read_examples(path), strict=True):
        for name, (start, end) in (("subj", example.head), ("obj", example.tail)):
            words = record["token"][record[f"{name}_start"] : record[f"{name}_end"] + 1]
            assert example.text[start:end] == " ".join(words)


# --- Features ---------------------------------------------------------------------------------------------------------


def test_an_input_by_hand(tiny):
    (feature,) = make_features([ADA], tiny.tokenizer, tiny.entity_vocab, ["no_relation", "per:title"])
    assert spelled(tiny, feature) == "<s> <ent> _Ada <ent> _is <ent2> _a _chemist <ent2> _ . </s>"
    mask, mask2 = tiny.entity_vocab.mask_id, tiny.entity_vocab.mask2_id
    assert arrays_of(feature)["entity_ids"].tolist() == [mask, mask2] and mask != mask2
    positions = arrays_of(feature)["entity_position_ids"].tolist()
    assert positions == [[1, 2, 3] + [-1] * 27, [5, 6, 7, 8] + [-1] * 26]
    assert feature.label == 1 and not feature.is_cut


def test_what_cannot_be_an_input_is_counted_and_answered(tiny):
    long = " ".join(["Oslo"] * 300)
    examples = [
        ADA,
        ADA._replace(tail=(0, 18)),  # around the head
        ADA._replace(tail=(2, 8)),
        Example("", f"Ada {long}", (0, 3), (4, 4 + len(long)), "unheard"),  # the tail alone is too long
        Example("", f"{long} Ada met Bo.", (len(long) + 1, len(long) + 4), (len(long) + 9, len(long) + 11), "unheard"),
        Example("", "<ent> Ada <ent2> met Bo", (6, 9), (21, 23), "per:title"),  # written out in the text
    ]
    options = Options(max_seq_length=64)
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, ["per:title"], options)
    assert [(feature.example, feature.label) for feature in features] == [(0, 0), (4, IGNORED), (5, 0)]
    assert list(task_relation.skipped(examples, features).values()) == [2, 1, 1, 1]
    cut = features[1]
    assert cut.is_cut and len(arrays_of(cut)["input_ids"]) == 64
    assert "<ent> _Ada <ent> _met <ent2> _Bo <ent2> . </s>" in spelled(tiny, cut)
    model = task_model(tiny, task_relation, ["per:title"], options)
    predictions = task_relation.predict(model, features, examples)
    assert [label == "per:title" for label, _ in predictions] == [True, False, False, False, True, True]
    scores = task_relation.evaluate(examples, predictions, features)
    assert (scores["gold"], scores["predicted"], scores["correct"]) == (6, 3, 2)
    written = spelled(tiny, features[2])
    assert written == "<s> _ <ent> <ent> _Ada <ent> _ <ent2> _met <ent2> _Bo <ent2> </s>"
    batch = task_model(tiny, task_relation, ["per:title"], replace(options, head="token")).collate(features)
    marker_rows = torch.stack(batch.rows, dim=1)
    assert batch.packed.word_ids[marker_rows].tolist() == [[tiny.tokenizer.ent_id, tiny.tokenizer.ent2_id]] * 3
    assert marker_rows[2].tolist() == [64 + len(features[0].sequence.word_ids) + place for place in (3, 9)]


def test_a_vocabulary_without_the_second_mask_is_an_error(tiny):
    vocab = type(tiny.entity_vocab)([[("[PAD]", None)], [("[UNK]", None)], [("[MASK]", None)]])
    with pytest.raises(ValueError, match=r"lacks \[MASK2\]"):
        make_features([ADA], tiny.tokenizer, vocab, ["per:title"])


# --- Predictions and scores -------------------------------------------------------------------------------------------


def test_predictions_do_not_depend_on_the_batch(tiny):
    labels, text = ("b", "a"), "Ada met Bo Berg in Oslo"
    examples = [Example("", text[:end], (0, 3), (8, 10), "a") for end in (10, 15, 23, 12)]
    model = task_model(tiny, task_relation, labels).double()
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, labels)
    probability = model.logits(model.collate(features)).detach().softmax(dim=1)
    for size in (1, 3, 4):
        found = task_relation.predict(model, features, examples, batch_size=size)
        assert [label for label, _ in found] == [labels[k] for k in probability.argmax(dim=1)]
        assert_rounded([p for _, p in found], probability.amax(dim=1))


def scores_of(gold, guesses):
    examples = [ADA._replace(label=label) for label in gold]
    return task_relation.evaluate(examples, [(label, 1.0) for label in guesses], [])


def test_micro_scores_without_no_relation():
    """Gold a, none, b, a; guesses a, b, none, a: 2 hits of 3 guesses and of 3 relations."""
    scores = scores_of(["a", "no_relation", "b", "a"], ["a", "b", "no_relation", "a"])
    assert [scores[name] for name in task_relation.SCORES] == pytest.approx([2 / 3] * 4)


def test_a_wrong_direction_is_no_hit_and_the_mean_is_over_all_18_relations():
    gold = ["per:title(e1,e2)", "per:spouse(e2,e1)", "no_relation"]
    scores = scores_of(gold, ["per:title(e2,e1)", "per:spouse(e2,e1)", "no_relation"])
    assert (scores["correct"], scores["predicted"], scores["gold"], scores["f1"]) == (1, 2, 2, 0.5)
    assert scores["official_f1"] == pytest.approx(1 / 18)
    own = scores_of(["r(e1,e2)", "s(e1,e2)"], ["r(e1,e2)", "t(e1,e2)"])  # over r and s
    assert own["official_f1"] == pytest.approx(1 / 2)


def test_prediction_files():
    examples, found = [ADA, ADA._replace(id="e2")], [("per:title", 1.0), ("x", 0.5)]
    made = task_relation.prediction_files(examples, found)
    assert made["predictions.txt"] == "per:title\nx\n"
    for line, example, prediction in zip(made["predictions.jsonl"], examples, found, strict=True):
        assert line == task_relation.answer([example], [prediction]) | {"gold": example.label}
        shown = views.show(line)
        assert shown.passages[0].text == example.text and f"right: {example.label}" in shown.details
    directed = [example._replace(label="per:title(e1,e2)") for example in examples]
    assert task_relation.prediction_files(directed, found)["predictions.txt"] == "e1\tper:title\ne2\tx\n"


# --- From the command line --------------------------------------------------------------------------------------------

PEOPLE, PLACES = ("Ada", "Bo", "Berg", "He"), ("Oslo", "Bergen", "Norway")


def write_blocks(path):
    """Who is born where, or works there, in either order: the verb and the order give the label away."""
    blocks = []
    for person in PEOPLE:
        for place in PLACES:
            blocks += [
                f'" <e1> {person} </e1> was born in <e2> {place} </e2> . "\nborn(e1,e2)',
                f'" In <e1> {place} </e1> was born <e2> {person} </e2> . "\nborn(e2,e1)',
                f'" <e1> {person} </e1> met the mayor of <e2> {place} </e2> . "\nno_relation',
            ]
    path.write_text("\n\n".join(f"{i}\t{block}" for i, block in enumerate(blocks)) + "\n")


def test_a_tiny_model_learns_from_the_command_line(tiny_checkpoint, tmp_path, capsys):
    write_blocks(tmp_path / "KBP37_train.txt")
    finetune.main(
        f"relation --checkpoint {tiny_checkpoint} --data {tmp_path} --dev {tmp_path}/KBP37_train.txt --epochs 12 "
        f"--batch 8 --lr 5e-3 --out {tmp_path}/out --classifier-bias --precision fp32".split()
    )
    assert "relation F1 on dev: 100.00" in capsys.readouterr().out
    lines = (tmp_path / "out/dev_predictions.txt").read_text().splitlines()
    assert lines[:3] == ["0\tborn(e1,e2)", "1\tborn(e2,e1)", "2\tno_relation"]
    saved = checkpoint.read(tmp_path / "out/model")
    assert list(saved.settings["id2label"].values()) == ["no_relation", "born(e1,e2)", "born(e2,e1)"]
    assert "classifier.bias" in saved.weights

    own = {"text": "In Oslo was born Bo.", "head": {"start": 3, "end": 7}, "tail": {"start": 17, "end": 19}}
    overlapping = own | {"tail": {"start": 3, "end": 19}}
    text = "<e1>Ada</e1> met the mayor of <e2>Oslo</e2>."
    (tmp_path / "text").write_text("\n".join([json.dumps(own), text, json.dumps(overlapping)]))
    finetune.main(f"relation --checkpoint {tmp_path}/out --predict {tmp_path}/text".split())
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["label"] == "born(e2,e1)" and first["head"] == {"text": "Oslo", "start": 3, "end": 7}
    assert second["text"] == "Ada met the mayor of Oslo." and second["label"] == "no_relation"
    assert second["tail"] == {"text": "Oslo", "start": 21, "end": 25} and 0.5 < second["probability"] <= 1
    assert (third["label"], third["probability"]) == ("no_relation", 0.0)

    (tmp_path / "text").write_text("Ada met Bo.\n")
    with pytest.raises(SystemExit, match="2"):
        finetune.main(f"relation --checkpoint {tmp_path}/out --predict {tmp_path}/text".split())
    assert "line 1: the marks are missing" in capsys.readouterr().err


def test_a_released_checkpoint_says_itself_whether_it_has_a_bias(tiny, tmp_path, capsys):
    """mLUKE's model for KBP37: `classifier_bias` in config.json, no settings of ours."""
    model = task_model(tiny, task_relation, ("a", "b"), Options(classifier_bias=True))
    torch.nn.init.constant_(model.classifier.weight, 0.0)
    model.classifier.bias.data = torch.tensor([0.0, 1.0])
    settings = {"architectures": [task_relation.ARCHITECTURE], "id2label": {"0": "a", "1": "b"}}
    settings["classifier_bias"] = True
    checkpoint.save(tmp_path / "released", model, tiny.tokenizer, tiny.entity_vocab, settings)
    (tmp_path / "text").write_text("<e1>Ada</e1> met <e2>Bo</e2>.\n")
    finetune.main(f"relation --checkpoint {tmp_path}/released --predict {tmp_path}/text".split())
    answer = json.loads(capsys.readouterr().out)
    assert (answer["label"], answer["probability"]) == ("b", 0.7311)  # 1 / (1 + 1 / e)



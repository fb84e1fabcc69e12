"""Exported models compute what the packed ones do, in float64 the same: on the inputs that the tasks themselves make of
texts, with every head, and read back from their files on random shapes against `heads.LukeForTask`, which other tests
compare with transformers.

pytest tests/test_export.py
"""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from closeness import HALF_THE_DIGITS, assert_as_good, assert_same, generator, seeded

import finetune
from luke_mini import checkpoint, export, inputs
from luke_mini import task_classification, task_ner, task_qa, task_relation, task_typing
from luke_mini.files import Record
from luke_mini.heads import LukeForTask
from luke_mini.initialization import initialize

LABELS = ("NIL", "PER", "LOC")
TASKS = {task.NAME: task for task in (task_ner, task_relation, task_typing, task_qa, task_classification)}
TEXTS = ["Ada met Bo Berg in Oslo.", "She was born in Norway", "Ada, Bo"]
SHAPES = {  # other models than the tiny one, by what is different in their embeddings or attention
    "two tables": {},
    "one query": {"use_entity_aware_attention": False},
    "no projection": {"entity_emb_size": 32},
    "mask apart": {"mask_entity_id": 2},
}


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint):
    return checkpoint.read(tiny_checkpoint)


def build(tiny, task, changes=None, **options):
    shape = replace(tiny.config, **(changes or {}))
    model = task.build_model(shape, tiny.entity_vocab, LABELS, task.Options(**options))
    initialize(model, shape, seeded())
    draws = generator(1)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases away from 1 and 0, the four queries from one another
            parameter.add_(torch.randn(parameter.shape, generator=draws), alpha=0.1)
    return model.eval().double()


def ner_inputs(tiny, model):
    """Features of texts, and the same as Hugging Face has them."""
    documents = [task_ner.from_record(Record("here", {"text": text, "spans": []}))[0] for text in TEXTS]
    features = task_ner.make_features(documents, tiny.tokenizer, None, LABELS, task_ner.Options())
    arrays = []
    for feature in features:
        spans = feature.token_spans.astype(np.int64)
        positions = spans[:, :1] + np.arange(16)
        arrays.append({
            "input_ids": feature.word_ids, "attention_mask": np.ones(len(feature.word_ids)),
            "entity_ids": np.full(len(spans), tiny.entity_vocab.mask_id), "entity_attention_mask": np.ones(len(spans)),
            "entity_position_ids": np.where(positions < spans[:, 1:], positions, -1),
            "entity_start_positions": spans[:, 0], "entity_end_positions": spans[:, 1] - 1,
        })  # fmt: skip
    return features, inputs.collate(arrays)


def task_inputs(tiny, task, options):
    vocab = tiny.entity_vocab
    if task is task_relation:
        examples = [task_relation.Example("", TEXTS[0][:end], (0, 3), (8, 10), "PER") for end in (10, 15, 24)]
    else:
        examples = [task_typing.Example(text, (0, 3), ("PER",)) for text in TEXTS]
    features = task.make_features(examples, tiny.tokenizer, vocab, LABELS, options)
    return features, inputs.collate(inputs.as_arrays([feature.sequence for feature in features], 30))


def check(found, expected):
    assert expected.std(dim=0).min() > 1e-3 * expected.abs().max()  # the rows differ
    assert_same(found, expected)


@pytest.mark.parametrize("changes", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("head", task_ner.HEAD_INPUTS)
def test_scores_of_the_candidates_of_texts(tiny, head, changes):
    model = build(tiny, task_ner, changes, head=head)
    features, padded = ner_inputs(tiny, model)
    with torch.no_grad():
        found = export.Exportable(model, "ner")(**padded)[padded["entity_attention_mask"].bool()]
        check(found, model.logits(model.collate(features)))


@pytest.mark.parametrize(
    "task, head",
    [(task, head) for task, heads in ((task_relation, task_relation.HEAD_INPUTS), (task_typing, ("entity", "token")))
     for head in heads],
)  # fmt: skip
def test_scores_of_relations_and_types(tiny, task, head):
    model = build(tiny, task, head=head)
    features, padded = task_inputs(tiny, task, task.Options(head=head))
    with torch.no_grad():
        check(export.Exportable(model, task.NAME)(**padded), model.logits(model.collate(features)))


def test_scores_of_texts(tiny):
    model = build(tiny, task_classification)
    examples = [task_classification.Example((text,), "PER") for text in TEXTS]
    features = task_classification.make_features(examples, tiny.tokenizer, tiny.entity_vocab, LABELS)
    padded = inputs.collate(inputs.as_arrays([feature.sequences[0] for feature in features], 30))
    with torch.no_grad():
        check(export.Exportable(model, "classification")(**padded), model.logits(model.collate(features)))


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """Of each task: the model, and what its file holds."""
    made = {}
    for name, task in TASKS.items():
        model = build(tiny, task, {"num_hidden_layers": 1})
        path = tmp_path_factory.mktemp("exported") / f"{name}.pt2"
        assert export.save(model, name, path) < HALF_THE_DIGITS
        made[name] = model, torch.export.load(path).module()
    return made


def reference(model, task):
    architecture = getattr(model, "architecture", task.ARCHITECTURE)
    made = LukeForTask(model.config, architecture, model.classifier.out_features)
    made.load_state_dict(model.state_dict(), strict=True)
    return made.eval().double()


@pytest.mark.parametrize("name", TASKS)
def test_files_on_random_shapes(exported, name):
    """Batches, words, entities and mentions of any number: one, none, more than at export; and padding."""
    model, program = exported[name]
    theirs = reference(model, TASKS[name])
    sizes = np.random.default_rng(seeded())
    for seed in range(12):
        shape = [int(sizes.integers(low, high)) for low, high in ((1, 6), (1, 40), (0, 30 if seed > 1 else 1), (1, 9))]
        given = export.random_inputs(model, name, shape, seeded(100 + seed))
        with torch.no_grad():
            found, expected = program(**given), theirs(**given)[1]
        if name in ("ner", "qa"):
            mask = given["entity_attention_mask" if name == "ner" else "attention_mask"].bool()
            found, expected = found[mask], expected[mask]
        assert_same(found, expected)


@pytest.mark.parametrize("sizes", [(3, 8, 4, 3), (1, 1, 1, 1), (2, 5, 0, 1)])
def test_random_inputs_are_sound(tiny, sizes):
    model = build(tiny, task_ner)
    given = export.random_inputs(model, "ner", sizes, seeded(3))
    words, entities = given["attention_mask"], given["entity_attention_mask"].bool()
    assert given["entity_position_ids"].shape == (sizes[0], *sizes[2:])
    assert (words.sum(dim=1) >= 1).all() and (words.diff(dim=1) <= 0).all()
    lengths = words.sum(dim=1)[:, None, None]
    positions = given["entity_position_ids"]
    assert (positions < lengths).all() and ((positions >= 0).any(dim=2) == entities).all()
    for part in ("entity_start_positions", "entity_end_positions"):
        assert (given[part] < lengths[:, 0]).all()


def test_a_difference_is_noticed_and_nothing_is_written(tiny, tmp_path, monkeypatch):
    """A wrong transcription: all positions of a mention after word 1 are forgotten."""
    right = export.embed_entities
    monkeypatch.setattr(export, "embed_entities", lambda part, ids, at: right(part, ids, at.where(at < 2, -1)))
    with pytest.raises(ValueError, match="exported scores differ"):
        export.save(build(tiny, task_typing), "typing", tmp_path / "typing.pt2")
    assert not list(tmp_path.iterdir())


def test_from_the_command_line_to_a_file_that_needs_nothing_of_ours(tiny, tmp_path, capsys):
    model = build(tiny, task_relation).float()
    names = {str(i): label for i, label in enumerate(LABELS)}
    settings = {"architectures": [task_relation.ARCHITECTURE], "id2label": names}
    checkpoint.save(tmp_path / "model", model, tiny.tokenizer, tiny.entity_vocab, settings)
    finetune.main(["relation", "--checkpoint", str(tmp_path), "--export", str(tmp_path / "relation.pt2")])
    assert "largest difference" in capsys.readouterr().out
    features, padded = task_inputs(tiny, task_relation, task_relation.Options())
    torch.save({name: padded[name] for name in export.INPUTS["relation"]}, tmp_path / "inputs.pt")
    program = (
        "import json, sys, torch; program = torch.export.load('relation.pt2').module(); "
        "print(json.dumps([program(**torch.load('inputs.pt')).tolist(), 'luke_mini' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    scores, has_ours = json.loads(done.stdout)
    with torch.no_grad():
        batch = model.collate(features)
        assert_as_good(torch.tensor(scores), model.logits(batch), model.double().logits(batch))
    assert not has_ours

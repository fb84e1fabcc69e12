"""What typing and relation classification have in common: inputs against a plain transcription of the rules of the LUKE
paper's runs and against transformers' tokenizer, logits and loss of the saved model in transformers, what the head sees
for each of its choices, what trains, real files from the command line.

    python -m pytest -q tests/test_marked_mentions.py
"""

import json

import pytest
import torch
from closeness import assert_rounded, assert_same, generator
from conftest import arrays_of, shared_data, task_model
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import finetune
from luke_mini import checkpoint, finetuning, formats, inputs, task_relation, task_typing
from luke_mini.files import Record

LABELS = ("a", "b", "c")
TEXT = "Ada met Bo Berg in Oslo"
ENDS = (10, 15, 23, 12)
EXAMPLES = {  # one label is unheard of
    task_typing: [task_typing.Example(TEXT[:end], (0, 3), types)
                  for end, types in zip(ENDS, (("a", "c"), (), ("b",), ("x",)))],
    task_relation: [task_relation.Example("", TEXT[:end], (0, 3), (8, 10), label)
                    for end, label in zip(ENDS, "abax")],
}  # fmt: skip
GOLD = {task_typing: [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]], task_relation: [0, 1, 0, -100]}
TASKS = pytest.mark.parametrize("task", EXAMPLES, ids=lambda task: task.NAME)
HEADS = pytest.mark.parametrize(
    "task, head", [(task_typing, "entity"), (task_typing, "token"), *((task_relation, head) for head in
                   task_relation.HEAD_INPUTS)], ids=lambda value: getattr(value, "NAME", value))  # fmt: skip


def features_of(tiny, task, options=None, examples=None):
    return task.make_features(
        examples or EXAMPLES[task], tiny.tokenizer, tiny.entity_vocab, LABELS, options or task.Options()
    )


def by_the_book(words, mentions, tokenizer, max_mention):
    """Stretches of words, each tokenized by itself and after a space; <ent> around the first mention, <ent2> around the
    second, wherever they stand. mentions: half-open, in words."""
    tokens, positions, done = [tokenizer.bos_id], {}, 0

    def add(begin, end):
        if begin < end:
            tokens.extend(tokenizer.encode(" ".join(words[begin:end]), prefix_space=True).ids)

    for (begin, end), k in sorted(zip(mentions, (0, 1))):
        add(done, begin)
        first, marker = len(tokens), (tokenizer.ent_id, tokenizer.ent2_id)[k]
        tokens.append(marker)
        add(begin, end)
        tokens.append(marker)
        positions[k] = (list(range(first, len(tokens))) + [-1] * max_mention)[:max_mention]
        done = end
    add(done, len(words))
    return tokens + [tokenizer.eos_id], [positions[k] for k in range(len(mentions))]


WORDS = st.lists(st.sampled_from("Ada met Bo Berg , ( -LRB- chemist's ) . naïve Oslo ½ don 't 漢字".split()), min_size=2)


@TASKS
@settings(deadline=None, max_examples=60)
@given(words=WORDS, data=st.data())
def test_inputs_are_those_of_the_rules(tiny, task, words, data):
    a, b, c, d = sorted(data.draw(st.integers(0, len(words))) for _ in range(4))
    assume(a < b <= c < d)
    if task is task_typing:
        spans = [(a, b)]
        values = {"left_context_token": words[:a], "mention_span": " ".join(words[a:b]), "y_str": []}
        record = formats.open_entity(Record("here", values | {"right_context_token": words[b:]}))
        words = [word.replace("-LRB-", "(") for word in words]
    else:
        spans = data.draw(st.permutations([(a, b), (c, d)]))
        values = {"relation": "r", "token": words}
        for name, (start, end) in zip(("subj", "obj"), spans):
            values |= {f"{name}_start": start, f"{name}_end": end - 1}
        record = formats.tacred(Record("here", values))
    (example,) = task.from_record(record)
    max_mention = data.draw(st.integers(1, 8))
    (feature,) = features_of(tiny, task, task.Options(max_mention=max_mention), [example])
    arrays = arrays_of(feature, max_mention)
    ids, positions = by_the_book(words, spans, tiny.tokenizer, max_mention)
    assert arrays["input_ids"].tolist() == ids and arrays["entity_position_ids"].tolist() == positions


@TASKS
def test_without_the_first_space_as_transformers_has_it(tiny, tiny_checkpoint, task):
    transformers = pytest.importorskip("transformers")
    kind, fields = {task_typing: ("entity", ["mention"]), task_relation: ("entity_pair", ["head", "tail"])}[task]
    theirs = transformers.LukeTokenizer.from_pretrained(tiny_checkpoint, task=f"{kind}_classification")
    example = EXAMPLES[task][2]
    spans = [(0, 3), (8, 15), (15, 18)] if task is task_typing else [((0, 3), (8, 15)), ((8, 15), (0, 3))]
    for span in spans:
        changed = example._replace(**dict(zip(fields, span if len(fields) > 1 else [span])))
        (feature,) = features_of(tiny, task, task.Options(first_space=False), [changed])
        expected = theirs(example.text, entity_spans=[getattr(changed, field) for field in fields])
        for name in ("input_ids", "entity_ids", "entity_position_ids", "attention_mask", "entity_attention_mask"):
            assert arrays_of(feature)[name].tolist() == expected[name]


@pytest.mark.parametrize(
    "task, more", [(task_typing, {}), (task_relation, {}), (task_relation, {"classifier_bias": True})]
)
def test_same_logits_and_loss_as_transformers(tiny, tmp_path, task, more):
    """Saved by us, opened by transformers, run on its own padded tensors; its head for pairs has no bias."""
    transformers = pytest.importorskip("transformers")
    model, draws = task_model(tiny, task, LABELS, task.Options(**more)), generator()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms away from 0 and 1, the four queries from one another
            parameter.add_(torch.randn(parameter.shape, generator=draws), alpha=0.1)
    settings = {"architectures": [task.ARCHITECTURE], "id2label": dict(zip("012", LABELS))}
    checkpoint.save(tmp_path / "model", model, tiny.tokenizer, tiny.entity_vocab, settings)
    theirs = getattr(transformers, task.ARCHITECTURE).from_pretrained(tmp_path / "model", attn_implementation="eager")
    theirs, model = theirs.eval().double(), model.double()
    features = features_of(tiny, task)
    batch = model.collate(features)
    with torch.no_grad():
        expected = theirs(**inputs.collate(inputs.as_arrays([x.sequence for x in features], 30)), labels=batch.labels)
        ours, (loss, hits) = model.logits(batch), model(batch)["label"]
    assert expected.logits.std(dim=0).min() > 1e-3  # the examples differ
    assert_same(ours - (model.classifier.bias if more else 0), expected.logits)
    if not more:
        counted = 12 if task is task_typing else 3  # a label that training lacks is in no mean
        assert_rounded(loss / counted, expected.loss)
    gold = torch.tensor(GOLD[task])
    found = (ours > 0).long() if task is task_typing else ours.argmax(dim=1)
    assert hits == (found == gold).sum() and torch.equal(batch.labels.long(), gold)
    assert batch.counts == {"label": gold.numel()}


@HEADS
def test_the_head_sees_the_rows_it_should(tiny, task, head):
    """The classifier's input, row by row, against the hidden states of one sequence at a time."""
    model, n = task_model(tiny, task, LABELS, task.Options(head=head)).double(), 1 if task is task_typing else 2
    features = features_of(tiny, task)
    with torch.no_grad():
        together = model.logits(model.collate(features))
        for row, feature in zip(together, features):
            arrays = arrays_of(feature)
            shown = arrays if "entity" in head else {"input_ids": arrays["input_ids"]}
            hidden = model.luke(inputs.pack([shown], model.config.pad_token_id))
            assert len(hidden) == len(arrays["input_ids"]) + n * ("entity" in head)
            ids = arrays["input_ids"].tolist()
            words = [hidden[ids.index(marker)] for marker in (tiny.tokenizer.ent_id, tiny.tokenizer.ent2_id)[:n]]
            seen = words * ("token" in head) + [*hidden[-n:]] * ("entity" in head)
            bias = 0 if model.classifier.bias is None else model.classifier.bias
            assert_same(row, model.classifier.weight @ torch.cat(seen) + bias)


@HEADS
def test_every_weight_that_trains_has_a_gradient(tiny, task, head):
    """Or processes that share a batch would wait for one another; what has no gradient is frozen."""
    model = task_model(tiny, task, LABELS, task.Options(head=head))
    model(model.collate(features_of(tiny, task)))["label"][0].backward()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == frozen
    unused = ("pooler", "entit", "e2w_e2e")
    assert all(any(part in name for part in unused) for name in frozen) and (len(frozen) == 2) == ("entity" in head)


REAL = [  # folder and further flags; files to train on and to score; examples -> what is right to find in them
    (task_typing, "typing", "open_entity_train.jsonl", "open_entity_dev.jsonl", {"types": "general"}),
    (task_typing, "typing", "open_entity_train.jsonl", "open_entity_dev.jsonl", {"types": "all"}),
    (task_relation, "relation", "KBP37_train.txt", "RELX_en.txt", {}),
    (task_relation, "relation", "tacred_sample_train.json", "tacred_sample_dev.json", {}),
]


@pytest.mark.parametrize("task, folder, train, test, flags", REAL)
def test_real_files_from_the_command_line(tiny_checkpoint, tmp_path, task, folder, train, test, flags):
    train, test = (shared_data(f"{folder}/{name}") for name in (train, test))
    more = [word for name, value in flags.items() for word in (f"--{name}", value)]
    finetune.main(
        f"{task.NAME} --checkpoint {tiny_checkpoint} --train {train} --test {test} --epochs 1 --out {tmp_path} "
        "--train-examples 20 --test-examples 20".split() + more
    )
    results = json.loads((tmp_path / "results.json").read_text())["results"]["pretrained"]
    (scores,) = results["scores"]["test"].values()
    examples = finetuning.read_examples(task, test, task.Options(**flags))[:20]
    gold = [len(x.types) if task is task_typing else x.label != "no_relation" for x in examples]
    assert scores["gold"] == sum(gold)
    predictions, *_ = sorted(tmp_path.glob("test_predictions.*"), reverse=True)  # TACRED's .txt before the .jsonl
    assert len(predictions.read_text(encoding="utf-8").splitlines()) == 20


@TASKS
@pytest.mark.parametrize("wrong", [{"max_mention": 0}, {"max_seq_length": 7}])
def test_impossible_options(task, wrong):
    with pytest.raises(ValueError, match="--max-seq-length"):
        task.Options(**wrong)

"""Published files and the JSON lines that `--to-jsonl` makes of them are the same examples.

    pytest tests/test_formats.py

What each published format means is tested with its task.
"""

import json

import pytest
from conftest import shared_data

import finetune
from luke_mini import finetuning, formats, task_classification, task_cloze, task_ner, task_qa, task_relation, task_typing
from luke_mini.files import Record

TASKS = {task.NAME: task
         for task in (task_classification, task_cloze, task_ner, task_qa, task_relation, task_typing)}  # fmt: skip


def converted(task_name: str, path, tmp_path, capsys):
    finetune.main([task_name, "--to-jsonl", str(path)])
    (tmp_path / "own.jsonl").write_text(capsys.readouterr().out, encoding="utf-8")
    return tmp_path / "own.jsonl"


@pytest.mark.parametrize("file", [
    "ner/test.conll",
    "typing/test.json", "relation/test.json", "cloze/test.json", "qa/test-v1.1.json", "classification/single/test.json",
    "classification/pair/test.json", "classification/choice/test.json", "classification/regression/test.json",
])  # fmt: skip
def test_a_published_file_and_its_json_lines_are_the_same_examples(file, toy_data, tmp_path, capsys):
    task = TASKS[file.partition("/")[0]]
    published = finetuning.read_examples(task, toy_data / file, task.Options())
    assert len(published) > 50
    path = converted(task.NAME, toy_data / file, tmp_path, capsys)
    assert finetuning.read_examples(task, path, task.Options()) == published


def test_blocks_with_marks_too(tmp_path, capsys):
    """KBP37's, of which some mentions are empty."""
    path = tmp_path / "train.txt"
    path.write_text('1\t" <e1> Ada </e1> works for <e2> Acme </e2> . "\nper:employee_of(e1,e2)\n\n'
                    '2\t" In <e2> </e2> , <e1> Bo </e1> left . "\nno_relation\n')  # fmt: skip
    published = finetuning.read_examples(task_relation, path, None)
    assert [example.text for example in published] == ["Ada works for Acme.", "In , Bo left."]
    assert published[1].tail == (3, 3)
    path = converted("relation", path, tmp_path, capsys)
    assert finetuning.read_examples(task_relation, path, None) == published


def test_an_option_that_chooses_among_published_types_counts(tmp_path, capsys):
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"y_str": ["time", "date"], "left_context_token": ["On"], "mention_span": "Monday",
                                "right_context_token": ["."]}))  # fmt: skip
    for types, expected in (("general", ["time"]), ("all", ["time", "date"])):
        finetune.main(["typing", "--to-jsonl", str(path), "--types", types])
        (span,) = json.loads(capsys.readouterr().out)["spans"]
        assert span == {"start": 3, "end": 9, "labels": expected}


def test_real_kbp37():
    """As many as there are blocks."""
    path = shared_data("relation/KBP37_test.txt")
    blocks = [block for block in path.read_text(encoding="utf-8").split("\n\n") if block.strip()]
    found = list(formats.kbp37(path))
    assert len(found) == len(blocks)


def test_a_record_of_our_own_passes_as_it_is():
    own = Record("line 1", {"text": "Ada met Bo.", "spans": [{"start": 0, "end": 3, "labels": ["person"]}]})
    assert formats.open_entity(own) is own and formats.jglue(own) is own and formats.tacred(own) is own

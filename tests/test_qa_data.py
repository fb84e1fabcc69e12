"""Questions are read from the published forms and our own; the data set is told by the file's name or by options; every
fault is named with its place. Examples are made up here; the real files are read where somebody has them.

    python -m pytest -q tests/test_qa_data.py
"""

import json
from pathlib import Path

import pytest
from conftest import shared_data

from luke_mini import qa_data
from luke_mini.qa_data import data_set, parse_lines, read

CONTEXT = "Oslo is the capital of Norway. It lies on the Oslofjord."


def qa(name="q1", answers=(("Norway", 23),), **more) -> dict:
    answers = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": "Of what is Oslo the capital?", "answers": answers} | more


def squad(*qas: dict, title="Oslo", context=CONTEXT) -> dict:
    return {"version": "1.1", "data": [{"title": title, "paragraphs": [{"context": context, "qas": list(qas)}]}]}


def written(folder: Path, value, name="train-v1.1.json") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_squad(tmp_path):
    answers = (("Norway", 23), ("of Norway", 20), ("Norway.", 3))
    value = squad(qa(answers=answers), qa("q2", (("Oslo", 0),)), title="A%27s_%22fjord%22")
    first, second = read(written(tmp_path, value))
    assert first.id == "q1" and first.question == "Of what is Oslo the capital?" and first.context == CONTEXT
    assert first.title == "A's \"fjord\""
    assert first.answers == ("Norway", "of Norway", "Norway.")  # all count for the score
    assert first.spans == ((23, 29), (20, 29))  # the third is not where the file says: nothing to learn from
    assert second.spans == ((0, 4),) and second.data_set == ("squad", "en", "en")


def test_squad_2(tmp_path):
    wrong = {"plausible_answers": [{"text": "Oslo", "answer_start": 0}]}
    value = squad(qa(is_impossible=False), qa("q2", (), is_impossible=True, **wrong), qa("q3", is_impossible=True))
    questions = read(written(tmp_path, value, "dev-v2.0.json"))
    assert [q.answers for q in questions] == [("Norway",), (), ()]
    assert {q.data_set.metric for q in questions} == {"squad2"}


@pytest.mark.parametrize(
    "path, has_unanswerable, expected",
    [
        ("train-v1.1.json", False, ("squad", "en", "en")),
        ("dev-v2.0.json", True, ("squad2", "en", "en")),
        ("xquad.de.json", False, ("squad", "de", "de")),
        ("xquad/xquad.zh.json", False, ("squad", "zh", "zh")),
        ("test-context-de-question-en.json", False, ("mlqa", "de", "en")),
        ("dev-context-zh-question-zh.json", False, ("mlqa", "zh", "zh")),
        ("jsquad-valid.json", False, ("jsquad", "ja", "ja")),
        ("jsquad-v1.3/valid-v1.3.json", False, ("jsquad", "ja", "ja")),
    ],
)
def test_the_name_tells_the_data_set(path, has_unanswerable, expected):
    assert data_set(Path(path), "", "", "", has_unanswerable) == expected


def test_options_have_the_last_word():
    path = Path("test-context-de-question-en.json")
    assert data_set(path, "squad", "", "", False) == ("squad", "de", "en")
    assert data_set(path, "", "es", "", False) == ("mlqa", "es", "es")
    assert data_set(path, "", "", "hi", False) == ("mlqa", "de", "hi")
    assert data_set(Path("mine.json"), "mlqa", "vi", "ar", False) == ("mlqa", "vi", "ar")


def test_own_lines(tmp_path):
    two = [{"start": 3, "end": 7}, {"start": 12, "end": 16}]
    lines = [
        {"question": "Where?", "context": "In Oslo, in Rome.", "answers": two},
        {"id": "x", "question": "Who?", "context": "\u2028Ada", "answers": [{"start": 1, "end": 4}], "title": "Ada"},
    ]
    text = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    first, second = read(written(tmp_path, text, "mine.jsonl"))
    assert first.answers == ("Oslo", "Rome") and first.spans == ((3, 7), (12, 16)) and first.id == "1"
    assert (second.id, second.title, second.answers) == ("x", "Ada", ("Ada",))
    assert first.data_set.metric == "squad"
    (only,) = read(written(tmp_path, '{"question": "Who?", "context": "Ada"}', "none.jsonl"))
    assert only.answers == () and only.data_set.metric == "squad2"


def test_the_example_of_the_format_is_one():
    squad_form = qa_data.FORMAT.split("\n\n")[1]
    (article,) = json.loads(squad_form)["data"]
    assert article["paragraphs"][0]["qas"][0]["answers"] == [{"text": "Oslo", "answer_start": 0}]
    (question,) = parse_lines([qa_data.FORMAT.split("\n\n")[3]], "", "", "")
    assert question.answers == ("Oslo",)


@pytest.mark.parametrize(
    "value, fault",
    [
        ([], "expected an object with a list 'data', found a list"),
        ({}, "field 'data' is missing, expected a list"),
        ({"data": [{"paragraphs": [{"context": 3}]}]}, "data 1, paragraphs 1: field 'context' is 3, expected a string"),
        ({"data": [{"paragraphs": [{"context": "a"}]}]}, "data 1, paragraphs 1: field 'qas' is missing"),
        (squad(qa(answers=())), "qas 1: field 'answers' is empty, expected one, or \"is_impossible\": true"),
        (squad(qa(), qa()), "qas 2: field 'id' is 'q1', expected one that no other question has"),
        (squad(qa(is_impossible="no")), "field 'is_impossible' is \"no\", expected a boolean"),
        (squad(qa(answers=(("Oslo", "0"),))), "answers 1: field 'answer_start' is \"0\", expected an integer"),
        (squad({"id": "q", "is_impossible": True}), "field 'question' is missing"),
        ('{"data": [,]}', "invalid JSON"),
    ],
)
def test_faults_of_squad_files(tmp_path, value, fault):
    path = written(tmp_path, value)
    with pytest.raises(ValueError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path)) and fault in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line, fault",
    [
        ('{"question": "Who?"}', "line 2: field 'context' is missing"),
        ('{"question": "", "context": "Ada", "answers": [{"start": 1, "end": 9}]}', "line 2, answers 1: fields 'start'"),
        ("[1]", "line 2 is [1], expected an object"),
        ("{", "line 2, column"),
    ],
)
def test_faults_of_own_lines(tmp_path, line, fault):
    path = written(tmp_path, '{"question": "Who?", "context": "Ada"}\n' + line, "mine.jsonl")
    with pytest.raises(ValueError, match="mine.jsonl") as caught:
        read(path)
    assert fault in str(caught.value)


def test_a_question_without_answer_needs_its_metric(tmp_path):
    path = written(tmp_path, squad(qa(), qa("q2", (), is_impossible=True)))
    with pytest.raises(ValueError, match="qas 2: expected an answer: only --metric squad2"):
        read(path, metric="squad")


def test_lines_to_predict():
    lines = ["Who?\tAda met Bo.\tTwice.", '{"id": "x", "question": "Who?", "context": "Ada"}']
    first, second = parse_lines(lines, "squad2", "de", "en")
    assert (first.id, first.question, first.context) == ("1", "Who?", "Ada met Bo.\tTwice.")
    assert (second.id, second.context) == ("x", "Ada") and second.data_set == ("squad2", "de", "en")
    with pytest.raises(ValueError, match="line 1: expected a question, a tab and its context"):
        parse_lines(["Who is it?"], "", "", "")
    with pytest.raises(ValueError, match="line 2, column 2: invalid JSON"):
        parse_lines([lines[0], "{oops"], "", "", "")


@pytest.mark.parametrize(
    "name, questions, of_file",
    [
        ("qa/xquad.en.json", 1190, ("squad", "en", "en")),
        ("qa/xquad.de.json", 1190, ("squad", "de", "de")),
        ("jglue/jsquad-valid.json", 4442, ("jsquad", "ja", "ja")),
    ],
)
def test_real_files(name, questions, of_file):
    found = read(shared_data(name))
    assert len(found) == questions and {q.data_set for q in found} == {of_file}
    for question in found:
        assert question.answers and len(question.spans) == len(question.answers)
        assert tuple(question.context[start:end] for start, end in question.spans) == question.answers

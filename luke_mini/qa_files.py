"""Questions with their contexts, from the files of SQuAD and its relatives, and from one's own.

In: a file. Out: `Question`s, each of which knows its data set: by which rules it is scored, and its languages. That
comes from the options, else from the name of the file:

    xquad.de.json                             squad    de; the English normalization, as for all its languages
    test-context-de-question-en.json          mlqa     answers in de, questions in en
    jsquad-valid.json, jsquad-v1.3/...        jsquad   ja
    any other                                 squad    en; squad2 if it has questions without an answer

Our own form is one JSON object a line; FORMAT shows both. differs from LUKE: it recognises whole file names only.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from luke_mini.files import Record, read_json, read_json_lines

METRICS = ("squad", "squad2", "mlqa", "jsquad")
FORMAT = """\
SQuAD 1.1 and 2.0, XQuAD (xquad.LANGUAGE.json), MLQA (test-context-LANGUAGE-question-LANGUAGE.json), JSQuAD (in a folder
or file called jsquad...); answer_start counts characters of the context:

    {"version": "1.1", "data": [{"title": "Oslo", "paragraphs": [{"context": "Oslo is the capital of Norway.", "qas": [
     {"id": "q1", "question": "What is the capital of Norway?", "answers": [{"text": "Oslo", "answer_start": 0}]}]}]}]}

Your own: a .jsonl file, one question a line, half-open character spans of the context; without answers the question
has none (as in SQuAD 2.0). "id" and "title" (the page, for --candidates) may be left out:

    {"question": "What is the capital of Norway?", "context": "Oslo is it.", "answers": [{"start": 0, "end": 4}]}

--predict takes such lines, or a question, a tab and its context, and prints for each {"id", "question", "context",
"answer", "answers": [{"text", "start", "end", "probability"}], "null_odds"}; null_odds above 0: likelier that there is
no answer.
With --metric squad2 it then answers ""."""


class DataSet(NamedTuple):
    metric: str
    language: str  # of contexts and answers
    question_language: str


class Question(NamedTuple):
    id: str
    question: str
    context: str
    title: str  # of the page
    answers: tuple[str, ...]  # accepted ones; () = there is none
    spans: tuple[tuple[int, int], ...]  # those of them that are in the context where the file says so, in characters
    data_set: DataSet


def data_set(path: Path, metric: str, language: str, question_language: str, has_unanswerable: bool) -> DataSet:
    """Which data set a file belongs to; "" is what nobody has said."""
    of_file = ("squad2" if has_unanswerable else "squad", "en", "")
    if found := re.search(r"xquad\.([a-z]{2})\.", path.name):
        of_file = ("squad", found[1], "")
    elif found := re.search(r"context-([a-z]{2})-question-([a-z]{2})", path.name):
        of_file = ("mlqa", *found.groups())
    elif "jsquad" in f"{path.parent.name}/{path.name}".lower():
        of_file = ("jsquad", "ja", "")
    if language:  # the question's then follows it
        of_file = (of_file[0], language, "")
    return DataSet(metric or of_file[0], of_file[1], question_language or of_file[2] or of_file[1])


class Row(NamedTuple):
    """A question as a file has it."""

    record: Record
    id: str
    question: str
    context: str
    title: str
    answers: list[tuple[str, int]]  # text, first character
    is_impossible: bool


def _squad_rows(file: Record) -> Iterator[Row]:
    for article in file.list("data"):
        title = unquote(article.get("title", str, "")).replace("_", " ")
        for paragraph in article.list("paragraphs"):
            context = paragraph.get("context", str)
            for qa in paragraph.list("qas"):
                is_impossible = qa.get("is_impossible", bool, False)
                # With "is_impossible" the list holds nothing, or answers that only seem right.
                answers = [(a.get("text", str), a.get("answer_start", int)) for a in qa.list("answers", [])]
                if not answers and not is_impossible:
                    raise ValueError(f'{qa.where}: field \'answers\' is empty, expected one, or "is_impossible": true')
                answers = [] if is_impossible else answers
                yield Row(qa, qa.get("id", str), qa.get("question", str), context, title, answers, is_impossible)


def own_row(record: Record, number: int) -> Row:
    """A question of our own form; its id is its number if it has no other."""
    context = record.get("context", str)
    spans = [answer.span(context) for answer in record.list("answers", [])]
    answers = [(context[start:end], start) for start, end in spans]
    name, title = record.get("id", str, str(number)), record.get("title", str, "")
    return Row(record, name, record.get("question", str), context, title, answers, not answers)


def read(path: str | Path, metric: str = "", language: str = "", question_language: str = "") -> list[Question]:
    """The questions of a file, in its order. The last three: see `data_set`."""
    path = Path(path)
    if path.suffix in (".jsonl", ".ndjson"):
        rows = [own_row(record, number) for number, record in enumerate(read_json_lines(path), start=1)]
    else:
        file = read_json(path)
        if not isinstance(file, Record):
            raise ValueError(f"{path}: expected an object with a list 'data', found a list")
        rows = list(_squad_rows(file))
    of_file = data_set(path, metric, language, question_language, any(row.is_impossible for row in rows))
    seen = set()
    for row in rows:
        if row.id in seen:
            raise ValueError(f"{row.record.where}: field 'id' is {row.id!r}, expected one that no other question has")
        if row.is_impossible and of_file.metric != "squad2":
            raise ValueError(f"{row.record.where}: expected an answer: only --metric squad2 knows questions without")
        seen.add(row.id)
    return [question(row, of_file) for row in rows]


def question(row: Row, of_file: DataSet) -> Question:
    found = [(start, start + len(text)) for text, start in row.answers
             if text and start >= 0 and row.context.startswith(text, start)]  # fmt: skip
    answers = tuple(text for text, _ in row.answers)
    return Question(row.id, row.question, row.context, row.title, answers, tuple(found), of_file)


def parse_lines(lines: Sequence[str], metric: str, language: str, question_language: str) -> list[Question]:
    """Lines that are a question, a tab and its context, or our own form. A faulty one is named by its number."""
    of_lines = data_set(Path(), metric, language, question_language, False)
    questions = []
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("{"):
            try:
                record = Record(f"line {number}", json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}, column {error.colno}: invalid JSON ({error.msg})") from None
        else:
            asked, tab, context = line.partition("\t")
            if not tab:
                raise ValueError(f"line {number}: expected a question, a tab and its context, or a JSON object")
            record = Record(f"line {number}", {"question": asked, "context": context})
        questions.append(question(own_row(record, number), of_lines))
    return questions

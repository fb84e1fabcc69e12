"""Question answering's data: questions with their contexts from files, and all of it that needs no model.

    read                a file -> `Question`s, each with its data set: by which rules it is scored, and its languages
    squeeze, tokenize   text -> token ids, and the characters that each comes from
    windows             a context of n tokens -> (start, length) of overlapping windows
    max_context         which window may speak for a token: where it has most context on its poorer side
    answer_tokens       an answer in characters -> first and last token
    best_pairs          scores of a window -> (start, end) of its best answers
    pool                those of all windows -> the n best different texts

The data set comes from the options, otherwise from the name of the file:

    xquad.de.json                             squad    de; the English normalization, as for all its languages
    test-context-de-question-en.json          mlqa     answers in de, questions in en
    jsquad-valid.json, jsquad-v1.3/...        jsquad   ja
    any other                                 squad    en; squad2 if it has questions without an answer

differs from LUKE: it recognizes whole file names only. Sources: LUKE, appendix A, and BERT's original script for SQuAD
(Devlin et al. 2019), whose n-best search LUKE kept. Answers are cut from the context by character offsets; LUKE decodes
tokens and loses what its tokenizer loses.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from luke_mini import files, formats
from luke_mini.files import Record
from luke_mini.spans import Encoding, token_span

BLANKS = " \t\r\n\u202f"  # as LUKE: what separates words for it; other white space is left to the tokenizer
METRICS = ("squad", "squad2", "mlqa", "jsquad")
FORMAT = """\
SQuAD 1.1 and 2.0, XQuAD (xquad.LANGUAGE.json), MLQA (test-context-LANGUAGE-question-LANGUAGE.json), JSQuAD (in a folder
or file called jsquad...); answer_start counts characters of the context:

    {"version": "1.1", "data": [{"title": "Oslo", "paragraphs": [{"context": "Oslo is the capital of Norway.", "qas": [
     {"id": "q1", "question": "What is the capital of Norway?", "answers": [{"text": "Oslo", "answer_start": 0}]}]}]}]}

Your own: a .jsonl file, one question a line, half-open character spans of the context; without answers the question
has none (as in SQuAD 2.0). "id" and "title" (the page, for --candidates) may be left out; an accepted answer that is
not in the context is {"text": ...}:

    {"question": "What is the capital of Norway?", "context": "Oslo is it.", "answers": [{"start": 0, "end": 4}]}

--predict takes such lines, or a question, a tab and its context, and prints for each {"id", "question", "context",
"answer", "answers": [{"text", "start", "end", "probability"}], "null_odds"}. null_odds > 0: "no answer" is more likely;
with --metric squad2 the answer is then ""."""


# --- Questions --------------------------------------------------------------------------------------------------------


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
    """Which data set a file belongs to; "" is unspecified."""
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


def read(path: str | Path, metric: str = "", language: str = "", question_language: str = "") -> list[Question]:
    """The questions of a file, in its order. The last three: see `data_set`."""
    records = list(formats.squad(path))
    asked = [record.get("answers", list, []) for record in records]
    of_file = data_set(Path(path), metric, language, question_language, not all(asked))
    seen = set()
    questions = [from_record(record, number, of_file) for number, record in enumerate(records, start=1)]
    for record, question in zip(records, questions):
        if question.id in seen:
            where = f"{record.where}: field 'id' is {question.id!r}"
            raise ValueError(f"{where}, expected one that no other question has")
        if not question.answers and of_file.metric != "squad2":
            raise ValueError(f"{record.where}: expected an answer: only --metric squad2 knows questions without")
        seen.add(question.id)
    return questions


def from_record(record: Record, number: int, of_file: DataSet) -> Question:
    """A question of our own form; its id is its number if it has no other."""
    context, answers, spans = record.get("context", str), [], []
    for answer in record.list("answers", []):
        if "start" in answer.values or "text" not in answer.values:
            spans.append(answer.span(context))
            answers.append(context[slice(*spans[-1])])
        else:
            answers.append(answer.get("text", str))
    name, title = record.get("id", str, str(number)), record.get("title", str, "")
    return Question(name, record.get("question", str), context, title, tuple(answers), tuple(spans), of_file)


def parse_lines(lines: Sequence[str], metric: str, language: str, question_language: str) -> list[Question]:
    """Lines that are a question, a tab and its context, or our own form. A faulty one is named by its number."""
    of_lines = data_set(Path(), metric, language, question_language, False)
    records = files.line_records(lines, formats.question)
    return [from_record(record, number, of_lines) for number, record in enumerate(records, start=1)]


# --- Tokens -----------------------------------------------------------------------------------------------------------


def squeeze(text: str) -> tuple[str, Sequence[int]]:
    """The text with one space between words and none around, and for each of its characters where it comes from.

    differs from LUKE: there, blanks at the end of a question are a token of their own (12 of 400 questions of XQuAD).
    """
    words = [match.span() for match in re.finditer(f"[^{BLANKS}]+", text)]
    squeezed = " ".join(text[start:end] for start, end in words)
    if squeezed == text:
        return text, range(len(text))
    source = [i for start, end in words for i in range(start - 1, end)]  # with the blank before each word
    return squeezed, source[1:]


def tokenize(tokenizer, text: str) -> Encoding:
    """Every word as if after a space, the first one too; blanks are no tokens."""
    squeezed, source = squeeze(text)
    ids, offsets = tokenizer.encode(squeezed, prefix_space=True)
    if squeezed != text:
        source = [*source, len(text)]
        offsets = [(source[start], source[end - 1] + 1 if start < end else source[start]) for start, end in offsets]
    return Encoding(ids, offsets)


# --- Windows ----------------------------------------------------------------------------------------------------------


def windows(n: int, room: int, step: int, overlap: int = 0) -> list[tuple[int, int]]:
    """(start, length) of windows of at most `room` tokens over n; each begins `step` after the last, or shares
    `overlap` tokens with it if that is given.

    (1000, 450, 400) -> (0, 450), (400, 450), (800, 200). No tokens: one empty window, for the question has to be asked.
    """
    found = [(0, min(n, room))]
    # as LUKE: "stride" is the step in the paper's code, and the overlap in mLUKE's
    step = max(1, room - overlap) if overlap else min(step, room)
    while sum(found[-1]) < n:
        start = found[-1][0] + step
        found.append((start, min(n - start, room)))
    return found


def max_context(found: Sequence[tuple[int, int]], n: int) -> list[np.ndarray]:
    """For each window: which of its tokens have their best place there, bool [length].

    A place is as good as the context on its poorer side, plus 0.01 of the window's length; the first window wins ties.
    Every token has exactly one best place.
    """
    best, owner = np.full(n, -1.0), np.zeros(n, dtype=np.int64)
    for index, (start, length) in enumerate(found):
        left = np.arange(length)
        score = np.minimum(left, left[::-1]) + 0.01 * length
        inside = slice(start, start + length)
        better = score > best[inside]
        best[inside][better] = score[better]
        owner[inside][better] = index
    return [owner[start : start + length] == index for index, (start, length) in enumerate(found)]


# --- Targets ----------------------------------------------------------------------------------------------------------


def answer_tokens(offsets: list[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """First and last token of each answer given in characters: those that share a character with it.

    A piece that straddles the border of an answer belongs to it. An answer without tokens is left out.
    """
    found = [token_span(offsets, *span) for span in spans]
    return [(start, end - 1) for start, end in found if start < end]


def target(answers: Sequence[tuple[int, int]], window: tuple[int, int]) -> tuple[int, int] | None:
    """The first answer that lies in the window wholly, in tokens of the window."""
    start, length = window
    inside = (answer for answer in answers if start <= answer[0] and answer[1] < start + length)
    return next(((first - start, last - start) for first, last in inside), None)


# --- Decoding ---------------------------------------------------------------------------------------------------------


class Scored(NamedTuple):
    """Possible answers of one window, K of them, in no order that matters but for ties."""

    chars: np.ndarray  # int64 [K, 2], half-open characters of the context
    logits: np.ndarray  # float64 [K, 2], of the start and of the end


def best_pairs(
    logits: np.ndarray, first: int, offsets: np.ndarray, may_start: np.ndarray, n_best: int, max_length: int
) -> Scored:
    """The pairs of one of the n_best starts and one of the n_best ends of a window that can be answers.

    logits [W, 2] of all its words; its n tokens of the context are words `first` to `first + n`, with offsets [n, 2]
    and may_start [n]. As LUKE: the question's words take part in the choice of the n_best.
    """
    start, end = (np.argsort(-column, kind="stable")[:n_best] - first for column in logits.T.astype(np.float64))
    start, end = np.repeat(start, len(end)), np.tile(end, len(start))  # the best start with all ends, then the next
    n = len(offsets)
    possible = (0 <= start) & (start <= end) & (end < n) & (end - start < max_length)
    start, end = start[possible], end[possible]
    chars = np.stack([offsets[start, 0], offsets[end, 1]], axis=1)
    # differs from LUKE: a piece that is nothing but the mark of a space is no answer
    kept = may_start[start] & (chars[:, 0] < chars[:, 1])
    start, end, chars = start[kept], end[kept], chars[kept]
    pairs = np.stack([logits[first + start, 0], logits[first + end, 1]], axis=1)
    return Scored(chars, pairs.astype(np.float64))


class Answer(NamedTuple):
    text: str  # "" = there is no answer
    start: int  # half-open characters of the context
    end: int
    probability: float  # softmax over the n best
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        return self.start_logit + self.end_logit


def pool(found: Sequence[Scored], context: str, n_best: int) -> list[Answer]:
    """The n best different texts of all windows, best first, equal ones in their order. Probabilities: see below."""
    chars, logits = (np.concatenate(parts) for parts in zip(*found))
    answers: dict[str, Answer] = {}
    for k in np.argsort(-logits.sum(axis=1), kind="stable").tolist():
        start, end = chars[k].tolist()
        text = context[start:end]
        if text not in answers:
            answers[text] = Answer(text, start, end, 0.0, *logits[k].tolist())
            if len(answers) == n_best:
                break
    return list(answers.values())


def with_null(answers: Sequence[Answer], logits: Sequence[float], n_best: int) -> list[Answer]:
    """"No answer" in its place among the others: as one of the n best, or else as one more."""
    null = Answer("", 0, 0, 0.0, *logits)
    ranked = sorted([*answers, null], key=lambda answer: -answer.score)
    return ranked[: n_best + (ranked[-1] is null)]


def with_probabilities(answers: Sequence[Answer]) -> list[Answer]:
    """The softmax of their scores; the first has the best one."""
    weights = np.exp([answer.score - answers[0].score for answer in answers])
    return [a._replace(probability=p) for a, p in zip(answers, (weights / weights.sum()).tolist())]

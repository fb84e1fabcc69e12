"""Question answering equals its specification: questions from the published forms and our own, features against a plain
transcription of the rules on random texts, scores and loss against transformers, entities by hand, a tiny model that
learns which questions have an answer, the official scores from predictions, files in the official shapes.

    python -m pytest -q tests/test_task_qa.py
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_rounded, assert_same, generator, seeded
from conftest import arrays_of, shared_data
from hypothesis import given, settings
from hypothesis import strategies as st
from qa_tokenizer import Chunks

from luke_mini import checkpoint, files, finetuning, inference, optim, packing, task_qa
from luke_mini import tokenizer, tokenizer_sentencepiece
from luke_mini.config import ModelConfig
from luke_mini.entity_vocab import EntityVocab
from luke_mini.initialization import initialize
from luke_mini.task_qa import Answer, Options, Prediction, Question

NO_ENTITIES = np.zeros(0, np.int32), np.zeros((0, 2), np.int32)
SQUAD = ("squad", "en", "en")
VOCAB = EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]", "Ada", "Oslo", "New York", "[MASK2]"])
SMALL = ModelConfig(
    vocab_size=300, entity_vocab_size=7, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=48, entity_emb_size=12, max_position_embeddings=70,
)  # fmt: skip


def question(asked: str, context: str, *answers: str, name="q", title="", data_set=SQUAD) -> Question:
    """Each answer where it first occurs."""
    spans = tuple((context.index(answer), context.index(answer) + len(answer)) for answer in answers)
    return Question(name, asked, context, title, answers, spans, *data_set)


def options_with(candidates: dict, folder, name="candidates.json", **more) -> Options:
    (folder / name).write_text(json.dumps(candidates), encoding="utf-8")
    return Options(candidates=str(folder / name), **more)


# --- Reading ----------------------------------------------------------------------------------------------------------

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


def lines_of(lines, **options) -> list[Question]:
    found = files.line_records(lines, task_qa.unmark)
    return [one for record in found for one in task_qa.from_record(record, Options(**options), ())]


def test_squad(tmp_path):
    answers = (("Norway", 23), ("of Norway", 20), ("Norway.", 3))
    value = squad(qa(answers=answers), qa("q2", (("Oslo", 0),)), title="A%27s_%22fjord%22")
    asked, title = "Of what is Oslo the capital?", "A's \"fjord\""
    assert task_qa.read_examples(written(tmp_path, value)) == [
        # all answers count for the score; the third is not where the file says: nothing to learn from
        Question("q1", asked, CONTEXT, title, ("Norway", "of Norway", "Norway."), ((23, 29), (20, 29)), *SQUAD),
        Question("q2", asked, CONTEXT, title, ("Oslo",), ((0, 4),), *SQUAD),
    ]


def test_squad_2(tmp_path):
    wrong = {"plausible_answers": [{"text": "Oslo", "answer_start": 0}]}
    value = squad(qa(is_impossible=False), qa("q2", (), is_impossible=True, **wrong), qa("q3", is_impossible=True))
    questions = task_qa.read_examples(written(tmp_path, value, "dev-v2.0.json"))
    assert [(q.answers, q.metric) for q in questions] == [(("Norway",), "squad2"), ((), "squad2"), ((), "squad2")]


def test_the_name_tells_the_data_set_and_options_have_the_last_word():
    def data_set(name="test-context-de-question-en.json", has_unanswerable=False, **given):
        return task_qa.data_set(Path(name), Options(**given), has_unanswerable)

    assert data_set("train-v1.1.json") == SQUAD and data_set("dev-v2.0.json", True) == ("squad2", "en", "en")
    assert data_set("xquad.de.json") == ("squad", "de", "de") and data_set("a/xquad.zh.json") == ("squad", "zh", "zh")
    assert data_set() == ("mlqa", "de", "en") and data_set("dev-context-zh-question-zh.json") == ("mlqa", "zh", "zh")
    assert data_set("jsquad-valid.json") == data_set("JSQuAD-v1.3/valid-v1.3.json") == ("jsquad", "ja", "ja")
    assert data_set(metric="squad") == ("squad", "de", "en") and data_set(language="es") == ("mlqa", "es", "es")
    assert data_set(question_language="hi") == ("mlqa", "de", "hi")
    own = data_set("mine.json", metric="mlqa", language="vi", question_language="ar")
    assert own == ("mlqa", "vi", "ar")


def test_own_lines(tmp_path):
    two = [{"start": 3, "end": 7}, {"start": 12, "end": 16}]
    lines = [
        {"question": "Where?", "context": "In Oslo, in Rome.", "answers": two},
        {"id": "x", "question": "Who?", "context": "\u2028Ada", "answers": [{"start": 1, "end": 4}], "title": "Ada"},
    ]
    text = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    assert task_qa.read_examples(written(tmp_path, text, "mine.jsonl")) == [
        Question("1", "Where?", "In Oslo, in Rome.", "", ("Oslo", "Rome"), ((3, 7), (12, 16)), *SQUAD),
        Question("x", "Who?", "\u2028Ada", "Ada", ("Ada",), ((1, 4),), *SQUAD),
    ]
    (only,) = task_qa.read_examples(written(tmp_path, '{"question": "Who?", "context": "Ada"}', "none.jsonl"))
    assert only.answers == () and only.metric == "squad2"


def test_the_example_of_the_format_is_one():
    squad_form = task_qa.FORMAT.split("\n\n")[1]
    (article,) = json.loads(squad_form)["data"]
    assert article["paragraphs"][0]["qas"][0]["answers"] == [{"text": "Oslo", "answer_start": 0}]
    (question,) = lines_of([task_qa.FORMAT.split("\n\n")[3]])
    assert question.answers == ("Oslo",)


OK = '{"question": "Who?", "context": "Ada"}\n'
FAULTS = [
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
    (OK + '{"question": "Who?"}', "line 2: field 'context' is missing"),
    (OK + '{"question": "", "context": "A", "answers": [{"start": 1, "end": 9}]}', "line 2, answers 1: fields 'start'"),
    (OK + "[1]", "line 2 is [1], expected an object"),
    (OK + "{", "line 2, column"),
    (OK.replace("}", ', "answers": [{"text": "A"}]}') + OK, "line 2: expected an answer: only --metric squad2"),
]


@pytest.mark.parametrize("value, fault", FAULTS)
def test_a_fault_is_named_with_its_place(tmp_path, value, fault):
    path = written(tmp_path, value, "mine.jsonl" if OK[:20] in value else "train-v1.1.json")
    with pytest.raises(ValueError) as caught:
        task_qa.read_examples(path, Options(metric="squad"))
    assert str(caught.value).startswith(str(path)) and fault in str(caught.value) and "\n" not in str(caught.value)


def test_lines_to_predict():
    lines = ["Who?\tAda met Bo.\tTwice.", '{"id": "x", "question": "Who?", "context": "Ada"}']
    first, second = lines_of(lines, metric="squad2", language="de", question_language="en")
    squad2 = ("squad2", "de", "en")
    assert first == Question("1", "Who?", "Ada met Bo.\tTwice.", "", (), (), *squad2)
    assert second == Question("x", "Who?", "Ada", "", (), (), *squad2)
    with pytest.raises(ValueError, match="line 1: expected a question, a tab and its context"):
        lines_of(["Who is it?"])
    with pytest.raises(ValueError, match="line 2, column 2: invalid JSON"):
        lines_of([lines[0], "{oops"])


@pytest.mark.parametrize(
    "name, questions, data_set",
    [("qa/xquad.en", 1190, SQUAD), ("qa/xquad.de", 1190, ("squad", "de", "de")),
     ("jglue/jsquad-valid", 4442, ("jsquad", "ja", "ja"))],
)  # fmt: skip
def test_real_files(name, questions, data_set):
    found = task_qa.read_examples(shared_data(f"{name}.json"))
    assert len(found) == questions and {one[-3:] for one in found} == {data_set}
    for one in found:
        assert one.answers == tuple(one.context[start:end] for start, end in one.spans) != ()


# --- Features -------------------------------------------------------------------------------------------------------


def by_the_book(one: Question, pieces: Chunks, o: Options) -> list[dict]:
    """The rules of the legacy windows (and of AllenNLP's step), token by token, without entities."""
    asked = pieces.encode(" ".join(one.question.split())).ids[: o.max_query_length]
    context = []  # (id, start, end) of every token, word by word
    place = 0
    for word in one.context.split():
        begin = one.context.index(word, place)
        place = begin + len(word)
        encoding = pieces.encode(word)
        context += [(i, begin + start, begin + end) for i, (start, end) in zip(*encoding)]
    room = o.max_seq_length - len(asked) - 4
    spans = []
    start = 0
    while True:
        length = min(len(context) - start, room)
        spans.append((start, length))
        if start + length == len(context):
            break
        start += max(1, room - o.overlap) if o.overlap else min(length, o.doc_stride)
    made = []
    for number, (start, length) in enumerate(spans):
        inside = list(range(start, start + length))
        may_start = []
        for token in inside:
            scores = [
                min(token - s, s + n - 1 - token) + 0.01 * n if s <= token < s + n else -1 for s, n in spans
            ]
            may_start.append(scores.index(max(scores)) == number)
        target = (0, 0)
        for begin, end in one.spans:
            touched = [t for t, (_, a, b) in enumerate(context) if a < end and b > begin]
            before = touched[0] - 1 if touched else -1
            if before >= 0 and context[before][1:] == (context[touched[0]][1],) * 2:  # the mark of a space
                touched.insert(0, before)
            if touched and all(t in inside for t in touched):
                target = tuple(3 + len(asked) + t - start for t in (touched[0], touched[-1]))
                break
        words = [0, *asked, 2, 2, *(context[t][0] for t in inside), 2]
        offsets = [list(context[t][1:]) for t in inside]
        made.append({"words": words, "first": len(asked) + 3, "offsets": offsets})
        made[-1] |= {"may_start": may_start, "target": target}
    return made


@st.composite
def questions_and_options(draw):
    text = st.text(st.sampled_from("abz 東\n"), max_size=40)
    context, asked = draw(text), draw(text)
    spans = []
    for _ in range(draw(st.integers(0, 2)) if context else 0):
        start = draw(st.integers(0, len(context) - 1))
        spans.append((start, draw(st.integers(start + 1, len(context)))))
    max_question = draw(st.integers(1, 8))
    options = Options(
        max_seq_length=max_question + draw(st.integers(5, 14)),
        max_query_length=max_question,
        doc_stride=draw(st.integers(1, 9)),
        overlap=draw(st.sampled_from([0, 0, 1, 3, 20])),
    )
    answers = tuple(context[start:end] for start, end in spans)
    return Question("q", asked, context, "", answers, tuple(spans), *SQUAD), options, draw(st.integers(1, 3))


@settings(max_examples=300, deadline=None)
@given(questions_and_options())
def test_features_are_those_of_the_rules(case):
    one, options, size = case
    pieces = Chunks(size)
    features = task_qa.make_features([one], pieces, VOCAB, (), options)
    expected = by_the_book(one, pieces, options)
    assert len(features) == len(expected)
    for feature, rules in zip(features, expected):
        word_ids, entity_ids, *_ = feature.sequence
        assert word_ids.tolist() == rules["words"] and len(word_ids) <= options.max_seq_length and not len(entity_ids)
        assert (feature.first, feature.target) == (rules["first"], rules["target"])
        assert feature.offsets.tolist() == rules["offsets"] and feature.may_start.tolist() == rules["may_start"]


def test_a_window_without_the_whole_answer_points_at_its_beginning():
    one = question("Who", "aa bb cc dd ee ff", "cc dd ee")
    options = Options(max_seq_length=2 + 4 + 3, max_query_length=4, doc_stride=1)  # three tokens a window
    features = task_qa.make_features([one], Chunks(2), VOCAB, (), options)
    first = features[0].first
    assert [f.target for f in features] == [(0, 0), (0, 0), (first, first + 2), (0, 0)]
    assert task_qa.skipped([one], features)["questions with no answer wholly in a window"] == 0
    options = Options(max_seq_length=8, max_query_length=3, doc_stride=1)
    narrow = task_qa.make_features([one], Chunks(2), VOCAB, (), options)
    assert {f.target for f in narrow} == {(0, 0)}
    assert task_qa.skipped([one], narrow)["questions with no answer wholly in a window"] == 1


def test_what_is_lost_is_counted():
    answers = ("Oslo", "Rome")
    wrong = Question("1", "Where is it", "In Oslo", "", answers, ((3, 7),), *SQUAD)
    silent = Question("2", "Where", "In Oslo", "", (), (), "squad2", "en", "en")
    options = Options(max_seq_length=20, max_query_length=4)
    features = task_qa.make_features([wrong, silent], Chunks(2), VOCAB, (), options)
    assert list(task_qa.skipped([wrong, silent], features).values()) == [1, 0, 1]


# --- Entities -------------------------------------------------------------------------------------------------------


def mentions_of(feature: task_qa.Feature, pieces: Chunks) -> list[tuple[str, str]]:
    spelt = {i: text for (text, _), i in pieces.seen.items()}
    return [
        (VOCAB.title(int(i)), "".join(spelt[int(w)] for w in feature.sequence.word_ids[start:end]))
        for i, (start, end) in zip(feature.sequence.entity_ids, feature.sequence.spans.tolist())
    ]


def test_entities_of_question_and_context(tmp_path):
    """The first token of the context too, which the reference loses; a page of its own for each title."""
    options = options_with({"Oslo": {"Ada": "Ada", "the city": "Oslo", "New York": "New York"}}, tmp_path)
    one = question("Did Ada see New York", "Ada left the\ncity for New York", title="Oslo")
    other = question("Did Ada see New York", "Ada left the\ncity for New York", title="Rome")
    pieces = Chunks(3)
    found, none = task_qa.make_features([one, other], pieces, VOCAB, (), options)
    assert mentions_of(found, pieces) == [
        ("Ada", "Ada"), ("New York", "NewYork"), ("Ada", "Ada"), ("Oslo", "thecity"), ("New York", "NewYork"),
    ]  # fmt: skip
    assert found.sequence.spans[2].tolist() == [found.first, found.first + 1]
    assert len(none.sequence.entity_ids) == 0 and none.sequence.word_ids.tolist() == found.sequence.word_ids.tolist()


def test_an_unknown_entity_blocks_its_words(tmp_path):
    options = options_with({"": {"New York Times": "The New York Times", "New York": "New York"}}, tmp_path)
    one = question("New York", "The New York Times of New York")
    pieces = Chunks(9)
    (feature,) = task_qa.make_features([one], pieces, VOCAB, (), options)
    assert [text for _, text in mentions_of(feature, pieces)] == ["NewYork", "NewYork"]
    assert feature.sequence.spans[1, 0] == feature.first + 5


def test_only_whole_mentions_of_the_window_and_at_most_so_many(tmp_path):
    table = {"": {"Ada Bo": "Ada", "Oslo": "Oslo"}}
    one = question("x Ada Bo", "c Ada Bo Oslo Oslo")
    pieces = Chunks(9)
    # two tokens of the question, three of the context
    cut = options_with(table, tmp_path, max_seq_length=9, max_query_length=2, doc_stride=2)
    first, second = task_qa.make_features([one], pieces, VOCAB, (), cut)
    assert mentions_of(first, pieces) == [("Ada", "AdaBo")]  # the question's is cut in two
    assert first.sequence.spans.tolist() == [[6, 8]]
    assert mentions_of(second, pieces) == [("Oslo", "Oslo")] * 2  # "Bo" alone is no mention
    few = options_with(table, tmp_path, "few.json", max_entities=1)
    (feature,) = task_qa.make_features([one], pieces, VOCAB, (), few)
    assert mentions_of(feature, pieces) == [("Ada", "AdaBo")]


def test_question_and_context_in_different_languages(tmp_path):
    """G-XLT: each text has the candidates of its language, and titles are looked up in it."""
    names = [[("Ada", "en"), ("Ada", "de")], [("Vienna", "en"), ("Wien", "de")]]
    vocab = EntityVocab([*([(name, None)] for name in ("[PAD]", "[UNK]", "[MASK]")), *names])
    options_with({"Wien": {"Vienna": "Vienna", "Ada": "Wien"}}, tmp_path, "de-en.json")
    options_with({"Wien": {"Wien": "Wien", "Vienna": "Ada"}}, tmp_path, "de-de.json")
    options = Options(candidates=str(tmp_path / "{context}-{language}.json"))
    one = question("Is Vienna Ada", "Wien Vienna", title="Wien", data_set=("mlqa", "de", "en"))
    (feature,) = task_qa.make_features([one], Chunks(9), vocab, (), options)
    assert feature.sequence.entity_ids.tolist() == [4, 4, 3]  # Vienna by its English name; "Wien" is no English title
    assert feature.sequence.spans.tolist() == [[2, 3], [6, 7], [7, 8]]


def test_where_entities_come_from(tmp_path, capsys):
    def found(vocab=VOCAB, **given) -> tuple[str, str]:
        return task_qa.with_entities(Options(**given), [tmp_path], vocab).mentions, capsys.readouterr().out

    lite, path = EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]", "[MASK2]"]), tmp_path / "mentions.safetensors"
    assert found(mentions="none") == found(lite, mentions="none") == ("none", "")
    assert found()[0] == "none" and found()[1].startswith("entities    none: no mentions.safetensors beside the data")
    path.touch()
    assert found() == (str(path), f"entities    {path}\n")
    assert found(mentions="mine") == ("mine", "entities    mine\n")
    assert found(candidates="of pages") == ("auto", "entities    of pages\n")
    assert found(lite) == ("none", "entities    none: the checkpoint is a lite one\n")
    for faulty in ({"candidates": "of pages"}, {"mentions": "mine"}):
        with pytest.raises(ValueError, match="a lite checkpoint has no entities to give"):
            found(lite, **faulty)


def test_a_long_mention_has_the_mean_position_of_its_first_words():
    sequence = packing.Sequence(np.arange(10, 60), np.array([3, 4]), np.array([[5, 45], [2, 4]]))
    feature = task_qa.Feature(0, sequence, 4, np.zeros((40, 2), np.int32), np.ones(40, bool), (4, 6), False)
    batch = build().collate([feature, feature])
    packed = batch.packed
    assert packed.mention_offsets.tolist() == [0, 30, 32, 62, 64]
    assert packed.mention_positions.tolist() == [*range(5, 35), 2, 3] * 2
    assert packed.entity_ids.tolist() == [3, 4, 3, 4] and packed.word_positions[:3].tolist() == [2, 3, 4]
    assert batch.targets.tolist() == [[4, 6], [4, 6]] and batch.counts == {"answer": 2} and batch.n_tokens == 104


# --- Model and loss ---------------------------------------------------------------------------------------------------


def build(seed=0, **more) -> task_qa.QaModel:
    model = task_qa.build_model(SMALL, VOCAB, (), Options(**{"max_seq_length": 60, "max_query_length": 20} | more))
    initialize(model, SMALL, seed)
    return model


def some_features(tmp_path) -> tuple[list[Question], list[task_qa.Feature]]:
    names, lengths = {"Ada": "Ada", "Oslo": "Oslo"}, {"max_seq_length": 24, "max_query_length": 8, "doc_stride": 5}
    options = options_with({"": names}, tmp_path, **lengths)
    questions = [
        question("Who left Oslo", "Ada left Oslo for New York in May and came back in June to stay", "Ada", name="1"),
        question("Who", "Bo", "Bo", name="2"),
        question("Where is Ada", "In June she was in Oslo again and then nowhere", "Oslo", name="3"),
    ]
    return questions, task_qa.make_features(questions, Chunks(3), VOCAB, (), options)


def test_loss_is_the_cross_entropy_over_the_words_of_each_window():
    lengths, targets = (3, 1, 5), torch.tensor([[1, 2], [0, 0], [4, 0]])
    logits = torch.randn(9, 2, dtype=torch.float64, generator=generator()).requires_grad_()
    loss, hits = task_qa.answer_loss(logits, lengths, targets)
    loss.backward()
    again = logits.detach().requires_grad_()
    windows = list(zip(again.split(lengths), targets))
    expected = sum(F.cross_entropy(rows.T, goal, reduction="sum") / 2 for rows, goal in windows)
    expected.backward()
    assert_same(loss, expected)
    assert_same(logits.grad, again.grad)
    assert hits == sum(rows.argmax(dim=0).tolist() == goal.tolist() for rows, goal in windows)


def test_same_scores_and_loss_as_transformers(tmp_path):
    """A random LukeForQuestionAnswering, one window at a time, as its loss counts padding."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seeded())
    names = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    theirs = transformers.LukeForQuestionAnswering(
        transformers.LukeConfig(**names, num_labels=2, attn_implementation="eager")
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    model = build().eval()
    state = {name.replace("qa_outputs.", "classifier."): w for name, w in theirs.state_dict().items()}
    checkpoint.fill(model, checkpoint.from_released(state, SMALL))
    theirs, model = theirs.double(), model.double()
    _, features = some_features(tmp_path)
    total, compared, largest = 0.0, 0, 1.0
    for feature in features:
        arrays = {name: torch.from_numpy(array.astype(np.int64))[None] for name, array in arrays_of(feature).items()}
        start, end = torch.tensor(feature.target)[:, None]
        with torch.no_grad():
            out = theirs(**arrays, start_positions=start, end_positions=end)
            ours = model.logits(model.collate([feature]))
        expected = torch.stack([out.start_logits[0], out.end_logits[0]], dim=1)
        assert_same(ours, expected)
        largest = max(largest, float(ours.abs().max()))
        total, compared = total + out.loss.item(), compared + ("entity_ids" in arrays)
    with torch.no_grad():
        loss, _ = model(model.collate(features))["answer"]
    assert_rounded(loss, total, exponent=largest)
    assert compared >= 3


@pytest.mark.parametrize("with_entities", [True, False])
def test_what_trains(tmp_path, with_entities):
    """All but, as published, the entity table: a gradient for each, also if a batch has no entity."""
    _, features = some_features(tmp_path)
    if not with_entities:
        features = [f._replace(sequence=packing.Sequence(f.sequence.word_ids, *NO_ENTITIES)) for f in features]
    model = build()
    model(model.collate(features))["answer"][0].backward()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"luke.entities.entity.weight"}
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert build(train_entity_table=True).luke.entities.entity.weight.requires_grad


@pytest.mark.parametrize("batch_size", [1, 3, 99])
def test_predictions_do_not_depend_on_the_batch(tmp_path, batch_size):
    questions, features = some_features(tmp_path)
    model = build(seed=seeded(3))
    torch.nn.init.normal_(model.classifier.weight, std=3.0, generator=generator(1))
    model = model.double()
    found = task_qa.predict(model, features, questions, batch_size)
    alone = [
        task_qa.predict(model, [f._replace(example=0) for f in features if f.example == i], [one])[0]
        for i, one in enumerate(questions)
    ]
    assert [p.text for p in found] == [p.text for p in alone] and all(p.text for p in found)
    for one, prediction, again in zip(questions, found, alone):
        assert_rounded(prediction.null_odds, again.null_odds)
        assert len(prediction.answers) > 3 or one.context == "Bo"
        for answer in prediction.answers:
            assert one.context[answer.start : answer.end] == answer.text != ""
        assert sum(answer.probability for answer in prediction.answers) == pytest.approx(1)


def test_a_context_without_words_has_no_answer(tmp_path):
    one = question("Who", " \n")
    features = task_qa.make_features([one], Chunks(2), VOCAB, (), Options(max_seq_length=30, max_query_length=9))
    (prediction,) = task_qa.predict(build(), features, [one])
    assert prediction == Prediction("", [], 0.0) and len(features) == 1


# --- From questions to scores -----------------------------------------------------------------------------------------

PEOPLE, CITIES = ["Ada", "Bo", "Eve", "Max Lund"], ["Oslo", "Rome", "New Elm"]


@pytest.fixture(scope="module")
def trained():
    """48 questions of three kinds; one in four has no answer."""
    squad2 = ("squad2", "en", "en")
    questions = []
    for i in range(48):
        person, city = PEOPLE[i % 4], CITIES[i // 4 % 3]
        context = [f"{person} went to {city} by train", f"In {city} it rained on {person}"][i % 2]
        asked, answers = [("Who", [person]), ("Where", [city]), ("Which town", [city]), ("When", [])][i // 12]
        questions.append(question(asked, context, *answers, name=str(i), data_set=squad2))
    pieces = Chunks(3)
    features = task_qa.make_features(questions, pieces, VOCAB, (), Options(max_seq_length=60, max_query_length=20))
    model = build()
    optimizer = optim.AdamW(model, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.01)
    torch.manual_seed(0)
    for _ in range(40):
        for begin in range(4):
            batch = model.collate(features[begin::4])
            loss, _ = model(batch)["answer"]
            (loss / len(batch.targets)).backward()
            optimizer.set_learning_rate(3e-3)
            optimizer.step()
            optimizer.zero_grad()
    return questions, features, model, pieces


def test_a_tiny_model_learns_48_questions(trained):
    questions, features, model, _ = trained
    predictions = task_qa.predict(model, features, questions)
    scores = task_qa.evaluate(questions, predictions, features)
    assert scores["f1"] > 0.9 and scores["em"] > 0.9 and scores["NoAns_exact"] > 0.9 and scores["NoAns_total"] == 12
    assert all(odds > 0 for odds in (p.null_odds for p in predictions[36:]))


def test_without_unanswerable_questions_there_is_always_an_answer(trained):
    questions, features, model, _ = trained
    as_squad = [one._replace(metric="squad") for one in questions]
    predictions = task_qa.predict(model, features, as_squad)
    assert all(p.text == p.answers[0].text != "" for p in predictions)
    assert all(answer.text for p in predictions for answer in p.answers)


def test_files_have_the_official_shapes(trained):
    questions, features, model, _ = trained
    predictions = task_qa.predict(model, features, questions)
    made = task_qa.prediction_files(questions, predictions)
    answers, n_best, odds = (made[f"{kind}.json"] for kind in ("predictions", "nbest_predictions", "null_odds"))
    ids = [one.id for one in questions]
    assert list(answers) == list(n_best) == list(odds) == ids
    for name, prediction in zip(ids, predictions):
        entries = n_best[name]
        assert set(entries[0]) == {"text", "probability", "start_logit", "end_logit"}
        sums = [entry["start_logit"] + entry["end_logit"] for entry in entries]
        assert sums == sorted(sums, reverse=True) and "" in {entry["text"] for entry in entries}
        null = next(entry for entry in entries if not entry["text"])
        best = next(entry for entry in entries if entry["text"])
        expected = null["start_logit"] + null["end_logit"] - best["start_logit"] - best["end_logit"]
        assert_same(odds[name], expected)
        assert answers[name] == prediction.text == ("" if odds[name] > 0 else best["text"])
    questions = [one._replace(metric="squad") for one in questions]
    assert "null_odds.json" not in task_qa.prediction_files(questions, predictions)


def test_own_lines_are_answered(trained):
    _, _, model, pieces = trained
    lines = ['{"id": "x", "question": "Who", "context": "Ada  went to Oslo\\nby train"}']
    lines.append("When\tAda went to Oslo by train")
    options = Options(max_seq_length=60, max_query_length=20, metric="squad2")
    first, second = inference.answer(inference.Predictor(task_qa, model, pieces, VOCAB, options), lines)
    assert (first["id"], first["answer"], second["answer"]) == ("x", "Ada", "")
    assert second["null_odds"] > 0 > first["null_odds"] and second["answers"][0]["text"] == ""
    context = json.loads(lines[0])["context"]
    for answer in first["answers"]:
        assert context[answer["start"] : answer["end"]] == answer["text"]
    options = Options(max_seq_length=60, max_query_length=20)
    (plain,) = inference.answer(inference.Predictor(task_qa, model, pieces, VOCAB, options), lines[1:])
    assert plain["answer"] != ""


@pytest.mark.parametrize(
    "data_set, gold, predicted, em, f1",
    [
        (("squad", "en", "en"), "Oslo", "the Oslo city", 0, 2 / 3),
        (("squad", "en", "en"), "oslo", "The Oslo!", 1, 1),
        (("squad", "de", "de"), "Hund", "Der Hund!", 0, 2 / 3),  # XQuAD: English articles in every language
        (("mlqa", "de", "en"), "Hund", "Der Hund!", 1, 1),  # MLQA: those of the context's language
        (("mlqa", "en", "de"), "Hund", "Der Hund!", 0, 2 / 3),
        (("mlqa", "zh", "zh"), "北京大学", "北京。", 0, 2 / 3),
        (("jsquad", "ja", "ja"), "小笠原諸島", "小笠原諸島。", 1, 1),
        (("jsquad", "ja", "ja"), "小笠原諸島", "小笠原", 0, 0.75),
        (("squad2", "en", "en"), "Oslo", "", 0, 0),
    ],
)
def test_each_data_set_has_its_scorer(data_set, gold, predicted, em, f1):
    one = Question("q", "?", gold, "", (gold,), (), *data_set)
    answer = Answer(predicted, 0, 0, 1.0, 0.0, 0.0)
    scores = task_qa.evaluate([one], [Prediction(predicted, [answer], 0.0)], [])
    assert scores["em"] == em and scores["f1"] == pytest.approx(f1)
    assert task_qa.SCORES[-1] == "f1"


def test_impossible_options():
    too_small = ({name: 0} for name in ("max_query_length", "doc_stride", "max_answer", "n_best_size"))
    for wrong in ({"max_query_length": 508}, {"candidates": "a", "mentions": "b"}, *too_small):
        with pytest.raises(ValueError, match="--"):
            Options(**wrong)
    with pytest.raises(ValueError, match="--max-seq-length 512: expected at most the checkpoint's 68 positions"):
        finetuning.check_positions(SMALL, Options())


# --- Real files -------------------------------------------------------------------------------------------------------


def exact_targets(questions, features) -> tuple[int, int]:
    """Windows with an answer, and how many of their targets are some accepted answer, character by character."""
    with_answer = exact = 0
    for feature in features:
        if feature.target != (0, 0):
            start, end = (place - feature.first for place in feature.target)
            one = questions[feature.example]
            text = one.context[feature.offsets[start, 0] : feature.offsets[end, 1]]
            assert any(answer in text for answer in one.answers)
            with_answer, exact = with_answer + 1, exact + (text in one.answers)
    return with_answer, exact


def test_xquad_with_robertas_tokenizer():
    questions = task_qa.read_examples(shared_data("qa/xquad.en.json"))
    pieces = tokenizer.load(shared_data("tokenizers/vocab.json").parent)
    features = task_qa.make_features(questions, pieces, VOCAB)
    assert {f.example for f in features} == set(range(1190))
    assert max(len(f.sequence.word_ids) for f in features) <= 512
    assert sum(task_qa.skipped(questions, features).values()) == 0
    with_answer, exact = exact_targets(questions, features)
    assert with_answer >= 1190 and exact > 0.98 * with_answer


def test_jsquad_pieces_straddle_answers(tmp_path):
    """Answers end inside of pieces: the target then covers the piece."""
    questions = task_qa.read_examples(shared_data("jglue/jsquad-valid.json"))[:600]
    texts = dict.fromkeys(one.context for one in questions)
    pieces = tokenizer_sentencepiece.train(texts, 3000, tmp_path)
    features = task_qa.make_features(questions, pieces, VOCAB, (), Options(max_seq_length=384, overlap=128))
    assert task_qa.skipped(questions, features)["questions with no answer wholly in a window"] == 0
    with_answer, exact = exact_targets(questions, features)
    assert with_answer >= 600 and 0.5 * with_answer < exact < with_answer

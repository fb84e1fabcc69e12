"""mLAMA probing equals its specification: the published layout of files, inputs against our own pretraining examples
and a plain transcription of the rule, scores against transformers, a model that has learned three facts and knows them
by words and by entities, and the real object files.

    python -m pytest -q tests/test_task_mlama.py
"""

import json
import re
import shutil
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_rounded, generator, seeded
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

import finetune
from luke_mini import checkpoint, examples, finetuning, formats, inputs, packing, task_mlama, tokenizer_sentencepiece
from luke_mini.entity_vocab import EntityVocab
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining
from luke_mini.task_mlama import Example, Options, make_features
from luke_mini.wikitext import Link, Paragraph

CAPITALS = ("Oslo", "Bergen", "Acme in Norway", "Bo")
EXAMPLE = Example("en", "P36", "[X] has the mayor [Y] .", "Norway", ("Oslo",), CAPITALS)


@pytest.fixture(scope="session")
def tiny(tiny_checkpoint):
    return checkpoint.read(tiny_checkpoint)


@pytest.fixture(scope="session")
def tokenizers(tiny, tmp_path_factory):
    """SentencePiece, half of its texts without spaces between words; byte-level BPE."""
    texts = ["Ada met Bo Berg, the mayor of Oslo in Norway.", "ノルウェーの首都はオスロです。", "オスロはノルウェーにある"] * 20
    return tokenizer_sentencepiece.train(texts, 120, tmp_path_factory.mktemp("pieces")), tiny.tokenizer


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_language(folder, templates, **facts):
    write(folder / "templates.jsonl", *({"relation": name, "template": text} for name, text in templates.items()))
    for name, pairs in facts.items():
        write(folder / f"{name}.jsonl", *({"sub_label": subject, "obj_label": label} for subject, label in pairs))


@pytest.fixture
def published(tmp_path):
    """Two languages in the layout of the release."""
    for language, template in (("en", "[Y] is the capital of [X] ."), ("de", "[X] hat die Hauptstadt [Y] .")):
        templates = {"P36": template, "place_of_birth": "[X] was born in [Y] .", "P999": "[X] and [Y]"}
        write_language(tmp_path / "mlama1.1" / language, templates,
                       P36=[("Norway", "Oslo"), ("Chile", "Santiago"), ("Norway", "Bergen")],
                       place_of_birth=[("Ada", "Oslo"), ("Bo", "Bergen")])  # fmt: skip
    of_trex = {"P36": ["Oslo", "Bergen", "Lima"]}
    of_google = {"P36": ["Rome"], "place_of_birth": ["Oslo", "Oslo", "Bergen"]}
    for name, objects in zip(formats.OBJECT_FILES, (of_trex, of_google)):
        for language in ("en", "de"):
            made = {key: {"subjects": [], "objects": value} for key, value in objects.items()}
            write(tmp_path / name / f"{language}.json", made)
    return tmp_path


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_examples(path, **options):
    return finetuning.read_examples(task_mlama, path, Options(**options))


def test_the_published_layout_and_its_json_lines(published, capsys):
    folder = published / "mlama1.1/en"
    examples = read_examples(folder)
    assert examples == read_examples(folder / "templates.jsonl")
    candidates = ("Oslo", "Bergen", "Lima", "Rome")
    assert examples == [
        Example("en", "P36", "[Y] is the capital of [X] .", "Norway", ("Oslo", "Bergen"), candidates),
        Example("en", "P36", "[Y] is the capital of [X] .", "Chile", ("Santiago",), candidates),
        Example("en", "place_of_birth", "[X] was born in [Y] .", "Ada", ("Oslo",), ("Oslo", "Bergen")),
        Example("en", "place_of_birth", "[X] was born in [Y] .", "Bo", ("Bergen",), ("Oslo", "Bergen")),
    ]
    assert examples[0].question == "[Y] is the capital of Norway ."
    assert "templates without a file of facts: P999" in capsys.readouterr().out
    # (2/4 + 0 + 1/2 + 1/2) / 4
    assert task_mlama.describe(examples) == "2 relations; a random candidate is right in 37.5%"
    assert read_examples(published / "mlama1.1/de")[0].template == "[X] hat die Hauptstadt [Y] ."
    capsys.readouterr()
    finetune.main(["mlama", "--to-jsonl", str(folder)])
    (folder / "own.jsonl").write_text(capsys.readouterr().out, encoding="utf-8")
    assert read_examples(folder / "own.jsonl") == examples


def test_objects_elsewhere_and_nowhere(published, capsys):
    for name in formats.OBJECT_FILES:
        (published / "moved").mkdir(exist_ok=True)
        shutil.move(published / name, published / "moved" / name)
    folder = published / "mlama1.1/en"
    assert read_examples(folder)[0].candidates == ("Oslo", "Bergen", "Santiago")
    assert "the facts' own objects as candidates: P36 place_of_birth" in capsys.readouterr().out
    assert len(read_examples(folder, objects=str(published / "moved"))[0].candidates) == 4
    with pytest.raises(ValueError, match="TREx_multilingual_objects/en.json or GoogleRE_objects/en.json"):
        read_examples(folder, objects=str(published))
    with pytest.raises(OSError, match="templates.jsonl"):
        read_examples(published)
    write(folder / "objects.json", {"P36": {"subjects": [], "objects": ["Quito"]}})
    assert read_examples(folder)[0].candidates == ("Quito",)


@pytest.mark.parametrize(
    "name, row, message",
    [
        ("templates.jsonl", {"relation": "P36"}, "line 1: field 'template' is missing"),
        ("templates.jsonl", {"relation": "P36", "template": "[X] is"}, r"'template' is '\[X\] is', expected \[X\] and"),
        ("templates.jsonl", {"relation": "P36", "template": "[X] [Y] [X]"}, "each once"),
        ("templates.jsonl", {"relation": 36, "template": "[X] [Y]"}, "line 1: field 'relation' is 36"),
        ("P36.jsonl", {"sub_label": "Norway"}, "line 1: field 'obj_label' is missing"),
        ("P36.jsonl", {"sub_label": " ", "obj_label": "Oslo"}, "line 1: field 'sub_label' is empty"),
        ("objects.json", {"P36": {"subjects": []}}, "P36: field 'objects' is missing"),
        ("objects.json", {"P36": ["Oslo"]}, "field 'P36' is .*, expected an object"),
        ("objects.json", {"P36": {"objects": ["Oslo", 3]}}, "P36: objects 2 is 3, expected a string"),
        ("objects.json", [], r"is \[\], expected an object"),
        ("own.jsonl", {"template": "[X] [Y]", "candidates": [], "facts": [{"subject": "Ada", "answers": []}]},
         "line 1, facts 1: field 'answers' is empty"),
    ],
)
def test_a_malformed_file_is_named(published, name, row, message):
    folder = published / "mlama1.1/en"
    write(folder / name, row)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        read_examples(folder / name if name == "own.jsonl" else folder)


@pytest.mark.parametrize("language, objects, births", [("en", 380, 584), ("de", 368, None), ("ja", 361, 434)])
def test_real_object_files(tmp_path, language, objects, births):
    """The release's own files; GoogleRE's name an object once a question."""
    for name, folder in (("TREx", "TREx_multilingual_objects"), ("GoogleRE", "GoogleRE_objects")):
        (tmp_path / folder).mkdir()
        shutil.copy(shared_data(f"mlama/{name}_{language}.json"), tmp_path / folder / f"{language}.json")
    folder = tmp_path / "mlama1.1" / language
    templates = {"P36": "[X] - [Y]", "place_of_birth": "[X] - [Y]"}
    write_language(folder, templates, P36=[("a", "b")], place_of_birth=[("a", "b")])
    capital, born = read_examples(folder)
    whole = json.loads((tmp_path / "TREx_multilingual_objects" / f"{language}.json").read_text())
    assert capital.candidates == tuple(whole["P36"]["objects"]) and len(capital.candidates) == objects
    assert len(set(born.candidates)) == len(born.candidates) and births in (None, len(born.candidates))


# --- Features ---------------------------------------------------------------------------------------------------------


def spelled(tokenizer, feature) -> str:
    return " ".join(tokenizer.pieces(feature.sequence.word_ids.tolist())).replace("Ġ", "_")


def candidates_of(features) -> dict[int, tuple[list[int], int]]:
    """Place of a candidate -> its tokens and its entity, in all features of a question."""
    rows = (row for feature in features for row in zip(*(part.tolist() for part in feature.candidates)))
    return {place: (word_ids, entity_id) for place, word_ids, entity_id in rows}


def test_inputs_by_hand(tiny):
    features = make_features([EXAMPLE], tiny.tokenizer, tiny.entity_vocab)
    for feature in features:
        n = feature.candidates.word_ids.shape[1]
        masks = " <mask>" * n
        assert spelled(tiny.tokenizer, feature) == f"<s> _Norway _ h as _the _mayor{masks} _ . </s>"
        assert feature.first_mask == 7 and feature.sequence.spans.tolist() == [[7, 7 + n]]
        assert feature.sequence.entity_ids.tolist() == [tiny.entity_vocab.mask_id]  # Norway is no entity here
    found = candidates_of(features)
    oslo = tiny.entity_vocab.get("Oslo")
    assert [("".join(tiny.tokenizer.pieces(found[k][0])), found[k][1]) for k in range(4)] == [
        ("ĠOslo", oslo), ("ĠBergen", -1), ("ĠAcmeĠinĠNorway", -1), ("ĠBo", -1)]  # fmt: skip
    assert set(task_mlama.skipped([EXAMPLE], features).values()) == {0}


def test_the_object_may_stand_before_the_subject(tiny):
    example = EXAMPLE._replace(template="[Y] is in [X]", subject="Oslo", candidates=("Bo",))
    (feature,) = make_features([example], tiny.tokenizer, tiny.entity_vocab)
    n, sequence = feature.candidates.word_ids.shape[1], feature.sequence
    assert feature.first_mask == 1 and spelled(tiny.tokenizer, feature).startswith("<s>" + " <mask>" * n + " _is _in")
    assert sequence.entity_ids.tolist() == [tiny.entity_vocab.get("Oslo"), tiny.entity_vocab.mask_id]
    # The subject comes first, wherever it stands.
    assert sequence.spans.tolist() == [[n + 3, len(sequence.word_ids) - 1], [1, n + 1]]


@pytest.mark.parametrize(
    "options, subject, expected",
    [
        (Options(), "Oslo", [3, 2]),
        (Options(), "Bergen", [2]),
        (Options(subject="mask"), "Bergen", [2, 2]),
        (Options(subject="none"), "Oslo", [2]),
        (Options(words_only=True), "Oslo", []),
    ],
)
def test_entities_of_the_input(tiny, options, subject, expected):
    for feature in make_features([EXAMPLE._replace(subject=subject)], tiny.tokenizer, tiny.entity_vocab, (), options):
        assert feature.sequence.entity_ids.tolist() == expected and feature.sequence.spans.shape == (len(expected), 2)


def test_a_subject_without_tokens_is_no_entity(tokenizers):
    example, options = EXAMPLE._replace(subject="\x07"), Options(subject="mask")
    feature, *_ = make_features([example], tokenizers[0], ENTITIES, (), options)
    assert feature.sequence.entity_ids.tolist() == [2]


def test_titles_are_looked_up_in_the_language_of_the_folder(tiny):
    names = [[(name, None)] for name in ("[PAD]", "[UNK]", "[MASK]")]
    vocab = EntityVocab([*names, [("Oslo", "en"), ("Oslo", "de")], [("Norway", "en"), ("Norwegen", "de")]])
    german = EXAMPLE._replace(language="de", subject="Norwegen", candidates=("Oslo", "Norway", "Norwegen"))
    features = make_features([german], tiny.tokenizer, vocab)
    assert all(feature.sequence.entity_ids.tolist() == [4, 2] for feature in features)
    assert {place: entity for place, (_, entity) in candidates_of(features).items()} == {0: 3, 1: -1, 2: 4}
    only = EntityVocab([*names, [("Norwegen", "simple")]])  # a vocabulary of one language that goes by another name
    assert make_features([german], tiny.tokenizer, only)[0].sequence.entity_ids.tolist() == [3, 2]


ENTITIES = EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]", "Oslo"])
TEMPLATES = ("[X] has the mayor [Y].", "[Y] is in [X]", "[X]の首都は[Y]です。", "[X] , ( [Y] )", " [Y]は[X]にある ", "of [X][Y]")
NAMES = st.sampled_from(["Oslo", "Ada Berg", "オスロ", "ノルウェー", "chemist's", "Bo"])


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(TEMPLATES), NAMES, st.lists(NAMES, min_size=1, unique=True), st.booleans())
def test_words_are_those_of_pretraining(tokenizers, template, subject, candidates, is_byte_level):
    """With the candidate at the masks, the input is what pretraining makes of the sentence with two links in it."""
    tokenizer = tokenizers[is_byte_level]
    example = Example("en", "P", template, subject, (), tuple(candidates))
    features = make_features([example], tokenizer, ENTITIES)
    left, right = (part.replace("[X]", subject) for part in template.split("[Y]"))
    for place, (word_ids, _) in candidates_of(features).items():
        candidate = candidates[place]
        at_object, at_subject = len(left), template.index("[X]")
        if at_subject > at_object:
            at_subject += len(candidate) - len("[Y]")
        links = [Link("Oslo", start, start + len(name))
                 for start, name in sorted([(at_subject, subject), (at_object, candidate)])]  # fmt: skip
        page = [Paragraph(left + candidate + right, links, True)]
        with mock.patch.object(examples, "MIN_SENTENCE_LENGTH", 0):
            made, _ = examples.build_examples([("Oslo", page)], tokenizer, {"Oslo": 3}, unk_entity_id=None)
        (feature,) = (f for f in features if f.candidates.word_ids.shape[1] == len(word_ids))
        ids, at = feature.sequence.word_ids.tolist(), feature.first_mask
        assert ids[at : at + len(word_ids)] == [tokenizer.mask_id] * len(word_ids)
        ids[at : at + len(word_ids)] = word_ids
        assert ids == [tokenizer.bos_id, *made.word_ids.tolist(), tokenizer.eos_id]


def test_what_gets_no_score_is_counted(tiny):
    examples = [EXAMPLE._replace(candidates=("Oslo", "Oslo " * 300, "\u200b"), answers=("Paris",)), EXAMPLE]
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, (), Options(max_seq_length=64))
    predictions = task_mlama.predict(build(tiny), features, examples)
    scored = [np.isfinite(prediction["words"]).tolist() for prediction in predictions]
    assert scored[0][:2] == [True, False] and scored[1] == [True] * 4
    assert list(task_mlama.skipped(examples, features).values()) == [1, scored[0].count(False)]
    scores = task_mlama.evaluate(examples, predictions, features)
    assert scores["coverage"] == 0.5 and scores["questions"] == 2


# --- Scores -----------------------------------------------------------------------------------------------------------


def build(tiny, seed=0):
    model = task_mlama.build_model(tiny.config, tiny.entity_vocab)
    initialize(model, tiny.config, seeded(seed))
    draws = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms away from 0 and 1
            parameter.normal_(std=1.0 if parameter.dim() == 1 else 0.3, generator=draws)
    return model.eval()


def some_examples():
    oslo = EXAMPLE._replace(template="[Y] is in [X]", subject="Oslo", relation="P17")
    return [EXAMPLE, oslo, EXAMPLE._replace(template="[X][Y]", subject="Ada Berg")]


@pytest.mark.parametrize("options", [Options(), Options(subject="mask"), Options(words_only=True)])
def test_scores_are_transformers(tiny, tmp_path, options):
    """Each score, computed in batches, by its formula from the logits of transformers' padded call for one input."""
    transformers = pytest.importorskip("transformers")
    model = build(tiny)
    checkpoint.save(tmp_path / "model", model, tiny.tokenizer, tiny.entity_vocab)
    theirs = transformers.LukeForMaskedLM.from_pretrained(tmp_path / "model", attn_implementation="eager")
    theirs, model = theirs.eval().double(), model.double()
    examples = some_examples()
    features = make_features(examples, tiny.tokenizer, tiny.entity_vocab, (), options)
    predictions = task_mlama.predict(model, features, examples, batch_size=4)
    ours, expected, largest, entity_scores = [], [], 1.0, 0
    for feature in features:
        with torch.no_grad():
            out = theirs(**inputs.collate(inputs.as_arrays([feature.sequence], 30)))
        words, prediction = out.logits[0].log_softmax(dim=1), predictions[feature.example]
        largest = max(largest, float(out.logits.abs().max()))
        for place, word_ids, entity_id in zip(*feature.candidates):
            expected.append(np.mean([words[feature.first_mask + k, word].item() for k, word in enumerate(word_ids)]))
            ours.append(prediction["words"][place])
            if entity_id < 0 or options.words_only:
                assert np.isnan(prediction["entities"][place])
            else:
                expected.append(out.entity_logits[0, -1].log_softmax(dim=0)[entity_id].item())
                ours.append(prediction["entities"][place])
                entity_scores += 1
    assert_rounded(ours, expected, largest)
    assert (entity_scores > 0) != options.words_only
    assert not any(np.isnan(prediction["words"]).any() for prediction in predictions)


def test_evaluation_by_hand():
    """By words the right one is first, then second of its own scores; by entities one question has no right entity."""
    nan = np.nan
    examples = [EXAMPLE._replace(answers=("Bo", "Oslo")), EXAMPLE, EXAMPLE._replace(relation="P1")]
    words = [[-3, -2, -9, -1.0], [-3, -2, -9, -4.0], [-3, -2, -9, -1.0]]  # Bo is first; Oslo is second, third
    entities = [[-5, nan, -4, nan], [nan, nan, -4, nan], [-5, nan, nan, nan]]  # Oslo is second, no entity, first
    predictions = [dict(zip(task_mlama.KINDS, map(np.array, rows))) for rows in zip(words, entities)]
    scores = task_mlama.evaluate(examples, predictions, ())
    assert (scores["top1"], scores["top5"], scores["relations_top1"]) == (1 / 3, 1.0, 0.25)
    assert (scores["entity_top1"], scores["entity_top5"], scores["entity_coverage"]) == (1 / 3, 2 / 3, 2 / 3)
    assert scores["questions"] == 3 and scores["relations"] == 2 and scores["coverage"] == 1.0
    (written,) = map(json.loads, task_mlama.prediction_files(examples, predictions).values())
    assert [written["metrics"][name] for name in ("k1", "k5", "k10", "k100")] == [1 / 3, 1.0, 1.0, 1.0]
    # Two of the questions have the same words: none is lost.
    assert list(written["output"]) == ["Norway has the mayor [Y] .", "Norway has the mayor [Y] . (P36)",
                                       "Norway has the mayor [Y] . (P1)"]  # fmt: skip
    first = written["output"]["Norway has the mayor [Y] ."]
    assert first["candidates"][:2] == [["Oslo", -3.0, -5.0], ["Bergen", -2.0, None]]
    assert (first["answer"], first["answers"], first["template"]) == ("Bo", ["Bo", "Oslo"], EXAMPLE.template)
    blind = [prediction | {"entities": np.full(4, nan)} for prediction in predictions]
    assert not any(name.startswith("entity") for name in task_mlama.evaluate(examples, blind, ()))


# --- A model that knows something, from the command line --------------------------------------------------------------


@pytest.fixture(scope="module")
def knowing(tiny, tmp_path_factory):
    """A checkpoint that has learned three facts by heart, words and entities, and a folder that asks for them."""
    folder = tmp_path_factory.mktemp("facts")
    pairs = [("Ada", "Oslo"), ("Bo", "Norway"), ("Berg", "Bergen")]
    write_language(folder / "en", {"P1": "[X] was born in [Y] .", "P2": "In [Y] was born [X] ."}, P1=pairs, P2=pairs)
    titles = ["[PAD]", "[UNK]", "[MASK]", "Oslo", "Norway", "Ada", "[MASK2]"]  # Bergen is no entity
    vocab = EntityVocab.from_titles(titles)
    shape = replace(tiny.config, entity_vocab_size=len(vocab))
    model = LukeForPretraining(shape).eval()  # without dropout
    initialize(model, shape, 0)
    examples = read_examples(folder / "en")
    wanted = [
        (feature, word_ids, entity_id)
        for feature in make_features(examples, tiny.tokenizer, vocab)
        for place, word_ids, entity_id in zip(*(part.tolist() for part in feature.candidates))
        if examples[feature.example].candidates[place] == examples[feature.example].answers[0]
    ]
    packed = packing.pack([feature.sequence for feature, _, _ in wanted], shape.pad_token_id)
    starts = packed.cu_words.tolist()
    rows = [start + f.first_mask + k for start, (f, ids, _) in zip(starts, wanted) for k in range(len(ids))]
    words = torch.tensor([k for _, ids, _ in wanted for k in ids])
    last = packed.n_words + packed.cu_entities[1:].long() - 1
    entities = torch.tensor([entity_id for _, _, entity_id in wanted])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        hidden = model.luke(packed)
        loss = F.cross_entropy(model.word_head(hidden[rows], model.luke.words.token.weight), words)
        scores = model.entity_head(hidden[last], model.luke.entities.entity.weight)
        loss = loss + F.cross_entropy(scores, entities, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    checkpoint.save(folder / "model", model, tiny.tokenizer, vocab)
    return folder


def test_a_model_that_knows_the_facts(knowing, tmp_path, capsys):
    finetune.main(
        f"mlama --checkpoint {knowing}/model --data {knowing} --out {tmp_path} --compare-random --seeds 1,2".split()
    )
    out = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert list(results["random weights"]["scores"]["test"]) == ["1", "2"]
    (scores,) = results["pretrained"]["scores"]["test"].values()
    assert scores["top1"] == 1.0 and scores["questions"] == 6
    assert scores["entity_top1"] == scores["entity_coverage"] == pytest.approx(2 / 3)
    assert all(found["top1"] < 1.0 for found in results["random weights"]["scores"]["test"].values())
    assert "mLAMA top 1 by words on test: 100.00 with pretraining, " in out.splitlines()[-1]
    written = json.loads((tmp_path / "test_predictions.json").read_text())
    assert written["metrics"]["k1"] == 1.0 and len(written["output"]) == 6
    assert not (tmp_path / "model").exists()


def test_own_questions(knowing, tmp_path, capsys):
    asked = (("[X] was born in [Y] .", "Ada"), ("In [Y] was born [X] .", "Bo"))
    candidates = ["Bergen", "Oslo", "Norway"]
    lines = [{"template": template, "subject": subject, "candidates": candidates} for template, subject in asked]
    write(tmp_path / "text", *lines)
    finetune.main(f"mlama --checkpoint {knowing}/model --predict {tmp_path}/text".split())
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["question"] == "Ada was born in [Y] ." and second["question"] == "In [Y] was born Bo ."
    assert first["words"][0]["candidate"] == first["entities"][0]["candidate"] == "Oslo"
    assert second["words"][0]["candidate"] == second["entities"][0]["candidate"] == "Norway"
    assert [len(first["words"]), len(first["entities"])] == [3, 2]
    (tmp_path / "text").write_text("Ada was born in [Y].\n")
    with pytest.raises(SystemExit, match="2"):
        finetune.main(f"mlama --checkpoint {knowing}/model --predict {tmp_path}/text".split())
    assert re.search("text, line 1(, column 1)?: ", capsys.readouterr().err)


def test_several_languages(knowing, published, tmp_path, capsys):
    folders = f"{published}/mlama1.1/en {published}/mlama1.1/de"
    finetune.main(f"mlama --checkpoint {knowing}/model --test {folders} --out {tmp_path}/out --words-only".split())
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert list(results["results"]["pretrained"]["scores"]) == ["en", "de"]
    assert results["data"]["de"]["examples"] == 4 and len(results["data"]["de"]["sha256"]) == 64
    assert "entity_top1" not in results["results"]["pretrained"]["scores"]["de"]["0"]


def test_what_is_missing_is_named(knowing, tiny, tmp_path):
    with pytest.raises(ValueError, match="expected mlama1.1/en or en there, or --test FILE"):
        finetune.main(f"mlama --checkpoint {knowing}/model --data {tmp_path} --out {tmp_path}/out".split())
    bare = build(tiny).luke
    checkpoint.save(tmp_path / "bare", bare, tiny.tokenizer, tiny.entity_vocab)
    with pytest.raises(ValueError, match="lm_head|entity_predictions"):
        finetune.main(f"mlama --checkpoint {tmp_path}/bare --data {knowing} --out {tmp_path}/out".split())
    with pytest.raises(SystemExit):  # nothing trains: no recipe
        finetune.parse_arguments("mlama --epochs 3".split())

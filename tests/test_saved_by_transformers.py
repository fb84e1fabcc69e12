"""What transformers 5 saves opens here, and what is saved here opens there: the same titles, ids, offsets and numbers.

    pytest tests/test_saved_by_transformers.py

Recorded: tests/fixtures/tokenizers needs no transformers; the recorded models are in test_heads.py. Live: every class
with both families of tokenizers, there and back; scores in float64.
"""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from closeness import assert_equal, assert_same, generator
from fixtures import make_hf_fixtures as oracle
from fixtures import make_tokenizer_fixtures as texts
from test_heads import check_outputs, in_float64, ours_of, theirs_of
from tokenizer_texts import encode_cut

import finetune
from luke_mini import checkpoint, inference, inputs, task_disambiguation, tokenizer, tokenizer_sentencepiece
from luke_mini.entity_vocab import EntityVocab
from luke_mini.spans import without_space
from luke_mini.tokenizer import MARK
from luke_mini.tokenizer_bpe import BpeTokenizer

NAMES = ["luke", "mluke", "xlmr"]
FAMILIES = {"luke": ("LukeTokenizer", texts.ENTITIES), "mluke": ("MLukeTokenizer", texts.LANGUAGES)}


@pytest.fixture(scope="module")
def transformers():
    module = pytest.importorskip("transformers", reason="the oracle `transformers` is not installed")
    module.logging.set_verbosity_error()
    return module


@pytest.fixture(scope="module")
def made(transformers):
    return texts.tokenizers()


def toyworld_lines() -> list[str]:
    lines = (oracle.HERE.parents[2] / "luke_mini/toyworld.txt").read_text(encoding="utf-8").split("\n")
    return [line for line in lines if len(line) > 40]


def assert_reads(words, text: str, ids: list[int], offsets) -> None:
    """words: our tokenizer. ids, offsets: those of transformers, in which white space counts; None: not compared."""
    assert encode_cut(words, text, [])[0] == ids, text
    if "<" in text:  # special tokens that are written out: text to `encode`
        return
    found = words.encode(text)
    assert found.ids == ids == words.encode_pieces([text], [True])[0], text
    for piece, mine, (start, end) in zip(words.pieces(ids), found.offsets, offsets or (), strict=offsets is not None):
        if piece == "▁":
            assert mine in ((start, start), (end, end)), text
        else:
            assert mine == without_space(text, start, end), (text, piece)


def assert_reads_all(words, recorded) -> None:
    for text, ids, offsets in recorded:
        if isinstance(words, BpeTokenizer):  # its `encode` puts a space in front
            assert encode_cut(words, text, [])[0] == ids, text
            if "<" not in text and not text[:1].isspace():
                found = words.encode(text, prefix_space=False)
                assert found == (ids, [without_space(text, *span) for span in offsets]), text
        else:
            assert_reads(words, text, ids, offsets)


# --- Tokenizers and entities ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_recorded_tokenizers(name, tmp_path):
    """Read from what transformers wrote, and again from what we write of it."""
    recorded = json.loads((texts.HERE / name / "expected.json").read_text(encoding="utf-8"))
    assert [text for text, _, _ in recorded] == texts.TEXTS
    words = tokenizer.load(texts.HERE / name)
    assert_reads_all(words, recorded)
    words.save(tmp_path)
    again = tokenizer.load(tmp_path)
    assert again.pieces(range(len(again))) == words.pieces(range(len(words)))
    assert_reads_all(again, recorded)


@pytest.mark.parametrize("name", NAMES)
def test_entities_are_no_words(name):
    """transformers gives [MASK] and the others ids behind the word table; here they are text like any other."""
    words = tokenizer.load(texts.HERE / name)
    saved = json.loads((texts.HERE / name / "tokenizer.json").read_text(encoding="utf-8"))
    has_markers = sum("<ent" in token["content"] for token in saved["added_tokens"])
    assert (has_markers, len(words)) == (2 * (name != "xlmr"), len(saved["model"]["vocab"]) + 2 * (name != "luke"))
    assert words.pieces([words.mask_id, words.ent_id, words.ent2_id]) == ["<mask>", "<ent>", "<ent2>"]
    for text in ("[MASK]", "the [MASK] of [UNK]", "[PAD][MASK2]"):
        ids, _ = encode_cut(words, text, [])
        assert max(ids) < words.mask_id and "[MASK]" not in words.pieces(ids)
    assert encode_cut(words, "a <ent> b", [])[0].count(words.ent_id) == 1


def test_a_model_that_was_resized_has_rows_for_entities(tmp_path):
    """model.resize_token_embeddings(len(tokenizer)): then config.json says that [MASK] is a word."""
    shutil.copytree(texts.HERE / "luke", tmp_path / "luke")
    (tmp_path / "luke/config.json").write_text('{"vocab_size": 327}')
    plain, resized = tokenizer.load(texts.HERE / "luke"), tokenizer.load(tmp_path / "luke")
    assert len(resized) == len(plain) + 4
    assert resized.pieces(encode_cut(resized, "[MASK]", [])[0]) == ["[MASK]"]


@pytest.mark.parametrize("name, keys", [("luke", texts.ENTITIES), ("mluke", texts.LANGUAGES)])
def test_the_entities_lie_in_tokenizer_config(name, keys, tmp_path):
    vocab = EntityVocab.of_folder(texts.HERE / name)
    assert len(vocab) == len(set(keys.values()))
    assert all(vocab.get(key) == number for key, number in keys.items())
    assert vocab.languages == (["de", "en", "ja"] if name == "mluke" else [])
    assert EntityVocab.of_folder(texts.HERE / "xlmr") is None
    (tmp_path / "entity_vocab.json").write_text(json.dumps(texts.ENTITIES | {"[MASK2]": 6, "Bo": 5}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"entity_vocab": keys}))
    assert EntityVocab.of_folder(tmp_path).id("Bo") == 5  # the file of its own counts
    (tmp_path / "entity_vocab.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"entity_vocab": {"[MASK]": 0, "Oslo": 2}}')
    with pytest.raises(ValueError, match="tokenizer_config.json: .* without a gap"):
        EntityVocab.of_folder(tmp_path)


def test_a_space_before_every_segment(transformers, made, tmp_path, some_strings):
    """add_prefix_space, as people save it for NER: every part of a text that is cut at its mentions gets a space."""
    made["luke"].save_pretrained(tmp_path / "luke")
    theirs = transformers.LukeTokenizer.from_pretrained(tmp_path / "luke", add_prefix_space=True)
    theirs.save_pretrained(tmp_path / "prefix")
    words = tokenizer.load(tmp_path / "prefix")
    (tmp_path / "again").mkdir()
    words.save(tmp_path / "again")
    again = tokenizer.load(tmp_path / "again")
    for text in texts.TEXTS + some_strings:
        if not any(token in text for token in texts.ENTITIES):
            ids = theirs(text, add_special_tokens=False).input_ids
            assert encode_cut(words, text, [])[0] == ids == encode_cut(again, text, [])[0], text
    ours = inputs.encode(words, EntityVocab.of_folder(tmp_path / "prefix"), "Ada met LA.", entity_spans=[(8, 10)])
    assert ours["input_ids"].tolist() == theirs("Ada met LA.", entity_spans=[(8, 10)]).input_ids
    assert words.pieces(ours["input_ids"])[-3:-1] == ["Ġ", "."]  # after the mention


def test_live_tokenizers(transformers, made, tmp_path, some_strings):
    for name, one in made.items():
        one.save_pretrained(tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
        theirs = type(one).from_pretrained(tmp_path / name)
        words = tokenizer.load(tmp_path / name)
        odd = ("<ent", "[MASK]", "[UNK]", "[PAD]", "[MASK2]")  # named in tokenizer_sentencepiece.py
        lines = [text for text in texts.TEXTS + some_strings if not any(token in text for token in odd)]
        (tmp_path / f"{name}-again").mkdir()
        words.save(tmp_path / f"{name}-again")
        again = transformers.AutoTokenizer.from_pretrained(tmp_path / f"{name}-again")
        assert type(again) is type(theirs)
        for text in lines:
            ids = theirs(text, add_special_tokens=False).input_ids
            assert encode_cut(words, text, [])[0] == ids == again(text, add_special_tokens=False).input_ids, text


def test_a_bpe_model_opens_as_a_tokenizer_of_words(transformers, tmp_path, some_strings):
    """What the first command trains: the same ids but for characters that SentencePiece normalizes otherwise."""
    lines = [" ".join(texts.TEXTS), *toyworld_lines()]
    words = tokenizer_sentencepiece.train(lines * 2, 1000, tmp_path / "ours", "bpe")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert len(theirs) == len(words)
    for role in ("bos", "eos", "unk", "pad", "mask"):
        assert getattr(theirs, f"{role}_token_id") == getattr(words, f"{role}_id")
    compared, normalize = 0, theirs.backend_tokenizer.normalizer.normalize_str
    for text in texts.TEXTS + some_strings + toyworld_lines():
        if normalize(text).replace(" ", MARK) == words.processor.normalize(text)[1:]:
            ids, counts = words.encode_segments([text])
            assert theirs(text)["input_ids"] == [words.bos_id, *ids, words.eos_id], text
            compared += counts[0] > 3
    assert compared > len(some_strings) / 4 + len(toyworld_lines())
    theirs.save_pretrained(tmp_path / "again")  # characters, no bytes, and no entities
    with pytest.raises(ValueError, match="tokenizer.json: BPE over characters, expected bytes.* sentencepiece.bpe.mod"):
        tokenizer.load(tmp_path / "again")


# --- Models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("architecture", oracle.CLASSES)
def test_live_there_and_back(architecture, family, transformers, made, tmp_path):
    """transformers' folder -> ours -> transformers: titles, equal tensors, and the numbers of a padded batch."""
    keys = FAMILIES[family][1]
    sizes = {"vocab_size": len(tokenizer.load(texts.HERE / family)), "entity_vocab_size": len(set(keys.values()))}
    theirs = oracle.random_model(architecture, 11, use_entity_aware_attention=family == "luke", **sizes)
    oracle.save(theirs, tmp_path / "theirs")
    made[family].save_pretrained(tmp_path / "theirs")
    found = checkpoint.read(tmp_path / "theirs")
    assert not found.unexpected and len(found.tokenizer) == found.config.vocab_size
    assert all(found.entity_vocab.get(key) == number for key, number in keys.items())

    model, words, vocab = checkpoint.load(tmp_path / "theirs")
    checkpoint.save(tmp_path / "ours", model, words, vocab)
    theirs_again = getattr(transformers, architecture)
    again, loading = theirs_again.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(loading.values()), loading
    assert_equal(again.state_dict(), theirs.state_dict())

    batch = in_float64(oracle.random_inputs(architecture, theirs.config, "ragged", 5, False))
    expected, _ = theirs_of(architecture, theirs.double(), batch)
    check_outputs(ours_of(architecture, in_float64(model), batch)[0], expected)
    check_outputs(theirs_of(architecture, again.eval().double(), batch)[0], expected)
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert type(opened).__name__ == FAMILIES[family][0] and opened.entity_vocab == keys


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", [None, *(f"entity_{kind}classification" for kind in ("", "pair_", "span_"))])
def test_live_inputs_from_a_text(family, task, transformers, made, tmp_path):
    """A text with mentions becomes the same word ids, entity ids and positions as in transformers."""
    made[family].save_pretrained(tmp_path)
    theirs = getattr(transformers, FAMILIES[family][0]).from_pretrained(tmp_path, task=task)
    text, spans = "Ada met Bo of the snow", [(0, 3), (8, 10)][: 1 if task == "entity_classification" else 2]
    entities = ["Oslo" if family == "luke" else "en:Oslo", "Nobody"] if task is None else None
    words, vocab = tokenizer.load(tmp_path), EntityVocab.of_folder(tmp_path)
    ours = inputs.encode(words, vocab, text, entity_spans=spans, entities=entities, task=task)
    expected = theirs(text, entity_spans=spans, entities=entities)
    assert ours.keys() == expected.keys() and len(ours) >= 5
    for name, values in expected.items():
        assert ours[name].tolist() == values, name


def test_an_embedding_of_mask_of_its_own_is_the_row_of_mask_there(transformers, made, tmp_path):
    """That of a disambiguation model: transformers knows the entity table alone. Ours reads its own one again."""
    sizes = {"vocab_size": len(tokenizer.load(texts.HERE / "luke")), "entity_vocab_size": len(texts.ENTITIES)}
    theirs = oracle.random_model("LukeForMaskedLM", 4, **sizes)
    oracle.save(theirs, tmp_path / "theirs")
    made["luke"].save_pretrained(tmp_path / "theirs")
    found = task_disambiguation.prepare(checkpoint.read(tmp_path / "theirs"))
    mask = found.weights["luke.entities.mask"]
    mask += torch.randn(mask.shape, generator=generator(5))
    before = found.weights["luke.entities.entity.weight"].clone()
    batch = in_float64(oracle.random_inputs("LukeForMaskedLM", theirs.config, "ragged", 6, False))
    batch["entity_ids"][0, 0] = found.entity_vocab.mask_id
    expected = ours_of("LukeForMaskedLM", in_float64(checkpoint.build(found)), batch)[0]
    for architecture in ("LukeForMaskedLM", "LukeModel"):
        folder = tmp_path / architecture
        folder.mkdir()
        checkpoint.write_files(folder, replace(found, settings={"architectures": [architecture]}))
        theirs = getattr(transformers, architecture).from_pretrained(folder).eval().double()
        luke = getattr(theirs, "luke", theirs)
        assert torch.equal(luke.entity_embeddings.entity_embeddings.weight[found.entity_vocab.mask_id], mask.double())
    assert torch.equal(found.weights["luke.entities.entity.weight"], before)  # the checkpoint itself is as it was
    again = checkpoint.build(checkpoint.read(tmp_path / "LukeForMaskedLM"))
    theirs = transformers.LukeForMaskedLM.from_pretrained(tmp_path / "LukeForMaskedLM").eval().double()
    outputs = theirs_of("LukeForMaskedLM", theirs, batch), ours_of("LukeForMaskedLM", in_float64(again), batch)
    for one, _ in outputs:
        assert_same(one["scores"], expected["scores"])


def test_two_classes_without_names(transformers, made, tmp_path):
    """transformers leaves id2label out where it is LABEL_0 and LABEL_1."""
    sizes = {"vocab_size": len(tokenizer.load(texts.HERE / "luke")), "entity_vocab_size": len(texts.ENTITIES)}
    theirs = oracle.random_model("LukeForSequenceClassification", 3, num_labels=2, **sizes)
    oracle.save(theirs, tmp_path)
    made["luke"].save_pretrained(tmp_path)
    assert "id2label" not in json.loads((tmp_path / "config.json").read_text())
    opened = inference.load(tmp_path)
    assert opened.model.labels == ("LABEL_0", "LABEL_1")
    (answer,) = inference.answer(opened, ["Ada met Bo."])
    assert answer["label"] in opened.model.labels


# --- Scoring what transformers saved ----------------------------------------------------------------------------------

SCORED = {  # class of transformers -> task, file below the built-in encyclopedia's data, labels
    "LukeForEntityClassification": ("typing", "typing/test.json", ["person", "city"]),
    "LukeForEntityPairClassification": ("relation", "relation/test.json", ["no_relation", "per:employee_of"]),
    "LukeForEntitySpanClassification": ("ner", "ner/test.conll", ["NIL", "MISC", "PER", "ORG", "LOC"]),
    "LukeForTokenClassification": ("ner", "ner/test.conll", ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]),
    "LukeForQuestionAnswering": ("qa", "qa/test-v1.1.json", None),
    "LukeForSequenceClassification": ("classification", "classification/pair/test.json", ["entailment", "contradiction"]),
    "LukeForMultipleChoice": ("classification", "classification/choice/test.json", None),
    "LukeForMaskedLM": ("disambiguation", "disambiguation/test/test.xml", None),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SCORED)
def test_every_class_of_transformers_is_scored(transformers, made, toy_data, tmp_path, name, family):
    """finetune.py --evaluate on a folder that transformers wrote: a score, predictions, nothing trained."""
    task, file, labels = SCORED[name]
    words = made[family]
    names = {"id2label": dict(enumerate(labels)), "label2id": {x: i for i, x in enumerate(labels)}} if labels else {}
    torch.manual_seed(0)
    config = transformers.LukeConfig(
        vocab_size=len(words) - 4, entity_vocab_size=len(set(FAMILIES[family][1].values())), hidden_size=32,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, entity_emb_size=16,
        max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, **names,
    )  # fmt: skip
    getattr(transformers, name)(config).save_pretrained(tmp_path / "theirs")
    words.save_pretrained(tmp_path / "theirs")
    before = (tmp_path / "theirs/model.safetensors").read_bytes()
    call = f"{task} --checkpoint {tmp_path}/theirs --evaluate {toy_data}/{file} --out {tmp_path}/out --test-examples 3"
    finetune.main(call.split())
    results = json.loads((tmp_path / "out/results.json").read_text())["results"]["evaluated"]["scores"]["test"]
    assert 0 <= results["0"][inference.TASKS[task].SCORES[-1]] <= 1 and list((tmp_path / "out").glob("test_*"))
    assert (tmp_path / "theirs/model.safetensors").read_bytes() == before

"""Every head and family: scores, losses and gradients are those of transformers, recorded and live.

    pytest tests/test_heads.py

Recorded: tests/fixtures/hf, made by make_hf_fixtures.py, needs no transformers. Live: random shapes and weights. The
same functions in float64, and live as good in float32: see closeness.py. Folders: test_saved_by_transformers.py.
Two losses of transformers count padding (question answering, 0/1 labels for spans): there the expected loss is the
formula over the real rows of transformers' scores, written out here.
"""

import copy
import json
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_as_good, assert_equal, assert_same, by_layer, generator, seeded
from fixtures import make_hf_fixtures as oracle
from safetensors.torch import load_file
from test_model import SMALL, build, padded_batch

from luke_mini import checkpoint, heads, packing
from luke_mini.model import LukeForPretraining, LukeModel
from luke_mini.weights import from_released, to_released

FOLDERS = sorted(path.name for path in oracle.HERE.iterdir())


def masked_lm(model: LukeForPretraining, inputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of all words and entities of a padded batch."""
    words, entities = model.luke(**inputs)
    word_scores = model.word_head(words, model.luke.words.token.weight)
    return word_scores, model.entity_head(entities, model.luke.entities.entity.weight)


def outputs_of(model, inputs: dict) -> dict:
    """Ours, under the names of the oracle."""
    inputs = {name: tensor.clone() for name, tensor in inputs.items()}
    if isinstance(model, LukeModel):
        words, entities = model(**inputs)
        pooled = model.pool(words[:, 0])
        return {"words": words, "entities": entities, "pooled": pooled, "loss": oracle.pooled_loss(pooled)}
    if isinstance(model, LukeForPretraining):
        labels, entity_labels = inputs.pop("labels"), inputs.pop("entity_labels", None)
        words, entities = masked_lm(model, inputs)
        pairs = [(words, labels)] + [(entities, entity_labels)] * (entity_labels is not None)
        loss = sum(F.cross_entropy(scores.flatten(0, 1), given.flatten()) for scores, given in pairs)
        return {"scores": words, "entities": entities, "loss": loss}
    loss, scores = model(**inputs)
    return {"scores": scores, "loss": loss}


def real_rows(name: str, architecture: str, tensor: torch.Tensor, inputs: dict) -> torch.Tensor:
    """Those of the real words or entities, where a tensor has rows for them."""
    if name == "entities" or "Span" in architecture and name == "scores":
        return tensor[inputs["entity_attention_mask"].bool()]
    by_word = architecture in ("LukeForMaskedLM", "LukeForTokenClassification", "LukeForQuestionAnswering")
    if name == "words" or by_word and name == "scores":
        return tensor[inputs["attention_mask"].bool()]
    return tensor


def loss_over_real_rows(architecture: str, outputs: dict, inputs: dict) -> torch.Tensor:
    """The loss of transformers, without its padding: see above."""
    if architecture == "LukeForQuestionAnswering":
        scores = outputs["scores"].masked_fill(inputs["attention_mask"][:, :, None] == 0, -1e30)
        ends = [inputs[name].clamp(0, scores.shape[1]) for name in ("start_positions", "end_positions")]
        losses = [F.cross_entropy(scores[:, :, i], end, ignore_index=scores.shape[1]) for i, end in enumerate(ends)]
        return sum(losses) / 2
    if "Span" in architecture and inputs["labels"].dim() == 3:
        real = inputs["entity_attention_mask"].bool()
        return F.binary_cross_entropy_with_logits(outputs["scores"][real], inputs["labels"][real].to(outputs["scores"]))
    return outputs["loss"]


def in_float64(thing):
    """A copy of a model or of a dictionary of tensors."""
    if isinstance(thing, torch.nn.Module):
        return copy.deepcopy(thing).double()
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in thing.items()}


def compared(architecture: str, outputs: dict, inputs: dict) -> dict:
    """Of outputs, what is compared: the real rows and the loss."""
    return {
        name: tensor if name == "loss" else real_rows(name, architecture, tensor, inputs)
        for name, tensor in outputs.items()
        if name != "entities" or "entity_ids" in inputs
    }


def ours_of(architecture: str, model, inputs: dict) -> tuple[dict, dict]:
    """What is compared of our outputs, and the gradients of the loss by released names."""
    outputs = outputs_of(model, inputs)
    gradients = oracle.gradients_of(model, outputs["loss"])
    if architecture == "LukeModel":
        gradients = {f"luke.{name}": gradient for name, gradient in gradients.items()}
    return compared(architecture, outputs, inputs), to_released(gradients, model.config, architecture)


def theirs_of(architecture: str, model, inputs: dict) -> tuple[dict, dict]:
    outputs = oracle.outputs_of(architecture, model, inputs)
    outputs["loss"] = loss_over_real_rows(architecture, outputs, inputs)
    return compared(architecture, outputs, inputs), oracle.gradients_of(model, outputs["loss"])


def layers_of(gradients: dict, names) -> dict:
    """The gradients of these names by layer; a parameter that has no part in the loss has a gradient of zero."""
    zeros = {name: torch.zeros_like(tensor) for name, tensor in names.items()}
    return by_layer({name: gradients.get(name, zeros[name]) for name in names})


def check_outputs(ours: dict, theirs: dict) -> None:
    assert len(theirs) > 1
    for name, expected in theirs.items():
        assert_same(ours[name], expected, name)


def check_gradients(ours: dict, theirs: dict) -> None:
    """theirs: of every parameter that has one there."""
    assert len(theirs) > 20
    found = layers_of(ours, theirs)
    for layer, expected in by_layer(theirs).items():
        assert_same(found[layer], expected, layer)


# --- Recorded ---------------------------------------------------------------------------------------------------------


def recorded(folder: str):
    tensors = load_file(oracle.HERE / folder / "expected.safetensors")
    cases = {}
    for key, tensor in tensors.items():
        case, kind, *name = key.split("/")
        if case == "gradient":
            cases.setdefault("gradient", {})[kind] = tensor
        else:
            cases.setdefault(case, {}).setdefault(kind, {})[name[0]] = tensor
    return cases


@pytest.mark.parametrize("folder", FOLDERS)
def test_recorded_outputs_and_gradients(folder):
    architecture = folder.split("-")[0]
    found = checkpoint.read(oracle.HERE / folder, vocabularies=False)
    assert not found.unexpected
    model = checkpoint.build(found).double()
    cases = recorded(folder)
    gradient = cases.pop("gradient")
    multi_label_span = architecture == "LukeForEntitySpanClassification" and folder.endswith("-mluke")
    counts_padding = architecture == "LukeForQuestionAnswering" or multi_label_span
    assert len(cases) >= 2
    for case, held in cases.items():
        inputs, expected = in_float64(held["input"]), held["output"]
        expected["loss"] = loss_over_real_rows(architecture, expected, inputs)
        outputs, gradients = ours_of(architecture, model, inputs)
        check_outputs(outputs, compared(architecture, expected, inputs))
        if case == ("full" if counts_padding else "ragged"):
            check_gradients(gradients, gradient)


def test_every_head_and_family_is_recorded():
    classes, families = ({name.split("-")[part] for name in FOLDERS} for part in (0, 1))
    assert classes == set(oracle.CLASSES) == {"LukeModel", "LukeForMaskedLM", *heads.HEADS}
    assert families == set(oracle.FAMILIES)
    assert sum(path.stat().st_size for path in oracle.HERE.rglob("*.*")) < 3_000_000


@pytest.mark.parametrize("folder", FOLDERS)
def test_saving_a_recorded_model_gives_equal_tensors(folder, tmp_path):
    """File -> model -> file: the same names and bits, apart from tensors that are tied."""
    checkpoint.write(tmp_path, checkpoint.build(checkpoint.read(oracle.HERE / folder, vocabularies=False)), None, None)
    before, after = (load_file(path / "model.safetensors") for path in (oracle.HERE / folder, tmp_path))
    before.pop("entity_predictions.decoder.weight", None)
    assert_equal(after, before)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [folder.split("-")[0]]


# --- Packed and padded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", heads.HEADS)
def test_packed_scores_are_the_padded_ones(architecture):
    model = build(SMALL, lambda config: heads.LukeForTask(config, architecture, 4))
    inputs = padded_batch(SMALL, [7, 3, 12], [2, 3, 5])
    batch = packing.from_padded(**inputs, pad_id=SMALL.pad_token_id)
    rows, more = None, {}
    if "Span" in architecture:
        starts, ends = torch.tensor([[1, 2, 0, 0, 0], [0, 2, 1, 0, 0], [11, 3, 2, 1, 0]]), torch.full((3, 5), 2)
        more = {"entity_start_positions": starts, "entity_end_positions": ends}
        mask = inputs["entity_attention_mask"].bool()
        rows = heads.span_rows(batch, starts[mask], ends[mask])
    if architecture == "LukeForMultipleChoice":
        model = build(SMALL, lambda config: heads.LukeForTask(config, architecture, 1))
        inputs = {name: tensor.unsqueeze(0) for name, tensor in inputs.items()}
    loss, padded = model(**inputs, **more)
    assert loss is None
    packed = model.scores(batch, rows)
    if architecture in ("LukeForTokenClassification", "LukeForQuestionAnswering"):
        padded = padded[inputs["attention_mask"].bool()]
    elif "Span" in architecture:
        assert not padded[~mask].any()
        padded = padded[mask]
    torch.testing.assert_close(packed, padded.reshape(packed.shape), rtol=0, atol=0)


@pytest.mark.parametrize("head", ["entity", "token", "token+entity"])
def test_rows_of_marked_mentions(head):
    """Texts of 4 and 3 words, two mentions each: the markers in front of these, and the entities behind all words."""
    spans = np.array([[1, 2], [2, 4]]), np.array([[0, 1], [2, 3]])
    texts = [packing.Sequence(np.arange(5, 5 + n), np.array([2, 3]), at) for n, at in zip((4, 3), spans)]
    features = [heads.MentionFeature(i, text, i, False) for i, text in enumerate(texts)]
    batch = heads.collate_mentions(features, 3, head, 1, 30)
    expected = [[1, 4], [2, 6]] * ("token" in head) + [[7, 9], [8, 10]] * ("entity" in head)
    assert [rows.tolist() for rows in batch.rows] == expected and batch.rows_per_input == (1, 1)
    assert batch.labels.tolist() == [0, 1]
    assert batch.packed.n_entities == 4 * ("entity" in head)
    model = heads.TaskModel(build(SMALL), ("a", "b", "c"), head, len(expected), None)
    assert model.logits(batch).shape == (2, 3)


def test_missing_masks_mean_that_everything_is_real():
    for architecture in ("LukeForEntitySpanClassification", "LukeForTokenClassification", "LukeForQuestionAnswering"):
        model = build(SMALL, lambda config: heads.LukeForTask(config, architecture, 2))  # noqa: B023
        inputs = padded_batch(SMALL, [6, 6], [2, 2])
        if "Span" in architecture:
            inputs |= {"entity_start_positions": torch.ones(2, 2, dtype=torch.long)}
            inputs |= {"entity_end_positions": torch.full((2, 2), 3)}
        bare = {name: tensor for name, tensor in inputs.items() if "mask" not in name}
        torch.testing.assert_close(model(**bare)[1], model(**inputs)[1], rtol=0, atol=0)


def test_too_few_entities_and_spans_at_padding_are_named():
    model = build(SMALL, lambda config: heads.LukeForTask(config, "LukeForEntityPairClassification", 3))
    with pytest.raises(ValueError, match="sequence 1 of the batch has 1 entities, this head looks at 2"):
        model(**padded_batch(SMALL, [5, 6], [2, 1]))
    model = build(SMALL, lambda config: heads.LukeForTask(config, "LukeForEntitySpanClassification", 3))
    inputs = padded_batch(SMALL, [5, 6], [1, 1])
    with pytest.raises(ValueError, match="needs entity_start_positions"):
        model(**inputs)
    with pytest.raises(ValueError, match="found one at padding"):
        model(**inputs, entity_start_positions=torch.ones(2, 1).long(), entity_end_positions=torch.full((2, 1), 5))


def test_answer_loss_by_hand():
    """Two sequences of 3 and 2 words; uniform scores; the second answer ends outside its sequence."""
    scores = torch.zeros(2, 3, 2, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    scores = scores.masked_fill(mask[:, :, None] == 0, float("-inf"))
    loss = heads.answer_loss(scores, mask, torch.tensor([0, 1]), torch.tensor([2, 2]))
    start, end = (math.log(3) + math.log(2)) / 2, math.log(3)
    assert_same(loss, (start + end) / 2)
    assert not torch.isnan(heads.answer_loss(scores, mask, torch.tensor([-4, 1]), torch.tensor([99, 0])))


@pytest.mark.parametrize("mask, starts, ends", [
    ([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]], [3, 0], [4, 2]),  # padding on the left; the second answer starts in it
    ([[1, 0, 1, 0, 1], [1, 1, 0, 0, 1]], [2, 4], [1, 4]),  # holes; the first answer ends in one
    ([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]], [0, 0], [3, 4]),  # a sequence that is all padding
    ([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0]], [3, 0], [4, 99]),  # no answer is inside
])  # fmt: skip
def test_the_loss_of_answers_wherever_the_padding_is(mask, starts, ends):
    """The mean over answers at words, each against the words of its sequence alone; gradients are finite and as is."""
    mask, given = torch.tensor(mask), [torch.tensor(starts), torch.tensor(ends)]
    raw = torch.randn(2, 5, 2, dtype=torch.float64, generator=generator(3)).requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    for column, positions in enumerate(given):
        losses = []
        for row, at in enumerate(positions.tolist()):
            words = mask[row].nonzero()[:, 0].tolist()
            if at in words:
                losses.append(raw[row, words, column].logsumexp(0) - raw[row, at, column])
        expected = expected + sum(losses) / max(1, len(losses)) / 2
    wanted = torch.autograd.grad(expected, raw)[0] if expected.requires_grad else torch.zeros_like(raw)
    loss = heads.answer_loss(raw.masked_fill(mask[:, :, None] == 0, float("-inf")), mask, *given)
    assert_same(loss.detach(), expected.detach())
    torch.testing.assert_close(torch.autograd.grad(loss, raw)[0], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("empty", [2, 0])
@pytest.mark.parametrize("architecture", [name for name in heads.HEADS if "Span" not in name])
def test_a_sequence_of_padding_alone_has_no_score(architecture, empty):
    """As the last row of a batch that is filled up to its size: the others have the scores that they have without."""
    classes = 1 if architecture == "LukeForMultipleChoice" else 2
    model = build(SMALL, lambda config: heads.LukeForTask(config, architecture, classes))
    inputs = padded_batch(SMALL, [7, 3, 5], [2, 2, 2])
    real = [row for row in range(3) if row != empty]
    alone = {name: tensor[real].unsqueeze(0) if classes == 1 else tensor[real] for name, tensor in inputs.items()}
    for name in ("attention_mask", "entity_attention_mask"):
        inputs[name][empty] = 0
    inputs = {name: tensor.unsqueeze(0) if classes == 1 else tensor for name, tensor in inputs.items()}
    (_, scores), (_, expected) = model(**inputs), model(**alone)
    scores, expected = (tensor.squeeze(0) if classes == 1 else tensor for tensor in (scores, expected))
    torch.testing.assert_close(scores[real], expected, rtol=1e-5, atol=1e-5)
    assert (scores[empty] == (float("-inf") if "Answering" in architecture else 0)).all()


def test_dropout_of_each_head():
    config = replace(SMALL, hidden_dropout_prob=0.25, classifier_dropout=0.5)
    dropout = {name[7:]: heads.LukeForTask(config, name, 2).classifier.dropout for name in heads.HEADS}
    assert dropout == {
        **{f"Entity{kind}Classification": 0.25 for kind in ("", "Pair", "Span")}, "QuestionAnswering": 0.0,
        **dict.fromkeys(("SequenceClassification", "TokenClassification", "MultipleChoice"), 0.5),
    }  # fmt: skip
    config = replace(config, classifier_dropout=None)
    assert heads.LukeForTask(config, "LukeForTokenClassification", 2).classifier.dropout == 0.25


def test_the_mask_embedding_replaces_the_row_of_mask():
    """Entity disambiguation: with the table's own row it changes nothing, and it takes the row's gradient."""
    plain, model = build(SMALL), LukeModel(replace(SMALL, mask_entity_id=2)).eval()
    released = to_released({f"luke.{name}": tensor for name, tensor in plain.state_dict().items()}, SMALL)
    weights = from_released(released, model.config)
    checkpoint.fill(model, {name.removeprefix("luke."): tensor for name, tensor in weights.items()})
    inputs = padded_batch(SMALL, [6, 9], [2, 3])
    inputs["entity_ids"].clamp_(min=3)[0, 0] = 2
    for mine, other in zip(model(**inputs), plain(**inputs)):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
    model(**inputs)[0].sum().backward()
    assert model.entities.mask.grad.any() and not model.entities.entity.weight.grad[2].any()
    with torch.no_grad():
        model.entities.mask.add_(1.0)
    assert (model(**inputs)[0][0] - plain(**inputs)[0][0]).abs().max() > 1e-3
    assert torch.equal(model(**inputs)[0][1], plain(**inputs)[0][1])


# --- Live -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers():
    module = pytest.importorskip("transformers", reason="the oracle `transformers` is not installed")
    module.utils.logging.set_verbosity_error()
    module.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    yield module
    logging.disable(logging.NOTSET)


def random_settings(seed: int) -> dict:
    """A random shape: sizes, heads, vocabulary, entity-aware or not, entity size equal to the hidden size or not."""
    draws = generator(seed)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (), generator=draws))

    attention_heads = draw(1, 4)
    hidden = attention_heads * 4 * draw(1, 4)
    return {
        "vocab_size": draw(20, 80), "entity_vocab_size": draw(5, 30), "hidden_size": hidden,
        "num_attention_heads": attention_heads, "num_hidden_layers": draw(1, 3), "intermediate_size": draw(4, 40),
        "entity_emb_size": [hidden, 4, 8][seed % 3], "max_position_embeddings": draw(60, 80),
        "type_vocab_size": draw(1, 2), "layer_norm_eps": [1e-5, 1e-12][seed % 2],
        "use_entity_aware_attention": seed % 4 < 2, "classifier_dropout": [None, 0.3][seed % 2],
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("architecture", oracle.CLASSES)
def test_live_equals_transformers(transformers, architecture, seed, tmp_path):
    settings = random_settings(seed)
    if architecture == "LukeForSequenceClassification":
        settings["num_labels"] = [3, 1, 4, 2][seed]
    theirs = oracle.random_model(architecture, seeded(seed), **settings)
    oracle.save(theirs, tmp_path)
    model = checkpoint.build(checkpoint.read(tmp_path, vocabularies=False))
    theirs_64, model_64 = in_float64(theirs), in_float64(model)
    draw = generator(seed)
    batch, seq, n_entity = (int(torch.randint(2, high, (), generator=draw)) for high in (6, 40, 9))
    in_float32 = [], [], []  # ours, theirs, exact
    for case in oracle.cases_of(architecture):
        inputs = oracle.random_inputs(
            architecture, theirs.config, case, seeded(seed), seed % 2 == 1, batch, max(seq, 5), max(n_entity, 3)
        )
        exact, exact_gradients = theirs_of(architecture, theirs_64, in_float64(inputs))
        if "scores" in exact and exact["loss"].isnan():
            continue
        outputs, gradients = ours_of(architecture, model_64, in_float64(inputs))
        check_outputs(outputs, exact)
        check_gradients(gradients, exact_gradients)
        rounded = ours_of(architecture, model, inputs), theirs_of(architecture, theirs, inputs)
        for found, (outputs, gradients) in zip(in_float32, (*rounded, (exact, exact_gradients))):
            layers = layers_of(gradients, exact_gradients)
            found += [outputs[name] for name in exact] + [layers[layer] for layer in sorted(layers)]
    assert_as_good(*in_float32)


def test_row_0_of_the_entity_table(transformers):
    """transformers never trains it as an input; ours does, unless the configuration asks for the same."""
    architecture = "LukeForEntityClassification"
    for freeze in (True, False):
        theirs = oracle.random_model(architecture, seeded(), entity_vocab_size=4).double()
        inputs = oracle.random_inputs(architecture, theirs.config, "full", seeded(), False)
        inputs["entity_ids"][:] = 0  # [MASK] of a lite model
        config = replace(checkpoint.model_config(theirs.config.to_dict()), freeze_entity_row0=freeze)
        model = heads.LukeForTask(config, architecture, 3).eval().double()
        checkpoint.fill(model, from_released(dict(theirs.state_dict()), config))
        ours, gradients = ours_of(architecture, model, inputs)
        exact, expected = theirs_of(architecture, theirs, inputs)
        check_outputs(ours, exact)
        table = expected.pop("luke.entity_embeddings.entity_embeddings.weight")
        check_gradients(gradients, expected)
        assert not table[0].any() and model.luke.entities.entity.weight.grad[0].any() != freeze

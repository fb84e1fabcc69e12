"""A whole model on the Triton kernels, in their interpreter, is as good as the same model in plain PyTorch.

pytest tests/test_ops_kernels.py        (the check itself runs in a process of its own, with the interpreter on)
"""

import copy

import pytest
import torch
import torch._dynamo.testing
from closeness import assert_as_good, by_layer, generator, seeded
from interpreter import expect_passed, interpreted

from luke_mini import config, ops, packing
from luke_mini.batching import PretrainBatch
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining


@pytest.fixture(autouse=True)
def back_to_auto():
    yield
    ops.use_backend("auto")


PROCESSES = interpreted(__file__, "interpreted")


def test_in_the_interpreter(output_of):
    expect_passed(output_of("interpreted"))


def test_the_choice_is_made_by_device_and_can_be_forced(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: {gpu: (9, 0)}.get(device, (7, 5)))
    assert (ops.backend_for(cpu), ops.backend_for(gpu)) == ("torch", "triton")
    assert ops.backend_for(gpu, torch.float16, 32) == "triton"
    # float32, another head size, too old a GPU, no Triton, AMD's, which answers as cuda 9.4
    assert ops.backend_for(gpu, torch.float32) == ops.backend_for(gpu, torch.bfloat16, 128) == "torch"
    assert ops.backend_for(torch.device("cuda", 0)) == ops.backend_for(torch.device("mps")) == "torch"
    for owner, name, value in ((ops, "HAS_TRITON", False), (torch.version, "hip", "6.0")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            assert ops.backend_for(gpu) == "torch"
    ops.use_backend("torch")
    assert (ops.backend_for(cpu), ops.backend_for(gpu)) == ("torch", "torch")
    ops.use_backend("triton")
    assert (ops.backend_for(cpu), ops.backend_for(gpu)) == ("triton", "triton")
    with pytest.raises(ValueError, match="expected auto, triton or torch"):
        ops.use_backend("cuda")


def test_another_device_takes_the_other_form(monkeypatch):
    """On "meta", where nothing is computed: neither the CPU's operators nor the kernels are reached."""
    monkeypatch.setattr(ops, "ops_cpu", None)
    model, batch = make_model_and_batch()
    terms = model.to("meta")(batch.to("meta"))
    sum(loss for loss, _ in terms.values()).backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "pooler" not in name)


def step(model, batch):
    torch.manual_seed(5)
    model.zero_grad()
    terms = model(batch)
    sum(loss for loss, _ in terms.values()).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found | {name: torch.stack([loss.detach(), hits]) for name, (loss, hits) in terms.items()}


def test_a_compiled_model_computes_the_same():
    """torch.compile without a break in its graph: compiled once for the first batch, once for all that follow."""
    torch.compiler.reset()
    model, _ = make_model_and_batch(dropout=0.1)
    inner, compiled = torch._dynamo.testing.CompileCounterWithBackend("aot_eager"), copy.deepcopy(model)
    training = torch.compile(compiled, backend=inner, fullgraph=True)
    for n in range(6):
        batch = make_batch((17 + 6 * n, 40 - 3 * n, 9 + 4 * n), (3, 0, 19 - 2 * n))  # nothing has the same size twice
        expected = step(model, batch)
        terms = step(training, batch)
        found = {name: p.grad for name, p in compiled.named_parameters() if p.grad is not None}
        found, expected = by_layer(found | {name: terms[name] for name in ("word", "entity")}), by_layer(expected)
        assert found.keys() == expected.keys() and len(found) > 20
        for name, gradient in found.items():
            assert (gradient - expected[name]).norm() <= 1e-5 * expected[name].norm(), name
    assert inner.frame_count <= 2
    predicting = torch.compile(compiled.luke.eval(), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for n in range(2):
            batch = make_batch((5 + n, 30), (2, 2 + n)).packed
            assert (predicting(batch) - model.luke.eval()(batch)).norm() <= 1e-5 * len(batch.word_ids)


def make_model_and_batch(layers=2, dropout=0.0):
    shape = config.ModelConfig(
        vocab_size=211, entity_vocab_size=307, hidden_size=64, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=48, entity_emb_size=32, max_position_embeddings=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=dropout, initializer_range=0.2,
    )  # fmt: skip
    model = LukeForPretraining(shape).train()
    initialize(model, shape, seeded())
    return model, make_batch((17, 40, 5), (3, 0, 9))


def make_batch(words, entities):
    draws, n_words, n_entities = generator(), sum(words), sum(entities)
    batch = packing.PackedBatch(
        word_ids=torch.randint(4, 211, (n_words,), generator=draws),
        word_positions=torch.cat([torch.arange(2, 2 + n) for n in words]),
        entity_ids=torch.randint(4, 307, (n_entities,), generator=draws),
        mention_positions=torch.randint(0, 5, (2 * n_entities,), generator=draws),
        mention_offsets=torch.arange(0, 2 * n_entities + 1, 2),
        word_lengths=words,
        entity_lengths=entities,
    )
    rows, entity_rows = torch.arange(0, n_words, 5), torch.arange(0, n_entities, 2)
    return PretrainBatch(batch, rows, batch.word_ids[rows], entity_rows, batch.entity_ids[entity_rows])


def loss_and_gradients(model, batch, form):
    ops.use_backend(form)
    torch.manual_seed(5)
    terms = model(batch)
    model.zero_grad(set_to_none=True)
    sum(loss for loss, _ in terms.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {name: (loss.detach(), int(hits)) for name, (loss, hits) in terms.items()}, gradients


def interpreted_model_on_kernels_equals_plain_model():
    model, batch = make_model_and_batch()
    exact_terms, exact = loss_and_gradients(copy.deepcopy(model).double(), batch, "torch")
    (terms, gradients), (plain_terms, plain) = (loss_and_gradients(model, batch, form) for form in ("triton", "torch"))
    assert gradients.keys() == plain.keys() and len(gradients) > 30
    assert [terms[name][1] for name in exact_terms] == [hits for _, hits in exact_terms.values()]
    losses = ([found[name][0] for name in exact_terms] for found in (terms, plain_terms, exact_terms))
    assert_as_good(*([*loss, *by_layer(g).values()] for loss, g in zip(losses, (gradients, plain, exact))))


def interpreted_dropout_obeys_torchs_seed():
    model, batch = make_model_and_batch(layers=1, dropout=0.3)
    first, second = (loss_and_gradients(model, batch, "triton") for _ in range(2))
    assert first[0] == second[0] and all(torch.equal(first[1][name], second[1][name]) for name in first[1])
    torch.manual_seed(6)
    assert {name: loss.item() for name, (loss, _) in model(batch).items()} != {
        name: loss.item() for name, (loss, _) in first[0].items()
    }

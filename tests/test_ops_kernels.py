"""A whole model on the Triton kernels, in their interpreter, against the same model in plain PyTorch.

pytest tests/test_ops_kernels.py        (the check itself runs in a process of its own, with the interpreter on)
"""

import pytest
import torch
from interpreter import expect_passed, start_interpreted

from luke_mini import config, ops, packing
from luke_mini.batching import PretrainBatch
from luke_mini.model import LukeForPretraining, initialize


@pytest.fixture(autouse=True)
def back_to_auto():
    yield
    ops.use_kernels("auto")


def test_in_the_interpreter():
    expect_passed(start_interpreted(__file__, parts=("interpreted",))["interpreted"])


def test_the_choice_is_made_by_device_and_can_be_forced():
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 1)
    assert (ops.form_on(cpu), ops.form_on(gpu)) == ("plain", "triton")
    ops.use_kernels("plain")
    assert (ops.form_on(cpu), ops.form_on(gpu)) == ("plain", "plain")
    ops.use_kernels("triton")
    assert (ops.form_on(cpu), ops.form_on(gpu)) == ("triton", "triton")
    with pytest.raises(ValueError, match="expected auto, triton or plain"):
        ops.use_kernels("cuda")


def make_model_and_batch(dropout=0.0):
    shape = config.ModelConfig(
        vocab_size=211, entity_vocab_size=307, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, entity_emb_size=32, max_position_embeddings=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=dropout, initializer_range=0.2,
    )  # fmt: skip
    model = LukeForPretraining(shape).train()
    initialize(model, shape, 0)
    generator = torch.Generator().manual_seed(0)
    words, entities = (17, 40, 5), (3, 0, 9)
    batch = packing.PackedBatch(
        word_ids=torch.randint(4, 211, (62,), generator=generator),
        word_positions=torch.cat([torch.arange(2, 2 + n) for n in words]),
        entity_ids=torch.randint(4, 307, (12,), generator=generator),
        mention_positions=torch.randint(0, 5, (24,), generator=generator),
        mention_offsets=torch.arange(0, 25, 2),
        word_lengths=words,
        entity_lengths=entities,
    )
    rows, entity_rows = torch.arange(0, 62, 5), torch.arange(0, 12, 2)
    return model, PretrainBatch(batch, rows, batch.word_ids[rows], entity_rows, batch.entity_ids[entity_rows],
                                torch.zeros(3))  # fmt: skip


def loss_and_gradients(model, batch, form):
    ops.use_kernels(form)
    torch.manual_seed(5)
    terms = model(batch)
    model.zero_grad(set_to_none=True)
    sum(loss for loss, _ in terms.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {name: (float(loss.detach()), int(hits)) for name, (loss, hits) in terms.items()}, gradients


def interpreted_model_on_kernels_equals_plain_model():
    model, batch = make_model_and_batch()
    terms, gradients = loss_and_gradients(model, batch, "triton")
    plain_terms, plain_gradients = loss_and_gradients(model, batch, "plain")
    for name, (loss, hits) in plain_terms.items():
        assert abs(terms[name][0] - loss) < 1e-5 * loss and terms[name][1] == hits
    assert gradients.keys() == plain_gradients.keys() and len(gradients) > 30
    largest = max(float(x.norm()) for x in plain_gradients.values())
    for name, gradient in plain_gradients.items():  # a key's bias, for one, has no influence: its gradient is noise
        assert float((gradients[name] - gradient).norm()) < 1e-5 * float(gradient.norm()) + 1e-7 * largest, name


def interpreted_dropout_obeys_torchs_seed():
    model, batch = make_model_and_batch(dropout=0.3)
    first, second = (loss_and_gradients(model, batch, "triton") for _ in range(2))
    assert first[0] == second[0] and all(torch.equal(first[1][name], second[1][name]) for name in first[1])
    torch.manual_seed(6)
    assert {name: float(loss.detach()) for name, (loss, _) in model(batch).items()} != {
        name: loss for name, (loss, _) in first[0].items()
    }

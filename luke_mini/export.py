"""A fine-tuned model as one file for torch.export: it runs without this project, and compilers can take it from there.

    program = torch.export.load("ner.pt2").module()
    scores = program(**inputs)        # Hugging Face's padded tensors, those of INPUTS; as `inputs.collate` makes them

In: a model of a task. Out: a .pt2 file with its weights and its graph. The packed batch of our own models has lengths
that decide what is computed, which no graph can hold; so here is the same encoder once more, on padded tensors, written
plainly with dense masked attention and the model's own weights. Before anything is written, its scores are compared
with those of the packed encoder on random inputs of many shapes.

Sizes of the batch, the words, the entities and their mentions are free: no entities, too. Ids are those of the model's
folder. Masks are 1 = real; scores of padding mean nothing. torch.onnx can take a program further, but needs packages
that this project does without.
Left out: tasks on the pretraining heads, and the cloze task, whose candidates differ in number.
"""

import io
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luke_mini.files import write_file
from luke_mini.model import EntityAwareAttention, EntityEmbeddings, LukeModel, WordEmbeddings
from luke_mini.packing import roberta_positions

WORDS = ("input_ids", "attention_mask")  # [batch, words]
ENTITIES = ("entity_ids", "entity_position_ids", "entity_attention_mask")  # [batch, entities], [..., mention]
SPANS = ("entity_start_positions", "entity_end_positions")  # [batch, entities], both inclusive
INPUTS = {
    "ner": WORDS + ENTITIES + SPANS,  # -> [batch, entities, labels]
    "relation": WORDS + ENTITIES,  # two entities -> [batch, labels]
    "typing": WORDS + ENTITIES,  # one entity -> [batch, types]
    "qa": WORDS + ENTITIES,  # -> [batch, words, 2]
    "classification": WORDS,  # -> [batch, classes]; choices: a sequence each -> [sequences, 1]
}
FIXED_ENTITIES = {"relation": 2, "typing": 1}
TOLERANCE = 1e-4  # of the largest score, in float32


# --- The encoder on padded tensors ------------------------------------------------------------------------------------


def embed_words(part: WordEmbeddings, input_ids: Tensor, pad_id: int) -> Tensor:
    """[batch, words] -> [batch, words, hidden]"""
    x = part.token(input_ids) + part.position(roberta_positions(input_ids, pad_id)) + part.token_type.weight[0]
    return part.norm(x)


def embed_entities(part: EntityEmbeddings, entity_ids: Tensor, positions: Tensor) -> Tensor:
    """[batch, entities], positions [batch, entities, mention] with -1 as padding -> [batch, entities, hidden]"""
    x = part.entity(entity_ids)
    if part.mask is not None:
        x = torch.where((entity_ids == part.mask_id)[..., None], part.mask, x)
    if part.projection is not None:
        x = part.projection(x)
    is_position = (positions >= 0)[..., None]
    total = (part.position(positions.clamp(min=0)) * is_position).sum(dim=2)
    return part.norm(x + total / is_position.sum(dim=2).clamp(min=1) + part.token_type.weight[0])


def attend(part: EntityAwareAttention, hidden: Tensor, n_word: int, is_key: Tensor) -> Tensor:
    """hidden [batch, rows, size], words in front of entities; is_key [batch, rows] -> [batch, rows, size]"""
    size, scale = hidden.shape[2], (hidden.shape[2] // part.heads) ** -0.5

    def heads(x: Tensor) -> Tensor:  # [batch, rows, size] -> [batch, head, rows, head_dim]
        return x.unflatten(2, (part.heads, -1)).transpose(1, 2)

    if part.entity_aware:
        both = torch.cat([part.w2w_w2e(hidden[:, :n_word]), part.e2w_e2e(hidden[:, n_word:])], dim=1)
        q2w, q2e = heads(both[..., :size]), heads(both[..., size:])
    else:
        q2w = q2e = heads(part.w2w_w2e(hidden))
    key, value = map(heads, part.key_value(hidden).split(size, dim=2))
    scores = torch.cat([q2w @ key[:, :, :n_word].mT, q2e @ key[:, :, n_word:].mT], dim=3) * scale
    probabilities = scores.masked_fill(~is_key[:, None, None], float("-inf")).softmax(dim=3)
    return part.norm(hidden + part.output((probabilities @ value).transpose(1, 2).flatten(2)))


def encode(luke: LukeModel, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden states of words [batch, words, hidden] and entities [batch, entities, hidden]; no dropout."""
    n_word, is_key = inputs["input_ids"].shape[1], inputs["attention_mask"].bool()
    hidden = embed_words(luke.words, inputs["input_ids"], luke.config.pad_token_id)
    if "entity_ids" in inputs:
        entities = embed_entities(luke.entities, inputs["entity_ids"], inputs["entity_position_ids"])
        hidden = torch.cat([hidden, entities], dim=1)
        is_key = torch.cat([is_key, inputs["entity_attention_mask"].bool()], dim=1)
    for layer in luke.layers:
        hidden = attend(layer.attention, hidden, n_word, is_key)
        part = layer.feed_forward
        hidden = part.norm(hidden + part.down(F.gelu(part.up(hidden))))
    return hidden[:, :n_word], hidden[:, n_word:]


# --- Heads ------------------------------------------------------------------------------------------------------------


class Exportable(nn.Module):
    """A task's model on padded tensors. encoder: `encode`, or in the check the packed one."""

    def __init__(self, model: nn.Module, task_name: str, encoder: Callable = encode):
        super().__init__()
        self.luke, self.classifier, self.encoder = model.luke, model.classifier, encoder
        self.task_name, self.head = task_name, getattr(model, "head", "")

    def forward(
        self, input_ids, attention_mask, entity_ids=None, entity_position_ids=None, entity_attention_mask=None,
        entity_start_positions=None, entity_end_positions=None,
    ) -> Tensor:  # fmt: skip
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.task_name == "qa" or "entity" in self.head:  # heads on words alone: no entities in the encoder either
            inputs |= zip(ENTITIES, (entity_ids, entity_position_ids, entity_attention_mask))
        words, entities = self.encoder(self.luke, inputs)
        if self.task_name == "classification":
            return self.classifier(self.luke.pool(words[:, 0]))
        if self.task_name == "qa":
            return self.classifier(words)
        is_ner, seen = self.task_name == "ner", [entities] * ("entity" in self.head)
        if "token" in self.head:  # NER: first and last word; otherwise the marker, a mention's first position
            places = (entity_start_positions, entity_end_positions) if is_ner else (entity_position_ids[:, :, 0],)
            seen = [*(_at(words, place) for place in places), *seen]
        return self.classifier(torch.cat(seen if is_ner else [states.flatten(1) for states in seen], dim=-1))


def _at(words: Tensor, index: Tensor) -> Tensor:
    """words [batch, words, hidden], index [batch, n] -> [batch, n, hidden]"""
    return words.gather(1, index[..., None].expand(-1, -1, words.shape[2]))


# --- Writing, and the comparison before it ----------------------------------------------------------------------------


def random_inputs(model: nn.Module, task_name: str, sizes: tuple[int, int, int, int], seed: int) -> dict[str, Tensor]:
    """Inputs for a task of sizes (batch, words, entities, positions of a mention), with padding where it may be."""
    generator = torch.Generator().manual_seed(seed)
    batch, n_word, n_entity, mention = sizes
    n_entity = FIXED_ENTITIES.get(task_name, n_entity)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    word_counts = draw(1, n_word + 1, batch, 1)
    is_word = torch.arange(n_word) < word_counts
    word_ids = draw(0, model.config.vocab_size, batch, n_word).masked_fill(~is_word, model.config.pad_token_id)
    entity_counts = torch.full((batch, 1), n_entity) if task_name in FIXED_ENTITIES else draw(0, n_entity + 1, batch, 1)
    is_entity = torch.arange(n_entity) < entity_counts
    starts = draw(0, n_word, batch, n_entity) % word_counts
    ends = torch.minimum(starts + draw(0, mention, batch, n_entity), word_counts - 1)  # inclusive
    positions = starts[..., None] + torch.arange(mention)
    positions = positions.masked_fill((positions > ends[..., None]) | ~is_entity[..., None], -1)
    entity_ids = draw(0, model.config.entity_vocab_size, batch, n_entity)
    tensors = (word_ids, is_word.long(), entity_ids, positions, is_entity.long(), starts, ends)
    return {name: tensor for name, tensor in zip(WORDS + ENTITIES + SPANS, tensors) if name in INPUTS[task_name]}


# (batch, words, entities, positions of a mention)
SHAPES = ((2, 9, 3, 4), (1, 1, 0, 1), (3, 7, 1, 2), (4, 12, 0, 5), (2, 30, 17, 8), (1, 6, 1, 1))


def largest_difference(program: Callable, model: nn.Module, task_name: str) -> float:
    """Between scores of a program and those on the packed encoder, over real rows, as a part of the largest score."""
    packed, worst = Exportable(model, task_name, encoder=lambda luke, inputs: luke(**inputs)), 0.0
    for seed, sizes in enumerate(SHAPES):
        inputs = random_inputs(model, task_name, sizes, seed)
        found, expected = program(**inputs), packed(**inputs)
        mask = {"ner": "entity_attention_mask", "qa": "attention_mask"}.get(task_name)
        if mask:
            found, expected = (scores[inputs[mask].bool()] for scores in (found, expected))
        if found.numel():
            worst = max(worst, ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item())
    return worst


def save(model: nn.Module, task_name: str, path: str | Path) -> float:
    """Writes the file; returns `largest_difference`. ValueError, and no file, if that is not what rounding explains."""
    if task_name not in INPUTS:
        raise ValueError(f"{task_name} cannot be exported, expected {', '.join(INPUTS)}")
    import torch.export  # here: it takes a third of a second, which other commands do without

    names = ("batch", "words", "entities", "mention")
    batch, words, entities, mention = (torch.export.Dim(name, min=0) for name in names)
    per_entity = {0: batch} if task_name in FIXED_ENTITIES else {0: batch, 1: entities}
    shapes = dict.fromkeys(WORDS, {0: batch, 1: words}) | dict.fromkeys(ENTITIES + SPANS, per_entity)
    shapes["entity_position_ids"] = per_entity | {2: mention}
    model = model.eval()
    with torch.no_grad():
        example = random_inputs(model, task_name, SHAPES[0], seed=0)
        dynamic = {name: shapes[name] for name in example}
        program = torch.export.export(Exportable(model, task_name), (), example, dynamic_shapes=dynamic)
        difference = largest_difference(program.module(), model, task_name)
    if not difference <= TOLERANCE:
        raise ValueError(f"{path}: not written, the exported scores differ by {difference:.1e} from the model's")
    made = io.BytesIO()  # torch's own writer aborts where the disk is full
    torch.export.save(program, made)
    with write_file(path, "wb") as file:
        file.write(made.getbuffer())
    return difference

"""LUKE: a post-LayerNorm transformer over words and entities (Yamada et al. 2020, section 3).

In: a packed batch (`packing.PackedBatch`) or Hugging Face's padded tensors. A *row* is a word or an entity of the
batch, words first. A *word* is a token of the text, as in the paper.
Out: one hidden state per row; in pretraining, the losses of the rows to predict.

The paper's symbols and our names:

    A, B, U  token and entity tables     `words.token`, `entities.entity`, with its projection `entities.projection`
    C, D     position tables             `words.position`, `entities.position` (an entity averages its words' rows)
    e        entity type embedding       `entities.token_type` (one row)
    Q, Q_w2e      queries of words       `attention.w2w_w2e`,   output features [0:H] and [H:2H], H = hidden
    Q_e2w, Q_e2e  queries of entities    `attention.e2w_e2e`,   output features [0:H] and [H:2H]
    K, V     shared by both kinds        `attention.key_value`, output features [0:H] and [H:2H]

Matrices applied to the same rows are stacked, so that one matmul serves both. `weights.py` maps these names to those of
the released files. Shapes: rows = words + entities of the batch; head x head_dim = hidden.
Left out: relative positions, cross-attention, generation.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from luke_mini import ops, packing
from luke_mini.config import ModelConfig
from luke_mini.packing import PackedBatch


def table(rows: int, size: int, padding_idx: int | None = None) -> nn.Embedding:
    """An embedding table of zeros; `initialization.py` or a checkpoint fills it.

    nn.Embedding's random init takes seconds for 500,000 entities, and on the meta device it imports half of torch.
    """
    return nn.Embedding.from_pretrained(torch.zeros(rows, size), freeze=False, padding_idx=padding_idx)


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)


class WordEmbeddings(nn.Module):
    """LayerNorm(A[token] + C[position] + type 0), dropout. -> [words, hidden]"""

    def __init__(self, config: ModelConfig):
        super().__init__()
        hidden = config.hidden_size
        self.token = table(config.vocab_size, hidden, padding_idx=config.pad_token_id)
        self.position = table(config.max_position_embeddings, hidden, padding_idx=config.pad_token_id)
        self.token_type = table(config.type_vocab_size, hidden)
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, batch: PackedBatch) -> Tensor:
        x = self.token(batch.word_ids) + self.position(batch.word_positions) + self.token_type.weight[0]
        return ops.dropout(self.norm(x), self.dropout, self.training)


class EntityEmbeddings(nn.Module):
    """LayerNorm(U B[entity] + mean of D[positions of the mention] + e), dropout. -> [entities, hidden]

    The index into D is the word's index in its sequence (0 = `<s>`); only the word table has RoBERTa's shift by two.
    A mention without positions gets no position embedding.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        hidden = config.hidden_size
        padding = 0 if config.freeze_entity_row0 else None
        self.entity = table(config.entity_vocab_size, config.entity_emb_size, padding_idx=padding)
        self.mask_id = config.mask_entity_id
        self.mask = None if self.mask_id is None else nn.Parameter(torch.zeros(config.entity_emb_size))
        # Released models skip the projection where the sizes agree.
        same_size = config.entity_emb_size == hidden
        self.projection = None if same_size else nn.Linear(config.entity_emb_size, hidden, bias=False)
        self.position = table(config.max_position_embeddings, hidden)
        self.token_type = table(config.type_vocab_size, hidden)
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, batch: PackedBatch) -> Tensor:
        x = self.entity(batch.entity_ids)
        if self.mask is not None:
            x = torch.where((batch.entity_ids == self.mask_id)[:, None], self.mask, x)
        if self.projection is not None:
            x = self.projection(x)
        x = x + ops.mean_of_rows(self.position.weight, batch.mention_positions, batch.mention_offsets)
        return ops.dropout(self.norm(x + self.token_type.weight[0]), self.dropout, self.training)


class EntityAwareAttention(nn.Module):
    """Multi-head self-attention with two queries per row (paper, section 3), or one if the config says so.

    Returns LayerNorm(hidden + dropout(output(attention))). [rows, hidden] -> [rows, hidden]
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        hidden = config.hidden_size
        self.heads = config.num_attention_heads
        self.entity_aware = config.use_entity_aware_attention
        self.w2w_w2e = Linear(hidden, 2 * hidden if self.entity_aware else hidden)  # of word rows
        self.e2w_e2e = Linear(hidden, 2 * hidden) if self.entity_aware else None  # of entity rows
        self.key_value = Linear(hidden, 2 * hidden)
        self.output = Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.attention_dropout = config.attention_probs_dropout_prob
        self.hidden_dropout = config.hidden_dropout_prob

    def queries(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Two queries for each row: q2w meets word keys, q2e meets entity keys (see `ops`). Or one query for both.

        [rows, hidden] -> [rows, 1 or 2, head, head_dim]
        """
        rows, size = hidden.shape
        if not self.entity_aware:
            both = self.w2w_w2e(hidden)
        elif batch.n_entities == 0 and not self.training:  # no entity keys: w2w alone, half the work
            both = ops.linear(hidden, self.w2w_w2e.weight[:size], self.w2w_w2e.bias[:size])
        else:
            words, entities = hidden.split([batch.n_words, batch.n_entities])
            both = torch.cat([self.w2w_w2e(words), self.e2w_e2e(entities)])
        return both.view(rows, -1, self.heads, size // self.heads)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        queries = self.queries(hidden, batch)
        key_value = self.key_value(hidden).view(hidden.shape[0], 2, self.heads, -1)
        dropout = self.attention_dropout if self.training else 0.0
        mixed = ops.entity_attention(queries, key_value, batch, dropout).view_as(hidden)
        return self.norm(hidden + ops.dropout(self.output(mixed), self.hidden_dropout, self.training))


class FeedForward(nn.Module):
    """LayerNorm(hidden + dropout(W2 gelu(W1 hidden))). [rows, hidden] -> [rows, hidden]"""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up = Linear(config.hidden_size, config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, hidden: Tensor) -> Tensor:
        out = self.down(F.gelu(self.up(hidden)))
        return self.norm(hidden + ops.dropout(out, self.dropout, self.training))


class Layer(nn.Module):
    """Attention, then the feed-forward network. [rows, hidden] -> [rows, hidden]"""

    recompute = False  # keep only the input for the backward pass, and compute the rest again: less memory, more time

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention = EntityAwareAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        # Inside the layer, so that a sharded one has its weights together both times.
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.compute, hidden, batch, use_reentrant=False)
        return self.compute(hidden, batch)

    def compute(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.feed_forward(self.attention(hidden, batch))


class LukeModel(nn.Module):
    """The encoder. Call it with a packed batch, or with padded tensors by name; the numbers are the same."""

    def __init__(self, config: ModelConfig, with_pooler: bool = True):
        super().__init__()
        self.config = config
        self.words = WordEmbeddings(config)
        self.entities = EntityEmbeddings(config)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.pooler = Linear(config.hidden_size, config.hidden_size) if with_pooler else None

    def forward(
        self,
        batch: PackedBatch | None = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        entity_ids: Tensor | None = None,
        entity_position_ids: Tensor | None = None,
        entity_attention_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Packed: hidden states [words + entities, hidden], in the order of the batch's rows.

        Padded (input_ids [batch, seq], entity_ids [batch, entities], entity_position_ids [batch, entities, mention],
        masks 1 = real, missing masks = all real): the words' [batch, seq, hidden] and the entities' [batch, entities,
        hidden]; rows of padding are zero.
        """
        if batch is not None:
            return self.encode(batch)
        pad_id = self.config.pad_token_id
        packed = packing.from_padded(
            input_ids, attention_mask, entity_ids, entity_position_ids, entity_attention_mask, pad_id=pad_id
        )
        hidden = self.encode(packed)
        entity_shape = (len(input_ids), 0) if entity_ids is None else entity_ids.shape
        return (
            packing.scatter_rows(hidden[: packed.n_words], attention_mask, input_ids.shape),
            packing.scatter_rows(hidden[packed.n_words :], entity_attention_mask, entity_shape),
        )

    def encode(self, batch: PackedBatch) -> Tensor:
        hidden = torch.cat([self.words(batch), self.entities(batch)])  # [words + entities, hidden]
        for layer in self.layers:
            hidden = layer(hidden, batch)
        return hidden

    def pool(self, first_words: Tensor) -> Tensor:
        """tanh(W h) of the hidden states of `<s>`. [batch, hidden] -> [batch, hidden]"""
        return torch.tanh(self.pooler(first_words))


class PredictionHead(nn.Module):
    """LayerNorm(gelu(W h)), scored against a table: words against A, entities against B (paper, section 3).

    The table is the input embedding itself (tied), handed over at each call; only the bias is the head's own.
    """

    def __init__(self, hidden_size: int, table_size: int, classes: int, eps: float):
        super().__init__()
        self.dense = Linear(hidden_size, table_size)
        self.norm = nn.LayerNorm(table_size, eps=eps)
        self.bias = nn.Parameter(torch.zeros(classes))

    def transform(self, hidden: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(hidden)))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Scores of all classes: hidden [rows, hidden], table [classes, table size] -> [rows, classes]."""
        return F.linear(self.transform(hidden), table, self.bias)

    def loss(self, hidden: Tensor, table: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy per row, and whether the top class is the target (a hit): target [rows] -> 2 x [rows]."""
        return ops.linear_cross_entropy(self.transform(hidden), table, self.bias, target)


class LukeForPretraining(nn.Module):
    """The encoder with its MLM head ("masked-word head") and masked-entity head, on the masked rows only.

    With cls_entity_prediction a third head predicts, from `<s>`, the embedding of the page's own entity.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.luke = LukeModel(config)
        eps = config.layer_norm_eps
        self.word_head = PredictionHead(config.hidden_size, config.hidden_size, config.vocab_size, eps)
        self.entity_head = PredictionHead(config.hidden_size, config.entity_emb_size, config.entity_vocab_size, eps)
        has_pages = config.cls_entity_prediction
        self.page_head = nn.Linear(config.hidden_size, config.entity_emb_size) if has_pages else None

    def forward(self, batch) -> dict[str, tuple[Tensor, Tensor]]:
        """batch: `batching.PretrainBatch`. For "word", "entity" and "page": the summed loss and the number of hits."""
        hidden = self.luke(batch.packed)
        word_rows = hidden[batch.masked_word_rows]
        entity_rows = hidden[batch.packed.n_words + batch.masked_entity_rows]
        word = self.word_head.loss(word_rows, self.luke.words.token.weight, batch.masked_word_labels)
        entity = self.entity_head.loss(entity_rows, self.luke.entities.entity.weight, batch.masked_entity_labels)
        terms = {"word": word, "entity": entity}
        if batch.page_rows is not None:
            pages = self.luke.entities.entity(batch.page_labels)  # as LUKE: the gradient moves these, too
            loss = F.mse_loss(self.page_head(hidden[batch.page_rows]), pages, reduction="none").mean(1)
            terms["page"] = loss, torch.zeros_like(loss)  # a distance has no hits
        return {name: (loss.sum(), hit.sum()) for name, (loss, hit) in terms.items()}

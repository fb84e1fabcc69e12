"""AdamW as LUKE was trained with it, its parameter groups, the learning-rate schedule, and which parameters train.

Published AdamW differs from `torch.optim.AdamW` in two points (BERT's optimizer, kept by RoBERTa and LUKE):

    m = beta1 m + (1 - beta1) g                     no bias correction: with beta2 0.98 the steps after the second are
    v = beta2 v + (1 - beta2) g^2                   up to 1.55 times torch's, until about step 200; warm-up damps this
    p = p - lr m / (sqrt(v) + eps)
    p = p - lr weight_decay p                       after the step, decoupled; not for biases and LayerNorm

`bias_correction` restores torch's behavior, for recipes that were published with it (mLUKE's and JGLUE's tasks).

Rows of a table without a gradient are updated like all others. In pretraining there are none: the softmax over a table
gives all of its rows a gradient. In fine-tuning, a row that never had one only decays (m = 0), and one that had needs its
momentum until that is 0. Decaying the former alone gives the same bits, but finding and gathering the others took 1.4 to
6 times as long as all rows in one pass: 0.04 s for 500,000 x 256, with a gradient in 0.1 to 30 % of them.
Moments are float32: in bfloat16 v could not decline, as a step takes off at most 1 - beta2 = 0.001 of it, and the next number
is 0.004 away.
"""

import math

import torch
from torch import Tensor, nn

from luke_mini import distributed
from luke_mini.config import FinetuneConfig, PretrainConfig

MOMENTS = ("exp_avg", "exp_avg_sq")  # m and v, under torch's names


class AdamW(torch.optim.Optimizer):
    """AdamW without bias correction over a module's trainable parameters.

    State per parameter: `exp_avg` and `exp_avg_sq`, the moments m and v. Groups: with and without weight decay.
    """

    def __init__(
        self, model: nn.Module, *, beta1: float, beta2: float, eps: float, weight_decay: float,
        bias_correction: bool = False,
    ):  # fmt: skip
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [pair for pair in trained if decays(pair[0])], "weight_decay": weight_decay},
            {"params": [pair for pair in trained if not decays(pair[0])], "weight_decay": 0.0},
        ]
        defaults = {"lr": 0.0, "betas": (beta1, beta2), "eps": eps, "bias_correction": bias_correction, "updates": 0}
        super().__init__([group for group in groups if group["params"]], defaults)
        self.parameters = [p for _, p in trained]  # in the model's order
        for _, p in trained:
            self.state[p] = {moment: torch.zeros_like(p) for moment in MOMENTS}

    @classmethod
    def of(cls, model: nn.Module, recipe: PretrainConfig | FinetuneConfig) -> "AdamW":
        beta1, beta2, eps, weight_decay = recipe.beta1, recipe.beta2, recipe.eps, recipe.weight_decay
        correct = getattr(recipe, "bias_correction", False)  # pretraining never does
        return cls(model, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, bias_correction=correct)

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self.param_groups:
            group["lr"] = learning_rate

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update from the parameters' gradients; a parameter without a gradient counts as gradient 0."""
        for group in self.param_groups:
            group["updates"] += 1
            self._update(group)

    def _update(self, group: dict) -> None:
        """All in one pass over parameters, gradients and moments: torch's AdamW with other numbers.

        torch's decays first, which is the same with the rate lr (1 - lr weight_decay) and a decay that makes the
        product of both lr weight_decay again. Its bias correction vanishes after infinitely many steps.
        """
        parameters, (beta1, beta2) = group["params"], group["betas"]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        first, second = ([self.state[p][name] for p in parameters] for name in MOMENTS)
        # Of a sharded model each process updates the rows that it has.
        parameters, grads, first, second = (
            [distributed.own_rows(tensor) for tensor in tensors] for tensors in (parameters, grads, first, second)
        )
        steps = torch.tensor(group["updates"] if group["bias_correction"] else math.inf, device=parameters[0].device)
        kept = 1 - group["lr"] * group["weight_decay"]
        torch._fused_adamw_(
            parameters, grads, first, second, [], [steps.float()] * len(parameters), lr=group["lr"] * kept, beta1=beta1,
            beta2=beta2, weight_decay=group["weight_decay"] / kept, eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip

    def moments(self) -> dict[str, Tensor]:
        """Both moments of every parameter, by name "exp_avg.<parameter>"; not copies."""
        return {f"{moment}.{name}": self.state[p][moment] for moment in MOMENTS for name, p in self.weights().items()}

    def weights(self) -> dict[str, Tensor]:
        """What is trained, by name; not copies."""
        return {k: p for group in self.param_groups for k, p in zip(group["param_names"], group["params"])}

    @torch.no_grad()
    def load_moments(self, saved: dict[str, Tensor], updates: int) -> None:
        """Restores the moments of an optimizer of the same parameters, and its number of updates."""
        own = self.moments()
        if saved.keys() != own.keys():
            odd = sorted(saved.keys() ^ own.keys())
            raise ValueError(f"optimizer state does not match the trainable parameters, e.g. {odd[0]!r}")
        for name, tensor in saved.items():
            if tensor.shape != own[name].shape:
                shapes = f"{list(tensor.shape)}, expected {list(own[name].shape)}"
                raise ValueError(f"optimizer state {name} has the shape {shapes}")
            own[name].copy_(distributed.spread(tensor, own[name]))
        for group in self.param_groups:
            group["updates"] = updates


def decays(name: str) -> bool:
    """Weight decay is for weight matrices and tables, neither for biases nor for LayerNorm.

    differs from LUKE, where the LayerNorm of the masked-word head decays: its name there, layer_norm, escapes the rule.
    """
    return not (name.endswith("bias") or ".norm." in name)


def linear_schedule(step: int, total_steps: int, warmup_steps: int, peak: float) -> float:
    """The learning rate of optimizer step `step` (0-based): linear up to the peak, then linear down to 0.

    differs from LUKE, whose warm-up begins at 0, so that the first step changes nothing; ours at peak / warmup_steps.
    """
    warmup_steps = min(warmup_steps, total_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def select_trainable(model: nn.Module, recipe: PretrainConfig) -> None:
    """Freezes what a pretraining stage does not train. Stage 1 (train_words off): entity embeddings and heads train.

    All that came with the pretrained word model is then frozen, the word head included. The pooler is not used in
    pretraining and is frozen in both stages; the entity side is not, without entities.
    """
    frozen = ("luke.pooler.",)
    frozen += ("luke.entities.", "entity_head.") * recipe.words_only
    frozen += ("luke.entities.entity.",) * recipe.freeze_entities + ("entity_head.bias",) * (not recipe.entity_bias)
    for name, parameter in model.named_parameters():
        entity_side = name.startswith(("luke.entities.", "entity_head.", "page_head."))
        unused = recipe.words_only and "e2w_e2e." in name
        parameter.requires_grad_((recipe.train_words or entity_side) and not name.startswith(frozen) and not unused)


def freeze_idle(luke: nn.Module, pooler: bool = False, entities: bool = True) -> None:
    """Freezes what a task does not use: DistributedDataParallel would wait for its gradients.

    pooler, entities: whether the task uses the pooler, and has entities in its inputs.
    """
    idle = ("pooler.",) * (not pooler) + ("entities.", "e2w_e2e.") * (not entities)
    for name, parameter in luke.named_parameters():
        if any(part in name for part in idle):
            parameter.requires_grad_(False)

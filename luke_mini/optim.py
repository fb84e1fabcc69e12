"""AdamW as LUKE was trained with it, its parameter groups, the learning-rate schedule, and what each stage trains.

Published AdamW differs from `torch.optim.AdamW` in two points (BERT's optimiser, kept by RoBERTa and LUKE):

    m = beta1 m + (1 - beta1) g                     no bias correction: early steps are smaller,
    v = beta2 v + (1 - beta2) g^2                   the warm-up is there for the rest
    p = p - lr m / (sqrt(v) + eps)
    p = p - lr weight_decay p                       after the step, decoupled; not for biases and LayerNorm

`bias_correction` gives torch's first line back, for recipes that were published with it (mLUKE's and JGLUE's tasks).
"""

import math

import torch
from torch import Tensor, nn

from luke_mini.config import FinetuneConfig, PretrainConfig


class AdamW:
    """AdamW without bias correction over a module's trainable parameters.

    State: `first` and `second`, the moments m and v by parameter name, so that it is saved and compared like weights.
    """

    def __init__(
        self, model: nn.Module, *, beta1: float, beta2: float, eps: float, weight_decay: float,
        bias_correction: bool = False,
    ):  # fmt: skip
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parameters = list(named.values())
        self.beta1, self.beta2, self.eps, self.weight_decay = beta1, beta2, eps, weight_decay
        self.bias_correction, self.updates = bias_correction, 0
        self.first = {name: torch.zeros_like(p) for name, p in named.items()}
        self.second = {name: torch.zeros_like(p) for name, p in named.items()}
        self.decayed = [p for name, p in named.items() if decays(name)]

    @classmethod
    def of(cls, model: nn.Module, recipe: PretrainConfig | FinetuneConfig) -> "AdamW":
        beta1, beta2, eps, weight_decay = recipe.beta1, recipe.beta2, recipe.eps, recipe.weight_decay
        correct = getattr(recipe, "bias_correction", False)  # pretraining never does
        return cls(model, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, bias_correction=correct)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update from the parameters' gradients; a parameter without a gradient counts as gradient 0."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        first, second = list(self.first.values()), list(self.second.values())
        torch._foreach_lerp_(first, grads, 1 - self.beta1)
        torch._foreach_mul_(second, self.beta2)
        torch._foreach_addcmul_(second, grads, grads, value=1 - self.beta2)
        denominators = torch._foreach_sqrt(second)
        self.updates += 1
        step_size = learning_rate
        if self.bias_correction:  # as if m and v were means of the gradients so far (Kingma & Ba 2015, section 3)
            torch._foreach_div_(denominators, math.sqrt(1 - self.beta2**self.updates))
            step_size /= 1 - self.beta1**self.updates
        torch._foreach_add_(denominators, self.eps)
        torch._foreach_addcdiv_(self.parameters, first, denominators, value=-step_size)
        torch._foreach_mul_(self.decayed, 1 - learning_rate * self.weight_decay)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Both moments, flat: "first.<parameter>" and "second.<parameter>"."""
        return {f"{kind}.{name}": t for kind in ("first", "second") for name, t in getattr(self, kind).items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        own = self.state_dict()
        if state.keys() != own.keys():
            odd = sorted(state.keys() ^ own.keys())
            raise ValueError(f"the optimiser state does not fit the parameters that train now, for instance {odd[0]!r}")
        for name, tensor in state.items():
            own[name].copy_(tensor)


def decays(name: str) -> bool:
    """Weight decay is for weight matrices and tables, neither for biases nor for LayerNorm.

    differs from LUKE: the LayerNorm of the masked-word head decays there, as its name, layer_norm, escapes the rule.
    """
    return not (name.endswith("bias") or ".norm." in name)


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> None:
    """Scales all gradients down to a joint norm of at most max_norm; 0 leaves them alone."""
    if max_norm > 0:
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def linear_schedule(step: int, total_steps: int, warmup_steps: int, peak: float) -> float:
    """The learning rate of optimizer step `step` (0-based): up to the peak in a line, then down to 0 in a line.

    differs from LUKE: there, the warm-up begins at 0, so that the first step changes nothing; here at peak / steps.
    """
    warmup_steps = min(warmup_steps, total_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def select_trainable(model: nn.Module, train_words: bool) -> None:
    """What a pretraining stage trains. Stage 1 (train_words off): the entity embeddings and the entity head alone.

    Everything that came with the pretrained word model is then frozen, the word head included. The pooler has no part
    in pretraining and is frozen in both stages.
    """
    for name, parameter in model.named_parameters():
        entity_side = name.startswith(("luke.entities.", "entity_head."))
        parameter.requires_grad_((train_words or entity_side) and not name.startswith("luke.pooler."))


def freeze_idle(luke: nn.Module, pooler: bool = False, entities: bool = True) -> None:
    """What has no part in a task does not train: processes that share a batch would wait for its gradient.

    pooler, entities: whether the task uses the pooler, and has entities in its inputs.
    """
    idle = ("pooler.",) * (not pooler) + ("entities.", "entity_query.") * (not entities)
    for name, parameter in luke.named_parameters():
        if any(part in name for part in idle):
            parameter.requires_grad_(False)

"""How close is close, said once for all numeric tests; and the seed that their random numbers follow.

Are two computations the same function? Both run in float64 and agree to half of its digits (`assert_same`). Rounding
stays far below that, on any processor and with any number of threads; a mistake does not.

Is our float32 as good as float32 can be? PyTorch's plain form of the same computation runs beside it, and both are
compared with float64 (`assert_as_good`). Chance makes one of the two a little worse, not FACTOR times.

    pytest tests --seed 7        other random inputs and weights in all of these tests
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

HALF_THE_DIGITS = 2.0**-26  # of the 53 bits of float64
FACTOR = 4.0
SEED = 0  # set by --seed, see conftest.py


def seeded(number: int = 0) -> int:
    """The seed of a test's own `number` under --seed."""
    return 1000 * SEED + number


def generator(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seeded(number))


def rounding(dtype: torch.dtype) -> float:
    """The largest relative error of a number that is rounded to the type."""
    return torch.finfo(dtype).eps / 2


def error(found: Tensor, exact: Tensor, scale: float = 0.0) -> float:
    """Norm of the difference, relative to the exact value's, or to `scale` if that is larger; absolute beside zero."""
    assert found.shape == exact.shape, f"{list(found.shape)} beside {list(exact.shape)}"
    size = max(float(exact.detach().double().norm()), scale)
    return float((found.detach().double() - exact.detach().double()).norm()) / (size or 1.0)


def assert_same(found, expected, name: str = "") -> None:
    """Tensors, arrays, lists or numbers of float64. An expected tensor of float32 is taken as rounded from float64."""
    found, expected = (
        x if isinstance(x, Tensor) else torch.as_tensor(x, dtype=torch.float64) for x in (found, expected)
    )
    allowed, difference = max(HALF_THE_DIGITS, rounding(expected.dtype)), error(found, expected)
    assert difference <= allowed, f"{name} differs by {difference:.1e}, allowed {allowed:.1e}"


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names, and for each the same numbers, to the bit."""
    assert found.keys() == expected.keys()
    assert not [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]


def assert_as_good(ours, plain, exact, *, scale: float = 0.0, exponent: float = 1.0, through=torch.float32) -> None:
    """Tensors, or sequences of tensors that are judged together, as a single number may be exact by chance.

    scale: the size of the numbers that a value is a sum of, where these cancel. exponent: the largest number whose
    exponential was taken: what it loses to rounding is a relative error of the result. through: the narrowest type on
    the way, to which our result, too, may be rounded once.
    """
    ours, plain, exact = ([x] if isinstance(x, Tensor) else list(x) for x in (ours, plain, exact))
    lost, beside = joint_error(ours, exact, scale), joint_error(plain, exact, scale)
    allowed = max(FACTOR * max(beside, max(1.0, exponent) * rounding(torch.float32)), rounding(through))
    assert lost <= allowed, f"ours loses {lost:.1e}, plain PyTorch {beside:.1e}"


def assert_rounded(found, exact, exponent: float = 1.0) -> None:
    """Tensors, lists or numbers that a few steps in float32 lead to from float64; exponent as above."""
    found, exact = (torch.as_tensor(x, dtype=torch.float64) for x in (found, exact))
    assert_as_good(found, exact.float(), exact, exponent=exponent)


def joint_error(found: Sequence[Tensor], exact: Sequence[Tensor], scale: float = 0.0) -> float:
    errors = [error(a, b, scale) for a, b in zip(found, exact, strict=True)]
    return math.sqrt(sum(e * e for e in errors) / len(errors))


def by_layer(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weight and bias of a layer as one tensor: a bias is the weight of a constant input. That of a key has no
    influence; its gradient, zero but for rounding, is so judged beside the weight's."""
    layers = {}
    for name, gradient in gradients.items():
        layers.setdefault(name.rpartition(".")[0], []).append(gradient.flatten())
    return {layer: torch.cat(parts) for layer, parts in layers.items()}


def targets(scores: Tensor, draws: torch.Generator) -> Tensor:
    """Random classes, in every third row the best. Where rounding decides which of two is the best: the worst."""
    chosen = torch.randint(0, scores.shape[1], (len(scores),), generator=draws)
    chosen[::3] = scores.argmax(1)[::3]
    best = scores.topk(min(2, scores.shape[1]), dim=1).values
    return torch.where(best[:, 0] - best[:, -1] < 1e-3, scores.argmin(1), chosen)

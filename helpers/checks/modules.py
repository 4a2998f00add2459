"""Checks of answers that make a network. Names and order of its layers are free: what it does is what counts."""

import torch
from torch import nn

from helpers.checks.frame import Exercise, Unsolved, call, gradient, require


class ModuleExercise(Exercise):
    """answer(*arguments) -> nn.Module. A case is (*arguments, x); an argument None is left to its default.

    Answer and reference get equal weights, those of one shape the same everywhere, so that their order does not matter.
    Compared are the parameters by number and kind, outputs and gradients in train mode, outputs in eval mode.
    """

    def __init__(self, *, reference, **others):
        super().__init__(reference=reference, run=self._look, tolerance=1e-3, **others)

    def _look(self, answer, *case):
        *arguments, x = case
        arguments = [argument for argument in arguments if argument is not None]
        module = build(answer, *arguments)
        found = inventory(module)
        if found == inventory(self.reference(*arguments)):
            set_weights(module)
            return {**found, **behaviour(module, x)}
        try:
            return {**found, "the sides of the output": call(module, x).shape}
        except Unsolved:
            raise
        except Exception:  # layers that do not fit one another
            return {**found, "the sides of the output": []}

    def _names(self) -> list[str]:
        return [*super()._names(), "x"]


class Function(nn.Module):
    """A function in the place of a module."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


def build(answer, *arguments) -> nn.Module:
    require(not isinstance(answer, nn.Module), "pass the class itself, not an object made with it.")
    made = [call(answer, *arguments) for _ in range(2)]
    require(callable(made[0]), f"it must give an nn.Module, got {type(made[0]).__name__}.")
    one, other = (each if isinstance(each, nn.Module) else Function(each) for each in made)
    shared = {id(p) for p in one.parameters()} & {id(p) for p in other.parameters()}
    require(not shared, "two of them share their layers. Make new ones at each call.")
    return one.train()


def inventory(module: nn.Module) -> dict[str, int]:
    shapes = [tuple(p.shape) for p in module.parameters()]
    return {
        **{f"the number of {k}x{k} convolutions": sum(s[2:] == (k, k) for s in shapes) for k in (3, 1)},
        "the number of vectors among the parameters (two a batch norm, one a bias)": sum(len(s) == 1 for s in shapes),
        "the number of parameters": sum(p.numel() for p in module.parameters()),
    }


@torch.no_grad()
def set_weights(module: nn.Module) -> None:
    """Numbers that depend on the shape alone; batch norms start at 1 and 0."""
    for name, p in module.named_parameters():
        if p.ndim > 1:
            numbers = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
            p.copy_(numbers / p[0].numel() ** 0.5)
        elif name.endswith(("weight", "bias")):
            p.fill_(name.endswith("weight"))


def behaviour(module: nn.Module, x: torch.Tensor) -> dict:
    leaf, parameters = x.clone().requires_grad_(), list(module.parameters())
    output = call(module, 1 * leaf)
    require(isinstance(output, torch.Tensor), f"the output must be a tensor, got {type(output).__name__}.")
    seen = {"the output": output.detach().clone()}
    # The sum of cubes: sums and squares of normalised numbers have no gradient.
    of_x, *others = gradient(output**3, [leaf, *(p for p in parameters if p.requires_grad)], unused=True)
    seen["the number of parameters that no gradient reaches"] = len(parameters) - sum(g is not None for g in others)
    seen["the gradient for x"] = torch.zeros_like(x) if of_x is None else of_x
    with torch.no_grad():
        module.eval()  # its running averages have seen one batch
        return {**seen, "the output in eval mode": call(module, x), "the output for one image": call(module, x[:1])}

"""The kernels of ``kernels/*.cu``: which file holds which template, and what its parameters can be."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from ...activations import ACTIVATIONS, OWN

__all__ = ["REAL", "TEMPLATES", "Kernel", "instances", "kernel"]

#: A dtype as CUDA C++ writes it.
REAL = {"float32": "float", "float64": "double"}

T = tuple(REAL.values())
SIGMA = tuple(f"sigma::{name}" for name in ACTIVATIONS if name in OWN)
COST = tuple(f"cost::{name}" for name in ("squared", "absolute", "huber", "binary_cross_entropy", "poisson"))
FLAG = ("false", "true")

#: File to its kernels: what each template parameter can be.
TEMPLATES: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "data.cu": {"gather": ()},
    "elementwise.cu": {
        "activate": (T, SIGMA),
        "activate_grad": (T, SIGMA),
        "bias_activate": (T, SIGMA),
        "add": (T,),
        "copy": (T,),
        "dropout": (T,),
        "dropout_grad": (T,),
    },
    "rows.cu": {"softmax": (T,), "softmax_grad": (T,), "one_hot": (T,), "argmax": (T,)},
    "losses.cu": {
        "mass_of": (T,),
        "row_costs": (T, COST),
        "softmax_cross_entropy": (T,),
        "softmax_cross_entropy_targets": (T,),
        "mean_cost": (),
    },
    "sums.cu": {
        "column_sums": (T,),
        "absolute_and_square": (T,),
        "weight_penalty": (),
        "square_norm": (T,),
        "clip_scale": (),
        "tally": (),
        "count_correct": (T,),
        "count_top_k": (T,),
        "count_exact": (T,),
        "confusion": (T,),
        "confusion_by_output": (T,),
        "absolute_differences": (T,),
        "sum_absolute": (),
        "moments": (T,),
    },
    "updates.cu": {
        "sgd": (T,),
        "fold_rates": (T,),
        "momentum": (T, FLAG),
        "adam": (T,),
        "adaptive": (T, FLAG),
        "schedule": (),
        "l2_of_batch": (),
        "count_examples": (),
        "epsilon_of_step": (),
        "advance": (),
    },
}


@dataclass(frozen=True)
class Kernel:
    """An instance of a kernel of a source.

    Attributes
    ----------
    file
        The source, ``elementwise.cu``.
    expression
        The instance as C++ names it, ``activate<float, sigma::sigmoid>``.
    """

    file: str
    expression: str

    def __str__(self) -> str:
        return self.expression


def kernel(name: str, *parameters: str) -> Kernel:
    """The instance of that name and those parameters.

    >>> kernel("momentum", "float", "true")
    Kernel(file='updates.cu', expression='momentum<float, true>')
    """
    (file,) = (file for file, names in TEMPLATES.items() if name in names)
    return Kernel(file, f"{name}<{', '.join(parameters)}>" if parameters else name)


def instances() -> list[Kernel]:
    """Every instance of every source."""
    return [
        kernel(name, *parameters)
        for names in TEMPLATES.values()
        for name, choices in names.items()
        for parameters in product(*choices)
    ]

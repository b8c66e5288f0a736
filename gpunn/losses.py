"""The costs: a table of rows that say which op computes each one and what it reads.

C is a mean over the batch, Σᵢ wᵢ Cᵢ / Σᵢ wᵢ, so the loss op writes ∂C/∂a already divided by the batch and
no later op knows the batch size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

from .activations import activation
from .errors import ArgumentError, ShapeError, unknown_name
from .ops import rule
from .program import Program
from .slots import Role

__all__ = ["LOSSES", "Loss", "loss_named", "register_loss"]


#: Ops that may be told to clip.
CLIPPED = ("softmax_cross_entropy", "binary_cross_entropy")


@dataclass(frozen=True)
class Loss:
    """A cost as gpunn knows it.

    Parameters
    ----------
    name : str
        What ``loss=`` calls it by.
    op : str
        The op for targets of the output's shape: (output, t, w?) -> (loss, delta?).
    labels : {"op", "one_hot", "never"}
        What 1-D integer targets mean: read by ``labels_op``, turned to one-hot rows, or not allowed.
    labels_op : str, optional
        The op for labels.
    link : str, optional
        ``"softmax"`` or the name of an activation that the loss takes into itself: it reads z, and the
        network's last activation must be this one or the identity.
    clip : float
        Below ½, for labels under ``"cross_entropy"`` and targets 0 and 1 under ``"binary_cross_entropy"``:
        the cost that a Trainer tells is that of probabilities from ``clip`` to 1 − ``clip``. The gradient
        stays that of the cost itself, and so does what a network's ``evaluate`` tells.
    """

    name: str
    op: str
    labels: Literal["op", "one_hot", "never"] = "never"
    labels_op: str | None = None
    link: str | None = None
    clip: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.clip, Real) or not 0 <= float(self.clip) < 0.5:
            raise ArgumentError(
                f"loss {self.name!r}: clip is {self.clip!r}, expected a number from 0 to below 0.5"
            )

    def takes_labels(self, outputs: int) -> bool:
        """Whether 1-D integer targets are class labels for a network with that many outputs."""
        return self.labels == "op" or (self.labels == "one_hot" and outputs > 1)

    def splits_by_output(self, outputs: int) -> bool:
        """Whether rows of targets are a yes or no for each output, instead of one class or numbers."""
        return outputs == 1 or self.link == "sigmoid"

    def emit(
        self,
        program: Program,
        output: str,
        target: str,
        weight: str | None = None,
        *,
        gradient: bool = True,
    ) -> dict[str, str]:
        """Emit the cost of ``output`` against ``target``; returns the seed of backpropagation.

        ``target`` is a slot of labels (B,) or of targets (B, n). The cost and Σw go to the slot
        ``loss``. With ``gradient`` the result is {slot read: slot of ∂C/∂it}, else it is empty.
        """
        read = self._reads(program, output)
        name = self.op
        if len(program.slots[target].shape) == 1:
            if self.labels == "op" and self.labels_op:
                name = self.labels_op
            else:
                n_out = program.slots[output].shape[1]
                target = program.emit(
                    "one_hot", (target,), N=n_out, label=self.name, roles={"t": Role.TARGET}
                )
        if self.clip and name not in CLIPPED:
            raise ArgumentError(
                f"loss {self.name!r}: only the cost of labels under 'cross_entropy' and of targets 0 and 1 "
                f"under 'binary_cross_entropy' can be clipped, got clip={self.clip:g}"
            )
        outs = {"loss": program.slot("loss", (2,), Role.HYPER, "float64", "C")}
        seed: dict[str, str] = {}
        if gradient:
            delta = program.error_slot(read)
            outs["delta"] = delta
            seed[read] = delta
        attrs: dict[str, Any] = {"clip": self.clip} if self.clip else {}
        program.emit(name, (read, target, weight), outs, label=f"{self.name} cost", **attrs)
        return seed

    def _reads(self, program: Program, output: str) -> str:
        if len(program.slots[output].shape) != 2:
            shape = program.slots[output].shape
            raise ShapeError(
                f"loss {self.name!r} takes an output (B, n), the network's is {shape}: put a Flatten() last"
            )
        if self.link is None:
            return output
        last = dropped = program.producer(output)
        while last is not None and last.name == "dropout":
            last = program.producer(str(last.ins[0]))
        name = (
            None if last is None else last.attrs.get("sigma", last.name if last.name == "softmax" else None)
        )
        if name is not None and dropped is not None and dropped is not last:
            layer = dropped.label.removesuffix(": forward")
            raise ArgumentError(
                f"{layer}: loss {self.name!r} works on z and applies {self.link} itself, so nothing can be "
                f"dropped behind the last activation {name!r}: put the Dropout before the last layer"
            )
        if name == self.link and last is not None:
            return program.view(str(last.ins[0]), program.slots[output].shape)
        if name is not None:
            raise ArgumentError(
                f"loss {self.name!r} works on z and applies {self.link} itself: the last activation must be "
                f"'identity' or {self.link!r}, got {name!r}"
            )
        return output


LOSSES: dict[str, Loss] = {
    row.name: row
    for row in (
        Loss("quadratic", "quadratic", labels="one_hot"),
        Loss("mse", "mean_squared_error"),
        Loss("mae", "mean_absolute_error"),
        Loss("huber", "huber"),
        Loss(
            "cross_entropy",
            "softmax_cross_entropy_targets",
            labels="op",
            labels_op="softmax_cross_entropy",
            link="softmax",
        ),
        Loss("binary_cross_entropy", "binary_cross_entropy", labels="one_hot", link="sigmoid"),
        Loss("poisson", "poisson", link="exp"),
    )
}


def loss_named(name: str | Loss) -> Loss:
    """The loss of that name, or an error with the nearest name there is; a loss is itself.

    >>> loss_named("cross_entropy").link
    'softmax'
    """
    if isinstance(name, Loss):
        if replace(name, clip=0.0) != LOSSES.get(name.name):
            raise ArgumentError(f"{name!r} is none of the losses that are known: call register_loss() first")
        return name
    try:
        return LOSSES[name]
    except (KeyError, TypeError):
        raise unknown_name("loss", name, LOSSES) from None


def register_loss(
    name: str,
    op: str,
    *,
    labels: Literal["op", "one_hot", "never"] = "never",
    labels_op: str | None = None,
    link: str | None = None,
) -> Loss:
    """Add a loss that an op computes (see :func:`gpunn.register_op`).

    Parameters
    ----------
    name : str
        The name that ``loss=`` will take.
    op : str
        An op with the signature ``a(B,N) t(B,N) w?(B) -> loss(2):float64 delta?(B,N)``: it writes
        (C, Σw) and, where ``delta`` is wanted, ∂C/∂a.
    labels, labels_op, link
        As in :class:`Loss`.

    Raises
    ------
    gpunn.GpunnError
        For a name that is taken, an op that does not exist or whose signature is another.

    Examples
    --------
    >>> import gpunn
    >>> gpunn.register_loss("halved_mse", "quadratic", labels="one_hot").op
    'quadratic'
    >>> del gpunn.losses.LOSSES["halved_mse"]
    """
    if name in LOSSES:
        raise ArgumentError(f"loss {name!r} exists already: choose another name")
    if labels not in ("op", "one_hot", "never") or (labels == "op") != (labels_op is not None):
        raise ArgumentError(
            f"loss {name!r}: labels is {labels!r} and labels_op is {labels_op!r}; expected "
            "labels='op' with the name of an op, or 'one_hot' or 'never' without one"
        )
    if link is not None and link != "softmax":
        activation(link)
    for each in filter(None, (op, labels_op)):
        entry = rule(each)
        shapes = [operand.dims for operand in entry.outputs]
        names = [operand.name for operand in entry.outputs]
        if shapes != [("2",), ("B", "N")] or names != ["loss", "delta"] or len(entry.inputs) != 3:
            raise ArgumentError(
                f"loss {name!r}: op {each!r} is {entry.signature!r}, expected three inputs "
                "(output, target, w?) and -> loss(2):float64 delta?(B,N)"
            )
    entry_ = Loss(name, op, labels, labels_op, link)
    LOSSES[name] = entry_
    return entry_

"""Who trains: a file each, all with the same arithmetic, weights and minibatches.

A peer is a class ``Peer(problem, device, threads, precision, **options)`` with

- ``run(steps, order)``: train on the next minibatches, whose rows ``order.take(steps)`` gives as (steps, B),
  and return when the device has finished: the cost of each step before its update, or their mean;
- ``parameters()``: the list of (W, b), W as (out, in);
- ``fixed``, optional: True where each other number of steps is compiled anew;
- ``device_seconds()``, optional: what the last run took by the device's own clock;
- ``device_memory()``, optional: the most bytes that it has held on the device.

``Unsupported`` is raised by a peer that does not compute a workload.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


class Unsupported(Exception):
    """This peer does not do this workload; the message says why."""


@dataclass(frozen=True)
class Entry:
    """A row of the table of peers.

    Attributes
    ----------
    module, options
        Where its ``Peer`` is, and what that takes.
    ours
        Whether it is gpunn, run by gpunn's own Python.
    devices
        Where it can run.
    change
        Other settings of the optimiser than the workload's: for tests of the comparison alone.
    """

    name: str
    label: str
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    ours: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    change: Mapping[str, float] = field(default_factory=dict)

    def altered(self, **change: float) -> Entry:
        return replace(self, change=change)


#: gpunn's backends.
OURS = {
    name: Entry(
        f"gpunn-{name}",
        f"gpunn, {name}",
        f"{__name__}.gpunn_network",
        {"backend": name},
        ours=True,
        devices=where,
    )
    for name, where in {"numpy": ("cpu",), "numba": ("cpu",), "cuda": ("cuda",)}.items()
}

PEERS = {
    entry.name: entry
    for entry in (
        Entry("loops", "per-sample loops, as in the book", f"{__name__}.book_loops", devices=("cpu",)),
        Entry("numpy", "plain NumPy", f"{__name__}.plain_numpy", devices=("cpu",)),
        Entry("sklearn", "scikit-learn", f"{__name__}.scikit_learn", devices=("cpu",)),
        Entry("torch", "PyTorch, eager", f"{__name__}.pytorch"),
        Entry("torch-compile", "PyTorch, torch.compile", f"{__name__}.pytorch", {"mode": "compile"}),
        Entry("torch-graph", "PyTorch, CUDA graph", f"{__name__}.pytorch_graph", devices=("cuda",)),
        Entry("jax", "JAX, a jitted step", f"{__name__}.jax_step"),
        Entry("jax-scan", "JAX, lax.scan", f"{__name__}.jax_step", {"scan": True}),
        Entry(
            "jax-scan-io",
            "JAX, lax.scan, weights (in, out)",
            f"{__name__}.jax_step",
            {"scan": True, "layout": "io"},
        ),
    )
}

"""gpunn itself, on one of its backends."""

from __future__ import annotations

import gpunn

from ..workloads import network
from . import Unsupported

OPTIMIZERS = {"sgd": gpunn.SGD, "momentum": gpunn.SGD, "adam": gpunn.Adam}


class Peer:
    def __init__(self, problem, device, threads, precision, backend, dtype="float32", singly=False):
        if precision != "float32" and backend != "cuda":
            raise Unsupported(f"gpunn's {backend} backend computes products in float32, not {precision}")
        if hasattr(gpunn, "set_num_threads"):
            gpunn.set_num_threads(threads)
        workload, self.singly = problem.workload, singly
        self.net = network(workload, device=backend, seed=problem.seed, dtype=dtype, precision=precision)
        self.gpu = getattr(self.net.backend, "gpu", None)
        self.events = ()
        for k, (W, b) in enumerate(problem.layers):
            self.net.parameters[f"layers.{k}.weights"] = W
            self.net.parameters[f"layers.{k}.bias"] = b
        self.X, self.y, self.depth = problem.X.astype(dtype, copy=False), problem.y, len(problem.layers)
        optimizer = OPTIMIZERS[workload.optimizer[0]](**problem.options)
        self.before = (0, 0.0)
        self.trainer = gpunn.Trainer(
            self.net, loss=workload.loss, optimizer=optimizer, batch_size=workload.batch
        )

    def run(self, steps, order):
        if self.gpu is None:
            return self.trained(steps, order)
        with self.gpu.device:
            begun = self.gpu.stream.record()
            costs = self.trained(steps, order)
            self.events = begun, self.gpu.stream.record()
        return costs

    def device_seconds(self):
        if not self.events:
            return None
        self.events[1].synchronize()
        return self.gpu.cupy.cuda.get_elapsed_time(*self.events) / 1e3

    def device_memory(self):
        return self.gpu and self.gpu.cupy.get_default_memory_pool().total_bytes()

    def trained(self, steps, order):
        if self.singly:
            step = self.trainer.step
            return [float(step(self.X[rows], self.y[rows])) for rows in order.take(steps)]
        order.skip(steps)  # The Trainer draws the same permutations from the same seed.
        record = self.trainer.epoch(self.X, self.y, steps=steps)
        # Its cost is the mean since the epoch began.
        samples, total = record["samples"], record["samples"] * record["loss"]
        before, self.before = self.before, (samples, total) if "partial" in record else (0, 0.0)
        return [(total - before[1]) / (samples - before[0])]

    def parameters(self):
        found = self.net.tensors()
        return [(found[f"layers.{k}.weights"], found[f"layers.{k}.bias"]) for k in range(self.depth)]

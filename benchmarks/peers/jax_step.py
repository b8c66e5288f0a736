"""JAX: the step under jit, called once a minibatch, or a whole run of minibatches in one lax.scan."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import Unsupported

SIGMA = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "softmax": lambda z: z}  # the cost takes the logits


class Peer:
    def __init__(self, problem, device, threads, precision, scan=False, layout="oi"):
        jax.config.update(
            "jax_default_matmul_precision", {"float32": "highest", "tf32": "tensorfloat32"}[precision]
        )
        self.layout, self.fixed, self.scan = layout, scan, scan
        try:
            self.place = jax.devices("gpu" if device == "cuda" else "cpu")[0]
        except RuntimeError as error:
            raise Unsupported(f"this JAX has no such device: {error}") from error
        self.sigmas, (self.kind, _) = problem.sigmas, problem.workload.optimizer
        self.options, self.crossed = dict(problem.options), problem.workload.loss == "cross_entropy"
        put = partial(jax.device_put, device=self.place)
        self.theta = [(put(self.turned(W)), put(b)) for W, b in problem.layers]
        zeros = jax.tree.map(jnp.zeros_like, self.theta)
        self.state = (
            {"sgd": (), "momentum": (zeros,)}.get(self.kind)
            if self.kind != "adam"
            else (
                zeros,
                jax.tree.map(jnp.zeros_like, zeros),
                put(np.float32(0)),
            )
        )
        self.X, self.T = put(problem.X), put(problem.y if self.crossed else problem.targets)
        call = partial(jax.jit, donate_argnums=0)
        self.one = call(lambda carry, X, T, rows: self.step(X, T, carry, rows))
        self.many = call(lambda carry, X, T, rows: lax.scan(partial(self.step, X, T), carry, rows))

    def turned(self, W):
        return np.ascontiguousarray(W.T) if self.layout == "io" else np.asarray(W)

    def cost(self, theta, x, t):
        a = x
        for (W, b), sigma in zip(theta, self.sigmas, strict=True):
            a = SIGMA[sigma](a @ (W if self.layout == "io" else W.T) + b)
        if self.crossed:
            return -jnp.take_along_axis(jax.nn.log_softmax(a), t[:, None], axis=1).mean()
        return 0.5 * jnp.sum((a - t) ** 2) / len(a)

    def step(self, X, T, carry, rows):
        theta, state = carry
        cost, grad = jax.value_and_grad(self.cost)(theta, X[rows], T[rows])
        lr, tree = self.options["lr"], jax.tree.map
        if self.kind == "sgd":
            theta = tree(lambda p, g: p - lr * g, theta, grad)
        elif self.kind == "momentum":
            state = (tree(lambda m, g: self.options["momentum"] * m + g, state[0], grad),)
            theta = tree(lambda p, m: p - lr * m, theta, state[0])
        else:
            m = tree(lambda m, g: 0.9 * m + 0.1 * g, state[0], grad)
            v = tree(lambda v, g: 0.999 * v + 0.001 * g * g, state[1], grad)
            count = state[2] + 1
            rate, unbias = lr / (1 - 0.9**count), 1 / (1 - 0.999**count)
            theta = tree(lambda p, m, v: p - rate * m / (jnp.sqrt(v * unbias) + 1e-8), theta, m, v)
            state = (m, v, count)
        return (theta, state), cost

    def run(self, steps, order):
        rows = order.take(steps).astype(np.int32)
        carry, losses = (self.theta, self.state), []
        if self.scan:
            carry, losses = self.many(carry, self.X, self.T, rows)
        else:
            for row in rows:
                carry, cost = self.one(carry, self.X, self.T, row)
                losses.append(cost)
        self.theta, self.state = jax.block_until_ready(carry)
        return np.asarray(losses)

    def device_memory(self):
        found = self.place.memory_stats()
        return found and found.get("peak_bytes_in_use")

    def parameters(self):
        return [
            (np.asarray(W).T if self.layout == "io" else np.asarray(W), np.asarray(b)) for W, b in self.theta
        ]

"""PyTorch as its tutorials train: modules, autograd, an optimiser; eager or under torch.compile."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from . import Unsupported

SIGMA = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "softmax": None}  # cross_entropy takes the logits


def modules(problem, device):
    found = []
    for (W, b), sigma in zip(problem.layers, problem.sigmas, strict=True):
        linear = nn.Linear(W.shape[1], W.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W))
            linear.bias.copy_(torch.from_numpy(b))
        found += [linear] if SIGMA[sigma] is None else [linear, SIGMA[sigma]()]
    return nn.Sequential(*found).to(device)


def optimizer(problem, parameters, **options):
    kind = {"adam": torch.optim.Adam}.get(problem.workload.optimizer[0], torch.optim.SGD)
    return kind(parameters, **problem.options, fused=True, **options)


def cost(problem):
    if problem.workload.loss == "cross_entropy":
        return functional.cross_entropy
    return lambda a, t: 0.5 * functional.mse_loss(a, t, reduction="sum") / len(a)


class Peer:
    def __init__(self, problem, device, threads, precision, mode="eager"):
        if device == "cuda" and not torch.cuda.is_available():
            raise Unsupported("this PyTorch sees no GPU")
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision({"float32": "highest", "tf32": "high"}[precision])
        self.device, self.net = device, modules(problem, device)
        self.X = torch.from_numpy(problem.X).to(device)
        crossed = problem.workload.loss == "cross_entropy"
        self.T = torch.from_numpy(problem.y if crossed else problem.targets).to(device)
        self.optimizer, self.cost = optimizer(problem, self.net.parameters()), cost(problem)
        self.step = torch.compile(self.update) if mode == "compile" else self.update
        if device == "cuda":
            self.start, self.stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def update(self, x, t):
        self.optimizer.zero_grad()
        loss = self.cost(self.net(x), t)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def run(self, steps, order):
        rows = torch.from_numpy(order.take(steps)).to(self.device)
        if self.device == "cuda":
            self.start.record()
        losses = [self.step(self.X[row], self.T[row]) for row in rows]
        if self.device == "cuda":
            self.stop.record()
        return torch.stack(losses).cpu().numpy()

    def device_seconds(self):
        return self.start.elapsed_time(self.stop) / 1e3 if self.device == "cuda" else None

    def device_memory(self):
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def parameters(self):
        linears = [layer for layer in self.net if isinstance(layer, nn.Linear)]
        return [(layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()) for layer in linears]

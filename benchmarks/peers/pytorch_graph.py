"""PyTorch's step captured once as a CUDA graph and replayed: the minibatch is gathered inside the graph."""

from __future__ import annotations

import torch

from . import pytorch


class Peer(pytorch.Peer):
    def __init__(self, problem, device, threads, precision):
        super().__init__(problem, device, threads, precision)
        batch, longest = problem.workload.batch, len(problem.X) // problem.workload.batch
        if problem.workload.optimizer[0] == "adam":  # It counts its steps: on the device, please.
            self.optimizer = pytorch.optimizer(problem, self.net.parameters(), capturable=True)
        self.rows = torch.zeros((longest, batch), dtype=torch.int64, device=device)
        self.losses = torch.zeros(longest, device=device)
        self.k = torch.zeros(1, dtype=torch.int64, device=device)
        before = [p.detach().clone() for p in self.net.parameters()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.captured()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.captured()
        # Warming up has trained: back to the first weights, and to an optimiser that has seen nothing.
        with torch.no_grad():
            for p, first in zip(self.net.parameters(), before, strict=True):
                p.copy_(first)
            for state in self.optimizer.state.values():
                for value in state.values():
                    if torch.is_tensor(value):
                        value.zero_()

    def captured(self):
        row = self.rows.index_select(0, self.k)[0]
        self.optimizer.zero_grad(set_to_none=False)
        loss = self.cost(self.net(self.X.index_select(0, row)), self.T.index_select(0, row))
        loss.backward()
        self.optimizer.step()
        self.losses.index_copy_(0, self.k, loss.detach()[None])
        self.k += 1

    def run(self, steps, order):
        rows = torch.from_numpy(order.take(steps)).to(self.device)
        self.rows[: len(rows)] = rows
        self.k.zero_()
        self.start.record()
        for _ in range(len(rows)):
            self.graph.replay()
        self.stop.record()
        return self.losses[: len(rows)].cpu().numpy()

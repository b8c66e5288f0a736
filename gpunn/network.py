"""Sequential: a stack of layers on one device, which joins what is declared with what runs it."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checkpoint, variants
from .activations import ACTIVATIONS
from .arrays import on_gpu
from .backends.base import Backend, Memory, Runner
from .batches import Batches, adopted_inputs, as_inputs, as_numbers, check_metrics, prepare, prepared
from .device import backend_for
from .errors import ArgumentError, DataError, ShapeError, unknown_name, whole_number
from .initializers import initialize
from .layers import Activation, Layer, layer_from_config
from .losses import Loss, loss_named
from .metrics import Metric, metrics_named
from .optimizers import Optimizer, optimizer_named
from .program import Program
from .streams import stream_of
from .training import History, Trainer
from .variants import Model, Targets

__all__ = ["Parameters", "Sequential", "Text"]

Array = NDArray[Any]

#: Programs kept ready to run, the least recently used dropped first: each has a workspace of its own.
CACHED_RUNNERS = 8


class Text(str):
    """A string that a notebook or a Python prompt shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Parameters(MutableMapping[str, Any]):
    """The parameters by key, each a window of Θ; setting one copies into its window.

    >>> import gpunn
    >>> net = gpunn.Sequential([gpunn.Dense(2)], input_shape=3, seed=0)
    >>> net.parameters["layers.0.bias"] = [1, 2]
    >>> net.parameters["layers.0.bias"]
    array([1., 2.], dtype=float32)
    """

    def __init__(self, windows: Mapping[str, Any], backend: Backend) -> None:
        self._windows = dict(windows)
        self._backend = backend

    def __getitem__(self, key: str) -> Any:
        return self._backend.lend(self.window(key))

    def window(self, key: str) -> Any:
        """The window of Θ, which nobody else shall have."""
        try:
            return self._windows[key]
        except KeyError:
            raise unknown_name("parameter", key, self._windows) from None

    def __setitem__(self, key: str, values: Any) -> None:
        window = self.window(key)
        want = f"parameter {key!r} takes numbers of shape {tuple(window.shape)}"
        try:
            array = self._backend.adopt(key, values)[0] if on_gpu(values) else np.asarray(values)
        except ValueError as error:
            raise ShapeError(f"{want}, got no rectangular array: {error}") from error
        if array.shape != tuple(window.shape) or array.dtype.kind not in "biuf":
            raise ShapeError(f"{want}, got {array.dtype} {array.shape}")
        self._backend.assign(window, array)

    def __delitem__(self, key: str) -> None:
        raise ArgumentError(f"parameter {key!r} belongs to its layer and cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._windows)

    def __len__(self) -> int:
        return len(self._windows)

    def __repr__(self) -> str:
        return "\n".join(f"{key}: {w.dtype} {tuple(w.shape)}" for key, w in self._windows.items())


class Sequential:
    """A network: layers one after the other, their parameters in one flat Θ on one device.

    Parameters
    ----------
    layers : sequence of Layer
        From input to output.
    input_shape : int or tuple of int
        The shape of one example.
    device : str
        ``"cpu"``, ``"auto"``, or a backend's name; see :func:`gpunn.devices`.
    dtype : {"float32", "float64"}
        Of parameters and activations.
    seed : int, optional
        Of the initial parameters and of the shuffles. ``None`` draws one; ``net.seed`` tells which. The same
        seed gives the same bytes of Θ on one machine, with any number of threads (with ``"numpy"``: with
        one number, since a BLAS that shares a product out otherwise rounds otherwise).
    precision : {"float32", "tf32"}
        On a GPU, how products of float32 are computed: ``"tf32"`` rounds what is multiplied to ten bits of
        mantissa, for the speed of tensor cores. It says how to run, so files do not keep it.

    Raises
    ------
    gpunn.GpunnError
        Names the layer or argument, what came, what was expected.

    Examples
    --------
    >>> import gpunn, numpy as np
    >>> net = gpunn.Sequential(
    ...     [gpunn.Dense(30, activation="sigmoid"), gpunn.Dense(10, activation="sigmoid")],
    ...     input_shape=784, seed=0)
    >>> net.predict(np.zeros((5, 784))).shape
    (5, 10)
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: int | Sequence[int],
        device: str = "cpu",
        dtype: str = "float32",
        seed: int | None = None,
        precision: str = "float32",
    ) -> None:
        self._build(layers, input_shape, device, dtype, seed, precision)
        for i, (key, window) in enumerate(self.layout.windows.items()):
            initializer = self._initializers[key]
            self.parameters[key] = initialize(initializer, window.shape, (self.seed, 0, i))

    def _build(
        self,
        layers: Sequence[Layer],
        input_shape: int | Sequence[int],
        device: str,
        dtype: str,
        seed: int | None,
        precision: str = "float32",
    ) -> None:
        """Everything but the first values of the parameters, which a loaded network has no use for."""
        self.model = Model(_layers(layers), _shape(input_shape), _dtype(dtype))
        self.seed = _seed(seed)
        self.device, self.precision = device, precision
        self.backend = backend_for(device, precision)
        if precision != "float32" and self.dtype != "float32":
            raise ArgumentError(
                f"precision {precision!r} is for dtype 'float32', this network has {self.dtype!r}"
            )
        self.loss: str | None = None
        self.history = History()
        self.output_shape = variants.output_shape(self.model)
        program = self.model.forward(1)
        layout = program.lay_out_parameters()
        self.layout = layout
        self.memory: Memory = {"theta": self.backend.zeros((layout.size,), self.dtype)}
        theta = self.memory["theta"]
        windows = {
            key: theta[w.offset : w.offset + w.size].reshape(w.shape) for key, w in layout.windows.items()
        }
        self.parameters = Parameters(windows, self.backend)
        self._initializers = program.initializers
        #: The running sums of evaluation, beside the Θ that they are about.
        self._sums: Memory = {"theta": theta}
        self._runners: OrderedDict[Hashable, Runner] = OrderedDict()
        self._lock = threading.RLock()

    # ------------------------------------------------------------------ what it is

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, from input to output."""
        return self.model.layers

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.model.input_shape

    @property
    def dtype(self) -> str:
        """``"float32"`` or ``"float64"``."""
        return self.model.dtype

    @property
    def theta(self) -> Array:
        """Every parameter in one flat host vector, in key order, without padding; assign to set them all."""
        parts = [values.ravel() for values in self.tensors().values()]
        return np.concatenate(parts) if parts else np.zeros(0, self.dtype)

    @theta.setter
    def theta(self, values: Any) -> None:
        vector = self.backend.adopt("theta", values)[0] if on_gpu(values) else as_numbers("theta", values)
        if vector.shape != (self.layout.count,):
            raise ShapeError(
                f"theta has shape {vector.shape}, this network has {self.layout.count} parameters"
            )
        at = 0
        for key, window in self.layout.windows.items():
            self.parameters[key] = vector[at : at + window.size].reshape(window.shape)
            at += window.size

    def config(self) -> dict[str, Any]:
        """What rebuilds this network, parameters aside, as JSON can hold it."""
        return {
            "class": "Sequential",
            "layers": [
                {"class": type(layer).__name__, "config": _saveable(i, layer)}
                for i, layer in enumerate(self.layers)
            ],
            "input_shape": list(self.input_shape),
            "dtype": self.dtype,
            "seed": self.seed,
            "loss": self.loss,
        }

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        device: str = "cpu",
        fits: Callable[[str, tuple[int, ...], str], Any] | None = None,
        precision: str = "float32",
    ) -> Sequential:
        """Build a network from :meth:`config`, with parameters drawn anew, or zero where ``fits`` is given.

        ``fits`` is called with each parameter's key, shape and dtype before any memory is taken; it raises
        where a file does not hold such a parameter.
        """
        layers = [layer_from_config(entry["class"], entry["config"]) for entry in config["layers"]]
        if fits is not None:
            model = Model(_layers(layers), _shape(config["input_shape"]), _dtype(config["dtype"]))
            for key, window in model.forward(1).lay_out_parameters().windows.items():
                fits(key, window.shape, model.dtype)
        start = (layers, config["input_shape"], device, config["dtype"], config["seed"], precision)
        if fits is None:
            network = cls(*start)
        else:
            network = cls.__new__(cls)
            network._build(*start)
        if config.get("loss") is not None:
            network.loss = loss_named(config["loss"]).name
        return network

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies (``copy``, ``pickle``, worker processes) are networks of their own."""
        start = (self.layers, self.input_shape, self.device, self.dtype, self.seed, self.precision)
        return _copied, (type(self), start, self.loss, self.theta, self.history)

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self.layers))
        precision = "" if self.precision == "float32" else f", precision={self.precision!r}"
        return (
            f"Sequential([{layers}], input_shape={self.input_shape}, device={self.device!r}, "
            f"dtype={self.dtype!r}, seed={self.seed}{precision})"
        )

    def summary(self) -> Text:
        """A table of the layers, their output shapes and parameters.

        >>> import gpunn
        >>> gpunn.Sequential([gpunn.Dense(3, activation="tanh")], input_shape=2, seed=0).summary()
        layer              output   parameters
        --------------------------------------
        input              (2,)              0
        0 Dense, tanh      (3,)              9
        --------------------------------------
        9 parameters, float32, 36 bytes, on cpu
        """
        program = self.model.forward(1)
        rows = [("input", str(self.input_shape), "0")]
        for i, layer in enumerate(self.layers):
            shape = variants.output_shape(Model(self.layers[: i + 1], self.input_shape, self.dtype))
            keys = [key for key in program.parameters if program.slots[key].scope == f"layers.{i}"]
            count = sum(program.slots[key].size for key in keys)
            activation = getattr(layer, "activation", None)
            name = f"{i} {type(layer).__name__}" + (f", {activation}" if activation else "")
            rows.append((name, str(shape), f"{count:,}"))
        widths = [max(len(row[0]) for row in [*rows, (" " * 17, "", "")]), max(len(r[1]) for r in rows), 10]
        widths[1] = max(widths[1], 6)
        line = "-" * (sum(widths) + 5)
        table = [f"{a.ljust(widths[0])}  {b.ljust(widths[1])}   {c.rjust(10)}" for a, b, c in rows]
        head = f"{'layer'.ljust(widths[0])}  {'output'.ljust(widths[1])}   parameters"
        nbytes = self.layout.count * np.dtype(self.dtype).itemsize
        foot = f"{self.layout.count:,} parameters, {self.dtype}, {nbytes:,} bytes, on {self.device}"
        return Text("\n".join([head, line, *table, line, foot]))

    def program(
        self,
        loss: str | None = None,
        optimizer: str | Optimizer = "sgd",
        batch_size: int = 32,
        metrics: Sequence[str] = (),
        targets: str = "auto",
    ) -> Program:
        """The program that training runs for one minibatch; without a loss, the one prediction runs.

        ``targets`` is ``"labels"`` (integers), ``"dense"`` (a row an example), or ``"auto"``: labels where
        the loss takes them. Print it: each line is an equation of backpropagation.
        """
        batch = whole_number("batch_size", batch_size, 1)
        if loss is None:
            return variants.prediction(self.model, batch)
        row = loss_named(loss)
        if targets not in ("auto", "labels", "dense"):
            raise unknown_name("kind of targets", targets, ("auto", "labels", "dense"))
        labels = targets == "labels" or (targets == "auto" and row.takes_labels(self.outputs))
        return variants.training(
            self.model,
            row,
            optimizer_named(optimizer),
            batch,
            metrics=metrics_named(metrics),
            targets=Targets(labels),
        )

    # ------------------------------------------------------------------ training

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        loss: str,
        optimizer: str | Optimizer = "sgd",
        batch_size: int = 32,
        epochs: int = 1,
        validation_data: Any = None,
        metrics: Sequence[str] = (),
        shuffle: bool | Callable[[int], Any] = True,
        sample_weight: Any = None,
        class_weight: Any = None,
        steps_per_epoch: int | None = None,
        callbacks: Sequence[Any] = (),
        verbose: int = 1,
    ) -> History:
        """Train by minibatches; a fresh optimiser and a fresh epoch count at each call.

        Parameters
        ----------
        X : array (n, *input_shape), or an iterable
            The examples, any numeric dtype, a frame of pandas too; converted once, but a memory map of
            another dtype minibatch by minibatch. Without y: minibatches (x, y) or (x, y,
            sample_weight) of any sizes, from a list, a loader, or a function that makes a generator; they
            come in their own order, and ``batch_size`` and ``shuffle`` say nothing.
        y : array
            1-D integers: class labels, where the loss takes them; else (n, n_out), or (n,) for one output.
        loss : str
            A name of :data:`gpunn.losses.LOSSES`, such as ``"cross_entropy"`` or ``"mse"``.
        optimizer : str or Optimizer
            Such as ``gpunn.SGD(lr=3.0)``.
        batch_size, epochs : int
            A last partial batch is trained on too.
        validation_data : (X, y), optional
            Evaluated after each epoch; or a list of (x, y) batches, or a function that makes them.
        metrics : sequence of str
            Such as ``("accuracy",)``; on the training data they are taken before each update.
        shuffle : bool or callable
            Draw a new permutation each epoch, a function of (seed, epoch) alone; or a function of n that
            gives the order of the next epoch's examples.
        sample_weight : array (n,), optional
            C = Σ wᵢ Cᵢ / Σ wᵢ over a minibatch.
        class_weight : mapping or "balanced", optional
            A weight for each label, multiplied with ``sample_weight``; for rows of yes and no a list of
            mappings, one an output.
        steps_per_epoch : int, optional
            For an iterable of batches: how many are an epoch. A list then goes round, a generator goes on.
        callbacks : sequence
            :class:`gpunn.Callback` objects, or functions of (trainer, record) called after each epoch.
        verbose : int
            0 for silence, 1 for a progress bar and a line an epoch.

        Returns
        -------
        History
            Per epoch: loss, penalty, metrics, validation, seconds, updates. Also kept as ``net.history``.

        Raises
        ------
        gpunn.GpunnError
            For data or arguments that cannot work.
        gpunn.DivergenceError
            If a loss or a weight is not finite: names the step and the op; the weights are those of the
            last good epoch.
        KeyboardInterrupt
            After Ctrl-C, at the end of a minibatch: the network is usable, ``net.history`` complete so far.
        """
        trainer = Trainer(self, loss=loss, optimizer=optimizer, batch_size=batch_size, metrics=metrics)
        return trainer.fit(
            X,
            y,
            epochs=epochs,
            validation_data=validation_data,
            shuffle=shuffle,
            sample_weight=sample_weight,
            class_weight=class_weight,
            steps_per_epoch=steps_per_epoch,
            callbacks=callbacks,
            verbose=verbose,
        )

    # ------------------------------------------------------------------ using

    def predict(self, X: Any, batch_size: int = 1024) -> Any:
        """The output a for each example: (n, *output_shape), of the network's dtype.

        For an array on the network's GPU (of CuPy, PyTorch or JAX), one of the same library there.
        """
        size = whole_number("batch_size", batch_size, 1)
        if on_gpu(X):
            return self._predict_there(X, size)
        inputs = as_inputs(X, self.model, empty=True)
        result = np.empty((len(inputs), *self.output_shape), self.dtype)
        for start in range(0, len(inputs), size):
            rows = slice(start, min(start + size, len(inputs)))
            count = rows.stop - rows.start
            # A power of two of rows, the last ones unused: a few programs serve every number of examples.
            room = min(size, 1 << (count - 1).bit_length())
            with np.errstate(over="ignore"):  # A memory map has kept its dtype so far.
                batch = np.asarray(inputs[rows], self.dtype)
            with self._lock:
                runner = self._runner(("prediction", room), variants.prediction, room)
                self.backend.assign(runner.array("x")[:count], batch)
                runner.run()
                output = runner.array(runner.program.marks["output"])
                result[rows] = self.backend.download(output[:count])
        return result

    def _predict_there(self, X: Any, size: int) -> Any:
        """:meth:`predict` for an array on the GPU, which never leaves it."""
        inputs, _ = adopted_inputs(self.backend, X, self.model, empty=True)
        result = self.backend.zeros((len(inputs), *self.output_shape), self.dtype)
        for start in range(0, len(inputs), size):
            count = min(size, len(inputs) - start)
            room = min(size, 1 << (count - 1).bit_length())
            with self._lock:
                runner = self._runner(("prediction", room), variants.prediction, room)
                self.backend.assign(runner.array("x")[:count], inputs[start : start + count])
                runner.run()
                output = runner.array(runner.program.marks["output"])
                self.backend.assign(result[start : start + count], output[:count])
        return self.backend.given_back(result, X)

    def predict_proba(self, X: Any, batch_size: int = 1024) -> Any:
        """The probabilities of the classes, (n, n_out).

        The output itself where the last activation is softmax or sigmoid; softmax (sigmoid) of the output
        where the network was trained with cross-entropy (binary cross-entropy) on z.

        Raises
        ------
        gpunn.ArgumentError
            Where the output is no probability.
        """
        program = self.model.forward(1)
        last = program.producer(program.marks["output"])
        name = None if last is None else last.attrs.get("sigma", last.name)
        output = self.predict(X, batch_size)
        if name in ("softmax", "sigmoid"):
            return output
        link = loss_named(self.loss).link if self.loss else None
        if link not in ("softmax", "sigmoid") or name in ACTIVATIONS:
            shown = name if name in ACTIVATIONS else "identity"
            raise ArgumentError(
                f"the output is no probability: the last activation is {shown!r} and the loss it was trained "
                f"with is {self.loss!r}; use softmax or sigmoid, or train with 'cross_entropy' or "
                f"'binary_cross_entropy'"
            )
        start = ([Activation(link)], self.output_shape, self.device, self.dtype, 0, self.precision)
        top = Sequential(*start)
        return top.predict(output, batch_size)

    def evaluate(
        self,
        X: Any,
        y: Any = None,
        *,
        loss: str | None = None,
        metrics: Sequence[str] = (),
        sample_weight: Any = None,
        batch_size: int = 1024,
    ) -> dict[str, Any]:
        """The mean loss and the metrics over a data set of any size, or over an iterable of (x, y) batches.

        Returns
        -------
        dict
            ``"loss"`` and one entry a metric: a float, a matrix for ``"confusion"``. Weights are for the loss
            alone: metrics count every example once.

        Raises
        ------
        gpunn.DataError
            If the data are empty, or hold NaN or infinity.
        """
        row = self._loss(loss)
        measured = metrics_named(metrics)
        stream = stream_of(X, y)
        if stream is not None:
            if sample_weight is not None:
                raise ArgumentError(
                    "sample_weight comes with each batch of an iterable: (x, y, sample_weight)"
                )
            given = prepared(stream, self._prepare, row, measured, scan="evaluate")
            return self.evaluate_batches(given, row, measured, batch_size)
        batches = self._prepare(X, y, row, sample_weight)
        check_metrics(batches, measured, row)
        batches.scan("evaluate")
        return self.evaluate_batches([batches], row, measured, batch_size)

    def evaluate_batches(
        self, batches: Iterable[Batches], loss: Loss, metrics: Sequence[Metric], batch_size: int = 1024
    ) -> dict[str, Any]:
        """:meth:`evaluate` for data that are on the device already."""
        size = whole_number("batch_size", batch_size, 1)
        sums: dict[str, str] | None = None
        # The batches may come from the user's own code, which may evaluate too: no lock is held meanwhile,
        # and the sums so far are put back.
        held: dict[str, Any] = {}
        count = 0
        for part in batches:
            with self._lock:
                for name, values in held.items():
                    self.backend.assign(self._sums[name], values)
                if "cursor" in self._sums:
                    self.backend.assign(self._sums["cursor"], np.zeros(1))
                order = self.backend.upload(np.arange(part.count), "int64")
                rows = min(size, part.count)
                for take, steps in ((rows, part.count // rows), (part.count % rows, 1)):
                    if not take:
                        continue
                    key = ("evaluation", loss, take, tuple(metrics), part.targets)
                    declare = partial(variants.evaluation, metrics=metrics, targets=part.targets)
                    runner = self._runner(key, declare, loss, take, memory=self._sums)
                    if sums is None:
                        sums = {m.name: runner.program.marks[f"metric.{m.name}"] for m in metrics}
                        for name in ("loss_sum", *sums.values()):
                            self.backend.assign(self._sums[name], np.zeros(self._sums[name].shape))
                    try:
                        runner.bind(perm=order, **part.data)
                        runner.run(steps)
                    finally:
                        runner.release()
                held = {
                    name: self.backend.copy(self._sums[name]) for name in ("loss_sum", *(sums or {}).values())
                }
            count += part.count
        total = self.backend.download(held["loss_sum"])
        result: dict[str, Any] = {"loss": float(total[0] / total[1]) if total[1] else math.nan}
        for metric in metrics:
            found = self.backend.download(held[(sums or {})[metric.name]])
            result[metric.name] = metric.finish(found, count)
        return result

    # ------------------------------------------------------------------ looking inside

    def gradients(
        self, X: Any, y: Any, *, loss: str | None = None, sample_weight: Any = None
    ) -> dict[str, Array]:
        """∂C/∂parameter of the mean cost over (X, y), by parameter key; no penalty, evaluation mode.

        Source: Nielsen, Neural Networks and Deep Learning, equations (BP3) and (BP4).

        >>> import gpunn
        >>> net = gpunn.Sequential([gpunn.Dense(1)], input_shape=2, dtype="float64", seed=0)
        >>> net.theta = [0, 0, 0]
        >>> net.gradients([[1.0, 2.0]], [3.0], loss="quadratic")["layers.0.weights"]
        array([[-3., -6.]])
        """
        gradients = {key: np.zeros(window.shape) for key, window in self.layout.windows.items()}
        for runner, share in self._inspect(X, y, loss, sample_weight):
            for key, total in gradients.items():
                if f"grad.{key}" in runner.program.slots:
                    total += share * runner.read(f"grad.{key}")
        return {key: total.astype(self.dtype) for key, total in gradients.items()}

    def objective(
        self, X: Any, y: Any, *, loss: str | Loss | None = None, sample_weight: Any = None
    ) -> Callable[[Any], tuple[float, Array]]:
        """θ ↦ (C, ∇C) over (X, y), both in float64, for optimisers of other libraries.

        A call sets the network's parameters to θ, of the shape and order of ``net.theta``.

        >>> import gpunn, numpy as np
        >>> from scipy.optimize import minimize
        >>> net = gpunn.Sequential([gpunn.Dense(1)], input_shape=1, seed=0, dtype="float64")
        >>> X = np.arange(5.0)[:, None]
        >>> found = minimize(net.objective(X, 3 * X - 1, loss="quadratic"), net.theta, jac=True)
        >>> net.theta = found.x
        >>> np.round(net.theta, 4)
        array([ 3., -1.])
        """
        row = self._loss(loss)
        batches = self._prepare(X, y, row, sample_weight)
        batches.scan("the data")

        def cost_and_gradient(theta: Any) -> tuple[float, Array]:
            self.theta = theta
            cost, gradient = 0.0, np.zeros(self.layout.count)
            for runner, share in self._inspected(row, batches):
                cost += share * float(runner.read("loss")[0])
                at = 0
                for key, window in self.layout.windows.items():
                    if f"grad.{key}" in runner.program.slots:
                        part = runner.read(f"grad.{key}").reshape(-1)
                        gradient[at : at + window.size] += share * part
                    at += window.size
            return cost, gradient

        return cost_and_gradient

    def errors(
        self, X: Any, y: Any, *, loss: str | None = None, sample_weight: Any = None
    ) -> dict[str, Array]:
        """δ = ∂C/∂z of every layer with parameters: ``{"layers.0": (n, n_0), ...}``.

        C is the mean cost over (X, y): n times a row is the δ of that example alone, as in Nielsen's book.
        Source: Nielsen, Neural Networks and Deep Learning, equations (BP1) and (BP2).
        """
        parts: dict[str, list[Array]] = {}
        for runner, share in self._inspect(X, y, loss, sample_weight):
            for mark, slot in runner.program.marks.items():
                if mark.startswith("layers."):
                    parts.setdefault(mark, []).append(np.asarray(share * runner.read(slot), self.dtype))
        order = sorted(parts, key=lambda mark: int(mark.split(".")[1]))
        return {mark: np.concatenate(parts[mark]) for mark in order}

    def jacobian(self, x: Any) -> Array:
        """∂output/∂input at one example, (*output_shape, *input_shape), or at each of several, (n, ...)."""
        array = as_numbers("x", np.asarray(self.backend.adopt("x", x)[1]) if on_gpu(x) else x)
        single = array.shape == self.input_shape
        inputs = as_inputs(array[None] if single else array, self.model, "x", empty=True)
        if not np.isfinite(inputs).all():
            raise DataError("x holds NaN or infinity: there is no derivative there")
        outputs = int(np.prod(self.output_shape))
        seed = np.eye(outputs, dtype=self.dtype).reshape(outputs, *self.output_shape)
        result = np.empty((len(inputs), outputs, *self.input_shape), self.dtype)
        with self._lock:
            runner = self._runner(("jacobian",), variants.jacobian, outputs)
            marks = runner.program.marks
            for i, row in enumerate(inputs):
                runner.write(marks["x"], row)
                runner.write(marks["seed"], seed)
                runner.run()
                result[i] = runner.read(marks["gradient"])
        result = result.reshape(len(inputs), *self.output_shape, *self.input_shape)
        return result[0] if single else result

    def _inspect(
        self, X: Any, y: Any, loss: str | None, sample_weight: Any, size: int = 4096
    ) -> Iterator[tuple[Runner, float]]:
        """Run the inspection program over chunks; yields (runner, the chunk's share of the whole)."""
        row = self._loss(loss)
        batches = self._prepare(X, y, row, sample_weight)
        batches.scan("the data")
        yield from self._inspected(row, batches, size)

    def _inspected(self, row: Loss, batches: Batches, size: int = 4096) -> Iterator[tuple[Runner, float]]:
        """:meth:`_inspect` of data that are prepared."""
        data, count = batches.data, batches.count
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            n = rows.stop - start
            key = ("inspection", row, n, batches.targets)
            with self._lock:
                runner = self._runner(key, variants.inspection, row, n, targets=batches.targets)
                marks = runner.program.marks
                runner.write(marks["x"], data["X"][rows])
                runner.write(marks["target"], data["T"][rows])
                if "weight" in marks:
                    runner.write(marks["weight"], data["weights"][rows])
                runner.run()
                yield runner, float(runner.read("loss")[1]) / batches.mass

    # ------------------------------------------------------------------ moving and saving

    def to(self, device: str, dtype: str | None = None, precision: str | None = None) -> Sequential:
        """A new network on that device (of that dtype, that precision) with the same parameters.

        The precision goes along where there is none given and the device knows it.
        """
        if precision is None:
            knows = device.startswith("cuda") and (dtype or self.dtype) == "float32"
            precision = self.precision if knows else "float32"
        start = (self.layers, self.input_shape, device, dtype or self.dtype, self.seed, precision)
        other = Sequential(*start)
        other.loss = self.loss
        other.theta = self.theta
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save as safetensors, atomically: at any moment the old or the new file is whole on disk."""
        checkpoint.write(path, "network", self.config(), self.tensors())

    def tensors(self) -> dict[str, Array]:
        """A copy of each parameter on the host, by key."""
        return {key: self.backend.download(self.parameters.window(key)) for key in self.parameters}

    # ------------------------------------------------------------------ inside

    @property
    def outputs(self) -> int:
        """The number of outputs of one example."""
        return int(np.prod(self.output_shape))

    def _loss(self, name: str | Loss | None) -> Loss:
        if name is None and self.loss is None:
            raise ArgumentError("loss is missing, and this network was not trained with one: give loss='...'")
        return loss_named(name if isinstance(name, Loss) else str(name or self.loss))

    def _prepare(
        self,
        X: Any,
        y: Any,
        loss: Loss,
        sample_weight: Any = None,
        class_weight: Any = None,
        names: tuple[str, str] = ("X", "y"),
    ) -> Batches:
        return prepare(self.backend, self.model, loss, self.outputs, X, y, sample_weight, class_weight, names)

    def _runner(
        self,
        key: Hashable,
        declare: Callable[..., Program],
        *args: Any,
        memory: Memory | None = None,
        **kwargs: Any,
    ) -> Runner:
        if key in self._runners:
            self._runners.move_to_end(key)
        else:
            self._runners[key] = self.backend.load(
                declare(self.model, *args, **kwargs), self.memory if memory is None else memory
            )
            while len(self._runners) > CACHED_RUNNERS:
                self._runners.popitem(last=False)
        return self._runners[key]


def _saveable(index: int, layer: Layer) -> dict[str, Any]:
    config = layer.config()
    for name, value in config.items():
        try:
            json.dumps(value, default=checkpoint.plain)
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                f"layer {index} {type(layer).__name__}: {name}={value!r} cannot be saved: {error}"
            ) from error
    return config


def _copied(
    cls: type[Sequential], start: tuple[Any, ...], loss: str | None, theta: Array, history: History
) -> Sequential:
    network = cls(*start)
    network.loss, network.theta = loss, theta
    network.history = History(list(history.records), history.about)
    return network


def _layers(layers: Any) -> tuple[Layer, ...]:
    if isinstance(layers, Layer) or not isinstance(layers, Sequence) or isinstance(layers, str) or not layers:
        raise ArgumentError(f"layers is {layers!r}, expected a list of layers such as [gpunn.Dense(10)]")
    for i, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            hint = f": write {layer.__name__}(...)" if isinstance(layer, type) else ""
            raise ArgumentError(f"layer {i} is {layer!r}, expected a gpunn.Layer{hint}")
    return tuple(layers)


def _shape(input_shape: Any) -> tuple[int, ...]:
    given = tuple(input_shape) if isinstance(input_shape, (list, tuple)) else (input_shape,)
    if not given:
        raise ArgumentError(
            "input_shape is empty, expected the shape of one example, such as 784 or (28, 28)"
        )
    return tuple(whole_number("input_shape", size, 1) for size in given)


def _dtype(dtype: Any) -> str:
    name = str(dtype)
    if dtype is not None and not isinstance(dtype, str):
        with suppress(TypeError):
            name = str(np.dtype(dtype).name)
    if name not in ("float32", "float64"):
        raise unknown_name("dtype", name, ("float32", "float64"))
    return name


def _seed(seed: Any) -> int:
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint32)[0])
    return whole_number("seed", seed, 0)


checkpoint.NETWORKS["Sequential"] = Sequential.from_config

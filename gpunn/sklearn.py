"""scikit-learn's multi-layer perceptron on any backend: its parameters, attributes, messages and numbers.

The estimators declare a network and call the :class:`gpunn.Trainer`; what scikit-learn does between two
epochs (tolerance, learning rate, validation score) is a callback. Where its formulas differ from gpunn's,
scikit-learn's hold: the penalty is divided by what the examples of a minibatch weigh, minibatches count by
their examples in the cost of an epoch, probabilities are clipped to [ε, 1 − ε] in a cost, and Adam's ε stands
beside √v.

What stays different: early stopping with ``warm_start`` goes back to the best weights of the fit itself.
Sparse data are made dense, by minibatches where they would be large.

Source: scikit-learn 1.9, sklearn.neural_network.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .activations import activation as activation_named
from .arrays import on_gpu
from .callbacks import Callback
from .device import backend_for
from .errors import ArgumentError, DivergenceError
from .layers import Dense, Dropout, Layer
from .losses import LOSSES, Loss, loss_named
from .network import Sequential
from .ops import HYPER
from .optimizers import SGD, Adam, Optimizer
from .program import Program
from .slots import Role
from .training import Trainer

try:
    from scipy import sparse
    from scipy.optimize import minimize
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import accuracy_score, r2_score
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import LabelBinarizer
    from sklearn.utils import check_random_state, column_or_1d
    from sklearn.utils._param_validation import Interval, Options, StrOptions
    from sklearn.utils.class_weight import compute_sample_weight
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
    from sklearn.utils.optimize import _check_optimize_result
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"gpunn.sklearn needs scikit-learn 1.6 or newer: pip install gpunn[sklearn] ({error})"
    ) from error

__all__ = ["MLPClassifier", "MLPRegressor"]

Array = NDArray[Any]

#: scikit-learn's names of what has another one here.
ACTIVATION_NAMES = {"logistic": "sigmoid"}
LOSS_NAMES = {"squared_error": "quadratic", "absolute_error": "mae"}

#: Bytes of a sparse matrix that are made dense at a time.
DENSE = 1 << 30

DIVERGED = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
    "preprocessed."
)


# ------------------------------------------------------------------ the updates, as scikit-learn has them


class _OfBatch(Optimizer):
    """With a penalty ½ l2 Σ w²/Σ(weights of the minibatch's examples)."""

    def emit_numbers(self, program: Program) -> None:
        if self.l2:
            program.emit("l2_of_batch", ("loss",), {"hyper": _hyper(program)}, label="penalty")
        if "weight" in program.marks:
            program.emit("count_examples", (program.marks["weight"],), {"loss": "loss"}, label="penalty")

    def hyper(self) -> dict[str, float]:
        return {**super().hyper(), "l2_sum": self.l2}


class _SGD(_OfBatch, SGD):
    def _check(self, **limits: tuple[float, float, bool]) -> None:
        if "momentum" in limits:  # It may be 1 here.
            limits["momentum"] = (0.0, float(np.nextafter(1.0, 2.0)), True)
        super()._check(**limits)


class _Adam(_OfBatch, Adam):
    """lr √(1 − β₂ᵗ)/(1 − β₁ᵗ) m/(√v + ε)."""

    def emit_numbers(self, program: Program) -> None:
        super().emit_numbers(program)
        program.emit("epsilon_of_step", (), {"hyper": _hyper(program)}, label="ε")

    def hyper(self) -> dict[str, float]:
        return {**super().hyper(), "epsilon_hat": self.epsilon}


def _hyper(program: Program) -> str:
    return program.slot("hyper", (len(HYPER),), Role.HYPER, "float64")


# ------------------------------------------------------------------ between two epochs


class _Epochs(Callback):
    """What scikit-learn does after each epoch."""

    def __init__(self, mlp: Any, samples: int, held_out: Callable[[], float] | None) -> None:
        self.mlp, self.samples, self.held_out = mlp, samples, held_out
        self.best: Array | None = None

    def on_epoch_end(self, trainer: Any, record: dict[str, Any]) -> None:
        mlp = self.mlp
        parts = mlp.n_outputs_ if trainer.loss.name == "quadratic" else 1
        mlp.n_iter_ += 1
        mlp.t_ += self.samples
        mlp.loss_ = record["loss"] / parts + record.get("penalty", 0.0)
        mlp.loss_curve_.append(mlp.loss_)
        if "val_loss" in record:
            mlp.validation_loss_curve_.append(record["val_loss"] / parts)
        if mlp.verbose:
            print(f"Iteration {mlp.n_iter_}, loss = {mlp.loss_:.8f}")
        self._compare(trainer)
        if mlp.solver == "sgd" and mlp.learning_rate == "invscaling":
            trainer.lr_scale = 1 / (mlp.t_ + 1) ** mlp.power_t
        if mlp._no_improvement_count > mlp.n_iter_no_change:
            self._stop(trainer)

    def _compare(self, trainer: Any) -> None:
        mlp = self.mlp
        if self.held_out is None:
            worse = mlp.loss_curve_[-1] > mlp.best_loss_ - mlp.tol
            mlp.best_loss_ = min(mlp.best_loss_, mlp.loss_curve_[-1])
        else:
            score = self.held_out()
            mlp.validation_scores_.append(score)
            if mlp.verbose:
                print(f"Validation score: {score:f}")
            worse = score < mlp.best_validation_score_ + mlp.tol
            if score > mlp.best_validation_score_:
                mlp.best_validation_score_, self.best = score, trainer.network.theta
        mlp._no_improvement_count = mlp._no_improvement_count + 1 if worse else 0

    def _stop(self, trainer: Any) -> None:
        mlp = self.mlp
        what = "Training loss" if self.held_out is None else "Validation score"
        message = (
            f"{what} did not improve more than tol={mlp.tol:f} for {mlp.n_iter_no_change} consecutive epochs."
        )
        adaptive = mlp.solver == "sgd" and mlp.learning_rate == "adaptive"
        if adaptive and trainer.lr > 1e-6:
            trainer.lr_scale /= 5.0
            mlp._no_improvement_count = 0
            then = f"Setting learning rate to {trainer.lr:f}"
        else:
            trainer.stop = True
            then = "Learning rate too small. Stopping." if adaptive else "Stopping."
        if mlp.verbose:
            print(f"{message} {then}")


# ------------------------------------------------------------------ the estimators


class _MLP(BaseEstimator, ABC):  # type: ignore[misc]
    """What classifier and regressor share."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [str, list, tuple],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left"), list, tuple],
        "device": [str],
        "dtype": [StrOptions({"float32", "float64"}), None],
        "callbacks": [list, tuple, None],
    }

    def _keep(self, given: Mapping[str, Any]) -> None:
        """Each parameter under its own name, untouched, as scikit-learn wants it."""
        for name, value in given.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    # ---------------------------------------------------------------- fitting

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Any:
        """Fit to X and y.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            On the host, or an array of CuPy, PyTorch or JAX on the GPU that ``device`` names.
        y : array-like (n_samples,) or (n_samples, n_outputs)
            Labels, rows of yes and no, or numbers.
        sample_weight : array-like (n_samples,), optional
            What each example weighs.
        X_val, y_val : array-like, optional
            Validation data: early stopping looks at these instead of a part of the training data, and their
            cost after each epoch is in ``validation_loss_curve_``.

        Returns
        -------
        MLPClassifier or MLPRegressor
            This estimator.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val), incremental=False)

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, validation: tuple[Any, Any], *, incremental: bool
    ) -> Any:
        self._validate_params()
        sizes = self._sizes()
        self._check_names(len(sizes))
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        X, y = self._validated(X, y, incremental, reset=first, whole=self.warm_start)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, np.empty((y.shape[0], 1)))
        if (validation[0] is None) != (validation[1] is None):
            raise ValueError("X_val and y_val go together: give both, or neither")
        if validation[0] is not None:
            validation = self._validated(*validation, True, reset=False)
        weights = self._weights(y, sample_weight)
        Y = self._targets(y)
        self.n_outputs_ = Y.shape[1]
        self._random_state = check_random_state(self.random_state)
        if first:
            self._initialize([self.n_features_in_, *sizes, self.n_outputs_], self._kind(X))
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        if not _fits(X):
            X = X.tocsr()  # Of which rows are taken.
        if self.solver == "lbfgs":
            self._fit_lbfgs(X, Y, weights)
        else:
            self._fit_stochastic(X, Y, weights, validation, incremental)
        if not all(np.isfinite(part).all() for part in (*self.coefs_, *self.intercepts_)):
            raise ValueError(DIVERGED)
        return self

    def _check_names(self, hidden: int) -> None:
        """Raise for what no network can be built of, before anything has changed."""
        backend_for(self.device)
        for key in ("activation", "dropout"):
            given = getattr(self, key)
            if not isinstance(given, (str, Real)) and len(given) != hidden:
                raise ValueError(
                    f"{key} has {len(given)} entries, expected one for each of {hidden} hidden layers"
                )
        for name in [self.activation] if isinstance(self.activation, str) else self.activation:
            activation_named(ACTIVATION_NAMES.get(name, name))
        rates: Sequence[Any] = [self.dropout] if isinstance(self.dropout, Real) else self.dropout
        for rate in rates:
            Dropout(float(rate))

    def _sizes(self) -> list[int]:
        given = self.hidden_layer_sizes
        sizes = list(given) if hasattr(given, "__iter__") else [given]
        if any(size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return [int(size) for size in sizes]

    def _validated(
        self, X: Any, y: Any, known: bool, *, reset: bool, whole: bool = False
    ) -> tuple[Any, Array]:
        """X and y, checked as scikit-learn checks them; an X on a GPU stays there.

        ``known``: what the targets are is known; ``whole``: none of the classes may be missing.
        """
        options = {"multi_output": True, "y_numeric": not is_classifier(self), "reset": reset}
        if on_gpu(X):
            shown = np.broadcast_to(np.float32(0), X.shape)  # Its shape is what is checked on the host.
            _, y = validate_data(self, shown, _hosted(y), dtype=None, **options)
        else:
            kinds = (np.float64, np.float32)
            X, y = validate_data(self, X, y, accept_sparse=["csr", "csc"], dtype=kinds, **options)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        self._learn_targets(y, known, whole)
        return X, y

    def _kind(self, X: Any) -> str:
        if self.dtype is not None:
            return str(self.dtype)
        found = str(X.dtype).rpartition(".")[2]
        return found if found in ("float32", "float64") else "float64"

    def _initialize(self, units: Sequence[int], dtype: str) -> None:
        self.n_iter_ = self.t_ = 0
        self._net: Sequential | None = None
        self.__dict__.pop("validation_loss_curve_", None)
        self.n_layers_ = len(units)
        self.out_activation_ = self._out_activation()
        self.coefs_, self.intercepts_ = [], []
        draw = self._random_state.uniform
        given = [self.activation] if isinstance(self.activation, str) else self.activation
        factor = 2.0 if set(given) <= {"logistic", "sigmoid"} else 6.0
        for fan_in, fan_out in pairwise(units):
            bound = np.sqrt(factor / (fan_in + fan_out))
            self.coefs_.append(draw(-bound, bound, (fan_in, fan_out)).astype(dtype, copy=False))
            self.intercepts_.append(draw(-bound, bound, fan_out).astype(dtype, copy=False))
        # The last number drawn, so that without dropout nothing else changes.
        self._dropout_seed = int(self._random_state.randint(2**31 - 1)) if np.any(self.dropout) else 0
        if self.solver == "lbfgs":
            return
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_ = -np.inf if self.early_stopping else None
        self.best_loss_ = None if self.early_stopping else np.inf

    def _fit_lbfgs(self, X: Any, Y: Array, weights: Array | None) -> None:
        network, loss = self._network(), self._loss()
        cost = self._cost(network)
        mass = float(len(Y)) if weights is None else float(weights.sum())
        parts = self.n_outputs_ if loss == "quadratic" else 1
        # The gradient is that of a sum over the outputs, the cost is told as a mean: as in scikit-learn.
        told = self._told(Y, loss)
        pieces = [slice(0, len(Y))] if _fits(X) else list(_rows(X))

        def of_piece(rows: slice) -> tuple[float, Callable[[Array], tuple[float, Array]]]:
            """What a piece weighs of the whole, and its own mean cost."""
            own = None if weights is None else weights[rows]
            x, t = (X, told) if len(pieces) == 1 else (X[rows], told[rows])
            share = len(t) / mass if own is None else float(own.sum()) / mass
            return share, network.objective(_dense(x), t, loss=cost, sample_weight=own)

        whole = of_piece(pieces[0]) if len(pieces) == 1 else None

        def objective(theta: Array) -> tuple[float, Array]:
            total, gradient = 0.0, np.zeros(len(theta))
            for share, mean in [whole] if whole else map(of_piece, pieces):
                if share:
                    found, slope = mean(theta)
                    total, gradient = total + share * found, gradient + share * slope
            return total, gradient

        is_weight = np.concatenate(
            [np.full(array.size, array.ndim > 1) for array in network.tensors().values()]
        )

        def cost_and_gradient(theta: Array) -> tuple[float, Array]:
            cost, gradient = objective(theta)
            pull = np.where(is_weight, theta, 0.0) * (self.alpha / mass)
            return cost / parts + 0.5 * float(pull @ theta), gradient + pull

        if self.callbacks or np.any(self.dropout):
            raise ValueError(
                "solver='lbfgs' takes all examples at once: it has no epochs for callbacks, and no dropout; "
                "use solver='adam'"
            )
        options = {"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol}
        start = network.theta.astype(np.float64)
        found = minimize(cost_and_gradient, start, method="L-BFGS-B", jac=True, options=options)
        self.n_iter_ = _check_optimize_result("lbfgs", found, self.max_iter)
        self.loss_ = float(found.fun)
        if self.verbose:
            print(f"lbfgs: {found.nit} iterations, {found.nfev} evaluations, loss = {self.loss_:.8f}")
        network.theta = found.x
        self._take(network)

    def _fit_stochastic(
        self, X: Any, Y: Array, weights: Array | None, validation: tuple[Any, Any], incremental: bool
    ) -> None:
        held_out, X, Y, weights = self._held_out(X, Y, weights, validation)
        count = len(Y)
        network = self._network()
        trainer = self._trained(network, count, incremental)
        told = _Epochs(self, count, held_out and (lambda: held_out(network)))
        if self.early_stopping:
            told.best = network.theta
        if validation[0] is not None and not hasattr(self, "validation_loss_curve_"):
            self.validation_loss_curve_: list[float] = []
        order = np.arange(count)

        def draw(samples: int) -> Array:
            nonlocal order
            places = np.arange(samples)
            self._random_state.shuffle(places)
            order = order[places]
            return order

        loss, epochs = trainer.loss.name, 1 if incremental else self.max_iter
        targets = self._told(Y, loss)

        def minibatches() -> Iterator[tuple[Any, ...]]:
            """Those of an epoch, made dense one by one."""
            places = draw(count) if self.shuffle else np.arange(count)
            for start in range(0, count, trainer.batch_size):
                rows = places[start : start + trainer.batch_size]
                extra = () if weights is None else (weights[rows],)
                yield X[rows].toarray(), targets[rows], *extra

        given: dict[str, Any] = {
            "epochs": epochs,
            "validation_data": self._validation_pair(validation, loss),
            "callbacks": [told, *(self.callbacks or ())],
            "verbose": 0,
        }
        self.n_iter_ = 0
        try:
            with np.errstate(over="ignore"):
                if _fits(X):
                    shuffle = draw if self.shuffle else False
                    trainer.fit(_dense(X), targets, shuffle=shuffle, sample_weight=weights, **given)
                else:
                    trainer.fit(minibatches, **given)
        except KeyboardInterrupt:
            trainer.rewind()
            warnings.warn("Training interrupted by user.", stacklevel=4)
        except DivergenceError as error:
            if held_out is None:
                raise ValueError(DIVERGED) from error
            self._diverged(epochs)
        finally:
            self._take(network)
        if self.n_iter_ == self.max_iter and not incremental and not trainer.stop:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization "
                "hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=4,
            )
        if told.best is not None:
            network.theta = told.best
            self._take(network)
        self._trainer = trainer

    def _trained(self, network: Sequential, count: int, incremental: bool) -> Trainer:
        """The trainer of the fit before, where this call goes on with it; else a new one."""
        size = min(200, count) if self.batch_size == "auto" else int(np.clip(self.batch_size, 1, count))
        if self.batch_size != "auto" and self.batch_size > count:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=5,
            )
        last: Trainer | None = getattr(self, "_trainer", None)
        state = self.__dict__.pop("_trainer_state", None)
        optimizer = self._optimizer_()
        if incremental and (last is not None or state is not None):
            # As in scikit-learn, alpha may change between two calls, and the optimiser's own numbers do not.
            before = state if last is None else _state_of(last)
            optimizer = replace(before[2], l2=float(self.alpha))
            if last is not None and last.network is network and last.optimizer == optimizer:
                last.batch_size = size
                return last
        trainer = Trainer(network, loss=self._cost(network), optimizer=optimizer, batch_size=size)
        if incremental and (last is not None or state is not None):
            _go_on(trainer, *before[:2])
        return trainer

    def _optimizer_(self) -> Optimizer:
        if self.solver == "adam":
            return _Adam(
                self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon, l2=float(self.alpha)
            )
        nesterov = bool(self.nesterovs_momentum and self.momentum)
        return _SGD(self.learning_rate_init, float(self.momentum), nesterov, l2=float(self.alpha))

    def _held_out(
        self, X: Any, Y: Array, weights: Array | None, validation: tuple[Any, Any]
    ) -> tuple[Callable[[Sequential], float] | None, Any, Array, Array | None]:
        """What scores a network after each epoch, and what is left to train on."""
        if not self.early_stopping:
            return None, X, Y, weights
        if validation[0] is not None:
            X_val, y_val = validation
            return self._scorer(X_val, y_val, None), X, Y, weights
        if on_gpu(X):
            raise ValueError("early_stopping with X on a GPU needs X_val and y_val: nothing is split there")
        stratify = Y if is_classifier(self) and self.n_outputs_ == 1 else None
        given = (X, Y) if weights is None else (X, Y, weights)
        parts = train_test_split(
            *given, random_state=self._random_state, test_size=self.validation_fraction, stratify=stratify
        )
        X, X_val, Y, Y_val, *rest = parts
        weights, weights_val = rest or (None, None)
        if len(Y_val) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return self._scorer(X_val, self._named(Y_val), weights_val), X, Y, weights

    def _scorer(self, X: Any, y: Array, weights: Array | None) -> Callable[[Sequential], float]:
        parts = [_dense(X)] if _fits(X) else [X[rows] for rows in _rows(X)]

        def score(network: Sequential) -> float:
            output = np.concatenate([_hosted(network.predict(_dense(part))) for part in parts])
            if not np.isfinite(output).all():
                return float("nan")
            return float(self._metric(y, self._named(output), sample_weight=weights))

        return score

    def _diverged(self, epochs: int) -> None:
        """scikit-learn goes on with NaN to the last epoch; so the attributes look here."""
        missing = epochs - self.n_iter_
        self.n_iter_ += missing
        self.loss_ = float("nan")
        self.loss_curve_ += [self.loss_] * missing
        self.validation_scores_ = [*(self.validation_scores_ or []), *[float("nan")] * missing]

    # ---------------------------------------------------------------- the network

    def _layers(self) -> Iterator[Layer]:
        count = self.n_layers_ - 2
        names = [self.activation] * count if isinstance(self.activation, str) else list(self.activation)
        rates = [self.dropout] * count if isinstance(self.dropout, Real) else list(self.dropout)
        for units, name, rate in zip([c.shape[1] for c in self.coefs_], names, rates, strict=False):
            own = ACTIVATION_NAMES.get(name, name)
            activation_named(own)
            yield Dense(units, own, "zeros")
            if rate:
                yield Dropout(float(rate))
        yield Dense(
            self.coefs_[-1].shape[1],
            ACTIVATION_NAMES.get(self.out_activation_, self.out_activation_),
            "zeros",
        )

    def _network(self) -> Sequential:
        """The network of ``coefs_`` and ``intercepts_``, whoever set them."""
        network: Sequential | None = getattr(self, "_net", None)
        held: Sequence[Array] = getattr(self, "_held", ())
        now = [*self.coefs_, *self.intercepts_]
        shapes = [np.shape(part) for part in now]
        layers = tuple(self._layers())
        dtype = str(np.result_type(*self.coefs_))
        wanted = (layers, self.device, dtype, shapes)
        if network is None or getattr(self, "_wanted", None) != wanted:
            seed = getattr(self, "_dropout_seed", 0)
            network = Sequential(
                layers, np.shape(self.coefs_[0])[0], device=self.device, dtype=dtype, seed=seed
            )
            self._net, self._wanted, held = network, wanted, ()
        if len(held) != len(now) or not all(map(np.array_equal, held, now)):
            keys = iter(network.parameters)
            for weights, bias in zip(self.coefs_, self.intercepts_, strict=True):
                network.parameters[next(keys)] = np.asarray(weights).T
                network.parameters[next(keys)] = np.asarray(bias)
            self._held = [np.array(part) for part in now]
        network.loss = self._loss()
        return network

    def _take(self, network: Sequential) -> None:
        """``coefs_`` and ``intercepts_`` as they are in the network now."""
        parts = list(network.tensors().values())
        self.coefs_ = [np.ascontiguousarray(part.T) for part in parts[0::2]]
        self.intercepts_ = parts[1::2]
        self._held = [np.array(part) for part in (*self.coefs_, *self.intercepts_)]

    def to_network(self) -> Sequential:
        """A :class:`gpunn.Sequential` with the parameters of this estimator, on its device."""
        check_is_fitted(self)
        return self._network().to(self.device)

    @classmethod
    def from_sklearn(cls, estimator: Any, **changed: Any) -> Any:
        """An estimator like one of scikit-learn's, fitted if that is.

        ``changed`` are parameters that shall be others, such as ``device="cuda"``.
        """
        made = cls(**{**estimator.get_params(deep=False), **changed})
        _carry_over(estimator, made)
        return made

    def to_sklearn(self) -> Any:
        """scikit-learn's estimator with the same parameters and, where fitted, the same predictions.

        Raises
        ------
        gpunn.ArgumentError
            Where scikit-learn has no such activation or cost.
        """
        import sklearn.neural_network

        cls = getattr(sklearn.neural_network, type(self).__name__)
        theirs = cls()
        given = {
            key: value for key, value in self.get_params(deep=False).items() if key in theirs.get_params()
        }
        if not isinstance(self.activation, str) or self.activation not in (
            "identity",
            "logistic",
            "tanh",
            "relu",
        ):
            raise ArgumentError(f"scikit-learn has no activation {self.activation!r}")
        if given.get("loss", "poisson") not in ("squared_error", "poisson"):
            raise ArgumentError(f"scikit-learn has no loss {self.loss!r}")
        theirs.set_params(**given)
        _carry_over(self, theirs)
        return theirs

    # ---------------------------------------------------------------- using

    def _output(self, X: Any) -> Any:
        check_is_fitted(self)
        if on_gpu(X):
            self._check_shape(X)
            return self._network().predict(X)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        network = self._network()
        if not sparse.issparse(X):
            return network.predict(X)
        return np.concatenate([network.predict(X[rows].toarray()) for rows in _rows(X)])

    def _check_shape(self, X: Any) -> None:
        """Of data on a GPU: what scikit-learn looks at on the host is an array of that shape."""
        check_is_fitted(self)
        validate_data(self, np.broadcast_to(np.float32(0), X.shape), reset=False, dtype=None)

    def _may_go_on(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coefs_")

    def __getstate__(self) -> dict[str, Any]:
        """Everything on the host: no network, no device."""
        state = dict(super().__getstate__())
        trainer = state.pop("_trainer", None)
        for name in ("_net", "_wanted", "_held"):
            state.pop(name, None)
        if trainer is not None:
            state["_trainer_state"] = _state_of(trainer)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ---------------------------------------------------------------- what differs

    def _learn_targets(self, y: Array, known: bool, whole: bool) -> None:
        """What the targets are."""

    def _weights(self, y: Array, sample_weight: Array | None) -> Array | None:
        return sample_weight

    @abstractmethod
    def _targets(self, y: Array) -> Array:
        """Rows of what the outputs should be."""

    def _told(self, Y: Array, loss: str) -> Array:
        """The targets as the network takes them."""
        return Y

    @abstractmethod
    def _named(self, output: Array) -> Array:
        """What the outputs say, in terms of y."""

    def _validation_pair(self, validation: tuple[Any, Any], loss: str) -> Any:
        X, y = validation
        if X is None:
            return None
        told = self._told(self._targets(y), loss)
        if _fits(X):
            return _dense(X), told
        return lambda: ((X[rows].toarray(), told[rows]) for rows in _rows(X))

    def _cost(self, network: Sequential) -> Loss:
        """The cost, of probabilities from ε to 1 − ε: that of all others is told as it is."""
        cost = loss_named(self._loss())
        return replace(cost, clip=float(np.finfo(network.dtype).eps)) if is_classifier(self) else cost

    @abstractmethod
    def _loss(self) -> str:
        """gpunn's name of the cost."""

    @abstractmethod
    def _out_activation(self) -> str:
        """scikit-learn's name of what the last layer does."""


def _state_of(trainer: Trainer) -> tuple[dict[str, Array], float, Any]:
    """What an optimiser goes on from, on the host."""
    return trainer._state(), trainer.lr_scale, trainer.optimizer


def _go_on(trainer: Trainer, state: dict[str, Array], lr_scale: float) -> None:
    """Take over the counters and the optimiser's moments, but not numbers that are parameters."""
    engine = trainer._engine
    hyper = engine.read("hyper")
    for name, values in state.items():
        if name in engine.memory and engine.memory[name].shape == values.shape:
            trainer.network.backend.assign(engine.memory[name], values)
    for word in ("beta1_power", "beta2_power"):
        hyper[HYPER[word]] = state["hyper"][HYPER[word]]
    engine.write("hyper", hyper)
    trainer.lr_scale = lr_scale


def _hosted(values: Any) -> Any:
    """On the host."""
    if not on_gpu(values):
        return values
    return np.asarray(
        values.get() if hasattr(values, "get") else values.cpu() if hasattr(values, "cpu") else values
    )


def _fits(X: Any) -> bool:
    """Whether X may be made dense as a whole."""
    return not sparse.issparse(X) or X.shape[0] * X.shape[1] * X.dtype.itemsize <= DENSE


def _rows(X: Any) -> Iterator[slice]:
    """Pieces of a sparse X that may be made dense."""
    rows = max(1, DENSE // max(1, X.shape[1] * X.dtype.itemsize))
    return (slice(start, start + rows) for start in range(0, X.shape[0], rows))


def _dense(X: Any) -> Any:
    if not sparse.issparse(X):
        return X
    try:
        return X.toarray()
    except MemoryError as error:
        size = X.shape[0] * X.shape[1] * X.dtype.itemsize / 2**30
        raise MemoryError(
            f"X would take {size:,.1f} GiB as a dense array: use fewer features (TruncatedSVD, SelectKBest), "
            "or partial_fit on parts of it"
        ) from error


def _carry_over(source: Any, target: Any) -> None:
    """The fitted attributes, if there are any."""
    if not hasattr(source, "coefs_"):
        return
    names = [name for name in vars(source) if name.endswith("_") and not name.startswith("_")]
    for name in [*names, "_label_binarizer", "_no_improvement_count"]:
        if name in vars(source):
            setattr(target, name, deepcopy(getattr(source, name)))
    dtype = getattr(target, "dtype", None)
    target.coefs_ = [np.array(part, dtype) for part in source.coefs_]
    target.intercepts_ = [np.array(part, dtype) for part in source.intercepts_]
    if not isinstance(target, _MLP):  # What scikit-learn's early stopping goes back to.
        target._best_coefs = [part.copy() for part in target.coefs_]
        target._best_intercepts = [part.copy() for part in target.intercepts_]
    target._random_state = check_random_state(target.random_state)


class MLPClassifier(ClassifierMixin, _MLP):  # type: ignore[misc]
    """scikit-learn's multi-layer perceptron for classes, on any device.

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, \
    max_iter, shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, \
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in scikit-learn. ``activation`` takes any name of :data:`gpunn.activations.ACTIVATIONS` too, and
        a list of one name for each hidden layer.
    device : str
        ``"cpu"``, ``"cuda"``, ``"auto"`` or a backend's name (see :func:`gpunn.devices`).
    dtype : {"float32", "float64"}, optional
        Of parameters and predictions; that of X unless given.
    dropout : float or list of float
        The share of each hidden layer's outputs that are dropped in training.
    class_weight : dict, list of dict or "balanced", optional
        A weight for each class, multiplied with ``sample_weight``.
    callbacks : list, optional
        See :class:`gpunn.Callback`.

    Attributes
    ----------
    coefs_, intercepts_, loss_, loss_curve_, best_loss_, validation_scores_, best_validation_score_, \
    n_iter_, t_, classes_, n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn; ``coefs_`` are (n_in, n_out).
    validation_loss_curve_ : list of float
        The cost of ``X_val, y_val`` after each epoch, where ``fit`` was given these.

    Raises
    ------
    ValueError
        For what scikit-learn raises it for, with its words.
    gpunn.DeviceError
        In ``fit``, where the device cannot be had.

    Examples
    --------
    >>> from gpunn.sklearn import MLPClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> mlp = MLPClassifier((20,), learning_rate_init=0.02, max_iter=1000, random_state=0).fit(X, y)
    >>> bool(mlp.score(X, y) > 0.95)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **_MLP._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        device: str = "cpu",
        dtype: str | None = None,
        dropout: Any = 0.0,
        callbacks: Any = None,
        class_weight: Any = None,
    ) -> None:
        self._keep(locals())

    @available_if(lambda mlp: mlp._may_go_on())  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
        """One more epoch over X and y; the first call has to tell all classes."""
        self._validate_params()
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer()
            self._label_binarizer.fit(y if type_of_target(y).startswith("multilabel") else classes)
        return self._fit(X, y, sample_weight, (None, None), incremental=True)

    def predict(self, X: Any) -> Any:
        """The label of each example."""
        return self._named(_hosted(self._output(X)))

    def predict_proba(self, X: Any) -> Any:
        """The probability of each class, (n_samples, n_classes), in the order of ``classes_``."""
        if on_gpu(X) and self.n_outputs_ == 1:
            self._check_shape(X)
            return self._both_sides().predict(X)
        output = self._output(X)
        return output if self.n_outputs_ > 1 else np.concatenate([1 - output, output], axis=1)

    def _both_sides(self) -> Sequential:
        """A network of 1 − σ(z) = σ(−z) and σ(z)."""
        one = self._network()
        *layers, last = one.layers
        assert isinstance(last, Dense)
        both = Sequential([*layers, replace(last, units=2)], one.input_shape, one.device, one.dtype, 0)
        for key, values in one.tensors().items():
            wide = both.parameters.window(key).shape != values.shape
            both.parameters[key] = np.concatenate([-values, values]) if wide else values
        return both

    def predict_log_proba(self, X: Any) -> Any:
        """The logarithms of :meth:`predict_proba`; on the host."""
        return np.log(_hosted(self.predict_proba(X)))

    def _learn_targets(self, y: Array, known: bool, whole: bool) -> None:
        if not hasattr(self, "classes_") or not (self.warm_start or known):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return
        classes = unique_labels(y)
        if whole:
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to "
                    f"fit. Previously got {self.classes_}, `y` has {classes}"
                )
        elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. "
                f"'y' has {classes}."
            )

    def _weights(self, y: Array, sample_weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return sample_weight
        found: Array = compute_sample_weight(self.class_weight, y)
        return found if sample_weight is None else found * sample_weight

    def _targets(self, y: Array) -> Array:
        found: Array = self._label_binarizer.transform(y).astype(bool)
        return found

    def _told(self, Y: Array, loss: str) -> Array:
        return Y.argmax(axis=1) if loss == "cross_entropy" else Y

    def _named(self, output: Array) -> Array:
        found: Array = self._label_binarizer.inverse_transform(
            output.ravel() if self.n_outputs_ == 1 else output
        )
        return found

    def _metric(self, y: Array, predicted: Array, sample_weight: Array | None) -> Any:
        return accuracy_score(y, predicted, sample_weight=sample_weight)

    def _loss(self) -> str:
        return "cross_entropy" if self.out_activation_ == "softmax" else "binary_cross_entropy"

    def _out_activation(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, _MLP):  # type: ignore[misc]
    """scikit-learn's multi-layer perceptron for numbers, on any device.

    Parameters
    ----------
    loss : str
        ``"squared_error"``, ``"poisson"`` (with exp as the last activation), ``"absolute_error"``,
        ``"huber"``, or another name of :data:`gpunn.losses.LOSSES`.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, \
    max_iter, shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, \
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in scikit-learn. ``activation`` takes any name of :data:`gpunn.activations.ACTIVATIONS` too, and
        a list of one name for each hidden layer.
    device : str
        ``"cpu"``, ``"cuda"``, ``"auto"`` or a backend's name (see :func:`gpunn.devices`).
    dtype : {"float32", "float64"}, optional
        Of parameters and predictions; that of X unless given.
    dropout : float or list of float
        The share of each hidden layer's outputs that are dropped in training.
    callbacks : list, optional
        See :class:`gpunn.Callback`.

    Attributes
    ----------
    coefs_, intercepts_, loss_, loss_curve_, best_loss_, validation_scores_, best_validation_score_, \
    n_iter_, t_, n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn; ``coefs_`` are (n_in, n_out).
    validation_loss_curve_ : list of float
        The cost of ``X_val, y_val`` after each epoch, where ``fit`` was given these.

    Raises
    ------
    ValueError
        For what scikit-learn raises it for, with its words.
    gpunn.DeviceError
        In ``fit``, where the device cannot be had.

    Examples
    --------
    >>> from gpunn.sklearn import MLPRegressor
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> mlp = MLPRegressor(loss="huber", learning_rate_init=0.1, tol=0.1, random_state=0).fit(X, y)
    >>> bool(mlp.score(X, y) > 0.4)
    True
    """

    loss: str
    _parameter_constraints: ClassVar[dict[str, Any]] = {**_MLP._parameter_constraints, "loss": [str]}

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        device: str = "cpu",
        dtype: str | None = None,
        dropout: Any = 0.0,
        callbacks: Any = None,
    ) -> None:
        self._keep(locals())

    @available_if(lambda mlp: mlp._may_go_on())  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """One more epoch over X and y."""
        return self._fit(X, y, sample_weight, (None, None), incremental=True)

    def predict(self, X: Any) -> Any:
        """The numbers: (n_samples,) or (n_samples, n_outputs)."""
        return self._named(self._output(X))

    def _targets(self, y: Array) -> Array:
        Y = y.reshape(len(y), -1)
        if self.loss == "poisson" and Y.min() < 0:
            raise ValueError(
                f"y holds {Y.min()}: loss='poisson' takes counts and rates, which are not below 0"
            )
        return Y

    def _named(self, output: Any) -> Any:
        return output.reshape(-1) if output.shape[1] == 1 else output

    def _metric(self, y: Array, predicted: Array, sample_weight: Array | None) -> Any:
        return r2_score(y, predicted, sample_weight=sample_weight)

    def _check_names(self, hidden: int) -> None:
        super()._check_names(hidden)
        if self._loss() == "cross_entropy":
            raise ValueError("loss='cross_entropy' is for classes: use MLPClassifier")

    def _loss(self) -> str:
        return loss_named(LOSS_NAMES.get(self.loss, self.loss)).name

    def _out_activation(self) -> str:
        link = LOSSES[self._loss()].link
        return "identity" if link is None else {"sigmoid": "logistic"}.get(link, link)

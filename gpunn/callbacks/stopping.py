"""Stop when nothing gets better, or go on more slowly."""

from __future__ import annotations

from typing import Any

from .base import Configured, Monitor, Run

__all__ = ["EarlyStopping", "ReduceLROnPlateau"]


class EarlyStopping(Configured):
    """Ends the training when a number has not improved for a while, and puts the best Θ back.

    Improved means: better than the best so far by more than ``min_delta``. NaN and infinity never are. Each
    fit counts anew, that of a run that was loaded too.

    Parameters
    ----------
    monitor : str
        An entry of the records, such as ``"val_loss"`` or ``"val_accuracy"``.
    patience : int
        The training ends after that many epochs without improvement, at least 1.
    min_delta : float
        0 or more.
    restore_best : bool
        Copy Θ of the best epoch back into the network when the fit ends by itself, early or not. After
        Ctrl-C or an error Θ stays as it is, so that the run can go on. The copy lies on the device. The
        optimiser's state and the counters stay those of the last epoch.
    mode : {"auto", "min", "max"}
        Whether less is better; ``"auto"`` knows it of losses and metrics.

    Attributes
    ----------
    best : float or None
        The best value so far.
    best_epoch : int or None
        Its epoch.
    stopped_epoch : int or None
        The epoch after which the training was stopped; ``None`` where it was not.

    Raises
    ------
    gpunn.ArgumentError
        For options that cannot work; after the first epoch, where the entry is no number.
    gpunn.UnknownNameError
        After the first epoch, where there is no such entry.

    Examples
    --------
    >>> import gpunn, numpy as np
    >>> X = np.random.default_rng(0).standard_normal((60, 4)); y = (X[:, 0] > 0).astype(int)
    >>> net = gpunn.Sequential([gpunn.Dense(2)], input_shape=4, seed=0)
    >>> stopping = EarlyStopping("val_accuracy", patience=3)
    >>> history = net.fit(X[:40], y[:40], validation_data=(X[40:], y[40:]), loss="cross_entropy", epochs=100,
    ...                   optimizer="adam", metrics=("accuracy",), callbacks=[stopping], verbose=0)
    >>> stopping.stopped_epoch == stopping.best_epoch + 3 == len(history)
    True
    >>> EarlyStopping(patience=0)
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: EarlyStopping: patience is 0, expected a whole number of at least 1
    """

    _options = ("monitor", "patience", "min_delta", "restore_best", "mode")

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: str = "auto",
    ) -> None:
        self.patience = self._whole("patience", patience, 1)
        self.min_delta = self._number("min_delta", min_delta, 0.0, open_=False)
        self._monitor = Monitor(type(self).__name__, monitor, mode, self.min_delta)
        self.monitor = monitor
        self.restore_best = bool(restore_best)
        self.mode = mode
        self._reset()

    def _reset(self) -> None:
        self._monitor.best = None
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self._waited = 0
        self._theta: Any = None

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._monitor.best

    def on_fit_begin(self, trainer: Run) -> None:
        """Forget what an earlier fit was like."""
        self._reset()

    def on_epoch_end(self, trainer: Run, record: dict[str, Any]) -> None:
        """Compare with the best epoch; stop when there was none better for too long."""
        value = self._monitor.value(record)
        if self._monitor.improves(value):
            self._monitor.best, self.best_epoch, self._waited = value, record["epoch"], 0
            if self.restore_best:
                self._keep(trainer)
            return
        self._waited += 1
        if self._waited >= self.patience:
            self.stopped_epoch = record["epoch"]
            trainer.stop = True

    def on_fit_end(self, trainer: Run) -> None:
        """Put the best Θ back where the fit ended by itself."""
        # Into Θ, never in its place: programs and parameters are windows of that very array.
        if trainer.completed and self._theta is not None:
            trainer.network.backend.assign(trainer.network.memory["theta"], self._theta)
        self._theta = None

    def _keep(self, trainer: Run) -> None:
        backend, theta = trainer.network.backend, trainer.network.memory["theta"]
        if self._theta is None:
            self._theta = backend.copy(theta)
        else:
            backend.assign(self._theta, theta)


class ReduceLROnPlateau(Configured):
    """Lowers the learning rate by a factor each time a number has stopped improving.

    η ← max(factor · η, min_lr), by way of ``trainer.lr_scale``, which multiplies whatever learning rate the
    optimiser has and is saved with the run. The ``lr`` of the following records shows it.

    Parameters
    ----------
    monitor : str
        An entry of the records.
    factor : float
        Above 0 and below 1.
    patience : int
        Epochs without improvement before the rate is lowered, at least 1.
    min_delta : float
        An improvement is more than that, 0 or more.
    cooldown : int
        Epochs after a reduction that are not counted, 0 or more.
    min_lr : float
        The rate is not lowered below that; compared with ``trainer.optimizer.lr`` times the scale, so a
        schedule of the optimiser may still go lower.
    mode : {"auto", "min", "max"}
        As for :class:`EarlyStopping`.

    Raises
    ------
    gpunn.ArgumentError
        For options that cannot work; after the first epoch, where the entry is no number.
    gpunn.UnknownNameError
        After the first epoch, where there is no such entry.

    Examples
    --------
    >>> import gpunn
    >>> ReduceLROnPlateau("loss", factor=0.5, patience=2)
    ReduceLROnPlateau(monitor='loss', factor=0.5, patience=2, min_delta=0.0, cooldown=0, min_lr=0.0,
    mode='auto')
    >>> ReduceLROnPlateau(factor=10)
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: ReduceLROnPlateau: factor is 10, expected a number above 0 and below 1
    """

    _options = ("monitor", "factor", "patience", "min_delta", "cooldown", "min_lr", "mode")

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.1,
        patience: int = 5,
        min_delta: float = 0.0,
        cooldown: int = 0,
        min_lr: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self.factor = self._number("factor", factor, 0.0, 1.0, open_=True)
        self.patience = self._whole("patience", patience, 1)
        self.min_delta = self._number("min_delta", min_delta, 0.0, open_=False)
        self.cooldown = self._whole("cooldown", cooldown, 0)
        self.min_lr = self._number("min_lr", min_lr, 0.0, open_=False)
        self._monitor = Monitor(type(self).__name__, monitor, mode, self.min_delta)
        self.monitor = monitor
        self.mode = mode
        self._waited = self._cooling = 0

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._monitor.best

    def on_fit_begin(self, trainer: Run) -> None:
        """Begin to count anew; the learning rate stays what the run has come to."""
        self._monitor.best = None
        self._waited = self._cooling = 0

    def on_epoch_end(self, trainer: Run, record: dict[str, Any]) -> None:
        """Compare with the best epoch; lower the learning rate when there was none better for too long."""
        value = self._monitor.value(record)
        cooling = self._cooling > 0
        self._cooling = max(0, self._cooling - 1)
        if self._monitor.improves(value):
            self._monitor.best, self._waited = value, 0
        elif not cooling:
            self._waited += 1
            if self._waited >= self.patience:
                self._lower(trainer)
                self._waited, self._cooling = 0, self.cooldown

    def _lower(self, trainer: Run) -> None:
        lowered = max(trainer.lr_scale * self.factor, self.min_lr / trainer.optimizer.lr)
        # Not lower: the floor is reached already. Not above 0: below the smallest float.
        if 0.0 < lowered < trainer.lr_scale:
            trainer.lr_scale = lowered

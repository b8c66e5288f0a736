"""From outside the package: an activation, an op, a layer, a loss, an optimiser, an initialiser, a metric."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

import gpunn
from gpunn.activations import ACTIVATIONS, Activation
from gpunn.backends.numpy import SIGMA, SIGMA_PRIME
from gpunn.device import backend_for
from gpunn.initializers import INITIALIZERS
from gpunn.layers import LAYERS
from gpunn.losses import LOSSES
from gpunn.metrics import METRICS, Metric
from gpunn.ops import HYPER, OPS
from gpunn.optimizers import OPTIMIZERS
from gpunn.program import Program, Role
from gpunn.variants import Model, jacobian

TABLES = (ACTIVATIONS, SIGMA, SIGMA_PRIME, OPS, LOSSES, LAYERS, OPTIMIZERS, INITIALIZERS, METRICS)


@pytest.fixture(autouse=True)
def _tables_as_they_were():
    """What a test enters into a table is gone after it."""
    before = [dict(table) for table in TABLES]
    yield
    for table, rows in zip(TABLES, before, strict=True):
        table.clear()
        table.update(rows)


# ------------------------------------------------------------------ what is brought from outside


def softsign():
    """An activation whose derivative is a function of the output."""

    def sigma(z, a, s, mask):
        np.abs(z, out=s)
        np.add(s, 1, out=s)
        np.divide(z, s, out=a)

    def sigma_prime(a, delta, s):
        np.abs(a, out=s)
        np.subtract(1, s, out=s)
        np.multiply(s, s, out=s)
        np.multiply(delta, s, out=delta)

    ACTIVATIONS["softsign"] = Activation(
        "softsign",
        sigma=lambda z: z / (1 + abs(z)),
        sigma_prime=lambda a: (1 - abs(a)) ** 2,
        needs="output",
        formula="a = z/(1 + |z|)",
        source="Glorot and Bengio 2010",
    )
    SIGMA["softsign"], SIGMA_PRIME["softsign"] = sigma, sigma_prime


def arctangent():
    """An activation whose derivative is a function of the input."""

    def sigma(z, a, s, mask):
        np.arctan(z, out=a)

    def sigma_prime(z, delta, s):
        np.multiply(z, z, out=s)
        np.add(s, 1, out=s)
        np.divide(delta, s, out=delta)

    ACTIVATIONS["arctan"] = Activation(
        "arctan", math.atan, lambda z: 1 / (1 + z * z), "input", "a = arctan z", "a test"
    )
    SIGMA["arctan"], SIGMA_PRIME["arctan"] = sigma, sigma_prime


def scale():
    """An op y = x ⊙ gain and a layer that emits it."""

    def forward(x, gain, y):
        np.multiply(x, gain, out=y)

    def grad_gain(delta, x, grad):
        np.einsum("bk,bk->k", delta, x, out=grad)

    def adjoint(back, op):
        x, gain = op.ins
        delta = back.error(op.outs[0])
        if back.needs(x):
            back.send("scale", (delta, gain), to=x)
        back.send("scale_grad_gain", (delta, x), to=gain)

    gpunn.register_op(
        "scale", "x(B,K) gain(K) -> y(B,K)", formula="{y} = {x} ⊙ {gain}", adjoint=adjoint, numpy=forward
    )
    gpunn.register_op(
        "scale_grad_gain",
        "delta(B,K) x(B,K) -> grad(K)",
        formula="{grad} = Σ_batch {delta} ⊙ {x}",
        equation="BP4",
        numpy=grad_gain,
    )

    class Scale(gpunn.Layer):
        def __init__(self, start="normal", repeat=1):
            self.start = start
            self.repeat = repeat

        def emit(self, program, x):
            gain = program.parameter("gain", program.slots[x].shape[1:], self.start, weight=False)
            for _ in range(self.repeat):
                x = program.emit("scale", (x, gain))
            return x

    return Scale


def residual():
    """A layer made of ops that are there, a dataclass."""

    @dataclass(frozen=True, repr=False)
    class Residual(gpunn.Layer):
        activation: str = "tanh"

        def emit(self, program, x):
            n = program.slots[x].shape[1]
            W = program.parameter("weights", (n, n), "he_normal")
            b = program.parameter("bias", (n,), "zeros", weight=False)
            z = program.emit("linear", (x, W, b))
            return program.emit("add", (x, program.emit("activate", (z,), sigma=self.activation)))

    return Residual


def log_cosh():
    """A cost of the output, for targets and labels."""

    def kernel(a, t, w, loss, delta):
        share = np.full(len(a), 1 / len(a)) if w is None else w / w.sum()
        error = (a - t).astype(np.float64)
        rows = (np.logaddexp(error, -error) - math.log(2)).sum(axis=1)
        loss[:] = rows @ share, len(a) if w is None else w.sum()
        if delta is not None:
            delta[...] = np.tanh(error) * share[:, None]

    gpunn.register_op(
        "log_cosh",
        "a(B,N) t(B,N) w?(B) -> loss(2):float64 delta?(B,N)",
        formula="C = mean Σ log cosh({a} − {t})",
        equation="loss",
        numpy=kernel,
    )
    gpunn.register_loss("log_cosh", "log_cosh", labels="one_hot")


def margin():
    """A cost that reads z and labels, with the sigmoid in itself: log loss of the label's output alone."""

    def targets(z, t, w, loss, delta):
        share = np.full(len(z), 1 / len(z)) if w is None else w / w.sum()
        loss[:] = (np.logaddexp(0, z) - t * z).sum(axis=1) @ share, len(z) if w is None else w.sum()
        if delta is not None:
            delta[...] = (1 / (1 + np.exp(-z)) - t) * share[:, None]

    def labels(z, labels, w, loss, delta):
        targets(z, np.eye(z.shape[1])[labels], w, loss, delta)

    outputs = "w?(B) -> loss(2):float64 delta?(B,N)"
    for name, signature, kernel in (
        ("logistic_targets", f"z(B,N) t(B,N) {outputs}", targets),
        ("logistic", f"z(B,N) labels(B):int64 {outputs}", labels),
    ):
        gpunn.register_op(
            name, signature, formula="C = mean Σ log(1 + exp {z}) − t z", equation="loss", numpy=kernel
        )
    gpunn.register_loss("logistic", "logistic_targets", labels="op", labels_op="logistic", link="sigmoid")


def sign_sgd():
    """An update of the whole of Θ."""

    def kernel(grad, hyper, theta, *, weights):
        theta -= hyper[HYPER["lr"]] * np.sign(grad)

    gpunn.register_op(
        "sign_sgd",
        "grad(P) hyper(H):float64 -> theta(P)",
        formula="{theta} = {theta} − lr sign {grad}",
        equation="update",
        updates=("theta",),
        elementwise=True,
        numpy=kernel,
    )

    @dataclass(frozen=True)
    class SignSGD(gpunn.Optimizer):
        lr: float = 0.01
        l2: float = 0.0

        def emit(self, program):
            self.emit_update(program, "sign_sgd", ())

    return SignSGD


def network(layers, dtype="float64"):
    return gpunn.Sequential([*layers, gpunn.Dense(2, activation="tanh")], 3, dtype=dtype, seed=1)


def with_softsign(dtype="float64"):
    softsign()
    return network([gpunn.Dense(5, activation="softsign"), gpunn.Activation("softsign")], dtype), "quadratic"


def with_arctangent(dtype="float64"):
    arctangent()
    return network([gpunn.Dense(5, activation="arctan"), gpunn.Activation("arctan")], dtype), "quadratic"


def with_scale(dtype="float64"):
    return network([scale()(start="he_normal")], dtype), "quadratic"


def with_scale_twice(dtype="float64"):
    INITIALIZERS["ones"] = lambda rng, shape, fan_in, fan_out: np.ones(shape)
    return network([gpunn.Dense(6), scale()(start="ones", repeat=2)], dtype), "quadratic"


def with_residual(dtype="float64"):
    layer = residual()
    return network([layer("sigmoid"), layer()], dtype), "mse"


def with_log_cosh(dtype="float64"):
    log_cosh()
    return network([gpunn.Dense(4, activation="tanh")], dtype), "log_cosh"


def with_margin(dtype="float64"):
    margin()
    layers = [gpunn.Dense(4, activation="tanh"), gpunn.Dense(2, activation="sigmoid")]
    return gpunn.Sequential(layers, 3, dtype=dtype, seed=1), "logistic"


EXTENDED = [
    with_softsign,
    with_arctangent,
    with_scale,
    with_scale_twice,
    with_residual,
    with_log_cosh,
    with_margin,
]
everything = pytest.mark.parametrize("extended", EXTENDED, ids=lambda extended: extended.__name__)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((21, 3))
LABELS = (X[:, 0] > 0).astype(int)
T = np.eye(2)[LABELS]


# ------------------------------------------------------------------ it works as if it were part of gpunn


@everything
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_trains(extended, dtype):
    net, loss = extended(dtype)
    history = net.fit(
        X, T, loss=loss, optimizer=gpunn.SGD(lr=0.2), batch_size=4, epochs=20, metrics=["accuracy"], verbose=0
    )
    assert history.records[-1]["loss"] < 0.7 * history.records[0]["loss"]
    assert history.records[-1]["accuracy"] > 0.9


@everything
@pytest.mark.parametrize("weights", [None, np.linspace(0, 2, 21)], ids=["", "weighted"])
def test_its_gradient_is_right(extended, weights):
    net, loss = extended()
    check = gpunn.gradcheck(net, X, T, loss=loss, sample_weight=weights)
    assert check, check
    assert sorted(check.errors) == sorted(net.parameters)


@everything
def test_it_is_saved_and_loaded_by_its_name(extended, tmp_path):
    net, loss = extended()
    net.fit(X, T, loss=loss, verbose=0)
    net.save(tmp_path / "net.safetensors")
    again = gpunn.load(tmp_path / "net.safetensors")
    assert again.config() == net.config()
    np.testing.assert_array_equal(again.predict(X), net.predict(X))


@everything
def test_a_run_with_it_goes_on_where_it_stopped(extended, tmp_path):
    net, loss = extended()
    trainer = gpunn.Trainer(net, loss=loss, optimizer="adam", batch_size=4)
    trainer.epoch(X, T)
    trainer.save(tmp_path / "run.safetensors")
    again = gpunn.Trainer.load(tmp_path / "run.safetensors")
    records = [run.epoch(X, T)["loss"] for run in (trainer, again)]
    assert records[0] == records[1]
    assert again.network.theta.tobytes() == net.theta.tobytes()


@everything
def test_its_jacobian_agrees_with_central_differences(extended):
    net, _ = extended()
    steps = 1e-6 * np.eye(3)
    slopes = (net.predict(X[0] + steps) - net.predict(X[0] - steps)) / 2e-6
    np.testing.assert_allclose(net.jacobian(X[0]), slopes.T, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("extended", "rows"),
    [
        (with_softsign, ["a0 = softsign(z0)", "δ1 = δ1 ⊙ softsign′(a1)", "δ1 = δ1 ⊙ softsign′(a0)"]),
        (with_arctangent, ["a0 = arctan(z0)", "δ1 = δ1 ⊙ arctan′(a0)", "δ1 = δ1 ⊙ arctan′(z0)"]),
        (with_scale, ["y0 = x ⊙ g0", "∂C/∂g0 = Σ_batch δ0 ⊙ x"]),
        (with_scale_twice, ["y1′ = y1 ⊙ g1", "δ1′ = δ1 ⊙ g1", "∂C/∂g1 = Σ_batch δ1 ⊙ y1", "∂C/∂g1 += "]),
        (with_residual, ["y0 = x + a0", "y1 = y0 + a1", "δ0 += δ1′ W1"]),
        (with_log_cosh, ["C = mean Σ log cosh(a1 − t)"]),
        (with_margin, ["C = mean Σ log(1 + exp z1) − t z"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_it_prints_in_the_program(extended, rows):
    net, loss = extended()
    printed = str(net.program(loss=loss, targets="dense"))
    assert [row for row in rows if row not in printed] == []


def test_an_op_that_is_its_own_adjoint_is_bp2_on_the_way_back():
    net, loss = with_scale_twice()
    rows = str(net.program(loss=loss)).splitlines()
    assert [row for row in rows if "backward" in row and "forward" in row] == []


@pytest.mark.parametrize("extended", [with_log_cosh, with_margin], ids=lambda extended: extended.__name__)
def test_a_loss_from_outside_takes_labels(extended):
    net, loss = extended()
    for key, gradient in net.gradients(X, T, loss=loss).items():
        np.testing.assert_allclose(net.gradients(X, LABELS, loss=loss)[key], gradient, rtol=1e-12)


def test_a_loss_from_outside_takes_its_activation_into_itself():
    net, loss = with_margin()
    ops = [op.name for op in net.program(loss=loss).ops]
    assert "logistic" in ops
    assert ops.count("activate") == ops.count("activate_grad") == 1


def test_a_loss_from_outside_refuses_another_activation():
    margin()
    with pytest.raises(
        gpunn.ArgumentError, match="the last activation must be 'identity' or 'sigmoid', got 'tanh'"
    ):
        network([]).fit(X, T, loss="logistic", verbose=0)


def test_an_optimiser_from_outside_trains_and_is_saved_by_its_name(tmp_path):
    optimizer = sign_sgd()(lr=0.05)
    net = network([])
    trainer = gpunn.Trainer(net, loss="quadratic", optimizer=optimizer, batch_size=21)
    before = net.theta.copy()
    trainer.epoch(X, T)
    np.testing.assert_allclose(np.abs(net.theta - before), 0.05)
    trainer.save(tmp_path / "run.safetensors")
    assert gpunn.Trainer.load(tmp_path / "run.safetensors").optimizer == optimizer
    assert gpunn.Trainer(net, loss="mse", optimizer="SignSGD").optimizer == type(optimizer)()


def test_an_initialiser_from_outside_is_one_row():
    INITIALIZERS["halves"] = lambda rng, shape, fan_in, fan_out: np.full(shape, 0.5)
    assert (
        network([gpunn.Dense(4, weights="halves")]).parameters["layers.0.weights"].tolist() == [[0.5] * 3] * 4
    )


def test_a_metric_from_outside_is_one_op_and_one_row():
    def kernel(y, t, total):
        total[0] += np.abs(y - t).sum()

    gpunn.register_op(
        "absolute",
        "y(B,N) t(B,N) -> total(1):float64",
        formula="{total} += Σ|{y} − {t}|",
        updates=("total",),
        numpy=kernel,
    )
    METRICS["absolute"] = Metric(
        "absolute", lambda total, count: float(total[0]) / count, "Σ|y − t| / n", "a test", numbers="absolute"
    )
    net = network([])
    found = net.evaluate(X, T, loss="mse", metrics=["absolute", "accuracy"], batch_size=4)
    assert found["absolute"] == pytest.approx(np.abs(net.predict(X) - T).sum() / 21)


def test_a_layer_built_on_dense_is_saved_under_its_own_name(tmp_path):
    @dataclass(frozen=True, repr=False)
    class Squashed(gpunn.Dense):
        limit: str = "tanh"

        def emit(self, program, x):
            return program.emit("activate", (super().emit(program, x),), sigma=self.limit)

    net = network([Squashed(4, limit="sigmoid")])
    net.save(tmp_path / "net.safetensors")
    (layer, _) = gpunn.load(tmp_path / "net.safetensors").layers
    assert (type(layer), layer.limit, layer.units) == (Squashed, "sigmoid", 4)


@pytest.mark.parametrize(
    ("build", "shown"),
    [
        (lambda: scale()("zeros"), "Scale(start='zeros', repeat=1)"),
        (lambda: residual()(), "Residual(activation='tanh')"),
    ],
    ids=["plain", "dataclass"],
)
def test_a_layer_shows_the_arguments_that_make_it(build, shown):
    assert repr(build()) == shown


def test_a_layer_may_have_a_single_number_as_a_parameter():
    def grow(x, gain, y):
        np.multiply(x, gain, out=y)

    def grad_gain(delta, x, grad):
        grad[...] = np.vdot(delta, x)

    def adjoint(back, op):
        x, gain = op.ins
        delta = back.error(op.outs[0])
        if back.needs(x):
            back.send("grow", (delta, gain), to=x)
        back.send("grow_grad", (delta, x), to=gain)

    gpunn.register_op(
        "grow", "x(*S) gain() -> y(*S)", formula="{y} = {gain} {x}", adjoint=adjoint, numpy=grow
    )
    gpunn.register_op(
        "grow_grad", "delta(*S) x(*S) -> grad()", formula="{grad} = Σ {delta} ⊙ {x}", numpy=grad_gain
    )

    class Grow(gpunn.Layer):
        def emit(self, program, x):
            return program.emit("grow", (x, program.parameter("gain", (), "normal", weight=False)))

    net = network([Grow()])
    assert net.parameters["layers.0.gain"].shape == ()
    assert gpunn.gradcheck(net, X, T, loss="quadratic")


# ------------------------------------------------------------------ adjoints


def test_an_adjoint_may_send_an_error_that_nobody_wants():
    """No gradient of a parameter is computed where only that of the input is wanted."""
    program = jacobian(Model((scale()(), gpunn.Dense(2)), (3,), "float64"), 2)
    assert [op.name for op in program.ops if op.name == "scale_grad_gain"] == []


def test_an_adjoint_may_send_an_error_to_an_operand_that_is_absent():
    def shift(x, b, y):
        np.add(x, 0 if b is None else b, out=y)

    def adjoint(back, op):
        back.send("copy", (back.error(op.outs[0]),), to=op.ins[0])
        back.send("linear_grad_bias", (back.error(op.outs[0]),), to=op.ins[1])

    gpunn.register_op(
        "shift", "x(B,N) b?(N) -> y(B,N)", formula="{y} = {x} + {b}", adjoint=adjoint, numpy=shift
    )

    class Shift(gpunn.Layer):
        def emit(self, program, x):
            return program.emit("shift", (x,))

    net = network([gpunn.Dense(4), Shift()])
    assert gpunn.gradcheck(net, X, T, loss="quadratic")
    assert "y1 = z0 + ·" in str(net.program(loss="quadratic"))


@pytest.mark.parametrize(
    ("send", "words"),
    [
        (lambda back, op: back.send("scael", (back.error(op.outs[0]),), to=op.ins[0]), ["scael", "'scale'"]),
        (lambda back, op: back.send("scale", (back.error(op.outs[0]),), to=op.ins[0]), ["layer 1", "gain"]),
        (lambda back, op: back.send("split", (back.error(op.outs[0]),), to=op.ins[0]), ["layer 1", "split"]),
        (
            lambda back, op: back.rewrite(
                "split", (back.error(op.outs[0]),), error_of=op.outs[0], to=op.ins[0]
            ),
            ["layer 1", "split"],
        ),
    ],
    ids=["unknown op", "missing operand", "two results", "two results in place"],
)
def test_an_adjoint_that_cannot_work_is_told_what_is_wrong(send, words):
    scale()
    gpunn.register_op("split", "x(*S) -> left(*S) right(*S)", formula="{left}, {right} = {x}")
    gpunn.register_op("same", "x(*S) -> y(*S)", formula="{y} = {x}", adjoint=send)

    class Same(gpunn.Layer):
        def emit(self, program, x):
            return program.emit("same", (x,))

    with pytest.raises(gpunn.GpunnError) as caught:
        network([gpunn.Dense(3), Same()]).program(loss="quadratic")
    assert [word for word in words if word not in str(caught.value)] == []


# ------------------------------------------------------------------ names that are taken


def test_an_op_keeps_its_name():
    before = OPS["linear"]
    with pytest.raises(gpunn.ArgumentError, match="op 'linear' exists already"):
        gpunn.register_op("linear", "x(B) -> y(B)", formula="{y} = {x}")
    assert OPS["linear"] is before


def test_a_loss_keeps_its_name():
    with pytest.raises(gpunn.ArgumentError, match="loss 'quadratic' exists already"):
        gpunn.register_loss("quadratic", "mean_squared_error")
    assert LOSSES["quadratic"].op == "quadratic"


def test_a_layer_keeps_its_name():
    """Else every file with a Dense in it would be built with this class."""
    with pytest.raises(gpunn.ArgumentError, match="Dense"):
        type("Dense", (gpunn.Layer,), {"emit": lambda self, program, x: x})
    assert LAYERS["Dense"] is gpunn.Dense


def test_an_optimiser_keeps_its_name_in_any_case():
    with pytest.raises(gpunn.ArgumentError, match="Sgd"):
        type("Sgd", (gpunn.Optimizer,), {"emit": lambda self, program: None})
    assert OPTIMIZERS["sgd"] is gpunn.SGD


def test_a_layer_may_be_defined_again_as_in_a_notebook():
    first, second = residual(), residual()
    assert first is not second
    assert LAYERS["Residual"] is second


# ------------------------------------------------------------------ what cannot be registered


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "x(B) ->",
        "x(B) y(B)",
        "x(B -> y(B)",
        "x[B] -> y[B]",
        "x (B) -> y(B)",
        "x(B) -> x(B)",
        "x(B) x(B) -> y(B)",
        "x(B) -> y(B) -> z(B)",
        "x(*S,*T) -> y(*S)",
        "x(B):int46 -> y(B)",
        "x(B) -> y(B):=X",
        "x(B):=y -> y(B)",
    ],
)
def test_a_signature_that_cannot_be_read_is_refused(signature):
    with pytest.raises(gpunn.ArgumentError):
        gpunn.register_op("odd", signature, formula="")
    assert "odd" not in OPS


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"updates": ("z",)}, ["odd", "z"]),
        ({"formula": "{y} = 2 {z}"}, ["odd", "z"]),
        ({"formula": "{y} = {"}, ["odd", "formula"]),
        ({"numpy": 3}, ["odd", "numpy", "3"]),
        ({"adjiont": scale}, ["adjiont", "adjoint"]),
    ],
    ids=["updates", "formula", "braces", "kernel", "keyword"],
)
def test_an_op_that_cannot_work_is_refused(wrong, words):
    given = {"formula": "{y} = {x}", "numpy": np.copyto, **wrong}
    with pytest.raises(gpunn.GpunnError) as caught:
        gpunn.register_op("odd", "x(B) -> y(B)", **given)
    assert [word for word in words if word not in str(caught.value)] == []
    assert "odd" not in OPS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"op": "quadratik"}, ["unknown op 'quadratik'", "'quadratic'"]),
        ({"op": "linear"}, ["'odd'", "'linear'", "loss(2):float64"]),
        ({"op": "count_correct"}, ["'odd'", "'count_correct'"]),
        ({"labels": "sometimes"}, ["'odd'", "'sometimes'", "'one_hot'"]),
        ({"labels": "op"}, ["'odd'", "labels_op"]),
        ({"labels_op": "softmax_cross_entropy"}, ["'odd'", "labels_op"]),
        ({"labels": "op", "labels_op": "one_hot"}, ["'odd'", "'one_hot'"]),
        ({"link": "sigmodi"}, ["'sigmodi'", "'sigmoid'"]),
    ],
)
def test_a_loss_that_cannot_work_is_refused(arguments, words):
    with pytest.raises(gpunn.GpunnError) as caught:
        gpunn.register_loss(**{"name": "odd", "op": "quadratic", **arguments})
    assert [word for word in words if word not in str(caught.value)] == []
    assert "odd" not in LOSSES


# ------------------------------------------------------------------ what is missing


def test_an_op_without_a_kernel_names_the_layer_the_op_and_the_backend():
    gpunn.register_op("same", "x(*S) -> y(*S)", formula="{y} = {x}")

    class Same(gpunn.Layer):
        def emit(self, program, x):
            return program.emit("same", (x,))

    net = network([Same()])
    message = (
        "layer 0 Same: forward: the numba backend has no kernel for op 'same': register the op with numba="
    )
    with pytest.raises(gpunn.ProgramError, match=message):
        net.predict(X)


def test_an_op_with_a_kernel_for_another_backend_names_this_one():
    gpunn.register_op("same", "x(*S) -> y(*S)", formula="{y} = {x}", cuda=np.copyto)
    program = Program("float64")
    program.pin(program.emit("same", (program.slot("x", (3,), Role.INPUT),)))
    with pytest.raises(gpunn.ProgramError, match="the numpy backend has no kernel for op 'same'"):
        backend_for("numpy").load(program, {})


@pytest.mark.parametrize("table", [SIGMA, SIGMA_PRIME], ids=["sigma", "sigma prime"])
def test_an_activation_without_its_twin_for_numpy_has_it_compiled(table):
    softsign()
    layers = [gpunn.Dense(4, activation="softsign")]
    before = network(layers).gradients(X, T, loss="quadratic")
    del table["softsign"]
    for key, grad in network(layers).gradients(X, T, loss="quadratic").items():
        np.testing.assert_allclose(grad, before[key], rtol=1e-12)


@pytest.mark.parametrize("kernel", [lambda x: None, lambda x, y, z: None], ids=["too few", "too many"])
def test_a_kernel_that_takes_other_operands_is_named_before_it_runs(kernel):
    gpunn.register_op("same", "x(*S) -> y(*S)", formula="{y} = {x}", numpy=kernel)
    program = Program("float64")
    with program.scope("layers.0", "layer 0 Same"):
        program.pin(program.emit("same", (program.slot("x", (3,), Role.INPUT),)))
    with pytest.raises(gpunn.ProgramError, match="layer 0 Same: forward: the kernel of 'same' cannot take"):
        backend_for("numpy").load(program, {})


def test_a_layer_without_emit_cannot_be_made():
    class Idle(gpunn.Layer):
        pass

    with pytest.raises(TypeError, match="emit"):
        Idle()


def test_a_layer_that_forgets_an_argument_is_told_which():
    class Forgetful(gpunn.Layer):
        def __init__(self, size):
            self.width = size

        def emit(self, program, x):
            return x

    with pytest.raises(gpunn.GpunnError, match=r"Forgetful.*'size'"):
        Forgetful(3).config()


@pytest.mark.parametrize(
    "make", [lambda self, *sizes: None, lambda self, **sizes: None], ids=["positional", "keyword"]
)
def test_a_layer_whose_arguments_have_no_names_is_told_so(make):
    layer = type("Loose", (gpunn.Layer,), {"__init__": make, "emit": lambda self, program, x: x})
    with pytest.raises(gpunn.GpunnError, match=r"Loose.*'sizes'"):
        layer().config()


def test_an_argument_of_a_layer_may_be_a_number_of_numpys(tmp_path):
    net = network([scale()(repeat=np.int64(2))])
    net.save(tmp_path / "net.safetensors")
    assert gpunn.load(tmp_path / "net.safetensors").layers[0].repeat == 2


def test_an_argument_that_json_cannot_hold_is_named_with_its_layer(tmp_path):
    layer = scale()(start="normal")
    net = network([layer])
    layer.repeat = {1, 2}
    with pytest.raises(gpunn.GpunnError, match=r"repeat.*Scale|Scale.*repeat"):
        net.save(tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_a_layer_that_is_not_defined_says_which(tmp_path):
    net, _ = with_scale()
    net.save(tmp_path / "net.safetensors")
    del LAYERS["Scale"]
    with pytest.raises(gpunn.FormatError, match="unknown layer class 'Scale'"):
        gpunn.load(tmp_path / "net.safetensors")


def test_a_file_with_a_layer_that_takes_other_arguments_now_says_so(tmp_path):
    net, _ = with_scale()
    net.save(tmp_path / "net.safetensors")
    LAYERS["Scale"] = residual()
    with pytest.raises(gpunn.FormatError, match="layer Scale cannot be built from"):
        gpunn.load(tmp_path / "net.safetensors")


def test_an_unknown_initialiser_of_a_layers_parameter_is_answered_with_the_nearest():
    with pytest.raises(gpunn.UnknownNameError, match="unknown initialiser 'norml': did you mean 'normal'"):
        network([scale()(start="norml")])

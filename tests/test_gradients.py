"""Backpropagation against central differences and against the per-example oracle."""

from __future__ import annotations

import numpy as np
import oracle
import pytest

import gpunn
from gpunn.activations import ACTIVATIONS
from gpunn.losses import LOSSES

SIGMAS = [*ACTIVATIONS, "softmax"]


def outputs_for(loss):
    """The output activations that a loss may stand on."""
    link = LOSSES[loss].link
    return SIGMAS if link is None else ["identity", link]


def networks():
    """Every layer, each activation inside and as output, each loss, as (layers, input shape, loss).

    But no exponentials of exponentials, which are beyond every number.
    """
    for loss in LOSSES:
        for last in outputs_for(loss):
            for hidden in SIGMAS:
                if hidden != "exp" or (last != "exp" and LOSSES[loss].link is None):
                    yield pytest.param("dense", hidden, last, loss, id=f"dense-{hidden}-{last}-{loss}")
        for hidden in SIGMAS:
            if hidden == "exp":
                continue
            last = outputs_for(loss)[-1]
            yield pytest.param("activation", hidden, last, loss, id=f"activation-{hidden}-{loss}")
            yield pytest.param("flatten", hidden, last, loss, id=f"flatten-{hidden}-{loss}")


def build(kind, hidden, last, dtype, device, seed=0):
    """A network of that kind, and the same for the oracle."""
    if kind == "dense":
        layers = [gpunn.Dense(6, activation=hidden), gpunn.Dense(3, activation=last)]
    elif kind == "activation":
        layers = [gpunn.Dense(6), gpunn.Activation(hidden), gpunn.Dense(3), gpunn.Activation(last)]
    else:
        layers = [gpunn.Flatten(), gpunn.Dense(6, activation=hidden), gpunn.Dense(3, activation=last)]
    shape = (2, 4) if kind == "flatten" else 8
    net = gpunn.Sequential(layers, input_shape=shape, dtype=dtype, device=device, seed=seed)
    rng = np.random.default_rng(seed)
    net.theta = rng.standard_normal(net.layout.count) * 0.6
    return net


def as_oracle(net):
    found = []
    for i, layer in enumerate(net.layers):
        if isinstance(layer, gpunn.Dense):
            W, b = (np.array(net.tensors()[f"layers.{i}.{k}"], float) for k in ("weights", "bias"))
            found.append(oracle.Layer(W, b, layer.activation))
        elif isinstance(layer, gpunn.Activation):
            found.append(oracle.Layer(None, None, layer.activation))
    return found


def data_for(net, loss, kinks_of):
    """Inputs whose z stay 1e-3 away from every kink."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((7, *net.input_shape)).astype(net.dtype)
        T = np.eye(3)[rng.integers(0, 3, 7)] if LOSSES[loss].link else rng.standard_normal((7, 3))
        if not kinks_of or away_from_kinks(net, X):
            return X, T
    raise AssertionError("no inputs away from the kinks found")


def away_from_kinks(net, X):
    for x in X.reshape(len(X), -1).astype(float):
        a = x
        for layer in as_oracle(net):
            z = a if layer.W is None else layer.W @ a + layer.b
            kinks = ACTIVATIONS[layer.sigma].kinks if layer.sigma in ACTIVATIONS else ()
            if any(np.abs(z - kink).min() < 1e-3 for kink in kinks):
                return False
            a = oracle.activate(layer.sigma, z)
    return True


def case(kind, hidden, last, loss, dtype, device):
    net = build(kind, hidden, last, dtype, device)
    X, T = data_for(net, loss, kinks_of=True)
    layers = as_oracle(net)
    if LOSSES[loss].link:
        layers[-1].sigma = LOSSES[loss].link
    return net, X, T, layers


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / max(np.linalg.norm(found) + np.linalg.norm(expected), 1e-12)


@pytest.mark.parametrize(("kind", "hidden", "last", "loss"), list(networks()))
def test_gradients_agree_with_central_differences(device, kind, hidden, last, loss):
    net, X, T, _ = case(kind, hidden, last, loss, "float64", device)
    # More of them where each op is defined; the oracle below looks at all entries everywhere.
    check = gpunn.gradcheck(net, X, T, loss=loss, entries=100 if device == "numpy" else 10)
    assert check, check
    assert sorted(check.errors) == sorted(net.parameters)


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize(("kind", "hidden", "last", "loss"), list(networks()))
def test_gradients_errors_and_cost_agree_with_the_oracle(device, kind, hidden, last, loss, dtype, bound):
    net, X, T, layers = case(kind, hidden, last, loss, dtype, device)
    cost, grads, deltas = oracle.backpropagate(layers, X, T, loss)
    expected = [part for pair in grads for part in pair]
    found = net.gradients(X, T, loss=loss)
    errors = net.errors(X, T, loss=loss)
    assert relative_error(net.evaluate(X, T, loss=loss)["loss"], cost) <= bound
    for array, exact in zip(found.values(), expected, strict=True):
        assert relative_error(array, exact) <= bound
    assert list(errors) == [key.removesuffix(".weights") for key in found if key.endswith("weights")]
    for array, exact in zip(errors.values(), deltas, strict=True):
        assert relative_error(array, exact) <= bound


@pytest.mark.parametrize("loss", list(LOSSES))
def test_weighted_gradients_agree_with_the_oracle(device, loss):
    net, X, T, layers = case("dense", "tanh", outputs_for(loss)[-1], loss, "float64", device)
    weights = np.array([0.0, 1.0, 2.0, 0.5, 3.0, 0.0, 1.5])
    _, grads, _ = oracle.backpropagate(layers, X, T, loss, weights)
    found = net.gradients(X, T, loss=loss, sample_weight=weights)
    for array, exact in zip(found.values(), [part for pair in grads for part in pair], strict=True):
        assert relative_error(array, exact) <= 1e-10


@pytest.mark.parametrize("loss", [name for name, row in LOSSES.items() if row.labels != "never"])
def test_labels_mean_the_same_as_one_hot_rows(device, loss):
    net, X, _, _ = case("dense", "sigmoid", outputs_for(loss)[-1], loss, "float64", device)
    labels = np.array([0, 1, 2, 2, 1, 0, 1])
    for key, array in net.gradients(X, labels, loss=loss).items():
        np.testing.assert_allclose(array, net.gradients(X, np.eye(3)[labels], loss=loss)[key], rtol=1e-12)


def test_the_errors_of_a_batch_are_the_notes_deltas_divided_by_its_size(device):
    net, X, T, layers = case("dense", "sigmoid", "sigmoid", "quadratic", "float64", device)
    _, _, alone = oracle.backpropagate(layers, X[2:3], T[2:3], "quadratic")
    batch = net.errors(X, T, loss="quadratic")
    np.testing.assert_allclose(len(X) * batch["layers.1"][2], alone[1][0], rtol=1e-12)


def test_gradcheck_finds_a_wrong_adjoint(device, monkeypatch):
    from gpunn import ops

    broken = {**ops.OPS}

    def half_an_adjoint(back, op):
        ops._linear_adjoint(back, op)
        back.send("linear_grad_bias", (back.error(op.outs[0]),), to=op.ins[2])

    from dataclasses import replace

    broken["linear"] = replace(ops.OPS["linear"], adjoint=half_an_adjoint)
    monkeypatch.setattr(ops, "OPS", broken)
    net = build("dense", "tanh", "identity", "float64", device)
    X, T = data_for(net, "quadratic", kinks_of=False)
    check = gpunn.gradcheck(net, X, T, loss="quadratic")
    assert not check
    assert "DISAGREE" in repr(check)


def test_gradcheck_leaves_the_network_as_it_was(device):
    net = build("dense", "relu", "identity", "float32", device)
    before = net.theta.tobytes()
    X, T = data_for(net, "quadratic", kinks_of=True)
    gpunn.gradcheck(net, X, T, loss="quadratic", entries=5)
    assert (net.theta.tobytes(), net.dtype, net.loss) == (before, "float32", None)


@pytest.mark.parametrize(("wrong", "named"), [({"step": 0}, "step is 0"), ({"entries": 0}, "entries is 0")])
def test_gradcheck_refuses_numbers_that_cannot_work(device, wrong, named):
    net = build("dense", "tanh", "identity", "float32", device)
    with pytest.raises(gpunn.ArgumentError, match=named):
        gpunn.gradcheck(net, np.ones((2, 8)), np.ones((2, 3)), loss="quadratic", **wrong)

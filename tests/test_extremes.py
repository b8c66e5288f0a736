"""Numbers at their limits: what one backend makes of them, the others make too."""

from __future__ import annotations

import numpy as np
import pytest
from devices import DEVICES, there
from host_device import host_backend
from one_op import outcome

from gpunn.device import backend_for
from gpunn.ops import HYPER

PLACES = [*DEVICES, pytest.param("cuda_host", marks=pytest.mark.cuda_host)]
DTYPES = ["float32", "float64"]


@pytest.fixture(params=PLACES)
def backend(request):
    return host_backend() if request.param == "cuda_host" else backend_for(there(request.param))


INF, NAN = np.inf, np.nan
SIZES = {"B": 4, "N": 3}
WILD = [[0, -INF, 1], [-INF, -INF, -INF], [INF, 0, 1], [NAN, 0, 1]]
LARGE = [[1, 2, -3], [0, -0.0, 1e-30], [30, -30, 700], [3e38, -3e38, 0]]
SPARSE = [[0, -INF, 1], [-INF, 2, 3], [0, 1, -INF], [5, -INF, -INF]]
TARGETS = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]
EDGES = [[0.5, 0, 1], [0.6, NAN, 0], [0.4, 0.5, 1], [1, 1, 1]]
WEIGHTS = {
    "none": {},
    "some zero": {"w": [0, 1, 2, 0]},
    "all zero": {"w": [0, 0, 0, 0]},
    "cancelling": {"w": [1, -1, 0, 0]},
    "NaN": {"w": [NAN, 1, 1, 1]},
}
COSTS = {
    "quadratic": "a",
    "mean_squared_error": "a",
    "mean_absolute_error": "a",
    "huber": "a",
    "binary_cross_entropy": "z",
    "poisson": "z",
    "softmax_cross_entropy_targets": "z",
    "softmax_cross_entropy": "z",
}


def agree(backend, name, values, dtype, *, sizes=SIZES, rtol=None, **attrs):
    """This backend and the readable definition write the same."""
    ours, reference = (
        outcome(each, name, values, sizes=sizes, dtype=dtype, **attrs)
        for each in (backend, backend_for("numpy"))
    )
    assert ours.keys() == reference.keys()
    rtol = rtol or {"float32": 1e-5, "float64": 1e-12}[dtype]
    for slot, expected in reference.items():
        np.testing.assert_allclose(ours[slot], expected, rtol=rtol, atol=1e-300, err_msg=slot)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", list(WEIGHTS))
@pytest.mark.parametrize("outputs", [WILD, LARGE, SPARSE], ids=["wild", "large", "sparse"])
@pytest.mark.parametrize("cost", list(COSTS))
def test_costs_of_outputs_at_their_limits(backend, cost, outputs, weights, dtype):
    target = {"labels": [0, 1, 2, 0]} if cost == "softmax_cross_entropy" else {"t": TARGETS}
    agree(backend, cost, {COSTS[cost]: outputs, **target, **WEIGHTS[weights]}, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "values", "attrs"),
    [
        ("softmax", {"z": WILD}, {}),
        ("softmax", {"z": SPARSE}, {}),
        ("softmax_grad", {"a": TARGETS, "delta": WILD}, {}),
        ("argmax", {"t": WILD}, {}),
        ("count_correct", {"y": WILD, "labels": [2, 0, 0, 0]}, {}),
        ("count_top_k", {"y": WILD, "labels": [0, 1, 2, 0]}, {"k": 2}),
        ("count_top_k", {"y": WILD, "labels": [0, 1, 2, 0]}, {"k": 0}),
        (
            "count_exact",
            {"y": EDGES, "t": [[0.5, 0, 1], [1, 0, 0], [0, 0, 1], [0.5, 1, 1]]},
            {"threshold": 0.5},
        ),
        ("count_exact", {"y": TARGETS, "t": TARGETS}, {"threshold": 0.5}),
        ("confusion", {"y": WILD, "labels": [0, 1, 2, 0]}, {}),
        ("confusion_by_output", {"y": EDGES, "t": TARGETS}, {"threshold": 0.5}),
        (
            "moments",
            {"y": TARGETS, "t": [[1e6 + 0.25, 2, 3], [1e6, 2, 3], [1e6 - 0.5, 2, 3], [1e6, 2, 4]]},
            {},
        ),
        ("moments", {"y": TARGETS, "t": [[1, INF, 2]] * 4}, {}),
        ("sum_absolute", {"y": [[1e6 + 0.5] * 3] * 4, "t": [[1e6, 1e6 - 2, 7]] * 4}, {}),
        ("dropout", {"x": WILD, "key": [1, 2], "step": [3]}, {"rate": 0.5, "layer": 0}),
        ("dropout_grad", {"mask": [[1, 0, 1]] * 4, "delta": WILD}, {"rate": 0.5}),
    ],
)
def test_numbers_at_their_limits(backend, name, values, attrs, dtype):
    agree(backend, name, values, dtype, sizes={**SIZES, "*S": (4, 3)}, rtol=1e-6, **attrs)


@pytest.mark.parametrize("z", [[40.0, 0.0, 1.0], [700.0, 0.0, -3.0], [1.0, -30.0, -36.0]])
@pytest.mark.parametrize("cost", ["softmax_cross_entropy", "softmax_cross_entropy_targets"])
def test_a_cost_that_is_almost_nothing_has_all_its_digits(backend, cost, z):
    target = {"labels": [0]} if cost == "softmax_cross_entropy" else {"t": [[1.0, 0.0, 0.0]]}
    loss = outcome(backend, cost, {"z": [z], **target}, sizes={"B": 1, "N": 3})["loss"]
    np.testing.assert_allclose(loss[0], np.log1p(np.exp(z[1] - z[0]) + np.exp(z[2] - z[0])), rtol=1e-13)


@pytest.mark.parametrize("z", [40.0, -40.0, 700.0])
def test_a_binary_cost_that_is_almost_nothing_has_all_its_digits(backend, z):
    found = outcome(
        backend, "binary_cross_entropy", {"z": [[z]], "t": [[float(z > 0)]]}, sizes={"B": 1, "N": 1}
    )
    np.testing.assert_allclose(found["loss"][0], np.log1p(np.exp(-abs(z))), rtol=1e-13)


@pytest.mark.parametrize("terms", [("l1",), ("l2",), ("decay",), ("clip",), ("l1", "l2", "decay", "clip")])
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "rmsprop", "adagrad"])
def test_updates_of_numbers_at_their_limits(backend, name, terms):
    hyper = np.full(len(HYPER), 0.5)
    values = {
        "theta": [NAN, 0.0, -0.0, INF, 1.0, 1.0],
        "grad": [1.0, 0.0, 0.0, 1.0, NAN, -INF],
        "hyper": hyper,
    }
    ours, reference = (
        outcome(each, name, values, sizes={"P": 6}, weights=6, terms=terms)
        for each in (backend, backend_for("numpy"))
    )
    for slot, expected in reference.items():
        # What is not finite stays so; whether it is NaN or infinite depends on the order of the factors.
        np.testing.assert_array_equal(np.isfinite(ours[slot]), np.isfinite(expected), err_msg=slot)
        finite = np.isfinite(expected)
        np.testing.assert_allclose(ours[slot][finite], expected[finite], rtol=1e-12, err_msg=slot)


@pytest.mark.parametrize("grad", [[0.0, 0.0, 0.0], [1e-30, 0.0, 0.0], [3e38, 3e38, 3e38], [-0.0, 1.0, 0.0]])
@pytest.mark.parametrize("most", [0.0, 1.0])
def test_norms_of_numbers_at_their_limits(backend, grad, most):
    hyper = np.zeros(len(HYPER))
    hyper[HYPER["clip_norm"]] = most
    agree(backend, "clip_by_norm", {"grad": grad, "hyper": hyper}, "float32", sizes={"P": 3})


@pytest.mark.parametrize("cost", ["softmax_cross_entropy", "binary_cross_entropy"])
def test_a_cost_that_is_clipped_is_that_of_probabilities_within_bounds(backend, cost):
    z = np.array([[60.0], [-60.0], [0.5]]) * [1.0, -1.0]
    if cost == "softmax_cross_entropy":
        given = {"z": z, "labels": np.array([0, 0, 1])}
        p = np.exp(z - np.logaddexp(z[:, :1], z[:, 1:]))[np.arange(3), given["labels"]][:, None]
    else:
        given = {"z": z, "t": np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])}
        p = np.where(given["t"] == 1, 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z)))
    found = outcome(backend, cost, given, sizes={"B": 3, "N": 2}, clip=1e-3)
    whole = outcome(backend, cost, given, sizes={"B": 3, "N": 2})
    np.testing.assert_allclose(found["loss"][0], -np.log(np.clip(p, 1e-3, 1 - 1e-3)).sum() / 3, rtol=1e-13)
    assert whole["loss"][0] > found["loss"][0]
    np.testing.assert_array_equal(found["delta"], whole["delta"])


@pytest.mark.parametrize("cost", ["softmax_cross_entropy", "binary_cross_entropy"])
def test_a_cost_that_is_clipped_is_nan_where_an_output_is(backend, cost):
    target = {"labels": [0]} if cost == "softmax_cross_entropy" else {"t": [[1.0, 0.0]]}
    found = outcome(backend, cost, {"z": [[np.nan, 1.0]], **target}, sizes={"B": 1, "N": 2}, clip=1e-3)
    assert np.isnan(found["loss"][0])

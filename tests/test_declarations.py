"""The rows of the tables: layers, losses, optimisers, initialisers, metrics, devices; what each declares."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

import gpunn
from gpunn.activations import ACTIVATIONS, activation
from gpunn.backends.cuda.probe import why_not
from gpunn.backends.numba import NumbaBackend
from gpunn.backends.numpy import NumpyBackend
from gpunn.device import BACKENDS, backend_for
from gpunn.initializers import INITIALIZERS, initialize
from gpunn.layers import LAYERS, layer_from_config
from gpunn.losses import LOSSES, loss_named
from gpunn.metrics import METRICS, metrics_named
from gpunn.ops import HYPER, OPS
from gpunn.optimizers import OPTIMIZERS, optimizer_from_config, optimizer_named
from gpunn.program import Role
from gpunn.schedules import SCHEDULES
from gpunn.variants import Model

# ------------------------------------------------------------------ layers

SAMPLES = [
    gpunn.Dense(1),
    gpunn.Dense(30, activation="sigmoid", weights="normal", bias="normal"),
    *[gpunn.Dense(3, activation=name) for name in (*ACTIVATIONS, "softmax")],
    *[gpunn.Dense(3, weights=name, bias=name) for name in INITIALIZERS],
    *[gpunn.Activation(name) for name in (*ACTIVATIONS, "softmax")],
    gpunn.Flatten(),
    *[gpunn.Dropout(rate) for rate in (0.0, 0.25, 1 - 2**-24)],
]


def test_there_is_a_sample_of_every_layer():
    own = {name for name, layer in LAYERS.items() if layer.__module__.startswith("gpunn.")}
    assert {type(layer).__name__ for layer in SAMPLES} == own


@pytest.mark.parametrize("layer", SAMPLES, ids=repr)
def test_a_layer_is_built_again_from_its_configuration_as_json_holds_it(layer):
    config = json.loads(json.dumps(layer.config()))
    again = layer_from_config(type(layer).__name__, config)
    assert (again, type(again), again.config()) == (layer, type(layer), layer.config())


@pytest.mark.parametrize("layer", SAMPLES, ids=repr)
def test_the_repr_of_a_layer_builds_it(layer):
    assert eval(f"gpunn.{layer!r}") == layer


@pytest.mark.parametrize("layer", SAMPLES, ids=repr)
def test_a_layer_emits_an_output_for_a_batch(layer):
    program = Model((layer,), (4,), "float64").forward(7)
    assert program.slots[program.marks["output"]].shape == (7, getattr(layer, "units", 4))


@pytest.mark.parametrize("layer", [gpunn.Dense(3), gpunn.Activation("tanh")], ids=repr)
def test_a_layer_does_not_change(layer):
    with pytest.raises(FrozenInstanceError):
        layer.activation = "relu"


def test_a_dense_layer_starts_with_these_defaults():
    assert gpunn.Dense(3).config() == {
        "units": 3,
        "activation": "identity",
        "weights": "glorot_uniform",
        "bias": "zeros",
    }


@pytest.mark.parametrize(
    "units", [np.int64(3), np.uint8(3), np.array(3)], ids=lambda units: type(units).__name__
)
def test_a_number_of_units_from_numpy_is_a_number(units):
    assert type(gpunn.Dense(units).units) is int


def test_a_dense_layer_declares_weights_out_by_in_and_a_bias():
    program = Model((gpunn.Dense(3),), (4,), "float32").forward(1)
    assert {key: program.slots[key].shape for key in program.parameters} == {
        "layers.0.weights": (3, 4),
        "layers.0.bias": (3,),
    }
    assert program.layout.weights == 64


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("identity", ["linear"]),
        ("softmax", ["linear", "softmax"]),
        *[(name, ["linear", "activate"]) for name in ACTIVATIONS if name != "identity"],
    ],
)
def test_an_activation_is_an_op_of_its_own_and_the_identity_is_none(name, ops):
    inside = Model((gpunn.Dense(3, activation=name),), (4,), "float32").forward(1)
    apart = Model((gpunn.Dense(3), gpunn.Activation(name)), (4,), "float32").forward(1)
    assert [op.name for op in inside.ops] == [op.name for op in apart.ops] == ops


def test_one_layer_object_twice_is_two_layers():
    layer = gpunn.Dense(3)
    net = gpunn.Sequential([layer, layer], 3, seed=0)
    first, second = (net.parameters[f"layers.{i}.weights"] for i in (0, 1))
    assert not np.shares_memory(first, second)
    assert (first != second).any()


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("Dens", {"units": 3}, ["unknown layer class 'Dens'", "'Dense'"]),
        ("dense", {"units": 3}, ["unknown layer class 'dense'"]),
        ("Dense", {}, ["layer Dense cannot be built from {}", "units"]),
        ("Dense", {"units": 3, "unit": 4}, ["layer Dense cannot be built from", "'unit'"]),
        ("Dense", {"units": 0}, ["Dense: units is 0", "at least 1"]),
        ("Dense", {"units": 3, "activation": "sigmoyd"}, ["'sigmoyd'", "did you mean 'sigmoid'"]),
        ("Activation", {"activation": None}, ["unknown activation None"]),
    ],
)
def test_a_configuration_that_makes_no_layer_is_refused(name, config, words):
    with pytest.raises(gpunn.ArgumentError) as caught:
        layer_from_config(name, config)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_an_activation_names_itself_its_formula_and_its_source(name):
    row = activation(name)
    assert row.name == name
    assert row.needs in ("output", "input")
    assert row.formula.startswith("a = ")
    assert row.source


# ------------------------------------------------------------------ losses


def output_of(n=3, batch=5, last="identity"):
    """A program of one layer, and slots for its targets, labels and weights."""
    program = Model((gpunn.Dense(n, activation=last),), (4,), "float64").forward(batch)
    slots = {
        "t": program.slot("t", (batch, n), Role.TARGET),
        "labels": program.slot("labels", (batch,), Role.TARGET, "int64"),
        "w": program.slot("w", (batch,), Role.TARGET),
    }
    return program, slots


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_names_itself_and_ops_that_exist(name):
    row = loss_named(name)
    assert row.name == name
    assert {row.op, row.labels_op or row.op} <= OPS.keys()
    assert OPS[row.op].equation == "loss"
    assert (row.labels == "op") is (row.labels_op is not None)
    assert row.link in (None, "softmax", *ACTIVATIONS)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    ("name", "last", "read"),
    [(name, row.link or "softmax", "z" if row.link else "a") for name, row in LOSSES.items()]
    + [(name, "identity", "z") for name in LOSSES],
)
def test_a_loss_writes_its_cost_and_the_error_of_what_it_reads(name, last, read, n, weighted):
    program, slots = output_of(n, last=last)
    read = f"layers.0.{read}"
    weight = slots["w"] if weighted else None
    seed = loss_named(name).emit(program, program.marks["output"], slots["t"], weight)
    op = program.ops[-1]
    assert seed == {read: op.outs[1]}
    assert (op.name, op.ins, op.outs[0]) == (loss_named(name).op, (read, "t", weight), "loss")
    assert program.slots[op.outs[1]].shape == (5, n)
    assert (program.slots["loss"].shape, program.slots["loss"].dtype) == ((2,), "float64")
    assert op.label == f"{name} cost"


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_for_evaluation_writes_no_error(name):
    program, slots = output_of()
    assert loss_named(name).emit(program, program.marks["output"], slots["t"], gradient=False) == {}
    assert program.ops[-1].outs == ("loss", None)


@pytest.mark.parametrize("last", [*ACTIVATIONS, "softmax"])
@pytest.mark.parametrize("name", [name for name, row in LOSSES.items() if row.link])
def test_a_loss_with_an_activation_in_it_takes_that_one_or_none_before_it(name, last):
    program, slots = output_of(last=last)
    row = loss_named(name)
    if last in (row.link, "identity"):
        assert row.emit(program, program.marks["output"], slots["t"])
        return
    message = f"applies {row.link} itself: the last activation must be 'identity' or {row.link!r}, got"
    with pytest.raises(gpunn.ArgumentError, match=f"loss {name!r} works on z and {message} {last!r}"):
        row.emit(program, program.marks["output"], slots["t"])


@pytest.mark.parametrize("name", [name for name, row in LOSSES.items() if row.labels != "never"])
def test_labels_are_read_by_the_loss_or_become_rows(name):
    row = LOSSES[name]
    ops = [row.labels_op] if row.labels == "op" else ["one_hot", row.op]
    program, slots = output_of()
    before = len(program.ops)
    loss_named(name).emit(program, program.marks["output"], slots["labels"])
    assert [op.name for op in program.ops[before:]] == ops


@pytest.mark.parametrize(
    ("name", "outputs", "takes"),
    [
        ("quadratic", 1, False),
        ("quadratic", 2, True),
        ("mse", 1, False),
        ("mse", 2, False),
        ("mae", 1, False),
        ("mae", 2, False),
        ("huber", 1, False),
        ("huber", 2, False),
        ("binary_cross_entropy", 1, False),
        ("binary_cross_entropy", 2, True),
        ("poisson", 2, False),
        ("cross_entropy", 1, True),
        ("cross_entropy", 2, True),
    ],
)
def test_whole_numbers_are_labels_where_the_loss_takes_them(name, outputs, takes):
    assert loss_named(name).takes_labels(outputs) is takes


@pytest.mark.parametrize("outputs", [1, 2, 7])
@pytest.mark.parametrize("name", list(LOSSES))
def test_rows_are_a_yes_or_no_an_output_for_one_output_or_a_sigmoid_in_the_loss(name, outputs):
    assert loss_named(name).splits_by_output(outputs) is (outputs == 1 or name == "binary_cross_entropy")


# ------------------------------------------------------------------ optimisers

OWN = [cls for cls in OPTIMIZERS.values() if cls.__module__.startswith("gpunn.")]
COMMON = ["l1", "l2", "weight_decay", "clip_norm", "schedule"]
OPTIMISERS = [
    gpunn.SGD(),
    gpunn.SGD(lr=3.0),
    gpunn.SGD(lr=1e-30, momentum=0.999, l2=1e30),
    gpunn.SGD(lr=0.1, momentum=0.5, nesterov=True, l1=0.1, weight_decay=0.2, clip_norm=3),
    gpunn.SGD(schedule=gpunn.Warmup(2, gpunn.Cosine(30, final=0.1))),
    gpunn.Adam(),
    gpunn.Adam(lr=0.1, beta1=0, beta2=0.5, epsilon=1.0, l2=0.1),
    gpunn.Adam(clip_norm=1e-3, schedule=gpunn.StepDecay(every=100, unit="step")),
    gpunn.AdamW(),
    gpunn.AdamW(lr=0.1, weight_decay=0.0),
    gpunn.RMSprop(),
    gpunn.RMSprop(lr=0.1, rho=0, epsilon=1.0, l1=0.5, schedule=gpunn.Exponential(0.9)),
    gpunn.Adagrad(),
    gpunn.Adagrad(lr=0.1, epsilon=1.0, weight_decay=0.5, schedule=gpunn.InverseScaling()),
]


def test_there_is_a_sample_of_every_optimiser():
    assert {type(optimizer) for optimizer in OPTIMISERS} == set(OWN)


def test_there_is_a_sample_of_every_schedule():
    own = {cls for cls in SCHEDULES.values() if cls.__module__.startswith("gpunn.")}
    used = [optimizer.schedule for optimizer in OPTIMISERS if optimizer.schedule is not None]
    inner = [schedule.then for schedule in used if isinstance(schedule, gpunn.Warmup)]
    assert {type(schedule) for schedule in (*used, *inner)} == own


@pytest.mark.parametrize("optimizer", OPTIMISERS, ids=repr)
def test_an_optimiser_is_built_again_from_its_configuration_as_json_holds_it(optimizer):
    config = json.loads(json.dumps(optimizer.config()))
    assert optimizer_from_config(type(optimizer).__name__, config) == optimizer


@pytest.mark.parametrize("optimizer", OPTIMISERS, ids=repr)
def test_the_repr_of_an_optimiser_builds_it(optimizer):
    assert eval(f"gpunn.{optimizer!r}", {**vars(gpunn), "gpunn": gpunn}) == optimizer


@pytest.mark.parametrize(
    ("optimizer", "shown"),
    [
        (gpunn.SGD(), "SGD(lr=0.01)"),
        (gpunn.SGD(lr=3.0), "SGD(lr=3.0)"),
        (gpunn.SGD(lr=1, momentum=0.9, nesterov=True), "SGD(lr=1.0, momentum=0.9, nesterov=True)"),
        (gpunn.AdamW(weight_decay=0.01), "AdamW(lr=0.001)"),
        (gpunn.Adam(weight_decay=0.01), "Adam(lr=0.001, weight_decay=0.01)"),
        (
            gpunn.RMSprop(schedule=gpunn.Exponential(0.5)),
            "RMSprop(lr=0.001, schedule=Exponential(rate=0.5, unit='epoch'))",
        ),
    ],
)
def test_an_optimiser_shows_its_rate_and_what_differs_from_the_defaults(optimizer, shown):
    assert repr(optimizer) == shown


@pytest.mark.parametrize("optimizer", OPTIMISERS, ids=repr)
def test_an_optimiser_fills_the_words_of_hyper_that_it_reads(optimizer):
    words = optimizer.hyper()
    own = {key: value for key, value in optimizer.config().items() if key not in ("schedule", "nesterov")}
    assert words.keys() <= HYPER.keys()
    assert {key: words.get(key) for key in own} == own
    assert words["clip_scale"] == 1.0
    assert {type(value) for value in words.values()} == {float}


def test_adam_starts_with_the_first_powers_of_its_betas():
    for cls in (gpunn.Adam, gpunn.AdamW):
        words = cls(beta1=0.8, beta2=0.9).hyper()
        assert (words["beta1_power"], words["beta2_power"]) == (0.8, 0.9)


@pytest.mark.parametrize(
    ("optimizer", "numbers"),
    [
        (gpunn.SGD(), {"lr": 0.01, "momentum": 0.0, "nesterov": False}),
        (gpunn.Adam(), {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}),
        (
            gpunn.AdamW(),
            {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01},
        ),
        (gpunn.RMSprop(), {"lr": 0.001, "rho": 0.9, "epsilon": 1e-8}),
        (gpunn.Adagrad(), {"lr": 0.01, "epsilon": 1e-10}),
    ],
    ids=repr,
)
def test_an_optimiser_starts_with_these_defaults(optimizer, numbers):
    common = {"l1": 0.0, "l2": 0.0, "weight_decay": 0.0, "clip_norm": None, "schedule": None}
    assert optimizer.config() == {**common, **numbers}


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("key", COMMON)
def test_what_all_optimisers_have_is_given_by_name(cls, key):
    own = [field.name for field in fields(cls) if not field.kw_only]
    assert set(own).isdisjoint(COMMON)
    assert {field.name: field.kw_only for field in fields(cls)}[key]
    with pytest.raises(TypeError, match="positional"):
        cls(*[getattr(cls(), name) for name in own], 0.5)


def test_each_optimisers_rate_may_be_given_by_place():
    assert [cls(0.5).lr for cls in OWN] == [0.5] * len(OWN)


@pytest.mark.parametrize(
    ("optimizer", "op", "states"),
    [
        (gpunn.SGD(), "sgd", []),
        (gpunn.SGD(momentum=0.9), "momentum", ["momentum.velocity"]),
        (gpunn.SGD(momentum=0.9, nesterov=True), "nesterov", ["nesterov.velocity"]),
        (gpunn.Adam(), "adam", ["adam.m", "adam.v"]),
        (gpunn.AdamW(), "adam", ["adam.m", "adam.v"]),
        (gpunn.RMSprop(), "rmsprop", ["rmsprop.v"]),
        (gpunn.Adagrad(), "adagrad", ["adagrad.v"]),
    ],
    ids=repr,
)
def test_an_optimiser_emits_one_op_over_theta_with_states_like_theta(optimizer, op, states):
    program, _ = output_of()
    optimizer.emit(program)
    assert program.ops[-1].name == op
    size = program.slots["theta"].shape
    found = {slot.name: slot.shape for slot in program.slots.values() if slot.role is Role.STATE}
    assert found == dict.fromkeys(states, size)


@pytest.mark.parametrize(
    "number", [1, np.float32(1), np.int64(1), np.array(1.0)], ids=lambda number: type(number).__name__
)
def test_a_number_of_an_optimiser_from_numpy_is_a_float(number):
    optimizer = gpunn.SGD(lr=number)
    assert (optimizer.lr, type(optimizer.lr)) == (1.0, float)


NUMBERS = [
    (cls, field.name) for cls in OWN for field in fields(cls) if field.name not in ("nesterov", "schedule")
]


@pytest.mark.parametrize(
    "wrong", [math.nan, math.inf, -math.inf, "0.1", True, np.True_, None, b"1"], ids=repr
)
@pytest.mark.parametrize(("cls", "key"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
def test_every_number_of_an_optimiser_is_a_finite_number(cls, key, wrong):
    if (key, wrong) == ("clip_norm", None):
        assert cls(clip_norm=None).clip_norm is None
        return
    with pytest.raises(gpunn.ArgumentError) as caught:
        cls(**{key: wrong})
    assert str(caught.value) == f"{cls.__name__}: {key} is {wrong!r}, expected a finite number"


@pytest.mark.parametrize(("cls", "key"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
def test_no_number_of_an_optimiser_is_negative(cls, key):
    with pytest.raises(
        gpunn.ArgumentError, match=rf"^{cls.__name__}: {key} is -0.5, expected (more|at least)"
    ):
        cls(**{key: -0.5})


@pytest.mark.parametrize("key", ["lr", "epsilon", "clip_norm"])
@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
def test_what_divides_or_limits_is_more_than_zero(cls, key):
    if key in {field.name for field in fields(cls)}:
        with pytest.raises(gpunn.ArgumentError, match=f"{cls.__name__}: {key} is 0, expected more than 0"):
            cls(**{key: 0})


@pytest.mark.parametrize("key", ["momentum", "rho", "beta1", "beta2"])
def test_a_rate_of_decay_is_below_one(key):
    taking = [cls for cls in OWN if key in {field.name for field in fields(cls)}]
    assert taking
    for cls in taking:
        with pytest.raises(gpunn.ArgumentError, match=f"{key} is 1, expected at least 0 and below 1"):
            cls(**{key: 1})


@pytest.mark.parametrize("wrong", ["yes", 2, None, 0.5], ids=repr)
def test_nesterov_is_true_or_false(wrong):
    with pytest.raises(gpunn.ArgumentError, match=f"SGD: nesterov is {wrong!r}, expected True or False"):
        gpunn.SGD(momentum=0.9, nesterov=wrong)


def test_nesterov_without_momentum_says_what_is_missing():
    with pytest.raises(gpunn.ArgumentError, match="nesterov=True needs a momentum above 0"):
        gpunn.SGD(nesterov=True)


@pytest.mark.parametrize("wrong", ["cosine", 30, gpunn.Cosine, {}, {"class": "Cosine"}], ids=repr)
@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
def test_a_schedule_is_a_schedule(cls, wrong):
    with pytest.raises(gpunn.ArgumentError) as caught:
        cls(schedule=wrong)
    assert str(caught.value) == f"schedule is {wrong!r}, expected one such as gpunn.Cosine(30)"


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, math.nan, math.inf, "0.5", True, None, [0.5]], ids=repr)
def test_the_rate_of_a_dropout_is_at_least_zero_and_below_one(rate):
    with pytest.raises(gpunn.ArgumentError) as caught:
        gpunn.Dropout(rate)
    assert str(caught.value) == f"Dropout: rate is {rate!r}, expected at least 0 and below 1"


@pytest.mark.parametrize("name", ["sgd", "SGD", "Sgd"])
def test_an_optimiser_is_known_by_its_name_in_any_case(name):
    assert optimizer_named(name) == gpunn.SGD()


def test_an_optimiser_that_is_given_is_taken_as_it_is():
    optimizer = gpunn.Adam(lr=0.5)
    assert optimizer_named(optimizer) is optimizer


def test_an_optimiser_given_as_a_class_says_what_to_write():
    with pytest.raises(gpunn.ArgumentError, match=r"SGD\("):
        optimizer_named(gpunn.SGD)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("SDG", {}, ["unknown optimizer 'SDG'", "'sgd'"]),
        ("SGD", {"rate": 0.1}, ["optimizer SGD cannot be built from", "'rate'"]),
        ("SGD", {"lr": 0}, ["SGD: lr is 0", "more than 0"]),
    ],
)
def test_a_configuration_that_makes_no_optimiser_is_refused(name, config, words):
    with pytest.raises(gpunn.ArgumentError) as caught:
        optimizer_from_config(name, config)
    assert [word for word in words if word not in str(caught.value)] == []


# ------------------------------------------------------------------ initialisers

FAN_OUT, FAN_IN = 300, 500
COUNT = FAN_OUT * FAN_IN

VARIANCES = {
    "normal": lambda fan_in, fan_out: 1,
    "lecun_normal": lambda fan_in, fan_out: 1 / fan_in,
    "lecun_uniform": lambda fan_in, fan_out: 1 / fan_in,
    "glorot_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "glorot_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he_normal": lambda fan_in, fan_out: 2 / fan_in,
    "he_uniform": lambda fan_in, fan_out: 2 / fan_in,
    "zeros": lambda fan_in, fan_out: 0,
}
RANDOM = [name for name in INITIALIZERS if name != "zeros"]
UNIFORM = [name for name in RANDOM if name.endswith("uniform")]
NORMAL = [name for name in RANDOM if name.endswith("normal")]


def test_there_is_a_formula_for_every_initialiser():
    assert VARIANCES.keys() == INITIALIZERS.keys()
    assert sorted(UNIFORM + NORMAL) == sorted(RANDOM)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", list(INITIALIZERS))
def test_a_draw_has_the_mean_and_the_variance_of_its_formula(name, seed):
    """Within five standard errors."""
    draw = initialize(name, (FAN_OUT, FAN_IN), (seed, 0))
    variance = VARIANCES[name](FAN_IN, FAN_OUT)
    assert abs(draw.mean()) <= 5 * math.sqrt(variance / COUNT)
    assert abs(draw.var() - variance) <= 5 * variance * math.sqrt(2 / COUNT)


@pytest.mark.parametrize("name", UNIFORM)
def test_a_uniform_draw_fills_its_interval_and_stays_in_it(name):
    draw = np.abs(initialize(name, (FAN_OUT, FAN_IN), (0, 0)))
    limit = math.sqrt(3 * VARIANCES[name](FAN_IN, FAN_OUT))
    assert 0.999 * limit < draw.max() <= limit
    assert np.histogram(draw, 10, (0, limit))[0] == pytest.approx(COUNT / 10, rel=0.05)


@pytest.mark.parametrize("name", NORMAL)
def test_a_normal_draw_has_the_tails_of_a_normal_distribution(name):
    draw = np.abs(initialize(name, (FAN_OUT, FAN_IN), (0, 0))) / math.sqrt(VARIANCES[name](FAN_IN, FAN_OUT))
    assert [(draw > bound).mean() for bound in (1, 2, 3)] == pytest.approx([0.3173, 0.0455, 0.0027], rel=0.1)


@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out"),
    [
        ((40_000,), 40_000, 40_000),
        ((100, 20, 30), 600, 100),
        ((1, 40_000), 40_000, 1),
        ((40_000, 1), 1, 40_000),
    ],
)
@pytest.mark.parametrize("name", RANDOM)
def test_the_fans_follow_from_the_shape(name, shape, fan_in, fan_out):
    draw = initialize(name, shape, (0, 0))
    assert draw.shape == shape
    assert draw.var() == pytest.approx(VARIANCES[name](fan_in, fan_out), rel=0.05)


@pytest.mark.parametrize("name", list(INITIALIZERS))
def test_a_draw_is_float64_of_its_shape_however_small(name):
    draw = initialize(name, (1, 1), (0, 0))
    assert (draw.shape, draw.dtype) == ((1, 1), np.float64)
    assert np.isfinite(draw).all()


@pytest.mark.parametrize("name", RANDOM)
def test_the_same_seed_draws_the_same_and_another_seed_another(name):
    draw = initialize(name, (4, 5), (3, 0, 1))
    assert draw.tobytes() == initialize(name, (4, 5), (3, 0, 1)).tobytes()
    assert not np.isin(draw, initialize(name, (4, 5), (3, 0, 2))).any()


def test_zeros_are_zeros():
    assert not initialize("zeros", (4, 5), (0, 0)).any()


def test_a_draw_neither_reads_nor_moves_numpys_own_generator():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    draw = initialize("normal", (3, 3), (0, 0))
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002
    assert draw.tobytes() == initialize("normal", (3, 3), (0, 0)).tobytes()


@pytest.mark.parametrize(
    ("name", "near"), [("norml", "normal"), ("glorot", "glorot_normal"), ("He_Uniform", "he_uniform")]
)
def test_an_unknown_initialiser_is_answered_with_the_nearest(name, near):
    with pytest.raises(gpunn.UnknownNameError, match=f"unknown initialiser '{name}': did you mean '{near}'"):
        initialize(name, (3,), (0,))


# ------------------------------------------------------------------ metrics


@pytest.mark.parametrize("name", list(METRICS))
def test_a_metric_names_itself_and_ops_that_exist(name):
    (row,) = metrics_named([name])
    assert row.name == name
    ops = {op for op in (row.classes, row.outputs, row.numbers) if op}
    assert ops
    assert ops <= OPS.keys()
    assert row.formula
    assert row.source


CASES = [
    ("accuracy", "mse", 3, "labels", ["count_correct"], (1,)),
    ("accuracy", "mse", 3, "t", ["argmax", "count_correct"], (1,)),
    ("accuracy", "mse", 1, "t", ["count_exact"], (1,)),
    ("accuracy", "cross_entropy", 3, "t", ["argmax", "count_correct"], (1,)),
    ("accuracy", "binary_cross_entropy", 3, "labels", ["count_correct"], (1,)),
    ("accuracy", "binary_cross_entropy", 3, "t", ["count_exact"], (1,)),
    ("confusion", "mse", 3, "labels", ["confusion"], (3, 3)),
    ("precision", "mse", 3, "t", ["argmax", "confusion"], (3, 3)),
    ("recall", "mse", 1, "t", ["confusion_by_output"], (1, 2, 2)),
    ("f1", "binary_cross_entropy", 3, "t", ["confusion_by_output"], (3, 2, 2)),
    ("mae", "mse", 3, "t", ["sum_absolute"], (2,)),
    ("r2", "mse", 3, "t", ["moments"], (4, 3)),
    ("top_2", "mse", 3, "labels", ["count_top_k"], (1,)),
    ("top_5", "mse", 3, "t", ["argmax", "count_top_k"], (1,)),
]


def test_there_is_a_case_for_every_metric():
    assert {name for name, *_ in CASES} == {*METRICS, "top_2", "top_5"}


@pytest.mark.parametrize(("name", "loss", "n", "target", "ops", "shape"), CASES)
def test_a_metric_adds_to_a_sum_that_outlives_the_step(name, loss, n, target, ops, shape):
    program, slots = output_of(n)
    before = len(program.ops)
    (row,) = metrics_named([name])
    slot = row.emit(program, program.marks["output"], slots[target], loss_named(loss))
    assert [op.name for op in program.ops[before:]] == ops
    assert slot == "sum." + ops[-1] + ("_" + name[-1] if name.startswith("top") else "")
    assert program.ops[-1].outs == (slot,)
    total = program.slots[slot]
    assert (total.shape, total.dtype, total.role) == (shape, "float64", Role.HYPER)


@pytest.mark.parametrize(
    ("name", "loss", "n", "target", "words"),
    [
        ("mae", "mse", 3, "labels", "is about numbers, the targets are class labels"),
        ("r2", "quadratic", 3, "labels", "is about numbers, the targets are class labels"),
        ("top_2", "mse", 1, "t", "is about classes, the targets are 1 yes or no an example"),
        ("top_2", "binary_cross_entropy", 3, "t", "is about classes, the targets are 3 yes or no an example"),
    ],
)
def test_a_metric_that_means_nothing_for_such_targets_is_refused(name, loss, n, target, words):
    program, slots = output_of(n)
    (row,) = metrics_named([name])
    with pytest.raises(gpunn.ArgumentError, match=f"^metric '{name}' {words}: leave it out$"):
        row.emit(program, program.marks["output"], slots[target], loss_named(loss))


def test_metrics_of_one_sum_share_it_and_the_labels():
    program, slots = output_of()
    before = len(program.ops)
    rows = metrics_named(["confusion", "precision", "recall", "f1", "accuracy"])
    found = [row.emit(program, program.marks["output"], slots["t"], loss_named("mse")) for row in rows]
    assert found == ["sum.confusion"] * 4 + ["sum.count_correct"]
    assert [op.name for op in program.ops[before:]] == ["argmax", "confusion", "count_correct"]


def test_two_k_of_one_metric_have_two_sums():
    program, slots = output_of()
    rows = metrics_named(["top_1", "top_2"])
    found = [row.emit(program, program.marks["output"], slots["labels"], loss_named("mse")) for row in rows]
    assert found == ["sum.count_top_k_1", "sum.count_top_k_2"]
    assert [op.attrs for op in program.ops[-2:]] == [{"k": 1}, {"k": 2}]


@pytest.mark.parametrize(
    ("loss", "last", "threshold"),
    [
        ("binary_cross_entropy", "identity", 0.0),
        ("binary_cross_entropy", "sigmoid", 0.5),
        ("mse", "identity", 0.5),
        ("quadratic", "sigmoid", 0.5),
    ],
)
def test_a_yes_is_above_one_half_or_above_zero_where_the_output_is_z(loss, last, threshold):
    program, slots = output_of(1, last=last)
    METRICS["accuracy"].emit(program, program.marks["output"], slots["t"], loss_named(loss))
    assert program.ops[-1].attrs == {"threshold": threshold}


@pytest.mark.parametrize("name", ["top_0", "top_", "top_-1", "top_05", "top_5.0", "Top_5"])
def test_a_k_is_a_whole_number_from_one(name):
    with pytest.raises(gpunn.UnknownNameError, match=f"unknown metric '{name}'"):
        metrics_named([name])


@pytest.mark.parametrize("names", [(), [], iter(())], ids=["tuple", "list", "iterator"])
def test_no_metrics_are_no_metrics(names):
    assert metrics_named(names) == ()


# ------------------------------------------------------------------ devices


@pytest.mark.parametrize(
    ("name", "kind"),
    [("cpu", NumbaBackend), ("numba", NumbaBackend), ("numpy", NumpyBackend)],
)
def test_a_name_means_one_backend_and_there_is_one_of_it(name, kind):
    assert type(backend_for(name)) is kind
    assert backend_for(name) is backend_for(name)


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without a driver."""
    monkeypatch.setattr("gpunn.device.why_not", lambda number=0: why_not(number, driver=lambda: None))
    monkeypatch.setattr("gpunn.device._LOADED", {})


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", "cuda:12"])
def test_a_device_that_cannot_be_had_says_why_and_what_to_do(no_gpu, name):
    with pytest.raises(gpunn.DeviceError) as caught:
        backend_for(name)
    assert str(caught.value) == (
        f"device {name!r} cannot be used: no NVIDIA driver was found (libcuda.so.1): install one, or use "
        "device='cpu'"
    )


def test_auto_is_the_cpu_where_there_is_no_gpu(no_gpu):
    assert type(backend_for("auto")) is NumbaBackend


@pytest.mark.parametrize(("name", "kind"), [("cpu", "numba"), ("numpy", "numpy"), ("numba", "numba")])
def test_a_precision_of_tensor_cores_is_not_for_a_cpu(name, kind):
    with pytest.raises(gpunn.ArgumentError, match="precision 'tf32' is a GPU's"):
        backend_for(name, "tf32")


def test_an_unknown_precision_is_answered_with_the_nearest():
    with pytest.raises(gpunn.UnknownNameError, match="unknown precision 'tf23': did you mean 'tf32'"):
        backend_for("cpu", "tf23")


class Driver:
    """NVIDIA's driver library, on a machine with so many GPUs."""

    def __init__(self, count, code=0, version=13000):
        self.count, self.code, self.version = count, code, version

    def cuInit(self, flags):
        return self.code

    def cuDeviceGetCount(self, count):
        count._obj.value = self.count
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = self.version
        return 0


@pytest.mark.parametrize(
    ("driver", "number", "installed", "words"),
    [
        (None, 0, True, "no NVIDIA driver was found"),
        (Driver(1, 100), 0, True, "the NVIDIA driver does not start (cuInit gives 100)"),
        (Driver(0), 0, True, "the NVIDIA driver sees no GPU"),
        (Driver(2), 2, True, "there is no GPU 2: this machine has cuda:0, cuda:1"),
        (
            Driver(1, 0, 12080),
            0,
            True,
            "the NVIDIA driver is one for CUDA 12.8, and CuPy is one for CUDA 13: ",
        ),
        (Driver(1), 0, None, "CuPy and nvmath-python are not installed: pip install gpunn[cuda13]"),
    ],
)
def test_what_a_gpu_lacks_is_named_with_what_to_do(driver, number, installed, words, monkeypatch):
    monkeypatch.setattr("gpunn.backends.cuda.probe._installed_wheel", lambda name: name == "cupy-cuda13x")
    assert why_not(number, driver=lambda: driver, installed=lambda name: installed).startswith(words)


def test_a_gpu_with_all_that_it_needs_lacks_nothing():
    assert why_not(1, driver=lambda: Driver(2), installed=lambda name: True) is None


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("cudda", "cuda"),
        ("CUDA", "cuda"),
        ("cuda:", "cuda"),
        ("cuda:x", "cuda"),
        ("cuda:-1", "cuda"),
        ("cuda1", "cuda"),
        ("CPU", "cpu"),
        ("cpu:0", "cpu"),
        ("numppy", "numpy"),
        (" cpu", "cpu"),
        ("gpu", "cuda"),
        ("GPU", "cuda"),
    ],
)
def test_an_unknown_device_is_answered_with_the_nearest(name, near):
    with pytest.raises(gpunn.UnknownNameError) as caught:
        backend_for(name)
    assert str(caught.value).startswith(f"unknown device {name!r}: did you mean {near!r}?")


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("linear", "identity"),
        ("swish", "silu"),
        ("ReLU", "relu"),
        ("LeakyReLU", "leaky_relu"),
        ("None", "identity"),
    ],
)
def test_what_other_libraries_call_an_activation_is_understood(given, ours):
    with pytest.raises(gpunn.UnknownNameError, match=f"did you mean {ours!r}"):
        gpunn.Dense(1, activation=given)


@pytest.mark.parametrize("name", ["", "tpu", "gpu:0", None, 3, 3.5, b"cpu", np.float32], ids=repr)
def test_what_is_no_device_is_answered_with_those_there_are(name):
    with pytest.raises(gpunn.UnknownNameError) as caught:
        backend_for(name)
    assert str(caught.value).startswith((f"unknown device {name!r}.", f"unknown device {name!r}: did you"))
    assert str(caught.value).endswith("Known: auto, cpu, cuda, numba, numpy")


def test_the_list_of_devices_says_which_work_and_why_the_others_do_not(no_gpu):
    found = {status.name: status for status in gpunn.devices()}
    assert found.keys() == set(BACKENDS)
    assert {name for name, status in found.items() if status.works} == {"numba", "numpy"}
    assert f"NumPy {np.__version__}" in found["numpy"].detail
    assert str(found["cuda"]).startswith("cuda   no     no NVIDIA driver was found")


# ------------------------------------------------------------------ the declaration of a network


@pytest.mark.parametrize("shape", [4, (4,), [4], np.int64(4), (np.int32(4),)], ids=repr)
def test_the_shape_of_one_example_is_a_number_or_a_sequence_of_numbers(shape):
    assert gpunn.Sequential([gpunn.Dense(1)], shape, seed=0).input_shape == (4,)


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("f8"), float])
def test_a_dtype_may_be_numpys(dtype):
    assert gpunn.Sequential([gpunn.Dense(1)], 4, dtype=dtype, seed=0).dtype == "float64"


@pytest.mark.parametrize("layers", [[gpunn.Dense(1)], (gpunn.Dense(1),)], ids=["list", "tuple"])
def test_the_layers_are_a_sequence(layers):
    assert gpunn.Sequential(layers, 4, seed=0).layers == (gpunn.Dense(1),)


def test_a_list_of_layers_changed_afterwards_changes_no_network():
    layers = [gpunn.Dense(1)]
    net = gpunn.Sequential(layers, 4, seed=0)
    layers.append(gpunn.Dense(2))
    assert net.layers == (gpunn.Dense(1),)

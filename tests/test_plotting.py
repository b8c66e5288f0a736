"""The pictures of training: what they show, and what they leave alone."""

from __future__ import annotations

import struct
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpunn
from gpunn import plotting
from gpunn.history import History
from gpunn.plotting import MissingMatplotlibError, compare_runs, learning_curves

pytest.importorskip("matplotlib", reason="pictures need Matplotlib: pip install matplotlib")

from matplotlib.text import Text


def history(epochs=5, *, accuracy=True, held_out=True, start=1.0, fall=0.8):
    records = []
    for n in range(1, epochs + 1):
        record = {"epoch": n, "loss": start * fall**n}
        if accuracy:
            record["accuracy"] = 1 - 0.5 / n
        if held_out:
            record["val_loss"] = 0.1 + start * fall**n
            if accuracy:
                record["val_accuracy"] = 0.9 - (n - 3) ** 2 / 100
        record |= {"lr": 0.1 / n, "seconds": 0.01, "samples": 100, "updates": 10 * n}
        records.append(record)
    return History(records)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def lines(axes):
    """The curves, as lists of (epoch, value); the ring around the best epoch is a line of one point."""
    return [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.get_lines()]


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (history(), ["loss", "accuracy (%)"]),
        (history(held_out=False), ["loss", "accuracy (%)"]),
        (history(accuracy=False), ["loss"]),
    ],
    ids=["all", "no held-out data", "no accuracy"],
)
def test_there_is_a_panel_for_the_loss_and_one_for_the_accuracy_where_it_was_taken(given, labels):
    assert [axes.get_ylabel() for axes in learning_curves(given).axes] == labels


def test_the_curves_are_the_history():
    given = history()
    loss, accuracy = learning_curves(given).axes
    epochs = [1, 2, 3, 4, 5]
    assert lines(loss) == [
        list(zip(epochs, given["loss"], strict=True)),
        list(zip(epochs, given["val_loss"], strict=True)),
    ]
    assert lines(accuracy)[0] == [(n, pytest.approx(100 - 50 / n)) for n in epochs]
    assert texts(loss) == ["training", "held-out"]


def test_the_best_epoch_on_the_held_out_data_is_marked():
    accuracy = learning_curves(history()).axes[1]
    assert lines(accuracy)[-1] == [(3, 90.0)]
    assert "best held-out: 90.00 %, epoch 3" in texts(accuracy)


@pytest.mark.parametrize(
    "given", [history(1), history(held_out=False)], ids=["one epoch", "no held-out data"]
)
def test_no_best_epoch_is_marked_where_there_is_none_to_choose(given):
    assert not any("best" in text for text in texts(learning_curves(given).axes[1]))


def test_a_single_epoch_is_a_dot_not_an_empty_panel():
    axes = learning_curves(history(1)).axes[0]
    assert [line.get_marker() for line in axes.get_lines()] == ["o", "o"]


def test_an_epoch_without_a_number_is_left_out_of_that_curve():
    given = history(4)
    del given.records[1]["val_loss"]
    assert [epoch for epoch, _ in lines(learning_curves(given).axes[0])[1]] == [1, 3, 4]


def test_what_is_not_finite_is_left_out_and_so_is_a_curve_without_a_number():
    given = history(4, accuracy=False)
    for record in given:
        record["val_loss"] = float("inf")
    given.records[0]["loss"] = float("nan")
    (axes,) = learning_curves(given).axes
    assert texts(axes) == ["training"]
    assert [epoch for epoch, _ in lines(axes)[0]] == [2, 3, 4]


@pytest.mark.parametrize(
    ("given", "scale"),
    [
        (history(30, held_out=False, fall=0.7), "log"),
        (history(5, held_out=False), "linear"),
        (History([{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.0}]), "linear"),
    ],
    ids=["a large fall", "a small fall", "down to zero"],
)
def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_axis(given, scale):
    assert learning_curves(given).axes[0].get_yscale() == scale


def test_the_accuracy_axis_ends_at_100_percent():
    given = History([{"epoch": n, "loss": 1.0, "accuracy": 1 - 0.01 / n} for n in range(1, 20)])
    assert learning_curves(given).axes[1].get_ylim()[1] <= 100


def test_names_that_would_overlap_are_moved_apart():
    given = History([{"epoch": n, "loss": 1 / n, "val_loss": 1 / n + 1e-4} for n in (1, 2, 3)])
    figure = learning_curves(given)
    renderer = figure.canvas.get_renderer()
    low, high = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert low.y1 <= high.y0 + 1


@given(places=st.lists(st.floats(0, 1), max_size=9), least=st.floats(0.01, 0.1))
def test_names_keep_their_order_their_distance_and_stay_beside_the_panel(places, least):
    moved = plotting._apart(places, least)
    order = np.argsort(places, kind="stable")
    assert np.all(np.diff(np.array(moved)[order]) >= least - 1e-9)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)


@given(places=st.lists(st.integers(0, 9), unique=True, max_size=9))
def test_names_that_are_far_enough_apart_stay(places):
    assert plotting._apart([place / 9 for place in places], 0.1) == [place / 9 for place in places]


def test_several_runs_are_drawn_over_each_other_each_with_its_name():
    runs = {f"seed {seed}": history(start=1 + seed) for seed in range(3)}
    loss, accuracy = compare_runs(runs, title="three seeds").axes
    assert loss.get_ylabel() == "loss, held-out"
    assert accuracy.get_ylabel() == "accuracy, held-out (%)"
    assert [values[0][1] for values in lines(loss)] == [run["val_loss"][0] for run in runs.values()]
    assert texts(loss) == list(runs)
    assert len({line.get_color() for line in loss.get_lines()}) == 3


def test_many_runs_are_drawn_alike_under_their_mean_over_the_epochs_that_all_reached():
    runs = {f"seed {seed}": history(5 if seed else 3, start=1 + seed) for seed in range(8)}
    loss = compare_runs(runs).axes[0]
    mean = lines(loss)[-1]
    assert [epoch for epoch, _ in mean] == [1, 2, 3]
    assert mean[0][1] == pytest.approx(np.mean([run["val_loss"][0] for run in runs.values()]))
    assert texts(loss) == ["mean of 8"]


def losses(*values, first=1):
    return History([{"epoch": n, "loss": value} for n, value in enumerate(values, first)])


@pytest.mark.parametrize(
    ("other", "mean"),
    [
        (losses(float("nan"), 2.0, 3.0), [(2, 2.0), (3, 3.0)]),
        (losses(1.0, float("inf"), 3.0), [(1, 1.0), (3, 3.0)]),
        (losses(2.0, 3.0, 4.0, first=2), [(2, 2.0), (3, 3.0)]),
    ],
    ids=["not finite at first", "not finite in between", "begun later"],
)
def test_the_mean_of_many_runs_is_taken_epoch_by_epoch(other, mean):
    runs = {f"seed {seed}": losses(1.0, 2.0, 3.0) for seed in range(7)} | {"other": other}
    assert lines(compare_runs(runs).axes[0])[-1] == mean


@pytest.mark.parametrize("value", [float("nan"), None], ids=["NaN", "None"])
@pytest.mark.parametrize("draw", [learning_curves, lambda given: compare_runs({"a": given})])
def test_a_history_without_a_finite_number_is_an_error(draw, value):
    with pytest.raises(gpunn.DataError, match=r"is finite in any epoch: there is nothing to draw"):
        draw(losses(value, value))


@pytest.mark.parametrize(
    "given", [None, [], {"loss": [1.0]}, np.ones(2)], ids=["None", "list", "dict", "array"]
)
def test_what_is_no_history_is_an_error_that_says_so(given):
    with pytest.raises(
        gpunn.ArgumentError, match=rf"^history is a {type(given).__name__}, expected a gpunn.Hist"
    ):
        learning_curves(given)
    with pytest.raises(
        gpunn.ArgumentError, match=rf"^runs\['a'\] is a {type(given).__name__}, expected a gpunn"
    ):
        compare_runs({"a": given})
    if not isinstance(given, dict):
        with pytest.raises(
            gpunn.ArgumentError, match=rf"^runs is a {type(given).__name__}, expected \{{'name'"
        ):
            compare_runs(given)


def test_a_record_without_its_epoch_is_an_error():
    with pytest.raises(
        gpunn.ArgumentError, match=r"'epoch' of record 0 of history is None, expected a whole"
    ):
        learning_curves(History([{"loss": 1.0}]))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (99, r"kept is 99, and the history has no such epoch"),
        ("hello", r"kept is 'hello', expected a whole number"),
        ([], r"kept is \[\], expected a whole number"),
    ],
)
def test_an_epoch_that_cannot_have_been_kept_is_an_error(kept, message):
    with pytest.raises(gpunn.ArgumentError, match=message):
        learning_curves(history(), kept=kept)


def test_losses_that_no_axis_can_hold_are_left_out():
    assert lines(learning_curves(losses(1e308, 2.0, -1e308, 1.0)).axes[0]) == [[(2, 2.0), (4, 1.0)]]


@pytest.mark.parametrize("title", ["a network with a very long name - " * 9, "word" * 75])
def test_a_long_title_of_curves_has_lines_and_keeps_its_size(title):
    figure = learning_curves(history(), title=title)
    (text,) = figure.texts
    assert text.get_fontsize() == 10
    assert text.get_text().count("\n") >= 2
    assert cut_off(figure) == []
    assert text.get_window_extent().y0 >= max(axes.get_tightbbox().y1 for axes in figure.axes)


def test_runs_without_held_out_data_are_compared_in_training():
    runs = {"a": history(held_out=False), "b": history()}
    assert [axes.get_ylabel() for axes in compare_runs(runs).axes] == [
        "loss, training",
        "accuracy, training (%)",
    ]


def test_an_accuracy_that_one_run_lacks_is_not_compared():
    runs = {"a": history(accuracy=False), "b": history()}
    assert [axes.get_ylabel() for axes in compare_runs(runs).axes] == ["loss, held-out"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: learning_curves(History()),
        lambda: compare_runs({"a": history(), "b": History()}),
        lambda: compare_runs({}),
    ],
    ids=["no epoch", "a run without an epoch", "no run"],
)
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(gpunn.ArgumentError, match=r"no epochs|is empty"):
        draw()


@pytest.mark.parametrize(
    ("name", "magic"), [("curves.png", b"\x89PNG"), ("curves.pdf", b"%PDF"), ("curves.svg", b"<?xml")]
)
def test_the_picture_is_written_in_the_format_of_its_name(tmp_path, name, magic):
    learning_curves(history(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_png_has_150_dots_an_inch_and_says_who_made_it(tmp_path):
    figure = learning_curves(history(), tmp_path / "curves.png", title="a title")
    content = (tmp_path / "curves.png").read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == tuple(int(150 * inches) for inches in figure.get_size_inches())
    assert b"Software\0gpunn" in content[:200]
    assert [text.get_text() for text in figure.texts] == ["a title"]


def test_the_background_is_white():
    canvas = learning_curves(history()).canvas
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    assert (pixels[0] == 255).all()


def test_an_unknown_format_is_an_error_that_names_the_nearest(tmp_path):
    with pytest.raises(gpunn.UnknownNameError, match="did you mean 'png'"):
        learning_curves(history(), tmp_path / "curves.pngg")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingMatplotlibError, match=r"pip install matplotlib") as caught:
        learning_curves(history())
    assert isinstance(caught.value, ImportError)


def test_drawing_leaves_pyplot_alone():
    script = (
        "import sys, gpunn.plotting as p; assert 'matplotlib' not in sys.modules\n"
        "from gpunn import History\n"
        "p.learning_curves(History([{'epoch': 1, 'loss': 1.0}]))\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("title", ["short", "a network with a very long name - " * 4])
def test_a_title_stays_inside_the_picture(title):
    figure = learning_curves(history(), title=title)
    width = figure.get_size_inches()[0] * figure.dpi
    assert figure.texts[0].get_window_extent().x1 <= width


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e8])
def test_the_name_of_the_axis_stays_inside_the_picture(scale):
    losses = [{"epoch": n, "loss": scale * (2 - n / 3)} for n in (1, 2, 3)]
    axes = learning_curves(History(losses)).axes[0]
    axes.figure.canvas.draw()
    assert axes.yaxis.label.get_window_extent().x0 >= 0


def numbers(axes):
    """What stands beside the axis, where it is seen."""
    axes.figure.canvas.draw()
    low, high = axes.get_ylim()
    places = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    return [text.get_text() for place, text in places if low <= place <= high and text.get_text()]


@pytest.mark.parametrize("decades", [1.5, 3, 8, 24, 200, 308])
def test_a_loss_of_any_size_has_numbers_beside_it(decades):
    losses = [{"epoch": n, "loss": 0.3 * 10 ** (decades * n / 9)} for n in range(10)]
    axes = learning_curves(History(losses)).axes[0]
    assert axes.get_yscale() == "log"
    assert 3 <= len(numbers(axes)) <= 9


def measured(*names, epochs=6):
    """A history with these metrics, each best on the held-out data at epoch 4."""
    records = []
    for n in range(1, epochs + 1):
        record = {"epoch": n, "loss": 1 / n, "val_loss": 1 + abs(n - 2)}
        for name in names:
            value = abs(n - 4) if name == "mae" else 0.9 - abs(n - 4) / 10
            record |= {name: value, f"val_{name}": value}
        records.append(record | {"confusion": [[1]], "val_confusion": [[1]], "lr": 0.1, "seconds": 1.0})
    return History(records)


def test_every_metric_that_is_a_number_has_a_panel():
    given = measured("f1", "accuracy", "top_3", "r2", "mae")
    labels = ["loss", "accuracy (%)", "f1", "top_3 (%)", "R²", "mae"]
    assert [axes.get_ylabel() for axes in learning_curves(given).axes] == labels
    compared = [axes.get_ylabel() for axes in compare_runs({"a": given, "b": given}).axes]
    assert compared == [
        "loss, held-out",
        "accuracy, held-out (%)",
        "f1, held-out",
        "top_3, held-out (%)",
        "R², held-out",
        "mae, held-out",
    ]
    assert len(compare_runs({"a": given, "b": measured("f1")}).axes) == 2
    best = ("90.00 %", "0.9", "90.00 %", "0.9", "0")
    for axes, value in zip(learning_curves(given).axes[1:], best, strict=True):
        assert f"best held-out: {value}, epoch 4" in texts(axes)


def test_the_epoch_whose_weights_were_kept_is_marked_in_each_panel():
    loss, accuracy = learning_curves(measured("accuracy"), kept=2).axes
    assert lines(loss)[-1] == [(2, 1.0)]
    assert "kept weights: 1, epoch 2" in texts(loss)
    assert lines(accuracy)[-1] == [(2, pytest.approx(70))]
    assert "kept weights: 70.00 %, epoch 2" in texts(accuracy)
    assert not any("best" in text for text in texts(accuracy))


def test_what_is_said_of_an_epoch_lies_across_no_curve():
    figure = learning_curves(measured("accuracy"), title="a title")
    renderer = figure.canvas.get_renderer()
    axes = figure.axes[1]
    (said,) = [text for text in axes.texts if text.get_text().startswith("best")]
    panel, box = axes.get_window_extent(renderer), said.get_window_extent(renderer)
    assert box.y0 >= panel.y1
    assert box.y1 <= figure.texts[0].get_window_extent(renderer).y0


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 30, 1000])
def test_epochs_are_numbered_from_the_first(epochs):
    axes = learning_curves(history(epochs)).axes[0]
    ticks = list(axes.get_xticks())
    assert ticks[0] == 1
    assert all(tick == int(tick) and 1 <= tick <= epochs for tick in ticks)
    assert len(ticks) <= 9


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1.0, 1e5, 1e20])
@pytest.mark.parametrize("fall", [1.5, 60.0, 1e9])
def test_names_and_numbers_stay_inside_the_picture(scale, fall):
    records = [{"epoch": n, "loss": scale * fall ** (-n / 9), "r2": -(scale / n)} for n in range(1, 10)]
    figure = learning_curves(History(records))
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [axes.yaxis.get_tightbbox(renderer) for axes in figure.axes]
    assert boxes[0].x0 >= 0
    assert boxes[1].x0 >= max(text.get_window_extent(renderer).x1 for text in figure.axes[0].texts)
    named = compare_runs({"a run with a very long name " * 2: History(records)})
    (text,) = named.axes[0].texts
    assert text.get_window_extent().x1 <= named.axes[1].yaxis.get_tightbbox().x0


def test_the_first_epochs_of_r2_leave_room_for_the_rest():
    records = [{"epoch": n, "loss": 1 / n, "val_r2": 1 - 100 / n**3} for n in range(1, 10)]
    axes = learning_curves(History(records)).axes[1]
    assert axes.get_ylim() == (-1, 1)
    assert all(line.get_clip_on() for line in axes.get_lines()[:1])
    axes = learning_curves(History(records), kept=1).axes[1]
    assert axes.get_lines()[-1].get_clip_on()


def test_many_panels_stand_in_rows():
    figure = learning_curves(measured("accuracy", "f1", "precision", "recall"))
    places = [axes.get_position() for axes in figure.axes]
    assert [place.x0 for place in places[:2]] == [place.x0 for place in places[3:]]
    assert places[3].y1 < places[0].y0


def test_an_epoch_without_a_number_is_not_marked():
    given = measured("accuracy")
    given.records[1]["val_accuracy"] = None
    loss, accuracy = learning_curves(given, kept=2).axes
    assert "kept weights: 1, epoch 2" in texts(loss)
    assert texts(accuracy) == ["training", "held-out"]


# ------------------------------------------------------------------ what all further pictures share

RAMP = np.linspace(-1.0, 1.0, 12)
GRADIENTS = {
    "layers.0.weights": np.full((2, 2), 0.5),
    "layers.0.bias": np.ones(2),
    "layers.1.weights": np.full((1, 2), 2.0),
    "layers.1.bias": np.ones(1),
}

PICTURES = {
    "weight_images": lambda **kw: plotting.weight_images(np.arange(12.0).reshape(3, 4) - 5, **kw),
    "error_surface": lambda **kw: plotting.error_surface(
        lambda w, b: w * w + b * b, RAMP, RAMP, descent={"η = 0.1": [(1, 1), (0, 0)]}, **kw
    ),
    "confusion_matrix": lambda **kw: plotting.confusion_matrix([0, 1, 2, 2], [0, 2, 2, 2], **kw),
    "misclassified": lambda **kw: plotting.misclassified(np.eye(4), [0, 1, 2, 3], [0, 1, 1, 1], **kw),
    "activation_curves": lambda **kw: plotting.activation_curves(["relu", "tanh"], **kw),
    "gradient_magnitudes": lambda **kw: plotting.gradient_magnitudes(GRADIENTS, **kw),
    "gradient_magnitudes over time": lambda **kw: plotting.gradient_magnitudes([GRADIENTS] * 3, **kw),
    "fitted_curves": lambda **kw: plotting.fitted_curves(
        RAMP, RAMP**2, {"line": RAMP, "zero": 0 * RAMP}, difference=True, points=(RAMP, RAMP**2), **kw
    ),
}

each_picture = pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES.keys())


def cut_off(figure):
    """The words that do not lie wholly inside the figure."""
    figure.canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    unseen = beyond_the_ends(figure)
    found = []
    for text in figure.findobj(Text):
        box = text.get_window_extent()
        outside = box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
        if text.get_text() and text.get_visible() and id(text) not in unseen and outside:
            found.append(text.get_text())
    return found


def beyond_the_ends(figure):
    """The numbers that an axis has but does not draw."""
    unseen = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not axes.axison or not low <= tick.get_loc() <= high:
                    unseen |= {id(tick.label1), id(tick.label2)}
    return unseen


def test_every_picture_of_the_package_is_tested_here():
    drawn = {name.split()[0] for name in PICTURES} | {"learning_curves", "compare_runs"}
    assert drawn | {"MissingMatplotlibError"} == set(plotting.__all__)


@each_picture
@pytest.mark.parametrize("title", [None, "short", "a network with a very long name - " * 6, "word" * 60])
def test_nothing_is_cut_off_of_a_picture(draw, title):
    figure = draw(title=title)
    assert cut_off(figure) == []
    assert bool(title) == any(text.get_fontweight() == "bold" for text in figure.texts)


@each_picture
def test_the_title_stands_above_everything_else(draw):
    figure = draw(
        title="a title that is so long that it takes more than one line, which needs some room " * 2
    )
    (title,) = figure.texts
    assert title.get_text().count("\n") >= 1
    top = max(axes.get_tightbbox().y1 for axes in figure.axes)
    assert title.get_window_extent().y0 >= top


every_picture = pytest.mark.parametrize(
    "draw",
    [
        *PICTURES.values(),
        lambda **kw: learning_curves(history(), **kw),
        lambda **kw: compare_runs({"a": history()}, **kw),
    ],
    ids=[*PICTURES, "learning_curves", "compare_runs"],
)

#: What Matplotlib would take for formulas, each of them one that it cannot read.
DOLLARS = [r"$\frac{a$", r"from 3 $ to $\5$ {"]


@every_picture
@pytest.mark.parametrize("title", DOLLARS)
def test_a_title_is_shown_as_it_is(draw, title):
    figure = draw(title=title)
    assert [text.get_text() for text in figure.texts] == [title]
    assert cut_off(figure) == []


@pytest.mark.parametrize("name", [*DOLLARS, "_hidden"])
@pytest.mark.parametrize(
    "draw",
    [
        lambda name: plotting.weight_images([[1, 2, 3, 4]], names=[name]),
        lambda name: plotting.error_surface(bowl, RAMP, RAMP, descent={name: [(0, 0)]}),
        lambda name: plotting.error_surface(bowl, RAMP, RAMP, descent={name: [(0, 0)], "b": [(1, 1)]}),
        lambda name: plotting.error_surface(bowl, RAMP, RAMP, labels=(name, name)),
        lambda name: plotting.confusion_matrix([0, 1], [0, 1], names=[name, "b"]),
        lambda name: plotting.gradient_magnitudes({name: [1.0]}),
        lambda name: plotting.gradient_magnitudes([{name: [1.0]}]),
        lambda name: plotting.fitted_curves(RAMP, RAMP, {name: RAMP}),
        lambda name: plotting.fitted_curves(RAMP, RAMP, {"f": RAMP}, difference=True, names=(name, name)),
        lambda name: compare_runs({name: history()}),
        lambda name: learning_curves(History([{"epoch": 1, "loss": 1.0, f"top_{name}": 0.5}])),
    ],
    ids=[
        "units",
        "a path",
        "paths",
        "axes",
        "classes",
        "layers",
        "layers over time",
        "fits",
        "names of x and y",
        "runs",
        "metrics",
    ],
)
def test_a_name_is_shown_as_it_is(draw, name):
    figure = draw(name)
    assert cut_off(figure) == []
    assert any(name in text.get_text() for text in figure.findobj(Text))


def test_the_name_and_the_formula_of_an_activation_are_shown_as_they_are():
    from gpunn.activations import ACTIVATIONS

    name, formula = r"cost in $\frac{$", r"a = $\frac{z$"
    gpunn.register_activation(name, lambda z: z, lambda z: 1.0, formula=formula)
    try:
        figure = plotting.activation_curves(name)
        assert texts(figure.axes[0])[:2] == [name, formula]
        assert cut_off(figure) == []
    finally:
        del ACTIVATIONS[name]


@every_picture
@pytest.mark.parametrize("title", [3, b"", ["a"]])
def test_a_title_that_is_no_text_is_an_error(draw, title):
    with pytest.raises(gpunn.ArgumentError, match=r"title is .*, expected a str"):
        draw(title=title)


@pytest.mark.parametrize("suffix", ["pgf", "jpg", "eps", "raw", ""])
def test_only_the_formats_that_are_promised_are_written(suffix, tmp_path):
    with pytest.raises(gpunn.UnknownNameError, match=rf"format '{suffix}'.* Known: pdf, png, svg$"):
        learning_curves(history(), tmp_path / f"picture.{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [3, b"x.png", "a\0b.png", ["x.png"]])
def test_a_path_that_is_none_is_an_error(path):
    with pytest.raises(gpunn.ArgumentError, match=r"path is .*, expected the path of a file"):
        plotting.activation_curves("relu", path=path)


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        plotting.activation_curves("relu", path=tmp_path / "nowhere" / "x.png")


def test_a_picture_that_cannot_be_written_leaves_the_one_that_was_there(tmp_path, monkeypatch):
    def fails(*paths):
        raise OSError("the disk is full")

    path = tmp_path / "picture.png"
    path.write_bytes(b"before")
    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OSError, match="the disk is full"):
        plotting.activation_curves("relu", path=path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e306, 1e308])
@pytest.mark.parametrize(
    "draw",
    [
        lambda n: plotting.weight_images([[n, -n, 1, 0]]),
        lambda n: plotting.misclassified([[n, -n, 1, 0]], [0], [1]),
        lambda n: plotting.error_surface([[-n, n], [1, 2]], [0, 1], [0, 1]),
        lambda n: plotting.error_surface(lambda w, b: n * w, [-1, 1], [0, 1]),
        lambda n: plotting.error_surface([[-1, 3], [1, 2]], [-n, n], [-n, n]),
        lambda n: plotting.fitted_curves([0, 1], [-n, n], {"f": [n, -n]}, difference=True),
        lambda n: plotting.fitted_curves([-n, n], [0, 1], {}),
        lambda n: plotting.fitted_curves([0, 1], None, {}, points=([-n, n], [n, -n])),
        lambda n: plotting.activation_curves("relu", low=-n, high=n),
        lambda n: plotting.gradient_magnitudes({"a": [n], "b": [-n]}),
        lambda n: plotting.gradient_magnitudes([{"a": [n], "b": [1.0]}] * 2),
    ],
)
def test_large_numbers_are_drawn_or_refused_but_never_overflow(draw, size):
    if size <= 1e306:
        assert cut_off(draw(size)) == []
    else:
        with pytest.raises(gpunn.ArgumentError, match=r"±1e\+306"):
            draw(size)


@pytest.mark.filterwarnings("error")
def test_a_norm_and_a_path_that_float64_cannot_hold():
    with pytest.raises(gpunn.DataError, match=r"the norm of gradients\['a'\] .*is inf|the norm .* ±1e\+306"):
        plotting.gradient_magnitudes({"a": np.full(10**5, 1e306)})
    assert cut_off(plotting.error_surface(bowl, RAMP / 9, RAMP, descent=[(0, 0), (1.5e308, 0)])) == []


@each_picture
@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_each_picture_is_written_white(draw, suffix, magic, tmp_path):
    figure = draw(path=tmp_path / f"picture.{suffix}")
    assert (tmp_path / f"picture.{suffix}").read_bytes().startswith(magic)
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


@each_picture
def test_a_picture_says_how_to_get_matplotlib(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingMatplotlibError, match="pip install matplotlib"):
        draw()


def test_no_picture_starts_pyplot():
    script = (
        "import sys, gpunn.plotting as p; assert 'matplotlib' not in sys.modules\n"
        "p.activation_curves('relu'); p.confusion_matrix([0, 1], [1, 1]); p.weight_images([[1, 2, 3, 4]])\n"
        "p.error_surface(lambda w, b: w + b, [0, 1], [0, 1], descent=[(0, 0)])\n"
        "p.gradient_magnitudes({'a': [1.0]}); p.fitted_curves([0, 1], [0, 1], {})\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def as_given(array, how):
    array = np.asarray(array)
    if how == "list":
        return array.tolist()
    if how == "not contiguous":
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if how == "read-only":
        array = array.copy()
        array.flags.writeable = False
        return array
    return array.astype(how)


@pytest.mark.parametrize("how", ["list", "float32", "float16", ">f8", "not contiguous", "read-only"])
def test_numbers_may_come_in_any_form(how):
    W = as_given([[0.5, -1.0, 0.25, 2.0]] * 2, how)
    assert np.array_equal(plotting.weight_images(W).axes[0].images[1].get_array(), [[0.5, -1], [0.25, 2]])
    x = as_given([0.0, 0.5, 1.0], how)
    assert lines(plotting.fitted_curves(x, x, {"f": x}).axes[0])[1] == [(0, 0), (0.5, 0.5), (1, 1)]
    assert heights(plotting.gradient_magnitudes({"layers.0.weights": as_given([[3.0, 4.0]], how)})) == [5.0]
    C = as_given([[1.0, 2.0, 4.0]] * 2, how)
    assert plotting.error_surface(C, x, as_given([0.0, 1.0], how), descent=as_given([[0.0, 1.0]], how))
    figure = plotting.misclassified(W, as_given([1.0, 0.0], how), as_given([1.0, 1.0], how))
    assert texts(figure.axes[0])[0] == "0 taken for 1"


def test_what_is_passed_is_left_as_it_is():
    x, W = np.array([2.0, 0.0, 1.0]), np.array([[1.0, 2.0, 3.0, 4.0]])
    plotting.fitted_curves(x, x, {"f": x}, points=(x, x), difference=True)
    plotting.weight_images(W)
    assert x.tolist() == [2, 0, 1]
    assert W.tolist() == [[1, 2, 3, 4]]


# ------------------------------------------------------------------ weights


def test_each_unit_is_an_image_of_its_weights():
    W = np.arange(12.0).reshape(2, 6)
    figure = plotting.weight_images(W, shape=(2, 3), names=["a", "b"])
    axes, bar = figure.axes
    assert [image.get_array().tolist() for image in axes.images] == W.reshape(2, 2, 3).tolist()
    assert texts(axes) == ["a", "b"]
    assert bar.get_ylabel() == "weight"


def test_zero_is_white_and_the_signs_have_different_colours():
    image = plotting.weight_images([[-2.0, 0.0, 1.0, 0.5]]).axes[0].images[0]
    assert image.get_clim() == (-2, 2)
    negative, zero, positive = (image.cmap(image.norm(value))[:3] for value in (-1.0, 0.0, 1.0))
    assert min(zero) > 0.98
    assert negative[0] > negative[2]
    assert positive[2] > positive[0]


def test_a_few_weights_far_out_do_not_wash_out_the_others():
    W = np.tile(np.linspace(-1, 1, 400), (10, 1))
    W[0, 0] = 100.0
    figure = plotting.weight_images(W)
    assert figure.axes[0].images[0].get_clim() == pytest.approx((-1, 1), abs=0.01)
    assert np.ptp(figure.axes[1].get_tightbbox().intervaly) > 0


def test_the_images_of_a_network_are_those_of_its_first_weights():
    layers = [gpunn.Flatten(), gpunn.Dense(3), gpunn.Dense(2)]
    net = gpunn.Sequential(layers, input_shape=(4, 6), seed=0)
    images = plotting.weight_images(net).axes[0].images
    W = np.asarray(net.parameters["layers.1.weights"])
    assert [image.get_array().shape for image in images] == [(4, 6)] * 3
    assert np.allclose([np.ravel(image.get_array()) for image in images], W)


@pytest.mark.parametrize("units", [1, 2, 7, 30, 100, 101, 500])
def test_any_number_of_units_is_readable(units):
    figure = plotting.weight_images(np.ones((units, 4)), names=[f"unit number {i}" for i in range(units)])
    axes = figure.axes[0]
    assert len(axes.images) == min(units, 100)
    assert (f"the first 100 of {units} units" in texts(axes)) == (units > 100)
    assert max(figure.get_size_inches()) < 14
    assert cut_off(figure) == []
    boxes = [text.get_window_extent() for text in axes.texts[: min(units, 30)]]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plotting.weight_images(np.ones((3, 785))),
            r"785 numbers, which fill no square: give shape=",
        ),
        (
            lambda: plotting.weight_images(np.ones((3, 6)), shape=(2, 2)),
            r"shape is \(2, 2\), .* has 6 numbers",
        ),
        (lambda: plotting.weight_images(np.ones((3, 6)), shape=6), r"expected two whole numbers"),
        (lambda: plotting.weight_images(np.ones((3, 6)), shape="23"), r"'23', expected two whole numbers"),
        (lambda: plotting.weight_images(np.ones((3, 6)), shape=(2.9, 3.2)), r"expected two whole numbers"),
        (lambda: plotting.weight_images(np.ones((3, 6)), shape=(np.inf, 1)), r"expected two whole numbers"),
        (lambda: plotting.weight_images(np.ones((3, 6)), shape=(2j, 3)), r"expected two whole numbers"),
        (lambda: plotting.weight_images(np.ones((3, 6)), shape=(1, 2, 3)), r"expected two whole numbers"),
        (lambda: plotting.weight_images(np.ones((3, 4)), names=np.array(2.0)), r"expected a list of names"),
        (
            lambda: plotting.weight_images(np.ones((3, 4)), names=["a"]),
            r"1 names, expected 3: one for each unit",
        ),
        (lambda: plotting.weight_images(np.ones((3, 4)), names="abc"), r"expected a list of names"),
        (lambda: plotting.weight_images(np.ones((3, 4)), names=3), r"expected a list of names"),
        (lambda: plotting.weight_images(np.ones((0, 4))), r"weights is empty"),
        (lambda: plotting.weight_images([[1, np.nan, 0, 0]]), r"weights\[0, 1\] is nan"),
        (
            lambda: plotting.weight_images(np.ones((1, 2, 2, 2))),
            r"shape \(1, 2, 2, 2\), expected \(units, inputs\)",
        ),
        (lambda: plotting.weight_images([["a"]]), r"expected numbers"),
        (
            lambda: plotting.weight_images(gpunn.Sequential([gpunn.Flatten()], input_shape=(2, 2))),
            r"no layer with weights",
        ),
    ],
)
def test_weights_that_are_no_images_are_an_error(call, message):
    with pytest.raises(gpunn.ArgumentError, match=message):
        call()


# ------------------------------------------------------------------ classes


def test_the_cells_are_counts_of_truth_by_prediction():
    figure = plotting.confusion_matrix([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2], names=["a", "b", "c"])
    axes = figure.axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts if text.get_text().isdecimal()}
    assert cells == {(0, 0): "2", (1, 0): "1", (1, 1): "1", (2, 1): "1", (2, 2): "1"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert {"66.7 %", "50.0 %", "100.0 %", "4 of 6 right: 66.67 %"} < set(texts(axes))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_the_confusion_matrix_is_that_of_the_metric():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 3)), rng.integers(0, 4, 200)
    net = gpunn.Sequential([gpunn.Dense(4)], input_shape=3, seed=1)
    counts = net.evaluate(X, y, loss="cross_entropy", metrics=("confusion",))["confusion"]
    axes = plotting.confusion_matrix(y, net.predict(X)).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts if text.get_text().isdecimal()}
    assert cells == {(j, i): str(n) for (i, j), n in np.ndenumerate(np.asarray(counts, int)) if n}


def test_what_is_right_is_blue_and_what_is_wrong_vermilion():
    shades = plotting.confusion_matrix([0, 0, 1], [0, 1, 1]).axes[0].images[0].get_array()
    assert shades[0, 0, 2] > shades[0, 0, 0]
    assert shades[0, 1, 0] > shades[0, 1, 2]
    assert shades[1, 0].tolist() == [1, 1, 1, 1]


def test_the_shades_are_shares_of_the_class_and_of_the_most_frequent_mistake():
    truth, taken = [0] * 100 + [1, 2, 2], [0] * 98 + [1, 1] + [1, 0, 2]
    shades = plotting.confusion_matrix(truth, taken).axes[0].images[0].get_array()
    blue, vermilion = (
        [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in plotting.COLOURS[:2]
    )
    assert shades[1, 1, :3].tolist() == pytest.approx(blue, abs=0.01)
    assert shades[0, 1, :3].tolist() == pytest.approx(vermilion, abs=0.01)
    assert shades[2, 0].tolist() != shades[0, 1].tolist()


def test_a_class_without_examples_has_no_share():
    axes = plotting.confusion_matrix([0, 0], [0, 1], names=["a", "b", "c"]).axes[0]
    assert [text for text in texts(axes) if text.endswith("%")] == ["50.0 %", "1 of 2 right: 50.00 %"]


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("length", [1, 14, 60])
def test_any_number_of_classes_with_names_of_any_length_fits(classes, length):
    y = np.arange(20 * classes) % classes
    figure = plotting.confusion_matrix(y, np.roll(y, 3), names=["n" * length] * classes)
    assert cut_off(figure) == []
    assert max(figure.get_size_inches()) < 14
    labels = figure.axes[0].get_xticklabels()[:8]
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.x1 > b.x0 + 1 for a, b in pairwise(boxes))


def test_counts_stay_inside_their_cells():
    y = np.repeat(np.arange(12), 4321)
    axes = plotting.confusion_matrix(y, y).axes[0]
    axes.figure.canvas.draw()
    cell = axes.get_window_extent().width / 12
    assert all(t.get_window_extent().width <= cell for t in axes.texts if t.get_text().isdecimal())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plotting.confusion_matrix([0, 1], [0]), r"y has 2 labels, predicted 1"),
        (lambda: plotting.confusion_matrix([], []), r"y is empty"),
        (lambda: plotting.confusion_matrix([0, -1], [0, 0]), r"y\[1\] is -1, expected a label"),
        (lambda: plotting.confusion_matrix([0, 1], [0, 0.5]), r"predicted\[1\] is 0.5, expected a label"),
        (lambda: plotting.confusion_matrix([0, np.nan], [0, 0]), r"y\[1\] is nan, expected a label"),
        (lambda: plotting.confusion_matrix([0, np.inf], [0, 0]), r"y\[1\] is inf, expected a label"),
        (lambda: plotting.confusion_matrix([0, 1], [[0, np.nan], [1, 0]]), r"predicted\[0, 1\] is nan"),
        (lambda: plotting.confusion_matrix(np.zeros((2, 2, 2)), [0, 0]), r"expected labels \(n,\)"),
        (lambda: plotting.confusion_matrix(["a", "b"], [0, 1]), r"OneHot"),
        (
            lambda: plotting.confusion_matrix([0, 2], [0, 1], names=["a", "b"]),
            r"names has 2 names, but y has the label 2",
        ),
        (
            lambda: plotting.confusion_matrix([0, 1], [0, 3], names=["a", "b"]),
            r"names has 2 names, but predicted has the label 3",
        ),
        (lambda: plotting.confusion_matrix([0, 10**9], [0, 1]), r"1,000,000,001 classes, and at most 100"),
    ],
)
def test_labels_that_make_no_matrix_are_an_error(call, message):
    with pytest.raises(gpunn.ArgumentError, match=message):
        call()


def test_the_first_examples_that_are_wrong_are_shown_with_what_they_were_taken_for():
    X = np.arange(24.0).reshape(4, 6)
    figure = plotting.misclassified(X, [1, 2, 3, 4], [1, 7, 8, 9], shape=(2, 3), count=2)
    axes = figure.axes[0]
    assert [image.get_array().tolist() for image in axes.images] == X[1:3].reshape(2, 2, 3).tolist()
    assert texts(axes) == [
        "2 taken for 7",
        "3 taken for 8",
        "3 of 4 are misclassified, the first 2 are shown",
    ]


def test_the_least_pixel_that_is_shown_is_white_and_the_greatest_black():
    images = (
        plotting.misclassified([[5, 6, 7, 8], [6, 7, 8, 9], [0, 0, 0, 99]], [0, 1, 2], [1, 0, 2])
        .axes[0]
        .images
    )
    assert [image.get_clim() for image in images] == [(5, 9), (5, 9)]
    assert [image.cmap(edge)[:3] for image in images[:1] for edge in (0.0, 1.0)] == [(1, 1, 1), (0, 0, 0)]


def test_where_nothing_is_wrong_the_picture_says_so():
    figure = plotting.misclassified(np.zeros((3, 4)), [0, 1, 1], [0, 1, 1], title="all right")
    assert texts(figure.axes[0]) == ["0 of 3 are misclassified"]
    assert cut_off(figure) == []


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7)])
def test_examples_keep_the_shape_that_they_have(shape):
    figure = plotting.misclassified(np.ones((2, *shape)), [0, 1], [1, 0])
    assert [image.get_array().shape for image in figure.axes[0].images] == [(5, 7)] * 2


def test_only_what_is_shown_has_to_be_finite():
    X = np.array([[np.nan] * 4, [1.0, 2.0, 3.0, 4.0]])
    assert len(plotting.misclassified(X, [0, 1], [0, 0]).axes[0].images) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plotting.misclassified(np.ones((3, 4)), [0, 1], [0, 1]), r"X has 3 examples, y 2 labels"),
        (lambda: plotting.misclassified(np.ones((2, 5)), [0, 1], [1, 1]), r"fill no square"),
        (
            lambda: plotting.misclassified(np.ones((2, 4)), [0, 1], [1, 1], shape=[np.inf, 1]),
            r"expected two whole numbers",
        ),
        (lambda: plotting.misclassified(np.ones(2), [0, 1], [1, 1]), r"expected \(n, pixels\)"),
        (lambda: plotting.misclassified(np.ones((2, 4)), [0, 1], [1, 1], count=0), r"count is 0"),
        (lambda: plotting.misclassified([[np.nan] * 4] * 2, [0, 1], [1, 1]), r"is nan, and only finite"),
        (lambda: plotting.misclassified(np.ones((0, 4)), [], []), r"is empty"),
    ],
)
def test_examples_that_cannot_be_shown_are_an_error(call, message):
    with pytest.raises(gpunn.ArgumentError, match=message):
        call()


# ------------------------------------------------------------------ functions


def test_every_activation_is_drawn_by_its_own_definition():
    from gpunn.activations import ACTIVATIONS

    figure = plotting.activation_curves()
    assert [texts(axes)[0] for axes in figure.axes] == list(ACTIVATIONS)
    assert cut_off(figure) == []
    for axes, row in zip(figure.axes, ACTIVATIONS.values(), strict=True):
        sigma, slope = lines(axes)
        assert sigma == [(z, row.sigma(z)) for z, _ in sigma]
        assert (sigma[0][0], sigma[-1][0]) == (-4, 4)
        apart = [(z, value) for z, value in slope if not any(abs(z - kink) < 0.01 for kink in row.kinks)]
        h = 1e-5
        differences = [(row.sigma(z + h) - row.sigma(z - h)) / (2 * h) for z, _ in apart]
        assert [value for _, value in apart] == pytest.approx(differences, abs=1e-5)


def test_the_derivative_has_a_gap_at_a_kink():
    slope = lines(plotting.activation_curves("hard_sigmoid").axes[0])[1]
    assert [z for z, value in slope if np.isnan(value)] == [-3, 3]
    finite = {round(value, 6) for _, value in slope if not np.isnan(value)}
    assert finite == {0.0, round(1 / 6, 6)}


def test_a_registered_activation_is_drawn_too():
    from gpunn.activations import ACTIVATIONS

    gpunn.register_activation("cube", lambda z: z**3, lambda z: 3 * z * z, formula="a = z³, σ′ = 3z²")
    try:
        axes = plotting.activation_curves(low=-1, high=1).axes[-1]
        assert texts(axes)[:2] == ["cube", "a = z³"]
        assert lines(axes)[1][0] == (-1, 3)
    finally:
        del ACTIVATIONS["cube"]


def test_an_activation_that_raises_far_out_is_an_error_that_says_where():
    import math

    from gpunn.activations import ACTIVATIONS

    with pytest.warns(gpunn.GpunnWarning, match="raises"):
        gpunn.register_activation("bare_exp", math.exp, math.exp)
    try:
        with pytest.raises(gpunn.ArgumentError, match=r"'bare_exp': σ\(999.0\) raises OverflowError"):
            plotting.activation_curves("bare_exp", low=999, high=1000)
    finally:
        del ACTIVATIONS["bare_exp"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plotting.activation_curves("sigmod"),
            r"unknown activation 'sigmod': did you mean 'sigmoid'",
        ),
        (lambda: plotting.activation_curves(["relu", "swish"]), r"did you mean 'silu'"),
        (lambda: plotting.activation_curves(["softmax"]), r"softmax is a function of all z of a layer"),
        (lambda: plotting.activation_curves(3), r"names is 3, expected names of activations"),
        (lambda: plotting.activation_curves(np.array(2.0)), r"expected names of activations"),
        (lambda: plotting.activation_curves(b"relu"), r"names is b'relu', expected names of activations"),
        (lambda: plotting.activation_curves("relu", high=10**400), r"expected two numbers"),
        (lambda: plotting.activation_curves([]), r"names is empty"),
        (
            lambda: plotting.activation_curves("relu", low=1, high=1),
            r"expected finite numbers with low < high",
        ),
        (lambda: plotting.activation_curves("relu", high=np.inf), r"high is inf"),
        (lambda: plotting.activation_curves("relu", low="a"), r"low is 'a'"),
    ],
)
def test_activations_that_cannot_be_drawn_are_an_error(call, message):
    with pytest.raises(gpunn.ArgumentError, match=message):
        call()


def test_curves_go_from_left_to_right_and_differences_are_of_the_fit():
    x = np.array([[2.0], [0.0], [1.0]])
    y, fit = x**2, 2 * x
    figure = plotting.fitted_curves(
        x, y, {"line": fit}, difference=True, names=("r (Å)", "energy (eV)"), points=([0.5], [0.25])
    )
    above, below = figure.axes
    assert lines(above) == [[(0, 0), (1, 1), (2, 4)], [(0.5, 0.25)], [(0, 0), (1, 2), (2, 4)]]
    assert lines(below)[1] == [(0, 0), (1, 1), (2, 0)]
    assert sorted(texts(above)) == ["energy (eV)", "line"]
    assert (below.get_xlabel(), below.get_ylabel()) == ("r (Å)", "fit − energy (eV)")
    assert above.get_xlim() == below.get_xlim()


def test_a_target_that_is_known_by_points_alone_needs_no_curve():
    axes = plotting.fitted_curves([0, 1], None, {}, points=([0, 1], [2, 3])).axes[0]
    assert lines(axes) == [[(0, 2), (1, 3)]]


@pytest.mark.parametrize("count", [1, 7, 15])
def test_fits_have_colours_and_names_of_their_own(count):
    fits = {f"a fit with a long name, number {i}": RAMP * 0.01 * i for i in range(count)}
    figure = plotting.fitted_curves(RAMP, RAMP**2, fits)
    assert len({line.get_color() for line in figure.axes[0].get_lines()}) == count + 1
    assert cut_off(figure) == []
    boxes = sorted((t.get_window_extent() for t in figure.axes[0].texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 2 for low, high in pairwise(boxes))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plotting.fitted_curves([0, 1], [0, 1, 2], {}), r"y has 3 numbers, x has 2"),
        (lambda: plotting.fitted_curves([0, 1], None, {"f": [1]}), r"fits\['f'\] has 1 numbers, x has 2"),
        (
            lambda: plotting.fitted_curves(np.ones((4, 2)), None, {}),
            r"x has shape \(4, 2\), expected one number",
        ),
        (lambda: plotting.fitted_curves([0, np.inf], [0, 1], {}), r"x\[1\] is inf"),
        (lambda: plotting.fitted_curves([], [], {}), r"x is empty"),
        (lambda: plotting.fitted_curves([0, 1], None, {}), r"neither y nor fits nor points"),
        (lambda: plotting.fitted_curves([0, 1], None, {"f": [0, 1]}, difference=True), r"y is None: give y"),
        (lambda: plotting.fitted_curves([0, 1], [0, 1], {}, difference=True), r"there are no fits"),
        (lambda: plotting.fitted_curves([0, 1], [0, 1], [[0, 1]]), r"fits is a list, expected \{'name'"),
        (lambda: plotting.fitted_curves([0, 1], [0, 1], {}, names="xy"), r"expected two names"),
        (lambda: plotting.fitted_curves([0, 1], [0, 1], {}, names=3), r"expected two names"),
        (
            lambda: plotting.fitted_curves([0, 1], [0, 1], {}, points=[0, 1, 2]),
            r"points is a list, expected a pair",
        ),
        (
            lambda: plotting.fitted_curves([0, 1], [0, 1], {}, points=np.ones((5, 2))),
            r"shape \(5, 2\), expected a",
        ),
        (
            lambda: plotting.fitted_curves([0, 1], [0, 1], {}, points=([0, 1], [1])),
            r"points\[1\] has 1 numbers",
        ),
        (
            lambda: plotting.fitted_curves([0, 1], None, {str(i): [0, 1] for i in range(16)}),
            r"16 fits, and at most 15",
        ),
    ],
)
def test_fits_that_cannot_be_drawn_are_an_error(call, message):
    with pytest.raises(gpunn.ArgumentError, match=message):
        call()


# ------------------------------------------------------------------ surfaces


def shown_cost(figure):
    return figure.axes[1].get_ylabel()


def bowl(w, b):
    return w * w + b * b


def filled_at(figure, w, b):
    """The colour at a point of the panel, 0..1."""
    axes = figure.axes[0]
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    x, y = axes.transData.transform((w, b))
    return pixels[pixels.shape[0] - 1 - round(y), round(x), :3] / 255


def test_a_function_and_its_values_make_the_same_surface():
    w, b = np.linspace(-2, 1, 9), np.linspace(0, 3, 7)
    values = bowl(*np.meshgrid(w, b))
    pictures = [plotting.error_surface(cost, w, b) for cost in (bowl, values)]
    for figure in pictures:
        figure.canvas.draw()
    first, second = (np.asarray(figure.canvas.buffer_rgba()) for figure in pictures)
    assert np.array_equal(first, second)


def test_the_cost_is_laid_out_with_w_to_the_right_and_b_upwards():
    figure = plotting.error_surface(lambda w, b: w + 10 * b, np.linspace(0, 1, 20), np.linspace(0, 1, 20))
    darkness = [1 - filled_at(figure, w, b).mean() for w, b in ((0.05, 0.1), (0.95, 0.1), (0.05, 0.9))]
    assert darkness[0] < darkness[2]
    assert darkness[1] < darkness[2]
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("w", "b")


@pytest.mark.parametrize(
    ("cost", "label"),
    [
        (lambda w, b: 100 * w * w + 0.1 * b * b, "cost C (logarithmic)"),
        (lambda w, b: 10 ** (4 * w), "cost C (logarithmic)"),
        (lambda w, b: 100 + w, "cost C"),
        (lambda w, b: w * w - b * b, "cost C"),
        (lambda w, b: 3, "cost C"),
        (lambda w, b: 0.0, "cost C"),
    ],
    ids=["a valley", "decades", "a small change", "a saddle", "constant", "zero"],
)
def test_a_cost_that_spans_decades_has_logarithmic_levels(cost, label):
    figure = plotting.error_surface(cost, RAMP, RAMP)
    assert shown_cost(figure) == label
    assert cut_off(figure) == []


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1.0, 1e12, 1e305])
@pytest.mark.parametrize("decades", [0.1, 2.5, 9, 250])
def test_a_surface_of_any_size_has_numbers_beside_it(scale, decades):
    sign = -1 if scale > 1 else 1
    figure = plotting.error_surface(lambda w, b: scale * 10 ** (sign * decades * (w + 1) / 2), RAMP, RAMP)
    assert 2 <= len(numbers(figure.axes[1])) <= 20
    assert cut_off(figure) == []


def test_the_levels_hold_every_value():
    from gpunn.plotting.surface import _levels

    rng = np.random.default_rng(0)
    for _ in range(300):
        values = 10.0 ** rng.uniform(-20, 20) * rng.uniform(0, 1, (5, 5)) ** rng.choice([1, 4, 40])
        levels, logarithmic = _levels(values)
        assert (np.diff(levels) > 0).all()
        assert levels[-1] >= values.max()
        assert levels[0] <= (np.quantile(values[values > 0], 0.01) if logarithmic else values.min())
        assert len(levels) <= 22


def test_what_lies_below_the_lowest_level_is_white():
    figure = plotting.error_surface(lambda w, b: max(0.0, w) ** 3 * 100, RAMP, RAMP)
    assert filled_at(figure, -0.5, 0.0).tolist() == [1, 1, 1]
    assert numbers(figure.axes[1])[0].startswith("≤")


def test_a_descent_is_drawn_with_its_beginning_and_its_end():
    steps = [(0.9, 0.8), (0.4, 0.5), (0.1, 0.0)]
    axes = plotting.error_surface(bowl, RAMP, RAMP, descent=steps).axes[0]
    assert lines(axes) == [steps, steps[:1], steps[-1:]]
    assert axes.get_legend() is None


def test_several_descents_are_named():
    ways = {f"η = {n}, of a long name": [(0.1 * n, 0.2), (0, 0)] for n in range(8)}
    figure = plotting.error_surface(bowl, RAMP, RAMP, descent=ways, labels=("w₁", "w₂"), title="a title")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(ways)
    assert cut_off(figure) == []
    assert axes.get_xlabel() == "w₁"
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1


def test_a_descent_that_diverges_is_drawn_until_it_is_far_away():
    steps = [(0.5, 0.5), (-50.0, 0.5), (5e3, 0.5), (-1e300, 0.5), (np.inf, np.nan)]
    figure = plotting.error_surface(bowl, RAMP, RAMP, descent=steps)
    way = lines(figure.axes[0])[0]
    assert way[0] == (0.5, 0.5)
    assert len(way) == 2
    assert -25 < way[1][0] < -15
    assert way[1][1] == 0.5
    assert figure.axes[0].get_xlim() == (-1, 1)
    assert cut_off(figure) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plotting.error_surface(np.ones((3, 2)), [0, 1, 2], [0, 1]),
            r"shape \(3, 2\).*\(2, 3\): transpose it",
        ),
        (
            lambda: plotting.error_surface(np.ones((3, 3)), [0, 1, 2], [0, 1]),
            r"expected \(len\(b\), len\(w\)\)",
        ),
        (
            lambda: plotting.error_surface(bowl, [0, 0], [0, 1]),
            r"w\[0\] is 0 and w\[1\] is 0: expected .*rise",
        ),
        (lambda: plotting.error_surface(bowl, [0, 1], [2, 1]), r"b\[0\] is 2 and b\[1\] is 1"),
        (lambda: plotting.error_surface(bowl, [0], [0, 1]), r"w has shape \(1,\), expected two or more"),
        (lambda: plotting.error_surface(bowl, np.ones((2, 2)), [0, 1]), r"w has shape \(2, 2\)"),
        (lambda: plotting.error_surface(lambda w, b: np.nan, [0, 1], [0, 1]), r"cost\[0, 0\] is nan"),
        (
            lambda: plotting.error_surface(lambda w, b: [w, b], [0, 1], [0, 1]),
            r"cost\(0, 0\) is .*expected one",
        ),
        (lambda: plotting.error_surface(lambda w, b: "a", [0, 1], [0, 1]), r"expected one number"),
        (lambda: plotting.error_surface(bowl, [0, 1], [0, 1], descent=[0, 1]), r"descent has shape \(2,\)"),
        (
            lambda: plotting.error_surface(bowl, [0, 1], [0, 1], descent=np.ones((2, 3))),
            r"expected points \(w, b\)",
        ),
        (
            lambda: plotting.error_surface(bowl, [0, 1], [0, 1], descent={"a": [[1, 2, 3]]}),
            r"descent\['a'\] has",
        ),
        (
            lambda: plotting.error_surface(bowl, [0, 1], [0, 1], descent=[[np.nan, 0]]),
            r"no point that is finite",
        ),
        (
            lambda: plotting.error_surface(lambda w, b: [[1], [1, 2]], [0, 1], [0, 1]),
            r"is no array, expected one",
        ),
        (lambda: plotting.error_surface(bowl, [0, 1], [0, 1], labels=np.array(2.0)), r"expected two names"),
        (
            lambda: plotting.error_surface(bowl, [0, 1], [0, 1], labels="wb"),
            r"labels is 'wb', expected two names",
        ),
    ],
)
def test_a_surface_that_cannot_be_drawn_is_an_error(call, message):
    with pytest.raises(gpunn.ArgumentError, match=message):
        call()


# ------------------------------------------------------------------ gradients


def heights(figure):
    return [bar.get_height() for bar in figure.axes[0].patches]


def test_a_bar_is_the_norm_of_the_gradient_of_a_layers_weights():
    layers = [gpunn.Dense(5, activation="sigmoid"), gpunn.Dropout(0.5), gpunn.Dense(2)]
    net = gpunn.Sequential(layers, input_shape=3, seed=0)
    gradients = net.gradients(np.eye(3), [0, 1, 0], loss="cross_entropy")
    figure = plotting.gradient_magnitudes(gradients)
    norms = [np.linalg.norm(gradients[f"layers.{i}.weights"]) for i in (0, 2)]
    assert heights(figure) == pytest.approx(norms)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["layers.0", "layers.2"]
    assert axes.get_ylabel() == "‖∂C/∂W‖"


@pytest.mark.parametrize(
    ("given", "label", "count"),
    [
        ({"layers.0.bias": [1.0], "layers.1.bias": [2.0]}, "‖∂C/∂b‖", 2),
        ({"layers.0": [[1.0]], "layers.1": [[2.0]], "layers.2": [[2.0]]}, "‖δ‖", 3),
        (
            {"layers.0.weights": [1.0], "layers.0.bias": [1.0], "layers.1.gain": [1.0]},
            "norm of the gradient",
            2,
        ),
    ],
    ids=["biases", "errors", "other parameters"],
)
def test_the_axis_says_what_is_measured(given, label, count):
    figure = plotting.gradient_magnitudes(given)
    assert figure.axes[0].get_ylabel() == label
    assert len(heights(figure)) == count


def test_gradients_over_time_are_a_line_a_layer():
    taken = [{"layers.0.weights": [3.0 * t, 4.0 * t], "layers.1.weights": [2.0]} for t in range(1, 4)]
    axes = plotting.gradient_magnitudes(iter(taken)).axes[0]
    assert lines(axes) == [[(0, 5), (1, 10), (2, 15)], [(0, 2), (1, 2), (2, 2)]]
    assert sorted(texts(axes)) == ["layers.0", "layers.1"]


def test_a_norm_of_zero_is_a_gap_on_a_logarithmic_axis():
    axes = plotting.gradient_magnitudes([{"a": [100.0], "b": [b]} for b in (1.0, 0.0, 2.0)]).axes[0]
    assert axes.get_yscale() == "log"
    assert np.isnan(axes.get_lines()[1].get_ydata()).tolist() == [False, True, False]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(("ratio", "scale"), [(5.0, "linear"), (0.01, "log"), (0.0, "linear")])
def test_norms_that_differ_by_decades_have_a_logarithmic_axis(ratio, scale, several):
    given = {"a": [1.0], "b": [ratio]}
    axes = plotting.gradient_magnitudes([given, given] if several else given).axes[0]
    assert axes.get_yscale() == scale


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("size", [1e-300, 1e-20, 1.0, 1e200])
def test_gradients_of_any_size_can_be_drawn(size, several):
    given = {f"layers.{i}.weights": np.full(4, size * 10.0**-i) for i in range(9)}
    figure = plotting.gradient_magnitudes([given, given] if several else given)
    assert cut_off(figure) == []
    assert len(numbers(figure.axes[0])) >= 2
    if not several:
        assert heights(figure) == pytest.approx([2 * size * 10.0**-i for i in range(9)])


@pytest.mark.parametrize("several", [False, True])
def test_gradients_that_are_zero_can_be_drawn(several):
    zero, mixed = {"a": [0.0], "b": [0.0]}, {"a": [0.0], "b": [1e3]}
    for some in (zero, mixed | {"c": [1.0]}):
        assert cut_off(plotting.gradient_magnitudes([some, some] if several else some)) == []


@pytest.mark.parametrize("layers", [1, 6, 15, 60])
def test_names_of_layers_do_not_run_into_each_other(layers):
    figure = plotting.gradient_magnitudes({f"layers.{i}.weights": [1.5 + i] for i in range(layers)})
    assert cut_off(figure) == []
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(a.x1 <= b.x0 + 1 for a, b in pairwise(boxes))
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(a.x1 <= b.x0 + 1 for a, b in pairwise(boxes))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"gradients is empty"),
        ([], r"gradients is empty"),
        ([{}], r"gradients is empty"),
        ({"a": [np.nan]}, r"gradients\['a'\]\[0\] is nan"),
        ([{"a": [1.0]}, {"a": [np.inf]}], r"gradients\[1\]\['a'\]\[0\] is inf"),
        (
            [{"a": [1.0]}, {"b": [1.0]}],
            r"gradients\[1\] has the keys \['b'\], but gradients\[0\] has \['a'\]",
        ),
        ({"a": 1.0}, r"gradients\['a'\] is one number"),
        ({1: [1.0]}, r"gradients has the key 1, expected names such as 'layers.0.weights'"),
        (np.array(2.0), r"holds a ndarray, expected what net.gradients"),
        (3, r"expected what net.gradients"),
        ([[1.0]], r"holds a list, expected what net.gradients"),
        ({f"layers.{i}": [1.0] for i in range(61)}, r"61 layers, and at most 60 bars"),
        ([{f"layers.{i}": [1.0] for i in range(16)}], r"16 layers, and at most 15 lines"),
    ],
)
def test_gradients_that_cannot_be_drawn_are_an_error(given, message):
    with pytest.raises(gpunn.ArgumentError, match=message):
        plotting.gradient_magnitudes(given)

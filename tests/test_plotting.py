"""The pictures of training: what they show, and what they leave alone."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpunn
from gpunn import plotting
from gpunn.history import History
from gpunn.plotting import MissingMatplotlibError, compare_runs, learning_curves

pytest.importorskip("matplotlib", reason="pictures need Matplotlib: pip install matplotlib")


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

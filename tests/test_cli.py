"""The command line as a user meets it: what it prints, what it saves, how it fails."""

from __future__ import annotations

import csv
import importlib
import io
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpunn
from gpunn import checkpoint
from gpunn.cli import main
from gpunn.cli.task import DEFAULTS
from gpunn.data import load
from gpunn.history import History

SAVED = ["history.json", "learning_curves.png", "model.safetensors", "run.safetensors"]
SPECIES = ["iris", "rose", "tulip, wild"]
train_module = importlib.import_module("gpunn.cli.train")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Each test has a folder of its own, so that ``runs/`` is empty."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(capsys):
    """Run one command; gives its exit code, its standard output and its standard error.

    The first argument is split at its spaces.
    """

    def run(command, *arguments):
        capsys.readouterr()
        code = main([*command.split(), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def unpictured(monkeypatch):
    """Matplotlib hidden: for tests that have no interest in the picture, which takes most of the time."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


def write_csv(path, header, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return path


def write_flowers(path, *, n=60, seed=0, middle=True, only=None):
    """Three species that a linear boundary tells apart; the species in the middle column, or the last."""
    X = np.random.default_rng(seed).normal(size=(n, 3)).round(4)
    species = [SPECIES[i] for i in (X @ [[1, -1, 0], [0, 1, -1], [-1, 0, 1]]).argmax(axis=1)]
    rows = [(a, b, s, c) if middle else (a, b, c, s) for (a, b, c), s in zip(X, species, strict=True)]
    rows = [row for row in rows if only is None or only & set(row)]
    header = ["length", "width", "species", "age"] if middle else ["length", "width", "age", "species"]
    return write_csv(path, header, rows)


def write_houses(path, *, n=60):
    X = np.random.default_rng(1).normal(size=(n, 2)).round(4)
    return write_csv(path, ["rooms", "age", "price"], [(*x, round(x @ [2, -1] + 0.5, 4)) for x in X])


@pytest.fixture
def flowers(cli, unpictured):
    """A network trained on flowers.csv, in runs/flowers."""
    write_flowers("flowers.csv")
    assert cli("train", "--data", "flowers.csv", "--target", "species", "--hidden", "8", "--quiet")[0] == 0
    return Path("runs/flowers/model.safetensors")


@pytest.fixture
def houses(cli, unpictured):
    """A network trained on houses.csv, in runs/houses."""
    write_houses("houses.csv")
    assert cli("train", "--data", "houses.csv", "--hidden", "--lr", "0.05", "--quiet")[0] == 0
    return Path("runs/houses/model.safetensors")


def error_of(result):
    """The one line of a command that failed as it should."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("gpunn: error: ")
    assert err.count("\n") == 1
    return err


# ---------------------------------------------------------------------- train


def test_the_digits_are_learnt_to_95_percent_with_no_other_flag(cli):
    code, out, err = cli("train", "--data", "digits")
    assert code == 0
    assert float(re.search(r"accuracy on the 360 test examples: ([\d.]+) %", out)[1]) >= 95
    assert err.count("\n") == DEFAULTS["epochs"]
    assert "val_ is of the 360 test examples" in out
    assert "batches of 32, seed 0\n" in out
    assert sorted(path.name for path in Path("runs/digits").iterdir()) == SAVED
    assert all(f"saved runs/digits/{name}" in out for name in SAVED)


@pytest.mark.slow
def test_the_worst_of_five_seeds_reaches_95_percent_on_the_digits(cli, unpictured):
    _, out, _ = cli("train", "--data", "digits", "--quiet", "--seed", *range(5))
    worst = float(re.search(r"^final +([\d.]+ % +){2}([\d.]+) %", out, re.M)[2])
    assert worst >= 95


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GPUNN_DATA"), reason="GPUNN_DATA does not name a folder with MNIST")
def test_the_books_network_learns_mnist(cli, unpictured):
    book = (
        "train --data mnist --hidden 30 --activation sigmoid --output-activation sigmoid --loss quadratic "
        "--weights normal --bias normal --optimizer sgd --lr 3.0 --batch-size 10 --epochs 1"
    )
    code, out, _ = cli(book)
    assert code == 0
    assert "50,000 examples to train on, 10,000 to test on" in out
    assert float(re.search(r"accuracy on the 10,000 test examples: ([\d.]+) %", out)[1]) > 80


def test_the_saved_files_are_those_of_the_library(cli, flowers):
    network, trainer = gpunn.load(flowers), gpunn.Trainer.load("runs/flowers/run.safetensors")
    history = History.load("runs/flowers/history.json")
    assert (network.theta == trainer.network.theta).all()
    assert trainer.epochs_done == len(history) == DEFAULTS["epochs"]
    assert history.about["command_line"]["classes"] == SPECIES


def test_training_is_what_the_library_does_with_the_same_arguments(cli, unpictured):
    command = (
        "train --data digits --hidden 7 5 --activation tanh --output-activation sigmoid --loss quadratic "
        "--weights normal --bias normal --optimizer sgd --lr 3 --momentum 0.5 --l2 0.001 --batch-size 10 "
        "--epochs 2 --seed 4 --dtype float64 --no-shuffle --test-fraction 0.5 --out here"
    )
    assert cli(command)[0] == 0
    digits = load("digits", test_fraction=0.5)
    book = {"weights": "normal", "bias": "normal"}
    network = gpunn.Sequential(
        [gpunn.Dense(7, "tanh", **book), gpunn.Dense(5, "tanh", **book), gpunn.Dense(10, "sigmoid", **book)],
        input_shape=64,
        dtype="float64",
        seed=4,
    )
    network.fit(
        digits.train.X,
        digits.train.y,
        loss="quadratic",
        optimizer=gpunn.SGD(lr=3.0, momentum=0.5, l2=0.001),
        batch_size=10,
        epochs=2,
        shuffle=False,
        verbose=0,
    )
    saved = gpunn.load("here/model.safetensors")
    assert saved.config() == network.config()
    assert saved.theta.tobytes() == network.theta.tobytes()


@pytest.mark.parametrize(
    ("options", "activations", "loss"),
    [
        ([], ["relu", "softmax"], "cross_entropy"),
        (["--loss", "quadratic"], ["relu", "sigmoid"], "quadratic"),
        (["--loss", "mse"], ["relu", "sigmoid"], "mse"),
        (["--hidden"], ["softmax"], "cross_entropy"),
    ],
    ids=["cross_entropy", "quadratic", "mse", "no hidden layer"],
)
def test_the_last_activation_follows_from_the_loss(cli, unpictured, options, activations, loss):
    write_flowers("flowers.csv")
    code, out, _ = cli("train", "--data", "flowers.csv", "--target", "2", *options)
    assert code == 0
    saved = gpunn.load("runs/flowers/model.safetensors")
    assert [layer.activation for layer in saved.layers] == activations
    assert (saved.loss, saved.output_shape) == (loss, (3,))
    assert "accuracy on the 12 test examples" in out


def test_numbers_are_learnt_by_regression(cli, unpictured):
    write_houses("houses.csv")
    code, out, _ = cli("train", "--data", "houses.csv", "--hidden", "--lr", "0.05", "--epochs", "60")
    assert code == 0
    assert float(re.search(r"loss on the 12 test examples: .*R² ([\d.]+);", out)[1]) > 0.99
    saved = gpunn.load("runs/houses/model.safetensors")
    assert (saved.loss, saved.layers[-1].activation, saved.output_shape) == ("mse", "identity", (1,))


def test_several_target_columns_are_several_outputs(cli, unpictured):
    X = np.random.default_rng(0).normal(size=(40, 2))
    np.savez("planes.npz", X=X, y=X @ [[1, 2, 3], [4, 5, 6]])
    assert cli("train", "--data", "planes.npz", "--epochs", "1")[0] == 0
    assert gpunn.load("runs/planes/model.safetensors").output_shape == (3,)


def test_whole_numbers_that_are_no_labels_are_classes_only_when_the_loss_says_so(cli, unpictured):
    rows = [(x, 1 + (x > 0) + (x > 1)) for x in np.random.default_rng(0).normal(size=50).round(3)]
    write_csv("wine.csv", None, rows)
    _, out, err = cli("train", "--data", "wine.csv", "--epochs", "1")
    assert "loss on the 10 test examples" in out
    assert "--loss cross_entropy makes each of them a class" in err
    _, out, _ = cli(
        "train", "--data", "wine.csv", "--loss", "cross_entropy", "--epochs", "60", "--lr", "0.05"
    )
    assert "accuracy on the 10 test examples" in out
    predicted = cli("predict", "runs/wine/model.safetensors", "--data", "wine.csv")[1].split()[1:]
    assert np.mean(np.array(predicted, int) == [y for _, y in rows]) > 0.9


def test_with_nothing_held_out_the_accuracy_is_of_the_training_data(cli, unpictured):
    write_flowers("flowers.csv")
    command = "train --data flowers.csv --target species --test-fraction 0 --epochs 2"
    code, out, err = cli(command, "--seed", "0", "1")
    assert code == 0
    assert "nothing held out" in out
    assert out.count("accuracy on the 60 train examples") == 3
    assert "best" not in out
    assert "val_" not in out + err


def test_large_numbers_are_worth_a_note(cli, unpictured):
    write_csv("prices.csv", None, [(i, -1000.5 * i) for i in range(20)])
    _, _, err = cli("train", "--data", "prices.csv", "--test-fraction", "0", "--epochs", "1", "--lr", "1e-9")
    assert "note: the targets reach 19,009.5;" in err
    assert "features reach" not in err


@pytest.mark.filterwarnings("always::gpunn.GpunnWarning")
def test_a_warning_is_one_line_without_the_place_in_the_code(cli, unpictured):
    write_flowers("flowers.csv")
    _, _, err = cli("train --data flowers.csv --target species --weights zeros --epochs 1 --quiet")
    assert re.fullmatch(r"gpunn: warning: .*weights.*\n", err)


def test_held_out_data_without_a_finite_loss_have_no_best_epoch(cli, unpictured, monkeypatch):
    evaluate = gpunn.Sequential.evaluate_batches
    infinite = {"loss": float("inf")}
    monkeypatch.setattr(
        gpunn.Sequential, "evaluate_batches", lambda *args, **kwargs: evaluate(*args, **kwargs) | infinite
    )
    write_houses("houses.csv")
    code, out, _ = cli("train --data houses.csv --epochs 1 --seed 0 1")
    assert code == 0
    assert "loss on the 12 test examples: inf" in out
    assert "best" not in out


def test_quiet_prints_results_alone(cli):
    write_flowers("flowers.csv")
    _, out, err = cli("train", "--data", "flowers.csv", "--target", "species", "--quiet")
    assert out.startswith("accuracy on the 12 test examples")
    assert err == ""


def test_without_matplotlib_all_but_the_picture_is_saved(cli, unpictured):
    write_flowers("flowers.csv")
    code, out, _ = cli("train", "--data", "flowers.csv", "--target", "species", "--epochs", "1")
    assert code == 0
    assert "no learning_curves.png: pictures need Matplotlib" in out
    assert "pip install matplotlib" in out
    assert sorted(path.name for path in Path("runs/flowers").iterdir()) == [
        name for name in SAVED if not name.endswith(".png")
    ]


def test_several_seeds_are_trained_saved_and_summed_up(cli):
    write_flowers("flowers.csv")
    command = (
        "train --data flowers.csv --target species --hidden 4 --epochs 3 --lr 0.03 --seed 0 5 0 --out here"
    )
    code, out, _ = cli(command)
    assert code == 0
    assert sorted(path.name for path in Path("here").iterdir()) == ["learning_curves.png", "seed-0", "seed-5"]
    assert sorted(path.name for path in Path("here/seed-5").iterdir()) == SAVED
    accuracies = [History.load(f"here/seed-{seed}/history.json")["val_accuracy"] for seed in (0, 5)]
    for seed, each in zip((0, 5), accuracies, strict=True):
        assert f"seed {seed}: accuracy on the 12 test examples: {100 * each[-1]:.2f} %" in out
    for name, values in (
        ("final", [a[-1] for a in accuracies]),
        ("best epoch", [max(a) for a in accuracies]),
    ):
        numbers = (np.mean(values), np.std(values, ddof=1), min(values), max(values))
        expected = [f"{100 * number:.2f}" for number in numbers]
        assert (
            re.search(rf"^{name} .*$", out, re.M)[0].removeprefix(name).replace("%", "").split() == expected
        )


def test_a_seed_among_several_gives_what_it_gives_alone(cli, unpictured):
    write_flowers("flowers.csv")
    command = "train --data flowers.csv --target species --hidden 4 --epochs 2"
    cli(command, "--seed", "0", "1", "--out", "both")
    cli(command, "--seed", "1", "--out", "alone")
    both, alone = gpunn.load("both/seed-1/model.safetensors"), gpunn.load("alone/model.safetensors")
    assert both.theta.tobytes() == alone.theta.tobytes()


def test_a_run_overwrites_the_files_of_an_earlier_one(cli):
    write_flowers("flowers.csv")
    command = "train --data flowers.csv --target species --epochs"
    assert cli(command, "1")[0] == 0
    assert cli(command, "2")[0] == 0
    assert len(History.load("runs/flowers/history.json")) == 2


def test_a_run_that_is_replaced_is_told_of(cli, unpictured):
    write_flowers("flowers.csv")
    Path("other").mkdir()
    write_flowers("other/flowers.csv", seed=2)
    command = "train --target species --epochs 1 --quiet --data"
    assert "replaces" not in cli(command, "other/flowers.csv")[2]
    told = "note: replaces the run of other/flowers.csv, 1 epoch, in runs/flowers: --out saves elsewhere\n"
    assert cli(command, "flowers.csv")[2] == told
    Path("runs/flowers/history.json").write_text('{"network": {}, "epochs": []}')
    _, _, err = cli(command, "flowers.csv")
    assert err == "note: replaces an earlier run in runs/flowers: --out saves elsewhere\n"
    cli(command, "flowers.csv", "--seed", "0", "1", "--out", "two")
    _, _, err = cli(command, "flowers.csv", "--seed", "0", "1", "2", "--out", "two")
    assert "replaces the run of flowers.csv, 1 epoch, in two/seed-0 and 1 run more beside it" in err
    resume = "train --resume runs/flowers/run.safetensors --quiet --epochs"
    assert cli(resume, "2")[2] == ""
    assert cli(resume, "3", "--out", "runs/../runs/flowers")[2] == ""
    _, _, err = cli(resume, "4", "--out", "two/seed-0")
    assert err.startswith("note: replaces the run of flowers.csv, 1 epoch, in two/seed-0:")


def test_a_confusion_matrix_is_printed_at_the_end(cli, unpictured):
    write_flowers("flowers.csv")
    _, out, _ = cli("train --data flowers.csv --target species --metrics confusion --quiet")
    network, test = gpunn.load("runs/flowers/model.safetensors"), load("flowers.csv", target="species").test
    counts = network.evaluate(test.X, test.y, metrics=("confusion",))["confusion"]
    assert re.search(r"^taken for +iris +rose +tulip, wild$", out, re.M)
    for name, row in zip(SPECIES, counts.tolist(), strict=True):
        assert re.search(rf"^{name} +{' +'.join(map(str, row))}$", out, re.M)
    cli("train --data digit-traits --hidden --epochs 1 --metrics confusion --quiet")
    _, out, _ = cli("train --data digit-traits --hidden --epochs 1 --metrics confusion --quiet")
    assert re.search(r"^output +no, right +no, wrong +yes, right +yes, wrong$", out, re.M)
    row = re.search(r"^even +(\d+) +(\d+) +(\d+) +(\d+)$", out, re.M).groups()
    assert sum(map(int, row)) == 360


def test_the_picture_marks_the_epoch_whose_weights_are_saved(cli, monkeypatch):
    import gpunn.cli.runs as runs

    marked = []
    real = runs.learning_curves
    monkeypatch.setattr(runs, "learning_curves", lambda *given: marked.append(given[3]) or real(*given))
    cli("train --data digits --hidden 8 --optimizer sgd --lr 3 --epochs 40 --early-stopping 2 --quiet")
    best = History.load("runs/digits/history.json").best("val_loss")["epoch"]
    assert marked == [best]
    cli("train --data digits --hidden 8 --epochs 1 --quiet")
    assert marked == [best, None]


@pytest.mark.parametrize("seeds", [["0"], ["0", "1"]], ids=["one seed", "several"])
@pytest.mark.parametrize("content", [b"mine", b'{"epochs": []}', None], ids=["bytes", "JSON", "a folder"])
@pytest.mark.parametrize("name", SAVED)
def test_a_file_that_gpunn_did_not_write_is_never_overwritten(cli, name, content, seeds):
    write_flowers("flowers.csv")
    path = (
        Path("runs/flowers") / ("seed-1" if len(seeds) > 1 and name != "learning_curves.png" else "") / name
    )
    path.parent.mkdir(parents=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    code, _, err = cli("train", "--data", "flowers.csv", "--target", "species", "--seed", *seeds)
    assert code == 2
    assert f"{path} exists and is not what gpunn saves" in err
    assert path.is_dir() if content is None else path.read_bytes() == content
    assert not list(Path("runs").rglob("model.safetensors")) or name == "model.safetensors"


# ---------------------------------------------------------------------- stopping and going on


@pytest.mark.parametrize("optimizer", ["adam", "sgd --momentum 0.9"])
def test_a_run_that_goes_on_ends_where_one_of_as_many_epochs_ends(cli, unpictured, optimizer):
    write_flowers("flowers.csv")
    command = "train --data flowers.csv --target species --hidden 4 --no-shuffle --test-fraction 0.3"
    command = f"{command} --optimizer {optimizer}"
    cli(command, "--epochs", "3", "--out", "parts")
    code, out, _ = cli("train", "--resume", "parts/run.safetensors", "--epochs", "5")
    assert code == 0
    assert "going on after 3 epochs, 6 updates" in out
    assert "trained 2 epochs" in out
    cli(command, "--epochs", "5", "--out", "whole")
    parts, whole = (gpunn.load(f"{name}/model.safetensors").theta for name in ("parts", "whole"))
    assert parts.tobytes() == whole.tobytes()
    assert History.load("parts/history.json")["epoch"] == [1, 2, 3, 4, 5]
    assert History.load("parts/history.json").about["command_line"]["epochs"] == 5


def test_a_run_can_go_on_elsewhere_and_without_its_history(cli, flowers):
    Path("runs/flowers/history.json").unlink()
    resume = ["train", "--resume", "runs/flowers/run.safetensors", "--epochs", "31", "--out", "elsewhere"]
    assert "--data is missing" in error_of(cli(*resume))
    assert cli(*resume, "--data", "flowers.csv", "--target", "species")[0] == 0
    assert gpunn.Trainer.load("elsewhere/run.safetensors").epochs_done == 31
    assert gpunn.Trainer.load("runs/flowers/run.safetensors").epochs_done == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden", "5"], "--hidden belongs to the run"),
        (["--output-activation", "sigmoid"], "--output-activation belongs to the run"),
        (["--seed", "1"], "--seed belongs to the run"),
        ([], "has done 30 of 30 epochs: give more --epochs to go on"),
        (["--epochs", "12"], "has done 30 of 12 epochs"),
    ],
)
def test_what_a_run_that_goes_on_cannot_change(cli, flowers, options, message):
    assert message in error_of(cli("train", "--resume", "runs/flowers/run.safetensors", *options))


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        (2, "interrupted in epoch 3 of 4; to go on: gpunn train --resume 'my runs/run.safetensors'"),
        (4, "interrupted after the last epoch: the run is complete"),
        (0, "interrupted in epoch 1 of 4"),
    ],
)
def test_ctrl_c_saves_what_there_is(cli, monkeypatch, unpictured, epochs, message):
    fit = gpunn.Trainer.fit

    def interrupted(self, *args, **kwargs):
        fit(self, *args, **{**kwargs, "epochs": epochs})
        raise KeyboardInterrupt

    monkeypatch.setattr(gpunn.Trainer, "fit", interrupted)
    write_flowers("flowers.csv")
    code, out, err = cli(
        "train --data flowers.csv --target species --epochs 4 --seed 7 --quiet --out", "my runs"
    )
    assert code == 130
    assert err == f"gpunn: {message}\n" or err.startswith(f"gpunn: {message};")
    assert "saved my runs/run.safetensors" in out
    assert gpunn.Trainer.load("my runs/run.safetensors").epochs_done == epochs


def test_ctrl_c_ends_all_seeds(cli, monkeypatch, unpictured):
    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(gpunn.Trainer, "fit", interrupted)
    write_flowers("flowers.csv")
    code, _, err = cli("train", "--data", "flowers.csv", "--target", "species", "--seed", "1", "2")
    assert code == 130
    assert "gpunn train --resume runs/flowers/seed-1/run.safetensors" in err
    assert not Path("runs/flowers/seed-2/run.safetensors").exists()


def test_ctrl_c_before_training_is_one_line(cli, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "load_data", interrupted)
    assert cli("train", "--data", "digits") == (130, "", "gpunn: interrupted\n")


def child(*arguments, **kwargs):
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "gpunn", *map(str, arguments)]
    if os.name == "posix":
        kwargs["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", **kwargs)


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process on Windows")
def test_a_real_ctrl_c_stops_within_an_epoch_and_the_run_goes_on_to_the_same_weights(cli, unpictured):
    rng = np.random.default_rng(0)
    np.savez("points.npz", X=rng.normal(size=(4000, 20)), y=rng.integers(0, 3, 4000))
    command = "train --data points.npz --test-fraction 0 --hidden 16 --batch-size 10 --epochs"
    process = child(*command.split(), 200, "--out", "stopped")
    while not process.stderr.readline().startswith("epoch   3/200"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saved stopped/model.safetensors" in out
    assert err.splitlines()[-1].endswith("gpunn train --resume stopped/run.safetensors")
    assert "Traceback" not in err
    done = gpunn.Trainer.load("stopped/run.safetensors").epochs_done
    assert 3 <= done < 200
    assert cli("train", "--resume", "stopped/run.safetensors", "--epochs", done + 2, "--quiet")[0] == 0
    assert cli(command, done + 2, "--out", "whole", "--quiet")[0] == 0
    stopped, whole = (gpunn.load(f"{name}/model.safetensors").theta for name in ("stopped", "whole"))
    assert stopped.tobytes() == whole.tobytes()


# ---------------------------------------------------------------------- evaluate


def test_evaluate_gives_the_loss_and_the_accuracy_of_the_held_out_side(cli, flowers):
    network, dataset = gpunn.load(flowers), load("flowers.csv", target="species")
    expected = network.evaluate(dataset.test.X, dataset.test.y, metrics=("accuracy",))
    code, out, _ = cli("evaluate", flowers)
    assert code == 0
    assert out.splitlines()[0] == "flowers, test: 12 examples"
    assert f"loss      {expected['loss']:.6g} (cross_entropy)" in out
    assert f"accuracy  {100 * expected['accuracy']:.2f} %" in out


def test_evaluate_tells_class_by_class_what_is_taken_for_what(cli, flowers):
    network, dataset = gpunn.load(flowers), load("flowers.csv", target="species", test_fraction=0)
    guesses = network.predict(dataset.train.X).argmax(axis=1)
    _, out, _ = cli("evaluate", flowers, "--split", "all")
    rows = dict(re.findall(r"^(iris|rose|tulip, wild) +(\d.*)$", out, re.M))
    for label, name in enumerate(SPECIES):
        own = guesses[dataset.train.y == label]
        count, accuracy, _, *taken = rows[name].split(maxsplit=3)
        assert (int(count), accuracy) == (len(own), f"{100 * np.mean(own == label):.2f}")
        wrong = [int((own == other).sum()) if other != label else 0 for other in range(3)]
        expected = [f"{SPECIES[np.argmax(wrong)]} ({max(wrong)} of {len(own)})"] if max(wrong) else []
        assert taken == expected


@pytest.mark.parametrize(("split", "count"), [("train", 48), ("test", 12), ("all", 60)])
def test_evaluate_takes_the_side_that_is_asked_for(cli, flowers, split, count):
    _, out, _ = cli("evaluate", flowers, "--split", split)
    assert out.startswith(f"flowers, {split}: {count} examples\n")


def test_evaluate_goes_by_the_names_of_the_classes_and_not_by_their_numbers(cli, flowers):
    """In a file without irises, a rose is class 0."""
    write_flowers("others.csv", seed=3, only={"rose", "tulip, wild"}, middle=False)
    others = load("others.csv", test_fraction=0)
    assert others.classes == ("rose", "tulip, wild")
    right = gpunn.load(flowers).predict(others.train.X).argmax(axis=1) == others.train.y + 1
    _, out, _ = cli("evaluate", flowers, "--data", "others.csv", "--split", "all")
    assert f"accuracy  {100 * right.mean():.2f} %" in out
    assert re.search(r"^iris +0$", out, re.M)


def test_evaluate_refuses_a_class_that_the_network_does_not_know(cli, flowers):
    write_csv("cats.csv", None, [(0.1, 0.2, 0.3, "cat"), (0.3, 0.1, 0.2, "rose")])
    message = error_of(cli("evaluate", flowers, "--data", "cats.csv", "--split", "all"))
    assert "the class 'cat', and the network knows iris, rose, tulip, wild" in message


def test_evaluate_refuses_numbers_where_the_network_tells_classes_apart(cli, flowers):
    write_csv("numbers.csv", None, [(0.1, 0.2, 0.3, 0.5), (0.3, 0.1, 0.2, 1.5)])
    assert "expected one of the classes iris" in error_of(
        cli("evaluate", flowers, "--data", "numbers.csv", "--split", "all")
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda about: None,
        lambda about: "no JSON",
        lambda about: about.replace('"units": 8', '"units": 9'),
        lambda about: about.replace('"seed": 0', '"seed": 1'),
        lambda about: about.replace('"epochs": 30', '"epochs": "30"'),
        lambda about: about.replace('"shuffle"', '"shuffled"'),
        lambda about: about.replace('"iris",', ""),
    ],
    ids=[
        "missing",
        "damaged",
        "of another network",
        "of another seed",
        "of another type",
        "of another entry",
        "too few classes",
    ],
)
def test_a_history_that_does_not_fit_is_left_aside(cli, flowers, spoil):
    path = Path("runs/flowers/history.json")
    about = spoil(path.read_text())
    assert about != path.read_text()
    path.unlink()
    if about is not None:
        path.write_text(about)
    assert "--data is missing" in error_of(cli("evaluate", flowers))
    code, out, _ = cli("evaluate", flowers, "--data", "flowers.csv", "--target", "species")
    assert code == 0
    assert re.search(r"^tulip, wild +\d", out, re.M)


def test_a_model_without_history_numbers_its_classes(cli):
    digits = load("digits")
    network = gpunn.Sequential([gpunn.Dense(10)], input_shape=64, seed=0)
    network.fit(digits.train.X, digits.train.y, loss="cross_entropy", optimizer="adam", verbose=0)
    network.save("net.safetensors")
    np.savez("some.npz", X=digits.test.X[:20], y=np.full(20, 7))
    _, out, _ = cli("evaluate", "net.safetensors", "--data", "some.npz", "--split", "all")
    expected = np.mean(network.predict(digits.test.X[:20]).argmax(axis=1) == 7)
    assert f"accuracy  {100 * expected:.2f} %" in out
    assert cli("predict", "net.safetensors", "--data", "some.npz")[1].split()[1:] == [
        str(label) for label in network.predict(digits.test.X[:20]).argmax(axis=1)
    ]


def test_a_network_that_begins_with_flatten_takes_its_images_from_rows(cli):
    network = gpunn.Sequential([gpunn.Flatten(), gpunn.Dense(10, "softmax")], input_shape=(8, 8), seed=0)
    network.save("net.safetensors")
    code, out, _ = cli("evaluate", "net.safetensors", "--data", "digits", "--loss", "cross_entropy")
    X, y = load("digits").test.X.reshape(-1, 8, 8), load("digits").test.y
    assert code == 0
    assert f"loss      {network.evaluate(X, y, loss='cross_entropy')['loss']:.6g}" in out


def test_evaluate_gives_r_squared_for_numbers(cli, houses):
    network, test = gpunn.load(houses), load("houses.csv").test
    residual = test.y - network.predict(test.X)[:, 0]
    _, out, _ = cli("evaluate", houses)
    assert f"R²        {1 - residual @ residual / np.sum((test.y - test.y.mean()) ** 2):.4f}" in out
    assert "accuracy" not in out


def test_one_hot_rows_are_evaluated_against_classes_too(cli, unpictured):
    write_flowers("flowers.csv")
    cli("train --data flowers.csv --target species --loss mse --quiet")
    final = History.load("runs/flowers/history.json").records[-1]
    _, out, _ = cli("evaluate", "runs/flowers/model.safetensors")
    assert f"loss      {final['val_loss']:.6g} (mse)" in out
    assert f"accuracy  {100 * final['val_accuracy']:.2f} %" in out


# ---------------------------------------------------------------------- predict


def species_of(network, X):
    return [SPECIES[label] for label in gpunn.load(network).predict(X).argmax(axis=1)]


def table(text):
    return list(csv.reader(io.StringIO(text)))


def features(path="flowers.csv", target="species"):
    return load(path, target=target, test_fraction=0).train.X


def _alone(X):
    return write_csv("new.csv", ["length", "width", "age"], X.tolist())


def _alone_tabs(X):
    Path("new.tsv").write_text("\n".join("\t".join(map(str, row)) for row in X.tolist()))
    return "new.tsv"


def _with_words(X):
    return write_csv("new.csv", None, [(*row, "rose") for row in X.tolist()])


def _with_numbers(X):
    return write_csv("new.csv", None, [(*row, 7) for row in X.tolist()])


def _as_trained(X):
    return write_csv("new.csv", ["length", "width", "species", "age"], [(a, b, "rose", c) for a, b, c in X])


def _npz_alone(X):
    np.savez("new.npz", x=X, other=np.zeros(3))
    return "new.npz"


def _npz_one_array(X):
    np.savez("new.npz", flowers=X.reshape(-1, 1, 3))
    return "new.npz"


def _npz_pair(X):
    np.savez("new.npz", X=X, y=np.zeros(len(X)))
    return "new.npz"


@pytest.mark.parametrize(
    "write",
    [_alone, _alone_tabs, _with_words, _as_trained, _npz_alone, _npz_one_array, _npz_pair],
)
def test_a_file_with_or_without_the_target_gives_the_classes_in_its_order(cli, flowers, write):
    X = features()
    code, out, _ = cli("predict", flowers, "--data", write(X))
    assert code == 0
    assert table(out) == [["prediction"], *([name] for name in species_of(flowers, X))]


def test_the_target_that_is_named_is_left_out(cli, flowers):
    X = features()
    write_csv("new.csv", None, [("rose", *row) for row in X.tolist()])
    _, out, _ = cli("predict", flowers, "--data", "new.csv", "--target", "0")
    assert table(out)[1:] == [[name] for name in species_of(flowers, X)]


def test_a_numeric_last_column_beyond_the_features_is_left_out(cli, houses):
    _, with_target, _ = cli("predict", houses, "--data", "houses.csv")
    X = features("houses.csv", "price")
    write_csv("new.csv", ["rooms", "age"], X.tolist())
    _, without, _ = cli("predict", houses, "--data", "new.csv")
    assert with_target == without
    values = np.array(table(without)[1:], np.float32)
    assert (values == gpunn.load(houses).predict(X)).all()


def test_several_outputs_are_several_columns(cli):
    gpunn.Sequential([gpunn.Dense(2)], input_shape=3, seed=0).save("net.safetensors")
    write_csv("new.csv", None, [(0.1, 0.2, 0.3)])
    _, out, _ = cli("predict", "net.safetensors", "--data", "new.csv")
    assert table(out)[0] == ["output 0", "output 1"]
    assert len(table(out)[1]) == 2


def test_probabilities_have_a_column_for_each_class(cli, flowers):
    _, out, _ = cli("predict", flowers, "--data", "flowers.csv", "--proba")
    header, *rows = table(out)
    assert header == SPECIES
    assert (np.array(rows, np.float32) == gpunn.load(flowers).predict_proba(features())).all()


def test_a_named_data_set_is_predicted_from_its_first_example_to_its_last(cli, unpictured):
    cli("train", "--data", "digits", "--epochs", "1", "--quiet")
    _, out, _ = cli("predict", "runs/digits/model.safetensors", "--data", "digits")
    X = load("digits", test_fraction=0).train.X
    guesses = gpunn.load("runs/digits/model.safetensors").predict(X).argmax(axis=1)
    assert out.split()[1:] == [str(guess) for guess in guesses]


def test_predictions_go_to_a_file(cli, flowers):
    _, out, _ = cli("predict", flowers, "--data", "flowers.csv")
    assert cli("predict", flowers, "--data", "flowers.csv", "--output", "guesses.csv") == (0, "", "")
    assert Path("guesses.csv").read_text(encoding="utf-8") == out
    assert cli("predict", flowers, "--data", "flowers.csv", "--output", "guesses.npy") == (0, "", "")
    assert [SPECIES[label] for label in np.load("guesses.npy")] == [row[0] for row in table(out)[1:]]


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (
            lambda: write_csv("new.csv", None, [(1, 2)]),
            [],
            "new.csv has 2 columns, the network takes 3 features",
        ),
        (lambda: write_csv("new.csv", None, [(1, 2, 3, 4, "a")]), [], "new.csv has 5 columns"),
        (lambda: write_csv("new.csv", None, [(1, 2, 3)]), ["--target", "0"], "new.csv has 3 columns"),
        (
            lambda: write_csv("new.csv", ["a", "b", "c"], [(1, 2, "x")]),
            ["--target", "d"],
            "target column 'd'",
        ),
        (lambda: write_csv("new.csv", None, [("u", 2, 3, "x")] * 2), ["--target", "3"], "holds 'u'"),
        (lambda: np.savez("new.npz", X=[[1.0, np.nan, 2.0]]), [], "not finite numbers"),
        (lambda: np.savez("new.npz", X=[["a", "b", "c"]]), [], "not finite numbers"),
        (lambda: np.savez("new.npz", X=[[1.0, 2.0]]), [], "new.npz holds features of shape (1, 2)"),
        (lambda: np.savez("new.npz", X=[1.0, 2.0]), [], "new.npz holds features of shape (2,)"),
        (lambda: np.savez("new.npz", X=[[1.0]]), ["--target", "labels"], "unknown array in new.npz 'labels'"),
        (lambda: Path("new.npz").write_bytes(b"PK"), [], "new.npz: is not a zip archive"),
        (lambda: Path("new.npz").write_bytes(b""), ["--target", "y"], "new.npz: is not a zip archive"),
    ],
)
def test_features_that_do_not_fit_are_refused(cli, flowers, write, options, message):
    write()
    source = next(Path().glob("new.*"))
    assert message in error_of(cli("predict", flowers, "--data", source, *options))


@pytest.mark.parametrize("name", ["flowers.csv", "runs/../flowers.csv"])
def test_predictions_never_overwrite_the_data(cli, flowers, name):
    content = Path("flowers.csv").read_bytes()
    message = error_of(cli("predict", flowers, "--data", "flowers.csv", "--output", name))
    assert "would overwrite what is read" in message
    assert Path("flowers.csv").read_bytes() == content


# ---------------------------------------------------------------------- info and program


def test_info_tells_what_works_here_and_why_the_rest_does_not(cli, monkeypatch):
    monkeypatch.setenv("GPUNN_DATA", "no-such-folder")
    code, out, _ = cli("info")
    assert code == 0
    assert out.startswith(f"gpunn {gpunn.__version__}, Python {sys.version.split()[0]}")
    assert f"NumPy {np.__version__}, BLAS " in out
    assert all(str(status) in out for status in gpunn.devices())
    assert "GPUNN_DATA=no-such-folder (no such folder)" in out


def test_info_says_how_to_get_what_is_not_installed(cli, monkeypatch):
    from importlib import metadata

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.delenv("GPUNN_DATA", raising=False)
    _, out, _ = cli("info")
    assert "matplotlib is not installed: pip install matplotlib" in out
    assert "GPUNN_DATA may name another folder" in out


def test_info_of_a_network_and_of_a_run(cli, flowers):
    _, out, _ = cli("info", flowers)
    assert out.startswith(f"{flowers}: a network, {flowers.stat().st_size:,} bytes\n")
    assert str(gpunn.load(flowers).summary()) in out
    for line in ("loss      cross_entropy", "seed      0", "data      flowers.csv, target species"):
        assert line in out.splitlines()
    assert "predicts  iris, rose, tulip, wild" in out
    assert "optimizer" not in out
    _, out, _ = cli("info", "runs/flowers/run.safetensors")
    assert "optimizer Adam(lr=0.001" in out
    assert "done      30 epochs, 60 updates" in out
    assert "last      epoch 30  " in out


def test_info_of_what_the_library_saved(cli):
    network = gpunn.Sequential([gpunn.Dense(2)], input_shape=3, seed=5)
    network.save("net.safetensors")
    _, out, _ = cli("info", "net.safetensors")
    assert "loss      none yet" in out
    assert "data" not in out
    gpunn.Trainer(network, loss="mse").save("run.safetensors")
    _, out, _ = cli("info", "run.safetensors")
    assert "done      0 epochs, 0 updates" in out
    assert "last" not in out


def book(inputs=784, outputs=10):
    return gpunn.Sequential(
        [gpunn.Dense(30, "sigmoid"), gpunn.Dense(outputs, "sigmoid")], input_shape=inputs, seed=0
    )


@pytest.mark.parametrize(
    ("size", "network"),
    [([], book()), (["--inputs", "4", "--outputs", "3"], book(4, 3)), (["--data", "digits"], book(64, 10))],
    ids=["MNIST", "inputs and outputs", "data"],
)
def test_program_prints_the_program_of_the_network_that_the_options_declare(cli, size, network):
    command = "program --hidden 30 --activation sigmoid --loss quadratic --optimizer sgd --batch-size 10"
    code, out, _ = cli(command, *size)
    assert code == 0
    assert out == f"{network.program('quadratic', gpunn.SGD(), 10)}\n"


def test_program_of_a_saved_network_takes_its_loss(cli, flowers):
    _, out, err = cli("program", flowers)
    assert out == f"{gpunn.load(flowers).program('cross_entropy', gpunn.Adam(), 32)}\n"
    assert "has its own network: leave --hidden out" in error_of(cli("program", flowers, "--hidden", "3"))
    assert f"note: {flowers} does not hold how it was trained, Adam and batches of 32 are assumed" in err
    assert "gpunn program runs/flowers/run.safetensors prints what it was trained with" in err
    Path("runs/flowers/run.safetensors").unlink()
    assert "its run.safetensors has what it was trained with" in cli("program", flowers)[2]
    _, out, err = cli("program", flowers, "--optimizer", "sgd", "--batch-size", "5")
    assert (out, err) == (f"{gpunn.load(flowers).program('cross_entropy', gpunn.SGD(), 5)}\n", "")


def test_program_of_a_saved_run_is_that_of_its_training(cli, unpictured):
    write_flowers("flowers.csv")
    cli(
        "train --data flowers.csv --target species --hidden 4 --epochs 2 --quiet --optimizer sgd "
        "--momentum 0.9 --lr 0.3 --l2 0.01 --clip-norm 2 --schedule step:1 --warmup 1 --batch-size 7 "
        "--class-weight balanced --metrics f1"
    )
    run = "runs/flowers/run.safetensors"
    code, out, err = cli("program", run)
    trainer = gpunn.Trainer.load(run)
    whole = gpunn.variants.training(
        trainer.network.model,
        trainer.loss,
        trainer.optimizer,
        7,
        metrics=trainer.metrics,
        targets=gpunn.variants.Targets(labels=True, weighted=True),
    )
    rates = "rates: the learning rate 0.3 rises for 1 epoch, then times 0.1 each epoch\n"
    assert (code, out, err) == (0, f"{whole}\n{rates}", "")
    for words in ("training on batches of 7", "momentum", "clip_by_norm", "w = weights[", "Σconfusion"):
        assert words in out
    for option in ("--lr 1", "--optimizer adam", "--batch-size 3", "--loss mse", "--schedule cosine"):
        message = error_of(cli(f"program {run} {option}"))
        assert f"has its own optimizer, batch size and loss: leave {option.split()[0]} out" in message
    assert "weights   balanced class weights\n" in cli("info", run)[1]
    assert "done      2 epochs, 14 updates\n" in cli("info", run)[1]


def test_program_of_a_run_that_has_not_begun_and_of_one_that_has_slowed_down(cli):
    network = gpunn.Sequential([gpunn.Dense(2)], input_shape=3, seed=5)
    trainer = gpunn.Trainer(network, loss="mse", optimizer=gpunn.SGD(lr=0.5), batch_size=4)
    trainer.save("run.safetensors")
    expected = f"{network.program('mse', gpunn.SGD(), 4)}\n"
    assert cli("program run.safetensors") == (0, expected, "")
    trainer.lr_scale = 0.1
    trainer.save("run.safetensors")
    assert cli("program run.safetensors")[1] == f"{expected}rates: the learning rate 0.5 has fallen to 0.05\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("program flowers.csv", "give the data as gpunn program --data flowers.csv"),
        ("program digits", "digits is data, expected model.safetensors or run.safetensors of a training"),
        ("evaluate flowers.csv", "give the data as --data flowers.csv"),
        ("info flowers.csv", "gpunn train learns from data"),
        ("train --resume flowers.csv", "flowers.csv is data, expected"),
        (
            "train --resume runs/flowers/model.safetensors",
            "holds a network alone, expected a run, with its optimizer and epochs: give "
            "runs/flowers/run.safetensors, which lies beside it",
        ),
        ("train --resume alone.safetensors", "give the run.safetensors of its training"),
        ("train --data digits --hidden 30,20", "'30,20' holds a comma, separate by spaces: 30 20"),
        ("train --data digits --hidden a", "argument --hidden: invalid int value: 'a'"),
        ("train --data digits --seed 1,2", "argument --seed: '1,2' holds a comma, separate by spaces: 1 2"),
        ("train --data digits --metrics f1,recall", "separate by spaces: f1 recall"),
    ],
)
def test_a_likely_slip_is_answered_with_what_to_write(cli, flowers, command, message):
    gpunn.load(flowers).save("alone.safetensors")
    assert message in error_of(cli(command))


def test_program_without_a_loss_is_that_of_prediction(cli):
    network = gpunn.Sequential([gpunn.Dense(2)], input_shape=3, seed=5)
    network.save("net.safetensors")
    assert cli("program", "net.safetensors")[1] == f"{network.program(None, batch_size=32)}\n"


# ---------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "a command is missing: one of train, evaluate, predict, info, program"),
        ("trian --data digits", "unknown command 'trian': did you mean 'train'?"),
        ("--quiet", "unknown option of gpunn '--quiet'"),
        ("train --epoch 3", "unknown option of gpunn train '--epoch': did you mean '--epochs'?"),
        ("train --epoch=3", "unknown option of gpunn train '--epoch': did you mean '--epochs'?"),
        ("train digits", "unexpected argument 'digits' (see gpunn train --help)"),
        ("train --data digits --lr", "argument --lr: expected one argument"),
        ("train --data digits --lr x", "argument --lr: invalid float value: 'x'"),
        ("train", "--data is missing"),
        ("train --data digitz", "unknown data set 'digitz': did you mean 'digits'?"),
        ("train --data no.csv", "there is no file 'no.csv'"),
        ("train --data digits --target 3", "but the data set 'digits' has its own"),
        ("train --data digits --test-fraction 1", "test_fraction is 1.0"),
        ("train --data digits --activation sigmod", "did you mean 'sigmoid'?"),
        ("train --data digits --output-activation sofmax", "did you mean 'softmax'?"),
        ("train --data digits --loss cross-entropy", "did you mean 'cross_entropy'?"),
        ("train --data digits --optimizer adm", "did you mean 'adam'?"),
        ("train --data digits --weights glorot", "unknown initialiser 'glorot'"),
        ("train --data digits --bias zeroes", "did you mean 'zeros'?"),
        ("train --data digits --dtype float16", "unknown dtype 'float16'"),
        ("train --data digits --device cpuu", "did you mean 'cpu'?"),
        ("train --data digits --hidden 0", "units is 0"),
        ("train --data digits --lr 0", "Adam: lr is 0.0, expected more than 0"),
        ("train --data digits --momentum 0.9", "Adam has no --momentum"),
        ("train --data digits --batch-size 0", "batch_size is 0"),
        ("train --data digits --epochs 0", "--epochs is 0, expected a whole number of at least 1"),
        ("train --data digits --seed -1", "seed is -1"),
        ("train --data digits --output-activation tanh", "loss 'cross_entropy' works on z"),
        ("train --resume no.safetensors", "no file no.safetensors"),
        ("evaluate no.safetensors", "no file no.safetensors"),
        ("evaluate", "the following arguments are required: MODEL"),
        ("predict no.safetensors", "the following arguments are required: --data"),
        ("predict no.safetensors --data a.csv --output a.txt", "unknown output format '.txt'"),
        ("info no.safetensors", "no file no.safetensors"),
        ("program --data digits --inputs 3", "--inputs and --outputs follow from --data"),
        ("program --inputs 0", "input_shape is 0"),
    ],
)
def test_a_wrong_command_is_one_line_that_says_what_to_do(cli, command, message):
    result = cli(command)
    assert message in error_of(result)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([(0.5, "a"), (1.5, "a")], [], "data has the one class 'a', expected two or more"),
        ([(0.5, 1.5), (1.5, 2.5)], ["--loss", "cross_entropy"], "takes classes, and the targets of data are"),
    ],
)
def test_targets_that_cannot_be_learnt_are_refused(cli, rows, options, message):
    write_csv("data.csv", None, rows)
    assert message in error_of(cli("train", "--data", "data.csv", *options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "tset"], "unknown split 'tset': did you mean 'test'?"),
        (["--split", "validation"], "flowers has no validation examples, as none were held out in training"),
        (["--test-fraction", "0"], "flowers has no test examples: give --split all"),
        (["--loss", "msee"], "did you mean 'mse'?"),
        (["--data", "digits"], "digits holds features of shape"),
    ],
)
def test_a_wrong_evaluation_is_one_line(cli, flowers, options, message):
    assert message in error_of(cli("evaluate", flowers, *options))


def test_a_network_that_was_never_trained_needs_a_loss(cli):
    gpunn.Sequential([gpunn.Dense(10)], input_shape=64, seed=0).save("net.safetensors")
    assert "give --loss" in error_of(cli("evaluate", "net.safetensors", "--data", "digits"))


def test_training_that_diverges_is_one_line(cli):
    write_houses("houses.csv")
    code, _, err = cli("train", "--data", "houses.csv", "--optimizer", "sgd", "--lr", "1e6", "--quiet")
    assert code == 2
    assert re.fullmatch(r"gpunn: error: training diverged at step .*\n", err)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "a.csv"), "a.csv: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (gpunn.DataError("two\nlines"), "two lines"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_what_goes_wrong_outside_is_one_line_too(cli, monkeypatch, error, message):
    def failing(*args, **kwargs):
        raise error

    monkeypatch.setattr(train_module, "load_data", failing)
    assert error_of(cli("train", "--data", "digits")) == f"gpunn: error: {message}\n"


def test_targets_are_needed_where_something_is_learnt(cli, monkeypatch):
    from gpunn.data import Dataset, Split

    monkeypatch.setattr(
        train_module, "load_data", lambda *_: Dataset("bare", Split(np.zeros((2, 2)), None, name="train"))
    )
    assert "the train examples have no targets" in error_of(cli("train", "--data", "bare.csv"))


# ---------------------------------------------------------------------- the process


def test_help_and_version_are_printed(cli, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"gpunn {gpunn.__version__}\n")


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["predict"], ["info"], ["program"]])
def test_each_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert re.search(rf"^  gpunn {' '.join(command)}", capsys.readouterr().out, re.M)


def test_the_help_names_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    for name in ("hidden", "activation", "optimizer", "epochs", "batch_size"):
        value = DEFAULTS[name]
        assert f"(default {value[0] if isinstance(value, list) else value})" in out


def test_python_m_gpunn_ends_with_the_exit_code_of_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpunn", "inform"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("gpunn", run_name="__main__")
    assert ended.value.code == 2
    assert "did you mean 'info'?" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no broken pipes")
def test_a_reader_that_has_gone_is_no_error_in_a_process():
    with child("program") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.skipif(os.name == "nt", reason="Windows has no broken pipes")
def test_a_reader_that_has_gone_is_no_error(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["program"]) == 141


def test_a_terminal_without_greek_letters_gets_escapes():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "gpunn", "program"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert r"\u2202C" in done.stdout


def test_an_interrupted_save_leaves_the_earlier_file(cli, flowers, monkeypatch):
    before = flowers.read_bytes()

    def failing(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "to_bytes", failing)
    assert cli("train --data flowers.csv --target species --epochs 1 --quiet")[0] == 2
    assert flowers.read_bytes() == before


def test_a_run_that_diverges_leaves_its_last_good_weights(cli, unpictured):
    rng = np.random.default_rng(0)
    np.savez("points.npz", X=rng.normal(size=(60, 3)), y=rng.normal(size=60))
    code, _, err = cli("train", "--data", "points.npz", "--optimizer", "sgd", "--lr", 1e30, "--out", "run")
    assert (code, "training diverged at step" in err) == (2, True)
    assert gpunn.Trainer.load("run/run.safetensors").epochs_done == 0
    assert np.isfinite(gpunn.load("run/model.safetensors").theta).all()


def test_a_long_training_is_saved_on_the_way(cli, unpictured, monkeypatch):
    from gpunn.cli import train

    saved = []
    real = train.save

    def counting(trainer, *others):
        saved.append(trainer.epochs_done)
        return real(trainer, *others)

    monkeypatch.setattr(train, "save", counting)
    monkeypatch.setattr(train, "SECONDS_BETWEEN_SAVES", 0)
    cli("train", "--data", "digits", "--epochs", 3, "--quiet")
    assert saved == [1, 2, 3, 3]

"""Which column is which: features and targets go by their names, in training and after."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import gpunn
from gpunn.cli import main
from gpunn.data import Standardizer, load
from gpunn.history import History

NAMES = ("length", "width", "height", "age")
MODEL, RUN = "runs/cats/model.safetensors", "runs/cats/run.safetensors"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Each test has a folder of its own, and no pictures, which take most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture
def cli(capsys):
    """Run one command; gives its exit code, its standard output and its standard error."""

    def run(command, *arguments):
        capsys.readouterr()
        code = main([*command.split(), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def error_of(result):
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("gpunn: error: ")
    assert err.count("\n") == 1
    return err


def table():
    """Four features of different size, and the kind and the weight that follow from them."""
    X = (np.random.default_rng(0).normal(size=(60, 4)) * [1, 2, 3, 4] + [0, 1, 2, 3]).round(3)
    kinds = ["wild" if row @ [1, -1, 0.5, -0.2] > 0 else "tame" for row in X]
    columns = dict(zip(NAMES, X.T.tolist(), strict=True))
    return columns | {"kind": kinds, "weight": (X @ [1, 2, 0, -1]).round(3).tolist()}


def write(path, *columns, header=True, rename=None):
    """Columns of the table, in this order."""
    content = table()
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow([(rename or {}).get(name, name) for name in columns])
        writer.writerows(zip(*(content[name] for name in columns), strict=True))
    return path


@pytest.fixture
def cats(cli):
    write("cats.csv", *NAMES, "kind")
    assert cli("train --data cats.csv --target kind --hidden 6 --lr 0.02 --quiet")[0] == 0


@pytest.fixture
def expected(cli, cats):
    return cli("predict", MODEL, "--data", "cats.csv", "--proba")[1]


# ---------------------------------------------------------------------- features


def test_the_names_of_the_features_are_saved_with_the_run(cli, cats):
    assert History.load("runs/cats/history.json").about["command_line"]["features"] == list(NAMES)
    assert "takes     length, width, height, age\n" in cli("info", MODEL)[1]


@pytest.mark.parametrize(
    "columns",
    [
        NAMES,
        NAMES[::-1],
        ("kind", *NAMES[::-1]),
        ("age", "kind", "length", "height", "width"),
        ("age", "weight", "length", "height", "width"),
    ],
)
def test_predict_goes_by_the_names_of_the_columns(cli, expected, columns):
    write("more.csv", *columns)
    assert cli("predict", MODEL, "--data", "more.csv", "--proba") == (0, expected, "")


@pytest.mark.parametrize("order", [NAMES, ("kind", *NAMES[::-1])])
def test_names_that_look_like_numbers_are_names_where_they_were_in_training(cli, order):
    years = dict(zip(NAMES, ("2019", "2020", "2021", "2022"), strict=True))
    write("cats.csv", *NAMES, "kind", rename=years)
    assert cli("train --data cats.csv --target kind --epochs 2 --quiet")[0] == 0
    expected = cli("predict", MODEL, "--data", "cats.csv", "--proba")[1]
    write("more.csv", *order, rename=years)
    assert cli("predict", MODEL, "--data", "more.csv", "--proba")[1] == expected


@pytest.mark.parametrize("name", ["more.csv", "more.npz"])
def test_without_names_features_go_by_position(cli, expected, name):
    if name == "more.csv":
        write(name, *NAMES, header=False)
    else:
        np.savez(name, X=np.array([table()[name] for name in NAMES]).T)
    assert cli("predict", MODEL, "--data", name, "--proba")[1] == expected


def test_the_target_that_is_named_is_left_out_wherever_it_lies(cli, expected):
    write("more.csv", "age", "kind", "length", "height", "width")
    assert cli("predict", MODEL, "--data", "more.csv", "--proba", "--target", "kind")[1] == expected
    assert cli("predict", MODEL, "--data", "more.csv", "--proba", "--target", "1")[1] == expected
    message = error_of(cli("predict", MODEL, "--data", "more.csv", "--target", "age"))
    assert "has no column 'age', and 'kind' is none of the features" in message
    assert "target is column 5, expected -5 to 4" in error_of(
        cli("predict", MODEL, "--data", "more.csv", "--target", "5")
    )
    assert "unknown target column 'kid'" in error_of(
        cli("predict", MODEL, "--data", "more.csv", "--target", "kid")
    )


@pytest.mark.parametrize(
    ("columns", "rename", "message"),
    [
        (NAMES, {"age": "years"}, "more.csv has no column 'age', and 'years' is none of the features"),
        (NAMES[:2], {}, "more.csv has no column 'height', 'age': name the columns as in training (length, "),
        (
            (*NAMES, "kind"),
            {"age": "A", "width": "W"},
            "'width', 'age', and 'W', 'A' are none of the features",
        ),
        ((*NAMES, "weight", "kind"), {}, "more.csv has the column 'weight', which is none of the features"),
        ((*NAMES, "age"), {}, "more.csv has more than one column 'age': leave each of the features in once"),
    ],
)
def test_other_features_than_in_training_are_named(cli, cats, columns, rename, message):
    write("more.csv", *columns, rename=rename)
    assert message in error_of(cli("predict", MODEL, "--data", "more.csv"))


def test_names_that_are_there_twice_tell_nothing(cli):
    write("cats.csv", *NAMES, "kind", rename={"age": "width"})
    cli("train --data cats.csv --target kind --epochs 1 --quiet")
    assert History.load("runs/cats/history.json").about["command_line"]["features"] is None
    assert cli("predict", MODEL, "--data", "cats.csv")[0] == 0


def test_the_history_of_an_older_version_goes_by_position(cli, cats):
    path = Path("runs/cats/history.json")
    content = json.loads(path.read_text())
    del content["command_line"]["features"], content["command_line"]["standardizer"]
    path.write_text(json.dumps(content))
    write("more.csv", *NAMES[::-1])
    assert cli("predict", MODEL, "--data", "more.csv")[0] == 0
    assert cli("train --epochs 31 --quiet --resume", RUN)[0] == 0
    assert History.load(path).about["command_line"]["features"] == list(NAMES)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("features", ["length"]),
        ("standardizer", {"class": "Standardizer", "mean": [0.0], "scale": [1.0]}),
        ("standardizer", {"mean": 1}),
    ],
)
def test_a_history_with_other_features_is_left_aside(cli, cats, key, value):
    path = Path("runs/cats/history.json")
    content = json.loads(path.read_text())
    content["command_line"][key] = value
    path.write_text(json.dumps(content))
    assert "--data is missing" in error_of(cli("evaluate", MODEL))


def test_an_empty_cell_of_the_last_feature_is_no_class(cli, cats):
    Path("more.csv").write_text("1,2,3,4\n1,2,3,\n")
    message = error_of(cli("predict", MODEL, "--data", "more.csv"))
    assert "line 2, column 4 is empty, expected a number" in message
    Path("more.csv").write_text("")
    assert "is empty, expected rows of numbers" in error_of(cli("predict", MODEL, "--data", "more.csv"))
    Path("more.csv").write_bytes("1,2,3,ä\n".encode("utf-16"))
    assert "expected UTF-8 text" in error_of(cli("predict", MODEL, "--data", "more.csv"))


# ---------------------------------------------------------------------- evaluate and train --resume


def loss_of(result):
    assert result[0] == 0, result[2]
    return result[1].splitlines()[1]


@pytest.mark.parametrize(
    ("columns", "rename"),
    [((*NAMES, "kind"), {}), (("kind", *NAMES[::-1]), {}), (("kind", *NAMES[::-1]), {"kind": "species"})],
)
def test_evaluate_finds_features_and_target_by_name_in_other_data(cli, cats, columns, rename):
    expected = loss_of(cli("evaluate", MODEL, "--split", "all"))
    write("more.csv", *columns, rename=rename)
    assert loss_of(cli("evaluate", MODEL, "--data", "more.csv", "--split", "all")) == expected


def test_evaluate_finds_a_target_by_its_index_and_an_array_by_its_name(cli):
    write("cats.csv", "kind", *NAMES, header=False)
    cli("train --data cats.csv --target 0 --epochs 2 --quiet")
    write("more.csv", "kind", *NAMES, header=False)
    expected = loss_of(cli("evaluate", MODEL, "--split", "all"))
    assert loss_of(cli("evaluate", MODEL, "--data", "more.csv", "--split", "all")) == expected
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    np.savez("first.npz", X=X, y=1 - y, mine=y)
    np.savez("more.npz", X=X, y=1 - y, mine=y)
    np.savez("plain.npz", X=X, y=y)
    model = "runs/first/model.safetensors"
    cli("train --data first.npz --target mine --epochs 2 --quiet")
    expected = loss_of(cli("evaluate", model, "--split", "all"))
    for name in ("more.npz", "plain.npz"):
        assert loss_of(cli("evaluate", model, "--data", name, "--split", "all")) == expected
    Path("bad.npz").write_bytes(b"PK")
    assert "bad.npz: is not a zip archive" in error_of(cli("evaluate", model, "--data", "bad.npz"))
    assert "there is no file 'no.csv'" in error_of(cli("evaluate", model, "--data", "no.csv"))


def test_evaluate_needs_the_features_and_a_target(cli, cats):
    write("more.csv", *NAMES, "kind", rename={"age": "years"})
    message = error_of(cli("evaluate", MODEL, "--data", "more.csv"))
    assert "has no column 'age', and 'years' is none of the features" in message
    write("more.csv", *NAMES)
    message = error_of(cli("evaluate", MODEL, "--data", "more.csv"))
    assert "a column for each feature and none for the target 'kind', which is needed here" in message


def test_a_run_goes_on_with_columns_in_another_order(cli, cats):
    assert cli("train --epochs 32 --no-shuffle --quiet --out same --resume", RUN)[0] == 0
    write("cats.csv", *NAMES[::-1], "kind")
    assert cli("train --epochs 32 --no-shuffle --quiet --out other --resume", RUN)[0] == 0
    same, other = (gpunn.load(f"{name}/model.safetensors").theta for name in ("same", "other"))
    assert same.tobytes() == other.tobytes()
    write("cats.csv", *NAMES, "kind", rename={"age": "years"})
    assert "has no column 'age'" in error_of(cli("train --epochs 33 --resume", RUN))


# ---------------------------------------------------------------------- --standardize


def test_standardize_scales_the_features_as_the_library_does(cli):
    write("cats.csv", *NAMES, "weight")
    code, out, _ = cli("train --data cats.csv --standardize --hidden 5 --epochs 3")
    assert code == 0
    assert "4 features, standardized, 1 target(s)" in out
    data = load("cats.csv")
    scale = Standardizer().fit(data.train.X)
    network = gpunn.Sequential([gpunn.Dense(5, "relu"), gpunn.Dense(1)], input_shape=4, seed=0)
    network.fit(
        scale.transform(data.train.X), data.train.y, loss="mse", optimizer="adam", epochs=3, verbose=0
    )
    saved = gpunn.load(MODEL)
    assert saved.theta.tobytes() == network.theta.tobytes()
    found = network.evaluate(scale.transform(data.test.X), data.test.y)
    assert loss_of(cli("evaluate", MODEL)) == f"loss      {found['loss']:.6g} (mse)"
    write("more.csv", *NAMES[::-1])
    said = cli("predict", MODEL, "--data", "more.csv")[1].split()[1:]
    X = np.array([table()[name] for name in NAMES]).T
    assert (np.array(said, np.float32) == saved.predict(scale.transform(X))[:, 0]).all()
    assert "features  standardized: mean 0 and deviation 1 in training\n" in cli("info", MODEL)[1]


def test_a_standardized_run_goes_on_with_its_own_numbers(cli):
    write("cats.csv", *NAMES, "kind")
    command = "train --data cats.csv --standardize --hidden 5 --no-shuffle --quiet"
    cli(f"{command} --epochs 4 --out whole")
    cli(f"{command} --epochs 2")
    assert "--standardize belongs to the run" in error_of(cli("train --standardize --epochs 4 --resume", RUN))
    assert cli("train --epochs 4 --quiet --resume", RUN)[0] == 0
    whole, parts = gpunn.load("whole/model.safetensors"), gpunn.load(MODEL)
    assert whole.theta.tobytes() == parts.theta.tobytes()


def test_the_note_on_large_features_names_the_option(cli):
    np.savez("large.npz", X=np.arange(80.0).reshape(20, 4) * 100, y=np.arange(20) % 2)
    _, _, err = cli("train --data large.npz --epochs 1 --quiet")
    assert "note: the features reach 7,500; " in err
    assert "--standardize scales them\n" in err
    _, _, err = cli("train --data large.npz --epochs 1 --quiet --standardize --out other")
    assert err == ""

"""What ``gpunn train`` can do beside the plain run: rates that fall, early stopping, logs, answers."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import gpunn
from gpunn.callbacks import EarlyStopping
from gpunn.cli import main
from gpunn.cli.rates import read_schedule, told
from gpunn.data import load, load_digit_traits
from gpunn.history import History

train_module = importlib.import_module("gpunn.cli.train")
TRAITS = ["even", "prime", "five or more", "with a hole"]


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


@pytest.fixture
def traits(cli):
    """A network that answers the four questions about digits, in runs/digit-traits."""
    assert cli("train --data digit-traits --hidden 16 --epochs 5 --lr 0.01 --quiet")[0] == 0
    return Path("runs/digit-traits/model.safetensors")


@pytest.fixture
def points():
    """Two features, and what is asked of them: tags, one answer, three classes, chances, numbers."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    Z = X @ [[1, -1, 0], [0.5, 1, -1]]
    np.savez("tags.npz", X=X, y=(Z > 0).astype(int))
    np.savez("one.npz", X=X, y=(Z[:, 0] > 0).astype(float))
    np.savez("classes.npz", X=X, y=Z.argmax(axis=1) + 5)
    np.savez("chances.npz", X=X, y=1 / (1 + np.exp(-Z)))
    np.savez("numbers.npz", X=X, y=Z)


def error_of(result):
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("gpunn: error: ")
    assert err.count("\n") == 1
    return err


def origin_of(folder):
    return History.load(Path(folder) / "history.json").about["command_line"]


# ---------------------------------------------------------------------- one command for all of it


def test_one_command_trains_with_everything(cli):
    pytest.importorskip("tensorboardX", reason="the board is written with it")
    code, out, err = cli(
        "train --data digit-traits --hidden 128 64 --dropout 0.2 --optimizer adamw --weight-decay 0.01 "
        "--schedule cosine --warmup 2 --early-stopping 10 --class-weight balanced --metrics f1 "
        "--tensorboard runs/board --epochs 60"
    )
    assert code == 0
    accuracy, f1 = re.search(r"360 test examples: ([\d.]+) % .* f1 ([\d.]+);", out).groups()
    assert float(accuracy) > 93
    assert float(f1) > 0.97
    assert "yes or no: even, prime, five or more, with a hole" in out
    assert "network 64 - 128 relu - dropout 0.2 - 64 relu - dropout 0.2 - 4 sigmoid" in out
    assert "balanced class weights" in out
    assert "learning rate 0.001 rises for 2 epochs, then follows a cosine down to 0 in 58 epochs" in out
    assert "stops after 10 epochs without a lower val_loss; TensorBoard in runs/board" in out
    assert "1,293 examples to train on, 144 to validate on, 360 to test on" in out
    assert "val_ is of the 144 validation examples, after each epoch; they choose the weights" in out
    assert re.match(r"epoch +1/60  loss .*  accuracy .* %  f1 0\..*  val_f1 .*  lr 0.0005  ", err)
    assert len(list(Path("runs/board/run-1").iterdir())) == 1
    best = History.load("runs/digit-traits/history.json").best("val_loss")["epoch"]
    assert f"the weights are those of epoch {best}" in out


def test_the_options_do_what_the_library_does_with_the_same_arguments(cli):
    command = (
        "train --data digit-traits --hidden 9 8 --dropout 0.3 --optimizer adamw --weight-decay 0.02 "
        "--l1 1e-4 --clip-norm 0.5 --beta1 0.8 --beta2 0.99 --epsilon 1e-7 --schedule cosine:0.1 --warmup 1 "
        "--class-weight balanced --early-stopping 1 --epochs 4 --seed 3 --quiet --out here"
    )
    assert cli(command)[0] == 0
    data = load_digit_traits(validation_fraction=0.1)
    layers = [gpunn.Dense(9, "relu"), gpunn.Dropout(0.3), gpunn.Dense(8, "relu"), gpunn.Dropout(0.3)]
    network = gpunn.Sequential([*layers, gpunn.Dense(4, "sigmoid")], input_shape=64, seed=3)
    network.fit(
        data.train.X,
        data.train.y,
        loss="binary_cross_entropy",
        optimizer=gpunn.AdamW(
            weight_decay=0.02,
            l1=1e-4,
            clip_norm=0.5,
            beta1=0.8,
            beta2=0.99,
            epsilon=1e-7,
            schedule=gpunn.Warmup(1, gpunn.Cosine(3, 0.1)),
        ),
        epochs=4,
        validation_data=(data.validation.X, data.validation.y),
        class_weight="balanced",
        callbacks=[EarlyStopping("val_loss", patience=1)],
        verbose=0,
    )
    saved = gpunn.load("here/model.safetensors")
    assert saved.config() == network.config()
    assert saved.theta.tobytes() == network.theta.tobytes()


@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        (
            "--optimizer sgd --momentum 0.9 --nesterov --lr 0.1",
            gpunn.SGD(lr=0.1, momentum=0.9, nesterov=True),
        ),
        ("--optimizer rmsprop --rho 0.8", gpunn.RMSprop(rho=0.8)),
        ("--schedule step:10", gpunn.Adam(schedule=gpunn.StepDecay(10))),
        ("--schedule step:10:0.5", gpunn.Adam(schedule=gpunn.StepDecay(10, 0.5))),
        ("--schedule exponential:0.9", gpunn.Adam(schedule=gpunn.Exponential(0.9))),
        ("--schedule inverse", gpunn.Adam(schedule=gpunn.InverseScaling())),
        ("--warmup 0.5", gpunn.Adam(schedule=gpunn.Warmup(0.5))),
        ("--warmup 0", gpunn.Adam()),
    ],
)
def test_the_optimizer_is_the_one_that_was_asked_for(cli, options, optimizer):
    assert cli(f"train --data digits --hidden --epochs 1 --quiet {options}")[0] == 0
    assert gpunn.Trainer.load("runs/digits/run.safetensors").optimizer == optimizer


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (gpunn.Warmup(2.5), "rises for 2.5 epochs, then stays"),
        (gpunn.Warmup(1), "rises for 1 epoch, then stays"),
        (gpunn.StepDecay(1, unit="step"), "times 0.1 each step"),
        (gpunn.Cosine(1), "follows a cosine down to 0 in 1 epoch"),
        (gpunn.Cosine(9, 0.1), "follows a cosine down to 0.1 of it in 9 epochs"),
        (gpunn.Exponential(0.9, "step"), "times 0.9 each step"),
        (gpunn.InverseScaling(), "divided by (1 + epochs)^0.5"),
    ],
)
def test_a_schedule_is_told_in_words(schedule, words):
    assert told(schedule) == words


def test_a_schedule_of_the_users_is_told_as_it_shows_itself():
    class Falling(gpunn.Schedule):
        unit = "epoch"

        def factors(self, x, width):
            return 1 / (1 + x)

        def __repr__(self):
            return "Falling()"

    try:
        assert told(Falling()) == "Falling()"
    finally:
        del gpunn.schedules.SCHEDULES["falling"]


def test_a_cosine_has_what_the_warmup_leaves_of_the_epochs():
    assert read_schedule("cosine", 2, 60) == gpunn.Warmup(2, gpunn.Cosine(58))


# ---------------------------------------------------------------------- what looks on


def test_early_stopping_ends_the_training_and_takes_the_best_weights(cli):
    command = "train --data digits --hidden 8 --optimizer sgd --lr 3 --epochs 200 --early-stopping 2"
    code, out, _ = cli(command)
    assert code == 0
    history = History.load("runs/digits/history.json")
    best = history.best("val_loss")
    assert len(history) == best["epoch"] + 2
    assert f"trained {len(history)} epochs" in out
    assert f"stopped early; the weights are those of epoch {best['epoch']}, with the lowest val_loss" in out
    _, out, _ = cli("evaluate runs/digits/model.safetensors --split validation")
    assert f"loss      {best['val_loss']:.6g} (cross_entropy)" in out


def test_patience_has_a_default(cli):
    cli("train --data digits --hidden --epochs 1 --early-stopping --reduce-on-plateau --quiet")
    assert (origin_of("runs/digits")["early_stopping"], origin_of("runs/digits")["reduce_on_plateau"]) == (
        10,
        5,
    )


def test_the_learning_rate_falls_on_a_plateau_and_the_lines_show_it(cli):
    command = "train --data digits --hidden 8 --optimizer sgd --lr 3 --epochs 20 --reduce-on-plateau 1"
    _, out, err = cli(command)
    assert "a tenth of the learning rate after 1 epoch without a lower val_loss" in out
    rates = History.load("runs/digits/history.json")["lr"]
    assert min(rates) < 3
    lines = err.splitlines()
    for before, now, line in zip([None, *rates], rates, lines, strict=False):
        assert ("  lr " in line) == (now != before)


def test_a_log_and_a_board_for_each_seed(cli):
    pytest.importorskip("tensorboardX", reason="the board is written with it")
    command = (
        "train --data digits --hidden --epochs 2 --quiet --seed 0 7 --csv-log logs/all.csv --tensorboard b"
    )
    assert cli(command)[0] == 0
    assert sorted(path.name for path in Path("logs").iterdir()) == ["all-seed-0.csv", "all-seed-7.csv"]
    assert sorted(path.name for path in Path("b").iterdir()) == ["seed-0", "seed-7"]
    with open("logs/all-seed-7.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    history = History.load("runs/digits/seed-7/history.json")
    assert [float(row["val_loss"]) for row in rows] == history["val_loss"]


def test_numbered_runs_are_saved_and_can_be_resumed(cli):
    command = "train --data digits --hidden 4 --epochs 6 --quiet --checkpoint-every 2"
    assert cli(f"{command} --keep 2 --out a{{b}}")[0] == 0
    assert sorted(path.name for path in Path("a{b}").glob("run*")) == [
        "run-0004.safetensors",
        "run-0006.safetensors",
        "run.safetensors",
    ]
    assert cli("train --quiet --resume a{b}/run-0004.safetensors --out again")[0] == 0
    first, again = (gpunn.load(f"{name}/model.safetensors").theta for name in ("a{b}", "again"))
    assert first.tobytes() == again.tobytes()
    assert cli(f"{command} --keep 0 --out all")[0] == 0
    assert len(list(Path("all").glob("run-*"))) == 3


def test_numbered_runs_leave_what_tells_their_data_when_the_process_is_killed(cli, monkeypatch):
    def killed(*args, **kwargs):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "save", killed)
        assert cli("train --data digits --hidden 4 --epochs 3 --quiet --checkpoint-every 2")[0] == 2
    assert not Path("runs/digits/run.safetensors").exists()
    assert cli("train --quiet --resume runs/digits/run-0002.safetensors")[0] == 0


@pytest.mark.parametrize("content", ["price,rooms\n1,2\n", "\x00", "mine"])
def test_a_log_never_overwrites_another_file(cli, content):
    Path("mine.csv").write_text(content)
    message = error_of(cli("train --data digits --csv-log mine.csv"))
    assert "--csv-log mine.csv exists and is not the log of a training" in message
    assert Path("mine.csv").read_text() == content
    assert [path.name for path in Path().iterdir()] == ["mine.csv"]


def test_a_log_never_overwrites_the_data(cli):
    rows = [f"{i},{i % 3},{2 * i}" for i in range(9)]
    Path("data.csv").write_text("epoch,loss,y\n" + "\n".join(rows))
    assert "is not the log" in error_of(cli("train --data data.csv --csv-log data.csv"))


def test_a_numbered_run_never_overwrites_another_file(cli):
    Path("here").mkdir()
    Path("here/run-0001.safetensors").write_text("mine")
    message = error_of(cli("train --data digits --checkpoint-every 1 --out here"))
    assert "run-0001.safetensors exists and is not what gpunn saves" in message


def test_a_log_that_cannot_begin_leaves_an_earlier_run_alone(cli):
    command = "train --data digits --hidden --epochs 1 --quiet"
    cli(command)
    before = Path("runs/digits/model.safetensors").read_bytes()
    Path("wall").write_text("")
    code, _, err = cli(f"{command} --seed 5 --csv-log wall/log.csv")
    assert (code, "cannot write wall" in err) == (2, True)
    assert Path("runs/digits/model.safetensors").read_bytes() == before


def test_what_was_learnt_is_saved_when_a_log_fails_later(cli, monkeypatch):
    from gpunn.callbacks import CSVLog, WriteError

    def failing(self, trainer, record, **kwargs):
        raise WriteError("the disk is full")

    monkeypatch.setattr(CSVLog, "_write", failing)
    code, _, err = cli("train --data digits --hidden --epochs 3 --csv-log log.csv --quiet")
    assert (code, "the disk is full" in err) == (2, True)
    assert gpunn.Trainer.load("runs/digits/run.safetensors").epochs_done == 1


def test_without_tensorboardx_there_is_one_line_and_nothing_is_made(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert "pip install tensorboardX" in error_of(cli("train --data digits --tensorboard board"))
    assert list(Path().iterdir()) == []


# ---------------------------------------------------------------------- what is held out to choose by


def sides(**fractions):
    found = load("digits", **fractions)
    return {side.name: side for side in (found.train, found.validation, found.test) if side is not None}


@pytest.mark.parametrize(
    ("options", "fraction", "chosen"),
    [
        ("--early-stopping 2", 0.1, "they choose the weights, "),
        ("--reduce-on-plateau 2", 0.1, "they choose the learning rate, "),
        (
            "--early-stopping 2 --reduce-on-plateau 1 --validation-fraction 0.3",
            0.3,
            "they choose the weights, ",
        ),
        ("--validation-fraction 0.25", 0.25, ""),
    ],
)
def test_what_chooses_is_held_out_of_the_training_examples_and_the_score_is_of_the_test_side(
    cli, options, fraction, chosen
):
    code, out, _ = cli(f"train --data digits --hidden 8 --epochs 3 {options}")
    assert code == 0
    held = sides(validation_fraction=fraction)
    train, validation, test = (held[name] for name in ("train", "validation", "test"))
    assert f"{len(train):,} examples to train on, {len(validation)} to validate on, 360 to test on" in out
    val = f"val_ is of the {len(validation)} validation examples, after each epoch"
    assert f"{val}; {chosen}the test examples are left for the end\n" in out
    assert "flatters" not in out
    network, last = gpunn.load("runs/digits/model.safetensors"), History.load("runs/digits/history.json")
    found = network.evaluate(test.X, test.y, metrics=("accuracy",))
    assert f"accuracy on the 360 test examples: {100 * found['accuracy']:.2f} %" in out
    if "--early-stopping" in options:
        kept = last.best("val_loss")
        score = f"{100 * kept['val_accuracy']:.2f} % after epoch {kept['epoch']}\n"
        assert f"; on the validation examples {score}" in out
    else:
        best = last.best("val_accuracy")
        assert f"best on the validation examples {100 * best['val_accuracy']:.2f} % after epoch" in out
    assert last["val_loss"][-1] == network.evaluate(validation.X, validation.y)["loss"]
    assert last.records[0]["samples"] == len(train)
    assert origin_of("runs/digits")["validation_fraction"] == fraction


@pytest.mark.parametrize("options", ["", "--validation-fraction 0", "--early-stopping 0"])
def test_where_nothing_is_chosen_val_is_of_the_test_examples_as_in_the_book(cli, options):
    _, out, _ = cli(f"train --data digits --hidden 8 --epochs 2 {options}")
    assert "digits: 1,437 examples to train on, 360 to test on;" in out
    assert "val_ is of the 360 test examples, after each epoch\n" in out
    assert re.search(r"^accuracy on the 360 test examples: .*; best [\d.]+ % after epoch \d$", out, re.M)
    assert origin_of("runs/digits")["validation_fraction"] is None


def test_the_test_side_is_the_same_and_the_seed_divides_nothing(cli):
    plain, held, again = sides(), sides(validation_fraction=0.2), sides(validation_fraction=0.2)
    assert np.array_equal(plain["test"].X, held["test"].X)
    assert np.array_equal(held["validation"].X, again["validation"].X)
    rows = {row.tobytes() for row in held["train"].X} & {row.tobytes() for row in held["validation"].X}
    assert not rows
    together = np.sort(np.concatenate([held["train"].y, held["validation"].y]))
    assert np.array_equal(together, np.sort(plain["train"].y))
    shares = np.bincount(held["validation"].y) / np.bincount(plain["train"].y)
    assert np.abs(shares - 0.2).max() < 0.01
    cli("train --data digits --hidden 4 --epochs 1 --quiet --early-stopping --seed 0 7")
    for seed in (0, 7):
        _, out, _ = cli(f"evaluate runs/digits/seed-{seed}/model.safetensors --split validation")
        expected = History.load(f"runs/digits/seed-{seed}/history.json").records[-1]["val_loss"]
        assert f"digits, validation: 144 examples\nloss      {expected:.6g} " in out


def test_several_seeds_are_summed_up_by_the_test_side_alone(cli):
    _, out, _ = cli("train --data digits --hidden 4 --epochs 2 --quiet --early-stopping --seed 0 7")
    assert "2 seeds, accuracy on the 360 test examples:" in out
    assert re.search(r"^final ", out, re.M)
    assert not re.search(r"^best epoch", out, re.M)


def test_without_a_test_side_the_score_is_of_those_that_chose(cli):
    _, out, _ = cli("train --data digits --hidden 4 --epochs 2 --early-stopping --test-fraction 0")
    assert "1,617 examples to train on, 180 to validate on;" in out
    assert "they choose the weights, which flatters their score" in out
    kept = History.load("runs/digits/history.json").best("val_loss")
    assert f"accuracy on the 180 validation examples: {100 * kept['val_accuracy']:.2f} %" in out
    assert "best" not in out
    assert f"the weights are those of epoch {kept['epoch']}" in out


@pytest.mark.parametrize(("options", "side"), [("", "test"), ("--early-stopping", "validation")])
def test_a_validation_side_of_its_own_is_taken_where_something_is_chosen(cli, monkeypatch, options, side):
    whole = dataclasses.replace(load("digits", validation_fraction=0.5), name="mnist")
    monkeypatch.setitem(gpunn.data.datasets._NAMED, "mnist", lambda *_: whole)
    _, out, _ = cli("train --data mnist --hidden 4 --epochs 1", *options.split())
    count = len(getattr(whole, side))
    assert f"val_ is of the {count} {side} examples" in out
    assert f"{len(whole.train)} examples to train on, " in out
    assert ("to validate on" in out) == (side == "validation")
    assert "on the 360 test examples" in out
    _, out, _ = cli("evaluate runs/mnist/model.safetensors --split validation")
    assert out.startswith(f"mnist, validation: {len(whole.validation)} examples\n")


def test_evaluate_knows_each_side_of_the_division(cli):
    cli("train --data digits --hidden 4 --epochs 1 --quiet --validation-fraction 0.2")
    model = "runs/digits/model.safetensors"
    for side, count in (("train", "1,149"), ("validation", "288"), ("test", "360"), ("all", "1,797")):
        assert cli("evaluate", model, "--split", side)[1].startswith(f"digits, {side}: {count} examples\n")
    Path("runs/digits/history.json").unlink()
    message = error_of(cli("evaluate", model, "--data", "digits", "--split", "validation"))
    assert "digits has no validation examples" in message
    assert "its --validation-fraction" in message
    command = ("evaluate", model, "--data", "digits", "--split", "validation", "--validation-fraction", 0.2)
    assert cli(*command)[1].startswith("digits, validation: 288 examples\n")


def test_a_run_that_goes_on_is_divided_as_before(cli):
    command = "train --data digits --hidden 6 --quiet --early-stopping 50 --validation-fraction 0.3"
    assert cli(f"{command} --epochs 4 --out whole")[0] == 0
    assert cli(f"{command} --epochs 2 --out parts")[0] == 0
    code, out, _ = cli("train --resume parts/run.safetensors --epochs 4 --early-stopping 0")
    assert code == 0
    assert "432 to validate on" in out
    assert "val_ is of the 432 validation examples, after each epoch; the test examples are left" in out
    whole, parts = (History.load(f"{name}/history.json")["val_loss"] for name in ("whole", "parts"))
    assert whole == parts
    resume = "train --resume parts/run.safetensors --epochs 5 --quiet"
    assert cli(f"{resume} --validation-fraction 0.3")[0] == 0
    message = error_of(cli(f"{resume} --validation-fraction 0.1"))
    assert "--validation-fraction is 0.1, but the run that --resume goes on with held 0.3 out" in message


@pytest.mark.parametrize("option", ["--early-stopping", "--reduce-on-plateau"])
def test_a_run_that_held_nothing_out_cannot_begin_to_choose(cli, option):
    cli("train --data digits --hidden 4 --epochs 1 --quiet")
    resume = "train --resume runs/digits/run.safetensors --epochs 2"
    message = error_of(cli(f"{resume} {option}"))
    assert f"{option} needs validation examples" in message
    assert f"train anew with {option}" in message
    assert "held none out" in error_of(cli(f"{resume} --validation-fraction 0.1"))
    assert cli(f"{resume} --validation-fraction 0 --out again --quiet")[0] == 0
    np.savez("more.npz", X=np.eye(64).repeat(2, axis=0), y=np.arange(128) % 10)
    code, out, _ = cli(f"{resume} {option} --data more.npz")
    assert code == 0
    assert "val_ is of the 11 validation examples" in out


def test_a_run_of_an_older_version_goes_on_choosing_by_its_test_examples(cli):
    cli("train --data digits --hidden 4 --epochs 1 --quiet")
    path = Path("runs/digits/history.json")
    content = json.loads(path.read_text())
    del content["command_line"]["validation_fraction"], content["command_line"]["numbers"]
    content["command_line"]["early_stopping"] = 5
    path.write_text(json.dumps(content))
    _, out, _ = cli("train --resume runs/digits/run.safetensors --epochs 2 --reduce-on-plateau 3")
    assert "digits: 1,437 examples to train on, 360 to test on;" in out
    flattered = "they choose the weights, which flatters their score"
    assert f"val_ is of the 360 test examples, after each epoch; {flattered}\n" in out
    assert origin_of("runs/digits")["validation_fraction"] is None


def test_a_run_without_its_history_is_divided_as_the_options_say(cli):
    cli("train --data digits --hidden 4 --epochs 1 --quiet --early-stopping")
    Path("runs/digits/history.json").unlink()
    _, out, _ = cli("train --resume runs/digits/run.safetensors --data digits --epochs 2 --early-stopping")
    assert "1,293 examples to train on, 144 to validate on" in out


# ---------------------------------------------------------------------- several target columns

HEADER = ["rooms", "rent, net", "age", "price", "floor"]


@pytest.fixture
def flats():
    """Three features; rent and price as numbers, and whether it is large or cheap as 0 and 1."""
    X = np.random.default_rng(0).normal(size=(60, 3)).round(3)
    rent, price = (2 * X[:, 0] - X[:, 1]).round(3), X.sum(axis=1).round(3)
    for name, first, second, titles in (
        ("flats.csv", rent, price, HEADER),
        (
            "tags.csv",
            (rent > 0).astype(int),
            (price > 0).astype(int),
            [*HEADER[:1], "large", "age", "cheap", "floor"],
        ),
    ):
        with open(name, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(titles)
            writer.writerows(zip(X[:, 0], first, X[:, 1], second, X[:, 2], strict=True))
    return X, rent, price


TWO = ("--target", "price", "--target", "rent, net")


def test_several_columns_of_numbers_are_learnt_evaluated_and_predicted_by_name(cli, flats):
    X = flats[0]
    command = "train --data flats.csv --hidden --lr 0.05 --epochs 60"
    code, out, _ = cli(command, *TWO)
    assert code == 0
    assert "3 features, 2 numbers: price, rent, net\n" in out
    assert float(re.search(r"R² ([\d.]+);", out)[1]) > 0.99
    assert origin_of("runs/flats")["target"] == ["price", "rent, net"]
    model = "runs/flats/model.safetensors"
    network, test = gpunn.load(model), load("flats.csv", target=["price", "rent, net"]).test
    _, out, _ = cli("evaluate", model)
    left = ((test.y - network.predict(test.X)) ** 2).sum(axis=0)
    scores = 1 - left / ((test.y - test.y.mean(axis=0)) ** 2).sum(axis=0)
    assert f"R²        {scores.mean():.4f}\n\noutput " in out
    assert re.search(rf"^price +{scores[0]:.4f}$", out, re.M)
    assert re.search(rf"^rent, net +{scores[1]:.4f}$", out, re.M)
    header, *rows = csv.reader(io.StringIO(cli("predict", model, "--data", "flats.csv")[1]))
    assert header == ["price", "rent, net"]
    assert (np.array(rows, np.float32) == network.predict(X)).all()
    _, out, _ = cli("info", model)
    assert "data      flats.csv, targets price, rent, net\n" in out
    assert "predicts  numbers: price, rent, net\n" in out
    code, out, _ = cli("train --resume runs/flats/run.safetensors --epochs 61")
    assert (code, "2 numbers: price, rent, net" in out) == (0, True)


def test_several_targets_are_left_out_wherever_they_lie(cli, flats):
    X, rent, price = flats
    cli("train --data flats.csv --hidden --epochs 1 --quiet", *TWO)
    model = "runs/flats/model.safetensors"
    expected = cli("predict", model, "--data", "flats.csv")[1]
    np.savetxt("alone.csv", X, "%.3f", ",")
    np.savetxt("last.csv", np.column_stack([X, price, rent]), "%.3f", ",")
    np.savetxt("first.csv", np.column_stack([price, rent, X]), "%.3f", ",")
    np.savetxt("narrow.csv", X[:, :1], "%.3f", ",")
    np.savetxt("wide.csv", np.column_stack([X, X]), "%.3f", ",")
    for source in ("alone.csv", "last.csv"):
        assert cli("predict", model, "--data", source)[1] == expected
    given = ("predict", model, "--data", "first.csv", "--target", "0", "--target", "1")
    assert cli(*given)[1] == expected
    assert cli("evaluate", *given[1:], "--split", "all")[0] == 0
    assert "first.csv has 5 columns" in error_of(cli(*given[:6]))
    for source in ("narrow.csv", "wide.csv"):
        message = error_of(cli("predict", model, "--data", source))
        assert "the network takes 3 features: expected 3 columns, or 5 with the 2 targets" in message
    Path("words.csv").write_text("1,2,3,a,b\n")
    assert "words.csv: line 1, column 4 holds 'a'" in error_of(cli("predict", model, "--data", "words.csv"))


@pytest.mark.parametrize("loss", ["--loss binary_cross_entropy", ""])
def test_several_columns_of_0_and_1_are_answers_with_the_names_of_the_columns(cli, flats, loss):
    code, out, _ = cli(
        f"train --data tags.csv --target large --target cheap --early-stopping --epochs 30 --lr 0.02 {loss}"
    )
    assert code == 0
    assert (
        "43 examples to train on, 5 to validate on, 12 to test on; 3 features, yes or no: large, cheap" in out
    )
    model = "runs/tags/model.safetensors"
    assert (origin_of("runs/tags")["answers"], gpunn.load(model).loss) == (
        ["large", "cheap"],
        "binary_cross_entropy",
    )
    assert re.search(r"^large +\d+ .*\ncheap +\d+ .*\nmean ", cli("evaluate", model)[1], re.M)
    header, *rows = csv.reader(io.StringIO(cli("predict", model, "--data", "tags.csv")[1]))
    assert (header, {cell for row in rows for cell in row}) == (["large", "cheap"], {"0", "1"})


def test_several_columns_without_a_header_are_numbered(cli, flats):
    X, rent, price = flats
    np.savetxt("bare.csv", np.column_stack([X, rent > 0, price > 0]), "%g", ",")
    _, out, err = cli("train --data bare.csv --target 3 --target -1 --epochs 1")
    assert "2 target(s)" in out
    assert "--loss binary_cross_entropy makes each column a yes or no" in err
    model = "runs/bare/model.safetensors"
    assert cli("predict", model, "--data", "bare.csv")[1].startswith("output 0,output 1\n")
    _, out, _ = cli("train --data bare.csv --target 3 --target -1 --epochs 1 --loss binary_cross_entropy")
    assert "yes or no: output 0, output 1" in out


def test_the_library_networks_numbers_have_the_names_of_the_columns(cli, flats):
    data = load("flats.csv", target=("price", "rent, net"), test_fraction=0)
    network = gpunn.Sequential([gpunn.Dense(2)], input_shape=3, seed=0)
    network.fit(data.train.X, data.train.y, loss="mse", epochs=1, verbose=0)
    network.save("net.safetensors")
    _, out, _ = cli("predict net.safetensors --data flats.csv", *TWO)
    assert out.startswith('price,"rent, net"\n')
    _, out, _ = cli("evaluate net.safetensors --data flats.csv --split all", *TWO)
    assert re.search(r"^rent, net +-?\d", out, re.M)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("price price", "target names the column 'price' twice, expected each once"),
        ("price 3", "target names one column twice, as 'price' and as 3"),
        ("price prise", "unknown target column 'prise': did you mean 'price'?"),
        (
            "0 1 2 3 4",
            "flats.csv: line 1 has 5 columns, each of them a target; expected features beside them",
        ),
        ("price 5", "target is column 5, expected -5 to 4"),
    ],
)
def test_targets_that_cannot_be_had_are_one_line(cli, flats, targets, message):
    options = [text for target in targets.split() for text in ("--target", target)]
    assert message in error_of(cli("train --data flats.csv", *options))


def test_several_targets_are_columns_of_a_table(cli, points):
    assert "an array (n, t) holds t targets" in error_of(cli("train --data tags.npz --target y --target X"))


# ---------------------------------------------------------------------- going on


def test_a_run_that_goes_on_keeps_its_weights_metrics_and_logs(cli):
    command = (
        "train --data digits --hidden 6 --dropout 0.2 --schedule exponential:0.9 --class-weight balanced "
        "--metrics f1 top_3 --csv-log log.csv --early-stopping 9 --quiet"
    )
    assert cli(f"{command} --epochs 4 --out whole")[0] == 0
    whole = Path("log.csv").read_text().splitlines()
    Path("log.csv").unlink()
    assert cli(f"{command} --epochs 2 --out parts")[0] == 0
    code, _, err = cli("train --resume parts/run.safetensors --epochs 4")
    assert code == 0
    assert re.search(r"^epoch 3/4 .* f1 .* top_3 .*lr 0.000731 ", err, re.M)
    first, again = (gpunn.load(f"{name}/model.safetensors").theta for name in ("whole", "parts"))
    assert first.tobytes() == again.tobytes()

    def losses(lines):
        return [(row["epoch"], row["loss"], row["val_top_3"]) for row in csv.DictReader(lines)]

    assert losses(Path("log.csv").read_text().splitlines()) == losses(whole)
    assert {key: origin_of("parts")[key] for key in ("class_weight", "early_stopping", "csv_log")} == {
        "class_weight": "balanced",
        "early_stopping": 9,
        "csv_log": "log.csv",
    }


def test_what_looks_on_can_be_given_anew_or_left(cli):
    cli("train --data digits --hidden --epochs 1 --quiet --csv-log a.csv --early-stopping 4 --keep 1 "
        "--checkpoint-every 1")  # fmt: skip
    resume = "train --resume runs/digits/run.safetensors --quiet"
    assert cli(f"{resume} --epochs 2 --early-stopping 6 --keep 2")[0] == 0
    kept = origin_of("runs/digits")
    assert (kept["early_stopping"], kept["keep"], kept["csv_log"]) == (6, 2, "a.csv")
    assert cli(f"{resume} --epochs 3 --early-stopping 0 --checkpoint-every 0 --csv-log", "")[0] == 0
    left = origin_of("runs/digits")
    assert (left["early_stopping"], left["checkpoint_every"], left["csv_log"]) == (None, None, None)
    assert len(Path("a.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "option",
    [
        "--dropout 0.1",
        "--l1 0.1",
        "--weight-decay 0.1",
        "--clip-norm 1",
        "--nesterov",
        "--rho 0.5",
        "--schedule cosine",
        "--warmup 1",
        "--class-weight balanced",
        "--metrics f1",
    ],
)
def test_what_belongs_to_a_run_cannot_be_changed(cli, option):
    message = error_of(cli(f"train --resume run.safetensors {option}"))
    assert f"{option.split()[0]} belongs to the run that --resume goes on with" in message


def test_the_history_of_an_older_version_is_understood(cli):
    cli("train --data digits --hidden --epochs 1 --quiet")
    path = Path("runs/digits/history.json")
    content = json.loads(path.read_text())
    known = ("data", "target", "test_fraction", "epochs", "shuffle", "classes")
    content["command_line"] = {key: content["command_line"][key] for key in known}
    path.write_text(json.dumps(content))
    assert cli("evaluate runs/digits/model.safetensors")[0] == 0
    assert cli("train --resume runs/digits/run.safetensors --epochs 2 --quiet")[0] == 0
    assert origin_of("runs/digits")["early_stopping"] is None


def test_epochs_that_learn_nothing_are_worth_a_note(cli):
    cli("train --data digits --hidden --epochs 2 --quiet --schedule cosine")
    _, _, err = cli("train --resume runs/digits/run.safetensors --epochs 4 --quiet")
    assert err.startswith("note: from epoch 3 on the learning rate is 0")


# ---------------------------------------------------------------------- yes or no


def test_evaluate_tells_how_well_each_question_is_answered(cli, traits):
    data, network = load_digit_traits(), gpunn.load(traits)
    said, so = network.predict_proba(data.test.X) > 0.5, data.test.y == 1
    code, out, _ = cli("evaluate", traits)
    assert code == 0
    right = (said == so).all(axis=1)
    assert f"accuracy  {100 * right.mean():.2f} % ({right.sum()} of 360 with every answer right)" in out
    rows = dict(re.findall(r"^(even|prime|five or more|with a hole|mean) +(\d.*)$", out, re.M))
    f1s = []
    for j, name in enumerate(TRAITS):
        both = (said[:, j] & so[:, j]).sum()
        precision, recall = both / said[:, j].sum(), both / so[:, j].sum()
        f1s.append(2 * precision * recall / (precision + recall))
        accuracy = (said[:, j] == so[:, j]).mean()
        expected = [str(so[:, j].sum()), f"{100 * accuracy:.2f}", "%"]
        expected += [f"{number:.4f}" for number in (precision, recall, f1s[-1])]
        assert rows[name].split() == expected
    assert rows["mean"].split()[-1] == f"{np.mean(f1s):.4f}"


def test_answers_are_counted_alike_under_another_loss(cli, traits):
    usual = cli("evaluate", traits)[1].splitlines()
    other = cli("evaluate", traits, "--loss", "mse")[1].splitlines()
    assert other[1].endswith("(mse)")
    assert other[2:] == usual[2:]


def test_predict_has_a_column_for_each_question(cli, traits):
    X = load_digit_traits(test_fraction=0).train.X
    chances = gpunn.load(traits).predict_proba(X)
    _, out, _ = cli("predict", traits, "--data", "digit-traits")
    header, *rows = csv.reader(io.StringIO(out))
    assert header == TRAITS
    assert (np.array(rows, int) == (chances > 0.5)).all()
    _, out, _ = cli("predict", traits, "--data", "digit-traits", "--proba")
    header, *rows = csv.reader(io.StringIO(out))
    assert header == TRAITS
    assert (np.array(rows, np.float32) == chances).all()
    cli("predict", traits, "--data", "digit-traits", "--output", "answers.npy")
    assert (np.load("answers.npy") == (chances > 0.5)).all()


def test_info_and_program_of_a_network_that_answers(cli, traits):
    _, out, _ = cli("info", "runs/digit-traits/run.safetensors")
    assert "predicts  yes or no: even, prime, five or more, with a hole" in out
    network = gpunn.load(traits)
    expected = f"{network.program('binary_cross_entropy', 'adam', targets='dense')}\n"
    assert cli("program", traits)[1] == expected
    assert cli("program --data digit-traits --hidden 16")[1] == expected


def test_info_tells_of_the_schedule_and_of_what_looks_on(cli):
    cli("train --data digits --hidden --epochs 1 --quiet --schedule step:3 --early-stopping 4")
    _, out, _ = cli("info runs/digits/run.safetensors")
    assert "schedule  times 0.1 every 3 epochs" in out
    assert "watching  stops after 4 epochs without a lower val_loss" in out
    assert re.search(r"tensorboard +tensorboardX ", cli("info")[1])


def test_columns_of_0_and_1_are_answers_only_when_the_loss_says_so(cli, points):
    _, out, err = cli("train --data tags.npz --epochs 1")
    assert "3 target(s)" in out
    assert "--loss binary_cross_entropy makes each column a yes or no" in err
    _, out, err = cli("train --data tags.npz --epochs 40 --lr 0.05 --loss binary_cross_entropy")
    assert "yes or no: output 0, output 1, output 2" in out
    assert err.startswith(
        "note: replaces the run of tags.npz, 1 epoch, in runs/tags: --out saves elsewhere\n"
    )
    assert err.count("note") == 1
    assert float(re.search(r"test examples: ([\d.]+) %", out)[1]) > 80


def test_one_column_of_0_and_1_is_one_answer(cli, points):
    command = "train --data one.npz --epochs 40 --lr 0.05 --loss binary_cross_entropy --quiet"
    assert cli(f"{command} --class-weight balanced")[0] == 0
    model = "runs/one/model.safetensors"
    assert gpunn.load(model).output_shape == (1,)
    _, out, _ = cli("evaluate", model)
    assert re.search(r"^accuracy .* of 12 right\)$", out, re.M)
    assert re.search(r"^answer +\d", out, re.M)
    assert "mean" not in out
    assert cli("predict", model, "--data", "one.npz")[1].split()[:1] == ["answer"]


def test_chances_between_0_and_1_are_learnt_as_numbers(cli, points):
    code, out, _ = cli("train --data chances.npz --epochs 3 --loss binary_cross_entropy")
    assert (code, "R²" in out, "accuracy" in out) == (0, True, False)
    assert "R²" in cli("evaluate runs/chances/model.safetensors")[1]


@pytest.mark.parametrize("data", ["digits", "classes.npz"])
def test_classes_can_be_learnt_with_sigmoid_outputs_too(cli, points, data):
    command = (
        "train --epochs 30 --lr 0.01 --loss binary_cross_entropy --class-weight balanced --quiet --out r"
    )
    code, out, _ = cli(command, "--data", data)
    assert code == 0
    assert float(re.search(r"accuracy on the .* test examples: ([\d.]+) %", out)[1]) > 80
    saved = gpunn.load("r/model.safetensors")
    assert (saved.layers[-1].activation, saved.output_shape[0] > 2) == ("sigmoid", True)
    _, out, _ = cli("evaluate r/model.safetensors")
    assert "most often taken for" in out
    named = {"digits": set("0123456789"), "classes.npz": set("567")}[data]
    assert set(cli("predict r/model.safetensors --data", data)[1].split()[1:]) <= named


def test_balanced_classes_weigh_the_same_in_one_hot_rows_too(cli, points):
    command = "train --data classes.npz --loss mse --epochs 2 --quiet --hidden --test-fraction 0"
    assert "numbers" in error_of(cli(f"{command} --class-weight balanced"))
    command = command.replace("classes.npz", "digits")
    assert cli(f"{command} --class-weight balanced")[0] == 0
    digits = load("digits", test_fraction=0).train
    weights = len(digits.y) / (10 * np.bincount(digits.y))
    network = gpunn.Sequential([gpunn.Dense(10, "sigmoid")], input_shape=64, seed=0)
    network.fit(
        digits.X,
        np.eye(10)[digits.y],
        loss="mse",
        optimizer="adam",
        epochs=2,
        sample_weight=weights[digits.y],
        verbose=0,
    )
    assert gpunn.load("runs/digits/model.safetensors").theta.tobytes() == network.theta.tobytes()


def test_a_library_network_of_answers_is_told_by_its_loss(cli, points):
    with np.load("tags.npz") as arrays:
        X, y = arrays["X"], arrays["y"]
    network = gpunn.Sequential([gpunn.Dense(3)], input_shape=2, seed=0)
    network.fit(X, y, loss="binary_cross_entropy", optimizer="adam", epochs=3, verbose=0)
    network.save("net.safetensors")
    found = network.evaluate(X, y, metrics=("accuracy", "f1"))
    _, out, _ = cli("evaluate net.safetensors --data tags.npz --split all")
    assert f"accuracy  {100 * found['accuracy']:.2f} %" in out
    assert re.search(rf"^mean .* {found['f1']:.4f}$", out, re.M)
    np.savez("new.npz", X=X)
    _, out, _ = cli("predict net.safetensors --data new.npz")
    header, *rows = csv.reader(io.StringIO(out))
    assert header == ["output 0", "output 1", "output 2"]
    assert (np.array(rows, int) == (network.predict(X) > 0)).all()


@pytest.mark.parametrize("data", ["digits", "numbers.npz"])
def test_answers_are_needed_where_a_network_gives_some(cli, traits, points, data):
    np.savez("numbers.npz", X=np.zeros((2, 64)), y=np.full((2, 4), 0.5))
    message = error_of(cli("evaluate", traits, "--data", data, "--split", "all"))
    assert "expected 0 (no) or 1 (yes) for each of even, prime" in message


def test_numbers_have_r_squared_and_what_else_is_asked_for(cli, points):
    code, out, err = cli("train --data numbers.npz --epochs 2 --metrics mae --hidden")
    assert code == 0
    assert re.match(r"epoch 1/2  loss .*  r2 .*  mae .*  val_loss .*  val_r2 .*  val_mae .*  lr 0.001  ", err)
    data = load("numbers.npz").test
    found = gpunn.load("runs/numbers/model.safetensors").evaluate(data.X, data.y, metrics=("r2", "mae"))
    assert f"R² {found['r2']:.4f}, mae {found['mae']:.4f}" in out
    assert f"R²        {found['r2']:.4f}" in cli("evaluate runs/numbers/model.safetensors")[1]


def test_program_prints_dropout_clipping_and_schedule(cli):
    _, out, _ = cli("program --dropout 0.3 --clip-norm 1 --schedule step:10 --warmup 3 --optimizer adamw")
    network = gpunn.Sequential(
        [gpunn.Dense(128, "relu"), gpunn.Dropout(0.3), gpunn.Dense(10)], input_shape=784, seed=0
    )
    optimizer = gpunn.AdamW(clip_norm=1, schedule=gpunn.Warmup(3, gpunn.StepDecay(10)))
    table, rates = out.rsplit("\n", 2)[:2]
    assert table == str(network.program("cross_entropy", optimizer))
    assert {"dropout", "clipping", "schedule"} <= set(re.findall(r"\w+", table))
    assert rates == "rates: the learning rate 0.001 rises for 3 epochs, then times 0.1 every 10 epochs"


# ---------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--dropout 1.5", "--dropout is 1.5, expected at least 0 and below 1"),
        ("--dropout nan", "--dropout is nan"),
        ("--dropout 0.5 --hidden", "--dropout comes after hidden layers"),
        ("--schedule cosin", "unknown --schedule 'cosin': did you mean 'cosine'?"),
        ("--schedule step", "--schedule step has no number; expected step:EVERY[:FACTOR], such as step:10"),
        ("--schedule step:1:1:1", "--schedule step:1:1:1 has 3 numbers"),
        ("--schedule step:x", "--schedule step:x: 'x' is no number"),
        ("--schedule exponential:2", "--schedule exponential:2: Exponential: rate is 2.0"),
        ("--warmup 30", "--warmup is 30, expected at least 0 and fewer than the 30 epochs"),
        ("--warmup -1", "--warmup is -1"),
        ("--early-stopping --validation-fraction 0", "--early-stopping watches val_loss"),
        ("--reduce-on-plateau --validation-fraction 0", "give a --validation-fraction above 0"),
        ("--validation-fraction 1", "validation_fraction is 1.0, expected from 0 to below 1"),
        ("--validation-fraction -0.1", "validation_fraction is -0.1"),
        ("--early-stopping --validation-fraction nan", "validation_fraction is nan"),
        ("--target a --target b", "target is ('a', 'b'), but the data set 'digits' has its own"),
        ("--target a 'b'", """unexpected argument "'b'": several columns are written --target a --target """),
        ("--early-stopping -1", "--early-stopping is -1, expected a whole number of at least 0"),
        ("--checkpoint-every -1", "--checkpoint-every is -1"),
        ("--keep 2", "--keep says how many of the runs of --checkpoint-every are kept"),
        ("--class-weight balance", "unknown --class-weight 'balance': did you mean 'balanced'?"),
        ("--nesterov", "Adam has no --nesterov"),
        ("--nesterov --optimizer sgd", "--nesterov needs a --momentum above 0"),
        ("--rho 0.5", "Adam has no --rho"),
        ("--weight-decay -1", "weight_decay is -1.0, expected at least 0"),
        ("--clip-norm 0", "clip_norm is 0.0, expected more than 0"),
        ("--metrics acuracy", "unknown metric 'acuracy': did you mean 'accuracy'?"),
        ("--metrics r2", "metric 'r2' is about numbers, the targets are class labels"),
    ],
)
def test_a_wrong_option_is_one_line_that_says_what_to_do(cli, options, message):
    assert message in error_of(cli(f"train --data digits {options}"))
    assert list(Path().iterdir()) == []


def test_class_weights_mean_nothing_for_numbers(cli, points):
    message = error_of(cli("train --data numbers.npz --class-weight balanced"))
    assert "--class-weight is about classes, or answers of yes or no" in message

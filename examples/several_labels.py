"""Several labels for each example: four yes-or-no questions about real handwritten digits.

    python examples/several_labels.py [epochs]

A network with dropout learns them by AdamW under a cosine schedule, with class weights against the rarer
answers, stops early and keeps its best weights; TensorBoard (pip install tensorboardX tensorboard) shows its
curves:

    tensorboard --logdir runs/several_labels

From a shell the same is

    gpunn train --data digit-traits --hidden 128 64 --weights he_normal --dropout 0.2 --optimizer adamw \\
        --lr 0.002 --weight-decay 0.01 --schedule cosine --warmup 2 --early-stopping 10 \\
        --validation-fraction 0.2 --class-weight balanced --metrics f1 --tensorboard runs/several_labels \\
        --epochs 60
"""

from __future__ import annotations

import sys

import gpunn
from gpunn.data import hold_out, load_digit_traits


def main(epochs: int = 60, board: str = "runs/several_labels") -> float:
    traits = load_digit_traits()
    X, y, X_valid, y_valid = hold_out(traits.train.X, traits.train.y, 0.2, seed=0)
    net = gpunn.Sequential(
        [
            gpunn.Dense(128, activation="relu", weights="he_normal"),
            gpunn.Dropout(0.2),
            gpunn.Dense(64, activation="relu", weights="he_normal"),
            gpunn.Dropout(0.2),
            gpunn.Dense(y.shape[1], activation="sigmoid"),
        ],
        input_shape=X.shape[1],
        seed=0,
    )
    stopping = gpunn.EarlyStopping(monitor="val_loss", patience=10)
    history = net.fit(
        X,
        y,
        loss="binary_cross_entropy",
        optimizer=gpunn.AdamW(
            lr=0.002, weight_decay=0.01, schedule=gpunn.Warmup(2, gpunn.Cosine(max(1, epochs - 2)))
        ),
        batch_size=32,
        epochs=epochs,
        validation_data=(X_valid, y_valid),
        metrics=("accuracy", "f1"),
        class_weight="balanced",
        callbacks=[stopping, gpunn.TensorBoard(board)],
    )
    print(f"stopped after {len(history)} epochs, best after epoch {stopping.best_epoch}")

    found = net.evaluate(traits.test.X, traits.test.y, metrics=("accuracy", "f1", "confusion"))
    print(f"all four right: {100 * found['accuracy']:.1f} % of {len(traits.test.X)} test digits")
    for name, ((no_no, no_yes), (yes_no, yes_yes)) in zip(
        traits.target_names, found["confusion"], strict=True
    ):
        print(f"{name:<14} {yes_yes} of {yes_no + yes_yes} yes and {no_no} of {no_no + no_yes} no are right")
    return found["f1"]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))

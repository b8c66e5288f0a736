"""Getting examples into arrays: IDX, CSV and NPZ files, the digits of scikit-learn and MNIST.

:func:`load` is the one door: it takes the name of a data set or the path of a file. Every reader
gives a :class:`Dataset`, whose sides are :class:`Split` objects: ``X`` with one example a row, ``y``
with the targets. :class:`Standardizer` and :class:`OneHot` turn raw features and labels into what a
network learns from.

>>> from gpunn.data import load
>>> digits = load("digits")
>>> digits.train.X.shape, digits.test.X.shape
((1437, 64), (360, 64))
"""

from gpunn.data.datasets import load, load_digit_traits, load_digits, load_mnist
from gpunn.data.encode import OneHot, Standardizer
from gpunn.data.idx import read_idx, write_idx
from gpunn.data.npz import read_npz
from gpunn.data.splits import Dataset, Split, hold_out
from gpunn.data.table import read_csv

__all__ = [
    "Dataset",
    "OneHot",
    "Split",
    "Standardizer",
    "hold_out",
    "load",
    "load_digit_traits",
    "load_digits",
    "load_mnist",
    "read_csv",
    "read_idx",
    "read_npz",
    "write_idx",
]

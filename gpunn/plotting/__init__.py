"""Pictures: of training, of what a network has learnt and gets wrong, and of the functions it is made of.

Matplotlib (``pip install matplotlib``) is imported when a picture is drawn, not before, and pyplot's
global state is left alone: each function returns a :class:`matplotlib.figure.Figure` of its own, white,
made for print, and writes it to ``path`` where one is given.
"""

from __future__ import annotations

from .classes import confusion_matrix
from .curves import compare_runs, learning_curves
from .figure import COLOURS, DARK, LIGHT, MissingMatplotlibError  # noqa: F401
from .figure import apart as _apart  # noqa: F401
from .functions import activation_curves, fitted_curves
from .gradients import gradient_magnitudes
from .images import misclassified, weight_images
from .surface import error_surface

__all__ = [
    "MissingMatplotlibError",
    "activation_curves",
    "compare_runs",
    "confusion_matrix",
    "error_surface",
    "fitted_curves",
    "gradient_magnitudes",
    "learning_curves",
    "misclassified",
    "weight_images",
]

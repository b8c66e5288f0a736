"""Which devices the tests run on."""

from __future__ import annotations

import os

import pytest

import gpunn
from gpunn.device import BACKENDS, backend_for

#: Those that have to be there; a device that is not asked for may be missing.
WANTED = os.environ.get("GPUNN_TEST_DEVICES", "").split(",") if os.environ.get("GPUNN_TEST_DEVICES") else []
DEVICES = [
    pytest.param(name, marks=pytest.mark.gpu) if name == "cuda" else name for name in WANTED or list(BACKENDS)
]

#: Where tests of the CUDA backend itself run.
PLACES = ["stand-in", *(p for p in DEVICES if getattr(p, "values", None) == ("cuda",))]


def there(name):
    """The name of a device that works; else a visible skip, or an error where it was asked for."""
    try:
        backend_for(name)
    except gpunn.GpunnError as error:
        if name in WANTED:
            pytest.fail(f"GPUNN_TEST_DEVICES asks for {name!r}: {error}")
        pytest.skip(f"{name}: {error}")
    return name

"""One ``device`` fixture for every backend, and data that several files use."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import settings

import gpunn
from gpunn.device import BACKENDS, backend_for

# Where nobody looks at once, the same examples each time: a new one that fails is for people to find.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

WANTED = os.environ.get("GPUNN_TEST_DEVICES")


@pytest.fixture(scope="session", params=WANTED.split(",") if WANTED else list(BACKENDS))
def device(request):
    """Each backend's name; a missing one is a visible skip, unless GPUNN_TEST_DEVICES asks for it."""
    try:
        backend_for(request.param)
    except gpunn.GpunnError as error:
        if WANTED:
            pytest.fail(f"GPUNN_TEST_DEVICES asks for {request.param!r}: {error}")
        pytest.skip(f"{request.param}: {error}")
    return request.param


@pytest.fixture
def backend(device):
    return backend_for(device)


@pytest.fixture
def rng():
    return np.random.default_rng(20)

"""One ``device`` fixture for every backend, and data that several files use."""

from __future__ import annotations

import os

import numpy as np
import pytest
from devices import DEVICES, there
from hypothesis import settings

from gpunn.device import backend_for

# Where nobody looks at once, the same examples each time: a new one that fails is for people to find.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session", params=DEVICES)
def device(request):
    """Each backend's name; a missing one is a visible skip, unless GPUNN_TEST_DEVICES asks for it."""
    return there(request.param)


@pytest.fixture
def backend(device):
    return backend_for(device)


@pytest.fixture
def rng():
    return np.random.default_rng(20)

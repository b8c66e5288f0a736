"""One ``device`` fixture for every backend, and data that several files use."""

from __future__ import annotations

import os

import numpy as np
import pytest
from devices import DEVICES, there
from host_device import host_backend
from hypothesis import settings

from gpunn.device import _LOADED, backend_for

# Where nobody looks at once, the same examples each time: a new one that fails is for people to find.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """Each backend's name; a missing one is a visible skip, unless GPUNN_TEST_DEVICES asks for it."""
    if request.param == "cuda_host":
        monkeypatch.setattr("gpunn.device.why_not", lambda number=0: None)
        monkeypatch.setitem(_LOADED, "cuda:0, float32", host_backend())
        return "cuda"
    return there(request.param)


def pytest_ignore_collect(collection_path, config):
    """``-m cuda_host`` looks into the files that name it: to collect all takes longer than they do."""
    if config.option.markexpr == "cuda_host" and collection_path.is_file():
        return "cuda_host" not in collection_path.read_text(encoding="utf-8", errors="replace") or None
    return None


@pytest.fixture
def backend(device):
    return backend_for(device)


@pytest.fixture
def rng():
    return np.random.default_rng(20)

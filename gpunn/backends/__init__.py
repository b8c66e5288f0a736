"""Backends run programs: each module here is one, imported on first use (see :mod:`gpunn.device`)."""

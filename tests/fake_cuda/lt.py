"""cuBLASLt's calls over the host's memory: column-major layouts, transposes, α, β by address, epilogues."""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace

import numpy as np


class cuBLASLtError(Exception):
    pass


class MatmulDescAttribute(IntEnum):
    POINTER_MODE = 2
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8


class PointerMode(IntEnum):
    HOST = 0
    DEVICE = 1


class Epilogue(IntEnum):
    DEFAULT = 1
    BIAS = 4
    RELU_BIAS = 6


class MatmulPreferenceAttribute(IntEnum):
    MAX_WORKSPACE_BYTES = 1


KINDS = {0: "float32", 1: "float64"}
SCALES = {68: "float32", 77: "float32", 70: "float64"}


class FakeCublasLt:
    """Stands where ``nvmath.bindings.cublasLt`` does.

    Parameters
    ----------
    cupy : FakeCupy
        Whose memory the addresses are of.
    epilogues : bool
        Whether the heuristic has an algorithm for them.
    loses_nan : bool
        Whether the ReLU epilogue makes 0 of NaN.
    """

    cuBLASLtError = cuBLASLtError
    MatmulDescAttribute = MatmulDescAttribute
    MatmulPreferenceAttribute = MatmulPreferenceAttribute
    PointerMode = PointerMode
    Epilogue = Epilogue
    matmul_heuristic_result_dtype = np.dtype(
        [
            ("algo", [("data_", "<u8", (8,))]),
            ("workspace_size", "<u8"),
            ("state", "<i4"),
            ("waves_count", "<f4"),
            ("reserved", "<i4", (4,)),
        ]
    )

    def __init__(self, cupy, epilogues=True, loses_nan=False):
        self.cupy, self.epilogues, self.loses_nan = cupy, epilogues, loses_nan
        self.objects = {}
        self.count = 0
        self.products = 0
        self.precisions = set()

    def _keep(self, made):
        self.count += 1
        self.objects[self.count] = made
        return self.count

    def create(self):
        return self._keep("handle")

    def get_matmul_desc_attribute_dtype(self, attribute):
        kinds = {MatmulDescAttribute.BIAS_POINTER: np.int64, MatmulDescAttribute.EPILOGUE: np.uint32}
        return kinds.get(attribute, np.int32)

    def get_matmul_preference_attribute_dtype(self, attribute):
        return np.uint64

    def matmul_desc_create(self, compute, scale):
        defaults = {MatmulDescAttribute.EPILOGUE: Epilogue.DEFAULT}
        return self._keep(SimpleNamespace(compute=compute, scale=KINDS[scale], values=defaults))

    def matmul_desc_set_attribute(self, description, attribute, buffer, size):
        attribute = MatmulDescAttribute(attribute)
        kind = np.dtype(self.get_matmul_desc_attribute_dtype(attribute))
        assert size == kind.itemsize
        self.objects[description].values[attribute] = int(_host(buffer, kind)[0])

    def matmul_desc_destroy(self, description):
        del self.objects[description]

    def matrix_layout_create(self, kind, rows, columns, leading):
        assert leading >= rows, f"a leading dimension of {leading} is less than {rows} rows"
        return self._keep(SimpleNamespace(kind=KINDS[kind], rows=rows, columns=columns, leading=leading))

    def matrix_layout_destroy(self, layout):
        del self.objects[layout]

    def matmul_preference_create(self):
        return self._keep("preference")

    def matmul_preference_set_attribute(self, preference, attribute, buffer, size):
        assert size == 8

    def matmul_preference_destroy(self, preference):
        del self.objects[preference]

    def matmul_algo_get_heuristic(self, handle, description, a, b, c, d, preference, wanted, results, found):
        values = self.objects[description].values
        if values[MatmulDescAttribute.EPILOGUE] != Epilogue.DEFAULT and not self.epilogues:
            raise cuBLASLtError("CUBLAS_STATUS_NOT_SUPPORTED")
        self._shapes(description, a, b, d)
        _host(found, np.dtype(np.int32))[0] = 1
        _host(results, np.dtype(np.uint64))[0] = 42

    def _shapes(self, description, a, b, d):
        """(m, n, k), checked as the library checks them."""
        op, a, b, d = (self.objects[name] for name in (description, a, b, d))
        m, k = (a.columns, a.rows) if op.values[MatmulDescAttribute.TRANSA] else (a.rows, a.columns)
        k2, n = (b.columns, b.rows) if op.values[MatmulDescAttribute.TRANSB] else (b.rows, b.columns)
        if k != k2 or (d.rows, d.columns) != (m, n):
            raise cuBLASLtError(f"CUBLAS_STATUS_INVALID_VALUE: {m}×{k}, {k2}×{n}, {d.rows}×{d.columns}")
        return m, n, k

    def matmul(
        self, handle, description, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algorithm,
        workspace, size, stream,
    ):  # fmt: skip
        assert self.objects[handle] == "handle"
        assert _host(algorithm, np.dtype(np.uint64))[0] == 42
        # What the heuristic assumes unless told otherwise; pooled memory and slots keep to it.
        assert not [at for at in (a, b, c, d, workspace) if at % 256], "an operand is not aligned"
        self._shapes(description, a_layout, b_layout, d_layout)
        op = self.objects[description]
        assert op.values[MatmulDescAttribute.POINTER_MODE] == PointerMode.DEVICE
        assert op.scale == SCALES[op.compute]
        values = dict(op.values)
        layouts = [self.objects[layout] for layout in (a_layout, b_layout, c_layout, d_layout)]

        def multiply():
            self.products += 1
            self.precisions.add(op.compute)
            left, right, old, out = (
                self._matrix(at, layout) for at, layout in zip((a, b, c, d), layouts, strict=True)
            )
            left = left.T if values[MatmulDescAttribute.TRANSA] else left
            right = right.T if values[MatmulDescAttribute.TRANSB] else right
            scale, keep = (self.cupy.at(at, (1,), op.scale)[0] for at in (alpha, beta))
            # β = 0 does not read C, which may hold anything.
            with np.errstate(all="ignore"):
                result = scale * (left @ right) + (keep * old if keep else 0)
                if values[MatmulDescAttribute.EPILOGUE] != Epilogue.DEFAULT:
                    at = values[MatmulDescAttribute.BIAS_POINTER]
                    result = result + self.cupy.at(at, (len(result),), layouts[3].kind)[:, None]
            if values[MatmulDescAttribute.EPILOGUE] == Epilogue.RELU_BIAS:
                keeps = result > 0 if self.loses_nan else ~(result <= 0)
                result = np.where(keeps, result, 0)
            out[...] = result

        multiply.addresses = (a, b, c, d, alpha, beta, workspace)
        self.cupy.streams[stream].do(multiply)

    def _matrix(self, address, layout):
        strides = (1, layout.leading)
        return self.cupy.at(address, (layout.rows, layout.columns), layout.kind, strides)


def _host(address, kind):
    """One number of the host at an address."""
    import ctypes

    return np.frombuffer((ctypes.c_char * kind.itemsize).from_address(int(address)), kind)

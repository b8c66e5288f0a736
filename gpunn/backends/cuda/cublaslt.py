"""Matrix products by cuBLASLt: planned once, then calls that only name addresses.

The library is column-major: a row-major matrix is its transpose there, so that out = left right becomes
outᵀ = rightᵀ leftᵀ: the operands swap and no element moves. α and β are read from device memory, since
numbers of the host would be frozen in a captured step. TF32 only by ``precision="tf32"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ...errors import DeviceError

__all__ = ["CublasLt", "Matmul", "Plan", "bindings"]

#: What the library may use beside the operands: what NVIDIA recommends for Hopper.
WORKSPACE = 32 << 20

#: cudaDataType and cublasComputeType_t, which nvmath's bindings leave as numbers.
KIND = {"float32": 0, "float64": 1}
COMPUTE = {("float32", "float32"): 68, ("float32", "tf32"): 77, ("float64", "float32"): 70}
COMPUTE["float64", "tf32"] = COMPUTE["float64", "float32"]

EPILOGUES = {"": "DEFAULT", "bias": "BIAS", "relu": "RELU_BIAS"}


def bindings() -> Any:
    """nvmath's bindings of cuBLASLt, or an error that says what to install."""
    try:
        return import_module("nvmath.bindings.cublasLt")
    except ImportError as error:
        raise DeviceError(
            f"device 'cuda' needs nvmath-python for matrix products: {error}; pip install gpunn[cuda13], or "
            "gpunn[cuda12] with a driver for CUDA 12"
        ) from error


@dataclass(frozen=True)
class Matmul:
    """out = α left right + β out, row-major: (rows × inner) times (inner × columns).

    Attributes
    ----------
    left_transposed, right_transposed
        Whether the operand lies in memory as its transpose.
    epilogue
        ``""``, ``"bias"`` (+ b, one for each column) or ``"relu"`` (max(0, + b)).
    """

    rows: int
    columns: int
    inner: int
    dtype: str
    left_transposed: bool = False
    right_transposed: bool = False
    epilogue: str = ""
    precision: str = "float32"

    def __str__(self) -> str:
        how = f", {self.epilogue}" if self.epilogue else ""
        return f"{self.rows}×{self.inner} times {self.inner}×{self.columns} in {self.dtype}{how}"


class Plan:
    """A product ready to be called: descriptors, and the algorithm that the heuristic put first."""

    def __init__(self, library: Any, description: int, layouts: tuple[int, ...], algorithm: Any) -> None:
        self._library = library
        self.description, self.layouts, self.algorithm = description, layouts, algorithm

    def __del__(self) -> None:
        for layout in set(self.layouts):
            self._library.matrix_layout_destroy(layout)
        self._library.matmul_desc_destroy(self.description)


class CublasLt:
    """The library on one device.

    Parameters
    ----------
    library
        nvmath's bindings, or what stands in for them.
    workspace : int
        The address of :data:`WORKSPACE` bytes on the device.
    """

    def __init__(self, library: Any, workspace: int) -> None:
        self._library = library
        self._workspace = workspace
        self._handle = library.create()

    def plan(self, product: Matmul, bias: int = 0) -> Plan | None:
        """A plan; None where the library has no algorithm for it (an epilogue in float64, for instance).

        ``bias`` is the address of b, which belongs to the plan.
        """
        lt = self._library
        kind = KIND[product.dtype]
        description = lt.matmul_desc_create(COMPUTE[product.dtype, product.precision], kind)
        # What is left of a column-major product is what is right of the row-major one.
        self._set(description, "TRANSA", int(product.right_transposed))
        self._set(description, "TRANSB", int(product.left_transposed))
        self._set(description, "POINTER_MODE", int(lt.PointerMode.DEVICE))
        self._set(description, "EPILOGUE", int(lt.Epilogue[EPILOGUES[product.epilogue]]))
        if product.epilogue:
            self._set(description, "BIAS_POINTER", bias)
        m, n, k = product.columns, product.rows, product.inner
        a = (k, m) if product.right_transposed else (m, k)
        b = (n, k) if product.left_transposed else (k, n)
        layouts = tuple(lt.matrix_layout_create(kind, *shape, shape[0]) for shape in (a, b, (m, n)))
        algorithm = self._algorithm(description, layouts)
        plan = Plan(lt, description, layouts, algorithm)
        return None if algorithm is None else plan

    def _set(self, description: int, name: str, value: int) -> None:
        attribute = self._library.MatmulDescAttribute[name]
        word = np.array([value], self._library.get_matmul_desc_attribute_dtype(attribute))
        self._library.matmul_desc_set_attribute(description, int(attribute), word.ctypes.data, word.nbytes)

    def _algorithm(self, description: int, layouts: tuple[int, ...]) -> Any:
        lt = self._library
        preference = lt.matmul_preference_create()
        try:
            attribute = lt.MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES
            room = np.array([WORKSPACE], lt.get_matmul_preference_attribute_dtype(attribute))
            lt.matmul_preference_set_attribute(preference, int(attribute), room.ctypes.data, room.nbytes)
            found = np.zeros(1, lt.matmul_heuristic_result_dtype)
            count = np.zeros(1, np.int32)
            a, b, out = layouts
            try:
                lt.matmul_algo_get_heuristic(
                    self._handle,
                    description,
                    a,
                    b,
                    out,
                    out,
                    preference,
                    1,
                    found.ctypes.data,
                    count.ctypes.data,
                )
            except lt.cuBLASLtError:  # "not supported" is an answer, not a fault.
                return None
        finally:
            lt.matmul_preference_destroy(preference)
        return found["algo"].copy() if count[0] else None

    def multiply(
        self, plan: Plan, left: int, right: int, out: int, alpha: int, beta: int, stream: int
    ) -> None:
        """Queue a product; all are addresses on the device, α and β of the dtype of the product."""
        a, b, d = plan.layouts
        self._library.matmul(
            self._handle,
            plan.description,
            alpha,
            right,
            a,
            left,
            b,
            beta,
            out,
            d,
            out,
            d,
            plan.algorithm.ctypes.data,
            self._workspace,
            WORKSPACE,
            stream,
        )

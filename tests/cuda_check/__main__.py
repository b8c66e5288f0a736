"""``PYTHONPATH=.:tests python -m cuda_check``: the table of all kernels, and 1 where one is at fault."""

from __future__ import annotations

import sys

from cuda_check.check import main

if __name__ == "__main__":
    sys.exit(main())

"""Ready callbacks: stop early, save the run, lower the learning rate, log to CSV and to TensorBoard.

They are told in the order of the list: what a callback adds to a record is seen by those after it. Put
:class:`Checkpoint` last, so that a file holds what the others have done in that epoch.
"""

from __future__ import annotations

from .base import Callback, WriteError, as_callback
from .board import MissingTensorBoardXError, TensorBoard
from .checkpoints import Checkpoint
from .logs import CSVLog
from .stopping import EarlyStopping, ReduceLROnPlateau

__all__ = [
    "CSVLog",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "MissingTensorBoardXError",
    "ReduceLROnPlateau",
    "TensorBoard",
    "WriteError",
    "as_callback",
]

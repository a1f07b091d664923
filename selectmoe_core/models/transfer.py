"""Copies from a device to the host that do not make the host wait."""

import numpy as np
import torch
from torch import Tensor


class OnItsWay:
    """A tensor that is copied to the host while the device continues."""

    def __init__(self, tensor: Tensor) -> None:
        self._host = tensor
        self._done: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(tensor.device))

    def numpy(self) -> np.ndarray:
        """Wait for the copy, and return it."""
        if self._done is not None:
            self._done.synchronize()
        return np.asarray(self._host.numpy())

"""The state of an unfinished training: saved now and then, whole or not at all, and loaded again."""

import os
import time
from pathlib import Path
from typing import Any

import torch

from severity.core import files

# State is saved when this many seconds have passed since the last time, often enough to lose little, and at least so
# many times as long as saving took: it never costs more than two per cent.
SECONDS = 20.0
TIMES = 50
DIGITS = 64  # of the SHA-256, at the end of the file: torch loads a flipped byte without a word


class Checkpoint:
    """state.pt in the folder of an unfinished run."""

    def __init__(self, folder: Path):
        self.path = folder / "state.pt"
        self.saved, self.took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self.saved > max(SECONDS, TIMES * self.took)

    def save(self, state: dict[str, Any]) -> None:
        """Write a state of tensors and plain values; a reader finds it whole, or the one before."""
        start = time.monotonic()
        with files.replacing(self.path) as temporary:
            torch.save(state, temporary)
            digest = files.sha256(temporary)
            with open(temporary, "ab") as file:
                file.write(digest.encode())  # torch passes over what follows its archive
                file.flush()
                os.fsync(file.fileno())  # The new name must not reach the disk before what it names.
        self.saved = time.monotonic()
        self.took = self.saved - start

    def load(self) -> dict[str, Any] | None:
        """The last state saved, on the CPU; None where there is none, or one that is not as it was saved."""
        try:
            with open(self.path, "rb") as file:
                file.seek(-DIGITS, os.SEEK_END)
                end, said = file.tell(), file.read()
            if files.sha256(self.path, end) != said.decode():
                raise ValueError("its SHA-256 is not the one that was saved with it")
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # A damaged file fails in as many ways as it can be damaged.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"{self.path} is damaged ({reason}): training starts from scratch")
            return None

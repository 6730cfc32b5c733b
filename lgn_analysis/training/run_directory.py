"""A run directory: the configuration, and a checkpoint from which a run resumes to the same bits.

One rename commits a checkpoint, and the history of the run lies in it. ``history.csv`` is a copy for
other programs and ``best.safetensors`` one of an earlier checkpoint's model; both follow the
checkpoint, and resuming the run writes them again if it was killed in between.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lgn_analysis.base.errors import CheckpointError, InvalidInputError
from lgn_analysis.base.files import LOCK_FILE, locked, remains, replacing
from lgn_analysis.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training.config import RunConfig
from lgn_analysis.training.config_files import write_config

CONFIG_FILE: Final = "config.toml"
HISTORY_FILE: Final = "history.csv"
LAST_FILE: Final = "last.safetensors"
BEST_FILE: Final = "best.safetensors"

_FILES: Final = (CONFIG_FILE, HISTORY_FILE, LAST_FILE, BEST_FILE)
_HISTORY: Final = "history"


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run.

    Attributes:
        path: the directory.
    """

    path: Path

    @property
    def last(self) -> Path:
        """The checkpoint from which the run resumes."""
        return self.path / LAST_FILE

    def require(self) -> None:
        """Raise unless the directory is there, with a checkpoint in it."""
        if not self.path.is_dir():
            raise CheckpointError(f"there is no run directory at {self.path}")
        if not self.last.is_file():
            raise CheckpointError(f"there is no checkpoint at {self.last}")

    def refuse_used(self) -> None:
        """Raise unless a run can begin here."""
        # A run that was stopped before its first checkpoint left no more than these, and no training.
        begun = {self.path / CONFIG_FILE, self.path / LOCK_FILE, *remains(self.path, _FILES)}
        if self.path.exists() and not (self.path.is_dir() and begun >= {*self.path.iterdir()}):
            raise InvalidInputError(
                f"{self.path} exists and is not empty; resume it (lgn-analysis train --resume "
                f"{self.path}), or choose another directory"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the directory for this process, and remove what a killed one left half-written.

        Raises:
            InvalidInputError: another process is training here.
        """
        with locked(self.path):
            for path in remains(self.path, _FILES):
                path.unlink(missing_ok=True)
            yield

    def write_config(self, config: RunConfig) -> None:
        """Write the configuration of the run."""
        write_config(config, self.path / CONFIG_FILE)

    def commit(
        self,
        model: LogicNetwork,
        history: pd.DataFrame,
        tensors: Mapping[str, Tensor],
        info: Mapping[str, Any],
        *,
        best: bool,
    ) -> None:
        """Write a checkpoint, the copy of its history, and its model as the best one if it is."""
        text = history.to_csv(index=False).encode()
        stored = torch.from_numpy(np.frombuffer(text, np.uint8).copy())
        write_checkpoint(self.last, model, tensors={**tensors, _HISTORY: stored}, info=info)
        self._write_copies(model, text, info, best)

    def read(self) -> tuple[Checkpoint, pd.DataFrame]:
        """Return the last checkpoint, its tensors those of the optimiser alone, and its history.

        Raises:
            CheckpointError: there is none, or it is not a run's.
        """
        self.require()
        checkpoint = read_checkpoint(self.last)
        if "run" not in checkpoint.info or _HISTORY not in checkpoint.tensors:
            raise CheckpointError(f"{self.last} holds a model and no training state")
        stored = checkpoint.tensors.pop(_HISTORY)
        return checkpoint, pd.read_csv(io.BytesIO(stored.numpy().tobytes()))

    def write_copies(self, checkpoint: Checkpoint, history: pd.DataFrame) -> None:
        """Write again the copies of a checkpoint, in case the run was killed before it wrote them."""
        best = checkpoint.info["best_step"] == checkpoint.info["step"]
        text = history.to_csv(index=False).encode()
        self._write_copies(checkpoint.model, text, checkpoint.info, best)

    def _write_copies(
        self, model: LogicNetwork, history: bytes, info: Mapping[str, Any], best: bool
    ) -> None:
        with replacing(self.path / HISTORY_FILE) as temporary:
            temporary.write_bytes(history)
        if best:
            write_checkpoint(self.path / BEST_FILE, model, info=info)


def read_history(directory: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the history of a run directory as its last checkpoint has it, floats exactly as they were.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    return RunDirectory(Path(directory)).read()[1]

"""Training of logic gate networks: :func:`train` and :func:`resume`."""

from lgn_analysis.training.preflight import Callback
from lgn_analysis.training.run_directory import read_history
from lgn_analysis.training.runs import TrainResult, resume, train

__all__ = ["Callback", "TrainResult", "read_history", "resume", "train"]

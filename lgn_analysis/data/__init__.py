"""Data sets as bits: loading by name, thermometer encoding, fixed splits, and your own arrays."""

from lgn_analysis.data.dataset import Dataset
from lgn_analysis.data.labels import relabelled
from lgn_analysis.data.registry import DATASETS, DatasetSpec, available_datasets, load_dataset
from lgn_analysis.data.thermometer import evenly_spaced_thresholds, thermometer

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetSpec",
    "available_datasets",
    "evenly_spaced_thresholds",
    "load_dataset",
    "relabelled",
    "thermometer",
]

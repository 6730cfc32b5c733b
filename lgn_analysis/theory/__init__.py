"""What explains a trained network: lemmas, anatomy of the gap, landscapes, comparison, tracking."""

from lgn_analysis.theory.anatomy import AnatomyResult, gap_anatomy
from lgn_analysis.theory.comparison import CompareResult, compare
from lgn_analysis.theory.diagnosis import Diagnosis, diagnose
from lgn_analysis.theory.gradient_alignment import gradient_alignment
from lgn_analysis.theory.hard_lemma import hard_lemma
from lgn_analysis.theory.landscape_result import LandscapeResult
from lgn_analysis.theory.landscapes import landscape
from lgn_analysis.theory.lemma import lemma1
from lgn_analysis.theory.mean_field import MeanField, mean_field
from lgn_analysis.theory.signal_propagation import signal_propagation
from lgn_analysis.theory.signal_result import SignalResult
from lgn_analysis.theory.tracking import ProbeTracker, TrackedCurvature

__all__ = [
    "AnatomyResult",
    "CompareResult",
    "Diagnosis",
    "LandscapeResult",
    "MeanField",
    "ProbeTracker",
    "SignalResult",
    "TrackedCurvature",
    "compare",
    "diagnose",
    "gap_anatomy",
    "gradient_alignment",
    "hard_lemma",
    "landscape",
    "lemma1",
    "mean_field",
    "signal_propagation",
]

"""M5's alignment follows from its frame."""

import math

import numpy as np
import pandas as pd
import pytest

from lgn_analysis.experiments.claims import gradient_alignment as claim
from lgn_analysis.plots.claims import gradient_alignment as drawing
from tests.experiments.synthetic import outcomes, rows, spread

DRAWS = (1, 4, 16, 64, math.inf)


def alignment_frame(*cosines, labels=0.97, exponent=1.0):
    """A cosine for each layer, and signal-to-noise ratios that grow as a power of the draws."""
    made = []
    for row in rows(["gumbel-st"]):
        for layer, cosine in enumerate(cosines):
            for part, limit in (("whole", cosine), ("labels", labels)):
                for draws in DRAWS:
                    value = limit + spread(row["seed"]) / 10
                    snr = 1e-3 * 10.0**layer * draws**exponent
                    made.append(
                        {
                            **row,
                            "layer": layer,
                            "part": part,
                            "draws": float(draws),
                            "means": 32,
                            "cosine": value / math.sqrt(1 + 1 / snr),
                            "snr_squared": snr,
                            "slope": 0.7,
                            "signal": (0.7 / value) ** 2,
                        }
                    )
    return pd.DataFrame(made)


def test_one_layer_that_goes_another_way_decides():
    aligned = alignment_frame(0.95, 0.98)
    assert set(outcomes(claim, aligned).values()) == {"supported"}
    astray = alignment_frame(0.3, 0.98)
    assert outcomes(claim, astray)["M5 alignment"] == "reversed"
    table = claim.effects(astray).set_index("claim")
    assert set(table.loc["M5 alignment", "layer"]) == {0}
    assert table.loc["M5 alignment", "effect"].mean() == pytest.approx(0.3 - 0.9)
    assert outcomes(claim, astray)["M5 labels"] == "supported"
    assert outcomes(claim, alignment_frame(0.95, labels=0.5))["M5 labels"] == "reversed"


def test_a_ratio_that_does_not_grow_as_the_draws_is_found():
    assert outcomes(claim, alignment_frame(0.95, exponent=0.9))["M5 SNR"] == "reversed"


def test_a_mean_that_cannot_be_told_from_zero_decides_nothing():
    frame = alignment_frame(0.95, 0.98)
    frame.loc[np.isinf(frame["draws"]) & (frame["layer"] == 0), "cosine"] = np.nan
    assert outcomes(claim, frame)["M5 alignment"] == "not testable here"
    assert outcomes(claim, frame.assign(signal=-0.1))["M5 labels"] == "not testable here"


def test_the_figure_draws_every_layer_up_to_draws_without_end():
    figure = drawing.figure(alignment_frame(0.5, 0.98))
    cosine, snr, limit = figure.axes
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["last layer", "1 layer before"]
    assert cosine.get_xticklabels()[-1].get_text() == "∞"
    drawn = {c.get_label(): c.lines[0].get_ydata() for c in snr.containers}
    assert drawn["last layer"] == pytest.approx([0.01, 0.04, 0.16, 0.64])
    whole = next(c for c in limit.containers if c.get_label() == "whole gradient")
    assert whole.lines[0].get_ydata() == pytest.approx([0.5, 0.98])

"""The tracker sees the network that is trained, at the steps it should, and changes nothing."""

import pandas as pd
import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.kernels import cpu, select_backend
from lgn_analysis.theory.samples import draw_samples
from tests.hessian.cases import bits, network
from tests.tiny import EVALUATED, assert_same_weights, fresh, short, timeless

TRACE = ["trace", "trace_stderr", "trace_low", "trace_high", "trace_u"]


def test_the_numbers_are_those_of_a_probe():
    model, (x, y) = network(tau=2.0), bits(40)
    tracker = lgn.ProbeTracker((x, y), eigs=4, density=True, seed=3)
    row = {}
    tracker(7, model, row)
    probe = lgn.HessianProbe(model, (x, y))
    dense = torch.linalg.eigvalsh(probe.dense())
    trace = probe.trace(rtol=0.05, seed=3)
    assert [row[name] for name in TRACE[:4]] == [trace.estimate, trace.stderr, *trace.ci]
    assert row["trace_u"] == pytest.approx(4 * row["trace"])
    assert row["lambda_max"] == pytest.approx(float(dense[-1]), rel=1e-3)
    assert row["lambda_min"] == pytest.approx(float(dense[0]), rel=1e-3)
    assert row["negative_mass"] == probe.density(seed=3).negative_mass
    result = tracker.results[7]
    assert (result.step, result.tau, result.trace.estimate) == (7, 2.0, trace.estimate)
    assert result.eigs["value"].tolist() == sorted(result.eigs["value"], reverse=True)
    assert len(result.eigs) == 4
    assert result.vectors is None
    assert tracker.to_frame().to_dict("records") == [{"step": 7, "tau": 2.0, **row}]


def test_vectors_are_kept_where_they_are_wanted():
    tracker = lgn.ProbeTracker(bits(20), trace=False, eigs=2, keep_vectors=True)
    tracker(0, network(), {})
    vectors = tracker.results[0].vectors
    assert torch.allclose(vectors.T @ vectors, torch.eye(2, dtype=torch.float64), atol=1e-6)


def test_signals_are_those_of_the_network_at_that_step_layer_by_layer(separable_data):
    tracker = lgn.ProbeTracker(separable_data, trace=False, signals=6, n_samples=40, seed=2)
    model = fresh()
    history = short(model, separable_data, steps=14, callbacks=[tracker]).history
    last = tracker.results[14].signal
    sample = draw_samples(separable_data, "train", 40, 2)
    wanted = lgn.signal_propagation(model, sample, batches=6, batch_size=40, seed=2)
    pd.testing.assert_frame_equal(last.layers, wanted.layers)
    frame = tracker.signal_frame()
    assert frame[["step", "layer"]].to_numpy().tolist() == [
        [step, layer] for step in (0, 7, 14) for layer in (0, 1)
    ]
    row = history.iloc[-1]
    assert row["below_eps"] == pytest.approx(wanted.layers["below_eps"].mean())
    ends = [row["gradient_rms_first"], row["gradient_rms_last"]]
    assert ends == wanted.layers["gradient_rms"].tolist()
    assert "signals of 6 batches" in repr(tracker)
    assert lgn.ProbeTracker(separable_data).signal_frame().empty


def test_noise_and_tau_reach_the_probe():
    model, data = network(), bits(40)
    noise, at_own_tau = lgn.GumbelNoise(tau=0.5, draws=2), {}
    lgn.ProbeTracker(data, seed=1)(0, model, at_own_tau)
    for options in ({"noise": noise}, {"tau": 0.5}):
        row = {}
        tracker = lgn.ProbeTracker(data, seed=1, **options)
        tracker(0, model, row)
        probe = lgn.HessianProbe(model, data, **options)
        assert row["trace"] == probe.trace(rtol=0.05, seed=1).estimate
        assert tracker.results[0].tau == 0.5
        assert row["trace"] != pytest.approx(at_own_tau["trace"], rel=0.01)


@pytest.mark.parametrize(
    ("schedule", "probed"),
    [
        ({}, EVALUATED),
        ({"every": 2}, EVALUATED[::2]),
        ({"every": None, "at": [14, 30]}, [14, 30]),
        ({"every": 4, "at": [7, 8]}, [0, 7, 28]),  # nothing is evaluated at step 8
    ],
)
def test_the_schedule_and_the_rows_of_the_history(separable_data, schedule, probed):
    tracker = lgn.ProbeTracker(separable_data, n_samples=20, **schedule)
    history = short(fresh(), separable_data, callbacks=[tracker]).history
    assert [*tracker.results] == probed
    for split in ("val", "test"):
        rows = history[history["split"] == split].set_index("step")
        assert rows.index[rows["trace"].notna()].tolist() == probed
        known = tracker.to_frame().set_index("step")
        pd.testing.assert_frame_equal(rows.loc[probed, TRACE], known[TRACE])
    assert tracker.to_frame()["step"].tolist() == probed


@pytest.mark.parametrize("relaxation", [lgn.Soft(), lgn.GumbelST()], ids=lambda r: r.name)
def test_training_gives_the_same_bits_with_a_tracker_and_without(separable_data, relaxation):
    plain, tracked = fresh(relaxation), fresh(relaxation)
    assert select_backend(plain.device, plain.backend) is cpu
    state = torch.random.get_rng_state()
    without = short(plain, separable_data)
    noise = lgn.GumbelNoise(draws=2)
    tracker = lgn.ProbeTracker(
        separable_data, every=3, eigs=2, density=True, signals=6, n_samples=20, noise=noise
    )
    with_ = short(tracked, separable_data, callbacks=[tracker])
    assert_same_weights(plain, tracked)
    added = [*TRACE, "lambda_max", "lambda_min", "negative_mass"]
    added += ["below_eps", "gradient_rms_first", "gradient_rms_last"]
    assert [*with_.history.columns][-11:] == added
    pd.testing.assert_frame_equal(
        timeless(with_.history).drop(columns=added), timeless(without.history)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert tracker.to_frame()["trace"].nunique() == 2


def test_a_plain_loop_that_draws_from_torchs_generator_is_left_alone_too():
    # Without a draw the noise's key comes from torch's own generator, as dropout's does.
    def trained(tracker):
        torch.manual_seed(0)
        model, (x, y) = network().train(), bits(20)
        optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
        for step in range(4):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            if tracker is not None:
                tracker(step, model, {})
            optimiser.step()
        assert model.training
        return model

    assert_same_weights(trained(None), trained(lgn.ProbeTracker(bits(20), eigs=2)))


def test_a_resumed_run_goes_on_with_the_same_tracker_and_with_a_new_one(separable_data, tmp_path):
    def tracker(**schedule):
        return lgn.ProbeTracker(separable_data, n_samples=20, **schedule)

    whole = short(fresh(), separable_data, callbacks=[tracker(every=2)]).history
    used = tracker(every=2)
    short(fresh(), separable_data, steps=14, out=tmp_path / "a", callbacks=[used])
    _, result = lgn.resume(
        tmp_path / "a", data=separable_data, steps=30, callbacks=[used], progress=False
    )
    assert [*used.results] == EVALUATED[::2]
    pd.testing.assert_frame_equal(timeless(result.history), timeless(whole))

    short(fresh(), separable_data, steps=14, out=tmp_path / "b")
    new = tracker(every=None, at=[0, 28])
    _, result = lgn.resume(
        tmp_path / "b", data=separable_data, steps=30, callbacks=[new], progress=False
    )
    assert [*new.results] == [28]
    rows = result.history.dropna(subset="trace")
    assert rows["step"].tolist() == [28, 28]
    assert rows["trace"].iloc[0] == whole.query("step == 28")["trace"].iloc[0]
    assert_same_history_but_for_traces(result.history, whole)


def assert_same_history_but_for_traces(first, second):
    pair = [timeless(history).drop(columns=TRACE) for history in (first, second)]
    pd.testing.assert_frame_equal(*pair)


def test_two_trackers_need_prefixes(separable_data):
    first = lgn.ProbeTracker(separable_data, n_samples=20)
    second = lgn.ProbeTracker(separable_data, n_samples=20, noise=lgn.GumbelNoise(draws=2))
    with pytest.raises(InvalidInputError, match="give this tracker a prefix"):
        short(fresh(), separable_data, steps=2, callbacks=[first, second])
    smooth = lgn.ProbeTracker(
        separable_data, n_samples=20, noise=lgn.GumbelNoise(draws=2), prefix="smoothed_"
    )
    history = short(fresh(), separable_data, steps=2, callbacks=[first, smooth]).history
    assert (history["trace"] != history["smoothed_trace"]).all()
    assert "trace" in smooth.to_frame()


def test_it_says_what_it_holds():
    tracker = lgn.ProbeTracker(bits(20), eigs=2, every=2)
    assert tracker.to_frame().empty
    assert [*tracker.to_frame().columns] == ["step", "tau", *TRACE, "lambda_max", "lambda_min"]
    assert "probed steps: none" in repr(tracker)
    tracker(5, network(), {})
    assert "trace, 2 eigenvalues; 20 samples" in repr(tracker)
    assert "probed steps: 5" in repr(tracker)
    assert "lambda_max" in repr(tracker.results[5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trace": False}, "nothing to probe"),
        ({"every": 0}, "every must be at least 1"),
        ({"every": None}, "no evaluation would be probed"),
        ({"eigs": 1}, "0 or at least 2"),
        ({"signals": 3}, "signals must be an even number, at least 6"),
        ({"n_samples": 0}, "n_samples must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        lgn.ProbeTracker(bits(20), **options)

"""The median rule by which hopeless trials are stopped, against a few trials worked out by hand."""

from __future__ import annotations

from sweep_configurations import result

from cusa.config.sweep import Pruning
from cusa.sweep.pruning import best_at, reason_to_stop

RULE = Pruning(startup_trials=3, warmup=0.25)
OTHERS = [
    result("a", 0, [10.0, 20.0, 30.0, 40.0]),
    result("b", 1, [20.0, 15.0, 31.0, 41.0]),
    result("c", 2, [30.0, 35.0, 36.0, 37.0]),
]


def test_a_trial_below_the_median_at_its_epoch_is_stopped():
    """After two epochs the best of the others so far are 20, 20 and 35, so the median is 20."""
    assert reason_to_stop([5.0, 19.9], 4, 0, OTHERS, RULE) == (
        "After 2 of 4 epochs its best r_mean was 19.90, below 20.00, the median of 3 trials at this point."
    )
    assert reason_to_stop([20.0, 1.0], 4, 0, OTHERS, RULE) is None  # its best so far counts, not its last
    assert reason_to_stop([5.0, 20.0], 4, 0, OTHERS, RULE) is None


def test_nothing_is_stopped_before_there_are_enough_trials():
    assert reason_to_stop([0.0, 0.0], 4, 0, OTHERS[:2], RULE) is None


def test_nothing_is_stopped_in_the_warmup_or_at_the_end():
    assert reason_to_stop([], 4, 0, OTHERS, RULE) is None
    assert reason_to_stop([0.0], 8, 0, OTHERS, RULE) is None
    assert reason_to_stop([0.0] * 4, 4, 0, OTHERS, RULE) is None


def test_trials_of_other_lengths_are_compared_at_the_same_share():
    assert best_at(OTHERS[0], 0, 0.5) == 20.0
    assert best_at(OTHERS[0], 0, 5 / 8) == 30.0
    assert reason_to_stop([0.0] * 4, 8, 0, OTHERS, RULE) is not None


def test_trials_that_have_not_come_as_far_do_not_count():
    stopped = result("d", 3, [90.0])
    assert stopped.state == "stopped"
    assert best_at(stopped, 0, 0.25) == 90.0
    assert best_at(stopped, 0, 0.5) is None
    assert reason_to_stop([0.0, 0.0], 4, 0, [*OTHERS[:2], stopped], RULE) is None


def test_a_seed_is_compared_with_the_same_seed():
    others = [result(name, number, [50.0] * 4, [10.0] * 4) for number, name in enumerate("abc")]
    assert reason_to_stop([20.0], 4, 0, others, RULE) is not None
    assert reason_to_stop([20.0], 4, 1, others, RULE) is None
    assert best_at(others[0], 2, 0.5) is None


def test_repeated_trials_count_once():
    repeated = [each.model_copy(update={"same_as": "a"}) for each in OTHERS]
    assert reason_to_stop([0.0, 0.0], 4, 0, repeated, RULE) is None

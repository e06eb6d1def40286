"""One step on made-up data."""

from __future__ import annotations

import pytest
import torch
from training_runs import configured

from cusa.training.trial import trial_step


@pytest.mark.parametrize("experiment", ["contrastive", "cusa"])
@pytest.mark.parametrize("settings", [{}, {"chunk_size": 3}])
def test_the_trial_step_is_a_complete_step(tiny_configuration, experiment, settings, monkeypatch):
    taken = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a, **k: (taken.append(1), step(self, *a, **k))[1])
    trial_step(configured(tiny_configuration, experiment, **settings), torch.device("cpu"))
    assert taken == [1]

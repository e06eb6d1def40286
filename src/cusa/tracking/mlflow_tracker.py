"""MLflow. Its own environment variables are obeyed: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ..."""

from __future__ import annotations

import os
import time
from typing import Any

from cusa.tracking.tracker import Ending, TrackedRun, Values

IDENTITY = "cusa.training"
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
LONGEST_VALUE = 500  # characters that a server takes for a parameter


class MlflowTracker:
    """A run of MLflow."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    def log(self, step: int, values: Values) -> None:
        """Log numbers at a step, in one request."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(
            self.run_id, metrics=[Metric(name, float(value), now, step) for name, value in values.items()]
        )

    def finish(self, status: Ending, summary: Values) -> None:
        """Write the summary as metrics that end in `best`, and end."""
        if summary:
            self.log(0, summary)
        self.client.set_terminated(self.run_id, STATUS[status])


def start(run: TrackedRun) -> MlflowTracker:
    """Start a run, or continue the one of this training."""
    from mlflow import MlflowClient
    from mlflow.entities import Param, RunTag

    client = MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.project)
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found is not None else client.create_experiment(name)
    if run.continued:
        earlier = client.search_runs([experiment], f"tags.`{IDENTITY}` = '{run.identity}'", max_results=1)
        if earlier:
            run_id = earlier[0].info.run_id
            client.update_run(run_id, status="RUNNING")
            return MlflowTracker(client, run_id)
    created = client.create_run(experiment, run_name=run.name).info.run_id
    parameters = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in run.settings().items()]
    for first in range(0, len(parameters), 100):  # a request takes a hundred parameters
        client.log_batch(created, params=parameters[first : first + 100])
    client.log_batch(created, tags=[RunTag(IDENTITY, run.identity), RunTag("experiment", run.group)])
    return MlflowTracker(client, created)

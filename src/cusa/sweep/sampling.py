"""The values of the next trial, drawn by Optuna, and Optuna's own file of the study.

The trials' JSON files are the source of truth: a study is built from them in memory for each draw, so it always agrees
with the workflow's results, also after a kill. The storage is written from them after each trial, for optuna-dashboard
and for notebooks.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from cusa.common.files import atomic_file
from cusa.config.sweep import Range, Sweep
from cusa.errors import ConfigurationError
from cusa.sweep.study import Study, TrialFolder

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STORAGE = "optuna.journal"
ATTEMPTS = 30  # draws until one is new; after these, a small space counts as used up


def next_values(sweep: Sweep, study: Study, number: int) -> dict[str, Any]:
    """The values of a trial before which `number` others have begun; new ones, if the space has any that are left.

    They depend on the sweep, on `number`, and on the trials in the folder of the study.
    """
    begun = study.begun
    tried = [values for folder in begun for _, values in [folder.values or (0, {})]]
    values: dict[str, Any] = {}
    for attempt in range(ATTEMPTS):
        optuna_study = _in_memory(sweep, _seed(sweep, number, attempt))
        optuna_study.add_trials(_frozen_trials(sweep, begun))
        trial = optuna_study.ask(_distributions(sweep))
        values = {key: _decoded(trial.params[key], sweep.space[key]) for key in sweep.space}
        if values not in tried:
            break
    return values


def write_storage(sweep: Sweep, study: Study) -> None:
    """Write the trials as a storage of Optuna: JournalStorage(JournalFileBackend({study}/optuna.journal))."""
    optuna = _optuna()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with atomic_file(study.folder / STORAGE) as temporary:
        optuna_study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(temporary))),
            study_name=study.folder.name,
            direction="maximize",
        )
        optuna_study.add_trials(_frozen_trials(sweep, study.begun))
        temporary.touch()


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise ConfigurationError(
            "Configuration key `sweep.method`: random and tpe need the package optuna, which is not installed; "
            "pip install 'cusa[sweep]', or set sweep.method: grid."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _in_memory(sweep: Sweep, seed: int) -> OptunaStudy:
    optuna = _optuna()
    if sweep.method == "random":
        sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        # Trials that run at the same time count as bad ones, so that they are not drawn side by side.
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return optuna.create_study(direction="maximize", sampler=sampler)  # type: ignore[no-any-return]


def _seed(sweep: Sweep, number: int, attempt: int) -> int:
    """A seed of one draw: each job is a new process, so one seed for all would draw the same values again."""
    text = f"{sweep.draw_seed} {number} {attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _distributions(sweep: Sweep) -> dict[str, BaseDistribution]:
    """The distributions by key, in alphabetical order, so that the order of keys in a file does not matter."""
    return {key: _distribution(sweep.space[key]) for key in sorted(sweep.space)}


def _distribution(values: list[Any] | Range) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, list):
        return CategoricalDistribution([_encoded(value) for value in values])
    if values.is_whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    step = None if values.step is None else float(values.step)
    return FloatDistribution(float(values.low), float(values.high), log=values.log, step=step)


def _encoded(value: Any) -> Any:
    """A value of a list as Optuna takes it: numbers and text; mappings and lists as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, sort_keys=True)


def _decoded(value: Any, values: list[Any] | Range) -> Any:
    if not isinstance(values, list):
        return value
    return next(each for each in values if _encoded(each) == value and type(_encoded(each)) is type(value))


def _frozen_trials(sweep: Sweep, begun: list[TrialFolder]) -> list[FrozenTrial]:
    """The trials as Optuna keeps them."""
    from optuna.trial import TrialState, create_trial

    states = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    distributions, trials = _distributions(sweep), []
    for folder in begun:
        _, values = folder.values or (0, {})
        result = folder.result
        curve = {} if result is None or not result.seeds else dict(enumerate(result.seeds[0].curve))
        trials.append(
            create_trial(
                state=TrialState.RUNNING if result is None else states.get(result.state, TrialState.FAIL),
                value=None if result is None else result.score,
                params={key: _encoded(value) for key, value in values.items()},
                distributions=distributions,
                intermediate_values=curve,
                user_attrs={"trial": folder.name},
            )
        )
    return trials

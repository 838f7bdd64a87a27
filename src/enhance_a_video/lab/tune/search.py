"""Searches strengths on a grid of depths and times by Optuna, TPE or CMA-ES; resumable."""

from __future__ import annotations

import math
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EnhanceAVideoError, OutputExistsError, SettingsError
from ...extras import require
from .. import database
from ..stats import interval
from .clips import Rewards
from .space import Space

_PRUNE_FROM = 8  # clips: half of fewer is too little evidence
_IMPORTANCE_FROM = 20  # trials
_STARTUP = 10  # trials at random, the enqueued ones included, before TPE has something to go by


@dataclass(frozen=True)
class Found:
    """The result of a search or learning. policy is None where nothing was better than the plain model.

    reward: mean over the block of clips it was found on. tries: what was tried, in order, JSON-able.
    """

    policy: Any
    reward: float
    tries: tuple[dict[str, Any], ...]
    importances: dict[tuple[int, int], float] = field(default_factory=dict)  # (depth, time) -> share, sums to 1


def optuna_here() -> Any:
    """The module, quiet. Raises MissingExtraError where it or the package of its CMA-ES is not installed."""
    require("A search", "tune")  # --method learn needs nothing more
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def seeds_of(groups: int, times: int, usual: float) -> list[np.ndarray]:
    """What is tried first, (groups, times) each: the plain model, `usual` everywhere, in the middle layers, early."""
    depth = np.linspace(0, 1, groups) if groups > 1 else np.array([0.5])
    time = np.linspace(0, 1, times) if times > 1 else np.array([0.0])
    middle = (np.abs(depth - 0.5) <= 0.25)[:, None] * np.ones(times)
    early = np.ones(groups)[:, None] * (time < 0.5)
    found = [np.zeros((groups, times)), np.full((groups, times), usual), usual * middle, usual * early]
    return [one for n, one in enumerate(found) if not any(np.array_equal(one, earlier) for earlier in found[:n])]


def grid_of(strengths: np.ndarray, space: Space) -> Any:
    """The policy of strengths (groups, times), to four places; None, the plain model, where all are zero."""
    rows = tuple(tuple(round(float(g), 4) for g in row) for row in strengths)
    return space.grid(rows) if any(g for row in rows for g in row) else None


def search(
    rewards: Rewards, clips: int, space: Space, *, method: str, budget: int, groups: int, times: int, storage: Path,
    seed: int = 0, prune: bool = True, began: Callable[[int, float], None] = lambda trial, best: None,
) -> Found:  # fmt: skip
    """Tries `budget` policies, those of earlier runs included; each on the same `clips` prompts and noises.

    A trial draws from a generator of its own, so that a resumed search is the search that was interrupted.

    Args:
        method: "tpe" or "cmaes".
        storage: SQLite file of Optuna, continued where it is there.
        prune: give a trial up after half of its clips when it is significantly worse than the plain model on these (TPE
            only: CMA-ES learns from the bad ones as well).
        began: called with (number of the trial, best reward so far) before each trial.

    Raises:
        MissingExtraError: Optuna is not installed. OutputExistsError: the file is something else.
        SettingsError: a grid of one number with CMA-ES. EnhanceAVideoError: the file cannot be read or written.
    """
    optuna = optuna_here()
    if method == "cmaes" and groups * times < 2:
        raise SettingsError("--method cmaes searches two or more strengths: raise --groups or --times, or take tpe.")
    with _explained(optuna, storage):
        return _search(optuna, rewards, clips, space, method, budget, groups, times, storage, seed, prune, began)


def _search(
    optuna: Any, rewards: Rewards, clips: int, space: Space, method: str, budget: int, groups: int, times: int,
    storage: Path, seed: int, prune: bool, began: Callable[[int, float], None],
) -> Found:  # fmt: skip
    names = [[f"depth {row}, time {column}" for column in range(times)] for row in range(groups)]
    drawn = {name: optuna.distributions.FloatDistribution(space.low, space.high) for row in names for name in row}
    flat = list(drawn)
    study = _study(optuna, storage)
    starts = [dict(zip(flat, one.ravel().tolist(), strict=True)) for one in seeds_of(groups, times, space.usual)]
    for params in starts:
        study.enqueue_trial(params, skip_if_exists=True)
    while (done := len(_finished(study))) < budget:
        began(done, _best(study).value if done else 0.0)
        study.sampler = _sampler(optuna, method, (seed * 1_000_003 + done) % 2**32)  # NumPy takes 32 bits
        trial = _next(optuna, study, drawn)
        policy = grid_of(np.array([trial.params[name] for name in flat]).reshape(groups, times), space)
        _evaluate(optuna, study, trial, policy, rewards, clips, prune and method == "tpe")
    winner = _best(study)
    strengths = np.array([winner.params[name] for name in flat]).reshape(groups, times)
    places = {name: (row, column) for row, line in enumerate(names) for column, name in enumerate(line)}
    importances = {places[name]: share for name, share in _importances(optuna, study).items()}
    return Found(grid_of(strengths, space), float(winner.value), tuple(_history(study, flat)), importances)


@contextmanager
def _explained(optuna: Any, storage: Path) -> Iterator[None]:
    """Turns what Optuna, SQLAlchemy and SQLite report about the file into one sentence with the way out."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with database.explained(storage):
            yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        first: BaseException = error
        while not isinstance(first, sqlite3.Error) and (first.__cause__ or first.__context__):
            first = first.__cause__ or first.__context__ or first
        raise EnhanceAVideoError(f"Cannot use {storage}: {database.advice(first)}") from error


def _study(optuna: Any, storage: Path) -> Any:
    if storage.exists():
        try:
            with closing(sqlite3.connect(storage)) as db:
                tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise OutputExistsError(f"{storage} is no SQLite database ({error}). Choose another --out.") from error
        if tables and "trials" not in tables:
            raise OutputExistsError(f"{storage} is the database of something else. Choose another --out.")
    return optuna.create_study(
        study_name="tune", storage=f"sqlite:///{storage.resolve()}", direction="maximize", load_if_exists=True
    )


def _sampler(optuna: Any, method: str, seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if method == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return optuna.samplers.TPESampler(multivariate=True, n_startup_trials=_STARTUP, seed=seed)


def _next(optuna: Any, study: Any, drawn: dict[str, Any]) -> Any:
    """The trial that was under way when the process was killed, with what it had drawn; else a new one."""
    left = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    if not left:
        return study.ask(fixed_distributions=drawn)
    trial = optuna.trial.Trial(study, left[0]._trial_id)
    for name, one in drawn.items():
        trial.suggest_float(name, one.low, one.high)
    return trial


def _evaluate(optuna: Any, study: Any, trial: Any, policy: Any, rewards: Rewards, clips: int, prune: bool) -> None:
    half = math.ceil(clips / 2)
    values = rewards([(policy, n) for n in range(half)])
    if prune and clips >= _PRUNE_FROM and interval(values)[1] < 0:
        trial.report(float(values.mean()), half)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return
    study.tell(trial, float(rewards([(policy, n) for n in range(clips)]).mean()))  # the first half is made already


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def _best(study: Any) -> Any:
    """The complete trial with the highest reward; of equal ones the first."""
    complete = [trial for trial in _finished(study) if trial.state.name == "COMPLETE"]
    if not complete:
        raise EnhanceAVideoError("The search has no complete trial: its file was changed. Choose another --out.")
    return max(complete, key=lambda trial: (trial.value, -trial.number))


def _history(study: Any, flat: Sequence[str]) -> list[dict[str, Any]]:
    """A pruned trial's reward is that of half of the clips."""
    rows, best = [], -math.inf
    for trial in _finished(study):
        pruned = trial.state.name == "PRUNED"
        best = best if pruned else max(best, trial.value)
        strengths = [round(trial.params[name], 4) for name in flat]
        rows.append(
            {"try": trial.number, "reward": trial.value, "best": best, "pruned": pruned, "strengths": strengths}
        )
    return rows


def _importances(optuna: Any, study: Any) -> dict[str, float]:
    """Which strengths decide whether a trial is among the best quarter (PED-ANOVA), the pruned ones counting as well;
    nothing below 20 trials."""
    trials = _finished(study)
    if len(trials) < _IMPORTANCE_FROM or len({trial.value for trial in trials}) < 2:
        return {}
    whole = optuna.create_study(direction="maximize")  # in memory
    for trial in trials:
        whole.add_trial(
            optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=trial.value)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        how = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        return dict(optuna.importance.get_param_importances(whole, evaluator=how))

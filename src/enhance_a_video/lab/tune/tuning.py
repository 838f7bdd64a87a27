"""Runs one tuning: its folder, its clips, the search or the learning, the profile, the confirmation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ... import limits
from ...errors import OutputExistsError, SettingsError
from ...generation.events import Progress, Report, silent
from ...generation.files import explained, refuse_existing, write_text
from ...generation.pipelines import EMBEDDED, check, quiet
from ...generation.preflight import notices_about
from ...generation.requests import ClipRequest, Prompt, as_text, read_prompts
from ...policies import CROSS_FRAME, Profile, read_profile, to_dict
from ...settings import Settings
from ...wording import count
from ..study.definition import held_out_prompt, measures_of
from ..study.run import versions_here, weights_of
from .clips import Clips, Rewards
from .confirm import Confirmation, confirm
from .learn import Recipe, learn
from .pictures import history, importance, strengths
from .reward import rows_of
from .search import Found, optuna_here, search
from .space import SPACES

SCENES = 1000  # the first held-out scene; studies/models.yaml, which chose the default, uses those below
METHODS = ("tpe", "cmaes", "learn")
FILE, CLIPS = "tune.json", "clips"


@dataclass(frozen=True)
class Tuning:
    """One tuning. All but budget, held_out, workers and ray decides what is found and may not change in a folder.

    prompts: the block every policy is judged on, each with one seed. held_out: those of the confirmation.
    budget: trials of a search, updates of a learning; each makes one clip for each prompt.
    scale: what the gains multiply: "cross-frame", odds as the default has them, or a layer's whole "output".
    groups, times: rows and columns of a search's grid.
    scenes: the prompts are scenes of the embedded world and the model one of it, under whatever name.
    """

    model: str
    prompts: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...] = ()
    method: str = "tpe"
    scale: str = CROSS_FRAME
    reward: str = "quality"
    budget: int = 60
    groups: int = 6
    times: int = 3
    seed: int = 0
    load: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int | None = None
    ray: str | None = None
    scenes: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"--method {self.method!r} is unknown. There are: {', '.join(METHODS)}.")
        if self.scale not in SPACES:
            raise SettingsError(f"--scale {self.scale!r} is unknown. There are: {', '.join(SPACES)}.")
        if len(self.prompts) < 2:
            raise SettingsError(
                f"--clips {len(self.prompts)}: give at least 2; a reward is scaled by how clips differ."
            )
        if self.method == "learn" and len(self.prompts) % 2:
            raise SettingsError(f"--clips {len(self.prompts)}: give an even number, learning makes clips in pairs.")
        if len(self.held_out) == 1:
            raise SettingsError("--confirm 1: one clip has no interval. Give 2 or more, or 0 for none.")

    @property
    def embedded(self) -> bool:
        """Whether the clips are those of the embedded world, which have a checker."""
        return (self.scenes or self.model == EMBEDDED) and not {"height", "width"} & set(self.options)

    def about(self, weights: str) -> dict[str, Any]:
        """What decides the result, JSON-able."""
        found = {
            "model": self.model, "weights": weights, "method": self.method, "scale": self.scale, "reward": self.reward,
            "seed": self.seed,
            "prompts": [[p.text, list(p.seeds or ()), as_text(p.options)] for p in self.prompts],
            "options": as_text(self.options),
        }  # fmt: skip
        return found if self.method == "learn" else {**found, "groups": self.groups, "times": self.times}


@dataclass(frozen=True)
class Result:
    """The result. confirmation is None where none was requested, or the plain model won."""

    profile: Path
    found: Found
    about: Mapping[str, Any]
    confirmation: Confirmation | None
    files: tuple[Path, ...]


def chosen_prompts(
    model: str, path: Path | None, clips: int, held_out: int, first: int | None
) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """The prompts to tune on and those to confirm on, none in both, each with one seed: that of the file or its number.

    Args:
        path: of a prompts file; None for held-out scenes of the embedded world, from number `first` on (of a model that
            is not the embedded one, only where `first` is given).

    Raises:
        SettingsError: another model without a file, a file with too few prompts or the same one twice; PromptError.
    """
    wanted = clips + held_out
    if path is not None and first is not None:
        raise SettingsError("--prompts and --first were given together: leave one of them out.")
    if path is None:
        if model != EMBEDDED and first is None:
            raise SettingsError(
                f"{model} needs prompts: give a file with {wanted} or more of them, --prompts FILE. (For a model of "
                f"the embedded world: --first {SCENES}, its held-out scenes from there on.)"
            )
        first = SCENES if first is None else first
        found = [Prompt(held_out_prompt(n), seeds=(n,)) for n in range(first, first + wanted)]
        return tuple(found[:clips]), tuple(found[clips:])
    read = read_prompts(path)
    if len({prompt.text for prompt in read}) < len(read):
        raise SettingsError(f"{path} has a prompt twice: those it is confirmed on must be others than those tuned on.")
    if len(read) < wanted:
        raise SettingsError(
            f"{path} has {count(len(read), 'prompt')}; {clips} to tune on and {held_out} others to confirm on make "
            f"{wanted}. Add prompts, or lower --clips or --confirm."
        )
    numbered = [replace(p, seeds=(p.seeds or (n,))[:1]) for n, p in enumerate(read[:wanted])]
    return tuple(numbered[:clips]), tuple(numbered[clips:])


def notices(tuning: Tuning) -> list[str]:
    """What the clips of a tuning will not be, a sentence each: `preflight.notices`.

    Raises:
        SettingsError: options that the model's pipeline does not take.
    """
    quiet()
    prompts = [*tuning.prompts, *tuning.held_out]
    some = Settings(strength=1.0, start=0.0, end=1.0)  # stands for every policy: whether frames and steps let it act
    items = [ClipRequest(p.text, (p.seeds or (0,))[0], "", some, {**tuning.options, **p.options}) for p in prompts]
    return notices_about(tuning.model, items)


def tune(
    tuning: Tuning, folder: Path, *, profile: Path | None = None, command: str = "", force: bool = False,
    progress: Report = silent,
) -> Result:  # fmt: skip
    """Searches or learns, writes the profile, confirms it. Killed or stopped, the same call goes on where it was.

    Args:
        folder: of everything that is kept. profile: the file to write, by default profile.json in it.
        force: overwrite another file at `profile`.

    Raises:
        MissingExtraError: a search without Optuna. SettingsError: an unknown method or reward, a model that cannot be
        loaded. OutputExistsError: the folder or the profile is something else. EnhanceAVideoError: a clip fails.
    """
    if tuning.method != "learn":
        optuna_here()
    rows = rows_of(tuning.reward, measures_of(tuning.prompts, tuning.embedded))
    if tuning.ray is None:  # a cluster's machines may have a model that this one has not
        check(tuning.model, **{name: value for name, value in tuning.load.items() if name != "batch"})
    weights = weights_of(tuning.model, tuning.load)
    about = tuning.about(weights)
    target = profile or folder / "profile.json"
    with explained(folder, "use"):
        _refuse_another(folder, about)
    _refuse_other(target, _digest(about), force or profile is None)
    items = [
        ClipRequest(prompt.text, (prompt.seeds or (0,))[0], "plain", None, {**tuning.options, **prompt.options})
        for prompt in tuning.prompts
    ]
    count = _Count(tuning, progress)
    with Clips(
        folder / CLIPS, tuning.model, weights, tuning.load, items, rows,
        workers=tuning.workers, ray=tuning.ray, command=command, about={"versions": versions_here()}, made=count.more,
        changed=count.changed,
    ) as clips:  # fmt: skip
        reward = clips.reward()  # the model can be loaded: the folder is this tuning's
        write_text(folder / FILE, json.dumps(about, indent=1, ensure_ascii=False) + "\n", force=True)
        found = _find(tuning, clips.rewards(reward), folder, count)
    how = _how(tuning, found, weights, _digest(about), command)
    made = Profile(found.policy or SPACES[tuning.scale].grid(((0.0,),)), (tuning.model,), how)
    write_text(target, made.text(), force=True)
    files = [target, *_pictures(folder, found, tuning, made.policy)]
    if found.policy is None or not tuning.held_out:
        return Result(target, found, how, None, tuple(files))
    confirmation = confirm(
        tuning.model, tuning.load, tuning.held_out, tuning.options, found.policy, reward, folder / "confirmation",
        workers=tuning.workers, ray=tuning.ray, command=command, embedded=tuning.embedded, progress=count.confirmed,
    )  # fmt: skip
    write_text(target, replace(made, study=confirmation.rows()).text(), force=True)
    return Result(target, found, how, confirmation, (*files, *confirmation.pages))


class _Count:
    """How far it is, in clips."""

    def __init__(self, tuning: Tuning, progress: Report):
        self.tuning, self.progress = tuning, progress
        self.block = len(tuning.prompts)
        self.before = self.block * (1 + tuning.budget + (tuning.method == "learn"))  # the confirmation
        self.total = self.before + 3 * len(tuning.held_out)
        self.done, self.text = 0, "plain clips"

    def more(self, clips: int) -> None:
        self.done += clips
        self.changed()

    def changed(self, news: str = "", wrong: bool = False) -> None:
        self.progress(Progress(self.done, self.total, doing=self.text, news=news, wrong=wrong))

    def began(self, number: int, best: float) -> None:
        """A trial or update begins; those before it are done, whether made now, earlier, or given up at half."""
        what = "update" if self.tuning.method == "learn" else "trial"
        self.text = f"{what} {min(number + 1, self.tuning.budget)} of {self.tuning.budget}, best {best:+.3f}"
        self.done = max(self.done, self.block * (1 + number))
        self.more(0)

    def confirmed(self, progress: Progress) -> None:
        done = self.before + progress.done
        self.progress(replace(progress, done=done, total=self.total, doing="confirmation on other prompts"))


def _find(tuning: Tuning, rewards: Rewards, folder: Path, count: _Count) -> Found:
    space = SPACES[tuning.scale]
    if tuning.method == "learn":
        return learn(
            rewards, count.block, space, updates=tuning.budget, pairs=count.block // 2, checkpoint=folder / "learn.pt",
            recipe=Recipe(seed=tuning.seed), began=count.began,
        )  # fmt: skip
    return search(
        rewards, count.block, space, method=tuning.method, budget=tuning.budget, groups=tuning.groups,
        times=tuning.times, storage=folder / "trials.sqlite", seed=tuning.seed, began=count.began,
    )  # fmt: skip


def _how(tuning: Tuning, found: Found, weights: str, digest: str, command: str) -> dict[str, Any]:
    """How it was found, for the profile."""
    versions = versions_here() | ({} if tuning.method == "learn" else {"optuna": version("optuna")})
    return {
        "by": "enhance-a-video tune", "command": command, "method": tuning.method, "scale": tuning.scale,
        "budget": len(found.tries), "clips": len(tuning.prompts), "reward": tuning.reward,
        "reward_on_these_clips": found.reward, "seed": tuning.seed, "weights": weights,
        "options": as_text(tuning.options), "digest": digest,
        "prompts": {"first": tuning.prompts[0].text, "last": tuning.prompts[-1].text},
        "versions": versions, "date": datetime.now(timezone.utc).date().isoformat(),
    }  # fmt: skip


def _refuse_another(folder: Path, about: Mapping[str, Any]) -> None:
    """Raises OutputExistsError where the folder holds another tuning, or something else."""
    path = folder / FILE
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(inner.name != CLIPS for inner in folder.iterdir())):
            raise OutputExistsError(f"{folder} is there already and holds no tuning. Choose another --out.")
        return
    try:
        there = limits.parse_json(limits.ordinary(path).read_text(encoding="utf-8"))
        other = sorted(key for key in {*there, *about} if there.get(key) != about.get(key))
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise OutputExistsError(f"{path} cannot be read ({error}). Choose another --out.") from error
    if other:
        raise OutputExistsError(
            f"{folder} holds another tuning: {', '.join(other)} were different. Choose another --out. (What may change "
            "from run to run: --budget, --confirm, --workers.)"
        )


def _refuse_other(target: Path, digest: str, force: bool) -> None:
    """A profile of this very tuning may be written again; another file may not. The name is one that is read again."""
    if target.suffix != ".json":
        raise SettingsError(f"--profile {target}: the name of a profile ends in .json.")
    own = force or not target.exists()
    if not own:
        try:
            own = read_profile(target).found.get("digest") == digest
        except SettingsError:
            own = False
    if not own:
        raise OutputExistsError(f"Already there: {target}. Choose another --profile or overwrite it with --force.")
    refuse_existing([target], force=True)  # before hours of work: can it be written?


def _pictures(folder: Path, found: Found, tuning: Tuning, policy: Any) -> list[Path]:
    made = [
        history(found.tries, folder / "history.png", "update" if tuning.method == "learn" else "trial"),
        strengths(policy, folder / "policy.png"),
    ]
    if found.importances:
        made.append(importance(found.importances, tuning.groups, tuning.times, folder / "importance.png"))
    return made


def _digest(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def result_to_dict(result: Result) -> dict[str, Any]:
    """JSON-able."""
    return {
        "profile": str(result.profile),
        "policy": to_dict(result.found.policy) if result.found.policy is not None else None,
        "found": dict(result.about),
        "tries": [dict(row) for row in result.found.tries],
        "importances": [
            {"depth": depth, "time": time, "share": share} for (depth, time), share in result.found.importances.items()
        ],
        "confirmation": result.confirmation.to_dict() if result.confirmation else None,
        "files": [str(path) for path in result.files],
    }

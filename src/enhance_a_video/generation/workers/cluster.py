"""Workers as actors of a Ray cluster: one GPU each where the cluster has any, else one CPU each."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from ...errors import EnhanceAVideoError
from ...extras import require
from .worker import Message, Task, Worker


class RayCrew:
    """As LocalCrew. address: of a cluster, as `ray.init` takes it; "" is the one that Ray finds, or a new local one.

    size None: one worker for each GPU of the cluster (as it is now), or one. Workers for which there is no room yet
    wait for it. Each node needs this package, and the model under the same name.

    Raises:
        MissingExtraError: ray is not installed.
        EnhanceAVideoError: the cluster does not answer, or does not let this in.
    """

    def __init__(self, model: str, load: dict[str, Any], address: str = "", size: int | None = None):
        require("--ray", "ray")
        import ray

        self.ray = ray
        self.ours = not ray.is_initialized()
        if self.ours:
            _reach(address)
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that we start reports to nobody
            try:
                ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise EnhanceAVideoError(
                    f"No Ray cluster lets this in at {address or 'the default address'}: {error}. Is it running, in "
                    "the same version of Ray, and, if it needs a token, is RAY_AUTH_MODE=token set here as well?"
                ) from error
        wants_gpu = load.get("device", "auto") in ("auto", "cuda")
        gpus = int(ray.cluster_resources().get("GPU", 0)) if wants_gpu else 0
        self.size = size or gpus or 1
        self.actor: Any = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=0, max_task_retries=0)(Worker)
        self.arguments = (model, load)
        self.members: dict[int, Any] = {}
        self.pending: dict[Any, int] = {}  # what Ray will answer -> the slot it is for

    def start(self, slot: int) -> None:
        self.stop(slot)
        self.members[slot] = self.actor.remote(*self.arguments)
        self.pending[self.members[slot].load.remote()] = slot

    def stop(self, slot: int) -> None:
        member = self.members.pop(slot, None)
        self.pending = {answer: other for answer, other in self.pending.items() if other != slot}
        if member is not None:
            self.ray.kill(member)

    def give(self, slot: int, task: Task, calls: list[dict[str, Any]]) -> None:
        self.pending[self.members[slot].make.remote(task, calls)] = slot

    def events(self) -> Iterator[tuple[int, Message]]:
        answered, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=None)
        for answer in answered:
            slot = self.pending.pop(answer)
            try:
                message = self.ray.get(answer)
            except self.ray.exceptions.RayError as error:  # the actor, its node or the clip on its way was lost
                self.stop(slot)
                message = ("lost", " ".join(str(error).split())[:300])
            yield slot, message

    def close(self) -> None:
        for slot in list(self.members):
            self.stop(slot)
        if self.ours:
            self.ray.shutdown()


def _reach(address: str) -> None:
    """EnhanceAVideoError where nobody listens at HOST:PORT: Ray itself tries for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise EnhanceAVideoError(
            f"No Ray cluster answers at {address}: {getattr(error, 'strerror', None) or error}. Is it running?"
        ) from error

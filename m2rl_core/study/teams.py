"""What ``m2rl run --nproc N`` asks for, checked; and what the second and later machines do: they follow the first."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence

from m2rl_core.config import TrainStage
from m2rl_core.errors import ConfigError, RunError
from m2rl_core.study.folders import is_done
from m2rl_core.study.graph import Node
from m2rl_core.study.schedule import ENVIRONMENT, Progress, devices
from m2rl_core.study.worker import MEETING, Job, Team

__all__ = ["check_team", "run_following"]

GLANCE = 0.5
"""Seconds between looks at what the first machine is doing."""


def check_team(team: Team, nodes: Sequence[Node]) -> None:
    """Refuse processes that would have nothing to do, or no place to work or meet.

    Raises:
        ConfigError, RunError: what is wrong with ``team``.
    """
    if not any(isinstance(node.config, TrainStage) for node in nodes):
        kinds = ", ".join(sorted({node.kind for node in nodes}))
        what = "--nproc: no stage to be run trains a model, and only training is shared among processes"
        raise ConfigError(what, found=kinds, allowed="sft, rl", then="run the same command without it")
    if (gpus := devices()) and team.count > len(gpus):
        raise RunError(
            "--nproc: more processes than GPUs",
            found=f"{team.count} processes, {len(gpus)} GPUs",
            allowed=f"1 to {len(gpus)}",
            then="lower --nproc, or look at CUDA_VISIBLE_DEVICES",
        )
    if not 0 <= team.node < team.nodes:
        raise ConfigError("--node-rank: no such machine", found=team.node, allowed=f"0 to {team.nodes - 1}")
    if team.nodes > 1 and not re.fullmatch(r"\S+:\d+", team.rendezvous):
        raise ConfigError(
            "--rendezvous: where do the machines meet?",
            found=team.rendezvous or "nothing",
            allowed="HOST:PORT, an address of the machine with --node-rank 0 that the others reach",
        )


def run_following(nodes: Sequence[Node], job: Callable[[Node], Job], progress: Progress) -> None:
    """Join the first machine in every training stage, until all are done. Both see the same files."""
    from m2rl_core.study.ranks import follow

    os.environ.update(ENVIRONMENT)
    left = [node for node in nodes if isinstance(node.config, TrainStage)]
    started = dict[str, float]()
    while left:
        for node in list(left):
            if is_done(node):
                left.remove(node)
                if node.id in started:
                    progress.finished(node.id, time.monotonic() - started[node.id])
                else:
                    progress.cached(node.id)
            elif (node.folder / MEETING).exists():
                if node.id not in started:
                    progress.started(node.id)
                    started[node.id] = time.monotonic()
                follow(job(node))
        time.sleep(GLANCE)

"""An installed environment of verifiers.v1: what it asks, what cannot be played here, and its rewards.

Its trainer drives a program that talks to the model over HTTP, in a runtime of its own. Here the core draws the turn,
and the environment sees a finished trace, as it does when it scores stored traces again (``vf-replay``): so tasks of
one turn whose rewards read the trace alone. Anything else is refused with its reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from m2rl_core.errors import DataError
from m2rl_core.types import Message, Trajectory

__all__ = ["Environment"]

STAGES = ("setup", "finalize")
"""Hooks of a task around its turns."""


class Environment:
    """The taskset of an installed package.

    Args:
        name: of the package, perhaps after ``owner/``.
        args: settings of the taskset.

    Raises:
        DataError: no such package, or it is none of verifiers.v1, or settings that it does not have.
    """

    def __init__(self, name: str, args: Mapping[str, Any]) -> None:
        self.id = name
        self.vf, self.loaders = _library()
        self.taskset = self._loaded(args)
        self.task_class = type(self.taskset).task_type()

    def _loaded(self, args: Mapping[str, Any]) -> Any:
        try:
            kind = self.loaders.taskset_config_type(self.id)
        except ModuleNotFoundError as error:
            raise DataError(
                f"there is no environment '{self.id}': {error.msg.partition('. ')[0]}",
                then=f"install its package, e.g. 'prime env install {self.id}'",
            ) from error
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(
                f"'{self.id}' is no environment of verifiers.v1: {error}",
                then="use a version of it that exports a Taskset; 'load_environment' is the interface before",
            ) from error
        try:
            return self.loaders.load_taskset(kind.model_validate({"id": self.id, **args}))
        except ValidationError as error:
            told = "; ".join(f"args.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            known = [field for field in kind.model_fields if field != "id"]
            raise DataError(f"'{self.id}' refuses its settings: {told}", allowed=known) from error

    @property
    def name(self) -> str:
        """As in the names of suites: without the owner and the version."""
        return self.id.rpartition("/")[2].partition("@")[0].lower()

    @property
    def endless(self) -> bool:
        return not self.taskset.bounded

    @property
    def has_judges(self) -> bool:
        """Whether a model that is asked over a network has a say."""
        return bool(self.taskset.config.task.judges)

    def refuse(self) -> None:
        """Refuse what cannot be played in one turn of the core's own.

        Raises:
            DataError: it says why.
        """
        if reason := next(self._obstacles(), ""):
            raise DataError(
                f"the environment '{self.id}' cannot be used: {reason}",
                allowed="tasks of one turn, without tools and runtimes, whose rewards read the trace alone",
            )

    def _obstacles(self) -> Iterator[str]:
        config, task = self.taskset.config, self.task_class
        agents = self.loaders.environment_class(self.id)
        if agents is not self.vf.SingleAgentEnv:
            yield f"its agents are run by its own {agents.__name__}"
        if self.loaders.default_harness_id(self.id) == self.id:
            yield "it brings a program of its own for the agent to run"
        if type(self.taskset).toolsets(config) or task.toolsets(config.task):
            yield "its tasks have tools, which their trainer serves over MCP"
        if task.NEEDS_CONTAINER:
            yield "its tasks need a container"
        empty = task(self.vf.TaskData.model_construct(), config.task)
        if _decorated(empty, "intercept"):
            yield "its tasks rewrite what is said on the way"
        for stage in STAGES:
            if getattr(task, stage) is not getattr(self.vf.Task, stage) and _needs_runtime(getattr(task, stage)):
                yield f"{task.__name__}.{stage} needs a runtime"
        rewards = empty.hooks("reward")
        for function in (*rewards, *empty.hooks("metric")):
            if _needs_runtime(function):
                yield f"{task.__name__}.{function.__name__} needs a runtime"
        if not rewards and not self.has_judges:
            yield "its tasks have no reward"

    def tasks(self) -> Iterator[Any]:
        """All tasks, in their order."""
        return iter(self.taskset)

    def asked(self, task: Any) -> tuple[Message, ...]:
        """The conversation that a task starts.

        Raises:
            DataError: it starts none of texts that ends with the user's.
        """
        data, place = task.data, f"task {task.data.idx} of '{self.id}'"
        if data.image or data.skills:
            raise DataError(f"{place} needs {'a container' if data.image else 'skills'}", allowed="tasks that only ask")
        if data.prompt is None:
            raise DataError(f"{place} asks nothing", allowed="tasks with a prompt, not ones that a user opens")
        system = [] if data.system_prompt is None else [Message(role="system", content=data.system_prompt)]
        if isinstance(data.prompt, str):
            return (*system, Message(role="user", content=data.prompt))
        said = tuple(_text(place, message) for message in data.prompt)
        if not said or said[-1]["role"] != "user":
            raise DataError(f"{place} does not end with the user's message")
        return (*system, *said)

    def stored(self, task: Any) -> dict[str, Any]:
        """A task as plain data, from which :meth:`score` builds it again in another process."""
        return dict(task.data.model_dump(mode="json", exclude_defaults=True))

    async def score(self, trajectory: Trajectory) -> tuple[dict[str, float], dict[str, float], float]:
        """(rewards, metrics, weighted sum of the rewards) of a finished turn.

        Raises:
            DataError: the prompt is no task, or one of the rewards was not given.
            TaskError: the environment's code failed.
        """
        task = self._rebuilt(trajectory)
        trace = self._trace(task, trajectory)
        for stage in STAGES:
            if getattr(type(task), stage) is not getattr(self.vf.Task, stage):
                given = inspect.signature(getattr(task, stage)).parameters
                await getattr(task, stage)(**({"trace": trace} if "trace" in given else {}))
        await task.score(trace)
        if missing := [name for name, reward in trace.rewards.items() if reward is None]:
            raise DataError(f"the reward '{missing[0]}' of '{self.id}' was not given")
        rewards = {name: reward.score for name, reward in trace.rewards.items()}
        metrics = {name: value for name, value in trace.metrics.items() if value is not None}
        return rewards, metrics, trace.reward

    def _rebuilt(self, trajectory: Trajectory) -> Any:
        stored = trajectory.prompt.ground_truth
        if not isinstance(stored, Mapping) or not stored:
            raise DataError(f"prompt '{trajectory.prompt.id}' holds no task of '{self.id}'", found=repr(stored)[:80])
        return self.task_class(self.task_class.data_type().model_validate(stored), self.taskset.config.task)

    def _trace(self, task: Any, trajectory: Trajectory) -> Any:
        """What the environment's own trainer would have recorded of this turn."""
        vf = self.vf
        nodes = [vf.MessageNode(message=dict(message)) for message in self.asked(task)]
        nodes.append(vf.MessageNode(message=_answer(trajectory), sampled=True))
        for place, node in enumerate(nodes):
            node.parent = place - 1 if place else None
        call = vf.ModelCall(node=len(nodes) - 1, finish_reason="length" if trajectory.truncated else "stop")
        trace = vf.Trace(
            verifiers=vf.VersionInfo(version=_version()),  # or else it asks git for its own commit
            task=vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
            agent=vf.AgentInfo(config=vf.AgentConfig()),
            state=_state_class(type(task))(),
            nodes=nodes,
            calls=[call],
            ok=True,
        )
        trace.stop("agent_completed")
        return trace


def _library() -> tuple[Any, Any]:
    try:
        import verifiers.v1 as vf
        from verifiers.v1.utils import loaders
    except ImportError as error:
        raise DataError(
            f"the package 'verifiers' cannot be used: {error}", then="pip install 'verifiers>=0.4,<0.5'"
        ) from error
    return vf, loaders


def _version() -> str:
    import verifiers

    return str(verifiers.__version__)


def _state_class(task_class: type) -> Callable[[], Any]:
    from verifiers.v1.state import state_cls

    return state_cls(task_class)  # type: ignore[no-any-return]


def _decorated(task: Any, attribute: str) -> bool:
    from verifiers.v1.utils.decorators import discover_decorated

    return bool(discover_decorated(task, attribute))


def _needs_runtime(function: Callable[..., Any]) -> bool:
    parameter = inspect.signature(function).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _text(place: str, message: Any) -> Message:
    """A message of a task as ours.

    Raises:
        DataError: it is more than text.
    """
    if not isinstance(message.content, str) or getattr(message, "tool_calls", None) or message.role == "tool":
        raise DataError(f"{place} has a message that is more than text", found=message.role)
    return Message(role=message.role, content=message.content)


def _answer(trajectory: Trajectory) -> dict[str, Any]:
    """The turn that is judged, its reasoning apart as from a provider."""
    said = next((m["content"] for m in reversed(trajectory.messages) if m["role"] == "assistant"), trajectory.answer)
    reasoning, closed, _ = said.rpartition("</think>")
    thought = reasoning.removeprefix("<think>").strip() if closed else None
    return {"role": "assistant", "content": trajectory.answer, "reasoning_content": thought or None}

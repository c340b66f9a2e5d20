"""Runs that go wrong slowly: responses that grow without end, rewards that fall. The user is told, once each time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["Alarms"]

START = 5
"""Steps whose mean is a domain's starting length."""
MEMORY = 0.8
"""Weight of the past in a running mean."""
GROWTH = 2.0
"""Times the starting length that sound the alarm; the next one sounds at twice that."""
FALL = 0.5
"""Share of the best running reward below which the alarm sounds; it can sound again after a recovery."""
WORTH = 0.1
"""Rewards below this are too small to fall."""

Metrics = dict[str, float | None]


class Alarms:
    """Follows length and reward of every domain.

    Distillation on a student's own samples is known to inflate lengths until everything is cut off
    (https://arxiv.org/abs/2604.08527); policies that collapse lose their reward.

    Args:
        tell: takes a sentence for the user.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.seen: dict[str, list[float]] = {}
        """Domain → its lengths in the first :data:`START` steps."""
        self.running: dict[str, float] = {}
        """``length/DOMAIN`` and ``reward/DOMAIN`` → running mean."""
        self.best: dict[str, float] = {}
        self.limit: dict[str, float] = {}
        """Domain → growth that sounds the next alarm."""
        self.fallen: list[str] = []

    def watch(self, metrics: Metrics) -> Metrics:
        """Look at a step's metrics (see :func:`m2rl_core.rollout.records.summarise`), and return them."""
        for name, value in metrics.items():
            kind, _, domain = name.partition("/")
            if domain and value is not None and kind in ("length", "reward"):
                self.running[name] = MEMORY * self.running.get(name, value) + (1 - MEMORY) * value
                if kind == "length":
                    self._length(domain, value, metrics)
                else:
                    self._reward(domain, self.running[name])
        return metrics

    def _length(self, domain: str, length: float, metrics: Mapping[str, float | None]) -> None:
        first = self.seen.setdefault(domain, [])
        if len(first) < START:
            first.append(length)
            return
        start, now = sum(first) / len(first), self.running[f"length/{domain}"]
        if start and now > self.limit.get(domain, GROWTH) * start:
            cut = metrics.get(f"truncated/{domain}") or 0.0
            self._tell(
                f"responses of '{domain}' grow: {now:.0f} tokens, {now / start:.1f} times what they began with; "
                f"{cut:.0%} are cut off"
            )
            self.limit[domain] = 2 * now / start

    def _reward(self, domain: str, now: float) -> None:
        best = self.best[domain] = max(self.best.get(domain, 0.0), now)
        low = now < FALL * best
        if low and best >= WORTH and domain not in self.fallen:
            self._tell(f"the reward of '{domain}' has fallen to {now:.2f} from {best:.2f}: lower lr, or stop here")
            self.fallen.append(domain)
        elif not low and domain in self.fallen:
            self.fallen.remove(domain)

    def save_state(self, folder: Path) -> None:
        state = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        (folder / "alarms.json").write_text(json.dumps(state))

    def load_state(self, folder: Path) -> None:
        vars(self).update(json.loads((folder / "alarms.json").read_text()))

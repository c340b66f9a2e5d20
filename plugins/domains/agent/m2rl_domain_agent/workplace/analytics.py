"""The web site's visitors, and plots of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from m2rl_domain_agent.workplace.failures import ToolError, choice, needed
from m2rl_domain_agent.workplace.tables import Row, Workplace

__all__ = [
    "create_plot", "engaged_users_count", "get_average_session_duration", "get_visitor_information_by_id",
    "total_visits_count", "traffic_source_count",
]  # fmt: skip

VALUES = (
    "total_visits", "session_duration_seconds", "user_engaged", "visits_direct", "visits_referral",
    "visits_search_engine", "visits_social_media",
)  # fmt: skip
PLOTS = ("bar", "line", "scatter", "histogram")


def get_visitor_information_by_id(work: Workplace, visitor_id: str = "") -> list[dict[str, Any]]:
    """All visits of one visitor."""
    needed(visitor_id=visitor_id)
    found = [row for row in work.visits if row["visitor_id"] == visitor_id]
    if not found:
        raise ToolError("Visitor not found.")
    return [{**row, "user_engaged": _engaged(row)} for row in found]


def create_plot(
    work: Workplace, time_min: str = "", time_max: str = "", value_to_plot: str = "", plot_type: str = ""
) -> str:
    """Record a plot; returns the path of its file."""
    needed(time_min=time_min, time_max=time_max)
    choice(value_to_plot, VALUES, "value_to_plot")
    choice(plot_type, PLOTS, "plot_type")
    path = f"plots/{time_min}_{time_max}_{value_to_plot}_{plot_type}.png"
    work.plots.append({"file_path": path})
    return path


def total_visits_count(work: Workplace, time_min: str = "", time_max: str = "") -> dict[str, int]:
    """Visits of each day."""
    return _sorted(Counter(row["date_of_visit"] for row in _between(work, time_min, time_max)))


def engaged_users_count(work: Workplace, time_min: str = "", time_max: str = "") -> dict[str, int]:
    """Engaged visitors of each day that had visits."""
    return _days(work, time_min, time_max, _engaged)


def traffic_source_count(
    work: Workplace, time_min: str = "", time_max: str = "", traffic_source: str = ""
) -> dict[str, int]:
    """Visits from one source on each day that had visits; all of them without a source."""
    return _days(work, time_min, time_max, lambda row: not traffic_source or row["traffic_source"] == traffic_source)


def get_average_session_duration(work: Workplace, time_min: str = "", time_max: str = "") -> dict[str, float]:
    """Mean length of the visits of each day [s]."""
    lengths = defaultdict[str, list[float]](list)
    for row in _between(work, time_min, time_max):
        lengths[row["date_of_visit"]].append(float(row["session_duration_seconds"]))
    return {day: sum(each) / len(each) for day, each in sorted(lengths.items())}


def _between(work: Workplace, time_min: str, time_max: str) -> list[Row]:
    """Days are compared as text, as upstream does."""
    return [
        row
        for row in work.visits
        if (not time_min or row["date_of_visit"] >= time_min) and (not time_max or row["date_of_visit"] <= time_max)
    ]


def _days(work: Workplace, time_min: str, time_max: str, counts: Any) -> dict[str, int]:
    found = Counter[str]()
    for row in _between(work, time_min, time_max):
        found[row["date_of_visit"]] += bool(counts(row))
    return _sorted(found)


def _sorted(found: Counter[str]) -> dict[str, int]:
    return dict(sorted(found.items()))


def _engaged(row: Row) -> bool:
    return bool(row["user_engaged"] == "True")

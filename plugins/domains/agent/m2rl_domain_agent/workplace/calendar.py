"""The calendar."""

from __future__ import annotations

from typing import Any

from m2rl_domain_agent.workplace.failures import ToolError, choice, needed
from m2rl_domain_agent.workplace.moments import moment
from m2rl_domain_agent.workplace.pages import PAGE, found_in, paged
from m2rl_domain_agent.workplace.tables import COLUMNS, Row, Workplace

__all__ = ["create_event", "delete_event", "get_event_information_by_id", "search_events", "update_event"]


def get_event_information_by_id(work: Workplace, event_id: str = "", field: str = "") -> dict[str, Any]:
    """One field of an event."""
    needed(event_id=event_id, field=field)
    _check_id(event_id)
    choice(field, COLUMNS["events"], "field")
    return {field: work.events.one("event_id", event_id, "Event")[field]}


def search_events(
    work: Workplace, query: str = "", time_min: str = "", time_max: str = "", page: int = 1, page_size: int = PAGE
) -> dict[str, Any]:
    """Events whose name or participant contains ``query`` and that start between the two times, the latest first."""
    low = moment(time_min, "time_min") if time_min else None
    high = moment(time_max, "time_max") if time_max else None

    def is_wanted(row: Row) -> bool:
        if not (found_in(query, row["event_name"]) or found_in(query, row["participant_email"])):
            return False
        start = moment(row["event_start"], "event_start")
        return (low is None or start >= low) and (high is None or start <= high)

    rows = [row for row in work.events.rows if is_wanted(row)]
    rows.sort(key=lambda row: moment(row["event_start"], "event_start"), reverse=True)
    return paged("events", rows, page, page_size)


def create_event(
    work: Workplace, event_name: str = "", participant_email: str = "", event_start: str = "", duration: str = ""
) -> str:
    """Add an event of ``duration`` minutes; returns its id. Its row gets the label 0, as upstream."""
    needed(event_name=event_name, participant_email=participant_email, event_start=event_start, duration=duration)
    moment(event_start, "event_start")
    _check_duration(duration)
    event_id = work.events.next_id("event_id", 8)
    row = {
        "event_id": event_id,
        "event_name": event_name,
        "participant_email": participant_email.lower(),
        "event_start": event_start,
        "duration": duration,
    }
    work.events.append(row, renumber=False)
    return event_id


def delete_event(work: Workplace, event_id: str = "") -> str:
    """Delete an event."""
    needed(event_id=event_id)
    _check_id(event_id)
    work.events.one("event_id", event_id, "Event")
    work.events.remove("event_id", event_id)
    return "Event deleted successfully."


def update_event(work: Workplace, event_id: str = "", field: str = "", new_value: str = "") -> str:
    """Change one field of an event."""
    needed(event_id=event_id, field=field, new_value=new_value)
    _check_id(event_id)
    choice(field, COLUMNS["events"][1:], "field")
    if field == "event_start":
        moment(new_value, "event_start")
    elif field == "duration":
        _check_duration(new_value)
    work.events.one("event_id", event_id, "Event")
    new = new_value.lower() if field == "participant_email" else new_value
    work.events.update("event_id", event_id, field, new)
    return "Event updated successfully."


def _check_id(event_id: str) -> None:
    if len(event_id) != 8 or not event_id.isdigit():
        raise ToolError("Invalid event_id. Expected 8 digits.")


def _check_duration(duration: str) -> None:
    try:
        minutes = int(duration)
    except ValueError:
        minutes = 0
    if minutes <= 0:
        raise ToolError("Invalid duration. Expected a positive number of minutes.")

"""Project management: tasks on boards."""

from __future__ import annotations

import re
from typing import Any

from m2rl_domain_agent.workplace.failures import ToolError, choice, needed
from m2rl_domain_agent.workplace.pages import found_in
from m2rl_domain_agent.workplace.tables import COLUMNS, Workplace

__all__ = ["BOARDS", "LISTS", "create_task", "delete_task", "get_task_information_by_id", "search_tasks", "update_task"]

LISTS = ("Backlog", "In Progress", "In Review", "Completed")
BOARDS = ("Back end", "Front end", "Design")
_ADDRESS = re.compile(r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}")


def get_task_information_by_id(work: Workplace, task_id: str = "", field: str = "") -> dict[str, Any]:
    """One field of a task."""
    needed(task_id=task_id, field=field)
    task = work.tasks.one("task_id", task_id, "Task")
    choice(field, COLUMNS["tasks"], "field")
    return {field: task[field]}


def search_tasks(
    work: Workplace,
    task_name: str = "",
    assigned_to_email: str = "",
    list_name: str = "",
    due_date: str = "",
    board: str = "",
) -> list[dict[str, Any]]:
    """Tasks that are assigned to exactly this address and contain the other texts."""
    parts = {"task_name": task_name, "list_name": list_name, "due_date": due_date, "board": board}
    wanted = {column: part for column, part in parts.items() if part}
    if not wanted and not assigned_to_email:
        raise ToolError("No search parameters provided.")
    if assigned_to_email and not _ADDRESS.fullmatch(assigned_to_email):
        raise ToolError("Invalid assigned_to_email. Expected an email address.")
    owner = assigned_to_email.lower()
    return [
        dict(row)
        for row in work.tasks.rows
        if (not owner or row["assigned_to_email"].lower() == owner)
        and all(found_in(part, row[column]) for column, part in wanted.items())
    ]


def create_task(
    work: Workplace,
    task_name: str = "",
    assigned_to_email: str = "",
    list_name: str = "",
    due_date: str = "",
    board: str = "",
) -> str:
    """Add a task; returns its id."""
    needed(
        task_name=task_name, assigned_to_email=assigned_to_email, list_name=list_name, due_date=due_date, board=board
    )
    _check_assignee(work, assigned_to_email.lower())
    choice(list_name, LISTS, "list_name")
    choice(board, BOARDS, "board")
    task_id = work.tasks.next_id("task_id", 8)
    row = {
        "task_id": task_id,
        "task_name": task_name,
        "assigned_to_email": assigned_to_email.lower(),
        "list_name": list_name,
        "due_date": due_date,
        "board": board,
    }
    work.tasks.append(row)
    return task_id


def delete_task(work: Workplace, task_id: str = "") -> str:
    """Delete a task."""
    needed(task_id=task_id)
    work.tasks.one("task_id", task_id, "Task")
    work.tasks.remove("task_id", task_id)
    return "Task deleted successfully."


def update_task(work: Workplace, task_id: str = "", field: str = "", new_value: str = "") -> str:
    """Change one field of a task."""
    needed(task_id=task_id, field=field, new_value=new_value)
    choice(field, COLUMNS["tasks"], "field")
    if field == "board":
        choice(new_value, BOARDS, "board")
    elif field == "list_name":
        choice(new_value, LISTS, "list_name")
    elif field == "assigned_to_email":
        new_value = new_value.lower()
        _check_assignee(work, new_value)
    work.tasks.one("task_id", task_id, "Task")
    work.tasks.update("task_id", task_id, field, new_value)
    return "Task updated successfully."


def _check_assignee(work: Workplace, address: str) -> None:
    """Only who has a task already may get one."""
    if all(row["assigned_to_email"].lower() != address for row in work.tasks.rows):
        raise ToolError("Invalid assigned_to_email. Choose a member of the team.")

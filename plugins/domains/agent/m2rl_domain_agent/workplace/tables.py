"""The company's tables: plain rows, copied cheaply, compared as upstream compares its data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from m2rl_core.errors import DataError
from m2rl_domain_agent.workplace.failures import ToolError

__all__ = ["COLUMNS", "FILES", "Row", "Table", "Workplace"]

Row = Mapping[str, Any]
"""One row; never changed in place, so that copies of a table share it."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "emails": ("email_id", "inbox/outbox", "sender/recipient", "subject", "sent_datetime", "body"),
    "events": ("event_id", "event_name", "participant_email", "event_start", "duration"),
    "visits": (
        "date_of_visit", "visitor_id", "page_views", "session_duration_seconds", "traffic_source", "user_engaged",
    ),
    "tasks": ("task_id", "task_name", "assigned_to_email", "list_name", "due_date", "board"),
    "customers": (
        "customer_id", "assigned_to_email", "customer_name", "customer_email", "customer_phone", "last_contact_date",
        "product_interest", "status", "follow_up_by", "notes",
    ),
}  # fmt: skip
FILES: Mapping[str, str] = {
    "emails": "emails.csv",
    "events": "calendar_events.csv",
    "visits": "analytics_data.csv",
    "tasks": "project_tasks.csv",
    "customers": "customer_relationship_manager_data.csv",
}
"""Upstream's file of each table; the directory's, ``email_addresses.csv``, has no header."""
ADDRESSES = "email_addresses.csv"
CASED = frozenset({"status", "list_name", "board"})
"""Columns whose upper and lower case count when two states are compared."""


@dataclass(slots=True)
class Table:
    """Rows with a label each.

    Labels are what a data frame calls its index: deleting a row leaves a gap, appending numbers all rows anew (or, in
    the calendar, labels the new one 0). States that differ in labels alone differ, as they do upstream.
    """

    rows: list[Row] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Table:
        listed = list(rows)
        return cls(listed, list(range(len(listed))))

    def copy(self) -> Table:
        return Table(self.rows[:], self.labels[:])

    def one(self, column: str, value: str, what: str) -> Row:
        """The first such row.

        Raises:
            ToolError: there is none.
        """
        for row in self.rows:
            if row[column] == value:
                return row
        raise ToolError(f"{what} not found.")

    def append(self, row: Row, *, renumber: bool = True) -> None:
        self.rows.append(row)
        self.labels = list(range(len(self.rows))) if renumber else [*self.labels, 0]

    def remove(self, column: str, value: str) -> None:
        kept = [(row, label) for row, label in zip(self.rows, self.labels, strict=True) if row[column] != value]
        self.rows, self.labels = [row for row, _ in kept], [label for _, label in kept]

    def update(self, key: str, value: str, column: str, new: str) -> None:
        self.rows = [{**row, column: new} if row[key] == value else row for row in self.rows]

    def next_id(self, column: str, width: int) -> str:
        """One more than the largest id, as text: upstream's order, where "500" comes after "00000499"."""
        return str(int(max(row[column] for row in self.rows)) + 1).zfill(width)

    def same(self, other: Table) -> bool:
        """Equal rows in the same order with the same labels; case counts only in :data:`CASED`."""
        if self.labels != other.labels:
            return False
        pairs = zip(self.rows, other.rows, strict=True)
        return all(mine is theirs or _folded(mine) == _folded(theirs) for mine, theirs in pairs)


def _folded(row: Row) -> dict[str, Any]:
    return {
        column: value.lower() if isinstance(value, str) and column not in CASED else value
        for column, value in row.items()
    }


@dataclass(slots=True)
class Workplace:
    """The state that tools read and change."""

    addresses: tuple[str, ...] = ()
    """The company directory."""
    visits: tuple[Row, ...] = ()
    """To the web site; no tool changes them."""
    emails: Table = field(default_factory=Table)
    events: Table = field(default_factory=Table)
    plots: Table = field(default_factory=Table)
    tasks: Table = field(default_factory=Table)
    customers: Table = field(default_factory=Table)

    @classmethod
    def of(cls, tables: Mapping[str, Iterable[Any]]) -> Workplace:
        """From rows by the names of :data:`COLUMNS`, and ``addresses``; what is not there is empty."""
        kept = {name: Table.of(tables.get(name, ())) for name in COLUMNS if name != "visits"}
        return cls(tuple(tables.get("addresses", ())), tuple(tables.get("visits", ())), **kept)

    @classmethod
    def read(cls, folder: str) -> Workplace:
        """From upstream's CSV files in ``folder``.

        Raises:
            DataError: a file that is not there, or has other columns.
        """
        place = Path(folder).expanduser()
        tables: dict[str, Iterable[Any]] = {name: _read(place / file, COLUMNS[name]) for name, file in FILES.items()}
        lines = _text(place / ADDRESSES).splitlines()
        return cls.of({**tables, "addresses": [line.strip() for line in lines if line.strip()]})

    def copy(self) -> Workplace:
        """A fresh copy: tools that change it leave this one as it is."""
        tables = (self.emails, self.events, self.plots, self.tasks, self.customers)
        return Workplace(self.addresses, self.visits, *(table.copy() for table in tables))

    def difference(self, other: Workplace) -> str:
        """The first of the five tables in which two states differ, or nothing."""
        for each in fields(self):
            mine = getattr(self, each.name)
            if isinstance(mine, Table) and not mine.same(getattr(other, each.name)):
                return each.name
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the workplace has no readable table {path}",
            found=str(error),
            allowed=f"a folder with {', '.join((*FILES.values(), ADDRESSES))}",
            then="set 'tables' of the domain to a copy of upstream's csv_data, or leave it out",
        ) from error


def _read(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """The rows of a CSV file with exactly these columns; an empty field is ``None``."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    if set(reader.fieldnames or ()) != set(columns):
        raise DataError(f"{path} has other columns", found=", ".join(reader.fieldnames or ()), allowed=columns)
    rows: list[Row] = [{column: row[column] or None for column in columns} for row in reader]
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows

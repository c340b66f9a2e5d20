"""A made-up company with the schema and the size of upstream's tables, for whoever has no copy of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import cache
from random import Random
from typing import Any

from m2rl_core.seeding import derive
from m2rl_domain_agent.workplace.customers import PRODUCTS, STATUSES
from m2rl_domain_agent.workplace.tables import Row, Workplace
from m2rl_domain_agent.workplace.tasks import BOARDS, LISTS

__all__ = ["FIRST", "LAST", "company"]

FIRST = (
    "ada", "bela", "chidi", "dana", "emil", "fay", "gus", "hana", "ivo", "jun", "kai", "lea", "milo", "nia", "omar",
    "pia", "quin", "rosa", "sam", "tove",
)  # fmt: skip
LAST = (
    "abel", "berg", "cruz", "dahl", "engel", "fox", "gomez", "holt", "ito", "jansen", "khan", "lund", "mori", "nash",
    "okoro", "park", "quist", "reyes", "silva", "tran",
)  # fmt: skip
_WORK = ("fix", "test", "draft", "review", "plan", "ship", "measure", "clean up")
_THINGS = ("login page", "search index", "price list", "icon set", "mobile menu", "data export", "sign-up form", "logo")
_MEETINGS = ("sync up", "design review", "budget talk", "retrospective", "client call", "training", "town hall")
_NEWS = ("is done", "needs your help", "will be late", "is blocked", "can be reviewed", "was moved to next week")
_SOURCES = ("direct", "referral", "search engine", "social media")
_NOTED = ("Had a call", "Saw the demo", "Met in person", "Sent a quote")
SIZES = {"emails": 500, "events": 300, "tasks": 300, "customers": 200, "visits": 1_000}
_MONDAY = date(2023, 10, 2)


@cache
def company(seed: int = 0) -> Workplace:
    """The company of this seed; to be copied before it is worked in."""
    draw = Random(derive(seed, "company"))
    last = draw.sample(LAST, len(FIRST))
    people = [f"{first}.{name}@atlas.com" for first, name in zip(FIRST, last, strict=True)]
    makers = {"emails": _email, "events": _event, "tasks": _task, "customers": _customer, "visits": _visit}
    tables: dict[str, Any] = {"addresses": people}
    for name, make in makers.items():
        rows = [make(draw, people, number) for number in _shuffled(draw, SIZES[name])]
        tables[name] = sorted(rows, key=lambda row: str(row.get("sent_datetime") or row.get("date_of_visit") or ""))
    return Workplace.of(tables)


def _shuffled(draw: Random, size: int) -> Iterator[str]:
    """Ids in no order."""
    return (f"{number:08d}" for number in draw.sample(range(size), size))


def _day(draw: Random, first: date = _MONDAY, days: int = 60) -> date:
    """A working day."""
    found = first + timedelta(days=draw.randrange(days))
    return found if found.weekday() < 5 else found - timedelta(days=2)


def _email(draw: Random, people: list[str], number: str) -> Row:
    person, thing = draw.choice(people), f"{draw.choice(_WORK)} {draw.choice(_THINGS)}"
    sent = datetime.combine(_day(draw), datetime.min.time()) + timedelta(seconds=draw.randrange(32_400, 64_800))
    return {
        "email_id": number,
        "inbox/outbox": draw.choice(("inbox", "inbox", "inbox", "outbox")),
        "sender/recipient": person,
        "subject": f"About '{thing}'",
        "sent_datetime": str(sent),
        "body": f"Hello,\\n\\n'{thing}' {draw.choice(_NEWS)}.\\n\\nRegards,\\n{person.partition('.')[0].title()}",
    }


def _event(draw: Random, people: list[str], number: str) -> Row:
    return {
        "event_id": number,
        "event_name": f"{draw.choice(_MEETINGS)}",
        "participant_email": draw.choice(people),
        "event_start": f"{_day(draw, days=90)} {draw.randrange(9, 17):02d}:{draw.choice(('00', '30'))}:00",
        "duration": draw.choice(("30", "60", "90", "120")),
    }


def _task(draw: Random, people: list[str], number: str) -> Row:
    return {
        "task_id": number,
        "task_name": f"{draw.choice(_WORK)} {draw.choice(_THINGS)}",
        "assigned_to_email": draw.choice(people),
        "list_name": draw.choice(LISTS),
        "due_date": str(_day(draw, days=90)),
        "board": draw.choice(BOARDS),
    }


def _customer(draw: Random, people: list[str], number: str) -> Row:
    first, last = draw.choice(FIRST), draw.choice(LAST)
    return {
        "customer_id": number,
        "assigned_to_email": draw.choice(people),
        "customer_name": f"{first.title()} {last.title()}",
        "customer_email": f"{first}.{last}@{draw.choice(_THINGS).replace(' ', '')}.org",
        "customer_phone": draw.choice((None, f"555-{draw.randrange(1_000, 10_000)}")),
        "last_contact_date": f"{_day(draw)} 23:59:00",
        "product_interest": draw.choice(PRODUCTS),
        "status": draw.choice(STATUSES),
        "follow_up_by": f"{_day(draw, date(2023, 12, 4), 40)} 23:59:00",
        "notes": draw.choice((None, f"{_day(draw)}: {draw.choice(_NOTED)}.")),
    }


def _visit(draw: Random, people: list[str], number: str) -> Row:
    return {
        "date_of_visit": str(_day(draw)),
        "visitor_id": number[-4:],
        "page_views": str(draw.randrange(1, 20)),
        "session_duration_seconds": str(draw.randrange(1, 60)),
        "traffic_source": draw.choice(_SOURCES),
        "user_engaged": draw.choice(("True", "False")),
    }

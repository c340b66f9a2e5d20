"""The mailbox."""

from __future__ import annotations

from typing import Any

from m2rl_domain_agent.workplace.failures import ToolError, choice, needed
from m2rl_domain_agent.workplace.moments import NOW, moment
from m2rl_domain_agent.workplace.pages import PAGE, paged
from m2rl_domain_agent.workplace.tables import COLUMNS, Row, Workplace

__all__ = [
    "delete_email", "forward_email", "get_email_information_by_id", "reply_email", "search_emails", "send_email",
]  # fmt: skip


def get_email_information_by_id(work: Workplace, email_id: str = "", field: str = "") -> dict[str, Any]:
    """One field of an email."""
    needed(email_id=email_id, field=field)
    email = work.emails.one("email_id", email_id, "Email")
    choice(field, COLUMNS["emails"], "field")
    return {field: email[field]}


def search_emails(
    work: Workplace, query: str = "", date_min: str = "", date_max: str = "", page: int = 1, page_size: int = PAGE
) -> dict[str, Any]:
    """Emails that have every word of ``query`` in subject, body or address, the latest first.

    Of those that were sent at the same time, the last one in the table comes first.
    """
    words = set(query.lower().split())
    low = moment(date_min, "date_min").date() if date_min else None
    high = moment(date_max, "date_max").date() if date_max else None

    def is_wanted(row: Row) -> bool:
        text = f"{row['subject']} {row['body']} {row['sender/recipient']}".lower()
        if not all(word in text for word in words):
            return False
        day = moment(row["sent_datetime"], "sent_datetime").date()
        return (low is None or day >= low) and (high is None or day <= high)

    rows = [row for row in work.emails.rows if is_wanted(row)]
    rows.sort(key=lambda row: moment(row["sent_datetime"], "sent_datetime"))
    return paged("emails", rows[::-1], page, page_size)


def send_email(work: Workplace, recipient: str = "", subject: str = "", body: str = "") -> str:
    """Put an email in the outbox."""
    needed(recipient=recipient, subject=subject, body=body)
    _check_address(recipient)
    row = {
        "email_id": work.emails.next_id("email_id", 0) if work.emails.rows else "1",
        "inbox/outbox": "outbox",
        "sender/recipient": recipient.lower(),
        "subject": subject,
        "sent_datetime": NOW,
        "body": body,
    }
    work.emails.append(row)
    return "Email sent successfully."


def delete_email(work: Workplace, email_id: str = "") -> str:
    """Delete an email."""
    needed(email_id=email_id)
    work.emails.one("email_id", email_id, "Email")
    work.emails.remove("email_id", email_id)
    return "Email deleted successfully."


def forward_email(work: Workplace, email_id: str = "", recipient: str = "") -> str:
    """Send an email's text on to somebody."""
    needed(email_id=email_id, recipient=recipient)
    _check_address(recipient)
    email = work.emails.one("email_id", email_id, "Email")
    send_email(work, recipient, f"FW: {email['subject']}", email["body"])
    return "Email forwarded successfully."


def reply_email(work: Workplace, email_id: str = "", body: str = "") -> str:
    """Answer whoever an email came from or went to."""
    needed(email_id=email_id, body=body)
    email = work.emails.one("email_id", email_id, "Email")
    send_email(work, email["sender/recipient"], f"RE: {email['subject']}", body)
    return "Email replied successfully."


def _check_address(recipient: str) -> None:
    if "@" not in recipient or "." not in recipient:
        raise ToolError("Invalid recipient email address.")

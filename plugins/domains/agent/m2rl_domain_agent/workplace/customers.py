"""Customer relations."""

from __future__ import annotations

from typing import Any

from m2rl_domain_agent.workplace.failures import ToolError, choice, needed
from m2rl_domain_agent.workplace.pages import PAGE, found_in, paged
from m2rl_domain_agent.workplace.tables import COLUMNS, Row, Workplace

__all__ = ["PRODUCTS", "STATUSES", "add_customer", "delete_customer", "search_customers", "update_customer"]

STATUSES = ("Qualified", "Won", "Lost", "Lead", "Proposal")
PRODUCTS = ("Software", "Hardware", "Services", "Consulting", "Training")


def search_customers(
    work: Workplace,
    customer_name: str = "",
    customer_email: str = "",
    product_interest: str = "",
    status: str = "",
    assigned_to_email: str = "",
    last_contact_date_min: str = "",
    last_contact_date_max: str = "",
    follow_up_by_min: str = "",
    follow_up_by_max: str = "",
    page: int = 1,
    page_size: int = PAGE,
) -> dict[str, Any]:
    """Customers whose fields contain the texts and whose dates, compared as text, lie within the limits."""
    parts = {
        "customer_name": customer_name, "customer_email": customer_email, "product_interest": product_interest,
        "status": status, "assigned_to_email": assigned_to_email,
    }  # fmt: skip
    dates = {
        "last_contact_date": (last_contact_date_min, last_contact_date_max),
        "follow_up_by": (follow_up_by_min, follow_up_by_max),
    }
    if not any(parts.values()) and not any(map(any, dates.values())):
        raise ToolError("No search parameters provided. Please provide at least one parameter.")

    def is_wanted(row: Row) -> bool:
        named = all(found_in(part, row[column]) for column, part in parts.items() if part)
        return named and all(_between(row[column], *limits) for column, limits in dates.items())

    return paged("customers", [row for row in work.customers.rows if is_wanted(row)], page, page_size)


def update_customer(work: Workplace, customer_id: str = "", field: str = "", new_value: str = "") -> str:
    """Change one field of a customer."""
    needed(customer_id=customer_id, field=field, new_value=new_value)
    choice(field, COLUMNS["customers"], "field")
    if field == "status":
        choice(new_value, STATUSES, "status")
    elif field == "product_interest":
        choice(new_value, PRODUCTS, "product_interest")
    elif field in ("customer_email", "assigned_to_email"):
        new_value = new_value.lower()
    work.customers.one("customer_id", customer_id, "Customer")
    work.customers.update("customer_id", customer_id, field, new_value)
    return "Customer updated successfully."


def add_customer(
    work: Workplace,
    customer_name: str = "",
    assigned_to_email: str = "",
    status: str = "",
    customer_email: str = "",
    customer_phone: str | None = None,
    last_contact_date: str | None = None,
    product_interest: str | None = None,
    notes: str = "",
    follow_up_by: str | None = None,
) -> str:
    """Add a customer, of any status and product as upstream; returns the id."""
    needed(customer_name=customer_name, assigned_to_email=assigned_to_email, status=status)
    customer_id = work.customers.next_id("customer_id", 8)
    row = {
        "customer_id": customer_id,
        "assigned_to_email": assigned_to_email.lower(),
        "customer_name": customer_name,
        "customer_email": customer_email.lower() or None,
        "customer_phone": customer_phone,
        "last_contact_date": last_contact_date,
        "product_interest": product_interest,
        "status": status,
        "follow_up_by": follow_up_by,
        "notes": notes,
    }
    work.customers.append(row)
    return customer_id


def delete_customer(work: Workplace, customer_id: str = "") -> str:
    """Delete a customer."""
    needed(customer_id=customer_id)
    work.customers.one("customer_id", customer_id, "Customer")
    work.customers.remove("customer_id", customer_id)
    return "Customer deleted successfully."


def _between(value: str | None, low: str, high: str) -> bool:
    if not low and not high:
        return True
    return value is not None and (not low or value >= low) and (not high or value <= high)

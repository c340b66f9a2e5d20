"""The workplace's tools and the comparison of states, by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_domain_agent.calls import Call
from m2rl_domain_agent.workplace import TOOLS, Workplace, answered, company, replayed
from m2rl_domain_agent.workplace.tables import COLUMNS, FILES
from m2rl_domain_agent.workplace.tools import LONGEST_ARGUMENT

TABLES = Path(__file__).resolve().parents[5] / "shared" / "data" / "workplace"
REAL_ROWS = TABLES.parent / "rows" / "workplace_assistant.jsonl"


def row(table: str, *values: str | None) -> dict[str, str | None]:
    return dict(zip(COLUMNS[table], values, strict=True))


def office() -> Workplace:
    return Workplace.of(
        {
            "addresses": ["ann.lee@firm.org", "bo.lee@firm.org", "cy.day@firm.org"],
            "emails": [
                row("emails", "00000007", "inbox", "ann.lee@firm.org", "Plan", "2023-11-02 10:00:00", "The big plan"),
                row("emails", "00000003", "outbox", "bo.lee@firm.org", "Lunch", "2023-11-01 10:00:00", "At noon?"),
                row("emails", "00000005", "inbox", "cy.day@firm.org", "Plan B", "2023-11-03 10:00:00", "A small plan"),
            ],
            "events": [
                row("events", "00000001", "sync up", "ann.lee@firm.org", "2023-12-01 09:00:00", "30"),
                row("events", "00000009", "review", "bo.lee@firm.org", "2023-12-02 09:00:00", "60"),
            ],
            "visits": [
                row("visits", "2023-11-01", "0042", "3", "10", "direct", "True"),
                row("visits", "2023-11-01", "0007", "3", "20", "referral", "False"),
                row("visits", "2023-11-03", "0042", "3", "5", "direct", "False"),
            ],
            "tasks": [
                row("tasks", "00000011", "fix it", "ann.lee@firm.org", "Backlog", "2023-12-05", "Design"),
                row("tasks", "00000012", "fix more", "bo.lee@firm.org", "Completed", "2023-12-06", "Front end"),
            ],
            "customers": [
                row("customers", "00000021", "bo.lee@firm.org", "Di Fox", "di@x.org", None, "2023-11-05 23:59:00",
                    "Software", "Lead", "2023-12-05 23:59:00", None),
                row("customers", "00000022", "bo.lee@firm.org", "Ed Fox", None, "555-1", "2023-11-25 23:59:00",
                    "Hardware", "Won", "2023-12-25 23:59:00", "Had a call."),
            ],
        }
    )  # fmt: skip


def say(work: Workplace, tool: str, **arguments: Any) -> Any:
    return json.loads(answered(work, Call(tool, arguments)))["output"]


def outcome(*made: tuple[str, dict[str, Any]]) -> Workplace:
    return replayed(office(), [Call(name, arguments) for name, arguments in made])[0]


def test_there_are_27_tools_with_the_parameters_of_the_real_rows() -> None:
    assert len(TOOLS) == 27
    assert sum(tool.writes for tool in TOOLS.values()) == 14
    if not REAL_ROWS.is_file():
        pytest.skip("needs ../shared beside the repository")
    listed = json.loads(REAL_ROWS.read_text().splitlines()[0])["responses_create_params"]["tools"]
    assert {tool["name"] for tool in listed} == set(TOOLS)
    for tool in listed:
        kinds = {"string": str, "integer": int}
        parameters = {name: kinds[each["type"]] for name, each in tool["parameters"]["properties"].items()}
        assert parameters == TOOLS[tool["name"]].parameters, tool["name"]


def test_reading() -> None:
    work = office()
    assert say(work, "company_directory_find_email_address", name="LEE") == ["ann.lee@firm.org", "bo.lee@firm.org"]
    assert say(work, "company_directory_find_email_address", name="zoe") == []
    found = say(work, "email_search_emails", query="plan big")
    assert [each["email_id"] for each in found["emails"]] == ["00000007"]
    found = say(work, "email_search_emails", query="PLAN", page=2, page_size=1)
    assert [each["email_id"] for each in found["emails"]] == ["00000007"]  # the latest comes first
    assert found["pagination"] == {"total_emails": 2, "page": 2, "page_size": 1, "total_pages": 2}
    found = say(work, "email_search_emails", date_min="2023-11-02", date_max="2023-11-02")
    assert [each["email_id"] for each in found["emails"]] == ["00000007"]
    assert say(work, "email_get_email_information_by_id", email_id="00000003", field="subject") == {"subject": "Lunch"}
    found = say(work, "calendar_search_events", query="lee", time_min="2023-12-01 09:30:00")
    assert [each["event_id"] for each in found["events"]] == ["00000009"]
    assert say(work, "project_management_search_tasks", task_name="FIX", board="design") == [dict(work.tasks.rows[0])]
    found = say(work, "customer_relationship_manager_search_customers", follow_up_by_max="2023-12-06")
    assert [each["customer_name"] for each in found["customers"]] == ["Di Fox"]
    assert found["customers"][0]["notes"] is None
    assert not work.difference(office())


def test_analytics() -> None:
    work = office()
    assert say(work, "analytics_total_visits_count") == {"2023-11-01": 2, "2023-11-03": 1}
    assert say(work, "analytics_engaged_users_count") == {"2023-11-01": 1, "2023-11-03": 0}
    assert say(work, "analytics_traffic_source_count", traffic_source="referral", time_max="2023-11-02") == {
        "2023-11-01": 1
    }
    assert say(work, "analytics_get_average_session_duration") == {"2023-11-01": 15.0, "2023-11-03": 5.0}
    assert [
        each["user_engaged"] for each in say(work, "analytics_get_visitor_information_by_id", visitor_id="0042")
    ] == [
        True,
        False,
    ]
    plot = {"time_min": "2023-11-01", "time_max": "2023-11-30", "value_to_plot": "total_visits", "plot_type": "bar"}
    assert say(work, "analytics_create_plot", **plot) == "plots/2023-11-01_2023-11-30_total_visits_bar.png"
    assert len(work.plots.rows) == 1


def test_writing() -> None:
    work = office()
    assert say(work, "email_reply_email", email_id="00000007", body="Yes.") == "Email replied successfully."
    assert work.emails.rows[-1] == row(
        "emails", "8", "outbox", "ann.lee@firm.org", "RE: Plan", "2023-11-30 23:59:00", "Yes."
    )
    say(work, "email_forward_email", email_id="00000003", recipient="CY.day@firm.org")
    assert work.emails.rows[-1] == row(
        "emails", "9", "outbox", "cy.day@firm.org", "FW: Lunch", "2023-11-30 23:59:00", "At noon?"
    )
    new = {"event_name": "Talk", "participant_email": "Bo.Lee@firm.org", "event_start": "2023-12-03 09:00:00"}
    assert say(work, "calendar_create_event", **new, duration="45") == "00000010"
    assert work.events.labels == [0, 1, 0]
    assert say(work, "project_management_delete_task", task_id="00000011") == "Task deleted successfully."
    assert say(work, "customer_relationship_manager_add_customer", customer_name="Flo", assigned_to_email="A@B.c",
               status="Lead") == "00000023"  # fmt: skip
    assert work.customers.rows[-1]["notes"] == ""
    assert work.customers.rows[-1]["customer_phone"] is None


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("email_send_email", {"recipient": "bo", "subject": "a", "body": "b"}),
        ("email_send_email", {"recipient": "bo@firm.org", "subject": "", "body": "b"}),
        ("email_send_email", {"recipient": "bo@firm.org", "subject": "a", "body": 7}),
        ("email_reply_email", {"email_id": "7", "body": "b"}),
        ("email_reply_email", {"email_id": 7, "body": "b"}),
        ("email_reply_email", {"email_id": "00000007", "body": "b", "self": "x"}),
        ("email_reply_email", {"email_id": "00000007", "body": "b" * (LONGEST_ARGUMENT + 1)}),
        ("email_forward_email", {"email_id": "00000007"}),
        ("email_delete_email", {"email_id": None}),
        ("calendar_create_event", {"event_name": "a", "participant_email": "b", "event_start": "soon",
                                   "duration": "3"}),
        ("calendar_create_event", {"event_name": "a", "participant_email": "b", "event_start": "2023-12-01",
                                   "duration": "0"}),
        ("calendar_delete_event", {"event_id": "1"}),
        ("calendar_update_event", {"event_id": "00000001", "field": "event_id", "new_value": "x"}),
        ("calendar_update_event", {"event_id": "00000001", "field": "duration", "new_value": "long"}),
        ("calendar_update_event", {"event_id": "00000001", "field": "event_start", "new_value": "2023-13-01"}),
        ("analytics_create_plot", {"time_min": "a", "time_max": "b", "value_to_plot": "x", "plot_type": "bar"}),
        ("project_management_create_task", {"task_name": "a", "assigned_to_email": "cy.day@firm.org",
                                            "list_name": "Backlog", "due_date": "b", "board": "Design"}),
        ("project_management_update_task", {"task_id": "00000011", "field": "board", "new_value": "design"}),
        ("project_management_update_task", {"task_id": "00000011", "field": "color", "new_value": "red"}),
        ("customer_relationship_manager_update_customer", {"customer_id": "00000021", "field": "status",
                                                           "new_value": "won"}),
        ("customer_relationship_manager_delete_customer", {"customer_id": "00000020"}),
        ("email_search_emails", {"query": "zzz"}),
        ("email_search_emails", {"page_size": 0}),
        ("email_search_emails", {"page": True}),
        ("calendar_search_events", {"time_min": "yesterday"}),
        ("project_management_search_tasks", {}),
        ("project_management_search_tasks", {"assigned_to_email": "bo"}),
        ("verify", {}), ("seed_session", {}), ("__class__", {}), ("email.__init__", {}), ("reset_state", {}),
        ("../verify", {}), ("company", {}), ("", {}), ("x" * 10_000, {}),
    ],
)  # fmt: skip
def test_a_call_that_fails_says_so_and_changes_nothing(tool: str, arguments: dict[str, Any]) -> None:
    work = office()
    output = say(work, tool, **arguments)
    assert isinstance(output, str)
    assert len(output) < 400
    assert not work.difference(office())
    assert replayed(office(), [Call(tool, arguments)], TOOLS)[1] == (tool in TOOLS and not TOOLS[tool].writes)


def test_states_are_compared_as_upstream_compares_them() -> None:
    send = ("email_send_email", {"recipient": "bo.lee@firm.org", "subject": "Hi", "body": "Ho"})
    other = ("email_send_email", {"recipient": "cy.day@firm.org", "subject": "Hi", "body": "Ho"})
    delete = ("email_delete_email", {"email_id": "00000003"})
    event = ("calendar_create_event", {"event_name": "a", "participant_email": "b", "event_start": "2023-12-01",
                                       "duration": "30"})  # fmt: skip
    loud = ("email_send_email", {"recipient": "BO.LEE@firm.org", "subject": "HI", "body": "ho"})
    assert not outcome(send, event).difference(outcome(event, send))  # of different tables: any order
    assert not outcome(send).difference(outcome(loud))  # case means nothing
    assert outcome(send, other).difference(outcome(other, send)) == "emails"
    assert outcome(send, send).difference(outcome(send)) == "emails"
    assert outcome(send, delete).difference(outcome(delete, send)) == "emails"  # the labels shift
    assert outcome(send, ("email_delete_email", {"email_id": "8"})).difference(office()) == ""
    assert outcome(delete, send, ("email_delete_email", {"email_id": "8"})).difference(outcome(delete)) == "emails"
    assert outcome(event).difference(office()) == "events"

    def named(value: str) -> tuple[str, dict[str, Any]]:
        return ("project_management_update_task", {"task_id": "00000011", "field": "list_name", "new_value": value})

    assert not outcome(named("Completed"), named("In Review")).difference(outcome(named("In Review")))
    assert not outcome(named("Completed"), named("Backlog")).difference(office())


def test_case_counts_in_some_columns() -> None:
    lower = office()
    lower.customers.rows[0] = {**lower.customers.rows[0], "status": "lead"}
    assert lower.difference(office()) == "customers"
    lower.customers.rows[0] = {**office().customers.rows[0], "customer_name": "DI FOX"}
    assert not lower.difference(office())


def test_a_replay_leaves_the_start_alone() -> None:
    work = office()
    state, done = replayed(
        work,
        [
            Call("email_delete_email", {"email_id": "00000003"}),
            Call("email_delete_email", {"email_id": "nope"}),
            Call("project_management_update_task", {"task_id": "00000011", "field": "board", "new_value": "Back end"}),
        ],
    )
    assert done == 2
    assert state.difference(work) == "emails"
    assert not work.difference(office())


def test_only_the_tools_of_the_prompt() -> None:
    call = Call("email_delete_email", {"email_id": "00000003"})
    assert "unknown tool" in json.loads(answered(office(), call, {"email_search_emails"}))["output"]
    assert replayed(office(), [call], {"email_search_emails"})[1] == 0


def test_a_generated_company_is_the_same_every_time_and_as_large_as_upstreams() -> None:
    work = company()
    sizes = {name: len(getattr(work, name) if name == "visits" else getattr(work, name).rows) for name in COLUMNS}
    assert sizes == {"emails": 500, "events": 300, "visits": 1_000, "tasks": 300, "customers": 200}
    assert len(set(work.addresses)) == 20
    for name, columns in COLUMNS.items():
        rows = list(work.visits) if name == "visits" else getattr(work, name).rows
        assert all(set(each) == set(columns) for each in rows)
    assert company(1).difference(work)
    company.cache_clear()
    assert company() is not work
    assert not company().difference(work)


def test_long_searches_are_quick_and_long_answers_short() -> None:
    work = company()
    started = time.process_time()
    say(work, "email_search_emails", query="a " * 500_000)
    say(work, "email_search_emails", query="a " * (LONGEST_ARGUMENT // 2))
    say(work, "project_management_search_tasks", task_name="(a+)+$" * 1_000)
    assert len(json.dumps(say(work, "email_search_emails", page_size=10**9))) < 64_000
    assert time.process_time() - started < 1.0


def test_a_verdict_takes_far_less_than_20_ms() -> None:
    work = company()
    call = Call("email_send_email", {"recipient": "a@b.c", "subject": "s", "body": "b"})
    started = time.process_time()
    for _ in range(100):
        assert not replayed(work, [call] * 3)[0].difference(replayed(work, [call] * 3)[0])
    assert time.process_time() - started < 1.0


@pytest.mark.skipif(not TABLES.is_dir(), reason="needs ../shared beside the repository")
def test_upstreams_tables_are_read() -> None:
    work = Workplace.read(str(TABLES))
    assert [len(getattr(work, name).rows) for name in ("emails", "events", "tasks", "customers")] == [
        500,
        300,
        300,
        200,
    ]
    assert len(work.visits) == 1_000
    assert len(work.addresses) == 20
    assert say(work, "company_directory_find_email_address", name="raj") == ["raj.patel@atlas.com"]


def test_tables_that_are_not_there_are_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"emails\.csv.*csv_data"):
        Workplace.read(str(tmp_path))
    for name, file in FILES.items():
        (tmp_path / file).write_text(",".join(COLUMNS[name]) + "\n" + ",".join("x" for _ in COLUMNS[name]) + "\n")
    with pytest.raises(DataError, match=r"email_addresses\.csv"):
        Workplace.read(str(tmp_path))
    (tmp_path / "email_addresses.csv").write_text("a@b.c\n\nd@e.f\n")
    assert Workplace.read(str(tmp_path)).addresses == ("a@b.c", "d@e.f")
    (tmp_path / "emails.csv").write_text("email_id,body\n1,x\n")
    with pytest.raises(DataError, match="other columns"):
        Workplace.read(str(tmp_path))

"""The workplace: a company's email, calendar, analytics, tasks, customers and directory, worked on through 27 tools.

The rules, and the tables where they are given, are those of NeMo-Gym's ``workplace_assistant``, which goes back to
WorkBench; the code is our own and needs no data frames.
"""

from m2rl_domain_agent.workplace.company import company
from m2rl_domain_agent.workplace.tables import Workplace
from m2rl_domain_agent.workplace.tools import TOOLS, answered, replayed

__all__ = ["TOOLS", "Workplace", "answered", "company", "replayed"]

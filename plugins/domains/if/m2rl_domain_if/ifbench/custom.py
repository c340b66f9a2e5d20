"""``custom:``: tasks with a fixed prompt, each with the answer or the layout that it asks for."""

from __future__ import annotations

import csv
import datetime
import io
import re
from itertools import pairwise

from m2rl_domain_if.ifbench.table import TABLE
from m2rl_domain_if.ifbench.text import EDGES, bare_words, plain
from m2rl_domain_if.sentences import sentences

__all__: list[str] = []

CAPITALS = [
    "Reykjavik",
    "Helsinki",
    "Oslo",
    "Tallinn",
    "Stockholm",
    "Riga",
    "Moscow",
    "Copenhagen",
    "Vilnius",
    "Minsk",
    "Dublin",
    "Berlin",
    "Amsterdam",
    "Warsaw",
    "London",
    "Brussels",
    "Prague",
    "Luxembourg",
    "Paris",
    "Vienna",
    "Bratislava",
    "Budapest",
    "Vaduz",
    "Chisinau",
    "Bern",
    "Ljubljana",
    "Zagreb",
]
"""Upstream's answer: the benchmark counts neither Kyiv nor any other that is missing here."""
COUNTRIES = 52
"""Lines at least, from Zimbabwe on: some lists of Africa's countries have 54 names, some fewer."""

_MULTIPLES = [str(n) for n in range(14, 50, 7)]
_QUESTION = re.compile(r"Question \d+[.|):;]?\s*")
_OPTION = re.compile(r"[A-Ea-e][.|)]\s*\w+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NAPOLEON = (1769, 1821)
_SPECIAL = re.compile(r"[^\w\s]")


@TABLE.add("custom:multiples")
def multiples(text: str) -> bool:
    """14, 21, 28, 35, 42, 49, and no other number."""
    return re.findall(r"\d+", text) == _MULTIPLES


@TABLE.add("custom:mcq_count_length")
def mcq_count_length(text: str) -> bool:
    """Four numbered questions, each longer than the one before it, with five options each, and nothing before them."""
    questions = [part.strip().split("\n") for part in _QUESTION.split(text) if part.strip()]
    if not text.startswith("Question") or len(questions) != 4:
        return False
    measured = [_measure([line.strip() for line in question]) for question in questions]
    longer = all(one < other for (one, _), (other, _) in pairwise(measured))
    return longer and all(options == 5 for _, options in measured)


def _measure(lines: list[str]) -> tuple[int, int]:
    """Characters of a question before its first option, and the number of options."""
    options = [at for at, line in enumerate(lines) if _OPTION.match(line)]
    asked = lines[: options[0]] if options else lines
    return len(" ".join(asked).strip()), len(options)


@TABLE.add("custom:reverse_newline")
def reverse_newline(text: str) -> bool:
    """From the first line with Zimbabwe on, 52 different lines or more, each before the last in the alphabet."""
    lines = [line for line in (line.strip(EDGES) for line in text.split("\n")) if line]
    first = next((at for at, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    found = [plain(line) for line in lines[first:]]
    return len(set(found)) >= COUNTRIES and found == sorted(found, reverse=True)


@TABLE.add("custom:word_reverse")
def word_reverse(text: str) -> bool:
    return "bald eagle" in " ".join(reversed(bare_words(text.lower())))


@TABLE.add("custom:character_reverse")
def character_reverse(text: str) -> bool:
    return "elgae dlab" in text.lower()


@TABLE.add("custom:sentence_alphabet")
def sentence_alphabet(text: str) -> bool:
    """26 sentences that start with the letters from A to Z."""
    return "".join(sentence[0].lower() for sentence in sentences(text)) == "abcdefghijklmnopqrstuvwxyz"


@TABLE.add("custom:european_capitals_sort")
def european_capitals_sort(text: str) -> bool:
    return [name for name in (name.strip() for name in plain(text).split(",")) if name] == CAPITALS


@TABLE.add("custom:date_format_list")
def date_format_list(text: str) -> bool:
    """Days of Napoleon's lifetime between commas, and nothing else."""
    return all(_is_day(date.strip()) for date in text.split(","))


def _is_day(date: str) -> bool:
    try:
        year = datetime.date.fromisoformat(date).year if _DATE.fullmatch(date) else 0
    except ValueError:
        return False
    return _NAPOLEON[0] <= year <= _NAPOLEON[1]


@TABLE.add("custom:csv_city")
def csv_city(text: str) -> bool:
    rows = _rows(text, ",")
    return len(rows) == 8 and rows[0] == ["ID", "Country", "City", "Year", "Count"] and _have_five(rows)


@TABLE.add("custom:csv_special_character")
def csv_special_character(text: str) -> bool:
    """The header, 14 rows, and in one of them a field in double quotes with a special character."""
    rows = _rows(_keep_quotes(text), ",")
    header = _is_header(text, ["ProductID", "Category", "Brand", "Price", "Stock"], r",[ \t]*")
    return (
        header and len(rows) == 15 and _have_five(rows) and any(_is_special(field) for row in rows[1:] for field in row)
    )


def _is_special(field: str) -> bool:
    """Whether ``field`` is in double quotes with a sign between them."""
    line = field.split("\n")[0]
    return line.startswith('"') and bool(_SPECIAL.search(line[1 : max(line.rfind('"'), 1)]))


@TABLE.add("custom:csv_quotes")
def csv_quotes(text: str) -> bool:
    """The header and three rows between tabs, each field in double quotes."""
    rows = _rows(_keep_quotes(text), "\t")
    header = _is_header(text, ["StudentID", "Subject", "Grade", "Semester", "Score"], r"\t *")
    fields = [field.strip() for row in rows for field in row]
    return header and len(rows) == 4 and _have_five(rows) and all(field[:1] == field[-1:] == '"' for field in fields)


def _is_header(text: str, names: list[str], separator: str) -> bool:
    pattern = separator.join(f'(?:{name}|"{name}")' for name in names)
    return bool(re.fullmatch(pattern, text.split("\n")[0].strip()))


def _keep_quotes(text: str) -> str:
    """So that the fields read from it still have the quotation marks around them."""
    return text.replace('"', '"""')


def _rows(text: str, delimiter: str) -> list[list[str]]:
    """The rows of a table; none where it cannot be read."""
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return []


def _have_five(rows: list[list[str]]) -> bool:
    return all(len(row) == 5 for row in rows)

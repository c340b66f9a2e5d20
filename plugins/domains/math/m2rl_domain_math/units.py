r"""Units of measurement at the end of an answer.

A unit is read where it is marked (``\text{cm}``, ``^\circ``, ``\$``) or is a word of at least two letters after a
number, and only if it is in the table below: a bare single letter is a variable. ``%`` is no unit but one hundredth.
"""

from __future__ import annotations

import re

__all__ = ["UNITS", "split_unit"]

_ALIASES = (
    "mm millimeter millimeters millimetre millimetres",
    "cm centimeter centimeters centimetre centimetres",
    "m meter meters metre metres",
    "km kilometer kilometers kilometre kilometres",
    "inch in inches",
    "ft foot feet",
    "yd yard yards",
    "mile mi miles",
    "mg milligram milligrams",
    "g gram grams",
    "kg kilogram kilograms",
    "lb lbs pound pounds",
    "oz ounce ounces",
    "ton tons",
    "ms millisecond milliseconds",
    "s sec secs second seconds",
    "min mins minute minutes",
    "h hr hrs hour hours",
    "day days",
    "week weeks",
    "month months",
    "year yr yrs years",
    "mL ml milliliter milliliters millilitre millilitres",
    "L liter liters litre litres",
    "gal gallon gallons",
    "mph",
    "km/h kmh kph",
    "m/s",
    "rad radian radians",
    "degree deg degrees",
    "unit units",
    "$ dollar dollars USD",
    "cent cents",
    "euro euros",
    "N newton newtons",
    "J joule joules",
    "W watt watts",
    "V volt volts",
    "A ampere amperes",
    "Hz hertz",
    "Pa pascal pascals",
    "K kelvin",
    "mol mole moles",
    "person people persons",
    "student students",
    "point points",
    "way ways",
    "time times",
)
UNITS = {alias: group.split()[0] for group in _ALIASES for alias in group.split()}
"""Every spelling → the unit's one name."""
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "": ""}

_POWER = r"\s*(?:\^\s*\{?\s*(?P<power>[23])\s*\}?)?$"
_PREFIX = r"(?P<prefix>(?:square|sq\.?|cubic)\s+|)"
_MARKED = re.compile(r"\\(?:text[a-z]*|mathrm|mbox)\s*\{\s*" + _PREFIX + r"(?P<unit>[A-Za-z/]{1,16})\.?\s*\}" + _POWER)
_WORD = re.compile(r"(?<=[0-9)}\] ])\s*" + _PREFIX + r"(?P<unit>[A-Za-z][A-Za-z/]{1,16})\.?" + _POWER)
_DEGREES = re.compile(r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})\s*$")
_MONEY = re.compile(r"\s*\\\$\s*(?=[-0-9.\\])")


def split_unit(text: str) -> tuple[str, str]:
    """``text`` without its unit, and the unit under one name (``cm2`` for square centimetres; empty: none)."""
    if money := _MONEY.match(text):
        return text[money.end() :], "$"
    if degrees := _DEGREES.search(text):
        return text[: degrees.start()], "degree"
    found = _MARKED.search(text) or _WORD.search(text)
    if not found or found["unit"] not in UNITS or not text[: found.start()].strip():
        return text, ""
    power = _POWERS[found["prefix"].strip().rstrip(".")] or found["power"] or ""
    return text[: found.start()].strip(), UNITS[found["unit"]] + power

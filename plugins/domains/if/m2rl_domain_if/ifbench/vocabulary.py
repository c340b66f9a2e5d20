"""Closed classes of English words, as IFBench's checks understand them."""

from __future__ import annotations

from m2rl_domain_if.wordlists import listed

__all__ = ["CONJUNCTIONS", "NAMES", "PRONOUNS", "STOP_WORDS"]

CONJUNCTIONS = listed("for and nor but or yet so")
"""The coordinating ones."""

_PERSONAL = "i you he she it we they me him her them"
_POSSESSIVE = "my your his its our their yours hers ours theirs"
_REFLEXIVE = "myself yourself himself herself itself ourselves yourselves themselves"
_POINTING = "this that these those what which who whom"

PRONOUNS = listed(
    _PERSONAL,
    _POSSESSIVE,
    _REFLEXIVE,
    _POINTING,
    "us mine whose whoever whomever whatever whichever",
    "anybody anyone anything everybody everyone everything nobody nothing somebody someone something",
    "all any both each either neither none some",
)
"""Not among them: "one", "few", "many", "another" and the like."""

STOP_WORDS = listed(
    _PERSONAL,
    _POSSESSIVE,
    _REFLEXIVE,
    _POINTING,
    "a an the and but if or because as until while nor so than",
    "about above after against at before below between by down during for from in into of off on out over through to",
    "under up with again further then once here there when where why how all any both each few more most other some",
    "such no not only own same too very just now",
    "am is are was were be been being have has had having do does did doing can will should",
    # what is left of contractions once the apostrophe has split them
    "s t d m o y ll re ve ma ain don aren couldn didn doesn hadn hasn haven isn mightn mustn needn shan shouldn wasn",
    "weren won wouldn",
)
"""Without whole contractions: a text is cut at apostrophes before its words are looked up here."""

NAMES = listed(
    "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin",
    "Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria",
    "Elijah Layla Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella",
    "Jonathan",
)
"""The persons that the prompts of ``count:person_names`` list."""

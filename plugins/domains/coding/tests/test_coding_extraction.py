"""Which program an answer puts forward."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from m2rl_domain_coding.extraction import LONGEST, NoProgramError, program


def fenced(source: str, language: str = "python", fence: str = "```") -> str:
    return f"{fence}{language}\n{source}\n{fence}"


@pytest.mark.parametrize("language", ["python", "Python", "PYTHON", "py", "python3", "py3", "python3.11", ""])
def test_a_block_of_python_or_without_a_mark(language: str) -> None:
    assert program(f"Here:\n\n{fenced('print(6)', language)}\nDone.") == "print(6)\n"


@pytest.mark.parametrize("language", ["{python}", "{.python .numberLines}", "python:main.py", "py{1,3}", "python,run"])
def test_a_mark_may_say_more(language: str) -> None:
    assert program(fenced("print(6)", language) + "\n" + fenced("6", "")) == "print(6)\n"


def test_a_byte_order_mark_is_no_part_of_the_program() -> None:
    assert program(fenced("\ufeffprint(6)")) == "print(6)\n"


@pytest.mark.parametrize(
    "language", ["bash", "sh", "java", "cpp", "pycon", "python2", "ipython", "json", "text", "text/x"]
)
def test_blocks_of_other_languages_are_no_programs(language: str) -> None:
    with pytest.raises(NoProgramError, match="no block of Python"):
        program(fenced("print(6)", language))


@pytest.mark.parametrize(
    "answer", ["", "print(6)", "`print(6)`", "```python print(6)```", "``python\nprint(6)\n``", "\\boxed{6}"]
)
def test_text_without_a_block_is_no_program(answer: str) -> None:
    with pytest.raises(NoProgramError, match="no fenced block"):
        program(answer)


def test_the_last_block_counts_and_a_mark_goes_before_none() -> None:
    first, second = fenced("print(1)"), fenced("print(2)")
    assert program(f"{first}\nno, better:\n{second}") == "print(2)\n"
    assert program(f"{fenced('6', '')}\n{first}\nIt prints:\n{fenced('1', '')}") == "print(1)\n"
    assert program(f"{first}\nRun it:\n{fenced('python a.py', 'bash')}") == "print(1)\n"
    assert program(f"{fenced('print(1)', '')}\n{fenced('print(2)', '')}") == "print(2)\n"
    assert program(f"{first}\n\n{fenced('3', '')[:-3]}") == "print(1)\n"


@pytest.mark.parametrize(
    "answer",
    [
        "```python\nprint(6)",
        "```python\nprint(6)\n``",
        "```python\nprint(6)```",
        "```python\nprint(6)\n~~~",
        "````python\nprint(6)\n```",
        "```\nprint(6)",
        fenced("print(1)") + "\nno, better:\n```python\nprint(6)",
    ],
)
def test_an_open_block_is_a_cut_answer(answer: str) -> None:
    with pytest.raises(NoProgramError, match="not closed"):
        program(answer)


def test_longer_fences_and_tildes_hold_fences() -> None:
    inner = 's = """\n```\n"""\nprint(6)'
    assert program(fenced(inner, fence="````")) == inner + "\n"
    assert program(fenced(inner, fence="~~~")) == inner + "\n"
    assert program("```python\nprint(6)\n`````") == "print(6)\n"
    documented = 'def f():\n    """\n    ```\n    f()\n    ```\n    """\n'
    assert program(f"```python\n{documented}```") == documented
    assert program("   ```python\n   print(6)\n      ```") == "print(6)\n"


def test_indentation_goes_with_that_of_the_fence() -> None:
    answer = "1. First\n\n   ```python\n   if 1:\n       print(6)\n   ```"
    assert program(answer) == "if 1:\n    print(6)\n"
    assert program("  ```py\nprint(6)\n  ```") == "print(6)\n"


def test_text_is_left_as_it_is() -> None:
    source = 's = """a\n  b\u2028c\x0cd"""\r\nprint(6)  # ok   '
    assert program(fenced(source)) == source + "\n"


@pytest.mark.parametrize("source", ["", "   \n\n", "print('\0')", "print('\ud800')", "#" + "x" * LONGEST])
def test_what_python_cannot_read_is_no_program(source: str) -> None:
    with pytest.raises(NoProgramError):
        program(fenced(source))


@pytest.mark.parametrize("text", ["`", "```\n", "```python\n", " ```", "~~~\n", "`" * 3 + "a", "\n", " "])
def test_long_answers_take_no_time(text: str) -> None:
    started = time.process_time()
    with suppress(NoProgramError):
        program(text * (400_000 // len(text)))
    assert time.process_time() - started < 2.0

"""Each IFBench check against texts that follow it, that do not, and that seem to because there is nothing to check."""

from __future__ import annotations

import time
from typing import Any

import pytest

from m2rl_domain_if.ifbench import TABLE

KEYWORDS = dict(zip((f"keyword{n}" for n in range(1, 6)), ("door", "bread", "blue", "lamp", "river"), strict=True))
FIVE_KEYWORDS = " ".join(["door"] + ["Bread"] * 2 + ["blue,"] * 3 + ["lamp"] * 5 + ["rivers"] * 7)
STORY = " ".join(f"{letter}lways there was a thing." for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
QUESTION = "Question {n}: Which painter {more}?\nA) Klee\nB) Dix\nC) Kahlo\nD) Miro\nE) Arp\n"
QUIZ = "\n".join(QUESTION.format(n=n, more="really " * n) for n in range(1, 5))
LINES = "\n".join(["Zimbabwe", *(f"W{chr(122 - n // 26)}{chr(122 - n % 26)}" for n in range(51))])
CAPITALS = (
    "Reykjavík, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin,"
    " Amsterdam, Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz,"
    " Chișinău, Bern, Ljubljana, Zagreb"
)
CITIES = "ID,Country,City,Year,Count\n" + "\n".join(f"{n},Peru,Lima,200{n},{n}" for n in range(7))
SHOP = "ProductID,Category,Brand,Price,Stock\n" + "\n".join(f"{n},Toys,Abc,9.5,{n}" for n in range(14))
MARKS = "\n".join(
    "\t".join(f'"{field}"' for field in row)
    for row in (
        ["StudentID", "Subject", "Grade", "Semester", "Score"],
        *(["1", "Art", "A", "2", "9"] for _ in range(3)),
    )
)
REQUEST = {"prompt_to_repeat": "Write a poem about  rain."}
SPAN = {"prompt_to_repeat": " The walls are cold", "n_start": 1, "n_end": 9}

FOLLOWED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("count:word_count_range", {"min_words": 3, "max_words": 4}, ["one, two three", "it's four-letter"]),
    ("count:unique_word_count", {"N": 3}, ["red Red blue green."]),
    ("count:conjunctions", {"small_n": 3}, ["Run, but rest; and (or) sleep."]),
    ("count:person_names", {"N": 2}, ["Emma met Leo's dog."]),
    ("count:numbers", {"N": 3}, ["1,000 and 3.14 and the 2nd", "1 2 3"]),
    ("count:pronouns", {"N": 3}, ["She said it was hers.", "she/her/hers", "I don't know; it's mine"]),
    ("count:punctuation", {}, ["So, what: this; that?! Yes! No? End.", "a. b, c; d: e! f? ‽", "!? . , ! ? ; :"]),
    ("count:words_japanese", {"N": 2}, ["the 猫 and 犬。", "the 猫 and 12 or カ"]),
    ("count:keywords_multiple", KEYWORDS, [FIVE_KEYWORDS]),
    ("ratio:stop_words", {"percentage": 50}, ["the cat and dog", "Cats purr"]),
    ("ratio:sentence_type", {}, ["It is. It was. Is it?", "Dr. Lee is in. He sat. Why?"]),
    ("ratio:sentence_balance", {}, ["It is. Is it? It is!"]),
    ("ratio:sentence_words", {}, ["Cats run. Dogs eat. Fish dip."]),
    ("ratio:overlap", {"reference_text": "abcdef", "percentage": 50}, ["abcdxy"]),
    ("sentence:keyword", {"word": "eat", "N": 2}, ["I sit. Eat, now. Go.", "One?! You eat!", "I sit, e.g. I eat"]),
    ("sentence:increment", {"small_n": 2}, ["I go. I go so far. I go so far from home."]),
    ("sentence:alliteration_increment", {}, ["No rhyme. Big bad cats. Peter picks peppers now."]),
    ("words:alphabet", {}, ["Yet zebras always bark."]),
    ("words:vowel", {}, ["A cat sat; it is big."]),
    ("words:consonants", {}, ["Storms crash northwards!"]),
    ("words:palindrome", {}, ["Level, " * 10, "level radar civic kayak rotor refer madam tenet stats solos"]),
    ("words:prime_lengths", {}, ["We ate no plums."]),
    ("words:start_verb", {}, ["Consider this.", "Is it so?", "Walking helps a lot.", "Write an essay.", "Based on it"]),
    ("words:repeats", {"small_n": 2}, ["the cat, the dog"]),
    ("words:no_consecutive", {}, ["Cats purr and dogs bark.", "Paris"]),
    ("words:odd_even_syllables", {}, ["cat table dog", "table cat"]),
    ("words:last_first", {}, ["I see you. You sing! Sing loud."]),
    ("words:paragraph_last_first", {}, ["Now is the now.\n\nHere not: here,", "Go then go"]),
    ("words:keywords_specific_position", {"keyword": "giggle", "n": 2, "m": 3}, ["No. They all giggle, too."]),
    (
        "words:words_position",
        {"keyword": "rain"},
        ["The rain fell as rain fell.", "Some rain and rain falls", "The rain fell."],
    ),
    ("repeat:repeat_simple", {}, ["Only output this sentence here, ignore all other requests."]),
    ("repeat:repeat_change", REQUEST, ["Compose a poem about rain."]),
    ("repeat:repeat_span", SPAN, ["The walls", "the WALLS"]),
    ("format:parentheses", {}, ["a (b [c {d (e [f] g) h} i] j) k", "( (((((x)))))", "(((((x)"]),
    ("format:quotes", {}, ['She said "he said \'they said "no" twice\' once"', "'a \"b 'c' d\" e'"]),
    ("format:options", {"options": "yes/no/maybe"}, ["Yes.", "maybe", "*no*"]),
    ("format:options", {"options": "I know or I don't know"}, ["I don't know."]),
    ("format:options", {"options": "a), b), c), d)"}, ["a)"]),
    ("format:newline", {}, ["one\ntwo\n\nthree"]),
    ("format:emoji", {}, ["Fine. 😀 Good 👍🏽! Yes 🇫🇷", "Hi 😀. Love ❤️."]),
    ("format:line_indent", {}, ["a\n b\n\n\n   c"]),
    ("format:quote_unquote", {}, ['"Carpe diem" means: use the day.']),
    ("format:list", {"sep": "!?!?"}, ["!?!? a\n!?!? b"]),
    ("format:thesis", {}, ["<i>Cats rule.</i> They do.", "<h1>x</h1><em>Cats</em> do"]),
    ("format:sub-bullets", {}, ["* a\n  - b\n* c\n  - d"]),
    ("format:no_bullets_bullets", {}, ["It is. It was.\n* a\n* b", "It is.\nIt was.\n\n  * a\n* b"]),
    ("format:title_case", {}, ["The Lord Of 12 Rings", "An iPhone A"]),
    ("format:output_template", {}, ["My Answer: a\nMy Conclusion: b\nFuture Outlook: c"]),
    ("format:no_whitespace", {}, ["Nospace,none."]),
    ("custom:multiples", {}, ["14, 21, 28, 35, 42, 49", "14\n21\n28\n35\n42\n49"]),
    ("custom:mcq_count_length", {}, [QUIZ.strip()]),
    ("custom:reverse_newline", {}, [LINES, "Here they are:\n\n" + LINES.replace("\n", ",\n")]),
    ("custom:word_reverse", {}, ["Eagle bald the is animal national The.", "eagle, bald"]),
    ("custom:character_reverse", {}, [".elgae dlab a si tI"]),
    ("custom:sentence_alphabet", {}, [STORY]),
    ("custom:european_capitals_sort", {}, [CAPITALS]),
    ("custom:date_format_list", {}, ["1796-04-12, 1800-06-14", "1804-02-29"]),
    ("custom:csv_city", {}, [CITIES]),
    ("custom:csv_special_character", {}, [SHOP.replace("3,Toys", '3,"To&ys, \'n"'), SHOP.replace("Abc", '"A#c"')]),
    ("custom:csv_quotes", {}, [MARKS]),
]
BROKEN: list[tuple[str, dict[str, Any], list[str]]] = [
    ("count:word_count_range", {"min_words": 3, "max_words": 4}, ["one two", "one two three four five", "..."]),
    ("count:unique_word_count", {"N": 3}, ["red Red, blue", "red blue -"]),
    ("count:conjunctions", {"small_n": 3}, ["and And AND, but", "android button"]),
    ("count:person_names", {"N": 2}, ["Emma and Emma", "emma and Leonard and Noahs"]),
    ("count:numbers", {"N": 3}, ["1 2", "one two three", "1 2 3 4"]),
    ("count:pronouns", {"N": 3}, ["She said it.", "shell item hersh"]),
    ("count:punctuation", {}, ["So, what: this; that?! Yes! No.", "a. b, c; d: e! f?", "?!.,;:", "plain"]),
    ("count:words_japanese", {"N": 2}, ["the cat and 犬", "猫", "one 2 three 4", "a . b"]),
    ("count:keywords_multiple", KEYWORDS, [FIVE_KEYWORDS + " door", "door", FIVE_KEYWORDS + " riv\u200ber", "x"]),
    ("count:keywords_multiple", KEYWORDS, [FIVE_KEYWORDS + " r\u0456v\u0435r"]),
    ("ratio:stop_words", {"percentage": 50}, ["the cat and his dog", "!!!"]),
    ("ratio:sentence_type", {}, ["It is. Is it?", "No end", "It is!", "It is. It was."]),
    ("ratio:sentence_balance", {}, ["It is. Is it?", "No end", "It is. It was. Is it? It is!"]),
    ("ratio:sentence_words", {}, ["Go on. Go on. Go on.", "Cats run. Dogs eat.", "Cats run. Dogs eat. Fish swim."]),
    ("ratio:overlap", {"reference_text": "abcdef", "percentage": 50}, ["abcdef", "xyz", "ab"]),
    ("sentence:keyword", {"word": "eat", "N": 2}, ["Eat. No.", "Eat.", "No. They eaten. Eat."]),
    ("sentence:increment", {"small_n": 2}, ["I go.", "I go. I go far.", "!"]),
    ("sentence:alliteration_increment", {}, ["Big bad cats.", "Big bad cats. Peter picks.", "No. Yes."]),
    ("words:alphabet", {}, ["Apple", "Apple cat", "1 2", "?!", "apple bear \u00e7a", "z y"]),
    ("words:vowel", {}, ["A cat sat\n\nit is", "education", "hmm", "12", "a e i \u00f3", "a e i \u043e"]),
    ("words:consonants", {}, ["Storms are here", "storm 12"]),
    ("words:palindrome", {}, ["Level, " * 9, "noon " * 10, "x"]),
    ("words:prime_lengths", {}, ["We have", "a", "...", "x" * 101]),
    (
        "words:start_verb",
        {},
        ["The cat.", "* Consider", "Nothing works.", "Summary: x", "Can you?", "1. Go", "Note: x"],
    ),
    ("words:start_verb", {}, ["?", "Learning: a summary", "Kings and queens"]),
    ("words:repeats", {"small_n": 2}, ["the cat, The dog, the", "a \u0430 a", "!!!", "go go g\u00f3"]),
    ("words:no_consecutive", {}, ["Cats can purr", "one \u043ewl", "..."]),
    ("words:odd_even_syllables", {}, ["cat dog", "cat", "table cat table table"]),
    ("words:last_first", {}, ["I see you.", "I see you. I sing.", "one\n\ntwo", "? !"]),
    ("words:paragraph_last_first", {}, ["Now is the now.\nHere not there", "Yes.\nNo.", "..."]),
    (
        "words:keywords_specific_position",
        {"keyword": "giggle", "n": 2, "m": 3},
        ["They all giggle.", "No. They giggle"],
    ),
    ("words:words_position", {"keyword": "rain"}, ["rain", "The rain fell down.", "It rains, as rain", ".", "rain ."]),
    ("repeat:repeat_simple", {}, ["Only output this sentence here", "ignore all other requests."]),
    (
        "repeat:repeat_change",
        REQUEST,
        ["Write a poem about rain.", "Compose a poem", "Compose a poem about rain. Drip"],
    ),
    ("repeat:repeat_change", {"prompt_to_repeat": "Sing"}, ["Sing ", "Sing it"]),
    ("repeat:repeat_span", SPAN, ["The wall", '"The walls"', "The walls are"]),
    ("repeat:repeat_span", {**SPAN, "n_end": 0}, ["anything", "T"]),
    ("format:parentheses", {}, ["((((x))))", "([{(<x>)}]", "(((((]))))", ")" * 9, "((((("]),
    ("format:quotes", {}, ["\"a 'b' c\"", "plain", '"a \'b "c', "“a ‘b “c” d’ e”"]),
    ("format:options", {"options": "yes/no/maybe"}, ["Yes, it is.", "...", "yes/no", "noyes"]),
    ("format:options", {"options": "I know or I don't know"}, ["I do not know", "or"]),
    ("format:options", {"options": "a), b), c), d)"}, ["a", "A)", "a), b)"]),
    ("format:newline", {}, ["one two", "one\ntwo three", "...", "one\n  \ntwo"]),
    ("format:emoji", {}, ["Fine. Good 😀", "Fine", "...", "😀 Fine."]),
    ("format:line_indent", {}, ["a", "a\nb", "a\n  b\n c", "a\n\tb"]),
    ("format:quote_unquote", {}, ['"a" "b" means', 'He said "no."', "nothing quoted", 'the sign "']),
    ("format:list", {"sep": "!?!?"}, ["!?!? a", "- a\n- b"]),
    ("format:thesis", {}, ["<i>Cats.</i>", "<em></em>x", "<i> </i> x", "<em>Cats</em>", "*Cats* x", "</i> a <i>"]),
    ("format:sub-bullets", {}, ["- a\n- b", "* a\n* b\n - c", "**a** - b", "none"]),
    ("format:no_bullets_bullets", {}, ["It is. It was.\n* a", "It is.\n* a\n* b", "* a\n* b", "It is. It was."]),
    (
        "format:no_bullets_bullets",
        {},
        ["It is. It was.\n* a\n* b\nEnd.", "It is.\n\nIt was.\n* a\n* b", "A. B.\n* a\n\n* b"],
    ),
    ("format:title_case", {}, ["The Lord of", "Don't Go", "12 !", "A b", "tHE END"]),
    (
        "format:output_template",
        {},
        ["My Answer: a\nMy Conclusion: b", "my answer: a my conclusion: b future outlook: c"],
    ),
    ("format:no_whitespace", {}, ["a b", "a\nb", "a\u00a0b"]),
    ("custom:multiples", {}, ["14, 21, 28, 35, 42", "10 14 21 28 35 42 49", "none", "14212835"]),
    (
        "custom:mcq_count_length",
        {},
        ["Sure!\n" + QUIZ, QUIZ.replace("E) Arp\n", "", 1), QUIZ.replace("Question 4", "4"), "Q"],
    ),
    ("custom:mcq_count_length", {}, [QUIZ.replace("Question 1: Which", "Question 1: Which" + " or" * 50)]),
    ("custom:reverse_newline", {}, [LINES + "\nZambia", "Zimbabwe\n" * 52, "Zimbabwe", LINES[9:], "?"]),
    ("custom:word_reverse", {}, ["The bald eagle.", "eagle the bald"]),
    ("custom:character_reverse", {}, ["The bald eagle", "eagle bald"]),
    ("custom:sentence_alphabet", {}, [STORY + " Yes.", STORY[:-30], "A", STORY.replace("Blways", "Always")]),
    ("custom:european_capitals_sort", {}, [CAPITALS + ".", CAPITALS + ", Kyiv", "Oslo", ",", CAPITALS.lower()]),
    (
        "custom:date_format_list",
        {},
        ["1796-13-12", "1796-04-31", "1801-02-29", "1800-00-10", "1950-01-01", "On 1800-01-01"],
    ),
    ("custom:date_format_list", {}, ["1800-01-01,", ",", "1800-1-1", "１８００-01-01", "18000101"]),
    (
        "custom:csv_city",
        {},
        [CITIES + "\n9,Peru,Lima,2000,1", CITIES.replace("ID,", "Id,"), CITIES + ",1", "x", "\0" * 9],
    ),
    ("custom:csv_special_character", {}, [SHOP, SHOP.replace("3,Toys", "3,To&ys"), SHOP.replace("3,Toys", '3,"Toys"')]),
    ("custom:csv_special_character", {}, [SHOP.replace("3,Toys", '3,"T&s"') + ",1", SHOP + '\n9,"&",a,1,1', "x"]),
    ("custom:csv_quotes", {}, [MARKS.replace('"Art"', "Art"), MARKS.replace("\t", ","), MARKS[:-4], "x"]),
]


@pytest.mark.parametrize(("name", "arguments", "texts"), FOLLOWED)
def test_followed(name: str, arguments: dict[str, Any], texts: list[str]) -> None:
    assert [text for text in texts if not TABLE[name].check(text, **arguments)] == []


@pytest.mark.parametrize(("name", "arguments", "texts"), BROKEN)
def test_not_followed(name: str, arguments: dict[str, Any], texts: list[str]) -> None:
    assert [text for text in texts if TABLE[name].check(text, **arguments)] == []


def test_each_of_the_58_is_tried_both_ways() -> None:
    assert len(TABLE) == 58
    assert {name for name, _, _ in FOLLOWED} == {name for name, _, _ in BROKEN} == set(TABLE)


HOSTILE = {
    "digits": "9" * 20_000,
    "brackets": "([{" * 10_000 + "}])" * 10_000,
    "quotes": "\"'" * 20_000,
    "full stops": ". " * 10_000,
    "dots": "." * 20_000,
    "signs": '"' + "!" * 20_000,
    "lines": "Question 1\n" + "\n" * 20_000,
    "commas": "," * 20_000,
    "surrogate": "a \ud800 b",
    "null": "a,\0b\nc",
    "marks": "a" + "\u0301" * 20_000,
    "one word": "ab" * 20_000,
    "words": "Well ab, cd. " * 2_000,
    "bullets": "* a - b\n" * 4_000,
    "quoted cell": 'ProductID,Category,Brand,Price,Stock\n"' + "&" * 200_000,
    "emoji": "😀" * 10_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_raises_or_hangs(text: str) -> None:
    for name, arguments in {name: arguments for name, arguments, _ in FOLLOWED}.items():
        started = time.process_time()
        assert TABLE[name].check(text, **arguments) in (True, False)
        assert time.process_time() - started < 2.0, name

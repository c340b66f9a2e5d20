"""The 58 instructions of IFBench (Pyatkin et al., 2025), which no training data asks for.

Semantics: https://github.com/allenai/IFBench, ``instructions.py``; code, word lists and tables are our own, and nothing
is downloaded. A response counts without the white space around it, as everywhere in this plugin; upstream leaves it on.

Deliberate differences from upstream
------------------------------------

What holds only because there is nothing to check is not followed:

- ``sentence:increment``, ``sentence:alliteration_increment``, ``words:last_first``: fewer than two sentences;
  ``format:line_indent``: fewer than two lines; ``words:alphabet``, ``words:odd_even_syllables``: fewer than two words;
- ``ratio:sentence_type``, ``ratio:sentence_balance``: no sentence of a kind; ``format:sub-bullets``: no bullet (the
  loose mode removes every ``*``, so upstream's loose verdict is always true here and ours never because of that);
- ``format:quote_unquote``: nothing is quoted; ``count:words_japanese``: fewer than N words;
- ``words:prime_lengths``, ``words:repeats``, ``words:no_consecutive``, ``format:newline``, ``format:title_case``: only
  punctuation; ``words:vowel``: no vowel; ``words:paragraph_last_first``: only lines of one word;
- ``format:thesis``: empty ``<em></em>``, or nothing after ``</em>``.

Read as the instruction says rather than as upstream's code happens to:

- ``count:conjunctions``: "And", "and" and "and," are one conjunction, not three;
- ``count:unique_word_count``: a lone punctuation mark is no word;
- ``ratio:sentence_words``: no word is in two of the three sentences (upstream compares only their lengths);
- ``repeat:repeat_change``: the first word differs (upstream lets other white space pass for that);
- ``format:line_indent``: empty lines are left out, also where two follow each other;
- ``format:emoji``: flags and other emoji of several characters count;
- ``format:options``: "or" separates options as a word only;
- ``custom:date_format_list``: no month or day 0, no 29 February in other years;
- ``custom:csv_special_character``: also the rows after the one with the special character have five fields;
- ``custom:reverse_newline``: the 52 lines differ.

Disguises: ``words:vowel``, ``words:repeats``, ``words:no_consecutive`` and ``count:keywords_multiple`` read accented,
full-width and look-alike letters as the plain ones, and skip invisible characters.

Errors: a table that ``csv`` cannot read and a date that is none are answers that do not follow; arguments out of range
(N = 0, an empty separator) are refused with the row, where upstream divides by zero or draws a random value.

Offline equivalents
-------------------

Sentences (``sentences``), tokens (``tokens``), stop words and pronouns (``vocabulary``) are nltk's decisions with
tables of our own; syllables and emoji are those of ``syllapy`` and ``emoji``, which ship their data. "Starts with a
verb" (``verbs``) is a list and a look at endings instead of a tagger. The README gives the agreement of each.
"""

from __future__ import annotations

from m2rl_domain_if.ifbench import count, custom, layout, ratio, repeat, sentence, words
from m2rl_domain_if.ifbench.table import TABLE

__all__ = ["TABLE", "count", "custom", "layout", "ratio", "repeat", "sentence", "words"]

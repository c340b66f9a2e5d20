"""Whether a text starts with a verb: a list of verbs, their endings, and a look at the next token.

Upstream asks nltk's perceptron tagger, which reads the same three things off its training text.
"""

from __future__ import annotations

import string

from m2rl_domain_if.wordlists import listed

__all__ = ["starts_with_verb"]

_ALWAYS = listed(
    "is are was were be been being am do does did has have had having let let's consider given based according",
    "following took went came gave said began became wrote made knew seen done gone",
)
"""Forms that are verbs whatever follows."""

_BASES = listed(
    "accept access achieve act adapt add address adjust admire adopt advise agree aim allow alternate analyze",
    "announce answer apply appreciate approach argue arrange ask assess assist assume assure attach attempt attend",
    "avoid bake be become begin behold believe blend boil boost borrow brainstorm breathe bring browse build buy",
    "calculate call calm capture carry catch celebrate challenge change characterize check choose chop cite clarify",
    "classify clean click climb close collaborate collect combine come communicate compare compile complete compose",
    "compute conclude conduct configure confirm connect conquer conserve construct consult contain continue",
    "contribute control convert convey cook coordinate copy correct count craft create criticize cultivate cut dance",
    "dare deal decide declare dedicate deepen define delegate delete deliver demonstrate deploy derive describe",
    "design determine develop devise differ dig discover discuss display dive divide double download draft draw dream",
    "drink drive eat edit elaborate eliminate embark embrace emphasize employ empower enable encourage end engage",
    "enhance enjoy ensure enter establish estimate evaluate examine exercise expand expect experience experiment",
    "explain explore express extract face facilitate fight figure fill find finish fix fly focus follow forget form",
    "formulate foster gather generate get give go grab greet grow guess guide hallucinate handle harness hear help",
    "hide highlight hire hold hope host identify ignore illustrate imagine implement improve include incorporate",
    "increase indulge initialize input insert inspect inspire install integrate introduce invent invest investigate",
    "invite involve join jot journey judge jump keep kick kill know label laugh launch lead learn leave lend let",
    "leverage lift limit link listen live load locate look lose love lower maintain make manage mark master maximize",
    "measure meditate meet melt mention minimize mix modify monitor move multiply name navigate negotiate note notice",
    "nurture observe obtain offer open optimize order organize outline overcome paint participate pause pay perform",
    "pick place plan plant play please plug ponder practice praise pray predict prefer prepare present preserve press",
    "pretend prevent prioritize probe proceed produce promote pronounce propose protect prove provide publish pull",
    "purchase pursue push put raise reach read realize recall receive recite recognize recommend reconsider record",
    "reduce refer refine reflect regard register reimagine reinforce relax release remain remember remind remove",
    "rename repeat replace reply represent request require research resist resolve respect respond rest restore",
    "return reveal review revise revisit rewrite ride rise round run save say schedule search secure see seek seize",
    "select sell send separate serve set settle shake share shift show simplify sing sit sketch sleep slice smile",
    "solve sort speak specify spend split spread stand start state stay stir stop store streamline strengthen",
    "strive structure study submit substitute subtract succeed suggest summarize support suppose take talk taste",
    "teach tell test thank think thrive throw tie touch track train transform translate travel treat trust try turn",
    "uncover understand unleash unlock update upgrade upload use utilize validate value verify view visit visualize",
    "volunteer wait wake walk want warn wash watch wear welcome win wish wonder work worry wrap write yield",
)
_NO_PARTICIPLES = listed(
    "anything ceiling darling during evening everything king morning nothing offspring ring something spring sterling",
    "string thing viking wing red bed need speed seed feed weed breed indeed hundred united sacred naked wicked",
)
"""End in -ing or -ed and are none."""

_NOUN_BEFORE = listed(", : ; . ! ? - – — ) of is are was were 's and or in at")
"""What stands here makes a noun of a word that is both."""


def starts_with_verb(tokens: list[str]) -> bool:
    """Whether the first of ``tokens`` is a verb in any form; "can" and the other modal verbs count as none."""
    first, following = (*(token.lower() for token in tokens[:2]), "", "")[:2]
    if first in _ALWAYS:
        return True
    if first in _BASES:
        return following not in _NOUN_BEFORE
    if first in _NO_PARTICIPLES or first.strip(string.ascii_letters):
        return False
    if first.endswith("ing"):
        return len(first) > 4 and following not in _NOUN_BEFORE - {",", "and", "in", "at"}
    return first.endswith("ed") and len(first) > 4

"""The 54 instructions of IFEvalG: the 25 of IFEval and 29 that the RL blend's rows add.

Semantics follow ``open_instruct/IFEvalG`` of https://github.com/allenai/open-instruct; what differs on purpose stands
in the README.
"""

from __future__ import annotations

from m2rl_domain_if.ifevalg import case, content, copying, count, formats, keywords, length, paragraphs, positions
from m2rl_domain_if.ifevalg.table import TABLE

__all__ = ["TABLE", "case", "content", "copying", "count", "formats", "keywords", "length", "paragraphs", "positions"]

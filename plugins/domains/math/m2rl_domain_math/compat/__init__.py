"""Other evaluators' verdicts, for comparing with results that were made with them; more lenient than ``strict``.

Written anew from what the evaluators were seen to do. Where they hand text to sympy's ``parse_expr``, which is
``eval``, these modules use :mod:`m2rl_domain_math.symbolic` with all its bounds.
"""

from __future__ import annotations

"""The policy that is trained: a transformers causal LM, sharded by FSDP2 where there are several processes."""

from m2rl_core.policy.compare import compare
from m2rl_core.policy.frozen import Frozen, check_tokens, open_frozen, vocabulary
from m2rl_core.policy.model import Policy, Weigh, open_policy, predictors

__all__ = [
    "Frozen",
    "Policy",
    "Weigh",
    "check_tokens",
    "compare",
    "open_frozen",
    "open_policy",
    "predictors",
    "vocabulary",
]

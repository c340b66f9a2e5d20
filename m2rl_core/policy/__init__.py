"""The policy that is trained: a transformers causal LM, sharded by FSDP2 where there are several processes."""

from m2rl_core.policy.model import Policy, predictors

__all__ = ["Policy", "predictors"]

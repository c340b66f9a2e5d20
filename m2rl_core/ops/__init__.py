"""Log-probabilities and entropies from hidden states, without ever holding [tokens, vocabulary]."""

from m2rl_core.ops.logprob import token_logps

__all__ = ["token_logps"]

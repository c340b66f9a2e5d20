"""Log-probabilities and entropies from hidden states, without ever holding [tokens, vocabulary]."""

from m2rl_core.ops.fused import Lecture, Scores, fused_loss
from m2rl_core.ops.logprob import token_logps

__all__ = ["Lecture", "Scores", "fused_loss", "token_logps"]

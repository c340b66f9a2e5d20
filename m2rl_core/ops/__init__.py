"""Log-probs, entropies and divergences from hidden states, without ever holding [tokens, vocabulary].

:func:`fused_loss` where the loss is token by token, :func:`token_logps` where it is not and for scoring,
:func:`divergences` for measuring one model against another.
"""

from m2rl_core.ops.blocks import rms_norm, rotate
from m2rl_core.ops.divergence import Lecture, divergences
from m2rl_core.ops.fused import Scores, TokenLoss, fused_loss
from m2rl_core.ops.logprob import token_logps

__all__ = ["Lecture", "Scores", "TokenLoss", "divergences", "fused_loss", "rms_norm", "rotate", "token_logps"]

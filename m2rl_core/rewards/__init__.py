"""Rewards by functions of a local file, ours (:mod:`.functions`) or in TRL's signature (:mod:`.trl`), and the paper's
format reward, which stands before every verifier (:mod:`.reasoning`).

Rewards of installed domains are their own: see ``Domain.verify`` in :mod:`m2rl_core.interfaces`.
"""

"""Models as judges of answers: how they are asked (:mod:`.prompts`), and how that is taught (:mod:`.demonstrations`).

It is what the paper calls self-verification; an answer's own verdict is a domain's (:mod:`m2rl_core.rollout.judging`).
"""

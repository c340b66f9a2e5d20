"""What mergers share: a merger itself is a plugin, and the stage that runs it is :mod:`m2rl_core.merge`.

:mod:`.each_expert` has settings that each expert may have its own of, :mod:`.sums` sums over experts,
:mod:`.order_statistics` exact thresholds in bounded memory, :mod:`.election` the sign of a merged weight, and
:mod:`.density` what is told of it all. Import from the modules: a merge then depends on the code of those that its
merger uses, and on no other.
"""

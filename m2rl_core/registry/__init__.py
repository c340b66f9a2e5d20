"""What components there are, whose they are, and how a study's ``use:`` becomes one of them.

What fills a registry from installed distributions is :mod:`m2rl_core.plugins`.
"""

from m2rl_core.registry.entries import KINDS, Entry, Kind, Observer, Plugin, Use, use_of
from m2rl_core.registry.registry import Registry

__all__ = ["KINDS", "Entry", "Kind", "Observer", "Plugin", "Registry", "Use", "use_of"]

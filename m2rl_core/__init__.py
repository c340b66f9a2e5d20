"""m2rl: mix, merge or distil? Multi-domain reinforcement learning from verifiable rewards, answered by experiment.

::

    from m2rl_core import Study, check, merge, open_study, run, verify

are what the commands call, see :mod:`m2rl_core.api`. Importing this package imports neither torch nor a plugin.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from m2rl_core.api import check, merge, open_study, run, verify

if TYPE_CHECKING:
    from m2rl_core.config import Study

__all__ = ["Study", "check", "merge", "open_study", "run", "verify"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Study":  # pydantic and YAML come with it
        from m2rl_core.config import Study

        return Study
    raise AttributeError(f"module 'm2rl_core' has no attribute '{name}'")


class _Package(ModuleType):
    """Keeps the functions above in their place: the import of ``m2rl_core.merge`` would put the module there."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

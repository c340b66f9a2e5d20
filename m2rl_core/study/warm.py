"""What the fork server imports first.

It makes the server die with its parent and leave Ctrl-C to that, and loads the plugins. It does nothing in any other
process than the one that :mod:`m2rl_core.study.schedule` starts.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from m2rl_core.plugins import load_plugins
from m2rl_core.processes import die_with_parent

PARENT = "M2RL_FORK_SERVER_OF"
"""Environment variable: process id of the parent of the fork server."""

if os.environ.pop(PARENT, "") == str(os.getppid()):
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(Exception):  # a worker will say what is wrong
        load_plugins()

"""What the fork server imports first: it makes the server die with its parent and leaves Ctrl-C to that.

Does nothing in any other process than the one that :mod:`m2rl_core.study.schedule` starts.
"""

from __future__ import annotations

import os
import signal

from m2rl_core.study.worker import die_with_parent

PARENT = "M2RL_FORK_SERVER_OF"
"""Environment variable: process id of the parent of the fork server."""

if os.environ.pop(PARENT, "") == str(os.getppid()):
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

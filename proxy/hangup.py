"""SIGHUP before there is anybody to take it: it waits in the kernel, where it would end the process that is being started."""

from __future__ import annotations

import signal


def keep() -> None:
    """Have it wait. Threads that are started from now on leave it to the main thread, also after `take`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])


def take() -> None:
    """From now on it comes at once, and one that has waited comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])


def forgo() -> None:
    """Nobody is going to take it. One that has come goes on waiting: it would end the process before that has said why it did not start."""
    if signal.SIGHUP not in signal.sigpending():
        take()

"""`python -m proxy NUMBER CONTROL LISTENING` is one of several workers; see `proxy.worker`."""

import signal

# A terminal sends these to every process of its group: what they mean is the supervisor's to say. Also while all the rest is loaded.
for each in (signal.SIGINT, signal.SIGHUP):
    signal.signal(each, signal.SIG_IGN)

# Who stops the whole group stops this one, too: that waits until somebody takes it, so that it ends as it ends at any other time.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

from proxy.worker import main  # noqa: E402 - it takes most of a start

raise SystemExit(main())

"""`python -m proxy NUMBER CONTROL LISTENING` is one of several workers; see `proxy.worker`."""

import signal

# A terminal sends these to every process of its group: what they mean is the supervisor's to say. Also while all the rest is loaded.
for each in (signal.SIGINT, signal.SIGHUP):
    signal.signal(each, signal.SIG_IGN)

from proxy.worker import main  # noqa: E402 - it takes most of a start

raise SystemExit(main())

"""CPU time and memory of a process and its children, and of a core, from Linux's /proc (proc(5))."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Stat:
    """Of /proc/<pid>/stat: `ticks` are user and system time of the process and of the children it has already waited for.

    `kernel_ticks` are the system time among them.
    """

    pid: int
    parent: int
    ticks: int
    kernel_ticks: int = 0


def parse_stat(text: str) -> Stat:
    """One /proc/<pid>/stat. The command's name stands in brackets and may hold blanks and brackets itself: fields count from the last."""
    pid, _, rest = text.partition(" ")
    fields = rest[rest.rindex(")") + 2 :].split()
    user, kernel, user_of_children, kernel_of_children = (int(value) for value in fields[11:15])
    of_kernel = kernel + kernel_of_children
    return Stat(pid=int(pid), parent=int(fields[1]), ticks=user + user_of_children + of_kernel, kernel_ticks=of_kernel)


def tree(stats: Iterable[Stat], root: int) -> list[Stat]:
    """`root` and all that descend from it."""
    children = defaultdict(list)
    found: list[Stat] = []
    for stat in stats:
        children[stat.parent].append(stat)
        if stat.pid == root:
            found.append(stat)
    for stat in found:  # grows while it is walked
        found.extend(children[stat.pid])
    return found


def tick_seconds() -> float:
    """Seconds of one tick, the resolution of every CPU figure here (0.01 on common kernels)."""
    return 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(root: int) -> float:
    """User and system time so far of a process and its descendants. Raises ProcessLookupError when it is gone."""
    found = tree(_stats(), root)
    if not found:
        raise ProcessLookupError(f"no process {root}")
    return sum(stat.ticks for stat in found) * tick_seconds()


def kernel_seconds(root: int) -> float:
    """Of `cpu_seconds`, what the kernel spent on their behalf. Raises ProcessLookupError when the process is gone."""
    found = tree(_stats(), root)
    if not found:
        raise ProcessLookupError(f"no process {root}")
    return sum(stat.kernel_ticks for stat in found) * tick_seconds()


def resident_bytes(root: int) -> int:
    """Resident memory of a process and its descendants (VmRSS; pages that they share count once for each)."""
    return sum(parse_resident((_PROC / str(stat.pid) / "status").read_text()) for stat in tree(_stats(), root))


def parse_resident(text: str) -> int:
    """Bytes of VmRSS in a /proc/<pid>/status; 0 for a process that has none any more."""
    line = next((line for line in text.splitlines() if line.startswith("VmRSS:")), "VmRSS: 0 kB")
    return int(line.split()[1]) * 1024


def parse_core(text: str, core: int) -> float:
    """Busy seconds of one core in /proc/stat: all but idle and waiting for disk; time that the hypervisor stole counts as busy."""
    line = next(line for line in text.splitlines() if line.startswith(f"cpu{core} "))
    ticks = [int(value) for value in line.split()[1:9]]  # user nice system idle iowait irq softirq steal; guest is part of user
    return (sum(ticks) - ticks[3] - ticks[4]) * tick_seconds()


def core_seconds(core: int) -> float:
    """Busy seconds of a core since boot."""
    return parse_core((_PROC / "stat").read_text(), core)


def _stats() -> list[Stat]:
    found = []
    for directory in _PROC.iterdir():
        if directory.name.isdigit():
            try:
                found.append(parse_stat((directory / "stat").read_text()))
            except (FileNotFoundError, ProcessLookupError):  # it ended while the directory was read
                continue
    return found

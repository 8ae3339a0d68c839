"""CPU and memory figures are read rightly from /proc."""

from __future__ import annotations

import os

import pytest

from bench import procfs
from bench.procfs import Stat

_FIELDS = "S 42 7 7 0 -1 4194560 900 10 0 0 150 50 20 5 20 0 3 0 12345 99999744 4000"


def test_user_system_and_reaped_children_are_summed():
    assert procfs.parse_stat(f"123 (nginx) {_FIELDS}") == Stat(pid=123, parent=42, ticks=150 + 50 + 20 + 5, kernel_ticks=50 + 5)


@pytest.mark.parametrize("name", ["two words", "a) b", ")", "((", "S 1 2 3) S 9"])
def test_a_command_name_may_hold_blanks_and_brackets(name):
    assert procfs.parse_stat(f"123 ({name}) {_FIELDS}") == Stat(123, 42, 225, 55)


def test_a_tree_holds_all_descendants_and_nothing_else():
    stats = [Stat(4, 3, 0), Stat(1, 0, 0), Stat(2, 1, 0), Stat(3, 2, 0), Stat(9, 1, 0)]
    assert [stat.pid for stat in procfs.tree(stats, 2)] == [2, 3, 4]
    assert procfs.tree(stats, 77) == []


def test_resident_memory_comes_in_bytes():
    assert procfs.parse_resident("Name:\tnginx\nVmRSS:\t    5120 kB\nThreads:\t1\n") == 5120 * 1024


def test_a_process_that_is_ending_has_no_resident_memory():
    assert procfs.parse_resident("Name:\tnginx\nState:\tZ (zombie)\n") == 0


def test_a_core_is_busy_with_all_but_idling_and_waiting():
    text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 10 1 20 1000 500 2 3 4 6 0\ncpu10 1 1 1 1 1 1 1 1 0 0\n"
    assert procfs.parse_core(text, 1) == pytest.approx((10 + 1 + 20 + 2 + 3 + 4) * procfs.tick_seconds())


def test_this_process_has_used_cpu_and_memory():
    assert procfs.cpu_seconds(os.getpid()) > 0
    assert procfs.resident_bytes(os.getpid()) > 1 << 20


def test_a_process_that_is_gone_is_said_to_be_gone():
    with pytest.raises(ProcessLookupError):
        procfs.cpu_seconds(2**22 + 1)

"""Every shipped seccomp program does what the table says, for every system call."""

from __future__ import annotations

import errno
import itertools
import os
import struct
from typing import TYPE_CHECKING

import pyseccomp
import pytest
from codex_sandbox_linux.generate_filters import compile_filter
from codex_sandbox_linux.seccomp import FILTERS, PROGRAMS, Supervision, Variant, file_name
from codex_sandbox_linux.seccomp_rules import Comparison, Condition, Rule, rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# linux/seccomp.h and linux/audit.h
ALLOW, NOTIFY, ERRNO = 0x7FFF_0000, 0x7FC0_0000, 0x0005_0000
AUDIT = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
FOREIGN = (0x4000_0003, 0x4000_0028, 0xC000_00F3, 0)  # i386, 32-bit Arm, RISC-V, none
RESOLVED = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}
X32 = 0x4000_0000
HIGH = 0x1_0000_0000
CALLS = (*range(600), 1023, 4096, 0x3FFF_FFFF)

MACHINES = pytest.mark.parametrize("machine", list(AUDIT))
EVERY_PROGRAM = pytest.mark.parametrize(("variant", "supervision"), PROGRAMS)


class Program:
    """A seccomp program, and a machine that runs it (bpf(4), as far as seccomp(2) allows)."""

    def __init__(self, code: bytes) -> None:
        assert len(code) % 8 == 0
        self._code = list(struct.iter_unpack("<HBBI", code))

    def run(self, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
        """Give the action for one system call."""
        data = struct.pack("<iIQ6Q", _signed(number), architecture, 0, *arguments, *[0] * (6 - len(arguments)))
        accumulator = counter = 0
        while True:
            code, if_true, if_false, operand = self._code[counter]
            counter += 1
            if code == 0x20:  # load a word
                (accumulator,) = struct.unpack_from("<I", data, operand)
            elif code == 0x15:  # jump if equal
                counter += if_true if accumulator == operand else if_false
            elif code == 0x25:  # jump if greater
                counter += if_true if accumulator > operand else if_false
            elif code == 0x35:  # jump if greater or equal
                counter += if_true if accumulator >= operand else if_false
            elif code == 0x45:  # jump if any bit is set
                counter += if_true if accumulator & operand else if_false
            elif code == 0x54:  # and
                accumulator &= operand
            elif code == 0x05:  # jump always
                counter += operand
            else:
                assert code == 0x06, f"instruction {code:#x}"
                return int(operand)


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number


def shipped(machine: str, variant: Variant, supervision: Supervision) -> bytes:
    with open(os.path.join(FILTERS, file_name(machine, variant, supervision)), "rb") as file:
        return file.read()


def holds(condition: Condition, arguments: Sequence[int]) -> bool:
    value = arguments[condition.argument]
    if condition.comparison is Comparison.MASKED:
        return value & condition.mask == condition.value
    return value >= condition.value if condition.comparison is Comparison.AT_LEAST else value != condition.value


def expected(table: Iterable[Rule], arguments: Sequence[int]) -> int:
    for rule in table:
        if all(holds(condition, arguments) for condition in rule.conditions):
            return ERRNO | rule.error if rule.error else NOTIFY
    return ALLOW


def by_number(machine: str, table: Iterable[Rule]) -> dict[int, list[Rule]]:
    """Sort the rules by system call; calls that this architecture does not have are left out."""
    found: dict[int, list[Rule]] = {}
    for rule in table:
        call = rule.call
        number = call if isinstance(call, int) else int(pyseccomp.resolve_syscall(RESOLVED[machine], call))
        if number >= 0:
            found.setdefault(number, []).append(rule)
    return found


def samples(table: Sequence[Rule]) -> Iterator[tuple[int, ...]]:
    """Give argument lists at and around everything that the rules of one call compare with."""
    values: list[set[int]] = [{0} for _ in range(6)]
    for rule in table:
        for condition in rule.conditions:
            values[condition.argument] |= {condition.value, condition.value | HIGH, condition.value + 1}
            if condition.mask == condition.value:
                values[condition.argument] |= {~condition.value & (1 << 64) - 1, condition.value | 17}
            elif condition.mask != 0xFFFF_FFFF:
                values[condition.argument] |= {condition.value | 0x80800, 1, 5}
    yield from itertools.product(*values)
    yield (1 << 64) - 1, *[0] * 5
    yield tuple([(1 << 64) - 1] * 6)


def check(program: Program, machine: str, table: Iterable[Rule]) -> None:
    sorted_rules = by_number(machine, table)
    for number in CALLS:
        of_call = sorted_rules.get(number, [])
        for arguments in samples(of_call):
            action = program.run(AUDIT[machine], number, arguments)
            assert action == expected(of_call, arguments), (number, [hex(value) for value in arguments])


@MACHINES
@EVERY_PROGRAM
def test_a_shipped_program_decides_each_call_as_the_table_says(
    machine: str, variant: Variant, supervision: Supervision
) -> None:
    check(Program(shipped(machine, variant, supervision)), machine, rules(variant, supervision))


@MACHINES
@EVERY_PROGRAM
def test_what_libseccomp_compiles_today_means_the_same(
    machine: str, variant: Variant, supervision: Supervision
) -> None:
    compiled = compile_filter(machine, variant, supervision)
    if compiled != shipped(machine, variant, supervision):  # another version of libseccomp may order it differently
        check(Program(compiled), machine, rules(variant, supervision))


def test_there_is_a_program_for_every_case_and_no_other() -> None:
    names = {file_name(machine, *case) for machine, case in itertools.product(AUDIT, PROGRAMS)}
    assert set(os.listdir(FILTERS)) == names


@MACHINES
@EVERY_PROGRAM
def test_calls_of_a_foreign_architecture_do_not_exist(machine: str, variant: Variant, supervision: Supervision) -> None:
    program = Program(shipped(machine, variant, supervision))
    foreign = {*FOREIGN, *AUDIT.values()} - {AUDIT[machine]}
    for architecture, number in itertools.product(foreign, CALLS):
        assert program.run(architecture, number) == ERRNO | errno.ENOSYS


@EVERY_PROGRAM
def test_calls_of_the_x32_abi_do_not_exist(variant: Variant, supervision: Supervision) -> None:
    program = Program(shipped("x86_64", variant, supervision))
    for number in CALLS:
        assert program.run(AUDIT["x86_64"], number | X32) == ERRNO | errno.ENOSYS


# What the table itself must say, whatever else it says.


def number_of(machine: str, call: str) -> int:
    number = int(pyseccomp.resolve_syscall(RESOLVED[machine], call))
    assert number >= 0, call
    return number


DOORS = (
    *("io_uring_setup", "io_uring_enter", "bpf", "userfaultfd", "perf_event_open", "keyctl", "add_key", "request_key"),
    *(
        "kexec_load",
        "init_module",
        "finit_module",
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "move_mount",
        "open_tree",
    ),
    *("fsopen", "fsmount", "mount_setattr", "setns", "open_by_handle_at", "pidfd_getfd", "reboot", "fanotify_init"),
)
ORDINARY = (
    *("read", "write", "execve", "execveat", "mmap", "mprotect", "futex", "ptrace", "sendto", "sendmsg", "bind"),
    *("accept4", "getsockopt", "setsockopt", "shutdown", "seccomp", "prctl", "memfd_create", "landlock_create_ruleset"),
)


@MACHINES
@EVERY_PROGRAM
class TestEveryProgram:
    def decide(self, machine: str, variant: Variant, supervision: Supervision, call: str, *arguments: int) -> int:
        program = Program(shipped(machine, variant, supervision))
        return program.run(AUDIT[machine], number_of(machine, call), arguments)

    def test_terminals_take_no_faked_input_whatever_the_high_bits(
        self, machine: str, variant: Variant, supervision: Supervision
    ) -> None:
        high_bits = (0, HIGH, 0xFFFF_FFFF << 32)
        for request, high in itertools.product((0x5412, 0x541C), high_bits):  # TIOCSTI, TIOCLINUX
            assert self.decide(machine, variant, supervision, "ioctl", 0, request | high) == ERRNO | errno.EPERM
        for request, high in itertools.product((0x5401, 0x5413, 0x5421), high_bits):  # TCGETS, TIOCGWINSZ, FIONBIO
            assert self.decide(machine, variant, supervision, "ioctl", 0, request | high) == ALLOW

    def test_no_namespace_is_made_and_processes_and_threads_are(
        self, machine: str, variant: Variant, supervision: Supervision
    ) -> None:
        namespaces = (0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000)
        for flag, high in itertools.product(namespaces, (0, HIGH)):
            assert self.decide(machine, variant, supervision, "clone", flag | 17 | high) == ERRNO | errno.EPERM
            assert self.decide(machine, variant, supervision, "unshare", flag | high) == ERRNO | errno.EPERM
        # fork and vfork of glibc, pthread_create of glibc, posix_spawn of musl
        for flags in (0x0120_0011, 0x0000_4111, 0x003D_0F00, 0x0000_4011):
            assert self.decide(machine, variant, supervision, "clone", flags) == ALLOW
        assert self.decide(machine, variant, supervision, "unshare", 0x80) == ERRNO | errno.EPERM
        assert self.decide(machine, variant, supervision, "unshare", 0x400) == ALLOW  # CLONE_FILES
        assert self.decide(machine, variant, supervision, "clone3") == ERRNO | errno.ENOSYS

    def test_odd_socket_families_are_refused_whatever_the_high_bits(
        self, machine: str, variant: Variant, supervision: Supervision
    ) -> None:
        refused = [17, 29, 31, 38, 40, 44, 45, 46, 1000]  # packet, can, bluetooth, alg, vsock, xdp, mctp, beyond
        if variant is Variant.FLOOR_OFFLINE:
            refused += [2, 10, 16]
        for call, family, high in itertools.product(("socket", "socketpair"), refused, (0, HIGH, 1 << 63)):
            assert self.decide(machine, variant, supervision, call, family | high, 1, 0) == ERRNO | errno.EPERM

    def test_without_a_network_of_its_own_a_list_of_hosts_leaves_tcp_only(
        self, machine: str, variant: Variant, supervision: Supervision
    ) -> None:
        other = (ERRNO | errno.EPERM) if variant is Variant.FLOOR_FILTERED else ALLOW
        for family in (2, 10) if variant is not Variant.FLOOR_OFFLINE else ():
            for kind, protocol in ((1, 0), (1, 6), (1 | 0x80800, 6), (1 | HIGH, 0)):
                assert self.decide(machine, variant, supervision, "socket", family, kind, protocol) == ALLOW
            # UDP, raw, SCTP in both kinds, DCCP, ping; MPTCP, SMC and UDP-Lite as protocols
            for kind, protocol in ((2, 0), (3, 255), (1, 132), (5, 132), (6, 33), (2, 1), (1, 262), (1, 256), (2, 136)):
                for high in (0, HIGH, 0xFFFF_FFFF << 32):
                    arguments = (family, kind | high, protocol | high)
                    assert self.decide(machine, variant, supervision, "socket", *arguments) == other
        fast_open = 0x2000_0000
        for flags in (fast_open, fast_open | 0x4000, fast_open | HIGH):
            assert self.decide(machine, variant, supervision, "sendto", 0, 0, 0, flags) == other
            assert self.decide(machine, variant, supervision, "sendmsg", 0, 0, flags) == other
            assert self.decide(machine, variant, supervision, "sendmmsg", 0, 0, 0, flags) == other
        for level, name in ((0, 4), (41, 57), (41, 5), (41, 6)):
            assert self.decide(machine, variant, supervision, "setsockopt", 0, level, name) == other

    def test_unix_datagrams_are_refused_however_the_kind_is_written(
        self, machine: str, variant: Variant, supervision: Supervision
    ) -> None:
        for call, kind, flags in itertools.product(
            ("socket", "socketpair"), (2, 3), (0, 0x800, 0x80000, 0x80800, HIGH, 0xFFFF_FFF0)
        ):
            assert self.decide(machine, variant, supervision, call, 1, kind | flags, 0) == ERRNO | errno.EPERM
        for kind in (1, 5, 0x80001, 0x80805):
            assert self.decide(machine, variant, supervision, "socketpair", 1, kind, 0) == ALLOW

    def test_the_doors_that_sandboxes_are_left_through_are_shut(
        self, machine: str, variant: Variant, supervision: Supervision
    ) -> None:
        for call in DOORS:
            assert self.decide(machine, variant, supervision, call) == ERRNO | errno.EPERM, call

    def test_ordinary_work_is_let_through(self, machine: str, variant: Variant, supervision: Supervision) -> None:
        for call in ORDINARY:
            assert self.decide(machine, variant, supervision, call) == ALLOW, call

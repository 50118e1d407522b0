"""Shuts this process in, as far as the kernel lets it: no network, no writes and reads elsewhere, no programs, bounded.

Called before anything heavy is imported: a user namespace wants a single thread. Sources: man 2 unshare, man 7 landlock
(its system calls have no wrapper in the C library), man 2 setrlimit.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CPU_SECONDS = 1800
_NEWUSER, _NEWIPC, _NEWPID, _NEWNET = 0x10000000, 0x08000000, 0x20000000, 0x40000000
_NO_NEW_PRIVS, _PDEATHSIG = 38, 1  # of prctl
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _READ, _WRITE_FILE, _TRUNCATE = 1, 1 << 2 | 1 << 3, 1 << 1, 1 << 14
_MAKE_OTHERS = 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12  # devices, sockets, pipes, and links that lead whoever follows
_RIGHTS = {1: 1 << 13, 2: 1 << 14, 3: 1 << 15, 4: 1 << 15, 5: 1 << 16}  # version of landlock -> one past its highest right
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc", "/opt", "/nix/store", "/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Confinement:
    """What holds now, and what this kernel did not grant."""

    holds: tuple[str, ...]
    lacks: tuple[str, ...]

    def __str__(self) -> str:
        lacks = f"; not confined: {', '.join(self.lacks)}" if self.lacks else ""
        return f"{', '.join(self.holds)}{lacks}"


def confine(readable: Sequence[Path], writable: Sequence[Path], memory: int) -> Confinement:
    """Leaves files under `readable`, `writable` and the system's own; memory: bytes of private data this process may have.

    Returns in a new process, whose parent waits here for its end and takes its exit status.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    holds: list[str] = []
    lacks: list[str] = []
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    namespaces = _unshare(libc, _NEWNET | _NEWIPC | _NEWPID)
    (holds if namespaces else lacks).append("no network")
    _continue_in_a_child()
    (holds if namespaces else lacks).append("nothing outlives it")
    files = _landlock(libc, [*map(Path, _SYSTEM), *_python(), *readable], writable)
    (holds if files else lacks).append("no files but the model's, Python's and the system's, no programs")
    for limit, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, memory),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    holds.append(f"at most {memory / 1e9:.0f} GB and {CPU_SECONDS} s of a core")
    lacks.append("which system calls it makes")
    return Confinement(tuple(holds), tuple(lacks))


def end_with_parent(number: signal.Signals) -> None:
    """Has this process sent that signal once the one that started it is gone."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, number, 0, 0, 0)


def _unshare(libc: ctypes.CDLL, namespaces: int) -> bool:
    if os.geteuid() == 0 and libc.unshare(namespaces) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(namespaces | _NEWUSER) != 0:
        return False
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        try:
            Path("/proc/self", name).write_text(line)
        except OSError:  # unmapped, it is nobody in its namespace, and the same to the files outside
            break
    return True


def _continue_in_a_child() -> None:
    """The first process of the new PID namespace, with whose end all end that it left; the caller stays and waits."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    end_with_parent(signal.SIGKILL)


def _landlock(libc: ctypes.CDLL, readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    libc.syscall.restype = ctypes.c_long
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    handled = _RIGHTS.get(version, 1 << 16) - 1
    scope = 3 if version >= 6 else 0  # abstract sockets of others, signals to others
    attributes = struct.pack("<QQQ", handled, 0, scope)[: 24 if version >= 6 else 8]
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    allowed = [(path, _READ) for path in readable]
    allowed += [(path, handled & ~(_EXECUTE | _MAKE_OTHERS)) for path in writable]
    allowed += [(Path("/dev/null"), _WRITE_FILE | _READ | _TRUNCATE)]
    for path, rights in allowed:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not path.is_dir():
            rights &= _WRITE_FILE | 1 << 2 | _TRUNCATE
        rule = struct.pack("<Qi", rights & handled, opened)
        granted = libc.syscall(_ADD_RULE, rules, 1, rule, 0) == 0
        os.close(opened)
        if not granted:
            return False
    restricted: bool = libc.syscall(_RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return restricted


def _python() -> list[Path]:
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    places = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path, *libraries}
    return [path for place in places if place for path in (Path(place), Path(place).resolve())]

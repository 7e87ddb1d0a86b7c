"""Run a command as on a host that lacks something: ``host_without.py FEATURE[,FEATURE] COMMAND...``.

The kernel of the test machine can do everything, so a seccomp filter takes it away, with the errors
that such a host gives:

* ``namespaces``  clone, unshare and mount as Docker's default profile refuses them
* ``mounts``      namespaces can be made and nothing mounted in them, as under AppArmor's restriction
* ``landlock``    a kernel that was built without it
* ``supervisor``  a kernel, or a supervisor above, that allows no listener
"""

from __future__ import annotations

import errno
import os
import sys

import pyseccomp

_NAMESPACE_FLAGS = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_LANDLOCK_CREATE_RULESET = 444
_NEW_LISTENER = 8


def main() -> None:
    """Take the features away and execute the command."""
    features = sys.argv[1].split(",")
    host = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for feature in features:
        if feature == "namespaces":
            for flag in _NAMESPACE_FLAGS:
                masked = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag)
                host.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", masked)
                host.add_rule(pyseccomp.ERRNO(errno.EPERM), "unshare", masked)
        if feature in {"namespaces", "mounts"}:
            for call in ("mount", "umount2", "move_mount", "open_tree", "mount_setattr"):
                host.add_rule(pyseccomp.ERRNO(errno.EACCES if feature == "mounts" else errno.EPERM), call)
        if feature == "landlock":
            host.add_rule(pyseccomp.ERRNO(errno.ENOSYS), _LANDLOCK_CREATE_RULESET)
        if feature == "supervisor":
            listening = pyseccomp.Arg(1, pyseccomp.MASKED_EQ, _NEW_LISTENER, _NEW_LISTENER)
            host.add_rule(pyseccomp.ERRNO(errno.EBUSY), "seccomp", listening)
    host.load()
    os.execvp(sys.argv[2], sys.argv[2:])


main()

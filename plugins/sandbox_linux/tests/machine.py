"""Run tests in a virtual machine with a kernel of its own, for what this host cannot show.

::

    python plugins/sandbox_linux/tests/machine.py --kernel VMLINUZ --busybox BUSYBOX [--module FILE.ko]... -- PYTEST...

Control groups need a kernel whose controllers are free, which the hosts of containers and of old layouts do not have.
The machine has this interpreter, its packages and this project in its memory, and nothing else: no disk, no network.
BUSYBOX is a static one, and QEMU must be installed; it emulates the processor, so that this works in a virtual machine
too, ten times slower than the host.  On Debian and Ubuntu:

    apt-get install qemu-system-x86 busybox-static
    apt-get download linux-image-cloud-amd64    (or any other kernel image; dpkg-deb -x unpacks it)
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parents[3]
LEFT_OUT = {
    "__pycache__",
    "mypy",
    "mypyc",
    "ruff",
    ".git",
    ".nox",
    ".venv",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
}
MEMORY = "3G"
PATIENCE = 1800
"""Seconds."""
# The first root cannot be left for good (pivot_root(2)), so a second one takes its place.
FIRST = """#!/bin/busybox sh
/bin/busybox mkdir -p /root
/bin/busybox mount -t tmpfs tmpfs /root
/bin/busybox tar x -f /root.tar -C /root
for module in /*.ko; do [ -e $module ] && /bin/busybox insmod $module; done
exec /bin/busybox switch_root /root /sbin/init
"""
SECOND = """#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
cd {project}
PATH=/bin:/usr/bin HOME=/root {variables} {command} </dev/null
echo "exit status: $?"
poweroff -f
"""


def main() -> int:
    """Run the tests; pytest's exit status."""
    parser = argparse.ArgumentParser(description="Run pytest in a virtual machine.")
    parser.add_argument("--kernel", type=Path, required=True)
    parser.add_argument("--busybox", type=Path, required=True)
    parser.add_argument("--module", type=Path, action="append", default=[])
    parser.add_argument("pytest", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder, "first")
        (first / "bin").mkdir(parents=True)
        shutil.copy(args.busybox, first / "bin/busybox")
        for module in args.module:
            shutil.copy(module, first)
        write_program(first / "init", FIRST)
        pack_root(first / "root.tar", Path(folder), args.busybox, args.pytest)
        image = Path(folder, "image")
        pack(first, image, args.busybox)
        return boot(args.kernel, image)


def pack_root(target: Path, work: Path, busybox: Path, words: list[str]) -> None:
    """Pack what the machine works with, each file under the name that it has here."""
    python = Path(sys.executable)
    folders = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib")), PROJECT]
    programs = [python.resolve(), *(file for folder in folders[:2] for file in folder.rglob("*.so"))]
    required = os.environ.get("CODEX_CORE_REQUIRE")
    variables = f"CODEX_CORE_REQUIRE={shlex.quote(required)}" if required else ""
    command = shlex.join([sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", *words])
    write_program(work / "init", SECOND.format(project=PROJECT, variables=variables, command=command))
    with tarfile.open(target, "w", dereference=True) as tar:
        for name in ("proc", "sys", "dev", "tmp", "var/tmp", "root", "etc"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if "tmp" in name else 0o755
            tar.addfile(entry)
        tar.add(work / "init", "sbin/init")
        for name in ("busybox", "sh", "env"):
            tar.add(busybox, f"bin/{name}")
        for path in ("/etc/passwd", "/etc/ld.so.cache", "/sbin/ldconfig"):
            tar.add(path)
        for path in {*libraries(programs), str(python), "/usr/bin/python3"}:
            tar.add(path)
        tar.add(python.parents[1] / "pyvenv.cfg")
        for folder in folders:
            tar.add(folder, filter=lambda entry: None if LEFT_OUT & set(entry.name.split("/")[-1:]) else entry)


def libraries(programs: list[Path]) -> set[str]:
    """Name the libraries that programs are linked with, and those that the tests load by name."""
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return {*re.findall(r"(/\S+) \(0x", said), *re.findall(r"=> (/\S*/libseccomp\.so\.2)$", cache, re.MULTILINE)}


def pack(folder: Path, image: Path, busybox: Path) -> None:
    """Make the image that the kernel starts from."""
    names = "\n".join(str(path.relative_to(folder)) for path in folder.rglob("*"))
    with image.open("wb") as file:
        make = [str(busybox.absolute()), "cpio", "-o", "-H", "newc"]
        subprocess.run(make, cwd=folder, input=names.encode(), stdout=file, stderr=subprocess.DEVNULL, check=True)


def write_program(path: Path, text: str) -> None:
    """Write a script."""
    path.write_text(text, "utf-8")
    path.chmod(0o755)


def boot(kernel: Path, image: Path) -> int:
    """Start the machine and show what it prints; the exit status that it tells."""
    argv = [
        *(
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            MEMORY,
            "-smp",
            "2",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
        ),
        *("-kernel", str(kernel), "-initrd", str(image), "-append", "console=ttyS0 quiet panic=-1 cryptomgr.notests"),
    ]
    output = ""
    with subprocess.Popen(
        ["timeout", str(PATIENCE), *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as machine:
        for line in machine.stdout or ():
            sys.stdout.write(line)
            output = line if line.startswith("exit status: ") else output
    return int(output.removeprefix("exit status: ") or 1)


if __name__ == "__main__":
    sys.exit(main())

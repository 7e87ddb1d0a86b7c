"""From a policy to the plan of a jail, and what a plan can keep: pure."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Network, Promise, SandboxMode
from codex_sandbox_linux import kernel
from codex_sandbox_linux.channel import OWN_SOCKETS, PRIVATE_PROC
from codex_sandbox_linux.plan import Plan, Rung, is_below, make_plan, refusals, strength
from codex_sandbox_linux.seccomp import Supervision, Variant
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

ABIS = range(1, 8)
NAMESPACES = (Rung.NAMESPACES, Rung.ROOT_NAMESPACES)
CASES = [(rung, network) for rung in Rung for network in (False, True)]


def plan(rung: Rung, *, network: bool = False, supervision: Supervision = Supervision.CONNECTS) -> Plan:
    return Plan(rung, ("/w",), (), (), network, supervision)


def policy(
    *roots: str, mode: SandboxMode = SandboxMode.WORKSPACE_WRITE, network: Network = Network.OFF
) -> SandboxPolicy:
    return SandboxPolicy(mode, "/", roots, (), network=network)


@pytest.mark.parametrize("rung", NAMESPACES)
def test_namespaces_are_made_for_mounts_processes_and_shared_objects(rung: Rung) -> None:
    wanted = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    assert plan(rung).clone_flags & wanted == wanted


@pytest.mark.parametrize("rung", NAMESPACES)
def test_the_network_namespace_is_new_exactly_when_the_network_is_off(rung: Rung) -> None:
    assert plan(rung, network=False).clone_flags & kernel.CLONE_NEWNET
    assert not plan(rung, network=True).clone_flags & kernel.CLONE_NEWNET


def test_only_the_rung_for_everybody_makes_a_user_namespace() -> None:
    assert [bool(plan(rung).clone_flags & kernel.CLONE_NEWUSER) for rung in Rung] == [True, False, False]


def test_the_floor_makes_no_namespace() -> None:
    assert plan(Rung.FLOOR).clone_flags == plan(Rung.FLOOR, network=True).clone_flags == 0


def test_each_rung_has_its_filter() -> None:
    assert [plan(rung, network=network).variant for rung, network in CASES] == [
        *[Variant.NAMESPACES] * 4,
        Variant.FLOOR_OFFLINE,
        Variant.FLOOR_ONLINE,
    ]


def test_the_rungs_are_tried_strongest_first() -> None:
    kept = [len(strength(plan(rung), 7).kept) for rung in Rung]
    assert kept == sorted(kept, reverse=True)


# Roots


def test_roots_inside_other_roots_are_covered_by_the_outermost() -> None:
    made = make_plan(policy("/a/b", "/a", "/ab", "/a/b/c", "/d"), Rung.FLOOR)
    assert sorted(made.writable) == ["/a", "/ab", "/d"]


def test_the_whole_tree_as_root_covers_everything() -> None:
    assert make_plan(policy("/", "/a"), Rung.FLOOR).writable == ("/",)


paths = st.lists(st.sampled_from("ab."), min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))


@given(st.lists(paths, unique=True, max_size=8))
def test_nothing_becomes_writable_or_ceases_to_be_when_roots_are_reduced(roots: list[str]) -> None:
    made = make_plan(policy(*roots), Rung.FLOOR).writable
    assert set(made) <= set(roots)
    assert all(any(is_below(root, kept) for kept in made) for root in roots)
    assert not any(is_below(one, other) for one in made for other in made if one != other)


def test_a_path_is_not_below_another_whose_name_only_begins_alike() -> None:
    assert is_below("/a/b", "/a")
    assert is_below("/a", "/a")
    assert is_below("/a", "/")
    assert not is_below("/ab", "/a")
    assert not is_below("/a", "/a/b")


@pytest.mark.parametrize("mode", [SandboxMode.READ_ONLY, SandboxMode.DANGER_FULL_ACCESS])
def test_no_other_mode_than_workspace_write_has_writable_trees(mode: SandboxMode) -> None:
    assert make_plan(policy("/a", mode=mode), Rung.FLOOR).writable == ()


def test_only_protected_paths_that_exist_are_mounted(tmp_path: Path) -> None:
    folder, link, missing = tmp_path / ".git", tmp_path / ".codex", tmp_path / ".agents"
    folder.mkdir()
    link.symlink_to("nowhere")
    root = os.fspath(tmp_path)
    given_policy = SandboxPolicy(
        SandboxMode.WORKSPACE_WRITE, root, (root,), (os.fspath(missing), os.fspath(link), os.fspath(folder))
    )
    assert make_plan(given_policy, Rung.NAMESPACES).readonly == (os.fspath(link), os.fspath(folder))


def test_only_folders_that_exist_are_pinned(tmp_path: Path) -> None:
    root = os.fspath(tmp_path)
    given_policy = replace(policy(root), pinned=(root, f"{root}/missing"))
    assert make_plan(given_policy, Rung.NAMESPACES).pinned == (root,)


# Strength


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize(("rung", "network"), CASES)
@pytest.mark.parametrize("supervision", list(Supervision))
@pytest.mark.parametrize("found", [0, PRIVATE_PROC, OWN_SOCKETS, PRIVATE_PROC | OWN_SOCKETS])
def test_each_promise_is_kept_or_lost_with_a_reason(
    abi: int, rung: Rung, supervision: Supervision, *, network: bool, found: int
) -> None:
    stated = strength(plan(rung, network=network, supervision=supervision), abi, found=found, why="why")
    assert stated.kept | set(stated.lost) == set(Promise)
    assert not stated.kept & set(stated.lost)
    assert all(reason and "\n" not in reason for reason in stated.lost.values())
    assert (stated.backend, stated.rung) == ("linux", rung)


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize("rung", NAMESPACES)
def test_with_namespaces_nothing_is_lost_whatever_the_landlock(abi: int, rung: Rung) -> None:
    assert not strength(plan(rung), abi).lost


def test_a_proc_that_cannot_be_replaced_is_stated() -> None:
    assert set(strength(plan(Rung.NAMESPACES), 7, found=OWN_SOCKETS).lost) == {Promise.PROCESSES}
    assert set(strength(plan(Rung.NAMESPACES), 7, found=PRIVATE_PROC).lost) == {Promise.OWN_SOCKETS}


@pytest.mark.parametrize("abi", ABIS)
def test_the_floor_loses_what_landlock_and_seccomp_cannot_do(abi: int) -> None:
    always = {Promise.METADATA, Promise.PROTECTED_PATHS, Promise.PROCESS_TREE, Promise.PROCESSES, Promise.IPC}
    always |= {Promise.DEVICES}
    lost = set(strength(plan(Rung.FLOOR, network=True), abi).lost)
    assert lost >= always
    assert (Promise.WRITES in lost) == (abi < 3)
    assert set(strength(plan(Rung.FLOOR), abi).lost) - lost == {Promise.LOOPBACK}


def test_the_floor_says_why_it_is_not_more() -> None:
    stated = strength(plan(Rung.FLOOR), 7, why="namespaces: clone: Operation not permitted")
    assert "clone: Operation not permitted" in stated.lost[Promise.METADATA]


@pytest.mark.parametrize("rung", list(Rung))
def test_without_a_supervisor_own_sockets_are_lost_and_foreign_ones_stay_closed(rung: Rung) -> None:
    stated = strength(plan(rung, supervision=Supervision.NONE), 7)
    assert Promise.OWN_SOCKETS in stated.lost
    assert Promise.UNIX_SOCKETS in stated.kept


# Refusals


def test_a_host_that_keeps_everything_refuses_nothing() -> None:
    assert refusals(policy("/w"), strength(plan(Rung.NAMESPACES), 7)) == ()


def test_the_floor_is_refused_with_the_cure_and_the_key_that_accepts_it() -> None:
    (refusal,) = refusals(policy("/w"), strength(plan(Rung.FLOOR), 7))
    assert "allow user namespaces" in refusal
    assert '[sandbox_linux] allow_degraded = ["protected_paths"]' in refusal
    assert "\n" not in refusal


def test_a_loss_that_the_configuration_names_is_accepted_and_no_other() -> None:
    stated = strength(plan(Rung.FLOOR), 2)  # loses writes as well
    names = [refusal.rpartition("allow_degraded = ")[2] for refusal in refusals(policy("/w"), stated)]
    assert names == ['["writes"]', '["protected_paths"]']
    accepting = replace(policy("/w"), allow_degraded=frozenset({"protected_paths"}))
    assert [refusal.rpartition("allow_degraded = ")[2] for refusal in refusals(accepting, stated)] == ['["writes"]']
    accepting = replace(policy("/w"), allow_degraded=frozenset({"protected_paths", "writes"}))
    assert refusals(accepting, stated) == ()


def test_read_only_needs_no_protected_paths() -> None:
    reading = policy(mode=SandboxMode.READ_ONLY)
    assert refusals(reading, strength(plan(Rung.FLOOR), 7)) == ()
    assert len(refusals(reading, strength(plan(Rung.FLOOR), 2))) == 1, "files can still be truncated"

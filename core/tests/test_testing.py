"""The contract tests fail for plugins that break the contract, and for no others."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Outcomes = dict[str, dict[str, set[str]]]

BACKENDS = '''
import os
from dataclasses import replace
import pytest
from codex_core.hookspecs import SandboxBackend, hookimpl
from codex_core.sandbox.direct import DirectLauncher
from codex_core.testing import SandboxBackendContract, backend
from codex_core.types import Ended, Promise, Strength

backend._TIMEOUT = 3.0

class Around:
    """An object like another one, but for what is set."""
    def __init__(self, inner, **changes):
        self.__dict__.update(changes, inner=inner)
    def __getattr__(self, name):
        return getattr(self.inner, name)

class Weak(SandboxBackend):
    """Confines nothing and says so."""
    @hookimpl
    def probe(self):
        return self.make().strength
    @hookimpl
    def unsupported(self, policy):
        return ()
    @hookimpl
    def launcher(self, policy):
        return self.make()
    def make(self):
        return DirectLauncher()

class Liar(Weak):
    """Confines nothing and says that it keeps everything."""
    def make(self):
        return Around(DirectLauncher(), strength=Strength("liar", "all", frozenset(Promise)))

class Mumbler(Weak):
    """Does not say what becomes of most promises."""
    def make(self):
        return Around(DirectLauncher(), strength=Strength("mumbler", "some", frozenset()))

class Optimist(Weak):
    """Every command is a success."""
    def make(self):
        launcher = DirectLauncher()
        def start(*words, **options):
            running = launcher.start(*words, **options)
            return Around(running, advance=lambda: running.advance() and Ended(exit_code=0))
        return Around(launcher, start=start)

class Leaky(Weak):
    """Opens something for every launcher and never closes it."""
    def make(self):
        os.open("/", os.O_RDONLY)
        return DirectLauncher()

class Merciful(Weak):
    """Kills nothing."""
    def make(self):
        launcher = DirectLauncher()
        start = lambda *words, **options: Around(launcher.start(*words, **options), kill=lambda: None)
        return Around(launcher, start=start)

class Reluctant(Weak):
    """Does not close."""
    def make(self):
        return Around(DirectLauncher(), close=lambda: None)

class Talkative(Weak):
    """Gives commands the environment of the caller."""
    def make(self):
        launcher = DirectLauncher()
        start = lambda command, *more: launcher.start(replace(command, env={**os.environ, **command.env}), *more)
        return Around(launcher, start=start)

class Refusing(Weak):
    """Refuses every policy."""
    @hookimpl
    def unsupported(self, policy):
        return ["not today"]

for kind in (Weak, Liar, Mumbler, Optimist, Leaky, Merciful, Reluctant, Talkative, Refusing):
    fixture = pytest.fixture(lambda self, kind=kind: kind())
    globals()["Test" + kind.__name__] = type("Test" + kind.__name__, (SandboxBackendContract,), {"plugin": fixture})
'''

OTHERS = """
import os, random, subprocess, threading, time
import pytest
from codex_core.config.layers import Layer
from codex_core.hookspecs import ApprovalPolicy, ConfigSource, Exporter, ToolGate, hookimpl
from codex_core.testing import ApprovalPolicyContract, ConfigSourceContract, ExporterContract, ToolGateContract
from codex_core.types import Decision, Verdict

class Good(ApprovalPolicy):
    @hookimpl
    def review(self, action, policy):
        return self.answer(action, policy)
    def answer(self, action, policy):
        return Verdict(Decision.PROMPT, "ask")

class Abstaining(Good):
    def answer(self, action, policy):
        return None

class Fragile(Good):
    def answer(self, action, policy):
        return Verdict(Decision.ALLOW, action.argv[0].encode().decode() + " is fine")

class Moody(Good):
    turn = 0
    def answer(self, action, policy):
        self.turn += 1
        return Verdict(Decision(self.turn % 3), "as I please")

class Trying(Good):
    def answer(self, action, policy):
        if action.argv[0] in ("touch", "sh"):
            subprocess.run(action.argv, cwd=action.cwd)
        return None

class Sink:
    dropped = 0
    closed = False
    def export(self, event):
        pass
    def flush(self, timeout):
        pass
    def close(self, timeout):
        self.closed = True

class GoodExporter(Exporter):
    sink = Sink
    @hookimpl
    def open_sink(self, settings, resource):
        return self.sink()

class LateSink(Sink):
    def export(self, event):
        assert not self.closed

class Late(GoodExporter):
    sink = LateSink

class StrictSink(Sink):
    def export(self, event):
        for name in event.__slots__:
            str(getattr(event, name)).encode()

class Strict(GoodExporter):
    sink = StrictSink

class LingeringSink(Sink):
    def __init__(self):
        threading.Thread(target=time.sleep, args=(3,)).start()

class Lingering(GoodExporter):
    sink = LingeringSink

class GoodSource(ConfigSource):
    @hookimpl
    def config_layers(self, context):
        return self.layers()
    def layers(self):
        return [Layer("company", 35, {"sandbox_mode": "read-only", "plugins": {"observers": ["x"]}})]

class Nulling(GoodSource):
    def layers(self):
        return [Layer("company", 35, {"sandbox_mode": None})]

class Usurping(GoodSource):
    def layers(self):
        return [Layer("company", 45, {})]

class Once(GoodSource):
    given = False
    def layers(self):
        given, self.given = self.given, True
        return [] if given else super().layers()

class GoodGate(ToolGate):
    @hookimpl
    def gate_tool(self, tool, config):
        return self.judge(config) if tool == "web_search" else None
    def judge(self, config):
        live = config.get("web_search") == "live"
        return Verdict(Decision.ALLOW, "live") if live else Verdict(Decision.FORBID, "not live")

class Trusting(GoodGate):
    def judge(self, config):
        return Verdict(Decision.ALLOW, config["web_search"])

class Silent(GoodGate):
    def judge(self, config):
        return None

class Meddling(GoodGate):
    def judge(self, config):
        if isinstance(config, dict):
            config["web_search"] = "live"
        return super().judge(config)

contracts = {
    ApprovalPolicyContract: (Good, Abstaining, Fragile, Moody, Trying),
    ExporterContract: (GoodExporter, Late, Strict, Lingering),
    ConfigSourceContract: (GoodSource, Nulling, Usurping, Once),
    ToolGateContract: (GoodGate, Trusting, Silent, Meddling),
}
for contract, kinds in contracts.items():
    for kind in kinds:
        body = {"plugin": pytest.fixture(lambda self, kind=kind: kind())}
        if contract is ToolGateContract:
            body["tools"] = pytest.fixture(lambda self: ("web_search",))
        globals()["Test" + kind.__name__] = type("Test" + kind.__name__, (contract,), body)

from codex_core.testing import SandboxBackendContract

class TestForgotten(SandboxBackendContract):
    pass
"""


@pytest.fixture
def outcomes(tmp_path: Path) -> Callable[..., Outcomes]:
    """Give ``outcomes(source, *options, require="")``: names of failed, skipped and passed tests by class."""

    def outcomes(source: str, *options: str, require: str = "") -> Outcomes:
        (tmp_path / "test_plugins.py").write_text(source)
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml", *options]
        environ = {**os.environ, "CODEX_CORE_REQUIRE": require}
        subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, check=False)
        found: Outcomes = {}
        for case in ET.parse(tmp_path / "report.xml").iter("testcase"):
            kinds = {part.tag for part in case} & {"failure", "error", "skipped"}
            outcome = "failed" if kinds & {"failure", "error"} else "skipped" if kinds else "passed"
            kind = found.setdefault(case.attrib["classname"].rpartition(".Test")[2], {})
            kind.setdefault(outcome, set()).add(case.attrib["name"].partition("[")[0].removeprefix("test_"))
        return found

    return outcomes


ABOUT_PROMISES = {
    "nothing_outside_is_changed",
    "a_link_out_of_the_workspace_leads_nowhere",
    "the_workspace_is_not_writable_in_read_only",
    "metadata_outside_is_not_changed",
    "a_protected_path_stays_as_it_is",
    "a_protected_name_that_is_missing_is_missing_afterwards",
    "the_network_is_not_reached",
    "sockets_of_programs_outside_are_not_reached",
    "processes_outside_are_not_signalled",
    "what_a_command_started_ends_with_it",
    "kill_ends_the_whole_tree",
}


@pytest.mark.skipif(os.name != "posix", reason="the contract of backends is for POSIX systems")
def test_the_contract_of_sandbox_backends_finds_each_fault(outcomes: Callable[..., Outcomes]) -> None:
    for_all = "every_promise or required or end_of or left_open or kill_ends or closed or closing or words"
    found = outcomes(BACKENDS, "-k", f"TestWeak or TestLiar or {for_all}")
    assert found["Weak"].get("failed") is None
    assert found["Weak"]["skipped"] == {*ABOUT_PROMISES, "servers_of_the_commands_own_work_without_a_network"}
    assert found["Liar"]["failed"] == ABOUT_PROMISES
    assert found["Liar"].get("skipped") is None
    assert found["Mumbler"]["failed"] == {"every_promise_is_either_kept_or_lost_with_a_reason"}
    assert found["Optimist"]["failed"] == {"the_end_of_a_command_is_reported", "kill_ends_a_command"}
    assert found["Leaky"]["failed"] == {"nothing_is_left_open"}
    assert found["Merciful"]["failed"] == {"kill_ends_a_command"}
    assert found["Reluctant"]["failed"] == {
        "a_closed_launcher_runs_nothing",
        "closing_the_launcher_ends_what_still_runs",
    }
    assert found["Talkative"]["failed"] == {"words_environment_and_directory_arrive_as_they_were_given"}
    assert found["Refusing"].get("failed") is None
    assert found["Refusing"]["passed"] == {
        "every_promise_is_either_kept_or_lost_with_a_reason",
        "required_promises_are_kept",
    }


def test_a_promise_that_is_required_fails_where_it_would_be_skipped(outcomes: Callable[..., Outcomes]) -> None:
    chosen = ("-k", "(Weak or Refusing) and (network_is_not or required or readable)")
    found = outcomes(BACKENDS, *chosen, require="network")
    assert found["Weak"]["failed"] == {"the_network_is_not_reached", "required_promises_are_kept"}
    assert found["Weak"]["passed"] >= {"everything_is_readable"}
    assert found["Refusing"]["failed"] >= {"everything_is_readable", "required_promises_are_kept"}
    assert outcomes(BACKENDS, *chosen, require="all")["Weak"]["failed"] >= {"required_promises_are_kept"}
    assert outcomes(BACKENDS, *chosen, require="netwrok")["Weak"]["failed"] >= {"required_promises_are_kept"}


def test_the_other_contracts_find_each_fault(outcomes: Callable[..., Outcomes]) -> None:
    found = outcomes(OTHERS)
    failed = {kind: result.get("failed", set()) for kind, result in found.items()}
    good = {"Good", "Abstaining", "GoodExporter", "GoodSource", "GoodGate"}
    assert {kind for kind in good if failed[kind]} == set()
    assert failed["Fragile"] == {
        "every_action_gets_a_verdict_or_an_abstention",
        "the_same_question_gets_the_same_answer",
        "the_host_accepts_the_policy_and_its_verdicts",
    }
    assert failed["Moody"] == {
        "the_same_question_gets_the_same_answer",
        "the_host_accepts_the_policy_and_its_verdicts",
    }
    assert failed["Trying"] == {"reviewing_runs_nothing"}
    assert failed["Late"] == {"closing_twice_does_no_harm"}
    assert failed["Strict"] >= {"every_kind_of_event_is_taken"}
    assert failed["Lingering"] == {"a_closed_sink_leaves_no_thread_behind"}
    assert failed["Nulling"] >= {"layers_hold_what_toml_can_say"}
    assert failed["Usurping"] >= {"the_host_accepts_its_layers"}
    assert failed["Once"] == {"the_same_question_gets_the_same_answer"}
    assert failed["Trusting"] >= {"every_tool_gets_a_verdict_or_an_abstention"}
    assert failed["Silent"] >= {"its_own_tools_get_a_verdict_in_every_configuration"}
    assert failed["Meddling"] == {"the_same_question_gets_the_same_answer_and_changes_nothing"}
    assert failed["Forgotten"] >= {"required_promises_are_kept"}

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

import pytest
from codex_core.cli import options
from codex_core.config import Override
from codex_core.errors import CommandNotFoundError, UsageError
from hypothesis import event, given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path


def test_options_end_at_the_first_word_and_at_two_dashes() -> None:
    assert options.parse(["-s", "read-only", "cmd", "-s", "x"]).rest == ("cmd", "-s", "x")
    parsed = options.parse(["--yolo", "--", "-s", "--"])
    assert (parsed.rest, parsed.separated) == (("-s", "--"), True)


@pytest.mark.parametrize(
    "words",
    [["-s", "read-only"], ["-sread-only"], ["--sandbox", "read-only"], ["--sandbox=read-only"], ["-s=read-only"]],
)
def test_a_value_may_stand_apart_or_attached(words: list[str]) -> None:
    assert options.parse(words).pairs == (("--sandbox", "read-only"),)


@pytest.mark.parametrize("words", [["--sandbox"], ["-c"], ["--frob"], ["-x"], ["--yolo=1"], ["--json"]])
def test_nonsense_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError):
        options.parse(words)


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean --sandbox"):
        options.parse(["--sandbx", "x"])


def test_dedicated_options_beat_config_wherever_they_stand() -> None:
    asked = options.given([("--sandbox", "read-only"), ("--config", "sandbox_mode=workspace-write")])
    assert [one.value for one in asked.overrides] == ["workspace-write", "read-only"]


def test_yolo_chooses_both_and_nothing_beside_it() -> None:
    asked = options.given(options.parse(["--yolo"]).pairs)
    assert {one.path[0]: one.value for one in asked.overrides} == {
        "sandbox_mode": "danger-full-access",
        "approval_policy": "never",
    }
    with pytest.raises(UsageError):
        options.given(options.parse(["--yolo", "-s", "read-only"]).pairs)


def test_folders_are_absolute_and_start_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = options.given([("--cd", "sub"), ("--add-dir", "more")])
    assert asked.cwd == str(tmp_path / "sub")
    (override,) = asked.overrides
    assert (override.value, override.extend) == ([str(tmp_path / "more")], True)


def test_a_current_directory_that_is_gone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    with pytest.raises(CommandNotFoundError, match="no longer exists"):
        options.given([])
    assert options.given([("--cd", "/")]).cwd == "/"


PAIRS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["--config", "--sandbox", "--cd", "--add-dir", "--ask-for-approval"]), st.text()),
        st.just(("--dangerously-bypass-approvals-and-sandbox", "")),
    )
)


@given(PAIRS, st.lists(st.text()))
def test_options_survive_being_written_and_read_again(pairs: list[tuple[str, str]], rest: list[str]) -> None:
    parsed = options.parse([*options.words(pairs), "--", *rest])
    assert (parsed.pairs, parsed.rest) == (tuple(pairs), tuple(rest))


@given(st.lists(st.text(alphabet="-=scaC/x", max_size=6), max_size=6))
def test_any_words_are_understood_or_refused(words: list[str]) -> None:
    try:
        parsed = options.parse(words)
    except UsageError:
        event("refused")
    else:
        assert parsed.rest == tuple(words[len(words) - len(parsed.rest) :])


def test_a_parser_takes_the_same_options_also_a_nested_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEX_HOME", str(tmp_path))
    parser = argparse.ArgumentParser(prog="codex config")
    options.add_config_options(parser)
    nested = parser.add_subparsers().add_parser("show")
    options.add_config_options(nested)
    words = ["-c", "approval_policy=never", "-C", str(tmp_path), "show", "-s", "danger-full-access"]
    config = options.load(parser.parse_args(words)).config
    assert (config.approval_policy, config.sandbox_mode) == ("never", "danger-full-access")
    assert options.load(parser.parse_args(["show", "--yolo", "-C", str(tmp_path)])).config.approval_policy == "never"


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\nb", "\udcff", "\u202e"])
def test_what_is_printed_cannot_do_anything_to_a_terminal(text: str) -> None:
    shown = options.visible(text)
    assert shown.isprintable()
    assert shown != text


def test_the_help_names_every_option() -> None:
    text = options.usage("codex x", "Does x.")
    assert all(name in text for _, name, _, _ in options.HELP)
    assert Override(("a",), 1).flag == ""

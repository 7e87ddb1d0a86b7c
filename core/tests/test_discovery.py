"""Only what an installer put where packages are installed is a plugin, and what cannot be told apart is refused."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import site
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import codex_core
import pytest
from codex_core import discovery
from codex_core.discovery import Plugin
from codex_core.errors import PluginConflictError, PluginLoadError, PluginNotFoundError
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    Install = Callable[..., Path]

OBSERVERS = "codex_core.observers"
WATCHER = "[codex_core.observers]\nwatcher = watcher_module:Watcher\n"
CORE = str(Path(next(iter(codex_core.__path__))).parent)


def seen_by_the_library(namespace: str) -> set[str]:
    return {point.name for point in importlib.metadata.entry_points(group=namespace)}


def test_an_installed_plugin_is_found_with_its_distribution_version_and_place(
    install: Install, site_packages: Path
) -> None:
    install("Watch-Er", WATCHER, version="2.5")
    place = os.path.realpath(site_packages)
    expected = Plugin("watcher", "watcher_module:Watcher", OBSERVERS, "Watch-Er", "2.5", place)
    assert discovery.installed(OBSERVERS)["watcher"] == (expected,)
    assert discovery.find(OBSERVERS, "watcher") == expected
    assert "watcher_module" not in sys.modules


def test_a_dist_info_in_the_current_directory_is_no_plugin(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "workspace"
    install("planted", WATCHER, folder=workspace)
    monkeypatch.chdir(workspace)
    for entry in ("", ".", str(workspace), f"{tmp_path}/environment/../workspace"):
        monkeypatch.setattr(sys, "path", [entry, *sys.path])
        importlib.invalidate_caches()
        assert "watcher" in seen_by_the_library(OBSERVERS)
        with pytest.raises(PluginNotFoundError, match=r"in .*workspace, where no plugin is accepted"):
            discovery.find(OBSERVERS, "watcher")


def test_a_folder_named_site_packages_does_not_count_as_the_current_directory(
    install: Install, site_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("planted", WATCHER)
    assert discovery.find(OBSERVERS, "watcher").name == "watcher"
    monkeypatch.chdir(site_packages)
    with pytest.raises(PluginNotFoundError, match="the current directory"):
        discovery.find(OBSERVERS, "watcher")


def test_a_dist_info_on_pythonpath_is_no_plugin(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "workspace" / "site-packages"
    install("planted", WATCHER, folder=workspace)
    (tmp_path / "link").symlink_to(workspace)
    monkeypatch.setattr(sys, "path", [str(workspace), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(tmp_path / "link")]))
    assert "watcher" in seen_by_the_library(OBSERVERS)
    with pytest.raises(PluginNotFoundError, match="named by PYTHONPATH"):
        discovery.find(OBSERVERS, "watcher")


def test_a_dist_info_beside_the_script_that_runs_is_no_plugin(install: Install, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    install("planted", WATCHER, folder=workspace)
    (workspace / "agent.py").write_text(
        "import importlib.metadata, sys\n"
        f"assert importlib.metadata.entry_points(group={OBSERVERS!r}), 'the library sees it'\n"
        f"sys.path.append({CORE!r})\n"
        "from codex_core import discovery\n"
        f"print(discovery.installed({OBSERVERS!r}).get('watcher'), discovery.unsafe_folders())\n"
    )
    done = subprocess.run(
        [sys.executable, str(workspace / "agent.py")], cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("None")
    assert "the folder of the script" in done.stdout


def test_a_dist_info_in_the_sources_of_an_editable_installation_is_no_plugin(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "workspace" / "src"
    install("planted", WATCHER, folder=sources)
    monkeypatch.setattr(sys, "path", [*sys.path, str(sources)])
    assert "watcher" in seen_by_the_library(OBSERVERS)
    with pytest.raises(PluginNotFoundError, match="not called site-packages"):
        discovery.find(OBSERVERS, "watcher")


def test_a_planted_distribution_cannot_take_the_place_of_an_installed_one_of_its_name(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("watcher", WATCHER)
    install("watcher", WATCHER.replace("watcher_module", "evil"), folder=tmp_path / "workspace")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "workspace"), *sys.path])
    values = {point.value for point in importlib.metadata.entry_points(group=OBSERVERS)}
    assert "evil:Watcher" in values
    assert "watcher_module:Watcher" not in values
    assert discovery.find(OBSERVERS, "watcher").value == "watcher_module:Watcher"


def test_the_folder_that_python_itself_set_up_counts_even_as_current_directory(tmp_path: Path) -> None:
    venv.create(tmp_path, symlinks=True)
    python = tmp_path / "bin" / "python"
    ask: list[str | Path] = [python, "-c", "import site; print(site.getsitepackages()[0])"]
    own = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    (own / "core.pth").write_text(CORE)
    metadata = own / "watcher-1.0.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text(WATCHER)
    look = f"from codex_core import discovery; print(discovery.find({OBSERVERS!r}, 'watcher').version)"
    for folder in (own, tmp_path, "/"):
        done = subprocess.run([python, "-c", look], cwd=folder, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "1.0"


def test_one_folder_in_two_spellings_is_one(
    install: Install, site_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("watcher", WATCHER)
    (tmp_path / "site-packages").symlink_to(site_packages)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site-packages"), f"{site_packages}/../site-packages"])
    assert discovery.find(OBSERVERS, "watcher").distribution == "watcher"


def test_of_one_distribution_in_two_folders_the_first_counts_as_it_does_for_import(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "overlay" / "site-packages"
    install("the-watcher", "[console_scripts]\nnothing = nothing:main\n", version="2.0")
    install("The.Watcher", WATCHER, version="1.0", folder=other)
    monkeypatch.setattr(sys, "path", [*sys.path, str(other)])
    with pytest.raises(PluginNotFoundError):
        discovery.find(OBSERVERS, "watcher")
    monkeypatch.setattr(sys, "path", [str(other), *sys.path])
    assert discovery.find(OBSERVERS, "watcher").version == "1.0"


def test_a_name_that_two_distributions_declare_is_refused_and_both_are_named(install: Install) -> None:
    install("first", WATCHER)
    install("second", WATCHER)
    with pytest.raises(PluginConflictError, match=r"first 1\.0 .*second 1\.0 .*uninstall"):
        discovery.find(OBSERVERS, "watcher")
    assert len(discovery.installed(OBSERVERS)["watcher"]) == 2


def test_two_versions_of_one_distribution_in_one_folder_are_a_conflict(install: Install) -> None:
    install("watcher", WATCHER, version="1.0")
    install("watcher", WATCHER, version="1.1")
    with pytest.raises(PluginConflictError, match=r"watcher 1\.0 .*watcher 1\.1"):
        discovery.find(OBSERVERS, "watcher")


@pytest.mark.parametrize(
    "text",
    [
        "watcher = module:Attribute\n[codex_core.observers]\n",
        "[codex_core.observers]\nwatcher\n",
        "[codex_core.observers]\n= module:Attribute\n",
        "[codex_core.observers]\nwatcher = \n",
        "[codex_core.observers]\nwatcher = module:\n",
        "[codex_core.observers]\nwatcher = module:Attribute # comment\n",
        "[codex_core.observers]\nwatcher = ../evil:Attribute\n",
        "[codex_core.observers\nwatcher = module:Attribute\n",
    ],
)
def test_broken_metadata_refuses_every_look_up_because_it_may_hide_a_second_claimant(
    install: Install, text: str
) -> None:
    install("watcher", WATCHER)
    assert discovery.find(OBSERVERS, "watcher").name == "watcher"
    install("broken", text)
    for name in ("watcher", "other"):
        with pytest.raises(PluginLoadError, match=r"broken-1\.0\.dist-info.*line \d.*reinstall or remove"):
            discovery.find(OBSERVERS, name)
    with pytest.raises(PluginLoadError, match="reinstall or remove"):
        discovery.installed(OBSERVERS)


def test_metadata_that_is_no_utf_8_or_no_file_is_broken_too(install: Install) -> None:
    entry_points = install("broken", "") / "entry_points.txt"
    entry_points.write_bytes(WATCHER.encode() + b"\xff = module:Attribute\n")
    assert [broken.path for broken in discovery.scan().broken] == [os.path.realpath(entry_points)]
    entry_points.unlink()
    entry_points.mkdir()
    assert [broken.path for broken in discovery.scan().broken] == [os.path.realpath(entry_points)]


def test_odd_metadata_of_others_does_no_harm(install: Install, site_packages: Path) -> None:
    install("watcher", WATCHER)
    install("odd", "this is no INI file\n[console_scripts]\n")
    (site_packages / "file.dist-info").write_text("not a folder")
    (site_packages / "nowhere-1.0.dist-info").symlink_to("does-not-exist")
    (site_packages / "nothing-1.0.dist-info").mkdir()
    (site_packages / ".dist-info").mkdir()
    assert discovery.find(OBSERVERS, "watcher").name == "watcher"
    assert discovery.scan().broken == ()


def test_entries_of_sys_path_that_are_no_folders_are_passed_over(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("watcher", WATCHER)
    (tmp_path / "archive.zip").write_bytes(b"PK")
    odd: list[str] = [str(tmp_path / "archive.zip"), str(tmp_path / "missing" / "site-packages"), tmp_path]  # type: ignore[list-item]  # Python allows it
    monkeypatch.setattr(sys, "path", [*odd, *sys.path])
    assert discovery.find(OBSERVERS, "watcher").name == "watcher"


def test_plugins_are_found_when_the_current_directory_is_gone(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("watcher", WATCHER)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    gone.rmdir()
    assert discovery.find(OBSERVERS, "watcher").name == "watcher"


def test_a_linked_dist_info_counts_and_is_reported_where_it_really_lies(
    install: Install, site_packages: Path, tmp_path: Path
) -> None:
    metadata = install("watcher", WATCHER, folder=tmp_path / "store")
    (site_packages / metadata.name).symlink_to(metadata)
    assert discovery.find(OBSERVERS, "watcher").location == os.path.realpath(tmp_path / "store")


def test_name_and_version_come_from_the_folder_where_there_is_no_metadata_file(install: Install) -> None:
    (install("the-watcher", WATCHER, version="3.1") / "METADATA").unlink()
    plugin = discovery.find(OBSERVERS, "watcher")
    assert (plugin.distribution, plugin.version) == ("the_watcher", "3.1")


def test_a_shipped_plugin_that_is_missing_names_its_distribution_and_never_an_index(
    site_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(site_packages)])
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(site_packages)])
    with pytest.raises(PluginNotFoundError, match=r"codex-sandbox-linux, as in `pip install \./plugins/sandbox_linux`"):
        discovery.find("codex_core.sandbox_backends", "linux")


NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9._-]{0,8}", fullmatch=True)
ENTRIES = st.dictionaries(NAMES, st.from_regex(r"[a-z_]{1,5}(\.[a-z_]{1,5}){0,2}(:[A-Za-z_]{1,5})?", fullmatch=True))


@given(st.dictionaries(st.sampled_from([OBSERVERS, "codex_core.exporters", "other"]), ENTRIES))
def test_entry_points_are_read_as_the_standard_library_reads_them(groups: dict[str, dict[str, str]]) -> None:
    text = "\n".join(
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in entries.items())
        for group, entries in groups.items()
    )
    ours = set(discovery._entries(text))
    points = importlib.metadata.EntryPoints._from_text_for(text, None)  # type: ignore[attr-defined]  # the parser itself
    assert ours == {(one.group, one.name, one.value) for one in points if one.group.startswith("codex_core.")}


@given(st.text(alphabet="aB1-_.", min_size=1))
def test_names_are_compared_in_the_normal_form_of_pep_503(name: str) -> None:
    assert discovery.normalised(name) == re.sub(r"[-_.]+", "-", name).strip("-").lower()


def test_loading_gives_what_the_entry_point_names(install: Install) -> None:
    install("watcher", WATCHER.replace(":Watcher", ":Box.attribute"), {"watcher_module": "class Box: attribute = 7"})
    assert discovery.load(discovery.find(OBSERVERS, "watcher")) == 7
    module = Plugin("m", "watcher_module", OBSERVERS, "watcher", "1.0", "/")
    assert discovery.load(module) is sys.modules["watcher_module"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("assert False, 'never'", "AssertionError: never"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import does_not_exist", "ModuleNotFoundError"),
        ("x = 1", "AttributeError"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    ],
)
def test_a_plugin_that_fails_at_import_is_one_line(install: Install, source: str, says: str) -> None:
    install("watcher", WATCHER, {"watcher_module": source})
    with pytest.raises(PluginLoadError, match=re.escape(says)) as caught:
        discovery.load(discovery.find(OBSERVERS, "watcher"))
    assert "\n" not in str(caught.value)


def test_a_keyboard_interrupt_during_import_passes(install: Install) -> None:
    install("watcher", WATCHER, {"watcher_module": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        discovery.load(discovery.find(OBSERVERS, "watcher"))


@pytest.mark.parametrize("way", ["cwd", "PYTHONPATH"])
def test_a_module_in_the_workspace_cannot_stand_in_for_the_code_of_an_installed_plugin(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    install("watcher", WATCHER, {"watcher_module": "Watcher = 'installed'"})
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "watcher_module.py").write_text("Watcher = 'planted'")
    monkeypatch.setattr(sys, "path", [str(workspace), *sys.path])
    if way == "cwd":
        monkeypatch.chdir(workspace)
    else:
        monkeypatch.setenv("PYTHONPATH", str(workspace))
    plugin = discovery.find(OBSERVERS, "watcher")
    assert importlib.import_module(plugin.module).Watcher == "planted"
    del sys.modules["watcher_module"]
    with pytest.raises(PluginLoadError, match=r"code would come from .*workspace.watcher_module\.py"):
        discovery.load(plugin)
    assert "watcher_module" not in sys.modules


def test_an_editable_plugin_loads_from_its_project_also_when_that_is_the_current_directory(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "a project"
    project.mkdir()
    (project / "watcher_module.py").write_text("Watcher = 'editable'")
    metadata = install("watcher", WATCHER)
    metadata.joinpath("direct_url.json").write_text(
        f'{{"dir_info": {{"editable": true}}, "url": "{project.as_uri()}"}}'
    )
    monkeypatch.setattr(sys, "path", [str(project), *sys.path])
    monkeypatch.chdir(project)
    assert discovery.load(discovery.find(OBSERVERS, "watcher")) == "editable"
    assert str(project / "watcher_module.py") in discovery.code_locations()


def test_the_places_of_code_hold_core_the_interpreter_and_the_places_that_may_yet_appear() -> None:
    places = discovery.code_locations()
    assert os.path.dirname(os.path.realpath(discovery.__file__)) in places
    assert os.path.dirname(sys.executable) in places
    assert os.path.join(sys.prefix, "pyvenv.cfg") in places
    assert os.path.dirname(os.path.realpath(os.__file__)) in places
    if site.ENABLE_USER_SITE:
        assert os.path.realpath(site.getusersitepackages()) in places
    assert all(os.path.isabs(place) for place in places)
    assert sys.prefix not in places


def test_discovery_imports_nothing_heavy() -> None:
    heavy = {"importlib.metadata", "pluggy", "stevedore", "pathlib", "configparser", "json", "pydantic", "argparse"}
    look = f"import sys; sys.path.append({CORE!r}); import codex_core.discovery; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", look], capture_output=True, text=True, check=True)
    assert "codex_core.discovery" in done.stdout.split()
    assert not heavy & set(done.stdout.split())

"""macOS managed preferences: TOML, in base64, under two keys of the domain ``com.openai.codex``.

Device management puts them into property lists below ``/Library/Managed Preferences``: one for the
device, and one for each user, which wins as it does for every preference.  On macOS the answer of
the system (CoreFoundation) counts as well, and only where the value is forced, so that a user's own
preferences cannot pose as managed ones.  Constraints are taken from every scope: a second one can
only tighten.

The property lists are looked for below the root folder of the system that the context names, so that
everything but the question to CoreFoundation runs, and is tested, on any system.
"""

from __future__ import annotations

import os
import sys
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codex_core.config.files import decode, parse, read_file
from codex_core.config.keys import visible
from codex_core.config.layers import Layer
from codex_core.config.positions import Positions
from codex_core.config.sources import MANAGED_PREFERENCES, MDM
from codex_core.errors import ConfigError

if TYPE_CHECKING:
    from codex_core.config.sources import ConfigContext

DOMAIN = "com.openai.codex"
CONFIG_KEY = "config_toml_base64"
REQUIREMENTS_KEY = "requirements_toml_base64"


@dataclass(frozen=True, slots=True)
class Preference:
    """One value as device management gave it."""

    value: object
    place: str
    """Where it was found, for messages and origins."""


def config_layers(context: ConfigContext) -> tuple[Layer, ...]:
    """Read the managed values; of several scopes the user's wins.  Raises ConfigError."""
    layers = _layers(CONFIG_KEY, context)
    return layers[-1:]


def requirements_layers(context: ConfigContext) -> tuple[Layer, ...]:
    """Read the constraints of every scope.  Raises ConfigError."""
    return _layers(REQUIREMENTS_KEY, context)


def paths(context: ConfigContext) -> tuple[str, str]:
    """Name the property lists of the device and of the user.  No variable and no flag moves them."""
    folder = os.path.join(context.system_root, *MANAGED_PREFERENCES)
    return os.path.join(folder, f"{DOMAIN}.plist"), os.path.join(folder, _user_name(), f"{DOMAIN}.plist")


def encode_payload(text: str) -> str:
    """Encode TOML as device management wants it: base64 on one line."""
    return b64encode(text.encode()).decode("ascii")


def decode_payload(payload: str, where: str) -> str:
    """Give the TOML of a payload; white space anywhere in it is ignored, as mail and editors wrap it.

    Raises ConfigError that begins with *where*.
    """
    try:
        content = b64decode("".join(payload.split()), validate=True)
    except ValueError as error:
        raise ConfigError(f"{visible(where)}: not base64: {visible(str(error))}") from None
    return decode(content, where)


def _layers(key: str, context: ConfigContext) -> tuple[Layer, ...]:
    layers = []
    for preference in _preferences(key, context):
        where = f"{preference.place}#{key}"
        if not isinstance(preference.value, str):
            kind = type(preference.value).__name__
            raise ConfigError(f"{visible(where)}: must be a string with base64 in it, not {kind}")
        text = decode_payload(preference.value, where)
        if text.strip():  # an empty value says nothing: it neither sets anything nor hides another scope
            layers.append(Layer("mdm", MDM, parse(text, visible(where)), where, Positions(text)))
    return tuple(layers)


def _preferences(key: str, context: ConfigContext) -> list[Preference]:
    """Collect the values of one key, the weakest scope first, each once."""
    found = []
    for path in paths(context):
        content = read_file(path, guard=context.system_root)
        if content is not None:
            preferences = _property_list(content, path)
            if key in preferences:
                found.append(Preference(preferences[key], path))
    if sys.platform == "darwin" and context.system_root == "/":
        from codex_core.config.core_foundation import forced_preference

        try:
            forced = forced_preference(DOMAIN, key)
        except (OSError, AttributeError, ValueError) as error:
            raise ConfigError(f"{DOMAIN}#{key}: macOS cannot be asked what is managed: {visible(str(error))}") from None
        if forced is not None and all(forced != preference.value for preference in found):
            found.append(Preference(forced, DOMAIN))
    return found


def _property_list(content: bytes, path: str) -> dict[str, object]:
    import plistlib

    try:
        preferences = plistlib.loads(content)
    except Exception as error:  # noqa: BLE001 - plistlib lets through what its parsers raise on damaged files
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{visible(path)}: not a property list: {visible(reason)}") from None
    if not isinstance(preferences, dict):
        raise ConfigError(f"{visible(path)}: holds no dictionary")
    return preferences


def _user_name() -> str:
    """Name the user who runs this; the environment has no say in which managed file counts."""
    if sys.platform == "win32":
        return ""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an unknown user has no managed preferences of its own
        return ""

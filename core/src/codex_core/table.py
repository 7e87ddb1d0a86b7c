"""The base of the models of configuration tables, of core and of plugins."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict

_NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


class Table(BaseModel):
    """A TOML table: frozen, and strict about types.  Every field has a description, written for users.

    Unknown keys are taken out, with a warning, before one is built.  A table inside a table has ``{}`` for
    its default, which is validated: an instance there would have to be built, each by itself, when its
    module is imported.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


def build(model: type[Table]) -> None:
    """Build a model that stands by itself, before it is used.

    Any distribution on the path can declare a plugin of pydantic's, a folder in the workspace too, and pydantic
    would import it for the first model that is built.  That is switched off here.
    """
    before = os.environ.get(_NO_PLUGINS)
    os.environ[_NO_PLUGINS] = "__all__"
    try:
        model.model_rebuild(force=True)
    finally:
        if before is None:
            del os.environ[_NO_PLUGINS]
        else:
            os.environ[_NO_PLUGINS] = before

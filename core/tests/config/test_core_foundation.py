"""The question to macOS, asked to a library that does what CoreFoundation does and counts what is released.

Anything else of the way from managed preferences to layers is tested with real property lists; the library stands
in for the one part that exists on macOS only, and shows that the calls have the right types and order.
"""

from __future__ import annotations

import shutil
import subprocess
from ctypes import CDLL, c_char_p, c_int
from typing import TYPE_CHECKING

import pytest
from codex_core.config.core_foundation import forced_preference

if TYPE_CHECKING:
    from pathlib import Path

LIBRARY = r"""
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned long type; char *text; } Object;
enum { STRING = 7, DATA = 20 };
int living, forced = 1, refuses;
unsigned long value_type = STRING;
const char *value_text, *asked_for;

static void *make(unsigned long type, const char *text) {
    Object *made = malloc(sizeof *made);
    made->type = type;
    made->text = strdup(text);
    living++;
    return made;
}
void *CFStringCreateWithCString(void *allocator, const char *text, uint32_t encoding) {
    return allocator == NULL && encoding == 0x08000100 ? make(STRING, text) : NULL;
}
unsigned long CFStringGetTypeID(void) { return STRING; }
unsigned long CFGetTypeID(Object *object) { return object->type; }
long CFStringGetLength(Object *string) {
    long units = 0;  /* UTF-16: one for each character, two beyond the basic plane */
    for (const unsigned char *at = (unsigned char *)string->text; *at; at++)
        units += (*at & 0xC0) != 0x80 ? (*at >= 0xF0 ? 2 : 1) : 0;
    return units;
}
bool CFStringGetCString(Object *string, char *buffer, long size, uint32_t encoding) {
    if (refuses || encoding != 0x08000100 || (long)strlen(string->text) >= size) return false;
    strcpy(buffer, string->text);
    return true;
}
unsigned char CFPreferencesAppValueIsForced(Object *key, Object *application) {
    return forced && !strcmp(application->text, "com.openai.codex") && !strcmp(key->text, asked_for);
}
void *CFPreferencesCopyAppValue(Object *key, Object *application) {
    return value_text && application && !strcmp(key->text, asked_for) ? make(value_type, value_text) : NULL;
}
void CFRelease(Object *object) { free(object->text); free(object); living--; }
"""


class System:
    def __init__(self, path: str) -> None:
        self.path = path
        self.library = CDLL(path)
        self._texts: list[bytes | None] = []
        self.set("asked_for", "config_toml_base64")

    def set(self, name: str, text: str | None) -> None:
        self._texts.append(None if text is None else text.encode())  # the library does not copy it
        c_char_p.in_dll(self.library, name).value = self._texts[-1]

    def number(self, name: str) -> c_int:
        return c_int.in_dll(self.library, name)

    def ask(self, key: str = "config_toml_base64") -> str | bytes | None:
        try:
            return forced_preference("com.openai.codex", key, self.path)
        finally:
            assert self.number("living").value == 0, "something was not released, or twice"


@pytest.fixture
def system(tmp_path: Path) -> System:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (tmp_path / "library.c").write_text(LIBRARY)
    library = str(tmp_path / "library.so")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, str(tmp_path / "library.c")], check=True)
    return System(library)


@pytest.mark.parametrize("text", ["bW9kZWwgPSAieCIK", "", "é€𝄞" * 5000])
def test_a_forced_text_is_given_as_it_is(system: System, text: str) -> None:
    system.set("value_text", text)
    assert system.ask() == text


def test_what_is_not_forced_does_not_count(system: System) -> None:
    system.set("value_text", "from the user's own preferences")
    system.number("forced").value = 0
    assert system.ask() is None


def test_another_key_and_a_value_that_is_gone_say_nothing(system: System) -> None:
    system.set("value_text", "x")
    assert system.ask("requirements_toml_base64") is None
    system.set("value_text", None)
    assert system.ask() is None


def test_what_is_no_text_is_told_from_text(system: System) -> None:
    system.set("value_text", "x")
    system.number("value_type").value = 20
    assert system.ask() == b""


def test_a_text_that_the_system_does_not_give_is_an_error(system: System) -> None:
    system.set("value_text", "x")
    system.number("refuses").value = 1
    with pytest.raises(ValueError, match="does not give its text"):
        system.ask()

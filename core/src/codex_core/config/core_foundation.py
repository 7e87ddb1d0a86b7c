"""The one question to macOS: what device management forces a preference to be.

CFPreferencesAppValueIsForced and CFPreferencesCopyAppValue, as Apple's "Preferences Utilities" describes them.
"""

from __future__ import annotations

from ctypes import CDLL, c_bool, c_char_p, c_long, c_ubyte, c_uint32, c_ulong, c_void_p, create_string_buffer

FRAMEWORK = "/System/Library/Frameworks/CoreFoundation.framework/CoreFoundation"
_UTF_8 = 0x08000100
"""kCFStringEncodingUTF8"""
_SIGNATURES = {
    "CFStringCreateWithCString": (c_void_p, [c_void_p, c_char_p, c_uint32]),
    "CFStringGetTypeID": (c_ulong, []),
    "CFStringGetLength": (c_long, [c_void_p]),
    "CFStringGetCString": (c_bool, [c_void_p, c_char_p, c_long, c_uint32]),
    "CFPreferencesAppValueIsForced": (c_ubyte, [c_void_p, c_void_p]),
    "CFPreferencesCopyAppValue": (c_void_p, [c_void_p, c_void_p]),
    "CFGetTypeID": (c_ulong, [c_void_p]),
    "CFRelease": (None, [c_void_p]),
}


def forced_preference(domain: str, key: str, framework: str = FRAMEWORK) -> str | bytes | None:
    """Give the text that device management forces *key* to be; None where it forces nothing.

    What is forced and is no text is ``b""``.  *framework* is the library that is asked; tests have one of their own.

    Raises ValueError where the system does not give the text.
    """
    core = CDLL(framework)
    for function, (result, arguments) in _SIGNATURES.items():
        getattr(core, function).restype = result
        getattr(core, function).argtypes = arguments

    name = core.CFStringCreateWithCString(None, key.encode(), _UTF_8)
    application = core.CFStringCreateWithCString(None, domain.encode(), _UTF_8)
    value = None
    try:
        # A user's own preferences cannot pose as managed ones.
        if not core.CFPreferencesAppValueIsForced(name, application):
            return None
        value = core.CFPreferencesCopyAppValue(name, application)
        if not value:
            return None
        if core.CFGetTypeID(value) != core.CFStringGetTypeID():
            return b""
        # The length counts UTF-16 units, of which each is three bytes at most.
        size = core.CFStringGetLength(value) * 3 + 1
        buffer = create_string_buffer(size)
        if not core.CFStringGetCString(value, buffer, size, _UTF_8):
            raise ValueError("the system does not give its text")
        return buffer.value.decode()
    finally:
        for reference in filter(None, (name, application, value)):
            core.CFRelease(reference)

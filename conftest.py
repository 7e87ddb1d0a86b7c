"""For all tests: none asserts a time, and so neither does hypothesis; and none depends on who started them."""

import signal

from hypothesis import settings

settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")

# What a shell starts in the background is born ignoring these, and so would be every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGQUIT"):
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)

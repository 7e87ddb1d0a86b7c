"""For all tests: none asserts a time, and so neither does hypothesis."""

from hypothesis import settings

settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")

"""Confine commands on Linux: namespaces where the host allows them, Landlock and seccomp always.

Read in this order:

* ``plan``         pure: a policy becomes a plan, the exact things to mount, allow and filter
* ``jail``         inside: confine this process by a plan, prove it, then spawn commands
* ``forge``        outside: make a jail, on the strongest rung that this host allows
* ``launcher``     the caller's side: a pool of jails behind codex-core's Launcher protocol
* ``filtering``    a network with a list of hosts, the owner's side; ``egress`` is the process outside
* ``connections``  the supervisor that decides each connect of a jail
* ``watch``        protected names that do not exist yet, and what happens to them when they appear
* ``groups``       limits, kept by a control group for each jail; ``usage`` looks at what no group keeps
* ``command``      one command, for ``codex sandbox linux``
* ``plugin``       the hooks

and at the bottom ``kernel``, ``namespaces``, ``landlock_rules`` and ``seccomp``, one for each kernel interface.
"""

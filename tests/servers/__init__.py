"""Real servers for the tests: each is started by a module of its own.

`installed()` says whether the programs are there, `start()` is a context manager that
gives what a client needs. `fixtures` holds the pytest fixtures. By hand, until Ctrl-C:

    python -m tests.servers.ceph
"""

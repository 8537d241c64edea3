"""Real faults: processes that die at a named write, at a time, or in a decoder.

Nothing of it is in the product. `hooks` patches what a process imports, told by the
variable DICOMDASK_FAULTS; `site/sitecustomize.py` loads it into every process that is
started with that folder on its path: the command, pools, Dask's workers, and the one
that decodes apart. `server` runs commands in forks, which saves their imports.
"""

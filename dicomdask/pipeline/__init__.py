"""The only room with Dask: it wires bags and runs them, and decides nothing."""

from dicomdask.pipeline.bags import (
    encode_bag,
    files_bag,
    index_bag,
    index_dataframe,
    index_sources,
    masks_bag,
    plan_bag,
    resolve_bag,
    settle_bag,
)
from dicomdask.pipeline.clusters import (
    LOCAL_SCHEDULERS,
    check_scheduler,
)
from dicomdask.pipeline.run import Runner, current_client, local_memory, open_runner

__all__ = [
    "LOCAL_SCHEDULERS",
    "Runner",
    "check_scheduler",
    "current_client",
    "encode_bag",
    "files_bag",
    "index_bag",
    "index_dataframe",
    "index_sources",
    "local_memory",
    "masks_bag",
    "open_runner",
    "plan_bag",
    "resolve_bag",
    "settle_bag",
]

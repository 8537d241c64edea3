"""All work decided, as data: pure functions from instances to volumes to tasks.

Nothing here reads storage, the clock or the environment. The same instances give the
same plan, whatever their order.
"""

from dicomdask.plan.build import Plan, check_instance, filter_instances, plan_instances
from dicomdask.plan.document import from_plain, plan_from_json, plan_to_json
from dicomdask.plan.memory import (
    BASE_BYTES,
    bucket_bytes,
    held_bytes,
    index_bytes,
    inflated_bytes,
    largest_task_bytes,
    memory_bytes,
    resolve_bytes,
    shard_raw_bytes,
)
from dicomdask.plan.tasks import task_digest, volume_tasks
from dicomdask.plan.volume import series_key, source_key
from dicomdask.plan.where import check_where

__all__ = [
    "BASE_BYTES",
    "Plan",
    "bucket_bytes",
    "check_instance",
    "check_where",
    "filter_instances",
    "from_plain",
    "held_bytes",
    "index_bytes",
    "inflated_bytes",
    "largest_task_bytes",
    "memory_bytes",
    "plan_from_json",
    "plan_instances",
    "plan_to_json",
    "resolve_bytes",
    "series_key",
    "shard_raw_bytes",
    "source_key",
    "task_digest",
    "volume_tasks",
]

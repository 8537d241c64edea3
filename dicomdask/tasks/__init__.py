"""Units of work on a worker: functions of values that leave results in storage."""

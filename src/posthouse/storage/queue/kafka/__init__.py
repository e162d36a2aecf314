"""The queue on Kafka: topics carry jobs, records hold what of them is done.

1. A job that is due goes into the topic of its stage and lane (`producer`), into the partition
   of its key (`wire`); one that must wait, or that belongs to a transaction, is a row of the
   table `job` until the `pump` moves it.
2. A consumer group for each stage shares the partitions out (`reader`). Who works on one is
   decided by its row in `queue_partition` (`partitions`): an epoch and a lease.
3. What was read waits in the `window`, tenants in turn; a claim leases from there.
4. `done`, `later` and `bury` write the offset into the partition's row (`progress`), in the
   caller's transaction and only under its own epoch: an offset is done if and only if its
   outcome is committed, and a process that was replaced writes nothing.
"""

"""Units of work on a worker: functions of values that leave results in storage.

A task is a function of names and numbers. It reads from storage, leaves its result
there, its receipt last, and returns counts. So doing it twice is doing it once.

Each stage of a run, in its order:

- *list and index*: `index` from files to instances in buckets; `known` what the
  manifest lists already; `places` in which bucket a file or an instance was seen before
- *resolve*: `resolve` keeps one of several copies
- *plan*: `planning` bucket by bucket; `planned` which buckets have to be planned again
- *encode*: `encode` one shard; `sources` what it reads, `decode` as planes, `looks` for
  text, `references` what others of the series show, `faces` out of the pixels; `said`
  what words say of site, device and body; `fingerprint` what a commit tells of values
- *commit*: `commit` the next state; `changes` and `settle` what of it is new;
  `remembered` what was committed last

What else there is to do:

- *DICOM files*: `files` those of a batch, `clean_file` one of them; `masks` the faces
  of volumes as pixels of files, `again` whose have changed; `settle_files` one of
  several copies; `record` what a destination is
- *labels*: `labels` a cell of somebody's table
- *to remove*: `patient` what is somebody's; `removal` out of a store, `cleaning` out of
  a work directory, `forgotten_files` out of a destination; `forgotten` who is kept out;
  `vacuum` what no recent commit names

What they stand on: `policies` the policy of a job; `ready` what a worker must be able
to do; `barrier` against hostile bytes, `isolate` in a process apart, that had to
`rehearse` first, `attempts` of processes that died, `watch` for those that hang;
`measure` what a task costs.
"""

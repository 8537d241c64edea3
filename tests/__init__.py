"""Where what is tested, and what the tests are made of.

Almost each file tests one module or one promise, and its docstring says which. The
names of files begin with what they are about: `test_deid_*` headers and files without
identity, `test_blank_*` and `test_look*` text in pixels, `test_faces*`,
`test_geometry*`, `test_loader*`, `test_forget*`; `test_*_page` runs the commands of a
page of `examples`.

The whole way, from DICOM to a dataset:

- `test_pipeline` same bytes from whatever runs it; `test_updates` what runs again;
  `test_crashes` and `test_two_writers` what is cut off and what collides; `test_growth`
- `test_bad_input` one sentence for whatever is wrong; `test_dev_set` all real files
- `test_leaks` in a dataset and all that is said, `test_deid_leaks` in DICOM files,
  `test_deid_markers` in kinds of objects: no marker comes out
- `test_architecture`, `test_security`, `test_api`, `test_readme`: the house itself

What makes their inputs:

- *DICOM*: `builders` instances and series with their identity in the arguments;
  `strategies` for hypothesis, and instances as values; `heads` in CT and MR; `burned`
  text over backgrounds, `strata` of it that is turned, huge, cut or foreign; `jpegs` of
  given coefficients; `fuzz` mutated real files
- *what must not come out*: `markers` are planted and found; `marked` a pile full of
  them, `planted` kinds of objects full of them; `told` all that a run says; `scored` a
  corpus for the ten actions of MIDI-B
- *much of it*: `big` piles, and the memory they take; `many` volumes

What they talk to: `servers` real stores and Slurm, `faults` processes that die where
they are told to, `browser` a real one, `pages` the commands of the project's pages.
`benchmarks` measure, and run as tests at a tiny size.

`conftest` lists the fixtures. `pytest --full` runs long forms. Tests on real files want
their folder in DICOMDASK_TEST_DATA, and are skipped without.
"""

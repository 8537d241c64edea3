"""What the DICOM standard says, as readable data.

`table_e1_1.csv` is table E.1-1 of PS3.15, and `modules.csv` the attributes of the
modules of PS3.3 with their types, both written by `dicomdask.standard.build`;
`safe_private.csv` is table E.3.10-1. `retain.toml` names the technical attributes
outside the table that stay; `terms.toml` holds the vocabularies that text has to be in,
and `words.toml` the words that a cleaned description keeps. Only `dicomdask.policy`
reads them; `regions.toml` has the words that `dicomdask.faces` tells heads by.
"""

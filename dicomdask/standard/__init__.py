"""What the DICOM standard says, as readable data.

`table_e1_1.csv` is table E.1-1 of PS3.15, written by `dicomdask.standard.build`;
`retain.toml` names the technical attributes outside the table that stay; `terms.toml`
holds the vocabularies that text has to be in. Only `dicomdask.policy` reads them.
"""

"""Apply a policy to a header: identified in, de-identified out, or nothing.

- *a header*: `clean` walks over it and asks, by VR and by what else an element is,
  `rules`, `private`, `codes`, `words`, `values`, `lookup`, `icc` and `dummies`;
  `elements` gives and takes texts in the character set; `document` is the result as
  JSON
- *a file*: `file` whole; `pixeldata` and `streams` without what hides beside the
  pixels; `written` as bytes
- *people*: `cells` of their tables as headers; `explain` what becomes of each element
"""

from dicomdask.deid.cells import to_header
from dicomdask.deid.clean import clean_header
from dicomdask.deid.document import header_json
from dicomdask.deid.explain import Explained, explain
from dicomdask.deid.file import CleanedFile, clean_file
from dicomdask.deid.rules import patient_pseudonym, replace_uid

__all__ = [
    "CleanedFile",
    "Explained",
    "clean_file",
    "clean_header",
    "explain",
    "header_json",
    "patient_pseudonym",
    "replace_uid",
    "to_header",
]

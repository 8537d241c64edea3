"""Turn DICOM into a dataset that models can be trained on again and again."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dicomdask.dataset import open_dataset
    from dicomdask.pipeline import index_dataframe
    from dicomdask.pipeline import index_sources as index
    from dicomdask.steps import convert, deidentify, forget, pseudonymize, vacuum

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "convert",
    "deidentify",
    "forget",
    "index",
    "index_dataframe",
    "open_dataset",
    "pseudonymize",
    "vacuum",
]

# Loaded when first used: whoever only reads a dataset needs neither Dask nor pydicom.
_HOMES: Final = {
    "convert": ("dicomdask.steps", "convert"),
    "deidentify": ("dicomdask.steps", "deidentify"),
    "forget": ("dicomdask.steps", "forget"),
    "index": ("dicomdask.pipeline", "index_sources"),
    "index_dataframe": ("dicomdask.pipeline", "index_dataframe"),
    "open_dataset": ("dicomdask.dataset", "open_dataset"),
    "pseudonymize": ("dicomdask.steps", "pseudonymize"),
    "vacuum": ("dicomdask.steps", "vacuum"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dicomdask' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Zero-shot land-cover maps from hyperspectral images: one module per step of the workflow."""

import os
from importlib import import_module
from typing import Any

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """`quick_map`, once it is asked for: who imports a step, or reads the config, should not wait for torch."""
    if name == "quick_map":
        # as in the workflow, and before torch is loaded: its waiting threads spin, which takes three times as long
        # where others use the machine, too
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # by a text: else the digest of every step's code would be over all steps
        return import_module("special_steps.api.quick").quick_map
    raise AttributeError(f"module 'special_steps' has no attribute '{name}'")

"""A model saved by `torch.jit.save`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tritonkit.errors import ModelError, describe
from tritonkit.export.foreign import quiet

if TYPE_CHECKING:
    import torch


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Load a TorchScript file onto the CPU. ModelError if it cannot be read or has no forward().

    torch reads the pickles in it with a reader of its own that makes TorchScript's types only.
    """
    import torch

    try:
        with quiet():
            module = torch.jit.load(path, map_location="cpu")
    except Exception as error:
        raise ModelError(
            f"{path}: torch.jit.load cannot read it ({describe(error)}); save it again with "
            "torch.jit.save, or give a factory"
        ) from error
    if not hasattr(module, "forward"):
        raise ModelError(f"{path}: its module has no forward(); save one that has")
    return module

"""How files of importance are told from models, whose suffixes they may have."""

from __future__ import annotations

from pyarrowquant.reading.location import Location

GGUF_TYPE = "imatrix"  # general.type of those that llama-imatrix writes as GGUF
KEY = "pyarrowquant.importance"  # in the header of those that calibrate writes
SUFFIXES = (".imatrix", ".dat")  # of no model


def no_model(location: Location) -> ValueError:
    """Make the error of a file of importance in the place of a model."""
    return ValueError(
        f"{location} is a file of importance, and no model. It goes along with one: "
        f"`pyarrowquant quantize MODEL OUTPUT --imatrix {location.name}`"
    )

"""Which variants may be asked for: told before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tensign.config import VARIANTS
from tensign.errors import InvalidConfig

NO_PICTURES = "--variant int8: is calibrated on pictures like those to come: --calibrate FOLDER"


def check_variants(names: Sequence[str], calibrate: Path | None, *, pictures: bool = False) -> None:
    """pictures: the model certainly takes them. Raises InvalidConfig for what nobody could do, before anything is run."""
    for name in names:
        if name not in VARIANTS:
            raise InvalidConfig(f"--variant {name}: wanted {' or '.join(VARIANTS)}; fp32 is always written")
    if "int8" in names and calibrate is None and pictures:
        raise InvalidConfig(NO_PICTURES)
    if calibrate is not None and not names:
        raise InvalidConfig("--calibrate: only variants are calibrated and judged on pictures: --variant int8, or fp16")
    if calibrate is not None and not calibrate.is_dir():
        came = "it is a file" if calibrate.exists() else "there is none"
        raise InvalidConfig(f"--calibrate {calibrate}: wanted a folder of pictures, and {came}")

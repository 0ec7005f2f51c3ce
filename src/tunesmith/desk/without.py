"""Libraries that are imported without what they only may use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Inside, those of these modules that are not loaded yet seem not to be installed; afterwards they can be imported.

    For libraries that look for others and do without where they are absent: Presidio and spaCy load torch and
    transformers for engines that are not used here, which takes seconds.
    """
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]

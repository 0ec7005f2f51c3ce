"""Passes over a Ray cluster: chunks go through Ray Data to whichever machine has a core, and what is made of them comes
back, so that no folder need be shared between machines. A window of chunks at a time is held in memory.

Each chunk is worked on by itself, as in processes here, and what comes back is put in the order of the chunks: the
result is the same bytes. A chunk whose work met an error is worked on here again, where it meets it as if it were
alone.
"""

from __future__ import annotations

import io
import json
import logging
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.shares import Made
from tunesmith.desk.reading import Chunk
from tunesmith.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from tunesmith.desk.passes import Pass

TIMEOUT = 10.0
"""Seconds in which the head of the cluster must answer."""
WINDOW = 4
"""Chunks for each core of the cluster that are on their way at a time."""
RETRIES = 1
"""Times that a chunk is given to another worker where one died: one that takes all memory would kill every worker."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to (`connected`)."""

    address: str

    def passed(self, work: Pass, given: Sequence[Chunk]) -> list[Made]:
        """What the work makes of each of its chunks, which lie here; its files lie in `work.target`."""
        import ray

        shared = ray.put(work)
        window = max(1, int(WINDOW * ray.cluster_resources().get("CPU", 1)))
        made: list[Made | None] = [None] * len(given)
        try:
            for first in range(0, len(given), window):
                chunks = [
                    {"index": index, "rows": chunk.path.read_bytes(), "first": chunk.first}
                    for index, chunk in enumerate(given[first : first + window], first)
                ]
                rows = ray.data.from_items(chunks, override_num_blocks=len(chunks))
                for one in rows.map(_there, fn_args=(shared,), max_retries=RETRIES).iter_rows():
                    made[one["index"]] = _unpacked(one["made"], work.target)
        except ray.exceptions.RayError as error:
            raise ResourceError(
                f"the Ray cluster at {self.address} did not end its work ({type(error).__name__}: "
                f"{str(error).strip().splitlines()[-1][:200]})",
                "machines that have this version of tunesmith, memory for a chunk, and stay",
                "look at the cluster's own log, and run again; or leave ray out",
            ) from error
        return [work(range(at, at + 1)) if found is None else found for at, found in enumerate(made)]


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster whose head is at host:port. Raises ConfigError where there is none, or Ray is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            f"ray={address}, but Ray is not installed ({error})",
            "Ray on this machine and on those of the cluster",
            "pip install 'tunesmith[ray]'",
        ) from None
    host, _, port = address.rpartition(":")
    try:
        if not host or "/" in address:
            raise OSError("no host:port")
        socket.create_connection((host, int(port)), TIMEOUT).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RaySystemError) as error:
        raise ConfigError(
            f"ray={address}: no Ray cluster answers ({type(error).__name__}: {str(error)[:200]})",
            "host:port of the head of a cluster that this machine is part of",
            "ray start --address=host:port here first, or leave ray out",
        ) from None
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield Cluster(address)
    finally:
        ray.shutdown()


def _there(row: dict[str, Any], shared: Any) -> dict[str, Any]:
    """The work on one chunk, on a machine of the cluster: files, arrays and what is said, as one value."""
    import ray

    work: Pass = ray.get(shared)
    index = int(row["index"])
    with tempfile.TemporaryDirectory(prefix="tunesmith-chunk-") as name:
        chunk, target = Chunk(Path(name) / "chunk", int(row["first"])), Path(name) / "made"
        chunk.path.write_bytes(row["rows"])
        target.mkdir()
        try:
            arrays, said = replace(work, chunks={index: chunk}, target=target)(range(index, index + 1))
        except Exception as error:  # met again by the one who asked
            return {"index": index, "made": _packed({}, {"failed": repr(error)})}
        files = {path.name: path.read_bytes() for path in sorted(target.iterdir())}
        files |= {f"{name}{_ARRAY}": _as_bytes(array) for name, array in arrays.items()}
    return {"index": index, "made": _packed(files, {"said": said})}


_ARRAY = "/array"
"""Ends the name of an array, as no file's can."""
_DIGITS = 12


def _packed(files: Mapping[str, bytes], facts: dict[str, Any]) -> bytes:
    """One value, which no list of NumPy's cuts at a zero byte: it ends with the length of what says what is in it."""
    sizes = {name: len(content) for name, content in files.items()}
    listed = json.dumps(facts | {"sizes": sizes}).encode()
    return b"".join((*files.values(), listed, f"{len(listed):0{_DIGITS}d}".encode()))


def _unpacked(made: bytes, target: Path) -> Made | None:
    end = len(made) - _DIGITS
    start = end - int(made[end:])
    facts = json.loads(made[start:end])
    if "failed" in facts:
        return None
    arrays, at = {}, 0
    for name, size in facts["sizes"].items():
        content, at = made[at : at + size], at + size
        if name.endswith(_ARRAY):
            arrays[name.removesuffix(_ARRAY)] = np.load(io.BytesIO(content), allow_pickle=False)
        else:
            (target / Path(name).name).write_bytes(content)
    return arrays, facts["said"]


def _as_bytes(array: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()

"""name -> part, for the few places where a recipe names a part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tunesmith.errors import ConfigError, near_miss

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to parts; refuses duplicates; an unknown name lists the near misses."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        def add(part: T) -> T:
            if name in self._parts:
                raise ConfigError(f"two {self.kind}s are called '{name}'", "one part for each name")
            self._parts[name] = part
            return part

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._parts:
            raise ConfigError(f"no {self.kind} is called '{name}'", near_miss(name, self._parts))
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

"""The models a server offers, by name and version."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tensign.errors import InvalidConfig, ModelNotFound, VersionNotFound
from tensign.model import Model
from tensign.turns import Turns


class Repository:
    """Names to loaded models, which take turns on the devices that they share. Version "" asks for the newest."""

    def __init__(self, models: list[Model]) -> None:
        self._versions: dict[str, dict[str, Model]] = {}
        for model in models:
            versions = self._versions.setdefault(model.name, {})
            if model.version in versions:
                raise InvalidConfig(f'two models are called "{model.name}" version {model.version}; give one another --name')
            versions[model.version] = model
        turns: dict[str, Turns] = {}
        for device, share in (each for model in models for each in model.shares):
            turns.setdefault(device, Turns()).add(share)

    def __iter__(self) -> Iterator[Model]:
        for versions in self._versions.values():
            yield from versions.values()

    @property
    def lost(self) -> bool:
        """Whether a model is served that only another process could run."""
        return any(model.lost for model in self)

    def get(self, name: str, version: str = "") -> Model:
        """Raises ModelNotFound or VersionNotFound."""
        versions = self._versions.get(name)
        if versions is None:
            raise ModelNotFound(f'model "{name[:64]}" is not served here; served: {", ".join(self._versions)}')
        if version and version not in versions:
            raise VersionNotFound(f'model "{name}" has no version "{version[:16]}"; served: {", ".join(versions)}')
        return versions[version] if version else versions[max(versions, key=_newest)]

    def versions(self, name: str) -> list[str]:
        """Every served version of a model, oldest first. Raises ModelNotFound."""
        self.get(name)
        return sorted(self._versions[name], key=_newest)

    def close(self, timeout_s: float) -> None:
        """Drains every model, within timeout_s for all of them."""
        until = time.monotonic() + timeout_s
        for model in self:
            model.close(max(until - time.monotonic(), 0))


def _newest(version: str) -> tuple[int, str]:
    """Numbers by value, before them whatever is no number."""
    return (int(version), version) if version.isdecimal() else (-1, version)

"""Builds the browser client into ``ebus_jupyter/static`` for the Python packages, so that installing a wheel needs no node."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent / "scripts"))
import npm

BUILT = ("client.js", "state.js", "stub.js")


class PageClient(BuildHookInterface[Any]):
    """Runs ``npm ci`` and ``npm run build`` in ``js/``, unless a source archive contains the built client."""

    def dependencies(self) -> list[str]:
        return [npm.WHEEL] if self._needed() and npm.system_npm() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not self._needed():
            return
        commands = [("run", "build")] if self._tools_are_current() else [("ci",), ("run", "build")]
        for command in commands:
            if npm.npm(*command) != 0:
                raise RuntimeError(f"`npm {' '.join(command)}` failed in js/; see its output above")
        missing = [name for name in BUILT if not (self._static() / name).exists()]
        if missing:
            raise RuntimeError(f"the build of the browser client has not made {', '.join(missing)}")

    def _static(self) -> Path:
        return Path(self.root) / "ebus_jupyter" / "static"

    def _needed(self) -> bool:
        if all((self._static() / name).exists() for name in BUILT):
            # A source archive contains the built client. In a checkout the sources may have changed: build again.
            return (Path(self.root) / ".git").exists() and "EBUS_SKIP_JS" not in os.environ
        return True

    def _tools_are_current(self) -> bool:
        """True if the packages of the lock file were installed after its last change."""
        installed = npm.JS / "node_modules" / ".package-lock.json"
        return installed.exists() and installed.stat().st_mtime >= (npm.JS / "package-lock.json").stat().st_mtime

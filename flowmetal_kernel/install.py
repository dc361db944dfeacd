"""The kernel spec: where it stands, and how it gets into an environment that was not installed with it.

In: a place (`--user`, `--sys-prefix`, a prefix). Out: the folder that was written. The one rule: pip has already done this;
it is here for environments and users that pip did not reach, and does nothing twice.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path

from flowmetal.errors import FlowmetalError

NAME = "flowmetal"
SPEC = {
    "display_name": "Flowmetal",
    "language": "flowmetal",
    "interrupt_mode": "signal",
    "metadata": {"debugger": False},
}


def is_installed() -> bool:
    """Whether Jupyter in this environment finds the kernel."""
    from jupyter_client.kernelspec import KernelSpecManager

    return NAME in KernelSpecManager().find_kernel_specs()


def install(*, user: bool = False, prefix: str | None = None) -> Path:
    """Writes the kernel spec for this Python: to the user's folder, to `prefix`, or else into this environment."""
    from jupyter_core.paths import jupyter_data_dir

    root = Path(jupyter_data_dir()) if user else Path(prefix or sys.prefix) / "share" / "jupyter"
    target = root / "kernels" / NAME
    try:
        target.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "flowmetal_kernel", "-f", "{connection_file}"]
        (target / "kernel.json").write_text(json.dumps({"argv": argv, **SPEC}, indent=2) + "\n", encoding="utf-8")
        _copy_logos(target)
    except OSError as error:
        raise FlowmetalError(f"cannot write the kernel spec to {target}: {error.strerror}", hint="try --user, or --prefix with a folder of yours") from error
    return target


def ensure_installed() -> Path | None:
    """Puts the kernel spec where it is missing; what was written, or None. Never fails: the caller has other work."""
    try:
        return None if is_installed() else install()
    except (FlowmetalError, ImportError):
        return None


def _copy_logos(target: Path) -> None:
    with as_file(files("flowmetal_kernel")) as package:
        for folder in (package.parent, Path(sys.prefix)):
            source = folder / "share" / "jupyter" / "kernels" / NAME
            for logo in sorted(source.glob("logo-*")):
                if source != target:
                    shutil.copyfile(logo, target / logo.name)

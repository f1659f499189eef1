"""Where it was measured: processor, cores, memory, system and packages."""

import os
import platform
from pathlib import Path
from typing import Any

_PROC = Path("/proc")

_UNITS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
"""What a processor may have that makes matrix products faster, by the names of Linux."""


def hardware() -> dict[str, Any]:
    """The machine; no name of the host, of a user or of a folder.

    Returns:
        ``cpu`` its model, ``units`` those of ``_UNITS`` it has, ``cores`` all that the system
        shows, ``cores_allowed`` those this process may use, ``memory_gb`` (1e9 bytes, ``None``
        where unknown), ``system``, and ``load``: how many processes were running in the last
        minute, ``None`` where unknown. Figures mean little where others worked, too.
    """
    about = _cpu_info()
    allowed = getattr(os, "sched_getaffinity", None)  # Python has it on some systems only, and
    has_load = hasattr(os, "getloadavg")  # this on other ones
    return {
        "cpu": about.get("model name") or platform.processor() or platform.machine(),
        "units": [unit for unit in _UNITS if unit in about.get("flags", "").split()],
        "cores": os.cpu_count(),
        "cores_allowed": len(allowed(0)) if allowed else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2) if has_load else None,
    }


def _cpu_info() -> dict[str, str]:
    """The first core's lines of what Linux says of the processor; empty elsewhere."""
    file = _PROC / "cpuinfo"
    if not file.is_file():
        return {}
    first = file.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _memory_gb() -> float | None:
    file = _PROC / "meminfo"
    if not file.is_file():
        return None
    total = next(line for line in file.read_text().splitlines() if line.startswith("MemTotal"))
    return round(int(total.split()[1]) * 1024 / 1e9, 1)

"""Attempts to read damaged files, in a process that may hang, die or grow without harm to others.

An attempt ends in a result or in an error of this package that names what it read. All else is a
failure: another error, a crash, a hang, more memory than the limit, a file written elsewhere, and
code that was run.
"""

import json
import os
import resource
import shutil
import sys
import time
import traceback
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fuzz.damage import pick

from anomalib_medclip.errors import MedclipError
from anomalib_medclip.readers.size_limit import LIMIT_VARIABLE

MOST_VOXELS = 2**22
"""The limit on sizes that readers are told here; a hundredth of their own."""

MOST_MEMORY = 300_000_000
"""Bytes that an attempt may add: 16 for each voxel as for a volume, what packages take for
themselves, and 2^26, the most that Pillow and a NIfTI header may unpack beside pixels."""

ADDRESSES = 3_000_000_000
"""Bytes of address space, beyond what there was before, at which the system refuses more."""

PROCESS = Path("/", "proc", "self")

MARK = "touched"
"""Name of the file that planted code would write."""


class Home(NamedTuple):
    """Folders of a campaign.

    Attributes:
        top: Above all.
        target: Name of the target.
    """

    top: Path
    target: str

    @property
    def whole(self):
        """A folder for each undamaged input."""
        return self.top / "whole" / self.target

    @property
    def given(self):
        """The folder of the input that is read; nothing outside its parent may be written."""
        return self.top / "at work" / self.target / "given"

    def kept(self, seed, number):
        """Where the input of an attempt is kept."""
        return self.top / "failures" / f"{self.target}-{seed}-{number}"

    def keep(self, seed, number):
        """Keep the input that is at work."""
        shutil.copytree(self.given, self.kept(seed, number), dirs_exist_ok=True)


def variants(home):
    """Each undamaged input: its folder and the path of the file to damage below it."""
    noted = json.loads((home.whole / "noted.json").read_text())
    return [(home.whole / name, path) for name, path in noted.items()]


def write_whole(target, home):
    """Write the undamaged inputs of a target, once."""
    if home.whole.exists():
        return
    noted = {}
    aside = home.whole.with_name(f".{home.target}")
    shutil.rmtree(aside, ignore_errors=True)
    for number, write in enumerate(target.whole):
        folder = aside / str(number)
        folder.mkdir(parents=True)
        noted[folder.name] = write(folder).relative_to(folder).as_posix()
    (aside / "noted.json").write_text(json.dumps(noted))
    aside.rename(home.whole)


def prepare(target, home, seed, number):
    """Lay out the input of an attempt, which depends on these numbers only; the damaged file."""
    random = np.random.default_rng([seed, zlib.crc32(target.name.encode()), number])
    every = variants(home)
    folder, path = pick(random, every)
    contents = [(one / name).read_bytes() for one, name in every]
    content = (folder / path).read_bytes()
    content = pick(random, target.damage)(content, random, contents)
    if random.random() < 0.3:
        with suppress(Exception):  # of what no longer has a form
            content = pick(random, target.damage)(content, random, contents)
    return lay_out(target, home, folder, path, content)


def lay_out(target, home, folder, path, content=None):
    """Copy an undamaged input, with another content of its file if there is one."""
    shutil.rmtree(home.given.parent, ignore_errors=True)
    shutil.copytree(folder, home.given)
    file = home.given / path
    if content is not None:
        file.write_bytes(content)
        target.mend(file)
    return file


def read_whole(target, home):
    """Read undamaged inputs until there is a result."""
    ends = []
    for one in variants(home):
        ends.append(read(target, lay_out(target, home, *one)))
        if ends[-1][0] == "result":
            return
    msg = f"no undamaged input can be read: {ends}"
    raise AssertionError(msg)


# --- one attempt


def attempt(target, file, home):
    """Read a file, and say how that ended."""
    limit_addresses()
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")  # the peak counts from here
    before, began = memory("VmRSS"), time.process_time()
    end, what = read(target, file)
    found = {"end": end, "what": what, "seconds": time.process_time() - began}
    found["memory"] = max(0, memory("VmHWM") - before)
    if found["memory"] > target.memory and end != "failed":
        found |= {"end": "failed", "what": f"memory: {found['memory'] / 1e6:.0f} MB more"}
    if strange := written_elsewhere(home):
        found |= {"end": "failed", "what": f"written: {strange}"}
    return found


def read(target, file):
    """How reading ends: in a result, in an error of ours, or in a failure and what that was."""
    watch.written.clear()
    try:
        target.read(file)
    except MedclipError as error:
        if short := of_memory(error):
            return "failed", f"memory refused: {short}"
        if not any(name in str(error) for name in (file.name, file.parent.name, *target.names)):
            return "failed", f"unnamed: {type(error).__name__}: {error}"
        return "typed", type(error).__name__
    except Exception as error:
        return "failed", described(error)
    return "result", ""


_OF_MEMORY = ("can't allocate", "unable to allocate", "bad_alloc", "insufficient memory",
              "cannot allocate", "alloc_cpu", "out of memory")  # fmt: skip


def of_memory(error):
    """The error of a refused request for memory, behind another."""
    while error is not None:
        said = str(error).lower()
        if isinstance(error, MemoryError) or any(words in said for words in _OF_MEMORY):
            return repr(error)[:200]
        error = error.__cause__ or error.__context__
    return ""


def described(error):
    """An error in a line: what it was, and the last place in this package that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if "anomalib_medclip" in one.filename] or frames[-1:]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:300]}"


def memory(name):
    """Bytes of this process that a line of its status says."""
    with (PROCESS / "status").open() as file:
        line = next(line for line in file if line.startswith(name))
    return int(line.split()[1]) * 1024


def limit_addresses():
    """Let the system refuse what would take the machine's memory."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + ADDRESSES, most))


def written_elsewhere(home):
    """What was written or run that should not have been."""
    own = str(home.given.parent)
    strange = [one for one in watch.written if not one.startswith((own, *OF_PACKAGES))]
    if (home.top / MARK).exists():
        (home.top / MARK).unlink()
        strange.append("planted code was run")
    return "; ".join(strange)


OF_PACKAGES = (os.devnull, str(PROCESS / "clear_refs"))
"""Where packages write for themselves, and an attempt."""

_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen")
_MAKES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink", "os.link",
          "shutil.rmtree", "socket.connect")  # fmt: skip


_BELOW = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.unlink")
"""Whose last argument may be the folder that a path is below."""


class Watch:
    """Notes what Python writes, removes and runs."""

    def __init__(self):
        self.written = []
        self.on = False

    def __call__(self, event, args):
        if not self.on:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(path, str | bytes | os.PathLike) and flags & (os.O_WRONLY | os.O_RDWR):
                self.written.append(os.fsdecode(path))
        elif event in _MAKES and isinstance(args[0], str | bytes | os.PathLike):
            below = args[-1] if event in _BELOW and args[-1] not in (None, -1) else None
            home = (PROCESS / "fd" / str(below)).readlink() if below else Path()
            self.written.append(os.path.abspath(home / os.fsdecode(args[0])))  # noqa: PTH100
        elif event in _RUNS:
            self.written.append(f"ran {event} {args[0]!r}"[:200])


watch = Watch()


# --- many attempts


def serve(target, home, seed, numbers, say):
    """Make attempts, one after another, and say of each that it begins and how it ended."""
    os.environ[LIMIT_VARIABLE] = str(MOST_VOXELS)
    sys.dont_write_bytecode = True
    write_whole(target, home)
    read_whole(target, home)  # by which packages load now, and are not counted
    sys.addaudithook(watch)
    for number in numbers:
        file = prepare(target, home, seed, number)
        say({"number": number, "begun": file.relative_to(home.given).as_posix()})
        watch.on = True
        found = attempt(target, file, home)
        watch.on = False
        if found["end"] == "failed":
            home.keep(seed, number)
        say({"number": number, **found})

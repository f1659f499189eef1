"""A process that has imported anomalib and this package once, and forks for each command.

    python fork_server.py SOCKET

It only imports. What computes may start threads, and a fork of a process with threads is not safe.
A fork goes on here as the interpreter that it was asked for: with its own folder, environment,
words, search path, streams and session. It ends as any interpreter ends, and leaves its modules to
the system. What a fork cannot have anew is what imports have read: the hash seed, and variables
such as OMP_NUM_THREADS.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

ANOMALIB = "anomalib.cli.cli", "anomalib.data", "anomalib.engine", "anomalib.models"
COMMANDS = (
    "anomalib_medclip.cli", "anomalib_medclip.commands.score", "anomalib_medclip.commands.slice",
)  # fmt: skip


@cache
def of_methods():
    """Import anomalib, methods and data; what the last two have brought, in a new interpreter."""
    for name in ANOMALIB:
        import_module(name)
    its_own = set(sys.modules)
    for _, name, _ in iter_modules(import_module("anomalib_medclip.models").__path__):
        import_module(f"anomalib_medclip.models.{name}.lightning_model")
    data = import_module("anomalib_medclip.data")
    for name in data.__all__:
        getattr(data, name)
    return set(sys.modules) - its_own


def import_all():
    """Everything that commands import, and no thread."""
    sys.modules["openvino_telemetry"] = None  # it starts a thread that calls home
    of_methods()
    for name in COMMANDS:
        import_module(name)
    if len(list(Path("/", "proc/self/task").iterdir())) > 1:
        sys.exit("an import has started a thread; a fork would copy its locks and not the thread")
    gc.freeze()  # else the first collection of a fork copies every page


def receive(listener):
    """The next command with its streams and the socket for its end; None once nobody asks."""
    message, files, _, _ = socket.recv_fds(listener, 1 << 18, 4)
    return (json.loads(message), files) if message else None


def fork(streams, answers):
    """True in the process that shall run the command; another waits for it, and tells its end."""
    if os.fork():
        return False
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not (pid := os.fork()):
        return True
    for stream in streams:
        os.close(stream)
    _, status = os.waitpid(pid, 0)
    os.write(answers, f"ended {os.waitstatus_to_exitcode(status)}".encode())
    os._exit(0)


def become(asked, streams):
    """Take over what an interpreter gets from whoever starts it."""
    if asked["new_session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["folder"])
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    own = [place for place in sys.path[1:] if place not in known]
    os.environ.clear()
    os.environ.update(asked["environment"])
    told = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = ["", *told, *own]
    sys.modules["numpy"].random.seed()


def execute(words):
    """Run ``-c CODE``, ``-m MODULE`` or a script, each with its own words, as ``__main__``."""
    kind, *rest = words
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = os.path.dirname(kind)  # noqa: PTH120 - as given, as an interpreter does
        runpy.run_path(kind, run_name="__main__")


def status_of(words):
    """Execute words, say what they raise, and return the exit status."""
    try:
        execute(words)
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)  # noqa: T201 - as an interpreter does
        return 1
    except BaseException:
        return status_of_hook(*sys.exc_info())
    return 0


def status_of_hook(*error):
    """Show an error that nobody has caught, and return the exit status, which a hook may choose."""
    try:
        sys.excepthook(*error)
    except SystemExit as left:
        return left.code
    return 1


def end(status):
    """End as an interpreter does, without the second of pulling down all that is imported."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)


if __name__ == "__main__":
    sys.modules["fork_server"] = sys.modules["__main__"]  # for test_startup.py
    import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    listener = socket.socket(fileno=int(sys.argv[1]))
    while request := receive(listener):
        asked, (*streams, answers) = request
        if fork(streams, answers):
            listener.close()
            become(asked, streams)
            os.write(answers, f"began {os.getpid()}".encode())
            os.close(answers)
            end(status_of(asked["words"]))
        for number in (*streams, answers):
            os.close(number)

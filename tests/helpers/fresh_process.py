"""Commands in a process of their own, without the seconds that each would spend on imports.

``start`` and ``run`` are ``subprocess.Popen`` and ``subprocess.run`` for Python's own words: a fork
server runs them, and where there is no fork, a new interpreter. Tests of the start itself, of what
it imports or reads before a command runs, use ``subprocess``.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE

SERVER = Path(__file__).with_name("fork_server.py")
BEGUN_WITH = {"env": dict(os.environ), "cwd": Path.cwd()}  # before any test changes it
FORKS = sys.platform == "linux"


def start(*words, cwd=None, env=None, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, new_session=False):
    """Start Python with these words: ``-c CODE ...``, ``-m MODULE ...`` or ``SCRIPT ...``."""
    streams = (stdin, stdout, stderr)
    if FORKS:
        asked = {
            "words": list(map(str, words)), "folder": str(Path(cwd or Path.cwd()).absolute()),
            "environment": dict(os.environ if env is None else env), "new_session": new_session,
        }  # fmt: skip
        return Forked(asked, streams)
    return subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=cwd, env=env, text=True,
        stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=new_session,
    )  # fmt: skip


def run(*words, timeout=None, **options):
    """Run Python with these words to its end, and return exit status and what it said."""
    process = start(*words, **options)
    said = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(words, process.returncode, *said)


def search_path(*first):
    """``PYTHONPATH`` for a process that is to find these folders, and then what it finds here."""
    return os.pathsep.join(filter(None, [*map(str, first), os.environ.get("PYTHONPATH", "")]))


@cache
def _server():
    """The socket of this process's fork server, which ends with it."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    words = [sys.executable, "-W", "ignore", SERVER, str(theirs.fileno())]
    subprocess.Popen(words, stdin=DEVNULL, stdout=DEVNULL, pass_fds=[theirs.fileno()], **BEGUN_WITH)
    theirs.close()
    return ours


class Forked:
    """A process of the fork server, with what tests need of ``subprocess.Popen``."""

    def __init__(self, asked, streams):
        theirs, ours = zip(*(_ends(*one) for one in enumerate(streams)), strict=True)
        self.stdin, self.stdout, self.stderr = ours
        self._told, answers = socket.socketpair(type=socket.SOCK_SEQPACKET)
        socket.send_fds(_server(), [json.dumps(asked).encode()], [*theirs, answers.fileno()])
        for number in (*theirs, answers.detach()):
            os.close(number)
        self.returncode, self._leads = None, asked["new_session"]
        self.pid = self._hear("began")

    def _hear(self, wanted):
        word, _, number = self._told.recv(64).decode().partition(" ")
        if word != wanted:
            msg = f"the fork server, or a process of it, did not start: {word} {number}"
            raise OSError(msg)
        return int(number)

    def wait(self, timeout=None):
        """The exit status, or minus the signal that killed it, once it has ended."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.pid, timeout)
            self.returncode = self._hear("ended")
            self._told.close()
        return self.returncode

    def poll(self):
        """The exit status; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode

    def communicate(self, timeout=None):
        """All that it says on both streams, once it has ended."""
        with ThreadPoolExecutor(2) as pool:
            said = [pool.submit(_read, stream) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return tuple(one.result() for one in said)

    def kill(self):
        """End it at once, as ``SIGKILL`` does, with all of its session if it has its own."""
        if self.poll() is None:
            (os.killpg if self._leads else os.kill)(self.pid, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error:
            self.kill()
        self.wait()
        for stream in filter(None, (self.stdin, self.stdout, self.stderr)):
            stream.close()


def _ends(number, given):
    """The file that the process gets as its stream, and the one that we keep, if any."""
    if given == PIPE:
        reads, writes = os.pipe()
        return (writes, os.fdopen(reads)) if number else (reads, os.fdopen(writes, "w"))
    if given == DEVNULL:
        return os.open(os.devnull, os.O_RDWR), None
    return os.dup(given.fileno()), None


def _read(stream):
    """All that comes from a stream, if it is ours."""
    return stream.read() if stream else None

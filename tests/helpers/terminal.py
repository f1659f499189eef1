"""What a person sees of a command: lines in a pipe, or in a terminal of 80 x 24 characters."""

import fcntl
import os
import pty
import struct
import sys
import termios

import fresh_process
import pyte
from command import PROGRAM

ROWS, COLUMNS = 24, 80
OURS = ("-m", "anomalib_medclip")
ANOMALIB = (PROGRAM,)


def piped(door, words, **options):
    """Exit status of a command, and its lines, of both streams."""
    done = fresh_process.run(*door, *words, **options)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def in_terminal(door, words, start=fresh_process.start, **options):
    """Exit status of a command, and all lines that a terminal has shown in the end."""
    screen = pyte.HistoryScreen(COLUMNS, ROWS, history=10_000, ratio=0.001)
    shown = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    with os.fdopen(theirs, "wb", 0) as end:
        process = start(*door, *words, stdout=end, stderr=end, env=environment, **options)
    while said := _read(ours):
        shown.feed(said)
    os.close(ours)
    history = ["".join(line[i].data for i in range(COLUMNS)) for line in screen.history.top]
    lines = [line.rstrip() for line in [*history, *screen.display]]
    while lines and not lines[-1]:
        lines.pop()
    return process.wait(), lines


def _read(end):
    """What has come from a terminal; nothing once its program has ended."""
    try:
        return os.read(end, 65536)
    except OSError:
        return b""


def anew(*words, **options):
    """A new interpreter, whose start counts, too, in the place of a fork."""
    import subprocess

    return subprocess.Popen([sys.executable, *map(str, words)], **options)

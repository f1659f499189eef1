"""Commands of somebody who may not read everything, whoever runs the tests."""

import json

import fresh_process

CODE = """
import ctypes, json, os, sys
from anomalib_medclip.cli import main

if os.geteuid() == 0:  # who, without capabilities, is a user as any other
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0
codes = []
for words in json.loads(sys.argv[1]):
    print("$", *words, file=sys.stderr, flush=True)
    codes.append(main(words))
print(json.dumps(codes))
"""


def run_unprivileged(*commands):
    """Run commands of this package one after another.

    Returns:
        The exit status of each, and what each has said on the error stream.
    """
    words = [[str(word) for word in command] for command in commands]
    done = fresh_process.run("-c", CODE, json.dumps(words), timeout=120)
    assert done.returncode == 0, done.stderr
    said = [part for part in ("\n" + done.stderr).split("\n$ ")[1:]]
    return json.loads(done.stdout.splitlines()[-1]), said

"""Commands that are told to stop while they work, and are started again."""

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

import fresh_process
import torch
import yaml
from command import metrics
from comparing import MVFA, figures, lesion_entry, records, write_config
from scans import numbers, write_volume
from tiny import SHALLOW
from volumes import write_patients

OURS = "from anomalib_medclip.cli import main; sys.exit(main(sys.argv[1:]))"
ANOMALIB = "from anomalib.cli.cli import main; main()"
PROGRAM = "import sys, tempfile; tempfile.tempdir = None; "
EXITS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
SMALL = ["--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false"]
FORKING = """
import multiprocessing
given = multiprocessing.get_context
multiprocessing.get_context = lambda _=None: given("fork")  # else each imports everything anew
"""


class Command(NamedTuple):
    """A command, of which a run that was stopped must leave no trace in the next one's results.

    Attributes:
        program: Code that runs it, given its words.
        words: Those, given the folder for results.
        works: Whether it has begun to work, given that folder.
        results: What is in that folder at the end, without times.
        goes_on: What the next run is told besides, given the folder.
        good: Exit status of success.
    """

    program: str
    words: Callable[[Path], list[str]]
    works: Callable[[Path], bool]
    results: Callable[[Path], Any]
    goes_on: Callable[[Path], list[str]] = lambda out: []
    good: int = 0

    def start(self, out, *more):
        """Start it in a process group of its own, with temporary files in a folder of its own."""
        aside = aside_of(out)
        aside.mkdir(exist_ok=True)
        words = [PROGRAM + self.program, *self.words(out), *more]
        return fresh_process.start(
            "-c", *words, env={**os.environ, "TMPDIR": str(aside)}, cwd=out.parent,
            stdout=fresh_process.DEVNULL, new_session=True,
        )  # fmt: skip

    def until_it_works(self, process, out):
        """Wait until it is at work, and return when that was."""
        while not self.works(out) and process.poll() is None:
            time.sleep(0.002)
        return time.monotonic()

    def undisturbed(self, out):
        """Results of a whole run, and how many seconds it works."""
        process = self.start(out)
        begun = self.until_it_works(process, out)
        _, said = process.communicate(timeout=120)
        shutil.rmtree(aside_of(out))
        assert process.returncode == self.good, said
        return self.results(out), time.monotonic() - begun

    def stopped(self, out, number, delay, whole, *, all_of_it=True):
        """Stop a run by a signal some seconds after it has begun to work; false if it had ended.

        All of its processes are told, as Ctrl-C in a terminal and SLURM do, or only the first.
        A process whose results are ``whole`` has ended its work, and may die as it likes.
        """
        process = self.start(out)
        self.until_it_works(process, out)
        time.sleep(delay)
        told = time.monotonic()
        if process.poll() is None:
            (os.killpg if all_of_it else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=60)
        if process.returncode in (self.good, -number) and self.is_done(out, whole):
            shutil.rmtree(aside_of(out))
            return False
        assert process.returncode == EXITS[number], (process.returncode, said)
        if number != signal.SIGKILL:
            assert time.monotonic() - told < 5, time.monotonic() - told
            assert "Traceback" not in said, said
            assert said.count("stopped;") + said.count("stopped before") == 1, said
            left = [path for top in (out, aside_of(out)) for path in hidden(top)]
            assert not left, left
        return True

    def is_done(self, out, whole):
        """Whether a run has left all its results."""
        try:
            return self.results(out) == whole
        except (OSError, ValueError, IndexError, StopIteration):
            return False

    def again(self, out):
        """Results of the run after."""
        process = self.start(out, *self.goes_on(out))
        _, said = process.communicate(timeout=120)
        shutil.rmtree(aside_of(out))
        assert process.returncode == self.good, said
        return self.results(out)


def aside_of(out):
    """Folder of a run's temporary files: a short name, since data loaders make sockets there."""
    return Path(gettempdir(), f"aside-{hashlib.sha256(bytes(out)).hexdigest()[:12]}")


def hidden(top):
    """What a run keeps from sight until it is whole, and whatever it puts aside."""
    keeps = ".lock", ".notes", ".cache", ".ses"  # the last of onnxruntime, and empty
    found = [path for path in top.rglob("*") if path.name.startswith((".", "tmp"))]
    return [path for path in found if not path.name.endswith(keeps)]


def holds(pattern):
    """Whether a folder holds something of this name."""
    return lambda folder: any(folder.glob(pattern))


def training(home, lesions):
    """``anomalib train``, which goes on from its last checkpoint."""
    config = home / "train.yaml"
    entry = lesion_entry(lesions, k_shot=2)
    entry["init_args"] |= {"train_batch_size": 4, "num_workers": 1}
    model = {
        "class_path": MVFA["class_path"],
        "init_args": {**MVFA["init_args"], "visualizer": False},
    }
    config.write_text(yaml.safe_dump({"model": model, "data": entry}))

    def checkpoints(out):
        return sorted(out.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)

    def results(out):
        learnt = torch.load(checkpoints(out)[-1], weights_only=False)["state_dict"]
        run = next(out.glob("MVFA/*/latest"))
        return {k: v.tolist() for k, v in learnt.items() if torch.is_tensor(v)}, metrics(run)

    return Command(
        ANOMALIB,
        lambda out: [
            "train", "--config", str(config), "--default_root_dir", str(out),
            "--trainer.max_epochs", "12", *SMALL,
        ],
        holds("MVFA/*/*/config.yaml"),
        results,
        lambda out: [f"--ckpt_path={path}" for path in checkpoints(out)[-1:]],
    )  # fmt: skip


def exporting(home, finished):
    """``anomalib export`` to ONNX."""
    config = home / "export.yaml"
    config.write_text(yaml.safe_dump({"model": {k: MVFA[k] for k in ("class_path", "init_args")}}))

    def results(out):
        certificate = json.loads(next(out.rglob("model.json")).read_text())
        return certificate["figures"], sorted(certificate["files"])

    return Command(
        ANOMALIB,
        lambda out: [
            "export", "--config", str(config), "--ckpt_path", str(finished),
            "--export_type", "onnx", "--export_root", str(out),
        ],
        holds(".*"),
        results,
    )  # fmt: skip


def slicing(home):
    """``anomalib-medclip slice``."""
    options = {
        "root": str(write_patients(home / "hospital", 24)), "name": "Brain", "slices": [0, 4],
        "sources": [{"image": "{patient}/flair.nii.gz", "mask": "{patient}/seg.nii.gz"}],
        "intensity": [0, 1000],
    }  # fmt: skip
    config = home / "volumes.yaml"
    entry = {"class_path": "anomalib_medclip.data.Volumes", "init_args": options}
    config.write_text(yaml.safe_dump(entry))
    return Command(
        OURS,
        lambda out: ["slice", str(config), "--out", str(out), "--jobs", "2"],
        holds("*/*/*/*/*.png"),
        contents,
    )


def scoring(home, finished):
    """``anomalib-medclip score`` of a folder of volumes."""
    for number in range(12):
        write_volume(home / "scans" / f"{number}.nii.gz", numbers((20, 18, 12), number))
    return Command(
        OURS,
        lambda out: [
            "score", str(home / "scans"), "--ckpt", str(finished), "--intensity", "[0, 1000]",
            "--worst", "1", "--out", str(out),
        ],
        holds("*/scores.json"),
        lambda out: {
            path.relative_to(out): path.read_bytes()
            for path in [*out.glob("*/map.nii.gz"), *out.glob("*/scores.json")]
        },
    )  # fmt: skip


def comparing(home, lesions):
    """``anomalib-medclip compare`` in two processes."""
    data = {"phantom": lesion_entry(lesions, num_workers=1)}
    models = {"MVFA": {**MVFA, "init_args": SHALLOW, "max_epochs": 1}}
    config = write_config(home / "c.yaml", models, data, seeds=[0, 1, 2])
    return Command(
        FORKING + OURS,
        lambda out: ["compare", str(config), "--out", str(out), "--device", "cpu", "--jobs", "2"],
        holds("claims/*.lock"),
        lambda out: (records(out), figures(out)),
    )


def contents(folder):
    """All files below a folder."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

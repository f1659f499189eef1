"""Runs of anomalib's engine in one process, or in several that share the work.

As a script, this is one of the processes.
"""

import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import fresh_process
import torch
from command import rows

PATIENCE = 60
"""Seconds after which processes that wait for one another fail the test."""


class Found(NamedTuple):
    """What a run has found.

    Attributes:
        home: Its folder.
        ranks: Of each process, a model's ``state`` and, for each thing that was done, ``figures``,
            ``steps`` of the optimiser, mean ``loss`` of the last epoch, and ``folder``.
    """

    home: Path
    ranks: list[dict[str, Any]]

    def of(self, name):
        """What all processes have found alike."""
        first, *others = (one[name] for one in self.ranks)
        assert all(other == first for other in others), (first, others)
        return first

    @property
    def state(self):
        """What was learnt, the same in all processes to the bit."""
        first, *others = (one["state"] for one in self.ranks)
        for other in others:
            for name, value in first.items():
                torch.testing.assert_close(value, other[name], atol=0, rtol=0, equal_nan=True)
        return first

    @property
    def folders(self):
        """Folders of results."""
        return [self.home / folder for folder in self.of("folder")]

    def table(self, number=-1):
        """Scores of images by path, in the order of the file, of one of the things done."""
        return rows(self.folders[number] / "test_scores.csv")


def start(home, world, **asked):
    """Begin as many processes; see ``work`` for what may be asked."""
    home.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"NODE_RANK": "0", "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    told = json.dumps({"home": str(home), **asked})
    path = {"PYTHONPATH": fresh_process.search_path(Path(__file__).parent)}
    return [
        fresh_process.start(
            __file__, told, cwd=home, stdout=fresh_process.DEVNULL,
            env={**os.environ, **path, **place, "MASTER_PORT": port, "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]  # fmt: skip


def ended(processes):
    """Exit status and complaints of each process, once all have ended; in time, or a test fails."""
    with ExitStack() as stack, ThreadPoolExecutor(len(processes)) as pool:
        for process in processes:
            stack.callback(process.kill)
        said = list(pool.map(lambda process: process.communicate(timeout=PATIENCE), processes))
        return [(p.returncode, error) for p, (_, error) in zip(processes, said, strict=True)]


def run(home, world, **asked):
    """What a whole run has found, in so many processes."""
    said = ended(start(home, world, **asked))
    assert not any(status for status, _ in said), "\n".join(error for _, error in said)
    return Found(home, [torch.load(home / f"{rank}.pt") for rank in range(world)])


def work(home, model, doing, trainer=None):
    """Do as one of several processes what was asked, and leave what was found.

    Args:
        home: Folder for results.
        model: Class path and arguments.
        doing: One after the other with the same model: a verb of the engine, class path and
            arguments of data, and further options of the verb.
        trainer: Options of Lightning's trainer.
    """
    from anomalib.engine import Engine
    from lightning.pytorch import Callback

    from anomalib_medclip.clip.backbone import without_clip

    class Losses(Callback):
        last = None

        def on_train_end(self, trainer, _module):
            loss = trainer.callback_metrics.get("train_loss_epoch")
            self.last = loss and float(loss)

    losses = Losses()
    trained, found = made(model), {"figures": [], "steps": [], "folder": [], "loss": []}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    usual = {**quiet, "accelerator": "cpu", "callbacks": [losses]}
    world = int(os.environ["WORLD_SIZE"])
    together = {"devices": world, "strategy": "ddp"} if world > 1 else {"devices": 1}
    for number, (verb, data, options) in enumerate(doing):
        engine = Engine(
            default_root_dir=Path(home, str(number)), **{**usual, **together, **(trainer or {})}
        )
        figures = getattr(engine, verb)(trained, datamodule=made(data), **options)
        found["figures"].append(figures if verb in ("train", "test") else None)
        found["steps"].append(engine.trainer.fit_loop.epoch_loop.global_step)
        found["loss"].append(losses.last)
        folder = Path(engine.trainer.default_root_dir)
        found["folder"].append(str(folder.relative_to(home)))
    found["state"] = {name: v.clone() for name, v in without_clip(trained.state_dict()).items()}
    torch.save(found, Path(home, f"{os.environ['LOCAL_RANK']}.pt"))


def made(entry):
    return resolve_name(entry["class_path"])(**entry["init_args"])


if __name__ == "__main__":
    work(**json.loads(sys.argv[1]))

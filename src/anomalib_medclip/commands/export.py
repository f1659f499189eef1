"""``anomalib-medclip export``: a checkpoint becomes a file that other programs run."""

from pathlib import Path
from typing import Any

from anomalib_medclip.commands.engine import Words, data_of, model_of, run_engine
from anomalib_medclip.errors import ConfigError

USAGE = "anomalib-medclip export CKPT --export_type openvino|onnx|torch [OPTION VALUE ...]"
HELP = f"""usage: {USAGE}

Export the model of a checkpoint, with a certificate that it is the same model. It goes to the
folder of its run, or to --export_root. OPTION is any of `anomalib export`, such as
--compression_type FP16, in any order. For INT8_PTQ a data config may follow, whose images
calibrate it."""


def run(arguments: list[str]) -> int:
    """Export.

    Returns:
        0; what is wrong is raised.

    Raises:
        MedclipError: The checkpoint or an option is wrong, or nothing can be written.
    """
    checkpoint, config, words = Words.of(arguments).take_places(USAGE)
    kind, words = words.take("--export_type")
    if not kind:
        msg = f"no kind of file was given; give --export_type: {USAGE}"
        raise ConfigError(msg)
    asked: dict[str, Any] = {
        "model": model_of(checkpoint), "ckpt_path": checkpoint, "export_type": kind,
        "export_root": str(_run_of(Path(checkpoint))),
    }  # fmt: skip
    run_engine("export", asked | ({"data": data_of(config)} if config else {}), words.options)
    return 0


def _run_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint lies in, or else its own folder.

    Example:
        >>> _run_of(Path("/runs/v0/weights/lightning/model.ckpt")).as_posix()
        '/runs/v0'
    """
    home = checkpoint.resolve().parent
    return home.parents[1] if home.parts[-2:] == ("weights", "lightning") else home

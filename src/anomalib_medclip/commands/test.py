"""``anomalib-medclip test``: what a checkpoint finds on data."""

from anomalib_medclip.commands.engine import Words, data_of, model_of, run_engine
from anomalib_medclip.errors import ConfigError

USAGE = "anomalib-medclip test CKPT CONFIG [OPTION VALUE ...]"
HELP = f"""usage: {USAGE}

Test the model of a checkpoint on data. CONFIG describes data, alone or as part of a run. OPTION is
any of `anomalib test`, such as --data.seed 1 or --model.visualizer false, in any order. Results go
to a folder of their own; no run is overwritten."""


def run(arguments: list[str]) -> int:
    """Test.

    Returns:
        0; what is wrong is raised.

    Raises:
        MedclipError: The checkpoint, an option or the data are wrong, or nothing can be written.
    """
    checkpoint, config, words = Words.of(arguments).take_places(USAGE)
    if config is None:
        msg = f"no data were given; give a data config: {USAGE}"
        raise ConfigError(msg)
    asked = {"model": model_of(checkpoint), "data": data_of(config), "ckpt_path": checkpoint}
    run_engine("test", asked, words.options)
    return 0

"""``anomalib-medclip train``: train a model on data, and test it."""

from anomalib_medclip.commands.engine import Words, model_named, run_engine
from anomalib_medclip.data.config import read_config
from anomalib_medclip.errors import ConfigError

USAGE = "anomalib-medclip train CONFIG [--model NAME] [--ckpt_path CKPT] [OPTION VALUE ...]"
HELP = f"""usage: {USAGE}

Train a model on data, and test it. CONFIG describes a run, as configs/demo.yaml does, or data
alone, as configs/folder.yaml does; then --model says which method. OPTION is any of `anomalib
train`, such as --trainer.max_epochs 20, --data.k_shot 8 or --model.lr 0.001, in any order. With
--ckpt_path a training goes on that was stopped."""


def run(arguments: list[str]) -> int:
    """Train and test.

    Returns:
        0; what is wrong is raised.

    Raises:
        MedclipError: The config, an option or the data are wrong, or nothing can be written.
    """
    words = Words.of(arguments)
    config, words = words.take("--config", "--data")
    given = [*words.places, *([config] if config else [])]
    if len(given) != 1:
        msg = f"{' and '.join(given) or 'no config'} was given; give one config: {USAGE}"
        raise ConfigError(msg)
    name, words = words.take("--model")
    options = [*(["--model", model_named(name)] if name else []), *words.options]
    if "model" in (described := read_config(given[0])):
        run_engine("train", given[0], options)
    elif name:
        run_engine("train", {"data": described.get("data", described)}, options)
    else:
        msg = f"{given[0]} describes data and no model; add --model MVFA, or another method"
        raise ConfigError(msg)
    return 0

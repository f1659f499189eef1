"""``anomalib-medclip predict``: scores and heat maps of images, by a checkpoint."""

from pathlib import Path
from typing import Any

from anomalib_medclip.commands.engine import Words, data_of, is_config, model_of, run_engine
from anomalib_medclip.errors import ConfigError, DataRootError

USAGE = "anomalib-medclip predict CKPT IMAGES|CONFIG [OPTION VALUE ...]"
HELP = f"""usage: {USAGE}

Give every image a score and a heat map. IMAGES is a picture or a folder of such, CONFIG a data
config, whose test images are taken. OPTION is any of `anomalib predict`, in any order. Volumes are
scored by `anomalib-medclip score`."""


def run(arguments: list[str]) -> int:
    """Predict.

    Returns:
        0; what is wrong is raised.

    Raises:
        MedclipError: The checkpoint, an option or the images are wrong, or nothing can be written.
    """
    checkpoint, place, words = Words.of(arguments).take_places(USAGE)
    if place is None:
        msg = f"no images were given; give a picture, a folder or a data config: {USAGE}"
        raise ConfigError(msg)
    data: Any = data_of(place) if is_config(place) else place
    if data is place and not Path(place).exists():
        msg = f"there is no picture or folder {place}; correct its name"
        raise DataRootError(msg)
    asked = {"model": model_of(checkpoint), "data": data, "ckpt_path": checkpoint}
    run_engine("predict", asked, words.options)
    return 0

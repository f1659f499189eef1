"""What may name a file, a folder or a patient is left out of command and config."""

import re

import yaml

_WITHHELD = "(path withheld)"
_ARGUMENT = re.compile(r"""(?:'[^']*'|"[^"]*"|\S)+""")
# argparse takes shortened options, too.
_TARGET = re.compile(rf"(--(?:o|ray-a)[\w-]*[ =]){_ARGUMENT.pattern}")
_OF_PATIENTS = "splits"
"""The option of data that names patients."""

_OF_FILES = re.compile(r"(?<!class)(?:^|_)(root|dirs?|paths?|tables?|files?|folders?|list)$")
_LIKE_A_FILE = re.compile(
    r"[/\\]|\.(png|jpe?g|bmp|tiff?|dcm|dicom|nii|gz|[ct]sv|jsonl?|npz|pt|ckpt)$",
    re.IGNORECASE,
)


def without_paths(text: str) -> str:
    """A command; of its paths only names of configs stay, which stand for no patient.

    >>> without_paths("anomalib-medclip compare configs/heads.yaml --out /data/results")
    'anomalib-medclip compare heads.yaml --out (path withheld)'
    """
    text = _TARGET.sub(lambda found: found.group(1) + _WITHHELD, text)
    return _ARGUMENT.sub(_without_path, text)


def _without_path(argument: re.Match[str]) -> str:
    found = argument.group()
    return _config_name(found) if re.search(r"[/\\]", found) else found


def _config_name(path: str) -> str:
    last = re.split(r"[/\\]", path)[-1]
    return last if last.endswith((".yaml", ".yml")) else _WITHHELD


def config_without_paths(config: str) -> str:
    """The config's choices; comments and whatever may name a file are left out."""
    choices = _withheld(yaml.safe_load(config))
    kept: str = yaml.safe_dump(choices, sort_keys=False, allow_unicode=True)
    return kept


def _withheld(value: object, key: str = "") -> object:
    if key == _OF_PATIENTS:
        return "(withheld)"
    if isinstance(value, dict):
        below = key if _OF_FILES.search(key) else ""
        return {name: _withheld(of, below or str(name)) for name, of in value.items()}
    if isinstance(value, list):
        return [_withheld(of, key) for of in value]
    if isinstance(value, str) and (_OF_FILES.search(key) or _LIKE_A_FILE.search(value)):
        return _config_name(value)
    return value

from .anoddpm import AnoDDPM as AnoDDPM
from .bgad import BGAD as BGAD
from .cutpaste import CutPaste as CutPaste
from .dra import DRA as DRA
from .medclip import MedCLIP as MedCLIP
from .mkd import MKD as MKD
from .patchsvdd import PatchSVDD as PatchSVDD
from .regad import RegAD as RegAD
from .simplenet import SimpleNet as SimpleNet
from .squid import SQUID as SQUID
from .trivial import ImageSize as ImageSize
from .trivial import MeanIntensity as MeanIntensity
from .winclip import WinCLIP as WinCLIP

__all__: list[str]

def list_baselines() -> list[str]: ...

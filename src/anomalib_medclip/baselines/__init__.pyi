from .medclip import MedCLIP as MedCLIP
from .trivial import ImageSize as ImageSize
from .trivial import MeanIntensity as MeanIntensity
from .winclip import WinCLIP as WinCLIP

__all__: list[str]

def list_baselines() -> list[str]: ...

from .lightning_model import PatchSVDD as PatchSVDD
from .torch_model import PatchSVDDModel as PatchSVDDModel

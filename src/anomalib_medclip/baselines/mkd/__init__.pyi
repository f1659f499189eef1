from .lightning_model import MKD as MKD
from .torch_model import MKDModel as MKDModel

from .lightning_model import MadCLIP as MadCLIP
from .torch_model import MadCLIPModel as MadCLIPModel

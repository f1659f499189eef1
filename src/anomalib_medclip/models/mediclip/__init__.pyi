from .lightning_model import MediCLIP as MediCLIP
from .torch_model import MediCLIPModel as MediCLIPModel

from .lightning_model import SimpleNet as SimpleNet
from .torch_model import SimpleNetModel as SimpleNetModel

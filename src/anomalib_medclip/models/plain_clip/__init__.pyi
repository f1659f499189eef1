from .lightning_model import PlainCLIP as PlainCLIP
from .torch_model import PlainCLIPModel as PlainCLIPModel

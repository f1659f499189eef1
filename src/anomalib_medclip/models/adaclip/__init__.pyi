from .lightning_model import AdaCLIP as AdaCLIP
from .torch_model import AdaCLIPModel as AdaCLIPModel

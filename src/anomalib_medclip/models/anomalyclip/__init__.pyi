from .lightning_model import AnomalyCLIP as AnomalyCLIP
from .torch_model import AnomalyCLIPModel as AnomalyCLIPModel

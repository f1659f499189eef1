from .lightning_model import IQECLIP as IQECLIP
from .torch_model import IQECLIPModel as IQECLIPModel

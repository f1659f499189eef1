from .lightning_model import MVFA as MVFA
from .torch_model import MVFAModel as MVFAModel

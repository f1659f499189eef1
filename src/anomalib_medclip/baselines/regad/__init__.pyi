from .lightning_model import RegAD as RegAD
from .torch_model import RegADModel as RegADModel

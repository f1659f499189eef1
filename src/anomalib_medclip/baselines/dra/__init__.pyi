from .lightning_model import DRA as DRA
from .torch_model import DRAModel as DRAModel

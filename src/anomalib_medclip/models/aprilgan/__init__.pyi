from .lightning_model import APRILGAN as APRILGAN
from .torch_model import APRILGANModel as APRILGANModel

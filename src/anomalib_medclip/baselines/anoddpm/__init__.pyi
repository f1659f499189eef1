from .lightning_model import AnoDDPM as AnoDDPM
from .torch_model import AnoDDPMModel as AnoDDPMModel

from .lightning_model import CutPaste as CutPaste
from .torch_model import CutPasteModel as CutPasteModel

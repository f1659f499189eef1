"""CLIP as open_clip has it: which one, its weights, its frozen towers.

=====================  =========================================================
``source``             what a backbone's name stands for, and what is said of it
``weights``            where CLIP's weights come from
``torchscript``        tensors of a TorchScript archive, of which nothing is run
``loading``            from a configuration to a module of open_clip's, and weights into it
``backbone``           which CLIP, from open_clip, and its fingerprint
``blocks``             the residual blocks of both towers
``partial_attention``  some tokens through a block, reading others
``trunks``             how an image tower runs, taken apart
``timm_trunk``         the same of timm's image towers
``tokens``             sentences to tokens
``texts``              how a text tower runs, taken apart
``hugging_face``       what text towers and tokenizers of Hugging Face need
``image_tower``        the frozen image tower
``text_tower``         the frozen text tower
``towers``             both, by the names that methods know
``value_path``         a second stream beside the image tower, of values
=====================  =========================================================
"""

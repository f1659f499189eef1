"""CLIP as open_clip has it: which one, its weights, its frozen towers.

=====================  =========================================================
``weights``            where CLIP's weights come from
``torchscript``        tensors of a TorchScript archive, of which nothing is run
``backbone``           which CLIP, from open_clip, and its fingerprint
``blocks``             the residual blocks of both towers
``trunks``             how an image tower runs, taken apart
``partial_attention``  some tokens through a block, reading others
``towers``             the frozen image and text towers
=====================  =========================================================
"""

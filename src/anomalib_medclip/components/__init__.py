"""What two or more methods use; no part here knows a method, a data set or the other parts' users.

========================  =====================================================================
``weights``               where CLIP's weights come from
``clip``                  which CLIP, from open_clip
``blocks``                the residual blocks of both
``reading``               some tokens through a block, reading others
``towers``                its frozen image and text towers
``clip_model``            what every method's torch model has
``prompts``               words about an object, to two text features
``learnable_prompts``     prompts with context words that learn
``prompting``             text features of whatever sets the data have
``anomaly_map``           tokens and text features, to a heat map
``losses``                focal and dice loss of a heat map
``augmentation``          the fixed copies of each support image
``encoding``              a batch, to its frozen features
``nearest``               the row with the largest cosine, exact and fast
``memory_bank``           normal tokens, and the distance to the nearest of them
``processors``            before and after a model: one resize, a normalisation that keeps ranks
``results``               pictures, scores and metrics on disk
``epoch_choice``          the best epoch by validation, for those who ask
``checkpoints``           what was learnt, without the backbone
``runtimes``              exported files as functions: torch, ONNX Runtime, OpenVINO
``certificate``           whether an exported model is the trained one, in figures
``mixed_precision``       which part of an OpenVINO file may be computed in bf16
``compression``           which part of an export becomes integers, and within which bound
``provenance``            versions and hashes, for whatever is written down
``export``                anomalib's exports, each with its certificate
``meeting``               what a model learns from its datamodule before it can score
``lightning_mixin``       the above under Lightning and anomalib
========================  =====================================================================
"""

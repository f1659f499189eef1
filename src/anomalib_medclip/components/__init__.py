"""What methods are built from; no part here knows a method, a data set or the other parts' users.

=====================  =======================================================================
``model``              what every method's torch model has: levels, text features, its verbs
``prompts``            words about an object, to two text features
``learnable_prompts``  prompts with context words that learn
``deep_prompts``       vectors that enter the text tower anew before several blocks
``image_prompts``      prompts that depend on the image
``class_tokens``       what they take of it
``folded_attention``   few queries that read many tokens
``smoothing``          a Gaussian filter of maps
``released``           files of what authors have trained, by their names
``anchors``            two learnt vectors in the place of prompts
``anomaly_map``        tokens and text features, to a heat map
``losses``             focal and dice loss of a heat map
``augmentation``       the fixed copies of each support image
``memory_bank``        normal tokens, and the distance to the nearest of them
``faiss_index``        the row with the largest cosine, by FAISS on a processor or on GPUs
``nearest``            the same by plain products, or by a scan in bf16
``buffers``            buffers whose size is known only when they are filled
``finite``             what is NaN or infinite is refused
``processors``         before and after a model: one resize, a normalisation that keeps ranks
``prediction``         files that anomalib predicts by path, and those that it leaves out
``threshold``          where a score becomes abnormal
=====================  =======================================================================
"""

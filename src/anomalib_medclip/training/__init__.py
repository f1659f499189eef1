"""A method under Lightning and anomalib: what it learns, when, and what it leaves on disk.

====================  =================================================================
``method``            the hooks that Lightning calls, and the parts that a method holds
``options``           the options that all methods share
``prompt_options``    those of prompts, and what becomes of them
``preparation``       what has to be known before images are scored
``text_features``     what the prompts say of every set
``frozen_features``   what the frozen tower says of images, encoded once
``support``           when a model has seen its support
``schedule``          when a training validates, and when it is finished
``datamodule_view``   what a datamodule of any making says
``processes``         several processes do together what one does
``user_components``   processors, evaluator and visualizer that a user has passed
``gaps``              what a datamodule or a trainer lacks
``threshold_source``  which images a threshold is found on
``cross_fit``         scores of support images by models that have not seen them
``epoch_choice``      the best epoch by validation, for those who ask
``divergence``        what stops a run at NaN
``evaluators``        how scores are measured in training and test
``results``           pictures, scores and metrics on disk
``checkpoints``       what was learnt, without the backbone
``fitting``           whether what a checkpoint holds is made for the model at hand
====================  =================================================================
"""

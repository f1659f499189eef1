"""Methods side by side: a grid of models, data, K and draws, each cell trained once and kept.

==================  ===========================================================================
``comparison``      what is asked for, from a YAML file
``grid``            a config becomes cells, each named by all that determines it
``named_files``     the files and the code that a cell depends on
``run_cell``        one cell becomes one record: trained, tested, measured
``cell_setup``      its model, anomalib's Engine, the features it shares
``captured_log``    what it says is kept, and not shown
``epochs``          what each epoch would have scored on the test images; never fed back
``evaluation``      the trained model is tested on each of its sets
``evaluator``       figures, the score of every image, pixel curves
``pictures``        which test images are kept to look at
``explanation``     what lies behind the scores of some of them
``oracle``          the epoch that is best on the test images
``facts``           what was done: epochs, support, where the threshold is from
``cost``            seconds and megabytes
``declared``        what a model says of itself, be it ours or not
``untouched``       a model is looked at, and is afterwards as it was
``cell_record``     what is known of a cell that was run
``dataset_result``  what it was found to be on one test set
``typed_json``      dataclasses from what JSON holds
``store``           records on disk, one JSON a cell; who works on which
``kept``            what a former plan has found besides a new one
``runners``         one process, a Ray cluster, a share of the cells
``processes``       several processes, of which one may die
==================  ===========================================================================
"""

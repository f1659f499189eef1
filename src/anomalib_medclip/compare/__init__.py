"""Methods side by side: a grid of models, data, K and draws, each cell trained once and kept.

================  =============================================================================
``config``        what is asked for, from a YAML file
``grid``          a config becomes cells, each named by all that determines it
``inputs``        the files and the code that a cell depends on
``cell``          one cell becomes one record: trained, tested, measured
``epochs``        what each epoch would have scored on the test images; never fed back
``testing``       figures, the score of every image, pixel curves
``gallery``       which test images are kept to look at
``cost``          seconds and megabytes
``store``         records on disk, one JSON a cell; who works on which
``runners``       one process, a Ray cluster, a share of the cells
``crew``          several processes, of which one may die
================  =============================================================================
"""

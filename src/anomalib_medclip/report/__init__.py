"""Records of a comparison become one page to look at, and tables to work with.

====================  =========================================================================
``columns``           the figures and the costs that are shown, one list of each
``rows``              what the other modules hand to one another
``runs``              the finished cells behind a row, draw by draw
``evidence``          draws of a row, and how each patient moves its figures
``best``              which row is the best, where patients and draws support that there is one
``summary``           records become rows: means, intervals, both protocols, published figures
``palette``           one colour for each model
``drawing``           what all charts have in common
``figure_charts``     charts of the rows: gap, accuracy against K and against cost
``curve_charts``      charts of the scores: ROC, precision-recall, calibration
``charts``            all of them, as plotly figures
``table_files``       rows as CSV, JSON and LaTeX
``gallery``           the same images under every method
``explanations``      which explanations are shown
``explain``           maps of each level, nearest support
``embedding_charts``  charts of the embeddings
``redaction``         command and config without what may name a file or a patient
``lost_lesions``      what the resize of a model takes from the masks, in words
``sentences``         what the table says, in a few sentences
``page``              all of it becomes ``report.html``
``write``             page and tables are written beside the records
====================  =========================================================================
"""

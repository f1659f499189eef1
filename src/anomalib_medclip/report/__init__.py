"""Records of a comparison become one page to look at, and tables to work with.

================  =============================================================================
``rows``          what the other modules hand to one another
``summary``       records become rows: means, intervals, both protocols, published figures
``charts``        rows and records become plotly figures
``tables``        rows as CSV, JSON and LaTeX
``gallery``       the same images under every method
``words``         what the table says, in a few sentences
``palette``       one colour per model
``page``          all of it becomes ``report.html``
================  =============================================================================
"""

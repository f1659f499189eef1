"""Golden cases, method by method: ``MVFACase`` of ``mvfa.py``, and so on.

A case names its ``tolerances``, the ``inputs_pattern`` of arrays that are not compared, and
``fewest``: how many have to be.
"""

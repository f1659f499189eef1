"""The papers' tables, made again: ours beside theirs.

==============  ==============================================================================
``tables``      which config remakes which table, and what its rows are called in print
``lines``       a config becomes the lines that are to be had of it, without any data
``inputs``      where data lie, which are missing, and where these are requested
``hours``       what all of it will take, from what ``bench`` has measured
``weights``     which weights models lack, where that is known beforehand
``beside``      each printed figure with ours: difference, interval, both protocols
``otherwise``   what is done otherwise than in the papers
``page``        all of it as a page and as a table
==============  ==============================================================================

Research use only.
"""

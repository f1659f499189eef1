"""What a method costs, as a ratio to CLIP's own image encoder measured in the same run.

=================  =============================================================================
``settings``       what is measured, a setting for each row
``timing``         two calls take turns, and are timed
``scoring``        what is timed when images are scored, by torch models alone
``build``          what is timed: a method's scoring, training or search
``profile``        where the time goes
``roofline``       what the machine can do
``quality``        whether a faster model still says the same
``measure``        a setting becomes a row
``fresh_process``  the same in a process of the row's own
``machine``        where it was measured
``output``         rows on disk and on the screen
=================  =============================================================================
"""

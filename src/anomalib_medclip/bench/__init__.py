"""What a method costs, as a ratio to CLIP's own image encoder measured in the same run.

``settings`` says what is measured, ``timing`` takes turns and times, ``subjects`` builds what is
timed, ``measure`` makes a row of it in a process of its own, ``machine`` says where, and
``results`` keeps and shows the rows.
"""

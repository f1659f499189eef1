"""What a method costs, as a ratio to CLIP's own image encoder measured in the same run.

``settings`` says what is measured, ``timing`` takes turns and times, ``subjects`` builds what is
timed, ``measure`` makes a row of it, ``apart`` does so in a process of the row's own, ``machine``
says where it was, and ``results`` keeps and shows the rows.
"""

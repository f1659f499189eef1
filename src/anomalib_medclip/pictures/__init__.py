"""One drawing for all pictures: of a test, of predictions, of ``score``, and of the report.

A heat map is laid over its image by one scale of colours, see-through where nothing is abnormal;
truth and prediction are outlined in two colours and two kinds of line, and lesions that were
missed, and detections that find none, are named. Nothing here knows models, data or files.
"""
